"""The health of learning: numbers known by hand, and what can't be measured.

That training is left alone is tested in `observers_test`.
"""

import csv
import dataclasses
import functools

from flax import linen as nn
import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dopamine_jax import agent as agent_lib
from dopamine_jax import config
from dopamine_jax import errors
from dopamine_jax import networks
from dopamine_jax import runner as runner_lib
from dopamine_jax import values
from dopamine_jax.agents import dqn
from dopamine_jax.agents import full_rainbow
from dopamine_jax.agents import iqn
from dopamine_jax.agents import ppo
from dopamine_jax.agents import pqn
from dopamine_jax.agents import sac
from dopamine_jax.engines import compiled
from dopamine_jax.engines import loop as loop_lib
from dopamine_jax.engines import python_engine
from dopamine_jax.engines import streams
from dopamine_jax.environments import classic
from dopamine_jax.learning import actor_critic
from dopamine_jax.metrics import csv_file
from dopamine_jax.metrics import health
from dopamine_jax.metrics import inspection
from dopamine_jax.networks import impala
from dopamine_jax.networks import statistics as statistics_lib
from dopamine_jax.replay import prioritized
from dopamine_jax.replay import ring as ring_lib
from dopamine_jax.replay import sum_tree
from dopamine_jax.replay import uniform
from tests import walk

ENGINES = (python_engine.PythonEngine, compiled.CompiledEngine)
MLP = functools.partial(networks.MLP, hidden=(16, 8))
ALL = (health.DormantNeurons(), health.EffectiveRank(), health.TargetDrift())
NAMES = {
  f'Health/{name}'
  for name in (
    'DormantNeurons',
    'EffectiveRank',
    'ParameterDrift',
    'ValueDrift',
  )
}

NAMES_WITHOUT_TARGET = {name for name in NAMES if 'Drift' not in name}


def make_agent(agent=dqn.DQN, replay=uniform.UniformReplay, **settings):
  return agent(
    **{'network': MLP, 'target_update_period': 16, **settings},
    replay=functools.partial(
      replay, capacity=200, batch_size=4, min_history=20
    ),
    optimizer=values.call(optax.sgd, 1e-2),
    epsilon=0.5,
  )


# One that does not learn has less to compile.
IDLE = functools.partial(
  make_agent, update_period=1_000, target_update_period=1_000
)
ON_POLICY = {
  'optimizer': values.call(optax.sgd, 1e-2),
  'update_period': 8,
  'num_epochs': 1,
  'num_minibatches': 2,
  'normalize_observations': True,
}
make_ppo = functools.partial(
  ppo.PPO,
  network=functools.partial(
    networks.ActorCritic,
    torso=functools.partial(networks.MLPTorso, hidden=(6,)),
    hidden=(4,),
  ),
  **ON_POLICY,
)
make_pqn = functools.partial(pqn.PQN, network=MLP, epsilon=0.5, **ON_POLICY)
make_sac = functools.partial(
  sac.SAC,
  actor=functools.partial(actor_critic.Actor, hidden=(6,)),
  critics=functools.partial(actor_critic.Critics, hidden=(4,)),
  replay=functools.partial(
    uniform.UniformReplay, capacity=200, batch_size=4, min_history=20
  ),
  update_period=4,
)
OF_SAC = {
  'Health/ActorDormantNeurons',
  'Health/ActorEffectiveRank',
  'Health/CriticsDormantNeurons',
  'Health/CriticsEffectiveRank',
  'Health/CriticsParameterDrift',
  'Health/CriticsValueDrift',
}


def make_engine(
  environment=None,
  agent=make_agent,
  *,
  engine=ENGINES[0],
  seeds=(0,),
  num_envs=1,
  has_state=True,
):
  """Returns an engine before its first step."""
  environment = environment or walk.Walk()
  environments = environment.make(len(seeds) * num_envs)
  agent = agent(
    observation_space=environments.observation_space,
    action_space=environments.action_space,
  )
  engine = engine(
    loop_lib.Loop(
      agent=agent,
      replay=agent.make_replay(environment.stack),
      reward_clip=None,
      stack=environment.stack,
      num_envs=num_envs,
    ),
    environments,
    seeds,
  )
  stream = streams.Stream.TRAIN
  engine.reset(streams.env_seeds(seeds, stream, 0, num_envs))
  if has_state:
    engine.init()
  return engine


def run(engine, num_steps=50):
  engine.run(num_steps, cut_with=None, on_step=lambda: None)
  return engine


def measure(engine, *metrics):
  # What an engine's state is, is told anew; what it needs is compiled once.
  return monitor(engine, metrics).measure()


@functools.cache
def monitor(engine, metrics):
  return health.Monitor(metrics, engine)


@pytest.fixture(scope='module', autouse=True)
def none_stays():
  """Lets go of what is cached."""
  yield
  for cached in (monitor, look_at, engine_of):
    cached.cache_clear()


@pytest.fixture(scope='module')
def trained():
  """An engine that most tests share, and leave as it is."""
  return run(make_engine(), 62)


def measure_of(engine, agent, *metrics):
  """Measures with another state of the agent."""
  before = engine.state
  engine.state = before.replace(agent=agent)
  try:
    return measure(engine, *metrics)
  finally:
    engine.state = before


class Shown:
  """Stands in for a View: what a network does is given."""

  def __init__(self, magnitudes=None, features=None):
    self.seen = inspection.Seen(
      values=None, magnitudes=magnitudes or {}, features=features
    )

  def look(self, num_transitions, network):
    return self.seen


# Dormant neurons.


def dormant(*layers, **settings):
  magnitudes = {str(i): jnp.asarray(x) for i, x in enumerate(layers)}
  metric = health.DormantNeurons(**settings)
  found = metric.measure_network(Shown(magnitudes), '')
  return float(found['DormantNeurons'])


def test_a_neuron_is_dormant_up_to_a_part_of_its_layers_mean():
  # Means over two transitions: 0, 0.125, 1, 2.875; over the layer: 1.
  layer = [[0.0, 0.25, 0.0, 2.75], [0.0, 0.0, 2.0, 3.0]]
  assert dormant(layer) == 1 / 4
  assert dormant(layer, threshold=0.125) == 2 / 4
  assert dormant(layer, threshold=0.124) == 1 / 4
  assert dormant(layer, threshold=1.0) == 3 / 4


def test_neurons_are_counted_over_all_layers_and_judged_in_their_own():
  # The second layer is weak as a whole, which makes none of it dormant.
  assert dormant([[0.0, 100.0]], [[0.001] * 4 + [0.002] * 2]) == 1 / 8
  assert dormant([[1.0, 100.0]], [[0.001] * 4 + [0.002] * 2]) == 1 / 8


def test_a_layer_that_is_silent_is_all_dormant():
  assert dormant([[0.0, 0.0]], [[1.0, 1.0]]) == 2 / 4


def test_dead_units_of_a_network_are_found(trained):
  # Each unit is its bias alone, and behind a negative one nothing passes.
  params = jax.tree.map(np.zeros_like, trained.state.agent.params)
  for name, units, dead in (('Dense_0', 16, 5), ('Dense_1', 8, 2)):
    bias = np.where(np.arange(units) < dead, -1, 1).astype(np.float32)
    params['MLPTorso_0'][name]['bias'] = bias
  agent = trained.state.agent.replace(params=params)
  found = measure_of(trained, agent, health.DormantNeurons())
  assert found['Health/DormantNeurons'] == pytest.approx(7 / 24)


def test_a_feature_map_is_one_neuron():
  observation = np.ones((2, 5, 5, 3), bool)
  module = networks.MinAtarCNN(num_outputs=2, hidden=())
  params = jax.jit(module.init)(jax.random.key(0), observation)['params']
  conv = params['MinAtarTorso_0']['Conv_0']
  conv['bias'] = jnp.where(jnp.arange(16) < 4, -1e6, 1e3)
  seen = see(module, params, observation)

  (layer,) = seen.magnitudes.values()
  assert layer.shape == (2, 16)
  assert seen.features.shape == (2, 3 * 3 * 16)
  assert dormant(layer) == 4 / 16


def see(module, params, observation):
  anatomy = agent_lib.Anatomy(module, params)
  look = jax.jit(functools.partial(inspection.see, anatomy))
  return look(params, (observation,), jax.random.key(0))


@pytest.mark.parametrize(
  ('network', 'shape', 'units', 'features'),
  [
    (networks.NatureCNN(2), (84, 84, 4), 32 + 64 + 64 + 512, 512),
    # A relu before each of 12 convolutions, one behind the last, and 512.
    (impala.ImpalaCNN(2), (84, 84, 4), 4 * 16 + 8 * 32 + 32 + 512, 512),
    (networks.MinAtarCNN(2), (10, 10, 4), 16 + 128, 128),
    (networks.MLP(2, hidden=(5, 7)), (3,), 5 + 7, 7),
    (networks.FourierBasis(2, 3, [0.0], [1.0]), (1,), 0, 4),
    # The policy's layers and the value's own, side by side.
    (networks.ActorCritic(2), (3,), 2 * (64 + 64), 2 * 64),
    (networks.ActorCritic(2, shared=True, hidden=(5,)), (3,), 64 + 64 + 5, 5),
    (
      iqn.ImplicitQuantileNetwork(2),
      (84, 84, 4),
      32 + 64 + 64 + 11 * 11 * 64 + 512,
      512,
    ),
    # Its two streams.
    (
      full_rainbow.RainbowNetwork(2),
      (84, 84, 4),
      32 + 64 + 64 + 2 * 512,
      2 * 512,
    ),
  ],
)
def test_shipped_networks_show_all_their_units(network, shape, units, features):
  def seen(observation):
    keys = {name: jax.random.key(0) for name in ('params', 'noise')}
    return see(network, network.init(keys, observation)['params'], observation)

  dtype = jnp.uint8 if len(shape) > 1 else jnp.float32
  shapes = jax.eval_shape(seen, jax.ShapeDtypeStruct((6, *shape), dtype))
  found = [layer.shape for layer in shapes.magnitudes.values()]
  assert {batch for batch, _ in found} <= {6}
  assert sum(count for _, count in found) == units
  assert shapes.features.shape == (6, features)


class Streams(nn.Module):
  """Shows what it is given, [B, H, W, 2], and two halves of its features."""

  @nn.compact
  def __call__(self, x):
    self.sow('intermediates', 'activations', x)
    self.sow('intermediates', 'activations', x[:, 0, 0])
    self.sow('intermediates', 'noise', x)
    for i in range(2):
      self.sow('intermediates', 'features', x[..., i].reshape(len(x), -1))
    return x


def test_magnitudes_are_means_that_do_not_cancel_and_features_are_joined():
  x = jnp.asarray([[[[1.0, -2.0], [-3.0, 2.0]]]])
  seen = see(Streams(), {}, x)
  first, second = seen.magnitudes.values()
  np.testing.assert_array_equal(first, [[2.0, 2.0]])
  np.testing.assert_array_equal(second, [[1.0, 2.0]])
  np.testing.assert_array_equal(seen.features, [[1.0, -3.0, -2.0, 2.0]])


# The effective rank.


def rank(features, delta=0.01):
  metric = health.EffectiveRank(delta=delta)
  seen = Shown(features=jnp.asarray(features, jnp.float32))
  return int(metric.measure_network(seen, '')['EffectiveRank'])


@hypothesis.given(
  # Few shapes, since each has a program of its own.
  shape=st.sampled_from([(1, 1), (1, 12), (9, 1), (7, 7), (5, 12), (12, 6)]),
  values=st.lists(st.floats(0.01, 10), min_size=12, max_size=12),
  delta=st.sampled_from([0.001, 0.01, 0.3]),
  seed=st.integers(0, 5),
)
def test_the_rank_is_that_of_the_singular_values_it_was_made_from(
  shape, values, delta, seed
):
  rows, columns = shape
  size = min(rows, columns)
  values = sorted(values[:size], reverse=True)
  rng = np.random.default_rng(seed)
  left, _ = np.linalg.qr(rng.normal(size=(rows, size)))
  right, _ = np.linalg.qr(rng.normal(size=(columns, size)))
  expected, part = 0, 0.0
  while part < (1 - delta) * sum(values):
    hypothesis.assume(abs(part / sum(values) - (1 - delta)) > 1e-4)
    part += values[expected]
    expected += 1
  hypothesis.assume(abs(part / sum(values) - (1 - delta)) > 1e-4)

  assert rank((left * values) @ right.T, delta) == expected


def test_the_rank_counts_directions():
  assert rank(np.eye(7)) == 7
  assert rank(np.ones((9, 5))) == 1
  assert rank(np.zeros((4, 3))) == 0
  # 98 % of the sum are in the first two values, 99 % in the first three.
  spectrum = np.diag([50.0, 48.0, 1.0, 0.6, 0.4])
  assert rank(spectrum, delta=0.02) == 2
  assert rank(spectrum, delta=0.015) == 3
  assert rank(spectrum, delta=0.005) == 4


# The target network.


def test_drift_is_the_distance_of_parameters_and_of_values(trained):
  zeros = jax.tree.map(np.zeros_like, trained.state.agent.params)
  online, target = (
    zeros | {'Dense_0': zeros['Dense_0'] | {'bias': bias}}
    for bias in np.float32([[5, 5, 5, 5], [0, 1, 2, 3]])
  )
  agent = trained.state.agent.replace(params=online, target_params=target)

  found = measure_of(trained, agent, health.TargetDrift())
  # Biases are 5, 4, 3 and 2 apart, whatever is seen.
  assert found['Health/ParameterDrift'] == pytest.approx(np.sqrt(54))
  assert found['Health/ValueDrift'] == pytest.approx(14 / 4)


def test_there_is_no_drift_right_after_a_copy(trained):
  agent = trained.state.agent
  copied = agent.replace(target_params=agent.params)
  assert measure_of(trained, copied, health.TargetDrift()) == {
    'Health/ParameterDrift': 0.0,
    'Health/ValueDrift': 0.0,
  }
  for value in measure(trained, health.TargetDrift()).values():
    assert value > 0


# Priorities.


def test_quantiles_are_of_the_priorities_of_what_can_be_sampled():
  agent = functools.partial(IDLE, replay=prioritized.PrioritizedReplay)
  engine = run(make_engine(agent=agent))
  metric = health.PriorityQuantiles(quantiles=(0.0, 0.25, 0.5, 1.0))
  ring = engine.state.experience.replay
  slots = np.flatnonzero(sum_tree.get(ring.tree, jnp.arange(200)))
  assert 40 <= len(slots) < 60

  values = np.arange(1.0, len(slots) + 1)
  tree = sum_tree.put(ring.tree, jnp.asarray(slots), jnp.asarray(values))
  experience = engine.state.experience.replace(replay=ring.replace(tree=tree))
  engine.state = engine.state.replace(experience=experience)
  last = len(slots) - 1
  assert measure(engine, metric) == {
    'Health/PriorityQuantile0': 1,
    'Health/PriorityQuantile0.25': pytest.approx(1 + last / 4),
    'Health/PriorityQuantile0.5': pytest.approx(1 + last / 2),
    'Health/PriorityQuantile1': 1 + last,
  }


# What is sampled.


class Open(dqn.DQN):
  """Values what it observes: two numbers, and as many actions more."""

  def q_values(self, params, observation, key):
    return jnp.tile(observation, 2)


def observed(engine, num_transitions):
  return np.array(look(engine, num_transitions).values)[:, :2]


def look(engine, *words):
  return look_at(engine, *words)(engine.state)


@functools.cache
def look_at(engine, *words):
  return jax.jit(lambda state: inspection.View(engine.loop, state).look(*words))


def test_whole_samples_are_drawn_from_the_replay_and_more_extend_them():
  engine = run(make_engine(agent=functools.partial(IDLE, Open)))
  few, many = observed(engine, 5), observed(engine, 100)
  assert few.shape == (8, 2)
  assert many.shape == (100, 2)
  np.testing.assert_array_equal(many[:8], few)
  ring = jax.device_get(engine.state.experience.replay)
  held = {tuple(x) for x in ring.slots.frame[0, : ring.head[0]].tolist()}
  assert {tuple(x) for x in many.tolist()} <= held
  # Drawn anew for each sample, and after each iteration.
  assert len({tuple(x) for x in many.tolist()}) > 25
  assert not np.array_equal(observed(run(engine, 10), 5), few)


def test_a_metric_is_the_same_beside_others(trained):
  together = measure(trained, *ALL)
  assert together.keys() == NAMES
  for metric in ALL:
    for name, value in measure(trained, metric).items():
      assert value == pytest.approx(together[name], rel=1e-6)


@pytest.fixture(scope='module')
def ppo_engine():
  """An engine that has filled its rollouts of [4, 2], and not learnt yet."""
  idle = functools.partial(make_ppo, update_period=1_000)
  engine = run(make_engine(agent=idle, num_envs=2), 24)
  rollout = engine.loop.replay.replace(steps=8)
  engine.loop = dataclasses.replace(engine.loop, replay=rollout)
  statistics = statistics_lib.Statistics(
    mean=jnp.array([0.5, 2.0]),
    variance=jnp.array([0.25, 4.0]),
    count=jnp.ones(()),
  )
  agent = engine.state.agent.replace(observations=statistics)
  engine.state = engine.state.replace(agent=agent)
  return engine


def test_steps_of_the_newest_rollout_are_drawn_each_once_as_the_agent_sees(
  ppo_engine,
):
  ring = jax.device_get(ppo_engine.state.experience.replay)
  lanes = []
  for lane, head in enumerate(ring.head):
    taken = ring.slots.status[lane, :head] != ring_lib.LAST
    lanes.append(ring.slots.frame[lane, :head][taken][-4:])
  rows = np.concatenate(lanes)
  assert rows.shape == (8, 2)
  rows = (rows - np.array([0.5, 2.0])) / np.array([0.5, 2.0])
  network = ppo_engine.state.agent.params['network']
  expected = [
    rectified(rows, network[torso]['Dense_0'], network[hidden])
    for torso, hidden in (('MLPTorso_0', 'Dense_0'), ('MLPTorso_1', 'Dense_2'))
  ]
  expected = np.concatenate(expected, axis=1)

  few, many = (np.array(look(ppo_engine, n).features) for n in (5, 100))
  assert many.shape == (8, 2 * 4)
  np.testing.assert_allclose(ordered(many), ordered(expected), atol=1e-5)
  # So that a few of them are not of one time or environment.
  assert np.abs(many - expected).max() > 0.1
  np.testing.assert_allclose(few, many[:5], atol=1e-5)


def rectified(x, *layers):
  for layer in layers:
    x = np.maximum(x @ np.array(layer['kernel']) + np.array(layer['bias']), 0)
  return x


def ordered(rows):
  return rows[np.argsort(rows.sum(axis=1))]


# Agents of several networks.


@pytest.fixture(scope='module')
def sac_engine():
  """An engine that has filled its replay, and not learnt yet."""
  idle = functools.partial(make_sac, update_period=1_000)
  return run(make_engine(classic.Pendulum(), idle), 24)


class Echo(nn.Module):
  """Two values: the first numbers of observation and action."""

  @nn.compact
  def __call__(self, observation, action):
    one = self.param('one', nn.initializers.ones, ())
    return one * jnp.stack([observation[:, 0], action[:, 0]])


def test_critics_see_observations_with_the_actions_taken_there(sac_engine):
  agent = sac_engine.loop.agent.replace(critics=Echo)
  loop = dataclasses.replace(sac_engine.loop, agent=agent)
  state = sac_engine.state
  params = state.agent.params | {'critics': {'one': jnp.ones(())}}
  state = state.replace(agent=state.agent.replace(params=params))
  slots = jax.device_get(state.experience.replay.slots)
  taken = np.stack([slots.frame[0, :24, 0], slots.action[0, :24, 0]], axis=1)

  def look(state):
    return inspection.View(loop, state).look(20, 'Critics').values

  found = np.array(jax.jit(look)(state))
  assert found.shape == (20, 2)
  assert {tuple(x) for x in found} <= {tuple(x) for x in taken}
  assert len({tuple(x) for x in found}) > 8


def test_each_network_of_sac_has_its_own_dead_units(sac_engine):
  state = sac_engine.state.agent
  params = jax.tree.map(np.zeros_like, state.params)
  for network, (units, *dead) in {
    'actor': (6, 2),
    'critics': (4, 3, 0),
  }.items():
    for i, number in enumerate(dead):
      bias = np.where(np.arange(units) < number, -1, 1).astype(np.float32)
      params[network][f'MLP_{i}']['MLPTorso_0']['Dense_0']['bias'] = bias
  found = measure_of(sac_engine, state.replace(params=params), *ALL[:2])
  assert found == {
    'Health/ActorDormantNeurons': pytest.approx(2 / 6),
    'Health/CriticsDormantNeurons': pytest.approx(3 / 8),
    # Whatever is seen, features are the same.
    'Health/ActorEffectiveRank': 1,
    'Health/CriticsEffectiveRank': 1,
  }


def test_of_sac_the_critics_drift(sac_engine):
  state = sac_engine.state.agent
  zeros = jax.tree.map(np.zeros_like, state.params)
  # Their values are 3 and 4, whatever is seen, and of the target network 0.
  critics = {
    name: critic | {'Dense_0': critic['Dense_0'] | {'bias': np.float32([bias])}}
    for (name, critic), bias in zip(
      zeros['critics'].items(), (3.0, 4.0), strict=True
    )
  }
  moved = state.replace(
    params=zeros | {'critics': critics}, target_params=zeros['critics']
  )
  assert measure_of(sac_engine, moved, ALL[2]) == {
    'Health/CriticsParameterDrift': pytest.approx(5),
    'Health/CriticsValueDrift': pytest.approx(7 / 2),
  }


def test_dead_units_of_policy_and_value_are_counted_together(ppo_engine):
  state = ppo_engine.state.agent
  network = jax.tree.map(np.zeros_like, state.params['network'])
  # Of the torsos, 6 units each; the layers of 4 upon them are silent.
  for i, dead in enumerate((2, 1)):
    bias = np.where(np.arange(6) < dead, -1, 1).astype(np.float32)
    network[f'MLPTorso_{i}']['Dense_0']['bias'] = bias
  dead = state.replace(params=state.params | {'network': network})
  assert measure_of(ppo_engine, dead, *ALL[:2]) == {
    'Health/DormantNeurons': pytest.approx((2 + 1 + 4 + 4) / 20),
    'Health/EffectiveRank': 0,
  }


# Engines and seeds.


def test_engines_and_seeds_side_by_side_measure_the_same(trained):
  # Another seed's state: what is measured is a function of states alone.
  agent = trained.state.agent
  params = jax.tree.map(lambda x: 2 * np.asarray(x) + 1, agent.params)
  other = trained.state.replace(agent=agent.replace(params=params))
  stack = jax.jit(lambda *trees: jax.tree.map(lambda *x: jnp.stack(x), *trees))
  both = stack(trained.state, other)

  def side_by_side(engine):
    engine = make_engine(engine=engine, seeds=(0, 6), has_state=False)
    engine.restore(both, trained.steps, began=0)
    return measure(engine, *ALL)

  python, xla = (side_by_side(engine) for engine in ENGINES)
  alone = measure(trained, *ALL), measure_of(trained, other.agent, *ALL)
  assert python.keys() == xla.keys() == alone[0].keys() == NAMES
  for name, value in python.items():
    assert value.shape == (2,)
    np.testing.assert_allclose(value, xla[name], rtol=1e-4, atol=1e-6)
    for i in (0, 1):
      assert value[i] == pytest.approx(alone[i][name][0], rel=1e-4)
    assert value[0] != value[1] or name == 'Health/EffectiveRank'


# Training.


def train(folder, metrics, *, num_iterations, **settings):
  """Trains in iterations of 15 steps; returns metrics.csv's rows by name."""
  runner = runner_lib.Runner(
    **{'agent': make_agent, 'environment': walk.Walk(), **settings},
    num_iterations=num_iterations,
    training_steps=15,
    collectors=[csv_file.CSV],
    health=metrics,
  )
  runner.train(folder, quiet=True, say=lambda message: None)
  with open(folder / 'metrics.csv', newline='') as stream:
    return {
      (row['name'], int(row['iteration']), int(row['seed'])): row['value']
      for row in csv.DictReader(stream)
    }


@pytest.mark.parametrize(
  ('engine', 'agent', 'environment', 'metrics', 'names', 'first'),
  [
    pytest.param(
      *(ENGINES[0], make_ppo, walk.Walk(), ALL[:2], NAMES_WITHOUT_TARGET, 1),
      marks=pytest.mark.slow,
    ),
    (ENGINES[1], make_pqn, walk.Walk(), ALL[:2], NAMES_WITHOUT_TARGET, 1),
    # What is measured of SAC's networks is above.
    pytest.param(
      *(ENGINES[1], make_sac, classic.Pendulum(), ALL, OF_SAC, 2),
      marks=pytest.mark.slow,
    ),
  ],
  ids=['ppo', 'pqn', 'sac'],
)
def test_agents_of_other_families_are_measured(
  tmp_path, engine, agent, environment, metrics, names, first
):
  rows = train(
    tmp_path,
    metrics,
    num_iterations=3,
    agent=agent,
    environment=environment,
    engine=engine,
  )
  found = {key: float(x) for key, x in rows.items() if 'Health/' in key[0]}
  iterations = range(first, 4)
  assert found.keys() == {(name, i, 0) for name in names for i in iterations}
  for (name, *_), value in found.items():
    assert 0 <= value < 1 or not name.endswith('DormantNeurons')
    assert value >= 1 or not name.endswith('EffectiveRank')
    assert value > 0 or not name.endswith('Drift')


@pytest.mark.usefixtures('same_programs')
def test_a_replay_that_is_filled_anew_is_not_measured(tmp_path):
  again = functools.partial(
    train, tmp_path, ALL[1:2], agent=IDLE, checkpoint_replay=False
  )
  again(num_iterations=3)
  rows = again(num_iterations=6)
  measured = {i for name, i, _ in rows if name == 'Health/EffectiveRank'}
  assert measured == {2, 3, 5, 6}


def test_a_network_that_can_be_looked_into_learns_by_the_same_program(
  monkeypatch,
):
  def program():
    engine = make_engine(has_state=False)
    learn = jax.make_jaxpr(engine.loop.learn)
    return str(learn(engine.abstract_state()))

  shown = program()
  sown = []
  monkeypatch.setattr(nn.Module, 'sow', lambda *words: sown.append(words))
  assert program() == shown
  assert sown


# What can't be measured is refused before the first step.


class Closed(agent_lib.Agent):
  """Tells nothing of its networks."""

  def make_replay(self, stack):
    return uniform.UniformReplay(capacity=60, batch_size=4, min_history=20)

  def init(self, key, observation):
    return jnp.zeros(())

  def act(self, state, observation, step, key, *, explore):
    return jnp.zeros(len(observation), jnp.int32)


class Silent(nn.Module):
  """Shows nothing of itself."""

  num_outputs: int

  @nn.compact
  def __call__(self, observation):
    return nn.Dense(self.num_outputs)(nn.relu(nn.Dense(4)(observation)))


class Targetless(dqn.DQN):
  def anatomy(self, state):
    return {'': agent_lib.Anatomy(self.module, state.params)}


@functools.cache  # several rows ask for one engine's
def engine_of(agent):
  return make_engine(agent=agent, has_state=False)


make_silent = functools.partial(make_agent, network=Silent)


@pytest.mark.parametrize(
  ('agent', 'metric', 'message'),
  [
    (
      make_agent,
      health.PriorityQuantiles(),
      'DQN has a UniformReplay. Take it out of runner.Runner.health, or set',
    ),
    (
      make_ppo,
      health.PriorityQuantiles(),
      'PPO has a Rollout. Take it out of runner.Runner.health',
    ),
    (make_ppo, ALL[2], 'PPO has none. Take it out of runner.Runner.health'),
    (make_pqn, ALL[2], 'PQN has none. Take it out of runner.Runner.health'),
    (Closed, ALL[0], 'Closed does not tell: it has no method `anatomy`'),
    (
      functools.partial(make_agent, Targetless),
      ALL[2],
      'Targetless has none. Take it out of runner.Runner',
    ),
    (
      make_silent,
      ALL[0],
      'DormantNeurons needs the activations of Silent, the network of DQN.* '
      r"Write self.sow\('intermediates', 'activations', x\) into its __call__, "
      'behind each nonlinearity',
    ),
    (
      make_silent,
      ALL[1],
      r"self.sow\('intermediates', 'features', x\) .* before the last layer",
    ),
  ],
)
def test_what_does_not_show_itself_is_refused_with_the_remedy(
  agent, metric, message
):
  with pytest.raises(errors.UserError, match=message):
    health.Monitor([metric], engine_of(agent))


def test_one_number_is_not_measured_twice():
  twice = [health.EffectiveRank(), health.EffectiveRank(delta=0.1)]
  with pytest.raises(errors.UserError, match='EffectiveRank twice'):
    health.Monitor(twice, engine_of(make_agent))


@pytest.mark.parametrize(
  ('metric', 'settings', 'message'),
  [
    (health.DormantNeurons, {'threshold': -0.1}, 'threshold = -0.1 is too sm'),
    (health.EffectiveRank, {'delta': 1.5}, r'must lie in \[0, 1\]'),
    (health.PriorityQuantiles, {'quantiles': ()}, 'at least one'),
    (health.PriorityQuantiles, {'quantiles': (0.5, 90)}, r'in \[0, 1\]'),
    (health.TargetDrift, {'num_transitions': 0}, 'num_transitions = 0 is too'),
  ],
)
def test_bad_settings_are_refused(metric, settings, message):
  with pytest.raises(errors.UserError, match=message):
    metric(**settings)


GIN = """
from __gin__ import dynamic_registration
from dopamine_jax.metrics import health
from dopamine_jax import runner
from dopamine_jax.agents import dqn
from dopamine_jax.environments import gym

runner.Runner:
  agent = @dqn.DQN
  environment = @gym.Gym()
  num_iterations = 1
  training_steps = 1
  health = [@health.DormantNeurons(), @health.EffectiveRank()]
gym.Gym.id = 'CartPole-v1'
health.Sampled.num_transitions = 2_048
health.DormantNeurons.threshold = 0.1
"""


def test_gin_names_what_is_measured(tmp_path):
  (tmp_path / 'a.gin').write_text(GIN)
  loaded = config.load([tmp_path / 'a.gin'])
  assert list(loaded.build(runner_lib.Runner).health) == [
    health.DormantNeurons(threshold=0.1, num_transitions=2_048),
    health.EffectiveRank(num_transitions=2_048),
  ]


def test_a_metric_that_is_not_made_is_refused(tmp_path):
  (tmp_path / 'a.gin').write_text(GIN.replace('Neurons()', 'Neurons'))
  loaded = config.load([tmp_path / 'a.gin'])
  message = 'a.gin, line 13: .*expected Sequence of Metric.*@name\\(\\) what'
  with pytest.raises(errors.UserError, match=message):
    loaded.build(runner_lib.Runner)
