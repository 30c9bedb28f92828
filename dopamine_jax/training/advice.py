"""What a user should know before a training starts, and when it is stopped."""

from collections.abc import Callable
import shlex
from typing import Any

from dopamine_jax import annotations
from dopamine_jax import errors
from dopamine_jax.engines import engine as engine_lib
from dopamine_jax.training import identity


class Stopped(errors.UserError):
  """The user asked to stop; the run can go on later."""

  def __init__(self, message: str, status: int = 1):
    super().__init__(message)
    self.status = status


def before_the_start(
  runner: Any,
  engine: engine_lib.Engine,
  config: str,
  say: Callable[[str], None],
):
  """Says what will probably not be meant.

  Args:
    runner: the settings of the run, a `runner.Runner`.
    engine: what trains, as it was made.
    config: its settings, as config.gin has them.
    say: prints what the user should know.

  Raises:
    UserError: if a callback could do nothing.
  """
  steps = runner.num_iterations * runner.training_steps
  first = max(engine.learning_begins, engine.loop.agent.update_period)
  if first > steps:
    say(
      f'Warning: nothing is learnt in this run. Its {steps:,} agent steps end '
      f'before the first update, which is due after {first:,} (the larger of '
      "the replay's min_history and the agent's update_period)."
    )
  for callback in runner.callbacks:
    if why := callback.why_idle(runner, engine):
      name = annotations.full_name(type(callback))
      say(f'Warning: {name} does nothing in this run: {why}.')
  if engine.fills_replay:
    seen, here = map(_game, (engine.dataset.recorded_with(), config))
    if seen and here and seen != here:
      say(
        f'Warning: the dataset was recorded on {seen}, and this run is of '
        f'{here}. Values are learnt of the one, and evaluated on the other.'
      )
  if '\nimport __main__\n' in config:
    say(
      'Warning: settings name what this script or notebook itself defines. '
      'Other programs, such as dopamine-jax evaluate, will not find it. Move '
      'it into a module of its own, and import it from there.'
    )


def _game(config):
  """Returns what is trained on; '' of a class that is a game."""
  played = identity.games(identity.bindings(config))
  return played.get('environment', ('', ''))[0]


def how_to_go_on(one: Any) -> str:
  """Returns what to do after a signal has stopped a `training.Training`."""
  newest = one.newest_checkpoint
  where = f'goes on after iteration {newest}'
  if not newest:
    where = 'starts again from the first step, for there is no checkpoint yet'
  promise = ''
  has_replay = one.runner.checkpoint_replay or one.engine.fills_replay
  if one.with_replay and (has_replay or not newest):
    promise = ', and ends as if it had never been stopped'
  flags = [] if one.resume else ['--no-resume']
  flags += [] if one.with_replay else ['--without-replay']
  without = f' and without {" and ".join(flags)}' if flags else ''
  return (
    f'Stopped by {one.stop.name} at agent step {one.engine.steps}, in '
    f'iteration {one.iteration}. The same command with --base_dir '
    f'{shlex.quote(str(one.base_dir))}{without} {where}{promise}.'
  )
