"""Tests of what environments are given: actions that their space contains."""

import functools

import gymnasium
from gymnasium.spaces import Box
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dopamine_jax import errors
from dopamine_jax.environments import base

FLOATS = ('float16', 'float32', 'float64')
INTEGERS = tuple(f'{u}int{bits}' for u in ('', 'u') for bits in (8, 16, 32, 64))
SHAPES = ((), (1,), (3,), (2, 2))


@st.composite
def boxes(draw, dtypes=FLOATS + INTEGERS):
  """Boxes of any type whose bounds may be as far out as the type goes."""
  dtype = np.dtype(draw(st.sampled_from(dtypes)))
  shape = draw(st.sampled_from(SHAPES))
  numbers = arrays.from_dtype(
    dtype, allow_nan=False, allow_infinity=False, allow_subnormal=False
  )
  if dtype.kind in 'iu':
    limits = np.iinfo(dtype)
    numbers |= st.sampled_from([limits.min, limits.max])
  bounds = [draw(arrays.arrays(dtype, shape, elements=numbers)) for _ in 'ab']
  if draw(st.booleans()):
    bounds[1] = bounds[0]
  return Box(np.minimum(*bounds), np.maximum(*bounds), dtype=dtype)


UNIT = st.floats(-2, 2, width=32) | st.sampled_from([-1, 1, 0])


@given(space=boxes(), data=st.data())
def test_what_an_environment_is_given_lies_in_its_space(space, data):
  actions = data.draw(
    arrays.arrays(np.float32, (5, *space.shape), elements=UNIT)
  )
  found = base.as_environments_action(space, actions)
  assert found.dtype == space.dtype
  for row, unit in zip(found, actions, strict=True):
    row = np.asarray(row)
    assert space.contains(row)
    np.testing.assert_array_equal(row[unit <= -1], space.low[unit <= -1])
    np.testing.assert_array_equal(row[unit >= 1], space.high[unit >= 1])


LONG = {'float64', 'int64', 'uint64'}
EXAMPLES = [
  Box(-0.7, 0.82, (3,)),
  Box(-3.4e38, 3.4e38, (3,)),
  Box(-6e4, 65504, (2, 2), np.float16),
  Box(0.1, 0.3, (), np.float64),
  Box(-(2**31), 2**31 - 1, (3,), np.int32),
  Box(0, 2**32 - 1, (), np.uint32),
  Box(-3, 4, (2, 2), np.int8),
  Box(5, 5, (3,), np.int64),
  Box(0, 7, (3,), np.uint64),
]


@pytest.mark.parametrize('space', EXAMPLES, ids=str)
def test_it_does_in_jax_too_and_is_the_same(space):
  rng = np.random.default_rng(0)
  unit = rng.uniform(-1.2, 1.2, (200, *space.shape)).astype(np.float32)
  unit[:2] = np.float32([-1, 1]).reshape(2, *[1] * len(space.shape))
  one = functools.partial(base.as_environments_action, space)
  found = np.asarray(jax.jit(jax.vmap(one))(unit))
  expected = base.as_environments_action(space, unit)
  wide = {'float32': 'float64', 'int32': 'int64', 'uint32': 'uint64'}
  for row in found:
    if space.dtype.name in LONG:
      assert row.dtype.itemsize == 4
      row = row.astype(wide[row.dtype.name])
    assert space.contains(np.asarray(row))
  if space.dtype.kind == 'f':
    eps = np.finfo(found.dtype).eps * np.abs(space.high).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=4 * eps)
  else:
    np.testing.assert_array_equal(found, expected)


def test_whole_numbers_are_the_nearest():
  space = Box(-2, 2, (5,), np.int16)
  unit = np.float32([-0.8, -0.7, 0.2, 0.3, 0.9])
  found = base.as_environments_action(space, unit)
  assert found.tolist() == [-2, -1, 0, 1, 2]


def test_of_bool_it_is_the_nearer():
  space = Box(0, 1, (4,), np.bool_)
  unit = np.float32([-1, -0.1, 0.1, 1])
  for array in (unit, jnp.asarray(unit)):
    found = base.as_environments_action(space, array)
    assert found.tolist() == [False, False, True, True]
    assert space.contains(np.asarray(found))


@pytest.mark.parametrize('high', [1, 2, 0.4, 3.7])
def test_bounds_around_zero_are_multiplied_to_the_bit(high):
  space = Box(-high, high, (1,))
  unit = np.random.default_rng(1).uniform(-1, 1, (99, 1)).astype(np.float32)
  found = base.as_environments_action(space, unit)
  np.testing.assert_array_equal(found, np.float32(high) * unit)


@pytest.mark.parametrize('dtype', [np.int8, np.uint8, np.int64])
def test_discrete_actions_are_of_the_spaces_type(dtype):
  space = gymnasium.spaces.Discrete(3, dtype=dtype)
  actions = base.as_environments_action(space, np.int32([0, 1, 2]))
  assert all(space.contains(action) for action in actions)


@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf])
def test_actions_that_are_not_finite_are_refused(bad):
  with pytest.raises(errors.UserError, match=r'action is not finite.*policy'):
    base.check_actions(Box(-1, 1, (2,)), np.float32([[0, 0], [bad, 0]]))


@pytest.mark.parametrize(
  'space',
  [
    Box(-1e300, 1e300, (1,), np.float64),
    Box(0, 2**40, (1,), np.int64),
    Box(np.float64(0.1), np.float64(0.1), (1,), np.float64),
  ],
  ids=str,
)
def test_bounds_that_jax_does_not_have_are_refused_there(space):
  with pytest.raises(errors.UserError, match='does not hold'):
    jax.eval_shape(
      functools.partial(base.as_environments_action, space),
      jax.ShapeDtypeStruct((1,), np.float32),
    )
  found = base.as_environments_action(space, np.float32([[0.25]]))
  assert space.contains(found[0])
