"""Finds runs below a folder, and reads each into a table."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import hashlib
import io
import os
import pathlib
from typing import NamedTuple

import pandas as pd

from dopamine_jax import errors
from dopamine_jax.analysis import dopamine_files
from dopamine_jax.analysis import order
from dopamine_jax.metrics import base
from dopamine_jax.metrics import csv_file
from dopamine_jax.system import safe_files
from dopamine_jax.system import texts
from dopamine_jax.training import identity

COLUMNS = [
  *('run', 'config', 'agent', 'game', 'seed', 'iteration', 'agent_steps'),
  *('metric', 'value'),
]

# These change how long, how watched or how safe a run is, not what it learns.
_WATCHING = ('collectors', 'health')
_NO_RESULT = (
  *_WATCHING,
  *('num_iterations', 'max_to_keep', 'check_finite'),
  *('checkpoint_replay', 'record_replay', 'histograms', 'videos'),
)
# The seed of rows that are about all seeds, where single runs aren't published.
ALL_SEEDS = -1
MAX_TEXT, MAX_TABLE = 10, 1_000  # MB of a text, and of a table
# What a run's folder holds beside its numbers.
_NOT_RUNS = ('checkpoints', 'tensorboard')


class Run(NamedTuple):
  """One training: its settings and its numbers.

  Attributes:
    path: the run's folder, or the file that it comes from.
    agent: the class's name.
    game: the environment's name.
    settings: the bindings that decide results, as text, without the game.
    num_iterations: how many it is to have; None if unknown, or if a callback
      has ended it.
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
  if not os.path.exists(root):  # pathlib raises where a name is too long
    raise errors.UserError(f'{root} is not there. Give the folder of a run.')
  found, faults = [], []
  for path, read in _sources(root):
    try:
      found += [Run(*fields) for fields in read(path)]
    except FileNotFoundError:
      faults.append(f'{path} is gone.')
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
    own = (x for x in subfolders if x not in _NOT_RUNS)
    subfolders[:] = sorted(own, key=order.natural)
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
  if fault := csv_file.altered(path):
    raise errors.UserError(
      f'{fault}. Bring the whole file back (a copy that was cut short? edited '
      'by hand?); to compare it as it is, copy it and config.gin into a folder '
      'without run.json.'
    )
  table = read_table(path)
  folder = path.parent
  try:
    text = safe_files.read_text(folder / 'config.gin', MAX_TEXT)
  except FileNotFoundError:
    text = ''
  if text and (fault := identity.edited(folder / 'config.gin', text)):
    raise errors.UserError(
      f'{fault}. Undo what was changed in it; to compare the run under these '
      'settings, copy both files into a folder without run.json.'
    )
  agent, game, settings, num_iterations = identify(text, folder.name)
  if safe_files.read_noted(folder / 'run.json', MAX_TEXT, 'ended_by'):
    num_iterations = None  # It is finished without having done them all.
  yield folder, agent, game, settings, num_iterations, table


def read_table(path):
  """Returns what a metrics.csv holds, but for a last line that is cut short."""
  try:
    data = safe_files.read(path, MAX_TABLE)
    whole = data[: data.rfind(b'\n') + 1].decode('utf-8-sig')
    table = _parsed(whole)
  except (OSError, ValueError, OverflowError) as error:  # pandas' are values
    why = texts.line(str(error))[:200].rstrip('.')
    raise errors.UserError(f'{path} can not be read: {why}.') from error
  if table.empty:
    raise errors.UserError(f'{path} is empty: no iteration has ended yet.')
  table = table.drop(columns='wall_time')
  return table.rename(columns={'name': 'metric'})


def _parsed(text):
  """Returns the table that a text is; raises ValueError if it is none."""
  expected = base.Statistic._fields
  if '\0' in text:
    number = text.count('\n', 0, text.index('\0')) + 1
    raise ValueError(f'line {number} has a NUL, as a damaged file does')
  if text.partition('\n')[0].strip() != ','.join(expected):
    raise ValueError(f'its columns are not {",".join(expected)}')
  table = pd.read_csv(io.StringIO(text), dtype={'name': str}, low_memory=False)
  if tuple(table.columns) != expected or not isinstance(
    table.index, pd.RangeIndex
  ):
    raise ValueError('a row has more numbers than there are columns')
  check_numbers(table, ('seed', 'iteration', 'agent_steps'), ('value',))
  wrong = table.name.isna() | (table[['seed', 'iteration']] < 0).any(axis=1)
  wrong |= ~table.agent_steps.between(0, 2**53)
  wrong |= table.duplicated(['seed', 'iteration', 'name'])
  wrong |= table.duplicated(['seed', 'agent_steps', 'name'])
  if wrong.any():
    raise ValueError(
      f'line {int(wrong.to_numpy().argmax()) + 2} is there twice, has no name, '
      'or a number that no run has'
    )
  return table.assign(
    name=table.name.map(texts.line), value=table.value.astype(float)
  )


def check_numbers(table: pd.DataFrame, whole: Sequence[str], others: Sequence):
  """Refuses columns that pandas did not read as numbers.

  To ask it for a type would cut 1.5 to 1, and make 1 of True.

  Raises:
    ValueError: says what is no number, or not a whole one.
  """
  for name in (*whole, *others) if len(table) else ():
    kinds = 'i' if name in whole else 'if'
    if table[name].dtype.kind not in kinds:
      is_number = r'\d{1,15}' if name in whole else r'[-+.\deE]+|nan|-?inf'
      column = table[name].astype(str)
      bad = column[~column.str.fullmatch(is_number)]
      raise ValueError(
        f'{bad.iloc[0] if len(bad) else column.iloc[0]!r} in the column {name} '
        f'is no {"whole " if name in whole else ""}number'
      )


def identify(
  config: str, name: str
) -> tuple[str, str, dict[str, str], int | None]:
  """Reads a run's identity off its config.gin, as text.

  Nothing is imported, so that a stranger's run can be looked at.

  Args:
    config: the text of a config.gin; may be empty.
    name: what to call a run that says nothing of itself.

  Returns:
    Agent, game, settings and number of iterations, as in `Run`.
  """
  bindings = identity.bindings(config)
  if not bindings:
    return 'unknown', 'unknown', {'run': texts.line(name)}, None
  named = {
    name: identity.place(bindings, name)
    for name in ('agent', *identity.ENVIRONMENTS)
  }
  environments = identity.environments(bindings)
  played = identity.games(bindings)
  watching = {
    place for name in _WATCHING for place in identity.places(bindings, name)
  }
  settings, num_iterations = {}, None
  for key, value in bindings.items():
    place, _, parameter = key.rpartition('.')
    if place in environments and parameter in identity.GAME:
      continue
    if place in environments:
      settings[f'{environments[place]}.{parameter}'] = value
    elif not place.endswith('Runner'):
      settings |= {} if place in watching else {key: value}
    elif parameter == 'num_iterations':
      whole = value.isdecimal() and len(value) < 10
      num_iterations = int(value) if whole else None
    elif parameter not in (*_NO_RESULT, *identity.ENVIRONMENTS):
      settings[key] = value
  game, _ = played.get('environment', (_class(named['environment']), ''))
  evaluated, parameter = played.get('evaluation_environment', (game, ''))
  if evaluated != game:  # that there are two games is a setting
    settings[f'evaluation_environment.{parameter}'] = evaluated
  if named['evaluation_environment'] != 'unknown':
    settings['evaluation_environment'] = _class(named['evaluation_environment'])
  return _class(named['agent']), game, settings, num_iterations


def _class(place):
  """Returns 'DQN' of 'scope/dqn.DQN'."""
  return place.rpartition('/')[2].rpartition('.')[2]
