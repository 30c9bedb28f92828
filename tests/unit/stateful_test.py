"""Layers that differ in training, against NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dopamine_jax import errors
from dopamine_jax import networks
from dopamine_jax import settings
from dopamine_jax.networks import variables

KEY = jax.random.key(0)


def train(module, kept, *inputs, key=KEY):
  """Returns what a pass for training gives, and the variables after it."""
  given = variables.training(kept, key)
  y = networks.apply(module, given, *inputs)
  return y, networks.Variables(given.params, given.collections)


@pytest.mark.parametrize('momentum', [1.5, -3.0])
def test_momentum_is_a_part(momentum):
  for layer in (networks.BatchNorm, networks.BatchRenorm):
    with pytest.raises(errors.UserError, match='momentum = '):
      layer(momentum=momentum)


def test_batch_renormalization_is_the_papers():
  epsilon, momentum, r_max, d_max = 1e-3, 0.9, 1.5, 0.3
  layer = networks.BatchRenorm(
    r_max=r_max, d_max=d_max, warm_up=1, full_after=3, momentum=momentum
  )
  rng = np.random.default_rng(0)
  batches = rng.normal(2.0, 3.0, size=(5, 4, 2, 3)).astype(np.float32)
  kept = jax.jit(functools.partial(variables.init, layer))(KEY, batches[0])
  kept = kept.replace(params={'scale': jnp.arange(1.0, 4), 'bias': jnp.ones(3)})
  step = jax.jit(functools.partial(train, layer))
  mean, var = np.zeros(3), np.ones(3)
  limited = 0
  for i, x in enumerate(batches):
    # Passes 0 and 1 are batch normalization, 2 has half of the limits.
    part = [0, 0, 0.5, 1, 1][i]
    high, far = 1 + part * (r_max - 1), part * d_max
    of_batch, spread = x.mean((0, 1)), np.sqrt(x.var((0, 1)) + epsilon)
    std = np.sqrt(var + epsilon)
    r = np.clip(spread / std, 1 / high, high)
    d = np.clip((of_batch - mean) / std, -far, far)
    limited += np.sum(r == high) + np.sum(np.abs(d) == far)
    expected = ((x - of_batch) / spread * r + d) * [1, 2, 3] + 1
    mean = momentum * mean + (1 - momentum) * of_batch
    var = momentum * var + (1 - momentum) * x.var((0, 1))
    y, kept = step(kept, x)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
  assert 0 < limited < 30
  assert kept.collections['batch_stats']['count'] == 5
  y = jax.jit(functools.partial(networks.apply, layer))(kept, batches[0])
  expected = (batches[0] - mean) / np.sqrt(var + epsilon) * [1, 2, 3] + 1
  np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


def test_its_corrections_have_no_gradient():
  # With neither limit reached, the derivative is that of batch normalization
  # times r: d y / d x = r (1 - 1/B - z z' / B) / std for one feature.
  layer = networks.BatchRenorm(r_max=50.0, d_max=50.0, warm_up=1, full_after=2)
  x = np.array([[0.0], [1.0], [3.0]], np.float32)
  kept = jax.jit(functools.partial(variables.init, layer))(KEY, x)
  kept.collections['batch_stats']['count'] = jnp.int32(2)
  y = lambda x: train(layer, kept, x)[0][:, 0]  # noqa: E731
  jacobian = jax.jit(jax.jacobian(y))(x)[..., 0]
  std = np.sqrt(x.var() + 1e-3)
  z = (x - x.mean()) / std
  r = std / np.sqrt(1 + 1e-3)
  expected = r * (np.eye(3) - 1 / 3 - z @ z.T / 3) / std
  np.testing.assert_allclose(jacobian, expected, atol=1e-5)


@pytest.mark.parametrize(
  'wrong', [{'r_max': 0.5}, {'warm_up': 9, 'full_after': 9}, {'epsilon': 0.0}]
)
def test_limits_that_can_not_be_are_refused(wrong):
  with pytest.raises(settings.SettingError, match=next(iter(wrong))):
    networks.BatchRenorm(**wrong)


def test_batch_normalization_is_by_the_batch_in_training_alone():
  layer = networks.BatchNorm(momentum=0.5)
  x = np.array([[1.0], [3.0]], np.float32)
  y, kept = train(
    layer, jax.jit(functools.partial(variables.init, layer))(KEY, x), x
  )
  np.testing.assert_allclose(y, [[-1], [1]], atol=1e-4)
  found = kept.collections['batch_stats']
  np.testing.assert_allclose([found['mean'], found['var']], [[1], [1]])
  np.testing.assert_allclose(networks.apply(layer, kept, x), [[0], [2]], 1e-4)


def test_dropout_leaves_out_its_part_in_training_alone():
  layer = networks.Dropout(rate=0.25)
  x = jnp.ones((100, 100))
  kept = jax.jit(functools.partial(variables.init, layer))(KEY, x)
  given = variables.training(kept, KEY)
  first, second = (networks.apply(layer, given, x) for _ in range(2))
  np.testing.assert_allclose(np.unique(first), [0, 1 / 0.75])
  assert abs(np.mean(first == 0) - 0.25) < 0.02
  assert np.any(first != second)  # each pass has a key of its own
  np.testing.assert_array_equal(networks.apply(layer, kept, x), x)
  # A copy that has no gradient is not for training.
  copy = jax.lax.stop_gradient(given)
  np.testing.assert_array_equal(networks.apply(layer, copy, x), x)


def test_dropout_as_an_activation_is_that_of_droq():
  x = jnp.array([[-2.0, 1.0, 4.0]])
  network = networks.MLP(
    num_outputs=1,
    hidden=(8,),
    activation=functools.partial(networks.dropout_relu, layer_norm=True),
  )
  params = jax.jit(functools.partial(variables.init, network))(KEY, x).params[
    'MLPTorso_0'
  ]
  assert sorted(params) == ['Dense_0', 'LayerNorm_0']


def test_spectral_norms_become_one_where_they_are_asked_for():
  network = networks.SpectralNorm(
    network=functools.partial(networks.MLP, hidden=(6,)),
    num_outputs=2,
    layers=('*MLPTorso_0*',),
  )
  x = jnp.eye(4)
  kept = jax.jit(functools.partial(variables.init, network))(KEY, x)
  step = jax.jit(lambda kept: train(network, kept, x)[1])
  for _ in range(60):
    kept = step(kept)
  layers = kept.params['MLP_0']
  first, last = (
    np.asarray(each['Dense_0']['kernel'])
    for each in (layers['MLPTorso_0'], layers)
  )
  first = first / np.linalg.svd(first)[1][0]
  expected = np.maximum(first, 0) @ last  # biases are zero
  y = networks.apply(network, kept, x)
  np.testing.assert_allclose(y, expected, rtol=1e-3, atol=1e-3)
  vectors = kept.collections['singular_vectors']
  assert list(vectors) == ['MLPTorso_0.Dense_0.kernel']
