"""An environment in JAX whose episodes end in every way."""

from flax import struct
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from dopamine_jax.environments import native


class State(struct.PyTreeNode):
  first: jax.Array  # the episode's first random number
  age: jax.Array
  length: jax.Array  # of the episode
  end: jax.Array  # 0: terminates, 1: is truncated, 2: both


class Walk(native.Native):
  """Observations are (a random number, steps since the episode began).

  Rewards are no round numbers, so that the order of a sum shows in it.
  """

  reward_clip: float | None = 0.9
  length: int = 8  # of the longest episode
  num_actions: int = 4
  huge_above: float = 1.0  # episodes whose `first` is higher pay 3e38 a step

  @property
  def observation_space(self):
    return gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)

  @property
  def action_space(self):
    return gymnasium.spaces.Discrete(self.num_actions)

  def reset(self, key):
    first, length, end = jax.random.uniform(key, (3,))
    state = State(
      first=first,
      age=jnp.zeros((), jnp.int32),
      length=1 + (length * self.length).astype(jnp.int32),
      end=(end * 3).astype(jnp.int32),
    )
    return state, jnp.stack([first, 0.0])

  def step(self, state, action, key):
    number = jax.random.uniform(key)
    state = state.replace(age=state.age + 1)
    ended = state.age >= state.length
    reward = number + action / 8  # exact, so that no program rounds it
    return native.Outcome(
      state=state,
      observation=jnp.stack([number, state.age.astype(jnp.float32)]),
      reward=jnp.where(state.first > self.huge_above, 3e38, reward),
      terminated=ended & (state.end != 1),
      truncated=ended & (state.end != 0),
    )
