"""Hindsight, against a list of everything that each lane was ever given."""

import functools
import types

import gymnasium
from hypothesis import example
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import dopamine_jax as dj
from dopamine_jax import agent as agent_lib
from dopamine_jax import errors
from dopamine_jax import networks
from dopamine_jax import runner as runner_lib
from dopamine_jax import values
from dopamine_jax.agents import dqn
from dopamine_jax.agents import mrq
from dopamine_jax.agents import sac
from dopamine_jax.agents import td3
from dopamine_jax.engines import compiled
from dopamine_jax.environments import bit_flip
from dopamine_jax.environments import gym
from dopamine_jax.environments import native
from dopamine_jax.learning import actor_critic
from dopamine_jax.replay import hindsight
from dopamine_jax.replay import ring as ring_lib
from tests import goals

N, CAPACITY, GAMMA = 2, 13, 0.5
TERMINATED, TRUNCATED, RUNNING = 'terminated', 'truncated', ''
# Goals are [number of the frame, 0]: those of neighbours are 1 apart.
NEAR = hindsight.Reach(tolerance=1.5)


def goal(number):
  return np.array([number, 0], np.float32)


def play(lanes):
  """Yields steps, and the rows of each lane: what its slots were given.

  Args:
    lanes: how each step of each lane ends.
  """
  rows, episode = [[] for _ in lanes], [0] * N
  for ends in zip(*lanes, strict=True):
    seen, following = [], []
    for lane, end in enumerate(ends):
      number = 1_000 * lane + len(rows[lane])
      row = {'number': number, 'episode': episode[lane], 'end': end}
      rows[lane].append(row | {'taken': True})
      wanted = goal(-1 - episode[lane])
      for each, of in ((seen, number), (following, number + 1)):
        each.append(
          {
            'observation': np.array([of], np.int32),
            'achieved_goal': goal(of),
            'desired_goal': wanted,
          }
        )
      if end:
        last = {'number': number + 1, 'episode': episode[lane]}
        rows[lane].append(last | {'end': RUNNING, 'taken': False})
        episode[lane] += 1
    numbers = np.array([each['observation'][0] for each in seen])
    step = ring_lib.Step(
      observation=jax.tree.map(lambda *x: np.stack(x), *seen),
      action=numbers % 7,
      reward=(numbers / 4 + 1).astype(np.float32),
      terminated=np.array([end == TERMINATED for end in ends]),
      truncated=np.array([end == TRUNCATED for end in ends]),
      next_observation=jax.tree.map(lambda *x: np.stack(x), *following),
    )
    yield step, rows


@functools.cache
def sampler(terminates, batch_size=64):
  """Returns a replay, and its `sample` as a program."""
  replay = hindsight.HindsightReplay(
    capacity=batch_size,
    batch_size=batch_size,
    min_history=batch_size,
    gamma=GAMMA,
    relabelled=0.75,
    task=NEAR.replace(terminates=terminates),
  )
  return replay, jax.jit(replay.sample)


add = jax.jit(ring_lib.add)


def filled(lanes):
  """Returns a ring of what was played, and each lane's rows."""
  ring = None
  for step, rows in play(lanes):  # noqa: B007
    ring = add(ring_lib.init(step, CAPACITY) if ring is None else ring, step)
  return ring, rows


def later(rows, slot):
  """Returns the numbers that a slot's episode had later."""
  episode = rows[slot]['episode']
  found = [
    row['number'] for row in rows[slot + 1 :] if row['episode'] == episode
  ]
  # The frame that followed the newest step lies in no row yet.
  newest = rows[-1]
  runs_on = newest['taken'] and not newest['end']
  if runs_on and newest['episode'] == episode:
    found.append(newest['number'] + 1)
  return found


def drawn(ring, sample):
  """Yields lane, slot and transition of each draw, as NumPy."""
  lanes = np.array(sample.index) // ring.capacity
  slots = np.array(sample.slot)
  batch = jax.tree.map(np.array, sample.transition)
  for i, (lane, slot) in enumerate(zip(lanes, slots, strict=True)):
    yield lane, slot, jax.tree.map(lambda x, i=i: x[i], batch)


lanes_of_steps = st.integers(3, 40).flatmap(
  lambda length: st.lists(
    st.lists(
      st.sampled_from([TERMINATED, TRUNCATED, *[RUNNING] * 4]),
      min_size=length,
      max_size=length,
    ),
    min_size=N,
    max_size=N,
  )
)


# In the slot to be written next lies an age that would fit the last episode.
STALE = [[*[RUNNING] * 11, TRUNCATED, *[RUNNING] * 3, TRUNCATED]] * N


@example(lanes=STALE, terminates=False)
@given(lanes=lanes_of_steps, terminates=st.booleans())
@settings(max_examples=15)
def test_a_transition_is_as_stored_or_has_a_goal_achieved_later(
  lanes, terminates
):
  ring, rows = filled(lanes)
  _, sample = sampler(terminates)
  key = jax.random.key(sum(map(len, rows)))
  for lane, slot, found in drawn(ring, sample(ring, key)):
    row = rows[lane][slot]
    assert slot >= len(rows[lane]) - (CAPACITY - 1)
    assert row['taken']
    number = row['number']
    for seen, of in ((found.observation, 0), (found.next_observation, 1)):
      assert seen['observation'] == number + of
      np.testing.assert_array_equal(seen['achieved_goal'], goal(number + of))
    wanted = found.observation['desired_goal']
    np.testing.assert_array_equal(
      wanted, found.next_observation['desired_goal']
    )
    assert found.action == number % 7
    ended = row['end'] == TERMINATED
    if wanted[0] == -1 - row['episode']:
      assert found.reward == number / 4 + 1
    else:
      assert wanted[0] in later(rows[lane], slot) and wanted[1] == 0
      reached = wanted[0] - (number + 1) <= 1
      assert found.reward == (0 if reached else -1)
      ended = reached if terminates else ended
    assert found.discount == (0 if ended else GAMMA)


def test_goals_are_uniform_over_what_follows_and_as_many_as_set():
  # One episode that still runs; of the other lane one that has ended, too.
  lanes = [[RUNNING] * 10, [RUNNING, TRUNCATED, *[RUNNING] * 8]]
  ring, rows = filled(lanes)
  draws = 20_000
  _, sample = sampler(False, draws)
  seen = {}
  for lane, slot, found in drawn(ring, sample(ring, jax.random.key(3))):
    wanted = found.observation['desired_goal'][0]
    place = seen.setdefault((lane, slot), {})
    place[wanted] = place.get(wanted, 0) + 1
  assert len(seen) == 20
  for (lane, slot), counts in seen.items():
    own = -1 - rows[lane][slot]['episode']
    choices = later(rows[lane], slot)
    shares = {own: 0.25} | dict.fromkeys(choices, 0.75 / len(choices))
    assert counts.keys() == shares.keys()
    for number, share in shares.items():
      expected = draws / 20 * share
      assert abs(counts[number] - expected) < 5 * np.sqrt(expected)


def test_a_goal_is_reached_within_the_tolerance():
  task = hindsight.Reach(tolerance=0.5)
  achieved = jnp.array([[3, 4], [3, 4], [3, 4]], jnp.int8)
  desired = jnp.array([[3, 4], [3, 4.5], [3.4, 4.4]])
  assert task.reward(achieved, desired).tolist() == [0, 0, -1]
  exact = hindsight.Reach()
  assert exact.reward(achieved, desired).tolist() == [0, -1, -1]
  # Differences of small types would overflow.
  far = jnp.array([[-128]], jnp.int8), jnp.array([[127]], jnp.int8)
  assert hindsight.Reach(tolerance=254.0).reward(*far).tolist() == [-1]
  assert hindsight.Reach(tolerance=255.0).reward(*far).tolist() == [0]


@pytest.mark.parametrize(
  ('pays', 'expected'),
  [
    ('penalty', [0, 0, -1]),
    ('bonus', [1, 1, 0]),
    ('distance', [0, -5, -10]),
    ('nearness', [1, 0.0067379, 0.0000454]),
  ],
)
def test_a_step_is_worth_what_is_set(pays, expected):
  task = hindsight.Reach(tolerance=5.0, pays=pays)
  achieved = jnp.array([[1, 1], [4, 5], [7, 9]], jnp.int8)
  desired = jnp.ones((3, 2))
  np.testing.assert_allclose(
    task.reward(achieved, desired), expected, rtol=1e-4, atol=1e-7
  )
  ended = task.replace(terminates=True).terminated(achieved, desired)
  assert ended.tolist() == [True, True, False]


def test_a_kind_of_reward_that_is_not_known():
  with pytest.raises(errors.UserError, match=r"pays = 'dense'.*'nearness'"):
    hindsight.Reach(pays='dense')


# What can't work.


@pytest.mark.parametrize(
  ('changes', 'said'),
  [
    ({'achieved_goal': None}, r"those here are a Dict of \['desired_goal'"),
    ({'desired_goal': np.zeros((N, 3), np.float32)}, r'float32\[3\]'),
    ({'desired_goal': np.zeros((N, 2), np.int8)}, r'int8\[2\]'),
    ({'achieved_goal': {}, 'desired_goal': {}}, "'achieved_goal' is a tree"),
  ],
)
def test_observations_whose_goals_can_not_be_exchanged(changes, said):
  step = next(play([[RUNNING]] * N))[0]
  changed = step.observation | changes
  changed = {k: v for k, v in changed.items() if v is not None}
  with pytest.raises(errors.UserError, match=said):
    hindsight.HindsightReplay().init(step.replace(observation=changed))


def test_a_replay_of_goals_has_one_step_and_no_stacked_goals():
  step = next(play([[RUNNING]] * N))[0]
  with pytest.raises(errors.UserError, match='those here are no Dict'):
    hindsight.HindsightReplay().init(step.replace(observation=step.reward))
  images = {'achieved_goal': np.zeros((N, 2, 2)), 'desired_goal': None}
  images['desired_goal'] = images['achieved_goal']
  with pytest.raises(errors.UserError, match='stack = 2 does not fit'):
    hindsight.HindsightReplay(stack=2).init(step.replace(observation=images))
  with pytest.raises(errors.UserError, match='Set n_step = 1 of the agent'):
    dqn.DQN(replay=hindsight.HindsightReplay, n_step=3).make_replay(1)
  with pytest.raises(errors.UserError, match='an agent that does not predict'):
    mrq.MRQ(replay=hindsight.HindsightReplay, n_step=1).make_replay(1)


class Wrong(hindsight.Reach):
  def reward(self, achieved, desired):
    return -jnp.abs(achieved - desired)


def test_a_reward_that_is_no_number_a_transition():
  replay = sampler(False)[0].replace(task=Wrong())
  ring, _ = filled([[RUNNING] * 3] * N)
  with pytest.raises(errors.UserError, match=r'Wrong.reward must .* \(64, 2\)'):
    jax.eval_shape(replay.sample, ring, jax.random.key(0))


# Environments.


def test_bits_in_jax_are_those_of_gymnasium():
  environment = bit_flip.BitFlip(num_bits=6)
  native_envs, env = environment.make(1), goals.GymBitFlip(6)
  rng = np.random.default_rng(0)
  seen = native_envs.reset([0])
  ended = {'terminated': 0, 'truncated': 0}
  age = 0
  for i in range(400):
    if age == 0:
      env.bits = seen['observation'][0].copy()
      env.goal = seen['desired_goal'][0].copy()
    apart = np.flatnonzero(env.bits != env.goal)
    is_good = len(apart) and i % 3
    action = rng.choice(apart) if is_good else rng.integers(6)
    step = native_envs.step(np.array([action]))
    expected, reward, terminated, _, info = env.step(action)
    age += 1
    for name, part in expected.items():
      np.testing.assert_array_equal(step.next_observation[name][0], part)
    assert (step.reward[0], step.terminated[0]) == (reward, terminated)
    assert native_envs.told['is_success'][0] == info['is_success']
    truncated = age == 6
    assert step.truncated[0] == truncated
    ended['terminated'] += terminated
    ended['truncated'] += truncated
    age = 0 if terminated or truncated else age
    seen = step.observation
  assert min(ended.values()) > 10
  image = environment.image(bit_flip.State(env.bits, env.goal, 0))
  assert image.shape == (32, 96, 3)


# Trainings.


def learner(relabelled):
  return functools.partial(
    dqn.DQN,
    network=networks.MLP(hidden=(64,)),
    replay=hindsight.HindsightReplay(
      capacity=2_000,
      batch_size=32,
      min_history=64,
      relabelled=relabelled,
      task=hindsight.Reach(terminates=True),
    ),
    optimizer=values.call(optax.adam, 4e-3),
    update_period=4,
    target_update_period=80,
    gamma=0.95,
    epsilon=0.2,
  )


# Slow: goals and rewards are compared with a list above, and what an agent
# makes of transitions is a matter of its own tests.
@pytest.mark.slow
def test_only_with_hindsight_are_bits_learnt_in_a_few_steps(tmp_path):
  def with_share(share):
    return runner_lib.Runner(
      agent=learner(share),
      environment=bit_flip.BitFlip(num_bits=8),
      engine=compiled.CompiledEngine,
      num_iterations=1,
      training_steps=3_000,
      num_envs=4,
      evaluation_episodes=50,
      collectors=(),
    )

  # One program: the share is a number that may differ.
  shares = {'without': with_share(0.0), 'hindsight': with_share(0.8)}
  runs = dj.train(shares, tmp_path, num_seeds=2, quiet=True)
  success = {
    name: run.statistics['Eval/is_success'] for name, run in runs.items()
  }
  assert min(success['hindsight']) > 0.85
  assert max(success['without']) < 0.3


class Point(native.Native):
  """Moves on a line, for ten steps."""

  max_steps_per_episode: int | None = 10

  @property
  def observation_space(self):
    box = gymnasium.spaces.Box(-20, 20, (1,), np.float32)
    names = 'observation', 'achieved_goal', 'desired_goal'
    return gymnasium.spaces.Dict(dict.fromkeys(names, box))

  @property
  def action_space(self):
    return gymnasium.spaces.Box(-1, 1, (1,), np.float32)

  def reset(self, key):
    return self.see(jax.random.uniform(key, (2, 1)))

  def step(self, state, action, key):
    state, seen = self.see(state.at[0].add(action))
    return native.Outcome(state, seen, -1.0, False)

  def see(self, state):
    seen = {'observation': state[0], 'achieved_goal': state[0]}
    return state, seen | {'desired_goal': state[1]}


def test_what_ended_otherwise_ends_under_any_goal():
  replay = hindsight.HindsightReplay(
    gamma=0.5, task=hindsight.Reach(terminates=True)
  )
  # Fell; reached its goal; reached the new one; went on.
  terminated = jnp.array([True, True, False, False])
  achieved = jnp.array([[0], [1], [2], [0]])
  own = {'desired_goal': jnp.ones((4, 1), int)}
  batch = agent_lib.Transition(
    observation=own,
    action=jnp.zeros(4, int),
    reward=jnp.zeros(4),
    discount=jnp.where(terminated, 0.0, 0.5),
    next_observation=own | {'achieved_goal': achieved},
  )
  new = replay.with_goal(batch, jnp.full((4, 1), 2), terminated)
  assert new.discount.tolist() == [0.0, 0.5, 0.0, 0.5]
  assert new.reward.tolist() == [-1.0, -1.0, 0.0, -1.0]


@pytest.mark.parametrize(
  'numbers', [np.zeros((4, 1)), np.zeros(3), np.zeros(4, bool), 0.0]
)
def test_rewards_that_do_not_fit_are_told(numbers):
  class Odd(hindsight.Reach):
    def reward(self, achieved, desired):
      return numbers

  replay = hindsight.HindsightReplay(task=Odd())
  goal = {'achieved_goal': jnp.zeros((4, 1))}
  batch = types.SimpleNamespace(next_observation=goal)
  with pytest.raises(errors.UserError, match='must return an array'):
    replay.with_goal(batch, jnp.zeros((4, 1)), jnp.zeros(4, bool))


NORMALIZED = {
  'actor': functools.partial(actor_critic.Actor, torso=networks.RunningNorm()),
  'critics': functools.partial(
    actor_critic.Critics, torso=networks.RunningNorm()
  ),
}


@pytest.mark.parametrize(
  ('agent', 'parts'), [(sac.SAC, NORMALIZED), (td3.TD3, {})]
)
def test_policy_and_critics_see_the_goal(agent, parts):
  point = Point()
  made = agent(
    observation_space=point.observation_space,
    action_space=point.action_space,
    **parts,
  )

  @jax.jit
  def look(observation):
    key = jax.random.key(0)
    state = made.init(key, observation)
    action = made.act(state, observation, jnp.int32(0), key, explore=False)
    still = jnp.zeros_like(action)
    return action, made.q_values(state.params['critics'], observation, still)

  here = np.zeros((3, 1), np.float32)
  seen = {'observation': here, 'achieved_goal': here}
  goals = np.array([[1], [2], [2]], np.float32)
  action, value = map(np.array, look(seen | {'desired_goal': goals}))
  for first, second, third in (action[:, 0], *value):
    assert first != second
    assert second == third


REPLAY = hindsight.HindsightReplay(batch_size=8, min_history=16)


@pytest.mark.parametrize(
  ('agent', 'environment'),
  [
    (functools.partial(sac.SAC, **NORMALIZED), Point()),
    (dqn.DQN, gym.Gym(id='tests.goals:Goals/BitFlip-v0')),
  ],
)
def test_an_update_of_other_agents_fits_goals(agent, environment):
  run = runner_lib.Runner(
    agent=functools.partial(agent, replay=REPLAY),
    environment=environment,
    num_iterations=1,
    training_steps=16,
    num_envs=2,
  )
  environments = environment.make(2)
  engine = run.make_engine(environments, (0,), check_finite=True)
  engine.reset([0, 1])
  jax.eval_shape(engine.loop.learn, engine.abstract_state())
  environments.close()
