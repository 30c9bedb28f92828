"""Tests of replay.prioritized against the lists that replay_test plays."""

import functools
import itertools

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dopamine_jax import errors
from dopamine_jax.agents import dqn
from dopamine_jax.checkpoints import checkpoints
from dopamine_jax.engines import compiled as compiled_lib
from dopamine_jax.environments import catch
from dopamine_jax.replay import prioritized
from dopamine_jax.replay import sum_tree
from dopamine_jax.replay import uniform
from tests import many_devices
from tests import rings
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
  step = model.World(kind, [[]] * kind.envs).step()
  return rings.empty(lambda: replay.init(step))


@functools.cache
def compiled(kind, slots):
  """Returns an empty ring, `add` and `reprioritize`."""
  add = jax.jit(make(kind).add, compiler_options=COMPILE_FAST)
  return empty_ring(kind, slots), add, reprioritizer(kind)


@functools.cache
def reprioritizer(kind, **changes):
  replay = make(kind, **changes)
  return jax.jit(replay.reprioritize, compiler_options=COMPILE_FAST)


def leaves(ring):
  """Returns [N, C]; asserts that every node is the sum of its children."""
  for level, above in itertools.pairwise(ring.tree.levels):
    sums = np.asarray(level, np.float64).reshape(-1, sum_tree.FANOUT).sum(1)
    np.testing.assert_allclose(above[: len(sums)], sums, rtol=1e-5)
  count = ring.head.size * ring.capacity
  values = np.asarray(ring.tree.levels[0])
  assert not np.any(values[count:])
  return values[:count].reshape(ring.head.size, -1)


def stored(ring, priorities, alpha=1.0):
  """Returns what the tree should hold for priorities."""
  high = float(np.finfo(np.float32).max) / ring.tree.levels[0].size
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


def played(kind, scripts, num_steps, slots=model.FEW_SLOTS):
  """Returns the world and its ring after these steps."""
  ring, add, _ = compiled(kind, slots)
  world = model.World(kind, scripts)
  return world, world.play(add, ring, num_steps)


@functools.cache
def sampler(kind, **changes):
  """Returns a function from a ring and 64 keys to 64 samples of 64."""
  replay = make(kind, batch_size=64, min_history=64, **changes)
  return jax.jit(
    jax.vmap(replay.sample, (None, 0)), compiler_options=COMPILE_FAST
  )


def assert_proportional(counts, weights):
  """Chi-squared, six standard deviations allowed."""
  expected = weights / weights.sum() * counts.sum()
  freedom = len(counts) - 1
  chi_squared = np.sum((counts - expected) ** 2 / expected)
  assert chi_squared <= freedom + 6 * np.sqrt(2 * freedom), counts / expected


@pytest.mark.parametrize('stratified', [False, True])
@pytest.mark.parametrize('alpha', [0.0, 0.5, 1.0])
@pytest.mark.parametrize(
  'name', ['full and mixed', 'one environment, mixed', 'one valid slot']
)
def test_samples_valid_transitions_by_their_priorities(name, alpha, stratified):
  scenario = model.SCENARIOS[name]
  kind = scenario.kind
  world, ring = played(kind, scenario.scripts, scenario.num_steps)
  expected = world.transitions(model.FEW_SLOTS)
  cells = {
    lane * model.FEW_SLOTS + number % model.FEW_SLOTS: transition
    for (lane, number), transition in expected.items()
  }
  priority = np.random.default_rng(0).exponential(size=len(cells)) + 0.05
  ring = reprioritizer(kind, alpha=alpha)(
    ring, np.array(list(cells)), np.asarray(priority, np.float32)
  )
  counts = np.zeros(kind.envs * model.FEW_SLOTS, int)
  draw = sampler(kind, alpha=alpha, stratified=stratified)
  for seed in range(8):
    sample = draw(ring, jax.random.split(jax.random.key(seed), 64))
    index = np.asarray(sample.index).ravel()
    assert set(index.tolist()) <= set(cells)
    for leaf, values in zip(
      jax.tree.leaves(sample.transition),
      model.transposed(cells.values()),
      strict=True,
    ):
      table = np.zeros((len(counts), *leaf.shape[2:]), leaf.dtype)
      table[list(cells)] = np.stack(values)
      np.testing.assert_array_equal(
        np.reshape(leaf, (-1, *leaf.shape[2:])), table[index]
      )
    counts += np.bincount(index, minlength=len(counts))
  if len(cells) > 1:
    assert_proportional(counts[list(cells)], priority**alpha)


ALONE = model.Kind(1, 1, 1)


def four(priorities, alpha=1.0, **changes):
  """Returns a replay and a ring of four transitions, with priorities."""
  settings = {'capacity': 6, 'batch_size': 4, 'min_history': 4, **changes}
  replay = make(ALONE, epsilon=0.0, alpha=alpha, **settings)
  _, ring = played(ALONE, [[]], 4, replay.capacity)
  return replay, reprioritizer(ALONE, epsilon=0.0, alpha=alpha)(
    ring, np.arange(4), np.array(priorities, np.float32)
  )


@functools.partial(jax.jit, static_argnums=0)
def sample_of(replay, ring, key, updates=0):
  return replay.sample(ring, key, updates)


def test_weights_by_hand():
  # P = 1/16, 3/16, 4/16, 8/16; N = 4; so N P = 1/4, 3/4, 1, 2.
  raw = 1 / np.sqrt([0.25, 0.75, 1, 2])
  replay, ring = four([1, 3, 4, 8], batch_size=32, min_history=32, capacity=33)
  for key in range(3):
    sample = sample_of(replay, ring, jax.random.key(key))
    expected = raw[sample.index] / raw[sample.index].max()
    np.testing.assert_allclose(sample.weight, expected, rtol=1e-6)
    assert len(np.unique(sample.index)) > 1


def test_alpha_is_the_exponent_of_priorities_in_weights_too():
  replay, ring = four([1, 3, 4, 8], alpha=2.0, beta=1.0, stratified=True)
  sample = sample_of(replay, ring, jax.random.key(1))
  powers = np.array([1, 9, 16, 64])[sample.index]
  np.testing.assert_allclose(sample.weight, powers.min() / powers, rtol=1e-6)


@pytest.mark.parametrize(('updates', 'beta'), [(0, 0.4), (50, 0.7), (200, 1)])
def test_beta_may_be_a_schedule_over_updates(updates, beta):
  schedule = optax.linear_schedule(0.4, 1.0, 100)
  replay, ring = four([1, 3, 4, 8], beta=schedule, stratified=True)
  sample = sample_of(replay, ring, jax.random.key(0), jnp.int32(updates))
  value = np.array([1, 3, 4, 8])[sample.index]
  np.testing.assert_allclose(
    sample.weight, (value.min() / value) ** beta, rtol=1e-6
  )
  assert sample.weight.max() == 1


def test_without_beta_all_weights_are_one():
  replay, ring = four([1, 3, 4, 8], beta=0.0)
  assert (sample_of(replay, ring, jax.random.key(0)).weight == 1).all()


def test_a_stratified_sample_has_one_draw_from_each_part():
  # Each transition is as large as one of the parts, then two of them together.
  replay, ring = four([2, 2, 2, 2], stratified=True)
  for key in range(20):
    index = sample_of(replay, ring, jax.random.key(key)).index
    np.testing.assert_array_equal(index, [0, 1, 2, 3])
  replay, ring = four([6, 2, 7, 1], stratified=True)
  for key in range(20):
    index = np.asarray(sample_of(replay, ring, jax.random.key(key)).index)
    assert index[0] == 0
    assert index[1] in (0, 1)
    assert index[2] == 2
    assert index[3] in (2, 3)


def test_new_transitions_get_the_largest_priority_so_far():
  _, ring = four([0.25, 3, 0.5, 0.125], alpha=2.0)
  _, add, _ = compiled(ALONE, ring.capacity)
  world = model.World(ALONE, [[]])
  np.testing.assert_array_equal(
    leaves(ring), [[1 / 16, 9, 1 / 4, 1 / 64, 0, 0]]
  )
  ring = add(ring, world.step())
  assert leaves(ring)[0, 4] == 9
  # It stays the largest when what had it is no more, or has another.
  reprioritize = reprioritizer(ALONE, epsilon=0.0, alpha=2.0)
  ring = reprioritize(ring, np.arange(5), np.full(5, 0.5, np.float32))
  ring = add(ring, world.step())
  assert leaves(ring)[0, 5] == 9


def test_the_first_transitions_have_a_priority_of_one():
  _, ring = four([0.25] * 4)
  _, add, _ = compiled(ALONE, ring.capacity)
  assert leaves(add(ring, model.World(ALONE, [[]]).step()))[0, 4] == 1


def test_priorities_of_slots_without_a_valid_transition_change_nothing():
  _, ring = four([1, 2, 3, 4])
  before = leaves(ring)
  _, _, reprioritize = compiled(ALONE, ring.capacity)
  ring = reprioritize(ring, np.array([4, 5]), np.ones(2, np.float32))
  np.testing.assert_array_equal(leaves(ring), before)


@pytest.mark.usefixtures('optimized')
@pytest.mark.parametrize('seeds', [None, 3])
@pytest.mark.parametrize('method', ['add', 'reprioritize'])
def test_writes_into_the_donated_buffers(method, seeds):
  kind = model.Kind(3, 4, 2, np.uint8, (8, 8))
  replay = make(kind, capacity=40_000, batch_size=6, min_history=6)
  step = model.World(kind, ((), ())).step()
  arguments = {
    'add': (step,),
    'reprioritize': (np.arange(6), np.ones(6, np.float32)),
  }[method]
  init, function = replay.init, getattr(replay, method)
  if seeds:
    init, function = jax.vmap(init), jax.vmap(function)
    step, arguments = jax.tree.map(
      lambda x: np.stack([x] * seeds), (step, arguments)
    )
  ring = init(step)
  before = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(ring)]
  size = ring.slots.status.nbytes  # the smallest of what must not be copied
  program = jax.jit(function, donate_argnums=0)
  program = program.lower(ring, *arguments).compile()
  for _ in range(3):
    ring = program(ring, *arguments)
  after = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(ring)]
  assert after == before
  # Nor is it copied elsewhere and back.
  assert program.memory_analysis().temp_size_in_bytes < size


def test_a_seed_among_others_is_bit_for_bit_the_solo_one():
  kind = model.Kind(3, 4, 2, np.uint8, (3, 4))
  replay = make(kind, batch_size=64, min_history=64, alpha=0.6)
  scripts = ((model.SHORT, model.MIXED), (model.MIXED, ()), ((), ()))
  worlds = [model.World(kind, each, seed) for seed, each in enumerate(scripts)]
  steps = [[world.step() for world in worlds] for _ in range(20)]
  stack = functools.partial(jax.tree.map, lambda *x: np.stack(x))
  losses = np.random.default_rng(0).exponential(size=64).astype(np.float32)

  def play(ring, steps, key):
    ring = jax.lax.scan(lambda r, s: (replay.add(r, s), None), ring, steps)[0]
    first = replay.sample(ring, key)
    ring = replay.reprioritize(ring, first.index, losses)
    return ring, first, sample_of(replay, ring, jax.random.fold_in(key, 1))

  ring = empty_ring(kind, model.FEW_SLOTS)
  keys = jax.random.split(jax.random.key(0), 3)
  all_steps = stack(*[stack(*of) for of in zip(*steps, strict=True)])
  over_seeds = jax.jit(jax.vmap(play, (None, 0, 0)))
  together = jax.device_get(over_seeds(ring, all_steps, keys))
  solo = jax.jit(play)
  for seed, key in enumerate(keys):
    alone = solo(ring, jax.tree.map(lambda x, s=seed: x[s], all_steps), key)
    jax.tree.map(
      lambda one, of_all, seed=seed: np.testing.assert_array_equal(
        of_all[seed], one, strict=True
      ),
      alone,
      together,
    )


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'alpha': -0.1}, r'alpha = -0.1 is too small; .* at least 0'),
    ({'epsilon': -1e-6}, r'epsilon = -1e-06 is too small'),
    ({'beta': 1.5}, r'beta = 1.5 is out of range; .* \[0, 1\]'),
    ({'beta': None}, r'beta = None is of type NoneType'),
    ({'batch_size': 0}, r'PrioritizedReplay.batch_size = 0 is too small'),
  ],
)
def test_refuses_settings_that_cannot_work(changes, message):
  with pytest.raises(errors.UserError, match=message):
    prioritized.PrioritizedReplay(**changes)


# Through a checkpoint.


def saved_and_restored(folder, ring, with_replay):
  saved = checkpoints.Checkpoints(folder)
  saved.save(1, {'experience': ring}, previous=None, with_replay=with_replay)
  template = jax.eval_shape(lambda: {'experience': ring})
  return saved.restore(1, template)['experience']


def test_priorities_come_back_from_a_checkpoint_exactly(tmp_path):
  _, ring = four([1e-30, 0.1, 3.3, 1e30])
  back = saved_and_restored(tmp_path, ring, with_replay=True)
  jax.tree.map(np.testing.assert_array_equal, (back.tree, back.largest), (
    ring.tree, ring.largest,
  ))  # fmt: skip


def test_without_its_steps_a_ring_comes_back_without_their_priorities(tmp_path):
  _, ring = four([1, 2, 3, 4])
  back = saved_and_restored(tmp_path, ring, with_replay=False)
  assert not leaves(back).any()
  # And is as good as new.
  world = model.World(ALONE, [[]])
  _, add, _ = compiled(ALONE, ring.capacity)
  back = add(back, world.step())
  np.testing.assert_array_equal(leaves(back), [[1, 0, 0, 0, 0, 0]])


# Through the agent.

# By purpose and update, what was seen in a training.
SEEN = {'sampled': {}, 'learned': {}}


def see(purpose, updates, *values):
  """Keeps values by the number of the update, whatever order they come in."""

  def keep(updates, *values):
    SEEN[purpose][int(updates)] = [np.asarray(value) for value in values]

  jax.debug.callback(keep, updates, *values)


class SeenReplay(prioritized.PrioritizedReplay):
  """Shows what it samples, and from which slots it may."""

  def sample(self, ring, key, updates=0):
    sample = super().sample(ring, key, updates)
    place = jnp.arange(ring.head.size * ring.capacity)
    lane, slot = jnp.divmod(place, ring.capacity)  # which is not yet full
    valid = self.is_valid(ring, lane, slot)
    see('sampled', updates, valid, sample.index, sample.weight)
    return sample


class SeenDQN(dqn.DQN):
  """Shows the priorities that it gives."""

  def update(self, state, sample, key):
    result = super().update(state, sample, key)
    see('learned', state.updates, sample.index, result[2])
    return result


# The compiled engine calls the same function, as `compiled_test` compares.
@pytest.mark.parametrize(
  'kind', ['python', pytest.param('compiled', marks=pytest.mark.slow)]
)
def test_an_agent_learns_from_what_it_found_worth_learning(kind):
  SEEN['sampled'].clear(), SEEN['learned'].clear()
  inside = {'environment': catch.Catch(), 'engine': compiled_lib.CompiledEngine}
  engine = many_devices.make_engine(
    network='MLP',
    agent=SeenDQN,
    replay=SeenReplay,
    capacity=2_000,
    batch_size=32,
    learning_rate=0.1,
    **(inside if kind == 'compiled' else {}),
  )
  engine.run(640, cut_with=None, on_step=lambda: None)
  jax.effects_barrier()
  assert sorted(SEEN['sampled']) == sorted(SEEN['learned']) == list(range(151))

  # What the agent said of each transition last, at first the most of any.
  priority, largest = np.full(2_000, np.nan), 1.0
  drawn = mean = by_chance = variance = 0
  for update in range(151):
    valid, index, weight = SEEN['sampled'][update]
    assert valid[index].all()
    priority[valid & np.isnan(priority)] = largest
    p = np.where(valid, priority, 0)
    np.testing.assert_allclose(
      weight, np.sqrt(p[index].min() / p[index]), rtol=1e-3
    )
    p /= p.sum()
    drawn += p[index].sum()
    mean += 32 * (p**2).sum()
    by_chance += 32 / valid.sum()
    variance += 32 * ((p**3).sum() - (p**2).sum() ** 2)
    same, new = SEEN['learned'][update]
    np.testing.assert_array_equal(same, index)
    for i in index:
      priority[i] = new[index == i].max() + 1e-6
    largest = max(largest, new.max() + 1e-6)
  deviation = np.sqrt(variance)
  assert abs(drawn - mean) < 5 * deviation
  assert mean - by_chance > 20 * deviation  # else it would tell nothing


@pytest.mark.parametrize(
  'kind', [uniform.UniformReplay, prioritized.PrioritizedReplay]
)
def test_an_empty_ring_is_nothing_but_zeros(kind):
  """As tests make theirs, without a program for each shape."""
  step = rings.make_step(np.random.default_rng(0), 2)
  empty = kind(capacity=20, batch_size=2, min_history=2).init(step)
  for leaf in jax.tree.leaves(empty):
    assert not np.asarray(leaf).any()
