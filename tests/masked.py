"""A probe of masks, in JAX and from Gymnasium.

Two steps an episode. All values are below 0, where untrained networks begin, so
that a target over all actions is far too high; and what is not allowed would
end a training.
"""

import gymnasium
from gymnasium import spaces as gym_spaces
import jax.numpy as jnp
import numpy as np

from dopamine_jax import spaces
from dopamine_jax.environments import native

NUM_STATES, NUM_ACTIONS = 3, 3
# By state; the last one is terminal, where nothing is to be done.
ALLOWED = np.array([[0, 1, 1], [1, 1, 0], [0, 0, 0]], np.int8)
REWARDS = np.array([[9, -0.5, -1], [-1, -2, 9], [9, 9, 9]], np.float32)
BEST = [1, 0]


def values(gamma):
  """Returns the values of what is allowed, by state and action."""
  last = {0: -1.0, 1: -2.0}
  return [{1: -0.5 - gamma, 2: -1.0 - gamma}, last]


class Masked(native.Native):
  """The probe in JAX; `allowed` are the masks of its states."""

  allowed: tuple = tuple(map(tuple, ALLOWED.tolist()))

  @property
  def observation_space(self):
    box = gym_spaces.Box(0, 1, (NUM_STATES,), np.float32)
    return spaces.Masked(box, NUM_ACTIONS)

  @property
  def action_space(self):
    return gym_spaces.Discrete(NUM_ACTIONS)

  def reset(self, key):
    return jnp.int32(0), self._see(jnp.int32(0))

  def step(self, state, action, key):
    reward = jnp.asarray(REWARDS)[state, action]
    state = state + 1
    return native.Outcome(state, self._see(state), reward, state == 2)

  def _see(self, state):
    return {
      'observation': jnp.eye(NUM_STATES)[state],
      'action_mask': jnp.asarray(self.allowed, jnp.int8)[state],
    }


class GymMasked(gymnasium.Env):
  """The same; its actions begin at 5.

  Args:
    told: what `info` is from the third step on.
  """

  observation_space = gym_spaces.Box(0, 1, (NUM_STATES,), np.float32)
  action_space = gym_spaces.Discrete(NUM_ACTIONS, start=5)

  def __init__(self, told=None, render_mode=None):
    self.told, self.steps = told, 0

  def reset(self, *, seed=None, options=None):
    super().reset(seed=seed)
    self.state = 0
    return self._see()

  def step(self, action):
    action -= 5
    assert ALLOWED[self.state, action]
    reward = float(REWARDS[self.state, action])
    self.state += 1
    self.steps += 1
    seen, info = self._see()
    if self.told is not None and self.steps > 2:
      info = self.told
    return seen, reward, self.state == 2, False, info

  def _see(self):
    mask = ALLOWED[self.state].astype(bool)
    return np.eye(NUM_STATES, dtype=np.float32)[self.state], {
      'action_mask': mask
    }


if 'Masked/Probe-v0' not in gymnasium.registry:
  gymnasium.register('Masked/Probe-v0', GymMasked, disable_env_checker=True)
