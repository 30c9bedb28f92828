"""Full Rainbow: each switch does what its paper says, and nothing else."""

import functools
import warnings

import jax
import numpy as np
import pytest
import rlax

from dopamine_jax import config
from dopamine_jax import errors
from dopamine_jax import networks
from dopamine_jax.agents import c51
from dopamine_jax.agents import double_dqn
from dopamine_jax.agents import dqn
from dopamine_jax.agents import full_rainbow
from dopamine_jax.networks import heads
from dopamine_jax.replay import prioritized
from tests import linear
from tests.agents import c51_test

NUM_ACTIONS, NUM_ATOMS = 3, 5
SWITCHES = ('noisy', 'dueling', 'double', 'distributional')
OFF = dict.fromkeys(SWITCHES, False)
SMALL = functools.partial(
  full_rainbow.RainbowNetwork,
  torso=networks.MLPTorso(hidden=(8,)),
  hidden=(8,),
)
OBSERVATION = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)


def no_head(num_outputs, **_):
  return linear.Linear(num_outputs)


@functools.cache  # compiles once for all tests
def make(cls=full_rainbow.FullRainbow, **settings):
  support = {'num_atoms': NUM_ATOMS, 'v_min': -2.0, 'v_max': 3.0}
  return linear.make(
    cls, NUM_ACTIONS, **{'network': SMALL} | support | settings
  )


def init(agent):
  return linear.jitted(agent.init)(jax.random.key(0), OBSERVATION)


def names(agent):
  """Returns the names of all parameters."""
  params = jax.eval_shape(agent.init, jax.random.key(0), OBSERVATION).params
  return {
    '/'.join(key.key for key in path)
    for path, _ in jax.tree_util.tree_leaves_with_path(params)
  }


# What is learnt, by a network without a head.


def expected(agent, kernel, target_kernel, batch):
  """Returns each transition's cross-entropy [B] and gradient, by loops."""
  batch = jax.tree.map(lambda x: np.asarray(x, np.float64), batch)
  atoms = np.linspace(agent.v_min, agent.v_max, agent.num_atoms)
  shape = (NUM_ACTIONS, agent.num_atoms)
  losses, gradients = [], []
  for i, action in enumerate(batch.action.astype(int)):
    now, then = batch.observation[i], batch.next_observation[i]
    p = c51_test.softmax((now @ kernel).reshape(shape))[action]
    target_p = c51_test.softmax((then @ target_kernel).reshape(shape))
    online_p = c51_test.softmax((then @ kernel).reshape(shape))
    best = np.argmax((online_p if agent.double else target_p) @ atoms)
    target = c51_test.project(
      atoms, target_p[best], batch.reward[i], batch.discount[i]
    )
    losses.append(-np.sum(target * np.log(p)))
    by_logits = np.zeros(shape)
    by_logits[action] = p - target
    gradients.append(np.outer(now, by_logits))
  return np.array(losses), np.array(gradients)


@pytest.mark.parametrize('double', [True, False])
def test_an_update_agrees_with_numpy(double):
  agent = make(network=no_head, double=double)
  for seed in range(4):
    problem = linear.random_problem(seed, NUM_ACTIONS, agent.num_outputs)
    linear.assert_update(agent, problem, *expected(agent, *problem[:3]))


def test_losses_agree_with_rlax():
  agent = make(network=no_head)
  kernel, target, batch, _ = linear.random_problem(
    5, NUM_ACTIONS, agent.num_outputs
  )

  def logits(kernel, observation):
    outputs = np.asarray(observation) @ np.float32(kernel)
    return outputs.reshape(-1, NUM_ACTIONS, NUM_ATOMS)

  atoms = np.linspace(-2.0, 3.0, NUM_ATOMS, dtype=np.float32)
  q_select = c51_test.softmax(logits(kernel, batch.next_observation)) @ atoms
  with warnings.catch_warnings():
    warnings.simplefilter('ignore', PendingDeprecationWarning)
    oracle = jax.vmap(
      rlax.categorical_double_q_learning, (None, 0, 0, 0, 0, None, 0, 0)
    )
    oracle = jax.jit(oracle)(
      atoms,
      logits(kernel, batch.observation),
      batch.action,
      batch.reward,
      batch.discount,
      atoms,
      logits(target, batch.next_observation),
      q_select,
    )
  np.testing.assert_allclose(
    linear.losses(agent, kernel, target, batch), oracle, rtol=1e-4
  )


# Observation 1 has q = (0, 0, 1) online and (3, 5, 4) by the target network.
KERNEL = [[0, 2, 0], [0, 0, 1]]
TARGET_KERNEL = [[9, 9, 9], [3, 5, 4]]
# From observation 0, where q = 2, by action 1 to observation 1.
BATCH = linear.make_batch([[1, 0]], [1], [1], [0.5], [[0, 1]])


@pytest.mark.parametrize(
  ('double', 'delta', 'loss'),
  [
    (False, None, 1.5**2),  # 1 + 0.5 * 5 - 2 = 1.5
    (True, None, 1.0),  # 1 + 0.5 * 4 - 2 = 1
    (False, 1.0, 1.0),  # 1.5 - 1 / 2
    (True, 1.0, 0.5),
  ],
)
def test_values_are_learnt_if_not_distributions(double, delta, loss):
  agent = make(
    network=no_head, distributional=False, double=double, huber_delta=delta
  )
  assert agent.num_outputs == NUM_ACTIONS
  np.testing.assert_allclose(
    linear.losses(agent, KERNEL, TARGET_KERNEL, BATCH), [loss], rtol=1e-6
  )


@pytest.mark.parametrize(
  ('cls', 'on'),
  [
    (dqn.DQN, {}),
    (double_dqn.DoubleDQN, {'double': True}),
    (c51.C51, {'distributional': True}),
  ],
)
def test_with_the_rest_off_it_is(cls, on):
  ours = make(n_step=1, **OFF | on)
  plain = functools.partial(SMALL, noisy=False, dueling=False)
  settings = {'network': plain}
  if cls is c51.C51:
    settings |= {'num_atoms': NUM_ATOMS, 'v_min': -2.0, 'v_max': 3.0}
  theirs = linear.make(cls, NUM_ACTIONS, **settings)
  states = [init(agent) for agent in (ours, theirs)]
  jax.tree.map(np.testing.assert_array_equal, *states)
  batch = linear.random_problem(0, NUM_ACTIONS, 1)[2]
  other = jax.tree.map(lambda leaf: np.asarray(leaf) + 0.1, states[0].params)
  losses = [
    jax.jit(agent.losses)(states[0].params, other, batch, jax.random.key(1))[0]
    for agent in (ours, theirs)
  ]
  np.testing.assert_allclose(*losses, rtol=1e-6)


# The switches.


def test_it_is_all_on_by_default():
  agent = linear.make(full_rainbow.FullRainbow, 2, network=SMALL)
  assert all(getattr(agent, switch) for switch in SWITCHES)
  assert (agent.n_step, agent.num_outputs) == (3, 2 * 51)
  assert isinstance(agent.make_replay(1), prioritized.PrioritizedReplay)
  assert full_rainbow.RainbowNetwork(num_outputs=2).sigma0 == 0.5


def test_noisy_and_dueling_decide_what_the_head_has():
  noise = {'kernel', 'kernel_sigma', 'bias', 'bias_sigma'}
  torso = {'torso/Dense_0/kernel', 'torso/Dense_0/bias'}
  for noisy in (True, False):
    for dueling in (True, False):
      layers = [f'{"Noisy" if noisy else ""}Dense_{i}' for i in (0, 1)]
      streams = ['/value', '/advantage'] if dueling else ['']
      assert names(make(noisy=noisy, dueling=dueling)) == torso | {
        f'head{stream}/{layer}/{name}'
        for stream in streams
        for layer in layers
        for name in (noise if noisy else ('kernel', 'bias'))
      }


def test_value_and_advantages_can_share_a_layer():
  shared = functools.partial(SMALL, shared=(6,), hidden=())
  agent = make(noisy=False, distributional=False, network=shared)
  params = init(agent).params
  layer = {key: np.asarray(x) for key, x in params['shared_0'].items()}
  assert layer['kernel'].shape == (8, 6)  # one, of what the torso gives

  def dense(x, layer):
    return x @ np.asarray(layer['kernel']) + np.asarray(layer['bias'])

  x = np.maximum(dense(OBSERVATION, params['torso']['Dense_0']), 0)
  x = np.maximum(dense(x, layer), 0)
  head = params['head']
  value, advantage = (
    dense(x, head[stream]['Dense_0']) for stream in ('value', 'advantage')
  )
  expected = value + advantage - advantage.mean(axis=1, keepdims=True)
  given = jax.jit(agent.q_values)(params, OBSERVATION, jax.random.key(1))
  np.testing.assert_allclose(given, expected, atol=1e-5)
  noisy = names(make(network=shared))
  assert {'shared_0/kernel_sigma', 'shared_0/bias_sigma'} <= noisy


@pytest.mark.parametrize('switch', SWITCHES)
def test_each_switch_is_one_binding(switch, tmp_path):
  file = tmp_path / 'rainbow.gin'
  file.write_text("""
from __gin__ import dynamic_registration
from dopamine_jax import networks
from dopamine_jax.agents import full_rainbow
full_rainbow.RainbowNetwork:
  torso = @networks.MLPTorso()
  hidden = (4,)
networks.MLPTorso.hidden = (6,)
""")
  spaces = make()
  off = f'full_rainbow.FullRainbow.{switch} = False'
  agent = config.load([file], [off]).build(
    full_rainbow.FullRainbow,
    observation_space=spaces.observation_space,
    action_space=spaces.action_space,
  )
  found = {name: getattr(agent, name) for name in SWITCHES}
  assert found == dict.fromkeys(SWITCHES, True) | {switch: False}
  params = jax.eval_shape(agent.init, jax.random.key(0), OBSERVATION).params
  assert params['torso']['Dense_0']['kernel'].shape == (2, 6)
  batch = linear.random_problem(0, NUM_ACTIONS, 1)[2]
  key = jax.random.key(0)
  losses, _ = jax.eval_shape(agent.losses, params, params, batch, key)
  assert losses.shape == (linear.BATCH_SIZE,)


def test_a_network_without_switches_is_refused():
  agent = make(network=networks.MLP)
  with pytest.raises(errors.UserError, match=r'network = .*RainbowNetwork'):
    agent.init(jax.random.key(0), OBSERVATION)


# Noise.


@pytest.mark.parametrize('distributional', [True, False])
def test_each_pass_has_noise_of_its_own(distributional, monkeypatch):
  keys = []
  outputs = full_rainbow.FullRainbow.outputs

  def spy(self, params, observation, key):
    keys.append(jax.random.key_data(key))
    return outputs(self, params, observation, key)

  monkeypatch.setattr(full_rainbow.FullRainbow, 'outputs', spy)
  agent = make(network=no_head, distributional=distributional)
  params = linear.params_of(np.ones((2, agent.num_outputs)))
  batch = linear.random_problem(0, NUM_ACTIONS, 1)[2]

  @jax.jit
  def keys_of(key):
    agent.losses(params, params, batch, key)
    return keys

  found = [tuple(key.tolist()) for key in keys_of(jax.random.key(7))]
  assert len(found) == len(set(found)) == 3
  # That of the metrics, so that XLA does it once.
  assert found[0] == tuple(jax.random.key_data(jax.random.key(7)).tolist())


def test_the_size_of_the_noise_is_learnt():
  agent = make()
  state = init(agent)
  batch = linear.random_problem(0, NUM_ACTIONS, 1)[2]

  def mean_loss(params):
    losses, _ = agent.losses(params, state.params, batch, jax.random.key(1))
    return losses.mean()

  gradient = jax.jit(jax.grad(mean_loss))(state.params)
  for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
    if path[-1].key.endswith('sigma'):
      assert np.any(np.asarray(leaf) != 0), path


def actions_of(agent, state, explore, keys=20):
  act = linear.jitted(agent.act, static_argnames='explore')
  return np.array(
    [
      act(state, OBSERVATION, 0, jax.random.key(i), explore=explore)
      for i in range(keys)
    ]
  )


def test_noise_explores_and_evaluation_is_without():
  agent = make(evaluation_epsilon=0.0)
  state = init(make())
  actions = actions_of(agent, state, explore=True)
  assert (actions != actions[0]).any()
  # Only by noise: without it, training too is greedy.
  silent = state.replace(params=heads.without_noise(state.params))
  q_values = jax.jit(agent.q_values)
  q = q_values(silent.params, OBSERVATION, jax.random.key(0))
  greedy = np.tile(np.argmax(q, axis=1), (20, 1))
  np.testing.assert_array_equal(actions_of(agent, silent, True), greedy)
  np.testing.assert_array_equal(actions_of(agent, state, False), greedy)


def test_evaluation_over_seeds_equals_each_seed_alone():
  # With sigmas that were zero, layers and batches of these sizes gave NaNs on
  # CPUs.
  network = functools.partial(
    full_rainbow.RainbowNetwork,
    torso=networks.MLPTorso(hidden=(128,)),
    hidden=(128,),
  )
  agent = make(network=network, num_atoms=51, evaluation_epsilon=0.0)
  seeds, num_envs = 3, 100
  keys = jax.random.split(jax.random.key(0), seeds)
  observation = np.random.default_rng(0).normal(size=(seeds, num_envs, 2))
  observation = observation.astype(np.float32)
  states = jax.jit(jax.vmap(agent.init))(keys, observation)
  step = np.zeros(seeds, np.int32)
  act = functools.partial(agent.act, explore=False)
  actions = jax.jit(jax.vmap(act))(states, observation, step, keys)
  alone, states = jax.jit(act), jax.device_get(states)
  for i in range(seeds):
    state = jax.tree.map(lambda leaf, i=i: leaf[i], states)
    np.testing.assert_array_equal(
      actions[i], alone(state, observation[i], step[i], keys[i])
    )


def test_evaluation_has_its_epsilon_unless_it_is_greedy():
  agent = make(evaluation_epsilon=1.0)
  state = init(make())
  actions = actions_of(agent, state, explore=False)
  assert (actions != actions[0]).any()
  actions = actions_of(agent.greedy(), state, explore=False)
  assert (actions == actions[0]).all()


@pytest.mark.parametrize('noisy', [True, False])
def test_an_epsilon_holds_with_noise_and_without(noisy):
  agent = make(noisy=noisy, epsilon=0.25, evaluation_epsilon=0.1)
  assert agent.schedules(5) == {'Epsilon': 0.25}
  assert agent.epsilon_at(5, explore=False) == 0.1
  agent = make(noisy=noisy, epsilon=1.0)
  state = init(agent)
  state = state.replace(params=heads.without_noise(state.params))
  actions = actions_of(agent, state, explore=True)
  assert (actions != actions[0]).any()


def test_noise_alone_explores_where_no_epsilon_is_given():
  assert make().schedules(0) == {'Epsilon': 0.0}
  for step in (0, 100_000, 300_000):
    plain = make(noisy=False).schedules(step)
    dqn_agent = linear.make(dqn.DQN, NUM_ACTIONS, network=no_head)
    assert plain == dqn_agent.schedules(step)
  assert plain == {'Epsilon': pytest.approx(0.01)}
