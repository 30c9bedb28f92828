"""What is passed to XLA at a step: everything that counts, and no more."""

import functools
import subprocess
import sys

import gymnasium
import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dopamine_jax.engines import dispatch
from dopamine_jax.environments import base

DTYPES = ['uint8', 'bool', 'int8', 'int32', 'float16', 'float32']


def random_step(space, lanes, seed):
  rng = np.random.default_rng(seed)

  def frames():
    size = (lanes, *space.shape, space.dtype.itemsize)
    if space.dtype == bool:
      return rng.integers(0, 2, size[:-1]).astype(bool)
    return rng.integers(0, 120, size, np.uint8).view(space.dtype)[..., 0]

  return base.TimeStep(
    observation=frames(),
    reward=rng.normal(size=lanes).astype(np.float32),
    terminated=rng.integers(0, 2, lanes).astype(bool),
    truncated=rng.integers(0, 2, lanes).astype(bool),
    next_observation=frames(),
  )


@functools.cache  # one program for each of few shapes
def unpacked_from(space_of, num_envs):
  space = gymnasium.spaces.Box(0, 1, *space_of)
  return jax.jit(lambda packed: dispatch.unpack(packed, space, num_envs))


@hypothesis.settings(deadline=None, max_examples=40)
@hypothesis.given(
  dtype=st.sampled_from(DTYPES),
  shape=st.sampled_from([(), (3,), (2, 1, 4)]),
  num_seeds=st.integers(1, 3),
  num_envs=st.sampled_from([1, 3]),
  seed=st.integers(0, 99),
)
def test_a_time_step_survives_the_passage_as_bytes(
  dtype, shape, num_seeds, num_envs, seed
):
  space = gymnasium.spaces.Box(0, 1, shape, dtype)
  step = random_step(space, num_seeds * num_envs, seed)
  packed = dispatch.pack(step, num_seeds)
  assert packed.dtype == np.uint8
  assert packed.ndim == (1 if num_seeds == 1 else 2)
  for s, part in enumerate(packed.reshape(num_seeds, -1)):
    unpacked = unpacked_from((shape, dtype), num_envs)(part)
    for before, after in zip(step, unpacked, strict=True):
      mine = before[s * num_envs : (s + 1) * num_envs]
      assert after.dtype == mine.dtype
      np.testing.assert_array_equal(after, mine)


def test_a_frame_that_is_not_contiguous_is_packed_too():
  space = gymnasium.spaces.Box(0, 255, (2, 3), np.uint8)
  step = random_step(space, 4, seed=0)
  strided = np.stack([step.observation] * 2, axis=1)[:, 0]
  step = step._replace(observation=strided[::2], next_observation=strided[::2])
  step = base.TimeStep(*(part[:2] for part in step))
  unpacked = dispatch.unpack(jnp.asarray(dispatch.pack(step, 1)), space, 2)
  np.testing.assert_array_equal(unpacked.observation, strided[::2])


def state():
  return {
    'params': jnp.arange(3.0),
    'target': jnp.ones(5),
    'count': jnp.ones(()),
  }


@pytest.mark.parametrize(
  ('function', 'expected'),
  [
    (lambda s, x: s['params'] * x, ['params']),
    (lambda s, x: s['params'] * x + s['count'], ['count', 'params']),
    # Handed on without being used in a computation.
    (lambda s, x: (s['target'], x), ['target']),
    (lambda s, x: x, []),
    # Looked at, not read.
    (lambda s, x: x * len(s['target']), []),
    (lambda s, x: jax.jit(lambda p: p + x)(s['params']), ['params']),
  ],
)
def test_only_the_leaves_that_are_read_are_taken(function, expected):
  less, reads = dispatch.reading_less(function, state(), jnp.ones(()))
  names = sorted(state())  # as JAX orders a dict's leaves
  assert [names[i] for i in reads] == expected
  leaves = jax.tree.leaves(state())
  result = jax.jit(less)([leaves[i] for i in reads], jnp.float32(2.0))
  jax.tree.map(
    np.testing.assert_array_equal, result, function(state(), jnp.float32(2.0))
  )


def parts_of_a_state():
  return {
    'kernel': jnp.arange(6.0).reshape(2, 3),
    'count': jnp.int32(7),
    'frames': jnp.arange(100.0).reshape(10, 10),
    'key': jax.random.key(3),
    'bias': (jnp.ones(3), jnp.full((), 5.0)),
    'empty': jnp.zeros((0, 4)),
    'steps': jnp.arange(2),
  }


@pytest.mark.parametrize(('largest', 'count'), [(-1, 8), (24, 4), (400, 3)])
def test_what_is_tied_is_what_is_untied(largest, count):
  tree = parts_of_a_state()
  bundle = dispatch.Bundle(jax.eval_shape(lambda: tree), largest)
  for tie, untie in (
    (bundle.tie, bundle.untie),
    (jax.jit(bundle.tie), jax.jit(bundle.untie)),
  ):
    tied = tie(tree)
    # Of one type are the small ones; the key is never joined.
    assert len(tied) == count
    again = untie(tied)
    assert jax.tree.structure(again) == jax.tree.structure(tree)
    for before, after in zip(
      jax.tree.leaves(tree), jax.tree.leaves(again), strict=True
    ):
      assert after.dtype == before.dtype
      assert after.shape == before.shape
      assert jnp.array_equal(after, before)


def test_large_arrays_are_passed_as_they_are():
  tree = parts_of_a_state()
  bundle = dispatch.Bundle(tree, 24)
  assert any(each is tree['frames'] for each in bundle.tie(tree))
  assert bundle.untie(bundle.tie(tree))['frames'] is tree['frames']


def test_a_command_runs_programs_in_the_thread_that_calls_them():
  script = (
    'from dopamine_jax.commands import common\n'
    'common.prepare()\n'
    'import jax\n'
    "assert not jax.config.read('jax_cpu_enable_async_dispatch')\n"
  )
  subprocess.run([sys.executable, '-c', script], check=True)


@pytest.mark.parametrize('is_cpu', [True, False])
def test_small_arrays_come_back_whether_numpy_or_xla_joins_them(
  is_cpu, monkeypatch
):
  monkeypatch.setattr(dispatch.platforms, 'is_cpu', lambda: is_cpu)
  rng = np.random.default_rng(0)
  tree = {
    'a': jnp.asarray(rng.normal(size=(2, 3)), jnp.float32),
    'b': jnp.asarray(rng.normal(), jnp.float32),
    'c': jnp.asarray(rng.normal(size=4), jnp.bfloat16),
    'd': jnp.asarray(rng.integers(0, 9, (3, 1)), jnp.int32),
    'e': jnp.asarray([True, False]),
    'f': jnp.asarray(rng.normal(size=3), jnp.bfloat16),
  }
  bundle = dispatch.Bundle(tree, 1_000)
  tied = bundle.tie(tree)
  assert [x.size for x in tied] == [7, 7, 3, 2]
  found = bundle.untie(tied)
  for name, expected in tree.items():
    assert isinstance(found[name], jax.Array)
    assert found[name].dtype == expected.dtype
    np.testing.assert_array_equal(found[name], expected)
  # What comes of it has memory of its own: the joined array may be given away.
  jax.jit(lambda x: x + 1, donate_argnums=0)(tied[0])
  np.testing.assert_array_equal(found['a'], tree['a'])
