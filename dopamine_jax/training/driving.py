"""Who runs the engine for a training, or for several that share one."""

from collections.abc import Iterator
import contextlib
import time

import jax
import numpy as np

from dopamine_jax.engines import counting


def alone(training, stop) -> dict[str, np.ndarray]:
  """Runs a training's iterations; returns the last one's statistics.

  Args:
    training: a `training.Training`, prepared.
    stop: whether the user asked to stop.
  """
  going = training.iterations(stop)
  cut_with = ask(going)
  while training.goes_on:
    with passing_on(going):
      metrics, seconds = timed_run(training.engine, training, cut_with)
    ask(going, (metrics, seconds))  # it saves
    cut_with = ask(going)
  return training.statistics


def timed_run(engine, training, cut_with):
  """Returns an iteration's metrics, and the seconds that the engine took.

  Args:
    engine: which may be several trainings'.
    training: one of them.
    cut_with: see `Engine.run`.
  """
  started = time.perf_counter()
  num_steps = training.runner.training_steps
  counting.go_back(engine, num_steps)
  metrics = engine.run(
    num_steps,
    cut_with=cut_with,
    on_step=training.on_training_step,
  )
  jax.block_until_ready(engine.state)
  return metrics, time.perf_counter() - started


@contextlib.contextmanager
def passing_on(*going: Iterator) -> Iterator[None]:
  """Raises what is raised inside in the trainings that wait, too."""
  try:
    yield
  except BaseException as error:
    for each in going:
      with contextlib.suppress(type(error)):
        each.throw(error)
    raise


def ask(
  going: Iterator, result: tuple[dict[str, np.ndarray], float] | None = None
):
  """Returns what a training wants next; None at its end.

  In a generator Python makes an error of a user's StopIteration.

  Args:
    going: see `training.Training.iterations`.
    result: what came of an iteration of the engine, if it ran one.
  """
  try:
    return going.send(result)
  except StopIteration:
    return None
  except RuntimeError as error:
    if isinstance(error.__cause__, StopIteration):
      raise error.__cause__ from None
    raise
