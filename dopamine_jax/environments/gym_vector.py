"""Several Gymnasium environments, stepped one after another.

By a loop of our own that fills the arrays of a time step:
`gymnasium.vector.SyncVectorEnv` would do, but costs more than twice as much as
the CartPole inside it.
"""

from collections.abc import Callable, Sequence
import contextlib
from typing import Any

import gymnasium
import numpy as np

from dopamine_jax import errors
from dopamine_jax import spaces
from dopamine_jax.environments import answers
from dopamine_jax.environments import base
from dopamine_jax.environments import counts


class Vector(base.VectorEnvironment):
  """What is known of Gymnasium environments, wherever they are stepped."""

  checks_answers = True

  def __init__(
    self,
    name: str,
    num_envs: int,
    env: gymnasium.Env,
    channels_first: bool | None,
  ):
    """Learns the spaces from one environment.

    Args:
      name: What errors call the environments.
      num_envs: How many there are.
      env: One of them, or one like them.
      channels_first: See `gym.Gym`.

    Raises:
      UserError: If a part of the observations is not made of numbers, or looks
        like images whose axes are in another order than it is said.
    """
    self.name = name
    self.num_envs = num_envs
    fps = env.metadata.get('render_fps')
    self.frames_per_second = fps or self.frames_per_second
    named = getattr(env.unwrapped, 'get_action_meanings', None)
    self.action_names = named and named()
    self.action_space = base.space_of_agents(env.action_space)
    self._actions = base.Actions(env.action_space)
    takes_box = isinstance(env.action_space, gymnasium.spaces.Box)
    # A row of such actions would be a number, and no array.
    self._takes_numbers = takes_box and not env.action_space.shape
    given = env.observation_space
    kept = spaces.stored(given, name)
    _require_images(name, given, channels_first)
    for path, leaf in spaces.leaves(given).items():
      _check_order(name, path, leaf, channels_first)
    self.channels_first = bool(channels_first)
    self._given = given
    self.observation_space = spaces.map_space(
      lambda path, leaf: _ordered(leaf) if channels_first else leaf, kept
    )

  @property
  def given_space(self) -> gymnasium.Space[Any]:
    """See `VectorEnvironment.given_space`."""
    return self._given

  def as_taken(self, actions: np.ndarray) -> np.ndarray:
    """See `VectorEnvironment.as_taken`."""
    return self._actions(actions)

  def _as_taken(self, actions: np.ndarray) -> Any:
    """Returns agents' actions as the environments take them, in turn."""
    actions = np.asarray(actions)
    if len(actions) != self.num_envs:
      raise ValueError(f'{len(actions)} actions for {self.num_envs} envs.')
    base.check_actions(self.action_space, actions)
    taken = self._actions(actions)
    if self._takes_numbers:
      return [taken[i, ...] for i in range(len(taken))]
    return taken


def require_alike(
  name: str,
  number: int,
  num_envs: int,
  first: Sequence[gymnasium.Space[Any]],
  spaces: Sequence[gymnasium.Space[Any]],
) -> None:
  """Refuses an environment whose spaces are not those of the first one.

  Args:
    name: What errors call it.
    number: Which one it is, from 0 on.
    num_envs: Of how many.
    first: Spaces of the first environment's observations and actions.
    spaces: Its own.

  Raises:
    UserError: If they differ, though all have one name.
  """
  for expected, found in zip(first, spaces, strict=True):
    if expected != found:
      raise errors.UserError(
        f'{name} has {found} in environment {number + 1} of {num_envs}, and '
        f'{expected} in the first. All must have the same spaces: mend the '
        'environment.'
      )


class GymVector(Vector):
  """Gymnasium environments in lockstep, with autoreset within the step."""

  def __init__(
    self,
    name: str,
    makers: Sequence[Callable[[], gymnasium.Env]],
    channels_first: bool | None = None,
    info: Sequence[str] = (),
  ):
    """Makes the environments.

    Args:
      name: What errors call the environments.
      makers: One function for each environment; called again at each reset.
      channels_first: See `gym.Gym`.
      info: See `gym.Gym`.

    Raises:
      UserError: If agents can't take the observations.
    """
    self._makers = makers
    self.told_names = tuple(info)
    self._envs = [maker() for maker in makers]
    self._fresh = True
    self._awake = range(len(makers))
    try:
      super().__init__(name, len(makers), self._envs[0], channels_first)
      self._require_alike()
    except BaseException:
      self.close()
      raise
    self._answers = [
      answers.Answers(
        name,
        self._given,
        self.observation_space,
        number=i,
        num_envs=self.num_envs,
        channels_first=self.channels_first,
      )
      for i in range(self.num_envs)
    ]

  def reset(self, seeds: Sequence[int]) -> Any:
    """Makes every environment anew and seeds it; see the base class."""
    seeds = counts.check_seeds(seeds, self.num_envs)
    if not self._fresh:
      self.close()
      self._envs = [maker() for maker in self._makers]
      self._require_alike()
    self._fresh = False
    self._awake = range(self.num_envs)
    first = [
      answer.reset(env, seed)
      for answer, env, seed in zip(
        self._answers, self._envs, seeds, strict=True
      )
    ]
    self._shown = spaces.map_trees(lambda *rows: np.array(rows), *first)
    return self._shown

  def rest(self, lanes: np.ndarray) -> None:
    """Leaves these as they are; see the base class."""
    is_awake = np.ones(self.num_envs, bool)
    is_awake[lanes] = False
    self._awake = np.flatnonzero(is_awake).tolist()

  def _require_alike(self):
    spaces = [(env.observation_space, env.action_space) for env in self._envs]
    for i, others in enumerate(spaces):
      require_alike(self.name, i, self.num_envs, spaces[0], others)

  def step(self, actions: np.ndarray) -> base.TimeStep:
    """Steps every environment but those that rest; see the base class."""
    actions = self._as_taken(actions)
    terminated = np.zeros(self.num_envs, np.bool_)
    truncated = np.zeros(self.num_envs, np.bool_)
    observations, rewards, ended = [], [], []
    for i in self._awake:
      answer = self._answers[i].ask(self._envs[i], actions[i])
      seen, reward, terminal, cut = answer
      observations.append(seen)
      rewards.append(reward)
      if terminal or cut:
        terminated[i], truncated[i] = terminal, cut
        ended.append(i)
    # A new array at each step: JAX may still be reading the last one.
    successor = answers.rows(
      [self._answers[i] for i in self._awake], observations
    )
    reward = np.array(rewards, np.float32)
    if len(rewards) < self.num_envs:
      successor, reward = self._among_all(successor, reward)
    observation = successor
    if ended:
      self.told = self._tell(ended)
      first = [self._answers[i].reset(self._envs[i], None) for i in ended]
      observation = answers.with_rows(successor, ended, first)
    self._shown = observation
    return base.TimeStep(observation, reward, terminated, truncated, successor)

  def _among_all(self, successor, reward):
    """Returns the same of all environments; those that rest show no change."""

    def put(shown, rows):
      all_rows = shown.copy()
      all_rows[self._awake] = rows
      return all_rows

    rewards = np.zeros(self.num_envs, np.float32)
    return spaces.map_trees(put, self._shown, successor), put(rewards, reward)

  def _tell(self, ended: Sequence[int]) -> dict[str, np.ndarray]:
    """Returns what those environments say whose episodes ended."""
    told = {
      name: np.full(self.num_envs, np.nan, np.float32)
      for name in self.told_names
    }
    for name, numbers in told.items():
      for i in ended:
        numbers[i] = self._answers[i].told(name)
    return told

  def render(self) -> np.ndarray:
    """Returns environment 0 as an image; see the base class."""
    if self._envs[0].render_mode != 'rgb_array':
      raise RuntimeError(f'{self.name} was made without render=True.')
    image = np.asarray(self._envs[0].render())
    if np.issubdtype(image.dtype, np.floating):  # MinAtar: colours in [0, 1]
      image = np.round(255 * image).astype(np.uint8)
    return image

  def close(self) -> None:
    """Closes the environments."""
    envs, self._envs = self._envs, []
    with contextlib.ExitStack() as stack:  # all, whatever one of them raises
      for env in envs:
        stack.callback(answers.close, self.name, env)


def _check_order(name, path, space, channels_first):
  """Refuses what looks like images [channels, height, width], if not told."""
  if channels_first is None and looks_channels_first(space):
    channels, height, width = space.shape
    raise errors.UserError(
      f'{name} has observations{path} of shape {space.shape}: this looks like '
      f'images of {channels} channels x {height} x {width} pixels, and '
      'networks here take channels last. Set gym.Gym.channels_first = True, '
      f'which moves them there. If these really are {channels} x {height} '
      f'pixels of {width} channels, set gym.Gym.channels_first = False.'
    )


def _require_images(name, space, channels_first):
  """Refuses an order of axes where there are no images to have one."""
  kinds = spaces.leaves(space).values()
  if channels_first is None or any(len(leaf.shape) == 3 for leaf in kinds):
    return
  shown = f'in {space}' if spaces.is_tree(space) else f'of shape {space.shape}'
  raise errors.UserError(
    f'Gym.channels_first = {channels_first} is of images, and {name} has '
    f'observations {shown}. Leave it out.'
  )


def looks_channels_first(space: gymnasium.Space) -> bool:
  """Whether a space seems to be of images [channels, height, width]."""
  is_box = isinstance(space, gymnasium.spaces.Box)
  if not is_box or len(space.shape) != 3 or not space.is_bounded():
    return False
  channels, *sides = space.shape
  if min(sides) >= 32 and channels <= 16:  # no image is as low as that
    return True
  bounds = (float(space.low.min()), float(space.high.max()))
  is_image = space.dtype == np.uint8 or bounds in ((0, 1), (0, 255), (-1, 1))
  return is_image and channels in (1, 3, 4) and min(sides) > 4


def _ordered(space):
  """Returns the space of images with their channels last."""
  if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 3:
    return space
  low, high = space.low.transpose(1, 2, 0), space.high.transpose(1, 2, 0)
  return gymnasium.spaces.Box(low, high, dtype=space.dtype)
