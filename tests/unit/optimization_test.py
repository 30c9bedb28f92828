"""Tests of optimization.py: shuffled minibatches, and steps on them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dopamine_jax.learning import optimization

# One number w; each row x has the loss w * x, and so the gradient x.
DATA = jnp.arange(8.0)
ROWS = jnp.array([[0, 1], [2, 3], [4, 5]])


def loss_fn(params, minibatch):
  loss = jnp.mean(params['w'] * minibatch)
  return loss, {'Mean': jnp.mean(minibatch)}


@jax.jit
def descend(limit):
  optimizer, params = optax.sgd(0.5), {'w': jnp.array(1.0)}
  return optimization.descend(
    loss_fn,
    optimizer,
    params,
    optimizer.init(params),
    DATA,
    ROWS,
    stop=lambda metrics: metrics['Mean'] > limit,
  )


def test_each_epoch_uses_every_row_once_in_an_order_of_its_own():
  rows = np.asarray(optimization.shuffled(jax.random.key(0), 24, 5, 4))
  assert (rows.shape, rows.dtype) == ((20, 6), np.int32)
  epochs = rows.reshape(5, 24)
  np.testing.assert_array_equal(np.sort(epochs), [np.arange(24)] * 5)
  assert len({tuple(epoch) for epoch in epochs} | {tuple(range(24))}) == 6
  other = optimization.shuffled(jax.random.key(1), 24, 5, 4)
  assert (rows != other).any()


@pytest.mark.parametrize('size', [1, 2, 3, 64, 1_000])
def test_rows_of_any_number_are_shuffled(size):
  rows = np.asarray(optimization.shuffled(jax.random.key(0), size, 400, 1))
  np.testing.assert_array_equal(np.sort(rows), [np.arange(size)] * 400)
  # Wherever it stands, a row's mean position is the middle: the deviation of
  # 400 uniform ones' mean is size / sqrt(12 * 400).
  positions = np.argsort(rows, axis=1).mean(axis=0)
  assert np.abs(positions - (size - 1) / 2).max() < 5 * size / 69


def test_a_row_meets_each_other_one_equally_often():
  # Shuffled whole, not by blocks: rows 0 and 1 of 8 share one of 4 minibatches
  # with probability 1 / 7.
  rows = optimization.shuffled(jax.random.key(0), 8, 3_000, 4)
  both = np.isin(rows, [0, 1]).sum(1) == 2
  assert abs(both.sum() / 3_000 - 1 / 7) < 0.03


def test_a_step_is_taken_on_each_minibatch():
  params, _, metrics = descend(np.inf)
  # Gradients 0.5, 2.5 and 4.5.
  np.testing.assert_allclose(params['w'], 1 - 0.5 * 7.5)
  w = np.array([1, 0.75, -0.5])
  np.testing.assert_allclose(metrics['Loss'], np.mean(w * [0.5, 2.5, 4.5]))
  np.testing.assert_allclose(metrics['Mean'], 2.5)
  np.testing.assert_allclose(metrics['GradientNorm'], 2.5)
  assert metrics['GradientSteps'] == 3


def test_the_rows_decide_what_a_step_sees_and_may_repeat():
  optimizer, params = optax.sgd(0.5), {'w': jnp.array(1.0)}
  params, *_ = optimization.descend(
    loss_fn,
    optimizer,
    params,
    optimizer.init(params),
    {'x': DATA}['x'],
    jnp.array([[7, 7], [7, 7]]),
  )
  np.testing.assert_allclose(params['w'], 1 - 0.5 * 14)


@pytest.mark.parametrize(('limit', 'taken'), [(3, 2), (1, 1)])
def test_from_the_minibatch_that_stops_on_no_step_is_taken(limit, taken):
  params, _, metrics = descend(limit)
  gradients = np.array([0.5, 2.5, 4.5])[:taken]
  np.testing.assert_allclose(params['w'], 1 - 0.5 * gradients.sum())
  np.testing.assert_allclose(metrics['Mean'], gradients.mean())
  assert metrics['GradientSteps'] == taken


def test_a_stop_is_each_seeds_own():
  _, _, metrics = jax.vmap(descend)(jnp.array([np.inf, 3.0, 1.0]))
  np.testing.assert_array_equal(metrics['GradientSteps'], [3, 2, 1])


def test_clipped_bounds_the_norm_of_all_gradients():
  optimizer = optimization.clipped(optax.sgd(1.0), max_norm=1.0)
  params = {'a': jnp.zeros(()), 'b': jnp.zeros(())}
  gradients = {'a': jnp.array(3.0), 'b': jnp.array(4.0)}
  changes, _ = optimizer.update(gradients, optimizer.init(params))
  np.testing.assert_allclose([changes['a'], changes['b']], [-0.6, -0.8])


def test_parameters_apart_have_each_its_optimizer_or_none():
  optimizer = optimization.apart(a=optax.sgd(1.0), b=optax.sgd(0.5), c=None)
  params = {name: {'kernel': jnp.ones(2)} for name in 'abc'}
  new, _, metrics = jax.jit(
    lambda gradients, params: optimization.take_step(
      optimizer, gradients, optimizer.init(params), params
    )
  )(params, params)
  for name, expected in (('a', 0.0), ('b', 0.5), ('c', 1.0)):
    np.testing.assert_array_equal(new[name]['kernel'], [expected] * 2)
  np.testing.assert_allclose(metrics['GradientNorm'], np.sqrt(6), rtol=1e-6)
