"""How programs, whose numbers have 32 bits, count a long training's steps.

Engines count agent steps as Python does, without an end. Programs count them
below 2**31. An iteration that would take them there begins at 2**30 again, and
draws by new keys. What agents see is 2**30 or more from then on, and so none of
their settings may change later than that. (Those that learn from a dataset draw
by updates, and see at most 2**31 - 1.)
"""

from collections.abc import Sequence
import typing
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dopamine_jax import annotations
from dopamine_jax import settings
from dopamine_jax.system import processes

if typing.TYPE_CHECKING:
  from dopamine_jax import agent as agent_lib
  from dopamine_jax.engines import engine as engine_lib

LARGEST = 2**31 - 1
HALF = 2**30
# Where schedules are asked whether they still change.
_ASKED = 1_000


def in_32_bits(steps: int) -> int:
  """Returns a count as agents see it beside training: at most `LARGEST`."""
  return min(steps, LARGEST)


def go_back(engine: 'engine_lib.Engine', num_steps: int):
  """Sees to it that an engine's programs can count `num_steps` more."""
  if engine.fills_replay or engine.steps + num_steps <= LARGEST:
    return  # Most runs end before, and need ask no device.
  counts = processes.fetch(engine.state.experience.agent_steps)
  if int(counts.max()) + num_steps > LARGEST:
    experience = jax.jit(engine.vectorize(_gone_back), donate_argnums=0)(
      engine.state.experience
    )
    engine.state = engine.state.replace(experience=experience)


def _gone_back(experience):
  return experience.replace(
    agent_steps=jnp.full_like(experience.agent_steps, HALF),
    keys=jax.tree.map(
      lambda key: jax.random.fold_in(key, HALF), experience.keys
    ),
  )


def check(
  runner: Any,
  agent: 'agent_lib.Agent',
  late: Sequence[int],
):
  """Refuses a run in which something would be counted beyond 32 bits.

  Args:
    runner: the run's settings, a `Runner`.
    agent: its agent, which has its spaces.
    late: agent steps at which a setting changes.

  Raises:
    SettingError: says what to change.
  """
  steps = runner.num_iterations * runner.training_steps
  _check_environments(runner, agent, steps)
  if steps <= LARGEST:
    return
  if runner.training_steps >= HALF:
    runner.refuse(
      'training_steps',
      f'is not below 2**30 = {HALF}, as it is to be in a run of 2**31 agent '
      'steps or more; lower it, and raise num_iterations',
    )
  if agent.last_count('', steps) > LARGEST:
    runner.refuse(
      'num_iterations',
      f'with training_steps = {runner.training_steps} is 2**31 updates or '
      "more, which can't be counted; raise the agent's update_period, or lower "
      'num_iterations',
    )
  if max(late, default=0) > HALF:
    runner.refuse(
      'callbacks',
      f'change a setting at agent step {max(late)}, and in a run of 2**31 '
      f'agent steps or more none may change after 2**30 = {HALF}; let it '
      'change sooner',
    )
  asked = np.linspace(HALF, LARGEST, _ASKED).astype(np.int32)
  for name in agent.over_agent_steps:
    schedule: Any = getattr(agent, name)
    if callable(schedule) and np.ptp([float(schedule(x)) for x in asked]):
      raise settings.SettingError(
        type(agent),
        name,
        f'{annotations.full_name(type(agent))}.{name}, a schedule, still '
        f'changes after 2**30 = {HALF} agent steps, which in a run of 2**31 or '
        'more it may not. Have it end sooner.',
      )


def _check_environments(runner, agent, steps):
  """Refuses more steps of an environment than its slots are counted."""
  # A step that ends an episode takes two.
  if 2 * steps // runner.num_envs <= LARGEST:
    return
  needed = 2 * steps // LARGEST + 1
  fits = [
    count
    for count in range(needed, min(runner.training_steps, 2**20) + 1)
    if not runner.training_steps % count and not agent.update_period % count
  ]
  remedy = f'Have {min(fits)} environments' if fits else 'Have fewer steps'
  runner.refuse(
    'num_envs',
    f'is too small for {steps} agent steps: each environment may take fewer '
    f'than 2**30 = {HALF}. {remedy}',
  )
