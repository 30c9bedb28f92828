"""A part of what an environment shows: what makes a task one of memory."""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

from dopamine_jax import errors


def space(
  whole: gymnasium.Space[Any], observed: Sequence[int], setting: str
) -> gymnasium.spaces.Box:
  """Returns the space of some numbers of a vector.

  Args:
    whole: the space of all of them.
    observed: which ones, counted from 0.
    setting: the name of the setting that says so.

  Raises:
    UserError: if the space is no vector, or has no such numbers.
  """
  if not isinstance(whole, gymnasium.spaces.Box) or len(whole.shape) != 1:
    raise errors.UserError(
      f'{setting} = {tuple(observed)} chooses numbers of a vector, and the '
      f'observation space is {whole}. Leave it out.'
    )
  size = whole.shape[0]
  is_within = all(0 <= i < size for i in observed)
  if not observed or len(set(observed)) < len(observed) or not is_within:
    raise errors.UserError(
      f'{setting} = {tuple(observed)} must name some of the {size} numbers of '
      f'an observation, each once, from 0 to {size - 1}.'
    )
  index = list(observed)
  return gymnasium.spaces.Box(
    whole.low[index], whole.high[index], dtype=whole.dtype
  )


class Observed(gymnasium.wrappers.TransformObservation):
  """A Gymnasium environment that shows a part of its observation."""

  def __init__(self, env: gymnasium.Env, observed: Sequence[int], setting: str):
    index = np.array(observed)
    part = space(env.observation_space, observed, setting)
    super().__init__(env, lambda whole: np.asarray(whole)[index], part)
