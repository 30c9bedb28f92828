"""Tests of loop.py: stacking, the order of one step, keys and reward clipping.

The agent and the replay here write down what they are told, in Python, so
nothing is compiled but where the real replay is asked for.
"""

from typing import Any

import gymnasium
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dopamine_jax import agent as agent_lib
from dopamine_jax import errors
from dopamine_jax import networks
from dopamine_jax.agents import dqn
from dopamine_jax.engines import loop as loop_lib
from dopamine_jax.engines import stacking
from dopamine_jax.environments import base
from dopamine_jax.replay import uniform

N = 2
RANDOM, AGENT = loop_lib.Behaviour.RANDOM, loop_lib.Behaviour.AGENT


class Recorder(agent_lib.Agent):
  """Answers with actions 500 and up, which the random ones here never are."""

  events: list

  def init(self, key, observation):
    self.events.append(('init', key, observation))
    return 'agent 0'

  def act(self, state, observation, step, key, *, explore):
    self.events.append(('act', state, observation, int(step), key, explore))
    return jnp.full(N, 500 + int(step))

  def update(self, state, sample, key):
    self.events.append(('update', state, sample, key))
    return f'agent {int(state[6:]) + 1}', {'Loss': 0.5}, 'priorities'


class Log:
  """A replay whose state is a list of the steps added."""

  warm_up = 1

  def __init__(self, events):
    self.events = events

  def init(self, example):
    self.events.append(('replay init', example))
    return []

  def add(self, state, step):
    self.events.append(('add', step))
    return [*state, step]

  def sample(self, state, key, updates):
    self.events.append(('sample', list(state), key, int(updates)))
    return agent_lib.Sample(transition='batch', index='index', weight=None)

  def reprioritize(self, state, index, priority):
    self.events.append(('reprioritize', index, priority))
    return [*state, 'reprioritized']


def make_loop(events=None, **changes):
  events = [] if events is None else events
  settings = {
    'agent': Recorder(
      observation_space=gymnasium.spaces.Box(0, 255, (1,), np.uint8),
      action_space=gymnasium.spaces.Discrete(100),
      events=events,
    ),
    'replay': Log(events),
    'reward_clip': None,
    'stack': 3,
    'num_envs': N,
  }
  return loop_lib.Loop(**settings | changes)


def test_agents_are_told_of_images_that_their_network_can_not_see():
  image = gymnasium.spaces.Box(0, 1, (16, 16, 3))
  agent = dqn.DQN(
    network=networks.NatureCNN,
    observation_space=stacking.stacked_space(image, 1),
    action_space=gymnasium.spaces.Discrete(2),
  )
  replay = agent.make_replay(stack=1)
  loop = make_loop(agent=agent, replay=replay, stack=1)
  with pytest.raises(errors.UserError, match='NatureTorso takes bytes'):
    jax.eval_shape(loop.init, np.int32(0), np.zeros((N, 16, 16, 3), np.float32))


def frames(*values):
  return np.array(values, np.uint8)[:, None]


def time_step(
  observation, next_observation=None, reward=(0, 0), ends=(False, False)
):
  """The first environment terminates, the second one is truncated."""
  if next_observation is None:
    next_observation = observation
  return base.TimeStep(
    observation=frames(*observation),
    reward=np.array(reward, np.float32),
    terminated=np.array([ends[0], False]),
    truncated=np.array([False, ends[1]]),
    next_observation=frames(*next_observation),
  )


def named(events, name):
  return [event for event in events if event[0] == name]


def data(key):
  return tuple(np.asarray(jax.random.key_data(key)).ravel().tolist())


# Stacking.


@pytest.mark.parametrize('dtype', [np.uint8, bool, np.float32])
def test_the_first_observation_is_one_frame_after_zeros(dtype):
  frame = np.ones((N, 3, 4), dtype)
  found = stacking.first_observation(frame, 4)
  assert found.shape == (N, 3, 4, 4)
  assert found.dtype == dtype
  assert not np.any(found[..., :3])
  np.testing.assert_array_equal(found[..., 3], frame)


def test_a_stack_of_one_adds_no_axis():
  frame = np.arange(N, dtype=np.float32)
  assert stacking.first_observation(frame, 1) is frame
  assert stacking.newest_frame(frame, 1) is frame
  later = frame + 1
  done = np.array([True, False])
  assert stacking.next_observation(frame, later, done, 1) is later


@pytest.mark.parametrize('shape', [(), (2,), (3, 4)])
@settings(max_examples=10)
@given(
  ends=st.lists(st.lists(st.booleans(), min_size=N, max_size=N), max_size=9)
)
def test_stacks_hold_the_newest_frames_of_the_running_episode_alone(
  shape, ends
):
  stack = 3
  rng = np.random.default_rng(0)

  def draw():
    return rng.integers(1, 256, (N, *shape)).astype(np.uint8)

  frame = draw()
  observation = stacking.first_observation(frame, stack)
  episodes = [[frame[i]] for i in range(N)]
  for done in ends:
    frame = draw()
    observation = stacking.next_observation(
      observation, frame, np.array(done), stack
    )
    assert observation.dtype == np.uint8
    np.testing.assert_array_equal(
      stacking.newest_frame(observation, stack), frame
    )
    for i in range(N):
      episodes[i] = [frame[i]] if done[i] else [*episodes[i], frame[i]]
      padded = [np.zeros(shape)] * stack + episodes[i]
      np.testing.assert_array_equal(
        observation[i], np.stack(padded[-stack:], axis=-1)
      )


# The order of one step.


def test_init_asks_replay_and_agent_for_their_states():
  events = []
  state = make_loop(events).init(7, frames(10, 20))
  (example,) = (event[1] for event in named(events, 'replay init'))
  for leaf in (example.observation, example.next_observation):
    assert (leaf.shape, leaf.dtype) == ((N, 1), np.uint8)  # one frame
  assert example.reward.dtype == np.float32
  assert example.terminated.dtype == example.truncated.dtype == bool
  assert example.action.dtype == state.experience.action.dtype
  stacked = [[[0, 0, 10]], [[0, 0, 20]]]
  np.testing.assert_array_equal(state.experience.observation, stacked)
  np.testing.assert_array_equal(named(events, 'init')[0][2], stacked)
  assert (int(state.updates), int(state.experience.agent_steps)) == (0, 0)
  assert np.all(state.experience.action < 100)


def test_remember_keeps_the_frame_acted_on_and_the_true_one_that_followed():
  events = []
  loop = make_loop(events)
  before = loop.init(0, frames(10, 20)).experience
  after = loop.remember(
    before,
    time_step((30, 21), next_observation=(11, 21), reward=(5, -6)),
  )
  ((_, step),) = named(events, 'add')
  np.testing.assert_array_equal(step.observation, frames(10, 20))
  np.testing.assert_array_equal(step.action, before.action)
  np.testing.assert_array_equal(step.reward, [5, -6])
  np.testing.assert_array_equal(step.next_observation, frames(11, 21))
  assert not np.any(step.terminated | step.truncated)
  assert int(after.agent_steps) == N
  # What remember must leave to others.
  assert after.action is before.action
  assert after.keys is before.keys


@pytest.mark.parametrize('ends', [(True, False), (False, True), (True, True)])
def test_after_an_end_of_either_kind_a_stack_begins_anew(ends):
  events = []
  loop = make_loop(events)
  experience = loop.init(0, frames(10, 20)).experience
  experience = loop.remember(experience, time_step((11, 21)))
  experience = loop.remember(
    experience, time_step((90, 91), next_observation=(12, 22), ends=ends)
  )
  step = named(events, 'add')[-1][1]
  np.testing.assert_array_equal(step.terminated, [ends[0], False])
  np.testing.assert_array_equal(step.truncated, [False, ends[1]])
  np.testing.assert_array_equal(step.next_observation, frames(12, 22))
  np.testing.assert_array_equal(
    experience.observation,
    [
      [[0, 0, 90]] if ends[0] else [[10, 11, 90]],
      [[0, 0, 91]] if ends[1] else [[20, 21, 91]],
    ],
  )


def test_learning_sees_the_step_just_remembered_and_acting_what_was_learnt():
  events = []
  loop = make_loop(events)
  state = loop.init(0, frames(10, 20))
  events.clear()
  experience = loop.remember(state.experience, time_step((11, 21)))
  state, metrics = loop.learn(state.replace(experience=experience))
  experience = loop.act(state.agent, state.experience, AGENT)
  assert [event[0] for event in events] == [
    'add',
    'sample',
    'update',
    'reprioritize',
    'act',
  ]
  _, added, _, updates = events[1]
  assert updates == 0
  np.testing.assert_array_equal(added[-1].next_observation, frames(11, 21))
  assert events[2][1:3] == (
    'agent 0',
    agent_lib.Sample(transition='batch', index='index', weight=None),
  )
  assert events[3][1:] == ('index', 'priorities')
  _, agent, observation, step, _, explore = events[4]
  assert (agent, step, explore) == ('agent 1', N, True)
  np.testing.assert_array_equal(observation, [[[0, 10, 11]], [[0, 20, 21]]])
  np.testing.assert_array_equal(experience.action, [502, 502])
  assert metrics == {'Loss': 0.5}
  assert int(state.updates) == 1
  loop.learn(state)
  assert named(events, 'sample')[1][3] == 1
  assert state.experience.replay[-1] == 'reprioritized'
  assert int(state.experience.agent_steps) == N  # learning takes no steps


def test_without_a_warm_up_the_agent_chooses_the_first_action_too():
  events = []
  replay = Log(events)
  replay.warm_up = 0
  state = make_loop(events, replay=replay).init(7, frames(10, 20))
  ((_, agent, observation, step, key, explore),) = named(events, 'act')
  assert (agent, step, explore) == ('agent 0', 0, True)
  np.testing.assert_array_equal(observation, state.experience.observation)
  np.testing.assert_array_equal(state.experience.action, [500, 500])
  # The key of no later action.
  make_loop(events, replay=replay).act('agent', state.experience, AGENT)
  assert data(key) == data(named(events, 'act')[1][4])
  later = state.experience.replace(agent_steps=jnp.int32(N))
  make_loop(events, replay=replay).act('agent', later, AGENT)
  assert data(key) != data(named(events, 'act')[2][4])


def test_random_behaviour_asks_the_agent_nothing():
  events = []
  loop = make_loop(events)
  experience = loop.init(0, frames(10, 20)).experience
  experience = loop.act('agent 0', experience, RANDOM)
  assert not named(events, 'act')
  assert np.all(experience.action < 100)


# Reward clipping.


@pytest.mark.parametrize(
  ('clip', 'seen'),
  [(1.0, [1, -1]), (2.5, [2.5, -0.25]), (None, [7, -0.25])],
)
def test_rewards_are_clipped_on_the_way_into_replay_and_nowhere_else(
  clip, seen
):
  events = []
  loop = make_loop(events, reward_clip=clip)
  raw = (7, -0.25 if clip != 1.0 else -3)
  step = time_step((11, 21), reward=raw)
  loop.remember(loop.init(0, frames(10, 20)).experience, step)
  added = named(events, 'add')[0][1]
  np.testing.assert_array_equal(added.reward, np.array(seen, np.float32))
  assert added.reward.dtype == np.float32
  # Metrics are counted from the time step.
  np.testing.assert_array_equal(step.reward, np.array(raw, np.float32))


# Keys.


def play(seed, behaviours, learns):
  """Returns the keys by purpose, the random actions, of some steps."""
  events = []
  loop = make_loop(events)
  state = loop.init(seed, frames(10, 20))
  actions = [np.asarray(state.experience.action)]
  for i, (behaviour, times) in enumerate(zip(behaviours, learns, strict=True)):
    experience = loop.remember(state.experience, time_step((11 + i, 21 + i)))
    state = state.replace(experience=experience)
    for _ in range(times):
      state, _ = loop.learn(state)
    experience = loop.act(state.agent, state.experience, behaviour)
    state = state.replace(experience=experience)
    actions.append(np.asarray(experience.action))
  keys = {
    'init': [data(event[1]) for event in named(events, 'init')],
    'act': [data(event[4]) for event in named(events, 'act')],
    'sample': [data(event[2]) for event in named(events, 'sample')],
    'update': [data(event[3]) for event in named(events, 'update')],
  }
  return keys, np.stack(actions)


def test_how_often_is_learnt_disturbs_no_action():
  keys, _ = play(0, [AGENT] * 4, [0, 0, 0, 0])
  others, _ = play(0, [AGENT] * 4, [2, 0, 1, 1])
  assert keys['act'] == others['act']
  _, actions = play(0, [RANDOM] * 3, [0, 0, 0])
  _, others = play(0, [RANDOM] * 3, [1, 2, 0])
  np.testing.assert_array_equal(actions, others)


def test_when_and_how_is_acted_disturbs_no_sample_and_no_update():
  one, _ = play(0, [AGENT] * 4, [1, 1, 0, 2])
  other, _ = play(0, [RANDOM] * 3, [0, 4, 0])
  assert one['sample'] == other['sample']
  assert one['update'] == other['update']


def test_random_actions_disturb_no_action_of_the_agent():
  all_by_agent, _ = play(0, [AGENT] * 3, [0] * 3)
  last, _ = play(0, [RANDOM, RANDOM, AGENT], [0] * 3)
  assert last['act'] == all_by_agent['act'][-1:]


def test_no_key_is_used_twice():
  used = []
  for seed in (0, 1, 2**31 - 1):
    keys, _ = play(seed, [AGENT] * 3, [1, 2, 1])
    assert {name: len(each) for name, each in keys.items()} == {
      'init': 1,
      'act': 3,
      'sample': 4,
      'update': 4,
    }
    used += [key for each in keys.values() for key in each]
  assert len(used) == len(set(used))


def test_the_same_seed_draws_the_same():
  keys, actions = play(3, [RANDOM, AGENT], [1, 1])
  again, same = play(3, [RANDOM, AGENT], [1, 1])
  assert keys == again
  np.testing.assert_array_equal(actions, same)


# Random actions.


def test_random_discrete_actions_are_uniform_from_zero():
  space = gymnasium.spaces.Discrete(5)
  found = np.asarray(loop_lib.random_actions(space, jax.random.key(0), 10_000))
  assert np.issubdtype(found.dtype, np.integer)
  counts = np.bincount(found, minlength=5)
  assert len(counts) == 5
  assert np.all(np.abs(counts - 2_000) < 5 * np.sqrt(10_000 * 0.2 * 0.8))


def test_random_box_actions_fill_the_box():
  low, high = np.array([[-1, 0, 2]]), np.array([[1, 0.5, 10]])
  space = gymnasium.spaces.Box(
    low.astype(np.float32), high.astype(np.float32), (1, 3)
  )
  found = np.asarray(loop_lib.random_actions(space, jax.random.key(0), 10_000))
  assert (found.shape, found.dtype) == ((10_000, 1, 3), np.float32)
  assert np.all((found >= low) & (found <= high))
  unit = (found - low) / (high - low)
  np.testing.assert_allclose(unit.mean(0), 0.5, atol=0.02)
  np.testing.assert_allclose(unit.std(0), np.sqrt(1 / 12), atol=0.02)
  # Each coordinate of each environment is drawn by itself.
  assert np.abs(np.corrcoef(unit[:, 0].T) - np.eye(3)).max() < 0.05
  assert len(np.unique(found[:, 0, 0])) > 9_000


def test_other_action_spaces_are_refused():
  space = gymnasium.spaces.MultiBinary(3)
  with pytest.raises(TypeError, match='MultiBinary'):
    loop_lib.random_actions(space, jax.random.key(0), N)


# With the real replay.


def test_what_is_sampled_is_what_was_acted_on():
  replay = uniform.UniformReplay(
    capacity=40, batch_size=4, min_history=4, stack=3, gamma=0.5
  )
  loop = make_loop(replay=replay, reward_clip=1.0)

  @jax.jit
  def step(experience: Any, time_step: Any):
    experience = loop.remember(experience, time_step)
    return loop.act(None, experience, RANDOM)

  experience = jax.jit(lambda: loop.init(0, frames(10, 20)).experience)()
  expected = [{}, {}]
  slot = [0, 0]
  for i in range(12):
    acted_on, actions = experience.observation, experience.action
    # The first ends each third step, the second each fifth.
    ends = (i % 3 == 2, i % 5 == 4)
    following = [11 + i, 41 + i]
    first = [90 + i if ends[0] else 11 + i, 120 + i if ends[1] else 41 + i]
    experience = step(
      experience,
      time_step(first, following, reward=(2, -0.5), ends=ends),
    )
    for lane in range(N):
      frame = following[lane]
      expected[lane][slot[lane]] = (
        acted_on[lane],
        actions[lane],
        (1, -0.5)[lane],
        0 if lane == 0 and ends[0] else 0.5,
        np.append(np.asarray(acted_on)[lane, :, 1:], [[frame]], axis=1),
      )
      slot[lane] += 2 if ends[lane] else 1
  for lane in range(N):
    slots = np.array(list(expected[lane]))
    lanes = np.full(len(slots), lane)
    assert np.all(jax.jit(replay.is_valid)(experience.replay, lanes, slots))
    found = jax.jit(replay.transition_at)(experience.replay, lanes, slots)
    for leaf, values in zip(
      jax.tree.leaves(found),
      zip(*expected[lane].values(), strict=True),
      strict=True,
    ):
      np.testing.assert_array_equal(leaf, np.stack(values))
