"""Networks that keep more than parameters: which pass changes what."""

import functools
import shutil

from flax import linen as nn
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import dopamine_jax as dj
from dopamine_jax import agent as agent_lib
from dopamine_jax import errors
from dopamine_jax import networks
from dopamine_jax.agents import behaviour_cloning
from dopamine_jax.agents import c51
from dopamine_jax.agents import classification
from dopamine_jax.agents import cql
from dopamine_jax.agents import double_dqn
from dopamine_jax.agents import dqn
from dopamine_jax.agents import dr3
from dopamine_jax.agents import full_rainbow
from dopamine_jax.agents import iqn
from dopamine_jax.agents import munchausen
from dopamine_jax.agents import ppo
from dopamine_jax.agents import ppo_rnn
from dopamine_jax.agents import pqn
from dopamine_jax.agents import pqn_rnn
from dopamine_jax.agents import quantile
from dopamine_jax.agents import r2d2
from dopamine_jax.agents import rainbow
from dopamine_jax.agents import sac
from dopamine_jax.agents import tandem
from dopamine_jax.engines import compiled
from dopamine_jax.environments import classic
from dopamine_jax.learning import actor_critic
from dopamine_jax.learning import optimization
from dopamine_jax.networks import heads
from dopamine_jax.networks import variables
from dopamine_jax.replay import uniform
from dopamine_jax.training import fingerprint

KEY = jax.random.key(0)
T, N = 4, 2  # 8 transitions
BOX = gymnasium.spaces.Box(-1, 1, (3,), np.float32)
SPACES = {
  'observation_space': BOX,
  'action_space': gymnasium.spaces.Discrete(2),
}


class Counting(nn.Module):
  """Counts the passes for training, and shifts its outputs in them."""

  num_outputs: int = 2

  @nn.compact
  def __call__(self, x, train: bool):
    passes = self.variable('counts', 'passes', lambda: jnp.zeros((), jnp.int32))
    if train:
      passes.value += 1
    return nn.Dense(self.num_outputs)(x) + 100.0 * train


def both_relu(x):
  """Normalizes by batches, and drops out."""
  return networks.dropout_relu(networks.BatchNorm()(x), rate=0.5)


TORSO = networks.MLPTorso(hidden=(4,), activation=both_relu)
MLP = functools.partial(networks.MLP, hidden=(4,), activation=both_relu)
IQ_NETWORK = functools.partial(
  iqn.ImplicitQuantileNetwork, torso=TORSO, hidden=(4,), num_cosines=4
)
ROLLOUT = {'update_period': T * N, 'num_epochs': 1, 'num_minibatches': 2}
SAMPLES = {
  'num_tau_samples': 2,
  'num_tau_prime_samples': 2,
  'num_quantile_samples': 2,
}
AGENTS = {
  'DQN': dqn.DQN(network=MLP),
  'DoubleDQN': double_dqn.DoubleDQN(network=MLP),
  'C51': c51.C51(network=MLP),
  'QuantileDQN': quantile.QuantileDQN(network=MLP, num_quantiles=2),
  'IQN': iqn.IQN(network=IQ_NETWORK, double=True, **SAMPLES),
  'MunchausenDQN': munchausen.MunchausenDQN(network=MLP),
  'MunchausenIQN': munchausen.MunchausenIQN(network=IQ_NETWORK, **SAMPLES),
  'Rainbow': rainbow.Rainbow(network=MLP),
  'FullRainbow': full_rainbow.FullRainbow(
    network=functools.partial(
      full_rainbow.RainbowNetwork, torso=TORSO, hidden=(4,)
    )
  ),
  'CQL': cql.CQL(network=MLP),
  'CategoricalCQL': cql.CategoricalCQL(
    network=functools.partial(
      full_rainbow.RainbowNetwork, torso=TORSO, hidden=(4,)
    )
  ),
  'DR3': dr3.DR3(network=MLP),
  'ClassificationDQN': classification.ClassificationDQN(
    network=MLP, conservatism=1.0
  ),
  'TandemDQN': tandem.TandemDQN(network=MLP),
  'BehaviourCloning': behaviour_cloning.BehaviourCloning(network=MLP),
  'PPO': ppo.PPO(
    network=functools.partial(networks.ActorCritic, torso=TORSO, shared=True),
    target_kl=1e6,
    **ROLLOUT,
  ),
  'PQN': pqn.PQN(network=MLP, **ROLLOUT),
  'SAC': sac.SAC(
    actor=functools.partial(
      actor_critic.Actor, hidden=(4,), activation=both_relu
    ),
    critics=functools.partial(
      actor_critic.Critics, hidden=(4,), activation=both_relu
    ),
  ),
  'R2D2': r2d2.R2D2(
    network=functools.partial(networks.RecurrentQ, torso=TORSO, units=4),
    n_step=1,
  ),
  'PPORNN': ppo_rnn.PPORNN(
    network=functools.partial(
      networks.RecurrentActorCritic, torso=TORSO, units=4
    ),
    **ROLLOUT,
  ),
  'PQNRNN': pqn_rnn.PQNRNN(
    network=functools.partial(networks.RecurrentQ, torso=TORSO, units=4),
    **ROLLOUT,
  ),
}


def bound(agent):
  """Returns an agent of these spaces."""
  box = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
  changes = {'action_space': box} if isinstance(agent, sac.SAC) else {}
  return agent.replace(**SPACES | changes)


def sample_of(agent):
  """Returns what an agent learns from: 8 transitions, or rows [T, N]."""
  rng = np.random.default_rng(0)
  in_time = hasattr(agent, 'num_epochs') or isinstance(agent, r2d2.R2D2)
  shape = (T, N) if in_time else (T * N,)
  is_box = isinstance(agent.action_space, gymnasium.spaces.Box)
  action = np.zeros((*shape, 1) if is_box else shape, np.float32)
  step = {
    'observation': rng.normal(size=(*shape, 3)).astype(np.float32),
    'action': action if is_box else action.astype(np.int32),
    'reward': np.ones(shape, np.float32),
    'discount': np.full(shape, 0.9, np.float32),
    'next_observation': rng.normal(size=(*shape, 3)).astype(np.float32),
  }
  last = np.zeros(shape, bool)
  memory = agent.init_memory(N)
  if jax.tree.leaves(memory):
    seen = [
      agent_lib.Seen(step[name], step['action'], step['reward'], last)
      for name in ('observation', 'next_observation')
    ]
    transition = agent_lib.Sequence(
      **step,
      last=last,
      seen=seen[0],
      next_seen=seen[1],
      memory=memory,
      taken=~last,
      burn_in=1 if isinstance(agent, r2d2.R2D2) else 0,
    )
  elif in_time:
    transition = agent_lib.Trajectory(**step, last=last)
  else:
    transition = agent_lib.Transition(**step)
  count = len(step['reward']) if not jax.tree.leaves(memory) else N
  weight = np.ones(count if not hasattr(agent, 'num_epochs') else shape)
  sample = agent_lib.Sample(transition, None, weight.astype(np.float32))
  return jax.tree.map(jnp.asarray, sample)


def statistics(tree):
  """Returns all running means in a tree, side by side."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  found = [x.ravel() for path, x in leaves if "'mean'" in str(path)]
  return np.concatenate(found)


@pytest.mark.parametrize('name', AGENTS)
def test_each_agent_takes_networks_with_statistics_and_dropout(name):
  agent = bound(AGENTS[name])
  start = jax.eval_shape(agent.init, KEY, jnp.zeros((N, 3)))
  state, *_ = jax.eval_shape(agent.update, start, sample_of(agent), KEY)
  assert state == start
  assert 'batch_stats' in str(jax.tree_util.tree_structure(state.params))


@pytest.mark.parametrize('name', ['DoubleDQN', 'PPO', 'SAC'])
def test_updates_change_statistics_and_drop_by_their_key(name):
  agent = bound(AGENTS[name])
  sample = sample_of(agent)
  start = jax.jit(agent.init)(KEY, jnp.zeros((N, 3)))
  update = jax.jit(lambda state, key: agent.update(state, sample, key)[0])
  first = update(start, KEY)
  second, again, other = (
    update(first, key) for key in (KEY, KEY, jax.random.key(1))
  )
  means = [statistics(x.params) for x in (start, first, second)]
  assert np.all(means[0] == 0) and np.all(means[1] != means[0])
  assert np.all(means[2] != means[1])
  chosen, same, differing = (
    np.concatenate([x.ravel() for x in jax.tree.leaves(state.params)])
    for state in (second, again, other)
  )
  np.testing.assert_array_equal(chosen, same)
  assert np.any(chosen != differing)


ONE_PASS = [
  name
  for name, agent in AGENTS.items()
  if isinstance(agent, dqn.DQN) and not isinstance(agent, r2d2.R2D2)
]


@pytest.mark.parametrize('name', ONE_PASS)
def test_an_update_has_one_pass_for_training(name):
  agent = bound(AGENTS[name]).replace(optimizer=optax.set_to_zero())
  sample = sample_of(agent)
  start = jax.jit(agent.init)(KEY, jnp.zeros((N, 3)))
  update = jax.jit(lambda state: agent.update(state, sample, KEY)[0])
  first = update(start)
  second = update(first)
  once, twice = (statistics(x.params) for x in (first, second))
  # A mean m of batches with mean b: (1 - 0.99) b, and then (1 - 0.99**2) b.
  assert np.all(once != 0)
  np.testing.assert_allclose(twice / once, 1.99, rtol=1e-4)


class Passes(double_dqn.DoubleDQN):
  """Tells the values that the loss is made of."""

  def losses(self, params, target_params, batch, key):
    """Returns the true losses, and the largest values."""
    losses, metrics = super().losses(params, target_params, batch, key)
    target = self.q_values(target_params, batch.observation, key)
    return losses, metrics | {'Target': jnp.max(target)}


def test_only_the_pass_over_what_is_learnt_is_for_training():
  agent = bound(Passes(network=Counting, target_update_period=8))
  sample = sample_of(agent)
  state = jax.jit(agent.init)(KEY, jnp.zeros((N, 3)))
  assert state.params.collections == {'counts': {'passes': 0}}
  update = jax.jit(agent.update)
  state, metrics, _ = update(state, sample, KEY)
  # The pass that chooses the next action is of the same parameters.
  assert state.params.collections['counts']['passes'] == 1
  assert state.target_params.collections['counts']['passes'] == 0
  assert metrics['QMax'] > 90 > metrics['Target']
  state, *_ = update(state, sample, KEY)  # of a period of two
  assert state.params.collections['counts']['passes'] == 2
  assert state.target_params.collections['counts']['passes'] == 2
  observation = sample.transition.observation
  assert agent.outlook(state, observation, KEY).value.max() < 90
  network = agent.anatomy(state)['']
  assert np.max(network.values(network.params, observation, KEY)) < 90


def test_other_networks_have_their_parameters_as_ever():
  for network in (nn.Dense(2), networks.MLP(num_outputs=2, hidden=(4,))):
    params = variables.init(network, KEY, jnp.zeros((1, 3)))
    expected = network.init(KEY, jnp.zeros((1, 3)))['params']
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    assert variables.learnt(params) == params


def test_targets_move_by_tau_and_statistics_are_copied():
  new, old = (
    {'a': jnp.full(2, x), 'b': networks.Variables(jnp.full(2, x), jnp.int32(x))}
    for x in (1, 0)
  )
  moved = optimization.incremental_update(new, old, 0.25)
  np.testing.assert_allclose(moved['a'], 0.25)
  np.testing.assert_allclose(moved['b'].params, 0.25)
  assert moved['b'].collections == 1
  assert moved['b'].collections.dtype == jnp.int32


class Careless(nn.Module):
  """Does what it does in training in every pass."""

  kind: str
  num_outputs: int = 2

  @nn.compact
  def __call__(self, x):
    if self.kind == 'batch':
      x = nn.BatchNorm(use_running_average=False)(x)
    elif self.kind == 'drop':
      x = nn.Dropout(0.5, deterministic=False)(x)
    else:
      x = heads.NoisyDense(3)(x)
    return nn.Dense(self.num_outputs)(x)


@pytest.mark.parametrize(
  'kind, expected',
  [
    ('batch', 'Careless changes what it keeps where it must not.*"mean"'),
    (
      'drop',
      "Careless draws random numbers in a pass that has none.*'dropout'",
    ),
    ('noise', "Careless draws random numbers in a pass that has none.*'noise'"),
  ],
)
def test_a_network_that_trains_in_every_pass_is_told(kind, expected):
  agent = bound(pqn.PQN(network=functools.partial(Careless, kind)))
  with pytest.raises(errors.UserError, match=expected) as told:
    jax.eval_shape(agent.init, KEY, jnp.zeros((N, 3)))
  assert '\n' not in str(told.value)


@pytest.mark.usefixtures('same_programs')
def test_a_stopped_training_goes_on_with_its_statistics(tmp_path):
  replay = functools.partial(
    uniform.UniformReplay, capacity=64, min_history=8, batch_size=4
  )
  runner = dj.Runner(
    agent=dqn.DQN(network=MLP, replay=replay, target_update_period=8),
    environment=classic.CartPole(),
    engine=compiled.CompiledEngine,
    num_iterations=2,
    training_steps=24,
    evaluation_episodes=0,
    checkpoint_period=1,
  )
  folders = [tmp_path / name for name in ('whole', 'stopped')]
  dj.train(runner, folders[0], num_seeds=2, quiet=True)
  shutil.copytree(*folders)
  shutil.rmtree(folders[1] / 'checkpoints' / '000002')
  dj.train(runner, folders[1], num_seeds=2, quiet=True)
  whole, stopped = map(fingerprint.fingerprint, folders)
  assert whole == stopped
  # Played without dropout, and by the running statistics: whatever the batch.
  player = dj.load(folders[1])
  observations = np.random.default_rng(0).normal(size=(5, 4))
  values = player.values(observations.astype(np.float32))
  one = player.values(observations[:1].astype(np.float32))
  np.testing.assert_allclose(one[0], values[0], rtol=1e-5)
