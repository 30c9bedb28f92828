"""One training's share of an engine that trains several together.

The others differ from it in numbers alone, see `lanes`. To a training its share
is an engine: it has the seeds, the state and the episodes of this training, and
its settings with its own numbers. Only `run` is the whole engine's.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from dopamine_jax.engines import engine as engine_lib
from dopamine_jax.engines import loop as loop_lib
from dopamine_jax.engines import seed_axis
from dopamine_jax.replay import mapped_rows


class Share:
  """The lanes of one of V trainings, which have the same S seeds.

  Attributes:
    whole: the engine of all V * S lanes; those of a training lie side by side.
    loop: with this training's own numbers.
    environments: of the whole; for their spaces and names.
    seeds: S of them.
    axis: of the seeds.
    layout: where arrays lie.
    episodes: of this training's lanes.
  """

  def __init__(
    self,
    whole: engine_lib.Engine,
    loop: loop_lib.Loop,
    seeds: Sequence[int],
    index: int,
  ):
    """Takes a share.

    Args:
      whole: see above.
      loop: see above.
      seeds: see above.
      index: which of the V trainings this is.
    """
    self.whole, self.loop, self.seeds = whole, loop, tuple(seeds)
    self.environments, self.layout = whole.environments, whole.layout
    self.axis = seed_axis.SeedAxis(len(seeds))
    self.episodes = engine_lib.Episodes(
      len(seeds) * loop.num_envs, whole.environments.told_names
    )
    self._index = index
    # A state of the whole engine, and this share of it.
    self._taken = None, None
    self._take = jax.jit(lambda state: jax.tree.map(self._part, state))
    self._give = jax.jit(
      lambda state, part: jax.tree.map(self._with_part, state, part)
    )

  @property
  def steps(self) -> int:
    """Agent steps done by each seed."""
    return self.whole.steps

  @property
  def replay_began(self) -> int:
    """See `Engine.restore`."""
    return self.whole.replay_began

  @property
  def learning_begins(self) -> int:
    """See `Engine.learning_begins`."""
    return self.whole.learning_begins

  @property
  def fills_replay(self) -> bool:
    """See `Engine`."""
    return self.whole.fills_replay

  @property
  def filled_with(self) -> str:
    """See `Engine`."""
    return self.whole.filled_with

  @property
  def state(self) -> loop_lib.TrainingState:
    """The training state, [S, ...]; a copy."""
    if self._taken[0] is not self.whole.state:
      self._taken = self.whole.state, self._take(self.whole.state)
    return self._taken[1]

  @state.setter
  def state(self, state: loop_lib.TrainingState):
    self.whole.state = self._give(self.whole.state, state)

  @property
  def first_frames(self) -> np.ndarray:
    """The first frames of this training's lanes, [S * N, ...]."""
    return self.own_lanes(self.whole.first_frames)

  def abstract_state(self) -> loop_lib.TrainingState:
    """See `Engine.abstract_state`."""
    whole = self.whole.abstract_state()
    # Where rows lie in a file is no matter of shapes alone.
    return jax.tree.map(
      lambda leaf, shape: (
        leaf.replace(lane=self._part(leaf.lane))
        if mapped_rows.is_mapped(leaf)
        else shape
      ),
      whole,
      jax.eval_shape(self._take, whole),
      is_leaf=mapped_rows.is_mapped,
    )

  def vectorize(self, function: Callable[..., Any]) -> Callable[..., Any]:
    """See `Engine.vectorize`."""
    return self.axis.over(function)

  def reset(self, env_seeds: Sequence[int]) -> np.ndarray:
    """Starts new episodes in all trainings, which have the same seeds."""
    self.episodes.cut()
    # The others ask for the same, before a step was taken.
    asked = tuple(env_seeds), self.whole.steps
    if getattr(self.whole, 'reset_by_shares', None) != asked:
      self.whole.reset(self.of_all(env_seeds))
      self.whole.reset_by_shares = asked
    return self.first_frames

  def init(self):
    """Makes the state of all trainings, if that was not done yet."""
    if self.whole.state is None:
      self.whole.init()
    # Of one that a callback has ended more may have been restored.
    self.whole.steps = self.whole.replay_began = 0

  def restore(self, state: loop_lib.TrainingState, steps: int, began: int):
    """See `Engine.restore`."""
    self.init()
    self.whole.restore(self._give(self.whole.state, state), steps, began)

  def forget(self):
    """Lets go of the copy of the state, which is about to change."""
    self._taken = None, None

  def of_all(self, env_seeds: Sequence[int] | None) -> list[int] | None:
    """Returns environment seeds of all lanes; every training has the same."""
    if env_seeds is None:
      return None
    return list(env_seeds) * (len(self.whole.seeds) // len(self.seeds))

  def own_lanes(self, lanes: Any) -> Any:
    """Returns this training's of arrays [V * S * N, ...]."""
    size = len(self.seeds) * self.loop.num_envs
    own = slice(self._index * size, (self._index + 1) * size)
    return jax.tree.map(lambda array: array[own], lanes)

  def own_seeds(self, tree: Any) -> Any:
    """Returns this training's [S, ...] of NumPy arrays [V * S, ...]."""
    begin = self._index * len(self.seeds)
    own = slice(begin, begin + len(self.seeds))
    return jax.tree.map(lambda array: array[own], tree)

  def _part(self, leaf):
    if len(self.whole.seeds) == 1:  # one lane, without an axis
      return leaf
    begin = self._index * len(self.seeds)
    part = leaf[begin : begin + len(self.seeds)]
    return part if len(self.seeds) > 1 else part[0]

  def _with_part(self, leaf, part):
    if len(self.whole.seeds) == 1:
      return part
    begin = self._index * len(self.seeds)
    if len(self.seeds) == 1:
      return leaf.at[begin].set(part)
    return leaf.at[begin : begin + len(self.seeds)].set(part)


def deal(whole: engine_lib.Engine, shares: Sequence[Share]):
  """Hands each training what ended in its lanes."""
  finished, told = whole.episodes.finished, whole.episodes.told
  size = len(shares[0].seeds) * shares[0].loop.num_envs
  for i, (lane, value, length) in enumerate(finished):
    episodes = shares[lane // size].episodes
    episodes.finished.append((lane % size, value, length))
    if told:
      episodes.told.append(told[i])
  finished.clear()
  told.clear()
