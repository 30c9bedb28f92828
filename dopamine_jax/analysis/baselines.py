"""Published curves and scores, which come with the package."""

from collections.abc import Callable, Iterable, Mapping, Sequence
import difflib
import functools

import numpy as np
import pandas as pd

from dopamine_jax import errors
from dopamine_jax.analysis import atari100k
from dopamine_jax.analysis import curves as curves_lib
from dopamine_jax.analysis import games
from dopamine_jax.analysis import groups
from dopamine_jax.analysis import runs

METRIC = 'Train/AverageReturns'
LOWEST, HIGHEST = 'Train/AverageReturns/Min', 'Train/AverageReturns/Max'
# Of the environment that returns come from, as a config writes it.
_ATARI = {
  'terminate_on_life_loss': 'False',
  'fire_reset': 'False',
  'frame_skip': '4',
  'full_action_set': 'False',
  'continuous': 'False',
  'max_steps_per_episode': '27000',
}
_PROTOCOLS = {
  'dopamine': {'sticky_actions': '0.25', 'noop_max': '0', **_ATARI},
  'atari100k': {
    'sticky_actions': '0.0',
    'noop_max': '30',
    'forget_on_life_loss': 'True',
    **_ATARI,
  },
}
MANY = 40  # runs, from which on their 95% range says more than their extremes


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

  Or `atari100k:DER`: see `atari100k.scores`.

  Raises:
    UserError: if it names none.
  """
  source, *rest = text.split(':')
  most = {'dopamine': 2, 'atari100k': 1}.get(source, 0)
  if not 1 <= len(rest) <= most or not all(rest):
    raise errors.UserError(
      f'--baseline {text}: expected dopamine:AGENT, dopamine:AGENT:NETWORK or '
      "atari100k:AGENT, as 'dopamine:DQN:cnn', 'dopamine:SAC' or "
      "'atari100k:DER'."
    )
  if source == 'dopamine':
    return baseline(*rest)
  table = atari100k.scores(*rest)
  if table is None:
    names = atari100k.agents()
    hint = _hint(rest[0], names)
    raise errors.UserError(
      f'no published scores of {rest[0]} on Atari 100k.{hint} There are '
      f'{", ".join(names)}.'
    )
  return table


def is_of_means(table: pd.DataFrame) -> bool:
  """Whether of a baseline only means over runs are published."""
  return (table.seed == runs.ALL_SEEDS).all() and table.metric.nunique() == 1


def band(table: pd.DataFrame) -> pd.DataFrame:
  """Returns mean and range of the runs of a baseline.

  Returns:
    The columns game, agent_steps, mean, low, high and runs, of how many. The
    range is from the lowest to the highest run, or of 95% of those that are at
    least `MANY`. Where only a mean is published, it is NaN, of 0 runs.
  """
  keys = ['game', 'agent_steps']
  if is_of_means(table):
    means = table[[*keys, 'value']].rename(columns={'value': 'mean'})
    return means.assign(low=np.nan, high=np.nan, runs=0)
  if (table.seed == runs.ALL_SEEDS).any():
    wide = table.pivot(index=keys, columns='metric', values='value')
    names = {METRIC: 'mean', LOWEST: 'low', HIGHEST: 'high'}
    wide = wide.rename(columns=names)[[*names.values()]].reset_index()
    return wide.assign(runs=5)
  grouped = table.groupby(keys, as_index=False)['value']
  found = grouped.agg(mean='mean', low='min', high='max', runs='size')
  is_many = found.runs >= MANY
  for column, share in (('low', 0.025), ('high', 0.975)):
    quantiles = grouped.quantile(share)['value']
    found[column] = found[column].where(~is_many, quantiles)
  return found


def fitting(
  published: Mapping[str, pd.DataFrame],
  metric: str,
  titles: Mapping[str, str],
  say: Callable[[str], None],
) -> tuple[
  list[groups.Group],
  dict[str, dict[str, pd.DataFrame]],
  dict[str, dict[str, float]],
]:
  """Returns what of baselines can be compared.

  Args:
    published: baselines by name.
    metric: that is compared.
    titles: of games, by key: those that are compared.
    say: prints what is left out, and why.

  Returns:
    Those that have runs, as groups. All of them as `band`, by name and game's
    key. Of those that have means alone, these, likewise.
  """
  rivals, bands, means = [], {}, {}
  for name, table in published.items():
    theirs = table.metric.iloc[0]
    if metric != theirs:
      say(f'{name} is not drawn: it has {theirs}, and not {metric}.')
      continue
    table = table[table.game.isin(titles)]
    missing = [t for key, t in titles.items() if key not in set(table.game)]
    if missing:
      say(f'{name} has no curve of {", ".join(missing)}: none is drawn there.')
    if table.empty:
      continue
    for key, count in short_runs(table).items():
      say(
        f'{name}, {titles[key]}: of {count} of the {table.seed.nunique()} runs '
        'the last iterations were not published. Mean and range are drawn of '
        'those that there are, scores taken where all have one.'
      )
    whole = band(table)
    bands[name] = {game: rows for game, rows in whole.groupby('game')}
    if (table.seed != runs.ALL_SEEDS).all():
      rivals.append(groups.Group(name, [], table, published=True))
    elif is_of_means(table):
      means[name] = dict(zip(table.game, table.value, strict=True))
  return rivals, bands, means


def other_protocols(
  own: Sequence[groups.Group], names: Iterable[str], metric: str
) -> list[str]:
  """Says which settings of Atari were others than of the published runs.

  Args:
    own: groups that were trained.
    names: of baselines.
    metric: whose returns are compared: of training, or of evaluations.
  """
  lines = []
  for name in names:
    protocol = _PROTOCOLS[name.partition(':')[0]]
    for group in own:
      others = sorted(
        {
          f'{key} = {found} and not {expected}'
          for played in (_played_with(run, metric) for run in group.runs)
          for key, expected in protocol.items()
          if (found := played.get(key, expected)) != expected
        }
      )
      if others:
        lines.append(
          f'{group.name} played with {", ".join(others)}, which {name} had: '
          'their returns are not of the same protocol.'
        )
  return lines


def _played_with(run, metric):
  """Returns the settings of Atari that a metric is of; of others, none."""
  place, evaluated = 'environment', 'evaluation_environment'
  # Where both have the same settings, a config has them once.
  is_apart = any(key.startswith(f'{evaluated}.') for key in run.settings)
  if metric.startswith('Eval/') and is_apart:
    place = evaluated
  found = {
    key.removeprefix(f'{place}.'): value
    for key, value in run.settings.items()
    if key.startswith(f'{place}.')
  }
  if 'terminate_on_life_loss' not in found:
    return {}
  return {'forget_on_life_loss': 'False', **found}  # of older runs, without it


def laid_beside(
  means: Mapping[str, Mapping[str, float]],
  bands: Mapping[str, Mapping[str, pd.DataFrame]],
  curves: Mapping[str, Mapping[str, curves_lib.Curve]],
  stops: Mapping[str, Mapping[str, int]],
  titles: Mapping[str, str],
  say: Callable[[str], None],
) -> dict[str, dict[str, float]]:
  """Returns those means that are of the agent step of all scores.

  Args:
    means: by baseline's name and game's key.
    bands: likewise.
    curves: by group's name and game's key.
    stops: the agent step of a score, likewise.
    titles: of games, by key.
    say: prints what is left out.
  """
  found = {}
  for name, by_game in means.items():
    apart = {
      game
      for game in by_game
      for group, ends in stops.items()
      if game in ends
      and ends[game]
      not in np.intersect1d(
        curves[group][game].steps, bands[name][game].agent_steps
      )
    }
    if apart:
      where = ', '.join(titles[game] for game in sorted(apart))
      say(
        f'{name} is not laid beside the scores on {where}: these are of other '
        'agent steps.'
      )
    found[name] = {k: v for k, v in by_game.items() if k not in apart}
  return found


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
  table = table.assign(run=config, config=config, seed=runs.ALL_SEEDS)
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
  hint = _hint('sac' if agent.lower() == 'sac' else wanted, names)
  return f'no published curve of {wanted}.{hint} There are {", ".join(names)}.'


def _hint(wanted, names):
  """Returns the question whether another name was meant; '' if none is near."""
  near = {name.lower(): name for name in names}
  close = difflib.get_close_matches(wanted.lower(), near, n=1)
  return f' Did you mean {near[close[0]]}?' if close else ''
