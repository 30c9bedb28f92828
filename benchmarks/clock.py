"""How a contestant's process counts steps and says what it found.

Imported by the Python of every peer: needs nothing but Python itself.
"""

import dataclasses
import importlib.metadata
import json
import pathlib
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks import jobs


class Finished(Exception):
  """The last window is full: whoever steps may stop."""


class Clock:
  """Turns agent steps into rates, window by window.

  Attributes:
    rates: agent steps a second of each full window.
  """

  def __init__(self, job: jobs.Job):
    self._job = job
    self._steps = 0
    self._next = job.warmup
    self._started = None
    self.rates: list[float] = []

  def tick(self):
    """Counts one agent step.

    Raises:
      Finished: if that was the last one.
    """
    self._steps += 1
    if self._steps < self._next:
      return
    now = time.perf_counter()
    if self._started is not None:
      self.rates.append(self._job.window / (now - self._started))
    self._started = now
    self._next += self._job.window
    if len(self.rates) == jobs.WINDOWS:
      raise Finished


def main(
  measure: Callable[..., tuple[list[float], dict[str, Any]]],
  packages: list[str],
):
  """Runs `python -m SCRIPT JOB ARGUMENTS RESULT`, as the parent starts it.

  Args:
    measure: takes a Job and arguments; returns the row's values and the
      hyper-parameters that were really in force.
    packages: whose versions the table should name.
  """
  name, arguments, result = sys.argv[1:]
  values, hyperparameters = measure(jobs.JOBS[name], **json.loads(arguments))
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  report = {
    'values': values,
    'hyperparameters': hyperparameters,
    'memory': peak * (1 if sys.platform == 'darwin' else 1024),  # bytes
    'versions': {name: importlib.metadata.version(name) for name in packages},
  }
  pathlib.Path(result).write_text(json.dumps(report))


def kernels_of(params: Any) -> list[tuple[int, ...]]:
  """Returns the shapes of the kernels among JAX parameters."""
  import jax

  return [leaf.shape for leaf in jax.tree.leaves(params) if leaf.ndim > 1]


def adam_of(optimizer: Any, expected: jobs.Hyperparameters) -> dict[str, float]:
  """Returns the rate and epsilon of an optax Adam, read from what it does.

  Its first step on a gradient g is -rate * g / (|g| + epsilon).

  Args:
    optimizer: an optax transformation that is Adam.
    expected: what it should be; only makes the reading precise.
  """
  import jax.numpy as jnp

  small = expected.adam_epsilon
  params = jnp.zeros(2)
  gradients = jnp.array([1.0, small])
  changes, _ = optimizer.update(gradients, optimizer.init(params), params)
  large_step, small_step = -changes.astype(float)
  # Two equations, two unknowns.
  ratio = float(large_step / small_step)
  epsilon = small * (ratio - 1) / (1 - small * ratio)
  return {
    'learning_rate': float(large_step) * (1 + epsilon),
    'adam_epsilon': epsilon,
  }
