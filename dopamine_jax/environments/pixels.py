"""Gymnasium environments seen as images: MuJoCo's, drawn off the screen."""

from collections.abc import Mapping
import dataclasses
import functools
from typing import Any

import gymnasium

from dopamine_jax import errors
from dopamine_jax.environments import base
from dopamine_jax.environments import counts
from dopamine_jax.environments import drawing
from dopamine_jax.environments import gym
from dopamine_jax.environments import gym_async
from dopamine_jax.environments import gym_vector

# Arguments of `gymnasium.make` that this adapter sets, and what sets them here.
_RESERVED = gym.RESERVED | {
  'width': 'set Pixels.size instead',
  'height': 'set Pixels.size instead',
}


class Pixels(base.Environment):
  """A Gymnasium environment whose observations are its images alone.

  They are uint8 [size, size, 3], and `stack` of them is what an agent sees. It
  is for environments that draw at any size: Gymnasium's MuJoCo and dm_control.

  An agent step repeats an action, and its reward is the sum; the image is the
  last one. `max_steps_per_episode` counts agent steps.

  Attributes:
    id: what `gymnasium.make` takes, such as 'HalfCheetah-v5'.
    size: height and width of an image in pixels.
    action_repeat: steps of the environment in one agent step.
    shadows: whether MuJoCo draws shadows. Without a GPU these take most of the
      time: of HalfCheetah an image takes 45 ms with them and 7 ms without. The
      floor is a little darker then.
    kwargs: further arguments for `gymnasium.make`, such as `camera_name`; of
      dm_control `render_kwargs`, whose `camera_id` is 0 if it is not there.
    vector: see `gym.Gym`.
    stack: see `base.Environment`.
  """

  id: str
  size: int = 84
  action_repeat: int = 2
  shadows: bool = True
  kwargs: Mapping[str, Any] = dataclasses.field(
    default_factory=dict,
    hash=False,  # a dict has no hash, and settings should have one
  )
  vector: str = 'sync'
  stack: int = 3

  def __post_init__(self):
    """Raises UserError for settings that can't work."""
    super().__post_init__()
    for name, remedy in _RESERVED.items():
      if name in self.kwargs:
        remedy = remedy.replace('Gym.', 'Pixels.')
        self.refuse('kwargs', f'holds {name!r}: {remedy}')
    self.require_one_of('vector', ('sync', 'async'))
    self.require_at_least(1, 'size', 'action_repeat')

  def make(self, num_envs: int, render: bool = False) -> base.VectorEnvironment:
    """Makes the environments; see `base.Environment.make`."""
    counts.check_num_envs(num_envs)
    make_one = functools.partial(_make_one, self)
    if self.vector == 'async' and not render:
      return gym_async.AsyncVector(self.id, [make_one] * num_envs, None)
    return gym_vector.GymVector(self.id, [make_one] * num_envs)


class _Repeated(gymnasium.Wrapper):
  """Takes each action several times, and sums the rewards."""

  def __init__(self, env: gymnasium.Env, times: int):
    super().__init__(env)
    self._times = times
    if fps := env.metadata.get('render_fps'):
      self.metadata = {**env.metadata, 'render_fps': fps / times}

  def step(self, action: Any) -> Any:
    """Takes the steps; the last one is where an episode ends."""
    total = 0
    for _ in range(self._times):
      answer = self.env.step(action)
      if not isinstance(answer, tuple) or len(answer) != 5:
        return answer  # `answers` says what is wrong with it.
      _, reward, terminated, truncated, _ = answer
      total = total + reward
      if terminated or truncated:
        break
    observation, _, *rest = answer
    return observation, total, *rest


def _make_one(settings: Pixels) -> gymnasium.Env:
  """Makes one environment of `Pixels`' settings.

  Raises:
    UserError: For settings that can't work, or an extra that is missing.
  """
  size, limit = settings.size, settings.max_steps_per_episode
  try:
    env = gym.make_one(
      settings.id,
      None if limit is None else limit * settings.action_repeat,
      _drawing(settings),
      render=True,
      owner='Pixels',
    )
  except errors.UserError as error:
    if "unexpected keyword argument 'width'" not in str(error):
      raise
    raise errors.UserError(
      f'{settings.id} does not draw at a chosen size, as environments of '
      "Pixels must; Gymnasium's MuJoCo do, such as 'HalfCheetah-v5', and "
      "dm_control, such as 'dm_control/cheetah-run-v0'."
    ) from error
  model = getattr(env.unwrapped, 'model', None)
  if not settings.shadows and not _is_dm_control(settings):
    if not hasattr(model, 'vis'):
      raise errors.UserError(
        f"Pixels.shadows = False is of MuJoCo's environments, and {settings.id}"
        ' is none. Leave it out.'
      )
    model.vis.quality.shadowsize = 0  # read when it is first drawn
  _require_camera(settings, model)
  # MuJoCo's free camera looks for ever at where things lie when it first draws.
  # This has to be the same place each time: an image is of the state alone.
  env.reset(seed=0)
  try:
    env.render()
  except Exception as error:  # MuJoCo's own, OpenGL's, ...
    raise errors.UserError(
      f'{settings.id} can not be drawn at Pixels.size = {size}: '
      f'{errors.told(error)}. Choose a smaller size, or {drawing.OTHER_GL}.'
    ) from error
  env = gymnasium.wrappers.AddRenderObservation(
    _Repeated(env, settings.action_repeat)
  )
  if env.observation_space.shape != (size, size, 3):
    raise errors.UserError(
      f'{settings.id} draws images of shape {env.observation_space.shape}, and '
      f'Pixels.size = {size} asks for {(size, size, 3)}. Mend its render.'
    )
  return env


def _require_camera(settings, model):
  """Refuses a camera that one of Gymnasium's MuJoCo models does not have.

  MuJoCo itself would draw by another one, or end the process.
  """
  if not hasattr(model, 'ncam'):
    return
  names = [model.camera(i).name for i in range(model.ncam)]
  name, number = (
    settings.kwargs.get(key) for key in ('camera_name', 'camera_id')
  )
  if name is not None and name not in names:
    settings.refuse(
      'kwargs', f'names no camera of {settings.id}; it has {names}'
    )
  if number is not None and number not in range(-1, len(names)):
    settings.refuse(
      'kwargs',
      f'names no camera of {settings.id}; camera_id is -1, which is free, or '
      f'the place of one in {names}',
    )


def _is_dm_control(settings):
  return settings.id.startswith(gym.DM_CONTROL)


def _drawing(settings: Pixels) -> dict[str, Any]:
  """Returns the arguments of an environment that say how it draws, too."""
  given = dict(settings.kwargs)
  size = {'width': settings.size, 'height': settings.size}
  if not _is_dm_control(settings):
    return given | size
  drawing = {'camera_id': 0, **given.get('render_kwargs', {}), **size}
  if not settings.shadows:
    drawing['render_flag_overrides'] = {'shadow': False}
  return given | {'render_kwargs': drawing}
