"""MR.Q against its paper's equations in NumPy, with linear networks.

What is drawn comes from the keys that the agent draws it with.
"""

import functools

from flax import linen as nn
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dopamine_jax import agent as agent_lib
from dopamine_jax import errors
from dopamine_jax import networks
from dopamine_jax import spaces
from dopamine_jax.agents import mrq
from dopamine_jax.callbacks import resets
from dopamine_jax.checkpoints import state_arrays
from dopamine_jax.engines import seed_axis
from dopamine_jax.learning import latent_agent
from dopamine_jax.learning import vectors
from dopamine_jax.networks import latent
from dopamine_jax.replay import following
from dopamine_jax.replay import prioritized
from tests import linear

B, F, Z, E, A, M, K = 6, 3, 4, 5, 2, 5, 3
KEY = jax.random.key(7)
OBSERVATIONS = gymnasium.spaces.Box(-10, 10, (F,), np.float32)
SPACES = {
  'box': gymnasium.spaces.Box(-1, 1, (A,), np.float32),
  'discrete': gymnasium.spaces.Discrete(A),
  'several': gymnasium.spaces.MultiDiscrete([2, 2]),
}
KINDS = ['box', 'discrete']


class Linear(nn.Module):
  """Maps to `num_outputs`, without a bias."""

  num_outputs: int = Z

  @nn.compact
  def __call__(self, x):
    shape = (x.shape[-1], self.num_outputs)
    return x @ self.param('kernel', nn.initializers.normal(), shape)


class Model(nn.Module):
  """All that is predicted is linear in the embedding, which is linear too."""

  num_bins: int

  @nn.compact
  def __call__(self, z, action):
    x = Linear(E, name='embed')(jnp.concatenate([z, action], axis=1))
    y = Linear(1 + Z + self.num_bins, name='head')(x)
    return x, y[:, 0], y[:, 1 : 1 + Z], y[:, 1 + Z :]


@functools.cache  # compiles once for all tests
def make(kind='box', **settings):
  sgd = optax.sgd(0.1)
  return mrq.MRQ(
    **{
      'observation_space': OBSERVATIONS,
      'action_space': SPACES[kind],
      'encoder': Linear,
      'model': Model,
      'actor': Linear,
      'critic': Linear,
      'encoder_optimizer': sgd,
      'actor_optimizer': sgd,
      'critic_optimizer': sgd,
      'num_bins': M,
      'reward_log_limit': 2.0,
      'prediction_steps': K,
      **settings,
    }
  )


def params_of(rng):
  def kernel(*shape):
    return {'kernel': np.float32(rng.normal(0, 0.5, shape))}

  return {
    'encoder': kernel(F, Z),
    'model': {'embed': kernel(Z + A, E), 'head': kernel(E, 1 + Z + M)},
    'actor': kernel(Z, A),
    'critics': [kernel(E, 1), kernel(E, 1)],
  }


def problem(seed=0, kind='box'):
  """Returns a state and a sample."""
  rng = np.random.default_rng(seed)

  def normal(*shape):
    return np.float32(rng.normal(size=shape))

  def actions(*shape):
    if kind == 'discrete':
      return rng.integers(A, size=shape)
    return np.float32(rng.uniform(-1, 1, (*shape, A)))

  taken = np.array([[1, 1, 1], [1, 1, 0], [1, 0, 0]] * 2, bool)
  terminated = np.zeros((B, K), bool)
  terminated[1, 1] = terminated[5, 0] = True
  batch = following.Followed(
    observation=normal(B, F),
    action=actions(B),
    reward=normal(B),
    discount=np.float32([0.9, 0.0, 0.81, 0.9, 0.0, 0.9]),
    next_observation=normal(B, F),
    actions=actions(B, K),
    rewards=3 * normal(B, K),
    observations=normal(B, K, F),
    taken=taken,
    terminated=terminated,
    same_episode=taken & ~terminated,
  )
  params, held, target = (params_of(rng) for _ in range(3))
  state = latent_agent.State(
    params=params,
    fixed_params={name: held[name] for name in ('encoder', 'model')},
    target_params=target,
    optimizer_state=make(kind).optimizer.init(params),
    updates=np.int32(1),
    reward_scale=np.float32(0.5),
    target_reward_scale=np.float32(0.25),
    reward_sum=np.float32(0.0),
  )
  weight = np.float32(rng.uniform(0.5, 1, B))
  return state, agent_lib.Sample(batch, np.arange(B), weight)


def embed(params, z, action):
  kernel = params['model']['embed']['kernel']
  return np.concatenate([z, action]) @ kernel


def lowest(critics, x):
  return min(float(x @ each['kernel'][:, 0]) for each in critics)


def softmax(x):
  x = np.exp(x - x.max())
  return x / x.sum()


def gumbel(key):
  return np.asarray(jax.random.gumbel(key, (B, A)), np.float64)


def targets_by_hand(state, batch, kind, std, clip):
  """Eq. 19 [B], one transition after another."""
  noise_key, key = jax.random.split(jax.random.split(KEY)[0])
  noise = std * np.asarray(jax.random.normal(noise_key, (B, A)), np.float64)
  noise, drawn = np.clip(noise, -clip, clip), gumbel(key)
  params, found = state.target_params, np.zeros(B)
  for i in range(B):
    z = batch.next_observation[i] @ params['encoder']['kernel']
    given = z @ params['actor']['kernel']
    if kind == 'discrete':
      soft = softmax((given + drawn[i]) / 10) + noise[i] / 2
      action = np.eye(A)[np.argmax(soft)]
    else:
      action = np.clip(np.tanh(given) + noise[i], -1, 1)
    value = lowest(params['critics'], embed(params, z, action))
    value *= state.target_reward_scale
    found[i] = (
      batch.reward[i] + batch.discount[i] * value
    ) / state.reward_scale
  return found


def policy_losses_by_hand(state, batch, kind):
  """Eq. 20 [B]: both critics' mean, and a little of the outputs' squares."""
  drawn, found = gumbel(jax.random.split(KEY)[1]), np.zeros(B)
  for i in range(B):
    z = batch.observation[i] @ state.fixed_params['encoder']['kernel']
    given = z @ state.params['actor']['kernel']
    action = np.tanh(given)
    if kind == 'discrete':
      action = softmax((given + drawn[i]) / 10)
    x = embed(state.fixed_params, z, action)
    values = [x @ each['kernel'][:, 0] for each in state.params['critics']]
    found[i] = -np.mean(values) + 1e-5 * np.mean(given**2)
  return found


def double(tree):
  return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def as_vectors(action, kind):
  return np.eye(A)[action.astype(int)] if kind == 'discrete' else action


def near(found, expected):
  np.testing.assert_allclose(found, expected, rtol=3e-4, atol=3e-5)


@pytest.mark.parametrize('kind', KINDS)
def test_values_and_policy_learn_as_the_paper_has_it(kind):
  agent = make(kind, target_noise=0.9, noise_clip=0.5)
  for seed in range(3):
    state, sample = problem(seed, kind)
    losses, td_error, metrics = linear.jitted(agent.losses)(
      state.params, state, sample.transition, KEY
    )
    state, batch = double((state, sample.transition))
    target = targets_by_hand(state, batch, kind, 0.9, 0.5)
    action = as_vectors(batch.action, kind)
    q = np.zeros((2, B))
    for i in range(B):
      z = batch.observation[i] @ state.fixed_params['encoder']['kernel']
      x = embed(state.fixed_params, z, action[i])
      q[:, i] = [x @ each['kernel'][:, 0] for each in state.params['critics']]
    error = target[None] - q
    near(td_error, error)
    huber = np.where(abs(error) <= 1, error**2 / 2, abs(error) - 0.5)
    near(losses['CriticLoss'], huber.mean(0))
    near(losses['PolicyLoss'], policy_losses_by_hand(state, batch, kind))
    near(metrics['QMean'], 0.5 * q.mean())


def two_hot(x, classes):
  told = np.zeros(len(classes))
  x = np.clip(x, classes[0], classes[-1])
  j = min(np.searchsorted(classes, x, side='right') - 1, len(classes) - 2)
  told[j + 1] = (x - classes[j]) / (classes[j + 1] - classes[j])
  told[j] = 1 - told[j + 1]
  return told


@pytest.mark.parametrize('kind', KINDS)
def test_the_encoder_predicts_from_what_it_predicted(kind):
  agent = make(kind, reward_weight=0.3, terminal_weight=0.7)
  classes = np.sign([-2, -1, 0, 1, 2]) * (np.exp([2, 1, 0, 1, 2]) - 1)
  state, sample = problem(3, kind)
  found = linear.jitted(agent.encoder_loss)(
    state.params, state.fixed_params, sample.transition
  )
  state, batch = double((state, sample.transition))
  actions = as_vectors(batch.actions, kind)
  params, expected = state.params, np.zeros(B)
  for i in range(B):
    z = batch.observation[i] @ params['encoder']['kernel']
    for k in range(K):
      y = embed(params, z, actions[i, k]) @ params['model']['head']['kernel']
      end, z, logits = y[0], y[1 : 1 + Z], y[1 + Z :]
      then = batch.observations[i, k] @ state.fixed_params['encoder']['kernel']
      told = two_hot(batch.rewards[i, k], classes)
      loss = np.mean((z - then) ** 2)
      loss += 0.3 * -np.sum(told * np.log(softmax(logits)))
      loss += 0.7 * (end - batch.terminated[i, k]) ** 2
      expected[i] += batch.taken[i, k] * loss
  near(found, expected)


def test_each_loss_has_parameters_of_its_own():
  agent = make()
  state, sample = problem()
  parts = {
    'EncoderLoss': {'encoder', 'model'},
    'CriticLoss': {'critics'},
    'PolicyLoss': {'actor'},
  }

  def gradient(params, name):
    losses, *_ = agent.losses(params, state, sample.transition, KEY)
    return losses[name].sum()

  found = jax.jit(
    lambda params: {
      name: jax.grad(gradient)(params, name=name) for name in parts
    }
  )(state.params)
  for name, gradients in found.items():
    moved = {
      part
      for part, each in gradients.items()
      if any(np.any(leaf) for leaf in jax.tree.leaves(each))
    }
    assert moved == parts[name]


def test_targets_become_what_was_in_use_and_the_newest_encoder_is_used():
  several = make(target_update_period=8, update_period=4, updates_per_period=3)
  assert several.last_count('updates', 8) == 6
  agent = make(target_update_period=3)
  update = linear.jitted(agent.update)
  _, sample = problem()
  state = jax.jit(agent.init)(jax.random.key(0), sample.transition.observation)
  scale = target_scale = 1.0
  sizes = []
  for i in range(8):
    rewards = np.float32(sample.transition.rewards * (i + 1))
    if 3 <= i < 6:
      rewards *= 0  # of which there is no mean size to divide by
    each = sample.replace(transition=sample.transition.replace(rewards=rewards))
    size = np.abs(rewards[sample.transition.taken]).mean()
    before = jax.device_get(state)
    state, metrics, _ = update(state, each, jax.random.fold_in(KEY, i))
    after = jax.device_get(state)
    if i % 3 == 0:
      mean = size if i == 0 else np.mean(sizes)
      target_scale, scale = scale, mean if mean > 0 else scale
      sizes = []
      jax.tree.map(
        np.testing.assert_array_equal,
        after.fixed_params,
        agent.encoders(before.params),
      )
      was = {**before.params, **before.fixed_params}
      jax.tree.map(np.testing.assert_array_equal, after.target_params, was)
    else:
      for name in ('fixed_params', 'target_params'):
        jax.tree.map(
          np.testing.assert_array_equal,
          getattr(after, name),
          getattr(before, name),
        )
    sizes.append(size)
    near([after.reward_scale, after.target_reward_scale], [scale, target_scale])
    near(metrics['RewardScale'], scale)
  assert after.updates == 8


def test_lanes_update_targets_when_their_own_count_says():
  agent = make(target_update_period=3)
  state, sample = problem()
  counts = np.int32([3, 4])
  states = jax.tree.map(lambda x: np.stack([x, x]), state)
  states = states.replace(updates=counts)
  found, *_ = jax.jit(
    seed_axis.SeedAxis(2).over(lambda state: agent.update(state, sample, KEY))
  )(states)
  is_same = [
    np.array_equal(
      found.fixed_params['encoder']['kernel'][i],
      state.fixed_params['encoder']['kernel'],
    )
    for i in range(2)
  ]
  assert is_same == [False, True]


def test_all_of_its_networks_are_shown_and_reset():
  state, _ = problem()
  found = make().anatomy(state)
  assert list(found) == ['Encoder', 'Actor', 'Critic1', 'Critic2']
  for i in (0, 1):
    shown = found[f'Critic{i + 1}']
    assert shown.params is state.params['critics'][i]
    assert shown.target_params is state.target_params['critics'][i]
  names = state_arrays.named(state)
  reset = {x.split('.')[0] for x in names if state_arrays.fits(x, resets.ALL)}
  assert {'params', 'fixed_params', 'target_params'} <= reset
  assert not {'updates', 'reward_scale'} & reset


def test_priorities_are_the_larger_error_and_never_below_one():
  agent = make()
  state, sample = problem()
  _, td_error, _ = linear.jitted(agent.losses)(
    state.params, state, sample.transition, KEY
  )
  _, _, priority = linear.jitted(agent.update)(state, sample, KEY)
  largest = np.abs(td_error).max(axis=0)
  assert (largest < 1).any() and (largest > 1).any()
  np.testing.assert_allclose(priority, np.maximum(largest, 1), rtol=1e-5)
  replay = agent.make_replay(1)
  assert isinstance(replay, prioritized.PrioritizedReplay)
  assert (replay.alpha, replay.beta, replay.steps_ahead) == (0.4, 0.0, K)


@pytest.mark.parametrize('kind', KINDS)
def test_it_acts_by_the_policy_and_explores_around_it(kind):
  agent = make(kind, exploration_noise=0.4)
  state, _ = problem(kind=kind)
  seen = np.float32(np.random.default_rng(1).normal(size=(B, F)))
  act = jax.jit(agent.act, static_argnames='explore')
  still = act(state, seen, jnp.int32(0), KEY, explore=False)
  moved = act(state, seen, jnp.int32(0), KEY, explore=True)
  z = seen @ state.fixed_params['encoder']['kernel']
  given = z @ state.params['actor']['kernel']
  policy_key, noise_key = jax.random.split(KEY)
  noise = 0.4 * np.asarray(jax.random.normal(noise_key, (B, A)))
  if kind == 'box':
    near(still, np.tanh(given))
    near(moved, np.clip(np.tanh(given) + noise, -1, 1))
    return
  np.testing.assert_array_equal(still, given.argmax(1))
  soft = [softmax(each / 10) for each in given + gumbel(policy_key)]
  np.testing.assert_array_equal(moved, (soft + noise / 2).argmax(1))
  outlook = jax.jit(agent.outlook)(state, seen, KEY)
  near(outlook.probabilities, [softmax(each) for each in given])


def test_no_action_is_taken_that_a_mask_forbids():
  space = spaces.Masked(OBSERVATIONS, A)
  actions = vectors.Actions(SPACES['discrete'], space)
  mask = np.array([[0, 1], [1, 0], [1, 1]], np.int8)
  seen = {'observation': np.zeros((3, F)), 'action_mask': mask}
  vector = np.float32([[5, 1], [1, 5], [1, 5]])
  found = actions.from_vectors(actions.hard(actions.allowed(vector, seen)))
  np.testing.assert_array_equal(found, [1, 0, 1])
  soft = actions.soft(actions.allowed(vector, seen), KEY)
  np.testing.assert_array_equal(np.asarray(soft) > 0, mask > 0)


# The paper's networks.


def test_normalizing_learns_nothing_and_is_of_each_row():
  x = np.float32([[1, 2, 3, 6], [0, 0, 0, 4]])
  deviation = np.sqrt(x.var(1, keepdims=True) + 1e-5)
  expected = (x - x.mean(1, keepdims=True)) / deviation
  np.testing.assert_allclose(latent.standardized(x), expected, rtol=1e-5)
  elu = np.where(expected > 0, expected, np.expm1(expected))
  np.testing.assert_allclose(latent.standardized_elu(x), elu, rtol=1e-5)


@pytest.mark.parametrize(
  ('space', 'sizes'),
  [
    (OBSERVATIONS, [(F, 512), (512, 512), (512, 512)]),
    # 84 pixels become 41, 20, 9 and 7; 7 * 7 * 32 numbers become z.
    (
      gymnasium.spaces.Box(0, 255, (84, 84, 4), np.uint8),
      [(3, 3, 4, 32), *[(3, 3, 32, 32)] * 3, (1568, 512)],
    ),
    (
      gymnasium.spaces.Box(0, 255, (8, 8, 3), np.uint8),
      [(192, 512), (512, 512), (512, 512)],
    ),
    (
      gymnasium.spaces.Box(0, 1, (10, 10, 4), bool),
      [(400, 512), (512, 512), (512, 512)],
    ),
  ],
)
def test_the_encoder_fits_what_is_observed(space, sizes):
  module = latent.fitting(space)
  seen = jax.ShapeDtypeStruct((2, *space.shape), space.dtype)
  z, params = jax.eval_shape(module.init_with_output, KEY, seen)
  assert z.shape == (2, 512)
  leaves = [x.shape for x in jax.tree.leaves(params) if len(x.shape) > 1]
  assert sorted(leaves) == sorted(sizes)


def test_the_papers_sizes():
  agent = mrq.MRQ(observation_space=OBSERVATIONS, action_space=SPACES['box'])
  seen = jax.ShapeDtypeStruct((1, F), np.float32)
  params = jax.eval_shape(agent.first_params, KEY, seen)
  kernels = {
    name: sorted(x.shape for x in jax.tree.leaves(each) if len(x.shape) > 1)
    for name, each in params.items()
  }
  hidden = [(512, 512)] * 2
  assert kernels['model'] == [
    (A, 256),
    *hidden,
    (512, 578),  # 512 of z, 65 of rewards, and whether it ends
    (768, 512),
  ]
  assert kernels['actor'] == [(512, A), *hidden]
  assert kernels['critics'] == [(512, 1)] * 2 + hidden * 3


def test_the_models_outputs_are_the_papers():
  rng = np.random.default_rng(0)
  z, action = (
    np.float32(rng.normal(size=(3, Z))),
    np.float32(rng.random((3, A))),
  )
  module = latent.LatentModel(
    num_bins=M, action_units=7, hidden=(6, 8), units=E
  )
  params = jax.jit(module.init)(KEY, z, action)
  params = jax.tree.map(lambda x: x + 0.1, params)  # biases too
  found = jax.jit(module.apply)(params, z, action)

  def dense(x, name, *inner):
    layer = double(functools.reduce(dict.get, inner, params['params'])[name])
    return x @ layer['kernel'] + layer['bias']

  def elu(x):
    return np.where(x > 0, x, np.expm1(x))

  def normalized(x):
    return (x - x.mean(1, keepdims=True)) / np.sqrt(
      x.var(1, keepdims=True) + 1e-5
    )

  x = np.concatenate([z, elu(dense(action, 'Dense_0'))], axis=1)
  for i in range(2):
    x = elu(normalized(dense(x, f'Dense_{i}', 'MLP_0', 'MLPTorso_0')))
  both = dense(x, 'Dense_0', 'MLP_0')
  y = dense(both, 'Dense_1')
  expected = both, y[:, 0], y[:, 1 : 1 + Z], y[:, 1 + Z :]
  jax.tree.map(near, found, expected)


def test_the_papers_optimizers_and_first_kernels():
  agent = mrq.MRQ()
  kernels = {'kernel': np.ones((2, 2), np.float32)}
  ones = jax.tree.map(np.ones_like, kernels)
  for name, rate, gradient in (
    ('encoder_optimizer', 1e-4, 1.0),
    ('actor_optimizer', 3e-4, 1.0),
    ('critic_optimizer', 3e-4, 1e6),  # the norm is clipped at 20
  ):
    optimizer = getattr(agent, name)
    scaled = jax.tree.map(lambda x, by=gradient: by * x, ones)
    state = optimizer.init(kernels)
    change, state = optimizer.update(scaled, state, kernels)
    # Adam's first step is the learning rate; weights decay by 1e-4 of it.
    near(change['kernel'], np.full((2, 2), -rate * (1 + 1e-4)))
    moment = optax.tree.get(state, 'mu')['kernel']
    near(moment, np.full((2, 2), 0.1 * min(gradient, 10.0)))
  # Uniform within the root of 6 over the mean of inputs and outputs, times 2.
  kernel = latent.XAVIER_RELU(KEY, (300, 500))
  bound = np.sqrt(2 * 6 / 800)
  assert 0.99 * bound < np.abs(kernel).max() <= bound


def test_bins_of_rewards_are_symmetric_and_exponential():
  agent = mrq.MRQ()
  found = np.asarray(agent.bins)
  assert len(found) == 65 and found[32] == 0
  np.testing.assert_allclose(found[[0, -1]], [-22025.466, 22025.466], rtol=1e-5)
  np.testing.assert_allclose(found[33], np.expm1(10 / 32), rtol=1e-5)
  np.testing.assert_allclose(found, -found[::-1])


def test_what_does_not_fit_is_refused():
  with pytest.raises(errors.UserError, match='whose size nobody gives'):
    make(encoder=networks.MLP).init(KEY, np.zeros((1, F), np.float32))
  with pytest.raises(errors.UserError, match=r'takes Boxes, and Discrete\(n\)'):
    make('several')
  with pytest.raises(
    errors.UserError, match='too large; it must be at most 80'
  ):
    make(reward_log_limit=100.0)
  with pytest.raises(errors.UserError, match='positive multiple of update_per'):
    make(target_update_period=5, update_period=2)

  class Small(Model):
    @nn.compact
    def __call__(self, z, action):
      x, end, z, reward = super().__call__(z, action)
      return x, end, z[:, 1:], reward

  agent = make(model=Small)
  with pytest.raises(errors.UserError, match='the network Small does not fit'):
    agent.init(KEY, np.zeros((1, F), np.float32))
