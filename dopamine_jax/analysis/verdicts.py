"""What the numbers allow to be said, in words."""

from collections.abc import Collection, Mapping, Sequence
import math
from typing import NamedTuple

import numpy as np
import pandas as pd

from dopamine_jax.analysis import chance
from dopamine_jax.analysis import curves as curves_lib
from dopamine_jax.analysis import games as games_lib
from dopamine_jax.analysis import groups as groups_lib
from dopamine_jax.analysis import statistics

_MAX_ALL = 4  # groups that are compared each with each
_HOPELESS = 100  # runs that nobody trains to tell two configurations apart


class Pair(NamedTuple):
  """Two groups, the better one first.

  Attributes:
    better: its name.
    worse: its name.
    runs: how many the two have, on the game that has the fewest.
    num_games: that both were scored on.
    probability: of improvement, at least 1/2.
    difference: what separates them: by how much a run of the better one is
      typically higher, on one game; on several, the probability again.
    published: which of the two is a baseline, and gets no more runs.
    num_pairs: that were looked at.
  """

  better: str
  worse: str
  runs: tuple[int, int]
  num_games: int
  probability: float
  difference: chance.Difference
  published: tuple[bool, bool]
  num_pairs: int = 1

  @property
  def told_apart(self) -> bool:
    """Whether chance would hardly separate them so far."""
    return self.difference.p_value <= chance.LEVEL


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
    (a, b)
    for i, a in enumerate(names)
    for b in names[i + 1 :]
    if (len(names) <= _MAX_ALL or i == 0) and not {a, b} <= set(published)
  ]
  return [pair(*each, scores, published, len(found)) for each in found]


def pair(
  name: str,
  other: str,
  scores: Mapping[str, np.ndarray],
  published: Collection[str],
  num_pairs: int,
) -> Pair:
  """Compares two groups.

  Args:
    name: of one.
    other: of the other.
    scores: [R, G] by name.
    published: the names of baselines.
    num_pairs: that are looked at in all.
  """
  x, y = scores[name], scores[other]
  probability = float(statistics.probability_of_improvement(x, y))
  if probability < 0.5:
    name, other, x, y, probability = other, name, y, x, 1 - probability
  num_games = x.shape[1]
  if num_games == 1:
    x, y = (s[~np.isnan(s[:, 0])] for s in (x, y))
    difference = chance.shift(x[:, 0], y[:, 0], num_pairs)
  else:  # their scales differ
    difference = chance.improvement(x, y, num_pairs)
  return Pair(
    better=name,
    worse=other,
    runs=tuple(int((~np.isnan(s)).sum(axis=0).min()) for s in (x, y)),
    num_games=num_games,
    probability=probability,
    difference=difference,
    published=(name in published, other in published),
    num_pairs=num_pairs,
  )


def sentence(pair: Pair) -> str:
  """Says of two groups which is better, how surely, and what would tell."""
  if max(pair.runs) < 2 and pair.num_games == 1:
    return (
      f'{pair.better} scores higher than {pair.worse}, one seed each: nothing '
      f'can be said about chance. Train at least {fewest(pair)} seeds of each.'
      if pair.probability > 0.5
      else f'{pair.better} and {pair.worse} score the same, one seed each.'
    )
  words = (
    f'{pair.better} is better than {pair.worse} with probability '
    f'{pair.probability:.2f}'
  )
  if pair.probability == 0.5:
    words = f'{pair.better} and {pair.worse} beat each other equally often'
  if pair.probability == 1.0:
    words += ' (every run of it beats every run of the other)'
  if not can_tell(pair):
    return f'{words}; {_too_few(pair)}'
  value, low, high = (float(x) for x in pair.difference.interval)
  if pair.num_games == 1:
    words += (
      f', runs of {pair.better} typically {value:.4g} higher (95% interval '
      f'{low:.4g} to {high:.4g})'
    )
  else:
    words += f' (95% interval {low:.2f} to {high:.2f})'
  if pair.told_apart:
    return f'{words}; chance alone would hardly do that ({_p(pair)}).'
  return f'{words}; that may be chance ({_p(pair)}). {_needed(pair)}'


def on_several(pairs: Sequence[Pair], first: str) -> list[str]:
  """Says how many pairs were looked at, and what that does to each.

  Args:
    pairs: that were compared.
    first: the name of the first group.
  """
  if len(pairs) < 2:
    return []
  line = (
    f'{len(pairs)} pairs were looked at: p and the intervals of differences '
    'allow for that (Bonferroni).'
  )
  if len({name for pair in pairs for name in pair[:2]}) > _MAX_ALL:
    line += f' With more than {_MAX_ALL} groups each is compared with {first}.'
  return [line]


def can_tell(pair: Pair) -> bool:
  """Whether the runs of two groups can show anything, however far apart."""
  return chance.can_tell(*pair.runs, pair.num_pairs, pair.num_games)


def fewest(pair: Pair) -> int:
  """Returns how many runs can show something at all, at best."""
  fixed = dict(zip(pair.published, pair.runs, strict=True)).get(True)
  return chance.fewest_runs(pair.num_pairs, pair.num_games, fixed)


def _too_few(pair):
  n, m = pair.runs
  of = '' if pair.num_pairs == 1 else f' of {pair.num_pairs} pairs'
  return (
    f'but {n} against {m} seeds{of} can not tell that from chance, however far '
    f'apart they lie: train {_more(pair, fewest(pair), "at least ")}.'
  )


def _p(pair):
  p_value = pair.difference.p_value
  if p_value < 0.001:
    return 'p < 0.001'
  return f'p = {p_value:.{1 if p_value < 0.01 else 2}g}'


def _needed(pair):
  """Says how many more seeds would tell them apart."""
  fixed = dict(zip(pair.published, pair.runs, strict=True)).get(True)
  needed = chance.runs_to_tell_apart(
    pair.probability, pair.num_games, fixed, pair.num_pairs
  )
  needed = max(needed, fewest(pair))
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
  return f'To tell them apart at 95% you need {_more(pair, needed, "about ")}.'


def _more(pair, needed, how):
  """Returns what has to be trained until both groups have so many runs."""
  sides = zip((pair.better, pair.worse), pair.runs, pair.published, strict=True)
  more = {n: needed - r for n, r, done in sides if needed > r and not done}
  if not more:
    return 'a few more seeds'
  if len(more) == 2 and len(set(more.values())) == 1:
    more = {'each': more[pair.better]}
  return ' and '.join(
    f'{how}{n} more {"seed" if n == 1 else "seeds"} of {name}'
    for name, n in more.items()
  )


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
    where = f'{band.index[0]:,} alone'
    if len(band) > 1:
      where = f'every {int(np.diff(band.index).min()):,}'
    return (
      f'{name} has no number at an agent step where the published runs have '
      f'one, which is {where}: drawn, not compared.'
    )
  steps = curve.steps[shared]
  means = curve.values[shared].mean(axis=1)
  there = band.loc[steps]
  if there.low.isna().all():
    return (
      f'{name} has {means[-1]:,.4g} at {steps[-1]:,} agent steps, and the '
      f'published mean is {there["mean"].iloc[-1]:,.4g}.'
    )
  side = (means > there['high']).astype(int) - (means < there['low'])
  side = side.to_numpy()
  if len(band) == 1:
    low, high = there.low.iloc[0], there.high.iloc[0]
    where = {-1: 'below', 0: 'within', 1: 'above'}[int(side[0])]
    return (
      f'{name} has {means[0]:,.4g} at {steps[0]:,} agent steps, {where} the '
      f'published range of {low:,.4g} to {high:,.4g}.'
    )
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


def of_means(
  means: Mapping[str, Mapping[str, float]],
  ends: Collection[str],
  titles: Mapping[str, str],
) -> list[str]:
  """Says what can be made of baselines of which only means are published.

  Args:
    means: by baseline's name and game's key.
    ends: keys of the games that are compared.
    titles: of games, by key.
  """
  known = games_lib.random_human().index
  lines = []
  for name, by_game in means.items():
    lacking = [titles[x] for x in ends if x in known and x not in by_game]
    words = (
      'Its aggregates are of means, which flatters it: mostly their IQM is '
      'higher and their optimality gap smaller than those of runs.'
    )
    if lacking:
      words = f'It has no aggregates, since it lacks {", ".join(lacking)}.'
    lines.append(
      f'{name}: only the means over its runs are published, so that nothing '
      f'can be said about chance. {words}'
    )
  return lines


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
