"""Tests of environments.classic against Gymnasium's own environments."""

import functools

import gymnasium
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
import jax
import numpy as np
import pytest

from dopamine_jax.environments import classic

KINDS = (
  classic.CartPole,
  classic.Acrobot,
  classic.MountainCar,
  classic.Pendulum,
)
each = pytest.mark.parametrize('kind', KINDS, ids=lambda kind: kind.__name__)

# States [low, high], well beyond what terminates.
STATES = {
  classic.CartPole: ([-3, -5, -0.4, -5], [3, 5, 0.4, 5]),
  classic.Acrobot: (
    [-np.pi, -np.pi, -4 * np.pi, -9 * np.pi],
    [np.pi, np.pi, 4 * np.pi, 9 * np.pi],
  ),
  classic.MountainCar: ([-1.2, -0.07], [0.6, 0.07]),
  classic.Pendulum: ([-20, -8], [20, 8]),
}


@functools.cache
def peer(kind):
  """Gymnasium's environment, without its time limit."""
  env = gymnasium.make(kind.gymnasium_id).unwrapped
  env.reset()
  return env


@functools.cache
def step_function(kind):
  """Steps [K] states, compiled once."""
  environment = kind()
  return jax.jit(
    jax.vmap(lambda state, action: environment.step(state, action, None))
  )


def step_peer(kind, state, action):
  """Returns state, observation, reward, terminated of Gymnasium's."""
  env = peer(kind)
  env.state = np.array(state, np.float64)
  env.steps_beyond_terminated = None
  observation, reward, terminated, _, _ = env.step(action)
  return np.array(env.state, np.float64), observation, reward, terminated


def margin(kind, state):
  """How far a state of Gymnasium's is from where an answer jumps."""
  if kind is classic.CartPole:
    return min(abs(2.4 - abs(state[0])), abs(np.radians(12) - abs(state[2])))
  if kind is classic.Acrobot:
    return abs(-np.cos(state[0]) - np.cos(state[0] + state[1]) - 1)
  if kind is classic.MountainCar:
    wall = state[0] + 1.2
    return min(abs(state[0] - 0.5), wall if wall else np.inf)
  return np.inf


@each
@given(data=st.data())
def test_a_step_equals_gymnasiums(kind, data):
  low, high = (np.array(bound) for bound in STATES[kind])
  floats = st.floats(-1, 1, width=32)
  unit = data.draw(hnp.arrays(np.float32, (8, len(low)), elements=floats))
  states = ((low + high) / 2 + (high - low) / 2 * unit).astype(np.float32)
  if kind is classic.Pendulum:
    actions = 3 * data.draw(hnp.arrays(np.float32, (8, 1), elements=floats))
  else:
    choices = st.integers(0, int(peer(kind).action_space.n) - 1)
    actions = data.draw(hnp.arrays(np.int32, 8, elements=choices))
  # Gymnasium sees the very same float32 numbers. Its four stages of Runge and
  # Kutta enlarge the rounding of Acrobot, at full speed to 1e-3 of 28 rad/s.
  outcome = jax.tree.map(np.asarray, step_function(kind)(states, actions))
  for i, (state, action) in enumerate(zip(states, actions, strict=True)):
    after, observation, reward, terminated = step_peer(kind, state, action)
    if margin(kind, after) < 1e-5:
      continue
    atol = 5e-3 if kind is classic.Acrobot else 1e-5
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=atol)
    close(outcome.observation[i], observation)
    close(outcome.reward[i], reward)
    assert outcome.terminated[i] == terminated
    if kind is classic.Acrobot:  # an angle of pi is one of -pi
      close(np.exp(1j * outcome.state[i, :2]), np.exp(1j * after[:2]))
      close(outcome.state[i, 2:], after[2:])
    else:
      close(outcome.state[i], after)


@each
def test_the_spaces_the_time_limit_and_the_speed_of_films_are_gymnasiums(kind):
  environment = kind()
  assert environment.observation_space == peer(kind).observation_space
  assert environment.action_space == peer(kind).action_space
  spec = gymnasium.spec(kind.gymnasium_id)
  assert environment.max_steps_per_episode == spec.max_episode_steps
  assert environment.frames_per_second == peer(kind).metadata['render_fps']


@each
def test_first_states_are_distributed_as_gymnasiums(kind):
  keys = jax.random.split(jax.random.key(0), 2_000)
  states, observations = jax.jit(jax.vmap(kind().reset))(keys)
  states, observations = jax.device_get((states, observations))
  env = peer(kind)
  env.reset(seed=0)
  expected = []
  for _ in range(2_000):
    env.reset()
    expected.append(np.array(env.state, np.float64))
  expected = np.array(expected)
  assert states.shape == expected.shape
  span = np.ptp(expected, axis=0)
  np.testing.assert_allclose(np.ptp(states, axis=0), span, rtol=0.01)
  # The quantiles of 2,000 uniform draws vary by up to 1.1% of the span.
  quantiles = np.quantile(states, np.linspace(0, 1, 21), axis=0)
  wanted = np.quantile(expected, np.linspace(0, 1, 21), axis=0)
  assert (np.abs(quantiles - wanted) <= 0.05 * span[None]).all()
  varying = states[:, span > 0].T
  correlations = np.corrcoef(varying) - np.eye(len(varying))
  assert np.abs(correlations).max() < 0.06
  # And they are seen as Gymnasium would show them.
  for state, observation in zip(states[:20], observations, strict=False):
    shown = np.asarray(state, np.float32)
    if kind in (classic.Acrobot, classic.Pendulum):
      env.state = np.asarray(state, np.float64)
      shown = env._get_ob() if kind is classic.Acrobot else env._get_obs()
    np.testing.assert_allclose(observation, shown, atol=1e-6)


@each
def test_whole_episodes_last_as_long_as_gymnasiums(kind):
  environment = kind()
  vector = environment.make(4)
  vector.reset([0, 1, 2, 3])
  states = np.asarray(vector._lanes.state)
  rng = np.random.default_rng(0)
  size = (environment.max_steps_per_episode, 4)
  if kind is classic.Pendulum:
    actions = rng.uniform(-2, 2, (*size, 1)).astype(np.float32)
    given = actions / 2  # an agent's are in [-1, 1]
  else:
    actions = given = rng.integers(environment.action_space.n, size=size)
  returns, lengths = np.zeros(4), np.zeros(4, int)
  alive = np.ones(4, bool)
  for row in given:
    step = vector.step(row)
    returns += step.reward * alive
    lengths += alive
    alive &= ~(step.terminated | step.truncated)
  assert not alive.any()
  env = gymnasium.make(kind.gymnasium_id)
  for i, state in enumerate(states):
    env.reset()
    env.unwrapped.state = np.array(state, np.float64)
    total, ended = 0.0, False
    length = 0
    while not ended:
      _, reward, terminated, truncated, _ = env.step(actions[length, i])
      total += reward
      length += 1
      ended = terminated or truncated
    assert lengths[i] == length
    np.testing.assert_allclose(returns[i], total, rtol=1e-3)


def test_a_time_limit_of_a_users_own_replaces_gymnasiums():
  def length(limit):
    vector = classic.MountainCar(max_steps_per_episode=limit).make(1)
    vector.reset([0])
    for t in range(1, 302):
      if vector.step(np.array([1])).truncated[0]:
        return t

  assert length(50) == 50
  assert length(300) == 300
  assert length(None) is None


@each
def test_an_image_is_gymnasiums_of_the_same_state(kind):
  vector = kind().make(2, render=True)
  vector.reset([3, 4])
  action = {classic.Pendulum: np.full((2, 1), 2.0)}.get(kind, np.array([1, 0]))
  images = []
  for _ in range(3):
    for _ in range(4):
      vector.step(action)
    image = vector.render()
    env = gymnasium.make(kind.gymnasium_id, render_mode='rgb_array')
    env.reset()
    env.unwrapped.state = np.asarray(vector._lanes.state)[0]
    np.testing.assert_array_equal(image, env.render())
    images.append(image)
  assert image.dtype == np.uint8
  assert (images[0] != images[2]).any()
