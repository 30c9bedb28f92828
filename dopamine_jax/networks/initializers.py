"""Initializers of kernels that Flax lacks."""

from flax import linen as nn
import jax
import jax.numpy as jnp

from dopamine_jax import values

# Glorot & Bengio (2010), as Dopamine has it nearly everywhere.
XAVIER_UNIFORM: nn.initializers.Initializer = values.call(
  nn.initializers.xavier_uniform
)


def orthogonal(scale: float = 1.0) -> nn.initializers.Initializer:
  """Returns `nn.initializers.orthogonal`, safe over several seeds on CPUs.

  Under `jax.vmap` Flax's decomposes a batch of matrices, and jaxlib waits for
  that in a thread of the pool that does the work: two such calls can deadlock
  (seen in jaxlib 0.10.2). Here matrices are decomposed one by one.

  Args:
    scale: a factor of the matrix.
  """
  initialize = nn.initializers.orthogonal(scale)

  def init(key, shape, dtype=jnp.float32):
    one = jax.custom_batching.sequential_vmap(
      lambda key: initialize(key, shape, dtype)
    )
    return one(key)

  return init


def fan_in_uniform(scale: float = 3**-0.5) -> nn.initializers.Initializer:
  """Returns an initializer of kernels, uniform with variance scale / fan-in.

  Dopamine's for C51, Rainbow, QR-DQN and IQN on Atari has this scale.
  """
  return nn.initializers.variance_scaling(scale, 'fan_in', 'uniform')
