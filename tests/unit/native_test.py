"""Tests of environments.native: lanes, resets within the step, seeds.

`Script` below plays by numbers, so that a plain Python loop without jit or vmap
can say what each time step must be, to the bit.
"""

import functools

import gymnasium
from hypothesis import given
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dopamine_jax import errors
from dopamine_jax import networks
from dopamine_jax import runner as runner_lib
from dopamine_jax import values
from dopamine_jax.agents import dqn
from dopamine_jax.engines import compiled
from dopamine_jax.environments import base
from dopamine_jax.environments import bodies
from dopamine_jax.environments import catch
from dopamine_jax.environments import classic
from dopamine_jax.environments import native
from dopamine_jax.replay import uniform
from dopamine_jax.training import fingerprint


class Script(native.Native):
  """Observations are [episode's number, step, last action, a step's draw].

  An episode terminates after `length` steps, or truncates itself after `cut`.
  """

  length: int = 1_000
  cut: int = 1_000

  @property
  def observation_space(self):
    return gymnasium.spaces.Box(0, 1e6, (4,), np.float32)

  @property
  def action_space(self):
    return gymnasium.spaces.Discrete(5)

  def reset(self, key):
    number = jax.random.randint(key, (), 0, 1_000_000)
    return self.see(number, 0, 0, 0)

  def step(self, state, action, key):
    draw = jax.random.randint(key, (), 0, 1_000_000)
    time = state['time'] + 1
    state, observation = self.see(state['number'], time, action, draw)
    return native.Outcome(
      state=state,
      observation=observation,
      reward=100 * time + action,
      terminated=time == self.length,
      truncated=time == self.cut,
    )

  def see(self, number, time, action, draw):
    # Plain numbers in the state, integers in the observation: both are mended.
    observation = jnp.array([number, time, action, draw], jnp.int32)
    return {'number': number, 'time': time}, observation


class Drawn(Script):
  """Its image holds the number of its episode and the time."""

  frames_per_second = 7.0

  def image(self, state):
    image = np.zeros((2, 3, 3), np.uint8)
    image[0, 0] = state['number'] % 256, state['time'], 0
    return image


@functools.cache  # compiles once for all examples
def make(num_envs=1, kind=Script, **settings):
  return kind(**settings).make(num_envs)


def assert_equal(time_step, **expected):
  for name, value in expected.items():
    np.testing.assert_array_equal(getattr(time_step, name), value, err_msg=name)


def played(environment, seed, actions):
  """Yields the time steps of one environment, by a plain Python loop."""
  key = jax.random.key(seed)
  draws = iter(range(1, 1_000))  # of a step and of a reset, by turns
  state, observation = environment.reset(jax.random.fold_in(key, next(draws)))
  yield observation
  age, limit = 0, environment.max_steps_per_episode
  for action in actions:
    step_key = jax.random.fold_in(key, next(draws))
    reset_key = jax.random.fold_in(key, next(draws))
    state, successor, reward, terminated, truncated, _ = environment.step(
      state, action, step_key
    )
    age += 1
    truncated = bool(truncated) or age == limit
    observation = successor
    if terminated or truncated:
      state, observation = environment.reset(reset_key)
      age = 0
    yield base.TimeStep(observation, reward, terminated, truncated, successor)


# What a time step says.


@given(
  seeds=st.lists(st.integers(0, 2**31 - 1), min_size=3, max_size=3),
  actions=st.lists(
    st.lists(st.integers(0, 4), min_size=3, max_size=3), max_size=9
  ),
  settings=st.sampled_from(
    [
      {'length': 3},
      {'cut': 2},
      {'max_steps_per_episode': 4},
      {'length': 3, 'max_steps_per_episode': 3},
      {'length': 1},
    ]
  ),
)
def test_a_vector_equals_a_plain_loop_over_each_environment(
  seeds, actions, settings
):
  vector = make(3, **settings)
  expected = [
    played(Script(**settings), seed, [row[i] for row in actions])
    for i, seed in enumerate(seeds)
  ]
  rows = [next(lane) for lane in expected]
  np.testing.assert_array_equal(vector.reset(seeds), np.stack(rows))
  for row in actions:
    step = vector.step(np.array(row))
    for i, lane in enumerate(expected):
      for got, wanted in zip(step, next(lane), strict=True):
        np.testing.assert_array_equal(got[i], wanted)


def test_a_termination_gives_the_last_and_then_the_new_observation():
  vector = make(length=2)
  number = vector.reset([4])[0, 0]
  first = vector.step(np.array([3]))
  assert first.next_observation is first.observation
  assert_equal(first, reward=[103], terminated=[False], truncated=[False])
  last = vector.step(np.array([4]))
  assert_equal(last, reward=[204], terminated=[True], truncated=[False])
  assert last.next_observation[0, :3].tolist() == [number, 2, 4]
  assert last.observation[0, 1:].tolist() == [0, 0, 0]
  assert last.observation[0, 0] != number
  after = vector.step(np.array([1]))
  assert_equal(after, reward=[101])
  assert after.observation[0, :3].tolist() == [last.observation[0, 0], 1, 1]


@pytest.mark.parametrize(
  ('settings', 'terminated', 'truncated'),
  [
    ({'max_steps_per_episode': 3}, False, True),
    ({'max_steps_per_episode': 3, 'length': 3}, True, True),
    ({'max_steps_per_episode': 4, 'length': 3}, True, False),
    ({'max_steps_per_episode': 4, 'cut': 3}, False, True),
    ({'max_steps_per_episode': 3, 'cut': 4}, False, True),
    ({'cut': 3, 'length': 3}, True, True),
  ],
)
def test_what_comes_first_ends_an_episode_and_a_time_limit_hides_nothing(
  settings, terminated, truncated
):
  vector = make(**settings)
  vector.reset([9])
  for _ in range(3):  # episodes
    for time in (1, 2, 3):
      step = vector.step(np.array([0]))
      end = time == 3
      assert_equal(
        step, terminated=[end and terminated], truncated=[end and truncated]
      )
      assert step.next_observation[0, 1] == time
      assert step.observation[0, 1] == (0 if end else time)


def test_a_time_step_has_the_types_of_the_contract():
  vector = make(2)
  assert vector.reset([0, 1]).dtype == np.float32
  step = vector.step(np.array([0, 0]))
  assert {name: getattr(step, name).dtype.name for name in step._fields} == {
    'observation': 'float32',
    'reward': 'float32',
    'terminated': 'bool',
    'truncated': 'bool',
    'next_observation': 'float32',
  }
  assert all(isinstance(array, np.ndarray) for array in step)


def test_what_was_returned_stays_as_it_was():
  vector = make(2, length=3)
  first = vector.reset([3, 4])
  steps = [vector.step(np.array([t, 1])) for t in range(5)]
  kept = jax.tree.map(np.copy, (first, steps))
  for _ in range(5):
    vector.step(np.array([0, 0]))
  vector.reset([5, 6])
  jax.tree.map(np.testing.assert_array_equal, (first, steps), kept)


# Seeds.


def trajectory(vector, seeds, lane, num_steps=40):
  """Everything that lane `lane` gives; its actions are always the same."""
  rows = [vector.reset(seeds)[lane]]
  for t in range(num_steps):
    actions = np.full(len(seeds), t % 3 % vector.action_space.n)
    actions[lane] = t // 2 % vector.action_space.n
    step = jax.tree.map(lambda leaf: leaf[lane], vector.step(actions))
    rows += list(step)
  return rows


@pytest.mark.parametrize(
  'environment',
  [Script(length=7), classic.CartPole(), catch.Catch()],
  ids=lambda environment: type(environment).__name__,
)
def test_an_environment_follows_its_own_seed_whatever_its_neighbours_do(
  environment,
):
  single, vector = environment.make(1), environment.make(3)
  alone = trajectory(single, [8], 0)
  for seeds in ([8, 0, 3], [5, 8, 8]):
    lane = seeds.index(8)
    for a, b in zip(trajectory(vector, seeds, lane), alone, strict=True):
      np.testing.assert_array_equal(a, b)
  other = trajectory(single, [9], 0)
  assert any((a != b).any() for a, b in zip(alone, other, strict=True))


def test_a_reset_amid_episodes_is_as_good_as_new():
  used = make(2, length=4)
  used.reset([1, 2])
  for _ in range(6):
    used.step(np.array([1, 1]))
  for lane in (0, 1):
    again = trajectory(used, [5, 6], lane)
    new = trajectory(Script(length=4).make(2), [5, 6], lane)
    for a, b in zip(again, new, strict=True):
      np.testing.assert_array_equal(a, b)


def test_no_draw_of_an_environment_is_repeated():
  vector = make(2, length=2)
  observations = [vector.reset([0, 1])]
  draws = []
  for _ in range(100):
    step = vector.step(np.array([0, 0]))
    draws.append(step.next_observation[:, 3])
    if step.terminated.any():
      observations.append(step.observation)
  draws += [observation[:, 0] for observation in observations]
  # 302 of a million: two that are equal by chance are rare, and known here.
  assert len(np.unique(draws)) >= np.size(draws) - 1


# States.


class Odd(Script):
  """An environment whose parts a test replaces."""

  reset_with: object = None
  step_with: object = None

  def reset(self, key):
    return self.reset_with or 0, jnp.zeros(4)

  def step(self, state, action, key):
    return self.step_with(state, key)


def test_a_state_may_hold_plain_numbers_and_keys_and_have_any_shape():
  def step(state, key):
    number, flag, (keys, ones) = state
    return native.Outcome(
      (number + jnp.ones((), int), not_(flag), (keys, ones + 1)),
      jnp.zeros(4),
      0.5,
      False,
    )

  not_ = jnp.logical_not
  start = (3, False, (jax.random.split(jax.random.key(3), 2), jnp.ones((2, 3))))
  environment = Odd(reset_with=start, step_with=step, max_steps_per_episode=2)
  lane, _ = native.begin(environment, 0)
  kinds = [jax.typeof(leaf) for leaf in jax.tree.leaves(lane.state)]
  assert not any(kind.weak_type for kind in kinds)
  for number, flag, end in [(4, True, False), (3, False, True)]:
    lane, step = native.advance(environment, lane, 0)
    assert (lane.state[0], lane.state[1]) == (number, flag)
    assert step.truncated == end
    # An engine would have to be compiled again for others.
    assert kinds == [jax.typeof(leaf) for leaf in jax.tree.leaves(lane.state)]
  vector = environment.make(2)
  vector.reset([0, 1])
  assert_equal(vector.step(np.zeros(2, int)), reward=[0.5, 0.5])


@pytest.mark.parametrize(
  'state',
  [lambda s: s + 0.5, lambda s: s + jnp.ones(3, int), lambda s: (s, s)],
  ids=['type', 'shape', 'structure'],
)
def test_states_that_change_their_kind_are_refused(state):
  def step(s, key):
    return native.Outcome(state(s), jnp.zeros(4), 0.0, False)

  vector = Odd(reset_with=1, step_with=step).make(1)
  vector.reset([0])
  with pytest.raises(errors.UserError, match='Odd has states of two kinds'):
    vector.step(np.array([0]))


@jax.tree_util.register_pytree_node_class
class Incomparable:
  """A state that has no truth when it is compared, as MuJoCo's."""

  def __init__(self, number):
    self.number = number

  def __eq__(self, other):
    return bool(np.zeros(2))  # raises

  __hash__ = None

  def tree_flatten(self):
    return (self.number,), None

  @classmethod
  def tree_unflatten(cls, aux, leaves):
    return cls(*leaves)


def test_states_need_not_be_comparable():
  def step(s, key):
    state = Incomparable(s.number + 1)
    return native.Outcome(state, jnp.zeros(4), 0.0, False)

  environment = Odd(reset_with=Incomparable(1), step_with=step)
  lane, _ = native.begin(environment, 0)
  lane, _ = native.advance(environment, lane, 0)
  assert lane.state.number == 2


@pytest.mark.parametrize(
  'observation', [jnp.zeros(()), jnp.zeros(3), jnp.zeros((4, 1))]
)
def test_observations_of_another_shape_are_refused(observation):
  def step(s, key):
    return native.Outcome(s, observation, 0.0, False)

  vector = Odd(step_with=step).make(1)
  vector.reset([0])
  with pytest.raises(errors.UserError, match='Odd breaks its word'):
    vector.step(np.array([0]))


def test_observations_that_a_cast_would_cut_are_refused():
  class Cut(catch.Catch):
    def _board(self, state):
      return super()._board(state) * 0.5

  with pytest.raises(errors.UserError, match=r'uint8 \(10, 5\).*float32'):
    Cut().make(1).reset([0])


# Images.


def test_render_shows_the_first_environment():
  vector = Drawn(length=3).make(2, render=True)
  assert vector.frames_per_second == 7.0
  vector.reset([1, 2])
  for _ in range(4):
    first, second = vector.step(np.array([0, 0])).observation
    assert first[0] % 256 != second[0] % 256
    shown = [int(first[0]) % 256, int(first[1]), 0]
    assert vector.render()[0, 0].tolist() == shown


def test_an_environment_that_draws_nothing_says_so_at_once():
  with pytest.raises(errors.UserError, match='Script draws no images'):
    Script().make(1, render=True)


# What a user may get wrong.


@pytest.mark.parametrize('seed', [-1, 2**31])
def test_a_seed_out_of_range_raises(seed):
  with pytest.raises(ValueError, match=r'in \[0, 2\*\*31'):
    make().reset([seed])


def test_a_wrong_number_of_actions_or_seeds_raises():
  vector = make(2)
  with pytest.raises(ValueError, match='1 seeds for 2'):
    vector.reset([1])
  vector.reset([1, 2])
  with pytest.raises(ValueError, match='3 actions for 2'):
    vector.step(np.array([0, 0, 0]))


@pytest.mark.parametrize('action', [-1, 5])
def test_an_action_that_does_not_exist_raises(action):
  vector = make(2)
  vector.reset([1, 2])
  with pytest.raises(errors.UserError, match=r'outside Discrete\(5\)'):
    vector.step(np.array([0, action]))


@pytest.mark.parametrize('num_envs', [0, -1, 1.5])
def test_a_number_of_environments_below_one_raises(num_envs):
  with pytest.raises(errors.UserError, match='num_envs'):
    Script().make(num_envs)


def test_settings_are_values():
  assert Script(length=3) == Script(length=3) != Script(length=4)
  assert hash(Script(length=3)) == hash(Script(length=3))


# With an agent.


@pytest.mark.usefixtures('same_programs')
def test_dqn_trains_on_environments_in_jax(tmp_path):
  def train(folder, **settings):
    runner = runner_lib.Runner(
      agent=functools.partial(
        dqn.DQN,
        network=functools.partial(networks.MLP, hidden=(8,)),
        replay=functools.partial(
          uniform.UniformReplay, capacity=200, batch_size=4, min_history=20
        ),
        optimizer=values.call(optax.adam, 1e-3),
        target_update_period=8,
        epsilon=0.5,
      ),
      environment=classic.CartPole(),
      num_iterations=1,
      training_steps=60,
      collectors=(),
      **settings,
    )
    return runner.train(tmp_path / folder, quiet=True)

  statistics = train('one', evaluation_episodes=2, evaluation_period=1)
  assert statistics['Train/Updates'][0] > 0
  assert np.isfinite(statistics['Train/Loss'][0])
  assert 8 <= statistics['Train/AverageReturns'][0] <= 60
  assert 8 <= statistics['Eval/AverageReturns'][0] <= 500
  again = train('again', evaluation_episodes=2, evaluation_period=1)
  assert again['Train/Loss'] == statistics['Train/Loss']


class Slow(Script):
  """The same, whose first states are made one after another."""

  slow_reset = True


class Long(Script):
  """The same, whose first states are made only if an episode has ended."""

  long_reset = True


@pytest.mark.parametrize('kind', [Slow, Long])
@pytest.mark.parametrize('num_seeds', [1, 3])
def test_first_states_made_alone_are_the_same(num_seeds, kind):
  settings = {'length': 3, 'max_steps_per_episode': 5}
  plain, slow = (cls(**settings) for cls in (Script, kind))
  seeds = np.arange(4 * num_seeds, dtype=np.int32).reshape(num_seeds, 4)

  def play(environment):
    def over(function):
      return jax.vmap(jax.vmap(functools.partial(function, environment)))

    def step(lanes, action):
      # As episodes of different lengths: some lanes begin anew by themselves.
      lanes = lanes.replace(
        state=lanes.state
        | {'time': jnp.where(action == 4, 2, lanes.state['time'])}
      )
      return over(native.advance)(lanes, action)

    lanes, _ = over(native.begin)(seeds)
    actions = np.random.default_rng(0).integers(5, size=(20, *seeds.shape))
    return jax.lax.scan(step, lanes, actions)

  (lanes, steps), (slow_lanes, slow_steps) = (
    jax.jit(functools.partial(play, each))() for each in (plain, slow)
  )
  ended = np.asarray(steps.terminated)
  assert (ended.any((1, 2)) & ~ended.all((1, 2))).any()
  jax.tree.map(
    lambda x, y: np.testing.assert_array_equal(
      *(
        jax.random.key_data(each)
        if jnp.issubdtype(each.dtype, jax.dtypes.prng_key)
        else each
        for each in (x, y)
      )
    ),
    *((lanes, steps), (slow_lanes, slow_steps)),
  )


@pytest.mark.parametrize(
  ('kind', 'branch'), [(Slow, 'while['), (Long, 'cond[')]
)
def test_no_first_state_is_made_where_no_episode_ended(kind, branch):
  def program(environment):
    def over(function):
      return jax.vmap(jax.vmap(functools.partial(function, environment)))

    seeds = np.zeros((2, 3), np.int32)
    lanes, _ = jax.eval_shape(over(native.begin), seeds)
    return str(jax.make_jaxpr(over(native.advance))(lanes, seeds))

  assert branch in program(kind())
  assert branch not in program(Script())


def test_bodies_make_first_states_where_an_episode_ended():
  assert bodies.Bodies.long_reset


def test_first_states_made_alone_are_the_same_in_a_training(tmp_path):
  found = []
  for cls in (Script, Slow, Long):
    run = runner_lib.Runner(
      agent=functools.partial(
        dqn.DQN,
        network=functools.partial(networks.MLP, hidden=(4,)),
        # It never learns, so that learning is not compiled.
        replay=functools.partial(
          uniform.UniformReplay, capacity=200, batch_size=4, min_history=200
        ),
      ),
      environment=cls(length=5),
      engine=compiled.CompiledEngine,
      num_envs=2,
      num_iterations=1,
      training_steps=40,
      evaluation_episodes=0,
      collectors=(),
    )
    folder = tmp_path / cls.__name__
    run.train(str(folder), num_seeds=2, quiet=True)
    found.append(fingerprint.fingerprint(folder))
  assert found[0] == found[1] == found[2]
