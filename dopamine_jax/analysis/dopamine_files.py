"""Results in Dopamine's own formats: JSON of its baselines, pickled logs.

A pickle is a program: `log_pickle` reads logs without running any.
"""

from collections.abc import Iterable, Iterator
import json
import pathlib
import re
from typing import Any

import numpy as np
import pandas as pd

from dopamine_jax import errors
from dopamine_jax.analysis import games
from dopamine_jax.analysis import log_pickle
from dopamine_jax.system import safe_files
from dopamine_jax.system import texts

# Agent steps of an iteration, where a file doesn't say.
_ATARI_STEPS, _MUJOCO_STEPS = 250_000, 1_000

_LOG = re.compile(r'(?:log|pickle)_(\d+)(?:\.pkl)?')
_ITERATION = re.compile(r'iteration_(\d{1,9})')
_MAX_MEGABYTES = 32  # of a file; Dopamine's longest logs have 10
_MAX_STEPS = 2**53
# What older and newer logs call it, with our tag.
_RETURNS = {
  'train_episode_returns': 'Train/AverageReturns',
  'eval_episode_returns': 'Eval/AverageReturns',
}


def is_log(name: str) -> bool:
  """Whether a file's name is that of a log."""
  return _LOG.fullmatch(name) is not None


def newest_log(names: Iterable[str]) -> str | None:
  """Returns the log with the highest number: it holds what all before hold."""
  logs = [name for name in names if is_log(name)]
  return max(logs, key=lambda x: int(_LOG.fullmatch(x)[1]), default=None)


def is_baseline(path: pathlib.Path) -> bool:
  """Whether a JSON file begins like one of Dopamine's baselines."""
  try:
    start = safe_files.read_text(path, _MAX_MEGABYTES)[:200]
  except (OSError, errors.UserError):
    return False
  return bool(re.match(r'\s*\[\s*\{\s*"(Iteration|Value|Agent)"', start))


def read_json(path: pathlib.Path) -> Iterator[tuple]:
  """Yields the fields of a `runs.Run` for each agent in a baseline's file.

  The file is a list of {"Iteration": k, "Value": return, "Agent": name}; an
  agent's runs aren't told apart but by their order. Its name is that of the
  game, and of the network, if there are several: `asterix_CNN.json`.

  Raises:
    UserError: if it is no such file.
  """
  try:
    text = safe_files.read_text(path, _MAX_MEGABYTES)
    table = pd.DataFrame([_entry(**entry) for entry in json.loads(text)])
    table = table.astype({'Value': float})
  except (
    *(OSError, ValueError, TypeError, OverflowError, RecursionError),
  ) as error:
    raise errors.UserError(
      f"{path} is no baseline of Dopamine's: expected a list of objects with "
      f'Iteration, Value and Agent ({texts.line(str(error))[:200]}).'
    ) from error
  game, _, network = path.stem.partition('_')
  steps = _MUJOCO_STEPS if game in games.MUJOCO else _ATARI_STEPS
  table['seed'] = table.groupby(['Agent', 'Iteration']).cumcount()
  table['iteration'] = table.Iteration + 1
  table['agent_steps'] = table.iteration * steps
  table['metric'] = 'Train/AverageReturns'
  columns = ['seed', 'iteration', 'agent_steps', 'metric', 'value']
  for agent, rows in table.groupby('Agent', sort=False):
    settings = {'baseline': f'dopamine:{agent}:{network.lower()}'}
    rows = rows.rename(columns={'Value': 'value'})[columns]
    yield path, agent, game, settings, None, rows.reset_index(drop=True)


def _entry(Iteration, Value, Agent, **_):
  """Returns an entry of a baseline, if it is one."""
  if not isinstance(Agent, str) or isinstance(Value, str | bool):
    raise ValueError(f'Agent {Agent!r} and Value {Value!r}')
  if type(Iteration) is not int or not 0 <= Iteration < 10**9:
    raise ValueError(f'Iteration {Iteration!r}')
  return {'Iteration': Iteration, 'Value': Value, 'Agent': Agent}


def read_log(path: pathlib.Path) -> Iterator[tuple]:
  """Yields the fields of the one `runs.Run` that a log is.

  A log is a dictionary of iterations, each a dictionary of lists. It says
  neither agent nor game nor seed: they are read off the folders that it lies
  in, as `dqn/Pong/3/logs/log_199`.

  Raises:
    UserError: if it is no such file, or holds what isn't a number.
  """
  data = safe_files.read(path, _MAX_MEGABYTES)
  try:
    rows = list(_rows(log_pickle.loads(data)))
  except errors.UserError as error:
    raise errors.UserError(f'{path}: {error}') from error
  except Exception as error:  # whatever damage makes of a pickle
    why = texts.line(repr(error))[:200]
    raise errors.UserError(
      f"{path} is no log of Dopamine's that can be read: {why}."
    ) from error
  if not rows:
    raise errors.UserError(f'{path} holds no iteration with a number.')
  agent, game, seed = _named_by_folders(path.parent)
  columns = ['seed', 'iteration', 'agent_steps', 'metric', 'value']
  table = pd.DataFrame(rows, columns=columns).assign(seed=seed)
  settings = {'log of': f'{agent}, whose settings are unknown'}
  yield path.parent, agent, game, settings, None, table


def _named_by_folders(folder):
  """Returns agent, game and seed of `.../dqn/Pong/3/logs`, as far as known."""
  inside = ('logs', 'pickle', 'metrics')
  names = [n for n in reversed(folder.parts) if n not in inside]
  game = next((n for n in names if games.key(n) in games.KNOWN), 'unknown')
  numbered = re.fullmatch(r'\D*?(\d+)', names[0]) if names else None
  seed = int(numbered[1]) if numbered else 0
  others = (n for n in names[bool(numbered) :] if n != game)
  return next(others, 'unknown'), game, seed


def _numbers(values):
  """Returns a number, or the numbers of a list; lists in it are none."""
  values = values if isinstance(values, list) else [values]
  if not all(isinstance(value, int | float) for value in values):
    raise ValueError('expected lists of numbers')
  return np.array(values, float)


def _rows(content: dict[str, Any]) -> Iterator[tuple]:
  """Yields 0, iteration, agent steps, metric and value of each number."""
  numbers = {int(_ITERATION.fullmatch(k)[1]): v for k, v in content.items()}
  steps, left = 0, log_pickle.MAX_STEPS
  for iteration in sorted(numbers):
    lists = numbers[iteration]
    # Each took a step to read, unless a list stands in many places.
    left -= sum(len(x) for x in lists.values() if isinstance(x, list))
    if left < 0:
      raise ValueError('it repeats its lists more often than a log does')
    # Where it lists its episodes' lengths, the steps are known.
    lengths = lists.get('train_episode_lengths')
    more = int(sum(_numbers(lengths))) if lengths else _ATARI_STEPS
    steps += more
    if more <= 0 or steps > _MAX_STEPS:
      raise ValueError(f'iteration {iteration} has {more} agent steps')
    for name, values in lists.items():
      values = _numbers(values)
      if not values.size or name.startswith('eval_episode_len'):
        continue
      tag = _RETURNS.get(name, name)
      yield 0, iteration + 1, steps, tag, float(values.mean())
