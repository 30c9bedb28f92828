"""Distributions over actions; leading axis [B]."""

from flax import struct
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np


class Categorical(struct.PyTreeNode):
  """One of A actions.

  Attributes:
    logits: [B, A], unnormalized log-probabilities.
  """

  logits: jax.Array

  def sample(self, key: jax.Array) -> jax.Array:
    """Returns actions [B] int32."""
    return jax.random.categorical(key, self.logits)

  def mode(self) -> jax.Array:
    """Returns the likeliest actions [B] int32."""
    return jnp.argmax(self.logits, axis=-1)

  def log_prob(self, action: jax.Array) -> jax.Array:
    """Returns the logarithms [B] of the actions' probabilities."""
    log_probs = jax.nn.log_softmax(self.logits)
    return jnp.take_along_axis(log_probs, action[:, None], axis=-1)[:, 0]

  def entropy(self) -> jax.Array:
    """Returns the entropies [B] in nats."""
    log_probs = jax.nn.log_softmax(self.logits)
    return -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)


class Gaussian(struct.PyTreeNode):
  """Independent normal distributions of an action's numbers.

  Attributes:
    mean: [B, *action_shape].
    log_std: [B, *action_shape], logarithms of the standard deviations.
  """

  mean: jax.Array
  log_std: jax.Array

  def sample(self, key: jax.Array) -> jax.Array:
    """Returns actions [B, *action_shape]."""
    noise = jax.random.normal(key, self.mean.shape)
    return self.mean + jnp.exp(self.log_std) * noise

  def mode(self) -> jax.Array:
    """Returns the likeliest actions [B, *action_shape]."""
    return self.mean

  def log_prob(self, action: jax.Array) -> jax.Array:
    """Returns the logarithms [B] of the actions' densities."""
    scaled = (action - self.mean) * jnp.exp(-self.log_std)
    each = -0.5 * (scaled**2 + np.log(2 * np.pi)) - self.log_std
    return jnp.sum(each.reshape(len(each), -1), axis=1)

  def entropy(self) -> jax.Array:
    """Returns the entropies [B] in nats."""
    each = 0.5 * (1 + np.log(2 * np.pi)) + self.log_std
    return jnp.sum(each.reshape(len(each), -1), axis=1)


Distribution = Categorical | Gaussian


def num_outputs(space: gymnasium.Space) -> int:
  """Returns how many numbers of a network make a distribution over `space`."""
  if isinstance(space, gymnasium.spaces.Box):
    return int(np.prod(space.shape))
  return int(space.n)


def over(
  space: gymnasium.Space, outputs: jax.Array, log_std: jax.Array | None
) -> Distribution:
  """Returns the distributions over a space that a network's outputs make.

  Args:
    space: of actions, Discrete or a Box.
    outputs: [B, num_outputs], logits or means.
    log_std: [*action_shape], of a Box, whatever is observed.
  """
  if not isinstance(space, gymnasium.spaces.Box):
    return Categorical(outputs)
  mean = outputs.reshape(-1, *space.shape)
  return Gaussian(mean, jnp.broadcast_to(log_std[None], mean.shape))
