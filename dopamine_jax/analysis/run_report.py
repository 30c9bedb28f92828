"""What can be said of one training, gathered from its folder.

Nothing that the run's files name is imported. What is missing or damaged is
said, and the rest is used.
"""

from collections.abc import Mapping, Sequence
import csv
import io
import itertools
import json
import os
import pathlib
import re
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from dopamine_jax import errors
from dopamine_jax.analysis import curves as curves_lib
from dopamine_jax.analysis import groups as groups_lib
from dopamine_jax.analysis import runs as runs_lib
from dopamine_jax.metrics import base
from dopamine_jax.metrics import csv_file
from dopamine_jax.system import safe_files
from dopamine_jax.system import texts
from dopamine_jax.training import identity

RETURNS = ('Train/AverageReturns', 'Eval/AverageReturns')
_KNOWN = ('dopamine_jax', '__gin__', 'gin', 'jax', 'flax', 'optax', 'rlax')


class Report(NamedTuple):
  """One training.

  Attributes:
    folder: of the run.
    title: what its gin file calls it; may be empty.
    agent: the class's name.
    game: the environment's name.
    config: the text of config.gin; empty if it is missing.
    seeds: S of them.
    versions: of libraries, by name; empty if not recorded.
    events: as `run_folder.add_event` writes them, oldest first.
    num_iterations: how many it is to have; None if unknown.
    table: the columns seed, iteration, agent_steps, metric and value.
    evaluation: the columns seed, episode, return and length; or None.
    warnings: what a reader has to know.
    lineage: the run and iteration that it was started from, and those that this
      was started from, and so on; empty if it began by itself.
    ended_by: which callback ended it before that, and why; '' if none did.
  """

  folder: pathlib.Path
  title: str
  agent: str
  game: str
  config: str
  seeds: Sequence[int]
  versions: Mapping[str, str]
  events: Sequence[Mapping[str, Any]]
  num_iterations: int | None
  table: pd.DataFrame
  evaluation: pd.DataFrame | None
  warnings: Sequence[str]
  lineage: Sequence[str] = ()
  ended_by: str = ''

  @property
  def iteration(self) -> int:
    """The last one that has ended; 0 if none has."""
    return 0 if self.table.empty else int(self.table.iteration.max())

  @property
  def agent_steps(self) -> int:
    """Of each seed, until then."""
    return 0 if self.table.empty else int(self.table.agent_steps.max())

  @property
  def finished(self) -> bool | None:
    """Whether it is done with its iterations; None if nobody knows."""
    if self.ended_by:
      return True
    if self.num_iterations is None:
      return None
    return self.iteration >= self.num_iterations

  @property
  def seconds(self) -> float | None:
    """That training took, without evaluations and checkpoints."""
    rates = self.values('Train/AverageStepsPerSecond').groupby('iteration')
    steps = self.table.groupby('iteration').agent_steps.max().diff()
    if not len(rates):
      return None
    steps = steps.fillna(self.table.agent_steps.min())
    return float((steps * len(self.seeds) / rates.value.first()).sum())

  def values(self, metric: str) -> pd.DataFrame:
    """Returns the rows of a metric."""
    return self.table[self.table.metric == metric]

  def curve(self, metric: str, say=lambda _: None) -> curves_lib.Curve | None:
    """Returns a metric [T, S] where all seeds have it, or None."""
    table = self.values(metric)
    table = table[np.isfinite(table.value)]
    if table.empty:
      return None
    table = table.assign(run='run', game=self.game, agent=self.agent)
    group = groups_lib.Group(metric, [], table)
    try:
      (curve,) = curves_lib.of_groups([group], metric, say)[metric].values()
    except errors.UserError:  # it has said why
      return None
    return curve

  def metrics(self) -> list[str]:
    """Returns the tags that there are, in the order of the file."""
    return list(dict.fromkeys(self.table.metric))

  def foreign_imports(self) -> list[str]:
    """Returns the modules that the configuration needs beside the framework."""
    lines = re.findall(
      r'^(?:from ([\w.]+) )?import ([\w.]+)', self.config, re.MULTILINE
    )
    names = ['.'.join(filter(None, words)) for words in lines]
    return [name for name in names if name.partition('.')[0] not in _KNOWN]


def gather(base_dir: str | pathlib.Path) -> Report:
  """Reads what a run's folder holds.

  Raises:
    UserError: if there is no number to draw.
  """
  folder = pathlib.Path(base_dir)
  if not os.path.isdir(folder):  # pathlib raises where a name is too long
    raise errors.UserError(
      f'{folder} is not there. Give the --base_dir of a training.'
    )
  warnings = []
  table = _numbers(folder, warnings)
  evaluation = _evaluation(folder, warnings)
  if table.empty and evaluation is None:
    raise errors.UserError(_nothing(folder, warnings))
  facts = _facts(folder, warnings)
  config = _config(folder, warnings)
  agent, game, _, num_iterations = runs_lib.identify(config, folder.name)
  seeds = sorted(
    {*table.seed, *([] if evaluation is None else evaluation.seed)}
  )
  report = Report(
    folder=folder,
    title=str(facts.get('title') or ''),
    agent=agent,
    game=game,
    config=config,
    seeds=[int(seed) for seed in seeds],
    versions=_mapping(facts.get('versions')),
    events=[_mapping(e) for e in _sequence(facts.get('events'))],
    num_iterations=num_iterations,
    table=table,
    evaluation=evaluation,
    warnings=warnings,
    lineage=_lineage(facts),
    ended_by=texts.line(str(facts.get('ended_by') or '')),
  )
  return report._replace(
    warnings=[*_state(report), *warnings, *_doubts(report, facts)]
  )


def _nothing(folder, warnings):
  """Says why there is no page."""
  if warnings:
    return '\n'.join(warnings)
  if (folder / 'config.gin').exists():
    return (
      f'{folder} has no number to report yet: it has not ended an iteration, '
      'or csv_file.CSV is not among its collectors.'
    )
  below = [path.parent for path in sorted(folder.glob('*/metrics.csv'))]
  if below:
    return (
      f'{folder} holds no run itself. A report is of one: give '
      f'{" or ".join(str(path) for path in below[:5])}. `dopamine-jax compare '
      f'{folder}` shows several.'
    )
  return f'{folder} holds no run. Give the --base_dir of a training.'


def _numbers(folder, warnings):
  """Returns metrics.csv, or of a damaged one the lines that can be read."""
  columns = ['seed', 'iteration', 'agent_steps', 'metric', 'value']
  empty = pd.DataFrame(columns=columns).astype({'value': float})
  path = folder / 'metrics.csv'
  if not path.exists():
    if (folder / 'evaluation.csv').exists():
      warnings.append('There is no metrics.csv, and so no curve.')
    return empty
  try:
    if fault := csv_file.altered(path):
      warnings.append(f'{fault}: what follows is of what is there.')
    return runs_lib.read_table(path)
  except errors.UserError as error:
    rows, bad = _salvage(path)
    if not rows:
      warnings.append(str(error))
      return empty
  where = f', the first is line {bad[0]}' if bad else ''
  warnings.append(
    f'metrics.csv is damaged: {len(bad)} of its {len(bad) + len(rows)} rows '
    f'were left out{where}.'
  )
  return pd.DataFrame(rows, columns=columns)


def _salvage(path):
  """Returns the rows that are whole, and the numbers of the other lines."""
  rows, bad = {}, []
  try:
    data = safe_files.read(path, runs_lib.MAX_TABLE)
  except (OSError, errors.UserError):
    return [], bad
  text = data.decode('utf-8-sig', errors='replace')
  header, *lines = text.split('\n')[:-1] or ['']
  if header != ','.join(base.Statistic._fields):
    return [], bad
  for number, line in enumerate(lines, 2):
    try:
      ((seed, iteration, steps, _, name, value),) = csv.reader([line])
      row = int(seed), int(iteration), int(steps), name, float(value)
      if not name or '\N{REPLACEMENT CHARACTER}' in name or '\0' in name:
        raise ValueError
      if not all(0 <= number < 2**53 for number in row[:3]):
        raise ValueError
    except (ValueError, csv.Error):
      bad.append(number)
      continue
    if rows.setdefault((row[0], row[1], name), row) is not row:
      bad.append(number)
  return [(*row[:3], texts.line(row[3]), row[4]) for row in rows.values()], bad


def _evaluation(folder, warnings):
  path = folder / 'evaluation.csv'
  columns = ['seed', 'episode', 'return', 'length']
  try:
    text = safe_files.read_text(path, runs_lib.MAX_TABLE)
    table = pd.read_csv(io.StringIO(text), low_memory=False)[columns]
    runs_lib.check_numbers(table, ('seed', 'episode', 'length'), ('return',))
    table = table.astype({'return': float})
    if table.empty or not np.isfinite(table['return']).all():
      raise ValueError('it has no episode, or one without a return')
  except FileNotFoundError:
    return None
  except (
    *(OSError, ValueError, KeyError, OverflowError, errors.UserError),
  ) as error:
    why = texts.line(str(error))[:200].rstrip('.')
    warnings.append(f'evaluation.csv can not be read, and is left out: {why}.')
    return None
  metrics = folder / 'metrics.csv'
  if metrics.exists() and metrics.stat().st_mtime > path.stat().st_mtime:
    warnings.append(
      'evaluation.csv is older than the newest metrics: it may be of an '
      'earlier checkpoint. `dopamine-jax evaluate` makes it anew.'
    )
  return table


def _facts(folder, warnings):
  try:
    text = safe_files.read_text(folder / 'run.json', runs_lib.MAX_TEXT)
    facts = json.loads(text)
    if not isinstance(facts, dict):
      raise ValueError('expected an object')
    return facts
  except FileNotFoundError:
    warnings.append('There is no run.json: versions and seeds are unknown.')
  except errors.UserError as error:
    warnings.append(str(error))
  except (ValueError, RecursionError) as error:
    why = texts.line(str(error))[:200].rstrip('.')
    warnings.append(f'{folder}/run.json can not be read: {why}.')
  return {}


def _lineage(facts):
  """Returns what a run was started from, the nearest first."""
  found = []
  while facts := _mapping(facts.get('started_from')):
    what = ', '.join(map(str, _sequence(facts.get('names'))))
    what = f': {what}' if what else ''
    run, iteration = facts.get('run'), facts.get('iteration')
    found.append(texts.line(f'{run}, iteration {iteration}{what}'))
  return found


def _config(folder, warnings):
  try:
    text = safe_files.read_text(folder / 'config.gin', runs_lib.MAX_TEXT)
    if fault := identity.edited(folder / 'config.gin', text):
      warnings.append(f'{fault}: undo what was changed in it.')
    return text
  except FileNotFoundError:
    warnings.append(
      'There is no config.gin: neither agent nor environment are known, and '
      'the run can not be repeated.'
    )
  except errors.UserError as error:
    warnings.append(str(error))
  return ''


def _state(report):
  """Yields whether it ended well, the most important first."""
  last = report.events[-1] if report.events else {}
  if last.get('event') == 'stopped':
    yield f'The run stopped: {last.get("why") or "why is not recorded"}'
  if report.finished is False:
    unended = last.get('event') in ('started', 'resumed')
    yield (
      f'The run is not finished: {report.iteration} of '
      f'{report.num_iterations} iterations.'
      + (' It is still training, or was killed.' if unended else '')
    )


def _doubts(report, facts):
  """Yields what weakens the numbers."""
  if len(report.seeds) == 1:
    yield (
      'One seed only: no interval can be given, and another seed may do much '
      'better or worse. Train several (--num_seeds 5).'
    )
  missing = set(map(str, _sequence(facts.get('seeds')))) - set(
    map(str, report.seeds)
  )
  if missing:
    yield f'There is no number of seed {", ".join(sorted(missing))}.'
  infinite = report.table[~np.isfinite(report.table.value)]
  if len(infinite):
    names = ', '.join(sorted(set(infinite.metric)))
    yield f'Not finite, and not drawn: {len(infinite)} numbers of {names}.'
  for event in report.events:
    for iteration in _sequence(event.get('damaged')):
      yield (
        f'The checkpoint of iteration {iteration} was damaged: the run went on '
        f'from iteration {event.get("iteration")}.'
      )
  yield from _changes(report.events)


def _changes(events):
  """Yields what differed from one start of the run to the next."""
  starts = [e for e in events if e.get('event') in ('started', 'resumed')]
  for before, after in itertools.pairwise(starts):
    for what in ('versions', 'machine'):
      old, new = _mapping(before.get(what)), _mapping(after.get(what))
      changed = [
        f'{key} {old.get(key)} -> {new.get(key)}'
        for key in new
        if old.get(key) != new[key]
      ]
      if changed:
        yield (
          f'When it was resumed after iteration {after.get("iteration")}, '
          f'{", ".join(changed)} had changed.'
        )


def _mapping(value):
  return value if isinstance(value, dict) else {}


def _sequence(value):
  return value if isinstance(value, list) else []
