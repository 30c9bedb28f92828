"""Trainings of more agent steps than 32 bits count."""

import jax
import numpy as np
import optax
import pytest

import dopamine_jax as dj
from dopamine_jax import errors
from dopamine_jax import values
from dopamine_jax.callbacks import stages
from dopamine_jax.checkpoints import checkpoints
from dopamine_jax.engines import compiled
from dopamine_jax.engines import counting
from dopamine_jax.engines import python_engine
from dopamine_jax.training import fingerprint
from tests.unit import lanes_test

ENGINES = python_engine.PythonEngine, compiled.CompiledEngine
AGENT = lanes_test.make_ppo(1e-3, 0.5)


@pytest.fixture
def few_bits(monkeypatch):
  """Has programs count to 79, and go back by 32."""
  monkeypatch.setattr(counting, 'LARGEST', 79)
  monkeypatch.setattr(counting, 'HALF', 32)


def make_runner(agent=AGENT, **changes):
  settings = {'training_steps': 32, 'num_iterations': 5}
  return lanes_test.make_runner(agent, **settings | changes)


@pytest.mark.usefixtures('few_bits')
@pytest.mark.parametrize('engine', ENGINES)
def test_programs_count_from_half_on_again_and_draw_by_new_keys(
  engine, tmp_path, monkeypatch
):
  monkeypatch.setattr(counting, 'check', lambda *args: None)

  def train(folder, **changes):
    runner = make_runner(engine=engine, evaluation_episodes=0, **changes)
    runner.train(tmp_path / folder, num_seeds=2, quiet=True)
    return runner

  for folder, lengths in {'whole': [5], 'parts': [1, 3, 5]}.items():
    for count in lengths:
      train(folder, num_iterations=count)
  prints = [fingerprint.fingerprint(tmp_path / x) for x in ('whole', 'parts')]
  assert prints[0] == prints[1]
  # 32, 64, back to 32 and on to 64, and so on.
  assert dj.load(tmp_path / 'whole', seed=1).agent_steps == 160
  arrays = checkpoints.Checkpoints(tmp_path / 'whole').arrays(5)
  assert arrays['experience.agent_steps'].tolist() == [64, 64]


def key_words(keys):
  return np.stack(
    [np.array(jax.random.key_data(key)) for key in jax.tree.leaves(keys)]
  )


def test_real_counts_go_on_past_32_bits():
  """On both engines, from the last iteration before 2**31."""
  for engine in ENGINES:
    runner = make_runner(engine=engine)
    environments = runner.environment.make(2)
    trained = runner.make_engine(environments, (0,))
    trained.reset([0, 1])
    trained.init()
    steps = 2**31 - 32
    experience = trained.state.experience
    before = key_words(experience.keys)
    state = trained.state.replace(
      experience=experience.replace(
        agent_steps=jax.numpy.int32(steps) + 0 * experience.agent_steps
      )
    )
    trained.restore(state, 2**40 - 32, 0)
    counting.go_back(trained, 32)
    metrics = trained.run(32, cut_with=None, on_step=lambda: None)
    assert trained.steps == 2**40
    assert int(trained.state.experience.agent_steps) == 2**30
    after = key_words(trained.state.experience.keys)
    assert (before != after).any(axis=-1).all()
    # An update every 16 steps.
    assert all(np.isfinite(each).all() for each in metrics.values())
    assert int(trained.state.updates) == 2
    environments.close()


LONG = {'num_iterations': 2_048, 'training_steps': 2**21}
SLOW = values.call(optax.linear_schedule, 1.0, 0.1, 2**31 - 2)


@pytest.mark.parametrize(
  ('changes', 'message', 'remedy'),
  [
    (
      {'num_iterations': 2, 'training_steps': 2**31 - 2},
      r'training_steps = 2147483646 is more than 2\*\*30',
      LONG,
    ),
    ({}, r'num_envs = 2 is too small .* Have 5 environments', {'num_envs': 8}),
    (
      {'num_envs': 8, 'callbacks': [2**30 + 1]},
      r'callbacks .* at agent step 1073741825, .* after 2\*\*30',
      {'callbacks': [2**30]},
    ),
  ],
)
def test_what_can_not_be_counted_is_refused(changes, message, remedy):
  def check(**settings):
    for name, steps in settings.items():
      if name == 'callbacks':
        staged = stages.Stages(setting='gamma', at_steps=steps, values=[0.5])
        settings |= {name: (staged,)}
    runner = make_runner(**LONG | {'num_envs': 8} | settings)
    environments = runner.environment.make(runner.num_envs)
    runner.make_loop(environments)

  given = LONG | {'num_envs': 2} | changes
  with pytest.raises(errors.UserError, match=message):
    check(**given)
  check(**given | {'num_envs': 8} | remedy)


def test_schedules_that_end_late_are_refused():
  def check(epsilon, **settings):
    agent = lanes_test.make_dqn(1e-3, 0.9, epsilon=epsilon)
    runner = make_runner(agent, **LONG | {'num_envs': 8} | settings)
    runner.make_loop(runner.environment.make(8))

  with pytest.raises(errors.UserError, match=r'epsilon .* end it sooner'):
    check(SLOW)
  check(values.call(optax.linear_schedule, 1.0, 0.1, 2**30))
  check(SLOW, num_iterations=1_023)


def test_updates_that_can_not_be_counted_are_refused():
  agent = lanes_test.make_dqn(1e-3, 0.9, update_period=8, updates_per_period=8)
  runner = make_runner(agent, **LONG, num_envs=8)
  with pytest.raises(errors.UserError, match=r'more than 2\*\*31 updates'):
    runner.make_loop(runner.environment.make(8))
