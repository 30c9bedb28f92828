"""The residual network of IMPALA, at any width.

Espeholt et al. (2018), IMPALA: Scalable Distributed Deep-RL with Importance
Weighted Actor-Learner Architectures. https://arxiv.org/abs/1802.01561
"""

from collections.abc import Sequence

from flax import linen as nn
import jax

from dopamine_jax import networks
from dopamine_jax.networks import convolution
from dopamine_jax.networks import initializers
from dopamine_jax.networks import modules


class ImpalaTorso(modules.Module):
  """The residual convolutions, flattened.

  Three stages, each a convolution, a max-pooling that halves the image and two
  residual blocks; 15 convolutions in all. Takes uint8 frames as `NatureTorso`
  does. For 84x84 pixels F is 11 * 11 * 32 * width.

  Attributes:
    width: multiplies the channels of the stages: 16, 32 and 32.
    kernel_init: initializer of the kernels; biases start at zero. Dopamine's
      residual blocks have Flax's default instead, `lecun_normal`.
    flat: whether to flatten; otherwise features are maps [B, H', W', C].
  """

  width: int = 1
  kernel_init: networks.Initializer = initializers.XAVIER_UNIFORM
  flat: bool = True

  takes_bytes = True

  @nn.compact
  def __call__(self, observation: jax.Array) -> jax.Array:
    """Returns the features of `observation`."""

    def convolve(x, channels, scale=1.0):
      return convolution.Conv(
        channels * self.width,
        kernel_size=(3, 3),
        kernel_init=self.kernel_init,
        input_scale=scale,
      )(x)

    def rectify(x):
      x = nn.relu(x)
      self.sow('intermediates', 'activations', x)
      return x

    x, scale = networks.as_images(observation), 1 / 255
    for channels in (16, 32, 32):
      x = convolution.max_pool(convolve(x, channels, scale))
      scale = 1.0
      for _ in range(2):
        y = convolve(rectify(x), channels)
        x += convolve(rectify(y), channels)
    x = rectify(x)
    return x.reshape(x.shape[0], -1) if self.flat else x


class ImpalaCNN(modules.Module):
  """`ImpalaTorso`, a dense layer and a linear one.

  The layer of 512 is Dopamine's; the paper's has 256, then an LSTM.

  Attributes:
    num_outputs: size of the last, linear layer.
    width: see `ImpalaTorso`.
    hidden: sizes of the rectified dense layers after the convolutions.
    kernel_init: initializer of all kernels; biases start at zero.
  """

  num_outputs: int | None = None
  width: int = 1
  hidden: Sequence[int] = (512,)
  kernel_init: networks.Initializer = initializers.XAVIER_UNIFORM

  @nn.compact
  def __call__(self, observation: jax.Array) -> jax.Array:
    """Returns the outputs [B, num_outputs] for uint8 frames [B, H, W, C]."""
    x = ImpalaTorso(self.width, self.kernel_init)(observation)
    x = networks.hidden_layers(self, x, nn.relu)
    return networks.output_layer(self, x)
