"""Observations of several parts, from the border to the replay and back."""

import functools

import gymnasium
from gymnasium import spaces as gym_spaces
import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dopamine_jax import errors
from dopamine_jax import runner as runner_lib
from dopamine_jax import spaces
from dopamine_jax import values
from dopamine_jax.engines import compiled
from dopamine_jax.engines import devices
from dopamine_jax.engines import dispatch
from dopamine_jax.engines import loop
from dopamine_jax.engines import plain_engine
from dopamine_jax.engines import stacking
from dopamine_jax.environments import base
from dopamine_jax.environments import border
from dopamine_jax.environments import gym
from dopamine_jax.playing import player
from dopamine_jax.playing import trained
from dopamine_jax.replay import ring
from dopamine_jax.training import fingerprint
from tests import programs
from tests import trees
from tests.unit import engine_test

small_dqn = engine_test.small_dqn

LEAVES = st.sampled_from(
  [
    gym_spaces.Discrete(3),
    gym_spaces.MultiBinary(2),
    gym_spaces.Box(0, 1, (2, 3), np.float32),
    gym_spaces.Box(0, 255, (), np.uint8),
  ]
)
TREES = st.recursive(
  LEAVES,
  lambda inner: (
    st.dictionaries(
      st.sampled_from('zyxab'), inner, min_size=1, max_size=3
    ).map(gym_spaces.Dict)
    | st.lists(inner, min_size=1, max_size=3).map(gym_spaces.Tuple)
  ),
  max_leaves=6,
)


def assert_same(actual, expected):
  assert jax.tree.structure(actual) == jax.tree.structure(expected)
  pairs = zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True)
  for mine, other in pairs:
    assert np.asarray(mine).dtype == np.asarray(other).dtype
    np.testing.assert_array_equal(mine, other)


@hypothesis.settings(deadline=None, max_examples=50)
@hypothesis.given(TREES)
def test_leaves_come_in_the_order_that_jax_has(space):
  stored = spaces.stored(space, 'X')
  tree = spaces.lay_out(np.zeros, stored)
  numbered = spaces.unflatten(stored, range(len(spaces.leaves(stored))))
  assert jax.tree.leaves(numbered) == list(range(len(spaces.leaves(stored))))
  assert jax.tree.structure(numbered) == jax.tree.structure(tree)
  for mine, leaf in zip(
    spaces.flatten(stored, tree), jax.tree.leaves(tree), strict=True
  ):
    assert mine is leaf
  assert spaces.stored(stored, 'X') == stored


@pytest.mark.parametrize('vector', ['sync', 'async'])
def test_parts_arrive_as_they_are_stored(vector):
  environments = gym.Gym(id='tests.trees:Trees/Parts-v0', vector=vector).make(2)
  looked_at = border.Border(environments)
  frames = looked_at.reset([3, 4])
  ends = 0
  for _ in range(8):
    numbers = frames['numbers'].astype(int)
    rows = [trees.kept(*each) for each in numbers]
    assert_same(frames, jax.tree.map(lambda *x: np.stack(x), *rows))
    step = looked_at.step(np.array([0, 2]))
    assert step.reward.tolist() == [1, 3]
    # The true successor has the number before, and is a step older.
    numbers = [trees.kept(number, age + 1) for number, age in numbers]
    after = jax.tree.map(lambda *x: np.stack(x), *numbers)
    assert_same(step.next_observation, after)
    ends += int((step.terminated | step.truncated).sum())
    frames = step.observation
  assert ends > 1
  environments.close()


@pytest.mark.parametrize(
  ('told', 'said'),
  [
    ({'kind': 5}, r"observation_space\['kind'\] is Discrete\(3, start=2\)"),
    ({'kind': 2.5}, r"observation_space\['kind'\] says int64 \(\), and step"),
    (
      {'pair': ([0, 300], [0, 1])},
      r"observation_space\['pair'\]\[0\] is Multi",
    ),
    ({'pair': ([0, 3], [0, 2])}, r"observation_space\['pair'\]\[1\] is MultiB"),
    ({'pair': 7}, r"differs at observation\['pair'\]"),
    ({'board': np.zeros((4, 5), np.uint8)}, r"\['board'\] says uint8 \(4, 4\)"),
    (
      {'numbers': np.array([1, np.nan])},
      r"observation\['numbers'\] is not fin",
    ),
    ({'more': 1}, 'which differs at observation\\.'),
  ],
)
def test_a_part_that_is_not_as_it_should_be_is_named(told, said):
  kwargs = {'told': told}
  environments = gym.Gym(id='tests.trees:Trees/Parts-v0', kwargs=kwargs).make(1)
  looked_at = border.Border(environments)
  looked_at.reset([6])
  with pytest.raises(errors.UserError, match=said) as caught:
    for _ in range(20):
      looked_at.step(np.array([0]))
  assert 'tests.trees:Trees/Parts-v0 breaks its word' in str(caught.value)


class Odd(gymnasium.Env):
  action_space = gym_spaces.Discrete(2)

  def __init__(self, space):
    self.observation_space = space


gymnasium.register('Trees/Odd-v0', Odd, disable_env_checker=True)


@pytest.mark.parametrize(
  ('space', 'said'),
  [
    (gym_spaces.Text(3), 'an observation in Text.*'),
    (
      gym_spaces.Dict(seen=gym_spaces.Sequence(gym_spaces.Discrete(2))),
      r"an observation\['seen'\] in Sequence.*leave_out",
    ),
    (
      gym_spaces.Tuple([gym_spaces.Graph(gym_spaces.Discrete(2), None)]),
      r'an observation\[0\] in Graph',
    ),
    (gym_spaces.Discrete(2**40), 'more values than 32 bits'),
    (gym_spaces.Dict({3: gym_spaces.Discrete(2)}), 'key 3 is no text'),
  ],
)
def test_a_space_that_no_network_takes_is_named(space, said):
  settings = gym.Gym(id='Trees/Odd-v0', kwargs={'space': space})
  with pytest.raises(errors.UserError, match=said):
    settings.make(1)


def test_parts_can_be_left_out():
  space = gym_spaces.Dict(a=gym_spaces.Discrete(2), b=gym_spaces.Text(3))
  settings = gym.Gym(id='Trees/Odd-v0', kwargs={'space': space})
  made = settings.replace(leave_out=('b',)).make(1)
  assert list(made.observation_space) == ['a']
  with pytest.raises(errors.UserError, match="leave_out names 'c'"):
    settings.replace(leave_out=('c',)).make(1)


class Wide(base.VectorEnvironment):
  num_envs = 1

  def __init__(self, space):
    self.observation_space = space


def test_types_that_jax_lacks_are_refused_of_any_adapter():
  with pytest.raises(errors.UserError, match=r"observation\['x'\] of int64"):
    border.Border(Wide(gym_spaces.Dict(x=gym_spaces.Box(0, 9, (), np.int64))))
  with pytest.raises(errors.UserError, match='shows nothing'):
    border.Border(Wide(gym_spaces.Dict(x=gym_spaces.Box(0, 1, (0,)))))


def test_a_stack_needs_a_part_that_has_frames():
  with pytest.raises(errors.UserError, match='stack = 2'):
    stacking.stacked_space(gym_spaces.Dict(x=gym_spaces.Discrete(2)), 2)
  with pytest.raises(errors.UserError, match='stack = 2'):
    stacking.stacked_space(gym_spaces.Discrete(2), 2)


@pytest.mark.parametrize('num_seeds', [1, 2])
def test_a_step_of_parts_survives_the_passage_as_bytes(num_seeds):
  environments = trees.Parts().make(2 * num_seeds)
  environments.reset(range(2 * num_seeds))
  step = environments.step(np.zeros(2 * num_seeds, np.int32))
  packed = dispatch.pack(step, num_seeds).reshape(num_seeds, -1)
  for s, part in enumerate(packed):
    found = dispatch.unpack(part, environments.observation_space, 2)
    mine = [x[2 * s : 2 * s + 2] for x in jax.tree.leaves(step)]
    assert_same(found, jax.tree.structure(step).unflatten(mine))


# Engines, replays, checkpoints.

Run = functools.partial(
  runner_lib.Runner,
  agent=functools.partial(
    small_dqn, n_step=2, optimizer=values.call(optax.adam, 1e-3)
  ),
  environment=trees.Parts(stack=3),
  num_iterations=2,
  training_steps=60,
  num_envs=2,
  evaluation_episodes=3,
  collectors=(),
)


@pytest.fixture(scope='module')
def base_dir(tmp_path_factory):
  base_dir = tmp_path_factory.mktemp('trees') / 'python'
  with pytest.MonkeyPatch.context() as patch:
    programs.share(patch)
    Run().train(base_dir, num_seeds=2, quiet=True)
  return base_dir


def test_a_sample_has_the_parts_that_were_seen_together(base_dir):
  loaded, (state,) = restored(base_dir)
  replay = loaded.make_replay(3)
  one = jax.tree.map(lambda x: x[1], jax.device_get(state))
  sample = jax.jit(functools.partial(replay.sample, updates=0))
  batch = jax.device_get(sample(one, jax.random.key(1))).transition
  for seen in (batch.observation, batch.next_observation):
    for i, (number, age) in enumerate(seen['numbers'].astype(int).tolist()):
      row = jax.tree.map(lambda x, i=i: np.asarray(x[i]), seen)
      boards = [
        np.full((4, 4), (number + age - back) % 256 if back <= age else 0)
        for back in (2, 1, 0)
      ]
      expected = trees.kept(number, age)
      expected['board'] = np.stack(boards, axis=-1).astype(np.uint8)
      assert_same(row, expected)


def restored(base_dir):
  """Returns a run's agent, and the ring of its newest checkpoint [S, ...]."""
  loaded = trained.load(base_dir)
  environments = Run().environment.make(4)
  engine = Run().make_engine(environments, (0, 1), check_finite=True)
  engine.reset(range(4))
  store = trained.checkpoints_lib.Checkpoints(base_dir)
  _, state = store.restore_newest(
    {'experience': engine.abstract_state().experience}
  )
  return loaded.agent, (state['experience'].replay,)


# `masks_test` compares the Python and the compiled engine by observations of
# several parts; the plain engine's replay is told of them as the latter's is.
@pytest.mark.slow
@pytest.mark.parametrize(
  'engine', [plain_engine.PlainEngine, compiled.CompiledEngine]
)
def test_engines_agree_on_parts(engine, base_dir, tmp_path):
  Run(engine=engine).train(tmp_path, num_seeds=2, quiet=True)
  mine, other = restored(tmp_path)[1], restored(base_dir)[1]
  assert_same(mine[0].slots.frame, other[0].slots.frame)
  assert_same(mine[0].head, other[0].head)


@pytest.mark.usefixtures('same_programs')
def test_a_run_that_goes_on_ends_as_one_never_stopped(base_dir, tmp_path):
  Run(num_iterations=1).train(tmp_path, num_seeds=2, quiet=True)
  Run().train(tmp_path, num_seeds=2, quiet=True)
  assert fingerprint.fingerprint(tmp_path) == fingerprint.fingerprint(base_dir)


def test_frames_of_parts_can_lie_in_the_hosts_memory():
  layout = devices.Layout(devices.Devices(replay_memory='pinned_host'), 1)
  frame = spaces.lay_out(jnp.zeros, spaces.stored(trees.SPACE, 'Trees'), (2,))
  ones = jax.tree.map(lambda x: x + jnp.ones((), x.dtype), frame)
  step = ring.Step(
    observation=ones,
    action=jnp.zeros(2, jnp.int32),
    reward=jnp.zeros(2),
    terminated=jnp.zeros(2, bool),
    truncated=jnp.zeros(2, bool),
    next_observation=frame,
  )
  made = layout.init(lambda: ring.init(step, 8))
  kinds = {x.sharding.memory_kind for x in jax.tree.leaves(made.slots.frame)}
  assert kinds == {'pinned_host'}
  assert made.head.sharding.memory_kind == 'device'

  @jax.jit
  def sample(made):
    made = ring.add(made, step)
    slot = jnp.zeros(2, jnp.int32)
    return ring.observation_at(made, jnp.arange(2), slot, 1)

  assert_same(sample(made), ones)


def test_a_trained_agent_acts_on_parts_as_they_are_given(base_dir):
  loaded = player.Player(trained.load(base_dir))
  alone = [loaded.act(trees.parts(np.int64(7), np.int64(0), np), first=True)]
  for age in (1, 2):
    alone.append(loaded.act(trees.parts(np.int64(7), np.int64(age), np)))
  assert all(1 <= action <= 3 for action in alone)
  loaded.reset()
  together = jax.tree.map(
    lambda *x: np.stack(x),
    *[trees.parts(np.int64(7), np.int64(age), np) for age in (0, 1)],
  )
  assert loaded.act(together)[0] == alone[0]
  wrong = trees.parts(np.int64(7), np.int64(0), np) | {'kind': 9}
  with pytest.raises(errors.UserError, match='does not hold'):
    loaded.act(wrong)
  with pytest.raises(errors.UserError, match='differs at observation'):
    loaded.act({'kind': 3})


def test_random_actions_of_several_numbers_lie_in_their_space():
  space = gym_spaces.MultiDiscrete([2, 5])
  drawn = loop.random_actions(space, jax.random.key(0), 200)
  assert drawn.shape == (200, 2)
  assert [set(column) for column in np.asarray(drawn).T.tolist()] == [
    {0, 1},
    {0, 1, 2, 3, 4},
  ]


def test_actions_are_counted_from_their_own_start():
  space = gym_spaces.MultiDiscrete([2, 3], start=[5, -1])
  assert base.space_of_agents(space) == gym_spaces.MultiDiscrete([2, 3])
  for library in (np, jnp):
    taken = base.as_environments_action(
      space, library.asarray([[1, 0], [0, 2]])
    )
    assert taken.tolist() == [[6, -1], [5, 1]]
  bits = gym_spaces.MultiBinary(3)
  assert base.space_of_agents(bits) == gym_spaces.MultiDiscrete([2, 2, 2])
  assert base.as_environments_action(bits, np.array([0, 1, 1])).dtype == np.int8
  with pytest.raises(errors.UserError, match='lies outside'):
    base.check_actions(space, np.array([[0, 3]]))
