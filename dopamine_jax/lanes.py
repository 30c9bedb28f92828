"""Numbers that differ between trainings of one program, a lane each.

Settings are constants of a compiled program, unless several trainings differ in
nothing but numbers of their agents: then these become arrays with an entry for
each lane, and one program trains them all. What shapes the program (sizes,
counts, choices) can't differ.
"""

from collections.abc import Iterator, Mapping, Sequence
import copy
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dopamine_jax import annotations
from dopamine_jax import errors
from dopamine_jax import values

# What `vmap` calls the axis of lanes, one a seed or a trial.
AXIS = 'lanes'

# What JAX raises where Python asks for a number that is not known yet.
_UNKNOWN = (
  jax.errors.ConcretizationTypeError,
  jax.errors.TracerArrayConversionError,
)
# The way to a setting, as names of fields and arguments.
Path = tuple[str, ...]


class DecidesError(errors.UserError):
  """A function decides by a number that is to differ."""


@dataclasses.dataclass(frozen=True)
class Stages:
  """Numbers that change at agent steps.

  Attributes:
    steps: K of them, from which on the next number holds.
    numbers: K + 1 by path.
  """

  steps: tuple[int, ...]
  numbers: Mapping[Path, tuple[Any, ...]]


def any_of(condition: jax.Array) -> jax.Array:
  """Returns whether a condition holds in any lane, one bool for all of them.

  `lax.cond` of it stays a branch under `vmap`; of each lane's own condition it
  would compute both sides. Where there is one lane, it is the condition itself.
  """
  try:
    return jax.lax.pmax(condition.astype(jnp.int32), AXIS) > 0
  except NameError:  # no such axis
    return condition


def known(*numbers: Any) -> list[Any]:
  """Returns those that have a value while a program is made.

  A function that checks its numbers has to pass over the others: what they will
  be was checked when each training was described.
  """
  return [x for x in numbers if not isinstance(x, jax.core.Tracer)]


def differing(trees: Sequence[Any], names: Sequence[str]) -> dict[Path, Any]:
  """Returns the numbers in which settings differ, [L] float32 by path.

  Args:
    trees: settings of L lanes, built alike.
    names: of the lanes, for messages.

  Raises:
    UserError: names the first setting that differs and is no number, or that a
      function decides by.
  """
  leaves = [dict(_leaves(tree, ())) for tree in trees]
  found = {}
  for path, first in leaves[0].items():
    given = [each.get(path) for each in leaves]
    if all(_equal(first, each) for each in given[1:]):
      continue
    if not _are_numbers(given):
      _refuse(path, given, names)
    found[path] = np.asarray(given, np.float32)
  for each, name in zip(leaves[1:], names[1:], strict=True):
    if lacking := each.keys() ^ leaves[0].keys():
      path = min(lacking)
      _refuse(path, [leaves[0].get(path), each.get(path)], [names[0], name])
  jax.eval_shape(
    lambda *numbers: (
      put(trees[0], dict(zip(found, numbers, strict=True))) and 0
    ),
    *(jax.ShapeDtypeStruct((), jnp.float32) for _ in found),
  )
  return found


def put(tree: Any, numbers: Mapping[Path, Any]) -> Any:
  """Returns settings with other numbers, unchecked: they may be traced.

  Args:
    tree: settings.
    numbers: by path, as `differing` gives them.
  """
  by_name = {}
  for path, number in numbers.items():
    by_name.setdefault(path[0], {})[path[1:]] = number
  changes = {}
  there = parts(tree)
  for name, inner in by_name.items():
    changes[name] = inner[()] if () in inner else put(there[name], inner)
  return _with(tree, changes)


def parts(value: Any) -> dict[str, Any]:
  """Returns what a setting is made of, by name; nothing of a leaf."""
  return dict(_parts(value))


def _parts(value) -> Iterator[tuple[str, Any]]:
  """Yields what a setting is made of, by name; nothing of a leaf."""
  if values.is_part(value):
    for name in values.fields(value):
      yield name, getattr(value, name)
  elif made := values.origin(value):
    yield from made.keywords.items()
  elif isinstance(value, functools.partial):
    yield from enumerate(value.args)
    yield from value.keywords.items()
  elif isinstance(value, (tuple, list)) and _is_several(value):
    yield from enumerate(value)
  elif isinstance(value, Mapping):
    yield from value.items()


def _is_several(value):
  """Whether a tuple is just that: an optimizer is one of functions."""
  return type(value) in (tuple, list)


def _with(value, changes):
  if values.is_part(value):
    new = copy.copy(value)
    for name in _computed(type(value)):  # from the old numbers
      new.__dict__.pop(name, None)
    for name, change in changes.items():
      object.__setattr__(new, name, change)
    return new
  if made := values.origin(value):
    args, kwargs = values.positional(
      made.function, {**made.keywords, **changes}
    )
    try:
      return made.function(*args, **kwargs)
    except _UNKNOWN as error:
      name = annotations.full_name(made.function)
      given = ' and '.join(f'{name}.{each}' for each in changes)
      raise DecidesError(
        f'{given} can not differ between trainings of one program, or change '
        f'at an agent step: {name} decides something by its value. Train '
        'separate runs; in place of a stage, end the run at that step and '
        'begin another one with the new value: '
        "runner.Runner.start_from = 'FOLDER'."
      ) from error
  if isinstance(value, functools.partial):
    args = [changes.get(i, each) for i, each in enumerate(value.args)]
    named = {k: changes.get(k, each) for k, each in value.keywords.items()}
    return functools.partial(value.func, *args, **named)
  if isinstance(value, Mapping):
    return {**value, **changes}
  return type(value)(changes.get(i, each) for i, each in enumerate(value))


def _computed(kind):
  """Returns the names of what a class computes once and keeps."""
  return [
    name
    for each in kind.__mro__
    for name, member in vars(each).items()
    if isinstance(member, functools.cached_property)
  ]


def _leaves(value, path) -> Iterator[tuple[Path, Any]]:
  """Yields all that a setting holds, and the kinds of what it is made of."""
  parts = list(_parts(value))
  if not parts:
    yield path, value
    return
  kind = _kind(value)
  # A Flax module may hold what is made of its numbers already, and refuses
  # numbers that aren't known yet when it is made.
  makes = annotations.returned(kind)
  is_network = hasattr(kind, 'clone') or hasattr(makes, 'clone')
  yield (*path, ''), kind
  for name, part in parts:
    for inner, leaf in _leaves(part, (*path, name)):
      yield inner, _Constant(leaf) if is_network else leaf


class _Constant:
  """A leaf that can't differ by lane, whatever it is."""

  def __init__(self, value):
    self.value = value.value if isinstance(value, _Constant) else value

  def __eq__(self, other):
    return isinstance(other, _Constant) and _equal(self.value, other.value)

  __hash__ = None

  def __repr__(self):
    return repr(self.value)


def _kind(value):
  made = values.origin(value)
  if made:
    return made.function
  is_partial = isinstance(value, functools.partial)
  return value.func if is_partial else type(value)


def _equal(one, other):
  if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
    return np.array_equal(one, other)
  return type(one) is type(other) and bool(one == other)


def _are_numbers(given):
  """Whether they are real numbers, and not all of them whole."""
  kinds = {type(each) for each in given}
  return kinds <= {int, float} and float in kinds


def shown(path: Path) -> str:
  """Returns a path as messages have it."""
  return '.'.join(str(each) for each in path if each != '')


def _refuse(path, given, names):
  where = shown(path)
  each_shown = [annotations.shown(each) for each in given]
  differ = next(i for i, each in enumerate(given) if not _equal(given[0], each))
  raise errors.UserError(
    f'{where} can not differ between trainings of one program: it is '
    f'{each_shown[0]} in {names[0]} and {each_shown[differ]} in '
    f'{names[differ]}. Only '
    'real numbers of an agent, its optimizer and its replay can. For other '
    'differences (whole numbers, sizes, choices, networks) train separate '
    f'runs.{_hint(given)}'
  )


def _hint(given):
  if not all(callable(each) for each in given):
    return ''
  return ' Make an optimizer by dj.call(optax.adam, ...), as its numbers show.'
