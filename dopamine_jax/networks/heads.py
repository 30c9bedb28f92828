"""What turns a torso's features into outputs: noisy layers and dueling heads.

Flax modules that map features [B, F] to [B, num_outputs]. Noise is drawn from
the rng collection 'noise', a new one for each layer and each `apply`.
"""

from collections.abc import Callable, Sequence
from typing import Any

from flax import linen as nn
from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from dopamine_jax.networks import layers
from dopamine_jax.networks import modules
from dopamine_jax.networks import variables

_SIGMA = '_sigma'  # how the names of noise's parameters end


class NoisyDense(modules.Module):
  """A dense layer whose weights are noisy: Fortunato et al. (2018), eq. 9.

  Noisy Networks for Exploration. https://arxiv.org/abs/1706.10295

  The noise is the factorised Gaussian of eq. 10 and 11, the same for the whole
  batch. `kernel` and `bias` are the means, named as in a dense layer, and start
  uniform within 1 / sqrt(inputs).

  Attributes:
    features: size of the output.
    sigma0: of the first standard deviations, sigma0 / sqrt(inputs).
  """

  features: int
  sigma0: float = 0.5

  def __post_init__(self):
    super().__post_init__()
    self.require_at_least(0, 'sigma0')

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Returns [B, features] for [B, inputs]."""
    inputs = x.shape[-1]
    bound = 1 / np.sqrt(inputs)
    uniform = _uniform(bound)
    shape = (inputs, self.features)
    kernel = self.param('kernel', uniform, shape)
    bias = self.param('bias', uniform, shape[1:])
    names = [f'{name}{_SIGMA}' for name in ('kernel', 'bias')]
    if self.is_initializing() or self.has_variable('params', names[0]):
      sigma = nn.initializers.constant(self.sigma0 * bound)
      noise = jax.random.normal(self.make_rng('noise'), (sum(shape),))
      noise = layers.once(jnp.sign(noise) * jnp.sqrt(jnp.abs(noise)))
      noise = noise.astype(kernel.dtype)  # which may have fewer bits
      of_input, of_output = noise[:inputs, None], noise[None, inputs:]
      kernel += self.param(names[0], sigma, shape) * (of_input * of_output)
      bias += self.param(names[1], sigma, shape[1:]) * of_output[0]
    return layers.multiply(x, kernel) + bias[None]


def without_noise(params: Any) -> Any:
  """Returns `params` without noise's standard deviations.

  Noisy layers then are their means, as if these were zero, and cost no more
  than dense ones. Of networks without noise, all parameters.
  """
  if isinstance(params, variables.Variables):
    return params.replace(params=without_noise(params.params))
  flat = traverse_util.flatten_dict(params)
  return traverse_util.unflatten_dict(
    {path: leaf for path, leaf in flat.items() if not path[-1].endswith(_SIGMA)}
  )


class Plain(modules.Module):
  """Rectified layers and a linear one.

  Attributes:
    num_outputs: size of the last, linear layer.
    hidden: sizes of the layers before it.
    dense: makes a layer from its size: `layers.Dense`, `NoisyDense` or a
      partial.
  """

  num_outputs: int
  hidden: Sequence[int] = (512,)
  dense: Callable[[int], nn.Module] = layers.Dense

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Returns [B, num_outputs] for features [B, F]."""
    for units in self.hidden:
      x = nn.relu(self.dense(units)(x))
      self.sow('intermediates', 'activations', x)
    self.sow('intermediates', 'features', x)
    return self.dense(self.num_outputs)(x)


class Dueling(modules.Module):
  """A stream of values and one of advantages: Wang et al. (2016), eq. 9.

  Dueling Network Architectures for Deep Reinforcement Learning.
  https://arxiv.org/abs/1511.06581

  With atoms each has its own value and its own mean of advantages, as in
  Hessel et al. (2018).

  Attributes:
    num_outputs: A actions of M atoms each, A * M.
    num_atoms: M; 1 for plain values.
    hidden: sizes of each stream's rectified layers.
    dense: makes a layer from its size, see `Plain`.
  """

  num_outputs: int
  num_atoms: int = 1
  hidden: Sequence[int] = (512,)
  dense: Callable[[int], nn.Module] = layers.Dense

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Returns [B, A * M], an action's atoms side by side, for [B, F]."""

    def stream(outputs, name):
      head = Plain(outputs, self.hidden, self.dense, name=name)
      return head(x).reshape(x.shape[0], -1, self.num_atoms)

    value = stream(self.num_atoms, 'value')
    advantage = stream(self.num_outputs, 'advantage')
    centred = advantage - jnp.mean(advantage, axis=1, keepdims=True)
    return (value + centred).reshape(x.shape[0], -1)


def _uniform(bound):
  """An initializer, uniform in [-bound, bound]."""

  def init(key, shape, dtype=jnp.float32):
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  return init
