"""Learning curves of groups on the games that they share, and their scores."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from dopamine_jax import errors
from dopamine_jax.analysis import games as games_lib
from dopamine_jax.analysis import groups as groups_lib
from dopamine_jax.metrics import intervals

# What is as large overflows where some are added up and squared.
_LARGEST = 1e100


class Curve(NamedTuple):
  """Runs of one group on one game, at the agent steps that all of them have.

  Attributes:
    steps: [T] agent steps.
    values: [T, R].
    is_return: whether runs that fail stay where they began, so that the range
      in which they were seen says where others may be.
  """

  steps: np.ndarray
  values: np.ndarray
  is_return: bool = True

  @property
  def num_runs(self) -> int:
    """R."""
    return self.values.shape[1]

  def until(self, step: int) -> 'Curve':
    """Returns the part up to and including `step`."""
    inside = self.steps <= step
    return self._replace(steps=self.steps[inside], values=self.values[inside])

  def scores(self, last: int) -> np.ndarray:
    """Returns the mean of each run's last points, [R]."""
    return self.values[-last:].mean(axis=0)

  def interval(self) -> intervals.Interval:
    """Returns the mean over runs at each step with its interval, 3 x [T]."""
    return intervals.of_mean(self.values, *self._seen())

  def score_interval(self, last: int) -> intervals.Interval:
    """Returns the mean of `scores` with its interval."""
    return intervals.of_mean(self.scores(last), *(x[-1] for x in self._seen()))

  def _seen(self):
    """Returns the range until each step, or an empty one: lowest, highest."""
    if not self.is_return:
      return np.full((2, len(self.steps)), [[np.inf], [-np.inf]])
    return (
      np.minimum.accumulate(self.values.min(axis=1)),
      np.maximum.accumulate(self.values.max(axis=1)),
    )


Curves = Mapping[str, Mapping[str, Curve]]  # by group's name and game's key


def of_groups(
  groups: Sequence[groups_lib.Group],
  metric: str,
  say: Callable[[str], None] = print,
) -> dict[str, dict[str, Curve]]:
  """Returns each group's curves by game; groups without any are left out.

  Args:
    groups: with different names.
    metric: a tag.
    say: prints what was left out, and why.

  Raises:
    UserError: if no group has the metric.
  """
  found = {}
  for group in groups:
    table = group.table[group.table.metric == metric]
    table = _without_infinite(group.name, table, say)
    curves = {}
    for game, rows in table.groupby(table.game.map(games_lib.key)):
      curve = _curve(group.name, rows, say)
      if curve is not None:
        curves[game] = curve._replace(is_return=intervals.is_return(metric))
    if curves:
      found[group.name] = curves
    else:
      say(f'Left out: {group.name} has no number of {metric}.')
  if not found:
    there = sorted({m for g in groups for m in g.table.metric.unique()})
    raise errors.UserError(
      f'no run has a number of {metric}. There are {", ".join(there)}.'
    )
  return found


def _without_infinite(name, table, say):
  """Returns the rows of those seeds whose numbers all have a mean."""
  odd = table[~(table.value.abs() < _LARGEST)]
  for (game, run, seed), rows in odd.groupby(['game', 'run', 'seed']):
    first = rows.sort_values('agent_steps').iloc[0]
    say(
      f'Left out: seed {seed} of {name}, {game}: {first.metric} is '
      f'{first.value:g} at agent step {first.agent_steps:,}, which has no mean '
      f'with others. A training that diverged is a result, too: {name} looks '
      'better without it.'
    )
    same = (table.game == game) & (table.run == run) & (table.seed == seed)
    table = table[~same]
  return table


def _curve(name, rows, say):
  """Returns a curve, or None if its runs have no step in common."""
  wide = rows.pivot(
    index='agent_steps', columns=['run', 'seed'], values='value'
  ).sort_index()
  wide = wide.dropna(axis='columns', how='all')
  if wide.empty:
    return None
  game = rows.game.iloc[0]
  ends = wide.apply(pd.Series.last_valid_index)
  if ends.nunique() > 1:
    say(
      f'{name}, {game}: runs are between {ends.min():,} and {ends.max():,} '
      'agent steps long, and are used as far as the shortest goes.'
    )
  inside = wide.loc[: ends.min()]
  whole = inside.dropna()
  if whole.empty:
    say(
      f'Left out: {name}, {game}: its runs have their numbers at different '
      'agent steps, and none in common.'
    )
    return None
  if len(whole) < len(inside):
    say(
      f'{name}, {game}: {len(inside) - len(whole)} of {len(inside)} points are '
      'left out, since not every run has a number there (no episode ended, or '
      'iterations are of different lengths).'
    )
  return Curve(whole.index.to_numpy(), whole.to_numpy())


def common_games(curves: Curves) -> list[str]:
  """Returns the keys of the games that every group has."""
  return sorted(set.intersection(*(set(c) for c in curves.values())))


def ends(curves: Curves, games: Sequence[str]) -> dict[str, int]:
  """Returns the last agent step of each game that every group has reached."""
  return {
    game: int(min(c[game].steps[-1] for c in curves.values() if game in c))
    for game in games
  }


def score_matrix(
  curves: Mapping[str, Curve], games: Sequence[str], last: int
) -> np.ndarray:
  """Returns the scores of a group, [R, G]; NaN where a game has fewer runs."""
  scores = [curves[game].scores(last) for game in games]
  matrix = np.full((max(map(len, scores)), len(games)), np.nan)
  for column, values in enumerate(scores):
    matrix[: len(values), column] = values
  return matrix


def normalized(curve: Curve, game: str) -> Curve:
  """Returns a curve on the scale from a random to a human player."""
  return curve._replace(values=games_lib.human_normalized(curve.values, game))


def stack(
  curves: Mapping[str, Curve], games: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the steps [T] that all games have, and the values [T, R, G]."""
  steps = curves[games[0]].steps
  for game in games[1:]:
    steps = np.intersect1d(steps, curves[game].steps)
  num_runs = max(curves[game].num_runs for game in games)
  values = np.full((len(steps), num_runs, len(games)), np.nan)
  for column, game in enumerate(games):
    curve = curves[game]
    rows = np.isin(curve.steps, steps)
    values[:, : curve.num_runs, column] = curve.values[rows]
  return steps, values
