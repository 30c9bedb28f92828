"""Gymnasium environments that tell which actions are allowed, by `info`."""

from typing import Any

import gymnasium
import numpy as np

from dopamine_jax import errors
from dopamine_jax import spaces
from dopamine_jax.environments import leaves

_KEY = 'action_mask'


class Masked(gymnasium.Wrapper):
  """Takes the mask out of `info`, and gives it beside the observation."""

  def __init__(self, id: str, env: gymnasium.Env):
    """Takes an environment; see `gym.Gym.action_mask`.

    Raises:
      UserError: if its actions can't be masked.
    """
    super().__init__(env)
    if not isinstance(env.action_space, gymnasium.spaces.Discrete):
      raise errors.UserError(
        f'Gym.action_mask = True is of Discrete actions, and {id} takes '
        f'{env.action_space}. Leave it out.'
      )
    self._size = int(env.action_space.n)
    self.observation_space = spaces.Masked(env.observation_space, self._size)

  def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
    """Begins an episode."""
    answer = self.env.reset(seed=seed, options=options)
    if not isinstance(answer, tuple) or len(answer) != 2:
      return answer  # `answers` says what is wrong with it.
    observation, info = answer
    return self._both(observation, info), info

  def step(self, action: Any) -> Any:
    """Takes a step."""
    answer = self.env.step(action)
    if not isinstance(answer, tuple) or len(answer) != 5:
      return answer
    observation, *rest, info = answer
    return self._both(observation, info), *rest, info

  def _both(self, observation, info):
    mask = info.get(_KEY) if isinstance(info, dict) else None
    try:
      array = np.asarray(mask)
    except ValueError:  # a list whose rows differ in length
      array = np.empty((), object)
    is_mask = array.dtype.kind in 'biu' and array.shape == (self._size,)
    if not is_mask or not ((array == 0) | (array == 1)).all():
      raise leaves.Misfit(
        f"info['{_KEY}'] must tell of each action whether it is allowed, "
        f'{self._size} bools or zeros and ones',
        'none' if mask is None else leaves.kind(mask),
      )
    return {'observation': observation, _KEY: array.astype(np.int8)}
