"""Tests of normalization.py against NumPy over all that was seen."""

import jax
import jax.numpy as jnp
import numpy as np

from dopamine_jax import agent as agent_lib
from dopamine_jax.learning import normalization
from dopamine_jax.networks import statistics as statistics_lib

GAMMA = 0.9


def test_statistics_of_pieces_are_those_of_the_whole():
  rng = np.random.default_rng(0)
  pieces = [
    rng.normal(offset, scale, (t, 2, 3)).astype(np.float32)
    for t, offset, scale in [(4, 100, 1), (1, -5, 0.1), (50, 0, 10)]
  ]
  statistics = statistics_lib.Statistics.empty((3,))
  add = jax.jit(lambda statistics, piece: statistics.add(piece))
  for piece in pieces:
    statistics = add(statistics, piece)
  whole = np.concatenate(pieces).reshape(-1, 3).astype(np.float64)
  np.testing.assert_allclose(statistics.mean, whole.mean(0), rtol=1e-5)
  np.testing.assert_allclose(statistics.variance, whole.var(0), rtol=1e-5)
  assert statistics.count == len(whole)


def test_what_was_seen_has_mean_0_and_variance_1_afterwards():
  rng = np.random.default_rng(0)
  seen = rng.normal([5, -3], [2, 0.1], (100, 4, 2)).astype(np.float32)
  statistics = statistics_lib.Statistics.empty((2,)).add(jnp.asarray(seen))
  normal = np.asarray(statistics.normalize(jnp.asarray(seen)))
  assert normal.shape == seen.shape
  np.testing.assert_allclose(normal.mean((0, 1)), 0, atol=1e-5)
  np.testing.assert_allclose(normal.std((0, 1)), 1, atol=1e-4)


def test_before_anything_was_seen_nothing_changes_but_extremes_are_clipped():
  statistics = statistics_lib.Statistics.empty((2,))
  x = jnp.array([[0.5, -3.0], [11.0, -1e9]])
  expected = [[0.5, -3.0], [10.0, -10.0]]
  np.testing.assert_allclose(statistics.normalize(x), expected)


def test_what_never_changes_becomes_zero_but_for_rounding():
  statistics = statistics_lib.Statistics.empty((1,)).add(jnp.full((7, 1), 3.0))
  found = statistics.normalize(jnp.full((2, 1), 3.0))
  np.testing.assert_allclose(found, 0, atol=0.01)


def rollout(reward, last):
  nothing = jnp.zeros(np.shape(reward))
  return agent_lib.Trajectory(
    observation=nothing,
    action=nothing,
    reward=jnp.asarray(reward, jnp.float32),
    discount=nothing,
    next_observation=nothing,
    last=jnp.asarray(last),
  )


def test_rewards_are_divided_by_the_deviation_of_discounted_returns():
  rng = np.random.default_rng(0)
  reward = rng.normal(3, 2, (20, 2)).astype(np.float32)
  last = rng.random((20, 2)) < 0.2
  scale = normalization.RewardScale.empty(2)
  # In two rollouts: what runs on in the first counts in the second.
  for rows in (slice(0, 7), slice(7, 20)):
    scale = scale.add(rollout(reward[rows], last[rows]), GAMMA)
  seen = np.zeros((20, 2))
  for n in range(2):
    running = 0.0
    for t in range(20):
      running = GAMMA * running + reward[t, n]
      seen[t, n] = running
      if last[t, n]:
        running = 0.0
  np.testing.assert_allclose(scale.statistics.variance, seen.var(), rtol=1e-4)
  np.testing.assert_allclose(
    scale.normalize(jnp.asarray(reward)), reward / seen.std(), rtol=1e-4
  )
  assert scale.normalize(jnp.array([1e9]))[0] == 10


def test_the_identity_changes_nothing():
  identity = normalization.Identity()
  assert identity.add('anything', 0.9) is identity
  x = jnp.ones(3)
  assert identity.normalize(x) is x
