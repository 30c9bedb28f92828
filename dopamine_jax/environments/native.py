"""Environments written in JAX: pure functions of one environment at a time.

The compiled engine steps them inside its own program. `make` wraps them for
whoever steps from Python: the other engine, evaluation and films. Both use
`begin` and `advance`, so that a seed means the same episodes everywhere.
"""

from collections.abc import Sequence
import functools
from typing import Any, NamedTuple

from flax import struct
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from dopamine_jax import errors
from dopamine_jax.environments import base


class Outcome(NamedTuple):
  """What one step of one environment gives.

  Attributes:
    state: a pytree, the environment after the step.
    observation: its observation, the true last one if the episode ended.
    reward: scalar.
    terminated: bool scalar, whether a terminal state was reached.
    truncated: bool scalar, whether the environment itself cuts the episode;
      `max_steps_per_episode` needs nothing of it.
  """

  state: Any
  observation: jax.Array
  reward: jax.Array
  terminated: jax.Array
  truncated: jax.Array | bool = False


class Native(base.Environment):
  """Settings of an environment in JAX; subclasses fill in its four parts.

  Its settings are constants of the compiled program. An environment never
  resets itself: `advance` does that.
  """

  @property
  def observation_space(self) -> gymnasium.spaces.Box:
    """The space of one frame."""
    raise NotImplementedError

  @property
  def action_space(self) -> gymnasium.Space[Any]:
    """The space of one action."""
    raise NotImplementedError

  def reset(self, key: jax.Array) -> tuple[Any, jax.Array]:
    """Returns an episode's first state and observation."""
    raise NotImplementedError

  def step(self, state: Any, action: jax.Array, key: jax.Array) -> Outcome:
    """Takes one step; `key` is for dynamics that draw."""
    raise NotImplementedError

  def image(self, state: Any) -> np.ndarray:
    """Returns a state as an RGB image, uint8 [H, W, 3]; not traced.

    Raises:
      UserError: if the environment draws nothing.
    """
    del state
    raise errors.UserError(f'{type(self).__name__} draws no images.')

  def make(self, num_envs: int, render: bool = False) -> 'NativeVector':
    """Makes the environments; see `base.Environment.make`."""
    base.check_num_envs(num_envs)
    return NativeVector(self, num_envs)


class Lane(struct.PyTreeNode):
  """One running environment.

  Attributes:
    state: the environment's own.
    key: of all its draws; a step's own key is `fold_in(key, count)`.
    count: int32 scalar, steps since it was seeded, and one for the reset.
    age: int32 scalar, steps of the running episode.
  """

  state: Any
  key: jax.Array
  count: jax.Array
  age: jax.Array


def begin(environment: Native, seed: jax.Array) -> tuple[Lane, jax.Array]:
  """Returns a lane that depends on `seed` alone, and its first observation."""
  key = jax.random.key(seed)
  state, observation = environment.reset(jax.random.fold_in(key, 0))
  zero = jnp.zeros((), jnp.int32)
  lane = Lane(state=state, key=key, count=zero + 1, age=zero)
  return lane, _as_space(environment, observation)


def advance(
  environment: Native, lane: Lane, action: jax.Array
) -> tuple[Lane, base.TimeStep]:
  """Takes one step; an episode that ends is followed by the next at once.

  Returns:
    The lane, and its time step: scalars and one observation, no axis [N].
  """
  key = jax.random.fold_in(lane.key, lane.count)
  step_key, reset_key = jax.random.split(key)
  outcome = environment.step(lane.state, action, step_key)
  age = lane.age + 1
  truncated = jnp.asarray(outcome.truncated, bool)
  if environment.max_steps_per_episode is not None:
    truncated |= age >= environment.max_steps_per_episode
  done = outcome.terminated | truncated
  # Computed at every step and mostly dropped: under vmap a branch would be too.
  first_state, first_observation = environment.reset(reset_key)
  successor = _as_space(environment, outcome.observation)
  state, observation = jax.tree.map(
    lambda first, going_on: jnp.where(done, first, going_on),
    (first_state, _as_space(environment, first_observation)),
    (outcome.state, successor),
  )
  lane = Lane(
    state=state,
    key=lane.key,
    count=lane.count + 1,
    age=jnp.where(done, 0, age),
  )
  return lane, base.TimeStep(
    observation=observation,
    reward=outcome.reward.astype(jnp.float32),
    terminated=outcome.terminated,
    truncated=truncated,
    next_observation=successor,
  )


class NativeVector(base.VectorEnvironment):
  """Environments in JAX, stepped from Python.

  Attributes:
    settings: the environment's.
  """

  def __init__(self, settings: Native, num_envs: int):
    self.settings = settings
    self.num_envs = num_envs
    self.observation_space = settings.observation_space
    self.action_space = settings.action_space
    self._begin = jax.jit(jax.vmap(functools.partial(begin, settings)))
    self._advance = jax.jit(
      jax.vmap(functools.partial(advance, settings)), donate_argnums=0
    )
    self._lanes = None

  def reset(self, seeds: Sequence[int]) -> np.ndarray:
    """Begins every environment anew; see the base class."""
    seeds = base.check_seeds(seeds, self.num_envs)
    self._lanes, observation = self._begin(np.asarray(seeds, np.int32))
    return np.array(observation)

  def step(self, actions: np.ndarray) -> base.TimeStep:
    """Steps every environment; see the base class."""
    self._lanes, step = self._advance(self._lanes, actions)
    return jax.tree.map(np.array, step)

  def render(self) -> np.ndarray:
    """Returns environment 0 as an image; see the base class."""
    state = jax.tree.map(lambda leaf: np.array(leaf[0]), self._lanes.state)
    return self.settings.image(state)

  def close(self) -> None:
    """Nothing is held but arrays."""


def _as_space(environment, observation):
  return observation.astype(environment.observation_space.dtype)
