"""Tests of environments.answers: what environments must not say at a step."""

import contextlib
import functools
import math
import shutil
import sys

import gymnasium
from gymnasium.spaces import Box
import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dopamine_jax import errors
from dopamine_jax import networks
from dopamine_jax import runner as runner_lib
from dopamine_jax import values
from dopamine_jax.agents import dqn
from dopamine_jax.agents import sac
from dopamine_jax.engines import compiled
from dopamine_jax.engines import python_engine
from dopamine_jax.environments import answers
from dopamine_jax.environments import base
from dopamine_jax.environments import border
from dopamine_jax.environments import gym
from dopamine_jax.environments import native
from dopamine_jax.learning import actor_critic
from dopamine_jax.replay import uniform
from dopamine_jax.training import fingerprint
from tests import programs

FLOATS = Box(-1, 1, (3,), np.float32)
BYTES = Box(0, 255, (3,), np.uint8)
LONGS = Box(-(2**60), 2**60, (3,), np.int64)
BIG = np.finfo(np.float32).max
GOOD = np.zeros(3, np.float32)


class Answering(gymnasium.Env):
  """Gives what it is told, from its second step on."""

  action_space = gymnasium.spaces.Discrete(2)

  def __init__(self, space=FLOATS, render_mode=None, **told):
    self.observation_space, self.told, self.steps = space, told, 0

  def reset(self, *, seed=None, options=None):
    if 'reset' in self.told:
      return self.told['reset']
    return np.zeros(
      self.observation_space.shape, self.observation_space.dtype
    ), {}

  def step(self, action):
    self.steps += 1
    told = self.told if self.steps > 1 else {}
    if 'answer' in told:
      return told['answer']
    if 'error' in told:
      raise told['error']
    observation, _ = Answering.reset(self)
    observation = told.get('observation', observation)
    reward = told.get('reward', 1.0)
    ends = told.get('terminated', False), told.get('truncated', False)
    return observation, reward, *ends, {}


@pytest.fixture(scope='module', autouse=True)
def registered():
  before = dict(gymnasium.registry)
  gymnasium.register('Answers/Plain-v0', Answering)
  gymnasium.register('Answers/Limited-v0', Answering, max_episode_steps=9)
  gymnasium.register('Answers/Failing-v0', Failing)
  yield
  gymnasium.registry.clear()
  gymnasium.registry.update(before)


def second_step(num_envs=2, id='Answers/Plain-v0', **told):
  """Returns what the border lets pass of a second step."""
  settings = gym.Gym(id=id, kwargs=told)
  with contextlib.closing(settings.make(num_envs)) as environments:
    watched = border.Border(environments)
    watched.reset(range(num_envs))
    actions = np.zeros(num_envs, np.int32)
    watched.step(actions)
    return watched.step(actions)


@pytest.mark.parametrize(
  ('space', 'observation', 'message'),
  [
    (FLOATS, np.ones(1, np.float32), r'float32 \(3,\), and step gave .*\(1,\)'),
    (FLOATS, np.ones((3, 1), np.float32), r'gave float32 \(3, 1\)'),
    (FLOATS, np.float32(2), r'gave .*2\.0'),
    (FLOATS, {'position': 1}, r"gave \{'position': 1\} \(dict\)"),
    (FLOATS, [[1.0], [2.0, 3.0]], r'gave \[\[1.0\], \[2.0, 3.0\]\] \(list\)'),
    (FLOATS, np.array(['a', 'b', 'c']), 'gave <U1'),
    (FLOATS, np.ones(3, complex), 'gave complex128'),
    (FLOATS, None, 'gave None'),
    (FLOATS, np.array([0, np.nan, 0]), 'observation is not finite'),
    (FLOATS, np.float32([0, 0, np.inf]), 'observation is not finite'),
    (FLOATS, np.array([0, -1e300, 0]), r'float32, whose .* step gave 1e\+300'),
    (Box(-1, 1, (3,), np.float64), np.array([0, 1e39, 0]), r'gave 1e\+39'),
    (Box(-1, 1, (3,), np.float16), np.float32([7e4, 0, 0]), 'float16, whose'),
    (BYTES, np.array([300.7, -5, 12]), r'uint8 \(3,\), and step gave float64'),
    (BYTES, np.array([300, -5, 12]), 'step gave int64'),
    (BYTES, np.uint16([300, 5, 12]), 'holds 0 to 255, and step gave 300'),
    (Box(-9, 9, (3,), np.int8), np.array([0, 0, -129]), 'gave -129'),
    (LONGS, np.array([0, 2**31, 0]), 'int32.*gave 2147483648'),
    (Box(0, 2**60, (3,), np.uint64), np.uint64([2**32] * 3), 'gave 4294967296'),
    (Box(0, 1, (3,), np.bool_), np.array([0, 1, 2]), r'bool \(3,\)'),
  ],
)  # fmt: skip
def test_an_observation_that_would_be_changed_in_storing_is_refused(
  space, observation, message
):
  with pytest.raises(errors.UserError, match=message) as caught:
    second_step(space=space, observation=observation)
  where = 'environment 1 of 2, step 2 since the seeded reset'
  assert f'Answers/Plain-v0 breaks its word ({where})' in str(caught.value)


@pytest.mark.parametrize(
  ('quantity', 'given', 'message'),
  [
    ('reward', None, r'reward must be one finite number .* gave None'),
    ('reward', float('nan'), r'gave nan \(float\)'),
    ('reward', -np.inf, 'gave -inf'),
    ('reward', np.float32('nan'), 'reward must be'),
    ('reward', 1e300, r'gave 1e\+300'),
    ('reward', '1', "gave '1'"),
    ('reward', 1j, 'gave 1j'),
    ('reward', np.ones(2), r'gave float64 \(2,\)'),
    ('reward', [], r'gave \[\]'),
    ('terminated', None, 'terminated must be True or False, .* gave None'),
    ('terminated', float('nan'), 'gave nan'),
    ('terminated', np.array([True, False]), r'gave bool \(2,\)'),
    ('truncated', 'no', "truncated must be True or False, .* gave 'no'"),
    ('truncated', 2, 'gave 2'),
    ('answer', (GOOD, 1.0, False, {}), 'step must give .observation, reward'),
    ('answer', 5, r'gave 5 \(int\)'),
    ('reset', GOOD, r'reset must give \(observation, info\), and it gave'),
    ('reset', (GOOD[:2], {}), r'reset gave float32 \(2,\)'),
    ('reset', (GOOD + np.nan, {}), 'observation is not finite'),
    ('error', SystemExit(0), r'SystemExit: 0, raised in its step by /'),
    ('error', KeyError('door'), r"KeyError: 'door', raised in its step by /"),
    ('error', GeneratorExit(), r'GeneratorExit\(\), raised in its step by /'),
  ],
)  # fmt: skip
def test_what_else_an_environment_must_not_give_is_refused(
  quantity, given, message
):
  with pytest.raises(errors.UserError, match=message) as caught:
    second_step(**{quantity: given})
  assert 'Mend the environment; a run goes on from' in str(caught.value)


def test_four_things_behind_a_time_limit_are_refused_too():
  answer = GOOD, 1.0, False, {}
  with pytest.raises(errors.UserError, match='step must give'):
    second_step(id='Answers/Limited-v0', answer=answer)


@pytest.mark.parametrize(
  'given', [[0.5, -1, 1], (0.5, -1, 1), jnp.array([0.5, -1, 1])]
)
def test_sequences_of_the_right_numbers_are_as_good_as_arrays(given):
  step = second_step(observation=given)
  np.testing.assert_array_equal(step.observation, [[0.5, -1, 1]] * 2)


@pytest.mark.parametrize(
  'reward', [3, np.float32(3), np.float64(3), np.int8(3), np.array([3.0])]
)
@pytest.mark.parametrize('flag', [True, np.True_, 1, np.array([True])])
def test_whatever_is_one_number_is_a_reward_and_a_flag(reward, flag):
  step = second_step(reward=reward, truncated=flag)
  assert step.reward.tolist() == [3, 3]
  assert step.truncated.tolist() == [True, True]


@pytest.mark.parametrize(
  'dtype', ['int64', 'uint64', 'float16', 'bool', 'int8']
)
def test_types_that_jax_does_not_have_become_those_that_it_has(dtype):
  space = Box(0, 1, (3,), dtype)
  step = second_step(space=space, observation=np.ones(3, dtype))
  stored = {'int64': 'int32', 'uint64': 'uint32'}.get(dtype, dtype)
  assert step.observation.dtype == stored
  assert step.observation.tolist() == [[1, 1, 1]] * 2


def test_the_largest_numbers_pass():
  step = second_step(observation=np.full(3, BIG), reward=float(BIG))
  assert (step.observation == BIG).all() and (step.reward == BIG).all()


# What several give is looked at together first.
ROWS = st.sampled_from(
  [
    *(np.zeros(3, kind) for kind in ('f2', 'f4', 'f8', 'u1', 'i2', 'i8', '?')),
    *(np.ones(shape, np.float32) for shape in ((), (1,), (4,), (3, 1))),
    *(np.float64([1e-3, 1e39, 0]), np.uint16([300, 5, 12]), np.int64([-5] * 3)),
    *([1.0, 2.0, 3.0], [True, False, True], [1, 300, 2], [1.0], None, 'abc'),
  ]
)


@hypothesis.given(
  st.sampled_from([FLOATS, BYTES, LONGS, Box(-9, 9, (3,), np.int16)]),
  st.lists(ROWS, min_size=1, max_size=3),
)
def test_several_observations_are_judged_as_each_by_itself(space, given):
  environments = gym.Gym(id='Answers/Plain-v0', kwargs={'space': space}).make(
    len(given)
  )
  each = environments._answers

  def outcome(function):
    try:
      return function()
    except errors.UserError as error:
      return str(error)

  together = outcome(lambda: answers.rows(each, given))
  alone = outcome(
    lambda: np.stack(
      [one.observation(x, 'step') for one, x in zip(each, given, strict=True)]
    )
  )
  if isinstance(alone, str):
    assert together == alone
  else:
    assert together.dtype == environments.observation_space.dtype
    np.testing.assert_array_equal(together, alone)


class Failing(gymnasium.Env):
  """Fails when it is made or closed."""

  observation_space, action_space = FLOATS, gymnasium.spaces.Discrete(2)

  def __init__(self, when, render_mode=None):
    self.when = when
    if when == 'made':
      raise ValueError('no licence')
    if when == 'made, and leaves':
      sys.exit()

  def reset(self, *, seed=None, options=None):
    return GOOD, {}

  def close(self):
    if self.when == 'closed':
      raise OSError('no device')


@pytest.mark.parametrize('vector', ['sync', 'async'])
@pytest.mark.parametrize(
  ('when', 'message'),
  [
    ('made', 'ValueError: no licence, raised in its constructor by /'),
    ('made, and leaves', r'SystemExit\(\), raised in its constructor by /'),
    ('closed', 'OSError: no device, raised in its close by /'),
  ],
)
def test_an_environment_that_fails_out_of_turn_is_told(vector, when, message):
  settings = gym.Gym(
    id='Answers/Failing-v0', kwargs={'when': when}, vector=vector
  )
  with pytest.raises(
    errors.UserError,
    match=f'failed .while it was {when[:4]}\\w*.: {message}',
  ):
    settings.make(2).close()


class Own(base.VectorEnvironment):
  """A user's own vector environment."""

  observation_space, action_space = FLOATS, gymnasium.spaces.Discrete(2)
  num_envs = 2

  def __init__(self, **told):
    self.told = told

  def reset(self, seeds):
    return self.told.get('first', np.zeros((2, 3), np.float32))

  def step(self, actions):
    frames, flags = np.zeros((2, 3), np.float32), np.zeros(2, bool)
    step = base.TimeStep(frames, np.zeros(2, np.float32), flags, flags, frames)
    if 'step' in self.told:
      return self.told['step']
    return step._replace(**self.told)


@pytest.mark.parametrize(
  ('quantity', 'given', 'message'),
  [
    ('observation', np.zeros((2, 3)), r'float32 \(2, 3\), .* gave float64'),
    ('next_observation', np.zeros((2, 1), np.float32), r'gave .*\(2, 1\)'),
    ('next_observation', np.float32([GOOD, GOOD + np.inf]), 'environment 2 of'),
    ('observation', np.float32([GOOD + np.nan, GOOD]), 'environment 1 of 2'),
    ('reward', np.zeros(2), r'reward must be an array float32 \(2,\)'),
    ('reward', np.zeros((2, 1), np.float32), r'gave float32 \(2, 1\)'),
    ('reward', np.float32([0, np.nan]), 'environment 2 of 2.*reward is not'),
    ('terminated', np.zeros(2, np.uint8), r'gave uint8 \(2,\)'),
    ('truncated', [False, False], r'gave \[False, False\] \(list\)'),
    ('first', np.zeros((2, 4), np.float32), r'gave float32 \(2, 4\)'),
    ('step', (GOOD,) * 5, r'must give a TimeStep, and it gave \(array'),
    ('step', None, 'must give a TimeStep, and it gave None'),
  ],
)  # fmt: skip
def test_a_vector_environment_of_ones_own_is_held_to_the_contract(
  quantity, given, message
):
  watched = border.Border(Own(**{quantity: given}))
  with pytest.raises(errors.UserError, match=f'Own breaks its word.*{message}'):
    watched.reset([0, 1])
    watched.step(np.zeros(2, np.int32))


# In a training.


class Drifts(native.Native):
  """Its observation or reward stops being finite at a step."""

  # No settings: a run that goes on must have the same.
  at = 50
  reward = 1.0
  noise = 1.0

  observation_space = FLOATS
  action_space = gymnasium.spaces.Discrete(2)

  def reset(self, key):
    return jnp.int32(0), jnp.zeros(3)

  def step(self, state, action, key):
    is_bad = state + 1 == self.at
    observation = jnp.where(is_bad, self.noise, 1.0) * jnp.ones(3)
    reward = jnp.where(is_bad, self.reward, 1.0)
    return native.Outcome(state + 1, observation, reward, False)


def run(folder, environment, engine, num_iterations=2):
  return runner_lib.Runner(
    agent=functools.partial(
      dqn.DQN,
      network=functools.partial(networks.MLP, hidden=()),
      replay=functools.partial(
        uniform.UniformReplay, capacity=200, batch_size=4, min_history=20
      ),
      optimizer=values.call(optax.sgd, 1e-3),
      target_update_period=8,
    ),
    environment=environment,
    engine=engine,
    num_iterations=num_iterations,
    training_steps=40,
    collectors=(),
  ).train(folder, quiet=True)


@pytest.fixture(scope='module')
def sound(tmp_path_factory):
  """Returns a function: an engine's runs in which nothing goes wrong.

  It gives the folders of one that has ended and of one that may go on, and the
  first one's statistics.
  """

  @functools.cache
  def train(engine):
    folder = tmp_path_factory.mktemp('sound')
    with pytest.MonkeyPatch.context() as patch:
      programs.share(patch)
      run(folder / 'begun', Drifts(), engine, num_iterations=1)
      statistics = run(folder / 'never', Drifts(), engine)
    return folder / 'never', folder / 'begun', statistics

  return train


@pytest.mark.parametrize(
  ('bad', 'at', 'quantity'),
  [
    ({'reward': math.nan}, 35, 'reward'),
    # As a reward then, and as an observation earlier.
    pytest.param(
      *({'noise': -math.inf}, 35, 'observation'), marks=pytest.mark.slow
    ),
    ({'noise': math.nan}, 7, 'observation'),  # while actions are random
  ],
)
@pytest.mark.parametrize(
  'engine', [python_engine.PythonEngine, compiled.CompiledEngine]
)
def test_a_run_stops_at_what_is_not_finite_and_goes_on_when_it_is_mended(
  tmp_path, monkeypatch, sound, engine, bad, at, quantity
):
  never, begun, expected = sound(engine)
  if at == 35:  # what is kept is what was there before
    shutil.copytree(begun, tmp_path / 'run')
  with monkeypatch.context() as patch:
    for name, value in {'at': at, **bad}.items():
      patch.setattr(Drifts, name, value)
    with pytest.raises(
      errors.UserError, match=f'its {quantity} is not'
    ) as caught:
      run(tmp_path / 'run', Drifts(), engine)
  assert f'step {at} since' in str(caught.value)
  assert 'learning rate' not in str(caught.value)
  if at == 35:
    mended = run(tmp_path / 'run', Drifts(), engine)
    digests = [fingerprint.fingerprint(x) for x in (tmp_path / 'run', never)]
    assert digests[0] == digests[1]
    assert mended['Train/Loss'] == expected['Train/Loss']


@pytest.mark.parametrize(
  ('part', 'given', 'message'),
  [
    ('reward', jnp.ones(1), r'reward must be a scalar.* gave float32 \(1,\)'),
    ('reward', None, 'reward must be a scalar.* gave None'),
    ('terminated', jnp.zeros(2, bool), r'terminated must.* gave bool \(2,\)'),
    ('truncated', 'no', "truncated must be.* gave 'no'"),
    ('terminated', 0.3, 'terminated must be a scalar, a bool.* gave float32'),
    ('truncated', 2, 'truncated must be a scalar, a bool.* gave int32'),
  ],
)  # fmt: skip
def test_an_outcome_in_jax_is_of_scalars(part, given, message):
  class Odd(Drifts):
    def step(self, state, action, key):
      outcome = native.Outcome(state, jnp.zeros(3), 0.0, False)
      return outcome._replace(**{part: given})

  with pytest.raises(errors.UserError, match=message):
    lane, _ = native.begin(Odd(), 0)
    jax.eval_shape(functools.partial(native.advance, Odd()), lane, 0)


@pytest.mark.parametrize(
  ('dtype', 'instead'), [(np.float64, 'float32'), (np.int64, 'int32')]
)
def test_a_space_in_jax_of_a_type_that_jax_lacks_is_refused(dtype, instead):
  class Wide(Drifts):
    observation_space = Box(-9, 9, (3,), dtype)

  with pytest.raises(
    errors.UserError, match=f'Give the Box dtype=np.{instead}'
  ):
    Wide().make(1)


class Diverges(sac.SAC):
  """Whose actions are no numbers from step 40 on."""

  def act(self, state, observation, step, key, *, explore):
    action = super().act(state, observation, step, key, explore=explore)
    return jnp.where(step >= 40, jnp.nan, action)


def test_a_checkpoint_never_holds_an_action_that_is_not_finite(tmp_path):
  runner = runner_lib.Runner(
    agent=functools.partial(
      Diverges,
      actor=functools.partial(actor_critic.Actor, hidden=(4,)),
      critics=functools.partial(actor_critic.Critics, hidden=(4,)),
      replay=functools.partial(
        uniform.UniformReplay, capacity=200, batch_size=4, min_history=20
      ),
      update_period=1_000,  # so that no update is compiled
    ),
    environment=gym.Gym(id='Pendulum-v1'),
    num_iterations=2,
    training_steps=40,
    check_finite=False,
    collectors=(),
  )
  with pytest.raises(errors.UserError, match='action is not finite'):
    runner.train(tmp_path, quiet=True)
  assert not [*tmp_path.glob('checkpoints/*')]


def test_integers_in_jax_that_would_wrap_around_are_refused():
  class Narrow(Drifts):
    observation_space = Box(-9, 9, (3,), np.int8)

    def reset(self, key):
      return jnp.int32(0), jnp.full(3, 300)

  with pytest.raises(errors.UserError, match=r'int8 \(3,\).*int32'):
    jax.eval_shape(functools.partial(native.begin, Narrow()), 0)
