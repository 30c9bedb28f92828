"""Tests of environments.base and environments.gym.

`Script-v0` below plays a script that its seed spells out, so that every value
of every time step is known by hand.
"""

import contextlib
import math
import re
import sys

import gymnasium
from hypothesis import given
from hypothesis import strategies as st
import jax.numpy as jnp
import numpy as np
import pytest

from dopamine_jax import config
from dopamine_jax import errors
from dopamine_jax.environments import base
from dopamine_jax.environments import border
from dopamine_jax.environments import gym

SCRIPT = 'dopamine-jax-test/Script-v0'
# Tens of a seed say how its episodes end, units after how many steps.
TERMINATES, TRUNCATES, BOTH = 0, 10, 20


class Script(gymnasium.Env):
  """Observations are [seed, episode, step, last action], always one buffer."""

  metadata = {'render_modes': ['rgb_array'], 'render_fps': 1}  # noqa: RUF012

  def __init__(self, render_mode=None, dtype=np.float64):
    self.render_mode = render_mode
    self.observation_space = gymnasium.spaces.Box(0, 100, (4,), dtype)
    self.action_space = gymnasium.spaces.Discrete(5)
    self._state = np.zeros(4, dtype)
    self._seed = 0
    self._episode = -1

  def reset(self, *, seed=None, options=None):
    if seed is not None:
      self._seed = seed
      self._episode = -1
    self._episode += 1
    self._state[:] = self._seed, self._episode, 0, 0
    return self._state, {}

  def step(self, action):
    self._state[2] += 1
    self._state[3] = action
    end = self._state[2] == self._seed % 10
    kind = self._seed // 10 * 10
    reward = 100 * float(self._state[2]) + 0.5
    terminated = end and kind in (TERMINATES, BOTH)
    truncated = end and kind in (TRUNCATES, BOTH)
    return self._state, reward, terminated, truncated, {}

  def render(self):
    return np.full((3, 2, 3), self._state[2], np.uint8)


class Leaky(Script):
  """Its episodes' count survives a seeded reset, as MinAtar's last action."""

  def reset(self, *, seed=None, options=None):
    self._seed = self._seed if seed is None else seed
    self._episode += 1
    self._state[:] = self._seed, self._episode, 0, 0
    return self._state, {}


class WrongShape(Script):
  """Observations that NumPy would broadcast without a word."""

  def reset(self, *, seed=None, options=None):
    return np.ones(1), {}


class WrongType(Script):
  """Observations that NumPy would cut to whole numbers without a word."""

  def __init__(self, render_mode=None):
    super().__init__(render_mode, np.uint8)

  def reset(self, *, seed=None, options=None):
    return np.full(4, 0.5), {}


class Undrawable(Script):
  """An environment without images."""

  metadata = {'render_modes': []}  # noqa: RUF012


class Spaced(gymnasium.Env):
  """An environment that has the observation space it is given."""

  def __init__(self, space, render_mode=None):
    self.observation_space = space
    self.action_space = gymnasium.spaces.Discrete(2)

  def reset(self, *, seed=None, options=None):
    self.observation_space.seed(seed)
    return self.observation_space.sample(), {}

  def step(self, action):
    return self.observation_space.sample(), 0.0, False, True, {}


class Drawing(Script):
  """Draws what it is told."""

  def __init__(self, render_mode=None, image=None):
    super().__init__(render_mode)
    self.image = image

  def render(self):
    if isinstance(self.image, BaseException):
      raise self.image
    return self.image


@pytest.fixture(scope='module', autouse=True)
def registered():
  before = dict(gymnasium.registry)
  for kind in (
    Script,
    Leaky,
    WrongShape,
    WrongType,
    Undrawable,
    Spaced,
    Drawing,
  ):
    gymnasium.register(f'dopamine-jax-test/{kind.__name__}-v0', kind)
  yield
  gymnasium.registry.clear()
  gymnasium.registry.update(before)


def make(num_envs=1, id=SCRIPT, render=False, **kwargs):
  vector = gym.Gym(id=id, **kwargs).make(num_envs, render)
  return contextlib.closing(vector)


def assert_equal(time_step, **expected):
  for name, value in expected.items():
    np.testing.assert_array_equal(getattr(time_step, name), value, err_msg=name)


# What a time step says.


def test_a_termination_gives_the_final_and_then_the_new_observation():
  with make() as env:
    np.testing.assert_array_equal(env.reset([2]), [[2, 0, 0, 0]])
    assert_equal(
      env.step(np.array([3])),
      observation=[[2, 0, 1, 3]],
      reward=[100.5],
      terminated=[False],
      truncated=[False],
      next_observation=[[2, 0, 1, 3]],
    )
    assert_equal(
      env.step(np.array([4])),
      observation=[[2, 1, 0, 0]],
      reward=[200.5],
      terminated=[True],
      truncated=[False],
      next_observation=[[2, 0, 2, 4]],
    )
    assert_equal(
      env.step(np.array([1])),
      observation=[[2, 1, 1, 1]],
      reward=[100.5],
      terminated=[False],
      truncated=[False],
      next_observation=[[2, 1, 1, 1]],
    )


@pytest.mark.parametrize(
  'kind, terminated, truncated',
  [(TERMINATES, True, False), (TRUNCATES, False, True), (BOTH, True, True)],
)
def test_terminated_and_truncated_are_what_the_environment_said(
  kind, terminated, truncated
):
  with make() as env:
    env.reset([kind + 1])
    assert_equal(
      env.step(np.array([0])),
      observation=[[kind + 1, 1, 0, 0]],
      terminated=[terminated],
      truncated=[truncated],
      next_observation=[[kind + 1, 0, 1, 0]],
    )


def test_environments_of_different_episode_lengths_end_on_their_own():
  with make(3) as env:
    env.reset([TERMINATES + 2, TRUNCATES + 3, 5])
    env.step(np.array([0, 0, 0]))
    assert_equal(
      env.step(np.array([1, 2, 3])),
      observation=[[2, 1, 0, 0], [13, 0, 2, 2], [5, 0, 2, 3]],
      reward=[200.5, 200.5, 200.5],
      terminated=[True, False, False],
      truncated=[False, False, False],
      next_observation=[[2, 0, 2, 1], [13, 0, 2, 2], [5, 0, 2, 3]],
    )
    assert_equal(
      env.step(np.array([4, 3, 2])),
      observation=[[2, 1, 1, 4], [13, 1, 0, 0], [5, 0, 3, 2]],
      reward=[100.5, 300.5, 300.5],
      terminated=[False, False, False],
      truncated=[False, True, False],
      next_observation=[[2, 1, 1, 4], [13, 0, 3, 3], [5, 0, 3, 2]],
    )


def test_those_that_rest_stay_as_they_are_until_the_next_reset():
  with make(3) as env:
    env.reset([3, 1, 5])
    env.step(np.array([1, 1, 1]))
    env.rest(np.array([1]))
    assert_equal(
      env.step(np.array([2, 2, 2])),
      observation=[[3, 0, 2, 2], [1, 1, 0, 0], [5, 0, 2, 2]],
      reward=[200.5, 0, 200.5],
      terminated=[False, False, False],
    )
    env.rest(np.array([1, 2]))
    assert_equal(
      env.step(np.array([3, 3, 3])),
      observation=[[3, 1, 0, 0], [1, 1, 0, 0], [5, 0, 2, 2]],
      reward=[300.5, 0, 0],
      terminated=[True, False, False],
      next_observation=[[3, 0, 3, 3], [1, 1, 0, 0], [5, 0, 2, 2]],
    )
    env.reset([3, 2, 5])
    assert_equal(
      env.step(np.array([1, 1, 1])),
      observation=[[3, 0, 1, 1], [2, 0, 1, 1], [5, 0, 1, 1]],
    )


@given(
  seeds=st.lists(st.integers(0, 29), min_size=1, max_size=4),
  num_steps=st.integers(1, 25),
  limit=st.none() | st.integers(1, 12),
)
def test_every_time_step_is_the_script(seeds, num_steps, limit):
  with make(len(seeds), max_steps_per_episode=limit) as env:
    env.reset(seeds)
    for t in range(num_steps):
      time_step = env.step(np.full(len(seeds), t % 5))
      for i, seed in enumerate(seeds):
        # A script of length 0 never ends by itself.
        own = seed % 10 or math.inf
        length = min(own, limit or math.inf)
        if math.isinf(length):
          episode, position = 0, t + 1
        else:
          episode, position = divmod(t, int(length))
          position += 1
        by_script = position == own
        by_limit = position == limit
        final = [seed, episode, position, t % 5]
        first = [seed, episode + 1, 0, 0]
        over = by_script or by_limit
        terminated = by_script and seed // 10 in (0, 2)
        truncated = by_limit or (by_script and seed // 10 in (1, 2))
        assert time_step.next_observation[i].tolist() == final
        assert time_step.observation[i].tolist() == (first if over else final)
        assert time_step.reward[i] == 100 * position + 0.5
        assert time_step.terminated[i] == terminated
        assert time_step.truncated[i] == truncated


def test_the_types_are_those_of_the_contract():
  with make(2) as env:
    observation = env.reset([1, 2])
    time_step = env.step(np.array([0, 0], np.int32))
    assert (env.num_envs, env.action_space.n) == (2, 5)
    assert env.observation_space.shape == (4,)
    assert env.observation_space.dtype == np.float32
    assert env.observation_space.contains(observation[0])
    assert [(x.dtype, x.shape) for x in time_step] == [
      (np.float32, (2, 4)),
      (np.float32, (2,)),
      (np.bool_, (2,)),
      (np.bool_, (2,)),
      (np.float32, (2, 4)),
    ]


@pytest.mark.parametrize('dtype', [np.uint8, np.float32, np.int32])
def test_other_observation_types_stay_as_they_are(dtype):
  with make(kwargs={'dtype': dtype}) as env:
    assert env.observation_space.dtype == dtype
    assert env.reset([3]).dtype == dtype


def test_arrays_are_not_written_to_after_they_were_returned():
  with make(2) as env:
    kept = [env.reset([2, 13])]
    for t in range(8):
      kept += env.step(np.array([t % 5, 1]))
    copies = [array.copy() for array in kept]
    for _ in range(8):
      env.step(np.array([4, 4]))
    env.reset([5, 6])
    for array, copy in zip(kept, copies, strict=True):
      np.testing.assert_array_equal(array, copy)


def test_actions_of_a_box_reach_the_environment():
  raw = gymnasium.make('Pendulum-v1')
  first, _ = raw.reset(seed=7)
  second, reward, *_ = raw.step(np.array([0.5], np.float32))
  with make(2, 'Pendulum-v1') as env:
    np.testing.assert_array_equal(env.reset([9, 7])[1], first)
    assert env.action_space == gymnasium.spaces.Box(-1, 1, (1,))
    # A torque of 0.5 in [-2, 2].
    time_step = env.step(np.array([[-1.0], [0.25]], np.float32))
    np.testing.assert_array_equal(time_step.observation[1], second)
    assert time_step.reward[1] == np.float32(reward)


def test_an_action_outside_the_box_is_clipped():
  rows = []
  for action in (1.0, 7.0):
    with make(1, 'Pendulum-v1') as env:
      env.reset([3])
      rows.append(env.step(np.array([[action]], np.float32)))
  np.testing.assert_array_equal(rows[0].observation, rows[1].observation)
  assert rows[0].reward == rows[1].reward


@pytest.mark.parametrize('library', [np, jnp])
def test_a_box_is_stretched_to_its_own_bounds(library):
  low, high = np.float32([-1, 0, -0.4]), np.float32([1, 10, 0.2])
  space = gymnasium.spaces.Box(low, high)
  assert base.space_of_agents(space) == gymnasium.spaces.Box(-1, 1, (3,))
  unit = library.asarray(
    [[-1, -1, -1], [1, 1, 1], [0.3, 0.5, 0], [-9, 9, 9]], np.float32
  )
  expected = [[-1, 0, -0.4], [1, 10, 0.2], [0.3, 7.5, -0.1], [-1, 10, 0.2]]
  found = np.stack([base.as_environments_action(space, row) for row in unit])
  np.testing.assert_allclose(found, expected, rtol=1e-6)
  assert found[2, 0] == unit[2, 0]  # exact in [-1, 1]


def test_other_actions_stay_as_they_are():
  space = gymnasium.spaces.Discrete(3)
  assert base.space_of_agents(space) is space
  action = np.array([2])
  assert base.as_environments_action(space, action) is action


def test_actions_without_bounds_are_refused():
  with pytest.raises(errors.UserError, match=r'no bounds.*TransformAction'):
    base.space_of_agents(gymnasium.spaces.Box(-np.inf, 1, (2,)))
  # What it names works.
  env = gymnasium.make('Pendulum-v1')
  env.unwrapped.action_space = gymnasium.spaces.Box(-np.inf, 1, (1,))
  bounded = gymnasium.spaces.Box(-2, 2, (1,))
  env = gymnasium.wrappers.TransformAction(env, lambda a: a, bounded)
  assert base.space_of_agents(env.action_space).is_bounded()


def test_a_wrong_number_of_actions_or_seeds_raises():
  with make(2) as env:
    with pytest.raises(ValueError, match='1 seeds for 2'):
      env.reset([1])
    env.reset([1, 2])
    with pytest.raises(ValueError, match='3 actions for 2'):
      env.step(np.array([0, 0, 0]))


@pytest.mark.parametrize('seed', [-1, 2**31])
def test_a_seed_that_not_every_environment_takes_raises(seed):
  with make() as env, pytest.raises(ValueError, match='in \\[0, 2\\*\\*31'):
    env.reset([seed])


# Seeds, and time limits, against Gymnasium alone.


def cartpole(seed, num_steps):
  """Observations, rewards and ends of a CartPole pushed left and right."""
  env = gymnasium.make('CartPole-v1')
  rows = [env.reset(seed=seed)[0]]
  ends = []
  for t in range(num_steps):
    observation, _, terminated, truncated, _ = env.step(t // 2 % 2)
    ends.append((terminated, truncated))
    rows.append(env.reset()[0] if terminated or truncated else observation)
  return np.stack(rows), ends


@pytest.mark.parametrize('seeds', [[3], [3, 8], [8, 0, 3]])
def test_an_environment_follows_its_own_seed_whatever_the_others(seeds):
  with make(len(seeds), 'CartPole-v1') as env:
    rows, ends = [env.reset(seeds)], []
    for t in range(120):
      step = env.step(np.full(len(seeds), t // 2 % 2))
      rows.append(step.observation)
      ends.append(np.stack([step.terminated, step.truncated], -1))
  for i, seed in enumerate(seeds):
    expected_rows, expected_ends = cartpole(seed, 120)
    assert any(terminated for terminated, _ in expected_ends)
    np.testing.assert_array_equal(np.stack(rows)[:, i], expected_rows)
    np.testing.assert_array_equal(np.stack(ends)[:, i], expected_ends)


@pytest.mark.parametrize('id', ['CartPole-v1', 'dopamine-jax-test/Leaky-v0'])
def test_a_reset_amid_episodes_is_as_good_as_new(id):
  with make(2, id) as used, make(2, id) as new:
    used.reset([1, 2])
    for _ in range(15):
      used.step(np.array([1, 1]))
    np.testing.assert_array_equal(used.reset([5, 6]), new.reset([5, 6]))
    for t in range(40):
      for a, b in zip(
        used.step(np.array([t % 2, 0])),
        new.step(np.array([t % 2, 0])),
        strict=True,
      ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize('limit', [1, 4])
def test_a_time_limit_truncates_at_its_very_step(limit):
  with make(max_steps_per_episode=limit) as env:
    env.reset([9])
    ends = [env.step(np.array([0])) for _ in range(2 * limit)]
    assert [bool(end.truncated[0]) for end in ends] == (
      2 * ([False] * (limit - 1) + [True])
    )
    assert not any(end.terminated[0] for end in ends)
    assert ends[limit - 1].next_observation[0].tolist() == [9, 0, limit, 0]


def test_a_termination_at_the_time_limit_stays_one():
  with make(max_steps_per_episode=4) as env:
    env.reset([TERMINATES + 4])
    for _ in range(3):
      env.step(np.array([0]))
    assert_equal(
      env.step(np.array([0])),
      terminated=[True],
      truncated=[True],
      next_observation=[[4, 0, 4, 0]],
    )


def test_a_time_limit_replaces_the_environments_own():
  def length(**kwargs):
    with make(id='MountainCar-v0', **kwargs) as env:
      env.reset([0])
      for t in range(1, 1000):
        if env.step(np.array([1])).truncated[0]:
          return t

  assert length() == 200  # that of MountainCar-v0
  assert length(max_steps_per_episode=50) == 50
  assert length(max_steps_per_episode=250) == 250


def test_minatar_needs_no_registration():
  settings = gym.Gym(id='MinAtar/Breakout-v1', max_steps_per_episode=5)
  for _ in range(2):  # registering twice would warn
    with contextlib.closing(settings.make(2, render=True)) as env:
      assert env.reset([0, 1]).shape == (2, 10, 10, 4)
      assert env.observation_space.dtype == np.bool_
      assert env.action_space.n == 3
      assert env.step(np.array([0, 1])).observation.dtype == np.bool_
      image = env.render()
      assert (image.shape, image.dtype) == ((10, 10, 3), np.uint8)
      assert image.max() > 1


def test_an_environment_in_a_users_module_is_imported(tmp_path, monkeypatch):
  (tmp_path / 'their_envs.py').write_text(
    'import gymnasium\n'
    "gymnasium.register('Theirs-v0',"
    " 'gymnasium.envs.classic_control.cartpole:CartPoleEnv')\n"
  )
  monkeypatch.syspath_prepend(tmp_path)
  with make(id='their_envs:Theirs-v0') as env:
    assert env.reset([0]).shape == (1, 4)


# Rendering.


def test_render_shows_the_first_environment():
  with make(2, render=True) as env:
    env.reset([5, 9])
    env.step(np.array([0, 0]))
    env.step(np.array([0, 0]))
    np.testing.assert_array_equal(env.render(), np.full((3, 2, 3), 2))
    env.reset([5, 9])
    np.testing.assert_array_equal(env.render(), np.zeros((3, 2, 3)))


def test_render_without_asking_for_it_raises():
  with make() as env:
    env.reset([0])
    with pytest.raises(RuntimeError, match='render=True'):
      env.render()


@pytest.mark.filterwarnings('ignore:.*render_mode')
def test_an_environment_that_draws_nothing_says_so():
  with pytest.raises(errors.UserError, match="render_modes lack 'rgb_array'"):
    gym.Gym(id='dopamine-jax-test/Undrawable-v0').make(1, render=True)


@pytest.mark.parametrize(
  ('image', 'message'),
  [
    (None, 'RGB image, uint8 .*, and gave None'),
    (np.zeros((3, 2), np.uint8), r'gave uint8 \(3, 2\)'),
    (np.zeros((3, 2, 4), np.uint8), r'gave uint8 \(3, 2, 4\)'),
    (np.zeros((0, 2, 3), np.uint8), r'gave uint8 \(0, 2, 3\)'),
    (np.zeros((3, 2, 3), np.int64), 'gave int64'),
    ([np.zeros((3, 2, 3), np.uint8)], r'gave uint8 \(1, 3, 2, 3\)'),
    (OSError('no display'), 'OSError: no display, raised by .*, line'),
    (SystemExit(0), 'SystemExit: 0, raised by .*, line'),
    (gymnasium.error.DependencyNotInstalled('pygame'), 'Installed: pygame'),
  ],
)
def test_an_image_that_can_not_be_drawn_is_said(image, message):
  id = 'dopamine-jax-test/Drawing-v0'
  with make(id=id, render=True, kwargs={'image': image}) as env:
    env.reset([0])
    with pytest.raises(errors.UserError, match=f'{id} cannot draw.*{message}'):
      border.picture(env)


class Unlike(gymnasium.Env):
  """The second one that is made has other spaces."""

  made = 0

  def __init__(self, quantity):
    sizes = {'observation': 4, 'action': 2}
    Unlike.made += 1
    if Unlike.made % 2 == 0:
      sizes[quantity] += 1
    self.observation_space = gymnasium.spaces.Box(0, 1, (sizes['observation'],))
    self.action_space = gymnasium.spaces.Discrete(sizes['action'])


@pytest.mark.parametrize('quantity', ['observation', 'action'])
def test_environments_of_one_id_whose_spaces_differ_are_refused(quantity):
  id = f'dopamine-jax-test/Unlike-{quantity}-v0'
  gymnasium.register(id, Unlike, disable_env_checker=True)
  Unlike.made = 0
  with pytest.raises(errors.UserError, match=r'environment 2 of 3, and .* in'):
    gym.Gym(id=id, kwargs={'quantity': quantity}).make(3)


def test_an_environment_that_shows_nothing_is_refused():
  space = gymnasium.spaces.Box(0, 1, (0,))
  environments = gym.Gym(
    id='dopamine-jax-test/Spaced-v0', kwargs={'space': space}
  ).make(1)
  with contextlib.closing(environments):
    with pytest.raises(errors.UserError, match='Spaced-v0 shows nothing'):
      border.Border(environments)


# Images whose channels come first.


@pytest.mark.parametrize(
  ('shape', 'dtype', 'high'),
  [
    ((3, 84, 84), np.uint8, 255),
    ((1, 10, 12), np.uint8, 1),
    ((4, 84, 84), np.float32, 1),
    ((12, 64, 96), np.uint8, 255),
    ((9, 64, 64), np.float32, 7),
  ],
)
def test_channels_first_is_told_and_mended_as_the_message_says(
  shape, dtype, high, tmp_path
):
  space = gymnasium.spaces.Box(0, high, shape, dtype)
  id = 'dopamine-jax-test/Spaced-v0'
  with pytest.raises(errors.UserError) as caught:
    gym.Gym(id=id, kwargs={'space': space}).make(1)
  said = str(caught.value)
  assert f'{shape[0]} channels x {shape[1]} x {shape[2]} pixels' in said
  bindings = re.findall(r'gym\.Gym\.channels_first = (?:True|False)', said)
  assert [binding.split()[-1] for binding in bindings] == ['True', 'False']
  expected, _ = Spaced(space).reset(seed=3)
  file = tmp_path / 'run.gin'
  file.write_text(
    'from __gin__ import dynamic_registration\n'
    'from dopamine_jax.environments import gym\n'
  )
  for binding in bindings:
    # As a user gives it to --gin_bindings, or writes it below the imports.
    loaded = config.load([file], [binding])
    settings = loaded.build(gym.Gym, id=id, kwargs={'space': space})
    moves = settings.channels_first
    with contextlib.closing(settings.make(2)) as env:
      frame = np.moveaxis(expected, 0, -1) if moves else expected
      assert env.observation_space.shape == frame.shape
      np.testing.assert_array_equal(env.reset([3, 4])[0], frame)
      step = env.step(np.zeros(2, np.int32))
      assert step.observation.shape == (2, *frame.shape)


@pytest.mark.parametrize(
  ('shape', 'dtype', 'low', 'high'),
  [
    ((84, 84, 3), np.uint8, 0, 255),
    ((10, 10, 4), np.bool_, 0, 1),
    ((3, 7, 3), np.uint8, 0, 255),
    ((3, 8, 8), np.float32, -9, 9),
    ((5, 8, 8), np.uint8, 0, 1),
    ((4, 84), np.uint8, 0, 255),
    ((3, 84, 84), np.float32, -np.inf, np.inf),
  ],
)
def test_what_may_be_anything_is_left_as_it_is(shape, dtype, low, high):
  space = gymnasium.spaces.Box(low, high, shape, dtype)
  id = 'dopamine-jax-test/Spaced-v0'
  with make(id=id, kwargs={'space': space}) as env:
    assert env.observation_space.shape == shape


def test_channels_of_no_images_are_refused():
  with pytest.raises(errors.UserError, match=r'channels_first = True is of im'):
    make(channels_first=True)


# What a user may get wrong.


@pytest.mark.filterwarnings('ignore:.*out of date')
@pytest.mark.parametrize(
  'id, message',
  [
    ('CartPol-v1', r'CartPol-v1.*CartPole-v1'),
    ('CartPole-v7', r'CartPole-v7.*CartPole-v1'),
    ('LunarLander-v2', r'LunarLander-v2.*LunarLander-v3'),
    ('MinAtar/Brekout-v1', r'MinAtar/Breakout-v1'),
    ('zzzzzzzzzz', r'your_module:YourEnv-v0'),
    ('not a name', r'not a name'),
    ('no_such_module:Env-v0', r"No module named 'no_such_module'"),
    ('ALE/Pong-v5', r"environments\.atari.*atari\.Atari\.game = 'Pong'"),
    ('PongNoFrameskip-v4', r'atari\.Atari'),
  ],
)
def test_an_unknown_id_is_answered_with_what_fits(id, message):
  with pytest.raises(errors.UserError, match=message):
    gym.Gym(id=id).make(1)


@pytest.mark.parametrize(
  'id, extra', [('LunarLander-v3', 'box2d'), ('HalfCheetah-v5', 'mujoco')]
)
def test_a_missing_extra_is_named(id, extra, monkeypatch):
  def missing(*args, **kwargs):
    raise gymnasium.error.DependencyNotInstalled('it is not there')

  monkeypatch.setattr(gymnasium, 'make', missing)
  with pytest.raises(errors.UserError, match=re.escape(errors.install(extra))):
    gym.Gym(id=id).make(1)


def test_dm_control_missing_is_said(monkeypatch):
  monkeypatch.setitem(sys.modules, 'shimmy', None)
  with pytest.raises(
    errors.UserError, match=re.escape(errors.install('dm_control'))
  ):
    gym.Gym(id='dm_control/cheetah-run-v0').make(1)


def test_what_is_put_off_is_imported_when_it_is_used(monkeypatch):
  monkeypatch.delitem(sys.modules, 'colorsys', raising=False)
  with gym._put_off('colorsys', 'json'):
    import colorsys
    import json
  assert 'colorsys' not in sys.modules
  assert json is sys.modules['json']  # It was there already.
  assert colorsys.rgb_to_hls(1, 1, 1) == (0, 1, 0)
  with gym._put_off('this'):
    import this  # what is used at once is imported at once

    assert this.c == 97
  assert sys.modules['colorsys'].rgb_to_hls is colorsys.rgb_to_hls


def test_minatar_missing_is_said(monkeypatch):
  ids = [id for id in gymnasium.registry if not id.startswith('MinAtar/')]
  registry = {id: gymnasium.registry[id] for id in ids}
  monkeypatch.setattr(gymnasium, 'registry', registry)
  monkeypatch.setitem(sys.modules, 'minatar', None)
  monkeypatch.setitem(sys.modules, 'minatar.gym', None)
  with pytest.raises(
    errors.UserError, match=re.escape(errors.install('minatar'))
  ):
    gym.Gym(id='MinAtar/Breakout-v1').make(1)


@pytest.mark.parametrize(
  'space',
  [
    gymnasium.spaces.Text(16),
    gymnasium.spaces.Sequence(gymnasium.spaces.Box(0, 1)),
    gymnasium.spaces.Graph(gymnasium.spaces.Discrete(2), None),
  ],
)
def test_observations_without_a_fixed_number_of_numbers_are_named(space):
  settings = gym.Gym(id='dopamine-jax-test/Spaced-v0', kwargs={'space': space})
  with pytest.raises(errors.UserError, match='they take Box') as caught:
    settings.make(1)
  assert str(space) in str(caught.value)


@pytest.mark.parametrize('kind', ['WrongShape', 'WrongType'])
def test_an_environment_that_breaks_its_word_is_caught(kind):
  with make(id=f'dopamine-jax-test/{kind}-v0') as env:
    with pytest.raises(errors.UserError, match='breaks its word'):
      env.reset([0])


def test_arguments_that_an_environment_refuses_are_named():
  with pytest.raises(errors.UserError, match="'gravity': 3"):
    gym.Gym(id='CartPole-v1', kwargs={'gravity': 3}).make(1)


@pytest.mark.parametrize(
  'field',
  [
    {'max_steps_per_episode': 0},
    {'max_steps_per_episode': -5},
    {'max_steps_per_episode': 10.5},
    {'stack': 0},
    {'stack': True},
    {'reward_clip': 0},
    {'reward_clip': -1.0},
    {'kwargs': {'max_episode_steps': 3}},
    {'kwargs': {'render_mode': 'human'}},
  ],
)
def test_settings_that_cannot_work_raise_at_once(field):
  with pytest.raises(errors.UserError, match=f'Gym.{next(iter(field))}'):
    gym.Gym(id='CartPole-v1', **field)


@pytest.mark.parametrize('num_envs', [0, -1, 1.5])
def test_a_number_of_environments_below_one_raises(num_envs):
  with pytest.raises(errors.UserError, match='num_envs'):
    gym.Gym(id='CartPole-v1').make(num_envs)


def test_settings_are_values():
  first = gym.Gym(id='CartPole-v1', kwargs={'sutton_barto_reward': True})
  again = gym.Gym(id='CartPole-v1', kwargs={'sutton_barto_reward': True})
  assert first == again and hash(first) == hash(again)
  assert first != gym.Gym(id='CartPole-v1')
  assert gym.Gym(id='A-v0').kwargs is not gym.Gym(id='A-v0').kwargs
  assert isinstance(first, base.Environment)
