"""DQN and Double DQN against a computation in NumPy, one transition at a time.

The network is linear and has no bias, so that its gradient can be written
down: the derivative of q[a] by the weights of action a is the observation.
"""

import functools

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import dopamine_jax as dj
from dopamine_jax import config
from dopamine_jax import errors
from dopamine_jax import networks
from dopamine_jax.agents import double_dqn
from dopamine_jax.agents import dqn
from dopamine_jax.environments import catch
from dopamine_jax.replay import uniform
from tests import linear

AGENTS = (dqn.DQN, double_dqn.DoubleDQN)
NUM_ACTIONS = 3


def make(cls=dqn.DQN, num_actions=NUM_ACTIONS, **settings):
  return linear.make(cls, num_actions, **settings)


def random_problem(seed):
  """Returns an online kernel, a target kernel and a batch."""
  return linear.random_problem(seed, NUM_ACTIONS, NUM_ACTIONS)[:3]


class Expected:
  """Losses [B] and the gradient of their weighted mean, by hand."""

  def __init__(
    self, kernel, target_kernel, batch, *, double, delta=None, weight=None
  ):
    batch = jax.tree.map(lambda x: np.asarray(x, np.float64), batch)
    size = len(batch.reward)
    weight = np.ones(size) if weight is None else weight
    self.losses = np.zeros(size)
    self.gradient = np.zeros_like(kernel)
    for i in range(size):
      now, then = batch.observation[i], batch.next_observation[i]
      action = int(batch.action[i])
      target_q = then @ target_kernel
      chosen = np.argmax(then @ (kernel if double else target_kernel))
      target = batch.reward[i] + batch.discount[i] * target_q[chosen]
      error = target - now @ kernel[:, action]
      if delta is None:
        self.losses[i], slope = error**2, 2 * error
      elif abs(error) <= delta:
        self.losses[i], slope = error**2 / 2, error
      else:
        self.losses[i] = delta * (abs(error) - delta / 2)
        slope = delta * np.sign(error)
      self.gradient[:, action] -= weight[i] * slope * now / size


def update(agent, state, sample):
  return jax.jit(agent.update)(state, sample, jax.random.key(0))


# Observation 1 has q = (0, 0, 1) online and (3, 5, 4) by the target network.
KERNEL = [[0, 2, 0], [0, 0, 1]]
TARGET_KERNEL = [[9, 9, 9], [3, 5, 4]]
# From observation 0, where q = 2, by action 1 to observation 1.
BATCH = linear.make_batch([[1, 0]], [1], [1], [0.5], [[0, 1]])


def test_dqn_bootstraps_from_the_largest_target_value():
  # 1 + 0.5 * 5 - 2 = 1.5
  np.testing.assert_allclose(
    linear.losses(make(), KERNEL, TARGET_KERNEL, BATCH), [1.5**2]
  )


def test_double_dqn_bootstraps_from_the_target_value_of_the_online_choice():
  # 1 + 0.5 * 4 - 2 = 1
  np.testing.assert_allclose(
    linear.losses(make(double_dqn.DoubleDQN), KERNEL, TARGET_KERNEL, BATCH),
    [1.0],
  )


@pytest.mark.parametrize('cls', AGENTS)
def test_nothing_is_bootstrapped_after_a_termination(cls):
  batch = BATCH.replace(discount=jnp.zeros(1))
  endless = 1e6 * np.ones((linear.NUM_FEATURES, NUM_ACTIONS))
  # 1 - 2 = -1
  np.testing.assert_allclose(
    linear.losses(make(cls), KERNEL, endless, batch), [1.0]
  )


@pytest.mark.parametrize(
  ('delta', 'expected'),
  [
    (None, [0.25, 9.0]),
    (1.0, [0.125, 2.5]),  # 3 - 1 / 2
    (2.0, [0.125, 4.0]),  # 2 * (3 - 2 / 2)
    (5.0, [0.125, 4.5]),
  ],
)
def test_huber_delta_bounds_the_slope_of_the_loss(delta, expected):
  # Errors of 0.5 and -3: q = 0 for both.
  batch = linear.make_batch(
    [[0, 1], [0, 1]], [0, 0], [0.5, -3], [0, 0], [[0, 0], [0, 0]]
  )
  actual = linear.losses(make(huber_delta=delta), KERNEL, TARGET_KERNEL, batch)
  np.testing.assert_allclose(actual, expected)


@pytest.mark.parametrize('delta', [None, 1.0])
@pytest.mark.parametrize('cls', AGENTS)
def test_an_update_agrees_with_numpy(cls, delta):
  agent = make(cls, huber_delta=delta)
  step = jax.jit(agent.update)
  for seed in range(5):
    kernel, target_kernel, batch = random_problem(seed)
    weight = np.random.default_rng(seed + 100).uniform(
      0.1, 1, linear.BATCH_SIZE
    )
    expected = Expected(
      kernel,
      target_kernel,
      batch,
      double=cls is double_dqn.DoubleDQN,
      delta=delta,
      weight=weight,
    )

    state, metrics, priorities = step(
      linear.make_state(agent, kernel, target_kernel),
      linear.make_sample(batch, weight.astype(np.float32)),
      jax.random.key(0),
    )

    new_kernel = kernel - 0.1 * expected.gradient
    q = np.asarray(batch.observation) @ kernel
    assert_near(state.params['kernel'], new_kernel)
    # Priorities are for the replay to weigh; only the loss is weighted.
    assert_near(priorities, np.sqrt(expected.losses))
    assert_near(metrics.pop('Loss'), np.mean(weight * expected.losses))
    assert_near(metrics.pop('QMean'), q.mean())
    assert_near(metrics.pop('QMax'), q.max())
    assert_near(metrics.pop('GradientNorm'), np.linalg.norm(expected.gradient))
    assert_near(metrics.pop('ParameterNorm'), np.linalg.norm(new_kernel))
    assert not metrics


def assert_near(actual, expected):
  np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_importance_weights_scale_each_transitions_gradient():
  # Two transitions that share no weight of the network.
  batch = linear.make_batch(
    [[1, 0], [0, 1]], [0, 1], [1, 1], [0, 0], [[0, 0], [0, 0]]
  )
  agent = make()
  zeros = np.zeros((linear.NUM_FEATURES, NUM_ACTIONS))

  def step(weight):
    state = linear.make_state(agent, zeros, zeros)
    return update(agent, state, linear.make_sample(batch, weight))[0].params[
      'kernel'
    ]

  plain, weighted = np.asarray(step([1.0, 1.0])), np.asarray(step([0.25, 0.0]))
  np.testing.assert_allclose(plain[0, 0], 0.1)
  np.testing.assert_allclose(weighted[0, 0], 0.25 * plain[0, 0])
  assert plain[1, 1] > 0
  assert weighted[1, 1] == 0


@pytest.mark.parametrize(
  'optimizer',
  [
    optax.adam(optax.linear_schedule(0.1, 0.0, 4)),
    # This one needs the parameters too.
    optax.chain(optax.clip_by_global_norm(0.1), optax.adamw(0.1)),
  ],
  ids=['adam', 'adamw'],
)
def test_the_optimizer_is_stepped_as_plain_optax(optimizer):
  agent = make(optimizer=optimizer)
  kernel, target_kernel, batch = random_problem(2)
  state = linear.make_state(agent, kernel, target_kernel)
  expected = linear.params_of(kernel)
  optimizer_state = optimizer.init(expected)
  step, plain_step = jax.jit(agent.update), jax.jit(optimizer.update)
  for _ in range(3):
    gradient = Expected(
      np.asarray(expected['kernel'], np.float64),
      target_kernel,
      batch,
      double=False,
    ).gradient
    changes, optimizer_state = plain_step(
      linear.params_of(gradient), optimizer_state, expected
    )
    expected = optax.apply_updates(expected, changes)
    state, _, _ = step(state, linear.make_sample(batch), jax.random.key(0))
  np.testing.assert_allclose(
    state.params['kernel'], expected['kernel'], rtol=1e-4
  )


@pytest.mark.parametrize(
  ('period', 'update_period', 'num_updates'), [(12, 4, 3), (4, 4, 1)]
)
def test_the_target_is_copied_exactly_when_due(
  period, update_period, num_updates
):
  agent = make(target_update_period=period, update_period=update_period)
  kernel, target_kernel, batch = random_problem(3)
  state = linear.make_state(agent, kernel, target_kernel)
  step = jax.jit(agent.update)
  expected = np.asarray(target_kernel, np.float32)
  for i in range(1, 2 * num_updates + 2):
    before = np.asarray(state.params['kernel'])
    state, _, _ = step(state, linear.make_sample(batch), jax.random.key(0))
    after = np.asarray(state.params['kernel'])
    assert not np.array_equal(before, after)
    if i % num_updates == 0:
      expected = after
    np.testing.assert_array_equal(state.target_params['kernel'], expected)


def test_the_target_never_shares_memory_with_the_parameters():
  # Or an engine, which donates both, would donate one buffer twice.
  agent = make(target_update_period=4)
  _, _, batch = random_problem(4)
  state = jax.jit(agent.init)(jax.random.key(0), batch.observation)
  step = jax.jit(agent.update, donate_argnums=0)
  np.testing.assert_array_equal(
    state.params['kernel'], state.target_params['kernel']
  )
  for _ in range(3):
    addresses = [
      tree['kernel'].unsafe_buffer_pointer()
      for tree in (state.params, state.target_params)
    ]
    assert addresses[0] != addresses[1]
    state, _, _ = step(state, linear.make_sample(batch), jax.random.key(0))


def test_a_new_agent_starts_from_its_key():
  agent = make()
  observation = jnp.zeros((1, linear.NUM_FEATURES))
  kernels = [
    np.asarray(agent.init(jax.random.key(i), observation).params['kernel'])
    for i in (0, 0, 1)
  ]
  np.testing.assert_array_equal(kernels[0], kernels[1])
  assert (kernels[0] != kernels[2]).all()
  assert agent.init(jax.random.key(0), observation).updates == 0


@pytest.mark.parametrize(
  ('step', 'epsilon'),
  [
    (0, 1.0),
    (20_000, 1.0),  # the warm-up is over
    (145_000, 0.505),
    (270_000, 0.01),
    (10_000_000, 0.01),
  ],
)
def test_epsilon_decays_over_agent_steps(step, epsilon):
  logged = make().schedules(step)
  assert logged == {'Epsilon': pytest.approx(epsilon)}
  assert isinstance(logged['Epsilon'], float)


def test_epsilon_may_be_a_number():
  assert make(epsilon=0.25).schedules(123) == {'Epsilon': 0.25}


N = 20_000


def actions_of(agent, *, step=0, explore, key=0):
  """Returns N actions where action 3 of 4 is the best."""
  state = linear.make_state(
    agent, [[0, 1, 2, 3], [0, 0, 0, 0]], np.zeros((2, 4))
  )
  act = jax.jit(functools.partial(agent.act, explore=explore))
  observation = jnp.tile(jnp.array([[1.0, 0.0]]), (N, 1))
  return np.asarray(
    act(state, observation, jnp.int32(step), jax.random.key(key))
  )


def assert_explores(actions, epsilon):
  """Asserts that each action is as frequent as it should be.

  A random action may be the best one; the bound is 5 standard deviations.
  """
  expected = np.full(4, epsilon / 4)
  expected[3] += 1 - epsilon
  frequency = np.bincount(actions, minlength=4) / N
  bound = 5 * np.sqrt(expected * (1 - expected) / N)
  assert (np.abs(frequency - expected) <= bound).all(), frequency


@pytest.mark.parametrize('epsilon', [0.3, 1.0])
def test_acting_is_random_as_often_as_epsilon_says(epsilon):
  agent = make(num_actions=4, epsilon=epsilon, evaluation_epsilon=0.5)
  assert_explores(actions_of(agent, explore=True), epsilon)


def test_acting_follows_the_schedule():
  agent = make(num_actions=4, epsilon=optax.linear_schedule(1.0, 0.0, 100))
  assert_explores(actions_of(agent, step=50, explore=True), 0.5)
  assert_explores(actions_of(agent, step=100, explore=True), 0.0)


def test_evaluation_has_an_epsilon_of_its_own():
  agent = make(num_actions=4, epsilon=1.0, evaluation_epsilon=0.2)
  assert_explores(actions_of(agent, explore=False), 0.2)


def test_greedy_ends_all_exploration_of_evaluation_alone():
  agent = make(num_actions=4, epsilon=1.0, evaluation_epsilon=0.2).greedy()
  assert_explores(actions_of(agent, explore=False), 0.0)
  assert_explores(actions_of(agent, explore=True), 1.0)


def test_what_acting_draws_depends_on_the_key_alone():
  agent = make(num_actions=4, epsilon=0.3)
  first, again, other = (
    actions_of(agent, explore=True, key=key) for key in (0, 0, 1)
  )
  np.testing.assert_array_equal(first, again)
  assert (first != other).any()


def test_each_environment_gets_the_best_action_of_its_own_observation():
  agent = make(epsilon=0.0)
  kernel = [[3, 1, 2], [0, 0, 1]]
  observation = jnp.array([[1.0, 0], [0, 1], [-1, 0]])
  act = jax.jit(functools.partial(agent.act, explore=True))
  state = linear.make_state(agent, kernel, kernel)
  actions = act(state, observation, jnp.int32(0), jax.random.key(0))
  np.testing.assert_array_equal(actions, [0, 2, 1])


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    *[
      (
        {'action_space': space},
        r'action_space = .*takes Discrete\(n\) spaces that start at 0.*Choose',
      )
      for space in (
        gymnasium.spaces.Box(-1, 1, (2,)),
        gymnasium.spaces.MultiDiscrete([2, 2]),
        gymnasium.spaces.Discrete(2, start=1),
      )
    ],
    (
      {'update_period': 4, 'target_update_period': 6},
      'target_update_period = 6 is not a positive multiple of update_period',
    ),
    ({'update_period': 0}, 'update_period = 0.*at least 1'),
    ({'target_update_period': 0}, 'target_update_period = 0'),
    ({'n_step': 0}, 'n_step = 0.*at least 1'),
    ({'n_step': 1.5}, r'n_step = 1\.5.*float; expected int'),
    ({'gamma': 1.5}, r'gamma = 1\.5.*\[0, 1\]'),
    ({'epsilon': -0.1}, r'epsilon = -0\.1.*\[0, 1\]'),
    ({'evaluation_epsilon': 2}, r'evaluation_epsilon = 2.*\[0, 1\]'),
    ({'huber_delta': 0.0}, r'huber_delta = 0\.0.*above 0'),
    # The function that makes an optimizer, where the optimizer is expected.
    ({'optimizer': optax.adam}, 'optimizer.*expected GradientTransformation'),
  ],
)
@pytest.mark.parametrize('cls', AGENTS)
def test_settings_that_cannot_work_are_refused(cls, settings, message):
  with pytest.raises(errors.UserError, match=f'{cls.__name__}.{message}'):
    make(cls, **settings)


def test_an_optimizer_without_parentheses_in_gin_is_told_to_have_them(tmp_path):
  file = tmp_path / 'adam.gin'
  file.write_text("""
from __gin__ import dynamic_registration
import optax
from dopamine_jax.agents import dqn
dqn.DQN.optimizer = @optax.adam
optax.adam.learning_rate = 0.1
""")
  loaded = config.load([file])
  with pytest.raises(errors.UserError, match=r'(?s)line 5.*@name\(\)'):
    loaded.build(
      dqn.DQN,
      observation_space=linear.OBSERVATION_SPACE,
      action_space=gymnasium.spaces.Discrete(2),
    )


def test_an_override_without_a_type_is_refused():
  with pytest.raises(TypeError, match=r'Greedy\.epsilon.*without a type'):

    class Greedy(dqn.DQN):
      epsilon = 0.0


def test_an_override_with_a_type_is_a_new_default():
  class Greedy(dqn.DQN):
    epsilon: float = 0.0

  assert make(Greedy).schedules(0) == {'Epsilon': 0.0}
  assert make(Greedy).gamma == make().gamma


class CountedState(dqn.DQNState):
  count: jax.Array


class Counted(dqn.DQN):
  """Has one field more in its state than its parent, which knows nothing."""

  def init(self, key, observation):
    state = super().init(key, observation)
    return CountedState(**vars(state), count=jnp.zeros((), jnp.int32))

  def update(self, state, sample, key):
    state, metrics, priorities = super().update(state, sample, key)
    return state.replace(count=state.count + 2), metrics, priorities


def test_a_subclass_may_extend_the_state(tmp_path):
  agent = Counted(
    network=networks.MLP(hidden=()),
    replay=uniform.UniformReplay(batch_size=4, min_history=20, capacity=100),
  )
  settings = {'agent_steps': 40, 'evaluation_episodes': 0, 'quiet': True}
  run = dj.train(agent, catch.Catch(), tmp_path, **settings)
  state = run.load().state
  assert state.count == 2 * state.updates == 12
