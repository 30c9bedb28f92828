"""One training: prepare or restore, iterate, evaluate, log, checkpoint."""

from collections.abc import Sequence
import contextlib
import enum
import resource
import sys
import time
from typing import Any

import jax
import numpy as np

from dopamine_jax import checkpoints as checkpoints_lib
from dopamine_jax import config
from dopamine_jax import engine as engine_lib
from dopamine_jax import errors
from dopamine_jax import evaluation
from dopamine_jax import health
from dopamine_jax import histograms
from dopamine_jax import processes
from dopamine_jax import profiling
from dopamine_jax import run_folder
from dopamine_jax.metrics import base as metrics_base

_PROGRESS_PERIOD = 0.25  # seconds


class Stream(enum.IntEnum):
  """What environment seeds are for; no two purposes share a stream."""

  TRAIN = 0
  EVALUATE = 1
  COMMAND = 2  # `evaluate` and `record`
  FILM = 3


class Stopped(errors.UserError):
  """The user asked to stop; the run can go on later."""


class Training:
  """One call of `Runner.train`.

  Attributes:
    runner: the settings.
    folder: the run's.
    seeds: S of them.
    engine: what takes the steps.
    iteration: the last one that was begun; counted from 1.
  """

  def __init__(self, runner, folder, seeds, say):
    self.runner = runner
    self.folder = folder
    self.seeds = seeds
    self.say = say
    self.checkpoints = checkpoints_lib.Checkpoints(folder, runner.max_to_keep)
    self.iteration = 0
    self.newest_checkpoint = None  # that this process restored or saved
    # Made now, so that the operative configuration holds their settings too.
    self.collectors = [config.build(make) for make in runner.collectors]
    self.closers = contextlib.ExitStack()
    environments = runner.environment.make(len(seeds) * runner.num_envs)
    self.closers.callback(environments.close)
    self.engine = runner.make_engine(
      environments, seeds, check_finite=runner.check_finite
    )
    self.monitor = None
    self.histograms = None
    self.profiler = None
    self.evaluator = None
    if runner.evaluation_episodes:
      self.evaluator = evaluation.Evaluator(
        self.engine.loop.agent,
        runner.environment,
        len(seeds),
        runner.evaluation_episodes,
      )
      self.closers.callback(self.evaluator.environments.close)
    self.videos = None
    if runner.videos and processes.is_writer():
      # Now, since it brings libraries for drawing that few runs need.
      from dopamine_jax import videos

      self.videos = videos.Videos(self.engine, runner.environment, say)
      self.closers.callback(self.videos.close)
    self.latest = {}
    self.next_progress = 0.0

  def close(self):
    """Closes environments and collectors."""
    self.closers.close()

  def prepare(self, resume: bool):
    """Makes the first state, or restores the newest good checkpoint."""
    self.engine.reset(self._env_seeds(Stream.TRAIN, 0, self.runner.num_envs))
    template = self.engine.abstract_state()
    self.engine.layout.check(self.engine.loop.replay, template)
    if self.runner.health:
      self.monitor = health.Monitor(self.runner.health, self.engine)
    if self.runner.histograms:
      self.histograms = histograms.Histograms(self.engine)
    self.config = config.operative()
    for name in config.unused():
      self.say(f'Warning: {name} is set, but nothing in this run uses it.')
    versions = run_folder.versions() | self.engine.layout.versions()
    facts = {
      'seeds': list(self.seeds),
      'versions': versions,
      'title': config.title(),
    }
    iterations = run_folder.claim(
      self.folder, self.checkpoints, self.config, facts, resume, self.say
    )
    if iterations:
      self._restore(iterations[-1], template)
    else:
      self.engine.init()
    self._note(
      'resumed' if iterations else 'started',
      command=run_folder.command(),
      machine=run_folder.machine(),
      versions=versions,
      damaged=[i for i in iterations if i > self.iteration],
    )

  def _note(self, event, **details):
    run_folder.add_event(
      self.folder, event, iteration=self.iteration, **details
    )

  def _restore(self, newest, template):
    found = self.checkpoints.restore_newest(template, self.say)
    if found is None:
      raise errors.UserError(
        f'no checkpoint in {self.checkpoints.folder} can be read. Nothing was '
        'changed. Train into another --base_dir, or move this folder away.'
      )
    iteration, state = found
    steps = iteration * self.runner.training_steps
    began = 0
    if not self.checkpoints.manifest(iteration)['rings']:
      began = steps
      self.say(
        'This checkpoint has no replay (checkpoint_replay = False): it is '
        'filled anew before learning goes on.'
      )
    if iteration == newest:
      # A run that was killed after a save may have left old ones behind.
      self.checkpoints.collect_garbage()
    self.engine.restore(state, steps, began)
    self.iteration = self.newest_checkpoint = iteration
    self.engine.reset(
      self._env_seeds(Stream.TRAIN, iteration, self.runner.num_envs)
    )
    self.say(f'Going on after iteration {iteration} in {self.folder}.')

  def open_collectors(self, quiet: bool):
    """Tells the collectors of the run."""
    if not processes.is_writer():
      self.collectors = []
    run = metrics_base.Run(
      base_dir=self.folder,
      seeds=self.seeds,
      iteration=self.iteration,
      agent_steps=self.engine.steps,
      total_agent_steps=self.runner.num_iterations * self.runner.training_steps,
      config=self.config,
      quiet=quiet,
    )
    for collector in self.collectors:
      collector.open(run)
      self.closers.callback(collector.close)

  def profile(self, num_steps: int):
    """Traces that many agent steps, once learning is under way."""
    if processes.is_writer():
      folder = self.folder / 'tensorboard'
      self.profiler = profiling.Profiler(
        self.engine, num_steps, folder, self.say
      )
      self.closers.callback(self.profiler.close)

  def run(self, stop) -> dict[str, np.ndarray]:
    """Runs the iterations that are left; returns the last one's statistics."""
    statistics = {}
    try:
      while self.iteration < self.runner.num_iterations:
        self.iteration += 1
        statistics = self._iterate(stop)
    except Exception as error:
      with contextlib.suppress(errors.UserError):  # a full disk says it once
        self._note('stopped', agent_step=self.engine.steps, why=str(error))
      raise
    processes.wait_for_all('the last checkpoint is written')
    self._note('finished')
    return statistics

  def _iterate(self, stop):
    runner, iteration = self.runner, self.iteration
    is_last = iteration == runner.num_iterations
    is_checkpoint = is_last or iteration % runner.checkpoint_period == 0

    def on_step():
      if stop.is_set:
        raise Stopped(self._how_to_go_on(stop.name))
      if time.monotonic() >= self.next_progress:
        self._progress()

    def on_training_step():
      on_step()
      if self.profiler:
        self.profiler.on_step()

    started = time.perf_counter()
    cut_with = None
    if is_checkpoint:
      cut_with = self._env_seeds(Stream.TRAIN, iteration, runner.num_envs)
    metrics = self.engine.run(
      runner.training_steps, cut_with=cut_with, on_step=on_training_step
    )
    jax.block_until_ready(self.engine.state)
    seconds = time.perf_counter() - started
    if self.profiler:
      self.profiler.end()
    statistics = self._training_statistics(metrics, seconds)
    if self.monitor:
      statistics |= self.monitor.measure()
    if self.evaluator and (
      is_last or iteration % runner.evaluation_period == 0
    ):
      statistics |= self._evaluate(on_step)
      if self.videos:
        self._film(on_step)
    self._write(statistics)
    if is_checkpoint:
      self._save()
    return statistics

  def _save(self):
    self.checkpoints.save(
      self.iteration,
      self.engine.state,
      previous=self.newest_checkpoint,
      with_replay=self.runner.checkpoint_replay,
    )
    self.newest_checkpoint = self.iteration

  def _training_statistics(self, metrics, seconds):
    loop, num_seeds = self.engine.loop, len(self.seeds)
    finished = self.engine.episodes.finished
    returns, lengths = [[] for _ in self.seeds], [[] for _ in self.seeds]
    for lane, value, length in finished:
      returns[lane // loop.num_envs].append(value)
      lengths[lane // loop.num_envs].append(length)
    finished.clear()
    statistics = summarize('Train', returns, lengths)
    statistics |= {f'Train/{name}': value for name, value in metrics.items()}
    everywhere = {
      f'Train/{name}': value
      for name, value in loop.agent.schedules(self.engine.steps).items()
    }
    everywhere['Train/AverageStepsPerSecond'] = (
      num_seeds * self.runner.training_steps / seconds
    )
    everywhere['System/MemoryGB'] = _peak_memory() / 1e9
    statistics |= {k: np.full(num_seeds, v) for k, v in everywhere.items()}
    state = self.engine.state
    fill = engine_lib.over_seeds(loop.replay.fill, num_seeds)
    for name, value in (
      ('Replay/Fill', fill(state.experience.replay)),
      ('Train/Updates', state.updates),
    ):
      statistics[name] = processes.fetch(value).reshape(num_seeds)
    return statistics

  def _evaluate(self, on_step):
    started = time.perf_counter()
    state = self.engine.state
    result = self.evaluator.run(
      processes.local(state.agent),
      self._evaluation_keys(processes.local(state.experience.keys.evaluate)),
      self._env_seeds(Stream.EVALUATE, self.iteration, self.evaluator.num_envs),
      self.engine.steps,
      lambda moment: on_step(),
    )
    seconds = time.perf_counter() - started
    statistics = summarize('Eval', result.returns, result.lengths)
    rate = result.lengths.sum() / seconds
    statistics['Eval/AverageStepsPerSecond'] = np.full(len(self.seeds), rate)
    return statistics

  def _film(self, on_step):
    env_seeds = self._env_seeds(Stream.FILM, self.iteration, 1)
    video = self.videos.film(self.iteration, env_seeds[:1], on_step)
    for collector in self.collectors:
      collector.write_video(video)

  def _evaluation_keys(self, keys):
    fold = engine_lib.over_seeds(
      lambda key: jax.random.fold_in(key, self.iteration), len(self.seeds)
    )
    return fold(keys)

  def _write(self, statistics):
    now = time.time()
    rows = [
      metrics_base.Statistic(
        seed, self.iteration, self.engine.steps, now, name, float(values[i])
      )
      for name, values in statistics.items()
      for i, seed in enumerate(self.seeds)
      if not np.isnan(values[i])
    ]
    self.latest |= {
      name: float(np.nanmean(values))
      for name, values in statistics.items()
      if not np.isnan(values).all()
    }
    shapes = []
    if self.histograms:
      shapes = list(self.histograms.measure(self.iteration, now))
    for collector in self.collectors:
      if shapes:
        collector.write_histograms(shapes)
      collector.write(rows)

  def _progress(self):
    self.next_progress = time.monotonic() + _PROGRESS_PERIOD
    statistics = dict(self.latest)
    if finished := self.engine.episodes.finished:
      # What just ended tells more than the iteration before.
      recent = [value for _, value, _ in finished[-20 * len(self.seeds) :]]
      statistics['Train/AverageReturns'] = float(np.mean(recent))
    for collector in self.collectors:
      collector.progress(self.engine.steps, statistics)

  def _how_to_go_on(self, signal_name):
    newest = self.newest_checkpoint
    where = f'after iteration {newest}' if newest else 'from the start'
    promise = ''
    if self.runner.checkpoint_replay or not newest:
      promise = ', and ends as if it had never been stopped'
    return (
      f'Stopped by {signal_name} at agent step {self.engine.steps}, in '
      f'iteration {self.iteration}. The same command goes on {where}{promise}.'
    )

  def _env_seeds(self, stream, iteration, num_envs):
    return env_seeds(self.seeds, stream, iteration, num_envs)


def env_seeds(
  seeds: Sequence[int], stream: Stream, iteration: int, num_envs: int
) -> list[int]:
  """Returns environment seeds [S * N]; each run seed's are its solo run's."""
  return [
    int(word >> 1)  # Environments take 31 bits.
    for seed in seeds
    for word in np.random.SeedSequence(
      [seed, int(stream), iteration]
    ).generate_state(num_envs)
  ]


def summarize(
  phase: str, returns: Sequence[Any], lengths: Sequence[Any]
) -> dict[str, np.ndarray]:
  """Returns statistics [S] of each seed's episodes; NaN where it has none.

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
