"""Histograms of parameters are right, and nothing depends on them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dopamine_jax import errors
from dopamine_jax import networks
from dopamine_jax import runner as runner_lib
from dopamine_jax.agents import dqn
from dopamine_jax.engines import compiled
from dopamine_jax.engines import python_engine
from dopamine_jax.engines import seed_axis
from dopamine_jax.environments import classic
from dopamine_jax.metrics import base
from dopamine_jax.metrics import csv_file
from dopamine_jax.metrics import histograms
from dopamine_jax.replay import uniform
from dopamine_jax.training import fingerprint
from tests import kept as kept_lib
from tests import walk
from tests.unit import health_test

ENGINES = (python_engine.PythonEngine, compiled.CompiledEngine)


def make_agent(**spaces):
  return dqn.DQN(
    **spaces,
    network=lambda num_outputs: networks.MLP(num_outputs, hidden=(8,)),
    replay=lambda **kwargs: uniform.UniformReplay(
      **kwargs, capacity=200, batch_size=4, min_history=20
    ),
    optimizer=optax.sgd(1e-2),
    target_update_period=16,
    epsilon=0.5,
  )


class Kept(base.Collector):
  """Keeps what it is given."""

  def __init__(self):
    self.histograms = []
    self.iterations = []

  def write_histograms(self, histograms):
    self.histograms += histograms

  def write(self, statistics):
    # Histograms come first, so that one flush does for both.
    assert not self.histograms or (
      self.histograms[-1].iteration == statistics[0].iteration
    )
    self.iterations.append(statistics[0].iteration)


def train(folder, *, num_seeds=1, num_iterations=3, **settings):
  kept = kept_lib.keep(Kept())
  runner = runner_lib.Runner(
    agent=make_agent,
    environment=walk.Walk(),
    num_iterations=num_iterations,
    training_steps=15,
    collectors=[csv_file.CSV, kept_lib.newest],
    **settings,
  )
  runner.train(
    folder, num_seeds=num_seeds, quiet=True, say=lambda message: None
  )
  return kept


@pytest.mark.parametrize('numbers', [range(100), [-3, 5.5], [0.1, 0.2, 0.7]])
def test_a_histogram_is_numpys(numbers):
  numbers = np.array(numbers, np.float32)
  spread = histograms.spread_of(jnp.asarray(numbers).reshape(-1, 1))
  counts, edges = np.histogram(numbers, bins=30)
  np.testing.assert_array_equal(spread.counts, counts)
  np.testing.assert_allclose(spread.edges, edges, rtol=1e-6, atol=1e-6)
  np.testing.assert_allclose(spread.total, numbers.sum())
  np.testing.assert_allclose(spread.squares, np.square(numbers).sum())


def test_numbers_that_are_all_the_same_have_a_histogram():
  # Such as biases before the first update.
  spread = histograms.spread_of(jnp.ones((2, 3)))
  assert np.sum(spread.counts) == 6
  np.testing.assert_allclose([spread.edges[0], spread.edges[-1]], [0.5, 1.5])


@pytest.mark.parametrize('engine', ENGINES)
def test_histograms_change_nothing_else(tmp_path, engine):
  off = train(tmp_path / 'off', num_seeds=2, engine=engine)
  on = train(tmp_path / 'on', num_seeds=2, engine=engine, histograms=True)
  assert fingerprint.fingerprint(tmp_path / 'off') == fingerprint.fingerprint(
    tmp_path / 'on'
  )
  assert off.histograms == []
  assert off.iterations == on.iterations == [1, 2, 3]
  layers = ('Dense_0', 'MLPTorso_0/Dense_0')
  assert {(h.iteration, h.seed, h.name) for h in on.histograms} == {
    (iteration, seed, f'Parameters/{layer}/{part}')
    for iteration in (1, 2, 3)
    for seed in (0, 1)
    for layer in layers
    for part in ('bias', 'kernel')
  }
  assert len(on.histograms) == 3 * 2 * 4
  assert {h.agent_steps for h in on.histograms} == {15, 30, 45}


@pytest.mark.parametrize('num_seeds', [1, 2])
def test_each_seed_has_its_own_parameters(tmp_path, num_seeds):
  kept = train(tmp_path, num_seeds=num_seeds, num_iterations=2, histograms=True)
  alone = train(tmp_path / 'solo', num_iterations=2, histograms=True)
  first = [h for h in kept.histograms if h.seed == 0]
  assert len(first) == len(alone.histograms) > 0
  for one, other in zip(first, alone.histograms, strict=True):
    assert one.name == other.name
    np.testing.assert_allclose(one.edges, other.edges, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(one.squares, other.squares, rtol=1e-3)


def test_what_is_not_finite_has_no_histogram():
  class Engine:
    seeds = (0,)
    steps = 3
    axis = seed_axis.SeedAxis(1)

  found = {'a': jnp.array([1.0, jnp.nan]), 'b': jnp.array([1.0, 2.0])}
  one = object.__new__(histograms.Histograms)
  one._engine = Engine()
  one._engine.state = type('State', (), {})()
  one._engine.state.agent = type('Agent', (), {'params': found})()
  one._program = jax.jit(histograms._spreads)
  assert [h.name for h in one.measure(1, 0.0)] == ['Parameters/b']


class Hidden(dqn.DQN):
  def init(self, key, observation):
    return {'hidden': super().init(key, observation)}

  def act(self, state, *arguments, **kwargs):
    return super().act(state['hidden'], *arguments, **kwargs)


def make_hidden(**spaces):
  told = make_agent(**spaces)
  return Hidden(
    **spaces, network=told.network, replay=told.replay, optimizer=optax.sgd(1)
  )


def test_an_agent_without_params_is_told(tmp_path):
  runner = runner_lib.Runner(
    agent=make_hidden,
    environment=walk.Walk(),
    num_iterations=1,
    training_steps=15,
    collectors=[],
    histograms=True,
  )
  with pytest.raises(errors.UserError, match='that of Hidden has none'):
    runner.train(tmp_path, quiet=True)


@pytest.mark.parametrize(
  ('environment', 'agent', 'parts'),
  [
    (walk.Walk(), health_test.make_ppo, {'network', 'log_std'}),
    (walk.Walk(), health_test.make_pqn, {'MLPTorso_0', 'Dense_0'}),
    (
      classic.Pendulum(),
      health_test.make_sac,
      {'actor', 'critics', 'log_temperature'},
    ),
  ],
  ids=['ppo', 'pqn', 'sac'],
)
def test_agents_of_other_families_have_histograms(environment, agent, parts):
  engine = health_test.make_engine(environment, agent)
  found = list(histograms.Histograms(engine).measure(1, 0.0))
  assert {h.name.split('/')[1] for h in found} == parts
  params = jax.tree.leaves(engine.state.agent.params)
  assert sum(h.counts.sum() for h in found) == sum(x.size for x in params)


def test_a_run_may_go_on_with_histograms(tmp_path):
  train(tmp_path / 'a', num_iterations=2)
  kept = train(tmp_path / 'a', num_iterations=3, histograms=True)
  assert {h.iteration for h in kept.histograms} == {3}
