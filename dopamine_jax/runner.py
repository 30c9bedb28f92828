"""The runner: the settings of an experiment, and the way into its training.

An iteration is exactly `training_steps` agent steps; episodes run on across
iterations and are cut only at checkpoints.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import dataclasses
import pathlib
from typing import Any

import numpy as np

from dopamine_jax import agent as agent_lib
from dopamine_jax import annotations
from dopamine_jax import config
from dopamine_jax import errors
from dopamine_jax import lanes
from dopamine_jax import settings
from dopamine_jax.callbacks import (
  base as callbacks_lib,  # a field is called `callbacks`
)
from dopamine_jax.callbacks import stages
from dopamine_jax.engines import counting
from dopamine_jax.engines import (
  devices as devices_lib,  # a field is called `devices`
)
from dopamine_jax.engines import engine as engine_lib  # and another `engine`
from dopamine_jax.engines import loop
from dopamine_jax.engines import python_engine
from dopamine_jax.engines import stacking
from dopamine_jax.environments import base
from dopamine_jax.learning import trials
from dopamine_jax.metrics import base as metrics_base
from dopamine_jax.metrics import console
from dopamine_jax.metrics import csv_file
from dopamine_jax.metrics import health as health_lib  # and one `health`
from dopamine_jax.metrics import tensorboard
from dopamine_jax.system import signals
from dopamine_jax.training import driving
from dopamine_jax.training import folder_lock
from dopamine_jax.training import starts
from dopamine_jax.training import training

_MOST_SEEDS = 65_536  # as on the command line


class Runner(settings.Settings):
  """Trains an agent; all other settings hang off these.

  Attributes:
    agent: its settings, or what makes them from `observation_space` and
      `action_space`.
    environment: settings of the environment to train on, and to evaluate on.
    engine: what takes the steps: `python_engine.PythonEngine` for any
      environment, `compiled.CompiledEngine` for those in JAX and Atari games;
      `plain_engine.PlainEngine` to read and to debug in.
    devices: which ones train, what is split over them, where the replay lies.
    num_iterations: iterations of the whole training.
    training_steps: agent steps of an iteration, of each seed, over all its
      `num_envs`.
    num_envs: environments that train side by side, a seed.
    evaluation_episodes: whole episodes of an evaluation, on environments of
      its own; 0 for none.
    evaluation_period: iterations from one evaluation to the next.
    evaluation_environment: settings of another environment to evaluate on, of
      the same spaces; None: `environment`.
    checkpoint_period: iterations from one checkpoint to the next; the last
      iteration always has one. Running episodes are cut there, so that a run
      with another period is another run.
    max_to_keep: checkpoints that are kept.
    checkpoint_replay: whether checkpoints hold the replay; without it, a run
      that goes on fills its replay anew before it learns.
    record_replay: whether the run's folder keeps all that the replay was ever
      given, for `datasets.files.OwnReplay.whole`: on disk, two copies of each
      step, as of everything in checkpoints' replays.
    check_finite: stop when a metric of an update is NaN or infinite.
    health: what is measured of networks and replay when an iteration has ended;
      see `health`.
    histograms: whether collectors get histograms of the parameters when an
      iteration has ended; TensorBoard shows them.
    videos: whether collectors get a video of the first seed's agent after an
      evaluation; TensorBoard shows them, see `videos`.
    collectors: where statistics go; classes or functions that make one.
    callbacks: what may change the agent, keep a checkpoint or end the run when
      an iteration has ended; see `callbacks`. They see evaluations, which then
      come before the iteration's checkpoint.
    start_from: another run to begin with: the path of its folder, to go on from
      its newest checkpoint under these settings, or a `starts.StartFrom`.
  """

  agent: agent_lib.Agent | Callable[..., agent_lib.Agent]
  environment: base.Environment
  num_iterations: int
  training_steps: int
  engine: Callable[..., engine_lib.Engine] = python_engine.PythonEngine
  devices: devices_lib.Devices = devices_lib.ONE_DEVICE
  num_envs: int = 1
  evaluation_episodes: int = 0
  evaluation_period: int = 1
  evaluation_environment: base.Environment | None = None
  checkpoint_period: int = 1
  max_to_keep: int = 3
  checkpoint_replay: bool = True
  record_replay: bool = False
  check_finite: bool = True
  health: Sequence[health_lib.Metric] = ()
  histograms: bool = False
  videos: bool = False
  collectors: Sequence[Callable[[], metrics_base.Collector]] = (
    console.Console,
    csv_file.CSV,
    tensorboard.TensorBoard,
  )
  callbacks: Sequence[callbacks_lib.Callback] = ()
  start_from: str | starts.StartFrom | None = None

  def __post_init__(self):
    super().__post_init__()
    self.require_at_least(
      1,
      'num_iterations',
      'training_steps',
      'num_envs',
      'evaluation_period',
      'checkpoint_period',
      'max_to_keep',
    )
    self.require_at_least(0, 'evaluation_episodes')
    if setting := self.environment.only_for_evaluations:
      self.environment.refuse(
        setting,
        'is for evaluations: set it of runner.Runner.evaluation_environment '
        'alone, and leave it out of what is trained on',
      )
    if self.videos and not self.evaluation_episodes:
      self.refuse(
        'videos',
        'shows the agent after an evaluation, and evaluation_episodes = 0 '
        'means that there is none; set it to 1 or more',
      )
    if not self.evaluation_episodes and any(
      callback.needs_evaluations for callback in self.callbacks
    ):
      self.refuse(
        'callbacks',
        'decide by evaluations, and evaluation_episodes = 0 means that there '
        'are none; set it to 1 or more, or decide by training returns',
      )
    if self.record_replay and not self.checkpoint_replay:
      self.refuse(
        'record_replay',
        'is part of the checkpoints, and checkpoint_replay = False leaves the '
        'replay out of them; set it to True',
      )
    if len({each.setting for each in self._stages}) < len(self._stages):
      self.refuse(
        'callbacks',
        'have several stages.Stages of one setting; give all its steps and '
        'values to one of them',
      )
    if self.training_steps % self.num_envs:
      self.refuse(
        'training_steps',
        f'is not a multiple of num_envs = {self.num_envs}, so that an '
        'iteration could not be exactly that long',
      )

  @property
  def evaluated_on(self) -> base.Environment:
    """Settings of the environment of evaluations and films."""
    return self.evaluation_environment or self.environment

  def make_agent(self, environments: base.VectorEnvironment) -> Any:
    """Returns the agent for these environments."""
    return self.make_part(
      'agent',
      observation_space=stacking.stacked_space(
        environments.observation_space, self.environment.stack
      ),
      action_space=environments.action_space,
    )

  def make_collectors(self) -> list[metrics_base.Collector]:
    """Returns the collectors, which are yet to be opened."""
    made = [make() for make in self.collectors]
    for collector in made:
      if not isinstance(collector, metrics_base.Collector):
        self.refuse(
          'collectors',
          f'makes what is of type {type(collector).__name__}; expected '
          'base.Collector',
        )
    return made

  def make_loop(self, environments: base.VectorEnvironment) -> loop.Loop:
    """Returns the functions of a step, for these environments."""
    agent = self.make_agent(environments)
    late = [step for each in self._stages for step in each.at_steps]
    counting.check(self, agent, late)
    return dataclasses.replace(
      self._loop_of(agent),
      stages=tuple(self._staged(agent, each) for each in self._stages),
    )

  def agent_at(self, agent: agent_lib.Agent, steps: int) -> agent_lib.Agent:
    """Returns an agent as its stages have it after so many agent steps."""
    for each in self._stages:
      agent = each.applied(agent, steps)
    return agent

  @property
  def _stages(self):
    return [each for each in self.callbacks if isinstance(each, stages.Stages)]

  def _staged(self, agent, callback):
    """Returns what a stage changes, of the agent and what it gives on."""
    steps = (0, *callback.at_steps)
    loops = [self._loop_of(callback.applied(agent, step)) for step in steps]
    try:
      numbers = lanes.differing(loops, [f'step {step}' for step in steps])
    except lanes.DecidesError:
      raise
    except errors.UserError as error:
      raise callback.unfit('makes the program another one') from error
    return lanes.Stages(
      tuple(callback.at_steps),
      {path: tuple(map(float, given)) for path, given in numbers.items()},
    )

  def _loop_of(self, agent):
    """Returns the functions of a step of this agent."""
    replay = agent.make_replay(self.environment.stack)
    if not isinstance(replay, settings.Settings):
      raise errors.UserError(
        f'{type(agent).__name__}.make_replay must return settings of a replay, '
        f'and it gave {annotations.shown(replay)}. Mend the agent.'
      )
    if replay.warm_up > replay.min_history:
      raise errors.UserError(
        f'{annotations.full_name(type(replay))}: its warm_up of '
        f'{replay.warm_up} random agent steps is longer than its min_history, '
        f'the {replay.min_history} before the first update. Mend the replay.'
      )
    steps = self.num_iterations * self.training_steps
    trials.check(agent, lambda name: agent.last_count(name, steps))
    trials.check(replay, lambda name: agent.last_count('', steps))
    return loop.Loop(
      agent=agent,
      replay=replay,
      reward_clip=self.environment.reward_clip,
      stack=self.environment.stack,
      num_envs=self.num_envs,
    )

  def make_engine(
    self,
    environments: base.VectorEnvironment,
    seeds: Sequence[int],
    **given: Any,
  ) -> engine_lib.Engine:
    """Returns the engine for these seeds; it has no training state yet.

    Args:
      environments: S * N environments.
      seeds: S seeds.
      **given: further arguments of `Engine`: `check_finite`, and where several
        trainings share one engine, `numbers` and `names`.
    """
    return self.make_part(
      'engine',
      loop=self.make_loop(environments),
      environments=environments,
      seeds=seeds,
      devices=self.devices,
      **given,
    )

  def train(
    self,
    base_dir: str | pathlib.Path,
    *,
    seed: int = 0,
    num_seeds: int = 1,
    resume: bool = True,
    quiet: bool = False,
    profile: int = 0,
    with_replay: bool = True,
    title: str = '',
    say: Callable[[str], None] = print,
  ) -> dict[str, np.ndarray]:
    """Trains, or goes on where a run in `base_dir` was stopped.

    Args:
      base_dir: the run's folder; made if missing.
      seed: of the first seed; the others follow it.
      num_seeds: seeds that train side by side, S.
      resume: whether to go on from a run that lies in `base_dir`.
      quiet: whether the console shows nothing.
      profile: agent steps to trace, see `profiling.Profiler`; 0 for none.
      with_replay: whether a run that goes on takes the checkpoint's replay.
      title: what the run is, in a line.
      say: prints what the user should know.

    Returns:
      The last iteration's statistics: [S] by name.

    Raises:
      UserError: if a setting, the folder or a checkpoint doesn't fit.
      Stopped: after SIGINT, SIGTERM or SIGHUP.
    """
    check_options(
      *(base_dir, seed, num_seeds, title),
      resume=resume,
      quiet=quiet,
      with_replay=with_replay,
    )
    with contextlib.ExitStack() as stack:
      folder = stack.enter_context(folder_lock.open_for_training(base_dir, say))
      one = training.Training(
        self, folder, tuple(range(seed, seed + num_seeds)), say, stack, title
      )
      if not with_replay and not one.checkpoints.iterations():
        raise errors.UserError(
          f'--without-replay goes on with a checkpoint, and {folder} has none. '
          'Leave it out.'
        )
      one.prepare(resume, with_replay)
      # Before a bar is on the screen, which has to be put away again.
      stop = stack.enter_context(signals.stop_signals())
      one.open_collectors(quiet)
      if profile:
        one.profile(profile)
      return driving.alone(one, stop)


@contextlib.contextmanager
def configured(
  files: Sequence[str | pathlib.Path],
  bindings: Sequence[str] = (),
  say: Callable[[str], None] = print,
) -> Iterator[tuple[Runner, str]]:
  """Yields the runner that gin files describe, and the run's title.

  What is raised of a setting inside names the line that sets it.

  Args:
    files: names or paths of gin files.
    bindings: lines of gin, which win.
    say: prints what the user should know.

  Raises:
    UserError: if a file can't be read, or says what can't be meant.
  """
  loaded = config.load(files, bindings)
  runner = loaded.build(loaded.kind(Runner))
  loaded.refuse_unread(say)
  with loaded.located():
    yield runner, loaded.title


def check_options(base_dir, seed, num_seeds, title, **switches):
  """Refuses options of a training that can't be meant."""
  for name, value in (('seed', seed), ('num_seeds', num_seeds)):
    least = 1 if name == 'num_seeds' else 0
    if type(value) is not int or value < least:
      raise errors.UserError(
        f'{name} = {value!r}; expected a whole number, at least {least}.'
      )
  if num_seeds > _MOST_SEEDS:
    raise errors.UserError(
      f'num_seeds = {num_seeds}; expected {_MOST_SEEDS:,} at most.'
    )
  for name, value in switches.items():
    if type(value) is not bool:
      raise errors.UserError(f'{name} = {value!r}; expected True or False.')
  if not isinstance(title, str):
    raise errors.UserError(f'title = {title!r}; expected a line of text.')
  if not isinstance(base_dir, (str, pathlib.Path)):
    raise errors.UserError(f'base_dir = {base_dir!r}; expected a path.')
  if not 0 <= seed <= seed + num_seeds - 1 < 2**31:
    raise errors.UserError(
      f'seeds {seed} to {seed + num_seeds - 1} are not all from 0 to '
      f'{2**31 - 1}: JAX takes them as 32-bit integers.'
    )
