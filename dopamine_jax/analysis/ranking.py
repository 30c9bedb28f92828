"""Many groups in one order, and which of them the best is told apart from.

A sentence for each two of 60 groups tells nobody anything. So they are ranked
by their mean, and each is compared with the best: with the test of `chance`, of
which p is as many times as large as there are comparisons (Bonferroni). That
the best was chosen by the same scores is allowed for by that: it is a multiple
comparison with the best (Hsu, 1984): in 95 of 100 cases the group that is truly
best is among those that are not told apart. That each of the others is worse
than the one named here is not promised so often.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
import math
import re
from typing import NamedTuple

import numpy as np

from dopamine_jax.analysis import curves as curves_lib
from dopamine_jax.analysis import order
from dopamine_jax.analysis import statistics
from dopamine_jax.analysis import verdicts

FEW = 6  # groups of which each pair is still spoken of
_NAMED = 12  # groups in one sentence


class Row(NamedTuple):
  """A group in its place.

  Attributes:
    name: of the group.
    label: a short name.
    settings: values of those settings in which groups differ.
    stop: the agent step at which it is scored; None: on several games.
    runs: how many it has, on the game that has the fewest.
    mean: of its runs; on several games the share of the runs of all other
      groups that a run of it beats.
    low: of the 95% interval; NaN if there is none.
    high: see there.
    worst: of its runs; NaN on several games.
    best: see there.
    p_value: of the comparison with the best; NaN if there was none.
  """

  name: str
  label: str
  settings: Sequence[str]
  stop: int | None
  runs: int
  mean: float
  low: float
  high: float
  worst: float
  best: float
  p_value: float = math.nan


class Ranking(NamedTuple):
  """All groups, the best first.

  Attributes:
    rows: of the groups.
    settings: names of those in which groups differ, short.
    pairs: of the best and each other that went as far.
    sentences: what that allows to be said.
  """

  rows: Sequence[Row]
  settings: Sequence[str]
  pairs: Sequence[verdicts.Pair]
  sentences: Sequence[str]


def rank(
  curves: curves_lib.Curves,
  stops: Mapping[str, Mapping[str, int]],
  last: int,
  differences: Mapping[str, Sequence[str]],
  published: Collection[str] = (),
) -> Ranking:
  """Ranks groups: those that went further first, then by their mean.

  Args:
    curves: by group's name and game's key; published groups come last.
    stops: the agent step of each score, by group's name and game's key.
    last: points whose mean is a run's score.
    differences: settings that differ, with the value of each group that is not
      published.
    published: the names of baselines.
  """
  scores = {
    name: curves_lib.score_matrix(
      {game: curves[name][game].until(end) for game, end in ends.items()},
      [*ends],
      last,
    )
    for name, ends in stops.items()
  }
  labels = short_names([*scores])
  values = list(zip(*differences.values(), strict=True))
  rows = []
  for i, (name, ends) in enumerate(stops.items()):
    numbers = _numbers(curves[name], ends, last)
    if len(ends) > 1:
      numbers = _share(name, scores)
    runs = int((~np.isnan(scores[name])).sum(axis=0).min())
    own = values[i] if i < len(values) else ('-',) * len(differences)
    stop = max(ends.values()) if len(ends) == 1 else None
    rows.append(Row(name, labels[name], own, stop, runs, *numbers))
  rows.sort(key=lambda x: (-(x.stop or 0), -x.mean, order.natural(x.name)))
  first, *others = rows
  alike = [x for x in others if x.stop == first.stop]
  pairs = [
    verdicts.pair(first.name, x.name, scores, published, len(alike))
    for x in alike
  ]
  p_values = {
    x.name: pair.difference.p_value
    for x, pair in zip(alike, pairs, strict=True)
  }
  rows = [x._replace(p_value=p_values.get(x.name, math.nan)) for x in rows]
  return Ranking(
    rows, short_settings([*differences]), pairs, _in_words(rows, pairs)
  )


def short_names(names: Sequence[str]) -> dict[str, str]:
  """Returns the numbers with which names begin, if these tell them apart."""
  found = [re.match(r'(\d{4,})(_|$)', name) for name in names]
  short = [each[1] for each in found if each]
  is_clear = len({*short}) == len(names)
  return dict(zip(names, short if is_clear else names, strict=True))


def short_settings(names: Sequence[str]) -> list[str]:
  """Returns the last part of each name, or as much of it as is clear."""

  def last(name):
    scope, slash, rest = name.rpartition('/')
    return scope + slash + rest.rpartition('.')[2]

  short = [last(name) for name in names]
  return [
    one if short.count(one) == 1 else name
    for one, name in zip(short, names, strict=True)
  ]


def listed(labels: Sequence[str], most: int = _NAMED) -> str:
  """Returns '0003, 0011 and 2 more'."""
  if len(labels) <= most:
    return ', '.join(labels)
  return f'{", ".join(labels[:most])} and {len(labels) - most} more'


def _numbers(curves, ends, last):
  """Returns mean, low, high, worst and best of a group on one game."""
  ((game, end),) = list(ends.items())[:1]
  curve = curves[game].until(end)
  scores = curve.scores(last)
  interval = map(float, curve.score_interval(last))
  return *interval, float(scores.min()), float(scores.max())


def _share(name, scores):
  """Returns the share of others' runs that a group's runs beat."""
  others = np.concatenate([x for n, x in scores.items() if n != name])
  share = statistics.probability_of_improvement(scores[name], others)
  return float(share), *[math.nan] * 4


def _in_words(rows, pairs):
  """Yields which is best, and what it isn't told apart from."""
  first, *others = rows
  labels = {row.name: row.label for row in rows}
  lines = [f'{first.label} is best: {_score(first)}.']
  if pairs:
    far = ' that went as far' if len(pairs) < len(others) else ''
    lines += told(first.name, first.runs, pairs, labels, far)
  early = [row for row in others if row.stop != first.stop]
  if early:
    lines.append(
      f'{len(early)} of {len(rows)} ended before {first.stop:,} agent steps, '
      'and are not compared with it.'
    )
  return lines


def told(
  first: str,
  runs: int,
  pairs: Sequence[verdicts.Pair],
  labels: Mapping[str, str],
  far: str = '',
) -> Iterator[str]:
  """Yields what the test says of the best and the others.

  Args:
    first: the name of the best.
    runs: how many it has.
    pairs: the best and another.
    labels: short names, by name.
    far: qualifies the others in words: ' that went as far', or '' if all.
  """
  blind = [x for x in pairs if not verdicts.can_tell(x)]
  if len(blind) == len(pairs):
    seeds = max(verdicts.fewest(x) for x in pairs)
    count = 'one other' if len(pairs) == 1 else f'{len(pairs)} others'
    yield (
      f'It can not be told apart from any of the {count}{far}, however far '
      f'apart they lie: that takes at least {seeds} seeds of each, and there '
      f'{"is" if runs == 1 else "are"} {runs}.'
    )
    return
  above = [x.better for x in pairs if x.told_apart and x.worse == first]
  same = [other(x, first) for x in pairs if not x.told_apart]
  below = [x for x in pairs if x.told_apart and x.better == first]
  if same:
    names = listed([labels[x] for x in same])
    yield f'Not distinguishable from it: {names}.'
  if below:
    all_ = '' if same or above else 'All '
    count = f'{len(below)} others are' if len(below) > 1 else 'One other is'
    yield f'{all_}{count} not the best: chance explains less than that.'
  if above:
    names = listed([labels[x] for x in above])
    yield (
      f'{names}: most of its runs score higher than those of '
      f'{labels[first]}, though its mean is lower.'
    )
  yield (
    f'Each of {len(pairs)} was compared with the best: p allows for that '
    '(Bonferroni).'
  )


def other(pair: verdicts.Pair, name: str) -> str:
  """Returns the name of the other group of a pair."""
  return pair.worse if pair.better == name else pair.better


def _score(row):
  if row.stop is None:
    return f'a run of it beats {row.mean:.0%} of the runs of others'
  if math.isnan(row.low):
    return f'{number(row.mean)}, one seed'
  return f'{number(row.mean)} [{number(row.low)}, {number(row.high)}]'


def number(value: float) -> str:
  """Returns a number with as many digits as a table shows."""
  return f'{value:,.1f}' if abs(value) >= 1 else f'{value:.3g}'
