"""Tests of replay.prioritized against the lists that replay_test plays."""

import functools

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import jax
import numpy as np
import pytest

from dopamine_jax.replay import prioritized
from tests.unit import replay_test as model

COMPILE_FAST = model.COMPILE_FAST
# What an agent may return: from nothing to more than a sum can bear.
priorities_strategy = st.lists(
  st.one_of(
    st.floats(0, 100, width=32), st.sampled_from([0.0, 1e-30, 1e30, 3e38])
  ),
  min_size=4,
  max_size=4,
)


def make(kind, **changes):
  return prioritized.PrioritizedReplay(
    n_step=kind.n, stack=kind.stack, gamma=model.GAMMA, **changes
  )


def empty_ring(kind, slots):
  """Returns an empty ring with so many slots for each environment."""
  replay = make(
    kind,
    capacity=slots * kind.envs,
    batch_size=1,
    min_history=kind.n * kind.envs,
  )
  return replay.init(model.World(kind, [[]] * kind.envs).step())


@functools.cache
def compiled(kind, slots):
  """Returns an empty ring, `add` and `reprioritize`."""
  replay = make(kind)
  return (
    empty_ring(kind, slots),
    jax.jit(replay.add, compiler_options=COMPILE_FAST),
    jax.jit(replay.reprioritize, compiler_options=COMPILE_FAST),
  )


def leaves(ring):
  """Returns [N, C]; asserts that every node is the sum of its children."""
  tree = np.asarray(ring.tree)
  flat = tree.ravel()
  sums = tree[1:].astype(np.float64).sum(axis=1)
  np.testing.assert_allclose(flat[: len(tree) - 1], sums, rtol=1e-5)
  count = ring.head.size * ring.capacity
  first = ring.tree.size - -(-count // tree.shape[1]) * tree.shape[1]
  assert not flat[first + count :].any()
  return flat[first : first + count].reshape(ring.head.size, -1)


def stored(ring, priorities, alpha=1.0):
  """Returns what the tree should hold for priorities."""
  high = float(np.finfo(np.float32).max) / ring.tree.size
  return np.clip((np.asarray(priorities) + 1e-6) ** alpha, 2.0**-126, high)


class Model:
  """What the priorities should be, by lane and number of the slot."""

  def __init__(self):
    self.priorities, self.largest = {}, 1.0

  def follow(self, transitions):
    self.priorities = {
      name: self.priorities.get(name, self.largest) for name in transitions
    }

  def set(self, names, values):
    best = {}
    for name, value in zip(names, values, strict=True):
      best[name] = max(best.get(name, 0), value)
    self.priorities |= best
    self.largest = max(self.largest, *values)

  def table(self, shape):
    table = np.zeros(shape)
    for (lane, number), priority in self.priorities.items():
      table[lane, number % shape[1]] = priority
    return table


@pytest.mark.parametrize(
  ('kind', 'slots'),
  [(kind, kind.n + kind.stack + 1) for kind in model.KINDS]
  + [(kind, model.MANY_SLOTS) for kind in model.KINDS[1::3]],
  ids=str,
)
@settings(max_examples=8)
@given(
  scripts=model.scripts_strategy,
  num_steps=st.integers(0, model.MAX_STEPS),
  priorities=priorities_strategy,
  seed=st.integers(0, 2**32 - 1),
)
def test_every_valid_transition_has_its_priority_and_nothing_else_has_any(
  kind, slots, scripts, num_steps, priorities, seed
):
  ring, add, reprioritize = compiled(kind, slots)
  world, expected = model.World(kind, scripts, seed), Model()
  rng = np.random.default_rng(seed)
  for _ in range(num_steps):
    ring = add(ring, world.step())
    expected.follow(world.transitions(slots))
    shape = (kind.envs, slots)
    np.testing.assert_allclose(leaves(ring), expected.table(shape), rtol=1e-5)
    if expected.priorities and rng.random() < 0.3:
      names = sorted(expected.priorities)
      names = [names[i] for i in rng.integers(len(names), size=4)]
      index = [lane * slots + number % slots for lane, number in names]
      ring = reprioritize(ring, np.array(index), np.float32(priorities))
      expected.set(names, stored(ring, priorities))
      np.testing.assert_allclose(leaves(ring), expected.table(shape), rtol=1e-5)
