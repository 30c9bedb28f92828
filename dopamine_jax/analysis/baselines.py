"""Curves that Dopamine published, which come with the package."""

import difflib
import functools

import pandas as pd

from dopamine_jax import errors
from dopamine_jax.analysis import games
from dopamine_jax.analysis import runs

METRIC = 'Train/AverageReturns'
# The seed of rows that are about all seeds, where single runs aren't published.
ALL_SEEDS = -1
LOWEST, HIGHEST = 'Train/AverageReturns/Min', 'Train/AverageReturns/Max'


def baseline(agent: str, network: str | None = None) -> pd.DataFrame:
  """Returns the published training curves of an agent, as tidy as `load`.

  On Atari there are DQN, C51, Rainbow, IQN and QR-DQN with the networks cnn and
  impala: 60 games, 5 runs, 200 iterations of 250,000 agent steps. On MuJoCo
  there is SAC, without a network's name: 5 tasks, every tenth of 3,200
  iterations of 1,000 agent steps; of its 5 seeds only the mean is known, with
  lowest and highest, which have the seed -1 and the metrics
  'Train/AverageReturns', '.../Min' and '.../Max'.

  A few runs on Atari were published without their last iterations (see
  `short_runs`), and have no rows there. The rule for them: nothing is filled
  in. A mean and a range are of the runs that there are, and a score is taken
  where all of a game's runs have one.

  Args:
    agent: as above, in any case.
    network: 'cnn' (the default on Atari) or 'impala'.

  Raises:
    UserError: if there is no such curve.
  """
  if agent.lower() == 'sac' and network is None:
    return _mujoco()
  table = _atari()
  network = (network or 'cnn').lower()
  rows = table[
    (table.agent.str.lower() == agent.lower()) & (table.network == network)
  ]
  if rows.empty:
    raise errors.UserError(_unknown(agent, network, table))
  config = f'dopamine:{rows.agent.iloc[0]}:{network}'
  wide = rows.assign(run=config, config=config)
  keys = ['run', 'config', 'agent', 'game', 'iteration']
  long = wide.melt(
    keys,
    [f'run_{i}' for i in range(5)],
    var_name='seed',
    value_name='value',
  ).dropna(subset='value')
  long['seed'] = long.seed.str.removeprefix('run_').astype(int)
  long['agent_steps'] = (long.iteration + 1) * 250_000
  long['iteration'] += 1
  return long.assign(metric=METRIC)[runs.COLUMNS].reset_index(drop=True)


def parse(text: str) -> pd.DataFrame:
  """Returns the baseline that the command line names `dopamine:DQN:cnn`.

  Raises:
    UserError: if it names none.
  """
  source, *rest = text.split(':')
  if source != 'dopamine' or not 1 <= len(rest) <= 2 or not all(rest):
    raise errors.UserError(
      f'--baseline {text}: expected dopamine:AGENT or dopamine:AGENT:NETWORK, '
      "as 'dopamine:DQN:cnn' or 'dopamine:SAC'."
    )
  return baseline(*rest)


def band(table: pd.DataFrame) -> pd.DataFrame:
  """Returns mean, lowest and highest run of a baseline.

  Returns:
    The columns game, agent_steps, mean, low, high and runs, of how many.
  """
  keys = ['game', 'agent_steps']
  if (table.seed == ALL_SEEDS).any():
    wide = table.pivot(index=keys, columns='metric', values='value')
    names = {METRIC: 'mean', LOWEST: 'low', HIGHEST: 'high'}
    wide = wide.rename(columns=names)[[*names.values()]].reset_index()
    return wide.assign(runs=5)
  grouped = table.groupby(keys, as_index=False)['value']
  return grouped.agg(mean='mean', low='min', high='max', runs='size')


def short_runs(table: pd.DataFrame) -> pd.Series:
  """Returns how many runs of each game end before its longest one.

  Args:
    table: a baseline.

  Returns:
    By game, where there are any.
  """
  ends = table.groupby(['game', 'seed']).iteration.max()
  short = ends < ends.groupby('game').transform('max')
  return short.groupby('game').sum()[lambda runs: runs > 0]


@functools.cache
def _atari():
  with games.data('dopamine_atari_curves.csv.gz').open('rb') as file:
    return pd.read_csv(file, compression='gzip')


def _mujoco():
  with games.data('dopamine_mujoco_curves.csv.gz').open('rb') as file:
    table = pd.read_csv(file, compression='gzip')
  table = table.rename(
    columns={'task': 'game', 'mean': METRIC, 'min': LOWEST, 'max': HIGHEST}
  )
  table['agent_steps'] = (table.iteration + 1) * 1_000
  table['iteration'] += 1
  config = 'dopamine:SAC'
  table = table.assign(run=config, config=config, seed=ALL_SEEDS)
  long = table.melt(
    [c for c in runs.COLUMNS if c not in ('metric', 'value')],
    [METRIC, LOWEST, HIGHEST],
    var_name='metric',
    value_name='value',
  )
  return long[runs.COLUMNS]


def _unknown(agent, network, table):
  pairs = table[['agent', 'network']].drop_duplicates().to_numpy()
  names = sorted([*(':'.join(pair) for pair in pairs), 'SAC'])
  wanted = f'{agent}:{network}'
  near = {name.lower(): name for name in names}
  close = ['sac'] if agent.lower() == 'sac' else []
  close = close or difflib.get_close_matches(wanted.lower(), near, n=1)
  hint = f' Did you mean {near[close[0]]}?' if close else ''
  return f'no published curve of {wanted}.{hint} There are {", ".join(names)}.'
