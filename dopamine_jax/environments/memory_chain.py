"""A task of memory, in JAX: what was seen first is asked for at the end.

`memory_len` of Osband et al. (2020), Behaviour Suite for Reinforcement
Learning. https://arxiv.org/abs/1908.03568
"""

from typing import NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from dopamine_jax.environments import native


class State(NamedTuple):
  """Where an episode stands.

  Attributes:
    cue: int32 scalar, 0 or 1.
    step: int32 scalar, steps taken.
  """

  cue: jax.Array
  step: jax.Array


class MemoryChain(native.Native):
  """The action in the last of `length` steps is to equal the cue of the first.

  The observation is [2]: the cue, -1 or 1, in the first step and 0 later; and
  1 when it is asked for, else 0. The last step's reward is 1 if the action, 0
  or 1, names the cue, and -1 if it doesn't; all others are 0. Without memory no
  policy expects more than 0.

  Attributes:
    length: steps of an episode.
  """

  length: int = 10

  frames_per_second = 8

  def __post_init__(self):
    """Raises UserError for settings that can't work."""
    super().__post_init__()
    self.require_at_least(2, 'length')

  @property
  def observation_space(self) -> gymnasium.spaces.Box:
    """See the base class."""
    low = np.array([-1, 0], np.float32)
    return gymnasium.spaces.Box(low, np.ones(2, np.float32))

  @property
  def action_space(self) -> gymnasium.spaces.Discrete:
    """The two cues."""
    return gymnasium.spaces.Discrete(2)

  def reset(self, key: jax.Array) -> tuple[State, jax.Array]:
    """Draws a cue; see the base class."""
    cue = jax.random.randint(key, (), 0, 2)
    state = State(cue=cue, step=jnp.zeros((), jnp.int32))
    return state, self._observation(state)

  def step(
    self, state: State, action: jax.Array, key: jax.Array
  ) -> native.Outcome:
    """Goes on by one step; see the base class."""
    del key
    is_last = state.step == self.length - 1
    result = jnp.where(action == state.cue, 1.0, -1.0)
    state = state._replace(step=state.step + 1)
    reward = jnp.where(is_last, result, 0.0)
    return native.Outcome(state, self._observation(state), reward, is_last)

  def image(self, state: State) -> np.ndarray:
    """Draws the cue where it is seen, and how far the chain has come."""
    image = np.full((12, 8 * self.length, 3), 40, np.uint8)
    image[8:, : 8 * min(int(state.step), self.length)] = 120
    if state.step == 0:
      image[:8, :8] = (80, 160, 255) if state.cue else (255, 160, 80)
    return image

  def _observation(self, state):
    cue = jnp.where(state.step == 0, 2.0 * state.cue - 1.0, 0.0)
    asked = jnp.where(state.step == self.length - 1, 1.0, 0.0)
    return jnp.stack([cue, asked])
