"""Trainings of more agent steps than 32 bits count."""

import jax
import numpy as np
import optax
import pytest

import dopamine_jax as dj
from dopamine_jax import errors
from dopamine_jax import values
from dopamine_jax.agents import ppo
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
  """Has programs count to 63, and go back to 32."""
  monkeypatch.setattr(counting, 'LARGEST', 63)
  monkeypatch.setattr(counting, 'HALF', 32)


def make_runner(agent=AGENT, **changes):
  settings = {'training_steps': 16, 'num_iterations': 6}
  return lanes_test.make_runner(agent, **settings | changes)


class Watching(ppo.PPO):
  """PPO that tells what it sees at its updates: steps, and a setting's value.

  Attributes:
    epsilon: a schedule over agent steps.
  """

  over_agent_steps = (*ppo.PPO.over_agent_steps, 'epsilon')
  epsilon: float | optax.Schedule = 0.0

  def act(self, state, observation, step, key, *, explore):
    actions = super().act(state, observation, step, key, explore=explore)
    value = values.at(self.epsilon, step)
    jax.debug.callback(lambda *x: SEEN.append(x), step, value, self.gamma)
    return actions


SEEN = []


@pytest.mark.usefixtures('few_bits', 'same_programs')
@pytest.mark.parametrize(
  'engine',
  # That the Python engine goes on past 32 bits is seen below.
  [pytest.param(ENGINES[0], marks=pytest.mark.slow), ENGINES[1]],
)
def test_programs_count_from_half_on_again_and_draw_by_new_keys(
  engine, tmp_path
):
  fields = {x: getattr(AGENT, x) for x in AGENT.__dataclass_fields__}
  schedule = values.call(optax.linear_schedule, 1.0, 0.0, 32)
  agent = Watching(**fields | {'epsilon': schedule})
  stage = stages.Stages(setting='gamma', at_steps=[32], values=[0.5])

  def train(folder, **changes):
    make_runner(
      agent,
      engine=engine,
      num_envs=8,
      evaluation_episodes=0,
      callbacks=(stage,),
      **changes,
    ).train(tmp_path / folder, num_seeds=2, quiet=True)

  SEEN.clear()
  train('whole')
  seen = np.array(SEEN)
  # From 32 on, where it begins again, nothing changes.
  assert set(seen[:, 0]) == set(range(0, 56, 8))
  late = seen[seen[:, 0] >= 32]
  assert (late[:, 1:] == (0.0, 0.5)).all()
  assert len(late) >= 16
  for count in (1, 3, 6):
    train('parts', num_iterations=count)
  prints = [fingerprint.fingerprint(tmp_path / x) for x in ('whole', 'parts')]
  assert prints[0] == prints[1]
  assert dj.load(tmp_path / 'whole', seed=1).agent_steps == 96
  arrays = checkpoints.Checkpoints(tmp_path / 'whole').arrays(6)
  # 16, 32, 48, and again.
  assert arrays['experience.agent_steps'].tolist() == [48, 48]


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
    steps = 2**31 - 16
    experience = trained.state.experience
    before = key_words(experience.keys)
    state = trained.state.replace(
      experience=experience.replace(
        agent_steps=jax.numpy.int32(steps) + 0 * experience.agent_steps
      )
    )
    trained.restore(state, 2**40 - 16, 0)
    counting.go_back(trained, 16)
    metrics = trained.run(16, cut_with=None, on_step=lambda: None)
    assert trained.steps == 2**40
    assert int(trained.state.experience.agent_steps) == 2**30 + 16
    after = key_words(trained.state.experience.keys)
    assert (before != after).any(axis=-1).all()
    assert all(np.isfinite(each).all() for each in metrics.values())
    assert int(trained.state.updates) == 1
    environments.close()


LONG = {'num_iterations': 2_048, 'training_steps': 2**21}
SLOW = values.call(optax.linear_schedule, 1.0, 0.1, 2**31 - 2)


@pytest.mark.parametrize(
  ('changes', 'message', 'remedy'),
  [
    (
      {'num_iterations': 2, 'training_steps': 2**30, 'num_envs': 8},
      r'training_steps = 1073741824 is not below 2\*\*30',
      LONG,
    ),
    (
      {},
      r'num_envs = 2 is too small .* Have 8 environments',
      {'num_envs': 8},
    ),
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

  with pytest.raises(
    errors.UserError, match=r'epsilon, a schedule, .* end sooner'
  ):
    check(SLOW)
  check(values.call(optax.linear_schedule, 1.0, 0.1, 2**30))
  check(SLOW, num_iterations=1_023)


def test_updates_that_can_not_be_counted_are_refused():
  agent = lanes_test.make_dqn(1e-3, 0.9, update_period=8, updates_per_period=8)
  runner = make_runner(agent, **LONG, num_envs=8)
  with pytest.raises(errors.UserError, match=r'2.*31 updates .*update_period'):
    runner.make_loop(runner.environment.make(8))


def test_slots_of_an_environment_that_can_not_be_counted_are_refused():
  agent = lanes_test.make_dqn(1e-3, 0.9)
  counts = {'num_iterations': 1_025, 'training_steps': 2**20}

  def check(num_envs):
    runner = make_runner(agent, **counts, num_envs=num_envs)
    runner.make_loop(runner.environment.make(num_envs))

  with pytest.raises(errors.UserError, match=r'num_envs = 1 .* Have 2 env'):
    check(1)
  check(2)
