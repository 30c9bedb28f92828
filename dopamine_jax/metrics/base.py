"""What a collector receives, and the class that every collector extends."""

from collections.abc import Sequence
import pathlib
from typing import Any, NamedTuple

import numpy as np


class Statistic(NamedTuple):
  """One number that one seed reported in one iteration."""

  seed: int
  iteration: int  # counted from 1
  agent_steps: int  # done by this seed when the number was taken
  wall_time: float  # seconds since the Unix epoch
  name: str  # such as 'Train/AverageReturns'
  value: float


class Histogram(NamedTuple):
  """How the numbers of one of a seed's arrays are spread."""

  seed: int
  iteration: int  # counted from 1
  agent_steps: int
  wall_time: float  # seconds since the Unix epoch
  name: str  # such as 'Parameters/Dense_0/kernel'
  edges: np.ndarray  # [B + 1], rising; the first and last are the extremes
  counts: np.ndarray  # [B]
  total: float  # the numbers' sum
  squares: float  # and that of their squares


class Video(NamedTuple):
  """What one seed's agent did in an episode."""

  seed: int
  iteration: int  # counted from 1
  agent_steps: int
  wall_time: float  # seconds since the Unix epoch
  name: str  # such as 'Eval/Video'
  gif: bytes  # animated, as browsers show it


class Run(NamedTuple):
  """What a collector knows about a run when it starts, or starts again."""

  base_dir: pathlib.Path
  seeds: tuple[int, ...]
  iteration: int  # the last one done before this start; 0 in a new run
  agent_steps: int  # done before this start, by each seed
  total_agent_steps: int  # of the whole training, by each seed
  config: str  # the run's settings, as config.gin has them
  quiet: bool  # print nothing
  first_iteration: int = 0  # before its own: 0, or where it left another run
  ended_by: str = ''  # which callback ended it, and why; '' if none did
  # What this collector's `written` returned when `iteration` was reported;
  # None if nothing is known of it.
  written: Any = None


class Collector:
  """Carries a run's statistics somewhere.

  Extend it, override what you need (each method does nothing by default), and
  name the class in gin, next to those that you keep:

  ```python
  from dopamine_jax.metrics import base


  class Best(base.Collector):
    '''Prints each evaluation that beats all since this start.'''

    def open(self, run):
      self.best = float('-inf')

    def write(self, statistics):
      for statistic in statistics:
        if statistic.name == 'Eval/AverageReturns':
          if statistic.value > self.best:
            self.best = statistic.value
            print(f'{statistic.agent_steps:,} steps: {self.best:.1f}')
  ```

  A run that was killed starts again at its last checkpoint and repeats what
  came after, so `open` has to forget every iteration after `run.iteration`.
  """

  def open(self, run: Run) -> None:
    """Prepares for a run that is new or goes on; called once, first."""

  def progress(self, agent_steps: int, statistics: dict[str, float]) -> None:
    """Follows the iteration under way; called a few times a second.

    Args:
      agent_steps: Done so far, by each seed.
      statistics: The latest values by name, each the mean over the seeds; they
        may be empty, and change until the iteration ends.
    """

  def evaluating(self) -> None:
    """An evaluation begins; the iteration's `write` comes after it."""

  def write(self, statistics: Sequence[Statistic]) -> None:
    """Takes an iteration's statistics of all seeds; called once an iteration.

    They are to be safe on disk on return: the iteration counts as reported.
    """

  def write_histograms(self, histograms: Sequence[Histogram]) -> None:
    """Takes an iteration's histograms of all seeds; called before `write`.

    Only if `runner.Runner.histograms` is set.
    """

  def write_video(self, video: Video) -> None:
    """Takes a video of the first seed's agent; called before `write`.

    Only if `runner.Runner.videos` is set, in iterations with an evaluation.
    """

  def written(self) -> Any:
    """Returns JSON data that shows `open` later if anything was lost.

    A checkpoint keeps it, and `open` gets it back as `run.written`: refuse
    there to go on with less. None, as here, if you don't check.
    """

  def close(self) -> None:
    """Lets go of files and screen; called once, last, if `open` succeeded."""


def is_timing(name: str) -> bool:
  """Whether a statistic depends on clock or machine, not on the seed alone."""
  return name.endswith('StepsPerSecond') or name.startswith('System/')
