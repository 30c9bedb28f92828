"""What may be bound to functions and classes that are not ours.

Our settings check themselves when they are made. What is not ours would fail
when it is used, far from the line, or take nonsense without a word.
"""

import collections.abc
from collections.abc import Mapping
import inspect
import math
import typing
from typing import Any

from gin import config as gin_config

from dopamine_jax import errors
from dopamine_jax import gin_messages
from dopamine_jax import settings

# Fields that every Flax module has; no settings.
FLAX_FIELDS = ('parent', 'name')

# What takes no number, among the types that an annotation may name.
_NO_NUMBERS = (
  type(None),
  str,
  list,
  tuple,
  dict,
  collections.abc.Sequence,
  collections.abc.Mapping,
  collections.abc.Callable,
)

_INF, _COUNT = math.inf, 2**31
_TINY = 1e-30  # where 0 would stop all learning
# The least number that a parameter of optax's makes sense with, and the least
# one above that does no longer. Optax takes any; what is beyond trains uphill,
# or without the schedule that was asked for.
_OPTAX_BOUNDS = {
  'learning_rate': (0, _INF),
  'init_value': (-_INF, _INF),
  'end_value': (-_INF, _INF),
  'peak_value': (-_INF, _INF),
  'transition_steps': (1, _COUNT),
  'transition_begin': (0, _COUNT),
  'decay_steps': (1, _COUNT),
  'warmup_steps': (0, _COUNT),
  'every_k_schedule': (1, _COUNT),
  'power': (0, _INF),
  'decay_rate': (0, _INF),
  'b1': (0, 1),
  'b2': (0, 1),
  'b3': (0, 1),
  'decay': (0, 1),
  'momentum': (0, 1),
  'eps': (0, _INF),
  'eps_root': (0, _INF),
  'initial_scale': (0, _INF),
  'weight_decay': (0, _INF),
  'max_norm': (_TINY, _INF),
  'max_delta': (_TINY, _INF),
  'clipping': (0, _INF),
}


def refuse_misfits():
  """Refuses values that functions and classes of others do not take.

  Raises:
    UserError: that names the first one, with its line.
  """
  for (_, selector), bindings in gin_config._CONFIG.items():
    target = gin_config._REGISTRY[selector].wrapped
    if _is_flax_module(target):
      _refuse_flax_fields(target, bindings)
    if inspect.isclass(target) and issubclass(target, settings.Checked):
      continue
    for name, value in bindings.items():
      value = resolved(value)
      if reason := _misfit(target, selector, name, value):
        where = gin_messages.found_at(gin_messages.place_of([target], name))
        raise errors.UserError(
          f'{where}{short(selector)}.{name} = {settings.shown(value)} {reason}.'
        )


def refuse_gins_own():
  """Refuses references to gin's own functions that mean nothing by themselves.

  Raises:
    UserError: that says what is written instead.
  """
  for reference in gin_config.iterate_references(gin_config._CONFIG):
    name = reference.configurable.selector
    if name in ('gin.macro', 'gin.constant'):
      fine = reference.evaluate
      how = 'is set by `NAME = value` and read by `%NAME`'
    elif name == 'gin.singleton':
      fine = reference.evaluate
      how = (
        'is written @NAME/gin.singleton(), with NAME/gin.singleton.constructor '
        'as what makes it'
      )
    else:
      continue
    if not fine or not reference.scopes:
      raise errors.UserError(f'@{name} is no value: a {name[4:]} {how}.')


def short(selector: str) -> str:
  """Returns a selector as gin files mostly write it: module and name."""
  return '.'.join(selector.split('.')[-2:])


def resolved(value: Any) -> Any:
  """Returns the value that a macro stands for; any other as it is.

  Raises:
    UserError: if macros stand for each other in a circle.
  """
  seen = []
  while isinstance(value, gin_config.ConfigurableReference):
    scope, selector = value.config_key
    if selector != 'gin.macro' or scope in seen:
      if scope in seen:
        circle = ' -> '.join(f'%{name}' for name in [*seen, scope])
        raise errors.UserError(f'macros stand for each other: {circle}.')
      return value
    seen.append(scope)
    bindings = gin_config._CONFIG.get((scope, 'gin.macro'), {})
    if 'value' not in bindings:
      return value
    value = bindings['value']
  return value


def _is_flax_module(target) -> bool:
  return inspect.isclass(target) and any(
    base.__module__.startswith('flax.linen') and base.__name__ == 'Module'
    for base in target.__mro__
  )


def _refuse_flax_fields(target, bindings):
  for name in set(bindings) & set(FLAX_FIELDS):
    if name == 'name' and bindings[name] is None:
      continue  # Its default, which a run's own configuration holds.
    names = [
      each
      for each in inspect.signature(target).parameters
      if each not in FLAX_FIELDS
    ]
    where = gin_messages.found_at(gin_messages.place_of([target], name))
    raise errors.UserError(
      f"{where}{settings.full_name(target)}.{name} is Flax's own, and no "
      f'setting. There are {", ".join(names)}.'
    )


def _misfit(target, selector, name, value) -> str | None:
  """Returns what is wrong with a value, if anything."""
  hint = _hints(target).get(name, Any)
  if isinstance(value, gin_config.ConfigurableReference):
    if _may_refer(value, hint):
      return None
    return f'does not fit; expected {_expected(hint)}'
  if holds_references(value):
    return None
  parameter = parameters(target).get(name)
  default = parameter.default if parameter else None
  if not _fits(value, hint, default):
    return f'does not fit; expected {_expected(hint)}'
  if not isinstance(value, (int, float)) or isinstance(value, bool):
    return None
  if not math.isfinite(value):
    return 'is not finite'
  if not getattr(target, '__module__', '').startswith('optax'):
    return None
  low, high = _OPTAX_BOUNDS.get(name, (-_INF, _INF))
  if value < low:
    return f'is too small; it must be at least {low}'
  if value >= high:
    return f'is too large; it must be below {high}'
  return None


def _expected(hint) -> str:
  """Returns what an annotation expects; of numbers, not each of its kinds."""
  kinds = typing.get_args(hint) if settings.is_union(hint) else ()
  if not {int, float} & {*kinds}:
    return settings.describe(hint)
  words = ['a number']
  words += ['a schedule' for kind in kinds if typing.get_origin(kind)]
  words += ['None' for kind in kinds if kind is type(None)]
  return ' or '.join(words)


def holds_references(value: Any) -> bool:
  """Whether a value is, or has in it, what is written @name or %name."""
  if isinstance(value, gin_config.ConfigurableReference):
    return True
  if isinstance(value, dict):
    return holds_references([*value.keys(), *value.values()])
  return isinstance(value, (list, tuple)) and any(map(holds_references, value))


def parameters(target: Any) -> Mapping[str, inspect.Parameter]:
  """Returns what a class or function takes, as far as that can be known."""
  try:
    return inspect.signature(target).parameters
  except (TypeError, ValueError):
    return {}


def _hints(target) -> dict[str, Any]:
  hints = {}
  for each in (getattr(target, '__init__', target), target):
    try:
      hints |= typing.get_type_hints(each)
    except (TypeError, NameError, AttributeError):
      continue
  return hints


def _may_refer(reference, hint) -> bool:
  """Whether what `reference` names, or makes, may fit an annotation."""
  named = reference.configurable.wrapped
  if not reference.evaluate:
    return settings.fits(named, hint)
  kinds = typing.get_args(hint) if settings.is_union(hint) else (hint,)
  plain = {bool, int, float, str, type(None)}
  return not inspect.isclass(named) or not {*kinds} <= plain


def _fits(value, hint, default):
  """Whether a value suits an annotation; one that is unclear does."""
  if hint is Any or value is default:
    return True
  if isinstance(value, bool):
    # Many annotations of arrays and numbers allow it; a user never means it.
    kinds = {*(typing.get_args(hint) if settings.is_union(hint) else (hint,))}
    return kinds <= {bool, type(None)} or isinstance(default, bool)
  if settings.is_union(hint):
    return any(_fits(value, each, ...) for each in typing.get_args(hint))
  kind = typing.get_origin(hint) or hint
  if kind is Any or not isinstance(kind, type):
    return True
  if value is None:
    return kind is type(None)
  if isinstance(value, str):
    return issubclass(str, kind)
  if isinstance(value, (int, float)):
    if kind is int and math.isfinite(value) and value % 1:
      return False
    return kind is not bool and kind not in _NO_NUMBERS
  return settings.fits(value, hint)
