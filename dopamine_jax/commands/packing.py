"""How many trials of a sweep train in one program on this machine.

Many at once save calls, and the start of a program for each pack and rung: to
trace and compile it. Few decide earlier, and need less memory.
"""

from collections.abc import Callable
import math
import time
from typing import Any

from dopamine_jax.commands import doctor
from dopamine_jax.sweeps import study as study_lib

_MOST = 64  # trials: more gain nothing, and their decisions come late
_ROUNDS = 8  # in which a search that learns asks, at least
_SHARE = 0.5  # of the memory that is free
_SECONDS = 1.0  # of each timing
_SHORT = 300.0  # seconds; a sweep that is done by then is not measured further
_GOOD = 0.9  # of the best speed is enough: small packs decide earlier


def size(
  runner: Any,
  study: study_lib.Study,
  workers: int,
  say: Callable[[str], None],
) -> int:
  """Returns the trials of a pack, by memory and a short measurement.

  Args:
    runner: the settings of a trial, a `runner.Runner`.
    study: the sweep.
    workers: processes that train at the same time.
    say: is told of what was found.
  """
  parts = workers * (_ROUNDS if study.search == 'tpe' else 1)
  most = min(_MOST, math.ceil(study.trials / parts))
  one = doctor.memory(runner, study.num_seeds)
  needed = (one.replay_bytes + one.other_bytes) * workers
  most = max(1, min(most, int(one.available_bytes * _SHARE / needed)))
  if most == 1:
    return 1
  speeds = {}
  for trials in dict.fromkeys((most, max(1, most // 4), 1)):
    seconds = _seconds(runner, study, trials)
    speeds[trials] = trials / seconds
    if trials == most and study.trials / speeds[most] < _SHORT * workers:
      break
  good = _GOOD * max(speeds.values())
  chosen = min(trials for trials, speed in speeds.items() if speed >= good)
  say(
    f'{chosen} trials train in one program: measured on this machine. --pack '
    f'{chosen} does without the measurement.'
  )
  return chosen


def _seconds(runner, study, trials):
  """Returns what a pack would take to the first rung, its start included."""
  began = time.monotonic()
  found = doctor.examine(runner, trials * study.num_seeds, _SECONDS)
  # Each of its two programs is timed for a second, about.
  start = max(0.0, time.monotonic() - began - 2 * _SECONDS)
  return start + found.seconds * study.rungs[0] / study.rungs[-1]
