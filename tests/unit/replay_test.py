"""Tests of replay.ring and replay.uniform against a model made of lists.

The model keeps every episode from the first step on. What a ring of C slots
may still know of them is a slice of a list: the last C frames.
"""

import dataclasses
import functools
import itertools

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dopamine_jax import errors
from dopamine_jax.replay import ring as ring_lib
from dopamine_jax.replay import uniform
from tests import rings

# How an episode ends; a running one has not.
TERMINATED, TRUNCATED, BOTH, RUNNING = 'terminated', 'truncated', 'both', ''
# Its powers, and sums of quarters, are exact in float32.
GAMMA = 0.5
MAX_STEPS = 40
MANY_SLOTS = 2 * MAX_STEPS + 3  # more than that many steps fill
FEW_SLOTS = 14
# For programs that are many, small and seldom run.
COMPILE_FAST = {
  'xla_backend_optimization_level': 0,
  'xla_llvm_disable_expensive_passes': True,
}


@dataclasses.dataclass
class Episode:
  """`frames` is one longer than `actions` and `rewards`."""

  frames: list
  actions: list = dataclasses.field(default_factory=list)
  rewards: list = dataclasses.field(default_factory=list)
  end: str = RUNNING


@dataclasses.dataclass(frozen=True)
class Kind:
  """What a replay is asked to keep."""

  n: int
  stack: int
  envs: int
  dtype: type = np.uint8
  shape: tuple[int, ...] = (2,)
  action_shape: tuple[int, ...] = ()

  def __str__(self):
    return f'n={self.n},stack={self.stack},envs={self.envs}'

  def frame(self, rng):
    if self.dtype is np.float32:
      return rng.normal(size=self.shape).astype(np.float32)
    high = 2 if self.dtype is bool else 256
    return rng.integers(0, high, self.shape).astype(self.dtype)

  def action(self, rng):
    if self.action_shape:
      return rng.normal(size=self.action_shape).astype(np.float32)
    return np.int32(rng.integers(10))

  def replay(self, **changes):
    return uniform.UniformReplay(
      n_step=self.n, stack=self.stack, gamma=GAMMA, **changes
    )

  def ring(self, slots):
    """Returns an empty ring with so many slots for each environment."""
    step = World(self, [[]] * self.envs).step()
    return rings.empty(lambda: ring_lib.init(step, slots))


def transposed(rows):
  return list(zip(*rows, strict=True))


class World:
  """Environments that play scripts; knows what a replay should then hold.

  Args:
    kind: what frames and actions are like, and how many environments.
    scripts: for each environment (length, end) of each of its episodes; the
      one after the last runs on.
    seed: of all that the scripts leave open.
  """

  def __init__(self, kind, scripts, seed=0):
    self.kind = kind
    self._rng = np.random.default_rng(seed)
    self._scripts = scripts[: kind.envs]
    self._lanes = [[Episode([kind.frame(self._rng)])] for _ in self._scripts]

  def step(self):
    steps = map(self._step, self._lanes, self._scripts)
    return ring_lib.Step(*map(np.stack, transposed(steps)))

  def play(self, add, ring, num_steps):
    for _ in range(num_steps):
      ring = add(ring, self.step())
    return ring

  def _step(self, episodes, script):
    episode, rng = episodes[-1], self._rng
    episode.actions.append(self.kind.action(rng))
    episode.rewards.append(np.float32(rng.integers(-16, 17) / 4))
    episode.frames.append(self.kind.frame(rng))
    if len(episodes) <= len(script):
      length, end = script[len(episodes) - 1]
      if len(episode.actions) == length:
        episode.end = end
        # Its first frame is known at once, and awaits its slot.
        episodes.append(Episode([self.kind.frame(rng)]))
    return (
      episode.frames[-2],
      episode.actions[-1],
      episode.rewards[-1],
      np.bool_(episode.end in (TERMINATED, BOTH)),
      np.bool_(episode.end in (TRUNCATED, BOTH)),
      episode.frames[-1],
    )

  def transitions(self, slots):
    """Returns {(environment, number of the slot): (s, a, r, discount, s')}."""
    found = {}
    for lane, episodes in enumerate(self._lanes):
      frames = [(e, t) for e in episodes for t in range(len(e.frames))]
      for number, (episode, t) in enumerate(frames):
        to_come = len(episode.actions) - t
        complete = to_come >= self.kind.n or (to_come > 0 and episode.end)
        first = number - min(t, self.kind.stack - 1)
        if complete and first >= len(frames) - slots:
          found[lane, number] = self._transition(episode, t)
    return found

  def _transition(self, episode, t):
    rewards = episode.rewards[t : t + self.kind.n]
    after = t + len(rewards)
    at_end = episode.end and after == len(episode.actions)
    terminal = at_end and episode.end != TRUNCATED
    return (
      self._observation(episode, t),
      episode.actions[t],
      np.float32(sum(GAMMA**i * float(r) for i, r in enumerate(rewards))),
      np.float32(0 if terminal else GAMMA ** len(rewards)),
      self._observation(episode, after),
    )

  def _observation(self, episode, t):
    stack = self.kind.stack
    if stack == 1:
      return episode.frames[t]
    padded = [np.zeros_like(episode.frames[0])] * (stack - 1) + episode.frames
    return np.stack(padded[t : t + stack], axis=-1)


KINDS = [
  Kind(*numbers, *frames, action_shape)
  for numbers, frames, action_shape in zip(
    itertools.product([1, 3, 5], [1, 4], [1, 3]),
    itertools.cycle(
      itertools.product([np.uint8, bool, np.float32], [(2,), (3, 4), ()])
    ),
    itertools.cycle([(), (), (2,)]),
    strict=False,
  )
]

scripts_strategy = st.lists(
  st.lists(
    st.tuples(
      st.one_of(st.just(1), st.integers(1, 9)),
      st.sampled_from([TERMINATED, TRUNCATED, BOTH]),
    ),
    max_size=MAX_STEPS,
  ),
  min_size=3,
  max_size=3,
)


@functools.cache
def compiled(kind, slots):
  """Returns an empty ring, `add`, and a function that looks at every number.

  The numbers reach from before the first slot to a whole turn past the head.
  """
  replay = kind.replay()
  lane, number = (
    grid.ravel()
    for grid in np.meshgrid(
      np.arange(kind.envs), np.arange(-slots, 2 * MAX_STEPS + slots)
    )
  )

  def look(ring):
    return (
      replay.is_valid(ring, lane, number),
      replay.transition_at(ring, lane, number),
    )

  add = jax.jit(replay.add, compiler_options=COMPILE_FAST)
  look = jax.jit(look, compiler_options=COMPILE_FAST)
  names = list(zip(lane.tolist(), number.tolist(), strict=True))
  return kind.ring(slots), add, lambda ring: (names, *look(ring))


def assert_holds(world, slots, look):
  """Every valid transition is there, exact, and nothing else is."""
  expected = world.transitions(slots)
  names, valid, transition = look
  valid = np.asarray(valid)
  assert [names[i] for i in np.flatnonzero(valid)] == sorted(
    expected, key=lambda name: (name[1], name[0])
  )
  if expected:
    found = [np.asarray(leaf)[valid] for leaf in jax.tree.leaves(transition)]
    rows = [expected[names[i]] for i in np.flatnonzero(valid)]
    for leaf, values in zip(found, transposed(rows), strict=True):
      np.testing.assert_array_equal(leaf, np.stack(values), strict=True)
  return expected


@pytest.mark.parametrize(
  ('kind', 'slots'),
  [(kind, kind.n + kind.stack + 1) for kind in KINDS]
  # A third of them, which hold each number and each type.
  + [(kind, MANY_SLOTS) for kind in KINDS[1::3]],
  ids=str,
)
@settings(max_examples=8)
@given(
  scripts=scripts_strategy,
  num_steps=st.integers(0, MAX_STEPS),
  seed=st.integers(0, 2**32 - 1),
)
def test_holds_every_transition_exactly_as_the_environments_made_it(
  kind, slots, scripts, num_steps, seed
):
  ring, add, look = compiled(kind, slots)
  world = World(kind, scripts, seed)
  for done in range(0, num_steps + 1, 5):
    expected = assert_holds(world, slots, look(ring))
    # Else sampling would never end.
    assert expected or done < kind.n
    ring = world.play(add, ring, min(5, num_steps - done))
  assert_holds(world, slots, look(ring))


@dataclasses.dataclass(frozen=True)
class Scenario:
  """What has been played when a sample is drawn."""

  kind: Kind
  scripts: tuple
  num_steps: int

  def play(self):
    ring, add, _ = compiled(self.kind, FEW_SLOTS)
    world = World(self.kind, self.scripts)
    return world, world.play(add, ring, self.num_steps)


SHORT = ((1, TERMINATED), (1, TRUNCATED), (1, BOTH)) * MAX_STEPS
MIXED = ((4, TRUNCATED), (1, TERMINATED), (7, BOTH), (2, TERMINATED)) * 9
THREE = Kind(3, 4, 3, np.uint8, (3, 4))
ONE = Kind(1, 1, 1, np.float32, ())
SCENARIOS = {
  'just started, and filled unevenly': Scenario(THREE, (SHORT, (), MIXED), 5),
  'hardly one is valid': Scenario(THREE, ((), (), ()), 3),
  'one-step episodes': Scenario(THREE, (SHORT, SHORT, SHORT), 40),
  'full and mixed': Scenario(THREE, (SHORT, (), MIXED), 40),
  'one valid slot': Scenario(ONE, ((),), 1),
  'one environment of one-step episodes': Scenario(ONE, (SHORT,), 40),
  'one environment, mixed': Scenario(ONE, (MIXED,), 37),
}


@functools.cache
def sampler(kind):
  """Returns a function from a ring and 64 keys to 64 samples of 64."""
  sample = kind.replay(batch_size=64, min_history=64).sample
  return jax.jit(jax.vmap(sample, (None, 0)), compiler_options=COMPILE_FAST)


@pytest.mark.parametrize('scenario', SCENARIOS.values(), ids=SCENARIOS)
def test_samples_valid_transitions_alone_each_as_often_as_another(scenario):
  world, ring = scenario.play()
  expected = world.transitions(FEW_SLOTS)
  cells = {
    lane * FEW_SLOTS + number % FEW_SLOTS: transition
    for (lane, number), transition in expected.items()
  }
  assert len(cells) == len(expected)
  counts = np.zeros(scenario.kind.envs * FEW_SLOTS, int)
  for seed in range(8):
    keys = jax.random.split(jax.random.key(seed), 64)
    sample = sampler(scenario.kind)(ring, keys)
    index = np.asarray(sample.index).ravel()
    assert set(index.tolist()) <= set(cells)
    for leaf, values in zip(
      jax.tree.leaves(sample.transition),
      transposed(cells.values()),
      strict=True,
    ):
      table = np.zeros((len(counts), *leaf.shape[2:]), leaf.dtype)
      table[list(cells)] = np.stack(values)
      np.testing.assert_array_equal(
        np.reshape(leaf, (-1, *leaf.shape[2:])), table[index]
      )
    assert np.all(np.asarray(sample.weight) == 1)
    counts += np.bincount(index, minlength=len(counts))
  assert_uniform(counts[list(cells)])


def assert_uniform(counts):
  """Chi-squared against equal chances, six standard deviations allowed."""
  mean = counts.sum() / len(counts)
  freedom = len(counts) - 1
  chi_squared = np.sum((counts - mean) ** 2) / mean
  assert chi_squared <= freedom + 6 * np.sqrt(2 * freedom), counts


def test_samples_follow_the_key_alone():
  _, ring = SCENARIOS['full and mixed'].play()
  keys = jax.random.split(jax.random.key(0), 64)
  draw = sampler(THREE)
  first, again = draw(ring, keys).index, draw(ring, keys).index
  np.testing.assert_array_equal(first, again)
  assert len(np.unique(np.asarray(first), axis=0)) == 64


def test_two_step_transitions_of_one_episode_by_hand():
  replay = uniform.UniformReplay(
    n_step=2, stack=2, gamma=0.9, capacity=60, batch_size=3, min_history=6
  )

  def step(frame, reward, done):
    # The same in three environments, but for how the episode ends.
    return ring_lib.Step(
      observation=np.full((3, 1), frame, np.uint8),
      action=np.full(3, frame + 20, np.int32),
      reward=np.full(3, reward, np.float32),
      terminated=np.array([True, False, True]) & done,
      truncated=np.array([False, True, True]) & done,
      next_observation=np.full((3, 1), frame + 1, np.uint8),
    )

  steps = [step(1, 1, False), step(2, 10, False), step(3, 100, True)]
  steps.append(step(7, 9, False))

  @functools.partial(jax.jit, compiler_options=COMPILE_FAST)
  def play(steps):
    ring = replay.init(steps[0])
    for step in steps:
      ring = replay.add(ring, step)
    lane, slot = jnp.divmod(jnp.arange(18), 6)
    found = (
      replay.is_valid(ring, lane, slot),
      replay.transition_at(ring, lane, slot),
    )
    return jax.tree.map(lambda x: x.reshape(3, 6, *x.shape[1:]), found)

  valid, found = play(steps)
  # The episode's three steps, its last frame, a step that awaits a second one.
  np.testing.assert_array_equal(valid, [[1, 1, 1, 0, 0, 0]] * 3)
  found = jax.tree.map(lambda x: np.asarray(x)[:, :3], found)
  np.testing.assert_array_equal(
    found.observation, [[[[0, 1]], [[1, 2]], [[2, 3]]]] * 3
  )
  np.testing.assert_array_equal(found.action, [[21, 22, 23]] * 3)
  np.testing.assert_allclose(found.reward, [[10, 100, 100]] * 3, rtol=1e-6)
  np.testing.assert_allclose(
    found.discount,
    [[0.81, 0, 0], [0.81, 0.81, 0.9], [0.81, 0, 0]],
    rtol=1e-6,
  )
  np.testing.assert_array_equal(
    found.next_observation, [[[[2, 3]], [[3, 4]], [[3, 4]]]] * 3
  )


def test_fill_counts_the_slots_in_use():
  kind = Kind(1, 1, 2)
  replay = kind.replay()
  add, fill = jax.jit(replay.add), jax.jit(replay.fill)
  ring = kind.ring(5)  # of which four hold steps, and one what followed
  # The first environment's episodes take two slots a step.
  world = World(kind, (((1, TERMINATED),) * 9, ()))
  found = [float(fill(ring))]
  for _ in range(5):
    ring = world.play(add, ring, 1)
    found.append(float(fill(ring)))
  assert found == [0, 3 / 8, 6 / 8, 7 / 8, 1, 1]


def test_a_ring_of_many_environments_divides_its_capacity():
  ring = (
    Kind(1, 1, 3)
    .replay(capacity=60, batch_size=3, min_history=3)
    .init(World(Kind(1, 1, 3), [[]] * 3).step())
  )
  assert ring.capacity == 20
  assert ring.slots.frame.shape == (3, 20, 2)


def test_reprioritize_leaves_the_ring_as_it_is():
  kind = Kind(1, 1, 1)
  ring = kind.ring(4)
  replay = kind.replay()
  assert replay.reprioritize(ring, np.zeros(2, int), np.ones(2)) is ring


@pytest.mark.usefixtures('optimized')
@pytest.mark.parametrize('seeds', [None, 3])
def test_add_writes_into_the_donated_buffers(seeds):
  kind = Kind(3, 4, 2, np.uint8, (8, 8))
  replay = kind.replay(capacity=2_000, batch_size=6, min_history=6)
  step = World(kind, ((), ())).step()
  init, add = replay.init, replay.add
  if seeds:
    init, add = jax.vmap(init), jax.vmap(add)
    step = jax.tree.map(lambda x: np.stack([x] * seeds), step)
  ring = init(step)
  before = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(ring)]
  size = ring.slots.reward.nbytes  # the smallest of what must not be copied
  program = jax.jit(add, donate_argnums=0).lower(ring, step).compile()
  for _ in range(3):
    ring = program(ring, step)
  after = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(ring)]
  assert after == before
  # Nor is it copied elsewhere and back.
  assert program.memory_analysis().temp_size_in_bytes < size


def test_a_seed_among_others_is_bit_for_bit_the_solo_one():
  kind = Kind(3, 4, 2, np.uint8, (3, 4))
  # 0.9 has no exact powers, so that another order of summing would show.
  replay = kind.replay(batch_size=16, min_history=16).replace(gamma=0.9)
  worlds = [
    World(kind, scripts, seed)
    for seed, scripts in enumerate([(SHORT, ()), (MIXED, SHORT), ((), ())])
  ]
  steps = [[world.step() for world in worlds] for _ in range(20)]
  keys = jax.random.split(jax.random.key(0), 3)
  stack = functools.partial(jax.tree.map, lambda *x: np.stack(x))

  add, sample = jax.jit(jax.vmap(replay.add)), jax.jit(jax.vmap(replay.sample))
  rings = stack(*[kind.ring(FEW_SLOTS)] * 3)
  for each in steps:
    rings = add(rings, stack(*each))
  together = jax.device_get([rings, sample(rings, keys)])

  add, sample = jax.jit(replay.add), jax.jit(replay.sample)
  for seed, key in enumerate(keys):
    ring = kind.ring(FEW_SLOTS)
    for each in steps:
      ring = add(ring, each[seed])
    jax.tree.map(
      lambda solo, of_all, seed=seed: np.testing.assert_array_equal(
        of_all[seed], solo, strict=True
      ),
      [ring, sample(ring, key)],
      together,
    )


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'capacity': 0}, r'capacity = 0 is too small; .* at least 1'),
    ({'batch_size': 0}, r'batch_size = 0 is too small'),
    ({'n_step': 0}, r'n_step = 0 is too small'),
    ({'stack': 0}, r'stack = 0 is too small'),
    ({'min_history': 0}, r'min_history = 0 is too small'),
    ({'gamma': 1.01}, r'gamma = 1.01 is out of range; .* \[0, 1\]'),
    ({'gamma': -0.1}, r'gamma = -0.1 is out of range'),
    (
      {'batch_size': 33, 'min_history': 32},
      r'batch_size = 33 is larger than .* \(min_history = 32\)',
    ),
    (
      {'min_history': 101, 'capacity': 100},
      r'min_history = 101 is larger than the ring \(capacity = 100\)',
    ),
  ],
)
def test_refuses_settings_that_cannot_work(changes, message):
  with pytest.raises(errors.UserError, match=message):
    uniform.UniformReplay(**changes)


@pytest.mark.parametrize(
  ('fits', 'changes', 'message'),
  [
    (
      24,
      {'capacity': 23},
      r'capacity = 23 is too small: 7 slots for each of 3',
    ),
    (24, {'min_history': 8}, r'min_history = 8 is too small: 3 environments'),
  ],
)
def test_refuses_a_share_of_the_ring_in_which_nothing_is_ever_valid(
  fits, changes, message
):
  kind = Kind(3, 4, 3)
  step = World(kind, [[]] * 3).step()
  ok = kind.replay(capacity=fits, batch_size=2, min_history=9)
  assert ok.init(step).capacity == fits // 3
  with pytest.raises(errors.UserError, match=message):
    ok.replace(**changes).init(step)
