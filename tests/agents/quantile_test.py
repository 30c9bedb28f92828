"""QR-DQN against Algorithm 1, written as loops in NumPy."""

import jax
import numpy as np
import pytest
import rlax

from dopamine_jax import errors
from dopamine_jax.agents import quantile
from dopamine_jax.learning import quantiles
from dopamine_jax.replay import prioritized
from tests import linear

NUM_ACTIONS, NUM_QUANTILES = 3, 4


def make(num_actions=NUM_ACTIONS, **settings):
  return linear.make(
    quantile.QuantileDQN,
    num_actions,
    **{'num_quantiles': NUM_QUANTILES, **settings},
  )


def expected(agent, kernel, target_kernel, batch, _):
  """Returns each transition's loss [B] and gradient [B, F, M * A]."""
  batch = jax.tree.map(lambda x: np.asarray(x, np.float64), batch)
  num, kappa = agent.num_quantiles, agent.kappa
  shape = (num, int(agent.action_space.n))
  losses, gradients = np.zeros(len(batch.reward)), []
  for i, action in enumerate(batch.action.astype(int)):
    now, then = batch.observation[i], batch.next_observation[i]
    theta = (now @ kernel).reshape(shape)
    next_theta = (then @ target_kernel).reshape(shape)
    chosen = np.argmax(next_theta.sum(axis=0) / num)
    slope = np.zeros(shape)
    for m in range(num):
      tau = (2 * m + 1) / (2 * num)
      for j in range(num):
        target = batch.reward[i] + batch.discount[i] * next_theta[j, chosen]
        u = target - theta[m, action]
        if kappa == 0:
          huber, by_u = abs(u), np.sign(u)
        elif abs(u) <= kappa:
          huber, by_u = u**2 / 2, u
        else:
          huber, by_u = kappa * (abs(u) - kappa / 2), kappa * np.sign(u)
        weight = abs(tau - (u < 0))
        losses[i] += weight * huber / num
        slope[m, action] -= weight * by_u / num
    gradients.append(np.outer(now, slope))
  return losses, np.array(gradients)


# Importance weights are those of `random_problem`: none is 1.
@pytest.mark.parametrize('kappa', [0.0, 0.5, 1.0])
def test_an_update_agrees_with_numpy(kappa):
  agent = make(kappa=kappa)
  for seed in range(4):
    problem = linear.random_problem(seed, NUM_ACTIONS, agent.num_outputs)
    linear.assert_update(agent, problem, *expected(agent, *problem))


@pytest.mark.parametrize('kappa', [0.0, 0.5, 2.0])
def test_the_loss_and_its_gradient_are_those_of_rlax(kappa):
  random = np.random.default_rng(0)

  def draw(*shape):
    return random.normal(size=(200, *shape)).astype(np.float32)

  problems = (
    3 * draw(7, 3),
    random.uniform(size=(200, 7)).astype(np.float32),
    random.integers(3, size=200),
    draw(),
    draw(),
    draw(4, 3),
    3 * draw(11, 3),
  )

  def both(loss):
    each = jax.value_and_grad(lambda *problem: loss(*problem, kappa))
    return jax.jit(jax.vmap(each))(*problems)

  ours = both(quantiles.regression)
  theirs = both(rlax.quantile_q_learning)
  for one, other in zip(ours, theirs, strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_the_loss_sums_over_quantiles_and_averages_over_the_target():
  agent = make(num_actions=1, num_quantiles=2)
  kernel = [[0.0, 0.0], [1.0, -1.5]]
  batch = linear.make_batch([[1, 0]], [0], [1], [1], [[0, 1]])
  # The target's quantiles are 2 and -0.5, their Huber losses 1.5 and 0.125.
  first = (0.25 * 1.5 + 0.75 * 0.125) / 2
  second = (0.75 * 1.5 + 0.25 * 0.125) / 2
  np.testing.assert_allclose(
    linear.losses(agent, kernel, kernel, batch), [first + second]
  )


def test_nothing_is_bootstrapped_after_a_termination():
  agent = make(num_actions=1, num_quantiles=1)
  batch = linear.make_batch([[1, 0]], [0], [1], [0], [[0, 1]])
  kernel = [[0.0], [1e6]]
  np.testing.assert_allclose(
    linear.losses(agent, kernel, kernel, batch), [0.5 * 0.5]
  )


def test_importance_weights_scale_each_transitions_gradient():
  # Two transitions that share no weight of the network.
  agent = make(num_actions=1, num_quantiles=1)
  batch = linear.make_batch(
    [[1, 0], [0, 1]], [0, 0], [1, 1], [0, 0], [[0, 0], [0, 0]]
  )
  zeros = np.zeros((2, 1))
  plain, _, _ = linear.update(agent, zeros, zeros, batch, [1.0, 1.0])
  weighted, _, _ = linear.update(agent, zeros, zeros, batch, [0.25, 0.0])
  assert (plain > 0).all()
  np.testing.assert_allclose(weighted[0], 0.25 * plain[0])
  assert weighted[1] == 0


def test_quantiles_lie_in_the_middle_of_equal_parts():
  np.testing.assert_allclose(make().midpoints, [0.125, 0.375, 0.625, 0.875])


def test_q_values_are_means_and_each_action_has_its_own():
  agent = make(num_actions=2, num_quantiles=2)
  # The last layer has the actions of a quantile side by side.
  kernel = [[1, 10, 3, 30], [0, 0, 0, -2]]
  q_values = jax.jit(agent.q_values)
  q = q_values(linear.params_of(kernel), np.eye(2), jax.random.key(0))
  np.testing.assert_allclose(q, [[2, 20], [0, -1]])


def test_the_learnt_quantiles_are_those_of_the_return():
  # Of returns 0 and 1, half each, a quarter's quantile is 0, the other's 1.
  agent = make(num_actions=1, num_quantiles=2, kappa=0.0)
  batch = linear.make_batch(
    [[1, 0]] * 4, [0] * 4, [0, 1, 0, 1], [0] * 4, [[0, 0]] * 4
  )
  kernel = np.full((2, 2), 0.5)
  for _ in range(50):
    kernel, _, _ = linear.update(agent, kernel, kernel, batch, np.ones(4))
  np.testing.assert_allclose(kernel[0], [0, 1], atol=0.1)


def test_replay_is_prioritized_and_returns_have_three_steps():
  replay = make().make_replay(1)
  assert isinstance(replay, prioritized.PrioritizedReplay)
  assert replay.n_step == 3


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'num_quantiles': 0}, 'num_quantiles = 0.*at least 1'),
    ({'kappa': -1.0}, r'kappa = -1\.0.*at least 0'),
  ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
  with pytest.raises(errors.UserError, match=f'QuantileDQN.{message}'):
    make(**settings)
