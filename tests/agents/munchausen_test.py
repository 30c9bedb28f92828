"""Munchausen DQN and IQN against eq. 2 of the paper, by single transitions."""

import functools

import jax
import numpy as np
import pytest

from dopamine_jax import errors
from dopamine_jax.agents import dqn
from dopamine_jax.agents import munchausen
from tests import linear
from tests.agents import iqn_test

NUM_ACTIONS = 3
LOG_2 = np.log(2)


@functools.cache  # compiles once for all tests
def make(cls=munchausen.MunchausenDQN, **settings):
  return linear.make(cls, NUM_ACTIONS, **settings)


# Observation 1 has q = (0, 0, 1) online and (2, 2, 2 - log 2) by the target
# network, observation 0 has (0, 2, 0) and (1, 1, 1 - log 2).
KERNEL = [[0, 2, 0], [0, 0, 1]]
TARGET_KERNEL = [[1, 1, 1 - LOG_2], [2, 2, 2 - LOG_2]]
# With tau = 1 the policy of both is then (2/5, 2/5, 1/5).
POLICY = np.array([2, 2, 1]) / 5


@pytest.mark.parametrize('action', [0, 2])
def test_the_target_has_the_log_policy_and_the_next_ones_entropy(action):
  agent = make(tau=1.0, alpha=0.5, log_policy_min=-10.0)
  batch = linear.make_batch([[1, 0]], [action], [1], [0.5], [[0, 1]])
  bonus = 0.5 * np.log(POLICY[action])
  entropy = -sum(p * np.log(p) for p in POLICY)
  value_next = POLICY @ np.array(TARGET_KERNEL[1]) + entropy
  expected = (1 + bonus + 0.5 * value_next - 0) ** 2  # q = 0
  np.testing.assert_allclose(
    linear.losses(agent, KERNEL, TARGET_KERNEL, batch), [expected], rtol=1e-5
  )


def test_the_log_policy_is_clipped_after_it_is_scaled():
  # tau * log(policy) of action 2 is 2 * log(1 / 5) = -3.2, cut to -3; that of
  # action 0 is 2 * log(2 / 5) = -1.8.
  kernel = 2 * np.array(TARGET_KERNEL)
  bonus = jax.jit(munchausen.munchausen_bonus)(
    kernel[[0, 0]], np.array([2, 0]), 2.0, 0.5, -3.0
  )
  np.testing.assert_allclose(bonus, [-1.5, np.log(2 / 5)], rtol=1e-5)


def test_nothing_is_bootstrapped_after_a_termination():
  agent = make(tau=1.0, alpha=0.5)
  batch = linear.make_batch([[1, 0]], [1], [1], [0], [[0, 1]])
  target = [TARGET_KERNEL[0], [1e6] * 3]
  expected = (1 + 0.5 * np.log(2 / 5) - 2) ** 2
  np.testing.assert_allclose(
    linear.losses(agent, KERNEL, target, batch), [expected], rtol=1e-5
  )


def test_without_bonus_and_entropy_it_is_dqn():
  agent, dqn_agent = make(alpha=0.0, tau=1e-5), make(dqn.DQN)
  for seed in range(3):
    *problem, _ = linear.random_problem(seed, NUM_ACTIONS, NUM_ACTIONS)
    np.testing.assert_allclose(
      linear.losses(agent, *problem),
      linear.losses(dqn_agent, *problem),
      rtol=1e-3,
    )


def expected_losses(kernel, target_kernel, batch, *, tau, alpha, minimum):
  """Returns the squared errors [B] of eq. 2, in float64."""
  batch = jax.tree.map(lambda x: np.asarray(x, np.float64), batch)
  losses = []
  for i in range(len(batch.reward)):
    action = int(batch.action[i])

    def policy_of(q):
      weights = np.exp((q - q.max()) / tau)
      return weights / weights.sum()

    q = batch.observation[i] @ target_kernel
    q_next = batch.next_observation[i] @ target_kernel
    target = batch.reward[i]
    log_policy = tau * np.log(policy_of(q)[action])
    target += alpha * min(max(log_policy, minimum), 0)
    for p, value in zip(policy_of(q_next), q_next, strict=True):
      if p > 0:
        target += batch.discount[i] * p * (value - tau * np.log(p))
    losses.append((target - batch.observation[i] @ kernel[:, action]) ** 2)
  return np.array(losses)


@pytest.mark.parametrize(
  ('tau', 'alpha', 'minimum'), [(0.5, 0.9, -1.0), (0.03, 0.9, -1.0), (2, 1, -9)]
)
def test_losses_and_gradients_agree_with_numpy(tau, alpha, minimum):
  settings = {'tau': tau, 'alpha': alpha}
  agent = make(log_policy_min=minimum, **settings)
  for seed in range(3):
    kernel, target_kernel, batch, weight = linear.random_problem(
      seed, NUM_ACTIONS, NUM_ACTIONS
    )
    if tau == 0.03:  # or its policy is 0 in float64 too
      target_kernel = target_kernel / 5
    expected = expected_losses(
      kernel, target_kernel, batch, minimum=minimum, **settings
    )
    # The target is a constant: slopes by the online kernel alone.
    slopes = np.zeros((linear.BATCH_SIZE, *kernel.shape))
    for index in np.ndindex(*kernel.shape):
      step = np.zeros_like(kernel)
      step[index] = 1e-5
      above, below = (
        expected_losses(k, target_kernel, batch, minimum=minimum, **settings)
        for k in (kernel + step, kernel - step)
      )
      slopes[:, *index] = (above - below) / 2e-5
    problem = (kernel, target_kernel, batch, weight)
    linear.assert_update(agent, problem, expected, slopes)


def test_no_gradient_flows_through_the_policy():
  # The policy is the target network's; were it the online network's, the loss
  # of an action would move the values of others.
  agent = make(tau=1.0)
  _, _, batch, _ = linear.random_problem(0, NUM_ACTIONS, NUM_ACTIONS)
  batch = batch.replace(action=np.zeros_like(batch.action))

  def loss(params):
    return agent.losses(params, params, batch, jax.random.key(0))[0].sum()

  gradient = jax.jit(jax.grad(loss))(linear.params_of(KERNEL))
  gradient = np.asarray(gradient['kernel'])
  assert np.all(gradient[:, 0] != 0)
  np.testing.assert_array_equal(gradient[:, 1:], 0)


def test_small_temperatures_and_large_values_stay_finite():
  q = np.array([[1e4, 1e4 - 0.03, -1e4]], np.float32)

  def value_of(q):
    value = munchausen.soft_value(q, 0.03)
    return value.sum(), (value, munchausen.scaled_log_policy(q, 0.03))

  gradient, (value, log_policy) = jax.device_get(
    jax.jit(jax.grad(value_of, has_aux=True))(q)
  )
  # exp(-1) beside 1, as far as float32 tells 0.03 from its neighbours at 1e4.
  expected = -0.03 * np.log(1 + np.exp(-(1e4 - float(q[0, 1])) / 0.03))
  np.testing.assert_allclose(log_policy[0, 0], expected, rtol=1e-4)
  np.testing.assert_allclose(log_policy[0, 2], -2e4, rtol=1e-6)
  np.testing.assert_allclose(value, [1e4 - expected], rtol=1e-6)
  assert np.all(np.isfinite(gradient))


def test_it_acts_greedily_by_the_values():
  agent = make(epsilon=0.0)
  # Of observation 1 the policy has nearly the same for two actions.
  kernel = [[0, 2, 0], [0, 1, 1 + 1e-3]]
  state = linear.make_state(agent, kernel, kernel)
  act = jax.jit(functools.partial(agent.act, explore=True))
  for i in range(5):
    actions = act(state, np.eye(2), np.int32(0), jax.random.key(i))
    np.testing.assert_array_equal(actions, [1, 2])


# Munchausen IQN.


def make_iqn(network=iqn_test.Scaled, **settings):
  numbers = {
    'num_tau_samples': 5,
    'num_tau_prime_samples': 4,
    'num_quantile_samples': 3,
  }
  return make(
    munchausen.MunchausenIQN, **{'network': network} | numbers | settings
  )


def expected_iqn(agent, kernel, target_kernel, batch):
  """Returns each transition's quantile Huber loss [B], for kappa = 1."""
  key = jax.random.key(0)
  next_key, now_key = (jax.random.fold_in(key, i) for i in (1, 2))
  tau = iqn_test.taus(batch.observation, key, 5)
  tau_next = iqn_test.taus(batch.next_observation, next_key, 3 + 4)
  tau_now = iqn_test.taus(batch.observation, now_key, 3)
  batch = jax.tree.map(lambda x: np.asarray(x, np.float64), batch)

  def policy_of(tau, values):
    q = np.mean([(1 + each) * values for each in tau], axis=0)
    weights = np.exp((q - q.max()) / agent.tau)
    return weights / weights.sum()

  losses = []
  for i in range(len(batch.reward)):
    action = int(batch.action[i])
    now, then = batch.observation[i], batch.next_observation[i]
    log_policy = agent.tau * np.log(
      policy_of(tau_now[i], now @ target_kernel)[action]
    )
    reward = batch.reward[i] + agent.alpha * max(
      log_policy, agent.log_policy_min
    )
    values = then @ target_kernel
    policy = policy_of(tau_next[i, :3], values)
    loss = 0.0
    for each in tau[i]:
      for other in tau_next[i, 3:]:
        target = reward
        for p, value in zip(policy, values, strict=True):
          z = (1 + other) * value
          target += batch.discount[i] * p * (z - agent.tau * np.log(p))
        error = target - (1 + each) * (now @ kernel[:, action])
        size = abs(error)
        huber = error**2 / 2 if size <= 1 else size - 1 / 2
        loss += abs(each - (error < 0)) * huber / 4
    losses.append(loss)
  return np.array(losses)


@pytest.mark.parametrize(
  ('tau', 'minimum'), [(1.0, -10.0), (0.5, -0.5), (3.0, -1.0)]
)
def test_iqn_agrees_with_numpy(tau, minimum):
  agent = make_iqn(tau=tau, log_policy_min=minimum)
  for seed in range(3):
    *problem, _ = linear.random_problem(seed, NUM_ACTIONS, NUM_ACTIONS)
    np.testing.assert_allclose(
      linear.losses(agent, *problem),
      expected_iqn(agent, *problem),
      rtol=1e-3,
      atol=1e-5,
    )


def test_of_a_sure_return_iqn_has_the_target_of_dqn():
  dqn_agent = make(tau=1.0, alpha=0.5, log_policy_min=-10.0)
  agent = make_iqn(
    iqn_test.Constant, tau=1.0, alpha=0.5, log_policy_min=-10.0, kappa=100.0
  )
  *problem, _ = linear.random_problem(0, NUM_ACTIONS, NUM_ACTIONS)
  tau = iqn_test.taus(problem[-1].observation, jax.random.key(0), 5)
  # The squared error, by what of tau is on its side: with all alike, of each
  # sign there is either tau or 1 - tau.
  squares = linear.losses(dqn_agent, *problem)
  losses = 100.0 * linear.losses(agent, *problem)
  above, below = tau.sum(axis=1) / 2, (1 - tau).sum(axis=1) / 2
  for i, loss in enumerate(losses):
    candidates = squares[i] * np.array([above[i], below[i]])
    assert np.min(np.abs(candidates / loss - 1)) < 1e-3


def test_iqn_refuses_what_does_not_fit():
  assert make_iqn().n_step == 1
  for settings, message in [
    ({'n_step': 3}, 'MunchausenIQN.n_step = 3'),
    ({'double': True}, 'MunchausenIQN.double = True'),
    ({'kappa': -1.0}, 'MunchausenIQN.kappa'),
  ]:
    with pytest.raises(errors.UserError, match=message):
      make_iqn(**settings)


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'n_step': 3}, r'n_step = 3 .*log-policy.*Set n_step = 1'),
    ({'tau': 0.0}, r'tau = 0\.0 is too small; it must be above 0'),
    ({'alpha': 1.5}, r'alpha = 1\.5.*\[0, 1\]'),
    (
      {'log_policy_min': 0.1},
      r'log_policy_min = 0\.1 is too large',
    ),
    ({'gamma': 1.5}, r'gamma = 1\.5.*\[0, 1\]'),
  ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
  with pytest.raises(errors.UserError, match=f'MunchausenDQN.{message}'):
    make(**settings)
