"""What `record` shows of an agent is that by which it acts."""

import functools

from flax import linen as nn
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dopamine_jax import agent as agent_lib
from dopamine_jax import networks
from dopamine_jax.agents import c51
from dopamine_jax.agents import double_dqn
from dopamine_jax.agents import dqn
from dopamine_jax.agents import full_rainbow
from dopamine_jax.agents import iqn
from dopamine_jax.agents import munchausen
from dopamine_jax.agents import ppo
from dopamine_jax.agents import pqn
from dopamine_jax.agents import quantile
from dopamine_jax.agents import rainbow
from dopamine_jax.agents import sac
from tests import linear

NUM_ACTIONS = 3
KEY = jax.random.key(3)
SMALL_TORSO = functools.partial(networks.MLPTorso, hidden=(8,))
TORSO = SMALL_TORSO()


def iqn_network(num_outputs):
  return iqn.ImplicitQuantileNetwork(num_outputs, torso=TORSO, hidden=(8,))


def rainbow_network(**kwargs):
  return full_rainbow.RainbowNetwork(**kwargs, torso=TORSO, hidden=(8,))


VALUE_BASED = [
  (dqn.DQN, {}),
  (double_dqn.DoubleDQN, {}),
  (munchausen.MunchausenDQN, {}),
  (pqn.PQN, {}),
  (pqn.PQN, {'normalize_observations': True}),
  (c51.C51, {}),
  (rainbow.Rainbow, {}),
  (quantile.QuantileDQN, {'num_quantiles': 5}),
  (iqn.IQN, {'network': iqn_network}),
  (munchausen.MunchausenIQN, {'network': iqn_network}),
  (full_rainbow.FullRainbow, {'network': rainbow_network}),
  (
    full_rainbow.FullRainbow,
    {'network': rainbow_network, 'distributional': False},
  ),
]


# Agents that show what the class does which they are made from.
ALIKE = (double_dqn.DoubleDQN, rainbow.Rainbow, munchausen.MunchausenIQN)


def observations(num):
  rng = np.random.default_rng(0)
  return np.asarray(30 * rng.normal(size=(num, 2)), np.float32)


def started(agent, seen):
  state = agent.init(jax.random.key(1), seen)
  if getattr(agent, 'normalize_observations', False):
    state = state.replace(observations=state.observations.add(5 * seen + 1))
  return state


def act(agent, state, seen):
  return agent.act(state, seen, jnp.int32(0), KEY, explore=False)


def compute(function, seen):
  """Compiled whole, which is faster than operation by operation."""
  return jax.device_get(jax.jit(function)(seen))


@pytest.fixture(
  scope='module',
  params=[
    pytest.param(case, marks=pytest.mark.slow if case[0] in ALIKE else ())
    for case in VALUE_BASED
  ],
  ids=lambda case: case[0].__name__,
)
def case(request):
  """An agent, its state, its outlook and its actions."""
  cls, settings = request.param
  agent = linear.make(cls, NUM_ACTIONS, **settings).greedy()
  seen = observations(64)
  state = jax.jit(lambda seen: started(agent, seen))(seen)

  @jax.jit
  def tell(state, seen):
    return agent.outlook(state, seen, KEY), act(agent, state, seen)

  return agent, state, *jax.device_get(tell(state, seen))


def test_the_best_value_is_that_of_the_action_taken(case):
  _, _, outlook, actions = case
  assert len(set(actions.tolist())) > 1
  np.testing.assert_array_equal(np.argmax(outlook.values, axis=-1), actions)
  np.testing.assert_array_equal(outlook.value, np.max(outlook.values, axis=-1))
  assert outlook.probabilities is outlook.mean is outlook.interval is None


def test_a_distribution_is_one_and_has_the_value_as_its_mean(case):
  agent, _, outlook, _ = case
  learns_values = not getattr(agent, 'distributional', True) or (
    type(agent) not in (full_rainbow.FullRainbow, c51.C51, rainbow.Rainbow)
    and not isinstance(agent, (quantile.QuantileDQN, iqn.IQN))
  )
  if learns_values:
    assert outlook.distribution is None
    return
  returns, probabilities = outlook.distribution
  assert returns.shape == probabilities.shape
  assert returns.shape[:2] == (64, NUM_ACTIONS)
  assert (np.diff(returns) >= 0).all()
  assert (probabilities >= 0).all()
  np.testing.assert_allclose(probabilities.sum(axis=-1), 1, rtol=1e-5)
  if not isinstance(agent, iqn.IQN):  # whose values are of quantiles it draws
    mean = (returns * probabilities).sum(axis=-1)
    near = 1e-4 * np.std(outlook.values) + 1e-5
    np.testing.assert_allclose(mean, outlook.values, atol=near)


def test_quantiles_are_put_in_order():
  agent = linear.make(quantile.QuantileDQN, 2, num_quantiles=3)
  # One observation whose outputs [3, 2] are those of the kernel's first row.
  row = [3.0, 10.0, 1.0, 30.0, 2.0, 20.0]
  state = linear.make_state(agent, [row, [0.0] * 6], np.zeros((2, 6)))
  outlook = jax.jit(agent.outlook)(state, np.array([[1.0, 0.0]]), KEY)
  returns, probabilities = outlook.distribution
  np.testing.assert_array_equal(returns, [[[1, 2, 3], [10, 20, 30]]])
  np.testing.assert_allclose(probabilities, np.full((1, 2, 3), 1 / 3))
  np.testing.assert_allclose(outlook.values, [[2, 20]])


class Uniform(nn.Module):
  """Returns of action a are uniform between -(a + 1) and 0."""

  num_outputs: int

  @nn.compact
  def __call__(self, observation, tau=None):
    self.param('unused', nn.initializers.zeros_init(), ())
    if tau is None:
      tau = jnp.full((len(observation), 1), 0.5)
    # Falling, as no quantile function should.
    return -tau[..., None] * (1 + jnp.arange(self.num_outputs))[None, None]


def test_iqn_tells_evenly_spaced_quantiles():
  agent = linear.make(iqn.IQN, 2, network=Uniform, num_tau_samples=4)

  def distribution(seen):
    return agent.outlook(started(agent, seen), seen, KEY).distribution

  returns, probabilities = compute(distribution, observations(1))
  expected = np.array([-7, -5, -3, -1]) / 8
  np.testing.assert_allclose(returns, [[expected, 2 * expected]], rtol=1e-6)
  np.testing.assert_array_equal(probabilities, np.full((1, 2, 4), 1 / 4))


def two_outlooks(agent):
  """Returns those of one state, by two keys."""

  def tell(seen):
    state = started(agent, seen)
    keys = jax.random.key(1), jax.random.key(2)
    return [agent.outlook(state, seen, key) for key in keys]

  return compute(tell, observations(64))


def test_the_quantiles_of_iqn_do_not_jump_from_step_to_step():
  one, other = two_outlooks(linear.make(iqn.IQN, 2, network=iqn_network))
  np.testing.assert_array_equal(one.distribution[0], other.distribution[0])
  assert (one.values != other.values).any()


def test_noise_of_the_weights_is_off_as_it_is_in_evaluation():
  agent = linear.make(full_rainbow.FullRainbow, 2, network=rainbow_network)
  one, other = two_outlooks(agent)
  np.testing.assert_array_equal(one.values, other.values)
  np.testing.assert_array_equal(*(x.distribution[1] for x in (one, other)))


def ppo_agent(space, **settings):
  return ppo.PPO(
    observation_space=linear.OBSERVATION_SPACE,
    action_space=space,
    network=functools.partial(networks.ActorCritic, torso=SMALL_TORSO),
    **settings,
  )


@pytest.mark.parametrize('normalize', [False, True])
def test_ppo_tells_its_policy(normalize):
  agent = ppo_agent(
    gymnasium.spaces.Discrete(3), normalize_observations=normalize
  )

  def tell(seen):
    state = started(agent, seen)
    normal = state.observations.normalize(seen)
    variables = {'params': state.params['network']}
    return (
      agent.outlook(state, seen, KEY),
      act(agent, state, seen),
      *agent.module.apply(variables, normal),
    )

  outlook, actions, logits, value = compute(tell, observations(64))
  expected = np.exp(logits.astype(float))
  expected /= expected.sum(axis=-1, keepdims=True)
  np.testing.assert_allclose(outlook.probabilities, expected, rtol=1e-5)
  np.testing.assert_allclose(outlook.value, value, rtol=1e-6)
  np.testing.assert_array_equal(np.argmax(expected, axis=-1), actions)
  assert outlook.values is outlook.distribution is outlook.mean is None


def test_ppo_tells_a_continuous_action_and_where_most_lie():
  agent = ppo_agent(
    gymnasium.spaces.Box(-1, 1, (2, 2)), log_std=float(np.log(0.25))
  )

  def tell(seen):
    state = started(agent, seen)
    return agent.outlook(state, seen, KEY), act(agent, state, seen)

  outlook, actions = compute(tell, observations(64))
  assert actions.shape == (64, 2, 2)
  np.testing.assert_array_equal(outlook.mean, actions)
  low, high = outlook.interval
  np.testing.assert_allclose(outlook.mean - low, 0.25, atol=1e-6)
  np.testing.assert_allclose(high - outlook.mean, 0.25, atol=1e-6)
  assert outlook.probabilities is outlook.values is None


def test_sac_tells_its_action_and_the_lower_critic():
  agent = sac.SAC(
    observation_space=linear.OBSERVATION_SPACE,
    action_space=gymnasium.spaces.Box(-1, 1, (2,)),
  )

  def tell(seen):
    state = started(agent, seen)
    actions = act(agent, state, seen)
    return (
      agent.outlook(state, seen, KEY),
      actions,
      agent.q_values(state.params['critics'], seen, actions),
      agent.policy(state.params['actor'], seen),
    )

  seen = observations(64) / 30  # where tanh is far from 1
  outlook, actions, values, policy = compute(tell, seen)
  np.testing.assert_array_equal(outlook.mean, actions)
  assert values.shape == (2, 64)
  np.testing.assert_array_equal(outlook.value, np.min(values, axis=0))
  low, high = map(np.arctanh, outlook.interval)
  std = np.exp(policy.log_std)
  np.testing.assert_allclose(high, policy.mean + std, rtol=1e-3, atol=1e-3)
  np.testing.assert_allclose(low, policy.mean - std, rtol=1e-3, atol=1e-3)


def test_an_agent_need_not_tell_anything():
  class Silent(agent_lib.Agent):
    pass

  silent = Silent(
    observation_space=linear.OBSERVATION_SPACE,
    action_space=gymnasium.spaces.Discrete(2),
  )
  assert silent.outlook(None, observations(1), KEY) is None


# Else XLA may find a maximum and what equals it in two ways, and none does.
@pytest.mark.usefixtures('optimized')
def test_the_value_can_be_differentiated(case):
  agent, state, _, _ = case
  seen = observations(64)

  def value(state, seen):
    return agent.outlook(state, seen, KEY).value.sum()

  slopes = np.asarray(jax.jit(jax.grad(value, argnums=1))(state, seen))
  assert slopes.shape == seen.shape
  assert np.isfinite(slopes).all()
  assert (slopes != 0).any()
