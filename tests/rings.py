"""Rings of small frames, filled and compared, for tests of checkpoints."""

import jax
import jax.numpy as jnp
import numpy as np

from dopamine_jax.replay import ring as ring_lib

FRAME = (3,)
add = jax.jit(ring_lib.add, donate_argnums=0)
add_over_seeds = jax.jit(jax.vmap(ring_lib.add), donate_argnums=0)


def make_step(rng, envs, ends=0.3, seeds=None):
  lead = (envs,) if seeds is None else (seeds, envs)
  terminated = rng.random(lead) < ends
  return ring_lib.Step(
    observation=rng.integers(0, 256, (*lead, *FRAME), dtype=np.uint8),
    action=rng.integers(0, 9, lead, dtype=np.int32),
    reward=rng.normal(size=lead).astype(np.float32),
    terminated=terminated,
    truncated=rng.random(lead) < ends / 2,
    next_observation=rng.integers(0, 256, (*lead, *FRAME), dtype=np.uint8),
  )


def make_ring(capacity, envs, seeds=None):
  step = make_step(np.random.default_rng(0), envs)
  lead = () if seeds is None else (seeds,)
  return jax.device_put(empty(lambda: ring_lib.init(step, capacity), *lead))


def empty(init, *lead):
  """Returns what a ring's `init` does: zeros, without a program for each shape.

  Args:
    init: takes nothing.
    *lead: axes before all others.
  """
  return jax.tree.map(
    lambda leaf: np.zeros((*lead, *leaf.shape), leaf.dtype),
    jax.eval_shape(init),
  )


def extend(ring, rng, steps):
  *seeds, envs = ring.head.shape
  function = add_over_seeds if seeds else add
  for _ in range(steps):
    ring = function(ring, make_step(rng, envs, 0.3, *seeds))
  return ring


def live(ring):
  """Returns (slot numbers, {leaf: their rows}) of each lane, as NumPy."""
  heads = np.array(ring.head).ravel()
  capacity = ring.slots.reward.shape[-1]
  lanes = []
  for lane, head in enumerate(heads):
    numbers = np.arange(max(head - capacity + 1, 0), head)
    rows = {}
    leaves, _ = jax.tree_util.tree_flatten_with_path(ring.slots)
    for path, leaf in leaves:
      name = jax.tree_util.keystr(path)
      leaf = np.array(leaf).reshape(len(heads), *leaf.shape[ring.head.ndim :])
      rows[name] = leaf[lane, numbers % capacity]
    lanes.append((numbers, rows))
  return lanes


def assert_same_ring(actual, expected_live, head, age):
  np.testing.assert_array_equal(actual.head, head)
  np.testing.assert_array_equal(actual.age, age)
  for (numbers, rows), (want_numbers, want) in zip(
    live(actual), expected_live, strict=True
  ):
    np.testing.assert_array_equal(numbers, want_numbers)
    for name in want:
      assert rows[name].dtype == want[name].dtype
      np.testing.assert_array_equal(rows[name], want[name], err_msg=name)


def assert_same(actual, expected):
  assert jax.tree.structure(actual) == jax.tree.structure(expected)
  for a, b in zip(
    jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True
  ):
    assert a.dtype == b.dtype
    if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
      a, b = jax.random.key_data(a), jax.random.key_data(b)
    a, b = np.array(a), np.array(b)
    assert a.shape == b.shape
    assert a.tobytes() == b.tobytes()


def shapes(tree):
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def state_with_ring(steps=6, capacity=8, seed=0):
  ring = extend(make_ring(capacity, 2), np.random.default_rng(seed), steps)
  w = jax.device_put(np.arange(4, dtype=np.float32))
  return {'agent': {'w': w}, 'replay': ring}
