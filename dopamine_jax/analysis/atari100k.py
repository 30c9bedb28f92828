"""Published scores on Atari 100k: 26 games, 100,000 agent steps each.

Kaiser et al. (2019), Model-Based Reinforcement Learning for Atari.
https://arxiv.org/abs/1903.00374

A score is a run's mean return over whole games at the end of its training, with
`dopamine_jax.analysis.data` naming the sources. Of some methods single runs are
published, of others only each game's mean over runs: nothing can be said about
chance with those, and their aggregates are of means.
"""

import functools

import pandas as pd

from dopamine_jax.analysis import games
from dopamine_jax.analysis import runs

METRIC = 'Eval/AverageReturns'
AGENT_STEPS = 100_000


def agents() -> list[str]:
  """Returns the names of the methods, those with single runs first."""
  singles, means = _tables()
  return [*sorted(singles.agent.unique()), *means.columns]


def scores(agent: str) -> pd.DataFrame | None:
  """Returns a method's scores, as tidy as `analysis.load`.

  Args:
    agent: as `agents` has it, in any case.

  Returns:
    A row for each run of each game, numbered in the column `seed`; or one for
    each game with the seed `runs.ALL_SEEDS`, a mean over runs. None if there
    is no such method.
  """
  named = {name.lower(): name for name in agents()}
  name = named.get(agent.lower())
  if name is None:
    return None
  singles, means = _tables()
  if name in means:
    table = (
      means[name].rename('value').reset_index().assign(seed=runs.ALL_SEEDS)
    )
  else:
    table = singles[singles.agent == name]
    table = table.rename(columns={'run': 'seed', 'score': 'value'})
  config = f'atari100k:{name}'
  return table.assign(
    run=config,
    config=config,
    agent=name,
    game=table.game.map(games.key),
    iteration=1,
    agent_steps=AGENT_STEPS,
    metric=METRIC,
  )[runs.COLUMNS].reset_index(drop=True)


@functools.cache
def _tables():
  """Returns single runs, and means [26, K] of K methods by game."""
  with games.data('atari100k_runs.csv.gz').open('rb') as file:
    singles = pd.read_csv(file, compression='gzip')
  with games.data('atari100k_means.csv').open('rb') as file:
    return singles, pd.read_csv(file, index_col='game')
