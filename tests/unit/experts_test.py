"""Mixtures of experts, by loops over samples, tokens and slots."""

import functools

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dopamine_jax import errors
from dopamine_jax import networks
from dopamine_jax.agents import dqn
from dopamine_jax.networks import experts

B, T, D, H = 3, 7, 4, 5
TOKENS = np.random.default_rng(0).normal(size=(B, T, D)).astype(np.float32)


def applied(module, tokens=TOKENS):
  """Returns what a module gives, and its parameters as NumPy arrays."""
  params = jax.jit(module.init)(jax.random.key(1), tokens)['params']
  # Biases other than zero, so that they matter.
  params = jax.tree.map(lambda x: x + 0.1, params)
  out = jax.jit(module.apply)({'params': params}, tokens)
  return out, jax.tree.map(lambda x: np.asarray(x, np.float64), params)


def expert(params, e, x):
  """Returns what the expert `e` makes of one token."""
  own = params['Experts_0']
  x = np.maximum(x @ own['hidden_kernel'][e] + own['hidden_bias'][e], 0)
  return x @ own['output_kernel'][e] + own['output_bias'][e]


def softmax(x):
  x = np.exp(x - x.max())
  return x / x.sum()


@pytest.mark.parametrize('normalized', [True, False])
@pytest.mark.parametrize(('capacity', 'slots'), [(1.0, 3), (0.5, 2), (2.0, 5)])
def test_soft_experts_share_means_of_tokens(normalized, capacity, slots):
  module = experts.SoftMoE(
    num_experts=3, units=H, capacity=capacity, normalized=normalized
  )
  found, params = applied(module)
  phi = params['phi']
  assert phi.shape == (D, 3, slots)
  for b in range(B):
    x = TOKENS[b].astype(np.float64)
    seen = x
    if normalized:
      seen = x / np.linalg.norm(x, axis=1, keepdims=True)
      phi = params['phi'] / np.linalg.norm(params['phi'], axis=0)
      phi = params['scale'] * phi
    logits = np.einsum('td,dep->tep', seen, phi)
    made = np.zeros((3, slots, D))
    for e in range(3):
      for p in range(slots):
        made[e, p] = expert(params, e, softmax(logits[:, e, p]) @ x)
    for t in range(T):
      weights = softmax(logits[t].ravel()).reshape(3, slots)
      expected = np.einsum('ep,epd->d', weights, made)
      np.testing.assert_allclose(found[b, t], expected, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize('k', [1, 2])
@pytest.mark.parametrize(('capacity', 'drops'), [(0.5, True), (3.0, False)])
def test_a_router_sends_tokens_until_an_expert_is_full(k, capacity, drops):
  module = experts.TopKMoE(num_experts=3, k=k, units=H, capacity=capacity)
  found, params = applied(module)
  slots = int(np.ceil(k * T * capacity / 3))
  dropped = 0
  for b in range(B):
    x = TOKENS[b].astype(np.float64)
    gates = np.stack([softmax(row) for row in x @ params['router']['kernel']])
    expected, taken = np.zeros((T, D)), np.zeros(3, int)
    for choice in range(k):
      for t in range(T):
        e = np.argsort(-gates[t])[choice]
        if taken[e] < slots:
          expected[t] += gates[t, e] * expert(params, e, x[t])
        dropped += taken[e] >= slots
        taken[e] += 1
    np.testing.assert_allclose(found[b], expected, rtol=2e-4, atol=1e-5)
  assert bool(dropped) is drops


def test_simplicial_units_are_probabilities():
  found, params = applied(
    experts.Simplicial(groups=2, units=3, temperature=0.5)
  )
  layer = params['Dense_0']
  for b in range(B):
    x = TOKENS[b].ravel() @ layer['kernel'] + layer['bias']
    expected = [softmax(x[:3] / 0.5), softmax(x[3:] / 0.5)]
    np.testing.assert_allclose(found[b], expected, rtol=1e-4)


@pytest.mark.parametrize(
  ('tokens', 'shape'), [('pixel', (6, 4)), ('map', (4, 6)), ('sample', (1, 24))]
)
def test_tokens_are_pixels_maps_or_samples(tokens, shape):
  maps = np.arange(48, dtype=np.float32).reshape(2, 2, 3, 4)

  class Given(experts.modules.Module):
    def __call__(self, observation):
      return observation

  found = experts.Mixture(Given(), Given(), tokens).apply({}, maps)
  expected = maps.reshape(2, 6, 4)
  if tokens == 'map':
    expected = expected.swapaxes(1, 2)
  assert expected[0].reshape(shape).shape == shape
  np.testing.assert_array_equal(found, expected.reshape(2, -1))


def test_a_flat_torso_is_refused():
  module = experts.Mixture(networks.NatureTorso())
  with pytest.raises(errors.UserError, match='with `flat = False`'):
    jax.eval_shape(
      module.init, jax.random.key(0), jnp.zeros((1, 16, 16, 4), jnp.uint8)
    )
  with pytest.raises(errors.UserError, match='more than num_experts = 2'):
    experts.TopKMoE(num_experts=2, k=3)


@pytest.mark.parametrize('mixture', [experts.SoftMoE, experts.TopKMoE])
def test_any_agent_of_values_learns_through_it(mixture):
  agent = dqn.DQN(
    network=functools.partial(
      experts.MixtureNetwork,
      torso=networks.MinAtarTorso(flat=False),
      mixture=mixture(num_experts=2, units=8),
    ),
    observation_space=gymnasium.spaces.Box(0, 1, (4, 4, 2)),
    action_space=gymnasium.spaces.Discrete(3),
  )
  seen = np.random.default_rng(0).random((8, 4, 4, 2), np.float32)
  params = jax.jit(agent.init)(jax.random.key(0), seen).params

  def loss(params):
    q = agent.q_values(params, seen, jax.random.key(0))
    return jnp.mean(jnp.square(q - 1))

  gradient = jax.jit(jax.grad(loss))(params)
  for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
    assert np.any(np.asarray(leaf) != 0), path
