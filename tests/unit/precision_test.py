"""Mixed precision: what has 16 bits, and what keeps 32."""

import functools
import re

from flax import linen as nn
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dopamine_jax import agent as agent_lib
from dopamine_jax import config
from dopamine_jax import errors
from dopamine_jax import networks
from dopamine_jax import runner
from dopamine_jax.agents import sac
from dopamine_jax.learning import actor_critic
from dopamine_jax.networks import heads
from dopamine_jax.networks import predictive
from dopamine_jax.networks import variables

KEY = jax.random.key(0)
SEEN = np.float32(np.random.default_rng(0).normal(size=(7, 3)))


class Noisy(nn.Module):
  num_outputs: int = 2

  @nn.compact
  def __call__(self, x):
    return heads.NoisyDense(self.num_outputs)(x)


class Plain(nn.Module):
  """Of Flax's own layers, as a user might write it."""

  num_outputs: int = 2

  @nn.compact
  def __call__(self, x):
    x = nn.LayerNorm()(nn.Dense(16)(x))
    return nn.Dense(self.num_outputs)(nn.relu(x))


class Normalized(nn.Module):
  num_outputs: int = 2

  @nn.compact
  def __call__(self, x):
    x = networks.batch_normalized_relu(nn.Dense(16)(x))
    return nn.Dense(self.num_outputs)(x)


def products(function, *given):
  """Returns the types of all matrix products and convolutions of a program."""
  text = jax.jit(function).lower(*given).as_text()
  lines = re.findall(r'stablehlo\.(?:dot_general|convolution).*', text)
  # That with the identity draws noise: see `layers.once`.
  lines = [line for line in lines if 'tensor<8x8xf32>' not in line]
  assert lines
  return {kind for line in lines for kind in re.findall(r'x([a-z]+\d+)>', line)}


def types_of(tree):
  return {str(x.dtype) for x in jax.tree.leaves(tree)}


# The slow ones are made of the same layers as the others.
@pytest.mark.parametrize(
  ('network', 'seen'),
  [
    (networks.MLP(hidden=(16,)), SEEN),
    pytest.param(*(networks.MLP, SEEN), marks=pytest.mark.slow),
    pytest.param(
      *(networks.MinAtarCNN, np.ones((2, 10, 10, 4), bool)),
      marks=pytest.mark.slow,
    ),
    (networks.NatureCNN, np.full((2, 36, 36, 1), 200, np.uint8)),
    (networks.ActorCritic, SEEN),
    pytest.param(*(networks.SimBa, SEEN), marks=pytest.mark.slow),
    (Noisy, SEEN),
    (Plain, SEEN),
    (Normalized, SEEN),
  ],
  ids=lambda x: getattr(x, '__name__', type(x).__name__),
)
def test_products_have_16_bits_and_the_rest_has_32(network, seen):
  module = networks.mixed_precision(network, num_outputs=2)
  rngs = {'params': KEY, 'noise': KEY}
  params = jax.jit(functools.partial(variables.init, module))(rngs, seen)
  assert types_of(params) == {'float32'}

  def total(learnt):
    given = variables.with_learnt(params, learnt)
    given = variables.training(given, KEY)
    found = networks.apply(module, given, seen, key=KEY)
    left = variables.collections(given)
    return sum(map(jnp.sum, jax.tree.leaves(found))), (found, left)

  learnt = networks.learnt(params)
  gradient, (found, left) = jax.jit(jax.grad(total, has_aux=True))(learnt)
  assert types_of((gradient, found, left)) == {'float32'}
  assert products(total, learnt) == {'bf16'}
  assert products(jax.grad(total, has_aux=True), learnt) == {'bf16'}
  if not variables.has_any(params):
    means = heads.without_noise(params)  # drawn by the way to a layer
    apply = jax.jit(networks.apply, static_argnums=0)
    found = apply(module, means, seen)
    expected = apply(module.network, means['network'], seen)
    jax.tree.map(
      lambda x, y: np.testing.assert_allclose(x, y, rtol=0.05, atol=0.03),
      *(found, expected),
    )


def sample_of(action):
  batch = agent_lib.Transition(
    observation=SEEN,
    action=action,
    reward=SEEN[:, 0],
    discount=np.full(7, 0.9, np.float32),
    next_observation=SEEN[::-1],
  )
  return agent_lib.Sample(batch, np.arange(7), np.ones(7, np.float32))


def test_agents_take_it_as_their_network():
  space = gymnasium.spaces.Box(-9, 9, (3,))
  bindings = [
    'dqn.DQN.network = @networks.mixed_precision',
    'networks.mixed_precision.network = @networks.MLP',
    'networks.MLP.hidden = (8,)',
    'networks.MLP.low = None',
    'networks.MLP.high = None',
  ]
  run = config.load(['dqn_cartpole'], bindings).build(runner.Runner)
  agent = run.agent(
    observation_space=space, action_space=gymnasium.spaces.Discrete(2)
  )
  state = jax.jit(agent.init)(KEY, SEEN[:1])
  sample = sample_of(np.arange(7) % 2)
  assert products(agent.update, state, sample, KEY) == {'bf16'}
  new, *_ = jax.jit(agent.update)(state, sample, KEY)
  assert types_of((new.params, new.target_params)) == {'float32'}

  half = functools.partial(networks.mixed_precision, networks.MLP)
  agent = sac.SAC(
    observation_space=space,
    action_space=gymnasium.spaces.Box(-1, 1, (2,)),
    actor=actor_critic.Actor(network=half),
    critics=actor_critic.Critics(network=half),
    actor_optimizer=optax.sgd(0.1),
    critic_optimizer=optax.sgd(0.1),
  )
  state = jax.jit(agent.init)(KEY, SEEN[:1])
  sample = sample_of(np.tanh(SEEN[:, :2]))
  assert products(agent.update, state, sample, KEY) == {'bf16'}


def test_a_network_with_several_passes_is_refused():
  with pytest.raises(errors.UserError, match=r'beside __call__ \(encode, pred'):
    networks.mixed_precision(predictive.SPRNetwork, num_outputs=2)
  networks.mixed_precision(networks.NatureTorso(flat=False))
  with pytest.raises(errors.UserError, match='has no network: set it'):
    networks.mixed_precision(num_outputs=2)


@pytest.mark.parametrize(
  'network',
  [
    actor_critic.Actor(hidden=(8,)),
    functools.partial(networks.Encoded, network=networks.MLP),
    networks.SpectralNorm,
    networks.mixed_precision(networks.MLP(num_outputs=2)),
  ],
  ids=['Actor', 'Encoded', 'SpectralNorm', 'MixedPrecision'],
)
def test_what_has_a_network_of_its_own_is_refused(network):
  with pytest.raises(errors.UserError, match=r'wrap that, by \w+\.network = '):
    networks.mixed_precision(network, num_outputs=2)


def test_statistics_of_rounded_numbers_are_refused():
  module = networks.mixed_precision(networks.RunningNorm)
  params = jax.jit(functools.partial(variables.init, module))(KEY, SEEN)
  with pytest.raises(errors.UserError, match='would normalize numbers that'):
    networks.apply(module, params, SEEN)
