"""A training's newest agent, loaded from its folder to play."""

from collections.abc import Callable, Sequence
import contextlib
import functools
import os
import pathlib
import shutil
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dopamine_jax import agent as agent_lib
from dopamine_jax import annotations
from dopamine_jax import config
from dopamine_jax import errors
from dopamine_jax import runner as runner_lib
from dopamine_jax.checkpoints import checkpoints as checkpoints_lib
from dopamine_jax.engines import evaluation
from dopamine_jax.engines import seed_axis
from dopamine_jax.engines import stacking
from dopamine_jax.engines import streams
from dopamine_jax.environments import base
from dopamine_jax.films import camera as camera_lib
from dopamine_jax.system import safe_files
from dopamine_jax.training import identity
from dopamine_jax.training import kept
from dopamine_jax.training import run_folder
from dopamine_jax.trust import strangers

# Bytes: ffmpeg writes more at once than a full disk may have left.
_FULL = 1 << 17


class Trained(NamedTuple):
  """An agent as its checkpoint holds it, all exploration off.

  Attributes:
    folder: the run's.
    agent: the settings.
    state: the agent's state, [S, ...].
    environment: settings of what it plays on, as its evaluations did.
    seeds: the run's seeds, S of them.
    iteration: of the checkpoint.
    steps: agent steps of training.
  """

  folder: pathlib.Path
  agent: agent_lib.Agent
  state: Any
  environment: base.Environment
  seeds: tuple[int, ...]
  iteration: int
  steps: int

  @property
  def axis(self) -> seed_axis.SeedAxis:
    """The axis of the seeds."""
    return seed_axis.SeedAxis(len(self.seeds))


def load(
  base_dir: str | pathlib.Path,
  say: Callable[[str], None] = print,
  trusted: Sequence[str] = (),
  checkpoint: str | None = None,
  bindings: Sequence[str] = (),
) -> Trained:
  """Loads a checkpoint's agent, by the run's own configuration.

  The configuration names Python code, which is imported. What it may name, if
  it is of a run that this user didn't train, `trust` says.

  Args:
    base_dir: the run's folder.
    say: prints what the user should know.
    trusted: packages whose code such a run may import and call as well.
    checkpoint: an iteration in digits, or a name by which a callback keeps it;
      None: the newest good one.
    bindings: lines of gin, of the environment to play on; they win over the
      run's own.

  Raises:
    UserError: if the folder holds no run, no checkpoint that can be read,
      another run's, or a configuration that names what it may not.
  """
  folder = pathlib.Path(base_dir)
  seeds = tuple(run_folder.read_facts(folder, say)['seeds'])
  admitted = strangers.admit(folder, trusted, say)
  loaded = config.load([admitted.file], text=admitted.text)
  runner = loaded.build(loaded.kind(runner_lib.Runner))
  admitted.check(runner.environment)
  admitted.check(runner.evaluated_on)
  played_on = runner.evaluated_on
  if bindings:
    played_on = _bound(admitted, bindings, say, runner)
  environments = runner.environment.make(1)
  with contextlib.closing(environments):
    agent = runner.make_agent(environments)
    frames = environments.reset([0])
    if played_on != runner.environment:
      with contextlib.closing(played_on.make(1)) as others:
        evaluation.require_same_spaces(
          *(runner.environment, environments, played_on, others)
        )
        evaluation.tell_bounds(environments, others, say)

  def init(key):
    # Only its shapes are looked at, so that `num_envs` takes no memory here.
    several = jax.tree.map(
      lambda x: jnp.repeat(jnp.asarray(x), runner.num_envs, axis=0), frames
    )
    observation = stacking.first_observation(several, runner.environment.stack)
    return agent.init(key, observation)

  axis = seed_axis.SeedAxis(len(seeds))
  keys = jax.random.split(jax.random.key(0), len(seeds))
  template = jax.eval_shape(axis.over(init), axis.of(keys))
  checkpoints = checkpoints_lib.Checkpoints(folder, say=say)
  run_folder.require_own(checkpoints, seeds, admitted.text)
  iteration, state = _restore(checkpoints, {'agent': template}, checkpoint)
  steps = iteration * runner.training_steps
  agent = runner.agent_at(agent, steps)
  greedy = agent.greedy()
  if not isinstance(greedy, type(agent)):
    raise errors.UserError(
      f'{type(agent).__name__}.greedy must return an agent like itself, and it '
      f'gave {annotations.shown(greedy)}. Mend the agent.'
    )
  return Trained(
    folder=folder,
    agent=greedy,
    state=state['agent'],
    environment=played_on,
    seeds=seeds,
    iteration=iteration,
    steps=steps,
  )


def _bound(admitted, bindings, say, trained):
  """Returns the environment to play on, as the user's bindings change it."""
  loaded = config.load([admitted.file], bindings, text=admitted.text)
  runner = loaded.build(loaded.kind(runner_lib.Runner))
  loaded.refuse_unread(say)
  slot = 'evaluation_environment'
  if runner.evaluation_environment is None:
    slot = 'environment'
  others = runner.replace(**{slot: getattr(trained, slot)})
  before, after = (
    identity.bindings(config.write(each)) for each in (trained, others)
  )
  for key, value in after.items():
    if before.get(key) != value:
      raise errors.UserError(
        f'--gin_bindings: {key} = {value} changes nothing of the environment '
        'to play on, as only these bindings can. Leave it out.'
      )
  return runner.evaluated_on


def _restore(checkpoints, template, name):
  """Returns an iteration, and what its checkpoint holds of the template."""
  if name is None:
    found = checkpoints.restore_newest(template)
    if found is None:
      raise errors.UserError(
        f'{checkpoints.folder.parent} has no checkpoint that can be read yet.'
      )
    return found
  iteration = kept.iteration_called(checkpoints, name)
  try:
    return iteration, checkpoints.restore(iteration, template)
  except checkpoints_lib.Damaged as damage:
    raise errors.UserError(
      f'the checkpoint of iteration {iteration} in {checkpoints.folder} is '
      f'damaged: {damage}. Choose another one.'
    ) from damage


def play(trained: Trained, episodes: int, seed: int) -> evaluation.Evaluation:
  """Plays whole episodes with each seed of a training.

  Args:
    trained: the agent.
    episodes: E, for each seed.
    seed: of the episodes; each run seed adds its own.
  """
  evaluator = evaluation.Evaluator(
    trained.agent, trained.environment, len(trained.seeds), episodes
  )
  try:
    return _run(evaluator, trained, seed)
  finally:
    evaluator.environments.close()


def film(
  trained: Trained,
  episodes: int,
  seed: int,
  output: pathlib.Path,
  *,
  panel: bool = True,
  saliency: bool = False,
  say: Callable[[str], None] = print,
) -> np.ndarray:
  """Writes an mp4 of a training's first seed; returns the episodes' returns.

  Args:
    trained: the agent.
    episodes: how many.
    seed: of the episodes; the same ones are played whatever is drawn.
    output: the file.
    panel: whether to draw what the agent expects and means to do, beside.
    saliency: whether to draw what its value depends on, over the frames.
    say: prints what the user should know.

  Raises:
    UserError: if the file can't be written, or there is no saliency to draw.
  """
  import imageio
  import imageio_ffmpeg

  if output.suffix != '.mp4':
    raise errors.UserError(f'{output}: a film is an .mp4 file.')
  state = trained.axis.pick(trained.state, 0)
  trained = trained._replace(seeds=trained.seeds[:1], state=state)
  evaluator = evaluation.Evaluator(
    trained.agent, trained.environment, 1, episodes, render=True
  )
  environments = evaluator.environments
  # Else ffmpeg is started by a fork, which may hang beside JAX's threads.
  os.environ.setdefault('IMAGEIO_FFMPEG_NO_PREVENT_SIGINT', '1')
  try:
    camera = camera_lib.Camera(
      *(trained.agent, environments, trained.environment.stack),
      *(panel, saliency, say),
    )
    camera.begin(state, _keys(trained, seed))
    with safe_files.making(output, trained.folder) as beside:
      with _writing(beside, output):
        video = imageio.get_writer(
          beside,
          fps=environments.frames_per_second,
          macro_block_size=2,
          ffmpeg_log_level='quiet',
        )

      def add(moment):
        picture = camera.shoot(moment)
        with _writing(beside, output):
          video.append_data(picture)

      try:
        result = _run(evaluator, trained, seed, on_step=add)
      finally:
        with _writing(beside, output):
          video.close()
      with _writing(beside, output):
        # imageio doesn't say what ffmpeg could not end.
        imageio_ffmpeg.count_frames_and_secs(str(beside))
  finally:
    environments.close()
  return result.returns[0]


@contextlib.contextmanager
def _writing(beside, output):
  """Tells why a film could not be written; ffmpeg just ends."""
  try:
    yield
  except (OSError, RuntimeError) as error:
    is_full = shutil.disk_usage(beside.parent).free < _FULL
    why = 'no space is left on its disk' if is_full else 'ffmpeg ended'
    raise errors.UserError(
      f'could not write {output} to its end: {why}. Choose another place, or '
      'film fewer --episodes.'
    ) from error


def _keys(trained, seed):
  """Returns PRNG keys [S]."""
  if seed + max(trained.seeds) >= 2**31:
    raise errors.UserError(
      f'--seed {seed} is too large: each seed of the training is added to it, '
      f'here {max(trained.seeds)}, and {2**31 - 1} is the largest.'
    )
  keys = jnp.stack([jax.random.key(seed + s) for s in trained.seeds])
  return trained.axis.of(keys)


def _run(evaluator, trained, seed, on_step=lambda moment: None):
  env_seeds = streams.env_seeds(
    [seed + s for s in trained.seeds],
    streams.Stream.COMMAND,
    0,
    evaluator.num_envs,
  )
  patience = evaluation.Patience(
    'The evaluation',
    trained.environment,
    functools.partial(print, file=sys.stderr),
  )

  def look(moment):
    patience(moment)
    on_step(moment)

  return evaluator.run(
    trained.state, _keys(trained, seed), env_seeds, trained.steps, look
  )
