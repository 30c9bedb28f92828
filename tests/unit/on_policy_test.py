"""On-policy agents in both engines: rollouts are those of the acting policy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dopamine_jax import networks
from dopamine_jax.agents import ppo
from dopamine_jax.engines import compiled
from dopamine_jax.engines import plain_engine
from dopamine_jax.engines import python_engine
from tests import walk
from tests.unit import compiled_test

N, T = 2, 4
SEEDS = (5, 6)

small_ppo = functools.partial(
  ppo.PPO,
  network=functools.partial(
    networks.ActorCritic,
    torso=functools.partial(networks.MLPTorso, hidden=(4,)),
  ),
  optimizer=optax.sgd(1e-2),
  update_period=N * T,
  num_epochs=2,
  num_minibatches=2,
  normalize_observations=True,
  normalize_rewards=True,
)
make_engine = functools.partial(
  compiled_test.make_engine, walk.Walk(), num_envs=N
)
ENGINES = (python_engine.PythonEngine, compiled.CompiledEngine)
ALL = (plain_engine.PlainEngine, *ENGINES)


@functools.cache
def trained(engine, seeds):
  """Returns a run's first state, and metrics and state after each part."""
  one = make_engine(small_ppo, engine=engine, seeds=seeds)
  found = [({}, compiled_test.plain(one.state))]
  # Cut within a rollout, at its end and after its first step.
  for steps, cut in [(6, None), (8, 1), (18, 2), (2, 3), (38, 4)]:
    metrics = compiled_test.run(one, steps, cut)
    found.append((metrics, compiled_test.plain(one.state)))
  return found


@pytest.mark.parametrize(
  ('seeds', 'engines'),
  # That one seed is as each of several is tested below, and elsewhere that
  # engines are the same for one: it takes no other way for these agents. The
  # plain engine's steps are those of the Python engine in `compiled_test`.
  [
    pytest.param((5,), ALL, marks=pytest.mark.slow),
    pytest.param(SEEDS, ALL, marks=pytest.mark.slow),
    (SEEDS, ENGINES),
  ],
  ids=['1 seed', '2 seeds', '2 seeds, without the plain engine'],
)
def test_all_engines_train_the_same(seeds, engines):
  plain, *others = (trained(engine, seeds) for engine in engines)
  for other in others:
    compiled_test.assert_equal(plain[0], other[0])
    compiled_test.assert_close(plain, other)
  _, state = plain[-1]
  assert np.all(state.updates == 72 // (N * T))


@pytest.mark.parametrize(
  ('engine', 'i'),
  [
    # Of which several are as the compiled engine's, which are each as one.
    pytest.param(ENGINES[0], 0, marks=pytest.mark.slow),
    (ENGINES[1], 1),
  ],
)
def test_several_seeds_train_as_each_would_alone(engine, i):
  _, together = trained(engine, SEEDS)[-1]
  _, alone = trained(engine, SEEDS[i : i + 1])[-1]
  own = jax.tree.map(lambda leaf: leaf[i], together)
  compiled_test.assert_close(own, alone)


class Scribe(ppo.PPO):
  """Its action is the number of its updates, and its update tells of them."""

  def act(self, state, observation, step, key, *, explore):
    return jnp.full(len(observation), state.updates)

  def update(self, state, sample, key):
    t = sample.transition
    metrics = {
      'Lowest': jnp.min(t.action).astype(jnp.float32) - state.updates,
      'Highest': jnp.max(t.action).astype(jnp.float32) - state.updates,
      'Ends': jnp.sum(t.last).astype(jnp.float32),
    }
    return state.replace(updates=state.updates + 1), metrics, sample.weight


@pytest.mark.parametrize('engine', ENGINES)
def test_a_rollout_is_all_of_the_parameters_that_are_updated(engine):
  scribe = functools.partial(Scribe, **small_ppo.keywords)
  one = make_engine(scribe, engine=engine)
  # The first action too: nothing is random.
  np.testing.assert_array_equal(one.state.experience.action, [0, 0])
  for steps, cut in [(8, None), (6, 1), (2, None), (16, 2)]:
    metrics = compiled_test.run(one, steps, cut)
    if metrics:
      assert (metrics['Lowest'], metrics['Highest']) == (0, 0)
  assert one.state.updates == 4


def test_a_cut_within_a_rollout_ends_its_episodes_there():
  environment = walk.Walk(length=10_000)
  scribe = functools.partial(Scribe, **small_ppo.keywords)
  engine = compiled_test.make_engine(environment, scribe, num_envs=N)
  assert compiled_test.run(engine, 6, 1) == {}
  # Both were cut after their third step, and none of the others ended.
  assert compiled_test.run(engine, 2)['Ends'] == N
  assert compiled_test.run(engine, 8)['Ends'] == 0


def test_without_a_saved_replay_a_run_learns_again_after_a_whole_rollout():
  engine = make_engine(small_ppo)
  due = [int(engine._updates_due_at(steps)) for steps in range(2, 34, 2)]
  assert due == [0, 0, 0, 1] * 4
  engine.replay_began = 12
  due = [int(engine._updates_due_at(steps)) for steps in range(14, 34, 2)]
  # At 16 it would hold only half of one.
  assert due == [0, 0, 0, 0, 0, 1, 0, 0, 0, 1]
