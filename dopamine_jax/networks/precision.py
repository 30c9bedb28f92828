"""Networks that compute in 16 bits, and learn in 32: mixed precision.

Micikevicius et al. (2018), Mixed Precision Training.
https://arxiv.org/abs/1710.03740

Parameters, their gradients and all that an agent makes of outputs keep 32 bits;
of parameters and inputs each pass makes copies of 16. It is meant for
accelerators whose matrix units have such numbers; CPUs are slower by it.
"""

import dataclasses
import functools
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from dopamine_jax import errors
from dopamine_jax import values
from dopamine_jax.networks import modules
from dopamine_jax.networks import variables

# float16 would need losses to be scaled: its smallest numbers are too large.
_HALF = jnp.bfloat16


class MixedPrecision(modules.Module):
  """A network whose passes are of fewer bits.

  Attributes:
    network: maps arrays to arrays.
  """

  network: nn.Module

  @nn.compact
  def __call__(self, *inputs: Any) -> Any:
    """Returns what the network gives, float32, of any inputs."""
    if self.is_initializing():
      return variables.part(self, self.network, *inputs)  # of 32 bits
    train = variables.is_training(self)
    in_half = nn.map_variables(
      lambda network, *given: variables.call(network, *given, train=train),
      'params',
      trans_in_fn=lambda tree: _cast(tree, _HALF),
    )
    found = in_half(self.network, *_cast(inputs, _HALF))
    return _cast(found, jnp.float32)


def mixed_precision(
  network: modules.Maker | None = None, **given: Any
) -> MixedPrecision:
  """Returns a network that computes in bfloat16, for any setting of one.

  In a gin file:

      dqn.DQN.network = @networks.mixed_precision
      networks.mixed_precision.network = @networks.NatureCNN

  Args:
    network: a Flax module, or what makes it.
    **given: what its user doesn't choose, such as `num_outputs`.

  Raises:
    UserError: if the network has parts that are to be wrapped instead, or other
      passes beside `__call__`.
  """
  if network is None:
    raise errors.UserError(
      'networks.mixed_precision has no network: set it, as in '
      'networks.mixed_precision.network = @networks.MLP'
    )
  kind = _kind(network)
  if 'network' in getattr(kind, '__dataclass_fields__', ()):
    raise errors.UserError(
      f'networks.mixed_precision.network = {kind.__name__} has a network of '
      f'its own: wrap that, by {kind.__name__}.network = '
      '@networks.mixed_precision'
    )
  if isinstance(network, nn.Module):
    made = values.changed(network, **given)
  else:
    made = network(**given)
  if others := _passes(type(made)):
    raise errors.UserError(
      f'networks.mixed_precision.network = {type(made).__name__} has other '
      f'passes beside __call__ ({", ".join(others)}), which would keep their '
      'bits. Wrap a part of it that has none, such as its torso or encoder.'
    )
  return MixedPrecision(made)


def _kind(maker):
  """Returns the class of a network, or of what makes it, if that is known."""
  while isinstance(maker, functools.partial):
    maker = maker.func
  return type(maker) if isinstance(maker, nn.Module) else maker


def _passes(kind):
  """Returns the public methods that a network's own classes define."""
  own = kind.__mro__[: kind.__mro__.index(nn.Module)]
  fields = {field.name for field in dataclasses.fields(kind)}
  return sorted(
    name
    for each in own
    if each is not modules.Module and issubclass(each, nn.Module)
    for name, member in vars(each).items()
    if callable(member) and not name.startswith('_')
    if name not in {*fields, 'setup'}
  )


def _cast(tree, dtype):
  """Returns a tree whose floats have another type."""

  def cast(x):
    is_float = jnp.issubdtype(jnp.result_type(x), jnp.floating)
    return x.astype(dtype) if is_float else x

  return jax.tree.map(cast, tree)
