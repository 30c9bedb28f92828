"""A 2-D convolution that is fast on CPUs too, inside loops and over seeds.

And a max-pooling whose gradient is: see `max_pool`.

XLA's convolution is the right one on accelerators. On CPUs it is up to thirty
times slower inside a loop's body (`lax.scan`), and slower still when the
kernels have a batch axis (one network a seed under `jax.vmap`).
There the same sums are written as one matrix product, which is as fast in a
loop as outside. `benchmarks/convolutions.py` measures both.
"""

from collections.abc import Sequence
import functools

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from dopamine_jax import errors
from dopamine_jax.networks import layers
from dopamine_jax.networks import platforms


class Conv(nn.Module):
  """Drop-in for `nn.Conv` over images: the same parameters and numbers.

  Maps images [B, H, W, C] of any number type to [B, H', W', features], of the
  kernel's type.

  Attributes:
    features: number of kernels, the channels of the output.
    kernel_size: (height, width) of a kernel, in pixels.
    strides: (vertical, horizontal) steps between windows, in pixels.
    padding: 'SAME' pads with zeros to H' = ceil(H / stride); 'VALID' pads
      nothing.
    input_scale: what images are multiplied by. It is folded into the kernel, so
      that bytes are moved as bytes.
    use_bias: whether to add a learned number to each output channel.
    kernel_init: initializer of `kernel` [*kernel_size, C, features].
    bias_init: initializer of `bias` [features].
  """

  features: int
  kernel_size: tuple[int, int]
  strides: tuple[int, int] = (1, 1)
  padding: str = 'SAME'
  input_scale: float = 1.0
  use_bias: bool = True
  kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
  bias_init: nn.initializers.Initializer = nn.initializers.zeros_init()

  @nn.compact
  def __call__(self, images: jax.Array) -> jax.Array:
    """Returns the convolution of `images`.

    Raises:
      UserError: if the padding is unknown or an image is too small.
    """
    if images.ndim != 4:
      raise ValueError(f'images must be [B, H, W, C], got {images.shape}')
    shape = (*self.kernel_size, images.shape[-1], self.features)
    kernel = self.param('kernel', self.kernel_init, shape)
    y = convolve(images, self.input_scale * kernel, self.strides, self.padding)
    if self.use_bias:
      bias = self.param('bias', self.bias_init, (self.features,))
      y += jnp.broadcast_to(bias, y.shape)
    return y


def convolve(
  images: jax.Array,
  kernel: jax.Array,
  strides: Sequence[int],
  padding: str,
) -> jax.Array:
  """Convolves in the way that is fast on JAX's default backend.

  Args:
    images: [B, H, W, C].
    kernel: [h, w, C, F], of floats.
    strides: (vertical, horizontal).
    padding: 'SAME' or 'VALID'.

  Returns:
    [B, H', W', F], of the kernel's type.

  Raises:
    UserError: if the padding is unknown or an image is too small.
  """
  if padding not in ('SAME', 'VALID'):
    raise errors.UserError(
      f"a convolution's padding is {padding!r}; choose 'SAME' or 'VALID'"
    )
  height, width = images.shape[1:3]
  h, w = kernel.shape[:2]
  if padding == 'VALID' and (height < h or width < w):
    raise errors.UserError(
      f"a convolution with windows of {h}x{w} and padding='VALID' met an image "
      f"of {height}x{width}: no window fits. Use padding='SAME', larger "
      'observations or another network'
    )
  # Decided when tracing: the backend of a compiled function never changes.
  if platforms.is_cpu():
    return _convolve_by_matmul(images, kernel, strides, padding)
  return lax.conv_general_dilated(
    images.astype(jnp.result_type(kernel)),
    kernel,
    strides,
    padding,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


def max_pool(images: jax.Array) -> jax.Array:
  """Returns the maxima of 3x3 windows, two pixels apart, with padding 'SAME'.

  The same numbers as `nn.max_pool`, whose gradient XLA's CPU scatters pixel by
  pixel: ten times slower for a batch of 32 (84x84 pixels, 16 channels).

  Args:
    images: [B, H, W, C] float32.

  Returns:
    [B, ceil(H / 2), ceil(W / 2), C].
  """
  if platforms.is_cpu():
    # Columns first: of equal maxima the gradient then is the first one's, row
    # by row, as XLA's.
    return _pool_axis(_pool_axis(images, 2), 1)
  return nn.max_pool(images, (3, 3), (2, 2), 'SAME')


def _pool_axis(x, axis):
  """Pools along one axis: windows of an even, an odd and the next even place.

  Even and odd places are parted by a reshape, whose gradient is a copy.
  """
  (low, high), size = _pool_pads(x.shape[axis]), -(-x.shape[axis] // 2)
  pads = [(0, 0, 0)] * x.ndim
  pads[axis] = (low, high, 0)
  x = lax.pad(x, jnp.array(-jnp.inf, x.dtype), pads)
  x = x.reshape(*x.shape[:axis], size + 1, 2, *x.shape[axis + 1 :])
  even, odd = (lax.index_in_dim(x, i, axis + 1, keepdims=False) for i in (0, 1))
  return functools.reduce(
    lambda a, b: jnp.where(a >= b, a, b),
    [
      lax.slice_in_dim(each, start, start + size, axis=axis)
      for each, start in ((even, 0), (odd, 0), (even, 1))
    ],
  )


def _pool_pads(size):
  """Returns what to pad before and behind, to ceil(size / 2) + 1 pairs."""
  ((low, _),) = lax.padtype_to_pads((size,), (3,), (2,), 'SAME')
  return low, 2 * (-(-size // 2) + 1) - size - low


def _convolve_by_matmul(images, kernel, strides, padding):
  """A convolution as one matrix product; see `convolve`.

  Cut into blocks of one stride each, with a block's pixels side by side as
  channels (space to depth), an image meets the kernel's blocks at every
  position: the stride is 1, and a window is a few large slices instead of h * w
  small ones. An 8x8 kernel with stride 4 has 2x2 blocks of 16 pixels.
  """
  size, window, stride = np.array(
    [images.shape[1:3], kernel.shape[:2], strides]
  )
  pads = np.array(lax.padtype_to_pads(size, window, stride, padding))
  outputs = (size + pads.sum(axis=1) - window) // stride + 1
  blocks = -(-window // stride)  # rounded up

  # The last window ends with the image's last block, wherever the image ends;
  # a kernel that ends inside a block is filled up with zeros.
  x = _space_to_depth(images, pads[:, 0], outputs + blocks - 1, stride)
  kernel = jnp.moveaxis(kernel, -1, 0)
  w = _space_to_depth(kernel, np.zeros(2, int), blocks, stride)
  # Each position has as many windows as the kernel has blocks, or as many
  # products with one: what is smaller goes through memory.
  by_products = len(kernel) < x.shape[-1]
  multiply = _add_products if by_products else _multiply_windows
  return multiply(x, w, outputs)


def _multiply_windows(x, w, outputs):
  """Multiplies whole windows: [B, *, *, C] and [F, h, w, C] to [B, H, W, F]."""
  windows = jnp.concatenate(
    [_shifted(x, shift, outputs) for shift in np.ndindex(w.shape[1:3])], axis=-1
  )
  return layers.multiply(windows, w.reshape(len(w), -1).T)


def _add_products(x, w, outputs):
  """The same; multiplies each block with all of the kernel's, then adds up."""
  features, *blocks, channels = w.shape
  w = w.reshape(features, -1, channels).transpose(2, 1, 0)
  products = layers.multiply(x, w.reshape(channels, -1))
  parts = [
    _shifted(products[..., i * features : (i + 1) * features], shift, outputs)
    for i, shift in enumerate(np.ndindex(*blocks))
  ]
  return functools.reduce(jnp.add, parts)


def _shifted(x, shift, size):
  """Returns [B, *size, C], from `shift` on."""
  (i, j), (height, width) = shift, size
  return x[:, i : i + height, j : j + width]


def _space_to_depth(x, low, blocks, block):
  """Cuts images into blocks: [B, H, W, C] to [B, *blocks, h * w * C].

  Args:
    x: [B, H, W, C].
    low: zeros to put (before H, before W).
    blocks: how many blocks to cut (along H, along W); behind the image there
      are zeros, and what is left over is cropped.
    block: (h, w) of a block, in pixels.
  """
  high = blocks * block - x.shape[1:3] - low
  x = lax.pad(
    x,
    jnp.zeros((), x.dtype),
    [(0, 0, 0), (low[0], high[0], 0), (low[1], high[1], 0), (0, 0, 0)],
  )
  batch, _, _, channels = x.shape
  x = x.reshape(batch, blocks[0], block[0], blocks[1], block[1], channels)
  if channels >= 16:
    # XLA computes what a transposition moves number by number, what a slice
    # takes by many channels at once; with few there is nothing to gain.
    parts = [x[:, :, i, :, j] for i, j in np.ndindex(*block)]
    return jnp.concatenate(parts, axis=-1)
  x = x.transpose(0, 1, 3, 2, 4, 5)
  return x.reshape(batch, *blocks, -1)
