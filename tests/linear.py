"""A linear network and small batches, for tests against NumPy.

Without a bias, an output of one-hot observation i is a number of row i of the
kernel, and its derivative by the kernel is the observation.
"""

import functools

from flax import linen as nn
import gymnasium
import jax
import numpy as np
import optax

from dopamine_jax import agent as agent_lib
from dopamine_jax.agents import dqn

NUM_FEATURES, BATCH_SIZE, RATE = 2, 5, 0.1
OBSERVATION_SPACE = gymnasium.spaces.Box(-10, 10, (NUM_FEATURES,), np.float32)

# An agent's method is another object each time that it is looked up, for which
# JAX would compile again. Python finds those of one agent equal.
jitted = functools.cache(jax.jit)


class Linear(nn.Module):
  """Returns observation @ kernel."""

  num_outputs: int

  @nn.compact
  def __call__(self, observation):
    shape = (observation.shape[-1], self.num_outputs)
    return observation @ self.param('kernel', nn.initializers.normal(), shape)


def make(cls, num_actions, **settings):
  return cls(
    **{
      'observation_space': OBSERVATION_SPACE,
      'action_space': gymnasium.spaces.Discrete(num_actions),
      'network': Linear,
      'optimizer': optax.sgd(RATE),
      **settings,
    }
  )


def params_of(kernel):
  return {'kernel': np.asarray(kernel, np.float32)}


def make_state(agent, kernel, target_kernel):
  params = params_of(kernel)
  return dqn.DQNState(
    params=params,
    target_params=params_of(target_kernel),
    optimizer_state=agent.optimizer.init(params),
    updates=np.int32(0),
  )


def make_sample(batch, weight=None):
  size = len(batch.reward)
  weight = np.ones(size) if weight is None else weight
  return agent_lib.Sample(
    transition=batch,
    index=np.arange(size),
    weight=np.asarray(weight, np.float32),
  )


def make_batch(observation, action, reward, discount, next_observation):
  return agent_lib.Transition(
    observation=np.asarray(observation, np.float32),
    action=np.asarray(action, np.int32),
    reward=np.asarray(reward, np.float32),
    discount=np.asarray(discount, np.float32),
    next_observation=np.asarray(next_observation, np.float32),
  )


def random_problem(seed, num_actions, num_outputs):
  """Returns an online kernel, a target kernel, a batch and weights."""
  rng = np.random.default_rng(seed)
  kernels = rng.normal(size=(2, NUM_FEATURES, num_outputs))
  batch = make_batch(
    rng.normal(size=(BATCH_SIZE, NUM_FEATURES)),
    rng.integers(num_actions, size=BATCH_SIZE),
    2 * rng.normal(size=BATCH_SIZE),
    rng.choice([0.0, 0.9, 0.81], size=BATCH_SIZE),
    rng.normal(size=(BATCH_SIZE, NUM_FEATURES)),
  )
  return *kernels, batch, rng.uniform(0.1, 1, BATCH_SIZE)


def losses(agent, kernel, target_kernel, batch, key=0):
  return np.asarray(
    jitted(agent.losses)(
      params_of(kernel), params_of(target_kernel), batch, jax.random.key(key)
    )[0]
  )


def update(agent, kernel, target_kernel, batch, weight, key=0):
  """Returns the new kernel, the metrics and the priorities."""
  state = make_state(agent, kernel, target_kernel)
  sample = make_sample(batch, np.float32(weight))
  state, metrics, priorities = jitted(agent.update)(
    state, sample, jax.random.key(key)
  )
  return np.asarray(state.params['kernel']), metrics, np.asarray(priorities)


def assert_update(agent, problem, expected_losses, expected_gradients, key=0):
  """Asserts one update, given each transition's loss and gradient [B, ...]."""
  kernel, target_kernel, batch, weight = problem
  new_kernel, metrics, priorities = update(
    agent, kernel, target_kernel, batch, weight, key
  )
  near = {'rtol': 1e-4, 'atol': 1e-5}
  gradient = np.tensordot(weight, expected_gradients, 1) / len(weight)
  np.testing.assert_allclose(new_kernel, kernel - RATE * gradient, **near)
  np.testing.assert_allclose(
    metrics['Loss'], np.mean(weight * expected_losses), **near
  )
  # Priorities are for the replay to weigh; only the loss is weighted.
  np.testing.assert_allclose(priorities, np.sqrt(expected_losses), **near)
