"""Settings: the one shape that agents, replays, environments and runners share.

A settings class is a frozen dataclass. It holds no
state, so that its methods are pure and may be traced by JAX.
"""

from collections.abc import Iterator
import dataclasses
import difflib
import functools
import inspect
import math
import typing
from typing import Any, Self

import numpy as np

from dopamine_jax import annotations
from dopamine_jax import errors
from dopamine_jax import values

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
    kinds = typing.get_args(hint) if annotations.is_union(hint) else (hint,)
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
        f'{annotations.full_name(kinds[-1])}',
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
      if isinstance(maker, functools.partial):
        parameters = inspect.signature(maker.func).parameters
        has = values.named(maker.func, maker.args, maker.keywords) or {}
        for each in given.keys() & has.keys():
          default = getattr(parameters.get(each), 'default', None)
          if has[each] != default:
            self._refuse_given(maker.func, each, has[each])
      inspect.signature(maker).bind_partial(**given)
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
        f'{annotations.full_name(type(self))}.{name} fails when it is made: '
        f'{errors.told(error)}.'
      ) from error

  def _like(self, name):
    """Returns ', as networks.MLP does', if that class is the default."""
    default = type(self).__dataclass_fields__[name].default
    is_class = inspect.isclass(default) and default is not dataclasses.MISSING
    return f', as {annotations.full_name(default)} does' if is_class else ''

  def _refuse_given(self, owner, name, value):
    giver = annotations.full_name(type(self))
    has_it = name in type(self).__dataclass_fields__
    remedy = f'Set {giver}.{name} instead' if has_it else 'Leave it out'
    raise SettingError(
      owner,
      name,
      f'{annotations.full_name(owner)}.{name} = {annotations.shown(value)} '
      f'has no effect: {giver} '
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
    if annotations.fits(value, hint):
      for number in _numbers(value) if hint is not Any else ():
        if isinstance(number, float) and not math.isfinite(number):
          self.refuse(name, 'is not finite')
        kind = int if isinstance(number, int) else float
        if abs(number) > _LARGEST[kind]:
          self.refuse(name, 'is too large for the 32 bits of a number')
      return
    is_choice = type(value) in map(type, annotations.choices(hint))
    what = 'is unknown' if is_choice else _what_it_is(value)
    reason = f'{what}; expected {annotations.describe(hint)}'
    parts = value if isinstance(value, (list, tuple)) else [value]
    if isinstance(value, np.generic):
      reason += f'. Write {value.item()!r}'
    elif not all(
      isinstance(x, (*annotations.SCALARS, type(None), dict)) for x in parts
    ):
      reason += (
        '. (In gin, @name without parentheses passes a class or function '
        'itself, and @name() what calling it returns)'
      )
    self.refuse(name, reason)

  def refuse(self, name: str, reason: str):
    """Raises: SettingError that names the setting, its value and `reason`."""
    cls = type(self)
    value = annotations.shown(getattr(self, name))
    message = f'{annotations.full_name(cls)}.{name} = {value} {reason}.'
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

  def __init_subclass__(cls, **kwargs: Any) -> None:
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
    _tell_of_unknown(cls)

  def __post_init__(self):
    self.check_types()

  def replace(self, **changes: Any) -> Self:
    """Returns a copy with these settings changed."""
    return dataclasses.replace(self, **changes)


def _tell_of_unknown(cls: type):
  """Has a class refuse names that are no settings, with the nearest one."""
  init = cls.__init__
  fields = [field for field in dataclasses.fields(cls) if field.init]
  known = [field.name for field in fields]
  later = getattr(cls, 'given_later', ())
  first = next((name for name in known if name not in later), 'name')
  required = [
    field.name
    for field in fields
    if field.default is field.default_factory is dataclasses.MISSING
  ]

  @functools.wraps(init)
  def checked(self, *args, **kwargs):
    name = annotations.full_name(cls)
    if args:
      raise errors.UserError(
        f'{name}({annotations.shown(args[0])}): settings are given by name, as '
        'in '
        f'{cls.__name__}({first}=...).'
      )
    for each in kwargs.keys() - cls.__dataclass_fields__.keys():
      near = difflib.get_close_matches(each, known, n=2)
      hint = f' Did you mean {" or ".join(near)}?' if near else ''
      raise errors.UserError(f"{name} has no setting '{each}'.{hint}")
    if missing := [each for each in required if each not in kwargs]:
      raise errors.UserError(
        f'{cls.__name__} needs {" and ".join(missing)}, which nothing sets.'
      )
    init(self, **kwargs)

  cls.__init__ = checked


def takes(owner: Checked, name: str, kind: Any) -> bool:
  """Whether a setting's annotation names `kind`, alone or in a union."""
  hint = _hints(type(owner))[name]
  return kind in (
    typing.get_args(hint) if annotations.is_union(hint) else (hint,)
  )


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
