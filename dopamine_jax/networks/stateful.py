"""Layers that differ in training: normalization by batches, dropout.

They see by themselves whether a pass is for training (`variables`), so that
they work within any network, also one whose `__call__` takes no `train`. The
functions are made to be the `activation` of a network of `standard`.
"""

from collections.abc import Sequence
import fnmatch
import functools
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from dopamine_jax import errors
from dopamine_jax.networks import layers
from dopamine_jax.networks import modules
from dopamine_jax.networks import standard
from dopamine_jax.networks import statistics
from dopamine_jax.networks import variables


class BatchNorm(nn.BatchNorm):
  """Flax's batch normalization: Ioffe & Szegedy (2015).

  Batch Normalization: Accelerating Deep Network Training by Reducing Internal
  Covariate Shift. https://arxiv.org/abs/1502.03167
  """

  def __post_init__(self):
    if not 0 <= self.momentum <= 1:
      raise errors.UserError(
        f'networks.BatchNorm.momentum = {self.momentum!r} is outside [0, 1]: '
        'it is what part of the running statistics stays at each update.'
      )
    super().__post_init__()

  def __call__(self, x: jax.Array) -> jax.Array:
    """Returns [..., C] for [..., C]."""
    is_training = variables.is_training(self)
    return super().__call__(x, use_running_average=not is_training)


class BatchRenorm(modules.Module):
  """Batch renormalization over all axes but the last: Ioffe (2017).

  Batch Renormalization: Towards Reducing Minibatch Dependence in
  Batch-Normalized Models. https://arxiv.org/abs/1702.03275

  In training, what the batch's statistics normalize is corrected by r and d,
  which have no gradient, to what the running ones would make of it. In
  reinforcement learning: Bhatt et al. (2024), CrossQ,
  https://arxiv.org/abs/1902.05605.

  Differs from the paper:
  1. The limits of r and d rise together; the paper's d reaches its own earlier.
  2. The running statistics in `batch_stats` are mean and variance, as Flax's
     are; the paper averages standard deviations.

  Attributes:
    r_max: r lies between 1 / r_max and this.
    d_max: d lies between -d_max and this.
    warm_up: passes for training in which r is 1 and d is 0, as in batch
      normalization. Then the limits rise linearly.
    full_after: passes for training after which the limits are reached.
    momentum: what part of the running statistics stays at each such pass.
    epsilon: added to variances.
  """

  r_max: float = 3.0
  d_max: float = 5.0
  warm_up: int = 5_000
  full_after: int = 40_000
  momentum: float = 0.99
  epsilon: float = 1e-3

  def __post_init__(self):
    super().__post_init__()
    self.require_at_least(1, 'r_max')
    self.require_at_least(0, 'd_max')
    self.require_fraction('momentum')
    self.require_above(0, 'epsilon')
    if not self.warm_up < self.full_after:
      self.refuse('warm_up', f'is not below full_after = {self.full_after}')

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Returns [..., C] for [..., C]."""
    axes, shape = tuple(range(x.ndim - 1)), x.shape[-1:]
    mean = self.variable('batch_stats', 'mean', jnp.zeros, shape)
    var = self.variable('batch_stats', 'var', jnp.ones, shape)
    count = self.variable('batch_stats', 'count', jnp.zeros, (), jnp.int32)
    scale = self.param('scale', nn.initializers.ones, shape)
    bias = self.param('bias', nn.initializers.zeros, shape)
    old_mean = jnp.expand_dims(mean.value, axes)
    old_std = jnp.sqrt(jnp.expand_dims(var.value, axes) + self.epsilon)
    if variables.is_training(self):
      new_mean = jnp.mean(x, axes, keepdims=True)
      new_var = jnp.var(x, axes, keepdims=True)
      new_std = jnp.sqrt(new_var + self.epsilon)
      r_max, d_max = self._limits(count.value)
      r = jnp.clip(new_std / old_std, 1 / r_max, r_max)
      d = jnp.clip((new_mean - old_mean) / old_std, -d_max, d_max)
      r, d = jax.lax.stop_gradient((r, d))
      y = (x - new_mean) / new_std * r + d
      share = 1 - self.momentum
      mean.value += share * (new_mean.reshape(shape) - mean.value)
      var.value += share * (new_var.reshape(shape) - var.value)
      count.value += 1
    else:
      y = (x - old_mean) / old_std
    return y * jnp.expand_dims(scale, axes) + jnp.expand_dims(bias, axes)

  def _limits(self, count):
    """Returns the limits of r and d after so many passes for training."""
    rise = (count - self.warm_up) / (self.full_after - self.warm_up)
    rise = jnp.clip(rise, 0.0, 1.0)
    return 1 + rise * (self.r_max - 1), rise * self.d_max


class BatchRenormMLP(modules.Module):
  """Dense layers, whose inputs are all renormalized: CrossQ's networks.

  Bhatt et al. (2024), https://arxiv.org/abs/1902.05605

  Within `mixed_precision` it normalizes what was rounded already: where numbers
  are far from 0, put `RunningNorm` before it, as the `torso`.

  Attributes:
    num_outputs: size of the last, linear layer.
    hidden: sizes of the layers before it.
    norm: makes the normalization of the input and behind each relu.
  """

  num_outputs: int | None = None
  hidden: Sequence[int] = (256, 256)
  norm: modules.Maker = functools.partial(
    BatchRenorm, warm_up=100_000, full_after=100_001
  )

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Returns the outputs [B, num_outputs] for [B, ...]."""
    x = self.make_part('norm')(standard.flatten(x))
    for units in self.hidden:
      x = nn.relu(layers.Dense(units)(x))
      self.sow('intermediates', 'activations', x)
      x = self.make_part('norm')(x)
    self.sow('intermediates', 'features', x)
    return layers.Dense(self.num_outputs)(x)


class RunningNorm(modules.Module):
  """Observations with mean 0 and variance 1, by all that was learnt from.

  As a `torso` of an agent's networks. Passes for training normalize by what was
  known before, and then add their batch. Numbers lie within [-10, 10].
  """

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Returns float32 [B, F] for observations [B, ...].

    Raises:
      UserError: if they were rounded to 16 bits, of which no variance is right.
    """
    if x.dtype in (jnp.bfloat16, jnp.float16):
      raise errors.UserError(
        'networks.RunningNorm is within networks.mixed_precision, and would '
        'normalize numbers that were rounded. Put it before that, as the torso '
        'of an actor or critics whose network is @networks.mixed_precision'
      )
    x = standard.flatten(x)
    empty = statistics.Statistics.empty(x.shape[1:])
    names = ('mean', 'variance', 'count')
    known = {
      name: self.variable('batch_stats', name, getattr, empty, name)
      for name in names
    }
    seen = statistics.Statistics(**{k: v.value for k, v in known.items()})
    if variables.is_training(self):
      new = seen.add(jax.lax.stop_gradient(x))
      for name in names:
        known[name].value = getattr(new, name)
    return seen.normalize(x)


class Dropout(modules.Module):
  """Leaves out numbers at random in training: Srivastava et al. (2014).

  Dropout: A Simple Way to Prevent Neural Networks from Overfitting.
  https://jmlr.org/papers/v15/srivastava14a.html

  Attributes:
    rate: the part that is left out, below 1; the others grow, so that the mean
      stays.
  """

  rate: float = 0.1

  def __post_init__(self):
    super().__post_init__()
    self.require_fraction('rate')
    if self.rate == 1:
      self.refuse('rate', 'leaves nothing; it must be below 1')

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Returns an array like `x`."""
    is_off = not variables.is_training(self)
    return nn.Dropout(self.rate, deterministic=is_off)(x)


class SpectralNorm(modules.Module):
  """A network whose kernels have the spectral norm 1: Miyato et al. (2018).

  Spectral Normalization for Generative Adversarial Networks.
  https://arxiv.org/abs/1802.05957

  Each kernel is divided by its largest singular value, as one step of power
  iteration finds it; the vectors that it begins with are `singular_vectors`.
  In reinforcement learning one layer is often enough: Gogianu et al. (2021),
  https://arxiv.org/abs/2105.05246.

  Attributes:
    network: a Flax module, or what makes it from `num_outputs`.
    num_outputs: of the network; None: it has no such setting, as torsos.
    layers: patterns of the paths of kernels that are normalized, such as
      '*Dense_0.kernel'.
  """

  network: modules.Maker = standard.MLP
  num_outputs: int | None = None
  layers: Sequence[str] = ('*',)

  @nn.compact
  def __call__(self, *inputs: Any) -> Any:
    """Returns what the network gives."""
    given = {'num_outputs': self.num_outputs} if self.num_outputs else {}
    train = variables.is_training(self)
    forward = nn.map_variables(
      lambda inner, *inputs: variables.call(inner, *inputs, train=train),
      'params',
      lambda params: jax.tree_util.tree_map_with_path(self._normalized, params),
      init=self.is_initializing(),
      mutable=True,
    )
    return forward(self.make_part('network', **given), *inputs)

  def _normalized(self, path, kernel):
    """Returns a kernel divided by its norm; anything else as it is."""
    name = '.'.join(str(each.key) for each in path[1:])
    fits = any(fnmatch.fnmatchcase(name, each) for each in self.layers)
    if kernel.ndim < 2 or not fits:
      return kernel
    matrix = kernel.reshape(-1, kernel.shape[-1])
    vector = self.variable(
      'singular_vectors', name, lambda: _unit(jnp.ones(matrix.shape[-1]))
    )
    fixed = jax.lax.stop_gradient(matrix)
    left = _unit(fixed @ vector.value)
    right = _unit(left @ fixed)
    if variables.is_training(self):
      vector.value = right
    return kernel / (left @ matrix @ right)


def batch_normalized_relu(x: jax.Array, momentum: float = 0.99) -> jax.Array:
  """Returns relu(BatchNorm(x)); see there.

  Args:
    x: [..., C].
    momentum: what part of the running statistics stays at each update.
  """
  return nn.relu(BatchNorm(momentum=momentum)(x))


def batch_renormalized_relu(
  x: jax.Array,
  r_max: float = 3.0,
  d_max: float = 5.0,
  warm_up: int = 5_000,
  full_after: int = 40_000,
  momentum: float = 0.99,
) -> jax.Array:
  """Returns relu(BatchRenorm(x)); see there for the arguments."""
  norm = BatchRenorm(
    r_max=r_max,
    d_max=d_max,
    warm_up=warm_up,
    full_after=full_after,
    momentum=momentum,
  )
  return nn.relu(norm(x))


def dropout_relu(
  x: jax.Array, rate: float = 0.1, *, layer_norm: bool = False
) -> jax.Array:
  """Returns relu(Dropout(x)), with LayerNorm between the two if asked.

  With it, this is the layer of critics in Hiraoka et al. (2022), Dropout
  Q-Functions for Doubly Efficient Reinforcement Learning.
  https://arxiv.org/abs/2110.02034
  """
  x = Dropout(rate=rate)(x)
  return nn.relu(nn.LayerNorm()(x) if layer_norm else x)


def _unit(vector):
  return vector / jnp.maximum(jnp.linalg.norm(vector), 1e-12)
