"""A run's callbacks: what they remember, have decided, and have yet to change.

Their own states are part of a checkpoint's arrays. The rest is a few words of
its manifest: which names checkpoints are kept by, which callbacks are to change
the agent when the next iteration begins, and why the run ends.
"""

from collections.abc import Mapping, Sequence
import functools
from typing import Any

import jax
import numpy as np

from dopamine_jax import annotations
from dopamine_jax import errors
from dopamine_jax.callbacks import base
from dopamine_jax.engines import dispatch
from dopamine_jax.engines import engine as engine_lib
from dopamine_jax.learning import outputs
from dopamine_jax.metrics import base as metrics_base
from dopamine_jax.metrics import inspection

# Evaluations fold their iteration into the same key, and `inspection.View` the
# number above this one.
_NO_ITERATION = np.uint32(2**32 - 2)


class Decisions:
  """What the callbacks of a run have decided so far.

  Attributes:
    own: the callbacks' own states.
    kept: iterations by the name under which their checkpoint is kept.
    stop: why the run ends; '' if it goes on.
  """

  def __init__(
    self, callbacks: Sequence[base.Callback], engine: engine_lib.Engine
  ):
    """Makes their first states, and sees that their changes fit.

    Raises:
      UserError: if what a callback makes of an agent is no state of that agent.
    """
    self._callbacks = callbacks
    self._engine = engine
    self.own = [_first(each) for each in callbacks]
    self.kept: dict[str, int] = {}
    self.stop = ''
    self._due: list[int] = []  # callbacks that are to change the agent
    self._programs = [
      jax.jit(
        engine.vectorize(functools.partial(self._change, i)),
        # As where the agent was first made, which some do again.
        compiler_options=dispatch.one_by_one(),
      )
      for i in range(len(callbacks))
    ]
    for i, program in enumerate(self._programs):
      jax.eval_shape(program, engine.abstract_state(), self._own_of_seeds(i))

  def template(self) -> list[Any]:
    """Returns the shapes and types of the callbacks' own states."""
    return jax.eval_shape(lambda: self.own)

  def saved(self) -> dict[str, Any]:
    """Returns for JSON what `restore` needs beside the own states."""
    return {'kept': self.kept, 'due': self._due, 'stop': self.stop}

  def restore(self, own: list[Any], saved: Mapping[str, Any]):
    """Takes back what a checkpoint holds.

    Args:
      own: the callbacks' own states.
      saved: what `saved` returned.
    """
    self.own = jax.tree.map(np.asarray, own)
    self.kept = dict(saved['kept'])
    self._due = list(saved['due'])
    self.stop = saved['stop']

  def look(
    self,
    iteration: int,
    statistics: Mapping[str, np.ndarray],
    *,
    evaluates: bool,
    has_checkpoint: bool,
  ):
    """Asks each callback about an iteration that has ended.

    Raises:
      UserError: if an answer is none that can be gone on with.
    """
    engine = self._engine
    seen = base.Seen(
      iteration=iteration,
      agent_steps=engine.steps,
      statistics={
        name: values
        for name, values in statistics.items()
        if not metrics_base.is_timing(name)
      },
      evaluates=evaluates,
      has_checkpoint=has_checkpoint,
      can_sample=engine.steps >= engine.learning_begins,
    )
    for i, callback in enumerate(self._callbacks):
      with outputs.telling(callback, 'after_iteration'):
        decision = callback.after_iteration(seen, self.own[i])
      _require_decision(callback, decision, seen)
      self.own[i] = _arrays(callback, decision.own, self.own[i])
      if decision.change:
        self._due.append(i)
      if decision.keep:
        self.kept[decision.keep] = iteration
      if decision.stop and not self.stop:
        name = annotations.full_name(type(callback))
        self.stop = f'{name} after iteration {iteration}: {decision.stop}'

  def change_agent(self):
    """Applies the changes that are due, in the order of the callbacks."""
    if not self._due:
      return
    state = self._engine.state
    for i in self._due:
      agent = self._programs[i](state, self._own_of_seeds(i))
      state = state.replace(agent=agent)
    self._engine.state, self._due = state, []

  def _own_of_seeds(self, i):
    """Returns a callback's own state once for each seed."""
    axis = self._engine.axis
    return jax.tree.map(
      lambda leaf: axis.of(np.stack([leaf] * axis.size)), self.own[i]
    )

  def _change(self, i, state, own):
    """Returns one seed's new agent state; traced."""
    experience = state.experience
    key = jax.random.fold_in(experience.keys.evaluate, _NO_ITERATION)
    for number in (experience.agent_steps, i):
      key = jax.random.fold_in(key, number)
    callback = self._callbacks[i]
    view = inspection.View(self._engine.loop, state)
    with outputs.telling(callback, 'change'):
      agent = callback.change(view, own, key)
    name = f'{annotations.full_name(type(callback))}.change'
    outputs.require_alike(name, 'state', state.agent, agent, 'callback')
    return agent


def _first(callback):
  """Returns a callback's first own state."""
  with outputs.telling(callback, 'init'):
    own = callback.init()
  return _arrays(callback, own)


def _arrays(callback, own, like=None):
  """Returns a callback's own state as NumPy arrays of 32 bits.

  Raises:
    UserError: if it holds something else, or is unlike the one before.
  """
  name = annotations.full_name(type(callback))
  try:
    arrays = jax.tree.map(
      lambda leaf: np.asarray(
        leaf, jax.dtypes.canonicalize_dtype(_dtype(leaf))
      ),
      own,
    )
  except TypeError as error:
    raise errors.UserError(
      f"{name}: a callback's own state is made of arrays and numbers, and this "
      f'one holds {error}. Mend the callback.'
    ) from error
  if like is not None:
    outputs.require_alike(
      f'{name}.after_iteration', 'state', like, arrays, 'callback'
    )
  return arrays


def _dtype(leaf):
  dtype = np.asarray(leaf).dtype
  if dtype.kind not in 'biuf':
    raise TypeError(f'what is of type {type(leaf).__name__}')
  return dtype


def _require_decision(callback, decision, seen):
  """Refuses what a callback may not answer."""
  name = f'{annotations.full_name(type(callback))}.after_iteration'
  if not isinstance(decision, base.Decision):
    raise errors.UserError(
      f'{name} must return a callbacks.base.Decision, and it gave '
      f'{annotations.shown(decision)}. Mend the callback.'
    )
  if not all(isinstance(x, str) for x in (decision.stop, decision.keep)):
    raise errors.UserError(
      f'{name} must return texts as stop and keep, and it gave '
      f'{annotations.shown(decision.stop)} and '
      f'{annotations.shown(decision.keep)}. Mend the callback.'
    )
  if decision.keep.isdecimal():
    raise errors.UserError(
      f'{name}: keep = {decision.keep!r} would be taken for an iteration. Give '
      'the checkpoint a name.'
    )
  if decision.keep and not seen.has_checkpoint:
    raise errors.UserError(
      f'{name} asks to keep the checkpoint of iteration {seen.iteration}, and '
      'it has none. Look at `seen.has_checkpoint`, or set '
      'runner.Runner.checkpoint_period = 1.'
    )
