"""DQN finds the known values of each probe, through the whole framework."""

import functools

from dopamine_jax.agents import dqn
import jax
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
