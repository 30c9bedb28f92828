"""An iteration's numbers, and the collectors that they go to."""

from collections.abc import Sequence
import contextlib
import resource
import sys
import time
from typing import Any

import numpy as np

from dopamine_jax import errors
from dopamine_jax.engines import counting
from dopamine_jax.engines import engine as engine_lib
from dopamine_jax.learning import outputs
from dopamine_jax.metrics import base
from dopamine_jax.metrics import histograms
from dopamine_jax.system import processes

_PROGRESS_PERIOD = 0.25  # seconds
_LARGEST = float(np.finfo(np.float32).max)


class Reports:
  """Carries an engine's numbers to a run's collectors.

  Args:
    collectors: of the run, not opened yet.
    engine: that trains.
    closers: an `ExitStack` that is closed when training ends.
  """

  def __init__(
    self,
    collectors: Sequence[base.Collector],
    engine: engine_lib.Engine,
    closers: contextlib.ExitStack,
  ):
    self.collectors = collectors
    self._engine = engine
    self._closers = closers
    self._histograms: histograms.Histograms | None = None
    self._folder = None
    self._failed: list[base.Collector] = []
    self.latest: dict[str, float] = {}
    _schedules(engine.loop.agent, 0)  # which is seen before anything is trained
    self._next_progress = 0.0

  def add_histograms(self):
    """Has each iteration's parameters measured too."""
    self._histograms = histograms.Histograms(self._engine)

  def open(self, run: base.Run, written: dict[str, Any]):
    """Opens the collectors.

    Args:
      run: what they are told.
      written: what `written` returned after `run.iteration`.
    """
    if not processes.is_writer():
      self.collectors = []
    self._folder = run.base_dir
    for each in self.collectors:
      with self._naming(each):
        each.open(run._replace(written=written.get(type(each).__name__)))
      self._closers.callback(self._close, each)

  def written(self) -> dict[str, Any]:
    """Returns what each collector needs to know that nothing was lost."""
    found = {type(c).__name__: c.written() for c in self.collectors}
    return {name: value for name, value in found.items() if value is not None}

  def write(self, iteration: int, statistics: dict[str, np.ndarray]):
    """Writes an iteration's statistics, [S] by name."""
    now, steps = time.time(), self._engine.steps
    # A tuple, which no collector can change for those that come after it.
    rows = tuple(
      base.Statistic(seed, iteration, steps, now, name, float(values[i]))
      for name, values in statistics.items()
      for i, seed in enumerate(self._engine.seeds)
      if not np.isnan(values[i])
    )
    self.latest |= {
      name: float(np.nanmean(values))
      for name, values in statistics.items()
      if not np.isnan(values).all()
    }
    shapes = []
    if self._histograms:
      shapes = list(self._histograms.measure(iteration, now))
    for each in self.collectors:
      with self._naming(each):
        if shapes:
          each.write_histograms(shapes)
        each.write(rows)

  def write_video(self, video: base.Video):
    """Writes a video."""
    for each in self.collectors:
      with self._naming(each):
        each.write_video(video)

  def progress(self):
    """Shows how far the training is, a few times a second."""
    if time.monotonic() < self._next_progress:
      return
    self._next_progress = time.monotonic() + _PROGRESS_PERIOD
    statistics, seeds = dict(self.latest), self._engine.seeds
    if finished := self._engine.episodes.finished:
      # What just ended tells more than the iteration before.
      recent = [value for _, value, _ in finished[-20 * len(seeds) :]]
      statistics['Train/AverageReturns'] = float(np.mean(recent))
    for each in self.collectors:
      each.progress(self._engine.steps, statistics)

  def evaluating(self):
    """Tells that an evaluation begins."""
    for each in self.collectors:
      with self._naming(each):
        each.evaluating()

  def _close(self, collector):
    # A disk that is full is full again, which was said.
    with contextlib.suppress(OSError if collector in self._failed else ()):
      with self._naming(collector):
        collector.close()

  @contextlib.contextmanager
  def _naming(self, collector):
    """Says which collector it is that a disk takes nothing of."""
    try:
      yield
    except BrokenPipeError:  # of whoever reads what the console prints
      raise
    except OSError as error:
      if collector in self._failed:
        raise
      self._failed.append(collector)
      raise errors.UserError(
        f'{type(collector).__name__} could not write in '
        f'{self._folder}: {error.strerror or error}. Make room or mend the '
        'folder, then run the same command to go on.'
      ) from error


def of_training(
  engine: engine_lib.Engine, metrics: dict[str, np.ndarray], rate: float
) -> dict[str, np.ndarray]:
  """Returns an iteration's statistics, [S] by name, without evaluations.

  Args:
    engine: which has done it, and forgets its episodes.
    metrics: of its updates.
    rate: agent steps a second, of all seeds.
  """
  loop, num_seeds = engine.loop, len(engine.seeds)
  finished, steps = engine.episodes.finished, engine.steps
  returns = [[] for _ in engine.seeds]
  lengths = [[] for _ in engine.seeds]
  for lane, value, length in finished:
    returns[lane // loop.num_envs].append(value)
    lengths[lane // loop.num_envs].append(length)
  statistics = summarize('Train', returns, lengths)
  for k, name in enumerate(engine.episodes.told_names):
    numbers = [[] for _ in engine.seeds]
    for (lane, _, _), told in zip(finished, engine.episodes.told, strict=True):
      numbers[lane // loop.num_envs].append(told[k])
    add_told(statistics, f'Train/{name}', numbers)
  finished.clear()
  engine.episodes.told.clear()
  own = {*statistics, 'Train/AverageStepsPerSecond', 'Train/Updates'}
  schedules = _schedules(loop.at(steps).agent, steps)
  for giver, found in (('update', metrics), ('schedules', schedules)):
    for name in found:
      if f'Train/{name}' in own:
        raise errors.UserError(
          f'{type(loop.agent).__name__}.{giver} calls a metric {name}, and '
          f'Train/{name} is measured already. Give it another name.'
        )
      own.add(f'Train/{name}')
  statistics |= {f'Train/{name}': value for name, value in metrics.items()}
  everywhere = {f'Train/{name}': value for name, value in schedules.items()}
  everywhere['Train/AverageStepsPerSecond'] = rate
  everywhere['System/MemoryGB'] = _peak_memory() / 1e9
  statistics |= {k: np.full(num_seeds, v) for k, v in everywhere.items()}
  state = engine.state
  fill = engine.axis.over(loop.replay.fill)
  for name, value in (
    ('Replay/Fill', fill(state.experience.replay)),
    ('Train/Updates', state.updates),
  ):
    statistics[name] = processes.fetch(value).reshape(num_seeds)
  return statistics


def add_told(
  statistics: dict[str, np.ndarray], name: str, numbers: Sequence[Any]
):
  """Adds the means of what environments told of each seed's episodes.

  Args:
    statistics: [S] by name.
    name: of the new one; it has no value where nothing was told.
    numbers: for each seed, of its episodes; NaN where nothing was told.

  Raises:
    UserError: if the name is taken.
  """
  if name in statistics:
    raise errors.UserError(
      f"the environment's info names {name.partition('/')[2]}, and {name} is "
      'measured already. Leave it out, or give it another name there.'
    )
  numbers = [np.asarray(each, float) for each in numbers]
  numbers = [each[~np.isnan(each)] for each in numbers]
  statistics[name] = np.array(
    [np.mean(each) if len(each) else np.nan for each in numbers]
  )


def _schedules(agent, steps):
  """Returns what an agent's schedules say, once each is a number."""
  found = agent.schedules(counting.in_32_bits(steps))
  outputs.require_scalars(f'{type(agent).__name__}.schedules', found)
  for name, value in found.items():
    if not abs(value) <= _LARGEST:  # NaN isn't, either
      raise errors.UserError(
        f'{type(agent).__name__}.schedules gave {name} = {value!r:.40}, which '
        'is no finite number. Mend the agent.'
      )
  return found


def summarize(
  phase: str, returns: Sequence[Any], lengths: Sequence[Any]
) -> dict[str, np.ndarray]:
  """Returns statistics [S] of episodes; NaN for a seed without any.

  Args:
    phase: 'Train' or 'Eval'.
    returns: for each seed, the returns of its episodes.
    lengths: for each seed, the agent steps of its episodes.
  """

  def each(function, values):
    return np.array([function(v) if len(v) else np.nan for v in values])

  return {
    f'{phase}/AverageReturns': each(np.mean, returns),
    f'{phase}/MinReturns': each(np.min, returns),
    f'{phase}/MedianReturns': each(np.median, returns),
    f'{phase}/MaxReturns': each(np.max, returns),
    f'{phase}/AverageEpisodeLengths': each(np.mean, lengths),
    f'{phase}/NumEpisodes': np.array([float(len(r)) for r in returns]),
  }


def _peak_memory() -> float:
  """Returns the process's peak resident memory in bytes."""
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return peak if sys.platform == 'darwin' else peak * 1024  # kB but on macOS
