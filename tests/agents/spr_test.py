"""SPR and BBF: what they predict, by NumPy, and what else they change."""

import functools
import types

import gymnasium
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
from dopamine_jax import lanes
from dopamine_jax import networks
from dopamine_jax import runner
from dopamine_jax.agents import bbf
from dopamine_jax.agents import full_rainbow
from dopamine_jax.agents import spr
from dopamine_jax.checkpoints import state_arrays
from dopamine_jax.learning import augmentation
from dopamine_jax.learning import schedules
from dopamine_jax.networks import predictive
from dopamine_jax.replay import following
from dopamine_jax.replay import prioritized
from dopamine_jax.replay import uniform
from tests import linear

B, K, A, M, D = 4, 3, 2, 5, 8
NETWORK = predictive.SPRNetwork(encoder=networks.MLPTorso(hidden=(6,)), units=D)
IMAGES = predictive.SPRNetwork(
  encoder=networks.MinAtarTorso(flat=False), units=D
)
SUPPORT = {'num_atoms': M, 'v_min': -2.0, 'v_max': 3.0}


@functools.cache
def make(cls=spr.SPR, shape=(3,), **settings):
  return cls(
    **{
      'network': NETWORK if len(shape) == 1 else IMAGES,
      'observation_space': gymnasium.spaces.Box(-9, 9, shape),
      'action_space': gymnasium.spaces.Discrete(A),
      'prediction_steps': K,
      **SUPPORT,
      **settings,
    }
  )


def batch_of(shape=(3,), seed=0):
  rng = np.random.default_rng(seed)

  def draw(*lead):
    return np.float32(rng.normal(size=(*lead, *shape)))

  return agent_lib.Sample(
    transition=following.Followed(
      observation=draw(B),
      action=rng.integers(A, size=B),
      reward=np.float32(rng.normal(size=B)),
      discount=np.float32(rng.random(B)),
      next_observation=draw(B),
      actions=rng.integers(A, size=(B, K)),
      rewards=np.zeros((B, K), np.float32),
      observations=draw(B, K),
      taken=np.ones((B, K), bool),
      terminated=np.zeros((B, K), bool),
      same_episode=np.array([[1, 1, 1], [1, 1, 0], [1, 0, 0], [0, 0, 0]], bool),
    ),
    index=np.arange(B),
    weight=np.float32(rng.random(B) + 0.5),
  )


def init(agent, sample, seed=0):
  key, kind = jax.random.key(seed), type(agent)
  if agent.network is NETWORK:  # compiled once for all whose parts are the same
    agent = make(kind, noisy=True) if agent.noisy else make(kind, noisy=False)
  return linear.jitted(agent.init)(key, sample.transition.observation)


def learning(agent, name):
  """Returns an update whose first argument is a number of the agent's."""

  def update(number, *given):
    return lanes.put(agent, {(name,): number}).update(*given)

  return jax.jit(update)


# What is predicted.


def test_distances_are_of_normalized_vectors_within_an_episode():
  rng = np.random.default_rng(1)
  predicted, targets = np.float32(rng.normal(size=(2, K, B, D)))
  same = np.float32(rng.random((K, B)) < 0.6)
  expected = np.zeros(B)
  for k in range(K):
    for b in range(B):
      one = predicted[k, b] / np.linalg.norm(predicted[k, b])
      other = targets[k, b] / np.linalg.norm(targets[k, b])
      expected[b] += same[k, b] * np.sum((one - other) ** 2) / K
  found, gradients = jax.jit(
    lambda *given: (
      spr.prediction_losses(*given),
      jax.grad(lambda *x: spr.prediction_losses(*x).sum(), (0, 1))(*given),
    )
  )(predicted, targets, same)
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  assert not np.any(gradients[1])
  has_any = np.any(np.asarray(gradients[0]), axis=-1)
  np.testing.assert_array_equal(has_any, same > 0)


def test_a_vector_of_zeros_has_no_gradient_and_no_nan():
  zeros = np.zeros((K, B, D), np.float32)
  ones = np.ones((K, B), np.float32)
  gradient = jax.jit(
    jax.grad(
      lambda x: spr.prediction_losses(x, ones[..., None] + zeros, ones).sum()
    )
  )(zeros)
  assert np.isfinite(gradient).all()


def numpy_latents(params, observation, actions):
  """Returns what an encoder of one layer and the model give, [K + 1, B, C]."""

  def scaled(x):
    low, high = x.min(axis=1, keepdims=True), x.max(axis=1, keepdims=True)
    return (x - low) / (high - low + 1e-5)

  def dense(layer, x):
    return x @ layer['kernel'] + layer['bias']

  latents = [
    scaled(np.maximum(dense(params['encoder']['Dense_0'], observation), 0))
  ]
  for k in range(actions.shape[1]):
    x = np.concatenate([latents[-1], np.eye(A)[actions[:, k]]], axis=1)
    for name in ('Conv_0', 'Conv_1'):
      layer = params['transition'][name]
      # Of one pixel, a kernel meets it with its middle.
      x = np.maximum(x @ layer['kernel'][1, 1] + layer['bias'], 0)
    latents.append(scaled(x))
  return np.stack(latents)


def test_the_loss_agrees_with_numpy():
  agent = make(noisy=False)
  sample = batch_of()
  state = init(agent, sample)
  # Another target network, so that it matters which one is read where.
  state = state.replace(target_params=init(agent, sample, seed=7).params)
  _, metrics, _ = linear.jitted(agent.update)(state, sample, jax.random.key(3))
  batch = jax.tree.map(lambda x: np.asarray(x, np.float64), sample.transition)
  online, target = jax.tree.map(
    lambda x: np.asarray(x, np.float64), (state.params, state.target_params)
  )

  def dense(layer, x):
    return x @ layer['kernel'] + layer['bias']

  latents = numpy_latents(online, batch.observation, sample.transition.actions)
  loss = np.zeros(B)
  for k in range(K):
    seen = numpy_latents(
      target, batch.observations[:, k], np.zeros((B, 0), int)
    )
    other = dense(target['projection'], seen[0])
    one = dense(
      online['predictor'], dense(online['projection'], latents[k + 1])
    )
    one, other = (
      x / np.linalg.norm(x, axis=1, keepdims=True) for x in (one, other)
    )
    loss += batch.same_episode[:, k] * np.sum((one - other) ** 2, axis=1) / K
  np.testing.assert_allclose(metrics['PredictionLoss'], loss.mean(), rtol=1e-4)


def test_without_prediction_it_is_full_rainbow():
  sample = batch_of((4, 4, 1))
  answers = []
  for cls in (spr.SPR, full_rainbow.FullRainbow):
    given = {'prediction_weight': 0.0} if cls is spr.SPR else {}
    agent = cls(
      network=IMAGES,
      observation_space=gymnasium.spaces.Box(-9, 9, (4, 4, 1)),
      action_space=gymnasium.spaces.Discrete(A),
      noisy=False,
      target_update_period=None,
      **SUPPORT,
      **given,
    )
    state = init(agent, sample)
    state, metrics, priorities = linear.jitted(agent.update)(
      state, sample, jax.random.key(1)
    )
    answers.append((state.params, metrics['Loss'], priorities))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6),
    *answers,
  )


@pytest.mark.parametrize('noisy', [True, False])
def test_predictions_teach_all_that_they_pass_and_no_priorities(noisy):
  sample = batch_of()
  agent = make(noisy=noisy, target_tau=0.5)
  given = init(agent, sample), sample, jax.random.key(1)
  update = learning(agent, 'prediction_weight')
  answers = [update(weight, *given) for weight in (0.0, 5.0)]
  (plain, _, of_plain), (state, _, priorities) = answers
  np.testing.assert_allclose(priorities, of_plain, rtol=1e-5)
  for part in ('encoder', 'transition', 'predictor', 'projection'):
    assert any(
      np.any(a != b)
      for a, b in zip(
        *map(jax.tree.leaves, (state.params[part], plain.params[part])),
        strict=True,
      )
    ), part
  jax.tree.map(
    np.testing.assert_array_equal, state.params['head'], plain.params['head']
  )


def test_images_of_each_step_are_augmented_by_themselves():
  shape = (6, 6, 1)
  agent = make(shape=shape, augmentation=(augmentation.RandomShift(pad=2),))
  image = np.arange(36, dtype=np.float32).reshape(shape)
  sample = batch_of(shape)
  same = np.broadcast_to(image, (B, K, *shape))
  sample = sample.replace(
    transition=sample.transition.replace(observations=same)
  )
  found = jax.jit(agent.prepare)(sample, jax.random.key(0)).transition
  each = {np.asarray(x).tobytes() for x in found.observations.reshape(-1, 36)}
  assert 6 < len(each) <= B * K
  assert found.observations.shape == same.shape


def test_what_it_cant_learn_from_is_refused():
  space = gymnasium.spaces.Dict({'a': gymnasium.spaces.Box(0, 1, (2,))})
  with pytest.raises(errors.UserError, match='whose observations are a Box'):
    make(shape=(3,)).replace(observation_space=space)
  replay = make(replay=uniform.UniformReplay).make_replay(1)
  assert replay.steps_ahead == K


# BBF.


@pytest.mark.parametrize('explore', [True, False])
def test_bbf_acts_by_the_network_that_follows(explore):
  agent = make(bbf.BBF, epsilon=0.0, evaluation_epsilon=0.0)
  sample = batch_of()
  state = init(agent, sample)
  opposite = jax.tree.map(lambda x: -x, state.params)
  state = state.replace(target_params=opposite)
  seen = np.float32(np.random.default_rng(3).normal(size=(64, 3)))
  key = jax.random.key(0)
  acts = linear.jitted(functools.partial(agent.act, explore=explore))(
    state, seen, jnp.zeros((), jnp.int32), key
  )
  q = linear.jitted(agent.q_values)
  target, online = (
    np.argmax(q(params, seen, key), axis=1)
    for params in (state.target_params, state.params)
  )
  assert np.any(target != online)
  np.testing.assert_array_equal(acts, target)


def test_the_target_network_follows_after_each_update():
  agent = make(bbf.BBF)
  sample = batch_of()
  state = init(agent, sample)
  state = state.replace(target_params=init(agent, sample, seed=5).params)
  update = learning(agent, 'target_tau')
  for tau in (0.005, 0.25, 1.0):
    new, _, _ = update(tau, state, sample, jax.random.key(0))
    follows = functools.partial(assert_follows, tau)
    jax.tree.map(follows, state.target_params, new.target_params, new.params)


def assert_follows(tau, old, target, online):
  np.testing.assert_allclose(
    target, (1 - tau) * np.asarray(old) + tau * online, rtol=1e-4, atol=1e-6
  )


# The online network itself, which nothing is computed of.
@pytest.mark.slow  # as DQN has it by default, in `dqn_test`
def test_a_target_network_may_be_the_online_one_after_each_update():
  agent = make(bbf.BBF, target_tau=1.0)
  sample = batch_of()
  state = init(agent, sample)
  state = state.replace(target_params=init(agent, sample, seed=5).params)
  new, _, _ = linear.jitted(agent.update)(state, sample, jax.random.key(0))
  follows = functools.partial(assert_follows, 1.0)
  jax.tree.map(follows, state.target_params, new.target_params, new.params)


def test_priorities_as_published_are_one_for_a_batch():
  losses = np.float32([4.0, 1.0, 0.0, 3.0])
  found = make(bbf.BBF).priorities(losses)
  np.testing.assert_allclose(found, np.sqrt(losses))
  found = make(bbf.BBF, published_priorities=True).priorities(losses)
  keep = prioritized.KEEP
  np.testing.assert_allclose(found, [np.sqrt(2.0), keep, keep, keep])
  agent = make(bbf.BBF, published_priorities=True, replay=uniform.UniformReplay)
  with pytest.raises(errors.UserError, match='is of prioritized replay'):
    agent.make_replay(1)


def test_the_shipped_resets_halve_the_encoder_and_renew_the_head():
  run = config.load(['bbf_atari100k'], []).build(runner.Runner)
  agent = make(bbf.BBF)
  sample = batch_of()
  state = jax.tree.map(
    lambda x: np.full(x.shape, 7, x.dtype), init(agent, sample)
  )
  view = types.SimpleNamespace(
    loop=types.SimpleNamespace(agent=agent),
    state=types.SimpleNamespace(
      agent=state,
      experience=types.SimpleNamespace(
        observation=sample.transition.observation
      ),
    ),
  )

  def changed(state):
    view.state.agent = state
    for callback in run.callbacks:
      view.state.agent = callback.change(view, (), jax.random.key(1))
    return view.state.agent

  found = state_arrays.named(jax.jit(changed)(state))
  kept = ('.encoder.', '.transition.')
  for name, array in found.items():
    is_kept = any(part in name for part in kept)
    if name == 'updates':  # so that n and gamma begin anew
      assert array == 0
    elif name.startswith('optimizer_state'):
      # Of layers that go on, the moments do; Adam's count does too.
      is_moment = '.mu.' in name or '.nu.' in name
      expected = 7 if is_kept or not is_moment else 0
      np.testing.assert_array_equal(array, expected, err_msg=name)
    elif is_kept:
      assert np.all(np.abs(array - 3.5) < 2), name  # 0.5 * 7 and noise
      if name.endswith('kernel'):
        assert np.std(array) > 0, name
    else:
      assert np.all(np.abs(array) < 4), name
  # Each of the two networks has its own.
  for part in (*kept, '.head.', '.projection.', '.predictor.'):
    names = [
      name
      for name in found
      if name.startswith('params.') and part in name and 'kernel' in name
    ]
    assert names
    for name in names:
      assert np.any(found[name] != found[f'target_{name}']), name


# Schedules by equal factors.


@pytest.mark.parametrize(
  ('count', 'n_step', 'gamma'),
  [
    (0, 10, 0.97),
    (5_000, np.sqrt(30), 1 - np.sqrt(0.03 * 0.003)),
    (10_000, 3, 0.997),
    (39_999, 3, 0.997),
  ],
)
def test_a_geometric_schedule_goes_by_equal_factors(count, n_step, gamma):
  found = schedules.geometric(10, 3, 10_000)(count)
  np.testing.assert_allclose(found, n_step, rtol=1e-5)
  found = schedules.geometric_discount(0.97, 0.997, 10_000)(count)
  np.testing.assert_allclose(found, gamma, rtol=1e-6)


@hypothesis.given(
  first=st.floats(0.1, 100),
  last=st.floats(0.1, 100),
  steps=st.integers(1, 1_000),
  count=st.integers(0, 2_000),
)
@hypothesis.settings(deadline=None, max_examples=50)
def test_it_is_the_exponential_decay_of_optax(first, last, steps, count):
  decay = optax.exponential_decay(first, steps, last / first, end_value=last)
  found = schedules.geometric(first, last, steps)(count)
  np.testing.assert_allclose(found, decay(count), rtol=1e-4)


@pytest.mark.parametrize(
  ('function', 'given', 'message'),
  [
    (schedules.geometric, (0, 3, 1), 'goes from 0 to 3; both must be above 0'),
    (schedules.geometric, (1, 3, 0), 'transition_steps = 0 must be at least 1'),
    (schedules.geometric_discount, (0.9, 1.0, 1), r'must lie in \[0, 1\)'),
    (schedules.geometric_discount, (0.9, 0.95, 0), 'geometric_discount.trans'),
  ],
)
def test_schedules_refuse_what_cant_be(function, given, message):
  with pytest.raises(errors.UserError, match=message):
    function(*given)


class Plain(spr.SPR):
  """Overrides what SPR never calls."""

  def losses(self, params, target_params, batch, key):
    raise AssertionError


def test_losses_that_are_never_called_are_refused():
  with pytest.raises(errors.UserError, match=r'Plain\.losses is never called'):
    Plain()
