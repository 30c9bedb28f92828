"""Noisy layers and dueling heads, against their papers in NumPy."""

import functools

from flax import linen as nn
import jax
import numpy as np
import pytest

from dopamine_jax.networks import heads

X = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
PARAM_KEY, KEY, OTHER_KEY = (jax.random.key(i) for i in range(3))


def init(module, x=X):
  rngs = {'params': PARAM_KEY, 'noise': KEY}
  return jax.jit(module.init)(rngs, x)['params']


@functools.partial(jax.jit, static_argnums=0)
def apply(module, params, key=KEY, x=X):
  return module.apply({'params': params}, x, rngs={'noise': key})


def random_like(params):
  return jax.tree.map(
    lambda leaf: np.float32(
      np.random.default_rng(leaf.size).normal(size=leaf.shape)
    ),
    params,
  )


# One noisy layer.


def test_noisy_dense_starts_as_the_paper_says():
  params = init(heads.NoisyDense(2000, sigma0=0.5))
  # 4 inputs: means are uniform in [-1/2, 1/2], sigmas are 0.5 / 2.
  for name, shape in {'kernel': (4, 2000), 'bias': (2000,)}.items():
    means, sigmas = (
      np.asarray(params[each]) for each in (name, f'{name}_sigma')
    )
    assert means.shape == sigmas.shape == shape
    np.testing.assert_allclose(
      [means.min(), means.max()], [-0.5, 0.5], atol=0.01
    )
    np.testing.assert_allclose(means.std(), 1 / 12**0.5, atol=0.01)
    np.testing.assert_array_equal(sigmas, 0.25)


def test_noisy_dense_is_linear_in_factorised_noise():
  layer = heads.NoisyDense(3)
  params = random_like(init(layer))
  # The noise that the layer draws, read off the sigmas' derivatives.
  ones = np.ones((1, 4), np.float32)
  gradient = jax.jit(jax.grad(lambda p: apply(layer, p, x=ones).sum()))(params)
  of_weights, of_output = (
    np.asarray(gradient[name]) for name in ('kernel_sigma', 'bias_sigma')
  )
  of_input = of_weights[:, 0] / of_output[0]
  np.testing.assert_allclose(
    of_weights, np.outer(of_input, of_output), rtol=1e-4, atol=1e-6
  )
  weights = params['kernel'] + params['kernel_sigma'] * of_weights
  bias = params['bias'] + params['bias_sigma'] * of_output
  np.testing.assert_allclose(
    apply(layer, params), X @ weights + bias, rtol=1e-4, atol=1e-5
  )


def test_noise_is_a_gaussian_with_the_root_of_its_size():
  layer = heads.NoisyDense(20_000)
  params = jax.tree.map(np.zeros_like, jax.device_get(init(layer)))
  params['bias_sigma'] += 1.0
  noise = np.asarray(apply(layer, params))[0]
  # |noise| is the root of |N(0, 1)|: so its square has a mean of sqrt(2 / pi),
  # and its fourth power of 1.
  np.testing.assert_allclose(np.mean(noise), 0, atol=0.03)
  np.testing.assert_allclose(np.mean(noise**2), (2 / np.pi) ** 0.5, atol=0.03)
  np.testing.assert_allclose(np.mean(noise**4), 1, atol=0.05)


def test_a_whole_batch_sees_the_same_noise():
  layer = heads.NoisyDense(3)
  y = np.asarray(apply(layer, init(layer), x=np.tile(X[:1], (5, 1))))
  np.testing.assert_allclose(y, np.tile(y[:1], (5, 1)), rtol=1e-6)


def test_the_key_alone_decides_the_noise():
  layer = heads.NoisyDense(3)
  params = init(layer)
  first, again, other = (
    np.asarray(apply(layer, params, key)) for key in (KEY, KEY, OTHER_KEY)
  )
  np.testing.assert_array_equal(first, again)
  assert np.all(first != other)


class Siblings(nn.Module):
  """Two layers side by side."""

  @nn.compact
  def __call__(self, x):
    layer = functools.partial(heads.NoisyDense, 4)
    return layer()(x), layer()(x)


def test_layers_have_noise_of_their_own():
  params = init(Siblings())
  params = dict.fromkeys(params, params['NoisyDense_0'])
  first, second = jax.device_get(apply(Siblings(), params))
  assert np.all(first != second)
  # And without noise there is no difference left.
  first, second = apply(Siblings(), heads.without_noise(params))
  np.testing.assert_array_equal(first, second)


def test_without_noise_a_layer_is_nn_dense():
  layer = heads.NoisyDense(3)
  params = heads.without_noise(init(layer))
  assert set(params) == {'kernel', 'bias'}
  expected = apply(nn.Dense(3), params)
  for key in (KEY, OTHER_KEY):
    np.testing.assert_allclose(apply(layer, params, key), expected, rtol=1e-5)


def test_without_noise_leaves_other_parameters_alone():
  params = init(nn.Dense(3))
  jax.tree.map(
    np.testing.assert_array_equal, heads.without_noise(params), params
  )


# Heads.


@pytest.mark.parametrize('num_atoms', [1, 3])
def test_dueling_adds_centred_advantages_to_the_value(num_atoms):
  head = heads.Dueling(2 * num_atoms, num_atoms, hidden=(6,))
  params = random_like(init(head))
  outputs = np.asarray(apply(head, params)).reshape(5, 2, num_atoms)

  def stream(name, x):
    layers = params[name]
    x = np.maximum(
      x @ layers['Dense_0']['kernel'] + layers['Dense_0']['bias'], 0
    )
    return x @ layers['Dense_1']['kernel'] + layers['Dense_1']['bias']

  for i in range(5):
    value = stream('value', X[i])
    advantage = np.asarray(stream('advantage', X[i])).reshape(2, num_atoms)
    for atom in range(num_atoms):
      mean = (advantage[0, atom] + advantage[1, atom]) / 2
      for action in range(2):
        expected = value[atom] + advantage[action, atom] - mean
        np.testing.assert_allclose(
          outputs[i, action, atom], expected, rtol=1e-3, atol=1e-4
        )


def test_a_heads_layers_may_be_noisy():
  dense = functools.partial(heads.NoisyDense, sigma0=0.1)
  for head in (heads.Dueling(4, 2, (6,), dense), heads.Plain(4, (6,), dense)):
    params = init(head)
    names = {
      path[-2].key for path, _ in jax.tree_util.tree_leaves_with_path(params)
    }
    assert names == {'NoisyDense_0', 'NoisyDense_1'}
    first, other = (
      np.asarray(apply(head, params, key)) for key in (KEY, OTHER_KEY)
    )
    assert np.all(first != other)
    silent = heads.without_noise(params)
    first, other = (apply(head, silent, key) for key in (KEY, OTHER_KEY))
    np.testing.assert_array_equal(first, other)


def test_a_plain_head_rectifies_its_hidden_layers():
  dense = functools.partial(nn.Dense, kernel_init=nn.initializers.ones_init())
  head = heads.Plain(2, hidden=(3,), dense=dense)
  x = np.array([[1.0, 2.0], [-1.0, -2.0]], np.float32)
  # 1 + 2 = 3, three times; -3 is cut off.
  y = apply(head, init(head, x), x=x)
  np.testing.assert_array_equal(y, [[9, 9], [0, 0]])
