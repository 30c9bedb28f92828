"""Gymnasium environments with Box observations.

They are stepped one after another, by a loop of our own that fills the arrays
of a time step: `gymnasium.vector.SyncVectorEnv` would do, but costs more than
twice as much as the CartPole inside it. Or each is in a process of its own, by
`gymnasium.vector.AsyncVectorEnv`, where a step takes longer than a message.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import difflib
import functools
import os
import signal
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
    vector: 'sync', one after another, or 'async', each in a process of its own,
      those of an evaluation (one an episode, up to 32) too. Experience is the
      same. Films are made in sync.
  """

  id: str
  kwargs: Mapping[str, Any] = dataclasses.field(
    default_factory=dict,
    hash=False,  # a dict has no hash, and settings should have one
  )
  vector: str = 'sync'

  def __post_init__(self):
    """Raises UserError for settings that can't work."""
    super().__post_init__()
    for name, remedy in _RESERVED.items():
      if name in self.kwargs:
        self.refuse('kwargs', f'holds {name!r}: {remedy}')
    self.require_one_of('vector', ('sync', 'async'))

  def make(self, num_envs: int, render: bool = False) -> base.VectorEnvironment:
    """Makes the environments; see `base.Environment.make`."""
    base.check_num_envs(num_envs)
    if self.id.startswith('ALE/') or 'NoFrameskip' in self.id:
      raise errors.UserError(
        f'Gym.id = {self.id!r}: Atari games are made by environments.atari, '
        "as in atari.Atari.game = 'Pong'."
      )
    # Functions of plain data, which other processes can be sent.
    make_one = functools.partial(
      _make_one, self.id, self.max_steps_per_episode, dict(self.kwargs)
    )
    if self.vector == 'async' and not render:
      return AsyncVector(self.id, [make_one] * num_envs)
    first = functools.partial(make_one, render=render)
    return GymVector(self.id, [first] + [make_one] * (num_envs - 1))


class _Vector(base.VectorEnvironment):
  """What both kinds know of their environments."""

  def _describe(self, name: str, num_envs: int, env: gymnasium.Env):
    """Learns the spaces from one environment.

    Raises:
      UserError: If observations don't form a Box.
    """
    self._name = name
    self.num_envs = num_envs
    fps = env.metadata.get('render_fps')
    self.frames_per_second = fps or self.frames_per_second
    named = getattr(env.unwrapped, 'get_action_meanings', None)
    self.action_names = named and named()
    self._taken_space = env.action_space
    self.action_space = base.space_of_agents(self._taken_space)
    self._given_space = env.observation_space
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

  def _as_taken(self, actions: np.ndarray) -> np.ndarray:
    """Returns agents' actions as the environments take them."""
    actions = np.asarray(actions)
    if len(actions) != self.num_envs:
      raise ValueError(f'{len(actions)} actions for {self.num_envs} envs.')
    return base.as_environments_action(self._taken_space, actions)


class GymVector(_Vector):
  """Gymnasium environments in lockstep, with autoreset within the step."""

  def __init__(self, name: str, makers: Sequence[Callable[[], gymnasium.Env]]):
    """Makes the environments.

    Args:
      name: What errors call the environments.
      makers: One function for each environment; called again at each reset.

    Raises:
      UserError: If observations don't form a Box.
    """
    self._makers = makers
    self._envs = [maker() for maker in makers]
    self._fresh = True
    self._describe(name, len(makers), self._envs[0])

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
    actions = self._as_taken(actions)
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


class AsyncVector(_Vector):
  """Gymnasium environments, each in a process of its own, in lockstep."""

  def __init__(self, name: str, makers: Sequence[Callable[[], gymnasium.Env]]):
    """Starts the processes; see `GymVector`."""
    env = makers[0]()
    self._describe(name, len(makers), env)
    env.close()
    self._vector = gymnasium.vector.AsyncVectorEnv(
      [
        functools.partial(_Remote, name, maker, os.getpid()) for maker in makers
      ],
      # A fork would copy the locks of JAX's threads, held for ever.
      context='spawn',
      autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP,
    )

  def reset(self, seeds: Sequence[int]) -> np.ndarray:
    """Makes every environment anew and seeds it; see the base class."""
    seeds = base.check_seeds(seeds, self.num_envs)
    return self._vector.reset(seed=seeds)[0].astype(self._dtype)

  def step(self, actions: np.ndarray) -> base.TimeStep:
    """Steps every environment; see the base class."""
    seen, reward, *ends, infos = self._vector.step(self._as_taken(actions))
    observation = successor = seen.astype(self._dtype)
    ended = np.flatnonzero(ends[0] | ends[1])
    if len(ended):
      successor = observation.copy()
      for i in ended:
        successor[i] = infos['final_obs'][i]
    return base.TimeStep(
      observation, reward.astype(np.float32), *ends, successor
    )

  def close(self) -> None:
    """Ends the processes."""
    self._vector.close(timeout=10)  # s, where one hangs in a step


class _Remote(gymnasium.Wrapper):
  """An environment in a process of its own, treated as `GymVector` would."""

  def __init__(
    self, name: str, maker: Callable[[], gymnasium.Env], starter: int
  ):
    """Makes the environment.

    Args:
      name: What errors call it.
      maker: Makes it, again at each seeded reset.
      starter: The process that asked for it, which makes one too, to look at.
    """
    super().__init__(maker())
    self._name, self._maker, self._fresh = name, maker, True
    if os.getpid() != starter:
      # Ctrl-C reaches all; it is for the starter to finish and to close.
      signal.signal(signal.SIGINT, signal.SIG_IGN)

  def reset(self, *, seed=None, options=None):
    """Makes the environment anew, if it gets a seed, and begins an episode."""
    if seed is not None and not self._fresh:
      self.env.close()
      self.env = self._maker()
    self._fresh = False
    observation = np.asarray(self.env.reset(seed=seed)[0])
    base.check_observation(
      self._name, self.env.observation_space, observation, 'reset'
    )
    return observation, {}

  def step(self, action):
    """Steps the environment, and sends no more than is read."""
    observation, reward, terminated, truncated, _ = self.env.step(action)
    # A copy: a reset may write into the same buffer before this is sent.
    return np.array(observation), reward, terminated, truncated, {}


def _make_one(
  id: str,
  max_steps: int | None,
  kwargs: Mapping[str, Any],
  render: bool = False,
) -> gymnasium.Env:
  """Makes one environment of `Gym`'s settings.

  Raises:
    UserError: For settings that can't work, or an extra that is missing.
  """
  if id.startswith('MinAtar/'):
    _register_minatar()
  try:
    env = gymnasium.make(
      id,
      max_episode_steps=max_steps,
      disable_env_checker=True,  # slows each step
      # Environments that draw nothing need not know of the argument.
      **({'render_mode': 'rgb_array'} if render else {}),
      **kwargs,
    )
  except gymnasium.error.DependencyNotInstalled as error:
    raise errors.UserError(_missing_dependency(id, error)) from error
  except ModuleNotFoundError as error:
    raise errors.UserError(
      f'Gym.id = {id!r} needs a module that is not installed or not on '
      f'the path: {error}'
    ) from error
  except gymnasium.error.Error as error:
    raise errors.UserError(_unknown_id(id, error)) from error
  except TypeError as error:
    if 'unexpected keyword argument' not in str(error):
      raise
    raise errors.UserError(
      f'{id} refuses its arguments, Gym.kwargs = {dict(kwargs)}: {error}'
    ) from error
  if render and 'rgb_array' not in env.metadata.get('render_modes', ()):
    raise errors.UserError(
      f"{id} draws no images: its render_modes lack 'rgb_array'."
    )
  return env


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
