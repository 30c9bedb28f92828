"""Gymnasium environments with Box observations, stepped one after another.

`gymnasium.vector.SyncVectorEnv` would do, but costs more than twice as much as
the CartPole inside it, so a loop of our own fills the arrays of a time step.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import difflib
import functools
from typing import Any

import gymnasium
import numpy as np

from dopamine_jax import errors
from dopamine_jax.environments import base

# The extra that brings what a family of Gymnasium's own environments needs.
_EXTRAS = {'gymnasium.envs.box2d': 'box2d', 'gymnasium.envs.mujoco': 'mujoco'}

# Arguments of `gymnasium.make` that this adapter sets, and what sets them here.
_RESERVED = {
  'max_episode_steps': 'set Gym.max_steps_per_episode instead',
  'render_mode': 'whoever makes the environment chooses it',
  'disable_env_checker': 'the adapter checks observations by itself',
}


class Gym(base.Environment):
  """Any Gymnasium environment with a Box observation space.

  float64 observations become float32; other types, bool and uint8 among them,
  stay as they are. A seeded reset makes each environment anew, because some
  carry more than their seed across a reset (MinAtar its last action).

  Attributes:
    id: What `gymnasium.make` takes: 'CartPole-v1', 'MinAtar/Breakout-v1', or
      'my_module:MyEnv-v0', which imports `my_module` first. For Atari games
      see `atari.Atari`.
    max_steps_per_episode: Agent steps; replaces the environment's own limit,
      which None leaves as it is.
    kwargs: Further arguments for `gymnasium.make`.
  """

  id: str
  kwargs: Mapping[str, Any] = dataclasses.field(
    default_factory=dict,
    hash=False,  # a dict has no hash, and settings should have one
  )

  def __post_init__(self):
    """Raises UserError for settings that can't work."""
    super().__post_init__()
    for name, remedy in _RESERVED.items():
      if name in self.kwargs:
        raise errors.UserError(f'Gym.kwargs holds {name!r}: {remedy}.')

  def make(self, num_envs: int, render: bool = False) -> 'GymVector':
    """Makes the environments; see `base.Environment.make`."""
    base.check_num_envs(num_envs)
    if self.id.startswith('ALE/') or 'NoFrameskip' in self.id:
      raise errors.UserError(
        f'Gym.id = {self.id!r}: Atari games are made by environments.atari, '
        "as in atari.Atari.game = 'Pong'."
      )
    if self.id.startswith('MinAtar/'):
      _register_minatar()
    makers = [functools.partial(self._make_one, render)]
    makers += [functools.partial(self._make_one, False)] * (num_envs - 1)
    return GymVector(self.id, makers)

  def _make_one(self, render: bool) -> gymnasium.Env:
    try:
      env = gymnasium.make(
        self.id,
        max_episode_steps=self.max_steps_per_episode,
        disable_env_checker=True,  # slows each step
        # Environments that draw nothing need not know of the argument.
        **({'render_mode': 'rgb_array'} if render else {}),
        **self.kwargs,
      )
    except gymnasium.error.DependencyNotInstalled as error:
      raise errors.UserError(_missing_dependency(self.id, error)) from error
    except ModuleNotFoundError as error:
      raise errors.UserError(
        f'Gym.id = {self.id!r} needs a module that is not installed or not on '
        f'the path: {error}'
      ) from error
    except gymnasium.error.Error as error:
      raise errors.UserError(_unknown_id(self.id, error)) from error
    except TypeError as error:
      if 'unexpected keyword argument' not in str(error):
        raise
      raise errors.UserError(
        f'{self.id} refuses its arguments, Gym.kwargs = {dict(self.kwargs)}: '
        f'{error}'
      ) from error
    if render and 'rgb_array' not in env.metadata.get('render_modes', ()):
      raise errors.UserError(
        f"{self.id} draws no images: its render_modes lack 'rgb_array'."
      )
    return env


class GymVector(base.VectorEnvironment):
  """Gymnasium environments in lockstep, with autoreset within the step."""

  def __init__(self, name: str, makers: Sequence[Callable[[], gymnasium.Env]]):
    """Makes the environments.

    Args:
      name: What errors call the environments.
      makers: One function for each environment; called again at each reset.

    Raises:
      UserError: If observations don't form a Box.
    """
    self._name = name
    self._makers = makers
    self._envs = [maker() for maker in makers]
    self._fresh = True
    self.num_envs = len(makers)
    fps = self._envs[0].metadata.get('render_fps')
    self.frames_per_second = fps or self.frames_per_second
    named = getattr(self._envs[0].unwrapped, 'get_action_meanings', None)
    self.action_names = named and named()
    self._taken_space = self._envs[0].action_space
    self.action_space = base.space_of_agents(self._taken_space)
    self._given_space = self._envs[0].observation_space
    if not isinstance(self._given_space, gymnasium.spaces.Box):
      raise errors.UserError(
        f'{name} has observations {self._given_space}, and agents here take a '
        'Box. Register an id of your own that wraps it in '
        'gymnasium.wrappers.FlattenObservation, and name that as '
        "Gym.id = 'your_module:YourEnv-v0'."
      )
    self.observation_space = _as_float32(self._given_space)
    self._shape = (self.num_envs, *self.observation_space.shape)
    self._dtype = self.observation_space.dtype

  def reset(self, seeds: Sequence[int]) -> np.ndarray:
    """Makes every environment anew and seeds it; see the base class."""
    seeds = base.check_seeds(seeds, self.num_envs)
    if not self._fresh:
      self.close()
      self._envs = [maker() for maker in self._makers]
    self._fresh = False
    observation = np.empty(self._shape, self._dtype)
    for i, seed in enumerate(seeds):
      observation[i] = self._reset_one(i, seed)
    return observation

  def step(self, actions: np.ndarray) -> base.TimeStep:
    """Steps every environment; see the base class."""
    actions = np.asarray(actions)
    if len(actions) != self.num_envs:
      raise ValueError(f'{len(actions)} actions for {self.num_envs} envs.')
    actions = base.as_environments_action(self._taken_space, actions)
    # New arrays at each step: JAX may still be reading the last ones.
    successor = np.empty(self._shape, self._dtype)
    reward = np.empty(self.num_envs, np.float32)
    terminated = np.empty(self.num_envs, np.bool_)
    truncated = np.empty(self.num_envs, np.bool_)
    ended = []
    for i, env in enumerate(self._envs):
      successor[i], reward[i], terminal, cut, _ = env.step(actions[i])
      terminated[i] = terminal
      truncated[i] = cut
      if terminal or cut:
        ended.append(i)
    observation = successor
    if ended:
      observation = successor.copy()
      for i in ended:
        observation[i] = self._reset_one(i)
    return base.TimeStep(observation, reward, terminated, truncated, successor)

  def render(self) -> np.ndarray:
    """Returns environment 0 as an image; see the base class."""
    if self._envs[0].render_mode != 'rgb_array':
      raise RuntimeError(f'{self._name} was made without render=True.')
    try:
      image = np.asarray(self._envs[0].render())
    except gymnasium.error.DependencyNotInstalled as error:
      raise errors.UserError(f'{self._name} cannot draw: {error}') from error
    if np.issubdtype(image.dtype, np.floating):  # MinAtar: colours in [0, 1]
      image = np.round(255 * image).astype(np.uint8)
    return image

  def close(self) -> None:
    """Closes the environments."""
    for env in self._envs:
      env.close()
    self._envs = []

  def _reset_one(self, i: int, seed: int | None = None) -> np.ndarray:
    """Begins an episode; None goes on with the environment's random stream."""
    observation = np.asarray(self._envs[i].reset(seed=seed)[0])
    base.check_observation(self._name, self._given_space, observation, 'reset')
    return observation


def _as_float32(space: gymnasium.spaces.Box) -> gymnasium.spaces.Box:
  if space.dtype != np.float64:
    return space
  with np.errstate(over='ignore'):  # bounds past float32 are no bounds
    low = space.low.astype(np.float32)
    high = space.high.astype(np.float32)
  return gymnasium.spaces.Box(low, high, dtype=np.float32)


def _register_minatar() -> None:
  if 'MinAtar/Breakout-v1' in gymnasium.registry:
    return
  try:
    from minatar import gym as minatar_gym  # GPL-3.0: an extra
  except ImportError as error:
    raise errors.UserError(
      "MinAtar is not installed: pip install 'dopamine-jax[minatar]'"
    ) from error
  minatar_gym.register_envs()


def _missing_dependency(id: str, error: Exception) -> str:
  entry_point = str(gymnasium.spec(id).entry_point)
  for family, extra in _EXTRAS.items():
    if entry_point.startswith(family):
      return (
        f'{id} needs packages that are not installed: '
        f"pip install 'dopamine-jax[{extra}]'"
      )
  return f'{id} needs packages that are not installed: {error}'


def _unknown_id(id: str, error: Exception) -> str:
  near = difflib.get_close_matches(id, gymnasium.registry, n=3)
  hint = (
    f'Did you mean {" or ".join(near)}?'
    if near
    else ("An environment of your own is named 'your_module:YourEnv-v0'.")
  )
  return f'Gym.id = {id!r}: {error} {hint}'
