"""A network that predicts its own encoder's outputs, some steps ahead.

Schwarzer et al. (2021), Data-Efficient Reinforcement Learning with
Self-Predictive Representations. https://arxiv.org/abs/2007.05929
"""

import functools

from flax import linen as nn
import jax
import jax.numpy as jnp

from dopamine_jax.networks import convolution
from dopamine_jax.networks import heads
from dopamine_jax.networks import initializers
from dopamine_jax.networks import layers
from dopamine_jax.networks import modules
from dopamine_jax.networks import standard
from dopamine_jax.networks import variables

XAVIER = initializers.XAVIER_UNIFORM


class SPRNetwork(modules.Module):
  """An encoder, a head, and a model of what the encoder will give.

  Attributes:
    num_outputs: A actions of M atoms each, A * M (given by the agent).
    num_atoms: M; 1 for plain values (given by the agent).
    noisy: whether the head is of `heads.NoisyDense` (given by the agent).
    dueling: whether it is a `heads.Dueling` one (given by the agent).
    encoder: a Flax module that maps observations to maps [B, H, W, C], or to
      vectors [B, C], which are maps of one pixel here.
    units: of the head's rectified layer, the projection.
    sigma0: of noisy layers.
  """

  given_later = ('num_outputs', 'num_atoms', 'noisy', 'dueling')

  num_outputs: int | None = None
  num_atoms: int = 1
  noisy: bool = True
  dueling: bool = True
  encoder: nn.Module = standard.NatureTorso(flat=False)
  units: int = 512
  sigma0: float = 0.5

  def __post_init__(self):
    super().__post_init__()
    self.require_at_least(0, 'sigma0')

  def setup(self):
    """Makes the layers, which several methods share."""
    if self.noisy:
      dense = functools.partial(heads.NoisyDense, sigma0=self.sigma0)
    else:
      dense = functools.partial(layers.Dense, kernel_init=XAVIER)
    self.projection = dense(self.units)
    self.predictor = layers.Dense(self.units, kernel_init=XAVIER)
    self.transition = Transition()
    if self.dueling:
      self.head = heads.Dueling(self.num_outputs, self.num_atoms, (), dense)
    else:
      self.head = heads.Plain(self.num_outputs, (), dense)

  def __call__(self, observation: jax.Array) -> jax.Array:
    """Returns the outputs [B, num_outputs]."""
    latent = self.encode(observation)
    if self.is_initializing():
      actions = self.num_outputs // self.num_atoms
      one = jnp.zeros((len(latent), actions))
      self.predictor(self.project(self.transition(latent, one)))
    return self._outputs(self.project(latent))

  def encode(self, observation: jax.Array) -> jax.Array:
    """Returns the encoder's outputs [B, H, W, C], in [0, 1]."""
    latent = variables.part(self, self.encoder, observation)
    if latent.ndim == 2:
      latent = latent[:, None, None]
    return in_unit_interval(latent)

  def project(self, latent: jax.Array) -> jax.Array:
    """Returns projections [B, units] of latents [B, H, W, C]."""
    return self.projection(latent.reshape(len(latent), -1))

  def project_seen(self, observation: jax.Array) -> jax.Array:
    """Returns projections [B, units] of observations."""
    return self.project(self.encode(observation))

  def predict(self, observation, actions) -> tuple[jax.Array, jax.Array]:
    """Returns outputs [B, num_outputs], and K predictions [K, B, units].

    Args:
      observation: [B, ...].
      actions: [K, B, A], one-hot, those that follow.
    """
    latents = [self.encode(observation)]
    for action in actions:
      latents.append(self.transition(latents[-1], action))
    projected = self.project(jnp.concatenate(latents))  # with the same noise
    count = len(observation)
    predicted = self.predictor(projected[count:])
    predicted = predicted.reshape(len(actions), count, -1)
    return self._outputs(projected[:count]), predicted

  def _outputs(self, projected):
    x = nn.relu(projected)
    self.sow('intermediates', 'activations', x)
    return self.head(x)


class Transition(nn.Module):
  """The model of one step: two convolutions of a latent and an action."""

  @nn.compact
  def __call__(self, latent: jax.Array, action: jax.Array) -> jax.Array:
    """Returns the next latent [B, H, W, C], given actions [B, A], one-hot."""
    *shape, channels = latent.shape
    planes = jnp.broadcast_to(action[:, None, None], (*shape, action.shape[-1]))
    x = jnp.concatenate([latent, planes], axis=-1)
    for _ in range(2):
      x = nn.relu(convolution.Conv(channels, (3, 3), kernel_init=XAVIER)(x))
    return in_unit_interval(x)


def in_unit_interval(x: jax.Array) -> jax.Array:
  """Returns each of [B, H, W, C] moved and scaled to [0, 1]."""
  low, high = (f(x, (1, 2, 3), keepdims=True) for f in (jnp.min, jnp.max))
  return (x - low) / (high - low + 1e-5)
