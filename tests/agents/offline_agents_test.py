"""Agents that offline studies compare: losses by hand, and what else is new."""

import functools
import math

import flax.linen as nn
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dopamine_jax import agent as agent_lib
from dopamine_jax import errors
from dopamine_jax import networks
from dopamine_jax.agents import behaviour_cloning
from dopamine_jax.agents import classification
from dopamine_jax.agents import cql
from dopamine_jax.agents import double_dqn
from dopamine_jax.agents import dqn
from dopamine_jax.agents import dr3
from dopamine_jax.agents import full_rainbow
from dopamine_jax.agents import tandem
from tests import linear

B, A, M = 5, 3, 6
SUPPORT = {'num_atoms': M, 'v_min': -2.0, 'v_max': 4.0}
MLP = networks.MLP(hidden=(4,))


def make(cls, shape=(2,), dtype=np.float32, **settings):
  high = 255 if dtype == np.uint8 else 9
  return cls(
    **{
      'network': MLP,
      'observation_space': gymnasium.spaces.Box(0, high, shape, dtype),
      'action_space': gymnasium.spaces.Discrete(A),
      **settings,
    }
  )


def sample_of(shape=(2,), seed=0):
  rng = np.random.default_rng(seed)

  def draw(*lead):
    return np.float32(rng.normal(size=lead))

  return agent_lib.Sample(
    transition=agent_lib.Transition(
      observation=draw(B, *shape),
      action=rng.integers(A, size=B),
      reward=3 * draw(B),
      discount=np.float32([0.9, 0, 0.5, 0.9, 0]),
      next_observation=draw(B, *shape),
    ),
    index=np.arange(B),
    weight=np.float32(rng.random(B) + 0.5),
  )


def states(agent, sample):
  """Returns a state whose target network is another one."""
  init = linear.jitted(agent.init)
  state, other = (
    init(jax.random.key(i), sample.transition.observation) for i in (0, 1)
  )
  return state.replace(target_params=other.params)


def losses_of(agent, state, sample):
  given = state.params, state.target_params, sample.transition
  losses, metrics = linear.jitted(agent.losses)(*given, jax.random.key(2))
  return np.asarray(losses), metrics


def q_of(agent, params, observation):
  return np.asarray(
    linear.jitted(agent.q_values)(params, observation, jax.random.key(0)),
    np.float64,
  )


# Classification.


def normal_part(low, high, mean, sigma):
  """Returns the probability that a normal number lies in an interval."""

  def below(x):
    return 0.5 * (1 + math.erf((x - mean) / (sigma * math.sqrt(2))))

  return below(high) - below(low)


@pytest.mark.parametrize('target', [-1.5, 0.3, 2.0, 3.4, -9.0, 9.0])
def test_hl_gauss_is_a_normal_distribution_cut_at_the_ends(target):
  agent = make(classification.ClassificationDQN, **SUPPORT)
  found = agent.classes(jnp.array([target]))[0]
  # Six classes of width 1, whose middles are -1.5 to 3.5.
  np.testing.assert_allclose(agent.atoms, np.arange(-1.5, 4), atol=1e-6)
  mean = min(max(target, -2.0), 4.0)
  parts = [normal_part(x, x + 1, mean, 0.75) for x in range(-2, 4)]
  np.testing.assert_allclose(found, np.array(parts) / sum(parts), atol=1e-6)


@pytest.mark.parametrize(
  ('target', 'expected'),
  [
    (-2.0, [1, 0, 0, 0, 0, 0]),
    (0.1, [0, 0.25, 0.75, 0, 0, 0]),  # atoms 1.2 apart: -0.8 and 0.4
    (9.0, [0, 0, 0, 0, 0, 1]),
  ],
)
def test_two_hot_is_of_the_two_atoms_beside(target, expected):
  agent = make(classification.ClassificationDQN, spread='two_hot', **SUPPORT)
  found = agent.classes(jnp.array([target]))[0]
  np.testing.assert_allclose(found, expected, atol=1e-6)
  assert float(found @ agent.atoms) == pytest.approx(np.clip(target, -2, 4))


@pytest.mark.parametrize('double', [True, False])
@pytest.mark.parametrize('spread', ['hl_gauss', 'two_hot'])
def test_a_target_is_one_number_learnt_by_cross_entropy(double, spread):
  agent = make(
    classification.ClassificationDQN,
    spread=spread,
    double=double,
    conservatism=0.5,
    **SUPPORT,
  )
  sample = sample_of()
  state, batch = states(agent, sample), sample.transition
  found, _ = losses_of(agent, state, sample)
  q_next = q_of(agent, state.target_params, batch.next_observation)
  online = q_of(agent, state.params, batch.next_observation)
  best = np.argmax(online if double else q_next, axis=1)
  target = batch.reward + batch.discount * q_next[np.arange(B), best]
  classes = np.asarray(agent.classes(jnp.asarray(target, jnp.float32)))
  outputs = linear.jitted(agent.outputs)(
    state.params, batch.observation, jax.random.key(0)
  )
  logits = np.asarray(outputs, np.float64).reshape(B, A, M)
  logits -= np.log(np.exp(logits).sum(axis=-1, keepdims=True))
  q = np.exp(logits) @ np.asarray(agent.atoms)
  for i, action in enumerate(batch.action):
    expected = -classes[i] @ logits[i, action]
    expected += 0.5 * (np.log(np.exp(q[i]).sum()) - q[i, action])
    assert found[i] == pytest.approx(expected, rel=1e-4)


# Conservatism.


@pytest.mark.parametrize('distributional', [True, False])
def test_categorical_cql_is_full_rainbow_and_the_gap(distributional):
  settings = {'noisy': False, 'distributional': distributional, **SUPPORT}
  network = functools.partial(
    full_rainbow.RainbowNetwork, torso=networks.MLPTorso(hidden=(4,)), hidden=()
  )
  settings['network'] = network
  agent = make(cql.CategoricalCQL, conservatism=0.3, **settings)
  plain = make(full_rainbow.FullRainbow, **settings)
  sample = sample_of()
  state = states(agent, sample)
  found, metrics = losses_of(agent, state, sample)
  expected, _ = losses_of(plain, state, sample)
  q = q_of(agent, state.params, sample.transition.observation)
  gap = (
    np.log(np.exp(q).sum(axis=1)) - q[np.arange(B), sample.transition.action]
  )
  np.testing.assert_allclose(found, expected + 0.3 * gap, rtol=1e-4)
  assert metrics['Gap'] == pytest.approx(gap.mean(), rel=1e-4)


@pytest.mark.parametrize('conservatism', [0.0, 0.5])
def test_dr3_adds_the_product_of_features(conservatism):
  agent = make(dr3.DR3, feature_penalty=0.2, conservatism=conservatism)
  plain = make(cql.CQL, conservatism=conservatism)
  sample = sample_of()
  state, batch = states(agent, sample), sample.transition
  layer = jax.tree.map(np.asarray, state.params['MLPTorso_0']['Dense_0'])
  now, then = (
    np.maximum(x @ np.asarray(layer['kernel']) + layer['bias'], 0)
    for x in (batch.observation, batch.next_observation)
  )
  product = np.abs(np.sum(now * then, axis=1))
  found, metrics = losses_of(agent, state, sample)
  expected, _ = losses_of(plain, state, sample)
  np.testing.assert_allclose(found, expected + 0.2 * product, rtol=1e-4)
  assert metrics['FeatureProduct'] == pytest.approx(product.mean(), rel=1e-4)


def test_dr3_says_that_a_network_shows_no_features():
  class Silent(nn.Module):
    num_outputs: int = A

    @nn.compact
    def __call__(self, observation):
      return nn.Dense(self.num_outputs)(observation)

  agent = make(dr3.DR3, network=Silent())
  sample = sample_of()
  state = jax.jit(agent.init)(jax.random.key(0), sample.transition.observation)
  with pytest.raises(errors.UserError, match=r'network Silent shows 0.*sow'):
    losses_of(agent, state, sample)


# Behaviour cloning.


def test_cloning_raises_what_was_done():
  agent = make(behaviour_cloning.BehaviourCloning)
  sample = sample_of()
  batch = sample.transition
  state = linear.jitted(agent.init)(jax.random.key(0), batch.observation)
  new, metrics, losses = linear.jitted(agent.update)(
    state, sample, jax.random.key(0)
  )
  logits = np.asarray(
    linear.jitted(agent.outputs)(
      state.params, batch.observation, jax.random.key(0)
    ),
    np.float64,
  )
  logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
  taken = logits[np.arange(B), batch.action]
  np.testing.assert_allclose(losses, -taken, rtol=1e-4)
  assert metrics['Loss'] == pytest.approx(-np.mean(sample.weight * taken), 1e-4)
  right = np.mean(logits.argmax(axis=1) == batch.action)
  assert metrics['Accuracy'] == pytest.approx(right)
  assert new.lowest == batch.reward.min()
  assert new.highest == batch.reward.max()


@pytest.mark.parametrize(
  ('shape', 'dtype', 'shown', 'scale'),
  [
    ((2,), np.float32, (3,), 1),
    ((3, 3, 2), np.uint8, (3, 3, 3), 255),
    ((3, 3), np.uint8, (3, 3, 2), 255),
  ],
)
def test_a_return_is_one_more_channel(shape, dtype, shown, scale):
  agent = make(
    behaviour_cloning.BehaviourCloning,
    shape,
    dtype,
    conditioned=True,
    n_step=9,
  )
  seen = np.ones((2, *shape), dtype)
  found = np.asarray(agent.seen_with(seen, jnp.array([-math.e + 1, 0.0])))
  assert found.shape == (2, *shown)
  np.testing.assert_allclose(found[0, ..., -1], -scale / 20, rtol=1e-6)
  np.testing.assert_array_equal(found[1, ..., -1], 0)
  np.testing.assert_array_equal(found[..., :-1].reshape(seen.shape), seen)


@pytest.mark.parametrize('ambition', [0.0, 0.5])
def test_it_asks_for_more_than_was_seen(ambition):
  agent = make(
    behaviour_cloning.BehaviourCloning,
    conditioned=True,
    n_step=9,
    ambition=ambition,
  )
  seen = sample_of().transition.observation
  state = jax.jit(agent.init)(jax.random.key(0), seen)
  key = jax.random.key(0)
  for updates, asked in ((0, 0.0), (1, 5.0 + ambition * 6.0)):
    state = state.replace(
      lowest=jnp.array(-1.0), highest=jnp.array(5.0), updates=jnp.array(updates)
    )
    expected = agent.outputs(
      state.params, agent.seen_with(seen, jnp.full(B, asked)), key
    )
    np.testing.assert_allclose(
      agent.preferences(state, seen, key), expected, rtol=1e-6
    )
    # Which action is the likeliest has to depend on what is asked for.
    shown = agent.replace(evaluation_epsilon=0.0)
    acts = shown.act(state, seen, jnp.zeros((), int), key, explore=False)
    np.testing.assert_array_equal(acts, np.argmax(expected, axis=-1))


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'conditioned': True}, 'n_step = 1 is the return of one step'),
    ({'ambition': 1.0}, 'no effect without conditioned'),
    ({'n_step': 7}, 'n_step = 7 has no effect without conditioned'),
    ({'gamma': 0.3}, 'gamma = 0.3 has no effect without conditioned'),
  ],
)
def test_cloning_refuses_what_would_do_nothing(settings, message):
  with pytest.raises(errors.UserError, match=message):
    make(behaviour_cloning.BehaviourCloning, **settings)


# Tandem.


def test_each_of_a_tandem_learns_as_double_dqn():
  agent, plain = make(tandem.TandemDQN), make(double_dqn.DoubleDQN)
  sample = sample_of()
  state = linear.jitted(agent.init)(
    jax.random.key(0), sample.transition.observation
  )
  new, metrics, priorities = linear.jitted(agent.update)(
    state, sample, jax.random.key(1)
  )
  active = dqn.DQNState(
    state.params, state.target_params, state.optimizer_state, state.updates
  )
  for before, after, prefix in (
    (active, new, ''),
    (state.passive, new.passive, 'Passive'),
  ):
    expected, of_one, losses = linear.jitted(plain.update)(
      before, sample, jax.random.key(9)
    )
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
      *(expected.params, after.params),
    )
    loss = metrics[f'{prefix}Loss']
    assert loss == pytest.approx(float(of_one['Loss']), rel=1e-5)
    if not prefix:
      np.testing.assert_allclose(priorities, losses, rtol=1e-5)
  first, second = map(jax.tree.leaves, (state.params, state.passive.params))
  assert any(np.any(a != b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize('evaluated', ['active', 'passive'])
def test_only_the_active_one_acts_in_training(evaluated):
  agent = make(tandem.TandemDQN, evaluated=evaluated, epsilon=0.0)
  seen = np.float32(np.random.default_rng(0).normal(size=(64, 2)))
  state = jax.jit(agent.init)(jax.random.key(0), seen)
  key, step = jax.random.key(0), jnp.zeros((), int)
  of_active, of_passive = (
    np.argmax(q_of(agent, params, seen), axis=1)
    for params in (state.params, state.passive.params)
  )
  assert np.any(of_active != of_passive)
  agent = agent.greedy()
  for explore, expected in (
    (True, of_active),
    (False, of_active if evaluated == 'active' else of_passive),
  ):
    acts = agent.act(state, seen, step, key, explore=explore)
    np.testing.assert_array_equal(acts, expected)


@pytest.mark.parametrize(('high', 'factor'), [(1, 1), (255, 255)])
def test_a_return_beside_an_image_is_on_the_images_scale(high, factor):
  agent = behaviour_cloning.BehaviourCloning(
    observation_space=gymnasium.spaces.Box(0, high, (5, 4), np.uint8),
    action_space=gymnasium.spaces.Discrete(2),
    conditioned=True,
    n_step=3,
  )
  seen = agent.seen_with(np.ones((2, 5, 4), np.uint8), jnp.array([0.0, 1.0]))
  assert seen.shape == (2, 5, 4, 2)
  np.testing.assert_allclose(
    seen[:, 0, 0, 1], [0, factor * np.log(2) / 20], rtol=1e-5
  )
