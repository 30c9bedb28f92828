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
SEEDS = (5, 6, 7)

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


@pytest.mark.parametrize('seeds', [(5,), SEEDS], ids=['1 seed', '3 seeds'])
def test_all_engines_train_the_same(seeds):
  plain, *others = (
    make_engine(small_ppo, engine=engine, seeds=seeds)
    for engine in (plain_engine.PlainEngine, *ENGINES)
  )
  for other in others:
    compiled_test.assert_equal(plain.state, other.state)
  # Cut within a rollout, at its end and after its first step.
  for steps, cut in [(6, None), (8, 1), (18, 2), (2, 3), (38, 4)]:
    metrics = compiled_test.run(plain, steps, cut)
    for other in others:
      compiled_test.assert_close(metrics, compiled_test.run(other, steps, cut))
      compiled_test.assert_close(plain.state, other.state)
  assert np.all(np.asarray(plain.state.updates) == 72 // (N * T))


def test_several_seeds_train_as_each_would_alone():
  together = make_engine(small_ppo, seeds=SEEDS)
  compiled_test.run(together, 48, 1)
  for i, seed in enumerate(SEEDS):
    alone = make_engine(small_ppo, seeds=(seed,))
    compiled_test.run(alone, 48, 1)
    own = jax.tree.map(lambda leaf, i=i: leaf[i], together.state)
    compiled_test.assert_close(own, alone.state)


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
