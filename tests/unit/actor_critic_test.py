"""Tests of actor_critic.py against matrix products in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np

from dopamine_jax import networks
from dopamine_jax.learning import actor_critic

OBSERVATION = jnp.array([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]])
ACTION = jnp.array([[[0.5], [-1.0]], [[0.0], [0.25]]])  # of shape (2, 1)


def initialized(module, *inputs):
  init = jax.jit(module.init)(jax.random.key(0), *inputs)
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), init['params']
  )


def mlp_by_hand(params, x):
  """Returns the outputs of dense layers, all rectified but the last."""
  layers = [params[name] for name in sorted(params)]
  while layers:
    layer, *layers = layers
    if 'kernel' not in layer:
      layers = [layer[name] for name in sorted(layer)] + layers
      continue
    x = x @ np.asarray(layer['kernel']) + np.asarray(layer['bias'])
    x = np.maximum(x, 0) if layers else x
  return x


def mlp_params(params):
  """The hidden layers of an MLP, then its last."""
  return {'0': params['MLPTorso_0'], '1': params['Dense_0']}


def test_an_actors_means_and_deviations_depend_on_the_observation():
  module = actor_critic.Actor(action_shape=(2, 1), hidden=(5, 4))
  params = initialized(module, OBSERVATION)
  policy = module.apply({'params': params}, OBSERVATION)
  outputs = mlp_by_hand(mlp_params(params['MLP_0']), np.asarray(OBSERVATION))
  assert outputs.shape == (2, 4)
  mean, log_std = (x.reshape(2, 2, 1) for x in np.split(outputs, 2, axis=1))
  np.testing.assert_allclose(policy.mean, mean, rtol=1e-5)
  assert np.abs(log_std).max() > 2
  np.testing.assert_allclose(
    policy.log_std, np.clip(log_std, -20, 2), rtol=1e-5
  )


def test_an_actors_deviations_are_bounded():
  module = actor_critic.Actor(
    action_shape=(1,), hidden=(4,), log_std_min=-0.25, log_std_max=0.5
  )
  params = initialized(module, OBSERVATION)
  seen = 50 * jax.random.normal(jax.random.key(1), (100, 3))
  log_std = module.apply({'params': params}, seen).log_std
  assert log_std.min() == -0.25
  assert log_std.max() == 0.5


def test_critics_see_observation_and_action_and_differ():
  module = actor_critic.Critics(num_critics=3, hidden=(5, 4))
  params = initialized(module, OBSERVATION, ACTION)
  q = module.apply({'params': params}, OBSERVATION, ACTION)
  row = np.concatenate([OBSERVATION, ACTION.reshape(2, 2)], axis=1)
  expected = [
    mlp_by_hand(mlp_params(params[f'MLP_{i}']), row) for i in range(3)
  ]
  np.testing.assert_allclose(q, np.squeeze(expected, 2), rtol=1e-4)
  first = jax.jit(module.init)(jax.random.key(0), OBSERVATION, ACTION)
  kernels = [p['Dense_0']['kernel'] for p in first['params'].values()]
  assert np.all(kernels[0] != kernels[1])
  assert np.all(kernels[1] != kernels[2])


def test_images_go_through_a_torso_that_all_critics_share():
  torso = networks.MinAtarTorso()
  images = np.random.default_rng(0).random((3, 4, 4, 2), np.float32)
  action = np.float32(np.random.default_rng(1).normal(size=(3, 2)))
  for cls, given, more in (
    (actor_critic.Actor, {'action_shape': (2,)}, ()),
    (actor_critic.Critics, {'num_critics': 2}, (action,)),
  ):
    params = initialized(cls(torso=torso, hidden=(5,), **given), images, *more)
    apply = jax.jit(cls(torso=torso, hidden=(5,), **given).apply)
    found = apply({'params': params}, images, *more)
    own = params.pop('torso')
    features = jax.jit(torso.apply)({'params': own}, images)
    assert features.shape == (3, 2 * 2 * 16)
    apply = jax.jit(cls(hidden=(5,), **given).apply)
    expected = apply({'params': params}, features, *more)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_both_show_their_units():
  for module, inputs in (
    (actor_critic.Actor(action_shape=(2, 1), hidden=(5, 4)), (OBSERVATION,)),
    (actor_critic.Critics(hidden=(5, 4)), (OBSERVATION, ACTION)),
  ):
    params = initialized(module, *inputs)
    _, state = module.apply(
      {'params': params}, *inputs, mutable='intermediates'
    )
    shown = jax.tree.leaves_with_path(state['intermediates'])
    names = [jax.tree_util.keystr(path) for path, _ in shown]
    networks = 1 if len(inputs) == 1 else 2
    assert sum('activations' in name for name in names) == 2 * networks
    assert sum('features' in name for name in names) == networks
