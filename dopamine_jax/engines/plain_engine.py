"""The Python engine as one would write it: read this one first.

Python steps the environments, and one program does the rest of the step:
remember, learn, act.
"""

from typing import Any

import jax
import numpy as np

from dopamine_jax.engines import engine
from dopamine_jax.engines import loop as loop_lib
from dopamine_jax.environments import base


class PlainEngine(engine.Engine):
  """The engine to read, and to debug in: one program per step.

  `python_engine.PythonEngine` takes the same steps in less time; this one is
  what it is tested against, to the rounding of floats. It copies arrays of the
  replay at each step. Set it as `runner.Runner.engine`, under
  `jax.disable_jit()` too.
  """

  def __init__(self, *args: Any, **kwargs: Any):
    super().__init__(*args, **kwargs)
    self._programs = {}

  def run(self, num_steps, *, cut_with, on_step):
    """Trains for so many agent steps; see `Engine.run`."""
    num_envs = self.loop.num_envs
    self.environments.on_wait = on_step
    self._begin()
    for i in range(num_steps // num_envs):
      on_step()
      step = self._border.step(self._actions)
      self.episodes.record(step, self.environments.told)
      self.steps += num_envs
      if cut_with is not None and i == num_steps // num_envs - 1:
        step = step._replace(
          observation=self.reset(cut_with),
          truncated=step.truncated | ~step.terminated,
        )
      self._actions = self._answer(step, self._updates_due_at(self.steps))
    return self._reduced(self._end())

  def _begin(self) -> None:
    """Prepares to take steps from `self.state`, and sets `self._actions`."""
    self._metrics = self._zero_metrics(self.state)
    self._actions = self.axis.merge(self.state.experience.action)

  def _answer(self, step: base.TimeStep, num_updates: int) -> np.ndarray:
    """Remembers a step and learns from it; returns the actions [S * N, ...].

    Args:
      step: of all lanes, [S * N, ...].
      num_updates: that are due now.
    """
    program = self._program(num_updates, self._behaviour_at(self.steps))
    self.state, self._metrics, finite = program(
      self.state, self._metrics, self.axis.split(step)
    )
    self._require_finite(self._metrics.total, finite)
    return self.axis.merge(self.state.experience.action)

  def _end(self) -> Any:
    """Leaves the new `self.state`; returns the sums of the updates' metrics."""
    return self._metrics

  def _program(self, *choices):
    """Returns the step with so many updates and this behaviour."""
    if choices not in self._programs:
      step = loop_lib.Loop.step

      def program(loop, *arguments):
        return step(loop, *choices, *arguments)

      self._programs[choices] = jax.jit(
        self.vectorize_loop(program), donate_argnums=(0, 1)
      )
    return self._programs[choices]
