"""Running statistics that bring observations and rewards to a common scale.

They are part of an agent's state: checkpoints hold them, an update adds what
it has seen, and acting, in training as in evaluation, only reads them.
"""

from typing import Any

from flax import struct
import gymnasium
import jax
import jax.numpy as jnp

from dopamine_jax import agent as agent_lib
from dopamine_jax.networks import statistics as statistics_lib  # also a field


class Identity(struct.PyTreeNode):
  """Stands for either of the others where nothing is normalized."""

  def add(self, *seen: Any) -> 'Identity':
    """Returns itself."""
    del seen
    return self

  def normalize(self, x: jax.Array) -> jax.Array:
    """Returns `x` as it is."""
    return x


class Parts(struct.PyTreeNode):
  """Of observations of several parts, each by itself.

  Attributes:
    parts: of each leaf, in JAX's order.
  """

  parts: tuple[statistics_lib.Statistics | Identity, ...]

  def add(self, seen: Any) -> 'Parts':
    """Returns them with observations added, trees of arrays [..., *shape]."""
    pairs = zip(self.parts, jax.tree.leaves(seen), strict=True)
    return Parts(tuple(part.add(leaf) for part, leaf in pairs))

  def normalize(self, x: Any) -> Any:
    """Returns the same tree, each leaf normalized as its part says."""
    leaves, structure = jax.tree.flatten(x)
    pairs = zip(self.parts, leaves, strict=True)
    return structure.unflatten([part.normalize(leaf) for part, leaf in pairs])


Normalization = statistics_lib.Statistics | Identity | Parts


def of(space: gymnasium.Space | None, observation: Any) -> Normalization:
  """Returns the statistics of observations before any was seen.

  Of a plain Box they are `Statistics`. In others the leaves of floats have
  some; what is counted, and pixels, stay as they are.

  Args:
    space: of observations.
    observation: [N, *observation_shape], an example.
  """
  if space is None or isinstance(space, gymnasium.spaces.Box):
    return statistics_lib.Statistics.empty(observation.shape[1:])
  return Parts(
    tuple(
      statistics_lib.Statistics.empty(leaf.shape[1:])
      if jnp.issubdtype(leaf.dtype, jnp.floating)
      else Identity()
      for leaf in jax.tree.leaves(observation)
    )
  )


class RewardScale(struct.PyTreeNode):
  """By what rewards are divided: how much discounted returns vary.

  Engstrom et al. (2020), Implementation Matters in Deep Policy Gradients.
  https://arxiv.org/abs/2005.12729

  Attributes:
    statistics: of R_t = gamma R_{t-1} + r_t, after each step of an episode.
    running: [N], R of the episodes that go on.
  """

  statistics: statistics_lib.Statistics
  running: jax.Array

  @classmethod
  def empty(cls, num_envs: int) -> 'RewardScale':
    """Returns the scale before the first step."""
    return cls(
      statistics=statistics_lib.Statistics.empty(()),
      running=jnp.zeros(num_envs),
    )

  def add(
    self, trajectory: agent_lib.Trajectory, gamma: float
  ) -> 'RewardScale':
    """Returns it with a rollout [T, N] added."""

    def step(running, row):
      reward, last = row
      running = gamma * running + reward
      return jnp.where(last, 0.0, running), running

    running, seen = jax.lax.scan(
      step, self.running, (trajectory.reward, trajectory.last)
    )
    return RewardScale(statistics=self.statistics.add(seen), running=running)

  def normalize(self, reward: jax.Array) -> jax.Array:
    """Returns scaled rewards, clipped to [-10, 10]; their mean stays."""
    scaled = reward * jax.lax.rsqrt(self.statistics.variance + 1e-8)
    return jnp.clip(scaled, -statistics_lib.BOUND, statistics_lib.BOUND)


def standardized(x: jax.Array) -> jax.Array:
  """Returns `x` with mean 0 and variance 1."""
  return (x - jnp.mean(x)) / (jnp.std(x) + 1e-8)
