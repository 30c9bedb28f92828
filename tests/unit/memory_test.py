"""What an agent carries: the same on each engine, and what the replay keeps."""

from flax import struct
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dopamine_jax as dj
from dopamine_jax import agent as agent_lib
from dopamine_jax import errors
from dopamine_jax import networks
from dopamine_jax.agents import r2d2
from dopamine_jax.engines import compiled
from dopamine_jax.engines import evaluation
from dopamine_jax.engines import memory as memory_lib
from dopamine_jax.engines import plain_engine
from dopamine_jax.engines import python_engine
from dopamine_jax.environments import memory_chain
from dopamine_jax.learning import off_policy
from dopamine_jax.networks import recurrent
from dopamine_jax.playing import player as player_lib
from dopamine_jax.playing import trained as trained_lib
from dopamine_jax.replay import ring as ring_lib
from dopamine_jax.replay import sequences
from dopamine_jax.replay import uniform

ENGINES = [
  plain_engine.PlainEngine,
  python_engine.PythonEngine,
  compiled.CompiledEngine,
]
SEQUENCES = sequences.SequenceReplay(
  capacity=120, batch_size=2, length=3, burn_in=1, min_history=20
)


class Count(struct.PyTreeNode):
  updates: jax.Array


class Diary(off_policy.OffPolicy):
  """Carries a count of steps, and a digest of all that it was shown."""

  replay: object = SEQUENCES
  update_period: int = 4

  def init(self, key, observation):
    return Count(jnp.zeros((), jnp.int32))

  def init_memory(self, num_envs):
    return {
      'count': jnp.zeros(num_envs, jnp.int32),
      'digest': jnp.arange(num_envs, dtype=jnp.float32),
    }

  def act_with_memory(self, state, memory, seen, step, key, *, explore):
    digest = read(
      memory['digest'], seen.observation, seen.action, seen.reward, seen.first
    )
    count = memory['count'] + 1
    wish = (count // 3 + jnp.arange(len(count)) + explore) % 2
    return wish, {'count': count, 'digest': digest}

  def update(self, state, sample, key):
    priorities = jnp.ones(sample.weight.shape)
    return Count(state.updates + 1), {'Loss': jnp.float32(0.0)}, priorities


def read(digest, observation, action, reward, first):
  new = observation[..., 0] + 0.25 * action + 0.125 * reward + 2.0 * first
  return 0.5 * digest + new


def engine_after(kind, agent, num_seeds, steps, num_envs=2):
  """Returns an engine that took so many steps with each seed, in two calls."""
  run = dj.Runner(
    agent=agent,
    environment=memory_chain.MemoryChain(length=5),
    engine=kind,
    num_envs=num_envs,
    num_iterations=1,
    training_steps=steps,
  )
  environments = run.environment.make(num_seeds * num_envs)
  engine = run.make_engine(environments, range(num_seeds), check_finite=True)
  engine.reset(range(num_seeds * num_envs))
  engine.init()
  for part in (steps // 3 // num_envs * num_envs, None):
    part = part or steps - engine.steps
    engine.run(part, cut_with=None, on_step=lambda: None)
  return engine


def diary_of(slots, lane, head):
  """Returns the memory before each step of a lane, read off what it holds."""
  found = []
  for slot in range(head):
    age = slots.age[lane, slot]
    first = age == 0
    if first:
      digest = np.float32(lane)
    if slots.status[lane, slot] == ring_lib.LAST:
      continue
    found.append((slot, age, digest))
    before = slot - 1
    digest = read(
      digest,
      slots.frame[lane, slot],
      0 if first else slots.action[lane, before],
      0.0 if first else slots.reward[lane, before],
      first,
    )
  return found


# One seed alone, whose arrays have no axis, trains in `configs_test`.
@pytest.mark.parametrize(
  ('num_seeds', 'engines'),
  [pytest.param(1, ENGINES[1:2], marks=pytest.mark.slow), (2, ENGINES)],
)
def test_memory_is_of_what_was_seen_on_every_engine(num_seeds, engines):
  steps = 64  # the first 20 by random actions, through which memory goes on
  kept, last = [], []
  for kind in engines:
    engine = engine_after(kind, Diary(), num_seeds, steps)
    kept.append(jax.tree.map(np.array, engine.state.experience.replay))
    last.append(jax.tree.map(np.array, engine.state.experience.memory))
    assert np.all(np.array(engine.state.agent.updates) == (steps - 20) // 4 + 1)
  for other, carried in zip(kept[1:], last[1:], strict=True):
    jax.tree.map(np.testing.assert_array_equal, kept[0], other)
    jax.tree.map(np.testing.assert_array_equal, last[0], carried)
  for seed in range(num_seeds):
    ring, carried = kept[0], last[0]
    if num_seeds > 1:
      ring, carried = jax.tree.map(
        lambda x, seed=seed: x[seed], (ring, carried)
      )
    for lane, head in enumerate(ring.head):
      diary = diary_of(ring.slots, lane, head)
      assert len(diary) == steps // 2
      for slot, age, digest in diary:
        assert ring.slots.memory['count'][lane, slot] == age
        assert ring.slots.memory['digest'][lane, slot] == digest
      # What the newest action was chosen with is not in the replay yet.
      assert carried.before['count'][lane] == ring.age[lane]


class Shy(Diary):
  """As `Diary`, of a replay that keeps no memory."""

  replay: object = uniform.UniformReplay(
    capacity=60, batch_size=2, min_history=20
  )


def test_a_replay_of_transitions_keeps_no_memory():
  engine = engine_after(python_engine.PythonEngine, Shy(), 1, 40)
  assert engine.state.experience.replay.slots.memory == ()
  assert engine.state.experience.memory.now['count'].shape == (2,)


def wrong(**methods):
  return type('Wrong', (Diary,), methods | {'__module__': __name__})()


@pytest.mark.parametrize(
  ('agent', 'said'),
  [
    (
      wrong(init_memory=lambda self, n: jnp.zeros(3)),
      r'Wrong.init_memory\(2\) must return arrays with a leading axis of 2',
    ),
    (
      wrong(init_memory=lambda self, n: ()),
      r'Wrong.init_memory\(2\) must return arrays .* is None',
    ),
    (
      wrong(act_with_memory=lambda self, state, memory, *_, explore: memory),
      'Wrong.act_with_memory must return two things, actions and memory',
    ),
    (
      wrong(
        act_with_memory=lambda self, state, memory, *_, explore: (
          memory['count'],
          {'count': memory['count']},
        )
      ),
      r"must return a memory like .* memory\['digest'\] was float32 \(2,\) and",
    ),
  ],
)
def test_what_is_no_memory_is_named_before_training(agent, said, tmp_path):
  with pytest.raises(errors.UserError, match=said):
    engine_after(python_engine.PythonEngine, agent, 1, 4)


def test_a_network_without_memory_is_named(tmp_path):
  agent = r2d2.R2D2(network=networks.MLP)
  with pytest.raises(errors.UserError, match=r'MLP has no memory. Choose one'):
    dj.train(
      agent, memory_chain.MemoryChain(), tmp_path, agent_steps=9, quiet=True
    )


def test_a_replay_of_transitions_is_no_replay_for_r2d2(tmp_path):
  agent = r2d2.R2D2(replay=uniform.UniformReplay())
  with pytest.raises(errors.UserError, match=r'from sequences\. Choose'):
    dj.train(
      agent, memory_chain.MemoryChain(), tmp_path, agent_steps=9, quiet=True
    )


def test_memory_is_fresh_within_a_sequence_where_an_episode_begins():
  module = recurrent.RecurrentQ(num_outputs=2, units=4, sees_past=True)
  rng = np.random.default_rng(0)
  T, B = 6, 3
  seen = agent_lib.Seen(
    observation=rng.normal(size=(T, B, 2)).astype(np.float32),
    action=rng.integers(2, size=(T, B)),
    reward=rng.normal(size=(T, B)).astype(np.float32),
    first=rng.random((T, B)) < 0.4,
  )
  memory = jax.tree.map(lambda x: x + 0.3, module.init_memory(B))
  params = jax.jit(module.init)(jax.random.key(0), memory, seen)['params']
  whole, memories = jax.jit(module.apply)({'params': params}, memory, seen)
  one_step = jax.jit(
    lambda memory, row: recurrent.one_step(module, params, memory, row)
  )
  for t in range(T):
    row = jax.tree.map(lambda x, t=t: x[t], seen)
    memory = jax.tree.map(
      lambda x, row=row: np.where(row.first[:, None], 0.0, x), memory
    )
    values, memory = one_step(memory, row)
    np.testing.assert_allclose(values, whole[t], rtol=1e-5, atol=1e-6)
    jax.tree.map(
      lambda x, y, t=t: np.testing.assert_allclose(x, y[t], rtol=1e-5),
      *(memory, memories),
    )


def test_a_player_carries_what_an_evaluation_does():
  environment = memory_chain.MemoryChain(length=4)
  environments = environment.make(1)
  agent = Diary(
    observation_space=environments.observation_space,
    action_space=environments.action_space,
  )
  state = Count(jnp.zeros((), jnp.int32))
  trained = trained_lib.Trained(
    *(None, agent, state, environment, (0,), 0, 0),
  )
  evaluator = evaluation.Evaluator(agent, environment, 1, 3)
  moments = []
  keys = jax.random.key(0)
  evaluator.run(state, keys, [7, 8, 9], 0, moments.append)
  player = player_lib.Player(trained)
  for i, moment in enumerate(moments):
    answer = moment.answer
    first = np.ones(3, bool) if i == 0 else answer.terminated
    reward = 0.0 if i == 0 else answer.reward
    actions = player.act(np.array(moment.observation), first, reward)
    np.testing.assert_array_equal(actions, moment.actions)
    found = player._taken[1].before['digest']
    np.testing.assert_array_equal(found, moment.memory.now['digest'])
  player.reset()
  assert player.act(np.zeros(2, np.float32)).shape == ()


def test_an_agent_without_memory_carries_nothing():
  class Plain(off_policy.OffPolicy):
    def act(self, state, observation, step, key, *, explore):
      return jnp.zeros(len(observation), jnp.int32)

  agent = Plain(action_space=gymnasium.spaces.Discrete(2))
  assert memory_lib.begin(agent, jnp.zeros(2, jnp.int32)) == ()
  actions, carried = memory_lib.act(
    agent, None, (), jnp.zeros((2, 3)), 0, None, explore=True
  )
  assert actions.shape == (2,)
  assert carried == ()
