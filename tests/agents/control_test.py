"""TQC, REDQ, CrossQ and FastTD3 against their papers' equations in NumPy.

What is drawn comes from the keys that the agents draw it with.
"""

import functools

from flax import linen as nn
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import rlax

from dopamine_jax import agent as agent_lib
from dopamine_jax import errors
from dopamine_jax import networks
from dopamine_jax import values
from dopamine_jax.agents import crossq
from dopamine_jax.agents import fast_td3
from dopamine_jax.agents import redq
from dopamine_jax.agents import sac
from dopamine_jax.agents import td3
from dopamine_jax.agents import tqc
from dopamine_jax.learning import actor_critic
from dopamine_jax.learning import distributions
from tests import linear

F, A, B, K = 3, 2, 6, 3
OBSERVATIONS = gymnasium.spaces.Box(-10, 10, (F,), np.float32)
ACTIONS = gymnasium.spaces.Box(-1, 1, (A,), np.float32)
KEY = jax.random.key(7)


class Stochastic(nn.Module):
  """Means and logarithms of deviations are linear in the observation."""

  action_shape: tuple[int, ...]

  @nn.compact
  def __call__(self, observation):
    kernel = self.param('kernel', nn.initializers.normal(0.3), (F, 2 * A))
    mean, log_std = jnp.split(observation @ kernel, 2, axis=1)
    return distributions.TanhGaussian(mean, log_std)


class Deterministic(nn.Module):
  """Actions are tanh of what is linear in the observation."""

  action_shape: tuple[int, ...]

  @nn.compact
  def __call__(self, observation):
    kernel = self.param('kernel', nn.initializers.normal(0.3), (F, A))
    return distributions.Deterministic(jnp.tanh(observation @ kernel))


class Critics(nn.Module):
  """K critics of M outputs, linear in observation and action."""

  num_outputs: int = 1

  @nn.compact
  def __call__(self, observation, action):
    shape = (K, F + A, self.num_outputs)
    kernel = self.param('kernel', nn.initializers.normal(), shape)
    x = jnp.concatenate([observation, action], axis=1)
    values = jnp.einsum('bf,kfm->kbm', x, kernel)
    return values[..., 0] if self.num_outputs == 1 else values


def build(cls, **settings):
  actor = Deterministic if issubclass(cls, td3.TD3) else Stochastic
  return cls(
    **{
      'observation_space': OBSERVATIONS,
      'action_space': ACTIONS,
      'actor': actor,
      'critics': Critics,
      'actor_optimizer': optax.sgd(0.1),
      'critic_optimizer': optax.sgd(0.1),
      **settings,
    }
  )


def problem(agent, seed=0):
  """Returns a state whose targets are others, and a sample."""
  rng = np.random.default_rng(seed)

  def normal(*shape):
    return np.asarray(rng.normal(size=shape), np.float32)

  batch = agent_lib.Transition(
    observation=normal(B, F),
    action=np.asarray(rng.uniform(-1, 1, (B, A)), np.float32),
    reward=normal(B),
    discount=np.float32([0.9, 0.0, 0.81, 0.9, 0.0, 0.9]),
    next_observation=normal(B, F),
  )
  init = jax.jit(agent.init)
  state, other = (init(jax.random.key(i), batch.observation) for i in range(2))
  state = state.replace(target_params=other.target_params)
  weight = np.asarray(rng.uniform(0.1, 1, B), np.float32)
  return state, agent_lib.Sample(batch, np.arange(B), weight)


def double(tree):
  return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def losses_of(agent, state, batch):
  return jax.device_get(
    linear.jitted(agent.losses)(state.params, state.target_params, batch, KEY)
  )


def drawn(kernel, seen, key):
  """Returns actions [B, A] of the linear policy, and log-probabilities [B]."""
  mean, log_std = np.split(seen @ kernel, 2, axis=1)
  noise = np.asarray(jax.random.normal(key, (B, A)), np.float64)
  x = mean + np.exp(log_std) * noise
  density = -(noise**2) / 2 - np.log(2 * np.pi) / 2 - log_std
  return np.tanh(x), (density + 2 * np.log(np.cosh(x))).sum(axis=1)


def outputs_of(kernel, seen, action):
  return np.einsum('bf,kfm->kbm', np.concatenate([seen, action], 1), kernel)


def assert_near(actual, expected):
  np.testing.assert_allclose(actual, expected, rtol=5e-4, atol=5e-5)


def test_tqc_leaves_out_the_largest_quantiles_of_all_critics_together():
  agent = build(tqc.TQC, num_quantiles=5, num_dropped=2, temperature=0.5)
  state, sample = problem(agent)
  losses, td_error, metrics = losses_of(agent, state, sample.transition)
  params, targets, batch = double(
    (state.params, state.target_params, sample.transition)
  )
  actor, critics = params['actor']['kernel'], params['critics']['kernel']
  target_key, key = jax.random.split(KEY)
  action, log_prob = drawn(actor, batch.next_observation, target_key)
  pool = outputs_of(targets['kernel'], batch.next_observation, action)
  quantiles = outputs_of(critics, batch.observation, batch.action)
  expected, errors_of = np.zeros(B), np.zeros((K, B))
  for i in range(B):
    kept = np.sort(pool[:, i].ravel())[: K * (5 - 2)]
    value = kept - 0.5 * log_prob[i]
    target = batch.reward[i] + batch.discount[i] * value
    for k in range(K):
      total = 0.0
      for m, tau in enumerate([0.1, 0.3, 0.5, 0.7, 0.9]):
        error = target - quantiles[k, i, m]
        huber = np.where(abs(error) <= 1, error**2 / 2, abs(error) - 0.5)
        total += np.mean(np.where(error < 0, 1 - tau, tau) * huber)
      expected[i] += total / 5
      errors_of[k, i] = target.mean() - quantiles[k, i].mean()
  assert_near(losses['CriticLoss'], expected)
  assert_near(td_error, errors_of)
  # The policy believes all of them.
  action, log_prob = drawn(actor, batch.observation, key)
  worth = outputs_of(critics, batch.observation, action).mean(axis=(0, 2))
  assert_near(losses['PolicyLoss'], 0.5 * log_prob - worth)
  assert_near(metrics['QMean'], quantiles.mean())


def test_redqs_targets_are_of_few_critics_and_its_policy_of_all():
  agent = build(redq.REDQ, num_sampled=2)
  state, sample = problem(agent)
  losses, _, _ = losses_of(agent, state, sample.transition)
  params, targets, batch = double(
    (state.params, state.target_params, sample.transition)
  )
  actor, critics = params['actor']['kernel'], params['critics']['kernel']
  target_key, key = jax.random.split(KEY)
  action, log_prob = drawn(actor, batch.next_observation, target_key)
  q = outputs_of(targets['kernel'], batch.next_observation, action)[..., 0]
  found = outputs_of(critics, batch.observation, batch.action)[..., 0]
  fits = []
  for pair in ([0, 1], [0, 2], [1, 2]):
    value = q[pair].min(axis=0) - log_prob
    target = batch.reward + batch.discount * value
    loss = ((target - found) ** 2).sum(axis=0) / 2
    fits.append(np.allclose(losses['CriticLoss'], loss, rtol=1e-3, atol=1e-4))
  assert sum(fits) == 1  # one pair for the whole batch
  action, log_prob = drawn(actor, batch.observation, key)
  worth = outputs_of(critics, batch.observation, action)[..., 0].mean(axis=0)
  assert_near(losses['PolicyLoss'], log_prob - worth)


def test_redq_draws_each_pair_alike():
  agent = build(redq.REDQ, num_sampled=2)
  q = jnp.array([[0.0], [1.0], [2.0]])  # the lowest of a pair is 0, 0 or 1
  keys = jax.random.split(KEY, 3_000)
  lowest = jax.jit(jax.vmap(lambda key: agent.pooled(q, key)))(keys)
  assert set(np.unique(lowest)) == {0.0, 1.0}
  np.testing.assert_allclose(np.mean(lowest), 1 / 3, atol=0.04)


def test_more_critics_than_there_are_cannot_be_drawn():
  agent = build(redq.REDQ, num_sampled=4)
  with pytest.raises(errors.UserError, match='more than the 3 critics'):
    agent.init(KEY, np.zeros((1, F), np.float32))


def test_droqs_targets_and_policy_have_dropout():
  critics = functools.partial(
    actor_critic.Critics,
    activation=functools.partial(
      networks.dropout_relu, rate=0.5, layer_norm=True
    ),
  )
  agent = build(redq.REDQ, critics=critics, temperature=1e-6)
  state, sample = problem(agent)
  batch = sample.transition
  seen = batch.observation, batch.action
  found = [
    np.asarray(
      agent.policy_value(state.params['critics'], *seen, jax.random.key(i))
    )
    for i in range(20)
  ]
  assert np.all(np.std(found, axis=0) > 0.01)
  targets = linear.jitted(agent.targets)
  given = state.params, state.target_params, batch
  twice, other = (
    [np.asarray(targets(*given, jax.random.key(i))) for i in pair]
    for pair in ((0, 0), (0, 1))
  )
  np.testing.assert_array_equal(*twice)
  assert np.all((other[0] != other[1]) == (np.asarray(batch.discount) > 0))
  # What films show is what one acts by, which has none.
  outlook = linear.jitted(agent.outlook)
  shown, again = (
    outlook(state, batch.observation, jax.random.key(i)) for i in range(2)
  )
  np.testing.assert_array_equal(shown.value, again.value)
  critics = state.params['critics'], batch.observation, shown.mean
  assert_near(shown.value, np.mean(agent.q_values(*critics), axis=0))


class Doubling(tqc.TQC):
  """Targets are twice as large."""

  def backed_up(self, params, batch, value, log_prob):
    return 2 * super().backed_up(params, batch, value, log_prob)


def test_tqcs_targets_are_backed_up_as_sacs():
  agent, own = (build(cls, num_quantiles=5) for cls in (tqc.TQC, Doubling))
  state, sample = problem(agent)
  target, twice = (
    linear.jitted(each.target_quantiles)(
      state.params, state.target_params, sample.transition, KEY
    )
    for each in (agent, own)
  )
  assert_near(twice, 2 * np.asarray(target))


def batch_normalized(x):
  return (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-3)


def test_crossqs_critics_normalize_steps_and_what_followed_together():
  agent = build(
    crossq.CrossQ,
    critics=functools.partial(
      actor_critic.Critics,
      network=functools.partial(networks.BatchRenormMLP, hidden=(4,)),
    ),
    temperature_optimizer=None,
    policy_delay=1,
  )
  state, sample = problem(agent)
  new, metrics, _ = linear.jitted(agent.update)(state, sample, KEY)
  params, batch = double((state.params, sample.transition))
  target_key, key = jax.random.split(KEY)
  actor = params['actor']['kernel']
  action, log_prob = drawn(actor, batch.next_observation, target_key)
  x = np.concatenate(
    [
      np.concatenate([batch.observation, batch.action], axis=1),
      np.concatenate([batch.next_observation, action], axis=1),
    ]
  )
  values = []
  for name in ('BatchRenormMLP_0', 'BatchRenormMLP_1'):
    layers = params['critics'].params[name]
    hidden = batch_normalized(x) @ layers['Dense_0']['kernel']
    hidden = batch_normalized(np.maximum(hidden, 0))
    values.append((hidden @ layers['Dense_1']['kernel'])[:, 0])
  q, q_next = np.split(np.array(values), 2, axis=1)
  target = batch.reward + batch.discount * (q_next.min(axis=0) - log_prob)
  weight = np.asarray(sample.weight, np.float64)
  loss = ((target - q) ** 2).sum(axis=0) / 2
  assert_near(metrics['CriticLoss'], np.mean(weight * loss))
  # The policy's loss is of the running statistics, as they were: 0 and 1.
  statistics = new.params['critics'].collections['batch_stats']
  first = statistics['BatchRenormMLP_0']['BatchRenorm_0']
  assert_near(first['mean'], 0.01 * x.mean(axis=0))
  assert first['count'] == 1
  action, log_prob = drawn(actor, batch.observation, key)
  seen = np.concatenate([batch.observation, action], axis=1)
  worth = []
  for name in ('BatchRenormMLP_0', 'BatchRenormMLP_1'):
    layers = params['critics'].params[name]
    hidden = seen / np.sqrt(1 + 1e-3) @ layers['Dense_0']['kernel']
    hidden = np.maximum(hidden, 0) / np.sqrt(1 + 1e-3)
    worth.append((hidden @ layers['Dense_1']['kernel'])[:, 0])
  expected = np.mean(weight * (log_prob - np.min(worth, axis=0)))
  assert_near(metrics['PolicyLoss'], expected)
  assert new.target_params == {}


def test_crossq_has_no_tau():
  with pytest.raises(errors.UserError, match=r'tau = 0\.1 has no effect'):
    build(crossq.CrossQ, tau=0.1)


def test_fast_td3s_target_is_the_distribution_with_the_lower_mean():
  agent = build(
    fast_td3.FastTD3,
    num_atoms=7,
    v_min=-3.0,
    v_max=3.0,
    target_noise=0.5,
    noise_clip=0.2,
  )
  state, sample = problem(agent)
  losses, _, metrics = losses_of(agent, state, sample.transition)
  params, targets, batch = double(
    (state.params, state.target_params, sample.transition)
  )
  target_key, _ = jax.random.split(KEY)
  noise = 0.5 * np.asarray(jax.random.normal(target_key, (B, A)), np.float64)
  action = np.tanh(batch.next_observation @ params['actor']['kernel'])
  action = np.clip(action + np.clip(noise, -0.2, 0.2), -1, 1)
  atoms = np.linspace(-3, 3, 7)

  def softmax(x):
    x = np.exp(x - x.max(axis=-1, keepdims=True))
    return x / x.sum(axis=-1, keepdims=True)

  then = softmax(outputs_of(targets['kernel'], batch.next_observation, action))
  own = params['critics']['kernel']
  now = softmax(outputs_of(own, batch.observation, batch.action))
  expected = np.zeros(B)
  for i in range(B):
    lower = np.argmin(then[:, i] @ atoms)
    target = rlax.categorical_l2_project(
      jnp.float32(batch.reward[i] + batch.discount[i] * atoms),
      jnp.float32(then[lower, i]),
      jnp.float32(atoms),
    )
    for k in range(K):
      expected[i] -= np.sum(np.asarray(target) * np.log(now[k, i]))
  assert_near(losses['CriticLoss'], expected)
  assert_near(metrics['QMean'], (now @ atoms).mean())
  action = np.tanh(batch.observation @ params['actor']['kernel'])
  worth = softmax(outputs_of(own, batch.observation, action)) @ atoms
  assert_near(losses['PolicyLoss'], -worth.min(axis=0))


def test_fast_td3s_environments_explore_from_little_to_much():
  agent = build(
    fast_td3.FastTD3, exploration_noise=0.5, least_noise=0.1, num_atoms=3
  )
  state, _ = problem(agent)
  seen = np.zeros((4, F), np.float32)  # where the action is 0
  act = lambda key: agent.act(state, seen, 0, key, explore=True)  # noqa: E731
  found = jax.jit(jax.vmap(act))(jax.random.split(KEY, 2_000))
  inner = np.where(np.abs(found) < 0.99, found, np.nan)
  std = np.nanstd(inner, axis=(0, 2))
  np.testing.assert_allclose(std, [0.1, 0.23, 0.36, 0.46], atol=0.03)
  assert not np.any(agent.act(state, seen, 0, KEY, explore=False))


@pytest.mark.parametrize(
  ('cls', 'settings', 'named'),
  [
    (tqc.TQC, {'num_quantiles': 3, 'num_dropped': 3}, 'leaves nothing'),
    (tqc.TQC, {'num_quantiles': 1, 'num_dropped': 0}, 'num_quantiles'),
    (tqc.TQC, {'num_dropped': -1}, 'num_dropped'),
    (redq.REDQ, {'num_sampled': 0}, 'num_sampled'),
    (fast_td3.FastTD3, {'v_min': 3.0, 'v_max': 3.0}, 'v_min'),
    (fast_td3.FastTD3, {'num_atoms': 1}, 'num_atoms'),
    (fast_td3.FastTD3, {'least_noise': -0.1}, 'least_noise'),
    (fast_td3.FastTD3, {'least_noise': 0.5}, 'above exploration_noise'),
    (
      sac.SAC,
      {'temperature_optimizer': None, 'target_entropy': -3.0},
      'target_entropy .* has no effect',
    ),
  ],
)
def test_settings_that_cannot_work_are_refused(cls, settings, named):
  with pytest.raises(errors.UserError, match=named):
    build(cls, **settings)


def test_methods_that_no_loss_would_call_are_refused():
  def targets(self, params, target_params, batch, key):
    return batch.reward

  def critic_loss(self, params, target_params, batch, key):
    return self.squared_loss(
      self.q_values(params['critics'], batch.observation, batch.action),
      self.targets(params, target_params, batch, key),
    )

  for cls, name, instead in (
    (tqc.TQC, 'targets', 'TQC learns by `target_quantiles`'),
    (tqc.TQC, 'pooled', 'TQC learns by `target_quantiles`'),
    (tqc.TQC, 'squared_loss', 'TQC learns by `critic_loss`'),
    (crossq.CrossQ, 'targets', 'CrossQ learns by `critic_loss`'),
    (fast_td3.FastTD3, 'targets', 'FastTD3 learns by `critic_loss`'),
    (fast_td3.FastTD3, 'squared_loss', 'FastTD3 learns by `critic_loss`'),
  ):
    mine = type('Mine', (cls,), {name: targets})
    with pytest.raises(errors.UserError, match=rf'Mine\.{name} .*{instead}'):
      mine()
    with pytest.raises(errors.UserError, match=instead):
      type('Further', (mine,), {})()
    type('Whole', (mine,), {'critic_loss': critic_loss})()
  type('Plain', (sac.SAC,), {'targets': targets})()


@pytest.mark.parametrize(
  'cls', [sac.SAC, td3.TD3, redq.REDQ, tqc.TQC, fast_td3.FastTD3]
)
def test_films_and_metrics_have_values_of_raw_rewards(cls):
  shown = []
  for scale in (1.0, 0.1):
    atoms = {'num_atoms': 11} if cls is fast_td3.FastTD3 else {}
    agent = build(cls, reward_scale=scale, **atoms)
    state, sample = problem(agent)
    batch = sample.transition.replace(reward=np.zeros(B, np.float32))
    shown.append(
      (
        linear.jitted(agent.outlook)(state, batch.observation, KEY).value,
        losses_of(agent, state, batch)[2]['QMean'],
        agent.anatomy(state)['Critics'].values(
          state.params['critics'], batch.observation, batch.action, KEY
        ),
      )
    )
  for raw, scaled in zip(*shown, strict=True):
    np.testing.assert_allclose(10 * raw, scaled, rtol=1e-5)


def test_a_subclass_may_have_a_default_that_is_not_read():
  class Fixed(sac.SAC):
    target_entropy: float = -0.5

  Fixed(temperature_optimizer=None)
  with pytest.raises(errors.UserError, match=r'target_entropy .* no effect'):
    Fixed(temperature_optimizer=None, target_entropy=-1.0)


def simba(units=4):
  network = functools.partial(networks.SimBa, units=units)
  torso = networks.RunningNorm()
  return {
    'actor': functools.partial(
      actor_critic.Actor, network=network, torso=torso
    ),
    'critics': functools.partial(
      actor_critic.Critics, network=network, torso=torso
    ),
  }


def test_simba_and_running_observations_are_bindings_of_sac():
  agent = build(sac.SAC, **simba())
  state, sample = problem(agent)
  update = linear.jitted(agent.update)
  seen = []
  for i in range(3):
    sample = problem(agent, seed=i)[1]
    seen.append(sample.transition.observation)
    state, _, _ = update(state, sample, jax.random.fold_in(KEY, i))
  batch = sample.transition
  # The first three passes normalize by what was known before each.
  both = np.concatenate(seen)
  for name in ('actor', 'critics'):
    found = state.params[name].collections['batch_stats']['torso']
    assert found['count'] == 3 * B
    assert_near(found['mean'], both.mean(axis=0))
    assert_near(found['variance'], both.var(axis=0))
  targets = state.target_params.collections['batch_stats']['torso']
  assert_near(targets['mean'], both.mean(axis=0))
  # Acting reads them.
  policy = agent.policy(state.params['actor'], batch.observation)
  params = double(state.params['actor'].params)
  x = (batch.observation - both.mean(axis=0)) / both.std(axis=0)
  outputs = simba_by_hand(params['SimBa_0'], x)
  assert_near(policy.mean, outputs[:, :A])
  assert_near(policy.log_std, outputs[:, A:])


def simba_by_hand(params, x):
  def dense(name, x):
    return x @ params[name]['kernel'] + params[name]['bias']

  def norm(name, x):
    centred = x - x.mean(axis=1, keepdims=True)
    scaled = centred / np.sqrt(x.var(axis=1, keepdims=True) + 1e-6)
    return scaled * params[name]['scale'] + params[name]['bias']

  x = dense('Dense_0', x)
  hidden = np.maximum(dense('Dense_1', norm('LayerNorm_0', x)), 0)
  x = x + dense('Dense_2', hidden)
  return dense('Dense_3', norm('LayerNorm_1', x))


@pytest.mark.parametrize(
  ('maker', 'named'),
  [
    (functools.partial(actor_critic.Actor, hidden=(3,)), 'hidden'),
    (functools.partial(actor_critic.Critics, activation=nn.tanh), 'activation'),
    (
      functools.partial(actor_critic.DeterministicActor, hidden=()),
      'hidden',
    ),
  ],
)
def test_layers_are_said_once(maker, named):
  with pytest.raises(errors.UserError, match=f'{named} = .* has no effect'):
    maker(network=networks.SimBa)


def test_a_runs_own_configuration_makes_its_networks_again():
  # Its initializers are other objects, made alike.
  again = values.call(nn.initializers.glorot_uniform, in_axis=-2)
  module = actor_critic.Critics(network=networks.SimBa, kernel_init=again)
  assert module.kernel_init is not actor_critic.Critics.kernel_init
  with pytest.raises(errors.UserError, match=r'kernel_init = .* has no effect'):
    actor_critic.Critics(
      network=networks.SimBa,
      kernel_init=values.call(nn.initializers.he_uniform),
    )


def test_sac_needs_an_actor_to_draw_from():
  agent = build(sac.SAC, actor=Deterministic)
  with pytest.raises(errors.UserError, match='no action can be drawn'):
    agent.init(KEY, np.zeros((1, F), np.float32))
