"""Probes whose every part must be seen, and whose actions are several."""

import functools

import gymnasium
from gymnasium import spaces
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dopamine_jax import networks
from dopamine_jax import runner as runner_lib
from dopamine_jax import values
from dopamine_jax.agents import dqn
from dopamine_jax.agents import ppo
from dopamine_jax.environments import gym
from dopamine_jax.playing import trained
from dopamine_jax.replay import uniform


class Parts(gymnasium.Env):
  """Episodes of one step; 1 for the action that both parts together tell.

  No part alone says anything of it.
  """

  observation_space = spaces.Dict(
    kind=spaces.Discrete(2, start=3), number=spaces.Box(-1, 1, (1,), np.float32)
  )
  action_space = spaces.Discrete(2, start=1)

  def reset(self, *, seed=None, options=None):
    super().reset(seed=seed)
    self.first, self.second = self.np_random.integers(0, 2, 2)
    return see(self.first, self.second), {}

  def step(self, action):
    right = action - 1 == self.first ^ self.second
    seen = see(self.first, self.second)
    return seen, float(right), True, False, {}


class Several(Parts):
  """Episodes of one step; the share of choices that are their part's."""

  action_space = spaces.MultiDiscrete([2, 2], start=[0, 5])

  def step(self, action):
    right = [action[0] == self.first, action[1] - 5 == self.second]
    seen = see(self.first, self.second)
    return seen, float(np.mean(right)), True, False, {}


def see(first, second):
  return {'kind': int(3 + first), 'number': np.float32([2 * second - 1])}


gymnasium.register('Encoded/Parts-v0', Parts, disable_env_checker=True)
gymnasium.register('Encoded/Several-v0', Several, disable_env_checker=True)
EVERY = {
  'kind': jnp.uint8([0, 0, 1, 1]),
  'number': jnp.float32([[-1], [1], [-1], [1]]),
}
Policy = functools.partial(
  ppo.PPO,
  update_period=64,
  num_epochs=4,
  num_minibatches=2,
  optimizer=values.call(optax.adam, 1e-2),
)
Values = functools.partial(
  dqn.DQN,
  network=functools.partial(networks.MLP, hidden=(32,)),
  replay=functools.partial(
    uniform.UniformReplay, capacity=1_000, batch_size=32, min_history=64
  ),
  optimizer=values.call(optax.adam, 1e-2),
  update_period=2,
  target_update_period=2,
  epsilon=1.0,
)


def act_on_every(agent, id, base_dir, steps):
  """Returns the agent, its state and its actions after some training."""
  runner_lib.Runner(
    agent=agent,
    environment=gym.Gym(id=id),
    num_iterations=1,
    training_steps=steps,
    num_envs=2,
    collectors=(),
  ).train(base_dir, quiet=True)
  loaded = trained.load(base_dir)
  key = jax.random.key(0)
  seen = loaded.state, EVERY, jnp.int32(0), key
  return loaded, loaded.agent.act(*seen, explore=False).tolist()


def test_values_follow_from_all_parts(tmp_path):
  loaded, actions = act_on_every(Values, 'Encoded/Parts-v0', tmp_path, 1_000)
  assert actions == [0, 1, 1, 0]
  q = loaded.agent.q_values(loaded.state.params, EVERY, jax.random.key(0))
  expected = [[1, 0], [0, 1], [0, 1], [1, 0]]
  np.testing.assert_allclose(q, expected, atol=0.2)


# Values of the same are found above; PPO's policy is in `probes_test`, and that
# of several actions in `distributions_test`.
@pytest.mark.slow
@pytest.mark.parametrize(
  ('id', 'expected'),
  [
    ('Parts', [0, 1, 1, 0]),
    ('Several', [[0, 0], [0, 1], [1, 0], [1, 1]]),
  ],
)
def test_a_policy_follows_from_all_parts(id, expected, tmp_path):
  _, actions = act_on_every(Policy, f'Encoded/{id}-v0', tmp_path, 2_560)
  assert actions == expected
