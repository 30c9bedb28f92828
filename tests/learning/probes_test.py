"""Agents find the known values of each probe, through the whole framework."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dopamine_jax import networks
from dopamine_jax import values
from dopamine_jax.agents import bbf
from dopamine_jax.agents import c51
from dopamine_jax.agents import classification
from dopamine_jax.agents import cql
from dopamine_jax.agents import crossq
from dopamine_jax.agents import double_dqn
from dopamine_jax.agents import dqn
from dopamine_jax.agents import dr3
from dopamine_jax.agents import fast_td3
from dopamine_jax.agents import full_rainbow
from dopamine_jax.agents import iqn
from dopamine_jax.agents import mrq
from dopamine_jax.agents import munchausen
from dopamine_jax.agents import ppo
from dopamine_jax.agents import pqn
from dopamine_jax.agents import quantile
from dopamine_jax.agents import rainbow
from dopamine_jax.agents import redq
from dopamine_jax.agents import sac
from dopamine_jax.agents import spr
from dopamine_jax.agents import tandem
from dopamine_jax.agents import td3
from dopamine_jax.agents import tqc
from dopamine_jax.learning import actor_critic
from dopamine_jax.networks import heads
from dopamine_jax.networks import latent
from dopamine_jax.networks import predictive
from dopamine_jax.replay import prioritized
from tests import probes

GAMMA = 0.8
MLP = functools.partial(networks.MLP, hidden=(32,))
# All returns are in [-1, 5]; -1, 0, 1 and 5 are atoms.
SUPPORT = {'num_atoms': 25, 'v_min': -1.0, 'v_max': 5.0}
IMPLICIT = functools.partial(
  iqn.ImplicitQuantileNetwork,
  torso=networks.MLPTorso(hidden=(32,)),
  hidden=(32,),
  num_cosines=8,
)

PREDICTIVE = functools.partial(
  predictive.SPRNetwork, encoder=networks.MLPTorso(hidden=(32,)), units=32
)
SAMPLES = {
  'num_tau_samples': 8,
  'num_tau_prime_samples': 8,
  'num_quantile_samples': 8,
}
# What the worse of two actions loses by its log-policy stays this small.
MUNCHAUSEN = {'log_policy_min': -0.05}

# Each agent, and what it needs to be quick.
AGENTS = {
  'dqn': (dqn.DQN, {'network': MLP}),
  'double_dqn': (double_dqn.DoubleDQN, {'network': MLP}),
  'c51': (c51.C51, {'network': MLP, **SUPPORT}),
  'rainbow': (rainbow.Rainbow, {'network': MLP, **SUPPORT}),
  'quantile': (quantile.QuantileDQN, {'network': MLP, 'num_quantiles': 8}),
  'iqn': (iqn.IQN, {'network': IMPLICIT, **SAMPLES}),
  'full_rainbow': (
    full_rainbow.FullRainbow,
    {
      'network': functools.partial(
        full_rainbow.RainbowNetwork,
        torso=networks.MLPTorso(hidden=(32,)),
        hidden=(32,),
      ),
      **SUPPORT,
    },
  ),
  'spr': (spr.SPR, {'network': PREDICTIVE, **SUPPORT}),
  'bbf': (
    bbf.BBF,
    {
      'network': PREDICTIVE,
      'target_tau': 0.8,  # each tenth update
      'updates_per_period': 1,
      **SUPPORT,
    },
  ),
  'hl_gauss': (
    classification.ClassificationDQN,
    {'network': MLP, **SUPPORT, 'v_min': -2.0, 'v_max': 6.0},
  ),
  'two_hot': (
    classification.ClassificationDQN,
    # Wide classes: where a target climbs over many narrow ones, those above are
    # nearly impossible at first, and it takes long to change that.
    {'network': MLP, 'spread': 'two_hot', **SUPPORT, 'num_atoms': 7},
  ),
  'tandem': (tandem.TandemDQN, {'network': MLP}),
  # All actions are tried alike, so that a little conservatism changes little.
  'cql': (cql.CQL, {'network': MLP, 'conservatism': 0.01}),
  'categorical_cql': (
    cql.CategoricalCQL,
    {
      'network': functools.partial(
        full_rainbow.RainbowNetwork,
        torso=networks.MLPTorso(hidden=(32,)),
        hidden=(32,),
      ),
      'conservatism': 0.01,
      **SUPPORT,
    },
  ),
  'dr3': (dr3.DR3, {'network': MLP, 'feature_penalty': 1e-4}),
  'munchausen_dqn': (
    munchausen.MunchausenDQN,
    {'network': MLP, **MUNCHAUSEN},
  ),
  'munchausen_iqn': (
    munchausen.MunchausenIQN,
    {'network': IMPLICIT, **SAMPLES, **MUNCHAUSEN},
  ),
}


def make_agent(name, n_step, num_envs):
  cls, settings = AGENTS[name]
  return functools.partial(
    cls,
    replay=functools.partial(
      cls.replay, capacity=512, batch_size=32, min_history=64
    ),
    optimizer=values.call(optax.adam, 1e-2),
    gamma=GAMMA,
    n_step=n_step,
    # One update a call of the engine: the fewest functions to compile.
    update_period=num_envs,
    target_update_period=10 * num_envs,
    # The values are those of any policy; a random one sees every action.
    epsilon=1.0,
    **settings,
  )


def expectations(states):
  """Yields each probe's name, its values [states, A], and the agent's state."""
  for (name, values_of), state in zip(
    probes.VALUES.items(), states, strict=True
  ):
    yield name, np.array(values_of(GAMMA)), state


# Values hold for any n: n = 3, in two environments, but where it must be 1.
ONE_STEP = [name for name in AGENTS if name.startswith('munchausen')]
# DQN's is quick. The others' losses are compared with plain ones in
# `tests/agents`, and that one learns by priorities is in `prioritized_test`.
QUICK = ['dqn']
RUNS = [
  pytest.param(
    *(name, n_step, num_envs),
    marks=pytest.mark.slow if name not in QUICK or n_step == 1 else (),
  )
  for name in AGENTS
  for n_step, num_envs in ((3, 2), (1, 1))
  if n_step == 1 or name not in ONE_STEP
]


@pytest.mark.parametrize(('agent', 'n_step', 'num_envs'), RUNS)
def test_an_agent_finds_the_values(agent, n_step, num_envs, tmp_path):
  agent, states, statistics = probes.train(
    make_agent(agent, n_step, num_envs),
    probes.VALUES,
    tmp_path,
    steps=400 * num_envs,
    num_envs=num_envs,
  )
  # From the end of the warm-up, 64 agent steps, on.
  assert (statistics['Train/Updates'] == 401 - 64 // num_envs).all()
  q_values = jax.jit(agent.q_values)
  for name, expected, state in expectations(states):
    params = heads.without_noise(state.params)
    q = q_values(params, probes.observations(), jax.random.key(0))
    q = q[: len(expected)]
    if getattr(agent, 'noisy', False) and name in probes.PASSIVE:
      # The noise soon tries one action alone, if no other is better.
      q, expected = q.max(axis=1), expected.max(axis=1)
    np.testing.assert_allclose(q, expected, atol=0.1, err_msg=name)
    if isinstance(state, tandem.TandemState):
      q = q_values(state.passive.params, probes.observations(), None)
      np.testing.assert_allclose(
        q[: len(expected)], expected, atol=0.1, err_msg=name
      )


# Rollouts of 16 steps in 2 environments, so that episodes go on beyond them.
ON_POLICY = {'update_period': 32, 'num_minibatches': 4, 'gamma': GAMMA}


@pytest.mark.slow  # pqn_test compares the loss, and DQN's probe finds values
def test_pqn_finds_the_values(tmp_path):
  agent = functools.partial(
    pqn.PQN,
    network=functools.partial(
      networks.MLP, hidden=(32,), activation=networks.normalized_relu
    ),
    optimizer=values.call(optax.adam, 1e-2),
    num_epochs=4,
    q_lambda=0.5,
    epsilon=1.0,
    **ON_POLICY,
  )
  agent, states, statistics = probes.train(
    agent, probes.VALUES, tmp_path, steps=1_920, num_envs=2
  )
  assert (statistics['Train/Updates'] == 60).all()
  q_values = jax.jit(agent.q_values)
  for name, expected, state in expectations(states):
    q = q_values(state.params, probes.observations())
    np.testing.assert_allclose(
      q[: len(expected)], expected, atol=0.1, err_msg=name
    )


small_ppo = functools.partial(
  ppo.PPO, optimizer=values.call(optax.adam, 1e-2), num_epochs=4, **ON_POLICY
)


def test_ppo_finds_the_best_actions_and_their_values(tmp_path):
  agent, states, statistics = probes.train(
    small_ppo, probes.VALUES, tmp_path, steps=1_920, num_envs=2
  )
  assert (statistics['Train/Updates'] == 60).all()

  @jax.jit
  def probabilities_and_value(params):
    policy, value = agent.policy(params, probes.observations())
    return jax.nn.softmax(policy.logits), value

  for name, q, state in expectations(states):
    probabilities, value = probabilities_and_value(state.params)
    np.testing.assert_allclose(
      value[: len(q)], q.max(axis=1), atol=0.15, err_msg=name
    )
    probabilities = np.asarray(probabilities)[: len(q)]
    worse = q < q.max(axis=1, keepdims=True)
    assert np.all(probabilities[worse] < 0.1), name


@pytest.mark.slow  # PPO's loss is in ppo_test, and distributions in theirs
@pytest.mark.parametrize(
  ('normalized', 'continuous'),
  [
    (False, 'gaussian'),
    (True, 'gaussian'),
    (False, 'state_gaussian'),
    (False, 'tanh_gaussian'),
    (False, 'beta'),
  ],
)
def test_ppo_finds_continuous_actions(normalized, continuous, tmp_path):
  # Deviations that depend on what is seen become small sooner.
  rate, steps = (3e-4, 25_600) if '_' in continuous else (1e-3, 12_800)
  agent = functools.partial(
    small_ppo,
    # Beyond [-1, 1] nothing depends on the action: no step may lead there.
    optimizer=values.call(optax.adam, rate),
    update_period=128,
    normalize_observations=normalized,
    normalize_rewards=normalized,
    continuous=continuous,
  )
  agent, (state,), _ = probes.train(
    agent, ['Probe/Target-v0'], tmp_path, steps=steps, num_envs=4
  )
  actions = jax.jit(functools.partial(agent.act, explore=False))(
    state, probes.observations()[:2], jnp.int32(0), jax.random.key(0)
  )
  # The environment's are twice as large.
  np.testing.assert_allclose(2 * actions[:, 0], probes.TARGETS, atol=0.2)
  if continuous == 'gaussian':
    assert np.all(state.params['log_std'] < -0.5)


def history_of(cls):
  return 256 if cls is crossq.CrossQ else 64


def small(cls, num_envs, replay=sac.SAC.replay, **settings):
  is_td3 = issubclass(cls, td3.TD3)
  actor = actor_critic.DeterministicActor if is_td3 else actor_critic.Actor
  layers, batch_size = {'hidden': (32,)}, 32
  optimizer = values.call(optax.adam, 1e-2)
  if cls is crossq.CrossQ:
    # Its batches must be large enough to be alike.
    optimizer = values.call(optax.adam, 3e-3, b1=0.5)
    batch_size = history_of(cls)
    layers = {'network': functools.partial(networks.BatchRenormMLP, **layers)}
  else:
    settings.setdefault('tau', 0.05)
  return functools.partial(
    cls,
    **{
      'actor': functools.partial(actor, **layers),
      'critics': functools.partial(actor_critic.Critics, **layers),
      'replay': functools.partial(
        replay,
        capacity=2_048,
        batch_size=batch_size,
        min_history=history_of(cls),
      ),
      'actor_optimizer': optimizer,
      'critic_optimizer': optimizer,
      'update_period': num_envs,
      'updates_per_period': 1,
      **settings,
    },
  )


# Of SAC rewards alone count here.
REWARDS_ALONE = {'temperature': 1e-3, 'temperature_optimizer': None}


@pytest.mark.slow  # sac_test compares losses, and the probe below learns both
@pytest.mark.parametrize(('n_step', 'num_envs'), [(1, 1), (3, 2)])
@pytest.mark.parametrize(
  ('cls', 'settings'),
  [
    pytest.param(sac.SAC, REWARDS_ALONE, id='sac'),
    # Targets follow with every update, as fast as SAC's.
    pytest.param(td3.TD3, {'policy_delay': 1}, id='td3'),
    pytest.param(
      fast_td3.FastTD3,
      {'policy_delay': 1, 'num_atoms': 25, 'v_min': -1.0, 'v_max': 5.0},
      id='fast_td3',
    ),
    pytest.param(tqc.TQC, {'num_dropped': 0, **REWARDS_ALONE}, id='tqc'),
    pytest.param(redq.REDQ, {'policy_delay': 2, **REWARDS_ALONE}, id='redq'),
    # Of actions that no batch has, nothing is known: the policy stays random.
    pytest.param(
      crossq.CrossQ, {'policy_delay': 10_000, **REWARDS_ALONE}, id='crossq'
    ),
  ],
)
def test_critics_find_the_values(cls, settings, n_step, num_envs, tmp_path):
  updates = 1_200 if cls is crossq.CrossQ else 537
  agent, states, statistics = probes.train(
    small(cls, num_envs, gamma=GAMMA, n_step=n_step, **settings),
    [probes.box(name) for name in probes.PASSIVE],
    tmp_path,
    steps=(updates - 1) * num_envs + history_of(cls),
    num_envs=num_envs,
  )
  assert (statistics['Train/Updates'] == updates).all()
  q_values = jax.jit(agent.q_values)
  for name, state in zip(probes.PASSIVE, states, strict=True):
    expected = np.array(probes.VALUES[name](GAMMA))  # of actions -0.5 and 0.5
    for i, action in enumerate((-0.5, 0.5)):
      q = q_values(
        state.params['critics'],
        probes.observations(),
        np.full((probes.NUM_STATES, 1), action, np.float32),
      )[..., : len(expected)]
      atol = 0.15
      if cls is crossq.CrossQ:
        # What is always the same in a batch has no scale: critics differ.
        q, atol = q.min(axis=0, keepdims=True), 0.25
      both = np.broadcast_to(expected[:, i], q.shape)
      np.testing.assert_allclose(q, both, atol=atol, err_msg=name)


# sac_test works out each of its losses, and PPO's probe finds a policy.
@pytest.mark.slow
@pytest.mark.parametrize(
  'replay',
  [
    sac.SAC.replay,
    prioritized.PrioritizedReplay,
  ],
)
def test_sac_finds_continuous_actions_and_keeps_its_entropy(replay, tmp_path):
  agent, (state,), _ = probes.train(
    small(
      sac.SAC,
      2,
      replay,
      temperature=0.1,
      temperature_optimizer=values.call(optax.adam, 1e-2),
    ),
    ['Probe/Target-v0'],
    tmp_path,
    steps=2_400,
    num_envs=2,
  )
  seen = probes.observations()[:2]
  key = jax.random.key(0)

  @jax.jit
  def actions_and_log_prob(state):
    actions = agent.act(state, seen, jnp.int32(0), key, explore=False)
    policy = agent.policy(state.params['actor'], seen)
    keys = jax.random.split(key, 1_000)
    return actions, jax.vmap(policy.sample_and_log_prob)(keys)[1]

  actions, log_prob = actions_and_log_prob(state)
  # The environment's are twice as large.
  np.testing.assert_allclose(2 * actions[:, 0], probes.TARGETS, atol=0.2)
  np.testing.assert_allclose(-log_prob.mean(), -1.0, atol=0.3)


@pytest.mark.slow  # td3_test and control_test work out each of their losses
@pytest.mark.parametrize(
  ('cls', 'settings'),
  [
    pytest.param(td3.TD3, {'exploration_noise': 0.3}, id='td3'),
    pytest.param(
      fast_td3.FastTD3,
      {'num_atoms': 25, 'v_min': -5.0, 'v_max': 1.0},
      id='fast_td3',
    ),
    pytest.param(tqc.TQC, REWARDS_ALONE, id='tqc'),
    pytest.param(redq.REDQ, {'policy_delay': 2, **REWARDS_ALONE}, id='redq'),
    pytest.param(
      crossq.CrossQ,
      {'policy_delay': 1, 'temperature': 0.1, 'temperature_optimizer': None},
      id='crossq',
    ),
  ],
)
def test_continuous_actions_are_found(cls, settings, tmp_path):
  agent, (state,), _ = probes.train(
    small(cls, 2, **settings),
    ['Probe/Target-v0'],
    tmp_path,
    steps=2_400,
    num_envs=2,
  )
  actions = jax.jit(functools.partial(agent.act, explore=False))(
    state, probes.observations()[:2], jnp.int32(0), jax.random.key(0)
  )
  # The environment's are twice as large.
  np.testing.assert_allclose(2 * actions[:, 0], probes.TARGETS, atol=0.2)


def small_mrq(num_envs):
  return functools.partial(
    mrq.MRQ,
    encoder=latent.Encoder(hidden=(32, 32)),
    model=latent.LatentModel(action_units=16, hidden=(32, 32), units=32),
    actor=functools.partial(latent.Actor, hidden=(32, 32)),
    critic=functools.partial(latent.Critic, hidden=(32, 32)),
    replay=functools.partial(
      mrq.MRQ.replay.func,
      capacity=2_048,
      batch_size=64,
      min_history=128,
      alpha=0.4,
      beta=0.0,
    ),
    encoder_optimizer=values.call(optax.adam, 1e-3),
    actor_optimizer=values.call(optax.adam, 1e-3),
    critic_optimizer=values.call(optax.adam, 3e-3),
    gamma=GAMMA,
    update_period=num_envs,
    target_update_period=20 * num_envs,
  )


@pytest.mark.slow  # mrq_test works out each of its losses
def test_mrq_finds_values_and_actions(tmp_path):
  agent, states, _ = probes.train(
    small_mrq(2), probes.VALUES, tmp_path, steps=4_000, num_envs=2
  )
  outlook = jax.jit(agent.outlook)
  for name, expected, state in expectations(states):
    found = outlook(state, probes.observations(), jax.random.key(0))
    seen = slice(len(expected))
    best = expected.max(axis=1)
    np.testing.assert_allclose(found.value[seen], best, atol=0.15, err_msg=name)
    chosen = np.argmax(found.probabilities[seen], axis=1)
    at = np.arange(len(expected)), chosen
    np.testing.assert_allclose(expected[at], best, err_msg=name)


@pytest.mark.slow  # likewise
def test_mrq_finds_continuous_actions(tmp_path):
  agent, (state,), _ = probes.train(
    small_mrq(2), ['Probe/Target-v0'], tmp_path, steps=4_000, num_envs=2
  )
  actions = jax.jit(functools.partial(agent.act, explore=False))(
    state, probes.observations()[:2], jnp.int32(0), jax.random.key(0)
  )
  # The environment's are twice as large.
  np.testing.assert_allclose(2 * actions[:, 0], probes.TARGETS, atol=0.2)
