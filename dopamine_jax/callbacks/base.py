"""The contract of a callback: it decides on numbers, and changes one seed.

When an iteration has ended and was evaluated, `after_iteration` looks at the
statistics of all seeds and answers with a `Decision`. If that asks for a
change, `change` is applied to each seed when the next iteration begins. So a
checkpoint holds the agent that was measured, and what is still to be done to
it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from dopamine_jax import settings
from dopamine_jax.metrics import inspection


class Seen(NamedTuple):
  """An iteration that has ended.

  Attributes:
    iteration: its number, counted from 1.
    agent_steps: done so far, by each seed.
    statistics: [S] by name, such as 'Train/AverageReturns'; NaN where a seed
      has none. Those that a clock or the machine decides are left out: a run
      that is resumed would decide otherwise. 'Eval/...' only where the
      iteration was evaluated.
    evaluates: whether the run has evaluations at all.
    has_checkpoint: whether the iteration has a checkpoint.
    can_sample: whether the replay has its `min_history`.
  """

  iteration: int
  agent_steps: int
  statistics: Mapping[str, np.ndarray]
  evaluates: bool
  has_checkpoint: bool
  can_sample: bool


class Decision(NamedTuple):
  """What a callback answers.

  Attributes:
    own: its new state, like that of `Callback.init` in structure and shapes.
    change: whether `Callback.change` is due.
    stop: why the run ends; '' if it goes on. It ends at this checkpoint, or at
      the next one where the iteration has none.
    keep: a name by which this iteration's checkpoint is kept, in place of the
      one that had the name before; '' for none. `evaluate`, `record` and `load`
      know it by that. It keeps its agent, and its replay while it is among the
      `runner.Runner.max_to_keep` newest.
  """

  own: Any
  change: bool = False
  stop: str = ''
  keep: str = ''


class Callback(settings.Settings):
  """Extend it, and name it in `runner.Runner.callbacks`.

  A run that was killed and goes on has to decide as one that was not: what is
  remembered from one iteration to the next belongs into the callback's own
  state, which checkpoints hold.
  """

  # Whether it decides by evaluations, without which a run is refused.
  needs_evaluations = False

  def why_idle(self, runner: Any, engine: Any) -> str:
    """Returns why it will do nothing in such a run; '' if it may.

    Args:
      runner: the settings of the run, a `runner.Runner`.
      engine: what trains it, an `engines.engine.Engine`.

    Raises:
      UserError: if it could do nothing in a run of any length.
    """
    del runner, engine
    return ''

  def init(self) -> Any:
    """Returns the callback's own state: a pytree of arrays and numbers.

    They become NumPy arrays of 32 bits; one state for all seeds.
    """
    return ()

  def after_iteration(self, seen: Seen, own: Any) -> Decision:
    """Decides, given all seeds' statistics; pure, and not traced."""
    raise NotImplementedError

  def change(self, view: inspection.View, own: Any, key: jax.Array) -> Any:
    """Returns one seed's new agent state; pure, and traced.

    Args:
      view: the seed's training; `view.state.agent` is the state to change.
      own: the callback's own state.
      key: a PRNG key for this seed, callback and iteration alone.
    """
    del own, key
    return view.state.agent
