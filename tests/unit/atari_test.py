"""Tests of environments.atari, against a console that is stepped by hand.

`Console` is the protocol written out on ALE's plain interface, frame by frame
at the console's own resolution, so that its screens must be equal to the bit.
"""

import contextlib
import re
import sys

import ale_py
import gymnasium
import numpy as np
import pytest

from dopamine_jax import errors
from dopamine_jax.environments import atari

NATIVE = (210, 160)


class Console:
  """One Atari game, with the seed of the environment it is held against."""

  def __init__(self, game, seed, max_steps=None, sticky=0.25, skip=4):
    self.ale = ale_py.ALEInterface()
    self.ale.setFloat('repeat_action_probability', sticky)
    self.ale.setInt('random_seed', seed)
    self.ale.loadROM(ale_py.roms.get_rom_path(game))
    self.actions = self.ale.getMinimalActionSet()
    self.max_steps = max_steps
    self.skip = skip

  def reset(self):
    self.ale.reset_game()
    self.steps = 0
    self.earlier = np.zeros(NATIVE, np.uint8)
    self.screen = self.ale.getScreenGrayscale()
    return self.screen

  def step(self, action):
    """Returns observation, reward, game over, out of time, lives lost."""
    reward, lives = 0, self.ale.lives()
    for frame in range(self.skip):
      reward += self.ale.act(self.actions[action])
      if self.ale.game_over():
        break
      if frame == self.skip - 2:
        self.earlier = self.ale.getScreenGrayscale()
      elif frame == self.skip - 1:
        self.screen = self.ale.getScreenGrayscale()
    self.screen = np.maximum(self.screen, self.earlier)
    self.steps += 1
    return (
      self.screen,
      reward,
      self.ale.game_over(),
      self.steps == self.max_steps,
      self.ale.lives() < lives,
    )


def make(num_envs=1, render=False, **settings):
  vector = atari.Atari(**settings).make(num_envs, render)
  return contextlib.closing(vector)


def random_actions(env, num_steps, seed=0):
  shape = (num_steps, env.num_envs)
  rng = np.random.default_rng(seed)
  return rng.integers(0, env.action_space.n, shape, np.int32)


def assert_same(one, other):
  for name, a, b in zip(one._fields, one, other, strict=True):
    np.testing.assert_array_equal(a, b, err_msg=name)


# What the games do.


def test_the_default_is_dopamines_protocol():
  assert vars(atari.Atari()) == {
    'game': 'Pong',
    'sticky_actions': 0.25,
    'noop_max': 0,
    'fire_reset': False,
    'terminate_on_life_loss': False,
    'forget_on_life_loss': False,
    'full_action_set': False,
    'continuous': False,
    'continuous_threshold': 0.5,
    'frame_skip': 4,
    'max_pool': True,
    'grayscale': True,
    'size': 84,
    'stack': 4,
    'max_steps_per_episode': 27_000,
    'reward_clip': 1.0,
    'num_threads': 0,
  }


def test_time_steps_are_those_of_a_console_stepped_by_hand():
  seeds = [1, 0, 5]
  limit = 180
  seen = {'game over': 0, 'time': 0, 'life': 0}
  settings = dict(game='Breakout', size=NATIVE, max_steps_per_episode=limit)
  with (
    make(3, **settings) as games,
    make(3, **settings, terminate_on_life_loss=True) as lives,
  ):
    consoles = [Console('breakout', seed, limit) for seed in seeds]
    for *firsts, console in zip(
      games.reset(seeds), lives.reset(seeds), consoles, strict=True
    ):
      begun = console.reset()
      for first in firsts:
        np.testing.assert_array_equal(first, begun)
    for actions in random_actions(games, 500, seed=2):
      both = games.step(actions), lives.step(actions)
      for i, console in enumerate(consoles):
        final, reward, over, cut, life = console.step(actions[i])
        begun = console.reset() if over or cut else final
        for time_step, ended in zip(both, (over, over or life), strict=True):
          assert time_step.terminated[i] == ended
          assert time_step.truncated[i] == cut
          assert time_step.reward[i] == reward
          np.testing.assert_array_equal(time_step.next_observation[i], final)
          np.testing.assert_array_equal(time_step.observation[i], begun)
        seen['game over'] += over
        seen['time'] += cut and not over
        seen['life'] += life and not over
  assert all(seen.values()), seen


def test_rewards_are_raw_and_the_actions_are_the_minimal_ones():
  with make(game='SpaceInvaders', size=NATIVE) as env:
    console = Console('space_invaders', 4)
    console.reset()
    env.reset([4])
    rewards = []
    for actions in random_actions(env, 120):
      rewards.append(float(env.step(actions).reward[0]))
      assert rewards[-1] == console.step(actions[0])[1]
    assert env.action_space.n == 6
    assert max(rewards) > 1


def area(image, height, width):
  """Resizes by the mean over the area that a pixel of the result covers."""

  def weights(old, new):
    edges = np.arange(new + 1) * old / new
    left = np.maximum(edges[:-1, None], np.arange(old))
    right = np.minimum(edges[1:, None], np.arange(old) + 1)
    return np.maximum(right - left, 0) * new / old

  old_height, old_width = image.shape
  return weights(old_height, height) @ image @ weights(old_width, width).T


@pytest.mark.parametrize('size', [84, (60, 80)])
def test_frames_are_resized_by_area(size):
  height, width = (84, 84) if size == 84 else size
  with make(size=size) as small, make(size=NATIVE) as large:
    assert small.observation_space.shape == (height, width)
    pairs = [(small.reset([3]), large.reset([3]))]
    for actions in random_actions(small, 40):
      pairs.append(
        (small.step(actions).observation, large.step(actions).observation)
      )
    for a, b in pairs:
      assert a.shape == (1, height, width) and a.dtype == np.uint8
      assert np.abs(a[0] - area(b[0], height, width)).max() <= 1


@pytest.mark.parametrize('skip, limit', [(4, 1), (4, 7), (3, 7)])
def test_the_time_limit_counts_agent_steps(skip, limit):
  with (
    make(1, frame_skip=skip, max_steps_per_episode=limit) as env,
    make(1, frame_skip=skip, max_steps_per_episode=None) as free,
  ):
    first = env.reset([1])
    free.reset([1])
    for t, actions in enumerate(random_actions(env, limit), 1):
      time_step, unlimited = env.step(actions), free.step(actions)
      assert time_step.truncated.tolist() == [t == limit]
      assert not time_step.terminated.any() and not unlimited.truncated.any()
      # The true last frame: a truncated episode is bootstrapped from it.
      np.testing.assert_array_equal(
        time_step.next_observation, unlimited.next_observation
      )
    np.testing.assert_array_equal(time_step.observation, first)
    again = [env.step(actions).truncated[0] for _ in range(limit)]
    assert again == [False] * (limit - 1) + [True]


def test_a_life_lost_ends_an_episode_and_not_the_game():
  with (
    make(game='Breakout', terminate_on_life_loss=True) as lives,
    make(game='Breakout') as games,
  ):
    np.testing.assert_array_equal(lives.reset([1]), games.reset([1]))
    ends = []
    for actions in random_actions(lives, 700):
      life, game = lives.step(actions), games.step(actions)
      assert_same(life._replace(terminated=game.terminated), game)
      assert life.terminated[0] or not game.terminated[0]
      if life.terminated[0]:
        ends.append(bool(game.terminated[0]))
      if life.terminated[0] and not game.terminated[0]:
        np.testing.assert_array_equal(life.observation, life.next_observation)
  # Five lives a game; the fifth ends the game itself.
  assert ends[:10] == 2 * [False, False, False, False, True]


def test_other_settings_reach_the_console():
  with make(full_action_set=True) as env:
    assert env.action_space.n == 18
  with make(grayscale=False) as env:
    assert env.observation_space.shape == (84, 84, 3)
    assert env.reset([0]).shape == (1, 84, 84, 3)
  with make(game='Breakout', fire_reset=True, max_pool=False) as fired:
    with make(game='Breakout', max_pool=False) as plain:
      assert (fired.reset([0]) != plain.reset([0])).any()
  with make(2, game='Freeway', noop_max=30) as late:
    assert len(np.unique(late.reset(range(2)), axis=0)) > 1
  with make(2, game='Freeway') as prompt:
    assert len(np.unique(prompt.reset(range(2)), axis=0)) == 1


# Directions of the joystick as ALE's vector environment reads them, the second
# number of an action in halves of a turn.
PUSHES = [
  ((-1.0, 0.3, -1.0), 'NOOP'),  # in the middle, whatever the direction
  ((-1.0, 0.0, 1.0), 'FIRE'),
  ((1.0, 0.0, -1.0), 'RIGHT'),
  ((1.0, 1.0, -1.0), 'LEFT'),
  ((1.0, 0.5, -1.0), 'UP'),
  ((1.0, -0.5, -1.0), 'DOWN'),
  ((1.0, 0.25, -1.0), 'UPRIGHT'),
  ((1.0, -0.75, 1.0), 'DOWNLEFTFIRE'),
  ((-0.2, 0.0, -1.0), 'NOOP'),  # 0.4 of the way, below 0.5
  ((0.2, 0.0, 0.2), 'RIGHTFIRE'),  # 0.6 of the way
]


def test_a_joysticks_push_is_the_action_of_that_name():
  import ale_py

  names = list(ale_py.Action.__members__)  # the numbers of the full set
  settings = {'game': 'Boxing', 'sticky_actions': 0.0, 'noop_max': 0}
  with (
    make(continuous=True, **settings) as sticks,
    make(full_action_set=True, **settings) as buttons,
  ):
    assert sticks.action_space == gymnasium.spaces.Box(-1, 1, (3,))
    assert sticks.action_names is None
    for env in (sticks, buttons):
      env.reset([0])
    rng, seen = np.random.default_rng(0), set()
    for _ in range(120):
      push, name = PUSHES[rng.integers(len(PUSHES))]
      step = sticks.step(np.float32([push]))
      expected = buttons.step(np.array([names.index(name)]))
      np.testing.assert_array_equal(step.observation, expected.observation)
      np.testing.assert_array_equal(step.reward, expected.reward)
      seen.add(step.observation.tobytes())
  assert len(seen) > 60
  with pytest.raises(errors.UserError, match='no meaning if continuous'):
    atari.Atari(continuous=True, full_action_set=True)


def test_a_console_without_sticky_actions_follows_every_action():
  with make(size=NATIVE, sticky_actions=0.0) as env:
    console = Console('pong', 8, sticky=0.0)
    env.reset([9])  # without sticky actions no seed matters
    console.reset()
    for actions in random_actions(env, 60):
      np.testing.assert_array_equal(
        env.step(actions).observation[0], console.step(actions[0])[0]
      )


# Seeds, memory, threads.


def roll(env, seeds, actions):
  """Frames [T + 1, N, ...] of the environments under [T, N] actions."""
  return np.stack(
    [env.reset(seeds), *(env.step(action).observation for action in actions)]
  )


def test_a_game_follows_its_own_seed_whatever_the_others():
  seeds = [7, 0, 2**31 - 1]
  together = []
  for threads in (1, 2):
    with make(3, num_threads=threads) as env:
      actions = random_actions(env, 80)
      together.append(roll(env, seeds, actions))
  np.testing.assert_array_equal(*together)
  with make() as env:  # whose seeded resets are as good as new, see below
    for i, seed in enumerate(seeds):
      alone = roll(env, [seed], actions[:, i : i + 1])
      np.testing.assert_array_equal(together[0][:, i], alone[:, 0])
    # And another seed gives another game.
    assert (roll(env, [8], actions[:, :1])[:, 0] != together[0][:, 0]).any()


def test_a_reset_amid_episodes_is_as_good_as_new():
  with make(2, game='Breakout', max_steps_per_episode=90) as env:
    actions = random_actions(env, 130)
    new = roll(env, [3, 4], actions)
    used = roll(env, [3, 4], actions)
    np.testing.assert_array_equal(new, used)
    for action in actions[:50]:
      env.step(action)
    env.reset([3, 4])
    ends = [env.step(action).truncated.all() for action in actions[:90]]
    assert ends == [False] * 89 + [True]  # the time limit starts anew too


def test_arrays_are_not_written_to_after_they_were_returned():
  with make(2, game='Breakout', max_steps_per_episode=12) as env:
    kept = [env.reset([1, 2])]
    actions = random_actions(env, 60)
    for action in actions[:30]:
      kept += env.step(action)
    copies = [array.copy() for array in kept]
    for action in actions[30:]:
      env.step(action)
    env.reset([3, 4])
  for array, copy in zip(kept, copies, strict=True):
    np.testing.assert_array_equal(array, copy)


def test_the_types_are_those_of_the_contract():
  with make(2) as env:
    observation = env.reset([1, 2])
    assert env.num_envs == 2
    assert isinstance(env.action_space, gymnasium.spaces.Discrete)
    assert env.observation_space.shape == (84, 84)
    assert env.observation_space.contains(observation[0])
    time_step = env.step(np.zeros(2, np.int32))
    assert [(x.dtype, x.shape) for x in time_step] == [
      (np.uint8, (2, 84, 84)),
      (np.float32, (2,)),
      (np.bool_, (2,)),
      (np.bool_, (2,)),
      (np.uint8, (2, 84, 84)),
    ]


# Rendering.


@pytest.mark.parametrize('limit', [25, None])
def test_render_shows_what_the_first_game_shows(limit):
  settings = dict(game='Breakout', max_steps_per_episode=limit)
  num_steps = 60 if limit else 300
  with (
    make(2, render=True, **settings) as drawn,
    make(2, **settings) as plain,
    make(1, grayscale=False, size=NATIVE, **settings) as colour,
  ):
    seeds = [5, 6]
    np.testing.assert_array_equal(drawn.reset(seeds), plain.reset(seeds))
    images = [(drawn.render(), colour.reset(seeds[:1])[0])]
    ended = 0
    for actions in random_actions(drawn, num_steps):
      time_step = drawn.step(actions)
      assert_same(time_step, plain.step(actions))
      image = drawn.render()
      images.append((image, colour.step(actions[:1]).observation[0]))
      ended += time_step.terminated[0] or time_step.truncated[0]
    assert ended
    for image, expected in images:
      assert image.shape == (210, 160, 3) and image.dtype == np.uint8
      np.testing.assert_array_equal(image, expected)


def test_render_without_asking_for_it_raises():
  with make() as env:
    env.reset([0])
    with pytest.raises(RuntimeError, match='render=True'):
      env.render()


# What a user may get wrong.


@pytest.mark.parametrize(
  'name, actions',
  [
    ('MontezumaRevenge', 18),
    ('montezuma_revenge', 18),
    ('Freeway', 3),
    ('breakout', 4),
  ],
)
def test_a_game_may_be_named_in_either_way(name, actions):
  with make(game=name) as env:
    assert env.action_space.n == actions


@pytest.mark.parametrize(
  'name, message',
  [
    ('Breakot', 'Did you mean Breakout'),
    ('MontezumasRevenge', 'Did you mean MontezumaRevenge'),
    ('zzzz', "'Pong' or 'MontezumaRevenge'"),
    ('Combat', 'no such game'),  # for two players; ALE ends the process
  ],
)
def test_an_unknown_game_is_answered_with_what_fits(name, message):
  with pytest.raises(errors.UserError, match=message):
    atari.Atari(game=name).make(1)


def test_ale_missing_is_said(monkeypatch):
  monkeypatch.setitem(sys.modules, 'ale_py', None)
  with pytest.raises(
    errors.UserError, match=re.escape(errors.install('atari'))
  ):
    atari.Atari().make(1)


def test_an_action_that_a_game_lacks_raises_and_does_not_hang():
  with make(2) as env:
    env.reset([0, 1])
    for action in (-1, 6):
      with pytest.raises(errors.UserError, match='outside'):
        env.step(np.array([0, action]))


@pytest.mark.parametrize(
  'field',
  [
    {'sticky_actions': 1.5},
    {'noop_max': -1},
    {'frame_skip': 0},
    {'num_threads': -1},
    {'size': 0},
    {'size': (84, 84, 1)},
    {'size': 84.0},
    {'stack': 0},
    {'max_steps_per_episode': 0},
  ],
)
def test_settings_that_cannot_work_raise_at_once(field):
  with pytest.raises(errors.UserError, match=f'Atari.{next(iter(field))}'):
    atari.Atari(**field)


@pytest.mark.parametrize('seed', [-1, 2**31])
def test_a_seed_that_ale_would_not_honour_raises(seed):
  with make() as env, pytest.raises(ValueError, match='in \\[0, 2\\*\\*31'):
    env.reset([seed])


def test_a_number_of_environments_below_one_raises():
  with pytest.raises(errors.UserError, match='num_envs'):
    atari.Atari().make(0)
