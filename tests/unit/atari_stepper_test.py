"""Games take the steps in a program that they take in Python.

Those are held against a console by `atari_test`.
"""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dopamine_jax import errors
from dopamine_jax import runner as runner_lib
from dopamine_jax import values
from dopamine_jax.engines import compiled as compiled_engine
from dopamine_jax.engines import devices
from dopamine_jax.environments import atari
from dopamine_jax.training import fingerprint
from tests.unit import atari_test
from tests.unit import compiled_test

SEEDS = np.array([3, 1, 4, 2], np.int32)
GAME = dict(game='Breakout', size=(21, 16), noop_max=30)


@contextlib.contextmanager
def games(**settings):
  """Yields the stepper of four games, and games for Python."""
  game = atari.Atari(**GAME | settings)
  with (
    contextlib.closing(game.make(4)) as called,
    contextlib.closing(game.make(4)) as stepped,
  ):
    yield called.stepper(lambda function: function), stepped


def taken(stepper, seeds, actions, cut_at=-1, cut_with=SEEDS):
  """Returns first frames, and all time steps and what was told, in turn."""
  lanes, first = stepper.reset(stepper.prepare(seeds))

  @jax.jit
  def run(lanes):
    def step(lanes, inputs):
      i, action = inputs
      lanes, step = stepper.step(lanes, action)
      told = lanes.told
      prepared = stepper.prepare(cut_with.reshape(seeds.shape))
      lanes, frames = stepper.reset_if(
        i == cut_at, prepared, lanes, step.observation
      )
      return lanes, (step._replace(observation=frames), told)

    counted = jnp.arange(len(actions)), jnp.asarray(actions)
    return jax.lax.scan(step, lanes, counted)[1]

  return first, *run(lanes)


def same(found, i, expected):
  """Compares the i-th time step found, [S, N, ...], with one [S * N, ...]."""
  for name, all_steps, one in zip(
    expected._fields, found, expected, strict=True
  ):
    np.testing.assert_array_equal(
      all_steps[i].reshape(one.shape), one, err_msg=f'{name} of step {i}'
    )


def test_each_step_is_that_of_games_that_python_steps():
  shape = 2, 2  # of two seeds; the next tests have one
  seen = {'over': 0, 'time': 0, 'life': 0}
  settings = dict(terminate_on_life_loss=True, max_steps_per_episode=170)
  with games(**settings) as (stepper, stepped):
    actions = atari_test.random_actions(stepped, 400)
    first, steps, told = taken(
      stepper, SEEDS.reshape(shape), actions.reshape(-1, *shape)
    )
    begun = stepped.reset(SEEDS)
    np.testing.assert_array_equal(first.reshape(begun.shape), begun)
    for i, action in enumerate(actions):
      step = stepped.step(action)
      same(steps, i, step)
      scores = told['GameReturn'][i].reshape(-1)
      np.testing.assert_array_equal(scores, stepped.told['GameReturn'])
      whole = ~np.isnan(scores)
      seen['time'] += (step.truncated & whole).sum()
      seen['over'] += (step.terminated & whole).sum()
      seen['life'] += (step.terminated & ~whole).sum()
  assert min(seen.values()) > 0


def test_a_cut_begins_all_games_with_its_seeds():
  with games() as (stepper, stepped):
    actions = atari_test.random_actions(stepped, 40)
    _, steps, _ = taken(stepper, SEEDS, actions, cut_at=19, cut_with=SEEDS + 5)
    stepped.reset(SEEDS)
    for action in actions[:20]:
      before = stepped.step(action)
    begun = stepped.reset(SEEDS + 5)
    np.testing.assert_array_equal(steps.observation[19], begun)
    np.testing.assert_array_equal(
      steps.next_observation[19], before.next_observation
    )
    for i in range(20, 40):
      same(steps, i, stepped.step(actions[i]))


def test_a_joystick_is_pushed_as_python_pushes_it():
  with games(game='Pong', continuous=True) as (stepper, stepped):
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1.3, 1.3, (60, 4, 3)).astype(np.float32)
    _, steps, _ = taken(stepper, SEEDS, actions)
    stepped.reset(SEEDS)
    for i, action in enumerate(actions):
      same(steps, i, stepped.step(action))


# Its inputs are as large as 255.
slow_dqn = functools.partial(
  compiled_test.small_dqn, optimizer=values.call(optax.sgd, 1e-7)
)
ATARI = atari.Atari(
  game='Breakout', size=(4, 3), stack=2, max_steps_per_episode=9
)


# That seeds are told apart, the first test sees.
@pytest.mark.parametrize(
  'seeds', [(5,), pytest.param((5, 6), marks=pytest.mark.slow)]
)
def test_engines_train_the_same(seeds):
  what = ATARI, slow_dqn
  python, compiled = (
    compiled_test.trained(what, engine, seeds, 2)
    for engine in compiled_test.ENGINES
  )
  for one, two in zip(python, compiled, strict=True):
    compiled_test.assert_close(one.metrics, two.metrics)
    assert one.finished == two.finished
    compiled_test.assert_equal(one.first_frames, two.first_frames)
    compiled_test.assert_equal(one.state.experience, two.state.experience)
    compiled_test.assert_close(one.state, two.state)
  assert python[-1].state.updates.min() > 30
  assert len(python[-1].finished) >= 10 * len(seeds)


@pytest.mark.usefixtures('same_programs')
def test_a_run_goes_on_exactly(tmp_path):
  def train(folder, num_iterations):
    runner_lib.Runner(
      agent=slow_dqn,
      environment=ATARI.replace(terminate_on_life_loss=True),
      evaluation_environment=ATARI,
      engine=compiled_engine.CompiledEngine,
      num_iterations=num_iterations,
      training_steps=40,
      evaluation_episodes=1,
      num_envs=2,
    ).train(tmp_path / folder, quiet=True)

  train('whole', 2)
  train('parts', 1)
  train('parts', 2)
  whole, parts = (
    fingerprint.fingerprint(tmp_path / x) for x in ('whole', 'parts')
  )
  assert whole == parts


# What can't work.


class Beyond(compiled_test.Spy):
  """Acts by a number that no game has."""

  def act(self, state, observation, step, key, *, explore):
    return jnp.full(len(observation), 99)


def test_an_action_that_does_not_exist_ends_the_run():
  engine = compiled_test.make_engine(ATARI, Beyond)
  with pytest.raises(errors.UserError, match='action lies outside'):
    compiled_test.run(engine, 30)


class Nowhere(compiled_test.Spy):
  """Pushes a joystick to no number."""

  def act(self, state, observation, step, key, *, explore):
    return jnp.full((len(observation), 3), jnp.nan)


def test_so_does_one_that_is_no_number():
  joystick = ATARI.replace(continuous=True)
  engine = compiled_test.make_engine(joystick, Nowhere)
  with pytest.raises(errors.UserError, match='not finite'):
    compiled_test.run(engine, 30)


class Richer(atari.AtariVector):
  """Pays one more at each step."""

  def step(self, actions):
    step = super().step(actions)
    return step._replace(reward=step.reward + 1)


class RicherAtari(atari.Atari):
  """Makes them."""

  def make(self, num_envs, render=False):
    return Richer(self, num_envs, render)


def test_a_step_that_a_program_would_pass_by_is_refused():
  game = RicherAtari(game='Breakout', size=(4, 3))
  with pytest.raises(
    errors.UserError, match=r'Richer\.step would not.*AtariVector\.stepper'
  ):
    compiled_test.make_engine(game, slow_dqn)


def test_games_on_several_devices_are_refused():
  engine = compiled_test.make_engine(ATARI, compiled_test.small_dqn)
  with pytest.raises(errors.UserError, match=r"'seeds'.*one device.*'none'"):
    type(engine)(
      engine.loop,
      ATARI.make(2),
      (0, 1),
      devices=devices.Devices(split='seeds', num_devices=1),
    )


def test_a_device_that_ale_cannot_be_called_from_is_refused(monkeypatch):
  monkeypatch.setattr(jax, 'default_backend', lambda: 'tpu')
  with (
    contextlib.closing(ATARI.make(1)) as few,
    pytest.raises(errors.UserError, match=r'backend tpu.*PythonEngine'),
  ):
    few.stepper(lambda function: function)
