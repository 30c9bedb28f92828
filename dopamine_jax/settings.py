"""Settings: the one shape that agents, replays, environments and runners share.

A settings class is a frozen dataclass whose fields gin fills in. It holds no
state, so that its methods are pure and may be traced by JAX.
"""

import collections.abc
import dataclasses
import inspect
import types
import typing
from typing import Any, Self

from dopamine_jax import errors

_SCALARS = (bool, int, float, str)


class SettingError(errors.UserError):
  """A setting that can't work; knows which one, so that gin can say where."""

  def __init__(self, owner: type, name: str, message: str):
    super().__init__(message)
    self.owner = owner
    self.name = name


@typing.dataclass_transform(frozen_default=True, kw_only_default=True)
class Settings:
  """Base class whose subclasses become frozen, keyword-only dataclasses.

  Values are checked against plain annotations (`int`, `float | None`, a
  class, a callable) when an instance is made. A subclass checks more by
  extending `__post_init__`.
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
    hints = typing.get_type_hints(type(self))
    for field in dataclasses.fields(self):
      self._check_type(field.name, hints[field.name])

  def replace(self, **changes: Any) -> Self:
    """Returns a copy with these settings changed."""
    return dataclasses.replace(self, **changes)

  def _check_type(self, name: str, hint: Any):
    alternatives = typing.get_args(hint) if is_union(hint) else (hint,)
    value = getattr(self, name)
    if any(_fits(value, alternative) for alternative in alternatives):
      return
    expected = ' or '.join(_describe(a) for a in alternatives)
    reason = f'is of type {type(value).__name__}; expected {expected}'
    if not isinstance(value, (*_SCALARS, type(None))):
      reason += (
        '. (In gin, @name passes a class or function itself and @name() what '
        'calling it returns)'
      )
    self.refuse(name, reason)

  def refuse(self, name: str, reason: str):
    """Raises: SettingError that names the setting, its value and `reason`."""
    value = getattr(self, name)
    cls = type(self)
    message = f'{cls.__name__}.{name} = {value!r} {reason}.'
    raise SettingError(cls, name, message)

  def require_at_least(self, bound: float, *names: str):
    """Refuses each of these settings that is below `bound`; None passes."""
    for name in names:
      value = getattr(self, name)
      if value is not None and not value >= bound:
        self.refuse(name, f'is too small; it must be at least {bound}')

  def require_multiple(self, name: str, of: str):
    """Refuses a setting that is not a positive multiple of another one."""
    value, divisor = getattr(self, name), getattr(self, of)
    if value < 1 or value % divisor:
      self.refuse(name, f'is not a positive multiple of {of} = {divisor}')

  def require_fraction(self, *names: str):
    """Refuses each setting that is outside [0, 1]; a schedule passes."""
    for name in names:
      value = getattr(self, name)
      if not callable(value) and not 0 <= value <= 1:
        self.refuse(name, 'is out of range; it must lie in [0, 1]')


def is_union(hint: Any) -> bool:
  """Whether an annotation is `A | B` or `Union[A, B]`."""
  return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _fits(value: Any, hint: Any) -> bool:
  """Whether a value fits one annotation; those it can't judge pass."""
  if hint is Any:  # A class to `isinstance`, which it then refuses.
    return True
  if hint is type(None):
    return value is None
  if isinstance(value, bool) and hint in _SCALARS:
    return hint is bool  # True is an int to Python, never to a user.
  if hint is float:
    return isinstance(value, (int, float))
  if _is_callable(hint):
    return callable(value)
  return not isinstance(hint, type) or isinstance(value, hint)


def _is_callable(hint: Any) -> bool:
  return typing.get_origin(hint) is collections.abc.Callable


def _describe(hint: Any) -> str:
  if hint is type(None):
    return 'None'
  if _is_callable(hint):
    return 'a class or function'
  return getattr(hint, '__name__', str(hint))
