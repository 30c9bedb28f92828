"""Milliseconds of an update of a shipped config, with acting and all."""

import time

import numpy as np

from benchmarks import jobs
from benchmarks import ours

PACKAGES = ours.PACKAGES


def measure(
  job: jobs.Job, config: str, bindings: list[str]
) -> tuple[list[float], None]:
  """Returns milliseconds of each window, and no hyper-parameters.

  Args:
    job: its warm-up and windows are of agent steps in which it learns.
    config: the config's name; it learns from a prioritized replay.
    bindings: further ones.
  """
  history = 50  # agent steps, more than an update looks ahead
  bindings = [
    *bindings,
    f'prioritized.PrioritizedReplay.min_history = {history}',
    'runner.Runner.evaluation_episodes = 0',
    'runner.Runner.callbacks = ()',
  ]
  times = []
  with ours.trained([config], bindings) as (one, run):
    run(history + job.warmup)
    for _ in range(jobs.WINDOWS):
      before, began = _updates(one), time.perf_counter()
      run(job.window)
      seconds = time.perf_counter() - began
      times.append(1e3 * seconds / (_updates(one) - before))
  return times, None


def _updates(one) -> int:
  return int(np.max(one.engine.state.updates))
