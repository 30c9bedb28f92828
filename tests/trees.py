"""Environments whose observations have several parts of every kind.

Each part follows from the first two numbers, so that of any observation it can
be told whether its parts belong together.
"""

import gymnasium
from gymnasium import spaces
import jax
import jax.numpy as jnp
import numpy as np

from dopamine_jax.environments import native

# The names of two parts would be one, were '.' not told apart from a branch.
SPACE = spaces.Dict(
  {
    'numbers': spaces.Box(0, 1_000, (2,), np.float32),
    'board': spaces.Box(0, 255, (4, 4), np.uint8),
    'kind': spaces.Discrete(3, start=2),
    'pair': spaces.Tuple(
      [spaces.MultiDiscrete([2, 300], start=[0, -7]), spaces.MultiBinary(2)]
    ),
    'a.b/c': spaces.Box(-5, 5, (), np.int32),
    'a': spaces.Dict({'b/c': spaces.Box(0, 1, (1,), bool)}),
  }
)


def parts(number, age, library):
  """Returns an observation as the space says, given two whole numbers."""
  np_ = library
  both = number + age
  return {
    'numbers': np_.stack([number, age]).astype(np.float32),
    'board': np_.full((4, 4), both % 256, np.uint8),
    'kind': both % 3 + 2,
    'pair': (
      np_.stack([number % 2, both % 300 - 7]),
      np_.stack([age % 2, both % 2]).astype(np.int8),
    ),
    'a.b/c': (age % 3 - 1).astype(np.int32),
    'a': {'b/c': np_.stack([both % 2 == 0])},
  }


def kept(number, age):
  """Returns the same as it is stored: small numbers, counted from 0."""
  both = number + age
  return {
    'numbers': np.array([number, age], np.float32),
    'board': np.full((4, 4), both % 256, np.uint8),
    'kind': np.uint8(both % 3),
    'pair': (
      np.array([number % 2, both % 300], np.uint16),
      np.array([age % 2, both % 2], np.int8),
    ),
    'a.b/c': np.int32(age % 3 - 1),
    'a': {'b/c': np.array([both % 2 == 0])},
  }


class Parts(native.Native):
  """Episodes of 1 to 5 steps; every action but the second pays its number."""

  @property
  def observation_space(self):
    return SPACE

  @property
  def action_space(self):
    return spaces.Discrete(3, start=1)

  def reset(self, key):
    number, length = jax.random.randint(key, (2,), 0, 500)
    state = {'number': number, 'age': jnp.int32(0), 'length': 1 + length % 5}
    return state, parts(number, state['age'], jnp)

  def step(self, state, action, key):
    state = {**state, 'age': state['age'] + 1}
    ended = state['age'] == state['length']
    return native.Outcome(
      state=state,
      observation=parts(state['number'], state['age'], jnp),
      reward=jnp.where(action == 2, 0, action).astype(jnp.float32),
      terminated=ended & (state['number'] % 2 == 0),
      truncated=ended & (state['number'] % 2 == 1),
    )


class GymParts(gymnasium.Env):
  """The same from Gymnasium, with Python's own numbers where they do.

  Args:
    told: what to give in place of a part from the second step on, by its key.
  """

  observation_space = SPACE
  action_space = spaces.Discrete(3, start=1)

  def __init__(self, told=None):
    self.told = told or {}

  def reset(self, *, seed=None, options=None):
    super().reset(seed=seed)
    self.number, self.length = self.np_random.integers(0, 500, 2)
    self.age = np.int64(0)
    return parts(self.number, self.age, np), {}

  def step(self, action):
    assert action in self.action_space
    self.age += 1
    seen = parts(self.number, self.age, np)
    seen['kind'] = int(seen['kind'])
    seen['pair'] = tuple(map(list, seen['pair']))
    if self.age > 1:
      seen |= self.told
    ended = bool(self.age == 1 + self.length % 5)
    return seen, float(action), ended and self.number % 2 == 0, ended, {}


if 'Trees/Parts-v0' not in gymnasium.registry:
  gymnasium.register('Trees/Parts-v0', GymParts, disable_env_checker=True)
