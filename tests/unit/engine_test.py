"""The Python engine, the runner that drives it, and evaluation.

The environments here write down what they are told, and the agent shows in its
actions how many updates it has had: so the order of things can be read off.
"""

from collections.abc import Callable
import dataclasses
import functools
import types

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import optax
import psutil
import pytest

from dopamine_jax import agent as agent_lib
from dopamine_jax import errors
from dopamine_jax import networks
from dopamine_jax import runner as runner_lib
from dopamine_jax import values
from dopamine_jax.agents import dqn
from dopamine_jax.checkpoints import checkpoints
from dopamine_jax.engines import evaluation
from dopamine_jax.engines import loop
from dopamine_jax.engines import python_engine
from dopamine_jax.engines import stacking
from dopamine_jax.engines import streams
from dopamine_jax.environments import base
from dopamine_jax.metrics import base as metrics_base
from dopamine_jax.metrics import csv_file
from dopamine_jax.replay import prioritized
from dopamine_jax.replay import ring
from dopamine_jax.replay import uniform
from dopamine_jax.training import fingerprint
from tests import kept
from tests import walk
from tests.unit import health_test

EVALUATING = 999


class Scripted(base.Environment):
  """Episodes of `length` steps, or of 1 to `length` if they vary."""

  length: int = 5
  varies: bool = False
  terminates: bool = True
  num_actions: int = 1_000
  # Of the lane and the number of the step, counted from 1.
  reward: Callable[[int, int], float] = lambda lane, step: 1.0
  made: list['ScriptedVector'] = dataclasses.field(default_factory=list)

  def make(self, num_envs, render=False):
    self.made.append(ScriptedVector(self, num_envs))
    return self.made[-1]


class ScriptedVector(base.VectorEnvironment):
  """Observations are (a random number, steps since the episode began).

  Attributes:
    resets: the steps taken before each reset, and its seeds.
    actions: of each step, [N].
    finished: the lengths of each lane's episodes that ended by themselves.
    successor: of the last step, [N, 2].
  """

  def __init__(self, settings, num_envs):
    self.settings = settings
    self.num_envs = num_envs
    self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,))
    self.action_space = gymnasium.spaces.Discrete(settings.num_actions)
    self.resets, self.actions = [], []
    self.finished = [[] for _ in range(num_envs)]

  def reset(self, seeds):
    self.resets.append((len(self.actions), list(seeds)))
    self._rngs = [np.random.default_rng(seed) for seed in seeds]
    self._age = np.zeros(self.num_envs, int)
    self._length = np.zeros(self.num_envs, int)
    return self._begin(range(self.num_envs), self._see())

  def step(self, actions):
    self.actions.append(np.array(actions))
    self._age += 1
    done = self._age == self._length
    self.successor = self._see()
    for lane in np.flatnonzero(done):
      self.finished[lane].append(int(self._age[lane]))
    observation = self._begin(np.flatnonzero(done), self.successor)
    rewards = [
      self.settings.reward(lane, len(self.actions))
      for lane in range(self.num_envs)
    ]
    terminates = np.full(self.num_envs, self.settings.terminates)
    return base.TimeStep(
      observation,
      np.array(rewards, np.float32),
      done & terminates,
      done & ~terminates,
      self.successor,
    )

  def close(self):
    pass

  def _begin(self, lanes, observation):
    observation = observation.copy()
    for lane in lanes:
      longest = self.settings.length
      self._age[lane] = 0
      self._length[lane] = longest
      if self.settings.varies:
        self._length[lane] = self._rngs[lane].integers(1, longest + 1)
      observation[lane] = self._rngs[lane].normal(), 0
    return observation

  def _see(self):
    return np.array(
      [
        (rng.normal(), age)
        for rng, age in zip(self._rngs, self._age, strict=True)
      ],
      np.float32,
    )


class Total(uniform.UniformReplay):
  """Samples the sum of all rewards that it holds: quick to compile."""

  def sample(self, ring, key, updates=0):
    return agent_lib.Sample(
      transition=jnp.sum(ring.slots.reward),
      index=jax.random.uniform(key),
      weight=jnp.ones(()),
    )


class Spy(agent_lib.Agent):
  """Its state and its action are the number of its updates so far.

  Its metric 'Third' is what was sampled at the third update, and 0 at others.
  """

  capacity: int = 1_000
  batch_size: int = 1
  min_history: int = 10

  def make_replay(self, stack):
    return Total(
      capacity=self.capacity,
      batch_size=self.batch_size,
      min_history=self.min_history,
      stack=stack,
    )

  def init(self, key, observation):
    return jnp.zeros((), jnp.int32)

  def act(self, state, observation, step, key, *, explore):
    action = state if explore else EVALUATING
    return jnp.full(observation.shape[:1], action, jnp.int32)

  def update(self, state, sample, key):
    metrics = {
      'Count': (state + 1).astype(jnp.float32),
      'Draw': jax.random.uniform(key),
      'ReplayDraw': sample.index,
      'Third': jnp.where(state == 2, sample.transition, 0.0),
    }
    return state + 1, metrics, sample.weight


small_dqn = functools.partial(
  dqn.DQN,
  network=functools.partial(networks.MLP, hidden=()),
  replay=functools.partial(
    uniform.UniformReplay, capacity=200, batch_size=4, min_history=20
  ),
  optimizer=values.call(optax.sgd, 1e-2, momentum=0.9),
  target_update_period=8,
  epsilon=0.5,
)


def make_engine(
  environment, agent=Spy, *, seeds=(0,), num_envs=1, check_finite=True, **kwargs
):
  """Returns an engine before its first step; `kwargs` are the agent's."""
  environments = environment.make(len(seeds) * num_envs)
  agent = agent(
    observation_space=stacking.stacked_space(
      environments.observation_space, environment.stack
    ),
    action_space=environments.action_space,
    **kwargs,
  )
  engine = python_engine.PythonEngine(
    loop.Loop(
      agent=agent,
      replay=agent.make_replay(environment.stack),
      reward_clip=environment.reward_clip,
      stack=environment.stack,
      num_envs=num_envs,
    ),
    environments,
    seeds,
    check_finite=check_finite,
  )
  engine.reset(env_seeds(seeds, 0, num_envs))
  engine.init()
  return engine


def env_seeds(seeds, iteration, num_envs):
  return streams.env_seeds(seeds, streams.Stream.TRAIN, iteration, num_envs)


def run(engine, num_steps, cut_with=None):
  return engine.run(num_steps, cut_with=cut_with, on_step=lambda: None)


class Recorder(metrics_base.Collector):
  """Keeps statistics by (name, iteration, seed)."""

  def __init__(self):
    self.values = {}

  def write(self, statistics):
    for s in statistics:
      self.values[s.name, s.iteration, s.seed] = s.value


def train(base_dir, environment, agent=Spy, *, seed=0, num_seeds=1, **settings):
  """Returns the statistics by (name, iteration, seed)."""
  recorder = kept.keep(Recorder())
  runner = runner_lib.Runner(
    agent=agent,
    environment=environment,
    collectors=[kept.newest],
    **{'num_iterations': 1, 'training_steps': 40, **settings},
  )
  runner.train(base_dir, seed=seed, num_seeds=num_seeds, quiet=True)
  return recorder.values


# Steps, updates and their order.


def updates_after(steps, *, num_envs, period, min_history):
  """Counts, step by step, the updates due in `steps` agent steps."""
  updates = 0
  for now in range(num_envs, steps + 1, num_envs):
    if now >= min_history:
      updates += sum(
        i % period == 0 for i in range(now - num_envs + 1, now + 1)
      )
  return updates


@pytest.mark.parametrize(
  ('length', 'num_envs', 'period', 'min_history'),
  [
    (1, 1, 4, 10),
    # Of short and long episodes, and one lane and several, each has a row.
    pytest.param(1_000, 1, 4, 10, marks=pytest.mark.slow),
    pytest.param(1, 3, 2, 10, marks=pytest.mark.slow),
    (1_000, 3, 2, 10),  # one update or two a call
    (7, 3, 1, 10),  # three updates a call
    (7, 1, 1, 1),
  ],
)
def test_updates_depend_on_agent_steps_alone(
  length, num_envs, period, min_history
):
  environment = Scripted(length=length)
  engine = make_engine(
    environment,
    num_envs=num_envs,
    update_period=period,
    min_history=min_history,
  )
  metrics = [run(engine, 24), run(engine, 12)]

  due = functools.partial(
    updates_after, num_envs=num_envs, period=period, min_history=min_history
  )
  assert engine.steps == engine.state.experience.agent_steps == 36
  assert len(environment.made[0].actions) * num_envs == 36
  assert engine.state.updates == engine.state.agent == due(36)
  # The means over each run's updates, of which the agent counts 1, 2, ...
  assert metrics[0]['Count'] == pytest.approx(np.mean(range(1, due(24) + 1)))
  assert metrics[1]['Count'] == pytest.approx(
    np.mean(range(due(24) + 1, due(36) + 1))
  )


def test_without_an_update_there_are_no_metrics():
  assert run(make_engine(Scripted()), 9) == {}


def test_an_action_comes_from_the_parameters_after_the_update():
  environment = Scripted()
  engine = make_engine(environment, update_period=3)
  run(engine, 30)

  # Action i is chosen after i steps; the first updates follow steps 12, 15, ...
  actions = np.concatenate(environment.made[0].actions)
  expected = [
    updates_after(i, num_envs=1, period=3, min_history=10) for i in range(30)
  ]
  np.testing.assert_array_equal(actions[10:], expected[10:])
  # What the replay holds is what the environment was given.
  slots = jax.device_get(engine.state.experience.replay.slots)
  acted = slots.status[0] != ring.LAST
  np.testing.assert_array_equal(slots.action[0][acted][:30], actions)


class Deaf(Spy):
  """Can't be asked for an action."""

  def act(self, state, observation, step, key, *, explore):
    raise AssertionError('the agent was asked')


def test_the_warm_up_never_asks_the_agent():
  engine = make_engine(Scripted(), Deaf)
  run(engine, 9)
  with pytest.raises(errors.UserError, match='the agent was asked'):
    run(engine, 1)


def test_warm_up_actions_are_uniform():
  environment = Scripted(num_actions=4)
  engine = make_engine(environment, num_envs=2, min_history=601)
  run(engine, 600)
  actions = np.stack(environment.made[0].actions)
  # Alone, from step to step and from neighbour to neighbour; the bounds are
  # 4 standard deviations.
  frequency = np.bincount(actions.ravel(), minlength=4) / 600
  assert np.abs(frequency - 1 / 4).max() <= 4 * np.sqrt(3 / 16 / 600)
  for same in (actions[1:] == actions[:-1], actions[:, 0] == actions[:, 1]):
    bound = 4 * np.sqrt(3 / 16 / same.size)
    assert np.mean(same) == pytest.approx(1 / 4, abs=bound)


def test_each_update_draws_anew():
  engine = make_engine(Scripted(), update_period=2)
  run(engine, 10)
  draws = [run(engine, 2) for _ in range(10)]
  for name in ('Draw', 'ReplayDraw'):
    assert len({float(draw[name][0]) for draw in draws}) == 10


def test_no_two_purposes_share_a_key():
  keys = [
    tuple(jax.random.key_data(key).tolist())
    for seed in (0, 1)
    for key in jax.tree.leaves(
      make_engine(Scripted(), seeds=(seed,)).state.experience.keys
    )
  ]
  assert len(set(keys)) == len(keys) == 8


@pytest.mark.parametrize('terminates', [True, False])
def test_the_agent_acts_on_stacks_that_begin_with_their_episode(terminates):
  environment = Scripted(stack=3, length=4, varies=True, terminates=terminates)
  engine = make_engine(environment, num_envs=2, min_history=100)
  (vector,) = environment.made
  zeros = np.zeros(2, np.float32)
  stacks = [[zeros, zeros, frame] for frame in engine.first_frames]
  for _ in range(12):
    ended = [len(episodes) for episodes in vector.finished]
    run(engine, 2)
    observation = np.asarray(engine.state.experience.observation)
    for lane, stack in enumerate(stacks):
      newest = observation[lane, :, -1]
      if len(vector.finished[lane]) > ended[lane]:
        stack[:] = [zeros, zeros, newest]
        assert newest[1] == 0
      else:
        stack[:] = [*stack[1:], vector.successor[lane]]
      np.testing.assert_array_equal(observation[lane], np.stack(stack, -1))
  assert all(vector.finished)


# Several seeds.


def test_several_seeds_train_as_each_would_alone():
  seeds = (5, 6)

  def trained(seeds):
    environment = Scripted(varies=True, num_actions=4)
    engine = make_engine(environment, small_dqn, seeds=seeds)
    metrics = run(engine, 64)
    return engine, metrics, np.stack(environment.made[0].actions)

  together, metrics, actions = trained(seeds)
  leaves = jax.jit(
    lambda state: [
      jax.tree.map(lambda leaf, i=i: leaf[i], state) for i in (0, 1)
    ]
  )(together.state)
  # The second: if it had what is the first's, it would show.
  for i, seed in list(enumerate(seeds))[1:]:
    alone, solo_metrics, solo_actions = trained((seed,))
    assert alone.state.updates == 12
    np.testing.assert_array_equal(actions[:, i], solo_actions[:, 0])
    assert_equal(leaves[i].experience, alone.state.experience)
    jax.tree.map(
      functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6),
      (leaves[i].agent, leaves[i].updates),
      (alone.state.agent, alone.state.updates),
    )
    for name, value in solo_metrics.items():
      np.testing.assert_allclose(metrics[name][i], value[0], rtol=1e-4)
    assert alone.episodes.finished == [
      (0, *rest) for lane, *rest in together.episodes.finished if lane == i
    ]
  # And they are not the same.
  assert not np.array_equal(actions[:, 0], actions[:, 1])
  different = jax.tree.map(
    lambda a, b: not np.array_equal(a, b),
    *(
      (each.agent.params, each.experience.replay.slots.frame) for each in leaves
    ),
  )
  assert any(jax.tree.leaves(different[0]))
  assert different[1]


def assert_equal(tree, other):
  def equal(a, b):
    if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
      a, b = jax.random.key_data(a), jax.random.key_data(b)
    np.testing.assert_array_equal(a, b)

  jax.tree.map(equal, tree, other)


def test_each_seed_reports_what_it_would_alone(tmp_path):
  def trained(seed, num_seeds):
    return train(
      tmp_path / f'{seed}_{num_seeds}',
      Scripted(varies=True, length=50),
      seed=seed,
      num_seeds=num_seeds,
      num_envs=2,
      training_steps=200,
      evaluation_episodes=3,
    )

  def comparable(values):
    return {k: v for k, v in values.items() if not metrics_base.is_timing(k[0])}

  together = comparable(trained(3, 2))
  assert together == comparable(trained(3, 1) | trained(4, 1))
  for phase in ('Train', 'Eval'):
    lengths = f'{phase}/AverageEpisodeLengths'
    assert together[lengths, 1, 3] != together[lengths, 1, 4]


def test_environment_seeds_are_never_used_twice():
  given = [
    seed
    for stream in streams.Stream
    for iteration in range(4)
    for seed in streams.env_seeds((0, 1, 2), stream, iteration, 5)
  ]
  assert len(set(given)) == len(given) == 4 * 4 * 3 * 5
  assert all(0 <= seed < 2**31 for seed in given)
  assert env_seeds((5, 6), 1, 2) == env_seeds((5,), 1, 2) + env_seeds(
    (6,), 1, 2
  )


# What is not finite.


# Environments must not give such numbers; sums of these are no more finite.
@pytest.mark.parametrize('value', [3e38, -3e38])
def test_training_stops_at_the_update_whose_metric_is_not_finite(value):
  environment = Scripted(reward=lambda lane, step: value)
  engine = make_engine(environment, update_period=4)
  # Updates follow steps 12, 16 and 20.
  with pytest.raises(
    errors.UserError, match=r'^Third is not finite.*agent step 20 of seed 0'
  ):
    run(engine, 40)
  assert len(environment.made[0].actions) == 20


def test_the_check_for_what_is_not_finite_can_be_switched_off():
  environment = Scripted(reward=lambda lane, step: 3e38)
  engine = make_engine(environment, update_period=4, check_finite=False)
  assert np.isinf(run(engine, 40)['Third'])
  assert engine.state.updates == 8


def test_the_seed_whose_metric_is_not_finite_is_named():
  environment = Scripted(reward=lambda lane, step: [0, 0, 3e38, 0][lane])
  engine = make_engine(environment, seeds=(5, 6), num_envs=2)
  with pytest.raises(
    errors.UserError, match=r'^Third is not finite.*agent step 20 of seed 6'
  ):
    run(engine, 40)


def huge_after_40(lane, step):
  return 1.0 if step <= 40 else 3e38


def test_a_run_that_stops_for_a_nan_leaves_no_checkpoint_of_it(tmp_path):
  environment = Scripted(num_actions=4, reward=huge_after_40)
  with pytest.raises(
    errors.UserError, match=r'is not finite.*agent step.*check_finite = False'
  ):
    train(tmp_path, environment, small_dqn, num_iterations=5)
  assert checkpoints.Checkpoints(tmp_path).iterations() == [1]


# Episodes.


def test_episodes_are_cut_at_checkpoints_alone(tmp_path):
  environment = Scripted(length=7)
  values = train(
    tmp_path,
    environment,
    seed=3,
    num_iterations=5,
    training_steps=10,
    checkpoint_period=2,
  )

  assert environment.made[0].resets == [
    (steps, env_seeds((3,), iteration, 1))
    for steps, iteration in [(0, 0), (20, 2), (40, 4), (50, 5)]
  ]
  # Episodes end at steps 7, 14; 27, 34; 47. Those that are cut don't count.
  num_episodes = [values['Train/NumEpisodes', i, 3] for i in range(1, 6)]
  assert num_episodes == [1, 1, 1, 1, 1]
  for i in range(1, 6):
    assert values['Train/AverageReturns', i, 3] == 7
    assert values['Train/AverageEpisodeLengths', i, 3] == 7


@pytest.mark.parametrize(
  ('length', 'terminates', 'status', 'num_finished'),
  [
    (7, True, ring.TRUNCATED, 1),  # cut
    (10, True, ring.TERMINATED, 1),  # ends by itself where it would be cut
    (10, False, ring.TRUNCATED, 1),
  ],
)
def test_a_cut_is_a_truncation_unless_the_episode_terminates(
  length, terminates, status, num_finished
):
  environment = Scripted(length=length, terminates=terminates)
  engine = make_engine(environment)
  run(engine, 10, cut_with=[77])

  (vector,) = environment.made
  replay = jax.device_get(engine.state.experience.replay)
  last = replay.head[0] - 2  # the last step; its successor has a slot too
  assert replay.slots.status[0, last] == status
  assert replay.slots.status[0, last + 1] == ring.LAST
  np.testing.assert_array_equal(
    replay.slots.frame[0, last + 1], vector.successor[0]
  )
  assert len(engine.episodes.finished) == num_finished
  # What is acted on next is the first observation of the new episode.
  assert vector.resets[-1] == (10, [77])
  observation = np.asarray(engine.state.experience.observation)
  np.testing.assert_array_equal(observation, engine.first_frames)
  assert observation[0, 0] != vector.successor[0, 0]
  run(engine, length)
  assert engine.episodes.finished[-1] == (0, length, length)


def test_rewards_are_raw_in_metrics_and_clipped_in_replay():
  rewards = [5.0, -3.0, 0.5]
  environment = Scripted(
    reward=lambda lane, step: rewards[(step - 1) % 3], length=3, reward_clip=2.0
  )
  engine = make_engine(environment)
  run(engine, 9)

  assert engine.episodes.finished == [(0, 2.5, 3)] * 3
  slots = jax.device_get(engine.state.experience.replay.slots)
  np.testing.assert_array_equal(
    slots.reward[0][slots.status[0] != ring.LAST][:9], [2.0, -2.0, 0.5] * 3
  )


# Evaluation.


@pytest.mark.parametrize(('episodes', 'num_seeds'), [(3, 1), (3, 2), (35, 1)])
def test_an_evaluation_plays_fixed_shares_of_whole_episodes(
  episodes, num_seeds
):
  environment = Scripted(
    length=9, varies=True, reward=lambda lane, step: float(lane)
  )
  evaluator = evaluation.Evaluator(
    Spy(
      observation_space=gymnasium.spaces.Box(-np.inf, np.inf, (2,)),
      action_space=gymnasium.spaces.Discrete(1_000),
    ),
    environment,
    num_seeds,
    episodes,
  )
  (vector,) = environment.made
  lanes = num_seeds * evaluator.num_envs
  keys = jax.random.split(jax.random.key(0), num_seeds)
  result = evaluator.run(
    jnp.zeros((num_seeds,) if num_seeds > 1 else (), jnp.int32),
    keys if num_seeds > 1 else keys[0],
    list(range(lanes)),
    0,
  )

  assert evaluator.num_envs == min(episodes, 32)
  # One episode a lane; of 35, the first three lanes play the rest.
  extra = 3 if episodes == 35 else 0
  expected = [
    (lane * length, length)
    for lane in range(lanes)
    for length in vector.finished[lane][: 2 if lane < extra else 1]
  ]
  np.testing.assert_array_equal(
    np.stack([result.returns, result.lengths], -1).reshape(-1, 2), expected
  )
  assert result.returns.shape == (num_seeds, episodes)
  # The agent was asked for evaluation's actions, the first step included.
  assert np.unique(vector.actions) == [EVALUATING]


def test_evaluation_does_not_disturb_training(tmp_path):
  def trained(name, episodes):
    environment = Scripted(varies=True, num_actions=4)
    runner = runner_lib.Runner(
      agent=small_dqn,
      environment=environment,
      num_iterations=3,
      training_steps=40,
      checkpoint_period=2,
      evaluation_episodes=episodes,
      collectors=(csv_file.CSV,),
    )
    statistics = runner.train(tmp_path / name, quiet=True)
    parts = fingerprint.fingerprint(tmp_path / name)
    del parts['metrics'], parts['all']  # evaluation has metrics of its own
    return environment.made, statistics, parts

  (alone,), before, expected = trained('without', 0)
  (trained_on, evaluating), after, parts = trained('with', 5)
  np.testing.assert_array_equal(trained_on.actions, alone.actions)
  assert trained_on.resets == alone.resets
  assert parts == expected
  for name, value in before.items():
    if not metrics_base.is_timing(name):
      np.testing.assert_array_equal(after[name], value)
  assert 'Eval/AverageReturns' not in before
  assert after['Eval/NumEpisodes'] == 5
  # On environments of its own: new episodes, from new seeds, each time.
  seeds = [seed for _, row in evaluating.resets for seed in row]
  assert len(set(seeds)) == 3 * 5
  assert not set(seeds) & {seed for _, row in trained_on.resets for seed in row}


def test_evaluation_is_periodic_and_always_last(tmp_path):
  values = train(
    tmp_path,
    Scripted(),
    num_iterations=5,
    training_steps=8,
    checkpoint_period=9,
    evaluation_episodes=1,
    evaluation_period=2,
  )
  assert [i for n, i, _ in values if n == 'Eval/NumEpisodes'] == [2, 4, 5]


# What can't work.


def test_what_does_not_fit_into_memory_is_refused_with_the_figure(
  tmp_path, monkeypatch
):
  little = types.SimpleNamespace(available=10**9)
  monkeypatch.setattr(psutil, 'virtual_memory', lambda: little)
  # A slot: an observation of 8 bytes, an action and a reward of 4 each, the
  # step's status of 1 and its age of 4: 21 bytes.
  agent = functools.partial(Spy, capacity=10**9)
  with pytest.raises(
    errors.UserError, match=r'needs 21\.0 GB.*GB are available.*capacity'
  ):
    train(tmp_path, Scripted(), agent)


@pytest.mark.parametrize(
  ('agent', 'runner', 'message'),
  [
    ({'batch_size': 11}, {}, r'batch_size = 11 is larger.*min_history = 10'),
    ({'capacity': 9}, {}, r'min_history = 10 is larger.*capacity = 9'),
    (
      {'capacity': 10},
      {'num_envs': 4},
      r'capacity = 10 is too small: 2 slots for each of 4.*need 3',
    ),
    (
      {'min_history': 3},
      {'num_envs': 4},
      r'min_history = 3 is too small: 4 environments need 1 steps each',
    ),
    ({'update_period': 0}, {}, r'update_period = 0 is too small'),
    ({}, {'num_envs': 3}, r'training_steps = 40 is not a multiple of num_envs'),
    ({}, {'training_steps': 0}, r'training_steps = 0 is too small'),
    ({}, {'num_iterations': 0}, r'num_iterations = 0 is too small'),
    ({}, {'checkpoint_period': 0}, r'checkpoint_period = 0 is too small'),
    ({}, {'evaluation_episodes': -1}, r'evaluation_episodes = -1 is too small'),
  ],
)
def test_settings_that_cannot_work_are_refused(
  agent, runner, message, tmp_path
):
  with pytest.raises(errors.UserError, match=message):
    train(tmp_path, Scripted(), functools.partial(Spy, **agent), **runner)
  assert not checkpoints.Checkpoints(tmp_path).iterations()


def test_n_steps_that_do_not_fit_the_replay_are_refused(tmp_path):
  for n_step, message in [
    (199, 'capacity = 200 is too small.*n_step = 199'),
    (30, 'min_history = 20 is too small.*30 steps each'),
  ]:
    with pytest.raises(errors.UserError, match=message):
      train(tmp_path, Scripted(), functools.partial(small_dqn, n_step=n_step))


class Compiled(Exception):
  """Carries a program, so that nothing more is compiled or run."""


# What a uniform replay holds, a prioritized one has too. Quick rows have either
# number of seeds, and of updates: the period, and the updates in it.
@pytest.mark.parametrize(
  ('seeds', 'replay', 'updates'),
  [
    pytest.param(
      *(seeds, replay, updates),
      marks=()
      if replay is prioritized.PrioritizedReplay
      and len(seeds) == (2 if updates == (4, 3) else 1)
      else pytest.mark.slow,
    )
    for seeds in ((0,), (0, 1))
    for replay in (uniform.UniformReplay, prioritized.PrioritizedReplay)
    for updates in ((1, 1), (4, 3))
  ],
)
def test_learning_copies_nothing_that_the_replay_holds(seeds, replay, updates):
  capacity = 100_000
  engine = health_test.make_engine(
    walk.Walk(),
    functools.partial(
      dqn.DQN,
      network=functools.partial(networks.MLP, hidden=()),
      replay=functools.partial(
        replay, capacity=capacity, batch_size=4, min_history=4
      ),
      optimizer=values.call(optax.sgd, 1e-2),
      update_period=updates[0],
      updates_per_period=updates[1],
      target_update_period=16,
      epsilon=0.5,
    ),
    seeds=seeds,
  )
  compile_learn = engine._compile_learn

  def compiled(num_updates):
    def call(*arguments):
      raise Compiled(compile_learn(num_updates).lower(*arguments).compile())

    return call

  engine._compile_learn = compiled
  with pytest.raises(Compiled) as caught:
    engine.run(4, cut_with=None, on_step=lambda: None)
  (program,) = caught.value.args
  # The least that a slot has is a byte, and most have four.
  assert program.memory_analysis().temp_size_in_bytes < capacity
