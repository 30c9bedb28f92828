"""Tests of environments.gymnax against gymnax's own step.

Where the extra is missing, only what is said then is tested.
"""

import importlib.metadata
import re
import sys

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dopamine_jax import errors
from dopamine_jax.environments import gymnax
from dopamine_jax.environments import native


@pytest.fixture
def peer():
  """Returns gymnax; its code relies on implicit rank promotion."""
  with jax.numpy_rank_promotion('allow'):
    yield pytest.importorskip('gymnax')


IDS = ['Breakout-MinAtar', 'Catch-bsuite', 'CartPole-v1', 'Pendulum-v1']


@pytest.mark.parametrize('id', IDS)
def test_steps_equal_those_of_gymnax(id, peer):
  environment = gymnax.Gymnax(id=id)
  their, params = peer.make(id)
  vector = environment.make(1)
  observation = vector.reset([3])[0]
  rng = np.random.default_rng(0)
  ends = 0
  for _ in range(60):
    lane = jax.tree.map(lambda leaf: leaf[0], vector._lanes)
    if isinstance(environment.action_space, gymnasium.spaces.Discrete):
      action = given = rng.integers(environment.action_space.n)
    else:
      given = rng.uniform(-1, 1, 1).astype(np.float32)
      action = 2 * given
    # These four draw nothing in a step, so that the keys need not be the same.
    _, _, reward, terminated, truncated, info = their.step(
      jax.random.key(9), lane.state, action, params
    )
    step = vector.step(np.asarray(given)[None])
    np.testing.assert_allclose(
      step.next_observation[0], info['final_observation'], 1e-5, 1e-6
    )
    np.testing.assert_allclose(step.reward[0], reward, rtol=1e-5)
    assert (step.terminated[0], step.truncated[0]) == (terminated, truncated)
    ended = terminated or truncated
    ends += ended
    if ended:
      assert (step.observation != step.next_observation).any()
    assert environment.observation_space.contains(step.observation[0])
  assert observation.shape == environment.observation_space.shape
  assert ends or id == 'Pendulum-v1'


def test_first_states_are_those_of_gymnax(peer):
  their, params = peer.make('Breakout-MinAtar')
  environment = gymnax.Gymnax(id='Breakout-MinAtar')
  for seed in range(4):
    key = jax.random.key(seed)
    expected, state = their.reset(key, params)
    given, observation = environment.reset(key)
    np.testing.assert_array_equal(observation, expected)
    jax.tree.map(np.testing.assert_array_equal, given, state)


def test_a_time_limit_truncates_and_another_one_replaces_it(peer):
  def length(**settings):
    vector = gymnax.Gymnax(id='Pendulum-v1', **settings).make(1)
    vector.reset([0])
    for t in range(1, 400):
      step = vector.step(np.zeros((1, 1), np.float32))
      assert not step.terminated[0]
      if step.truncated[0]:
        return t

  assert length() == 200
  assert length(max_steps_per_episode=50) == 50
  assert length(max_steps_per_episode=250) == 250


def test_spaces_become_gymnasiums(peer):
  breakout = gymnax.Gymnax(id='Breakout-MinAtar')
  box, discrete = gymnasium.spaces.Box, gymnasium.spaces.Discrete
  assert breakout.observation_space == box(0, 1, (10, 10, 4))
  assert breakout.action_space == discrete(3)
  pendulum = gymnax.Gymnax(id='Pendulum-v1')
  high = np.array([1, 1, 8], np.float32)
  assert pendulum.observation_space == box(-high, high)
  assert pendulum.action_space == box(-2, 2, (1,))
  # gymnax says int32 of it, and gives float32.
  assert gymnax.Gymnax(id='Catch-bsuite').observation_space == (
    box(0, 1, (10, 5))
  )


def test_arguments_reach_the_environment(peer):
  sea = gymnax.Gymnax(id='DeepSea-bsuite', kwargs={'size': 5})
  assert sea.observation_space.shape == (5, 5)
  with pytest.raises(errors.UserError, match=r"kwargs = \{'depth': 5\}"):
    gymnax.Gymnax(id='DeepSea-bsuite', kwargs={'depth': 5}).make(1)


def test_settings_are_values(peer):
  first, again = (gymnax.Gymnax(id='Catch-bsuite') for _ in range(2))
  first.make(1)
  assert first == again and hash(first) == hash(again)
  limited = first.replace(max_steps_per_episode=2)
  vector = limited.make(1)
  vector.reset([0])
  ends = [vector.step(np.array([0])).truncated[0] for _ in range(4)]
  assert ends == [False, True, False, True]


def test_an_engine_could_step_them(peer):
  environment = gymnax.Gymnax(id='SpaceInvaders-MinAtar')

  def body(lane, action):
    lane, step = native.advance(environment, lane, action)
    return lane, step.reward

  lane, _ = native.begin(environment, 0)
  lane, rewards = jax.jit(
    lambda lane: jax.lax.scan(body, lane, np.arange(50) % 4)
  )(lane)
  assert lane.count == 51
  assert rewards.shape == (50,)


def test_observations_that_are_no_box_are_named(peer):
  with pytest.raises(errors.UserError, match=r'FrozenLake-misc.*Discrete\(16'):
    gymnax.Gymnax(id='FrozenLake-misc').make(1)


def test_an_unknown_id_is_answered_with_what_fits(peer):
  with pytest.raises(errors.UserError, match='Did you mean Breakout-MinAtar'):
    gymnax.Gymnax(id='Brekout-MinAtar').make(1)
  with pytest.raises(errors.UserError, match='CartPole-v1 or Pendulum-v1'):
    gymnax.Gymnax(id='zzzzzzz').make(1)


def test_gymnax_missing_is_said(monkeypatch):
  monkeypatch.setitem(sys.modules, 'gymnax', None)
  with pytest.raises(
    errors.UserError, match=re.escape(errors.install('gymnax'))
  ):
    gymnax.Gymnax(id='Breakout-MinAtar').make(1)


def test_an_old_gymnax_is_refused(monkeypatch):
  monkeypatch.setattr(importlib.metadata, 'version', lambda name: '0.0.9')
  with pytest.raises(
    errors.UserError, match=r'gymnax 0\.0\.9.*1\.0\.1.*pip install .*\[gymnax\]'
  ):
    gymnax.Gymnax(id='Breakout-MinAtar').make(1)


def test_a_sticky_action_is_the_last_one_and_never_before_the_first(peer):
  del peer
  sticky = gymnax.Gymnax(id='Breakout-MinAtar', sticky_actions=0.25)
  environment = sticky._made[0]
  taken, keys = [], []

  class Spy:
    """Says what was really done."""

    def __getattr__(self, name):
      return getattr(environment, name)

    def step_env(self, key, state, action, params):
      taken.append(action)
      keys.append(key)
      return environment.step_env(key, state, action, params)

  params = sticky._made[1]
  object.__setattr__(sticky, '_made', (Spy(), params))

  @jax.jit
  def play(key):
    state, _ = sticky.reset(key)
    done = []
    for i in range(12):
      outcome = sticky.step(state, jnp.int32(i % 3), jax.random.fold_in(key, i))
      state = outcome.state
      done.append(taken[-1])
    return jnp.stack(done)

  done = np.stack([play(jax.random.key(i)) for i in range(60)])
  given = np.arange(12) % 3
  assert (done[:, 0] == given[0]).all()
  stuck = done[:, 1:] != given[None, 1:]
  # What was done in place of the action is what was done before.
  np.testing.assert_array_equal(done[:, 1:][stuck], done[:, :-1][stuck])
  assert 0.18 < stuck.mean() < 0.32  # of 660
  # The game draws from other keys than the coin, whatever it splits.
  key = jax.random.key(5)
  state, _ = sticky.reset(key)
  sticky.step(state, jnp.int32(0), key)
  assert keys[-1] != key
  assert keys[-1] == jax.random.split(key)[0]
  with pytest.raises(errors.UserError, match='sticky_actions = 2'):
    gymnax.Gymnax(id='Breakout-MinAtar', sticky_actions=2.0)
