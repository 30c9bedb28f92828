"""The flipping of bits from Gymnasium, written apart from that in JAX."""

import gymnasium
from gymnasium import spaces
import numpy as np


class GymBitFlip(gymnasium.Env):
  """Reaching the goal ends an episode; registered with a limit of 6 steps.

  Args:
    num_bits: how many bits there are.
  """

  def __init__(self, num_bits=6):
    self.num_bits = num_bits
    bits = spaces.MultiBinary(num_bits)
    names = 'observation', 'achieved_goal', 'desired_goal'
    self.observation_space = spaces.Dict(dict.fromkeys(names, bits))
    self.action_space = spaces.Discrete(num_bits)

  def reset(self, *, seed=None, options=None):
    super().reset(seed=seed)
    self.bits = self.np_random.integers(0, 2, self.num_bits, np.int8)
    self.goal = self.np_random.integers(0, 2, self.num_bits, np.int8)
    return self._see(), {}

  def step(self, action):
    self.bits[action] ^= 1
    success = np.array_equal(self.bits, self.goal)
    info = {'is_success': success}
    return self._see(), float(success) - 1, success, False, info

  def _see(self):
    return {
      'observation': self.bits.copy(),
      'achieved_goal': self.bits.copy(),
      'desired_goal': self.goal.copy(),
    }


if 'Goals/BitFlip-v0' not in gymnasium.registry:
  gymnasium.register(
    'Goals/BitFlip-v0',
    GymBitFlip,
    max_episode_steps=6,
    disable_env_checker=True,
  )
