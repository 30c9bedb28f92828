"""A network that is linear in cosines of the observation."""

import itertools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dopamine_jax.networks import initializers
from dopamine_jax.networks import layers
from dopamine_jax.networks import modules
from dopamine_jax.networks import standard


class FourierBasis(modules.Module):
  """Linear in the Fourier basis: Konidaris, Osentoski & Thomas (2011).

  Value Function Approximation in Reinforcement Learning using the Fourier
  Basis. https://doi.org/10.1609/aaai.v25i1.7903

  With an observation x of d numbers, scaled to [0, 1], the features are
  cos(pi c.x) for each c in {0, ..., order}^d: (order + 1)^d of them. The layer
  on top has no bias, for the feature of c = 0 is constant. Dopamine leaves that
  feature out, and so can't represent a constant.

  Attributes:
    num_outputs: size of the linear layer.
    order: the highest frequency in each dimension.
    low: the lower bound of each of the observation's numbers; what lies outside
      is mirrored back in by the cosines.
    high: the upper bounds.
    kernel_init: initializer of the kernel.
  """

  num_outputs: int | None = None
  order: int = 3
  low: standard.Bounds = None
  high: standard.Bounds = None
  kernel_init: standard.Initializer = initializers.XAVIER_UNIFORM

  @nn.compact
  def __call__(self, observation: jax.Array) -> jax.Array:
    """Returns the outputs [B, num_outputs] for [B, *observation_shape].

    Raises:
      UserError: if `low` and `high` are missing, or don't fit each other or
        the observation.
    """
    x = standard.flatten(observation)
    x = standard.to_unit_interval(
      x, self.low, self.high, 'networks.FourierBasis'
    )
    if (self.order + 1) ** x.shape[-1] > 1_000_000:
      self.refuse('order', f'makes too many features of {x.shape[-1]} numbers')
    features = fourier_features(x, self.order)
    self.sow('intermediates', 'features', features)
    return layers.Dense(
      self.num_outputs, use_bias=False, kernel_init=self.kernel_init
    )(features)


def fourier_features(x: jax.Array, order: int) -> jax.Array:
  """Returns cos(pi c.x) for each c in {0, ..., order}^d, the last fastest.

  Args:
    x: [B, d] in [0, 1].
    order: the highest frequency in each dimension.

  Returns:
    [B, (order + 1)**d].
  """
  frequencies = itertools.product(range(order + 1), repeat=x.shape[-1])
  return jnp.cos(np.pi * (x @ np.array(list(frequencies), np.float32).T))
