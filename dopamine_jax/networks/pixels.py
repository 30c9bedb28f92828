"""What DrQ-v2 sees images by: an encoder, and what its heads make of features.

Yarats, Fergus, Lazaric & Pinto (2021), Mastering Visual Continuous Control:
Improved Data-Augmented Reinforcement Learning. https://arxiv.org/abs/2107.09645
"""

from collections.abc import Sequence

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dopamine_jax import errors
from dopamine_jax.networks import convolution
from dopamine_jax.networks import initializers
from dopamine_jax.networks import layers
from dopamine_jax.networks import modules
from dopamine_jax.networks import standard


class PixelTorso(modules.Module):
  """The convolutions of DrQ-v2, flattened.

  Takes bytes [B, H, W, C], or stacks of such frames, maps them to [-0.5, 0.5]
  and returns float32 features [B, F]; for 84x84 pixels F is 35 * 35 * 32.

  Attributes:
    strides: of the convolutions, 3x3 without padding, one after another.
    features: channels of each.
    activation: applied after each.
    kernel_init: initializer of their kernels, None: orthogonal ones, scaled by
      the root of 2; biases start at zero.
  """

  strides: Sequence[int] = (2, 1, 1, 1)
  features: int = 32
  activation: standard.Activation = nn.relu
  kernel_init: standard.Initializer | None = None

  takes_bytes = True

  def __post_init__(self):
    super().__post_init__()
    if not self.strides:
      self.refuse('strides', 'names no convolution')

  @nn.compact
  def __call__(self, observation: jax.Array) -> jax.Array:
    """Returns the features of `observation`.

    Raises:
      UserError: if images are too small.
    """
    images = standard.as_images(observation)
    self._require_large(images.shape[1:3])
    x = images.astype(jnp.float32) / 255 - 0.5
    for stride in self.strides:
      x = convolution.Conv(
        self.features,
        kernel_size=(3, 3),
        strides=(stride, stride),
        padding='VALID',
        kernel_init=self.kernel_init or initializers.orthogonal(np.sqrt(2)),
      )(x)
      x = self.activation(x)
      self.sow('intermediates', 'activations', x)
    x = standard.flatten(x)
    self.sow('intermediates', 'features', x)
    return x

  def _require_large(self, sides):
    """Refuses images of which a convolution would leave nothing."""
    least = 1
    for stride in reversed(self.strides):
      least = (least - 1) * stride + 3
    if min(sides) < least:
      raise errors.UserError(
        f'networks.PixelTorso with strides = {tuple(self.strides)} needs '
        f'images of {least}x{least} pixels or more, and these have '
        f'{sides[0]}x{sides[1]}. Give it larger ones (of MuJoCo by '
        'pixels.Pixels.size), or fewer or smaller strides.'
      )


class Projection(modules.Module):
  """A dense layer, normalized, and tanh: what DrQ-v2's heads make of features.

  Attributes:
    units: size of the output.
  """

  units: int = 50

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Returns numbers in (-1, 1), [B, units], of [B, ...]."""
    dense = layers.Dense(self.units, kernel_init=initializers.orthogonal(1.0))
    x = jnp.tanh(nn.LayerNorm()(dense(standard.flatten(x))))
    self.sow('intermediates', 'activations', x)
    return x
