"""Augmentation: images that an agent learns from, each a little changed.

Kostrikov, Yarats & Fergus (2020), Image Augmentation Is All You Need:
Regularizing Deep Reinforcement Learning from Pixels.
https://arxiv.org/abs/2004.13649

An agent that has `augmentation` changes the images of each sample, observations
and next observations by draws of their own. Acting uses the original images.
"""

import jax
import jax.numpy as jnp

from dopamine_jax import settings
from dopamine_jax.networks import layers


class Augmentation(settings.Settings):
  """A change of images by chance."""

  def __call__(self, key: jax.Array, images: jax.Array) -> jax.Array:
    """Returns images like those given, each changed by itself.

    Args:
      key: a PRNG key.
      images: [B, H, W], [B, H, W, C] or stacks [B, H, W, C, K], in the range
        of the space.
    """
    raise NotImplementedError


class RandomShift(Augmentation):
  """Moves an image by whole pixels; what comes in repeats its edge.

  That is the crop of its own size out of the image with a border of `pad`
  pixels. All frames of a stack move together.

  Attributes:
    pad: the most pixels, in each direction.
    all_offsets: whether all 2 * pad + 1 offsets are drawn, as the paper's code
      does. Dopamine's never draws the last one, so that images move up and left
      by one pixel less.
  """

  pad: int = 4
  all_offsets: bool = True

  def __post_init__(self):
    super().__post_init__()
    self.require_at_least(1, 'pad')

  def __call__(self, key, images):
    """See `Augmentation`."""
    height, width = images.shape[1:3]
    if self.pad >= min(height, width):
      self.refuse(
        'pad',
        f'would move an image of {height}x{width} pixels out of sight; make it '
        'smaller than each side',
      )
    count = 2 * self.pad + self.all_offsets
    shape = (2, images.shape[0])
    rows, columns = jax.random.randint(key, shape, 0, count) - self.pad
    return _moved(_moved(images, rows, 1), columns, 2)


class Intensity(Augmentation):
  """Makes an image brighter or darker: times 1 + scale * clip(N(0, 1), -2, 2).

  As Schwarzer et al. (2021) have it, Data-Efficient Reinforcement Learning with
  Self-Predictive Representations. https://arxiv.org/abs/2007.05929

  Attributes:
    scale: how much, with standard normal draws, one for an image.
  """

  scale: float = 0.05

  def __post_init__(self):
    super().__post_init__()
    self.require_at_least(0, 'scale')

  def __call__(self, key, images):
    """See `Augmentation`; returns float32, and numbers may leave the range."""
    draws = jax.random.normal(key, (len(images), *[1] * (images.ndim - 1)))
    return images * layers.once(1 + self.scale * jnp.clip(draws, -2, 2))


def _moved(images, offsets, axis):
  """Returns images, each moved by its own of `offsets` [B] along an axis.

  An index outside is kept at the edge, which therefore repeats.
  """
  size = images.shape[axis]
  index = jnp.clip(jnp.arange(size)[None] + offsets[:, None], 0, size - 1)
  shape = [len(images), *[1] * (images.ndim - 1)]
  shape[axis] = size
  return jnp.take_along_axis(images, index.reshape(shape), axis)
