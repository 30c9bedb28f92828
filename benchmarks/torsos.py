"""Dopamine's Full Rainbow below its two streams, of layers that are ours."""

from flax import linen as nn
import jax

from dopamine_jax import networks
from dopamine_jax.networks import heads


class NoisyNature(nn.Module):
  """Nature's convolutions and a noisy layer of 512."""

  @nn.compact
  def __call__(self, observation: jax.Array) -> jax.Array:
    """Returns features [B, 512] of frames [B, H, W, C]."""
    x = networks.NatureTorso()(observation)
    return nn.relu(heads.NoisyDense(512)(x))
