"""A worker: takes a pack of trials, trains it, notes what came of it."""

import ast
from collections.abc import Callable, Iterable
import errno
import math
import pathlib
import re
import time
import traceback
from typing import Any

import jax
import numpy as np

from dopamine_jax import errors
from dopamine_jax import variations
from dopamine_jax.metrics import csv_file
from dopamine_jax.sweeps import journal as journal_lib
from dopamine_jax.sweeps import leases as leases_lib
from dopamine_jax.sweeps import plan
from dopamine_jax.sweeps import programs
from dopamine_jax.sweeps import schedulers
from dopamine_jax.sweeps import searches
from dopamine_jax.sweeps import study as study_lib
from dopamine_jax.system import plain_files
from dopamine_jax.training import advice
from dopamine_jax.training import folder_lock
from dopamine_jax.training import run_folder

FAILURES = 'failures'  # a folder: tracebacks
_LOGS = 'logs'  # a folder: what is said of each pack
# What another attempt, or another trial, would meet as well.
_OF_THE_MACHINE = (
  *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO),
  *(errno.EACCES, errno.EPERM),
)
_POLL = 0.5  # seconds
_PATIENCE = 60.0  # seconds, for one before to let go of the runs


class CanNotGoOn(errors.UserError):
  """The sweep can't go on, whichever trial is tried."""


class Sweep:
  """A sweep's folder: what it is, and what has come of it.

  Attributes:
    folder: where it lies.
    study: its definition.
    journal: all that was decided and done.
    state: what the journal tells, as it was read last.
  """

  def __init__(self, folder: pathlib.Path):
    self.folder = folder
    self.study = study_lib.read(folder)
    self.journal = journal_lib.Journal(folder)
    self.leases = leases_lib.Leases(folder)
    self._seen = 0
    self.state = plan.State(rungs=len(self.study.rungs))
    self._search = searches.of(
      self.study, programs.Groups(self.study, self.state)
    )
    self._scheduler = schedulers.of(self.study)

  def look(self) -> plan.State:
    """Reads what is new in the journal."""
    records = self.journal.read()
    try:
      self.state.take(records[self._seen :])
    except (KeyError, TypeError, ValueError, IndexError) as error:
      raise errors.UserError(
        f'the journal in {self.folder} can not be followed: '
        f'{errors.described(error)}. Bring back the file that the sweep wrote.'
      ) from error
    self._seen = len(records)
    return self.state

  def advance(self):
    """Decides what follows; for who holds the journal."""
    self.look()
    self._append(self._follow())

  def take(self) -> plan.Pack | None:
    """Takes a pack that is to be trained; None if others train all."""
    with self.journal.locked():
      self.advance()
      while True:
        taken = self.leases.take(self.state.waiting(), self._progress)
        if not isinstance(taken, leases_lib.Lost):
          return taken
        why = (
          f'its process was killed {taken.count} times without a checkpoint '
          'more: for want of memory?'
        )
        self._note(plan.failed(self.state, taken.pack, why))

  def end(self, pack: plan.Pack, scores: dict[int, np.ndarray]):
    """Notes what a pack has reached.

    Args:
      pack: that was trained.
      scores: [S] by trial.
    """
    with self.journal.locked():
      self.look()
      results = [
        {
          'event': 'result',
          'trial': trial,
          'rung': pack.rung,
          'scores': [None if math.isnan(x) else float(x) for x in each],
        }
        for trial, each in scores.items()
        if not self.state.is_over(trial, pack.rung)
      ]
      self._note(results)
      self.leases.give_back(pack)

  def fail(self, pack: plan.Pack, error: BaseException):
    """Notes that a pack could not be trained, and where its traceback lies."""
    text = ''.join(traceback.format_exception(error))
    self.give_up(pack, errors.told(error), text)

  def give_up(self, pack: plan.Pack, why: str, text: str):
    """Notes that a pack could not be trained: why, and the traceback."""
    with self.journal.locked():
      self.look()
      attempt = self.state.failures.get(pack.name, 0) + 1
      folder = self.folder / FAILURES
      folder.mkdir(exist_ok=True)
      plain_files.write(folder / f'{pack.name}-{attempt}.txt', text.encode())
      self._note(plan.failed(self.state, pack, why))
      self.leases.give_back(pack)

  def log(self, pack: plan.Pack, say: Callable[[str], None]):
    """Returns what notes the words of a training, and says its warnings."""
    folder = self.folder / _LOGS
    folder.mkdir(exist_ok=True)

    def note(message):
      with open(folder / f'{pack.name}.txt', 'a') as file:
        file.write(message + '\n')
      if message.startswith('Warning'):
        say(message)

    return note

  def retry(self) -> int:
    """Has trials that were given up be tried again; returns how many."""
    with self.journal.locked():
      self.look()
      records = [
        {'event': 'retried', 'trial': trial}
        for trial in sorted(self.state.given_up)
      ]
      self._note(records)
      return len(records)

  def is_complete(self) -> bool:
    """Whether nothing is left to do, as the journal was read last."""
    return plan.is_complete(self.study, self.state)

  def path(self, trial: int) -> pathlib.Path:
    """Returns the folder of a trial's run."""
    return self.folder / self.state.trials[trial].name

  def train(self, pack: plan.Pack, say: Callable[[str], None]):
    """Trains a pack up to its rung; returns scores [S] by trial.

    Args:
      pack: to train.
      say: prints what the user should know.
    """
    study, state = self.study, self.state
    await_folders([self.path(each) for each in pack.trials])
    runners = {
      state.trials[each].name: study.runner(
        state.trials[each].settings, self._start(state.trials[each])
      )
      for each in pack.trials
    }
    variations.train(
      runners,
      self.folder,
      seed=study.seed,
      num_seeds=study.num_seeds,
      quiet=True,
      say=say,
      until=study.rungs[pack.rung],
    )
    return {each: self._score(each, pack.rung) for each in pack.trials}

  def _start(self, trial):
    """Returns the run that a trial begins with; None: it begins anew.

    Once it has begun, that is what its record says: the folder of the sweep may
    have another name by now, and nothing of the other run is read any more.
    """
    if trial.parent is None:
      return None
    config = run_folder.read_config(self.folder / trial.name) or ''
    found = re.search(r'StartFrom\.run = (.+)', config)
    if found:
      return ast.literal_eval(found[1])
    return str(self.path(trial.parent).resolve())

  def _score(self, trial, rung):
    path, name = self.path(trial), self.study.metric
    known = csv_file.names(path)
    phase = name.partition('/')[0]
    # Before an episode, or a whole game, has ended nobody knows what there is.
    is_early = f'{phase}/AverageReturns' not in known or 'GameReturn' in name
    if name not in known and not (phase in ('Train', 'Eval') and is_early):
      raise CanNotGoOn(
        f'--metric {name}: no run has a number of it. There are '
        f'{", ".join(sorted(known))}. Begin another sweep with one of them.'
      )
    return csv_file.score(
      self.path(trial),
      self.study.metric,
      self.study.seeds,
      self.study.rungs[rung],
      self.study.last,
    )

  def _progress(self, pack):
    """Returns a number that grows with each checkpoint of a pack."""
    total = 0
    for trial in pack.trials:
      folder = self.path(trial)
      if (folder / 'run.json').exists():
        facts = run_folder.read_facts(folder, lambda line: None)
        total += 1 + facts.get('progress', {}).get('checkpoint', 0)
    return total

  def _note(self, records):
    """Notes events, and at once what follows from them."""
    self.state.take(records)
    self._append([*records, *self._follow()])

  def _follow(self):
    return plan.advance(self.study, self.state, self._search, self._scheduler)

  def _append(self, records):
    """Appends events, of which the state knows."""
    self.journal.append(records)
    self._seen += len(records)


def await_folders(folders: Iterable[pathlib.Path]):
  """Waits, but not for ever, for one that was told to stop and still does."""
  end = time.monotonic() + _PATIENCE
  for folder in folders:
    while folder.exists() and time.monotonic() < end:
      try:
        with folder_lock.open_for_training(folder, lambda line: None):
          break
      except errors.UserError:
        time.sleep(_POLL)


def of_the_machine(error: BaseException) -> bool:
  """Whether a training failed by what is no trial's fault, as a full disk."""
  seen = error
  while seen is not None:
    if isinstance(seen, CanNotGoOn):
      return True
    if isinstance(seen, OSError) and seen.errno in _OF_THE_MACHINE:
      return True
    seen = seen.__cause__
  return False


def work(
  folder: pathlib.Path,
  wait: Callable[[], None],
  say: Callable[[str], None],
):
  """Trains packs until nothing is left.

  Args:
    folder: the sweep's.
    wait: is called where others train all that can be trained now.
    say: prints what the user should know.

  Raises:
    UserError: if the sweep can't be read or written.
    Stopped: after SIGINT, SIGTERM or SIGHUP.
  """
  sweep = Sweep(folder)
  while True:
    pack = sweep.take()
    if pack is None:
      if sweep.is_complete():
        return
      wait()
      continue
    with sweep.leases.kept(pack):
      train(sweep, pack, say)
    jax.clear_caches()  # the next pack has other programs


def train(sweep: Sweep, pack: plan.Pack, say: Callable[[str], None]) -> Any:
  """Trains a pack that was taken, and notes what came of it."""
  try:
    scores = sweep.train(pack, sweep.log(pack, say))
  except advice.Stopped:
    with sweep.journal.locked():
      sweep.leases.give_back(pack)
    raise
  except Exception as error:
    if isinstance(error, folder_lock.Held) or of_the_machine(error):
      with sweep.journal.locked():
        sweep.leases.give_back(pack)
      if isinstance(error, folder_lock.Held):
        return  # and wait once more
      raise
    say(f'Pack {pack.name} has failed: {errors.told(error)}')
    sweep.fail(pack, error)
  else:
    sweep.end(pack, scores)
