"""Finds runs below a folder, and reads each into a table."""

from collections.abc import Callable, Iterator, Mapping
import hashlib
import io
import os
import pathlib
import re
from typing import NamedTuple

import pandas as pd

from dopamine_jax import errors
from dopamine_jax.analysis import dopamine_files
from dopamine_jax.metrics import base

COLUMNS = [
  *('run', 'config', 'agent', 'game', 'seed', 'iteration', 'agent_steps'),
  *('metric', 'value'),
]

# A binding, with the lines that it runs on over.
_BINDING = re.compile(r'^([\w./]+) =[ \\]*\n?(.*(?:\n[ \t].*)*)', re.MULTILINE)
# These change how long, how watched or how safe a run is, not what it learns.
_NO_RESULT = (
  'num_iterations',
  'max_to_keep',
  'collectors',
  'check_finite',
  'checkpoint_replay',
)
# What a run's folder holds beside its numbers.
_NOT_RUNS = ('checkpoints', 'tensorboard')


class Run(NamedTuple):
  """One training: its settings and its numbers.

  Attributes:
    path: the run's folder, or the file that it comes from.
    agent: the class's name.
    game: the environment's name.
    settings: the bindings that decide results, as text, without the game.
    num_iterations: how many it is to have; None if unknown.
    table: the columns seed, iteration, agent_steps, metric and value.
  """

  path: pathlib.Path
  agent: str
  game: str
  settings: Mapping[str, str]
  num_iterations: int | None
  table: pd.DataFrame

  @property
  def config(self) -> str:
    """A digest of the settings: equal ones are the same experiment."""
    text = '\n'.join(f'{k} = {v}' for k, v in sorted(self.settings.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def load(
  base_dir: str | pathlib.Path, say: Callable[[str], None] = print
) -> pd.DataFrame:
  """Returns all runs below a folder as one tidy table.

  Reads `metrics.csv` with the `config.gin` beside it, of which no code is
  imported or called; Dopamine's `log_N` and `pickle_N.pkl`, of which nothing
  but numbers is admitted; and the JSON files of Dopamine's baselines.

  Args:
    base_dir: a run's folder, one above several, or a file as above.
    say: prints what was left out, and why.

  Returns:
    The columns that `dopamine_jax.analysis` explains.

  Raises:
    UserError: if there is nothing that can be read.
  """
  return tabulate(find(base_dir, say))


def tabulate(runs: list[Run]) -> pd.DataFrame:
  """Returns runs as one tidy table."""
  tables = [
    run.table.assign(
      run=str(run.path), config=run.config, agent=run.agent, game=run.game
    )
    for run in runs
  ]
  return pd.concat(tables, ignore_index=True)[COLUMNS]


def find(
  base_dir: str | pathlib.Path, say: Callable[[str], None] = print
) -> list[Run]:
  """Returns all runs below a folder, ordered by path; see `load`."""
  root = pathlib.Path(base_dir)
  if not root.exists():
    raise errors.UserError(f'{root} is not there. Give the folder of a run.')
  found, faults = [], []
  for path, read in _sources(root):
    try:
      found += [Run(*fields) for fields in read(path)]
    except errors.UserError as error:
      faults.append(str(error))
  if not found:
    raise errors.UserError(
      '\n'.join(faults)
      or f'{root} holds no run: there is no metrics.csv in it or below. Give '
      'the --base_dir of a training, or a folder above several.'
    )
  for fault in faults:
    say(f'Left out: {fault}')
  return found


def _sources(root: pathlib.Path) -> Iterator[tuple[pathlib.Path, Callable]]:
  """Yields what looks like a run, with the function that reads it."""
  if root.is_file():
    reader = _read_csv if root.name == 'metrics.csv' else _reader_of_file(root)
    yield root, reader or _refuse
    return
  for folder, subfolders, files in os.walk(root):
    subfolders[:] = sorted(x for x in subfolders if x not in _NOT_RUNS)
    folder = pathlib.Path(folder)
    if 'metrics.csv' in files:
      yield folder / 'metrics.csv', _read_csv
    elif {'config.gin', 'run.json'} <= set(files):
      yield folder / 'metrics.csv', _refuse_folder
    logs = dopamine_files.newest_log(files)
    if logs:
      yield folder / logs, dopamine_files.read_log
    for name in sorted(files):
      if name.endswith('.json') and dopamine_files.is_baseline(folder / name):
        yield folder / name, dopamine_files.read_json


def _reader_of_file(path):
  if path.suffix == '.json':
    return dopamine_files.read_json
  return dopamine_files.read_log if dopamine_files.is_log(path.name) else None


def _refuse(path):
  raise errors.UserError(
    f'{path} is no file of a run that is known here: expected metrics.csv, '
    "or Dopamine's log_N, pickle_N.pkl or JSON of a baseline."
  )


def _refuse_folder(path):
  raise errors.UserError(
    f'{path.parent} is a run without metrics.csv: it has not ended an '
    'iteration yet, or csv_file.CSV is not among its collectors.'
  )


def _read_csv(path):
  """Yields the fields of the one `Run` that a metrics.csv is."""
  table = read_table(path)
  folder = path.parent
  try:
    text = (folder / 'config.gin').read_text()
  except FileNotFoundError:
    text = ''
  except (OSError, UnicodeDecodeError) as error:
    raise errors.UserError(
      f'{folder}/config.gin can not be read: {error}'
    ) from error
  yield folder, *identify(text, folder.name), table


def read_table(path):
  """Returns what a metrics.csv holds, but for a last line that is cut short."""
  expected = base.Statistic._fields
  try:
    data = path.read_bytes()
    whole = data[: data.rfind(b'\n') + 1].decode()
    table = pd.read_csv(io.StringIO(whole), dtype={'name': str})
    if tuple(table.columns) != expected:
      raise ValueError(f'its columns are not {",".join(expected)}')
    table = table.astype(
      {'seed': int, 'iteration': int, 'agent_steps': int, 'value': float}
    )
    twice = table.duplicated(['seed', 'iteration', 'name'])
    twice |= table.duplicated(['seed', 'agent_steps', 'name'])
    if twice.any() or table.name.isna().any():
      bad = int((twice | table.name.isna()).to_numpy().argmax()) + 2
      raise ValueError(f'line {bad} is there twice, or has no name')
  except (OSError, ValueError) as error:  # pandas' errors are ValueErrors
    raise errors.UserError(
      f'{path} can not be read: {" ".join(str(error).split())}.'
    ) from error
  if table.empty:
    raise errors.UserError(f'{path} is empty: no iteration has ended yet.')
  table = table.drop(columns='wall_time')
  return table.rename(columns={'name': 'metric'})


def identify(
  config: str, name: str
) -> tuple[str, str, dict[str, str], int | None]:
  """Reads a run's identity off its operative gin, as text.

  Nothing is imported, so that a stranger's run can be looked at.

  Args:
    config: the text of a config.gin; may be empty.
    name: what to call a run that says nothing of itself.

  Returns:
    Agent, game, settings and number of iterations, as in `Run`.
  """
  bindings = {
    key: ' '.join(value.replace('\\\n', ' ').split())
    for key, value in _BINDING.findall(config)
  }
  if not bindings:
    return 'unknown', 'unknown', {'run': name}, None
  agent = _class(bindings, 'Runner.agent')
  environment = _class(bindings, 'Runner.environment')
  settings, game, num_iterations = {}, environment.rpartition('.')[2], None
  for key, value in bindings.items():
    place, _, parameter = key.rpartition('.')
    if place == environment and parameter in ('id', 'game'):
      game = value.strip('\'"')
    elif place.endswith('Runner') and parameter == 'num_iterations':
      num_iterations = int(value) if value.isdecimal() else None
    elif place == environment:
      settings[f'environment.{parameter}'] = value
    elif parameter not in (*_NO_RESULT, 'environment'):
      settings[key] = value
  return agent.rpartition('.')[2], game, settings, num_iterations


def _class(bindings, suffix):
  """Returns 'dqn.DQN' of '@dqn.DQN()', or 'unknown'."""
  for key, value in bindings.items():
    if key == suffix or key.endswith(f'.{suffix}'):
      return value.lstrip('@').removesuffix('()').rpartition('/')[2]
  return 'unknown'
