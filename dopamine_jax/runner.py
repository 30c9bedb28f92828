"""The runner: iterations of training and evaluation, metrics, checkpoints.

An iteration is exactly `training_steps` agent steps; episodes run on across
iterations and are cut only at checkpoints. It drives an engine, which steps.
"""

from collections.abc import Callable, Sequence
import contextlib
import enum
import pathlib
import signal
import time
from typing import Any

import jax
import numpy as np
import psutil

from dopamine_jax import agent as agent_lib
from dopamine_jax import checkpoints as checkpoints_lib
from dopamine_jax import config
from dopamine_jax import engine as engine_lib
from dopamine_jax import errors
from dopamine_jax import evaluation
from dopamine_jax import loop as loop_lib
from dopamine_jax import run_folder
from dopamine_jax import settings
from dopamine_jax.environments import base
from dopamine_jax.metrics import base as metrics_base
from dopamine_jax.metrics import console
from dopamine_jax.metrics import csv_file
from dopamine_jax.metrics import tensorboard

_PROGRESS_PERIOD = 0.25  # seconds


class Stream(enum.IntEnum):
  """What environment seeds are for; no two purposes share a stream."""

  TRAIN = 0
  EVALUATE = 1
  COMMAND = 2  # `evaluate` and `record`


class Stopped(errors.UserError):
  """The user asked to stop; the run can go on later."""


class Runner(settings.Settings):
  """Trains an agent; everything that a gin file sets hangs off this.

  Attributes:
    agent: makes the agent from `observation_space` and `action_space`.
    environment: settings of the environment to train and evaluate on.
    num_iterations: iterations of the whole training.
    training_steps: agent steps of an iteration, over all `num_envs`.
    num_envs: environments that train side by side, a seed.
    evaluation_episodes: whole episodes of an evaluation, on environments of
      its own; 0 for none.
    evaluation_period: iterations from one evaluation to the next.
    checkpoint_period: iterations from one checkpoint to the next; the last
      iteration always has one.
    max_to_keep: checkpoints that are kept.
    checkpoint_replay: whether checkpoints hold the replay; without it, a run
      that goes on fills its replay anew before it learns.
    check_finite: stop when a metric of an update is NaN or infinite.
    collectors: where statistics go; classes or functions that make one.
  """

  agent: Callable[..., agent_lib.Agent]
  environment: base.Environment
  num_iterations: int
  training_steps: int
  num_envs: int = 1
  evaluation_episodes: int = 0
  evaluation_period: int = 1
  checkpoint_period: int = 1
  max_to_keep: int = 3
  checkpoint_replay: bool = True
  check_finite: bool = True
  collectors: Sequence[Callable[[], metrics_base.Collector]] = (
    console.Console,
    csv_file.CSV,
    tensorboard.TensorBoard,
  )

  def __post_init__(self):
    super().__post_init__()
    self._require_at_least(
      1,
      'num_iterations',
      'training_steps',
      'num_envs',
      'evaluation_period',
      'checkpoint_period',
      'max_to_keep',
    )
    self._require_at_least(0, 'evaluation_episodes')
    if self.training_steps % self.num_envs:
      self._refuse(
        'training_steps',
        f'is not a multiple of num_envs = {self.num_envs}, so that an '
        'iteration could not be exactly that long',
      )

  def make_agent(self, environments: base.VectorEnvironment) -> Any:
    """Returns the agent for these environments."""
    return config.build(
      self.agent,
      observation_space=loop_lib.stacked_space(
        environments.observation_space, self.environment.stack
      ),
      action_space=environments.action_space,
    )

  def train(
    self,
    base_dir: str | pathlib.Path,
    *,
    seed: int = 0,
    num_seeds: int = 1,
    resume: bool = True,
    quiet: bool = False,
    say: Callable[[str], None] = print,
  ) -> dict[str, np.ndarray]:
    """Trains, or goes on where a run in `base_dir` was stopped.

    Args:
      base_dir: the run's folder; made if missing.
      seed: of the first seed; the others follow it.
      num_seeds: seeds that train side by side, S.
      resume: whether to go on from a run that lies in `base_dir`.
      quiet: whether the console shows nothing.
      say: prints what the user should know.

    Returns:
      The last iteration's statistics: [S] by name.

    Raises:
      UserError: if a setting, the folder or a checkpoint doesn't fit.
      Stopped: after SIGINT or SIGTERM.
    """
    with contextlib.ExitStack() as stack:
      folder = stack.enter_context(run_folder.open_for_training(base_dir))
      training = _Training(
        self, folder, tuple(range(seed, seed + num_seeds)), say
      )
      stack.callback(training.close)
      training.prepare(resume)
      training.open_collectors(quiet)
      stop = stack.enter_context(_stop_signals())
      return training.run(stop)


class _Training:
  """One call of `Runner.train`."""

  def __init__(self, runner, folder, seeds, say):
    self.runner = runner
    self.folder = folder
    self.seeds = seeds
    self.say = say
    self.checkpoints = checkpoints_lib.Checkpoints(folder, runner.max_to_keep)
    self.iteration = 0
    self.collectors = []
    self.closers = contextlib.ExitStack()
    environments = runner.environment.make(len(seeds) * runner.num_envs)
    self.closers.callback(environments.close)
    agent = runner.make_agent(environments)
    self.engine = engine_lib.PythonEngine(
      loop_lib.Loop(
        agent=agent,
        replay=agent.make_replay(runner.environment.stack),
        reward_clip=runner.environment.reward_clip,
        stack=runner.environment.stack,
        num_envs=runner.num_envs,
      ),
      environments,
      seeds,
      check_finite=runner.check_finite,
    )
    self.evaluator = None
    if runner.evaluation_episodes:
      self.evaluator = evaluation.Evaluator(
        agent, runner.environment, len(seeds), runner.evaluation_episodes
      )
      self.closers.callback(self.evaluator.environments.close)
    self.latest = {}
    self.next_progress = 0.0

  def close(self):
    """Closes environments and collectors."""
    self.closers.close()

  def prepare(self, resume: bool):
    """Makes the first state, or restores the newest good checkpoint."""
    self.engine.reset(self._env_seeds(Stream.TRAIN, 0, self.runner.num_envs))
    template = self.engine.abstract_state()
    _check_memory(template)
    self.config = config.operative()
    for name in config.unused():
      self.say(f'Warning: {name} is set, but nothing in this run uses it.')
    facts = {'seeds': list(self.seeds), 'versions': run_folder.versions()}
    newest = run_folder.claim(
      self.folder, self.checkpoints, self.config, facts, resume
    )
    if newest:
      self._restore(newest, template)
    else:
      self.engine.init()

  def _restore(self, candidates, template):
    for iteration in reversed(candidates):
      try:
        state = self.checkpoints.restore(iteration, template)
        manifest = self.checkpoints.manifest(iteration)
      except checkpoints_lib.Damaged as damage:
        self.say(
          f'Warning: the checkpoint of iteration {iteration} is damaged '
          f'({damage}); going back to the one before.'
        )
        continue
      steps = iteration * self.runner.training_steps
      began = 0
      if not manifest['rings']:
        began = steps
        self.say(
          'This checkpoint has no replay (checkpoint_replay = False): it is '
          'filled anew before learning goes on.'
        )
      self.engine.restore(state, steps, began)
      self.iteration = iteration
      self.engine.reset(
        self._env_seeds(Stream.TRAIN, iteration, self.runner.num_envs)
      )
      self.say(f'Going on after iteration {iteration} in {self.folder}.')
      return
    raise errors.UserError(
      f'no checkpoint in {self.checkpoints.folder} can be read. Nothing was '
      'changed. Train into another --base_dir, or move this folder away.'
    )

  def open_collectors(self, quiet: bool):
    """Makes the collectors and tells them of the run."""
    run = metrics_base.Run(
      base_dir=self.folder,
      seeds=self.seeds,
      iteration=self.iteration,
      agent_steps=self.engine.steps,
      total_agent_steps=self.runner.num_iterations * self.runner.training_steps,
      config=self.config,
      quiet=quiet,
    )
    for make in self.runner.collectors:
      collector = config.build(make)
      self.closers.callback(collector.close)
      collector.open(run)
      self.collectors.append(collector)

  def run(self, stop) -> dict[str, np.ndarray]:
    """Runs the iterations that are left; returns the last one's statistics."""
    statistics = {}
    while self.iteration < self.runner.num_iterations:
      self.iteration += 1
      statistics = self._iterate(stop)
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

    started = time.perf_counter()
    cut_with = None
    if is_checkpoint:
      cut_with = self._env_seeds(Stream.TRAIN, iteration, runner.num_envs)
    metrics = self.engine.run(
      runner.training_steps, cut_with=cut_with, on_step=on_step
    )
    jax.block_until_ready(self.engine.state)
    seconds = time.perf_counter() - started
    statistics = self._training_statistics(metrics, seconds)
    if self.evaluator and (
      is_last or iteration % runner.evaluation_period == 0
    ):
      statistics |= self._evaluate(on_step)
    self._write(statistics)
    if is_checkpoint:
      self._save()
    return statistics

  def _save(self):
    kept = self.checkpoints.iterations()
    earlier = [i for i in kept if i < self.iteration]
    self.checkpoints.save(
      self.iteration,
      self.engine.state,
      previous=earlier[-1] if earlier else None,
      with_replay=self.runner.checkpoint_replay,
    )

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
    statistics['Replay/Fill'] = np.asarray(
      fill(state.experience.replay)
    ).reshape(num_seeds)
    statistics['Train/Updates'] = np.asarray(state.updates).reshape(num_seeds)
    return statistics

  def _evaluate(self, on_step):
    started = time.perf_counter()
    state = self.engine.state
    result = self.evaluator.run(
      state.agent,
      self._evaluation_keys(state.experience.keys.evaluate),
      self._env_seeds(
        Stream.EVALUATE, self.iteration, self.evaluator.num_envs
      ),
      self.engine.steps,
      on_step,
    )
    seconds = time.perf_counter() - started
    statistics = summarize('Eval', result.returns, result.lengths)
    rate = result.lengths.sum() / seconds
    statistics['Eval/AverageStepsPerSecond'] = np.full(len(self.seeds), rate)
    return statistics

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
    for collector in self.collectors:
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
    kept = self.checkpoints.iterations()
    where = f'after iteration {kept[-1]}' if kept else 'from the start'
    return (
      f'Stopped by {signal_name} at agent step {self.engine.steps} of '
      f'iteration {self.iteration}. The same command goes on {where}, with '
      'the results of a run that was never stopped.'
    )

  def _env_seeds(self, stream: Stream, iteration: int, num_envs: int):
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


class _Stop:
  """Whether the user asked to stop, and how."""

  is_set = False
  name = ''


@contextlib.contextmanager
def _stop_signals():
  """Turns SIGINT and SIGTERM into a flag, so that a write can finish."""
  stop = _Stop()

  def handle(number, frame):
    del frame
    stop.is_set, stop.name = True, signal.Signals(number).name

  numbers = (signal.SIGINT, signal.SIGTERM)
  try:
    previous = {number: signal.signal(number, handle) for number in numbers}
  except ValueError:  # not the main thread: signals are someone else's
    yield stop
    return
  try:
    yield stop
  finally:
    for number, handler in previous.items():
      signal.signal(number, handler)


def _check_memory(state):
  """Refuses a state that can't fit, before any of it is made."""
  needed = sum(
    leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)
  )
  stats = jax.devices()[0].memory_stats() or {}
  available = stats.get('bytes_limit') or psutil.virtual_memory().available
  if needed > available:
    raise errors.UserError(
      f'this run needs {needed / 1e9:.1f} GB for replay, networks and '
      f'optimizer; {available / 1e9:.1f} GB are available. Lower the '
      "replay's capacity, or num_seeds."
    )


def _peak_memory() -> float:
  """Returns the process's peak resident memory in bytes."""
  import resource  # not on Windows

  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
