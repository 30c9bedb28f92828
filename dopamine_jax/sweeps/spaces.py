"""What a sweep tries: settings, and what each of them may be.

A line names a setting of gin and its values:

    dqn.DQN.n_step = [1, 3]                        one of a list
    optax.adam.learning_rate = log_uniform(1e-4, 1e-2)
    dqn.DQN.gamma = uniform(0.9, 0.999)
    dqn.DQN.target_update_period = integers(100, 2_000)    both ends too
    uniform.UniformReplay.batch_size = log_integers(16, 256)
    noisy.Noisy.sigma = uniform(0.1, 0.9) when dqn.DQN.noisy = True

A setting with `when` is given only where an earlier setting has that value, or
one of a list.
"""

import ast
from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import math
import re
from typing import Any

import numpy as np

from dopamine_jax import errors

# Drawn numbers have so many digits, so that names of runs can have all.
_DIGITS = 4
# By name: whether it is even in the logarithm, and of whole numbers.
_RANGES = {
  'uniform': (False, False),
  'log_uniform': (True, False),
  'integers': (False, True),
  'log_integers': (True, True),
}
_EXPECTED = (
  "expected a setting and what to try, such as 'dqn.DQN.gamma = [0.9, 0.99]' "
  f"or 'dqn.DQN.gamma = uniform(0.9, 0.99)'; {', '.join(_RANGES)} take two "
  'bounds'
)
_LONGEST_NAME = 120


@dataclasses.dataclass(frozen=True)
class Choice:
  """One of a list.

  Attributes:
    values: K of them.
  """

  values: tuple[Any, ...]

  def at(self, place: float) -> Any:
    """Returns the value at a place from 0 to 1; each has an equal share."""
    count = len(self.values)
    return self.values[min(int(place * count), count - 1)]

  def place(self, value: Any) -> float:
    """Returns the middle of a value's share."""
    return (self.index(value) + 0.5) / len(self.values)

  def index(self, value: Any) -> int:
    """Returns which one a value is; True is not 1."""
    return next(i for i, x in enumerate(self.values) if _has([x], value))

  def has(self, value: Any) -> bool:
    """Whether it can be a value."""
    return _has(self.values, value)

  def in_words(self) -> str:
    """Returns what it can be."""
    return f'one of {", ".join(map(repr, self.values))}'


@dataclasses.dataclass(frozen=True)
class Range:
  """A number between two bounds, which are both possible.

  Attributes:
    low: the least.
    high: the greatest.
    is_log: whether its logarithm is uniform, instead of the number itself.
    is_whole: whether it is a whole number.
  """

  low: float
  high: float
  is_log: bool
  is_whole: bool

  def at(self, place: float) -> float | int:
    """Returns the number at a place from 0 to 1, rounded to four digits."""
    low, high = self._ends()
    number = low + place * (high - low)
    number = math.exp(number) if self.is_log else number
    return self.rounded(number)

  def rounded(self, number: float) -> float | int:
    """Returns the nearest number of four digits, or the nearest whole one."""
    if self.is_whole:
      return int(min(max(round(number), self.low), self.high))
    return min(max(float(f'{number:.{_DIGITS}g}'), self.low), self.high)

  def place(self, value: float) -> float:
    """Returns where a number lies, from 0 to 1."""
    low, high = self._ends()
    number = math.log(value) if self.is_log else value
    return min(max((number - low) / (high - low), 0.0), 1.0)

  def has(self, value: Any) -> bool:
    """Whether it is likely to be a value: no real number is drawn again."""
    return (
      self.is_whole and type(value) is int and self.low <= value <= self.high
    )

  def in_words(self) -> str:
    """Returns what it can be."""
    kind = 'a whole number' if self.is_whole else 'any real number'
    return f'{kind} from {self.low:g} to {self.high:g}'

  def _ends(self):
    # The ends of whole numbers have whole shares, as those between them have.
    half = 0.5 if self.is_whole else 0.0
    ends = self.low - half, self.high + half
    return tuple(map(math.log, ends)) if self.is_log else ends


@dataclasses.dataclass(frozen=True)
class Dimension:
  """A setting that a sweep varies.

  Attributes:
    setting: its name in gin, scope and all.
    domain: what it may be.
    when: another setting, and the values of it with which this one is given;
      None: always.
  """

  setting: str
  domain: Choice | Range
  when: tuple[str, tuple[Any, ...]] | None = None

  def is_given(self, others: Mapping[str, Any]) -> bool:
    """Whether this setting is one of a trial with these others."""
    if self.when is None:
      return True
    name, values = self.when
    return name in others and _has(values, others[name])


Space = tuple[Dimension, ...]


def parse(lines: Sequence[str]) -> Space:
  """Returns the space that lines describe; comments and empty lines are none.

  Raises:
    UserError: names the line that can't be meant.
  """
  space = []
  for line in lines:
    text = line.strip()
    if not text or text.startswith('#'):
      continue
    space.append(_dimension(text, space))
  if not space:
    raise errors.UserError(f'there is nothing to vary: {_EXPECTED}.')
  return tuple(space)


def draw(space: Space, rng: np.random.Generator) -> dict[str, Any]:
  """Returns settings at random, by name."""
  settings = {}
  for each in space:
    place = rng.uniform()  # also of those that aren't given: the rest stays
    if each.is_given(settings):
      settings[each.setting] = each.domain.at(place)
  return settings


def combinations(space: Space) -> list[dict[str, Any]]:
  """Returns the settings of every combination, by name.

  Raises:
    UserError: if a setting has no list.
  """
  return list(_combinations(space, {}))


def folder_name(number: int, settings: Mapping[str, Any]) -> str:
  """Returns the name of a trial's folder: its number, and its settings."""
  short = {name: name.rpartition('.')[2] for name in settings}
  last = list(short.values())
  words = [f'{number:04}']
  for name, value in settings.items():
    is_clear = last.count(short[name]) == 1
    word = f'{short[name] if is_clear else name}_{value}'
    words.append(re.sub(r'[^\w.+-]+', '.', word))
  whole = '_'.join(words)
  return whole if len(whole) <= _LONGEST_NAME else words[0]


def bindings(settings: Mapping[str, Any]) -> list[str]:
  """Returns lines of gin; texts that begin with @ or % are references."""

  def written(value):
    is_reference = isinstance(value, str) and value[:1] in ('@', '%')
    return value if is_reference else repr(value)

  return [f'{name} = {written(value)}' for name, value in settings.items()]


def _combinations(space, chosen) -> Iterator[dict[str, Any]]:
  if not space:
    yield chosen
    return
  first, *rest = space
  if not first.is_given(chosen):
    yield from _combinations(rest, chosen)
    return
  if not isinstance(first.domain, Choice):
    raise errors.UserError(
      f'{first.setting} has a range, and a grid needs lists. Give what to try '
      'as a list, or draw so many at random: --search random --trials 64.'
    )
  for value in first.domain.values:
    yield from _combinations(rest, {**chosen, first.setting: value})


def _dimension(line, before):
  text, _, condition = (part.strip() for part in line.partition(' when '))
  name, _, domain = (part.strip() for part in text.partition('='))
  if not re.fullmatch(r'[\w./]+', name) or '.' not in name:
    raise errors.UserError(f'{line!r}: {_EXPECTED}.')
  if name in [each.setting for each in before]:
    raise errors.UserError(
      f'{line!r}: {name} is varied already. Give all that it may be in one '
      'line.'
    )
  when = _condition(line, condition, before) if condition else None
  return Dimension(name, _domain(line, domain), when)


def _domain(line, text):
  try:
    tree = ast.parse(text, mode='eval').body
    match tree:
      case ast.List() | ast.Tuple():
        return _choice(line, ast.literal_eval(tree))
      case ast.Call(func=ast.Name(id=kind), args=args, keywords=[]):
        return _range(line, kind, [ast.literal_eval(each) for each in args])
  except (SyntaxError, ValueError) as error:
    raise errors.UserError(f'{line!r}: {_EXPECTED}.') from error
  raise errors.UserError(f'{line!r}: {_EXPECTED}.')


def _choice(line, values):
  if not values:
    raise errors.UserError(
      f'{line!r}: the list is empty. Give at least one value.'
    )
  values = hashable(values)
  for i, value in enumerate(values):
    if _has(values[:i], value):
      raise errors.UserError(
        f'{line!r}: {value!r} comes twice. Leave one of them out.'
      )
  return Choice(values)


def _range(line, kind, bounds):
  if kind not in _RANGES:
    raise errors.UserError(
      f'{line!r}: there is no {kind}; expected a list or one of '
      f'{", ".join(_RANGES)}.'
    )
  is_log, is_whole = _RANGES[kind]
  kinds = (int,) if is_whole else (int, float)
  fits = len(bounds) == 2 and all(
    type(each) in kinds and math.isfinite(each) for each in bounds
  )
  if not fits:
    what = 'two whole numbers' if is_whole else 'two numbers'
    raise errors.UserError(
      f'{line!r}: {kind} takes {what}, the least and the greatest.'
    )
  low, high = bounds
  if low >= high:
    remedy = 'Give the lower bound first'
    if low == high:
      remedy = f'Give two different bounds, or a list of one: [{low}]'
    raise errors.UserError(f'{line!r}: {low} is not below {high}. {remedy}.')
  if is_log and low <= 0:
    raise errors.UserError(
      f'{line!r}: a logarithm needs numbers above 0, and the lower bound is '
      f'{low}. Raise it, or use {kind.removeprefix("log_")}.'
    )
  return Range(*(bounds if is_whole else map(float, bounds)), is_log, is_whole)


def _condition(line, text, before):
  name, _, given = (part.strip() for part in text.partition('='))
  if name not in [each.setting for each in before]:
    raise errors.UserError(
      f'{line!r}: a condition needs a setting that is varied in a line before, '
      f'and {name} is none.'
    )
  try:
    values = ast.literal_eval(given)
  except (SyntaxError, ValueError) as error:
    raise errors.UserError(
      f"{line!r}: expected a condition such as 'when {name} = True', or a list "
      'of values.'
    ) from error
  values = hashable(values if isinstance(values, list) else [values])
  domain = next(each.domain for each in before if each.setting == name)
  for value in values:
    if not domain.has(value):
      raise errors.UserError(
        f'{line!r}: {name} is never {value!r}; it is {domain.in_words()}.'
      )
  return name, values


def hashable(value: Any) -> Any:
  """Returns a value whose lists are tuples: JSON can't tell them apart."""
  if isinstance(value, (list, tuple)):
    return tuple(map(hashable, value))
  return value


def _has(values, value):
  """Whether a value is one of these; True is not 1 here."""
  return any(type(each) is type(value) and each == value for each in values)
