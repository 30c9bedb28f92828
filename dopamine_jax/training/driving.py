"""Who runs the engine for a training, or for several that share one."""

from collections.abc import Iterator
import contextlib

import numpy as np


def alone(training, stop) -> dict[str, np.ndarray]:
  """Runs a training's iterations; returns the last one's statistics.

  Args:
    training: a `training.Training`, prepared.
    stop: whether the user asked to stop.
  """
  going = training.iterations(stop)
  cut_with = next(going, None)
  while training.goes_on:
    with passing_on(going):
      metrics = training.engine.run(
        training.runner.training_steps,
        cut_with=cut_with,
        on_step=training.on_training_step,
      )
    cut_with = send(going, metrics)
  return training.statistics


@contextlib.contextmanager
def passing_on(*going: Iterator) -> Iterator[None]:
  """Has trainings that wait for an engine know of what it raised."""
  try:
    yield
  except BaseException as error:
    for each in going:
      with contextlib.suppress(type(error)):
        each.throw(error)
    raise


def send(going: Iterator, metrics: dict[str, np.ndarray]):
  """Returns what a training wants next, given its metrics; None at its end."""
  try:
    return going.send(metrics)
  except StopIteration:
    return None
