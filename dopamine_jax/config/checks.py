"""What may be bound to functions and classes that are not ours.

Our settings check themselves when they are made. What is not ours would fail
when it is used, far from the line, or take nonsense without a word.
"""

import collections.abc
import inspect
import math
import typing
from typing import Any

from dopamine_jax import annotations
from dopamine_jax import errors
from dopamine_jax import settings
from dopamine_jax.config import names
from dopamine_jax.config import statements

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
# Of parameters of optax's: the lowest number that makes sense, and the first
# one that is too high. Optax takes any; what is beyond trains uphill, or
# without the schedule that was asked for.
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


def refuse_misfit(binding: statements.Binding, value: Any):
  """Refuses a value that a function or class of others does not take.

  Args:
    binding: where it is bound.
    value: what its macros stand for.

  Raises:
    UserError: that names the setting and what it expects.
  """
  target = binding.target
  if inspect.isclass(target) and issubclass(target, settings.Checked):
    return
  if reason := _misfit(target, binding.name, value):
    raise errors.UserError(f'{binding} = {annotations.shown(value)} {reason}.')


def _misfit(target, name, value) -> str | None:
  """Returns what is wrong with a value, if anything."""
  hint = hints(target).get(name, Any)
  if isinstance(value, statements.Reference):
    if _may_refer(value, hint):
      return None
    return f'does not fit; expected {_expected(hint)}'
  if any(statements.references(value)) or any(statements.macros(value)):
    return None
  parameter = names.parameters(target).get(name)
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
  kinds = typing.get_args(hint) if annotations.is_union(hint) else ()
  if not {int, float} & {*kinds}:
    return annotations.describe(hint)
  words = ['a number']
  words += ['a schedule' for kind in kinds if typing.get_origin(kind)]
  words += ['None' for kind in kinds if kind is type(None)]
  return ' or '.join(words)


def hints(target: Any) -> dict[str, Any]:
  """Returns the annotations of what a class or function can be given."""
  found = {}
  for each in (getattr(target, '__init__', target), target):
    try:
      found |= typing.get_type_hints(each)
    except (TypeError, NameError, AttributeError):
      continue
  return found


def _may_refer(reference, hint) -> bool:
  """Whether what `reference` names, or makes, may fit an annotation."""
  named = reference.target
  if not reference.called:
    return annotations.fits(named, hint)
  kinds = typing.get_args(hint) if annotations.is_union(hint) else (hint,)
  plain = {bool, int, float, str, type(None)}
  return not inspect.isclass(named) or not {*kinds} <= plain


def _fits(value, hint, default):
  """Whether a value suits an annotation; one that is unclear does."""
  if hint is Any or value is default:
    return True
  if isinstance(value, bool):
    # Many annotations of arrays and numbers allow it; a user never means it.
    kinds = {
      *(typing.get_args(hint) if annotations.is_union(hint) else (hint,))
    }
    return kinds <= {bool, type(None)} or isinstance(default, bool)
  if annotations.is_union(hint):
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
  return annotations.fits(value, hint)
