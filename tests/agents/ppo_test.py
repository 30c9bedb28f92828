"""PPO against its paper's equations in NumPy, one sample at a time."""

import functools

from flax import linen as nn
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
import scipy.stats

from dopamine_jax import agent as agent_lib
from dopamine_jax import errors
from dopamine_jax.agents import ppo
from dopamine_jax.learning import normalization

T, N, B = 4, 2, 8
OBSERVATIONS = gymnasium.spaces.Box(-10, 10, (3,), np.float32)
DISCRETE = gymnasium.spaces.Discrete(3)
BOX = gymnasium.spaces.Box(-1, 1, (2,))


class Linear(nn.Module):
  """Outputs and values are linear in the observation."""

  num_outputs: int

  @nn.compact
  def __call__(self, observation):
    normal = nn.initializers.normal()
    size = observation.shape[-1]
    policy = self.param('policy', normal, (size, self.num_outputs))
    value = self.param('value', normal, (size,))
    return observation @ policy, observation @ value


def make(space=DISCRETE, **settings):
  return ppo.PPO(
    **{
      'observation_space': OBSERVATIONS,
      'action_space': space,
      'network': Linear,
      'optimizer': optax.sgd(0.1),
      'update_period': T * N,
      'num_epochs': 1,
      'num_minibatches': 1,
      **settings,
    }
  )


def random_problem(space, seed=0):
  """Returns parameters and a batch whose policy and values differ a little."""
  rng = np.random.default_rng(seed)
  outputs = 3 if space is DISCRETE else 2
  params = {
    'network': {
      'policy': np.asarray(rng.normal(size=(3, outputs)), np.float32),
      'value': np.asarray(rng.normal(size=3), np.float32),
    },
    'log_std': np.asarray(
      rng.normal(0, 0.3, () if space is DISCRETE else 2), np.float32
    ),
  }
  observation = rng.normal(size=(B, 3)).astype(np.float32)
  action = rng.normal(size=(B, 2)).astype(np.float32)
  if space is DISCRETE:
    action = rng.integers(3, size=B)
  log_prob, _, value = policy_by_hand(params, observation, action)
  return params, ppo.Batch(
    observation=observation,
    action=action,
    log_prob=np.asarray(log_prob + rng.normal(0, 0.3, B), np.float32),
    value=np.asarray(value + rng.normal(0, 0.5, B), np.float32),
    target=np.asarray(value + rng.normal(0, 1, B), np.float32),
  )


def policy_by_hand(params, observation, action):
  """Returns log-probabilities, entropies and values [B]."""
  params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
  outputs = observation @ params['network']['policy']
  value = observation @ params['network']['value']
  if np.ndim(action) == 1:
    p = scipy.special.softmax(outputs, axis=1)
    log_prob = np.log(p[np.arange(len(p)), np.asarray(action)])
    return log_prob, scipy.stats.entropy(p, axis=1), value
  normal = scipy.stats.norm(outputs, np.exp(params['log_std']))
  return normal.logpdf(action).sum(1), normal.entropy().sum(1), value


def loss_by_hand(params, batch, *, clip, value_clip, c1, c2, normalize):
  """Eq. 9 of the paper, negated, with L^CLIP of eq. 7."""
  log_prob, entropy, value = policy_by_hand(
    params, np.asarray(batch.observation), np.asarray(batch.action)
  )
  advantage = np.asarray(batch.target - batch.value, np.float64)
  if normalize:
    advantage = (advantage - advantage.mean()) / advantage.std()
  total = 0.0
  for i in range(len(value)):
    ratio = np.exp(log_prob[i] - batch.log_prob[i])
    clipped = min(max(ratio, 1 - clip), 1 + clip)
    objective = min(ratio * advantage[i], clipped * advantage[i])
    error = (value[i] - batch.target[i]) ** 2
    if value_clip is not None:
      moved = value[i] - batch.value[i]
      moved = min(max(moved, -value_clip), value_clip)
      error = max(error, (batch.value[i] + moved - batch.target[i]) ** 2)
    total += objective - c1 * error / 2 + c2 * entropy[i]
  return -total / len(value)


@pytest.mark.parametrize('normalize', [False, True])
@pytest.mark.parametrize('value_clip', [None, 0.2])
@pytest.mark.parametrize('space', [DISCRETE, BOX], ids=['discrete', 'box'])
def test_the_loss_is_that_of_the_paper(space, value_clip, normalize):
  agent = make(
    space,
    clip=0.15,
    value_clip=value_clip,
    value_weight=0.7,
    entropy_weight=0.03,
    normalize_advantages=normalize,
  )
  loss = jax.jit(agent.loss)
  for seed in range(3):
    params, batch = random_problem(space, seed)
    found, _ = loss(params, batch, 0)
    expected = loss_by_hand(
      params,
      batch,
      clip=0.15,
      value_clip=value_clip,
      c1=0.7,
      c2=0.03,
      normalize=normalize,
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_clipping_takes_the_gradient_where_the_policy_went_far_enough():
  # The ratio is 1.5; with a positive advantage there is nothing more to gain.
  params, batch = random_problem(DISCRETE)
  one = jax.tree.map(lambda x: x[:1], batch)
  log_prob, *_ = policy_by_hand(params, one.observation, one.action)
  far = one.replace(log_prob=np.float32(log_prob - np.log(1.5)))
  agent = make(clip=0.2, value_weight=0.0, normalize_advantages=False)

  def slopes(clip, *advantages):
    gradient = jax.jit(jax.grad(agent.replace(clip=clip).loss, has_aux=True))
    for advantage in advantages:
      batch = far.replace(target=far.value + np.float32(advantage))
      gradients, _ = gradient(params, batch, 0)
      yield np.abs(gradients['network']['policy']).max()

  gaining, losing = slopes(0.2, 1.0, -1.0)
  assert gaining == 0
  assert losing > 0.1
  (gaining,) = slopes(0.6, 1.0)
  assert gaining > 0.1


def test_clip_may_be_a_schedule_over_updates():
  agent = make(clip=optax.linear_schedule(0.4, 0.0, 10))
  params, batch = random_problem(DISCRETE)
  loss = jax.jit(agent.loss)
  for updates, clip in [(0, 0.4), (5, 0.2)]:
    scheduled = loss(params, batch, updates)
    constant = jax.jit(agent.replace(clip=clip).loss)(params, batch, 0)
    np.testing.assert_allclose(scheduled[0], constant[0], rtol=1e-6)


def test_the_metrics_say_how_far_the_policy_went():
  agent = make(clip=0.1)
  params, batch = random_problem(DISCRETE)
  _, metrics = jax.jit(agent.loss)(params, batch, 0)
  log_prob, entropy, _ = policy_by_hand(
    params, batch.observation, np.asarray(batch.action)
  )
  log_ratio = log_prob - np.asarray(batch.log_prob)
  ratio = np.exp(log_ratio)
  np.testing.assert_allclose(metrics['Entropy'], entropy.mean(), rtol=1e-5)
  np.testing.assert_allclose(
    metrics['KL'], (ratio - 1 - log_ratio).mean(), rtol=1e-4
  )
  far = (np.abs(ratio - 1) > 0.1).mean()
  assert 0 < far < 1
  np.testing.assert_allclose(metrics['ClipFraction'], far)


# A whole update.


def make_sample(space=DISCRETE, seed=0):
  rng = np.random.default_rng(seed)
  observation = rng.normal(2, 3, (T + 1, N, 3)).astype(np.float32)
  action = rng.normal(size=(T, N, 2)).astype(np.float32)
  if space is DISCRETE:
    action = rng.integers(3, size=(T, N))
  last = np.zeros((T, N), bool)
  last[1, 0] = last[2, 1] = True
  discount = np.full((T, N), 0.99, np.float32)
  discount[1, 0] = 0
  return agent_lib.Sample(
    transition=agent_lib.Trajectory(
      observation=observation[:-1],
      action=action,
      reward=np.asarray(rng.normal(size=(T, N)), np.float32),
      discount=discount,
      next_observation=np.asarray(
        np.where(last[..., None], 1.5, observation[1:]), np.float32
      ),
      last=last,
    ),
    index=np.zeros((T, N), np.int32),
    weight=np.ones((T, N), np.float32),
  )


def start(agent, seed=0):
  return jax.jit(agent.init)(jax.random.key(seed), np.zeros((N, 3), np.float32))


@pytest.mark.parametrize('space', [DISCRETE, BOX], ids=['discrete', 'box'])
def test_an_update_starts_with_the_policy_that_acted(space):
  agent = make(space, normalize_observations=True, normalize_rewards=True)
  update = jax.jit(agent.update)
  state = start(agent)
  for seed in range(3):
    # One minibatch: its ratios are those before any step.
    state, metrics, _ = update(
      state, make_sample(space, seed), jax.random.key(seed)
    )
    np.testing.assert_allclose(metrics['KL'], 0, atol=1e-6)
    assert metrics['ClipFraction'] == 0
    assert metrics['PolicyLoss'] == pytest.approx(0, abs=1e-5)
    assert metrics['GradientNorm'] > 0
  assert state.updates == 3


@pytest.mark.parametrize('space', [DISCRETE, BOX])
def test_an_update_changes_no_type_and_so_is_compiled_once(space):
  agent = make(space)
  state = start(agent)
  updated, _, _ = jax.eval_shape(
    agent.update, state, make_sample(space), jax.random.key(0)
  )
  for old, new in zip(
    jax.tree.leaves(state), jax.tree.leaves(updated), strict=True
  ):
    assert jax.typeof(old) == jax.typeof(new)  # weak types included


def test_an_update_of_one_minibatch_is_one_gradient_step():
  agent = make(gae_lambda=0.8, normalize_advantages=False)
  state, sample = start(agent), make_sample()
  t = sample.transition
  kernel = np.asarray(state.params['network']['value'], np.float64)
  v, v_next = t.observation @ kernel, t.next_observation @ kernel
  delta = t.reward + t.discount * v_next - v
  advantage = np.zeros((T + 1, N))
  for i in reversed(range(T)):
    goes_on = 0.8 * t.discount[i] * ~t.last[i]
    advantage[i] = delta[i] + goes_on * advantage[i + 1]
  # Half the squared error of targets A + v, weighted by 0.5.
  gradient = -0.5 * np.einsum('tn,tnk->k', advantage[:-1], t.observation) / B
  new, *_ = jax.jit(agent.update)(state, sample, jax.random.key(0))
  np.testing.assert_allclose(
    new.params['network']['value'], kernel - 0.1 * gradient, rtol=1e-4
  )


def test_every_sample_is_used_once_an_epoch():
  class Sums(ppo.PPO):
    """Its gradient is the sum of the observations of a minibatch."""

    def loss(self, params, batch, updates):
      seen = jnp.sum(batch.observation @ params['network']['value'])
      return seen, {'First': batch.observation[0, 0]}

  settings = {f: getattr(make(), f) for f in make().__dataclass_fields__}
  for epochs, minibatches in [(1, 4), (3, 2)]:
    agent = Sums(
      **settings
      | {'num_epochs': epochs, 'num_minibatches': minibatches}
      | {'optimizer': optax.sgd(1.0)}
    )
    state, sample = start(agent), make_sample()
    update = jax.jit(agent.update)
    new, metrics, _ = update(state, sample, jax.random.key(0))
    assert metrics['GradientSteps'] == epochs * minibatches
    np.testing.assert_allclose(
      np.subtract(*(x.params['network']['value'] for x in (state, new))),
      epochs * sample.transition.observation.sum((0, 1)),
      rtol=1e-4,
    )
  _, other, _ = update(state, sample, jax.random.key(1))
  assert metrics['First'] != other['First']


def test_a_target_kl_ends_the_update():
  agent = make(optimizer=optax.sgd(3.0), num_epochs=20, num_minibatches=2)
  state, sample = start(agent), make_sample()

  def update(**changes):
    changed = agent.replace(**changes)
    return jax.jit(changed.update)(state, sample, jax.random.key(0))[1]

  free, bound = update(), update(target_kl=0.01)
  assert free['GradientSteps'] == 40
  assert 1 <= bound['GradientSteps'] < 40
  assert bound['KL'] < 0.01 < free['KL']
  assert update(target_kl=1e9)['KL'] == free['KL']


def test_statistics_change_with_an_update_and_never_by_acting():
  agent = make(normalize_observations=True, normalize_rewards=True)
  state, sample = start(agent), make_sample()
  seen = sample.transition.observation.reshape(-1, 3)
  first, *_ = jax.jit(agent.update)(state, sample, jax.random.key(0))
  np.testing.assert_allclose(first.observations.mean, seen.mean(0), rtol=1e-5)
  np.testing.assert_allclose(
    first.observations.variance, seen.var(0), rtol=1e-5
  )
  assert first.rewards.running.shape == (N,)
  # What the agent sees is normalized by them, whether it explores or not.
  plain = make()
  bare = first.replace(observations=normalization.Identity())
  act, plain_act = (
    jax.jit(each.act, static_argnames='explore') for each in (agent, plain)
  )
  for explore in (False, True):
    args = 0, jax.random.key(5)
    found = act(first, seen[:N], *args, explore=explore)
    scaled = (seen[:N] - seen.mean(0)) / seen.std(0)
    expected = plain_act(bare, scaled, *args, explore=explore)
    np.testing.assert_array_equal(found, expected)


def test_rewards_are_scaled_by_what_the_rollout_itself_adds():
  agent = make(normalize_rewards=True)
  state, sample = start(agent), make_sample()
  new, metrics, _ = jax.jit(agent.update)(state, sample, jax.random.key(0))
  scaled = sample.replace(
    transition=sample.transition.replace(
      reward=new.rewards.normalize(sample.transition.reward)
    )
  )
  plain = make()
  update = jax.jit(plain.update)
  _, expected, _ = update(start(plain), scaled, jax.random.key(0))
  np.testing.assert_allclose(metrics['Loss'], expected['Loss'], rtol=1e-5)


# Acting.


def test_training_draws_from_the_policy_and_evaluation_takes_its_mode():
  for space in (DISCRETE, BOX):
    agent = make(space)
    state, observation = start(agent), np.ones((N, 3), np.float32)

    @jax.jit
    def play(keys, agent=agent, state=state, observation=observation):
      def act(key, explore):
        return agent.act(state, observation, 0, key, explore=explore)

      policy, _ = agent.policy(state.params, observation)
      drawn = jax.vmap(functools.partial(act, explore=True))(keys)
      greedy = jax.vmap(functools.partial(act, explore=False))(keys)
      return drawn, greedy, policy.mode()

    drawn, greedy, mode = play(jax.random.split(jax.random.key(0), 300))
    assert drawn.shape == (300, N, *space.shape)
    assert len(np.unique(drawn)) >= 3
    expected = np.broadcast_to(mode, greedy.shape)
    np.testing.assert_allclose(greedy, expected)


def test_the_first_policy_is_nearly_uniform_and_actor_and_critic_are_apart():
  agent = make(network=ppo.PPO.network)

  @jax.jit
  def look(observation):
    params = start(agent).params

    def of_value(params):
      policy, value = agent.policy(params, observation)
      return jnp.sum(value), (policy.entropy(), value)

    return jax.grad(of_value, has_aux=True)(params)

  slopes, (entropy, value) = look(np.full((N, 3), 3.0))
  np.testing.assert_allclose(entropy, np.log(3), rtol=1e-3)
  assert np.all(np.abs(value) > 1e-3)
  moved = {
    name
    for name, layer in slopes['network'].items()
    if max(np.abs(leaf).max() for leaf in jax.tree.leaves(layer)) > 0
  }
  assert moved == {'MLPTorso_1', 'Dense_1'}


def test_the_standard_deviation_is_learned_and_the_same_everywhere():
  agent = make(BOX, log_std=-0.5)
  state = start(agent)
  observation = np.arange(6, dtype=np.float32).reshape(2, 3)
  policy, _ = jax.jit(agent.policy)(state.params, observation)
  np.testing.assert_allclose(policy.log_std, np.full((2, 2), -0.5))
  new, *_ = jax.jit(agent.update)(state, make_sample(BOX), jax.random.key(0))
  assert np.abs(new.params['log_std'] + 0.5).max() > 1e-4


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'num_minibatches': 3}, 'update_period = 8 is not.*multiple'),
    ({'gae_lambda': 1.1}, r'gae_lambda = 1.1 is out of range'),
    ({'target_kl': -1.0}, 'target_kl = -1.0 is too small'),
    ({'num_epochs': 0}, 'num_epochs = 0 is too small'),
    ({'log_std': 5.0, 'continuous': 'tanh_gaussian'}, 'must be at most 2.0'),
    (
      {'action_space': gymnasium.spaces.MultiBinary(2)},
      'action_space.*does not fit',
    ),
  ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
  with pytest.raises(errors.UserError, match=message):
    make(**settings)


@pytest.mark.parametrize(
  ('name', 'value'), [('continuous', 'beta'), ('log_std', -1.0)]
)
def test_what_is_of_continuous_actions_is_refused_of_discrete_ones(name, value):
  with pytest.raises(errors.UserError, match=f'{name} = .* has no effect'):
    ppo.PPO(action_space=gymnasium.spaces.Discrete(2), **{name: value})
