"""What contestants share: counting steps, and looking at what they have.

Imported by the Python of every peer, whatever is installed there.
"""

from collections.abc import Iterator, Sequence
import contextlib
import math
import time
from typing import Any

from benchmarks import algorithms
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

  def tick(self, steps: int = 1):
    """Counts an agent step, or those that several environments took at once.

    Raises:
      Finished: if that was the last one.
    """
    self._steps += steps
    if self._steps < self._next:
      return
    now = time.perf_counter()
    if self._started is not None:
      self.rates.append(self._job.window / (now - self._started))
    self._started = now
    self._next += self._job.window
    if len(self.rates) == jobs.WINDOWS:
      raise Finished


@contextlib.contextmanager
def timed(steps: int, rates: list[float]) -> Iterator[None]:
  """Appends the rate of the `steps` that are taken within to `rates`."""
  started = time.perf_counter()
  yield
  rates.append(steps / (time.perf_counter() - started))


def kernels_of(params: Any, num_seeds: int = 1) -> list[tuple[int, ...]]:
  """Returns the shapes of the kernels among JAX parameters.

  Args:
    params: a pytree, with a leading axis of seeds if there are several.
    num_seeds: how many.
  """
  import jax

  shapes = [leaf.shape[num_seeds > 1 :] for leaf in jax.tree.leaves(params)]
  return [shape for shape in shapes if len(shape) > 1]


def with_one_head(
  kernels: Sequence[tuple[int, ...]],
) -> list[tuple[int, ...]]:
  """Returns a policy's kernels, with means and deviations out of one layer.

  Args:
    kernels: in order; the last two are the layers of each.

  Raises:
    ValueError: if these aren't alike.
  """
  *layers, mean, deviation = kernels
  if mean != deviation:
    raise ValueError(f'kernels {kernels} do not end with two heads')
  return [*layers, (mean[0], 2 * mean[1])]


def adam_of(
  optimizer: Any, expected: algorithms.Hyperparameters
) -> dict[str, float]:
  """Returns the rate and epsilon of an optax Adam, read from what it does.

  Its first step on a gradient g is -rate * g / (|g| + epsilon).

  Args:
    optimizer: an optax transformation that is Adam, or clips and is Adam.
    expected: what it should be; only makes the reading precise.
  """
  import jax.numpy as jnp

  large, small = 0.25, expected.adam_epsilon  # too little to be clipped
  params = jnp.zeros(2)
  gradients = jnp.array([large, small])
  changes, _ = optimizer.update(gradients, optimizer.init(params), params)
  large_step, small_step = -changes.astype(float)
  # Two equations, two unknowns.
  ratio = float(large_step / small_step)
  epsilon = large * small * (ratio - 1) / (large - small * ratio)
  return {
    'learning_rate': float(large_step) * (1 + epsilon / large),
    'adam_epsilon': epsilon,
  }


def three_adams(
  policy: dict[str, float],
  critics: dict[str, float],
  temperature: dict[str, float],
) -> dict[str, float]:
  """Returns SAC's, given what `adam_of` returns of each.

  Raises:
    ValueError: if their epsilons aren't the same.
  """
  for other in (critics, temperature):
    if not math.isclose(
      other['adam_epsilon'], policy['adam_epsilon'], rel_tol=1e-3
    ):
      raise ValueError(f'Adams of several epsilons: {policy} and {other}')
  return policy | {
    'critic_learning_rate': critics['learning_rate'],
    'temperature_learning_rate': temperature['learning_rate'],
  }


def max_norm_of(optimizer: Any) -> float:
  """Returns what an optax Adam, first, clips a gradient to: 0.1 is its mean."""
  import jax.numpy as jnp
  import optax

  params = jnp.zeros(2)
  gradients = jnp.array([100.0, 0.0])
  _, state = optimizer.update(gradients, optimizer.init(params), params)
  return float(optax.tree.get(state, 'mu')[0]) / 0.1
