"""Callbacks that only decide: when a run has reached enough, what was best."""

from typing import Literal

import numpy as np

from dopamine_jax.callbacks import base

RETURNS = ('Train/AverageReturns', 'Eval/AverageReturns')


class EarlyStopping(base.Callback):
  """Ends a run when the mean return over the seeds is high enough.

  Only iterations with the statistic count: for 'Eval/AverageReturns', those
  that were evaluated. If a seed has no return there, as no episode ended, the
  mean is not known and not high enough.

  Attributes:
    at_return: what has to be reached.
    statistic: which return.
    num_values: how many of its newest values are averaged.
  """

  at_return: float
  statistic: Literal['Train/AverageReturns', 'Eval/AverageReturns'] = (
    'Eval/AverageReturns'
  )
  num_values: int = 1

  def __post_init__(self):
    super().__post_init__()
    self.require_at_least(1, 'num_values')

  @property
  def needs_evaluations(self):
    """Whether evaluations give the return."""
    return self.statistic.startswith('Eval/')

  def why_idle(self, runner, engine):
    """Refuses returns of a training that has none."""
    del runner
    if engine.fills_replay and not self.needs_evaluations:
      self.refuse(
        'statistic',
        'is never there: who learns from a dataset plays no episodes in '
        f'training. Choose {RETURNS[True]!r}',
      )
    return ''

  def init(self):
    """Returns the newest values, NaN for those to come."""
    return np.full(self.num_values, np.nan, np.float32)

  def after_iteration(self, seen, own):
    """Stops if the mean is high enough; see `Callback.after_iteration`."""
    if self.statistic not in seen.statistics:
      return base.Decision(own)
    newest = np.mean(seen.statistics[self.statistic])
    own = np.append(own[1:], np.float32(newest))
    mean = float(np.mean(own))
    if not mean >= self.at_return:  # nor if it is NaN
      return base.Decision(own)
    over = f', over {self.num_values} of them' if self.num_values > 1 else ''
    why = f'{self.statistic} = {mean:g}{over}, at least {self.at_return:g}'
    return base.Decision(own, stop=why)


class KeepBest(base.Callback):
  """Keeps the checkpoint whose mean return over the seeds was highest.

  It goes by the evaluations of a run that has some, and else by training. Only
  iterations with a checkpoint count; of equal ones the first is kept.

  Attributes:
    name: of the checkpoint, as in `dopamine-jax evaluate --checkpoint best`.
  """

  name: str = 'best'

  def __post_init__(self):
    super().__post_init__()
    if not self.name or self.name.isdecimal():
      self.refuse('name', "is no name; expected a word such as 'best'")

  def why_idle(self, runner, engine):
    """Refuses a run without any returns."""
    if engine.fills_replay and not runner.evaluation_episodes:
      self.refuse(
        'name',
        'would never be given: who learns from a dataset plays no episodes in '
        'training. Set runner.Runner.evaluation_episodes to 1 or more',
      )
    return ''

  def init(self):
    """Returns the highest return so far."""
    return np.float32(-np.inf)

  def after_iteration(self, seen, own):
    """Keeps it if it is better; see `Callback.after_iteration`."""
    returns = seen.statistics.get(RETURNS[seen.evaluates])
    if returns is None or not seen.has_checkpoint:
      return base.Decision(own)
    newest = np.float32(np.mean(returns))
    if not newest > own:  # nor if it is NaN
      return base.Decision(own)
    return base.Decision(newest, keep=self.name)
