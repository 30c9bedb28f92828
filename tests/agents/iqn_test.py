"""IQN against Algorithm 1 and eq. 4, written as loops in NumPy."""

import functools

from flax import linen as nn
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dopamine_jax import agent as agent_lib
from dopamine_jax import config
from dopamine_jax import errors
from dopamine_jax import networks
from dopamine_jax.agents import dqn
from dopamine_jax.agents import iqn
from dopamine_jax.metrics import inspection
from tests import linear

NUM_ACTIONS = 3


class Scaled(nn.Module):
  """Quantile tau of action a: (1 + tau) * (observation @ kernel)[a]."""

  num_outputs: int

  @nn.compact
  def __call__(self, observation, tau=None):
    shape = (observation.shape[-1], self.num_outputs)
    kernel = self.param('kernel', nn.initializers.normal(), shape)
    tau = jnp.zeros((len(observation), 1)) if tau is None else tau
    return (1 + tau)[..., None] * (observation @ kernel)[:, None]


class Constant(Scaled):
  """All quantiles are one: observation @ kernel."""

  @nn.compact
  def __call__(self, observation, tau=None):
    return super().__call__(observation, None if tau is None else 0 * tau)


@functools.cache  # compiles once for all tests
def make(num_actions=NUM_ACTIONS, **settings):
  numbers = {
    'num_tau_samples': 5,
    'num_tau_prime_samples': 4,
    'num_quantile_samples': 3,
  }
  return linear.make(
    iqn.IQN, num_actions, **{'network': Scaled} | numbers | settings
  )


def taus(observation, key, num):
  """Returns what each agent here draws, whatever its settings."""
  kernel = np.zeros((linear.NUM_FEATURES, NUM_ACTIONS))
  quantiles = linear.jitted(make().quantiles, static_argnums=3)
  tau, _ = quantiles(linear.params_of(kernel), observation, key, num)
  return np.asarray(tau, np.float64)


def expected(agent, kernel, target_kernel, batch, _):
  """Returns each transition's loss [B] and gradient [B, F, A]."""
  key, kappa = jax.random.key(0), agent.kappa
  target_key, select_key = (jax.random.fold_in(key, i) for i in (1, 2))
  num_select, num_target = 3, 4
  tau = taus(batch.observation, key, 5)
  if agent.double:
    tau_select = taus(batch.next_observation, select_key, num_select)
    tau_target = taus(batch.next_observation, target_key, num_target)
  else:
    both = taus(batch.next_observation, target_key, 7)
    tau_select, tau_target = both[:, :num_select], both[:, num_select:]
  select_kernel = kernel if agent.double else target_kernel
  batch = jax.tree.map(lambda x: np.asarray(x, np.float64), batch)
  losses = np.zeros(len(batch.reward))
  gradients = np.zeros((len(losses), *kernel.shape))
  for i, action in enumerate(batch.action.astype(int)):
    now, then = batch.observation[i], batch.next_observation[i]
    means = [np.mean((1 + tau_select[i]) * v) for v in then @ select_kernel]
    chosen = np.argmax(means)
    for m in range(5):
      for j in range(num_target):
        value = (1 + tau_target[i, j]) * (then @ target_kernel)[chosen]
        u = batch.reward[i] + batch.discount[i] * value
        u -= (1 + tau[i, m]) * (now @ kernel)[action]
        if abs(u) <= kappa:
          huber, by_u = u**2 / 2, u
        else:
          huber, by_u = kappa * (abs(u) - kappa / 2), kappa * np.sign(u)
        weight = abs(tau[i, m] - (u < 0)) / kappa / num_target
        losses[i] += weight * huber
        gradients[i, :, action] -= weight * by_u * (1 + tau[i, m]) * now
  return losses, gradients


@pytest.mark.parametrize('double', [False, True])
@pytest.mark.parametrize('kappa', [0.5, 1.0])
def test_an_update_agrees_with_numpy(kappa, double):
  agent = make(kappa=kappa, double=double)
  for seed in range(3):
    problem = linear.random_problem(seed, NUM_ACTIONS, NUM_ACTIONS)
    linear.assert_update(agent, problem, *expected(agent, *problem))


# Observation 1 has q = (0, 0, 1) online and (3, 5, 4) by the target network.
KERNEL = [[0, 2, 0], [0, 0, 1]]
TARGET_KERNEL = [[9, 9, 9], [3, 5, 4]]
# From observation 0, where q = 2, by action 1 to observation 1.
BATCH = linear.make_batch([[1, 0]], [1], [1], [0.5], [[0, 1]])


@pytest.mark.parametrize(
  ('double', 'discount', 'error'),
  [
    (False, 0.5, 1.5),  # 1 + 0.5 * 5 - 2
    (True, 0.5, 1.0),  # 1 + 0.5 * 4 - 2
    (False, 0.0, -1.0),
    (True, 0.0, -1.0),
  ],
)
def test_the_target_is_of_the_best_action_unless_the_episode_ended(
  double, discount, error
):
  agent = make(network=Constant, double=double, kappa=10.0)
  batch = BATCH.replace(discount=np.float32([discount]))
  tau = taus(batch.observation, jax.random.key(0), 5)
  weight = np.abs(tau - (error < 0)).sum()
  np.testing.assert_allclose(
    linear.losses(agent, KERNEL, TARGET_KERNEL, batch),
    [weight * error**2 / 2 / 10],
    rtol=1e-5,
  )


def test_without_kappa_the_loss_is_linear():
  agent = make(network=Constant, kappa=0.0)
  tau = taus(BATCH.observation, jax.random.key(0), 5)
  np.testing.assert_allclose(
    linear.losses(agent, KERNEL, TARGET_KERNEL, BATCH),
    [tau.sum() * 1.5],
    rtol=1e-5,
  )


def test_importance_weights_scale_each_transitions_gradient():
  # Two transitions that share no weight of the network.
  agent = make(num_actions=1)
  batch = linear.make_batch(
    [[1, 0], [0, 1]], [0, 0], [1, 1], [0, 0], [[0, 0], [0, 0]]
  )
  zeros = np.zeros((2, 1))
  plain, _, _ = linear.update(agent, zeros, zeros, batch, [1.0, 1.0])
  weighted, _, _ = linear.update(agent, zeros, zeros, batch, [0.25, 0.0])
  assert (plain > 0).all()
  np.testing.assert_allclose(weighted[0], 0.25 * plain[0], rtol=1e-6)
  assert weighted[1] == 0


def test_taus_are_uniform_and_each_observation_has_its_own():
  tau = taus(np.zeros((100, 2)), jax.random.key(1), 100)
  assert len(np.unique(tau)) > 9_900
  assert tau.min() >= 0
  assert tau.max() < 1
  # 5 standard deviations of the mean and of the variance.
  np.testing.assert_allclose(tau.mean(), 1 / 2, atol=5 * np.sqrt(1 / 12) / 100)
  np.testing.assert_allclose(tau.var(), 1 / 12, atol=5 * np.sqrt(1 / 180) / 100)


def test_q_values_are_means_over_k_samples():
  agent, key = make(num_quantile_samples=7), jax.random.key(2)
  observation = np.eye(2)
  tau = taus(observation, key, 7)
  q = jax.jit(agent.q_values)(linear.params_of(KERNEL), observation, key)
  np.testing.assert_allclose(
    q, (1 + tau.mean(axis=1, keepdims=True)) * np.array(KERNEL), rtol=1e-6
  )


def test_metrics_report_the_samples_that_are_learnt():
  agent = make()
  kernel, target, batch, weight = linear.random_problem(1, 3, 3)
  tau = taus(batch.observation, jax.random.key(0), 5)
  values = np.asarray(batch.observation) @ kernel
  q = (1 + tau.mean(axis=1, keepdims=True)) * values
  _, metrics, _ = linear.update(agent, kernel, target, batch, weight)
  np.testing.assert_allclose(metrics['QMean'], q.mean(), rtol=1e-4)
  np.testing.assert_allclose(metrics['QMax'], q.max(), rtol=1e-4)


def small_network(num_outputs):
  return iqn.ImplicitQuantileNetwork(
    num_outputs, torso=networks.MLPTorso(hidden=(16,)), hidden=(32,)
  )


def test_metrics_cost_an_update_nothing():

  class Unmeasured(iqn.IQN):
    def losses(self, *arguments):
      return super().losses(*arguments)[0], {}

  def flops(cls):
    agent = linear.make(cls, NUM_ACTIONS, network=small_network)
    _, _, batch, weight = linear.random_problem(0, NUM_ACTIONS, 1)
    key = jax.random.key(0)
    state = jax.eval_shape(agent.init, key, batch.observation)
    sample = agent_lib.Sample(batch, np.arange(5), np.float32(weight))
    update = jax.jit(agent.update).lower(state, sample, key)
    return update.compile().cost_analysis()['flops']

  np.testing.assert_allclose(flops(iqn.IQN), flops(Unmeasured), rtol=0.01)


def test_the_network_embeds_tau_in_cosines():
  network = iqn.ImplicitQuantileNetwork(
    2, torso=networks.MLPTorso(hidden=()), hidden=(4,), num_cosines=6
  )
  rng = np.random.default_rng(0)
  observation, tau = rng.normal(size=(5, 3)), rng.uniform(size=(5, 7))
  observation, tau = observation.astype(np.float32), tau.astype(np.float32)
  params = jax.jit(network.init)(jax.random.key(0), observation, tau)
  # Biases start at 0, which would hide them.
  params = jax.tree.map(lambda p: np.asarray(p) + 0.1, params)
  layers = [params['params'][f'Dense_{i}'] for i in range(3)]

  def dense(x, layer):
    return np.tensordot(x, layer['kernel'], 1) + layer['bias']

  values = np.asarray(jax.jit(network.apply)(params, observation, tau))
  assert values.shape == (5, 7, 2)
  for b in range(5):
    for n in range(7):
      cosines = np.array([np.cos(np.pi * i * tau[b, n]) for i in range(6)])
      phi = np.maximum(dense(cosines, layers[0]), 0)
      hidden = np.maximum(dense(observation[b] * phi, layers[1]), 0)
      np.testing.assert_allclose(
        values[b, n], dense(hidden, layers[2]), rtol=1e-4, atol=1e-5
      )


def test_without_taus_the_network_gives_medians():
  network = small_network(2)

  @jax.jit
  def both(observation):
    params = network.init(jax.random.key(0), observation)
    halves = jnp.full((3, 1), 0.5)
    return (
      network.apply(params, observation),
      network.apply(params, observation, halves),
    )

  np.testing.assert_array_equal(*both(np.eye(3)))


def test_the_network_shows_what_its_layers_do():
  # For `health`: of the torso, of tau's embedding and of the hidden layer.
  agent = linear.make(iqn.IQN, NUM_ACTIONS, network=small_network)

  def see(observation):
    anatomy = agent.anatomy(agent.init(jax.random.key(0), observation))['']
    inputs = (observation,)
    return inspection.see(anatomy, anatomy.params, inputs, jax.random.key(1))

  seen = jax.jit(see)(np.eye(2))
  assert sorted(x.shape[-1] for x in seen.magnitudes.values()) == [16, 16, 32]
  assert seen.features.shape == (2, 32)


def test_the_torso_is_set_in_gin(tmp_path):
  file = tmp_path / 'iqn.gin'
  file.write_text("""
from __gin__ import dynamic_registration
from dopamine_jax import networks
from dopamine_jax.agents import iqn
iqn.IQN.network = @iqn.ImplicitQuantileNetwork
iqn.ImplicitQuantileNetwork.torso = @networks.MLPTorso()
iqn.ImplicitQuantileNetwork.hidden = (5,)
networks.MLPTorso.hidden = (7, 6)
""")
  loaded = config.load([file])
  agent = loaded.build(
    iqn.IQN,
    observation_space=gymnasium.spaces.Box(0, 1, (4,), np.float32),
    action_space=gymnasium.spaces.Discrete(2),
  )

  def act(key):
    params = agent.init(key, jnp.zeros((1, 4))).params
    state = dqn.DQNState(params, params, (), 0)
    return params, agent.act(state, jnp.zeros((3, 4)), 0, key, explore=False)

  params, actions = jax.eval_shape(act, jax.random.key(0))
  assert not loaded.unused()
  kernels = {p.shape for p in jax.tree.leaves(params) if p.ndim == 2}
  assert kernels == {(4, 7), (7, 6), (64, 6), (6, 5), (5, 2)}
  assert actions.shape == (3,)


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'num_tau_samples': 0}, 'num_tau_samples = 0.*at least 1'),
    ({'num_tau_prime_samples': 0}, 'num_tau_prime_samples = 0.*at least 1'),
    ({'num_quantile_samples': 0}, 'num_quantile_samples = 0.*at least 1'),
    ({'kappa': -1.0}, r'kappa = -1\.0.*at least 0'),
  ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
  with pytest.raises(errors.UserError, match=f'IQN.{message}'):
    make(**settings)
