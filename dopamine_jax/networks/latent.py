"""Networks that see by a vector z, and predict what z comes next.

Fujimoto et al. (2025), Towards General-Purpose Model-Free Reinforcement
Learning. https://arxiv.org/abs/2501.16142
"""

from collections.abc import Sequence
import functools

from flax import linen as nn
import gymnasium
import jax
import jax.numpy as jnp

from dopamine_jax import spaces
from dopamine_jax import values
from dopamine_jax.networks import layers
from dopamine_jax.networks import modules
from dopamine_jax.networks import pixels
from dopamine_jax.networks import standard
from dopamine_jax.networks import variables

# Glorot's, with the gain of rectified layers, the root of 2.
XAVIER_RELU = values.call(
  nn.initializers.variance_scaling, 2.0, 'fan_avg', 'uniform'
)


_MLP = functools.partial(standard.MLP, kernel_init=XAVIER_RELU)


def standardized(x: jax.Array) -> jax.Array:
  """Returns the layer norm of x [..., D], without parameters."""
  return nn.standardize(x, axis=-1, epsilon=1e-5)


def standardized_elu(x: jax.Array) -> jax.Array:
  """Returns elu of `standardized`; an `activation` of networks."""
  return nn.elu(standardized(x))


def standardized_relu(x: jax.Array) -> jax.Array:
  """Returns relu of `standardized`; an `activation` of networks."""
  return nn.relu(standardized(x))


class Encoder(modules.Module):
  """What is observed as a vector z: dense layers, each normalized.

  Attributes:
    torso: a Flax module that maps observations to features [B, F]; None: they
      are flattened.
    hidden: sizes of the layers; the last is that of z.
  """

  torso: nn.Module | None = None
  hidden: Sequence[int] = (512, 512, 512)

  def __post_init__(self):
    super().__post_init__()
    if not self.hidden:
      self.refuse('hidden', 'names no layer, and its last is z')

  @nn.compact
  def __call__(self, observation: jax.Array) -> jax.Array:
    """Returns z [B, hidden[-1]] for [B, *observation_shape]."""
    x = observation
    if self.torso is not None:
      x = variables.part(self, self.torso, x)
    dense = standard.MLPTorso(
      self.hidden, activation=standardized_elu, kernel_init=XAVIER_RELU
    )
    z = dense(x)
    if self.torso is None:  # which shows its own
      self.sow('intermediates', 'features', z)
    return z


def fitting(space: gymnasium.Space) -> Encoder:
  """Returns the paper's encoder of observations.

  It has convolutions if these are frames of bytes, [height, width] or with
  channels, of 31 pixels or more.
  """
  space = spaces.unmasked(space)
  is_box = isinstance(space, gymnasium.spaces.Box)
  are_bytes = is_box and standard.are_bytes(space)
  if are_bytes and len(space.shape) in (2, 3, 4) and min(space.shape[:2]) >= 31:
    torso = pixels.PixelTorso(
      strides=(2, 2, 2, 1), activation=nn.elu, kernel_init=XAVIER_RELU
    )
    return Encoder(torso=torso, hidden=(512,))
  return Encoder()


class LatentModel(modules.Module):
  """What an action does to z, and what both are together.

  Attributes:
    num_bins: of rewards (given by the agent).
    action_units: size of what an action becomes.
    hidden: sizes of the normalized layers of z and action.
    units: size of what these become.
  """

  given_later = ('num_bins',)

  num_bins: int = 1
  action_units: int = 256
  hidden: Sequence[int] = (512, 512)
  units: int = 512

  @nn.compact
  def __call__(
    self, z: jax.Array, action: jax.Array
  ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Returns what z and action are together, and what is predicted of them.

    What a caller doesn't use is not computed.

    Args:
      z: [B, D].
      action: [B, A], in [-1, 1] or one-hot.

    Returns:
      Their embedding [B, units]; whether the episode ends [B], a number; the
      next z [B, D]; logits of the reward's bins [B, num_bins].
    """
    dense = functools.partial(layers.Dense, kernel_init=XAVIER_RELU)
    act = nn.elu(dense(self.action_units)(action))
    embed = _MLP(self.units, self.hidden, activation=standardized_elu)
    both = embed(jnp.concatenate([z, act], axis=1))
    num_outputs = 1 + z.shape[1] + self.num_bins
    x = dense(num_outputs)(both)
    end, following, reward = jnp.split(x, (1, 1 + z.shape[1]), axis=1)
    return both, end[:, 0], following, reward


class Actor(modules.Module):
  """A policy's outputs: layers that are standardized and rectified.

  Attributes:
    num_outputs: size of the last, linear layer (given by the agent).
    hidden: sizes of the layers before it.
  """

  num_outputs: int | None = None
  hidden: Sequence[int] = (512, 512)

  @nn.compact
  def __call__(self, z: jax.Array) -> jax.Array:
    """Returns outputs [B, num_outputs] of z [B, D]."""
    make = _MLP(self.num_outputs, self.hidden, activation=standardized_relu)
    return make(z)


class Critic(modules.Module):
  """A value: layers that are standardized, and ELU.

  Attributes:
    num_outputs: size of the last, linear layer (given by the agent).
    hidden: sizes of the layers before it.
  """

  num_outputs: int | None = None
  hidden: Sequence[int] = (512, 512, 512)

  @nn.compact
  def __call__(self, embedded: jax.Array) -> jax.Array:
    """Returns outputs [B, num_outputs] of embeddings [B, E]."""
    make = _MLP(self.num_outputs, self.hidden, activation=standardized_elu)
    return make(embedded)
