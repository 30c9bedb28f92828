"""Catch, in JAX: a ball falls, and a paddle at the bottom is to be under it.

Osband et al. (2020), Behaviour Suite for Reinforcement Learning.
https://arxiv.org/abs/1908.03568

The game is from Mnih et al. (2014), Recurrent Models of Visual Attention.
https://arxiv.org/abs/1406.6247
"""

from typing import NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from dopamine_jax.environments import native


class State(NamedTuple):
  """Where things are; int32 scalars.

  Attributes:
    row: the ball's, 0 at the top.
    column: the ball's.
    paddle: the paddle's column, in the bottom row.
  """

  row: jax.Array
  column: jax.Array
  paddle: jax.Array


class Catch(native.Native):
  """One ball an episode; it is caught (reward 1) or missed (-1).

  The ball begins at the top in a random column, the paddle at the bottom in the
  middle one. At each step the ball falls by one row, so an episode has
  `rows - 1` steps. The observation is uint8 [rows, columns]: 1 at the ball and
  at the paddle, 0 elsewhere.

  Attributes:
    rows: of the board.
    columns: of the board.
  """

  rows: int = 10
  columns: int = 5

  frames_per_second = 8

  def __post_init__(self):
    """Raises UserError for settings that can't work."""
    super().__post_init__()
    self.require_at_least(2, 'rows')
    self.require_at_least(1, 'columns')
    self.require_at_most(1_000, 'rows', 'columns')

  @property
  def observation_space(self) -> gymnasium.spaces.Box:
    """See the base class."""
    return gymnasium.spaces.Box(0, 1, (self.rows, self.columns), np.uint8)

  @property
  def action_space(self) -> gymnasium.spaces.Discrete:
    """Left, stay, right; the walls stop the paddle."""
    return gymnasium.spaces.Discrete(3)

  def reset(self, key: jax.Array) -> tuple[State, jax.Array]:
    """Drops a new ball; see the base class."""
    state = State(
      row=jnp.zeros((), jnp.int32),
      column=jax.random.randint(key, (), 0, self.columns),
      paddle=jnp.full((), self.columns // 2, jnp.int32),
    )
    return state, self._board(state)

  def step(
    self, state: State, action: jax.Array, key: jax.Array
  ) -> native.Outcome:
    """Moves paddle and ball; see the base class."""
    del key
    moved = state.paddle + action.astype(jnp.int32) - 1
    state = State(
      row=state.row + 1,
      column=state.column,
      paddle=jnp.clip(moved, 0, self.columns - 1),
    )
    landed = state.row == self.rows - 1
    result = jnp.where(state.column == state.paddle, 1.0, -1.0)
    reward = jnp.where(landed, result, 0.0)
    return native.Outcome(state, self._board(state), reward, landed)

  def image(self, state: State) -> np.ndarray:
    """Draws the ball white and the paddle blue; see the base class."""
    image = np.zeros((self.rows, self.columns, 3), np.uint8)
    image[-1, state.paddle] = 80, 160, 255
    image[state.row, state.column] = 255
    return image

  def _board(self, state):
    """Compares whole grids: cheaper under vmap than to scatter into one."""
    row = jnp.arange(self.rows)[:, None]
    column = jnp.arange(self.columns)[None]
    ball = (row == state.row) & (column == state.column)
    paddle = (row == self.rows - 1) & (column == state.paddle)
    return (ball | paddle).astype(jnp.uint8)
