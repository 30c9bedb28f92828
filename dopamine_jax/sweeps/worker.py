"""A worker: takes a pack of trials, trains it, notes what came of it."""

from collections.abc import Callable
import math
import pathlib
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
from dopamine_jax.training import run_folder

FAILURES = 'failures'  # a folder: tracebacks
_LOGS = 'logs'  # a folder: what is said of each pack


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
    self.search = searches.of(
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
    self._append(
      plan.advance(self.study, self.state, self.search, self._scheduler)
    )  # which the state has taken

  def take(self) -> plan.Pack | None:
    """Takes a pack that is to be trained; None if others train all."""
    with self.journal.locked():
      self.advance()
      while True:
        taken = self.leases.take(self.state.waiting(), self._progress)
        if not isinstance(taken, leases_lib.Lost):
          return taken
        self._fail(
          taken.pack,
          f'its process was killed {taken.count} times without a checkpoint '
          'more: for want of memory?',
        )
        self.advance()

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
      self.state.take(results)
      self._append(results)
      self.advance()
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
      self._fail(pack, why)
      self.advance()
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

  def is_complete(self) -> bool:
    """Whether nothing is left to do, as the journal was read last."""
    return plan.is_complete(self.state, self.search)

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
    runners = {}
    for number in pack.trials:
      trial = state.trials[number]
      parent = None if trial.parent is None else self.path(trial.parent)
      runners[trial.name] = study.runner(trial.settings, parent)
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

  def _score(self, trial, rung):
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

  def _fail(self, pack, why):
    records = plan.failed(self.state, pack, why)
    self.state.take(records)
    self._append(records)

  def _append(self, records):
    """Appends events, of which the state knows."""
    self.journal.append(records)
    self._seen += len(records)


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
    say(f'Pack {pack.name} has failed: {errors.told(error)}')
    sweep.fail(pack, error)
  else:
    sweep.end(pack, scores)
