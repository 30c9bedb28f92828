"""Actions as vectors, so that one agent takes those of a Box and Discrete ones.

A Box's actions are their numbers, in [-1, 1]; Discrete ones are one-hot, and
what an actor gives of these are logits.
"""

from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from dopamine_jax import agent as agent_lib
from dopamine_jax.learning import masks

_TEMPERATURE = 10.0  # of Discrete actions that a policy learns by


class Actions(NamedTuple):
  """How a space's actions are vectors [B, D].

  Attributes:
    space: Discrete or a Box.
    observation_space: in which there may be masks.
  """

  space: gymnasium.Space
  observation_space: gymnasium.Space

  @property
  def are_discrete(self) -> bool:
    """Whether they are one-hot."""
    return isinstance(self.space, gymnasium.spaces.Discrete)

  @property
  def size(self) -> int:
    """The length of a vector, D."""
    if self.are_discrete:
      return int(self.space.n)
    return int(np.prod(self.space.shape))

  @property
  def noise_scale(self) -> float:
    """A factor of noise: one-hot vectors are half as wide as [-1, 1]."""
    return 0.5 if self.are_discrete else 1.0

  def to_vectors(self, action: jax.Array) -> jax.Array:
    """Returns the vectors [B, D] of actions [B, ...]."""
    if self.are_discrete:
      return jax.nn.one_hot(action, self.size)
    return action.reshape(len(action), -1)

  def from_vectors(self, vector: jax.Array) -> jax.Array:
    """Returns the actions [B, ...] of vectors [B, D]."""
    if self.are_discrete:
      return jnp.argmax(vector, axis=1)
    return vector.reshape(-1, *self.space.shape)

  def soft(self, given: jax.Array, key: jax.Array | None) -> jax.Array:
    """Returns vectors [B, D] of what an actor gives, with a gradient.

    Discrete ones are drawn as a Gumbel softmax, Jang et al. (2017),
    https://arxiv.org/abs/1611.01144

    Args:
      given: [B, D], logits, or numbers before tanh.
      key: a PRNG key; None: nothing is drawn.
    """
    if not self.are_discrete:
      return jnp.tanh(given)
    if key is not None:
      given += jax.random.gumbel(key, given.shape)
    return jax.nn.softmax(given / _TEMPERATURE)

  def allowed(self, vector: jax.Array, observation: Any) -> jax.Array:
    """Returns vectors by which no action is chosen that a mask forbids."""
    return masks.only_allowed(self.observation_space, vector, observation)

  def hard(self, vector: jax.Array) -> jax.Array:
    """Returns the nearest vectors [B, D] of actions: one-hot, or clipped."""
    if self.are_discrete:
      return jax.nn.one_hot(jnp.argmax(vector, axis=1), self.size)
    return jnp.clip(vector, -1.0, 1.0)

  def noise(
    self, key: jax.Array, count: int, std: float, clip: float | None = None
  ) -> jax.Array:
    """Returns noise [count, D], normal and scaled.

    Args:
      key: a PRNG key.
      count: of vectors.
      std: standard deviation in a Box.
      clip: the largest size there; None: any.
    """
    noise = std * jax.random.normal(key, (count, self.size))
    if clip is not None:
      noise = jnp.clip(noise, -clip, clip)
    return self.noise_scale * noise


def require(agent: agent_lib.Agent) -> None:
  """Refuses an agent's action space if it is neither Discrete nor a Box."""
  space = agent.action_space
  is_discrete = isinstance(space, gymnasium.spaces.Discrete)
  is_box = isinstance(space, gymnasium.spaces.Box)
  if space is not None and not is_box and not (is_discrete and not space.start):
    agent.refuse(
      'action_space',
      f'does not fit: {type(agent).__name__} takes Boxes, and Discrete(n) '
      'spaces that start at 0. Choose another environment, or another agent '
      '(PPO takes MultiDiscrete actions)',
    )
