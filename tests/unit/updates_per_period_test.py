"""Several updates in every period, on all engines."""

import functools

import jax
import numpy as np
import optax
import pytest

import dopamine_jax as dj
from dopamine_jax import errors
from dopamine_jax import networks
from dopamine_jax.agents import dqn
from dopamine_jax.agents import ppo
from dopamine_jax.engines import compiled
from dopamine_jax.engines import plain_engine
from dopamine_jax.engines import python_engine
from dopamine_jax.environments import catch
from dopamine_jax.replay import uniform
from dopamine_jax.training import fingerprint

ENGINES = (
  plain_engine.PlainEngine,
  python_engine.PythonEngine,
  compiled.CompiledEngine,
)
AGENT = dqn.DQN(
  network=networks.MLP(hidden=(4,)),
  replay=uniform.UniformReplay(capacity=200, batch_size=4, min_history=20),
  # Counted once for each update: 0 from the 100th on.
  optimizer=dj.call(optax.adam, dj.call(optax.linear_schedule, 0.1, 0.0, 100)),
  update_period=4,
  updates_per_period=5,
  target_update_period=8,
)


def train(folder, engine=ENGINES[1], agent=AGENT, **settings):
  settings = {'agent_steps': 60, 'evaluation_episodes': 0} | settings
  return dj.train(
    agent, catch.Catch(), folder, engine=engine, quiet=True, **settings
  )


@pytest.mark.parametrize('engine', ENGINES)
def test_each_period_has_so_many(engine, tmp_path):
  run = train(tmp_path, engine, num_iterations=3)
  # From step 20 to step 60, every 4.
  assert run.statistics['Train/Updates'] == 11 * 5
  assert run.load().state.updates == 11 * 5


def test_targets_follow_agent_steps_and_schedules_updates(tmp_path):
  """A copy comes every 2 periods, 10 updates; steps end at 100 updates."""
  states = [
    train(tmp_path / str(steps), agent_steps=steps, num_iterations=1)
    .load()
    .state
    for steps in (52, 56, 100, 104)
  ]
  behind, copied, last, later = states
  assert [int(state.updates) for state in states] == [45, 50, 105, 110]
  equal = functools.partial(jax.tree.map, np.array_equal)
  assert not all(jax.tree.leaves(equal(behind.params, behind.target_params)))
  assert all(jax.tree.leaves(equal(copied.params, copied.target_params)))
  assert all(jax.tree.leaves(equal(last.params, later.params)))
  assert AGENT.last_count('optimizer', 400) == 500


def test_each_learns_from_a_sample_of_its_own(tmp_path):
  """As five updates that are due one by one, but for when they come."""
  one_by_one = AGENT.replace(updates_per_period=1, update_period=4)
  few, many = (
    train(tmp_path / name, agent=agent).load().state
    for name, agent in (('few', one_by_one), ('many', AGENT))
  )
  assert int(many.updates) == 5 * int(few.updates)
  leaves = zip(
    jax.tree.leaves(few.params), jax.tree.leaves(many.params), strict=True
  )
  assert any(not np.allclose(a, b) for a, b in leaves)


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
