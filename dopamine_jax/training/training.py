"""One training: prepare or restore, iterate, checkpoint, evaluate, log.

A checkpoint comes before the evaluation, whose episodes might not end. So it
holds the iteration's `statistics` so far, the `facts` of the run, and what
collectors have `written` of the iterations before. A run that goes on from it
evaluates and reports that iteration first, unless `run.json` says that this was
done. With callbacks the evaluation comes first, and the checkpoint holds what
they decided of it.
"""

from collections.abc import Iterator, Sequence
import contextlib
from typing import Any, NamedTuple

from dopamine_jax import config
from dopamine_jax import errors
from dopamine_jax.checkpoints import checkpoints as checkpoints_lib
from dopamine_jax.engines import streams
from dopamine_jax.environments import base
from dopamine_jax.metrics import base as metrics_base
from dopamine_jax.metrics import health
from dopamine_jax.metrics import profiling
from dopamine_jax.system import processes
from dopamine_jax.system import provenance
from dopamine_jax.training import advice
from dopamine_jax.training import decisions
from dopamine_jax.training import evaluations
from dopamine_jax.training import folder_lock
from dopamine_jax.training import identity
from dopamine_jax.training import recording
from dopamine_jax.training import reports
from dopamine_jax.training import resuming
from dopamine_jax.training import run_folder


class Shared(NamedTuple):
  """What trainings of one program share.

  Attributes:
    base_dir: of all of them; of one that trains alone its folder.
    engine: what takes the steps, or a training's `share.Share` of it.
    evaluations: of what the engine trains.
  """

  base_dir: Any
  engine: Any
  evaluations: Any


class Training:
  """One call of `Runner.train`.

  Attributes:
    runner: the settings.
    folder: the run's.
    seeds: S of them.
    closers: closes environments and collectors, an `ExitStack`.
    engine: what takes the steps.
    iteration: the last one that was begun; counted from 1.
  """

  def __init__(
    self, runner, folder, seeds, say, closers, title='', shared=None
  ):
    """Sees that everything can be made; changes nothing yet.

    Args:
      runner: see above; likewise the others.
      folder: the run's.
      seeds: S of them.
      say: prints what the user should know.
      closers: see above.
      title: what the run is, in a line.
      shared: what trainings of one program share, a `Shared`; None: it trains
        alone.
    """
    self.runner = runner
    self.config = config.record(runner, title)
    self.title = title
    self.folder = folder
    self.seeds = seeds
    self.say = say
    # Of trainings that are killed while they save, some have one more: the one
    # before is needed.
    kept = max(runner.max_to_keep, 2) if shared else runner.max_to_keep
    self.checkpoints = checkpoints_lib.Checkpoints(
      folder, kept, say, keep_rows=runner.record_replay
    )
    self.iteration = 0
    self.newest_checkpoint = None  # that this process restored or saved
    self.closers = closers
    self.closers.enter_context(runner.devices.computing())
    # From here on nothing is read of another run; and those that train together
    # have a checkpoint in common, whenever they are killed.
    self._saves_first = bool(runner.start_from or shared)
    self.base_dir, self.engine, self.evaluations = shared or self._alone()
    self.reports = reports.Reports(
      runner.make_collectors(), self.engine, self.closers
    )
    self.monitor = self.profiler = None
    self.videos = None
    if runner.videos and processes.is_writer():
      # Now, since it brings libraries for drawing that few runs need.
      from dopamine_jax.films import videos

      self.videos = videos.Videos(self.engine, runner.evaluated_on, say)
      self.closers.callback(self.videos.close)
    self.place = None  # of the folder
    # Of a checkpoint's iteration that collectors don't have all of.
    self.unreported = None
    self.written = {}  # by the collectors, of what was reported

  def _alone(self):
    """Returns what it would share with others."""
    runner, seeds = self.runner, self.seeds
    environments = runner.environment.make(len(seeds) * runner.num_envs)
    self.closers.callback(environments.close)
    engine = runner.make_engine(
      environments, seeds, check_finite=runner.check_finite
    )
    self.closers.callback(engine.close)
    evaluates = evaluations.Evaluations(runner, engine, self.closers, self.say)
    return Shared(self.folder, engine, evaluates)

  def prepare(
    self, resume: bool, with_replay: bool = True, upto: int | None = None
  ):
    """Makes the first state, or restores the newest good checkpoint.

    Args:
      resume: whether a run in the folder may go on.
      with_replay: whether with its replay.
      upto: the newest checkpoint that may be restored; None: any.
    """
    self.resume, self.with_replay = resume, with_replay
    self.engine.reset(
      self.env_seeds(streams.Stream.TRAIN, 0, self.runner.num_envs)
    )
    template = self.engine.abstract_state()
    self.engine.layout.check(self.engine.loop.replay, template)
    recording.check(self.runner, template, with_replay)
    if self.runner.health:
      self.monitor = health.Monitor(self.runner.health, self.engine)
    if self.runner.histograms:
      self.reports.add_histograms()
    self.decisions = decisions.Decisions(self.runner.callbacks, self.engine)
    advice.before_the_start(self.runner, self.engine, self.config, self.say)
    self.facts = {
      'seeds': list(self.seeds),
      'versions': provenance.versions() | self.engine.layout.versions(),
      'title': self.title,
      'record': identity.digest(self.config),
    }
    iterations, before = run_folder.look(
      *(self.folder, self.checkpoints, self.config, self.facts),
      *(resume, self.say, lambda: identity.record_of(self)),
    )
    if iterations:
      kept = before.keys() & {'started_from', 'dataset'}
      self.facts |= {name: before[name] for name in kept}
      resuming.restore(self, iterations[-1], template, upto)
      resuming.find_unreported(self, before.get('progress', {}))
    elif self.runner.start_from:
      resuming.start_from(self, template)
    else:
      self.engine.init()
    if self.engine.filled_with:
      self.facts.setdefault('dataset', self.engine.filled_with)
    self.place = folder_lock.Place(self.folder)
    self.closers.callback(self.place.close)
    run_folder.claim(self.folder, self.config, self.facts, before, self.say)
    self._note(
      'resumed' if iterations else 'started',
      command=provenance.command(),
      machine=provenance.machine(),
      commits=provenance.commits(),
      versions=self.facts['versions'],
      damaged=[
        i
        for i in iterations
        if i > self.iteration and (upto is None or i <= upto)
      ],
      with_replay=with_replay,
    )

  def _note(self, event, **details):
    self.place.require_same()
    run_folder.add_event(
      self.folder, event, iteration=self.iteration, **details
    )

  def open_collectors(self, quiet: bool):
    """Tells the collectors of the run."""
    iteration = self.iteration - (self.unreported is not None)
    if iteration:
      # Before the collectors take back what goes beyond: `altered` reads this.
      run_folder.set_progress(
        self.folder, reported=iteration, written=self.written
      )
    self.reports.open(
      metrics_base.Run(
        base_dir=self.folder,
        seeds=self.seeds,
        iteration=iteration,
        agent_steps=iteration * self.runner.training_steps,
        total_agent_steps=(
          self.runner.num_iterations * self.runner.training_steps
        ),
        config=self.config,
        quiet=quiet,
        first_iteration=iteration if self.newest_checkpoint is None else 0,
        ended_by=self.decisions.stop if self.has_ended() else '',
      ),
      self.written,
    )

  def profile(self, num_steps: int):
    """Traces that many agent steps, once learning is under way."""
    if processes.is_writer():
      folder = self.folder / 'tensorboard'
      self.profiler = profiling.Profiler(
        self.engine, num_steps, folder, self.say
      )
      self.closers.callback(self.profiler.close)

  def iterations(self, stop) -> Iterator[Sequence[int] | None]:
    """Yields where the engine is to run an iteration; is sent what came of it.

    What is yielded is `cut_with` of `Engine.run`, what is sent are its metrics
    and the seconds that it took. Then it yields once more, when all that is due
    is saved, before it reports: an evaluation can take long, or not end at all.
    `statistics` are the last iteration's that it has reported; once it has
    ended, `goes_on` is False.

    Args:
      stop: whether the user asked to.
    """
    self.stop, self.statistics, self.goes_on = stop, {}, True
    try:
      if self._saves_first and self.newest_checkpoint is None:
        self._save({})
      if self.unreported is not None:
        self.statistics = self._report(self.unreported)
      elif self.has_ended():
        self.statistics = resuming.last_statistics(self)
      while not self.has_ended():
        self.iteration += 1
        self.statistics = yield from self._iterate()
      processes.wait_for_all('the last checkpoint is written')
      self._end()
    except GeneratorExit:  # nobody asks any more
      raise
    except BaseException as error:
      # Else whoever read what is printed has left.
      why = str(error) if isinstance(error, Exception) else repr(error)
      # A full disk and a folder that is gone say it once.
      with contextlib.suppress(errors.UserError):
        self._note('stopped', agent_step=self.engine.steps, why=why)
      raise
    self.goes_on = False

  def has_ended(self) -> bool:
    """Whether no iteration is left."""
    if self.decisions.stop and self.iteration == self.newest_checkpoint:
      return True
    return self.iteration >= self.runner.num_iterations

  def summary(self) -> str:
    """Returns what was reached so far, in a few words."""
    latest = self.reports.latest
    shown = [
      f'{word} {latest[name]:.2f}'
      for word, name in (
        ('train', 'Train/AverageReturns'),
        ('eval', 'Eval/AverageReturns'),
      )
      if name in latest
    ]
    return '  '.join(shown) or 'no episode has ended'

  def _end(self):
    """Notes that the run is finished, and by whom if a callback ended it."""
    if why := self.decisions.stop:
      run_folder.set_fact(self.folder, 'ended_by', why)
      self._note('finished', why=f'Ended by {why}')
    else:
      self._note('finished')

  def _on_step(self):
    if self.stop.is_set:
      raise advice.Stopped(advice.how_to_go_on(self), self.stop.status)
    self.reports.progress()

  def on_training_step(self):
    """Is called before each step of the engine; may raise to stop."""
    self._on_step()
    if self.profiler:
      self.profiler.on_step()

  def _iterate(self):
    runner, iteration = self.runner, self.iteration
    is_checkpoint = self._is_last() or iteration % runner.checkpoint_period == 0
    cut_with = None
    if is_checkpoint:
      cut_with = self.env_seeds(
        streams.Stream.TRAIN, iteration, runner.num_envs
      )
    self.decisions.change_agent()
    metrics, seconds = yield cut_with
    if self.profiler:
      self.profiler.end()
    rate = len(self.seeds) * runner.training_steps / seconds
    statistics = reports.of_training(self.engine, metrics, rate)
    if self.monitor:
      statistics |= self.monitor.measure()
    if runner.callbacks:
      statistics |= self._evaluate()
      self.decisions.look(
        iteration,
        statistics,
        evaluates=runner.evaluation_episodes > 0,
        has_checkpoint=is_checkpoint,
      )
    if is_checkpoint:
      self._save(statistics)
    yield
    self._report(statistics)
    if self.decisions.stop and self.has_ended():
      run = '' if self.folder == self.base_dir else f' {self.folder.name}'
      self.say(f'The run{run} is finished: ended by {self.decisions.stop}.')
    return statistics

  def _is_last(self):
    return self.iteration == self.runner.num_iterations

  def _report(self, statistics):
    """Evaluates, if that is still due, and hands on what was measured."""
    if not self.runner.callbacks:
      statistics |= self._evaluate()
    if self.videos and self.evaluations.are_due(self.iteration):
      env_seeds = self.env_seeds(streams.Stream.FILM, self.iteration, 1)
      self.reports.write_video(
        self.videos.film(self.iteration, env_seeds[:1], self._on_step)
      )
    self.place.require_same()
    self.reports.write(self.iteration, statistics)
    if self.iteration == self.newest_checkpoint:
      run_folder.set_progress(
        self.folder,
        reported=self.iteration,
        written=self.reports.written(),
      )
    return statistics

  def _save(self, statistics):
    self.place.require_same()
    action = processes.fetch(self.engine.state.experience.action)
    base.check_actions(self.engine.environments.action_space, action)
    run = {}
    if self.runner.callbacks:
      run['callbacks'] = self.decisions.saved()
      self.checkpoints.kept = frozenset(self.decisions.kept.values())
    try:
      self.checkpoints.save(
        self.iteration,
        self.with_callbacks(self.engine.state, self.decisions.own),
        previous=self.newest_checkpoint,
        with_replay=self.runner.checkpoint_replay,
        run={
          'facts': self.facts,
          'statistics': {
            name: [float(value) for value in values]
            for name, values in statistics.items()
          },
          'written': self.reports.written(),
          'agent_steps': self.engine.steps,
          'replay_began': self.engine.replay_began,
          **run,
        },
      )
    except errors.UserError:
      self.place.require_same()  # which says better what happened
      raise
    self.newest_checkpoint = self.iteration
    run_folder.set_progress(self.folder, checkpoint=self.iteration)

  def _evaluate(self):
    """Returns an evaluation's statistics; none if no evaluation is due."""
    if not self.evaluations.are_due(self.iteration):
      return {}
    self.reports.evaluating()
    return self.evaluations.run(self.iteration, self._on_step)

  def with_callbacks(self, state, own) -> dict:
    """Returns what a checkpoint holds: a training state, callbacks' states."""
    return {**vars(state), 'callbacks': own}

  def env_seeds(self, stream, iteration, num_envs) -> list[int]:
    """Returns environment seeds of all lanes; see `streams`."""
    return streams.env_seeds(self.seeds, stream, iteration, num_envs)
