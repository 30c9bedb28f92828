"""Trainings that share a program, each as if it were trained alone."""

import functools
import pathlib

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import dopamine_jax as dj
from dopamine_jax import config
from dopamine_jax import errors
from dopamine_jax import lanes
from dopamine_jax import networks
from dopamine_jax import runner as runner_lib
from dopamine_jax import settings
from dopamine_jax import values
from dopamine_jax.agents import dqn
from dopamine_jax.agents import ppo
from dopamine_jax.callbacks import redo
from dopamine_jax.callbacks import stopping
from dopamine_jax.checkpoints import checkpoints
from dopamine_jax.config import grid
from dopamine_jax.engines import compiled
from dopamine_jax.engines import evaluation
from dopamine_jax.environments import catch
from dopamine_jax.learning import optimization
from dopamine_jax.learning import schedules
from dopamine_jax.replay import prioritized
from dopamine_jax.replay import uniform
from dopamine_jax.training import fingerprint
from dopamine_jax.training import together
from dopamine_jax.training import training
from tests import programs

MLP = networks.MLP(hidden=(8,))
REPLAY = {'capacity': 200, 'batch_size': 4, 'min_history': 16}


def make_dqn(rate, gamma, **changes):
  settings = {
    'network': MLP,
    'replay': uniform.UniformReplay(**REPLAY),
    'optimizer': values.call(optax.adam, rate, eps=1e-3),
    'gamma': gamma,
    'update_period': 4,
    'target_update_period': 16,
    'epsilon': values.call(optax.linear_schedule, 1.0, gamma / 2, 50),
  }
  return dqn.DQN(**settings | changes)


def make_prioritized(rate, gamma, **changes):
  replay = prioritized.PrioritizedReplay(**REPLAY, beta=gamma)
  return make_dqn(rate, gamma, replay=replay, **changes)


def make_ppo(rate, weight):
  return ppo.PPO(
    network=networks.ActorCritic(torso=networks.MLPTorso(hidden=(8,))),
    optimizer=values.call(optax.adam, rate),
    update_period=16,
    num_epochs=2,
    num_minibatches=2,
    entropy_weight=weight,
    gae_lambda=weight,
    clip=weight,
  )


def make_runner(agent, **changes):
  settings = {
    'agent': agent,
    'environment': catch.Catch(rows=4),
    'num_iterations': 3,
    'training_steps': 32,
    'num_envs': 2,
    'evaluation_episodes': 12,
    'evaluation_period': 3,
    'checkpoint_period': 1,
  }
  return runner_lib.Runner(**settings | changes)


def test_numbers_are_found_by_their_paths_and_put_back():
  one, other = make_prioritized(1e-3, 0.9), make_prioritized(1e-2, 0.5)
  found = lanes.differing([one, other], ['a', 'b'])
  assert {path: given.tolist() for path, given in found.items()} == {
    ('gamma',): [pytest.approx(0.9), 0.5],
    ('optimizer', 'learning_rate'): [pytest.approx(1e-3), pytest.approx(1e-2)],
    ('replay', 'beta'): [pytest.approx(0.9), 0.5],
    ('epsilon', 'end_value'): [pytest.approx(0.45), 0.25],
  }
  numbers = {path: float(given[1]) for path, given in found.items()}
  again = lanes.put(one, numbers)
  assert again.gamma == 0.5
  assert again.replay.beta == 0.5
  assert again.epsilon(50) == 0.25
  gradient = {'w': np.float32(2.0)}
  updates = [
    each.optimizer.update(gradient, each.optimizer.init(gradient))[0]['w']
    for each in (again, other, one)
  ]
  np.testing.assert_allclose(updates[0], updates[1])
  assert updates[0] != updates[2]
  assert one.gamma == 0.9  # which is as it was


def test_what_is_computed_once_is_computed_anew_of_other_numbers():
  class Discounted(settings.Settings):
    gamma: float

    @functools.cached_property
    def weights(self):
      return [1.0, self.gamma, self.gamma**2]

  one = Discounted(gamma=0.5)
  assert one.weights == [1.0, 0.5, 0.25]
  assert lanes.put(one, {('gamma',): 0.1}).weights[1] == 0.1
  assert one.weights[1] == 0.5


@pytest.mark.parametrize(
  ('changes', 'said'),
  [
    ({'n_step': 3}, 'n_step can not differ .* 1 in a and 3 in b'),
    ({'huber_delta': 1.0}, 'huber_delta can not differ .* None in a and 1.0'),
    ({'network': networks.MLP(hidden=(4,))}, r'network\.hidden\.0 can not'),
    (
      {'optimizer': values.call(optax.sgd, 1e-3)},
      'optimizer can not differ .* adam in a and .* sgd in b|optimizer',
    ),
  ],
)
def test_what_shapes_a_program_can_not_differ(changes, said):
  pair = [make_dqn(1e-3, 0.9), make_dqn(1e-3, 0.9, **changes)]
  with pytest.raises(errors.UserError, match=said):
    lanes.differing(pair, ['a', 'b'])


def made(num_outputs: int | None = None, rate: float = 0.1) -> networks.MLP:
  activation = functools.partial(networks.dropout_relu, rate=rate)
  return networks.MLP(num_outputs, activation=activation)


def test_numbers_of_what_makes_a_network_can_not_differ_either():
  def of_class(rate):
    activation = functools.partial(networks.dropout_relu, rate=rate)
    return functools.partial(networks.MLP, activation=activation)

  for maker in (of_class, lambda rate: functools.partial(made, rate=rate)):
    pair = [make_dqn(1e-3, 0.9, network=maker(rate)) for rate in (0.1, 0.5)]
    said = r'rate can not differ .* 0.1 in a and 0.5 in b'
    with pytest.raises(errors.UserError, match=said):
      lanes.differing(pair, ['a', 'b'])


@pytest.mark.parametrize(
  ('function', 'arguments', 'other'),
  [
    (schedules.geometric, {'first': 3.0, 'last': 1.0}, 2.0),
    (schedules.geometric_discount, {'first': 0.9, 'last': 0.99}, 0.5),
  ],
)
def test_numbers_that_a_function_of_ours_checks_can_differ(
  function, arguments, other
):
  pair = [
    make_dqn(1e-3, 0.9).replace(gamma=values.call(function, **given))
    for given in (arguments, arguments | {'first': other})
  ]
  found = lanes.differing(pair, ['a', 'b'])
  assert list(found) == [('gamma', 'first')]
  at = jax.jit(
    lambda number: lanes.put(pair[0], {('gamma', 'first'): number}).gamma(5_000)
  )
  for each, number in zip(pair, found['gamma', 'first'], strict=True):
    np.testing.assert_allclose(at(number), each.gamma(5_000), rtol=1e-6)


def test_a_clipping_norm_can_differ():
  pair = [
    make_dqn(
      *(1e-3, 0.9),
      optimizer=values.call(
        optimization.clipped, values.call(optax.sgd, 1.0), max_norm=norm
      ),
    )
    for norm in (0.5, 2.0)
  ]
  found = lanes.differing(pair, ['a', 'b'])
  assert list(found) == [('optimizer', 'max_norm')]

  @jax.jit
  def step(number):
    optimizer = lanes.put(
      pair[0], {('optimizer', 'max_norm'): number}
    ).optimizer
    gradient = {'w': jnp.array([3.0, 4.0])}
    return optimizer.update(gradient, optimizer.init(gradient))[0]['w']

  for number in found['optimizer', 'max_norm']:
    np.testing.assert_allclose(
      step(number), -number * np.array([0.6, 0.8]), rtol=1e-6
    )


def test_numbers_that_another_function_decides_by_are_refused():
  pair = [
    make_dqn(1e-3, 0.9).replace(
      gamma=values.call(optax.exponential_decay, 0.9, 10, rate)
    )
    for rate in (0.5, 0.9)
  ]
  said = r'exponential_decay\.decay_rate can not differ .* decides something'
  with pytest.raises(errors.UserError, match=said):
    lanes.differing(pair, ['a', 'b'])


def make_random(rate, gamma):
  """Returns a DQN whose evaluations act at random, one more than another."""
  return make_prioritized(rate, gamma, evaluation_epsilon=1.8 * gamma - 0.8)


class Pair(catch.Catch):
  """Catch whose observation has two parts."""

  @property
  def observation_space(self):
    board = super().observation_space
    return gymnasium.spaces.Tuple((board, gymnasium.spaces.Discrete(3)))

  def _board(self, state):
    return super()._board(state), state.paddle % 3


BOARD = np.zeros((4, 5), np.uint8)
# The second one is compared: if it had what is the first's, it would show.
CASES = {
  'Gym-like, of several parts': (
    *(make_random, (1e-2, 0.9), (1e-3, 0.5)),
    {'environment': Pair(rows=4)},
    ((BOARD, np.int32(0)), 'b'),
  ),
  'compiled': (
    *(make_ppo, (1e-2, 0.5), (1e-3, 0.1)),
    {'engine': compiled.CompiledEngine},
    (BOARD, 'b'),
  ),
}


@pytest.mark.parametrize('case', CASES)
def test_each_equals_its_solo_run(case, tmp_path, monkeypatch):
  make, one, other, changes, (observation, compared) = CASES[case]
  runners = {
    name: make_runner(make(*numbers), **changes)
    for name, numbers in (('a', one), ('b', other))
  }
  play, played = evaluation.Evaluator.run, []

  def run(self, *arguments):
    played.append(self.num_seeds)
    return play(self, *arguments)

  monkeypatch.setattr(evaluation.Evaluator, 'run', run)
  runs = dj.train(runners, tmp_path, num_seeds=2, quiet=True)
  assert played == [4]  # all of them at once
  assert sorted(p.name for p in tmp_path.iterdir()) == ['a', 'b']
  differ = [runs[n].statistics['Train/Loss'] for n in runners]
  assert not np.allclose(*differ)
  for name in compared:
    run = runs[name]
    alone = dj.train(
      runners[name], tmp_path / f'alone_{name}', num_seeds=2, quiet=True
    )
    for key, found in alone.statistics.items():
      if not key.endswith(('PerSecond', 'Seconds')) and 'Memory' not in key:
        np.testing.assert_allclose(
          run.statistics[key], found, rtol=1e-4, atol=1e-5, err_msg=key
        )
    digests = [
      fingerprint.fingerprint(folder) for folder in (run.folder, alone.folder)
    ]
    assert digests[0]['counters'] == digests[1]['counters']
    text = (run.folder / 'config.gin').read_text()
    assert text == (alone.folder / 'config.gin').read_text()
    player = run.load()  # as any run
    assert player.act(observation).shape == ()


class Killed(BaseException):
  """As if the process had ended there."""


PAIR = {
  'a': make_runner(make_dqn(1e-2, 0.9), num_iterations=2),
  'b': make_runner(make_dqn(1e-3, 0.5), num_iterations=2),
}


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  with pytest.MonkeyPatch.context() as patch:
    programs.share(patch)  # with those that are killed
    return dj.train(PAIR, tmp_path_factory.mktemp('whole'), quiet=True)


@pytest.mark.usefixtures('same_programs')
# Whose first checkpoint alone is there, is begun anew: that is tested below.
@pytest.mark.parametrize('saves', [pytest.param(1, marks=pytest.mark.slow), 5])
def test_a_run_that_was_killed_between_saves_ends_the_same(
  saves, whole, tmp_path, monkeypatch
):
  save, count = training.Training._save, []

  def dies(self, statistics):
    save(self, statistics)
    count.append(self)
    if len(count) == saves:  # of one training, and not yet of the other
      raise Killed

  with monkeypatch.context() as patch:
    patch.setattr(training.Training, '_save', dies)
    with pytest.raises(Killed):
      dj.train(PAIR, tmp_path / 'killed', quiet=True)
  again = dj.train(PAIR, tmp_path / 'killed', quiet=True)
  for name in PAIR:
    assert fingerprint.fingerprint(again[name].folder) == (
      fingerprint.fingerprint(whole[name].folder)
    )


@pytest.mark.usefixtures('same_programs')
def test_all_have_saved_before_any_is_evaluated(tmp_path, monkeypatch):
  def dies(*_, **__):
    raise Killed

  monkeypatch.setattr(evaluation.Evaluator, 'run', dies)
  with pytest.raises(Killed):
    dj.train(PAIR, tmp_path, quiet=True)
  saved = [checkpoints.Checkpoints(tmp_path / n).iterations() for n in PAIR]
  assert saved[0] == saved[1] != [0]


@pytest.mark.usefixtures('same_programs')
def test_a_new_training_does_not_take_others_back_to_its_start(tmp_path):
  # Which learns nothing, and so has little to compile.
  idle = uniform.UniformReplay(capacity=200, batch_size=4, min_history=100)
  a, b = (
    make_runner(make_dqn(rate, 0.9, replay=idle), evaluation_episodes=0)
    for rate in (1e-2, 1e-3)
  )
  runners = {'a': a}
  dj.train(runners, tmp_path, quiet=True)
  runners['b'] = b
  with pytest.raises(errors.UserError, match='of b is of iteration 0, '):
    dj.train(runners, tmp_path, quiet=True)


@pytest.mark.usefixtures('same_programs')
def test_a_new_training_begins_at_its_start_beside_one_that_was_ended(
  tmp_path,
):
  ends = stopping.EarlyStopping(
    at_return=-9.0, statistic='Train/AverageReturns'
  )
  a, b = (
    make_runner(make_dqn(rate, 0.9), callbacks=[ends], evaluation_episodes=0)
    for rate in (1e-2, 1e-3)
  )
  dj.train({'a': a}, tmp_path, quiet=True)
  run = dj.train({'a': a, 'b': b}, tmp_path, quiet=True)['b']
  alone = dj.train(b, tmp_path / 'alone', quiet=True)
  assert run.statistics['Train/Updates'] == alone.statistics['Train/Updates']
  np.testing.assert_allclose(
    *(each.statistics['Train/Loss'] for each in (run, alone)), rtol=1e-4
  )


def test_settings_to_vary_make_every_combination():
  vary = grid.parse(['a.A.x = [1e-3, 2.0]', "s/b.B.y = ['u', None]"])
  assert grid.combinations(vary) == {
    'x_0.001_y_u': ['a.A.x = 0.001', "s/b.B.y = 'u'"],
    'x_0.001_y_None': ['a.A.x = 0.001', 's/b.B.y = None'],
    'x_2.0_y_u': ['a.A.x = 2.0', "s/b.B.y = 'u'"],
    'x_2.0_y_None': ['a.A.x = 2.0', 's/b.B.y = None'],
  }
  same = grid.combinations({'s/a.A.x': [1.0], 'a.A.x': [2.0]})
  assert list(same) == ['s.a.A.x_1.0_a.A.x_2.0']


@pytest.mark.parametrize(
  'line', ['a.A.x', 'a.A.x = 3', '= [3]', 'a.A.x = []', 'a.A.x = [y]']
)
def test_what_is_nothing_to_vary_is_told(line):
  with pytest.raises(errors.UserError, match='expected a setting and what'):
    grid.parse([line])


def test_numbers_of_callbacks_can_not_differ():
  runs = {
    name: runner_lib.Runner(
      agent=dqn.DQN(),
      environment=catch.Catch(),
      num_iterations=1,
      training_steps=40,
      callbacks=[redo.ReDo(period=1, threshold=threshold)],
    )
    for name, threshold in (('a', 0.1), ('b', 0.2))
  }
  said = r'callbacks\.0\.threshold can not differ .* 0\.1 in a'
  with pytest.raises(errors.UserError, match=said):
    together.require_alike(runs)


@pytest.mark.parametrize(
  ('vary', 'said'),
  [
    ({'dqn.DQN.n_step': [1, 3]}, 'n_step can not differ'),
    ({'runner.Runner.num_envs': [1, 2]}, 'num_envs can not differ'),
    ({'dqn.DQN.gama': [0.5, 0.9]}, 'gamma'),
    ({'dqn.DQN.gamma': [0.5, 0.5]}, 'twice'),
  ],
)
def test_what_can_not_vary_is_told_before_anything_is_made(
  vary, said, tmp_path
):
  with pytest.raises(errors.UserError, match=said):
    dj.train('dqn_cartpole', tmp_path / 'runs', vary=vary)
  assert not list(tmp_path.glob('runs/*/run.json'))
  assert pathlib.Path(config.find('dqn_cartpole')).exists()
