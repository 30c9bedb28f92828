"""What networks and agents give, held to shapes when a training starts.

A network of a wrong size would train, and choose actions that don't exist. Only
shapes are traced, of a batch as large as none is by chance.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import reprlib
from typing import Any

from flax import linen as nn
import gymnasium
import jax
import jax.numpy as jnp

from dopamine_jax import errors
from dopamine_jax.networks import variables

_BATCH = 997
_ANY = -1

Shape = Sequence[int | None]


def first_params(
  module: nn.Module, rngs: Any, *inputs: jax.Array, needs: Sequence[Shape]
) -> Any:
  """Returns a network's initial parameters if its outputs fit.

  Args:
    module: the network.
    rngs: a PRNG key, or several by name.
    inputs: examples, [B, ...].
    needs: see `require`.

  Raises:
    UserError: if the outputs don't fit.
  """
  params = init(module, rngs, *inputs)

  def apply(params, *inputs):
    return variables.apply(module, params, *inputs)

  require(module, apply, params, *inputs, needs=needs)
  return params


def init(module: nn.Module, rngs: Any, *inputs: jax.Array) -> Any:
  """Returns a network's first parameters, or `Variables`, see there.

  Of one that has none, {}.

  Raises:
    UserError: if it can't be applied to such inputs.
  """
  try:
    return variables.init(module, rngs, *inputs)
  except errors.UserError:
    raise
  except Exception as error:
    leaves = jax.tree.leaves(inputs)
    inputs = ' and '.join(f'{x.dtype} {x.shape}' for x in leaves)
    raise errors.UserError(
      f'the network {type(module).__name__} fails when it is first applied, to '
      f'{inputs}: {errors.told(error)}'
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
  batches = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct((_BATCH, *x.shape[1:]), x.dtype), inputs
  )
  try:
    outputs = jax.eval_shape(function, params, *batches)
    found = _shapes(outputs)
    is_size = not isinstance(found, str)
  except errors.UserError:
    raise
  except Exception as error:
    # Of a size that the agent can't take apart, unless its own code raised.
    found, is_size = errors.told(error), not errors.place(error)
  expected = [_with_batch(shape) for shape in needs]
  if isinstance(found, str) or not _fit(found, expected):
    shown = found if isinstance(found, str) else _written(found)
    remedy = 'Mend the network.'
    if is_size:
      remedy = (
        'Its last layer must be as large as the agent says: give the class '
        'itself in the configuration, and let its num_outputs (of an actor, '
        'action_shape) decide.'
      )
    raise errors.UserError(
      f'the network {type(module).__name__} does not fit: expected '
      f'{_written(expected)}, and it gave {shown}. {remedy}'
    )


def require_actions(
  agent: Any, actions: jax.Array, space: gymnasium.Space, num_envs: int
) -> jax.Array:
  """Returns an agent's actions, once shape and kind fit; may be traced.

  They are int32 or float32 then, as replays keep them.

  Raises:
    UserError: if they don't.
  """
  is_box = isinstance(space, gymnasium.spaces.Box)
  shape = (num_envs, *space.shape)
  kind = jnp.floating if is_box else jnp.integer
  if not (_is_array(actions) and actions.shape == shape) or not (
    jnp.issubdtype(actions.dtype, kind)
  ):
    raise errors.UserError(
      f'{type(agent).__name__}.act must return actions of shape {shape}, '
      f'{"floats" if is_box else "integers"}, for {space}, and it gave '
      f'{_type(actions)}. Mend the agent or its network.'
    )
  return jnp.asarray(actions, jnp.float32 if is_box else jnp.int32)


@contextlib.contextmanager
def telling(agent: Any, method: str) -> Iterator[None]:
  """Tells what a user's agent raised, and where, as a UserError.

  What the framework's own agents raise passes as it is.
  """
  try:
    yield
  except errors.UserError:
    raise
  except Exception as error:
    if type(agent).__module__.startswith('dopamine_jax.'):
      if not errors.place(error):  # of a network or an optimizer, say
        raise
    raise errors.UserError(
      f'{type(agent).__name__}.{method} fails: {errors.told(error)}.'
    ) from error


def require_floats(
  agent: Any, what: str, given: jax.Array, shape: tuple[int, ...]
) -> jax.Array:
  """Returns what a method gave, once it is floats of that shape.

  Args:
    agent: whose method it is.
    what: the call that gave it, or its name.
    given: may be traced.
    shape: what is expected.

  Raises:
    UserError: if it is anything else.
  """
  if not (_is_float(given) and given.shape == shape):
    raise errors.UserError(
      f'{type(agent).__name__}.{what} must be floats of shape {shape}, and it '
      f'is {kind(given)}. Mend the agent.'
    )
  return given


def require_losses(
  agent: Any, answer: Any, example: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Returns the losses and metrics that a method `losses` gave.

  Args:
    agent: whose method it is.
    answer: what it gave.
    example: has the shape of the losses, [B].

  Raises:
    UserError: if they are not losses [B] and scalars by name.
  """
  if not isinstance(answer, tuple) or len(answer) != 2:
    raise errors.UserError(
      f'{type(agent).__name__}.losses() must return losses {example.shape} and '
      f'a dict of metrics, and it gave {kind(answer)}. Mend the agent: '
      '`return losses, {}`.'
    )
  losses, metrics = answer
  require_floats(agent, 'losses()[0]', losses, example.shape)
  name = f'{type(agent).__name__}.losses'
  return losses, require_scalars(name, metrics)


def require_state(agent: Any, state: Any) -> Any:
  """Returns a state, once it is made of arrays; may be traced.

  Raises:
    UserError: names what is none.
  """
  for path, leaf in jax.tree_util.tree_leaves_with_path(state):
    if not (_is_array(leaf) or isinstance(leaf, (bool, int, float))):
      raise errors.UserError(
        f'{type(agent).__name__}.init must return a state of arrays, and its '
        f'state{jax.tree_util.keystr(path)} is {kind(leaf)}. Mend the agent.'
      )
  return state


def require_update(agent: Any, before: Any, answer: Any) -> tuple:
  """Returns what `Agent.update` gave, once it can be gone on with.

  Args:
    agent: which gave it; may be traced.
    before: the agent's state until then.
    answer: state, metrics and priorities.

  Raises:
    UserError: if the state is another one than before in structure, shapes or
      types; if a metric is no scalar.
  """
  name = f'{type(agent).__name__}.update'
  if not (isinstance(answer, (tuple, list)) and len(answer) == 3):
    raise errors.UserError(
      f'{name} must return three things, a state, metrics and priorities, and '
      f'it gave {_several(answer)}. Mend the agent.'
    )
  state, metrics, _ = answer
  require_alike(name, 'state', before, state)
  require_scalars(name, metrics)
  return answer


def require_alike(
  name: str, what: str, before: Any, after: Any, owner: str = 'agent'
):
  """Refuses a state or memory that is another one than before.

  Args:
    name: of the method that gave it.
    what: which of the two it is.
    before: as it was given to the method.
    after: as it came back.
    owner: whose the method is, 'agent' or 'callback'.

  Raises:
    UserError: names the first leaf that differs in shape or type.
  """
  old, new = (
    {jax.tree_util.keystr(path): _type(leaf) for path, leaf in leaves}
    for leaves in map(jax.tree_util.tree_leaves_with_path, (before, after))
  )
  for path in [*old, *new]:
    if old.get(path) != new.get(path):
      raise errors.UserError(
        f'{name} must return a {what} like the one it was given, and of that '
        f'{what}{path} was {old.get(path, "not there")} and is now '
        f'{new.get(path, "not there")}. Mend the {owner}.'
      )
  if jax.tree.structure(before) != jax.tree.structure(after):
    raise errors.UserError(
      f'{name} must return a {what} like the one it was given, and it has '
      f'other containers (a list for a tuple, say). Mend the {owner}.'
    )


def require_reductions(agent: Any, metrics: dict[str, Any]):
  """Refuses `Agent.reductions` of what is no metric, or unknown ones.

  Args:
    agent: the settings.
    metrics: those that its `update` gives, by name.

  Raises:
    UserError: names the first.
  """
  for name, how in agent.reductions.items():
    where = f'{type(agent).__name__}.reductions[{name!r}]'
    if name not in metrics:
      raise errors.UserError(
        f'{where}: update gives no such metric. It gives '
        f'{", ".join(sorted(metrics))}. Mend the agent.'
      )
    if how not in ('sum', 'last'):
      raise errors.UserError(
        f"{where} = {how!r}; expected 'sum' or 'last', or nothing for the "
        'mean. Mend the agent.'
      )


def require_scalars(giver: str, metrics: Any) -> dict[str, Any]:
  """Returns metrics by name, once each is one real number; may be traced.

  Args:
    giver: what gave them, for the message.
    metrics: a dict.

  Raises:
    UserError: names what is none.
  """
  if not isinstance(metrics, dict):
    raise errors.UserError(
      f'{giver} must return metrics by name, a dict, and it gave '
      f'{_type(metrics)}. Mend it.'
    )
  for metric, value in metrics.items():
    if not (isinstance(metric, str) and metric.isprintable() and metric):
      raise errors.UserError(
        f'{giver} must name its metrics by text, and one is called {metric!r}. '
        'Mend it.'
      )
    is_number = isinstance(value, (bool, int, float))
    is_scalar = _is_array(value) and value.shape == ()
    if not is_number and not (
      is_scalar and not jnp.issubdtype(value.dtype, jnp.complexfloating)
    ):
      raise errors.UserError(
        f'{giver} must return scalar metrics, and its {metric} is '
        f'{kind(value)}. Mend it.'
      )
  return metrics


def _is_array(value):
  return hasattr(value, 'dtype') and hasattr(value, 'shape')


def _is_float(value):
  return _is_array(value) and jnp.issubdtype(value.dtype, jnp.floating)


def kind(value: Any) -> str:
  """Returns what a value is, in words."""
  if value is None or hasattr(value, 'dtype'):
    return _type(value)
  return f'{reprlib.repr(value)} ({_type(value)})'


def _several(value):
  """Returns what a value is, and how many of them it holds."""
  is_several = isinstance(value, (tuple, list))
  return f'{_type(value)} of {len(value)}' if is_several else _type(value)


def _type(value):
  """Returns what a value is, whatever its numbers are."""
  if _is_array(value):
    return f'{value.dtype} {tuple(value.shape)}'
  return 'None' if value is None else type(value).__name__


def _shapes(outputs):
  """Returns the shapes of outputs, or what else they are, in words."""
  several = outputs if isinstance(outputs, (tuple, list)) else [outputs]
  if all(map(_is_float, several)):
    return [tuple(array.shape) for array in several]
  return f'{" and ".join(map(kind, several))}, where floats are due'


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
