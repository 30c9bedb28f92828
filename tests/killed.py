"""`dopamine-jax` in a process that kills itself at a chosen moment.

    python tests/killed.py PHASE NUMBER COUNTS train ...

Moments are counted from the process's start: what it does with files of the
run while it starts and while it saves, steps of environments and chunks while
it trains and evaluates. NUMBER 0 kills nothing, and leaves in the file COUNTS
how many moments each phase had.
"""

import collections
import contextlib
import json
import os
import pathlib
import signal
import sys

from dopamine_jax.checkpoints import checkpoints
from dopamine_jax.commands import cli
from dopamine_jax.engines import compiled
from dopamine_jax.engines import evaluation
from dopamine_jax.engines import offline
from dopamine_jax.engines import python_engine
from dopamine_jax.environments import gym_vector
from dopamine_jax.environments import native
from dopamine_jax.metrics import csv_file

# What Python reports before it does it, see `sys.addaudithook`.
FILE_EVENTS = {
  *('open', 'os.mkdir', 'os.rename', 'os.remove', 'os.rmdir'),
  *('os.link', 'os.truncate', 'shutil.rmtree'),
}
# While these run, it is their phase.
PHASES = {
  (python_engine.PythonEngine, 'run'): 'training',
  (compiled.CompiledEngine, 'run'): 'training',
  (offline.OfflineEngine, 'run'): 'training',
  (checkpoints.Checkpoints, 'save'): 'saving',
  (evaluation.Evaluator, 'run'): 'evaluation',
  (csv_file.CSV, 'write'): 'metrics',
}
# Each call of these is a moment of the phase in which it happens.
MOMENTS = (
  (gym_vector.GymVector, 'step'),
  (native.NativeVector, 'step'),
  (compiled.CompiledEngine, '_run_chunk'),
)
START = 'start-up'


class Moments:
  """Counts them, and dies at one.

  Attributes:
    phase: what the process does now.
    counts: moments so far, by phase.
  """

  def __init__(self, phase: str, number: int):
    self.phase = START
    self.counts = collections.Counter()
    self._last = phase, number

  def next(self):
    """Counts one; doesn't return from the last."""
    self.counts[self.phase] += 1
    if (self.phase, self.counts[self.phase]) == self._last:
      os.kill(os.getpid(), signal.SIGKILL)

  @contextlib.contextmanager
  def within(self, phase: str):
    """Is in a phase; what comes after the first one is no start any more."""
    before = 'between' if self.phase == START else self.phase
    self.phase = phase
    try:
      self.next()
      yield
    finally:
      self.phase = before


def watch(moments: Moments, folder: str):
  """Has the framework's methods and files of a folder tell their moments."""
  compiled.LONGEST = 8  # so that many chunks make an iteration

  def in_phase(original, phase):
    def wrapped(*args, **kwargs):
      with moments.within(phase):
        return original(*args, **kwargs)

    return wrapped

  def at_moment(original):
    def wrapped(*args, **kwargs):
      moments.next()
      return original(*args, **kwargs)

    return wrapped

  def on_event(event, args):
    if event in FILE_EVENTS and moments.phase in (START, 'saving'):
      if any(str(each).startswith(folder) for each in args):
        moments.next()

  for (owner, name), phase in PHASES.items():
    setattr(owner, name, in_phase(getattr(owner, name), phase))
  for owner, name in MOMENTS:
    setattr(owner, name, at_moment(getattr(owner, name)))
  sys.addaudithook(on_event)


def main(phase: str, number: str, counts: str, *command: str) -> int:
  """Runs the command line; returns its status if it lives."""
  folder = pathlib.Path(command[command.index('--base_dir') + 1]).absolute()
  moments = Moments(phase, int(number))
  watch(moments, str(folder))
  sys.argv = ['dopamine-jax', *command]
  status = cli.main()
  pathlib.Path(counts).write_text(json.dumps(moments.counts))
  return status


if __name__ == '__main__':
  sys.exit(main(*sys.argv[1:]))
