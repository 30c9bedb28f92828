"""Tests of replay.rollout against lists of the steps that were taken."""

import functools

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import jax
import numpy as np
import pytest

from dopamine_jax import errors
from dopamine_jax.replay import ring as ring_lib
from dopamine_jax.replay import rollout

N, T, GAMMA = 2, 3, 0.5
TERMINATED, TRUNCATED, BOTH, RUNNING = 'terminated', 'truncated', 'both', ''
ends = st.sampled_from([TERMINATED, TRUNCATED, BOTH, *[RUNNING] * 3])


def make(**changes):
  return rollout.Rollout(**{'steps': N * T, 'gamma': GAMMA} | changes)


class World:
  """Plays N environments; frame i of all that were ever seen has the number i.

  `rows` are the steps, as a rollout is to hand them out: the stacks before and
  after, action, reward, discount, last.
  """

  def __init__(self, stack):
    self.stack = stack
    self.count = 0
    self.episodes = [[self._frame()] for _ in range(N)]
    self.rows = []

  def _frame(self):
    self.count += 1
    return self.count

  def _stacked(self, frames):
    padded = [0] * self.stack + frames
    return padded[-self.stack :] if self.stack > 1 else padded[-1]

  def step(self, ends):
    before = [self._stacked(frames) for frames in self.episodes]
    newest = [frames[-1] for frames in self.episodes]
    after = [self._frame() for _ in range(N)]
    for frames, frame in zip(self.episodes, after, strict=True):
      frames.append(frame)
    following = [self._stacked(frames) for frames in self.episodes]
    action = [10 * frame for frame in newest]
    reward = [frame / 4 for frame in newest]
    terminated = [end in (TERMINATED, BOTH) for end in ends]
    discount = [0.0 if each else GAMMA for each in terminated]
    last = [end != RUNNING for end in ends]
    self.rows.append((before, following, action, reward, discount, last))
    for i in range(N):
      if last[i]:
        self.episodes[i] = [self._frame()]
    return ring_lib.Step(
      observation=np.array(newest, np.int32)[:, None],
      action=np.array(action, np.int32),
      reward=np.array(reward, np.float32),
      terminated=np.array(terminated),
      truncated=np.array([end in (TRUNCATED, BOTH) for end in ends]),
      next_observation=np.array(after, np.int32)[:, None],
    )


def assert_newest_rows(sample, world):
  found = sample.transition
  expected = [np.array(x) for x in zip(*world.rows[-T:], strict=True)]
  names = ('observation', 'next_observation', 'action', 'reward')
  for name, rows in zip((*names, 'discount', 'last'), expected, strict=True):
    if name.endswith('observation'):
      rows = rows[:, :, None]
    np.testing.assert_array_equal(getattr(found, name), rows, err_msg=name)
  np.testing.assert_array_equal(sample.weight, np.ones((T, N)))


@pytest.mark.parametrize('stack', [1, 3])
@settings(max_examples=15)
@given(script=st.lists(st.tuples(*[ends] * N), min_size=T, max_size=20))
def test_a_rollout_is_the_newest_steps_in_order(stack, script):
  replay, world = make(stack=stack), World(stack)
  first = world.step(script[0])
  ring = replay.init(first)
  ring = ADD(ring, first)
  for row in script[1:]:
    ring = ADD(ring, world.step(row))
    if len(world.rows) >= T:
      assert_newest_rows(SAMPLE[stack](ring), world)


ADD = jax.jit(ring_lib.add)
SAMPLE = {
  replay.stack: jax.jit(functools.partial(replay.sample, key=None))
  for replay in (make(stack=1), make(stack=3))
}


def test_many_episodes_of_one_step_still_fit():
  replay, world = make(stack=3), World(3)
  first = world.step((TERMINATED, RUNNING))
  ring = ADD(replay.init(first), first)
  for _ in range(10):
    ring = ADD(ring, world.step((TERMINATED, TRUNCATED)))
    if len(world.rows) >= T:
      assert_newest_rows(SAMPLE[3](ring), world)


def test_each_seed_has_its_own_ends():
  replay, worlds = make(), [World(1), World(1)]
  ends_of = [(TERMINATED, RUNNING), (RUNNING, TRUNCATED)]
  steps = [w.step(e) for w, e in zip(worlds, ends_of, strict=True)]
  rings = jax.tree.map(lambda *x: np.stack(x), *[replay.init(s) for s in steps])
  add = jax.jit(jax.vmap(replay.add))
  sample = jax.jit(jax.vmap(replay.sample, (0, None)))
  for _ in range(7):
    rings = add(rings, jax.tree.map(lambda *x: np.stack(x), *steps))
    steps = [w.step(e) for w, e in zip(worlds, ends_of, strict=True)]
  rings = add(rings, jax.tree.map(lambda *x: np.stack(x), *steps))
  samples = sample(rings, None)
  for i, world in enumerate(worlds):
    assert_newest_rows(jax.tree.map(lambda x, i=i: x[i], samples), world)


def test_the_agent_acts_at_once_and_learns_after_a_rollout():
  assert make().warm_up == 0
  assert make().min_history == N * T


def test_reprioritizing_changes_nothing():
  ring = make().init(World(1).step((RUNNING, RUNNING)))
  assert make().reprioritize(ring, None, None) is ring


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    (
      {'steps': 5},
      r'steps = 5 is not a multiple of num_envs = 2.*update_period',
    ),
    ({'steps': 0}, 'steps = 0 is too small'),
    ({'gamma': 1.5}, 'gamma = 1.5 is out of range'),
  ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
  with pytest.raises(errors.UserError, match=message):
    make(**settings).init(World(1).step((RUNNING, RUNNING)))


def test_devices_do_not_share_a_rollout():
  with pytest.raises(errors.UserError, match=r"4 devices.*split = 'seeds'"):
    make().check_split(4)
