"""What settings hold: parts that can be changed, results that can be repeated.

A part is an instance of settings or of a Flax module: it has its fields. What a
function of another library returns, as `optax.adam(1e-3)`, doesn't know what it
was made of, and so nobody could write it down. `call(optax.adam, 1e-3)` returns
the same and remembers that.
"""

from collections.abc import Callable, Mapping
import dataclasses
import functools
import inspect
import types
from typing import Any, NamedTuple

import numpy as np

from dopamine_jax import errors

# Fields that every Flax module has; no settings.
FLAX_FIELDS = ('parent', 'name')

# What is a number or text is no part, and can be written down as it is.
_PLAIN = (type(None), bool, int, float, complex, str, bytes)


class Made(NamedTuple):
  """How a value was made.

  It holds the value, so that no other one can get its id.

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


def call(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
  """Returns `function(*args, **kwargs)`, and remembers how it was made.

  So that a run's `config.gin` can make it again:
  `dqn.DQN(optimizer=call(optax.adam, 1e-3))`.

  Args:
    function: a class or function that has a name in a module.
    *args: what it is given by position.
    **kwargs: what it is given by name; a list, for what it catches by `*args`.

  Raises:
    UserError: if there is nothing to call.
  """
  if not callable(function):
    raise errors.UserError(
      f'call({function!r:.60}, ...): expected a class or function, and then '
      'what it is given.'
    )
  if isinstance(function, functools.partial):  # which has no name itself
    args = (*function.args, *args)
    function, kwargs = function.func, function.keywords | kwargs
  caught, kwargs = positional(function, kwargs)
  args = (*args, *caught)
  value = function(*args, **kwargs)
  if isinstance(value, _PLAIN) or is_part(value) or inspect.isclass(value):
    return value
  keywords = _copied(named(function, args, kwargs))
  if keywords is not None:
    _made.setdefault(id(value), Made(value, function, keywords))
  return value


def origin(value: Any) -> Made | None:
  """Returns how a value was made, if `call` made it."""
  return _made.get(id(value))


def are_alike(value: Any, other: Any) -> bool:
  """Returns whether two values are equal, or were made alike by `call`.

  Sequences are equal whatever their type. An argument that was left out is its
  default.
  """
  if isinstance(value, (list, tuple)) and isinstance(other, (list, tuple)):
    return list(value) == list(other)
  made = [origin(each) for each in (value, other)]
  if value is other or not all(made) or made[0].function != made[1].function:
    return value is other or value == other
  defaults = {
    name: parameter.default
    for name, parameter in _parameters(made[0].function).items()
  }
  one, two = (defaults | dict(each.keywords) for each in made)
  return one == two


def positional(
  function: Callable[..., Any], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
  """Returns what is to be given by position, and by name.

  Gin knows names alone. What a function takes by position only, or catches as
  `*name`, has a name there too, and so have the parameters before it.
  """
  parameters = list(_parameters(function).values())
  caught = [p for p in parameters if p.kind is p.VAR_POSITIONAL]
  is_caught = bool(caught) and caught[0].name in kwargs
  args, rest = [], dict(kwargs)
  for parameter in parameters:
    if parameter.kind is parameter.VAR_POSITIONAL and is_caught:
      args += rest.pop(parameter.name)
    elif parameter.name in rest and (
      parameter.kind is parameter.POSITIONAL_ONLY
      or (is_caught and parameter.kind is parameter.POSITIONAL_OR_KEYWORD)
    ):
      args.append(rest.pop(parameter.name))
  return tuple(args), rest


def partial(
  function: Callable[..., Any], kwargs: Mapping[str, Any]
) -> functools.partial:
  """Returns what gives a function these arguments, whoever calls it.

  A function's first parameters are given by position, for whoever calls it may
  give the rest so: `leaky(slope, x)` with a slope is then one of x.
  """
  args, rest = positional(function, kwargs)
  if not args and inspect.isroutine(function):
    for parameter in _parameters(function).values():
      if parameter.name not in rest or (
        parameter.kind is not parameter.POSITIONAL_OR_KEYWORD
      ):
        break
      args = (*args, rest.pop(parameter.name))
  return functools.partial(function, *args, **rest)


def named(
  function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Any] | None:
  """Returns all arguments of a call by name; of `*name`, a list.

  None if there are some by position, and nobody knows their names.
  """
  try:
    bound = signature(function).bind_partial(*args, **kwargs).arguments
  except (TypeError, ValueError):
    return None if args else dict(kwargs)
  for name, parameter in _parameters(function).items():
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


def not_of_fields(part: Any) -> str:
  """Returns what a dataclass holds that its arguments do not make, or ''.

  Settings are frozen, and Flax modules are too.
  """
  if type(part).__dataclass_params__.frozen or hasattr(part, 'clone'):
    return ''
  again = vars(dataclasses.replace(part))
  for name, value in getattr(part, '__dict__', {}).items():
    try:
      same = name in again and bool(np.all(again[name] == value))
    except (TypeError, ValueError):
      same = False
    if not same:
      return name
  return ''


def changed(part: Any, /, **changes: Any) -> Any:
  """Returns a part with some settings changed."""
  if hasattr(part, 'clone'):  # a Flax module, which may lie in another
    return part.clone(**changes)
  return dataclasses.replace(part, **changes)


def signature(function: Callable[..., Any]) -> inspect.Signature:
  """Returns `inspect.signature`'s answer, which of most takes it long."""
  if isinstance(function, (type, types.FunctionType)):
    return _signature(function)
  return inspect.signature(function)


@functools.lru_cache(maxsize=1_000)
def _signature(function):
  return inspect.signature(function)


def _copied(value):
  """Returns lists and dicts as they are now, whoever changes them later."""
  if isinstance(value, dict):
    return {key: _copied(each) for key, each in value.items()}
  return [_copied(each) for each in value] if type(value) is list else value


def _parameters(function) -> Mapping[str, inspect.Parameter]:
  try:
    return signature(function).parameters
  except (TypeError, ValueError):
    return {}
