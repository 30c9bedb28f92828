"""Results in Dopamine's own formats: JSON of its baselines, pickled logs.

A pickle is a program, so logs are read by an unpickler that runs none: it
builds dictionaries, lists, strings and numbers, and refuses everything else.
"""

from collections.abc import Iterable, Iterator
import json
import pathlib
import pickle
import re
from typing import Any

import numpy as np
import pandas as pd

from dopamine_jax import errors
from dopamine_jax.analysis import games

# Agent steps of an iteration, where a file doesn't say.
_ATARI_STEPS, _MUJOCO_STEPS = 250_000, 1_000

_LOG = re.compile(r'(?:log|pickle)_(\d+)(?:\.pkl)?')
_ITERATION = re.compile(r'iteration_(\d+)')
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
    with path.open(encoding='utf-8') as file:
      start = file.read(200)
  except (OSError, UnicodeDecodeError):
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
    table = pd.DataFrame(json.loads(path.read_text('utf-8')))
    table = table[['Iteration', 'Value', 'Agent']].astype(
      {'Iteration': int, 'Value': float, 'Agent': str}
    )
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise errors.UserError(
      f"{path} is no baseline of Dopamine's: expected a list of objects with "
      f'Iteration, Value and Agent ({error}).'
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


def read_log(path: pathlib.Path) -> Iterator[tuple]:
  """Yields the fields of the one `runs.Run` that a log is.

  A log is a dictionary of iterations, each a dictionary of lists. It says
  neither agent nor game nor seed: they are read off the folders that it lies
  in, as `dqn/Pong/3/logs/log_199`.

  Raises:
    UserError: if it is no such file, or holds what isn't a number.
  """
  try:
    with path.open('rb') as file:
      content = _Unpickler(file, encoding='latin1').load()
    rows = list(_rows(content))
  except errors.UserError as error:
    raise errors.UserError(f'{path}: {error}') from error
  except Exception as error:  # whatever damage makes of a pickle
    raise errors.UserError(
      f"{path} is no log of Dopamine's that can be read: {error!r}."
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


def _rows(content: dict[str, Any]) -> Iterator[tuple]:
  """Yields 0, iteration, agent steps, metric and value of each number."""
  numbers = {int(_ITERATION.fullmatch(k)[1]): v for k, v in content.items()}
  steps = 0
  for iteration in sorted(numbers):
    lists = numbers[iteration]
    # Where it lists its episodes' lengths, the steps are known.
    lengths = lists.get('train_episode_lengths')
    steps += int(np.sum(lengths)) if lengths else _ATARI_STEPS
    for name, values in lists.items():
      values = np.ravel(np.asarray(values, float))
      if not values.size or name.startswith('eval_episode_len'):
        continue
      tag = _RETURNS.get(name, name)
      yield 0, iteration + 1, steps, tag, float(values.mean())


class _Unpickler(pickle.Unpickler):
  """Builds data and calls nothing but the stand-ins below."""

  def find_class(self, module, name):
    """Returns a stand-in for what a log may name, whatever it really is."""
    stand_in = _STAND_INS.get((module, name))
    if stand_in is None:
      raise errors.UserError(
        f'it names {module}.{name}, and a log is expected to hold nothing but '
        'numbers. It is not read, since to read it may run code.'
      )
    return stand_in


class _Dict(dict):
  """For defaultdict and OrderedDict, without a factory that could be called."""

  def __init__(self, *args):
    super().__init__()


class _Nothing:
  """For functools.partial, which a defaultdict carries."""

  def __init__(self, *args):
    pass

  def __setstate__(self, state):
    pass


class _DType:
  """For numpy.dtype: numbers of a fixed size, and no objects."""

  def __init__(self, name, *args):
    if not re.fullmatch(r'[fiub][1248]', name):
      raise errors.UserError(f'it holds NumPy scalars of the type {name!r}.')
    self.name = name

  def __setstate__(self, state):
    if state[1] == '>':
      self.name = '>' + self.name


def _scalar(dtype, data):
  """For NumPy's scalar constructor."""
  data = data.encode('latin1') if isinstance(data, str) else data
  return np.frombuffer(data, dtype.name)[0].item()


def _encode(text, encoding):
  """For the codec that old protocols write bytes with."""
  if encoding != 'latin1':
    raise errors.UserError(f'it holds bytes written as {encoding!r}.')
  return text.encode('latin1')


_STAND_INS = {
  ('_codecs', 'encode'): _encode,
  ('collections', 'defaultdict'): _Dict,
  ('collections', 'OrderedDict'): _Dict,
  ('functools', 'partial'): _Nothing,
  ('builtins', 'list'): _Nothing,
  ('__builtin__', 'list'): _Nothing,
  ('numpy', 'dtype'): _DType,
  **{
    (module, 'scalar'): _scalar
    for module in ('numpy.core.multiarray', 'numpy._core.multiarray')
  },
}
