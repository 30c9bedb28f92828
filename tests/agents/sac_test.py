"""SAC against its paper's equations in NumPy, one transition at a time.

Policy and critics are linear, so that all but the policy's gradient can be
written down. What is drawn comes from the keys that the agent draws it with.
"""

import functools

from flax import linen as nn
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

from dopamine_jax import agent as agent_lib
from dopamine_jax import errors
from dopamine_jax import lanes
from dopamine_jax.agents import sac
from dopamine_jax.learning import actor_critic
from dopamine_jax.learning import distributions
from dopamine_jax.replay import prioritized
from tests import linear

F, A, B = 3, 2, 6
RATE = 0.1
OBSERVATIONS = gymnasium.spaces.Box(-10, 10, (F,), np.float32)
ACTIONS = gymnasium.spaces.Box(-1, 1, (A,), np.float32)
KEY = jax.random.key(7)


class Actor(nn.Module):
  """Means and logarithms of deviations are linear in the observation."""

  action_shape: tuple[int, ...]

  @nn.compact
  def __call__(self, observation):
    kernel = self.param('kernel', nn.initializers.normal(), (F, 2 * A))
    mean, log_std = jnp.split(observation @ kernel, 2, axis=1)
    return distributions.TanhGaussian(mean, log_std)


class Critics(nn.Module):
  """Two values, linear in observation and action."""

  @nn.compact
  def __call__(self, observation, action):
    kernel = self.param('kernel', nn.initializers.normal(), (2, F + A))
    return kernel @ jnp.concatenate([observation, action], axis=1).T


def build(**settings):
  return sac.SAC(
    **{
      'observation_space': OBSERVATIONS,
      'action_space': ACTIONS,
      'actor': Actor,
      'critics': Critics,
      'actor_optimizer': optax.sgd(RATE),
      'critic_optimizer': optax.sgd(2 * RATE),
      'temperature_optimizer': optax.sgd(3 * RATE),
      **settings,
    }
  )


make = functools.cache(build)  # compiles once for all tests


def random_problem(seed=0):
  """Returns parameters, the target critics' and a sample."""
  rng = np.random.default_rng(seed)

  def normal(*shape, scale=1.0):
    return np.asarray(rng.normal(0, scale, shape), np.float32)

  params = {
    'actor': {'kernel': normal(F, 2 * A, scale=0.3)},
    'critics': {'kernel': normal(2, F + A)},
    'log_temperature': normal(),
  }
  batch = agent_lib.Transition(
    observation=normal(B, F),
    action=np.asarray(rng.uniform(-1, 1, (B, A)), np.float32),
    reward=normal(B),
    # Terminations, and what n = 1 and n = 2 steps leave; a truncation too.
    discount=np.float32([0.9, 0.0, 0.81, 0.9, 0.0, 0.9]),
    next_observation=normal(B, F),
  )
  weight = np.asarray(rng.uniform(0.1, 1, B), np.float32)
  sample = agent_lib.Sample(batch, np.arange(B), weight)
  return params, {'kernel': normal(2, F + A)}, sample


def make_state(agent, params, target_params):
  optimizer_state = agent.optimizer.init(params)
  return actor_critic.State(params, target_params, optimizer_state, np.int32(0))


@functools.cache
def draws():
  """Returns the noise of the next actions and of the new ones, [B, A] each."""
  return [
    np.asarray(jax.random.normal(key, (B, A)), np.float64)
    for key in jax.random.split(KEY)
  ]


def draw_by_hand(kernel, observation, noise):
  """Returns an action of the policy, and the logarithm of its density."""
  outputs = observation @ kernel
  mean, std = outputs[:A], np.exp(outputs[A:])
  x = mean + std * noise
  # 1 / cosh(x)^2 is the slope of tanh.
  log_density = scipy.stats.norm(mean, std).logpdf(x) + 2 * np.log(np.cosh(x))
  return np.tanh(x), log_density.sum()


def policy_losses_by_hand(kernel, params, sample):
  """Eq. 9 [B] of the actor's kernel, and log-probabilities [B]."""
  params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
  losses, log_probs = np.zeros(B), np.zeros(B)
  for i, noise in enumerate(draws()[1]):
    seen = np.asarray(sample.transition.observation[i], np.float64)
    action, log_probs[i] = draw_by_hand(kernel, seen, noise)
    q = params['critics']['kernel'] @ np.concatenate([seen, action])
    losses[i] = np.exp(params['log_temperature']) * log_probs[i] - min(q)
  return losses, log_probs


def errors_by_hand(params, target_params, sample):
  """Eq. 3 and 5: values less their targets [2, B], and their inputs."""
  params, target_params, batch = jax.tree.map(
    lambda x: np.asarray(x, np.float64),
    (params, target_params, sample.transition),
  )
  found, rows = np.zeros((2, B)), np.zeros((B, F + A))
  for i, noise in enumerate(draws()[0]):
    then = batch.next_observation[i]
    action, log_prob = draw_by_hand(params['actor']['kernel'], then, noise)
    q_next = target_params['kernel'] @ np.concatenate([then, action])
    value = min(q_next) - np.exp(params['log_temperature']) * log_prob
    target = batch.reward[i] + batch.discount[i] * value
    rows[i] = np.concatenate([batch.observation[i], batch.action[i]])
    found[:, i] = params['critics']['kernel'] @ rows[i] - target
  return found, rows


def assert_near(actual, expected):
  np.testing.assert_allclose(actual, expected, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize('target_entropy', [-1.0, 0.5])
def test_the_losses_are_those_of_the_paper(target_entropy):
  agent = make(target_entropy=target_entropy)
  losses_of = jax.jit(agent.losses)
  for seed in range(3):
    params, target_params, sample = random_problem(seed)
    losses, td_error, _ = losses_of(
      params, target_params, sample.transition, KEY
    )
    found, _ = errors_by_hand(params, target_params, sample)
    policy, log_prob = policy_losses_by_hand(
      np.asarray(params['actor']['kernel'], np.float64), params, sample
    )
    temperature = np.exp(np.float64(params['log_temperature']))
    assert_near(td_error, -found)
    assert_near(losses.pop('CriticLoss'), (found**2).sum(axis=0) / 2)
    assert_near(losses.pop('PolicyLoss'), policy)
    assert_near(
      losses.pop('TemperatureLoss'),
      -temperature * (log_prob + 2 * target_entropy),  # eq. 18, A = 2
    )
    assert not losses


@pytest.mark.parametrize('scale', [0.1, 5.0])
def test_a_reward_scale_is_of_rewards_alone(scale):
  # Values of what follows, and their entropies, are of the same scale already.
  agent = make(reward_scale=scale)
  params, target_params, sample = random_problem()
  batch = sample.transition
  scaled = batch.replace(reward=scale * np.asarray(batch.reward))
  found, rows = errors_by_hand(
    params, target_params, sample.replace(transition=scaled)
  )
  expected = np.asarray(params['critics']['kernel']) @ rows.T - found
  key, _ = jax.random.split(KEY)
  target = linear.jitted(agent.targets)(params, target_params, batch, key)
  assert_near(target, expected[0])
  ended = np.asarray(batch.discount) == 0
  np.testing.assert_allclose(
    target[ended], scale * np.asarray(batch.reward)[ended], rtol=1e-6
  )


@pytest.mark.parametrize('of_logarithm', [True, False])
def test_the_temperatures_loss_is_of_its_logarithm_if_asked(of_logarithm):
  # Its logarithm then moves by the surplus of entropy alone, as in Dopamine; in
  # the paper by that times the temperature.
  agent = make(log_temperature_loss=of_logarithm, target_entropy=-0.5)
  update = linear.jitted(agent.update)
  params, target_params, sample = random_problem()
  kernel = np.asarray(params['actor']['kernel'], np.float64)
  for temperature in (0.01, 1.0, 4.0):
    params['log_temperature'] = np.float32(np.log(temperature))
    _, log_prob = policy_losses_by_hand(kernel, params, sample)
    surplus = np.mean(np.asarray(sample.weight) * (-log_prob + 0.5 * A))
    state = make_state(agent, params, target_params)
    state, metrics, _ = update(state, sample, KEY)
    logarithm = np.log(temperature)
    factor, slope = (logarithm, 1.0) if of_logarithm else (temperature,) * 2
    assert_near(metrics['TemperatureLoss'], factor * surplus)
    moved = state.params['log_temperature'] - logarithm
    assert_near(moved, -3 * RATE * slope * surplus)


def policy_gradient_by_hand(kernel, params, sample, step=1e-6):
  """The actor's, by differences, of eq. 9's weighted mean."""
  weight, gradient = np.asarray(sample.weight), np.zeros_like(kernel)
  for i in np.ndindex(kernel.shape):
    change = np.zeros_like(kernel)
    change[i] = step
    above, below = (
      policy_losses_by_hand(k, params, sample)[0]
      for k in (kernel + change, kernel - change)
    )
    gradient[i] = np.mean(weight * (above - below)) / (2 * step)
  return gradient


def test_an_update_agrees_with_numpy():
  agent = make(tau=0.25)
  update = linear.jitted(agent.update)

  def square(array):
    return np.sum(np.square(array, dtype=np.float64))

  for seed in range(3):
    params, target_params, sample = random_problem(seed)
    state, metrics, priorities = jax.device_get(
      update(make_state(agent, params, target_params), sample, KEY)
    )
    weight = np.asarray(sample.weight, np.float64)
    kernel = np.asarray(params['actor']['kernel'], np.float64)
    found, rows = errors_by_hand(params, target_params, sample)
    losses, log_prob = policy_losses_by_hand(kernel, params, sample)
    temperature = np.exp(np.float64(params['log_temperature']))
    surplus = -log_prob + A  # of entropy, over a target of -A
    gradients = {
      'actor': policy_gradient_by_hand(kernel, params, sample),
      'critics': (weight * found) @ rows / B,
      'temperature': np.mean(weight * surplus) * temperature,
    }

    new = state.params
    critics = params['critics']['kernel'] - 2 * RATE * gradients['critics']
    assert_near(new['actor']['kernel'], kernel - RATE * gradients['actor'])
    assert_near(new['critics']['kernel'], critics)
    assert_near(
      new['log_temperature'],
      params['log_temperature'] - 3 * RATE * gradients['temperature'],
    )
    assert_near(
      state.target_params['kernel'],
      0.75 * target_params['kernel'] + 0.25 * critics,
    )
    assert_near(priorities, np.abs(found).mean(axis=0))  # unweighted

    parts = {
      'CriticLoss': np.mean(weight * (found**2).sum(axis=0) / 2),
      'PolicyLoss': np.mean(weight * losses),
      'TemperatureLoss': np.mean(weight * surplus) * temperature,
    }
    q = np.asarray(params['critics']['kernel'], np.float64) @ rows.T
    norm = np.sqrt(sum(map(square, gradients.values())))
    expected = {
      **parts,
      'Loss': sum(parts.values()),
      'QMean': q.mean(),
      'QMax': q.max(),
      'Entropy': -log_prob.mean(),
      'Temperature': temperature,
      'GradientNorm': norm,
      'ParameterNorm': np.sqrt(sum(map(square, jax.tree.leaves(new)))),
    }
    assert metrics.keys() == expected.keys()
    for name, value in expected.items():
      assert_near(metrics[name], value)


def test_nothing_is_bootstrapped_after_a_termination():
  params, _, sample = random_problem()
  batch = sample.transition.replace(discount=np.zeros(B, np.float32))
  endless = {'kernel': np.full((2, F + A), 1e6)}
  target = linear.jitted(make().targets)(params, endless, batch, KEY)
  np.testing.assert_array_equal(target, batch.reward)


def test_the_target_is_of_one_drawn_action_and_of_the_policy_as_it_is():
  # The mean of the next action is 0 and its deviation 1; both critics see its
  # first number alone, as 1 and 2 times that.
  params, _, sample = random_problem()
  params['actor'] = {'kernel': np.zeros((F, 2 * A))}
  params['log_temperature'] = np.log(0.5)
  target_params = {'kernel': np.zeros((2, F + A))}
  target_params['kernel'][:, F] = [1.0, 2.0]
  targets = linear.jitted(make().targets)
  found = []
  for key in (KEY, jax.random.key(8)):
    noise = np.asarray(jax.random.normal(key, (B, A)), np.float64)
    action = np.tanh(noise)
    density = scipy.stats.norm.pdf(noise) / (1 - action**2)
    value = np.minimum(action[:, 0], 2 * action[:, 0])
    value -= 0.5 * np.log(density.prod(axis=1))
    batch = sample.transition
    found.append(np.asarray(targets(params, target_params, batch, key)))
    assert_near(found[-1], batch.reward + batch.discount * value)
  assert np.all((found[0] != found[1]) == (np.asarray(batch.discount) > 0))
  wider = params | {'actor': {'kernel': np.ones((F, 2 * A))}}
  other = np.asarray(targets(wider, target_params, batch, KEY))
  assert np.all((found[0] != other) == (np.asarray(batch.discount) > 0))


def test_an_importance_weight_of_zero_leaves_nothing_of_a_transition():
  agent = make()
  params, target_params, sample = random_problem()
  update = linear.jitted(agent.update)
  last = np.arange(B) == B - 1
  sample = sample.replace(weight=np.where(last, 0.0, 1.0))
  strange = sample.transition.replace(
    reward=np.where(last, 1e3, sample.transition.reward),
    observation=np.where(last[:, None], 3.0, sample.transition.observation),
  )
  plain, other = (
    update(make_state(agent, params, target_params), each, KEY)[0].params
    for each in (sample, sample.replace(transition=strange))
  )
  jax.tree.map(np.testing.assert_array_equal, plain, other)
  assert np.any(plain['critics']['kernel'] != params['critics']['kernel'])


@pytest.mark.parametrize(('log_std', 'direction'), [(-5.0, 1), (-0.5, -1)])
def test_the_temperature_rises_where_there_is_too_little_entropy(
  log_std, direction
):
  agent = make()
  params, target_params, sample = random_problem()
  ones = np.ones_like(sample.transition.observation)
  batch = sample.transition.replace(observation=ones)
  kernel = np.repeat(np.float32([[0, log_std / F]] * F), A, axis=1)
  params['actor'] = {'kernel': kernel}
  state, metrics, _ = linear.jitted(agent.update)(
    make_state(agent, params, target_params),
    sample.replace(transition=batch),
    KEY,
  )
  assert (metrics['Entropy'] < -A) == (direction == 1)
  change = state.params['log_temperature'] - params['log_temperature']
  assert np.sign(change) == direction


def test_a_temperature_without_optimizer_stays():
  agent = make(temperature_optimizer=None, temperature=0.3)
  _, _, sample = random_problem()
  init = jax.jit(agent.init)
  state = init(jax.random.key(0), sample.transition.observation)
  new, metrics, _ = jax.jit(agent.update)(state, sample, KEY)
  state, new = jax.device_get((state, new))
  np.testing.assert_allclose(metrics['Temperature'], 0.3, rtol=1e-6)
  # It is the setting's, also in a run that began with another one's state.
  other = make(temperature_optimizer=None, temperature=0.1)
  assert jax.jit(other.update)(state, sample, KEY)[1]['Temperature'] == (
    np.float32(0.1)
  )
  assert new.params['log_temperature'] == state.params['log_temperature']
  assert np.any(
    new.params['actor']['kernel'] != state.params['actor']['kernel']
  )
  assert 'TemperatureLoss' not in metrics


def test_temperatures_may_differ_between_trainings_of_one_program():
  agent = make()
  observation = random_problem()[2].transition.observation

  def first(temperature):
    now = lanes.put(agent, {('temperature',): temperature})
    return now.first_params(KEY, observation)['log_temperature']

  found = jax.jit(jax.vmap(first))(jnp.array([0.1, 1.0]))
  np.testing.assert_allclose(found, np.log([0.1, 1.0]), rtol=1e-6)
  for value, each in zip((0.1, 1.0), found, strict=True):
    alone = build(temperature=value).first_params(KEY, observation)
    assert alone['log_temperature'] == each


@pytest.mark.parametrize('tau', [0.25, 0.5, 1.0])
def test_the_targets_move_towards_the_critics(tau):
  agent = make(tau=tau)
  params, target_params, sample = random_problem()
  state, _, _ = linear.jitted(agent.update)(
    make_state(agent, params, target_params), sample, KEY
  )
  old, new = target_params['kernel'], state.params['critics']['kernel']
  # Halves of float32 numbers are exact, and so is each product here.
  expected = tau * np.asarray(new) + (1 - tau) * np.asarray(old)
  np.testing.assert_array_equal(state.target_params['kernel'], expected)


def test_the_targets_begin_as_the_critics_in_memory_of_their_own():
  agent = make()
  _, _, sample = random_problem()
  state = jax.jit(agent.init)(jax.random.key(0), sample.transition.observation)
  both = state.params['critics']['kernel'], state.target_params['kernel']
  np.testing.assert_array_equal(*both)
  assert both[0].unsafe_buffer_pointer() != both[1].unsafe_buffer_pointer()
  assert np.all(both[0][0] != both[0][1])


def test_training_draws_actions_and_evaluation_takes_the_middle():
  agent = make()
  params, target_params, _ = random_problem()
  state = make_state(agent, params, target_params)
  observation = np.tile(np.float32([[0.3, -1.0, 2.0]]), (4_000, 1))

  def act(key, explore):
    act = linear.jitted(agent.act, static_argnames='explore')
    return np.asarray(
      act(state, observation, 0, jax.random.key(key), explore=explore)
    )

  outputs = observation[0] @ params['actor']['kernel']
  mean, std = outputs[:A], np.exp(outputs[A:])
  greedy = act(0, explore=False)
  assert_near(greedy, np.broadcast_to(np.tanh(mean), greedy.shape))
  np.testing.assert_array_equal(greedy, act(1, explore=False))
  drawn = act(0, explore=True)
  assert np.abs(drawn).max() <= 1
  for i in range(A):
    law = scipy.stats.norm(mean[i], std[i])
    test = scipy.stats.kstest(np.arctanh(drawn[:, i]), law.cdf)
    assert test.pvalue > 1e-3
  assert np.all(drawn != act(1, explore=True))


def test_the_replay_is_told_of_steps_and_discount():
  replay = make(n_step=3, gamma=0.9).make_replay(stack=2)
  assert (replay.n_step, replay.gamma, replay.stack) == (3, 0.9, 2)
  assert (replay.batch_size, replay.warm_up) == (256, 10_000)
  replay = make(replay=prioritized.PrioritizedReplay).make_replay(stack=1)
  assert isinstance(replay, prioritized.PrioritizedReplay)


@pytest.mark.parametrize('shape', [(), (2, 3)])
def test_actions_may_have_any_shape(shape):
  agent = sac.SAC(
    observation_space=OBSERVATIONS,
    action_space=gymnasium.spaces.Box(-1, 1, shape),
  )

  @jax.jit
  def play(observation):
    state = agent.init(jax.random.key(0), observation)
    action = agent.act(state, observation, jnp.int32(0), KEY, explore=True)
    return action, agent.q_values(state.params['critics'], observation, action)

  action, values = play(np.ones((B, F)))
  assert action.shape == (B, *shape)
  assert values.shape == (2, B)


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    (
      {'action_space': gymnasium.spaces.Discrete(2)},
      'action_space = .*takes continuous actions, a Box. Choose',
    ),
    ({'tau': 1.5}, r'tau = 1\.5.*\[0, 1\]'),
    ({'gamma': -1.0}, r'gamma = -1\.0.*\[0, 1\]'),
    ({'n_step': 0}, 'n_step = 0.*at least 1'),
    (
      {'temperature': 0.0},
      r'temperature = 0\.0.*it must be above 0',
    ),
    ({'temperature': np.inf}, 'temperature = inf is not finite'),
    (
      {'reward_scale': 0.0},
      r'reward_scale = 0\.0.*it must be above 0',
    ),
    (
      {'reward_scale': -0.1},
      r'reward_scale = -0\.1.*it must be above 0',
    ),
    ({'reward_scale': np.nan}, 'reward_scale = nan is not finite'),
    ({'log_temperature_loss': 1}, 'log_temperature_loss = 1 .*expected bool'),
    ({'actor_optimizer': None}, 'actor_optimizer.*GradientTransformation'),
  ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
  with pytest.raises(errors.UserError, match=f'SAC.{message}'):
    build(**settings)
