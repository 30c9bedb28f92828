"""Tests of replay.sum_tree against sums and searches of NumPy's."""

import functools

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dopamine_jax.replay import sum_tree

MILLION = 1_000_000
# One level, and each number of them up to three, with and without a remainder.
SIZES = (1, 32, 33, 1_024, 1_025, 2_000, 32_768, 40_000)
TINY, HUGE = 2.0**-126, 3e32
BELOW_ONE = 1 - 2.0**-24

put = jax.jit(sum_tree.put)
find = jax.jit(sum_tree.find)
get = jax.jit(sum_tree.get)
agree = jax.jit(sum_tree.agree)


@functools.cache  # compiles once for all examples
def empty(size):
  return sum_tree.init(size)


def tree_of(values):
  values = np.asarray(values, np.float32)
  return put(empty(len(values)), np.arange(len(values)), values)


def found_in(tree, fraction, finer=0.0):
  fraction = np.asarray(fraction, np.float32)
  finer = np.full((tree.depth, len(fraction)), finer, np.float32)
  return np.asarray(find(tree, fraction, finer))


def assert_sums(tree, values):
  """Every level's nodes are the sums of what NumPy says are their children."""
  values = np.asarray(values, np.float64)
  for level in jax.device_get(tree.levels):
    np.testing.assert_allclose(level[: len(values)], values, rtol=1e-5)
    assert not np.any(level[len(values) :])
    values = np.pad(values, (0, -len(values) % sum_tree.FANOUT))
    values = values.reshape(-1, sum_tree.FANOUT).sum(axis=1)
  assert len(values) <= sum_tree.FANOUT


@st.composite
def writes_strategy(draw):
  size = draw(st.sampled_from(SIZES))
  leaf = st.one_of(
    st.integers(0, size - 1), st.sampled_from([0, size // 2, size - 1])
  )
  value = st.one_of(
    st.floats(0, 100, width=32), st.sampled_from([0.0, TINY, HUGE])
  )
  write = st.lists(
    st.tuples(leaf, value, st.booleans()), min_size=8, max_size=8
  )
  return size, draw(st.lists(write, max_size=6))


@settings(max_examples=60)
@given(writes_strategy())
def test_nodes_are_the_sums_of_what_was_written_last(drawn):
  size, writes = drawn
  tree, expected = empty(size), np.zeros(size, np.float32)
  for write in writes:
    leaf, value, where = (
      np.asarray(column, dtype)
      for column, dtype in zip(
        zip(*write, strict=True), (np.int32, np.float32, bool), strict=True
      )
    )
    # What is equal is written or not written alike.
    where = np.array([all(where[leaf == each]) for each in leaf])
    value = np.asarray(agree(leaf, value))
    tree = put(tree, leaf, value, where)
    for i in np.flatnonzero(where):
      expected[leaf[i]] = max(
        [v for each, v in zip(leaf, value, strict=True) if each == leaf[i]]
      )
    np.testing.assert_array_equal(get(tree, np.arange(size)), expected)
    assert_sums(tree, expected)


def test_of_several_values_for_one_leaf_the_largest_holds():
  leaf, value = np.array([4, 7, 4, 4, 7]), np.array([1.0, 5.0, 3.0, 2.0, 0.0])
  np.testing.assert_array_equal(agree(leaf, value), [3, 5, 3, 3, 5])


def test_nothing_drifts_in_many_writes():
  @jax.jit
  def many(tree, key):
    def write(i, tree):
      key_leaf, key_value = jax.random.split(jax.random.fold_in(key, i))
      leaf = jax.random.randint(key_leaf, (32,), 0, 2_000)
      value = jnp.exp(20 * jax.random.normal(key_value, (32,)))
      return sum_tree.put(tree, leaf, sum_tree.agree(leaf, value))

    return jax.lax.fori_loop(0, 5_000, write, tree)

  tree = many(sum_tree.init(2_000), jax.random.key(0))
  assert_sums(tree, get(tree, np.arange(2_000)))


@settings(max_examples=30)
@given(
  st.sampled_from(SIZES),
  st.lists(st.integers(0, 3), min_size=1, max_size=100),
  st.integers(0, 2**32 - 1),
)
def test_finds_what_a_search_in_the_cumulative_sum_does(size, some, seed):
  # Whole numbers, so that all sums are exact.
  values = np.zeros(size, int)
  rng = np.random.default_rng(seed)
  values[rng.integers(0, size, len(some))] = some
  values[rng.integers(size)] = 1
  upto = np.cumsum(values)
  middles = np.arange(300) % upto[-1] + 0.5  # of each unit of the whole sum
  found = found_in(tree_of(values), middles / upto[-1], finer=0.5)
  np.testing.assert_array_equal(found, np.searchsorted(upto, middles))


def awkward_trees():
  """Yields a million leaves each, nearly all of them zero or far from it."""
  rng = np.random.default_rng(0)
  kinds = np.array([TINY, 1e-20, 1e-6, 1.0, 1e6, 1e20, HUGE])
  for name, leaves in {
    'the first': [0],
    'the last': [MILLION - 1],
    'both ends': [0, MILLION - 1],
    'ends of rows': np.arange(31, MILLION, 1024),
    'beginnings of rows': np.arange(0, MILLION, 1024),
    'anywhere': rng.choice(MILLION, 1000, replace=False),
    'half of all': rng.choice(MILLION, MILLION // 2, replace=False),
  }.items():
    for of in (kinds, kinds[:1], kinds[-1:], kinds[[0, -1]]):
      values = np.zeros(MILLION)
      values[leaves] = rng.choice(of, len(leaves))
      yield f'{name}, of {len(of)} kinds', values


@pytest.mark.usefixtures('optimized')
def test_a_leaf_of_zero_is_never_found_among_a_million():
  rng = np.random.default_rng(1)
  fraction = np.concatenate([[0, TINY, 0.5, BELOW_ONE], rng.random(4092)])
  fraction = np.minimum(fraction, BELOW_ONE)
  for name, values in awkward_trees():
    tree = tree_of(values)
    for finer in (0.0, 0.3, BELOW_ONE):
      found = found_in(tree, fraction, finer)
      assert 0 <= found.min() and found.max() < MILLION, name
      assert np.all(values[found] > 0), name


def test_a_part_that_rounding_leaves_unreached_falls_to_the_last_child():
  # Sums in float32 of such numbers depend on their order.
  rng = np.random.default_rng(2)
  for _ in range(20):
    values = np.exp(10 * rng.normal(size=1_024)) * (rng.random(1_024) < 0.5)
    last = np.flatnonzero(values)[-1]
    tree = tree_of(values)
    assert values[found_in(tree, [BELOW_ONE], BELOW_ONE)[0]] > 0
    assert found_in(tree, [BELOW_ONE], BELOW_ONE)[0] <= last


@functools.partial(jax.jit, static_argnums=2)
def counts(tree, key, size):
  """Returns how often each leaf comes up in 4M draws."""

  def draw(key):
    fraction, *finer = jax.random.uniform(key, (1 + tree.depth, 40_000))
    return sum_tree.find(tree, fraction, jnp.stack(finer))

  found = jax.lax.map(draw, jax.random.split(key, 100))
  return jnp.zeros(size, jnp.int32).at[found.ravel()].add(1)


@pytest.mark.usefixtures('optimized')
@pytest.mark.parametrize(
  'kind',
  # Uneven ones are searched for above, and drawn by `prioritized_test`.
  ['equal', pytest.param('uneven', marks=pytest.mark.slow)],
)
def test_of_a_million_leaves_each_is_drawn_by_its_value(kind):
  # Without `finer`, a part of one in 2**23 makes equal leaves differ: by 6%.
  rng = np.random.default_rng(3)
  values = np.ones(MILLION)
  if kind == 'uneven':
    values = rng.exponential(size=MILLION)
    values[rng.random(MILLION) < 0.5] = 0
  found = np.asarray(counts(tree_of(values), jax.random.key(0), MILLION))
  expected = values / values.sum() * found.sum()
  assert not found[expected == 0].any()
  # Leaves with too few draws for a chi-squared test are put together.
  order = np.argsort(expected, kind='stable')
  order = order[expected[order] > 0]
  edges = np.flatnonzero(
    np.diff(np.floor(np.cumsum(expected[order]) / 4), prepend=-1)
  )
  observed = np.add.reduceat(found[order].astype(float), edges)
  expected = np.add.reduceat(expected[order], edges)
  chi_squared = np.sum((observed - expected) ** 2 / expected)
  freedom = len(edges) - 1
  assert abs(chi_squared - freedom) < 6 * np.sqrt(2 * freedom)


@pytest.mark.usefixtures('optimized')
def test_writes_into_the_donated_buffers():
  tree = sum_tree.init(MILLION)
  before = [level.unsafe_buffer_pointer() for level in tree.levels]
  arguments = np.arange(32), np.ones(32, np.float32)
  program = jax.jit(sum_tree.put, donate_argnums=0)
  program = program.lower(tree, *arguments).compile()
  assert program.memory_analysis().temp_size_in_bytes < MILLION
  tree = program(tree, *arguments)
  assert [level.unsafe_buffer_pointer() for level in tree.levels] == before


def test_a_tree_among_others_is_bit_for_bit_the_solo_one():
  rng = np.random.default_rng(4)
  size = 2_000
  leaf = rng.integers(0, size, (3, 500))
  value = np.asarray(rng.exponential(size=(3, 500)), np.float32)
  fraction = np.asarray(rng.random((3, 4, 64)), np.float32) * BELOW_ONE

  def write_and_find(leaf, value, fraction):
    value = sum_tree.agree(leaf, value)
    tree = sum_tree.put(sum_tree.init(size), leaf, value)
    return tree, sum_tree.find(tree, fraction[0], fraction[1:])

  over_seeds = jax.jit(jax.vmap(write_and_find))
  together = jax.device_get(over_seeds(leaf, value, fraction))
  solo = jax.jit(write_and_find)
  for seed in range(3):
    jax.tree.map(
      lambda one, of_all, seed=seed: np.testing.assert_array_equal(
        of_all[seed], one
      ),
      solo(leaf[seed], value[seed], fraction[seed]),
      together,
    )
