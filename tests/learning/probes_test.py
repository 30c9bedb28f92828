"""Agents find the known values of each probe, through the whole framework."""

import functools

from dopamine_jax.agents import dqn
from dopamine_jax.agents import ppo
from dopamine_jax.agents import pqn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dopamine_jax import networks
from dopamine_jax.replay import uniform
from tests import probes

GAMMA = 0.8


def make_agent(n_step, num_envs):
  return functools.partial(
    dqn.DQN,
    network=functools.partial(networks.MLP, hidden=(32,)),
    replay=functools.partial(
      uniform.UniformReplay, capacity=512, batch_size=32, min_history=64
    ),
    optimizer=optax.adam(1e-2),
    gamma=GAMMA,
    n_step=n_step,
    # One update a call of the engine: the fewest functions to compile.
    update_period=num_envs,
    target_update_period=10 * num_envs,
    # The values are those of any policy; a random one sees every action.
    epsilon=1.0,
  )


# With n = 3, where episodes are longer than one step; in two environments.
RUNS = [(name, 1, 1) for name in probes.VALUES] + [
  (f'Probe/{name}-v0', 3, 2)
  for name in ('Discount', 'Truncation', 'LateTermination', 'LastReward')
]


@pytest.mark.parametrize(('name', 'n_step', 'num_envs'), RUNS)
def test_dqn_finds_the_values(name, n_step, num_envs, tmp_path):
  agent, state, statistics = probes.train(
    make_agent(n_step, num_envs),
    name,
    tmp_path,
    steps=400 * num_envs,
    num_envs=num_envs,
  )

  # From the end of the warm-up, 64 agent steps, on.
  assert statistics['Train/Updates'] == 401 - 64 // num_envs
  expected = np.array(probes.VALUES[name](GAMMA))
  q = agent.q_values(
    state.params, probes.observations(len(expected)), jax.random.key(0)
  )
  np.testing.assert_allclose(q, expected, atol=0.1)


# Rollouts of 16 steps in 2 environments, so that episodes go on beyond them.
ON_POLICY = {'update_period': 32, 'num_minibatches': 4, 'gamma': GAMMA}


@pytest.mark.parametrize('name', probes.VALUES)
def test_pqn_finds_the_values(name, tmp_path):
  agent = functools.partial(
    pqn.PQN,
    network=functools.partial(
      networks.MLP, hidden=(32,), activation=networks.normalized_relu
    ),
    optimizer=optax.adam(1e-2),
    num_epochs=4,
    q_lambda=0.5,
    epsilon=1.0,
    **ON_POLICY,
  )
  agent, state, statistics = probes.train(
    agent, name, tmp_path, steps=1_920, num_envs=2
  )
  assert statistics['Train/Updates'] == 60
  expected = np.array(probes.VALUES[name](GAMMA))
  q = agent.q_values(state.params, probes.observations(len(expected)))
  np.testing.assert_allclose(q, expected, atol=0.1)


small_ppo = functools.partial(
  ppo.PPO, optimizer=optax.adam(1e-2), num_epochs=4, **ON_POLICY
)


@pytest.mark.parametrize('name', probes.VALUES)
def test_ppo_finds_the_best_actions_and_their_values(name, tmp_path):
  agent, state, statistics = probes.train(
    small_ppo, name, tmp_path, steps=1_920, num_envs=2
  )
  assert statistics['Train/Updates'] == 60
  q = np.array(probes.VALUES[name](GAMMA))
  policy, value = agent.policy(state.params, probes.observations(len(q)))
  np.testing.assert_allclose(value, q.max(axis=1), atol=0.15)
  probabilities = jax.nn.softmax(policy.logits)
  worse = q < q.max(axis=1, keepdims=True)
  assert np.all(np.asarray(probabilities)[worse] < 0.1)


@pytest.mark.parametrize('normalized', [False, True])
def test_ppo_finds_continuous_actions(normalized, tmp_path):
  agent = functools.partial(
    small_ppo,
    # Beyond [-1, 1] nothing depends on the action: no step may lead there.
    optimizer=optax.adam(1e-3),
    update_period=128,
    normalize_observations=normalized,
    normalize_rewards=normalized,
  )
  agent, state, _ = probes.train(
    agent, 'Probe/Target-v0', tmp_path, steps=12_800, num_envs=4
  )
  actions = agent.act(
    state,
    probes.observations(2),
    jnp.int32(0),
    jax.random.key(0),
    explore=False,
  )
  # The environment's are twice as large.
  np.testing.assert_allclose(2 * actions[:, 0], probes.TARGETS, atol=0.2)
  assert np.all(state.params['log_std'] < -0.5)
