"""Networks: the shapes that papers state, and numbers known by hand."""

import functools

from flax import linen as nn
import gymnasium
import hypothesis
from hypothesis import strategies as st
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dopamine_jax import errors
from dopamine_jax import networks
from dopamine_jax import settings
from dopamine_jax.learning import encoding
from dopamine_jax.networks import convolution
from dopamine_jax.networks import heads
from dopamine_jax.networks import impala
from dopamine_jax.networks import initializers


def shapes(module, observation):
  params = jax.eval_shape(module.init, jax.random.key(0), observation)['params']
  return {
    '/'.join(key.key for key in path): leaf.shape
    for path, leaf in jax.tree_util.tree_leaves_with_path(params)
  }


def init(module, observation):
  # Compiled whole, which is faster than operation by operation.
  init = jax.jit(lambda key, x: module.init(key, x)['params'])
  return init(jax.random.key(0), observation)


def apply(module, params, x):
  return jax.jit(lambda p, x: module.apply({'params': p}, x))(params, x)


def pixels(*shape, seed=0):
  return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


# The convolution.


def normal(rng, *shape):
  return np.asarray(rng.normal(size=shape), np.float32)


pairs = st.tuples(st.integers(1, 5), st.integers(1, 5))


# Each example compiles, so few of them.
@hypothesis.settings(max_examples=10)
@hypothesis.given(
  window=pairs,
  strides=pairs,
  extra=pairs,
  padding=st.sampled_from(['SAME', 'VALID']),
)
# Dopamine's three layers, and a stride beyond the window.
@hypothesis.example((8, 8), (4, 4), (77, 77), 'SAME')
@hypothesis.example((4, 4), (2, 2), (18, 18), 'SAME')
@hypothesis.example((3, 3), (1, 1), (9, 9), 'SAME')
@hypothesis.example((1, 1), (4, 3), (6, 7), 'VALID')
def test_convolve_equals_xla_in_values_and_gradients(
  window, strides, extra, padding
):
  rng = np.random.default_rng(0)
  # At least as large as the window, or none fits.
  size = (n + k - 1 for n, k in zip(extra, window, strict=True))
  x, kernel = normal(rng, 2, *size, 3), normal(rng, *window, 3, 4)

  def by_xla(x, kernel):
    layout = ('NHWC', 'HWIO', 'NHWC')
    return lax.conv_general_dilated(
      x, kernel, strides, padding, dimension_numbers=layout
    )

  def ours(x, kernel):
    return convolution.convolve(x, kernel, strides, padding)

  shape = jax.eval_shape(by_xla, x, kernel).shape
  direction = normal(rng, *shape)

  @jax.jit
  def values_and_gradients(x, kernel, direction):
    both = [jax.vjp(convolve, x, kernel) for convolve in (ours, by_xla)]
    return [(y, vjp(direction)) for y, vjp in both]

  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3),
    *values_and_gradients(x, kernel, direction),
  )


@pytest.mark.parametrize('use_bias', [True, False])
@pytest.mark.parametrize('padding', ['SAME', 'VALID'])
def test_conv_equals_flax_in_parameters_and_values(padding, use_bias):
  x = normal(np.random.default_rng(0), 2, 9, 8, 3)
  settings = {
    'features': 4,
    'kernel_size': (4, 3),
    'strides': (2, 1),
    'padding': padding,
    'use_bias': use_bias,
    'bias_init': nn.initializers.normal(),
  }
  ours, theirs = convolution.Conv(**settings), nn.Conv(**settings)
  params = init(ours, x)
  jax.tree.map(np.testing.assert_array_equal, params, init(theirs, x))
  np.testing.assert_allclose(
    apply(ours, params, x),
    apply(theirs, params, x),
    rtol=1e-4,
    atol=1e-5,
  )


@pytest.mark.parametrize('dtype', [np.uint8, bool, np.int32])
def test_conv_takes_numbers_of_any_type_and_returns_float32(dtype):
  x = pixels(2, 6, 6, 3).astype(dtype)
  conv = convolution.Conv(4, (3, 3), (2, 2))
  params = init(conv, x)
  y = apply(conv, params, x)
  assert y.dtype == jnp.float32
  expected = apply(conv, params, x.astype(np.float32))
  np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-3)


def test_conv_over_seeds_equals_each_seed_alone():
  x = pixels(3, 2, 6, 6, 3)
  conv = convolution.Conv(4, (3, 3), (2, 2))
  keys = jax.random.split(jax.random.key(0), 3)
  variables = jax.jit(jax.vmap(conv.init))(keys, x)
  y = np.asarray(jax.jit(jax.vmap(conv.apply))(variables, x))
  alone, variables = jax.jit(conv.apply), jax.device_get(variables)
  for i in range(3):
    expected = alone(jax.tree.map(lambda leaf, i=i: leaf[i], variables), x[i])
    np.testing.assert_allclose(y[i], expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(
  ('backend', 'expected'), [('cpu', False), ('gpu', True), ('tpu', True)]
)
def test_only_accelerators_use_the_convolution_of_xla(
  backend, expected, monkeypatch
):
  monkeypatch.setattr(jax, 'default_backend', lambda: backend)
  jaxpr = jax.make_jaxpr(
    lambda x, w: convolution.convolve(x, w, (2, 2), 'SAME')
  )(jnp.ones((2, 6, 6, 3)), jnp.ones((3, 3, 3, 4)))
  assert ('conv_general_dilated' in str(jaxpr)) == expected


def test_both_ways_to_convolve_agree(monkeypatch):
  rng = np.random.default_rng(0)
  x, kernel = pixels(2, 9, 8, 3), normal(rng, 5, 4, 3, 2)

  def convolve():
    # A function of its own each time, or JAX would keep what it compiled.
    return jax.jit(lambda *args: convolution.convolve(*args, (3, 2), 'SAME'))(
      x, kernel
    )

  by_matmul = convolve()
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  by_xla = convolve()
  assert by_xla.dtype == by_matmul.dtype == jnp.float32
  np.testing.assert_allclose(by_matmul, by_xla, rtol=1e-4, atol=1e-2)


# The max-pooling.


@pytest.mark.parametrize('size', [(1, 2), (3, 4), (5, 5), (8, 7), (21, 42)])
@pytest.mark.parametrize('ties', [False, True])
def test_max_pool_equals_xla_in_values_and_gradients(size, ties):
  rng = np.random.default_rng(0)
  x = normal(rng, 2, *size, 3)
  x = np.sign(x) if ties else x

  def by_xla(x):
    return nn.max_pool(x, (3, 3), (2, 2), 'SAME')

  direction = normal(rng, *jax.eval_shape(by_xla, x).shape)

  @jax.jit
  def values_and_gradients(x, direction):
    both = [jax.vjp(pool, x) for pool in (convolution.max_pool, by_xla)]
    return [(y, *vjp(direction)) for y, vjp in both]

  assert 'select_and_scatter' not in str(
    jax.make_jaxpr(jax.grad(lambda x: convolution.max_pool(x).sum()))(x)
  )
  found, expected = values_and_gradients(x, direction)
  (y, gradient), (y_xla, gradient_xla) = found, expected
  np.testing.assert_array_equal(y, y_xla)
  np.testing.assert_allclose(gradient, gradient_xla, atol=1e-6)


def test_both_ways_to_pool_agree(monkeypatch):
  x = normal(np.random.default_rng(0), 2, 9, 8, 3)
  by_slices = jax.jit(lambda x: convolution.max_pool(x))(x)
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  by_xla = jax.jit(lambda x: convolution.max_pool(x))(x)
  np.testing.assert_array_equal(by_slices, by_xla)


# Networks of images.


def test_nature_cnn_has_the_shapes_of_dopamine_by_default():
  expected = {
    'NatureTorso_0/Conv_0/kernel': (8, 8, 4, 32),
    'NatureTorso_0/Conv_0/bias': (32,),
    'NatureTorso_0/Conv_1/kernel': (4, 4, 32, 64),
    'NatureTorso_0/Conv_1/bias': (64,),
    'NatureTorso_0/Conv_2/kernel': (3, 3, 64, 64),
    'NatureTorso_0/Conv_2/bias': (64,),
    'Dense_0/kernel': (11 * 11 * 64, 512),
    'Dense_0/bias': (512,),
    'Dense_1/kernel': (512, 6),
    'Dense_1/bias': (6,),
  }
  network = networks.NatureCNN(num_outputs=6)
  assert shapes(network, pixels(1, 84, 84, 4)) == expected


def test_nature_cnn_with_valid_padding_has_the_shapes_of_the_paper():
  network = networks.NatureCNN(num_outputs=6, padding='VALID')
  found = shapes(network, pixels(1, 84, 84, 4))
  assert found['Dense_0/kernel'] == (7 * 7 * 64, 512)
  # Mnih et al. (2015) has 1,687,206 parameters with 6 actions.
  assert sum(np.prod(shape) for shape in found.values()) == 1_687_206


def test_frames_without_a_stack_have_one_channel():
  frames = pixels(2, 40, 40)
  network = networks.NatureCNN(num_outputs=3, hidden=(8,))
  found = shapes(network, frames)
  assert found['NatureTorso_0/Conv_0/kernel'] == (8, 8, 1, 32)
  params = init(network, frames)
  np.testing.assert_allclose(
    apply(network, params, frames),
    apply(network, params, frames[..., None]),
    rtol=1e-5,
    atol=1e-6,
  )


@pytest.mark.parametrize('padding', ['SAME', 'VALID'])
def test_nature_cnn_equals_the_same_layers_of_flax(padding):
  x = pixels(2, 84, 84, 4)
  network = networks.NatureCNN(num_outputs=6, padding=padding, hidden=(8,))
  params = init(network, x)

  y = x.astype(np.float32) / 255
  for i, (features, size, stride) in enumerate(
    [(32, 8, 4), (64, 4, 2), (64, 3, 1)]
  ):
    conv = nn.Conv(
      features, (size, size), strides=(stride, stride), padding=padding
    )
    kernel = params['NatureTorso_0'][f'Conv_{i}']
    y = np.maximum(apply(conv, kernel, y), 0)
  y = y.reshape(2, -1) @ params['Dense_0']['kernel']
  y = np.maximum(y, 0) @ params['Dense_1']['kernel']  # biases are zero

  np.testing.assert_allclose(apply(network, params, x), y, rtol=1e-4, atol=1e-5)


def test_initializers_reach_every_kernel_and_biases_start_at_zero():
  network = networks.NatureCNN(
    num_outputs=3, hidden=(8,), kernel_init=nn.initializers.constant(2.0)
  )
  params = init(network, pixels(1, 40, 40, 4))
  for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    expected = {'kernel': 2.0, 'bias': 0.0}[path[-1].key]
    assert np.all(np.asarray(leaf) == expected), path


@pytest.mark.parametrize('width', [1, 2])
def test_impala_has_three_stages_of_five_convolutions(width):
  expected = {'Dense_0/kernel': (11 * 11 * 32 * width, 512)}
  expected['Dense_1/kernel'] = (512, 6)
  channels = 4
  for stage, features in enumerate((16, 32, 32)):
    for i in range(5 * stage, 5 * stage + 5):
      shape = (3, 3, channels, features * width)
      expected[f'ImpalaTorso_0/Conv_{i}/kernel'] = shape
      channels = features * width
  expected |= {
    name.replace('kernel', 'bias'): shape[-1:]
    for name, shape in expected.items()
  }
  network = impala.ImpalaCNN(num_outputs=6, width=width)
  assert shapes(network, pixels(1, 84, 84, 4)) == expected


def test_impala_equals_the_same_layers_of_flax():
  x = pixels(2, 20, 22, 4)
  torso = impala.ImpalaTorso()
  params = init(torso, x)
  layers = iter(range(15))

  @jax.jit
  def by_flax(params, y):
    def conv(x):
      kernel = params[f'Conv_{next(layers)}']['kernel']  # biases are zero
      layout = ('NHWC', 'HWIO', 'NHWC')
      return lax.conv_general_dilated(
        x, kernel, (1, 1), 'SAME', dimension_numbers=layout
      )

    for _ in range(3):
      y = nn.max_pool(conv(y), (3, 3), (2, 2), 'SAME')
      for _ in range(2):
        y = y + conv(nn.relu(conv(nn.relu(y))))
    return nn.relu(y).reshape(2, -1)

  features = apply(torso, params, x)
  assert features.shape == (2, 3 * 3 * 32)
  expected = by_flax(params, x.astype(np.float32) / 255)
  np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-4)


def test_minatar_cnn_has_the_shapes_of_the_paper_by_default():
  assert shapes(networks.MinAtarCNN(num_outputs=6), pixels(1, 10, 10, 4)) == {
    'MinAtarTorso_0/Conv_0/kernel': (3, 3, 4, 16),
    'MinAtarTorso_0/Conv_0/bias': (16,),
    'Dense_0/kernel': (8 * 8 * 16, 128),
    'Dense_0/bias': (128,),
    'Dense_1/kernel': (128, 6),
    'Dense_1/bias': (6,),
  }


def test_minatar_cnn_can_be_that_of_dopamine():
  network = networks.MinAtarCNN(num_outputs=6, padding='SAME', hidden=())
  assert shapes(network, pixels(1, 10, 10, 4)) == {
    'MinAtarTorso_0/Conv_0/kernel': (3, 3, 4, 16),
    'MinAtarTorso_0/Conv_0/bias': (16,),
    'Dense_0/kernel': (10 * 10 * 16, 6),
    'Dense_0/bias': (6,),
  }


def test_minatar_cnn_does_not_scale_its_binary_input():
  grid = np.ones((1, 10, 10, 4), bool)
  network = networks.MinAtarCNN(
    num_outputs=1, hidden=(), kernel_init=nn.initializers.ones_init()
  )
  # Each of 8 * 8 * 16 features sums 3 * 3 * 4 ones.
  y = apply(network, init(network, grid), grid)
  np.testing.assert_array_equal(y, [[8 * 8 * 16 * 36]])


@pytest.mark.parametrize(
  ('network', 'shape', 'message'),
  [
    (
      networks.NatureCNN(num_outputs=2),
      (1, 4),
      r'observations of shape .* have \(4,\); use networks.MLP for vectors',
    ),
    (
      networks.NatureCNN(num_outputs=2, padding='VALID'),
      (1, 10, 10, 4),
      "windows of 4x4 and padding='VALID' met an image of 1x1: no window fits",
    ),
  ],
)
def test_images_that_do_not_fit_are_refused(network, shape, message):
  with pytest.raises(errors.UserError, match=message):
    init(network, np.zeros(shape, np.uint8))


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: networks.NatureCNN(2, padding='same'), "expected 'SAME' or 'VAL"),
    (lambda: networks.MLP(2, hidden=(0,)), 'hidden = .* at least 1'),
    (lambda: networks.MLP(2, hidden=(1.5,)), 'expected Sequence of int'),
    (lambda: networks.MLP(2, low=0.0, high=1.0), 'expected Sequence of float'),
    (lambda: networks.MLP(2, low=(0.0,), high=(np.inf,)), 'is not finite'),
    (lambda: networks.MLP(0), 'num_outputs = 0 is too small'),
    (lambda: networks.MLP(2, activation=networks.MLP), 'makes jax.Array'),
    (lambda: networks.MLP(2, kernel_init=nn.relu), 'MLP.kernel_init = '),
    (
      lambda: networks.MLP(2, kernel_init=nn.initializers.xavier_uniform),
      'MLP.kernel_init = ',
    ),
    (lambda: networks.ActorCritic(2, torso=optax.adam), 'makes flax.Module'),
    (lambda: networks.FourierBasis(2, order=0), 'order = 0 is too small'),
    (lambda: heads.NoisyDense(2, sigma0=-1.0), 'sigma0 = -1.0 is too small'),
  ],
)
def test_settings_of_a_network_are_checked_when_it_is_made(make, message):
  with pytest.raises(settings.SettingError, match=message):
    make()


# Networks of vectors.


def test_mlp_has_two_layers_of_512_by_default():
  assert shapes(networks.MLP(num_outputs=2), np.zeros((1, 4))) == {
    'MLPTorso_0/Dense_0/kernel': (4, 512),
    'MLPTorso_0/Dense_0/bias': (512,),
    'MLPTorso_0/Dense_1/kernel': (512, 512),
    'MLPTorso_0/Dense_1/bias': (512,),
    'Dense_0/kernel': (512, 2),
    'Dense_0/bias': (2,),
  }


def linear_mlp(**settings):
  """An MLP without hidden layers that returns its input."""
  return networks.MLP(
    num_outputs=2,
    hidden=(),
    kernel_init=lambda key, shape, dtype: jnp.eye(*shape, dtype=dtype),
    **settings,
  )


@pytest.mark.parametrize('bounds', [tuple, list, np.array])
def test_mlp_maps_bounds_to_minus_one_and_one(bounds):
  network = linear_mlp(low=bounds([-1.2, 0.0]), high=bounds([0.6, 4.0]))
  # The ends, the middles, a quarter; last, outside the bounds: not clipped.
  x = np.array([[-1.2, 4.0], [-0.3, 2.0], [0.6, 1.0], [1.5, -4.0]])
  y = apply(network, init(network, x), x)
  expected = [[-1, 1], [0, 0], [1, -0.5], [2, -3]]
  np.testing.assert_allclose(y, expected, atol=1e-6)


def test_mlp_leaves_its_input_alone_without_bounds():
  x = np.array([[-7, 300]])
  network = linear_mlp()
  y = apply(network, init(network, x), x)
  assert y.dtype == jnp.float32
  np.testing.assert_array_equal(y, x)


def test_mlp_flattens_the_observation_and_keeps_the_batch():
  x = np.random.default_rng(0).normal(size=(5, 2, 3)).astype(np.float32)
  network = networks.MLP(num_outputs=2, hidden=(4,))
  params = init(network, x)
  np.testing.assert_allclose(
    apply(network, params, x),
    apply(network, params, x.reshape(5, 6)),
    rtol=1e-5,
    atol=1e-6,
  )


def test_mlp_applies_its_activation_after_each_hidden_layer():
  ones = nn.initializers.ones_init()
  network = networks.MLP(
    num_outputs=1, hidden=(2, 3), activation=jnp.square, kernel_init=ones
  )
  x = np.array([[1.0, 2.0]])
  # (1 + 2)^2 = 9, twice; (9 + 9)^2 = 324, three times; their sum.
  y = apply(network, init(network, x), x)
  np.testing.assert_allclose(y, [[972.0]])


@pytest.mark.parametrize(
  ('network', 'message'),
  [
    (
      networks.MLP(num_outputs=2, low=(0.0, 0.0)),
      'MLP needs both low and high to scale its input, and high is not set',
    ),
    (
      networks.MLP(num_outputs=2, low=(0.0, 0.0), high=(1.0, 1.0, 1.0)),
      r'MLP.high = \(1.0, 1.0, 1.0\) does not fit the observation, which has 2',
    ),
    (
      networks.MLP(num_outputs=2, low=(0.0, 1.0), high=(1.0, 1.0)),
      'bounds must be finite, and each low below its high',
    ),
    (
      networks.FourierBasis(num_outputs=2),
      'FourierBasis needs both low and high to scale its input, and low is not',
    ),
  ],
)
def test_bounds_that_do_not_fit_are_refused(network, message):
  with pytest.raises(errors.UserError, match=message):
    init(network, np.zeros((1, 2), np.float32))


def test_fourier_features_in_one_dimension():
  # cos(0), cos(pi / 3), cos(2 pi / 3), cos(pi).
  features = networks.fourier_features(jnp.array([[1 / 3], [0.0]]), order=3)
  expected = [[1, 0.5, -0.5, -1], [1, 1, 1, 1]]
  np.testing.assert_allclose(features, expected, atol=1e-6)


def test_fourier_features_in_two_dimensions():
  # For c = (0, 0), (0, 1), (1, 0), (1, 1) at x = (1, 1/2).
  features = networks.fourier_features(jnp.array([[1.0, 0.5]]), order=1)
  np.testing.assert_allclose(features, [[1, 0, -1, 0]], atol=1e-6)


def test_fourier_basis_is_linear_in_the_features_of_the_scaled_input():
  low, high = (-1.2, -0.07), (0.6, 0.07)
  network = networks.FourierBasis(num_outputs=3, order=2, low=low, high=high)
  x = np.array([[0.6, 0.0]], np.float32)  # (1, 1/2) once scaled
  assert shapes(network, x) == {'Dense_0/kernel': (9, 3)}
  params = init(network, x)
  # cos(pi (a + b / 2)) for a, b in 0, 1, 2.
  features = np.array([1, 0, -1, -1, 0, 1, 1, 0, -1.0])
  np.testing.assert_allclose(
    apply(network, params, x)[0],
    features @ params['Dense_0']['kernel'],
    atol=1e-5,
  )


def test_orthogonal_kernels_are_flaxs_each_seeds_own_and_one_by_one():
  keys = jax.random.split(jax.random.key(0), 3)
  for shape in ((4, 6), (6, 4), (3, 3, 2, 4)):
    init = initializers.orthogonal(2.0)
    make = jax.vmap(lambda key, i=init, s=shape: i(key, s))
    found = np.asarray(jax.jit(make)(keys))
    of_flax = jax.jit(nn.initializers.orthogonal(2.0), static_argnums=1)
    for key, kernel in zip(keys, found, strict=True):
      expected = of_flax(key, shape)
      np.testing.assert_allclose(kernel, expected, atol=1e-5)
      rows = kernel.reshape(-1, shape[-1])
      rows = rows if len(rows) <= shape[-1] else rows.T
      np.testing.assert_allclose(
        rows @ rows.T, 4 * np.eye(len(rows)), atol=1e-4
      )
    # What decomposes a batch of matrices at once can hang on CPUs.
    assert 'f32[3,' not in ''.join(
      line
      for line in str(jax.make_jaxpr(make)(keys)).splitlines()
      if 'geqrf' in line or 'qr[' in line
    )


def test_an_actor_and_a_critic_share_features_only_if_asked_to():
  observation = np.ones((2, 3), np.float32)
  for shared, torsos in ((False, 2), (True, 1)):
    module = networks.ActorCritic(num_outputs=4, shared=shared, hidden=(5,))
    names = {name.split('/')[0] for name in shapes(module, observation)}
    assert len([name for name in names if 'Torso' in name]) == torsos
    start = jax.jit(module.init_with_output)
    (outputs, value), _ = start(jax.random.key(0), observation)
    assert (outputs.shape, value.shape) == ((2, 4), (2,))
    # All but uniform at first, whatever is seen.
    assert np.abs(outputs).max() < 0.1


@pytest.mark.parametrize('shared', [False, True])
def test_a_torso_that_is_made_already_is_as_what_makes_one(shared):
  found = [
    jax.jit(
      networks.ActorCritic(num_outputs=3, torso=torso, shared=shared).init
    )(jax.random.key(0), np.ones((2, 5), np.float32))
    for torso in (
      networks.MLPTorso(hidden=(4,)),
      functools.partial(networks.MLPTorso, hidden=(4,)),
    )
  ]
  jax.tree.map(np.testing.assert_array_equal, *found)
  names = {'Dense_0', 'Dense_1', 'MLPTorso_0'}
  assert set(found[0]['params']) == names | (
    set() if shared else {'MLPTorso_1'}
  )


def test_a_pixel_torso_is_four_convolutions_of_what_is_about_zero():
  images = np.random.default_rng(0).integers(0, 256, (2, 12, 12, 2), np.uint8)
  torso = networks.PixelTorso(strides=(2, 1), features=3)
  params = jax.jit(torso.init)(jax.random.key(0), images)['params']
  x = images / 255 - 0.5
  for name, stride in (('Conv_0', 2), ('Conv_1', 1)):
    kernel = np.asarray(params[name]['kernel'], np.float64)
    size = (x.shape[1] - 3) // stride + 1
    out = np.zeros((2, size, size, 3))
    for i, j in np.ndindex(size, size):
      rows = slice(i * stride, i * stride + 3)
      columns = slice(j * stride, j * stride + 3)
      out[:, i, j] = np.einsum('bhwc,hwcf->bf', x[:, rows, columns], kernel)
    x = np.maximum(out, 0)
  found = jax.jit(torso.apply)({'params': params}, images)
  np.testing.assert_allclose(found, x.reshape(2, -1), rtol=1e-4, atol=1e-5)
  whole = jax.eval_shape(
    lambda: networks.PixelTorso().init_with_output(
      jax.random.key(0), np.zeros((1, 84, 84, 3, 3), np.uint8)
    )[0]
  )
  assert whole.shape == (1, 35 * 35 * 32)


def test_a_projection_is_normalized_and_squashed():
  features = jax.random.normal(jax.random.key(1), (4, 7))
  module = networks.Projection(units=5)
  params = jax.jit(module.init)(jax.random.key(0), features)
  x = np.asarray(features @ params['params']['Dense_0']['kernel'])
  x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-6)
  np.testing.assert_allclose(
    jax.jit(module.apply)(params, features), np.tanh(x), rtol=1e-4, atol=1e-5
  )


def test_images_of_which_convolutions_leave_nothing_are_refused():
  torso = networks.PixelTorso(strides=(2, 1))

  def init(side):
    return torso.init(jax.random.key(0), np.zeros((1, side, side, 1)))

  jax.eval_shape(lambda: init(7))
  with pytest.raises(errors.UserError, match=r'of 7x7 .* have 6x6'):
    init(6)
  with pytest.raises(errors.UserError, match='names no convolution'):
    networks.PixelTorso(strides=())
  with pytest.raises(errors.UserError, match=r'use networks\.MLP for vectors'):
    torso.init(jax.random.key(0), np.zeros((1, 3)))


@pytest.mark.parametrize(
  'network',
  [
    networks.PixelTorso(strides=(2, 1)),
    networks.NatureCNN(2),
    impala.ImpalaTorso(),
  ],
)
def test_networks_of_bytes_are_refused_for_numbers_up_to_1(network):
  def init(image, network=network, **others):
    example = np.zeros((1, *image.shape), image.dtype)
    space = gymnasium.spaces.Dict({'image': image, **others})
    with encoding.checked(space):
      jax.eval_shape(network.init, jax.random.key(0), example)

  shape = (16, 16, 3)
  small = gymnasium.spaces.Box(0, 1, shape, np.float32)
  # A stack of vectors is none of its images.
  others = {'vectors': gymnasium.spaces.Box(-1, 1, (4, 7))}
  init(gymnasium.spaces.Box(0, 255, shape, np.uint8), **others)
  init(gymnasium.spaces.Box(0, 255, shape, np.float32), **others)
  for space in (small, gymnasium.spaces.Box(0, 1, shape, np.uint8)):
    with pytest.raises(errors.UserError, match=r'takes bytes.*MinAtarCNN'):
      init(space)
    init(space, networks.MinAtarCNN(2))  # as the message says
    assert networks.fitting(space) is networks.MinAtarCNN
  narrow = gymnasium.spaces.Box(0, 1, (10, 1, 1), np.uint8)
  assert networks.fitting(narrow) is networks.MLP
