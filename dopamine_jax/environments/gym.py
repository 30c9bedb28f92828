"""Gymnasium environments, of any observations that are made of numbers.

Here are their settings and how one is made; `gym_vector` steps several, one
after another, and `gym_async` each in a process of its own.
"""

from collections.abc import Mapping, Sequence
import contextlib
import dataclasses
import difflib
import functools
import importlib
import importlib.metadata
import sys
import types
from typing import Any

import gymnasium

from dopamine_jax import errors
from dopamine_jax.environments import answers
from dopamine_jax.environments import base
from dopamine_jax.environments import counts
from dopamine_jax.environments import drawing
from dopamine_jax.environments import gym_async
from dopamine_jax.environments import gym_vector
from dopamine_jax.environments import masks
from dopamine_jax.environments import observed as observed_lib

# The extra that brings what a family of environments needs, by their module.
_EXTRAS = {
  'gymnasium.envs.box2d': 'box2d',
  'gymnasium.envs.mujoco': 'mujoco',
  'gymnasium_robotics': 'robotics',
}

# How the ids of DeepMind's control suite begin, which shimmy brings.
DM_CONTROL = 'dm_control/'

# How those of Gymnasium-Robotics do, which registers them when it is imported.
ROBOTICS = (
  *('AdroitHand', 'AntMaze_', 'FetchPickAndPlace', 'FetchPush', 'FetchReach'),
  *('FetchSlide', 'FrankaKitchen', 'HandManipulate', 'HandReach'),
  *('PointMaze_', 'gymnasium_robotics:'),
)

# Arguments of `gymnasium.make` that this adapter sets, and what sets them here.
RESERVED = {
  'max_episode_steps': 'set Gym.max_steps_per_episode instead',
  'render_mode': 'whoever makes the environment chooses it',
  'disable_env_checker': 'the adapter checks observations by itself',
}


class Gym(base.Environment):
  """Any Gymnasium environment whose observations are made of numbers.

  They are a Box, Discrete, MultiDiscrete or MultiBinary, or a Dict or Tuple of
  these. Boxes of 64 bits become those of 32, if their numbers fit; other types,
  bool and uint8 among them, stay as they are. What is counted begins at 0. A
  seeded reset makes each environment anew, because some carry more than their
  seed across a reset (MinAtar its last action).

  Attributes:
    id: What `gymnasium.make` takes: 'CartPole-v1', 'MinAtar/Breakout-v1',
      'FetchReach-v4', 'dm_control/cheetah-run-v0', or 'my_module:MyEnv-v0',
      which imports `my_module` first. For Atari games see `atari.Atari`.
    max_steps_per_episode: Agent steps; replaces the limit of the environment's
      registration, or of dm_control's suite, which None leaves as it is. One
      that an environment keeps by itself is an argument of it, if at all:
      `kwargs = {'max_steps': 500}` of MiniGrid.
    kwargs: Further arguments for `gymnasium.make`. The models of dm_control's
      lqr are drawn by `{'task_kwargs': {'random': 0}}`, if nothing else is
      given.
    vector: 'sync', one after another, or 'async', each in a process of its own,
      those of an evaluation (one an episode, up to 32) too. Experience is the
      same. Films are made in sync.
    channels_first: whether images have the axis of channels (or of stacked
      frames) first: True moves it to the end, where convolutions here expect
      it; False leaves observations as they are; None does too, but refuses
      what looks like such images.
    observed: which numbers of a vector the agent sees, counted from 0, as in
      (0, 2) for CartPole without velocities; None: all.
    info: names of numbers that the environment's `info` holds at the end of
      each episode, such as 'is_success'. Their means become statistics,
      `Train/is_success` and `Eval/is_success`. With vector = 'sync' alone.
    leave_out: keys of a Dict of observations that agents do not see, as
      ('mission',) of MiniGrid, which is text.
    action_mask: whether the environment tells which of its Discrete actions
      are allowed, as `info['action_mask']`, and agents choose among those.
  """

  id: str
  kwargs: Mapping[str, Any] = dataclasses.field(
    default_factory=dict,
    hash=False,  # a dict has no hash, and settings should have one
  )
  vector: str = 'sync'
  channels_first: bool | None = None
  observed: Sequence[int] | None = None
  info: Sequence[str] = ()
  leave_out: Sequence[str] = ()
  action_mask: bool = False

  def __post_init__(self):
    """Raises UserError for settings that can't work."""
    super().__post_init__()
    for name, remedy in RESERVED.items():
      if name in self.kwargs:
        self.refuse('kwargs', f'holds {name!r}: {remedy}')
    self.require_one_of('vector', ('sync', 'async'))
    self.require_at_least(0, 'observed')
    if self.info and self.vector == 'async':
      self.refuse('info', "does not reach this process; set vector = 'sync'")

  def make(self, num_envs: int, render: bool = False) -> base.VectorEnvironment:
    """Makes the environments; see `base.Environment.make`."""
    counts.check_num_envs(num_envs)
    if self.id.startswith('ALE/') or 'NoFrameskip' in self.id:
      raise errors.UserError(
        f'Gym.id = {self.id!r}: Atari games are made by environments.atari, '
        "as in atari.Atari.game = 'Pong'."
      )
    # Functions of plain data, which other processes can be sent.
    maker = functools.partial(
      *(make_one, self.id, self.max_steps_per_episode, dict(self.kwargs)),
      observed=self.observed,
      leave_out=tuple(self.leave_out),
      action_mask=self.action_mask,
    )
    if self.vector == 'async' and not render:
      return gym_async.AsyncVector(
        self.id, [maker] * num_envs, self.channels_first
      )
    first = functools.partial(maker, render=render)
    makers = [first] + [maker] * (num_envs - 1)
    return gym_vector.GymVector(self.id, makers, self.channels_first, self.info)


def make_one(
  id: str,
  max_steps: int | None,
  kwargs: Mapping[str, Any],
  leave_out: Sequence[str] = (),
  action_mask: bool = False,
  render: bool = False,
  observed: Sequence[int] | None = None,
  owner: str = 'Gym',
) -> gymnasium.Env:
  """Makes one environment of the settings of `Gym`, or of another `owner`.

  Raises:
    UserError: For settings that can't work, or an extra that is missing.
  """
  of_task = kwargs
  if id.startswith('MinAtar/'):
    _register_minatar()
  drawing.without_display()
  if id.startswith(DM_CONTROL):
    _register_dm_control()
    of_task = _of_suite(id, max_steps, kwargs)
  if id.startswith(ROBOTICS) and id not in gymnasium.registry:
    _register_robotics(id)
  try:
    with drawing.told(id):
      env = gymnasium.make(
        id,
        max_episode_steps=max_steps,
        disable_env_checker=True,  # slows each step
        # Environments that draw nothing need not know of the argument.
        **({'render_mode': 'rgb_array'} if render else {}),
        **of_task,
      )
  except errors.UserError:
    raise
  except gymnasium.error.DependencyNotInstalled as error:
    raise errors.UserError(_missing_dependency(id, error)) from error
  except ModuleNotFoundError as error:
    raise errors.UserError(
      f'{owner}.id = {id!r} needs a module that is not installed or not on '
      f'the path: {error}'
    ) from error
  except ImportError as error:
    raise errors.UserError(f'{owner}.{_not_importable(id, error)}') from error
  except gymnasium.error.Error as error:
    raise errors.UserError(f'{owner}.{_unknown_id(id, error)}') from error
  except answers.CODE_ERRORS as error:
    if 'unexpected keyword argument' in str(error):
      raise errors.UserError(
        f'{id} refuses its arguments, kwargs = {dict(kwargs)}: {error}'
      ) from error
    _require_older_mujoco(id, error)
    raise answers.failed(
      id, 'while it was made', 'constructor', error
    ) from error
  if id.startswith(DM_CONTROL):  # shimmy has it the other way round
    rate = {'render_fps': 1 / env.unwrapped.dt}
    env.unwrapped.metadata = {**env.unwrapped.metadata, **rate}
  if render and 'rgb_array' not in env.metadata.get('render_modes', ()):
    raise errors.UserError(
      f"{id} draws no images: its render_modes lack 'rgb_array'."
    )
  if render:
    env = drawing.InOwnContext(env)
  if observed is not None:
    env = observed_lib.Observed(env, observed, 'gym.Gym.observed')
  if leave_out:
    env = _Without(id, env, leave_out)
  return masks.Masked(id, env) if action_mask else env


class _Without(gymnasium.ObservationWrapper):
  """An environment without some keys of its observations, which are a Dict."""

  def __init__(self, id: str, env: gymnasium.Env, keys: Sequence[str]):
    super().__init__(env)
    space = env.observation_space
    has = space.keys() if isinstance(space, gymnasium.spaces.Dict) else ()
    for key in keys:
      if key not in has:
        raise errors.UserError(
          f'Gym.leave_out names {key!r}, and {id} has no such observation: its '
          f'observation_space is {space}.'
        )
    self._keys = [key for key in has if key not in keys]
    self.observation_space = gymnasium.spaces.Dict(
      {key: space[key] for key in self._keys}
    )

  def observation(self, observation):
    """Returns the keys that are left."""
    return {key: observation[key] for key in self._keys}


class _Later(types.ModuleType):
  """Stands for a module, and imports it when something of it is used."""

  def __getattr__(self, name):
    if sys.modules.get(self.__name__) is self:
      del sys.modules[self.__name__]
    return getattr(importlib.import_module(self.__name__), name)


@contextlib.contextmanager
def _put_off(*names):
  """Has what is imported within find stand-ins of these modules."""
  stand_ins = {name: _Later(name) for name in names if name not in sys.modules}
  sys.modules.update(stand_ins)
  try:
    yield
  finally:
    for name, stand_in in stand_ins.items():
      if sys.modules.get(name) is stand_in:
        del sys.modules[name]


def _register_minatar() -> None:
  if 'MinAtar/Breakout-v1' in gymnasium.registry:
    return
  try:
    # It draws with these, and to import them takes two seconds.
    with _put_off('matplotlib.pyplot', 'seaborn'):
      from minatar import gym as minatar_gym  # GPL-3.0: an extra
  except ImportError as error:
    raise errors.UserError(
      f'MinAtar is not installed: {errors.install("minatar")}'
    ) from error
  minatar_gym.register_envs()


def _register_dm_control() -> None:
  try:
    with drawing.told('dm_control'):
      import dm_control  # noqa: F401
      import shimmy  # noqa: F401, which registers its environments
  except ImportError as error:
    raise errors.UserError(
      f'dm_control is not installed: {errors.install("dm_control")}'
    ) from error


def _of_suite(
  id: str, max_steps: int | None, kwargs: Mapping[str, Any]
) -> Mapping[str, Any]:
  """Returns the arguments of a task of dm_control's suite; others as they are.

  Some tasks draw their model when they are made (lqr), and each reset makes
  them anew: one seed draws it for all. The suite's own time limit goes where
  another one is given, since Gymnasium's could only be the shorter of both.
  """
  known = gymnasium.registry
  spec = known.get(id) or known.get(f'{id}-v0')
  if 'task_name' not in getattr(spec and spec.entry_point, 'keywords', {}):
    return kwargs
  task: dict[str, Any] = {'random': 0}
  if max_steps is not None:
    task['time_limit'] = float('inf')
  return {**kwargs, 'task_kwargs': task | (kwargs.get('task_kwargs') or {})}


def _register_robotics(id: str) -> None:
  try:
    import gymnasium_robotics  # noqa: F401, which registers its environments
  except ImportError as error:
    raise errors.UserError(
      f'{id} is of Gymnasium-Robotics, by how its id begins, and that is not '
      f'installed: {errors.install("robotics")}'
    ) from error


def _require_older_mujoco(id: str, error: Exception) -> None:
  """Refuses a MuJoCo in which Gymnasium-Robotics finds no kind of joint.

  From 3.12 on, its names of kinds no longer equal NumPy's numbers, and 1.4.2
  asserts that they do. Mazes and Adroit's hand go without.
  """
  is_theirs = 'gymnasium_robotics' in answers.raised_by(error)
  if not (is_theirs and isinstance(error, AssertionError)):
    return
  version = importlib.metadata.version('mujoco')
  if tuple(map(int, version.split('.')[:2])) >= (3, 12):
    raise errors.UserError(
      f'{id} can not be made with MuJoCo {version}: this Gymnasium-Robotics '
      f'needs one below 3.12. {errors.install("robotics")}'
    ) from error


def _missing_dependency(id: str, error: Exception) -> str:
  spec = gymnasium.registry.get(id.rpartition(':')[2])
  entry_point = str(spec.entry_point) if spec else ''
  says = f'{id} needs packages that are not installed:'
  if 'mujoco_py' in str(error):  # by old versions, which nothing here brings
    return f'{says} {str(error).rstrip(".")}.{_newest(id)}'
  for family, extra in _EXTRAS.items():
    if entry_point.startswith(family):
      return f'{says} {errors.install(extra)}'
  return f'{says} {error}'


def _not_importable(id: str, error: Exception) -> str:
  """Says why, and names the newest version if it is another one."""
  why = str(error).rstrip('.')
  return f'id = {id!r} cannot be imported: {why}.{_newest(id)}'


def _newest(id: str) -> str:
  """Names the newest version of an environment, if that is another one."""
  name, _, version = id.rpartition(':')[2].rpartition('-v')
  versions = [
    int(known.rpartition('-v')[2])
    for known in gymnasium.registry
    if known.rpartition('-v')[0] == name and known[-1].isdigit()
  ]
  newest = max(versions, default=None)
  if newest is None or str(newest) == version:
    return ''
  return f" The newest version here is '{name}-v{newest}': set that."


def _unknown_id(id: str, error: Exception) -> str:
  near = difflib.get_close_matches(id, gymnasium.registry, n=3)
  hint = (
    f'Did you mean {" or ".join(near)}?'
    if near
    else ("An environment of your own is named 'your_module:YourEnv-v0'.")
  )
  return f'id = {id!r}: {error} {hint}'
