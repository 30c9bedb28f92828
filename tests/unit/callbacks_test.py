"""Callbacks: what they decide and change, by hand; and that runs stay exact."""

import functools
import json
import re
import types

from flax import linen as nn
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dopamine_jax import agent as agent_lib
from dopamine_jax import errors
from dopamine_jax import networks
from dopamine_jax import runner as runner_lib
from dopamine_jax import values
from dopamine_jax.agents import dqn
from dopamine_jax.agents import sac
from dopamine_jax.agents import tandem
from dopamine_jax.analysis import run_report
from dopamine_jax.analysis import runs as runs_lib
from dopamine_jax.callbacks import base
from dopamine_jax.callbacks import redo
from dopamine_jax.callbacks import resets
from dopamine_jax.callbacks import stages
from dopamine_jax.callbacks import stopping
from dopamine_jax.callbacks import wiring
from dopamine_jax.checkpoints import checkpoints as checkpoints_lib
from dopamine_jax.checkpoints import state_arrays
from dopamine_jax.engines import compiled
from dopamine_jax.engines import evaluation
from dopamine_jax.engines import python_engine
from dopamine_jax.environments import catch
from dopamine_jax.learning import actor_critic
from dopamine_jax.metrics import csv_file
from dopamine_jax.networks import heads
from dopamine_jax.playing import trained
from dopamine_jax.replay import uniform
from dopamine_jax.training import advice
from dopamine_jax.training import fingerprint
from tests import programs

TRAIN, EVAL = stopping.RETURNS


def seen(iteration=1, *, evaluates=True, has_checkpoint=True, **statistics):
  names = {'train': TRAIN, 'eval': EVAL}
  return base.Seen(
    iteration=iteration,
    agent_steps=10 * iteration,
    statistics={names[k]: np.array(v, float) for k, v in statistics.items()},
    evaluates=evaluates,
    has_checkpoint=has_checkpoint,
    can_sample=True,
  )


def decisions(callback, *iterations):
  """Returns what a callback answers to one iteration after the other."""
  own, answers = callback.init(), []
  for each in iterations:
    answers.append(callback.after_iteration(each, own))
    own = answers[-1].own
  return answers


def test_early_stopping_takes_the_mean_over_seeds_and_iterations():
  callback = stopping.EarlyStopping(at_return=10, num_values=2)
  answers = decisions(
    callback,
    seen(eval=[30, 10]),  # one value, not two
    seen(train=[99, 99]),  # not evaluated
    seen(eval=[-10, 6]),  # (20 - 2) / 2 = 9
    seen(eval=[20, 24]),  # (-2 + 22) / 2 = 10
  )
  assert [bool(each.stop) for each in answers] == [False, False, False, True]
  assert answers[-1].stop == (
    'Eval/AverageReturns = 10, over 2 of them, at least 10'
  )


def test_early_stopping_waits_for_each_seed_to_have_a_return():
  callback = stopping.EarlyStopping(at_return=1, statistic=TRAIN)
  answers = decisions(
    callback, seen(train=[9, np.nan]), seen(train=[0, 1.9]), seen(train=[0, 2])
  )
  assert [bool(each.stop) for each in answers] == [False, False, True]


def test_the_first_of_the_best_checkpoints_is_kept():
  answers = decisions(
    stopping.KeepBest(),
    seen(train=[9], eval=[1]),
    seen(train=[10]),  # not evaluated
    seen(eval=[3], has_checkpoint=False),
    seen(eval=[2]),
    seen(eval=[2]),
    seen(eval=[np.nan]),
  )
  assert [each.keep for each in answers] == ['best', '', '', 'best', '', '']
  (answer,) = decisions(
    stopping.KeepBest(name='top'), seen(train=[1], evaluates=False)
  )
  assert answer.keep == 'top'


def test_periodic_changes_end_with_the_last_iteration():
  callback = resets.Reset(period=2, last_iteration=4)
  answers = decisions(callback, *(seen(i) for i in range(1, 9)))
  assert [i + 1 for i, each in enumerate(answers) if each.change] == [2, 4]


# One network and its states: as a new agent has it, and as if it had learned.
AGENT = dqn.DQN(
  network=networks.MLP(hidden=(4, 3)),
  optimizer=optax.adam(0.1),
  observation_space=gymnasium.spaces.Box(-1, 1, (2,)),
  action_space=gymnasium.spaces.Discrete(2),
)
OBSERVATION = jnp.zeros((1, 2))
KEY = jax.random.key(3)


def sevens(tree):
  """Returns a tree whose numbers are all 7."""
  return jax.tree.map(lambda x: jnp.asarray(np.full(x.shape, 7, x.dtype)), tree)


@pytest.fixture(scope='module')
def states():
  new = jax.jit(AGENT.init)(KEY, OBSERVATION)
  old = sevens(new)
  return (
    {k: np.asarray(v) for k, v in state_arrays.named(new).items()},
    old,
  )


def view_of(state, agent=AGENT, **more):
  return types.SimpleNamespace(
    loop=types.SimpleNamespace(agent=agent),
    state=types.SimpleNamespace(
      agent=state, experience=types.SimpleNamespace(observation=OBSERVATION)
    ),
    **more,
  )


def changed_by(callback, state):
  """Returns what a callback makes of a state, compiled whole."""
  change = jax.jit(lambda state: callback.change(view_of(state), (), KEY))
  return jax.device_get(change(state))


def test_a_reset_makes_the_named_layer_new_and_nothing_else(states):
  new, old = states
  callback = resets.Reset(period=1, names=['MLPTorso_0.Dense_1.*'])
  changed = state_arrays.named(changed_by(callback, old))
  touched = {name for name in changed if (changed[name] != 7).any()}
  assert touched == {
    f'{place}.MLPTorso_0.Dense_1.{part}'
    for place in (
      *('params', 'target_params'),
      *('optimizer_state.0.mu', 'optimizer_state.0.nu'),
    )
    for part in ('kernel', 'bias')
  }
  for name in touched:
    np.testing.assert_array_equal(changed[name], new[name])


def test_shrink_and_perturb_mixes_parameters_and_forgets_moments(states):
  new, old = states
  callback = resets.ShrinkAndPerturb(period=1, shrink=0.25, perturb=0.5)
  changed = state_arrays.named(changed_by(callback, old))
  for name, array in changed.items():
    if name.startswith('optimizer_state.'):
      expected = np.zeros_like(array)
    elif name == 'updates':
      expected = 7
    else:
      expected = 0.25 * 7 + 0.5 * new[name]
    np.testing.assert_allclose(array, expected, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize('separate', [False, True])
def test_a_target_network_is_drawn_by_itself_only_if_asked(states, separate):
  _, old = states
  for callback, old_part, new_part in (
    (resets.Reset(period=1, separate_targets=separate), 0, 1),
    (resets.ShrinkAndPerturb(period=1, separate_targets=separate), 3.5, 0.5),
  ):
    changed = changed_by(callback, old)
    drawn, of_target = (
      jax.jit(AGENT.init)(key, OBSERVATION).params
      for key in (KEY, jax.random.fold_in(KEY, 1))
    )
    of_target = of_target if separate else drawn
    for found, fresh in (
      (changed.params, drawn),
      (changed.target_params, of_target),
    ):
      both = jax.device_get((found, fresh))
      pairs = zip(*map(jax.tree.leaves, both), strict=True)
      for a, b in pairs:
        np.testing.assert_allclose(a, old_part + new_part * b, rtol=1e-6)


@pytest.mark.parametrize(
  ('name', 'pattern', 'fits'),
  [
    ('params.params.Dense_0.kernel', 'params.Dense_0.*', True),
    ('target_params.params.Dense_0.kernel', 'params.Dense_0.*', False),
    ('target_params.params.Dense_0.kernel', 'target_params.Dense_0.*', True),
    ('params.params.Dense_0.kernel', 'params.params.Dense_0.*', True),
    ('params.critics.params.Dense_0.kernel', 'critics.Dense_0.*', True),
    ('params.Dense_0.kernel', 'params.Dense_0.*', True),
    ('target_params.Dense_0.kernel', 'params.Dense_0.*', False),
    ('params.collections.batch_stats.Norm_0.mean', 'Norm_0.*', True),
    ('params.collections.batch_stats.Norm_0.mean', 'params.Norm_0.*', False),
    # A dot at the beginning is of whole names.
    ('params.Dense_0.kernel', '.params.*', True),
    ('params.params.Dense_0.kernel', '.params.Dense_0.*', True),
    ('params.critics.params.Dense_0.kernel', '.critics.*', False),
    ('passive.params.Dense_0.kernel', '.params.*', False),
    ('passive.params.Dense_0.kernel', '.passive.*', True),
    # As whole names were shown once.
    ('params.critics.params.Dense_0.kernel', 'critics.params.*', True),
    ('params.collections.batch_stats.Norm_0.mean', 'params.params.*', False),
  ],
)
def test_what_a_network_keeps_beside_its_parameters_changes_no_name(
  name, pattern, fits
):
  assert state_arrays.fits(name, [pattern]) == fits
  is_whole = pattern.startswith('.')
  found = state_arrays.fits(f'agent.{name}', [pattern])
  assert found == (fits and not is_whole)


def test_statistics_are_shrunk_by_nothing_and_begin_anew_with_a_reset():
  network = networks.MLP(
    hidden=(3,), activation=networks.batch_renormalized_relu
  )
  agent = AGENT.replace(network=network)
  new = jax.jit(agent.init)(KEY, OBSERVATION)
  old = sevens(new)

  def changed(callback):
    change = jax.jit(
      lambda state: callback.change(view_of(state, agent=agent), (), KEY)
    )
    return state_arrays.named(jax.device_get(change(old)))

  shrunk = changed(resets.ShrinkAndPerturb(period=1, shrink=0.5))
  reset = changed(resets.Reset(period=1))
  statistics = [name for name in shrunk if 'collections' in name]
  assert len(statistics) >= 4  # at least a mean and a variance, twice
  for name in statistics:
    assert (shrunk[name] == 7).all()
    np.testing.assert_array_equal(reset[name], state_arrays.named(new)[name])
  kernel = 'params.params.MLPTorso_0.Dense_0.kernel'
  assert (abs(shrunk[kernel] - 3.5) < 3.5).all()
  assert not (shrunk[kernel] == 7).any()
  only = resets.ShrinkAndPerturb(period=1, names=['collections.*'])
  with pytest.raises(errors.UserError, match=r'collections.* fits nothing'):
    changed(only)


def test_counts_of_optimizers_kept_apart_go_on_unless_they_are_named():
  agent = sac.SAC(
    actor=functools.partial(actor_critic.Actor, hidden=(2,)),
    critics=functools.partial(actor_critic.Critics, hidden=(2,)),
    observation_space=gymnasium.spaces.Box(-1, 1, (2,)),
    action_space=gymnasium.spaces.Box(-1, 1, (1,)),
  )
  new = jax.jit(agent.init)(KEY, OBSERVATION)
  old = sevens(new)
  inner = 'optimizer_state.inner_states.critics.inner_state.0'
  for names, count in (
    (['critics.*', 'target_params.*'], 7),
    (['critics.*', 'optimizer_state.inner_states.critics.*'], 0),
    (['inner_states.critics.*'], 0),
    (['critics.*', '*.count'], 0),
    (['*'], 0),
    ([], 0),
  ):
    callback = resets.Reset(period=1, names=names)
    change = jax.jit(
      lambda state, callback=callback: callback.change(
        view_of(state, agent=agent), (), KEY
      )
    )
    changed = state_arrays.named(jax.device_get(change(old)))
    assert changed[f'{inner}.count'] == count
    moments = [
      array
      for name, array in changed.items()
      if name.startswith(inner) and '.mu.' in name
    ]
    assert moments
    assert not any(array.any() for array in moments)


def test_separate_targets_need_a_name_of_a_target_network(states):
  callback = resets.Reset(period=1, names=['params.*'], separate_targets=True)
  with pytest.raises(errors.UserError, match='fit nothing of a target network'):
    changed_by(callback, states[1])
  remedied = callback.replace(names=['params.*', 'target_params.*'])
  changed_by(remedied, states[1])


@pytest.mark.parametrize(
  'make',
  [
    lambda: resets.Reset(period=5, last_iteration=4),
    lambda: redo.ReDo(period=5, last_iteration=4),
    lambda: redo.NeuronRecycler(period=5, last_iteration=2),
    lambda: redo.NeuronRecycler(period=5, last_iteration=5),
  ],
)
def test_changes_that_could_never_be_are_refused(make):
  with pytest.raises(errors.UserError, match=r'last_iteration = .*period'):
    make()


@pytest.mark.parametrize(
  ('callback', 'why'),
  [
    (resets.Reset(period=6), 'iteration 7 begins, and .*num_iterations = 6'),
    (resets.Reset(period=5), ''),
    (
      stages.Stages(setting='gamma', at_steps=[73], values=[0.5]),
      'from agent step 73 on, and the run ends with step 72',
    ),
    (stages.Stages(setting='gamma', at_steps=[72], values=[0.5]), ''),
    (stopping.KeepBest(), ''),
    (stopping.EarlyStopping(at_return=1.0), ''),
  ],
)
def test_a_run_too_short_for_a_callback_is_told(callback, why):
  said = []
  engine = types.SimpleNamespace(
    fills_replay=False,
    learning_begins=0,
    loop=types.SimpleNamespace(agent=make_agent()),
  )
  advice.before_the_start(runner(callback), engine, '', said.append)
  assert len(said) == bool(why)
  if why:
    assert re.search(f'Warning: .* does nothing in this run: .*{why}', said[0])


@pytest.mark.parametrize(
  ('callback', 'episodes', 'words'),
  [
    (
      stopping.EarlyStopping(at_return=1.0, statistic='Train/AverageReturns'),
      *(2, "Choose 'Eval/AverageReturns'"),
    ),
    (stopping.KeepBest(), 0, 'evaluation_episodes to 1 or more'),
  ],
)
def test_a_dataset_gives_no_returns_to_decide_by(callback, episodes, words):
  offline = types.SimpleNamespace(fills_replay=True)
  settings = {'evaluation_episodes': episodes}
  with pytest.raises(errors.UserError, match=words):
    callback.why_idle(runner(callback, **settings), offline)
  assert not callback.why_idle(
    runner(callback, **settings), types.SimpleNamespace(fills_replay=False)
  )


def test_a_name_that_fits_nothing_is_refused(states):
  callback = resets.Reset(period=1, names=['Dense_0.*', 'Dens_1.*'])
  with pytest.raises(
    errors.UserError, match=r"'Dens_1\.\*' fits nothing .*par"
  ):
    callback.change(view_of(states[1]), (), KEY)


def test_redo_recycles_a_dormant_neuron_by_hand(states):
  new, old = states
  # Of the first layer's four neurons the second is silent; of three none is.
  magnitudes = {
    'MLPTorso_0/activations/0': jnp.array([[1.0, 0, 2, 1], [1, 0.1, 2, 1]]),
    'MLPTorso_0/activations/1': jnp.ones((2, 3)),
  }
  view = view_of(
    old,
    anatomy=AGENT.anatomy(old),
    look=lambda *_: types.SimpleNamespace(magnitudes=magnitudes),
    inputs=lambda _: (OBSERVATION,),
  )
  changed = redo.ReDo(period=1, threshold=0.1).change(view, (), KEY)
  changed = {k: np.asarray(v) for k, v in state_arrays.named(changed).items()}
  expected = {k: np.full_like(v, 7) for k, v in changed.items()}
  first, second = 'MLPTorso_0.Dense_0', 'MLPTorso_0.Dense_1'
  expected[f'params.{first}.kernel'][:, 1] = new[f'params.{first}.kernel'][:, 1]
  expected[f'params.{first}.bias'][1] = 0
  expected[f'params.{second}.kernel'][1] = 0
  for moment in ('mu', 'nu'):
    expected[f'optimizer_state.0.{moment}.{first}.kernel'][:, 1] = 0
    expected[f'optimizer_state.0.{moment}.{first}.bias'][1] = 0
    expected[f'optimizer_state.0.{moment}.{second}.kernel'][1] = 0
  assert changed.keys() == expected.keys()
  for name, array in expected.items():
    np.testing.assert_array_equal(changed[name], array, err_msg=name)


def wires(module, *inputs):
  rngs = {'params': KEY, 'noise': KEY}
  params = jax.jit(module.init)(rngs, *inputs)['params']
  return wiring.neurons_of(agent_lib.Anatomy(module, params), inputs)


class Images(nn.Module):
  """Two convolutions, flattened, and a layer with no neurons before it."""

  @nn.compact
  def __call__(self, x):
    for features in (3, 2):
      x = nn.relu(nn.Conv(features, (2, 2))(x))
      self.sow('intermediates', 'activations', x)
    return nn.Dense(2)(x.reshape(len(x), -1))


MEANS = jnp.array([3.0, 0.5, 1.0, 2.0, 4.0, 5.0, 6.0, 0.1, 7.0, 8.0])
WEIGHTS = jnp.array([0.1, 9.0, 1.0, 1.0, 1.0, 1.0, 1.0, 9.0, 1.0, 1.0])


@pytest.mark.parametrize(
  ('score', 'order'),
  [
    ('activation', [7, 1, 2, 3, 0, 4]),
    ('inverse', [9, 8, 6, 5, 4, 0]),
    ('contribution', [0, 7, 2, 3, 4, 1]),  # 0.3, 0.9, 1, 2, 4, 4.5
  ],
)
@pytest.mark.parametrize(
  # 10 * 0.6 * cos(pi / 2 * part): 6, 3 at two thirds, 0 at the end.
  ('iteration', 'count'),
  [(0, 6), (20, 3), (30, 0)],
)
def test_a_recycler_takes_the_lowest_of_each_layer(
  score, order, iteration, count
):
  callback = redo.NeuronRecycler(
    period=1, last_iteration=30, rate=0.6, score=score
  )
  own = callback.init() | {'iteration': iteration}
  found = callback.recycled(MEANS, WEIGHTS, own, KEY)
  assert set(np.flatnonzero(found)) == set(order[:count])


def test_moments_are_those_of_the_same_part_of_the_state():
  one = {'params': {'a': 1}, 'target_params': {'a': 1}, 'optimizer': {'a': 1}}
  names = [
    tuple(name.split('.'))
    for name in state_arrays.named(one | {'passive': dict(one)})
  ]
  params = [name for name in names if 'optimizer' not in name]
  for prefix in ((), ('passive',)):
    found = redo._moments_of((*prefix, 'optimizer', '0', 'mu', 'a'), params)
    assert set(found) == {
      (*prefix, 'params', 'a'),
      (*prefix, 'target_params', 'a'),
    }
  found = redo._moments_of(
    ('optimizer_state', 'actor', '0', 'mu', 'actor', 'a'),
    [('params', 'actor', 'a'), ('params', 'critics', 'a')],
  )
  assert found == [('params', 'actor', 'a')]
  assert redo._moments_of(('params', 'a'), params) == []


@pytest.mark.parametrize('network', ['Active', 'Passive'])
def test_each_network_of_a_tandem_has_its_own_moments(network):
  agent = tandem.TandemDQN(
    network=networks.MLP(hidden=(4, 3)),
    optimizer=optax.adam(0.1),
    observation_space=AGENT.observation_space,
    action_space=AGENT.action_space,
  )
  old = sevens(jax.jit(agent.init)(KEY, OBSERVATION))
  bias = ('MLPTorso_0', 'Dense_0', 'bias')
  owner = old.passive if network == 'Passive' else old
  leaf = owner.params[bias[0]][bias[1]][bias[2]]
  mask = jnp.array([True, False, False, True])
  new = redo._applied(old, {id(leaf): (mask, jnp.zeros(4))})
  prefix = 'passive.' if network == 'Passive' else ''
  expected = np.where(mask, 0, 7)
  names = {
    f'{prefix}{place}.{".".join(bias)}'
    for place in ('params', 'optimizer_state.0.mu', 'optimizer_state.0.nu')
  }
  for name, array in state_arrays.named(new).items():
    wanted = expected if name in names else 7
    np.testing.assert_array_equal(array, wanted, err_msg=name)


def test_a_contribution_is_by_kernels_alone():
  params = {
    'a.kernel': jnp.array([[1.0, -2, 3], [1, 2, 1]]),
    'a.bias': jnp.full(3, 9.0),
    'b.kernel': jnp.array([[4.0], [-8], [6]]),
    'b.kernel_sigma': jnp.full((3, 1), 9.0),
  }
  neurons = wiring.Neurons('x', (('a',),), (('b',),))
  found = redo._weights(params, neurons, 3)
  np.testing.assert_allclose(found, [4 / 2, 8 / 4, 6 / 4])


def test_a_recycler_takes_any_by_chance():
  callback = redo.NeuronRecycler(
    period=1, last_iteration=30, rate=0.5, score='random'
  )
  counts = sum(
    callback.recycled(MEANS, WEIGHTS, callback.init(), jax.random.key(i))
    for i in range(40)
  )
  assert counts.sum() == 40 * 5
  assert 5 < counts.min() and counts.max() < 35
  answer = callback.after_iteration(seen(7), callback.init())
  assert answer.change and answer.own == {'iteration': 7}
  with pytest.raises(errors.UserError, match='last_iteration = None must be'):
    redo.NeuronRecycler(period=1)


def test_layers_are_known_by_what_they_read():
  image = jnp.zeros((2, 3, 3, 1), jnp.uint8)
  assert wires(Images(), image) == [
    ('activations/0', (('Conv_0',),), (('Conv_1',),)),
    ('activations/1', (('Conv_1',),), (('Dense_0',),)),
  ]
  # Two streams, whose first layers read no neurons.
  head = heads.Dueling(4, hidden=(6,), dense=heads.NoisyDense)
  assert wires(head, jnp.zeros((2, 5))) == [
    (
      f'{stream}/activations/0',
      ((stream, 'NoisyDense_0'),),
      ((stream, 'NoisyDense_1'),),
    )
    for stream in ('advantage', 'value')
  ]


class Residual(nn.Module):
  """Neurons that two layers make together."""

  @nn.compact
  def __call__(self, x):
    for _ in range(2):
      y = nn.relu(x)
      self.sow('intermediates', 'activations', y)
      x += nn.Dense(3)(y)
    return x


class Bypassed(nn.Module):
  """Neurons that are partly those of the layer before."""

  @nn.compact
  def __call__(self, x):
    x = nn.relu(nn.Dense(3)(x.astype(jnp.float32)))
    x += nn.relu(nn.Dense(3)(x))
    self.sow('intermediates', 'activations', x)
    return nn.Dense(2)(x)


@pytest.mark.parametrize(
  ('network', 'dtype'),
  [(Residual(), float), (Bypassed(), float), (Bypassed(), bool)],
)
def test_a_residual_network_is_not_taken_for_layers_in_a_row(network, dtype):
  with pytest.raises(errors.UserError, match='it needs layers in a row'):
    wires(network, jnp.zeros((2, 3), dtype))


class Streams(nn.Module):
  """Two streams of one width, the layers of which are called in turn."""

  @nn.compact
  def __call__(self, x):
    a, b = nn.Dense(3, name='a')(x), nn.Dense(3, name='b')(x)
    a = nn.LayerNorm(name='norm_a')(a)
    b = nn.LayerNorm(name='norm_b')(b)
    y = nn.relu(a)
    self.sow('intermediates', 'activations', y)
    return nn.Dense(2, name='of_a')(y) + nn.Dense(2, name='of_b')(b)


def test_neurons_are_of_the_layer_that_makes_them_and_its_normalization():
  assert wires(Streams(), jnp.zeros((2, 5))) == [
    ('activations/0', (('a',), ('norm_a',)), (('of_a',),))
  ]


@pytest.mark.parametrize('size', [3, 17, 376])
def test_neurons_that_saturate_are_known(size):
  layers = [('MLPTorso_0', f'Dense_{i}') for i in range(2)]
  layers += [('MLPTorso_1', f'Dense_{i}') for i in range(2)]
  found = wires(networks.ActorCritic(3), jnp.zeros((2, size)))  # of tanh
  assert [each.incoming for each in found] == [(layer,) for layer in layers]


class Aside(nn.Module):
  """What the next layer makes goes another way, and one scale is for all."""

  @nn.compact
  def __call__(self, x):
    a = nn.Dense(4, name='a')(x)
    b = nn.LayerNorm(name='aside')(a)
    y = nn.relu(a * Scale()())
    self.sow('intermediates', 'activations', y)
    return nn.Dense(2, name='of_a')(y) + nn.Dense(2)(b)


class Scale(nn.Module):
  """One number."""

  @nn.compact
  def __call__(self):
    return self.param('scale', nn.initializers.ones, ())


def test_what_goes_another_way_is_not_recycled():
  assert wires(Aside(), jnp.zeros((2, 5))) == [
    ('activations/0', (('a',),), (('of_a',),))
  ]


def test_a_recycled_neuron_has_the_scale_and_shift_of_a_new_one():
  agent = dqn.DQN(
    network=functools.partial(
      networks.MLP, hidden=(4, 3), activation=networks.normalized_relu
    ),
    optimizer=optax.adam(0.1),
    observation_space=AGENT.observation_space,
    action_space=AGENT.action_space,
  )
  old = sevens(jax.jit(agent.init)(KEY, OBSERVATION))
  magnitudes = {
    f'MLPTorso_0/activations/{i}': jnp.ones((2, n)).at[:, 1].set(0)
    for i, n in ((0, 4), (1, 3))
  }
  view = view_of(
    old,
    agent=agent,
    anatomy=agent.anatomy(old),
    look=lambda *_: types.SimpleNamespace(magnitudes=magnitudes),
    inputs=lambda _: (OBSERVATION,),
  )
  changed = redo.ReDo(period=1).change(view, (), KEY)
  changed = state_arrays.named(changed)
  for i, n in ((0, 4), (1, 3)):
    for name, new in (('scale', 1), ('bias', 0)):
      layer = f'MLPTorso_0.LayerNorm_{i}.{name}'
      expected = np.full(n, 7.0)
      expected[1] = new
      np.testing.assert_array_equal(changed[f'params.{layer}'], expected)
      expected[1] = 0
      moment = changed[f'optimizer_state.0.mu.{layer}']
      np.testing.assert_array_equal(moment, expected)


class Count(base.Callback):
  """Counts iterations, and shifts an agent's parameters by that.

  Attributes:
    fault: what it does wrong.
    stop_at: the iteration after which the run ends.
  """

  fault: str = ''
  stop_at: int = 100

  def init(self):
    return {'count': 0, 'other': np.zeros(2)}

  def after_iteration(self, seen, own):
    if self.fault == 'clock':
      assert not any('StepsPerSecond' in name for name in seen.statistics)
    count = own['count'] + 1
    own = {'count': count if self.fault != 'own' else np.zeros(3)} | {
      'other': own['other'] + seen.statistics['Train/Updates'].mean()
    }
    stop = f'{count} iterations' if count == self.stop_at else ''
    keep = 'mine' if self.fault == 'keep' else ''
    return base.Decision(own, change=True, stop=stop, keep=keep)

  def change(self, view, own, key):
    agent = view.state.agent
    if self.fault == 'change':
      return agent.replace(updates=jnp.zeros(2))
    noise = jax.random.uniform(key)
    shifted = jax.tree.map(
      lambda x: x + 0.01 * noise * own['count'], agent.params
    )
    return agent.replace(params=shifted)


def make_agent(**given):
  return dqn.DQN(
    network=networks.MLP(hidden=(4,)),
    replay=uniform.UniformReplay(capacity=32, batch_size=4, min_history=20),
    optimizer=values.call(optax.adam, 1e-2),
    target_update_period=8,
    epsilon=0.5,
    **given,
  )


def runner(*callbacks, engine=compiled.CompiledEngine, **settings):
  return runner_lib.Runner(
    **{
      'agent': make_agent(),
      'environment': catch.Catch(),
      'engine': engine,
      'num_iterations': 6,
      'training_steps': 12,
      'evaluation_episodes': 2,
      'evaluation_period': 2,
      'max_to_keep': 1,
      'collectors': [csv_file.CSV],
      **settings,
    },
    callbacks=callbacks,
  )


def train(folder, *callbacks, num_seeds=2, say=lambda _: None, **settings):
  return runner(*callbacks, **settings).train(
    folder, num_seeds=num_seeds, quiet=True, say=say
  )


ALL = (
  Count(fault='clock'),
  stopping.KeepBest(),
  resets.Reset(period=3, names=['Dense_0.*']),
  resets.ShrinkAndPerturb(period=2),
  redo.ReDo(period=1, threshold=0.9, num_transitions=8),
  redo.NeuronRecycler(period=2, last_iteration=6, num_transitions=8),
)


class Died(BaseException):
  """Ends a run as abruptly as can be."""


def die_at(patch, owner, method, number):
  """Makes the n-th call of a method raise Died."""
  original, calls = getattr(owner, method), []

  def wrapped(*args, **kwargs):
    calls.append(None)
    if len(calls) == number:
      raise Died
    return original(*args, **kwargs)

  patch.setattr(owner, method, wrapped)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """The folder of a run with all callbacks."""
  folder = tmp_path_factory.mktemp('callbacks') / 'run'
  with pytest.MonkeyPatch.context() as patch:
    programs.share(patch)  # with those that are killed
    train(folder, *ALL)
  return folder


@pytest.mark.usefixtures('same_programs')
def test_a_run_that_was_killed_decides_as_one_that_was_not(run, tmp_path):
  for owner, method, number in (
    (evaluation.Evaluator, 'run', 1),  # of iteration 2, before its checkpoint
    (csv_file.CSV, 'write', 3),  # of iteration 4, after its checkpoint
  ):
    with pytest.MonkeyPatch.context() as patch:
      die_at(patch, owner, method, number)
      with pytest.raises(Died):
        train(tmp_path, *ALL)
  train(tmp_path, *ALL)
  assert fingerprint.fingerprint(tmp_path) == fingerprint.fingerprint(run)


def test_the_best_checkpoint_has_a_name_and_no_replay(run):
  store = checkpoints_lib.Checkpoints(run)
  kept = store.manifest(6)['run']['callbacks']['kept']
  table = runs_lib.load(run)
  best = table[table.metric == EVAL].groupby('iteration').value.mean().idxmax()
  assert kept == {'best': best}
  assert store.iterations() == sorted({best, 6})
  assert trained.load(run, checkpoint='best').iteration == best
  assert trained.load(run, checkpoint='6').iteration == 6
  with pytest.raises(errors.UserError, match=f'iterations {best}.*name: best'):
    trained.load(run, checkpoint='nest')
  assert best == 6 or not (store.folder / f'{best:06d}' / 'replay').exists()


def test_a_callback_ends_a_run_at_a_checkpoint_and_for_good(tmp_path):
  said, run = [], tmp_path / 'run'
  settings = {
    'engine': python_engine.PythonEngine,
    'checkpoint_period': 2,
    'evaluation_episodes': 0,
    'num_seeds': 1,
    'say': said.append,
  }
  reached = train(run, Count(stop_at=3), **settings)
  ended = 'callbacks_test.Count after iteration 3: 3 iterations'
  assert said == [f'The run is finished: ended by {ended}.']
  assert json.loads((run / 'run.json').read_text())['ended_by'] == ended
  report = run_report.gather(run)
  assert report.finished and report.iteration == 4
  assert not any('not finished' in each for each in report.warnings)
  before = fingerprint.fingerprint(run)
  again = train(run, Count(stop_at=3), **settings)
  np.testing.assert_equal(again, reached)
  assert fingerprint.fingerprint(run) == before


@pytest.mark.usefixtures('same_programs')
@pytest.mark.parametrize(
  ('fault', 'message'),
  [
    ('own', r"after_iteration must return .* \['count'\] was int32 \(\)"),
    ('keep', 'checkpoint of iteration 1, and it has none. Look at'),
    ('change', r'Count.change must return .*updates was int32 \(\)'),
  ],
)
def test_what_a_callback_does_wrong_is_told(fault, message, tmp_path):
  message = message.replace(' [', '')
  with pytest.raises(errors.UserError, match=message.replace(r' \[', r'\[')):
    train(tmp_path, Count(fault=fault), checkpoint_period=2, num_seeds=1)


def test_to_decide_by_evaluations_needs_some():
  callback = stopping.EarlyStopping(at_return=1)
  with pytest.raises(errors.UserError, match='set it to 1 or more'):
    runner(callback, evaluation_episodes=0)
  runner(callback.replace(statistic=TRAIN), evaluation_episodes=0)
