"""Tests of pixels.py, on an environment whose image is its state."""

import ctypes.util
import gc
import importlib.util
import sys

import gymnasium
import numpy as np
import pytest

from dopamine_jax import errors
from dopamine_jax import networks
from dopamine_jax.engines import stacking
from dopamine_jax.environments import border
from dopamine_jax.environments import gym
from dopamine_jax.environments import pixels

NEEDS_MUJOCO = pytest.mark.skipif(
  not importlib.util.find_spec('mujoco') or not ctypes.util.find_library('EGL'),
  reason='draws with MuJoCo and EGL',
)


class Drawn(gymnasium.Env):
  """Counts its steps, and draws the count; rewards are the counts."""

  metadata = {'render_modes': ['rgb_array'], 'render_fps': 20}  # noqa: RUF012
  observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
  action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

  def __init__(self, render_mode=None, width=8, height=8, last=7, wrong=False):
    self.render_mode = render_mode
    self._shape, self._last = (height, width + wrong, 3), last

  def reset(self, *, seed=None, options=None):
    super().reset(seed=seed)
    self._count = 0
    return np.zeros(2, np.float32), {}

  def step(self, action):
    self._count += 1
    ended = self._count == self._last
    return np.zeros(2, np.float32), float(self._count), ended, False, {}

  def render(self):
    return np.full(self._shape, self._count, np.uint8)


class Fixed(Drawn):
  """Draws at one size alone."""

  def __init__(self, render_mode=None):
    super().__init__(render_mode)


@pytest.fixture(autouse=True)
def registered():
  for cls in (Drawn, Fixed):
    gymnasium.register(f'{cls.__name__}-v0', cls, max_episode_steps=100)
  yield
  for cls in (Drawn, Fixed):
    del gymnasium.registry[f'{cls.__name__}-v0']


def make(**settings):
  return pixels.Pixels(**{'id': 'Drawn-v0', 'size': 6, **settings})


def shown(step):
  return step.next_observation[:, 0, 0, 0].tolist()


def test_an_agent_sees_the_last_image_and_the_sum_of_rewards():
  environments = make(action_repeat=3).make(2)
  first = environments.reset([0, 1])
  assert first.shape == (2, 6, 6, 3)
  assert first.dtype == np.uint8
  assert environments.observation_space.shape == (6, 6, 3)
  actions = np.zeros((2, 1), np.float32)
  one, two, three = (environments.step(actions) for _ in range(3))
  assert shown(one) == [3, 3]
  assert one.reward.tolist() == [1 + 2 + 3] * 2
  assert shown(two) == [6, 6]
  # The episode ends within the repeated action.
  assert shown(three) == [7, 7]
  assert three.reward.tolist() == [7.0, 7.0]
  assert three.terminated.all()
  assert three.observation.max() == 0
  environments.close()


def test_a_time_limit_counts_agent_steps():
  settings = make(action_repeat=2, max_steps_per_episode=2)
  environments = settings.make(1)
  environments.reset([0])
  steps = [environments.step(np.zeros((1, 1), np.float32)) for _ in range(2)]
  assert [bool(step.truncated[0]) for step in steps] == [False, True]
  assert shown(steps[1]) == [4]
  environments.close()


def test_stacked_frames_are_channels_of_an_image():
  environments = make().make(1)
  space = stacking.stacked_space(environments.observation_space, 3)
  assert space.shape == (6, 6, 3, 3)
  assert networks.fitting(space) is networks.NatureCNN
  seen = np.arange(2 * 4 * 4 * 3 * 3).reshape(2, 4, 4, 3, 3)
  images = networks.as_images(seen)
  np.testing.assert_array_equal(images, seen.reshape(2, 4, 4, 9))
  environments.close()


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'id': 'Fixed-v0'}, 'does not draw at a chosen size'),
    ({'kwargs': {'wrong': True}}, r'shape \(6, 7, 3\).*Mend its render'),
    ({'shadows': False}, 'shadows = False is of MuJoCo'),
    ({'kwargs': {'width': 3}}, 'set Pixels.size instead'),
    ({'kwargs': {'max_episode_steps': 3}}, 'Pixels.max_steps_per_episode'),
    ({'size': 0}, 'size = 0 is too small'),
    ({'action_repeat': 0}, 'action_repeat = 0 is too small'),
    ({'vector': 'both'}, "expected 'sync' or 'async'"),
  ],
)
def test_what_cannot_work_is_refused(settings, message):
  with pytest.raises(errors.UserError, match=message):
    make(**settings).make(1)


@NEEDS_MUJOCO
def test_mujocos_images_are_of_the_state_alone():
  # Its free camera looks at where things lay when it first drew.
  settings = pixels.Pixels(id='InvertedPendulum-v5', size=32)
  made = [settings.make(1) for _ in range(2)]
  made[0].reset([5])  # another past
  for _ in range(3):
    made[0].step(np.ones((1, 1), np.float32))
  first = [each.reset([7]) for each in made]
  np.testing.assert_array_equal(*first)
  assert first[0].max() > 0
  steps = [each.step(np.full((1, 1), 0.5, np.float32)) for each in made]
  np.testing.assert_array_equal(*(step.observation for step in steps))
  assert np.any(steps[0].observation != first[0])
  assert steps[0].reward == [2.0]  # 1 for each of two steps
  for each in made:
    each.close()


@NEEDS_MUJOCO
@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'kwargs': {'camera_name': 'nope'}}, r"names no camera .* \['track'\]"),
    ({'kwargs': {'camera_id': 7}}, 'names no camera .* camera_id is -1'),
    ({'size': 100_000}, r'can not be drawn at Pixels.size = 100000'),
    ({'id': 'Nope-v5'}, r'Pixels.id = .Nope-v5.'),
  ],
)
def test_what_mujoco_cannot_draw_is_said(settings, message):
  settings = {'id': 'HalfCheetah-v5', 'size': 16, **settings}
  with pytest.raises(errors.UserError, match=message):
    pixels.Pixels(**settings).make(1)


def fails(error, module='OpenGL.raw.GL', cause=False):
  """Raises what a module of OpenGL's does, or Gymnasium by reason of it."""
  code = compile(f'raise {error}("no library")', 'unknown.py', 'exec')
  if not cause:
    exec(code, {'__name__': module})
  try:
    exec(code, {'__name__': module})
  except Exception as e:
    raise gymnasium.error.DependencyNotInstalled('MuJoCo') from e


@pytest.mark.parametrize('module', ['OpenGL.raw.GL', 'mujoco.gl_context'])
@pytest.mark.parametrize('error', ['AttributeError', 'ImportError'])
@pytest.mark.parametrize('cause', [False, True])
def test_an_opengl_that_does_not_load_is_said(
  monkeypatch, module, error, cause
):
  gymnasium.register('Undrawn-v0', lambda **_: fails(error, module, cause))
  monkeypatch.setenv('MUJOCO_GL', 'osmesa')
  try:
    with pytest.raises(errors.UserError, match=r'MUJOCO_GL = .osmesa.: .*gl'):
      pixels.Pixels(id='Undrawn-v0').make(1)
  finally:
    del gymnasium.registry['Undrawn-v0']


def test_what_is_below_a_folder_of_that_name_is_not_opengls():
  gymnasium.register('Undrawn-v0', lambda **_: fails('TypeError', 'my.OpenGL'))
  try:
    with pytest.raises(errors.UserError, match=r'failed .while it was made'):
      pixels.Pixels(id='Undrawn-v0').make(1)
  finally:
    del gymnasium.registry['Undrawn-v0']


def test_a_film_that_opengl_can_not_draw_is_said(monkeypatch):
  environments = pixels.Pixels(id='Drawn-v0', size=8).make(1)
  monkeypatch.setattr(environments, 'render', lambda: fails('RuntimeError'))
  with pytest.raises(errors.UserError, match='can not be drawn by MUJOCO_GL'):
    border.picture(environments)


@pytest.mark.parametrize('error', ['RuntimeError', 'ImportError'])
def test_dm_control_that_can_not_load_opengl_says_so(
  monkeypatch, tmp_path, error
):
  package = tmp_path / 'dm_control'
  (package / '_render').mkdir(parents=True)
  (package / '__init__.py').write_text('from dm_control import _render\n')
  (package / '_render/__init__.py').write_text(f'raise {error}("foo")\n')
  for name in [x for x in sys.modules if x.split('.')[0] == 'dm_control']:
    monkeypatch.delitem(sys.modules, name)
  monkeypatch.syspath_prepend(tmp_path)
  with pytest.raises(errors.UserError, match='dm_control can not be drawn by'):
    pixels.Pixels(id='dm_control/cheetah-run-v0').make(1)


@NEEDS_MUJOCO
def test_shadows_can_be_left_out():
  images = []
  for shadows in (True, False):
    settings = pixels.Pixels(id='HalfCheetah-v5', size=32, shadows=shadows)
    environments = settings.make(1)
    images.append(environments.reset([0]).astype(float))
    environments.close()
  assert images[0].shape == images[1].shape
  assert np.any(images[0] != images[1])


@NEEDS_MUJOCO
def test_images_are_an_environments_own_whatever_others_come_and_go():
  def images(between):
    made = pixels.Pixels(id='InvertedPendulum-v5', size=32).make(1)
    found = [made.reset([5])]
    for _ in range(3):
      between()
      found.append(made.step(np.zeros((1, 1), np.float32)).observation)
    made.close()
    return found

  def others(id, closes):
    other = pixels.Pixels(id=id, size=48).make(1)
    other.reset([0])
    if closes:
      other.close()
    return other

  def collected():  # after another context has become the current one
    left.pop()
    gc.collect()

  alone, kept = images(lambda: None), []
  left = [others('InvertedPendulum-v5', closes=True) for _ in range(3)]
  np.testing.assert_array_equal(images(collected), alone)
  assert all(image.any() for image in alone)
  np.testing.assert_array_equal(
    images(lambda: others('InvertedPendulum-v5', closes=True)), alone
  )
  np.testing.assert_array_equal(
    images(lambda: kept.append(others('HalfCheetah-v5', closes=False))), alone
  )


@pytest.mark.parametrize('repeat', [1, 4])
def test_films_are_as_fast_as_what_they_show(repeat):
  made = pixels.Pixels(id='Drawn-v0', size=8, action_repeat=repeat).make(1)
  assert made.frames_per_second == 20 / repeat


NEEDS_DM_CONTROL = pytest.mark.skipif(
  not importlib.util.find_spec('shimmy'), reason='needs the extra dm_control'
)


@NEEDS_DM_CONTROL
def test_a_limit_replaces_that_of_dm_controls_suite():
  settings = gym.Gym(id='dm_control/cartpole-swingup-v0')
  for limit, ends in ((None, 1_000), (3, 3), (1_002, 1_002)):
    made = settings.replace(max_steps_per_episode=limit).make(1)
    made.reset([0])
    for count in range(1, ends + 1):
      step = made.step(np.zeros((1, 1), np.float32))
      assert step.truncated == [count == ends]
  assert made.frames_per_second == 100  # its steps are of a hundredth


@NEEDS_DM_CONTROL
def test_a_task_of_dm_control_is_the_same_one_each_time_it_is_made():
  found = []
  for _ in range(2):
    made = gym.Gym(id='dm_control/lqr-lqr_2_1-v0').make(1)
    for _ in range(2):  # each of which makes it anew
      made.reset([7])
      actions = np.full((1, *made.action_space.shape), 0.3, np.float32)
      found.append([made.step(actions).reward.tolist() for _ in range(3)])
  assert found[0] == found[1] == found[2] == found[3]
  other = {'task_kwargs': {'random': 1}}
  made = gym.Gym(id='dm_control/lqr-lqr_2_1-v0', kwargs=other).make(1)
  made.reset([7])
  assert [made.step(actions).reward.tolist() for _ in range(3)] != found[0]


@NEEDS_DM_CONTROL
def test_dm_control_is_drawn_too():
  images = {}
  for shadows in (True, False):
    settings = pixels.Pixels(
      id='dm_control/cheetah-run-v0', size=32, shadows=shadows
    )
    environments = settings.make(1)
    images[shadows] = environments.reset([0])
    step = environments.step(np.ones((1, 6), np.float32))
    assert step.observation.shape == (1, 32, 32, 3)
    assert environments.action_space.shape == (6,)
    environments.close()
  assert np.any(images[True] != images[False])
