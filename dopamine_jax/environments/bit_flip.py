"""Bits that are to be flipped into a pattern, in JAX: a task of goals.

Andrychowicz et al. (2017), Hindsight Experience Replay, section 3.1.
https://arxiv.org/abs/1707.01495
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from dopamine_jax.environments import native


class State(NamedTuple):
  """Where an episode stands.

  Attributes:
    bits: [num_bits] int8.
    goal: [num_bits] int8, what they are to become.
    step: int32 scalar, steps taken.
  """

  bits: jax.Array
  goal: jax.Array
  step: jax.Array


class BitFlip(native.Native):
  """Each action flips one of n bits; first bits and goal are drawn uniformly.

  The observation is a Dict as those of Gymnasium-Robotics: `observation` and
  `achieved_goal` are the bits, and `desired_goal` is the goal, [n] each. A step
  gives 0 if it reaches the goal, which ends the episode, and else -1. After n
  steps the episode is cut. By chance the goal is hardly ever reached.

  To learn with hindsight, `hindsight.Reach.terminates` is to be True. (The
  paper does not say whether reaching a goal ends an episode.)

  Attributes:
    num_bits: how many there are, n.
  """

  num_bits: int = 15
  info: Sequence[str] = ('is_success',)

  frames_per_second = 4

  def __post_init__(self):
    """Raises UserError for settings that can't work."""
    super().__post_init__()
    self.require_at_least(1, 'num_bits')

  @property
  def observation_space(self) -> gymnasium.spaces.Dict:
    """See the base class."""
    bits = gymnasium.spaces.MultiBinary(self.num_bits)
    return gymnasium.spaces.Dict(
      {'observation': bits, 'achieved_goal': bits, 'desired_goal': bits}
    )

  @property
  def action_space(self) -> gymnasium.spaces.Discrete:
    """Which bit is flipped."""
    return gymnasium.spaces.Discrete(self.num_bits)

  def reset(self, key: jax.Array) -> tuple[State, dict[str, Any]]:
    """Draws the first bits and the goal; see the base class."""
    shape = (2, self.num_bits)
    bits, goal = jax.random.bernoulli(key, shape=shape).astype(jnp.int8)
    state = State(bits=bits, goal=goal, step=jnp.zeros((), jnp.int32))
    return state, _observation(state)

  def step(
    self, state: State, action: jax.Array, key: jax.Array
  ) -> native.Outcome:
    """Flips a bit; see the base class."""
    del key
    bits = state.bits.at[action].set(1 - state.bits[action])
    state = state._replace(bits=bits, step=state.step + 1)
    reached = jnp.all(bits == state.goal)
    return native.Outcome(
      state,
      _observation(state),
      reward=jnp.where(reached, 0.0, -1.0),
      terminated=reached,
      truncated=state.step >= self.num_bits,
      info={'is_success': reached},
    )

  def image(self, state: State) -> np.ndarray:
    """Draws the bits above the goal, a square each."""
    rows = np.stack([state.bits, state.goal])
    rows = np.where(rows[..., None], (255, 160, 80), (40, 40, 40))
    squares = rows.astype(np.uint8).repeat(16, axis=0).repeat(16, axis=1)
    squares[::16] = squares[:, ::16] = 120
    return squares


def _observation(state):
  return {
    'observation': state.bits,
    'achieved_goal': state.bits,
    'desired_goal': state.goal,
  }
