"""Frames of the newest steps, side by side: what agents see of images.

Of one leaf or of trees: a plain observation is its only leaf.
"""

from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from dopamine_jax import errors
from dopamine_jax import spaces
from dopamine_jax.replay import ring


def stacked_space(space: gymnasium.Space, stack: int) -> gymnasium.Space:
  """Returns the space of an agent's observation, given that of one frame.

  Raises:
    UserError: if there is nothing that could be stacked.
  """
  if stack == 1:
    return space
  frame = spaces.lay_out(jax.ShapeDtypeStruct, space)
  sizes = jax.tree.leaves(ring.stacks(frame, stack, axes=0))
  sizes = dict(zip(spaces.leaves(space), sizes, strict=True))
  is_box = isinstance(space, gymnasium.spaces.Box)
  if max(sizes.values()) == 1 or not (is_box or spaces.is_tree(space)):
    raise errors.UserError(
      f'stack = {stack} is of frames, and observations in {space} have no part '
      'with two or more axes, as images have. Leave it out.'
    )

  def stacked(path, leaf):
    if sizes[path] == 1:
      return leaf
    low, high = (
      np.repeat(x[..., None], stack, -1) for x in (leaf.low, leaf.high)
    )
    return gymnasium.spaces.Box(low, high, dtype=leaf.dtype)

  return spaces.map_space(stacked, space)


def first_observation(frame: Any, stack: int) -> Any:
  """Returns [N, *frame_shape(, stack)]: `frame` after zeros."""
  return jax.tree.map(_first, frame, ring.stacks(frame, stack, axes=1))


def _first(frame, stack):
  if stack == 1:
    return frame
  zeros = jnp.zeros((*frame.shape, stack - 1), frame.dtype)
  return jnp.concatenate([zeros, frame[..., None]], axis=-1)


def next_observation(
  observation: Any, frame: Any, done: jax.Array, stack: int
) -> Any:
  """Returns the stack with `frame` [N, ...] appended, fresh where `done`."""

  def one(frame, observation, stack):
    if stack == 1:
      return frame
    shifted = jnp.concatenate([observation[..., 1:], frame[..., None]], axis=-1)
    is_new = done.reshape(-1, *(1,) * frame.ndim)
    return jnp.where(is_new, _first(frame, stack), shifted)

  sizes = ring.stacks(frame, stack, axes=1)
  return jax.tree.map(one, frame, observation, sizes)


def newest_frame(observation: Any, stack: int) -> Any:
  """Returns the last of the stacked frames, [N, *frame_shape]."""
  return jax.tree.map(
    lambda seen, stack: seen if stack == 1 else seen[..., -1],
    observation,
    ring.stacks(observation, stack, axes=1),
  )
