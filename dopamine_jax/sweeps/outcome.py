"""What has come of a sweep, read from its folder for a report.

Nothing that its files name is imported: the folder may be a stranger's. What
only some runs lack is said, and the rest is used.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import itertools
import math
import pathlib
from typing import Any, NamedTuple

import numpy as np

from dopamine_jax import errors
from dopamine_jax.analysis import curves as curves_lib
from dopamine_jax.analysis import groups as groups_lib
from dopamine_jax.analysis import runs as runs_lib
from dopamine_jax.metrics import intervals
from dopamine_jax.sweeps import journal as journal_lib
from dopamine_jax.sweeps import plan
from dopamine_jax.sweeps import spaces
from dopamine_jax.sweeps import study as study_lib
from dopamine_jax.system import safe_files
from dopamine_jax.system import texts

_DAMAGES = (
  *(KeyError, TypeError, ValueError, IndexError, AttributeError),
  *(OverflowError, RecursionError),
)
_MOST = 2**53  # agent steps
_LARGEST = 1e100  # of scores: what is as large overflows where it is squared


class Trial(NamedTuple):
  """A trial, and what it has reached.

  Attributes:
    number: counted from 0.
    name: of its folder.
    settings: values by the names of settings.
    parent: the trial that it went on from; None: it began anew.
    began: the rung at which it began; -1: before the first.
    rung: the last one that it has reached; -1: none.
    steps: agent steps of each seed until there.
    scores: [S] there; empty without a rung.
    interval: of their mean.
    end: 'finished', 'stopped', 'given up' or 'not finished'.
    why: it ended, in a line; may be empty.
    curve: the metric over agent steps; None if the run's numbers can't be read.
  """

  number: int
  name: str
  settings: Mapping[str, Any]
  parent: int | None
  began: int
  rung: int
  steps: int
  scores: np.ndarray
  interval: intervals.Interval
  end: str
  why: str
  curve: curves_lib.Curve | None

  @property
  def label(self) -> str:
    """Its number as its folder has it."""
    return f'{self.number:04}'

  @property
  def mean(self) -> float:
    """The mean of its scores; NaN without."""
    return float(self.interval.value)


class Outcome(NamedTuple):
  """A sweep's definition and trials.

  Attributes:
    folder: of the sweep.
    study: its definition.
    state: what its journal tells.
    trials: those that have reached a rung, the best first: those that went
      further, then those with the higher mean.
    others: those that have reached none.
    agent: the class's name; 'unknown' if no run tells.
    game: the environment's name; see there.
    warnings: what a reader has to know.
  """

  folder: pathlib.Path
  study: study_lib.Study
  state: plan.State
  trials: Sequence[Trial]
  others: Sequence[Trial]
  agent: str
  game: str
  warnings: Sequence[str]

  @property
  def is_complete(self) -> bool:
    """Whether nothing is left to train."""
    return plan.is_complete(self.study, self.state)

  @property
  def agent_steps(self) -> int:
    """All that were trained up to a rung, of all seeds."""
    total = 0
    for each in self.trials:
      begun = self.steps(each.began)
      total += max(0, each.steps - begun) * self.study.num_seeds
    return total

  def steps(self, rung: int) -> int:
    """Returns the agent steps of a seed up to a rung; 0 before the first."""
    if rung < 0:
      return 0
    return self.study.rungs[rung] * self.study.training_steps

  def values(self, setting: str) -> list[tuple[Trial, Any]]:
    """Returns the ranked trials that have a setting, with its value."""
    return [
      (x, x.settings[setting]) for x in self.trials if setting in x.settings
    ]


def gather(folder: pathlib.Path) -> Outcome:
  """Reads what a sweep's folder holds.

  Raises:
    UserError: if it holds no sweep, or nothing can be told of it yet.
  """
  study = study_lib.read(folder)
  records = journal_lib.Journal(folder).read()
  try:
    _check_study(study)
    state = plan.State(rungs=len(study.rungs))
    state.take(records)
    _check_state(study, state)
  except _DAMAGES as error:
    raise errors.UserError(
      f'the sweep in {folder} can not be read: {errors.described(error)}. '
      'Bring back the files that the sweep wrote.'
    ) from error
  if not state.scores and not state.given_up:
    raise errors.UserError(
      f'{folder} has nothing to report yet: no trial has reached a rung. '
      f"'dopamine-jax sweep status {folder}' shows how far it is."
    )
  warnings = []
  why = {
    each['trial']: texts.line(str(each.get('why', '')))
    for each in records
    if each['event'] in ('stopped', 'given_up')
  }
  found = [_trial(folder, study, state, x, why, warnings) for x in state.trials]
  ranked = sorted((x for x in found if x.rung >= 0), key=_order)
  agent, game = _identity(folder, ranked)
  if len(warnings) > 3:
    warnings[3:] = [f'{len(warnings) - 3} more runs can not be read.']
  if study.num_seeds == 1:
    warnings.append(
      'One seed of each trial: no interval can be given, and what is best may '
      'be so by chance.'
    )
  others = [x for x in found if x.rung < 0]
  return Outcome(folder, study, state, ranked, others, agent, game, warnings)


def _order(trial):
  mean = -math.inf if math.isnan(trial.mean) else trial.mean
  return -trial.rung, -mean, trial.number


def _trial(folder, study, state, trial, why, warnings):
  """Returns a trial with what it has reached."""
  number = trial.number
  rung = max((r for t, r in state.scores if t == number), default=-1)
  scores = state.scores[number, rung] if rung >= 0 else np.empty(0)
  steps = study.rungs[rung] * study.training_steps if rung >= 0 else 0
  curve = None
  if rung >= 0:
    curve = _curve(folder / trial.name, study, warnings)
  seen = ()
  if curve is not None and curve.is_return and curve.steps[0] <= steps:
    seen = (curve.until(steps).values.min(), curve.until(steps).values.max())
  interval = intervals.of_mean(scores, *seen) if rung >= 0 else _nothing()
  end = 'not finished'
  if number in state.given_up:
    end = 'given up'
  elif number in state.stopped:
    end = 'stopped'
  elif rung == len(study.rungs) - 1:
    end = 'finished'
  return Trial(
    *(number, trial.name, trial.settings, trial.parent, trial.rung),
    *(rung, steps, scores, interval, end, why.get(number, ''), curve),
  )


def _nothing():
  return intervals.Interval(*[np.float64(np.nan)] * 3)


def _curve(folder, study, warnings):
  """Returns the metric of a run, [T, S]; None if it can't be read."""
  try:
    table = runs_lib.read_table(folder / 'metrics.csv')
    table = table[table.metric == study.metric]
    table = table[np.isfinite(table.value)]
    if table.empty:
      return None
    table = table.assign(run='', game='', agent='')
    group = groups_lib.Group('', [], table)
    curves = curves_lib.of_groups([group], study.metric, lambda line: None)
  except errors.UserError as error:
    warnings.append(str(error))
    return None
  return curves['']['']


def _identity(folder, trials):
  """Returns agent and game of the first run that tells."""
  for each in trials[:3]:
    try:
      text = safe_files.read_text(
        folder / each.name / 'config.gin', runs_lib.MAX_TEXT
      )
    except (errors.UserError, OSError):
      continue
    agent, game, _, _ = runs_lib.identify(text, each.name)
    return agent, game
  return 'unknown', 'unknown'


def _check_study(study):
  """Refuses a definition that no sweep has written; raises ValueError."""
  kinds = {int: int, str: str}
  for field in dataclasses.fields(study):
    value = getattr(study, field.name)
    kind = kinds.get(field.type, tuple)
    if type(value) is not kind:
      raise ValueError(f'{field.name} is {value!r}')
  rungs = study.rungs
  are_whole = all(type(x) is int and x > 0 for x in rungs)
  if not rungs or not are_whole or [*rungs] != sorted({*rungs}):
    raise ValueError(f'rungs are {rungs!r}')
  for name in ('files', 'bindings', 'space'):
    if not all(isinstance(x, str) for x in getattr(study, name)):
      raise ValueError(f'{name} are {getattr(study, name)!r}')
  counts = study.training_steps, study.num_seeds, study.last, study.reduction
  if min(counts) < 1 or max(*counts, rungs[-1] * study.training_steps) > _MOST:
    raise ValueError('a count is below 1, or too large')
  assert study.dimensions  # which raises if it can't be meant


def _check_state(study, state):
  """Refuses a journal that no sweep has written; raises ValueError."""
  for i, each in enumerate(state.trials):
    parts = pathlib.PurePath(str(each.name)).parts
    if each.number != i or parts != (each.name,) or each.name == '..':
      raise ValueError(f'trial {i} is called {each.name!r}')
    _check_settings(study, each)
    if each.parent is not None and not 0 <= each.parent < i:
      raise ValueError(f'trial {i} goes on from {each.parent!r}')
    if not -1 <= each.rung < len(study.rungs):
      raise ValueError(f'trial {i} begins at rung {each.rung!r}')
  numbers = range(len(state.trials))
  for (trial, rung), scores in state.scores.items():
    if trial not in numbers or rung not in range(len(study.rungs)):
      raise ValueError(f'a result of trial {trial!r} at rung {rung!r}')
    if scores.shape != (study.num_seeds,) or (np.abs(scores) > _LARGEST).any():
      raise ValueError(f'trial {trial} has the scores {scores}')
  if not all(type(x) is int for x in state.failures.values()):
    raise ValueError('a number of failures that is none')
  if any(x not in range(len(study.rungs)) for x in state.stopped.values()):
    raise ValueError('a trial stopped at a rung that is not there')
  ended = [*state.stopped, *state.given_up]
  if any(
    each not in numbers for each in itertools.chain(ended, *state.entered)
  ):
    raise ValueError('a trial that is not there')


def _check_settings(study, trial):
  """Refuses settings that are not of the space; raises ValueError."""
  if not isinstance(trial.settings, dict):
    raise ValueError(f'trial {trial.number} has settings {trial.settings!r}')
  for each in study.dimensions:
    if each.setting not in trial.settings:
      continue
    value = trial.settings[each.setting]
    if isinstance(each.domain, spaces.Range) and not (
      type(value) in (int, float) and math.isfinite(each.domain.place(value))
    ):
      raise ValueError(f'{each.setting} of trial {trial.number} is {value!r}')


def dimension(study: study_lib.Study, setting: str) -> spaces.Dimension:
  """Returns what a setting of a sweep may be."""
  return next(x for x in study.dimensions if x.setting == setting)
