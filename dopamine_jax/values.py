"""What settings hold: parts that can be changed, results that can be repeated.

A part is an instance of settings or of a Flax module: it has its fields. What a
function of another library returns, as `optax.adam(1e-3)`, doesn't know what it
was made of, and so nobody could write it down. `call(optax.adam, 1e-3)` returns
the same and remembers that.
"""

from collections.abc import Callable, Mapping
import dataclasses
import inspect
from typing import Any, NamedTuple

# Fields that every Flax module has; no settings.
FLAX_FIELDS = ('parent', 'name')

# What is a number or text is no part, and can be written down as it is.
_PLAIN = (type(None), bool, int, float, complex, str, bytes)


class Made(NamedTuple):
  """How a value was made, and the value, so that its id stays its own.

  Attributes:
    value: what was made.
    function: what made it.
    keywords: what it was given, by name.
  """

  value: Any
  function: Callable[..., Any]
  keywords: Mapping[str, Any]


# By the id of what was made. An optimizer is a tuple, to which no weak
# reference can be had; each takes a few hundred bytes.
_made: dict[int, Made] = {}


def call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
  """Returns `function(*args, **kwargs)`, and remembers how it was made.

  So that a run's `config.gin` can make it again:
  `dqn.DQN(optimizer=call(optax.adam, 1e-3))`.

  Args:
    function: a class or function that has a name in a module.
    *args: what it is given by position.
    **kwargs: what it is given by name; a list, for what it catches by `*args`.
  """
  caught, kwargs = positional(function, kwargs)
  args = (*args, *caught)
  value = function(*args, **kwargs)
  if isinstance(value, _PLAIN) or is_part(value) or inspect.isclass(value):
    return value
  made = Made(value, function, named(function, args, kwargs))
  _made.setdefault(id(value), made)
  return value


def origin(value: Any) -> Made | None:
  """Returns how a value was made, if `call` made it."""
  return _made.get(id(value))


def positional(
  function: Callable[..., Any], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
  """Returns what is given by position, and by name.

  A name that a function catches as `*name` is given by position: gin knows
  names alone.
  """
  caught = _caught(function)
  if caught not in kwargs:
    return (), dict(kwargs)
  rest = {k: v for k, v in kwargs.items() if k != caught}
  return tuple(kwargs[caught]), rest


def named(
  function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
  """Returns all arguments of a call by name; of `*name`, a list."""
  try:
    bound = inspect.signature(function).bind_partial(*args, **kwargs).arguments
  except (TypeError, ValueError):
    return dict(kwargs)
  for name, parameter in inspect.signature(function).parameters.items():
    if name in bound and parameter.kind is inspect.Parameter.VAR_POSITIONAL:
      bound[name] = list(bound[name])
    if name in bound and parameter.kind is inspect.Parameter.VAR_KEYWORD:
      bound |= bound.pop(name)
  return dict(bound)


def at(schedule: Any, count: Any) -> Any:
  """Returns what a schedule is after `count`, or the number that it is.

  Args:
    schedule: a number, or an optax schedule.
    count: int, or an int32 scalar of JAX.
  """
  return schedule(count) if callable(schedule) else schedule


def is_part(value: Any) -> bool:
  """Whether a value is an instance that has its settings as fields."""
  return dataclasses.is_dataclass(value) and not isinstance(value, type)


def fields(part: Any) -> dict[str, dataclasses.Field]:
  """Returns the fields of a part that are settings, by name."""
  is_flax = hasattr(part, 'clone')
  return {
    field.name: field
    for field in dataclasses.fields(part)
    if field.init and not (is_flax and field.name in FLAX_FIELDS)
  }


def changed(part: Any, **changes: Any) -> Any:
  """Returns a part with some settings changed."""
  if hasattr(part, 'clone'):  # a Flax module, which may lie in another
    return part.clone(**changes)
  return dataclasses.replace(part, **changes)


def _caught(function):
  """Returns the name of what a function takes any number of by position."""
  try:
    parameters = inspect.signature(function).parameters
  except (TypeError, ValueError):
    return None
  for name, parameter in parameters.items():
    if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
      return name
  return None
