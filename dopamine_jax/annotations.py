"""Annotations as the description of settings: what fits one, and in words."""

import collections.abc
import functools
import inspect
import types
import typing
from typing import Any, Literal

SCALARS = (bool, int, float, str)


def full_name(owner: Any) -> str:
  """Returns a class or function as a gin file names it, as in 'dqn.DQN'."""
  while isinstance(owner, functools.partial):
    owner = owner.func
  module = getattr(owner, '__module__', '') or ''
  # What a library defines in private modules, it offers at its top.
  is_private = any(part.startswith('_') for part in module.split('.')[1:])
  module = module.partition('.')[0] if is_private else module.split('.')[-1]
  name = getattr(owner, '__name__', type(owner).__name__)
  return name if module in ('', '__main__') else f'{module}.{name}'


def shown(value: Any) -> str:
  """Returns a value for a message: its beginning, if it is long."""
  text = repr(value)
  return text if len(text) <= 120 else f'{text[:100]}...'


def is_union(hint: Any) -> bool:
  """Whether an annotation is `A | B` or `Union[A, B]`."""
  return typing.get_origin(hint) in (typing.Union, types.UnionType)


def fits(value: Any, hint: Any) -> bool:
  """Whether a value fits an annotation; those it can't judge pass."""
  if is_union(hint):
    return any(fits(value, each) for each in typing.get_args(hint))
  kind, parts = typing.get_origin(hint) or hint, typing.get_args(hint)
  if kind is Any:  # A class to `isinstance`, which it then refuses.
    return True
  if kind is Literal:
    return value in parts
  if kind is type(None):
    return value is None
  if isinstance(value, bool) and kind in SCALARS:
    return kind is bool  # True is an int to Python, never to a user.
  if kind is float:
    return isinstance(value, (int, float))
  if kind is collections.abc.Callable:
    return callable(value) and (not parts or makes(value, parts[-1]))
  if not isinstance(kind, type):
    return True
  if getattr(kind, '_is_protocol', False):
    return callable(value) and _may_be_called_as(value, kind.__call__)
  if isinstance(value, str) and kind is collections.abc.Sequence:
    return False  # To Python it is one, of letters.
  return isinstance(value, kind) and _parts_fit(value, kind, parts)


def _parts_fit(value: Any, kind: type, parts: tuple[Any, ...]) -> bool:
  """Whether what a sequence or mapping holds fits `parts`, if they say it."""
  if not parts:
    return True
  if issubclass(kind, collections.abc.Mapping):
    key, entry = parts
    return all(fits(k, key) and fits(v, entry) for k, v in value.items())
  if issubclass(kind, tuple) and parts[-1] is not Ellipsis:
    return len(value) == len(parts) and all(map(fits, value, parts))
  if issubclass(kind, collections.abc.Sequence):
    return all(fits(each, parts[0]) for each in value)
  return True


def makes(value: Any, kind: Any) -> bool:
  """Whether a callable may return a `kind`, by what it is and says itself."""
  if not isinstance(kind, type) or kind in (*SCALARS, object, Any):
    return True
  if isinstance(value, kind):
    return False  # It is one already, and happens to be callable.
  while isinstance(value, functools.partial):
    value = value.func
  if inspect.isclass(value):
    return issubclass(value, kind)
  result = returned(value)
  if result in (type(None), Any) or not isinstance(result, type):
    return True
  return issubclass(result, kind) or issubclass(kind, result)


def returned(function: Any) -> Any:
  """Returns what a function says that it returns; None if it doesn't say."""
  try:
    return typing.get_type_hints(function).get('return')
  except (TypeError, NameError, AttributeError):
    return None


def choices(hint: Any) -> tuple[Any, ...]:
  """Returns the values of an annotation that is `Literal`, or is in part."""
  parts = typing.get_args(hint)
  if is_union(hint):
    return sum(map(choices, parts), ())
  return parts if typing.get_origin(hint) is Literal else ()


def is_for(value: Any, hint: Any) -> bool:
  """Whether an annotation asks for what makes a class of this kind."""
  if is_union(hint):
    return any(is_for(value, each) for each in typing.get_args(hint))
  parts = typing.get_args(hint)
  if typing.get_origin(hint) is not collections.abc.Callable or not parts:
    return False
  made = parts[-1]
  return (
    inspect.isclass(value)
    and isinstance(made, type)
    and made is not object
    and issubclass(value, made)
  )


def _may_be_called_as(value: Any, example: Any) -> bool:
  """Whether a function takes what `example` does, and may return the same."""
  given = [
    parameter
    for parameter in inspect.signature(example).parameters.values()
    if parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
  ][1:]  # without `self`
  needed = sum(each.default is inspect.Parameter.empty for each in given)
  # With those that it may be given, or without.
  if not any(_takes(value, i) for i in range(needed, len(given) + 1)):
    return False
  return makes(value, typing.get_type_hints(example).get('return'))


def _takes(value: Any, count: int) -> bool:
  """Whether a function can be called with so many arguments by position."""
  try:
    inspect.signature(value).bind(*range(count))
  except TypeError:
    return False
  except ValueError:  # it has no signature
    pass
  return True


def describe(hint: Any) -> str:
  """Returns what an annotation expects, in words."""
  if is_union(hint):
    return ' or '.join(describe(each) for each in typing.get_args(hint))
  kind, parts = typing.get_origin(hint) or hint, typing.get_args(hint)
  if kind is type(None):
    return 'None'
  if kind is Literal:
    return ' or '.join(map(repr, parts))
  if kind is collections.abc.Callable:
    made = parts[-1] if parts else None
    if isinstance(made, type) and made is not object:
      return f'a class or function that makes {_short_name(made)}'
    return 'a class or function'
  name = getattr(kind, '__name__', str(kind))
  if name in ('Sequence', 'tuple', 'list') and parts:
    return f'{name} of {describe(parts[0])}'
  if name in ('Mapping', 'dict') and parts:
    return f'{name} with keys of {describe(parts[0])}'
  return name


def _short_name(cls: type) -> str:
  """Returns a class's name after its module, or after the library's."""
  library = cls.__module__.partition('.')[0]
  if library not in ('flax', 'jax', 'jaxlib', 'optax'):  # deep inside it
    return full_name(cls)
  return f'{library}.{cls.__name__.rpartition(".")[2]}'
