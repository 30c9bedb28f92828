"""What the numbers allow to be said, in words."""

from collections.abc import Collection, Mapping, Sequence
import math
from typing import NamedTuple

import numpy as np
import pandas as pd

from dopamine_jax.analysis import curves as curves_lib
from dopamine_jax.analysis import groups as groups_lib
from dopamine_jax.analysis import statistics

_LEVEL = 0.05
_HOPELESS = 100  # runs that nobody trains to tell two configurations apart


class Pair(NamedTuple):
  """Two groups, the better one first.

  Attributes:
    better: its name.
    worse: its name.
    runs: how many the two have, on the game that has the fewest.
    num_games: that both were scored on.
    probability: of improvement, at least 1/2.
    difference: of the mean scores, on one game; NaN on several.
    p_value: allowing for how many pairs there are.
    published: which of the two is a baseline, and gets no more runs.
  """

  better: str
  worse: str
  runs: tuple[int, int]
  num_games: int
  probability: statistics.Interval
  difference: statistics.Interval
  p_value: float
  published: tuple[bool, bool]

  @property
  def told_apart(self) -> bool:
    """Whether chance would hardly separate them so far."""
    return self.p_value <= _LEVEL


def pairs(
  scores: Mapping[str, np.ndarray], published: Collection[str] = ()
) -> list[Pair]:
  """Compares groups: each with each, or with the first if they are many.

  Args:
    scores: [R, G] by name.
    published: the names of baselines; two of them aren't compared.
  """
  names = list(scores)
  found = [
    _pair((a, scores[a]), (b, scores[b]), published)
    for i, a in enumerate(names)
    for b in names[i + 1 :]
    if (len(names) <= 4 or i == 0) and not {a, b} <= set(published)
  ]
  adjusted = statistics.holm(np.array([pair.p_value for pair in found]))
  return [
    pair._replace(p_value=float(p))
    for pair, p in zip(found, adjusted, strict=True)
  ]


def _pair(first, second, published):
  if statistics.probability_of_improvement(first[1], second[1]) < 0.5:
    first, second = second, first
  (name, x), (other, y) = first, second
  num_games = x.shape[1]
  difference = statistics.bootstrap(
    lambda a, b: statistics.mean(a) - statistics.mean(b), x, y
  )
  if num_games > 1:  # their scales differ
    difference = statistics.Interval(*[np.float64(np.nan)] * 3)
  return Pair(
    better=name,
    worse=other,
    runs=tuple(int((~np.isnan(s)).sum(axis=0).min()) for s in (x, y)),
    num_games=num_games,
    probability=statistics.bootstrap(
      statistics.probability_of_improvement, x, y
    ),
    difference=difference,
    p_value=statistics.p_value(x, y),
    published=(name in published, other in published),
  )


def sentence(pair: Pair) -> str:
  """Says of two groups which is better, how surely, and what would tell."""
  if max(pair.runs) < 2 and pair.num_games == 1:
    return (
      f'{pair.better} scores higher than {pair.worse}, one seed each: nothing '
      'can be said about chance. Train at least 4 seeds of each.'
    )
  value, low, high = (float(x) for x in pair.probability)
  words = (
    f'{pair.better} is better than {pair.worse} with probability {value:.2f} '
  )
  if value == 0.5:
    words = f'{pair.better} and {pair.worse} beat each other equally often '
  if value == 1.0:
    words += '(every run of it beats every run of the other)'
  elif math.isnan(low):
    words += '(no interval: of one there is but one seed)'
  else:
    words += f'(95% interval {low:.2f}-{high:.2f})'
  if np.isfinite(pair.difference.low):
    gap, low, high = (float(x) for x in pair.difference)
    words += (
      f', its mean {gap:.4g} higher (95% interval {low:.4g} to {high:.4g})'
    )
  if pair.told_apart:
    return f'{words}; chance alone would hardly do that ({_p(pair)}).'
  return f'{words}; that may be chance ({_p(pair)}). {_needed(pair)}'


def _p(pair):
  if pair.p_value < 0.001:
    return 'p < 0.001'
  return f'p = {pair.p_value:.{1 if pair.p_value < 0.01 else 2}g}'


def _needed(pair):
  """Says how many more seeds would tell them apart."""
  value = float(pair.probability.value)
  fixed = dict(zip(pair.published, pair.runs, strict=True)).get(True)
  needed = statistics.runs_to_tell_apart(value, pair.num_games, fixed)
  if pair.num_games == 1 and fixed is None:
    needed = max(needed, _fewest_runs())
  if needed == math.inf and fixed is not None:
    return (
      f'However many seeds you add, {fixed} published runs are too few to tell '
      'so small a difference at 95%.'
    )
  if needed > _HOPELESS:
    return (
      'As far as these runs show they are about equally good: to tell them '
      f'apart at 95% you would need more than {_HOPELESS} seeds of each.'
    )
  sides = zip((pair.better, pair.worse), pair.runs, pair.published, strict=True)
  more = {n: needed - r for n, r, done in sides if needed > r and not done}
  if not more:
    return 'To tell them apart at 95%, add a few seeds and look again.'
  if len(more) == 2 and len(set(more.values())) == 1:
    more = {'each': more[pair.better]}
  parts = [
    f'about {n} more {"seed" if n == 1 else "seeds"} of {name}'
    for name, n in more.items()
  ]
  return f'To tell them apart at 95% you need {" and ".join(parts)}.'


def _fewest_runs():
  """Returns the n with which even a perfect separation isn't chance."""
  n = 2
  while 2 / math.comb(2 * n, n) > _LEVEL:
    n += 1
  return n


def departures(name: str, curve: curves_lib.Curve, band: pd.DataFrame) -> str:
  """Says where a group's mean leaves the range of the published runs.

  Args:
    name: of the group.
    curve: the group's, on one game.
    band: the baseline's on that game, with agent_steps, low and high.
  """
  band = band.set_index('agent_steps')
  shared = np.isin(curve.steps, band.index)
  if not shared.any():
    period = int(np.diff(band.index).min())
    return (
      f'{name} has no number at an agent step where the published runs have '
      f'one, which is every {period:,}: drawn, not compared.'
    )
  steps = curve.steps[shared]
  means = curve.values[shared].mean(axis=1)
  there = band.loc[steps]
  side = (means > there['high']).astype(int) - (means < there['low'])
  side = side.to_numpy()
  outside = np.count_nonzero(side)
  if not outside:
    return (
      f'{name} stays within the published range up to {steps[-1]:,} agent '
      f'steps ({_points(steps)}).'
    )
  return (
    f'{name} is outside the published range at {outside} of '
    f'{_points(steps)}, at most {_longest_stretch(steps, side)}.'
  )


def _points(steps):
  return '1 point' if len(steps) == 1 else f'{len(steps)} points'


def _longest_stretch(steps: np.ndarray, side: np.ndarray) -> str:
  """Returns where a curve is longest on one side: 'below from 5 to 7'."""
  starts = np.flatnonzero(np.diff(side, prepend=0) != 0)
  stops = np.append(starts[1:], len(side))
  lengths = np.where(side[starts] == 0, 0, stops - starts)
  i = int(lengths.argmax())
  first, last = steps[starts[i]], steps[stops[i] - 1]
  word = 'above' if side[starts[i]] > 0 else 'below'
  if first == last:
    return f'{word} it at {first:,} agent steps'
  return f'{word} it from {first:,} to {last:,} agent steps'


def unfinished(groups: Sequence[groups_lib.Group], shown: int = 3) -> list[str]:
  """Says which runs have not done all their iterations."""
  lines = []
  for run in (run for group in groups for run in group.runs):
    done = run.table.iteration.max()
    if run.num_iterations is not None and done < run.num_iterations:
      lines.append(
        f'{run.path} is not finished: iteration {done} of {run.num_iterations}.'
      )
  if len(lines) > shown:
    lines[shown:] = [f'{len(lines) - shown} more runs are not finished.']
  return lines
