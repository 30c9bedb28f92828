"""TD3 and DrQ-v2 against their papers' equations in NumPy.

Policy and critics are linear. What is drawn comes from the keys that the agents
draw it with.
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
from dopamine_jax import lanes
from dopamine_jax.agents import drq_v2
from dopamine_jax.agents import sac
from dopamine_jax.agents import td3
from dopamine_jax.engines import seed_axis
from dopamine_jax.learning import actor_critic
from dopamine_jax.learning import distributions
from tests import linear

F, A, B = 3, 2, 6
RATE = 0.1
OBSERVATIONS = gymnasium.spaces.Box(-10, 10, (F,), np.float32)
ACTIONS = gymnasium.spaces.Box(-1, 1, (A,), np.float32)
KEY = jax.random.key(7)


class Actor(nn.Module):
  """Actions are tanh of what is linear in the observation."""

  action_shape: tuple[int, ...]

  @nn.compact
  def __call__(self, observation):
    kernel = self.param('kernel', nn.initializers.normal(), (F, A))
    return distributions.Deterministic(jnp.tanh(observation @ kernel))


class Critics(nn.Module):
  """Two values, linear in observation and action."""

  @nn.compact
  def __call__(self, observation, action):
    kernel = self.param('kernel', nn.initializers.normal(), (2, F + A))
    return kernel @ jnp.concatenate([observation, action], axis=1).T


class Encoder(nn.Module):
  """Features are linear in the observation."""

  @nn.compact
  def __call__(self, observation):
    kernel = self.param('kernel', nn.initializers.normal(), (F, F))
    return observation @ kernel


def build(cls=td3.TD3, **settings):
  return cls(
    **{
      'observation_space': OBSERVATIONS,
      'action_space': ACTIONS,
      'actor': Actor,
      'critics': Critics,
      'actor_optimizer': optax.sgd(RATE, momentum=0.9),
      'critic_optimizer': optax.sgd(2 * RATE),
      **settings,
    }
  )


make = functools.cache(build)  # compiles once for all tests


def make_drq(**settings):
  return make(
    drq_v2.DrQV2, **{'encoder': Encoder, 'augmentation': (), **settings}
  )


def random_problem(seed=0):
  """Returns parameters, those of the targets, and a sample."""
  rng = np.random.default_rng(seed)

  def normal(*shape, scale=1.0):
    return np.asarray(rng.normal(0, scale, shape), np.float32)

  params, target_params = (
    {
      'actor': {'kernel': normal(F, A, scale=0.5)},
      'critics': {'kernel': normal(2, F + A)},
    }
    for _ in range(2)
  )
  batch = agent_lib.Transition(
    observation=normal(B, F),
    action=np.asarray(rng.uniform(-1, 1, (B, A)), np.float32),
    reward=normal(B),
    discount=np.float32([0.9, 0.0, 0.81, 0.9, 0.0, 0.9]),
    next_observation=normal(B, F),
  )
  weight = np.asarray(rng.uniform(0.1, 1, B), np.float32)
  return params, target_params, agent_lib.Sample(batch, np.arange(B), weight)


def double(tree):
  return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def noise_by_hand(key, std, clip):
  noise = std * np.asarray(jax.random.normal(key, (B, A)), np.float64)
  return np.clip(noise, -clip, clip)


def targets_by_hand(actor, critics, batch, std, clip):
  """Eq. 14 [B], one transition after another."""
  noise = noise_by_hand(jax.random.split(KEY)[0], std, clip)
  found = np.zeros(B)
  for i in range(B):
    then = batch.next_observation[i]
    action = np.clip(np.tanh(then @ actor) + noise[i], -1, 1)
    value = min(critics @ np.concatenate([then, action]))
    found[i] = batch.reward[i] + batch.discount[i] * value
  return found


def assert_near(actual, expected):
  np.testing.assert_allclose(actual, expected, rtol=2e-4, atol=2e-5)


def values_by_hand(critics, seen, action):
  return np.concatenate([seen, action], axis=1) @ critics.T  # [B, 2]


@pytest.mark.parametrize('scale', [1.0, 0.1])
def test_td3s_losses_are_those_of_the_paper(scale):
  agent = make(target_noise=0.6, noise_clip=0.4, reward_scale=scale)
  losses_of = jax.jit(agent.losses)
  for seed in range(3):
    params, target_params, sample = random_problem(seed)
    losses, td_error, metrics = losses_of(
      params, target_params, sample.transition, KEY
    )
    batch, slow, own = double((sample.transition, target_params, params))
    batch = batch.replace(reward=scale * batch.reward)
    target = targets_by_hand(
      slow['actor']['kernel'], slow['critics']['kernel'], batch, 0.6, 0.4
    )
    seen, critics = batch.observation, own['critics']['kernel']
    q = values_by_hand(critics, seen, batch.action)
    assert_near(td_error.T, target[:, None] - q)
    assert_near(losses['CriticLoss'], ((target[:, None] - q) ** 2).sum(1) / 2)
    # The first critic alone says what the policy is to do.
    action = np.tanh(seen @ own['actor']['kernel'])
    policy = -values_by_hand(critics, seen, action)[:, 0]
    assert_near(losses['PolicyLoss'], policy)
    assert_near(metrics['QMean'], q.mean() / scale)  # of raw rewards


def test_the_policy_and_all_targets_wait():
  # Updates 0, 3, ... train the policy; a momentum would go on without it.
  agent = make(policy_delay=3, tau=0.25)
  update = linear.jitted(agent.update)
  params, _, sample = random_problem()
  state = jax.jit(agent.init)(jax.random.key(0), sample.transition.observation)
  state = state.replace(params=params)
  for i in range(7):
    before = jax.device_get(state)
    state, metrics, _ = update(state, sample, jax.random.fold_in(KEY, i))
    after = jax.device_get(state)
    changed = {
      name: not np.array_equal(
        *(x.params[name]['kernel'] for x in (before, after))
      )
      for name in params
    }
    assert changed == {'actor': i % 3 == 0, 'critics': True}
    moved = jax.tree.map(
      lambda old, new: 0.75 * old + 0.25 * new,
      before.target_params,
      after.params,
    )
    expected = moved if i % 3 == 0 else before.target_params
    jax.tree.map(assert_near, after.target_params, expected)
    momentum = [
      x.optimizer_state.inner_states['actor'] for x in (before, after)
    ]
    is_same = [
      np.array_equal(*pair)
      for pair in zip(*map(jax.tree.leaves, momentum), strict=True)
    ]
    assert all(is_same) == (i % 3 != 0)
    assert metrics.keys() >= {'CriticLoss', 'PolicyLoss', 'Loss'}
    assert_near(metrics['ParameterNorm'], optax.tree.norm(after.params))
    whole = metrics['CriticLoss'] + (i % 3 == 0) * metrics['PolicyLoss']
    assert_near(metrics['Loss'], whole)
  assert after.updates == 7


def test_a_waiting_critic_learns_as_it_does_beside_the_policy():
  params, target_params, sample = random_problem()
  found = []
  for updates in (0, 1):
    agent = make()
    state = actor_critic.State(
      params,
      target_params,
      agent.optimizer.init(params),
      np.int32(updates),
    )
    state, *_ = linear.jitted(agent.update)(state, sample, KEY)
    found.append(state.params['critics']['kernel'])
  np.testing.assert_allclose(*found, rtol=1e-6)


# Both branch in `continuous_actions`, of which this sees the one.
@pytest.mark.parametrize(
  'cls', [td3.TD3, pytest.param(sac.SAC, marks=pytest.mark.slow)]
)
def test_seeds_in_lockstep_branch_together(cls):
  # Each lane as by itself, and a branch of the program rather than both sides.
  agent = build(
    cls,
    policy_delay=2,
    **({} if cls is td3.TD3 else {'actor': actor_critic.Actor}),
  )
  sample = random_problem()[2]
  keys = jax.random.split(KEY, 3)
  over = seed_axis.SeedAxis(3).over
  begin = jax.jit(lambda key: agent.init(key, sample.transition.observation))
  update = lambda state, key: agent.update(state, sample, key)  # noqa: E731
  states, alone = over(begin)(keys), [begin(key) for key in keys]
  together = jax.jit(over(update))
  for _ in range(3):
    states = together(states, keys)[0]
    alone = [
      jax.jit(update)(*pair)[0] for pair in zip(alone, keys, strict=True)
    ]
  for i, state in enumerate(alone):
    lane = jax.tree.map(lambda x, i=i: x[i], states)
    jax.tree.map(assert_near, lane, state)
  assert ' cond[' in str(jax.make_jaxpr(over(update))(states, keys))
  assert lanes.any_of(np.bool_(True))  # without lanes


def test_lanes_whose_policies_are_due_apart_learn_as_by_themselves():
  agent = build()
  sample = random_problem()[2]
  begin = jax.jit(lambda key: agent.init(key, sample.transition.observation))
  update = lambda state, key: agent.update(state, sample, key)  # noqa: E731
  keys = jax.random.split(KEY, 3)
  alone = [
    begin(key).replace(updates=jnp.int32(i)) for i, key in enumerate(keys)
  ]
  together = jax.tree.map(lambda *x: jnp.stack(x), *alone)
  learn = jax.jit(seed_axis.SeedAxis(3).over(update))
  for _ in range(3):
    together, metrics, _ = learn(together, keys)
    answers = [jax.jit(update)(*pair) for pair in zip(alone, keys, strict=True)]
    alone = [answer[0] for answer in answers]
    for i, answer in enumerate(answers):
      lane = jax.tree.map(lambda x, i=i: x[i], (together, metrics))
      jax.tree.map(assert_near, lane, answer[:2])


def test_what_waits_counts_its_own_updates():
  agent = build(policy_delay=3, updates_per_period=2)
  counts = {
    name: agent.last_count(name, 10)
    for name in ('actor_optimizer', 'critic_optimizer', 'exploration_noise')
  }
  assert counts == {
    'actor_optimizer': 7,
    'critic_optimizer': 20,
    'exploration_noise': 10,
  }


def test_exploration_adds_noise_within_bounds_that_decays():
  agent = make(exploration_noise=optax.linear_schedule(2.0, 0.5, 100))
  params, _, sample = random_problem()
  state = actor_critic.State(params, params, (), np.int32(0))
  seen = sample.transition.observation
  act = jax.jit(agent.act, static_argnames='explore')
  greedy = act(state, seen, 0, KEY, explore=False)
  assert_near(greedy, np.tanh(seen @ params['actor']['kernel']))
  for step, std in ((0, 2.0), (100, 0.5)):
    noise = std * jax.random.normal(KEY, (B, A))
    actions = act(state, seen, step, KEY, explore=True)
    assert_near(actions, np.clip(greedy + noise, -1, 1))
    assert agent.schedules(step) == {'ExplorationNoise': pytest.approx(std)}


def test_drq_v2s_losses_are_those_of_the_paper():
  # Targets are of the newest policy, whose noise is that of exploration then.
  agent = make_drq(
    exploration_noise=optax.linear_schedule(1.0, 0.2, 100),
    noise_clip=0.5,
    update_period=2,
    policy_delay=1,
    tau=0.5,
  )
  update = linear.jitted(agent.update)
  params, target_params, sample = random_problem()
  params['encoder'] = {
    'kernel': np.random.default_rng(3).normal(size=(F, F)).astype(np.float32)
  }
  slow = target_params['critics']
  # After 2,000 steps without updates the schedule has ended.
  std = 0.2
  state = actor_critic.State(
    params, slow, agent.optimizer.init(params), np.int32(0)
  )
  state, metrics, _ = update(state, sample, KEY)
  own, batch, target_kernel = double(
    (params, sample.transition, slow['kernel'])
  )
  encode, actor = own['encoder']['kernel'], own['actor']['kernel']
  batch = batch.replace(
    observation=batch.observation @ encode,
    next_observation=batch.next_observation @ encode,
  )
  target = targets_by_hand(actor, target_kernel, batch, std, 0.5)
  critics = own['critics']['kernel']
  q = values_by_hand(critics, batch.observation, batch.action)
  weight = np.asarray(sample.weight, np.float64)
  loss = ((target[:, None] - q) ** 2).sum(1) / 2
  assert_near(metrics['CriticLoss'], np.mean(weight * loss))
  noise = noise_by_hand(jax.random.split(KEY)[1], std, 0.5)
  action = np.clip(np.tanh(batch.observation @ actor) + noise, -1, 1)
  assert np.any(abs(action) == 1)
  worth = values_by_hand(critics, batch.observation, action)
  assert_near(metrics['PolicyLoss'], -np.mean(weight * worth.min(1)))
  # The encoder learns from the critics' loss alone.
  rows = np.einsum('b,bk,kf->bf', weight, q - target[:, None], critics[:, :F])
  gradient = sample.transition.observation.T @ rows / B
  assert_near(state.params['encoder']['kernel'], encode - 2 * RATE * gradient)
  # The noise is no reason to learn nothing where an action is cut.
  lowest = critics[worth.argmin(1), F:]
  slope = (1 - np.tanh(batch.observation @ actor) ** 2) * lowest
  gradient = -batch.observation.T @ (weight[:, None] * slope) / B
  assert_near(state.params['actor']['kernel'], actor - RATE * gradient)


def test_drq_v2s_noise_follows_the_schedule_of_agent_steps():
  agent = make_drq(
    exploration_noise=optax.linear_schedule(1.0, 0.0, 3_000),
    noise_clip=100.0,
    policy_delay=1,
  )
  update = linear.jitted(agent.update)
  params, target_params, sample = random_problem()
  params['encoder'] = {'kernel': np.eye(F, dtype=np.float32)}
  found = []
  for updates in (0, 250, 500):  # at 2,000, 2,500 and 3,000 agent steps
    state = actor_critic.State(
      params,
      target_params['critics'],
      agent.optimizer.init(params),
      np.int32(updates),
    )
    found.append(float(update(state, sample, KEY)[1]['CriticLoss']))
  fixed = [
    float(
      linear.jitted(make_drq(target_noise=std, noise_clip=100.0).update)(
        state, sample, KEY
      )[1]['CriticLoss']
    )
    for std in (1 / 3, 1 / 6, 0.0)
  ]
  np.testing.assert_allclose(found, fixed, rtol=1e-5)


class Counted(drq_v2.DrQV2):
  """Notes when its update is traced."""

  traced = []  # noqa: RUF012

  def update(self, state, sample, key):
    self.traced.append(self.target_noise)
    return super().update(state, sample, key)


def test_what_a_subclass_adds_to_an_update_of_drq_v2_runs_once():
  agent = make(Counted, encoder=Encoder, augmentation=(), policy_delay=1)
  params, target_params, sample = random_problem()
  params['encoder'] = {'kernel': np.eye(F, dtype=np.float32)}
  state = actor_critic.State(
    params,
    target_params['critics'],
    agent.optimizer.init(params),
    np.int32(0),
  )
  jax.eval_shape(agent.update, state, sample, KEY)
  assert Counted.traced == [None]


def test_drq_v2_counts_agent_steps_as_far_as_32_bits_go():
  agent = make_drq(update_period=2)
  history = agent.make_replay(stack=1).min_history
  found = jax.jit(jax.vmap(agent._agent_steps))(jnp.int32([0, 7, 2**31 - 1]))
  assert found[:2].tolist() == [history, history + 14]
  assert 2**31 - 3 < found[2] <= 2**31 - 1


def test_drq_v2s_policy_may_wait():
  agent = make_drq(policy_delay=3)
  sample = random_problem()[2]
  state = jax.jit(agent.init)(jax.random.key(0), sample.transition.observation)
  update = linear.jitted(agent.update)
  for i in range(4):
    before, (state, _, _) = state, update(state, sample, KEY)
    kernels = [x.params['actor']['kernel'] for x in (before, state)]
    assert np.array_equal(*kernels) == (i % 3 != 0)
    # Its targets are the critics' alone, and follow with each update.
    assert np.any(
      before.target_params['kernel'] != state.target_params['kernel']
    )


def test_an_encoder_is_saved_from_the_policys_loss_in_sac_too():
  agent = build(
    sac.SAC,
    actor=actor_critic.Actor,
    encoder=Encoder,
    temperature_optimizer=None,
  )
  sample = random_problem()[2]
  state = jax.jit(agent.init)(jax.random.key(0), sample.transition.observation)
  batch = sample.transition

  def loss(params, name):
    losses = agent.losses(
      params, state.target_params, agent.encoded(params, batch), KEY
    )[0]
    return jnp.sum(losses[name])

  for name, parts in (
    ('CriticLoss', {'critics', 'encoder'}),
    ('PolicyLoss', {'actor'}),
  ):
    gradient = jax.jit(jax.grad(loss), static_argnums=1)(state.params, name)
    learnt = {
      part
      for part, tree in gradient.items()
      if any(np.any(x) for x in jax.tree.leaves(tree))
    }
    assert learnt == parts
  assert agent.anatomy(state).keys() == {'Actor', 'Critics', 'Encoder'}


@pytest.mark.parametrize(
  ('settings', 'named'),
  [
    ({'policy_delay': 0}, 'policy_delay'),
    ({'target_noise': -0.1}, 'target_noise'),
    ({'noise_clip': -1.0}, 'noise_clip'),
    ({'exploration_noise': -0.5}, 'exploration_noise'),
    ({'tau': 0.0}, 'tau'),
  ],
)
def test_settings_that_cannot_work_are_refused(settings, named):
  with pytest.raises(errors.UserError, match=named):
    build(**settings)


class Normal(nn.Module):
  """A policy with deviations that a deterministic one's loss never sees."""

  action_shape: tuple[int, ...]

  @nn.compact
  def __call__(self, observation):
    mean = Actor(self.action_shape)(observation).mode()
    return distributions.Gaussian(mean, jnp.zeros_like(mean))


@pytest.mark.parametrize('actor', [actor_critic.Actor, Normal])
def test_a_policy_whose_deviations_would_learn_nothing_is_refused(actor):
  agent = build(actor=actor)
  with pytest.raises(errors.UserError, match=r'gives .*s, whose deviations'):
    agent.init(KEY, random_problem()[2].transition.observation)
