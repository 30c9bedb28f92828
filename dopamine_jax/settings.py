"""Settings: the one shape that agents, replays, environments and runners share.

A settings class is a frozen dataclass. It holds no
state, so that its methods are pure and may be traced by JAX.
"""

import collections.abc
from collections.abc import Iterator
import dataclasses
import functools
import inspect
import math
import types
import typing
from typing import Any, Literal, Self

from dopamine_jax import errors
from dopamine_jax import values

_SCALARS = (bool, int, float, str)

# Floats are float32 and counts int32, wherever JAX computes with them.
_LARGEST = {float: 3.4e38, int: 2**31 - 1}


class SettingError(errors.UserError):
  """A setting that can't work; knows which one, so that gin can say where."""

  def __init__(self, owner: type, name: str, message: str):
    super().__init__(message)
    self.owner = owner
    self.name = name


class Checked:
  """Checks the fields of a dataclass: our settings, and our Flax modules."""

  # Fields that are no user's to set: `make_part` gives them later. No
  # setting itself: it has no type.
  given_later = ()

  def make_part(self, name: str, /, **given: Any) -> Any:
    """Returns what a setting makes, such as a network or a replay.

    Args:
      name: the setting: a part, which gets what is given, or a class or
        function, which is called with it.
      **given: what its user doesn't choose.

    Raises:
      UserError: if it takes no such arguments, has them already, or makes
        something else.
    """
    part = getattr(self, name)
    if values.is_part(part):
      made = self._complete(name, part, given)
    else:
      made = self._call(name, part, given)
    hint = _hints(type(self))[name]
    kinds = typing.get_args(hint) if is_union(hint) else (hint,)
    kinds = [(typing.get_args(each) or (each,))[-1] for each in kinds]
    kinds = tuple(
      kind
      for kind in kinds
      if isinstance(kind, type) and kind is not type(None)
    )
    if kinds and not isinstance(made, kinds):
      self.refuse(
        name,
        f'makes what is of type {type(made).__name__}; expected '
        f'{full_name(kinds[-1])}',
      )
    return made

  def _complete(self, name, part, given):
    """Returns a part that also has what is given."""
    fields = values.fields(part)
    if lacking := [each for each in given if each not in fields]:
      lacking = ' and '.join(lacking)
      self.refuse(name, f'does not fit: it has no {lacking}{self._like(name)}')
    for each in given:
      if getattr(part, each) != fields[each].default:
        self._refuse_given(type(part), each, getattr(part, each))
    return values.changed(part, **given)

  def _call(self, name, maker, given):
    """Returns what a class or function makes of what is given."""
    try:
      inspect.signature(maker).bind_partial(**given)
      if isinstance(maker, functools.partial):
        parameters = inspect.signature(maker.func).parameters
        for each in given.keys() & maker.keywords.keys():
          default = getattr(parameters.get(each), 'default', None)
          if maker.keywords[each] != default:
            self._refuse_given(maker.func, each, maker.keywords[each])
    except TypeError:
      taken = ' and '.join(given)
      self.refuse(
        name, f'does not fit: it does not take {taken}{self._like(name)}'
      )
    except ValueError:
      pass  # What has no signature may take anything.
    try:
      return maker(**given)
    except errors.UserError:
      raise
    except (TypeError, ValueError) as error:
      raise errors.UserError(
        f'{full_name(type(self))}.{name} fails when it is made: '
        f'{errors.told(error)}.'
      ) from error

  def _like(self, name):
    """Returns ', as networks.MLP does', if that class is the default."""
    default = type(self).__dataclass_fields__[name].default
    is_class = inspect.isclass(default) and default is not dataclasses.MISSING
    return f', as {full_name(default)} does' if is_class else ''

  def _refuse_given(self, owner, name, value):
    giver = full_name(type(self))
    has_it = name in type(self).__dataclass_fields__
    remedy = f'Set {giver}.{name} instead' if has_it else 'Leave it out'
    raise SettingError(
      owner,
      name,
      f'{full_name(owner)}.{name} = {shown(value)} has no effect: {giver} '
      f'gives it. {remedy}.',
    )

  def check_types(self, ignored: tuple[str, ...] = ()):
    """Refuses each field that its annotation doesn't describe.

    Numbers are to be finite, and of a size that 32 bits can hold.
    """
    hints = _hints(type(self))
    for field in dataclasses.fields(self):
      if field.name not in ignored:
        self._check_type(field.name, hints[field.name])

  def _check_type(self, name: str, hint: Any):
    value = getattr(self, name)
    if fits(value, hint):
      for number in _numbers(value) if hint is not Any else ():
        if isinstance(number, float) and not math.isfinite(number):
          self.refuse(name, 'is not finite')
        kind = int if isinstance(number, int) else float
        if abs(number) > _LARGEST[kind]:
          self.refuse(name, 'is too large for the 32 bits of a number')
      return
    reason = f'{_what_it_is(value)}; expected {describe(hint)}'
    parts = value if isinstance(value, (list, tuple)) else [value]
    if not all(isinstance(x, (*_SCALARS, type(None), dict)) for x in parts):
      reason += (
        '. (In gin, @name without parentheses passes a class or function '
        'itself, and @name() what calling it returns)'
      )
    self.refuse(name, reason)

  def refuse(self, name: str, reason: str):
    """Raises: SettingError that names the setting, its value and `reason`."""
    cls = type(self)
    value = shown(getattr(self, name))
    message = f'{full_name(cls)}.{name} = {value} {reason}.'
    raise SettingError(cls, name, message)

  def require_at_least(self, bound: float, *names: str):
    """Refuses each that is below `bound`; None and schedules pass."""
    for name in names:
      if not all(value >= bound for value in self._numbers_of(name)):
        self.refuse(name, f'is too small; it must be at least {bound}')

  def require_above(self, bound: float, *names: str):
    """Refuses each that is `bound` or below; None and schedules pass."""
    for name in names:
      if not all(value > bound for value in self._numbers_of(name)):
        self.refuse(name, f'is too small; it must be above {bound}')

  def require_at_most(self, bound: float, *names: str):
    """Refuses each that is above `bound`; None and schedules pass."""
    for name in names:
      if not all(value <= bound for value in self._numbers_of(name)):
        self.refuse(name, f'is too large; it must be at most {bound}')

  def require_multiple(self, name: str, of: str):
    """Refuses a setting that is not a positive multiple of another one."""
    value, divisor = getattr(self, name), getattr(self, of)
    if value < 1 or value % divisor:
      self.refuse(name, f'is not a positive multiple of {of} = {divisor}')

  def require_fraction(self, *names: str):
    """Refuses each that is outside [0, 1]; None and schedules pass."""
    for name in names:
      if not all(0 <= value <= 1 for value in self._numbers_of(name)):
        self.refuse(name, 'is out of range; it must lie in [0, 1]')

  def require_one_of(self, name: str, choices: tuple[str, ...]):
    """Refuses a setting that is none of these."""
    if getattr(self, name) not in choices:
      known = ' or '.join(map(repr, choices))
      self.refuse(name, f'is unknown; expected {known}')

  def _numbers_of(self, name: str) -> list[float]:
    """Returns the numbers to compare; of a schedule or None there are none."""
    value = getattr(self, name)
    if value is None or callable(value):
      return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


@typing.dataclass_transform(frozen_default=True, kw_only_default=True)
class Settings(Checked):
  """Base class whose subclasses become frozen, keyword-only dataclasses.

  Values are checked against annotations (`int`, `float | None`, a class,
  `Sequence[int]`, what makes a class) when an instance is made. A subclass
  checks more by extending `__post_init__`.
  """

  def __init_subclass__(cls, **kwargs):
    super().__init_subclass__(**kwargs)
    inherited = {
      name
      for base in cls.__mro__[1:]
      for name in getattr(base, '__dataclass_fields__', {})
    }
    # A dataclass ignores `epsilon = 0.5` in a subclass body silently.
    annotated = set(inspect.get_annotations(cls))
    for name in inherited & set(vars(cls)) - annotated:
      raise TypeError(
        f'{cls.__name__}.{name} overrides a setting without a type, which a '
        f'dataclass would ignore. Write `{name}: TYPE = ...`.'
      )
    dataclasses.dataclass(frozen=True, kw_only=True)(cls)

  def __post_init__(self):
    self.check_types()

  def replace(self, **changes: Any) -> Self:
    """Returns a copy with these settings changed."""
    return dataclasses.replace(self, **changes)


def full_name(owner: Any) -> str:
  """Returns a class or function as a gin file names it, as in 'dqn.DQN'."""
  while isinstance(owner, functools.partial):
    owner = owner.func
  module = (getattr(owner, '__module__', '') or '').rpartition('.')[2]
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
  if isinstance(value, bool) and kind in _SCALARS:
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
  if not isinstance(kind, type) or kind in (*_SCALARS, object, Any):
    return True
  if isinstance(value, kind):
    return False  # It is one already, and happens to be callable.
  while isinstance(value, functools.partial):
    value = value.func
  if inspect.isclass(value):
    return issubclass(value, kind)
  try:
    result = typing.get_type_hints(value).get('return')
  except (TypeError, NameError, AttributeError):
    return True
  if result in (type(None), Any) or not isinstance(result, type):
    return True
  return issubclass(result, kind) or issubclass(kind, result)


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


def takes(owner: Checked, name: str, kind: Any) -> bool:
  """Whether a setting's annotation names `kind`, alone or in a union."""
  hint = _hints(type(owner))[name]
  return kind in (typing.get_args(hint) if is_union(hint) else (hint,))


def _short_name(cls: type) -> str:
  """Returns a class's name after its module, or after the library's."""
  library = cls.__module__.partition('.')[0]
  if library not in ('flax', 'jax', 'jaxlib', 'optax'):  # deep inside it
    return full_name(cls)
  return f'{library}.{cls.__name__.rpartition(".")[2]}'


def _what_it_is(value: Any) -> str:
  if isinstance(value, (list, tuple)):
    inside = {type(each).__name__ for each in value}
    return f'is a {type(value).__name__} of {", ".join(sorted(inside)) or "no"}'
  return f'is of type {type(value).__name__}'


def _numbers(value: Any) -> Iterator[int | float]:
  """Yields the plain numbers of a value: it, or those that it lists."""
  if isinstance(value, (int, float)) and not isinstance(value, bool):
    yield value
  elif isinstance(value, (list, tuple)) and not hasattr(value, '_fields'):
    for each in value:
      yield from _numbers(each)


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
  return typing.get_type_hints(cls)
