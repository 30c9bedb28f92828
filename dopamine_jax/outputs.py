"""What networks and agents give, held to shapes when a training starts.

A network of a wrong size would train, and choose actions that don't exist. Only
shapes are traced, of a batch as large as none is by chance.
"""

from collections.abc import Callable, Sequence
from typing import Any

from flax import linen as nn
import gymnasium
import jax
import jax.numpy as jnp

from dopamine_jax import errors

_BATCH = 997
_ANY = -1

Shape = Sequence[int | None]


def first_params(
  module: nn.Module, rngs: Any, *inputs: jax.Array, needs: Sequence[Shape]
) -> Any:
  """Returns the first parameters of a network whose outputs fit.

  Args:
    module: the network.
    rngs: a PRNG key, or several by name.
    inputs: examples, [B, ...].
    needs: see `require`.

  Raises:
    UserError: if the outputs don't fit.
  """
  params = init(module, rngs, *inputs)
  if not isinstance(rngs, dict):
    rngs = {'noise': rngs}

  def apply(params, *inputs):
    return module.apply({'params': params}, *inputs, rngs=rngs)

  require(module, apply, params, *inputs, needs=needs)
  return params


def init(module: nn.Module, rngs: Any, *inputs: jax.Array) -> Any:
  """Returns a network's first parameters; of one that has none, {}.

  Raises:
    UserError: if it can't be applied to such inputs.
  """
  try:
    return module.init(rngs, *inputs).get('params', {})
  except (TypeError, ValueError) as error:
    inputs = ' and '.join(f'{x.dtype} {x.shape}' for x in inputs)
    raise errors.UserError(
      f'the network {type(module).__name__} fails when it is first applied, to '
      f'{inputs}: {errors.first_line(error)}'
    ) from error


def require(
  module: nn.Module,
  function: Callable[..., Any],
  params: Any,
  *inputs: jax.Array,
  needs: Sequence[Shape],
) -> None:
  """Refuses a network if what is made of its outputs has another shape.

  Args:
    module: the network.
    function: of parameters and inputs; gives an array or several.
    params: of the network.
    inputs: examples, [B, ...].
    needs: of each array, the shape behind the axis [B]; a leading None is an
      axis of any size before [B].

  Raises:
    UserError: that names the network, what came out and what was expected.
  """
  batches = [
    jax.ShapeDtypeStruct((_BATCH, *x.shape[1:]), x.dtype) for x in inputs
  ]
  try:
    outputs = jax.eval_shape(function, params, *batches)
    found = _shapes(outputs)
  except (TypeError, ValueError) as error:
    found = errors.first_line(error)
  expected = [_with_batch(shape) for shape in needs]
  if isinstance(found, str) or not _fit(found, expected):
    shown = found if isinstance(found, str) else _written(found)
    raise errors.UserError(
      f'the network {type(module).__name__} does not fit: expected '
      f'{_written(expected)}, and it gave {shown}. Its last layer must be as '
      'large as the agent says: give the class itself in the configuration, '
      'and let its num_outputs (of an actor, action_shape) decide.'
    )


def require_actions(
  agent: Any, actions: jax.Array, space: gymnasium.Space, num_envs: int
) -> jax.Array:
  """Returns an agent's actions, once shape and type fit; may be traced.

  Raises:
    UserError: if they don't.
  """
  is_box = isinstance(space, gymnasium.spaces.Box)
  shape = (num_envs, *(space.shape if is_box else ()))
  kind = jnp.floating if is_box else jnp.integer
  if actions.shape != shape or not jnp.issubdtype(actions.dtype, kind):
    raise errors.UserError(
      f'{type(agent).__name__}.act must return actions of shape {shape}, '
      f'{"floats" if is_box else "integers"}, for {space}, and it gave '
      f'{actions.dtype} {actions.shape}. Mend the agent or its network.'
    )
  return actions


def _shapes(outputs):
  several = outputs if isinstance(outputs, (tuple, list)) else [outputs]
  return [tuple(array.shape) for array in several]


def _with_batch(shape):
  if shape and shape[0] is None:
    return _ANY, _BATCH, *shape[1:]
  return _BATCH, *shape


def _fit(found, expected):
  return len(found) == len(expected) and all(
    len(one) == len(other)
    and all(b in (a, _ANY) for a, b in zip(one, other, strict=True))
    for one, other in zip(found, expected, strict=True)
  )


def _written(shapes):
  """Returns shapes as docstrings write them."""
  letters = {_BATCH: 'B', _ANY: 'K'}
  return ' and '.join(
    f'[{", ".join(str(letters.get(size, size)) for size in shape)}]'
    for shape in shapes
  )
