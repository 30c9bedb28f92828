"""Several updates in every period, on all engines."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import dopamine_jax as dj
from dopamine_jax import errors
from dopamine_jax import networks
from dopamine_jax import values
from dopamine_jax.agents import dqn
from dopamine_jax.agents import ppo
from dopamine_jax.engines import compiled
from dopamine_jax.engines import plain_engine
from dopamine_jax.engines import python_engine
from dopamine_jax.environments import catch
from dopamine_jax.replay import prioritized
from dopamine_jax.replay import uniform
from dopamine_jax.training import fingerprint
from tests import walk
from tests.unit import compiled_test

ENGINES = (
  plain_engine.PlainEngine,
  python_engine.PythonEngine,
  compiled.CompiledEngine,
)
AGENT = dqn.DQN(
  network=networks.MLP(hidden=()),
  replay=uniform.UniformReplay(capacity=200, batch_size=4, min_history=20),
  # Counted once for each update: 0 from the 100th on.
  optimizer=dj.call(optax.adam, dj.call(optax.linear_schedule, 0.1, 0.0, 100)),
  update_period=4,
  updates_per_period=5,
  target_update_period=8,
)

# When updates are due is no program's matter.
pytestmark = pytest.mark.usefixtures('same_programs')


def train(folder, engine=ENGINES[1], agent=AGENT, **settings):
  settings = {'agent_steps': 60, 'evaluation_episodes': 0} | settings
  return dj.train(
    agent, catch.Catch(), folder, engine=engine, quiet=True, **settings
  )


@pytest.mark.parametrize(
  'engine',
  # The plain one learns by the same function as the Python engine.
  [
    pytest.param(x, marks=pytest.mark.slow)
    if x is plain_engine.PlainEngine
    else x
    for x in ENGINES
  ],
)
def test_each_period_has_so_many(engine, tmp_path):
  run = train(tmp_path, engine, num_iterations=3)
  # From step 20 to step 60, every 4.
  assert run.statistics['Train/Updates'] == 11 * 5
  assert run.load().state.updates == 11 * 5


def test_schedules_count_updates(tmp_path):
  """Steps end at 100 updates, of 5 in every 4 agent steps."""
  last, later = (
    train(tmp_path / str(steps), agent_steps=steps, num_iterations=1)
    .load()
    .state
    for steps in (100, 104)
  )
  assert (last.updates, later.updates) == (105, 110)
  compiled_test.assert_close(last.params, later.params)
  assert AGENT.last_count('optimizer', 400) == 500


def test_a_copy_to_the_target_network_comes_every_two_periods():
  agent = functools.partial(
    dqn.DQN,
    **{
      f: getattr(AGENT, f)
      for f in values.fields(AGENT)
      if f not in dqn.DQN.given_later
    },
  )
  engine = compiled_test.make_engine(
    walk.Walk(), agent, engine=ENGINES[0], seeds=(5,)
  )
  compiled_test.run(engine, 40)
  state, learn = engine.state, jax.jit(engine.loop.learn)

  def copies(before):
    """Whether the update after so many copies."""
    old = state.agent.replace(updates=jnp.int32(before))
    new = learn(state.replace(agent=old))[0].agent
    # XLA may compute a sum twice, and round it in two ways.
    return all(
      np.allclose(one, two, rtol=1e-5, atol=1e-7)
      for one, two in zip(
        jax.tree.leaves(new.target_params),
        jax.tree.leaves(new.params),
        strict=True,
      )
    )

  assert [before + 1 for before in range(21) if copies(before)] == [10, 20]


class Telling(dqn.DQN):
  """Reports what each update is given."""

  reductions = {f'{name}Sum': 'sum' for name in ('Seen', 'Key')} | {
    f'{name}Last': 'last' for name in ('Seen', 'Key')
  }

  def update(self, state, sample, key):
    state, metrics, priorities = super().update(state, sample, key)
    given = {
      # Where the ball and the paddle are.
      'Seen': jnp.mean(jnp.argmax(sample.transition.observation, axis=1)),
      'Key': jax.random.uniform(key),
    }
    for name, value in given.items():
      metrics |= {f'{name}Sum': value, f'{name}Last': value}
    return state, metrics, priorities


def test_each_has_a_sample_and_a_key_of_its_own(tmp_path):
  # One period, at step 20.
  agent = Telling(**{f: getattr(AGENT, f) for f in values.fields(AGENT)})
  found = train(tmp_path, agent=agent, agent_steps=20).statistics
  assert found['Train/Updates'] == 5
  for name in ('Seen', 'Key'):
    total, last = found[f'Train/{name}Sum'], found[f'Train/{name}Last']
    assert abs(total - 5 * last) > 0.01 * abs(last), name


def test_they_are_as_one_after_another():
  """Of several seeds by priorities, where six steps make one or two periods."""
  agent = functools.partial(
    dqn.DQN,
    network=networks.MLP(hidden=()),
    replay=prioritized.PrioritizedReplay(
      capacity=600, batch_size=4, min_history=24
    ),
    update_period=4,
    updates_per_period=3,
    target_update_period=8,
  )
  engine = compiled_test.make_engine(
    walk.Walk(), agent, engine=ENGINES[0], seeds=(5, 6), num_envs=6
  )
  compiled_test.run(engine, 60)
  # The multiples of 4 from 20 to 60; the first two are due at step 24.
  assert (np.asarray(engine.state.updates) == 3 * 11).all()
  state, metrics = engine.state, engine._zero_metrics(engine.state)
  update = functools.partial(engine.loop.update, 3)
  at_once, _, _ = jax.jit(engine.vectorize(update))(state, metrics)
  learn = jax.jit(engine.vectorize(engine.loop.learn))
  for _ in range(3):
    state, _ = learn(state)
  compiled_test.assert_close(at_once, state)
  moved = jax.tree.map(
    lambda a, b: not np.array_equal(a, b),
    state.experience.replay.tree,
    engine.state.experience.replay.tree,
  )
  assert any(jax.tree.leaves(moved))


def test_a_run_resumes_exactly(tmp_path):
  train(tmp_path / 'whole', num_iterations=2)
  train(tmp_path / 'stopped', num_iterations=1, agent_steps=30)
  train(tmp_path / 'stopped', num_iterations=2)
  whole, stopped = (
    fingerprint.fingerprint(tmp_path / name) for name in ('whole', 'stopped')
  )
  assert whole == stopped


def test_it_is_of_agents_with_a_replay():
  with pytest.raises(errors.UserError, match=r'no setting .updates_per_period'):
    ppo.PPO(updates_per_period=2)
  with pytest.raises(errors.UserError, match='must be at least 1'):
    dqn.DQN(updates_per_period=0)
