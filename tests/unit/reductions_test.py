"""Metrics become one number by their mean, their sum or the last of them."""

import functools

import jax.numpy as jnp
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
from dopamine_jax.learning import optimization
from dopamine_jax.replay import uniform

ENGINES = (
  plain_engine.PlainEngine,
  python_engine.PythonEngine,
  compiled.CompiledEngine,
)


class Counting(dqn.DQN):
  """Reports the number of each update, three times."""

  reductions = {'Sum': 'sum', 'Last': 'last'}  # noqa: RUF012

  def update(self, state, sample, key):
    state, metrics, priorities = super().update(state, sample, key)
    number = state.updates
    metrics |= {'Mean': number, 'Sum': number, 'Last': number}
    return state, metrics, priorities


class Unknown(Counting):
  reductions = {'Loss': 'last', 'Lost': 'last'}  # noqa: RUF012


class Odd(Counting):
  reductions = {'Loss': 'median'}  # noqa: RUF012


def train(folder, agent=Counting, **settings):
  agent = agent(
    network=networks.MLP(hidden=()),
    replay=uniform.UniformReplay(capacity=200, batch_size=4, min_history=20),
    update_period=4,
    updates_per_period=3,
  )
  settings = {'agent_steps': 60, 'evaluation_episodes': 0} | settings
  return dj.train(agent, catch.Catch(), folder, quiet=True, **settings)


@pytest.mark.parametrize(
  ('engine', 'num_seeds'),
  [
    # It reduces by the same function as the Python engine.
    pytest.param(engine, num_seeds, marks=pytest.mark.slow)
    if engine is plain_engine.PlainEngine
    else (engine, num_seeds)
    for engine, num_seeds in zip(ENGINES, (1, 1, 2), strict=True)
  ],
)
def test_an_iterations_metrics_are_what_the_agent_says(
  tmp_path, engine, num_seeds
):
  run = train(tmp_path, engine=engine, num_iterations=2, num_seeds=num_seeds)
  # Three updates at each of 32, 36, ..., 60, the second iteration.
  numbers = np.arange(10, 34)
  for name, expected in (
    ('Mean', numbers.mean()),
    ('Sum', numbers.sum()),
    ('Last', numbers[-1]),
  ):
    found = run.statistics[f'Train/{name}']
    np.testing.assert_allclose(found, [expected] * num_seeds, rtol=1e-6)


@pytest.mark.parametrize(
  ('agent', 'words'),
  [
    (Unknown, r"Unknown\.reductions\['Lost'\]: update gives no such .* Loss, "),
    (Odd, r"Odd\.reductions\['Loss'\] = 'median'; expected 'sum' or 'last'"),
  ],
)
def test_a_reduction_that_can_not_be_is_refused(tmp_path, agent, words):
  with pytest.raises(errors.UserError, match=words):
    train(tmp_path, agent)


class Minibatches(ppo.PPO):
  """Reports the number of each minibatch of an update."""

  reductions = {'Sum': 'sum', 'Last': 'last'}  # noqa: RUF012
  target_kl: float | None = None

  def batch(self, params, trajectory):
    return super().batch(params, trajectory), trajectory.reward

  def loss(self, params, batch, updates):
    batch, reward = batch
    loss, metrics = super().loss(params, batch, updates)
    weight = jnp.mean(reward) + 1.0
    return loss, metrics | {'Mean': weight, 'Sum': weight, 'Last': weight}


# The test below has both without an agent.
@pytest.mark.parametrize(
  'stops', [pytest.param(False, marks=pytest.mark.slow), True]
)
def test_so_are_those_of_an_updates_minibatches(tmp_path, stops):
  agent = Minibatches(
    network=functools.partial(
      networks.ActorCritic, torso=networks.MLPTorso(hidden=(4,))
    ),
    optimizer=dj.call(optax.sgd, 0.5 if stops else 0.0),
    update_period=8,
    num_epochs=3,
    num_minibatches=2,
    target_kl=1e-9 if stops else None,
  )
  run = dj.train(
    agent,
    catch.Catch(),
    tmp_path,
    agent_steps=8,
    evaluation_episodes=0,
    quiet=True,
  )
  found = run.statistics
  steps = found['Train/GradientSteps']
  assert steps < 6 if stops else steps == 6
  # Of rewards that are 0 in the first eight steps.
  np.testing.assert_allclose(found['Train/Sum'], steps)
  np.testing.assert_allclose(found['Train/Mean'], 1)
  np.testing.assert_allclose(found['Train/Last'], 1)


@pytest.mark.parametrize(('limit', 'steps'), [(99, 6), (3, 3)])
def test_of_minibatches_the_last_is_the_last_that_was_taken(limit, steps):
  data = jnp.arange(6.0)
  rows = np.arange(6)[:, None]  # the first row, then the second, ...

  def loss_fn(params, minibatch):
    number = minibatch[0]
    metrics = {'Mean': number, 'Sum': number, 'Last': number}
    return jnp.sum(params), metrics

  optimizer = optax.sgd(0.0)
  _, _, metrics = optimization.descend(
    loss_fn,
    optimizer,
    jnp.zeros(2),
    optimizer.init(jnp.zeros(2)),
    data,
    rows,
    lambda metrics: metrics['Last'] >= limit,
    {'Sum': 'sum', 'Last': 'last'},
  )
  taken = data[:steps]
  assert metrics['GradientSteps'] == steps
  assert metrics['Mean'] == taken.mean()
  assert metrics['Sum'] == taken.sum()
  assert metrics['Last'] == taken[-1]
