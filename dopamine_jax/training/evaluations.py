"""The evaluations of a training, on environments of their own."""

from collections.abc import Callable
import contextlib
import time
from typing import Any

import jax
import numpy as np

from dopamine_jax.engines import engine as engine_lib
from dopamine_jax.engines import evaluation
from dopamine_jax.engines import share as share_lib
from dopamine_jax.engines import streams
from dopamine_jax.system import processes
from dopamine_jax.training import reports


class Evaluations:
  """Evaluates what an engine trains, when that is due.

  Args:
    runner: the settings of the run, a `runner.Runner`.
    engine: what trains; of trainings that share a program, all of it.
    closers: what is closed with the training.
    say: prints what the user should know.
  """

  def __init__(
    self,
    runner: Any,
    engine: engine_lib.Engine,
    closers: contextlib.ExitStack,
    say: Callable[[str], None],
  ):
    self._runner = runner
    self._engine = engine
    self._say = say
    self._evaluator = None
    if runner.evaluation_episodes:
      self._evaluator = evaluation.Evaluator(
        engine.loop.agent,
        runner.evaluated_on,
        len(engine.seeds),
        runner.evaluation_episodes,
        vectorize=engine.vectorize_agent,
        agent_at=engine.loop.agent_at,
      )
      closers.callback(self._evaluator.environments.close)
      evaluation.require_same_spaces(
        *(runner.environment, engine.environments),
        *(runner.evaluated_on, self._evaluator.environments),
      )
      evaluation.tell_bounds(
        engine.environments, self._evaluator.environments, say
      )

  def are_due(self, iteration: int) -> bool:
    """Whether an iteration ends with an evaluation."""
    is_last = iteration == self._runner.num_iterations
    is_due = iteration % self._runner.evaluation_period == 0
    return self._evaluator is not None and (is_due or is_last)

  def run(
    self, iteration: int, on_step: Callable[[], None]
  ) -> dict[str, np.ndarray]:
    """Returns an evaluation's statistics, [S] by name.

    Args:
      iteration: that has ended.
      on_step: called before each step, and while one takes long; may raise to
        stop.
    """
    return _statistics(*self.play(iteration, on_step))

  def play(
    self, iteration: int, on_step: Callable[[], None]
  ) -> tuple[evaluation.Evaluation, float]:
    """Returns what an evaluation reached, and the seconds that it took.

    Args:
      iteration: see `run`; likewise the other.
      on_step: see there.
    """
    started = time.perf_counter()
    engine, evaluator = self._engine, self._evaluator
    patience = evaluation.Patience(
      f'The evaluation of iteration {iteration}',
      self._runner.evaluated_on,
      self._say,
    )

    def look(moment):
      on_step()
      patience(moment)

    keys = processes.local(engine.state.experience.keys.evaluate)
    fold = engine.axis.over(lambda key: jax.random.fold_in(key, iteration))
    result = evaluator.run(
      processes.local(engine.state.agent),
      fold(keys),
      streams.env_seeds(
        engine.seeds, streams.Stream.EVALUATE, iteration, evaluator.num_envs
      ),
      engine.steps,
      look,
      on_step,
    )
    return result, time.perf_counter() - started


class Together(Evaluations):
  """Evaluates trainings of one program, all when the first of them asks."""

  def __init__(self, *args: Any):
    super().__init__(*args)
    self._newest = None  # iteration, and what was played of it

  def play(self, iteration, on_step):
    """See there; a second call for an iteration returns the same result."""
    if self._newest is None or self._newest[0] != iteration:
      self._newest = iteration, super().play(iteration, on_step)
    return self._newest[1]


class EvaluationShare:
  """One training's share of the evaluations of all that share its program.

  Args:
    together: of all.
    share: of the engine.
  """

  def __init__(self, together: Together, share: share_lib.Share):
    self._together, self._share = together, share

  def are_due(self, iteration: int) -> bool:
    """See `Evaluations.are_due`."""
    return self._together.are_due(iteration)

  def run(
    self, iteration: int, on_step: Callable[[], None]
  ) -> dict[str, np.ndarray]:
    """See `Evaluations.run`."""
    result, seconds = self._together.play(iteration, on_step)
    return _statistics(self._share.own_seeds(result), seconds)


def _statistics(result, seconds):
  """Returns an evaluation's statistics, [S] by name."""
  statistics = reports.summarize('Eval', result.returns, result.lengths)
  for name, numbers in result.told.items():
    reports.add_told(statistics, f'Eval/{name}', numbers)
  rate = result.lengths.sum() / seconds
  statistics['Eval/AverageStepsPerSecond'] = np.full(len(result.returns), rate)
  return statistics
