"""How programs, whose numbers have 32 bits, count a long training's steps.

Engines count agent steps as Python does, without an end. Programs count them
up to 2**31; before they would get there they go back by half of that, once or
more often, and draw by new keys. Agents of such a training see a count of 2**30
or more from there on, so none of their settings may change that late.
"""

from collections.abc import Sequence
import typing
from typing import Any

import jax
import numpy as np

from dopamine_jax.system import processes

if typing.TYPE_CHECKING:
  from dopamine_jax import agent as agent_lib
  from dopamine_jax import runner as runner_lib
  from dopamine_jax.engines import engine as engine_lib

LARGEST = 2**31 - 1
HALF = 2**30


def in_32_bits(steps: int) -> int:
  """Returns a count as agents see it beside training: at most `LARGEST`."""
  return min(steps, LARGEST)


def go_back(engine: 'engine_lib.Engine', num_steps: int):
  """Sees to it that an engine's programs can count `num_steps` more."""
  counts = processes.fetch(engine.state.experience.agent_steps)
  if int(counts.max()) + num_steps > LARGEST:
    experience = jax.jit(engine.vectorize(_gone_back), donate_argnums=0)(
      engine.state.experience
    )
    engine.state = engine.state.replace(experience=experience)


def _gone_back(experience):
  return experience.replace(
    agent_steps=experience.agent_steps - HALF,
    keys=jax.tree.map(
      lambda key: jax.random.fold_in(key, HALF), experience.keys
    ),
  )


def check(
  runner: 'runner_lib.Runner',
  agent: 'agent_lib.Agent',
  late: Sequence[int],
):
  """Refuses a run in which something would be counted beyond 32 bits.

  Args:
    runner: the run's settings.
    agent: its agent, which has its spaces.
    late: agent steps at which a setting changes.

  Raises:
    SettingError: says what to change.
  """
  steps = runner.num_iterations * runner.training_steps
  if steps <= LARGEST:
    return
  if runner.training_steps > HALF:
    runner.refuse(
      'training_steps',
      f'is more than 2**30 = {HALF}, the most that an iteration of so long a '
      'run may have; lower it, and raise num_iterations',
    )
  # A step that ends an episode takes two slots.
  if 2 * steps // runner.num_envs > LARGEST:
    runner.refuse(
      'num_envs',
      f'is too small for {steps} agent steps: each environment may take 2**30 '
      f'= {HALF}. Have {2 * steps // LARGEST + 1} environments or more',
    )
  if agent.last_count('', steps) > LARGEST:
    runner.refuse(
      'num_iterations',
      f'with training_steps = {runner.training_steps} is more than 2**31 '
      'updates, which is as far as they are counted',
    )
  if max(late, default=0) > HALF:
    runner.refuse(
      'callbacks',
      f'change a setting at agent step {max(late)}, and in a run of more than '
      f'2**31 agent steps none may change after 2**30 = {HALF}',
    )
  for name in agent.over_agent_steps:
    value: Any = getattr(agent, name)
    if callable(value) and len({float(value(np.int32(x))) for x in _LATE}) > 1:
      agent.refuse(
        name,
        f'still changes after 2**30 = {HALF} agent steps, which in a run of '
        'more than 2**31 it may not; end it sooner',
      )


_LATE = (HALF, HALF + HALF // 2, LARGEST)
