"""Tests of layers.py: nn.Dense is the oracle of our dense layer."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dopamine_jax.networks import layers

KEY = jax.random.key(0)
SMALL, LARGE = (16, 8), (128, 512)  # below and above what is transposed
FEW, MANY = 5, 40  # outputs whose gradients are, and are not


def normal(*shape):
  return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def loss(layer, params, x):
  return jnp.sum(jnp.sin(layer.apply(params, x)))


# One row shows what it is without a bias, which no shape changes.
@pytest.mark.parametrize(
  ('shape', 'features', 'use_bias'),
  [
    pytest.param(
      *(shape, features, use_bias),
      marks=()
      if use_bias or (shape, features) == (SMALL, MANY)
      else pytest.mark.slow,
    )
    for shape in ((3,), SMALL, LARGE, (2, 3, 4))
    for features in (FEW, MANY)
    for use_bias in (True, False)
  ],
)
def test_parameters_numbers_and_gradients_are_those_of_flax(
  shape, features, use_bias
):
  ours, oracle = (
    make(features, use_bias=use_bias, bias_init=nn.initializers.normal())
    for make in (layers.Dense, nn.Dense)
  )

  @jax.jit
  def both(x):
    params = ours.init(KEY, x)
    found, expected = (
      jax.value_and_grad(loss, argnums=(1, 2))(layer, params, x)
      for layer in (ours, oracle)
    )
    return params, oracle.init(KEY, x), found, expected

  params, params_of_flax, found, expected = both(normal(*shape))
  jax.tree.map(np.testing.assert_array_equal, params, params_of_flax)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
    found,
    expected,
  )


@pytest.mark.parametrize('features', [FEW, MANY])
@pytest.mark.parametrize('shape', [SMALL, LARGE])
def test_over_seeds_each_has_its_own_gradient(shape, features):
  layer = layers.Dense(features)
  x = normal(3, *shape)
  init = jax.jit(jax.vmap(layer.init))
  params = jax.device_get(init(jax.random.split(KEY, 3), x))

  def gradient(params, x):
    return jax.grad(loss, argnums=1)(layer, params, x)['params']['kernel']

  found = np.asarray(jax.jit(jax.vmap(gradient))(params, x))
  alone = jax.jit(gradient)
  for i in range(3):
    expected = alone(jax.tree.map(lambda leaf, i=i: leaf[i], params), x[i])
    np.testing.assert_allclose(found[i], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('outputs', [FEW, MANY])
def test_second_derivatives_and_forward_mode(outputs):
  x, kernel = normal(*SMALL), np.ones((8, outputs), np.float32)

  def f(kernel):
    return jnp.sum(layers.multiply(x, kernel) ** 2)

  @jax.jit
  def derivatives(kernel):
    _, forward = jax.jvp(f, (kernel,), (kernel,))
    return f(kernel), forward, jax.hessian(f)(kernel)

  # sum((x k)^2) has the Hessian 2 x'x in each column of k, and 0 between them.
  value, forward, hessian = jax.device_get(derivatives(kernel))
  np.testing.assert_allclose(hessian[:, 0, :, 0], 2 * x.T @ x, rtol=1e-4)
  np.testing.assert_array_equal(hessian[:, 0, :, 1], 0)
  np.testing.assert_allclose(forward, 2 * value, rtol=1e-5)


def test_bytes_are_multiplied_as_numbers():
  x = np.array([[200, 100]], np.uint8)
  np.testing.assert_array_equal(layers.multiply(x, jnp.ones((2, 1))), [[300.0]])


@pytest.mark.parametrize(
  ('shape', 'outputs', 'count'),
  [(SMALL, MANY, 1), (LARGE, MANY, 0), (SMALL, FEW, 2), (LARGE, FEW, 2)],
)
def test_small_inputs_or_gradients_of_few_outputs_are_transposed_first(
  shape, outputs, count
):
  x, kernel = np.ones(shape), np.ones((shape[1], outputs), np.float32)
  gradient = jax.grad(lambda kernel: jnp.sum(layers.multiply(x, kernel) ** 2))
  text = jax.jit(gradient).lower(kernel).as_text()
  assert text.count('optimization_barrier') == count


@pytest.mark.parametrize('shape', [(), (1,), (8,), (3, 5), (4, 1, 1)])
def test_what_is_computed_once_is_the_same(shape):
  x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
  once = jax.jit(layers.once)
  np.testing.assert_array_equal(once(x), x)
  seeds = np.stack([x, -2 * x])
  np.testing.assert_array_equal(jax.vmap(once)(seeds), seeds)


@pytest.mark.usefixtures('optimized')
def test_what_is_computed_once_is_not_written_into_its_readers():
  def brightened(images, few):
    return images * layers.once(few * few + 1)

  images, few = jnp.ones((4, 5, 5)), jnp.ones((4, 1, 1))
  program = jax.jit(brightened).lower(images, few).compile()
  root = program.as_text().split('ENTRY')[1].split('ROOT')[1].split('\n')[0]
  assert '%images' in root and '%few' not in root
