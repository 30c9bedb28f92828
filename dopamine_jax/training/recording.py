"""Whether all that a run's replay is given can be recorded."""

from typing import Any

from dopamine_jax import errors
from dopamine_jax.replay import ring as ring_lib
from dopamine_jax.system import processes


def check_start(runner: Any, replay: Any, source: str):
  """Refuses a replay that another run has overwritten in part.

  Args:
    runner: the settings of the run that begins with it.
    replay: its rings, as they were saved.
    source: the other run.

  Raises:
    UserError: says how to begin.
  """
  if runner.record_replay and processes.fetch(replay.oldest).any():
    runner.refuse(
      'record_replay',
      f'can not record what is gone: the replay of {source} has overwritten '
      'its first steps, and would be taken along. Begin without it, by '
      'starts.StartFrom.replay = False, or set record_replay to False',
    )


def check(runner: Any, state: Any, with_replay: bool):
  """Refuses a run whose replay overwrites steps before they are saved.

  Args:
    runner: the run's settings.
    state: the training state; shapes do.
    with_replay: whether a run that goes on takes its replay along.

  Raises:
    UserError: says what the replay holds, and what it would need.
  """
  if not runner.record_replay:
    return
  if not with_replay:
    raise errors.UserError(
      '--without-replay leaves behind what runner.Runner.record_replay has '
      'recorded. Leave it out, or begin another run with this agent: '
      'runner.Runner.start_from, with starts.StartFrom.replay = False.'
    )
  steps = runner.checkpoint_period * runner.training_steps // runner.num_envs
  ring = state.experience.replay
  if not ring_lib.is_ring(ring):
    runner.refuse(
      'record_replay', 'is for a replay that has its steps in a ring'
    )
  capacity = ring.slots.reward.shape[-1]
  # An episode's last observation takes a slot, too, and may follow each step.
  needed = 2 * steps + 1
  if capacity < needed:
    runner.refuse(
      'record_replay',
      f'does not fit: {steps} steps of each environment lie between two '
      f'checkpoints, up to {needed} slots, and the replay has {capacity} for '
      'each, so that some would be overwritten before they are saved. Raise '
      "the replay's capacity, or lower checkpoint_period or training_steps. (A "
      'rollout holds what one update needs, and can not be recorded)',
    )
