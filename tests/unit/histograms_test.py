"""Histograms of parameters are right.

That nothing depends on them is tested in `observers_test`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dopamine_jax import errors
from dopamine_jax import networks
from dopamine_jax import runner as runner_lib
from dopamine_jax.agents import dqn
from dopamine_jax.engines import seed_axis
from dopamine_jax.environments import classic
from dopamine_jax.metrics import histograms
from dopamine_jax.replay import uniform
from tests import walk
from tests.unit import health_test

spread_of = jax.jit(histograms.spread_of)


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


@pytest.mark.parametrize('numbers', [range(100), [-3, 5.5], [0.1, 0.2, 0.7]])
def test_a_histogram_is_numpys(numbers):
  numbers = np.array(numbers, np.float32)
  spread = spread_of(numbers.reshape(-1, 1))
  counts, edges = np.histogram(numbers, bins=30)
  np.testing.assert_array_equal(spread.counts, counts)
  np.testing.assert_allclose(spread.edges, edges, rtol=1e-6, atol=1e-6)
  np.testing.assert_allclose(spread.total, numbers.sum())
  np.testing.assert_allclose(spread.squares, np.square(numbers).sum())


def test_numbers_that_are_all_the_same_have_a_histogram():
  # Such as biases before the first update.
  spread = spread_of(np.ones((2, 3)))
  assert np.sum(spread.counts) == 6
  np.testing.assert_allclose([spread.edges[0], spread.edges[-1]], [0.5, 1.5])


def of(seeds):
  """Returns the histograms of an engine before its first step."""
  engine = health_test.make_engine(agent=make_agent, seeds=seeds)
  return list(histograms.Histograms(engine).measure(1, 0.0))


def test_each_seed_has_its_own_parameters():
  together = of((0, 1))
  for seed in (0, 1):
    own, alone = [h for h in together if h.seed == seed], of((seed,))
    assert len(own) == len(alone) > 0
    for one, other in zip(own, alone, strict=True):
      assert (one.name, one.seed) == (other.name, other.seed)
      np.testing.assert_allclose(one.edges, other.edges, rtol=1e-3, atol=1e-5)
      np.testing.assert_allclose(one.squares, other.squares, rtol=1e-3)
  assert len({h.squares for h in together if 'kernel' in h.name}) == 2 * 2


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
    # As DQN's.
    pytest.param(
      *(walk.Walk(), health_test.make_pqn, {'MLPTorso_0', 'Dense_0'}),
      marks=pytest.mark.slow,
    ),
    # Several networks, and a scalar: PPO has both.
    pytest.param(
      *(classic.Pendulum(), health_test.make_sac),
      {'actor', 'critics', 'log_temperature'},
      marks=pytest.mark.slow,
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
