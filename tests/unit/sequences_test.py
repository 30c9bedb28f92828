"""Sequences against a list of everything that a lane was ever given."""

import functools

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dopamine_jax import agent as agent_lib
from dopamine_jax import errors
from dopamine_jax.learning import returns
from dopamine_jax.replay import prioritized_sequences
from dopamine_jax.replay import ring as ring_lib
from dopamine_jax.replay import sequences
from dopamine_jax.replay import sum_tree

N, GAMMA, STACK = 2, 0.5, 3
# R = 5 rows; 13 slots a lane.
SETTINGS = {
  'capacity': 26,
  'batch_size': 64,
  'length': 2,
  'burn_in': 2,
  'min_history': 10,
  'n_step': 1,
  'gamma': GAMMA,
  'stack': STACK,
}
ENDS = TERMINATED, TRUNCATED, RUNNING = 'terminated', 'truncated', ''


def play(lanes):
  """Yields steps, and the slots of each lane, frame i numbered i.

  Args:
    lanes: how each step of each lane ends.

  Yields:
    A ring's Step, and for each lane a list of dicts, one for each slot.
  """
  slots = [[] for _ in lanes]
  frame = [100 * lane + 1 for lane in range(N)]
  age = [0] * N
  for ends in zip(*lanes, strict=True):
    for lane, end in enumerate(ends):
      slots[lane].append(
        {
          'frame': frame[lane],
          'age': age[lane],
          'action': frame[lane] % 7,
          'reward': frame[lane] / 4,
          'memory': -frame[lane],
          'end': end,
          'taken': True,
        }
      )
    newest = [each[-1] for each in slots]
    step = ring_lib.Step(
      observation=np.array([[each['frame']] for each in newest], np.int32),
      action=np.array([each['action'] for each in newest], np.int32),
      reward=np.array([each['reward'] for each in newest], np.float32),
      terminated=np.array([end == TERMINATED for end in ends]),
      truncated=np.array([end == TRUNCATED for end in ends]),
      next_observation=np.array([[f + 1] for f in frame], np.int32),
      memory={'m': np.array([each['memory'] for each in newest], np.int32)},
    )
    for lane, end in enumerate(ends):
      frame[lane] += 1
      age[lane] += 1
      if end:
        slots[lane].append(
          {'frame': frame[lane], 'age': age[lane], 'end': '', 'taken': False}
        )
        frame[lane] += 1
        age[lane] = 0
    yield step, slots


@functools.cache
def programs(kind, stride):
  replay = kind(**SETTINGS | {'stride': stride})
  return replay, jax.jit(replay.init), jax.jit(replay.add)


def filled(kind, stride, lanes):
  replay, init, add = programs(kind, stride)
  ring = None
  for step, slots in play(lanes):  # noqa: B007
    ring = add(init(step) if ring is None else ring, step)
  return replay, ring, slots


def starts(replay, slots):
  """Returns (lane, slot) of all valid sequences, by counting."""
  found = set()
  for lane, each in enumerate(slots):
    # The newest slot that is live is the last; the one behind it, of the frame
    # that followed, takes the place of the oldest.
    oldest = max(len(each) - (SETTINGS['capacity'] // N - 1), 0)
    for slot in range(0, len(each) - replay.rows + 1, replay.stride):
      needs = min(each[slot]['age'], STACK - 1)
      if slot - needs >= oldest:
        found.add((lane, slot))
  return found


lanes_of_steps = st.integers(8, 40).flatmap(
  lambda length: st.lists(
    st.lists(
      st.sampled_from([*ENDS, RUNNING, RUNNING]),
      min_size=length,
      max_size=length,
    ),
    min_size=N,
    max_size=N,
  )
)


def rows_of(replay, slots, lane, slot):
  """Returns the rows of one sequence as a dict of arrays, by the list."""
  each = slots[lane]
  rows = each[slot : slot + replay.rows]
  found = {
    'taken': [row['taken'] for row in rows],
    'first': [row['age'] == 0 for row in rows],
    'last': [row['end'] != RUNNING for row in rows],
  }
  frames, before = [], []
  for i, row in enumerate(rows, start=slot):
    numbers = [each[j]['frame'] for j in range(i - row['age'], i + 1)]
    frames.append(([0] * STACK + numbers)[-STACK:])
    past = each[i - 1] if row['age'] else {'action': 0, 'reward': 0.0}
    before.append((past['action'], past['reward']))
  found['observation'] = np.array(frames)[:, None]
  found['seen.action'], found['seen.reward'] = zip(*before, strict=True)
  for name in ('action', 'reward'):
    found[name] = [row.get(name) for row in rows]
  found['discount'] = [
    0.0 if row['end'] == TERMINATED else GAMMA for row in rows
  ]
  return found


@given(lanes=lanes_of_steps, stride=st.sampled_from([1, 3]))
@settings(max_examples=15)
def test_each_sequence_is_what_the_lane_was_given(lanes, stride):
  replay, ring, slots = filled(sequences.SequenceReplay, stride, lanes)
  expected = starts(replay, slots)
  if not expected:
    return
  sample = jax.jit(replay.sample)(ring, jax.random.key(len(expected)))
  lane = np.array(sample.index) // ring.capacity
  drawn = list(zip(lane.tolist(), np.array(sample.slot).tolist(), strict=True))
  assert set(drawn) <= expected
  rows = jax.tree.map(np.array, sample.transition)
  for i, (lane, slot) in enumerate(drawn[:8]):
    want = rows_of(replay, slots, lane, slot)
    taken = np.array(want['taken'])
    for name in ('observation', 'taken', 'last'):
      np.testing.assert_array_equal(getattr(rows, name)[:, i], want[name], name)
    np.testing.assert_array_equal(rows.seen.first[:, i], want['first'])
    np.testing.assert_array_equal(rows.seen.action[:, i], want['seen.action'])
    np.testing.assert_array_equal(rows.seen.reward[:, i], want['seen.reward'])
    for name in ('action', 'reward', 'discount'):
      found = getattr(rows, name)[taken, i]
      want_ = np.array(want[name])[taken].astype(found.dtype)
      np.testing.assert_array_equal(found, want_, name)
    if taken[0]:
      assert rows.memory['m'][i] == -slots[lane][slot]['frame']


@given(lanes=lanes_of_steps, stride=st.sampled_from([1, 3]))
@settings(max_examples=15)
def test_what_can_be_drawn_by_priority_is_what_is_valid(lanes, stride):
  kind = prioritized_sequences.PrioritizedSequenceReplay
  replay, ring, slots = filled(kind, stride, lanes)
  held = np.array(sum_tree.get(ring.tree, jnp.arange(N * ring.capacity)))
  lanes, places = np.nonzero(held.reshape(N, -1))
  wanted = {
    (lane, slot % ring.capacity) for lane, slot in starts(replay, slots)
  }
  assert set(zip(lanes.tolist(), places.tolist(), strict=True)) == wanted


def test_priorities_are_those_that_were_given():
  kind = prioritized_sequences.PrioritizedSequenceReplay
  replay, ring, _ = filled(kind, 1, [[RUNNING] * 9] * N)
  replay = replay.replace(alpha=2.0, beta=1.0, epsilon=0.0)
  first, second = 0, ring.capacity  # where each lane's first sequence begins
  index = jnp.array([first, second, first])
  given = jnp.array([3.0, 0.5, 2.0])
  ring = jax.jit(replay.reprioritize)(ring, index, given)
  held = sum_tree.get(ring.tree, index[:2])
  np.testing.assert_allclose(held, [9.0, 0.25])
  sample = jax.jit(replay.sample)(ring, jax.random.key(0))
  priority = np.array(sum_tree.get(ring.tree, sample.index))
  np.testing.assert_allclose(sample.weight, priority.min() / priority)
  assert (np.array(sample.index) == first).mean() > 0.25  # 9 of 17.25


def test_every_sequence_is_drawn_as_often():
  lanes = [[RUNNING] * 9, [RUNNING, TRUNCATED] * 4 + [RUNNING]]
  replay, ring, slots = filled(sequences.SequenceReplay, 1, lanes)
  replay = replay.replace(batch_size=4_000)
  sample = jax.jit(replay.sample)(ring, jax.random.key(1))
  found, counts = np.unique(
    np.stack([np.array(sample.index) // ring.capacity, sample.slot]),
    axis=1,
    return_counts=True,
  )
  expected = starts(replay, slots)
  assert set(map(tuple, found.T.tolist())) == expected
  share = 4_000 / len(expected)
  assert np.abs(counts - share).max() < 5 * np.sqrt(share)


@pytest.mark.parametrize(
  ('changes', 'said'),
  [
    ({'capacity': 10}, r'capacity = 10 .* 5 slots .* need 9'),
    ({'min_history': 9}, r'min_history = 9 .* need 10 agent steps'),
    ({'min_history': 27}, r'larger than the ring'),
    ({'length': 0}, r'length = 0'),
    ({'burn_in': -1}, r'burn_in = -1'),
    ({'stride': 0}, r'stride = 0'),
  ],
)
def test_settings_that_can_not_work(changes, said):
  step, _ = next(iter(play([[RUNNING]] * N)))
  with pytest.raises(errors.UserError, match=said):
    sequences.SequenceReplay(**SETTINGS | changes).init(step)


@given(
  seed=st.integers(0, 999), n=st.integers(1, 4), R=st.just(7), B=st.just(3)
)
@settings(max_examples=20)
def test_n_step_returns_by_a_loop(seed, n, R, B):
  rng = np.random.default_rng(seed)
  last = rng.random((R, B)) < 0.3
  sequence = agent_lib.Sequence(
    observation=None,
    action=None,
    reward=rng.normal(size=(R, B)).astype(np.float32),
    discount=np.where(rng.random((R, B)) < 0.3, 0.0, GAMMA).astype(np.float32),
    next_observation=None,
    last=last,
    seen=None,
    next_seen=None,
    memory=(),
    taken=None,
  )
  values = rng.normal(size=(R, B)).astype(np.float32)
  found = np.array(n_step(sequence, values, n))
  for b in range(B):
    for t in range(R - n):
      total, factor, row = 0.0, 1.0, t
      for _ in range(n):
        total += factor * sequence.reward[row, b]
        factor *= sequence.discount[row, b]
        row += 1
        if last[row - 1, b]:
          break
      expected = total + factor * values[row, b]
      np.testing.assert_allclose(found[t, b], expected, rtol=1e-5, atol=1e-6)


n_step = jax.jit(returns.n_step_returns)
