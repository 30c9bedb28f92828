"""Tests of returns.py against loops written from the papers' sums."""

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dopamine_jax import agent as agent_lib
from dopamine_jax.learning import returns

T, N, GAMMA = 6, 3, 0.9
RUNNING, TERMINATED, TRUNCATED = 0, 1, 2
floats = st.floats(-2, 2, width=32)


def value(observation):
  """Of any batch of observations [B, 1]: 3 x + 1."""
  return 3 * observation[:, 0] + 1


def make_trajectory(status, reward, observation, last_observation):
  """Returns a trajectory whose rows follow each other, but where one ended."""
  status = np.asarray(status)
  following = np.concatenate([observation[1:], last_observation[-1:]])
  following = np.where(status != RUNNING, last_observation, following)
  return agent_lib.Trajectory(
    observation=jnp.asarray(observation, jnp.float32)[..., None],
    action=jnp.zeros(status.shape, jnp.int32),
    reward=jnp.asarray(reward, jnp.float32),
    discount=jnp.where(status == TERMINATED, 0.0, jnp.float32(GAMMA)),
    next_observation=jnp.asarray(following, jnp.float32)[..., None],
    last=jnp.asarray(status != RUNNING),
  )


def advantages_by_sums(trajectory, lambda_):
  """Schulman et al. (2016), eq. 16: sums of (gamma lambda)^k delta_{t+k}.

  The sum ends with the episode, or the rollout.
  """
  v = 3 * np.asarray(trajectory.observation[..., 0], np.float64) + 1
  v_next = 3 * np.asarray(trajectory.next_observation[..., 0], np.float64) + 1
  reward, discount = (
    np.asarray(trajectory.reward),
    np.asarray(trajectory.discount),
  )
  delta = reward + discount * v_next - v
  result = np.zeros((T, N))
  for n in range(N):
    for t in range(T):
      for k in range(T - t):
        result[t, n] += (GAMMA * lambda_) ** k * delta[t + k, n]
        if trajectory.last[t + k, n]:
          break
  return result


@jax.jit
def compute(trajectory, lambda_):
  values = returns.over_rows(value, trajectory.observation)
  next_values = returns.next_values(trajectory, values, value)
  targets = returns.lambda_returns(trajectory, next_values, lambda_)
  return values, next_values, targets


@settings(max_examples=40)
@given(
  status=hnp.arrays(
    np.int32, (T, N), elements=st.sampled_from([0, 0, 0, TERMINATED, TRUNCATED])
  ),
  numbers=hnp.arrays(np.float32, (3, T, N), elements=floats),
  lambda_=st.sampled_from([0.0, 0.5, 0.95, 1.0]),
)
def test_lambda_returns_less_values_are_the_advantages_of_gae(
  status, numbers, lambda_
):
  trajectory = make_trajectory(status, *numbers)
  values, next_values, targets = compute(trajectory, lambda_)
  np.testing.assert_allclose(
    targets - values, advantages_by_sums(trajectory, lambda_), atol=1e-4
  )
  # Below a termination, whose discount is 0, the value may be any.
  matters = status != TERMINATED
  expected = 3 * trajectory.next_observation[..., 0] + 1
  np.testing.assert_allclose(
    np.where(matters, next_values, 0), np.where(matters, expected, 0), atol=1e-5
  )


def test_lambda_returns_by_hand():
  # One environment: a step, a truncation, a termination, a step; v = 3 x + 1.
  trajectory = make_trajectory(
    [[RUNNING], [TRUNCATED], [TERMINATED], [RUNNING]],
    [[1], [2], [3], [4]],
    np.array([[0], [1], [2], [3]], float),
    np.array([[9], [5], [9], [4]], float),
  )
  values, next_values, targets = compute(trajectory, 0.5)
  np.testing.assert_allclose(values[:, 0], [1, 4, 7, 10])
  np.testing.assert_allclose(next_values[:2, 0], [4, 16])
  np.testing.assert_allclose(next_values[3, 0], 13)
  second = 2 + 0.9 * 16
  expected = [1 + 0.9 * (0.5 * 4 + 0.5 * second), second, 3, 4 + 0.9 * 13]
  np.testing.assert_allclose(targets[:, 0], expected, rtol=1e-6)


@pytest.mark.parametrize('cut', [[], [(2, 1)], [(2, 1), (2, 2), (5, 0)]])
def test_the_network_sees_last_observations_of_rows_with_a_truncation(cut):
  seen = []

  def spy(observation):
    jax.debug.callback(
      lambda x: seen.append(x[:, 0].tolist()), observation, ordered=True
    )
    return value(observation)

  status = np.full((T, N), TERMINATED)
  for place in cut:
    status[place] = TRUNCATED
  last_observation = np.arange(T * N).reshape(T, N)
  numbers = np.zeros((2, T, N))
  trajectory = make_trajectory(status, *numbers, last_observation)
  jax.block_until_ready(
    jax.jit(lambda t: returns.next_values(t, jnp.zeros((T, N)), spy))(
      trajectory
    )
  )
  jax.effects_barrier()
  rows = [-1, *sorted({row for row, _ in cut})]
  assert seen == [last_observation[row].tolist() for row in rows]


def test_seeds_with_other_truncations_get_values_of_their_own():
  status = np.full((2, T, N), RUNNING)
  status[0, 1, 2] = status[1, 3, 0] = status[1, 4] = TRUNCATED
  numbers = np.random.default_rng(0).normal(size=(2, 3, T, N))
  seeds = [
    make_trajectory(*seed)
    for seed in zip(status, *[numbers[:, i] for i in range(3)], strict=True)
  ]
  both = jax.tree.map(lambda *x: jnp.stack(x), *seeds)
  found = jax.vmap(lambda t: compute(t, 0.95)[1])(both)
  expected = 3 * both.next_observation[..., 0] + 1
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
