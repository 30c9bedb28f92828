"""PQN against the Q(lambda) of its paper in NumPy, one sample at a time."""

from flax import linen as nn
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dopamine_jax import agent as agent_lib
from dopamine_jax import errors
from dopamine_jax import networks
from dopamine_jax.agents import pqn

T, N, A, K = 5, 2, 3, 4
GAMMA, LAMBDA = 0.9, 0.7


class Linear(nn.Module):
  """Returns observation @ kernel."""

  num_outputs: int

  @nn.compact
  def __call__(self, observation):
    shape = (observation.shape[-1], self.num_outputs)
    return observation @ self.param('kernel', nn.initializers.normal(1), shape)


def make(**settings):
  return pqn.PQN(
    **{
      'observation_space': gymnasium.spaces.Box(-10, 10, (K,), np.float32),
      'action_space': gymnasium.spaces.Discrete(A),
      'network': Linear,
      'optimizer': optax.sgd(0.1),
      'update_period': T * N,
      'num_epochs': 1,
      'num_minibatches': 1,
      'gamma': GAMMA,
      'q_lambda': LAMBDA,
      'epsilon': 0.5,
      **settings,
    }
  )


def make_sample(seed=0):
  rng = np.random.default_rng(seed)
  observation = rng.normal(size=(T + 1, N, K)).astype(np.float32)
  terminated, truncated = rng.random((2, T, N)) < 0.25
  last = terminated | truncated
  other = rng.normal(size=(T, N, K)).astype(np.float32)
  return agent_lib.Sample(
    transition=agent_lib.Trajectory(
      observation=jnp.asarray(observation[:-1]),
      action=jnp.asarray(rng.integers(A, size=(T, N))),
      reward=jnp.asarray(rng.normal(size=(T, N)), jnp.float32),
      discount=jnp.where(terminated, 0.0, jnp.float32(GAMMA)),
      next_observation=jnp.asarray(
        np.where(last[..., None], other, observation[1:])
      ),
      last=jnp.asarray(last),
    ),
    index=jnp.zeros((T, N), jnp.int32),
    weight=jnp.ones((T, N)),
  )


def targets_by_hand(kernel, t):
  """R_t = r + discount (lambda R_{t+1} + (1 - lambda) max q_{t+1})."""
  targets = np.zeros((T, N))
  for n in range(N):
    for i in reversed(range(T)):
      following = best = np.max(t.next_observation[i, n] @ kernel)
      if i < T - 1 and not t.last[i, n]:
        following = LAMBDA * targets[i + 1, n] + (1 - LAMBDA) * best
      targets[i, n] = t.reward[i, n] + t.discount[i, n] * following
  return targets


@pytest.mark.parametrize('seed', range(4))
def test_an_update_of_one_minibatch_is_one_step_to_the_lambda_returns(seed):
  agent, sample = make(), make_sample(seed)
  t = jax.tree.map(np.asarray, sample.transition)
  state = jax.jit(agent.init)(jax.random.key(seed), jnp.zeros((N, K)))
  kernel = np.asarray(state.params['kernel'], np.float64)
  gradient, loss = np.zeros_like(kernel), 0.0
  errors_ = targets_by_hand(kernel, t)
  for i in range(T):
    for n in range(N):
      seen, action = t.observation[i, n], t.action[i, n]
      error = errors_[i, n] - seen @ kernel[:, action]
      gradient[:, action] -= error * seen / (T * N)
      loss += error**2 / 2 / (T * N)
  new, metrics, _ = UPDATE(state, sample, jax.random.key(0))
  np.testing.assert_allclose(metrics['Loss'], loss, rtol=1e-4)
  np.testing.assert_allclose(
    new.params['kernel'], kernel - 0.1 * gradient, rtol=1e-3, atol=1e-5
  )
  assert new.updates == 1


UPDATE = jax.jit(make().update)


def test_targets_stay_while_the_epochs_pass():
  agent = make(num_epochs=3_000, optimizer=optax.sgd(0.5))
  sample = make_sample()
  state = jax.jit(agent.init)(jax.random.key(0), jnp.zeros((N, K)))
  batch = jax.tree.map(np.asarray, agent.batch(state.params, sample.transition))
  new, *_ = jax.jit(agent.update)(state, sample, jax.random.key(0))
  # Each action's weights end at a least-squares fit of the first targets.
  for action in range(A):
    rows = batch.action == action
    seen, target = batch.observation[rows], batch.target[rows]
    fit = seen @ np.linalg.lstsq(seen, target)[0]
    found = seen @ new.params['kernel'][:, action]
    np.testing.assert_allclose(found, fit, atol=0.02)


def test_actions_are_greedy_but_for_epsilon():
  agent = make(epsilon=optax.linear_schedule(1.0, 0.0, 100))
  state = jax.jit(agent.init)(jax.random.key(0), jnp.zeros((N, K)))
  observation = jnp.ones((2_000, K))
  best = int(jnp.argmax(agent.q_values(state.params, observation[:1])))

  def share(step, explore=True, agent=agent):
    actions = agent.act(
      state, observation, step, jax.random.key(1), explore=explore
    )
    return np.mean(np.asarray(actions) == best)

  assert share(0) == pytest.approx(1 / 3, abs=0.05)
  assert share(50) == pytest.approx(2 / 3, abs=0.05)
  assert share(100) == 1
  assert share(0, explore=False) == 1
  noisy = agent.replace(evaluation_epsilon=0.6)
  assert share(0, False, noisy) == pytest.approx(0.6, abs=0.05)
  assert share(0, False, noisy.greedy()) == 1
  assert agent.schedules(25) == {'Epsilon': pytest.approx(0.75)}


def test_a_network_that_normalizes_its_layers_stays_bounded():
  network = networks.MLP(num_outputs=A, activation=networks.normalized_relu)
  params = jax.jit(network.init)(jax.random.key(0), jnp.ones((1, K)))
  q = [
    network.apply(params, scale * jnp.array([[1.0, -2.0, 3.0, 0.5]]))
    for scale in (1, 1e4)
  ]
  np.testing.assert_allclose(q[1], q[0], rtol=1e-2, atol=1e-2)
  assert np.abs(q[0]).max() > 0.05


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'q_lambda': 1.5}, 'q_lambda = 1.5 is out of range'),
    ({'epsilon': 2.0}, 'epsilon = 2.0 is out of range'),
    ({'num_minibatches': 4}, 'update_period = 10 is not a.*multiple'),
    (
      {'action_space': gymnasium.spaces.Box(-1, 1, (1,))},
      'action_space.*does not fit',
    ),
  ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
  with pytest.raises(errors.UserError, match=message):
    make(**settings)
