"""Networks that two or more agents share, as Flax modules.

Each maps a batch of observations [B, *observation_shape] to [B, num_outputs],
a torso to features [B, F], `ActorCritic` to two results; the batch axis is
always there. What the outputs mean (values, logits of atoms, quantiles) is the
agent's affair.

Each shows its `activations` behind every nonlinearity, and as `features` what
its last layer reads (Flax's `sow`). Only `health` collects them, and no other
program is changed by it.
"""

from collections.abc import Callable, Sequence
import functools
from typing import Literal

from flax import linen as nn
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from dopamine_jax import errors
from dopamine_jax import spaces
from dopamine_jax import values
from dopamine_jax.networks import convolution
from dopamine_jax.networks import initializers
from dopamine_jax.networks import layers
from dopamine_jax.networks import modules
from dopamine_jax.networks import variables

# Not Flax's type of the same name, which any function fits.
Initializer = jax.nn.initializers.Initializer
Activation = Callable[[jax.Array], jax.Array]
Bounds = Sequence[float] | np.ndarray | None
Padding = Literal['SAME', 'VALID']


def normalized_relu(x: jax.Array) -> jax.Array:
  """Returns relu(LayerNorm(x)), over the last axis: Ba et al. (2016).

  As an `activation` of the networks below, in which the norm's parameters lie.
  """
  return nn.relu(nn.LayerNorm()(x))


def hidden_layers(
  module: nn.Module, x: jax.Array, activation: Activation
) -> jax.Array:
  """Returns x [B, F] after the dense layers of `module.hidden`.

  Their activations are recorded for `health`, by Flax's `sow`.

  To be called in the `__call__` of a module, whose layers they become.
  """
  for units in module.hidden:
    x = activation(layers.Dense(units, kernel_init=module.kernel_init)(x))
    module.sow('intermediates', 'activations', x)
  return x


def output_layer(module: nn.Module, x: jax.Array) -> jax.Array:
  """Returns [B, module.num_outputs] of features [B, F], and shows these.

  To be called like `hidden_layers`.
  """
  module.sow('intermediates', 'features', x)
  return layers.Dense(module.num_outputs, kernel_init=module.kernel_init)(x)


class NatureTorso(modules.Module):
  """The convolutions of Mnih et al. (2015), flattened.

  Takes uint8 frames [B, H, W] or stacks of them [B, H, W, C], scales them to
  [0, 1] and returns float32 features [B, F]. For 84x84 pixels F is 11 * 11 * 64
  with padding 'SAME' and 7 * 7 * 64 with 'VALID'.

  Attributes:
    padding: 'SAME', as Dopamine has it, or 'VALID', as the paper does.
    kernel_init: initializer of the kernels; biases start at zero.
    activation: applied after each convolution.
    flat: whether to flatten; otherwise features are maps [B, H', W', C].
  """

  padding: Padding = 'SAME'
  kernel_init: Initializer = initializers.XAVIER_UNIFORM
  activation: Activation = nn.relu
  flat: bool = True

  takes_bytes = True

  @nn.compact
  def __call__(self, observation: jax.Array) -> jax.Array:
    """Returns the features of `observation`."""
    x, scale = as_images(observation), 1 / 255
    for features, size, stride in ((32, 8, 4), (64, 4, 2), (64, 3, 1)):
      x = convolution.Conv(
        features,
        kernel_size=(size, size),
        strides=(stride, stride),
        padding=self.padding,
        kernel_init=self.kernel_init,
        input_scale=scale,
      )(x)
      x, scale = self.activation(x), 1.0
      self.sow('intermediates', 'activations', x)
    return x.reshape(x.shape[0], -1) if self.flat else x


class NatureCNN(modules.Module):
  """The network of DQN on Atari: Mnih et al. (2015).

  Human-level control through deep reinforcement learning.
  https://www.nature.com/articles/nature14236

  The defaults are Dopamine's: with padding 'SAME' the first dense layer has
  4.0 M weights, with the paper's 'VALID' 1.6 M and a shorter update.

  Attributes:
    num_outputs: size of the last, linear layer.
    padding: of the convolutions, 'SAME' or 'VALID'.
    hidden: sizes of the dense layers after the convolutions.
    kernel_init: initializer of all kernels; biases start at zero.
    activation: applied after each layer but the last.
  """

  num_outputs: int | None = None
  padding: Padding = 'SAME'
  hidden: Sequence[int] = (512,)
  kernel_init: Initializer = initializers.XAVIER_UNIFORM
  activation: Activation = nn.relu

  @nn.compact
  def __call__(self, observation: jax.Array) -> jax.Array:
    """Returns the outputs [B, num_outputs] for uint8 frames [B, H, W, C]."""
    torso = NatureTorso(self.padding, self.kernel_init, self.activation)
    x = hidden_layers(self, torso(observation), self.activation)
    return output_layer(self, x)


class MinAtarTorso(modules.Module):
  """The convolution of Young & Tian (2019), flattened.

  Takes one-hot grids [B, H, W, C] of any type and returns features [B, F]; for
  10x10 grids F is 8 * 8 * 16 with padding 'VALID'.

  Attributes:
    padding: 'VALID' or 'SAME'.
    kernel_init: initializer of the kernel; the bias starts at zero.
    activation: applied after the convolution.
    flat: whether to flatten; otherwise features are maps [B, H', W', C].
  """

  padding: Padding = 'VALID'
  kernel_init: Initializer = initializers.XAVIER_UNIFORM
  activation: Activation = nn.relu
  flat: bool = True

  @nn.compact
  def __call__(self, observation: jax.Array) -> jax.Array:
    """Returns the features of `observation`."""
    x = convolution.Conv(
      16,
      kernel_size=(3, 3),
      padding=self.padding,
      kernel_init=self.kernel_init,
    )(as_images(observation))
    x = self.activation(x)
    self.sow('intermediates', 'activations', x)
    return x.reshape(x.shape[0], -1) if self.flat else x


class MinAtarCNN(modules.Module):
  """The network of MinAtar's DQN: Young & Tian (2019).

  MinAtar: An Atari-Inspired Testbed for Thorough and Reproducible Reinforcement
  Learning Experiments. https://arxiv.org/abs/1903.03176

  The defaults are the paper's. Dopamine pads ('SAME') and has no hidden layer
  (`hidden = ()`).

  Attributes:
    num_outputs: size of the last, linear layer.
    padding: of the convolution, 'VALID' or 'SAME'.
    hidden: sizes of the dense layers after the convolution.
    kernel_init: initializer of all kernels; biases start at zero.
    activation: applied after each layer but the last.
  """

  num_outputs: int | None = None
  padding: Padding = 'VALID'
  hidden: Sequence[int] = (128,)
  kernel_init: Initializer = initializers.XAVIER_UNIFORM
  activation: Activation = nn.relu

  @nn.compact
  def __call__(self, observation: jax.Array) -> jax.Array:
    """Returns [B, num_outputs] for one-hot grids [B, H, W, C] of any type."""
    torso = MinAtarTorso(self.padding, self.kernel_init, self.activation)
    x = hidden_layers(self, torso(observation), self.activation)
    return output_layer(self, x)


class MLPTorso(modules.Module):
  """Hidden dense layers on a flattened observation.

  Attributes:
    hidden: sizes of the layers.
    low: the lower bound of each of the observation's numbers. With `high`, maps
      [low, high] to [-1, 1]; what lies outside stays outside. None: as it is.
    high: the upper bounds.
    activation: applied after each hidden layer.
    kernel_init: initializer of all kernels; biases start at zero.
  """

  hidden: Sequence[int] = (512, 512)
  low: Bounds = None
  high: Bounds = None
  activation: Activation = nn.relu
  kernel_init: Initializer = initializers.XAVIER_UNIFORM

  @nn.compact
  def __call__(self, observation: jax.Array) -> jax.Array:
    """Returns the features [B, hidden[-1]] for [B, *observation_shape].

    Raises:
      UserError: if `low` and `high` don't fit each other or the observation.
    """
    x = flatten(observation)
    if self.low is not None or self.high is not None:
      x = 2.0 * to_unit_interval(x, self.low, self.high, 'networks.MLP') - 1.0
    return hidden_layers(self, x, self.activation)


class MLP(modules.Module):
  """Dense layers on a flattened observation: `MLPTorso` and a linear layer.

  Attributes:
    num_outputs: size of the last, linear layer.
    hidden: sizes of the layers before the last one.
    low: the lower bound of each of the observation's numbers. With `high`, maps
      [low, high] to [-1, 1]; what lies outside stays outside. None: as it is.
    high: the upper bounds.
    activation: applied after each hidden layer.
    kernel_init: initializer of all kernels; biases start at zero.
  """

  num_outputs: int | None = None
  hidden: Sequence[int] = (512, 512)
  low: Bounds = None
  high: Bounds = None
  activation: Activation = nn.relu
  kernel_init: Initializer = initializers.XAVIER_UNIFORM

  @nn.compact
  def __call__(self, observation: jax.Array) -> jax.Array:
    """Returns the outputs [B, num_outputs] for [B, *observation_shape].

    Raises:
      UserError: if `low` and `high` don't fit each other or the observation.
    """
    torso = MLPTorso(
      self.hidden, self.low, self.high, self.activation, self.kernel_init
    )
    return output_layer(self, torso(observation))


class ActorCritic(modules.Module):
  """A policy's outputs and a value, as PPO's authors initialize them.

  Attributes:
    num_outputs: of the policy.
    torso: makes the layers that see the observation.
    shared: whether policy and value are of the same features, or each of its
      own layers.
    hidden: sizes of rectified dense layers on the torso.
  """

  num_outputs: int | None = None
  torso: modules.Maker = functools.partial(
    MLPTorso,
    hidden=(64, 64),
    activation=nn.tanh,
    kernel_init=values.call(initializers.orthogonal, np.sqrt(2)),
  )
  shared: bool = False
  hidden: Sequence[int] = ()

  @nn.compact
  def __call__(self, observation: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns outputs [B, num_outputs] and values [B]."""

    def features():
      x = variables.part(self, self.make_part('torso'), observation)
      for units in self.hidden:
        orthogonal = initializers.orthogonal(np.sqrt(2))
        x = nn.relu(layers.Dense(units, kernel_init=orthogonal)(x))
        self.sow('intermediates', 'activations', x)
      self.sow('intermediates', 'features', x)
      return x

    x = features()
    # A first policy that is nearly uniform, whatever is seen.
    nearly_zero = initializers.orthogonal(0.01)
    outputs = layers.Dense(self.num_outputs, kernel_init=nearly_zero)(x)
    x = x if self.shared else features()
    value = layers.Dense(1, kernel_init=initializers.orthogonal(1.0))(x)
    return outputs, value[:, 0]


def fitting(space: gymnasium.Space) -> type[modules.Module]:
  """Returns the network that is taken where an agent names none.

  `NatureCNN` for frames of bytes, `MinAtarCNN` for other images (of bytes that
  are at most 1, too), `MLP` for anything else, as images of less than 3x3
  numbers. What is no Box is encoded as vectors before, by `Encoded`.

  Args:
    space: of the agent's observations.
  """
  space = spaces.unmasked(space)
  is_box = isinstance(space, gymnasium.spaces.Box)
  if not is_box or len(space.shape) not in (2, 3, 4):
    return MLP
  if are_bytes(space):
    return NatureCNN
  return MinAtarCNN if min(space.shape[:2]) >= 3 else MLP


def are_bytes(space: gymnasium.spaces.Box) -> bool:
  """Whether a space is of bytes that are made for networks which divide them.

  Those of which none is above 1 are not.
  """
  return space.dtype == np.uint8 and bool(space.high.max() > 1)


def flatten(observation):
  """Returns [B, size of an observation] float32."""
  return observation.reshape(observation.shape[0], -1).astype(jnp.float32)


def as_images(observation):
  """Returns [B, H, W, C]; frames without channels have one.

  Stacked frames with channels [B, H, W, C, K] have C * K of them.
  """
  if observation.ndim == 3:
    observation = observation[..., None]
  elif observation.ndim == 5:
    observation = observation.reshape(*observation.shape[:3], -1)
  if observation.ndim != 4:
    raise errors.UserError(
      'a convolutional network needs observations of shape (height, width) or '
      f'(height, width, channels), and these have {observation.shape[1:]}; '
      'use networks.MLP for vectors (as a torso, networks.MLPTorso)'
    )
  return observation


def to_unit_interval(x, low, high, name):
  """Maps [low, high] to [0, 1] in each dimension of x [B, d]."""
  for field, bounds in (('low', low), ('high', high)):
    if bounds is None:
      raise errors.UserError(
        f'{name} needs both low and high to scale its input, and {field} is '
        'not set; give one number for each number of an observation, or '
        'low = None and high = None'
      )
    if np.shape(bounds) != x.shape[1:]:
      raise errors.UserError(
        f'{name}.{field} = {bounds} does not fit the observation, which has '
        f'{x.shape[1]} numbers; give one bound for each, or low = None and '
        'high = None, which scale nothing'
      )
  low, high = (np.asarray(bounds, np.float32) for bounds in (low, high))
  if not np.all(np.isfinite(low) & np.isfinite(high) & (low < high)):
    raise errors.UserError(
      f'{name} cannot scale its input from low = {low.tolist()} to high = '
      f'{high.tolist()}: bounds must be finite, and each low below its high'
    )
  return (x - low[None]) / (high - low)[None]
