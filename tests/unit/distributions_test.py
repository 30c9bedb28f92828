"""Tests of distributions.py against SciPy and large samples."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from dopamine_jax.learning import distributions

LOGITS = np.array([[0.0, 1.0, -2.0], [5.0, 5.0, 5.0]], np.float32)
MEAN = np.array([[[0.5, -1.0]], [[2.0, 0.0]]], np.float32)  # actions of (1, 2)
LOG_STD = np.array([[0.3, -0.7]], np.float32)


def gaussian():
  space = gymnasium.spaces.Box(-1, 1, (1, 2))
  assert distributions.num_outputs(space) == 2
  return distributions.over(
    space, jnp.asarray(MEAN.reshape(2, 2)), jnp.asarray(LOG_STD)
  )


def categorical():
  space = gymnasium.spaces.Discrete(3)
  assert distributions.num_outputs(space) == 3
  return distributions.over(space, jnp.asarray(LOGITS), None)


def test_a_categorical_has_the_probabilities_of_its_logits():
  policy = categorical()
  probabilities = scipy.special.softmax(LOGITS, axis=1)
  for action in range(3):
    found = policy.log_prob(jnp.full(2, action))
    np.testing.assert_allclose(np.exp(found), probabilities[:, action], 1e-5)
  entropy = scipy.stats.entropy(probabilities, axis=1)
  np.testing.assert_allclose(jax.jit(policy.entropy)(), entropy, rtol=1e-5)
  np.testing.assert_array_equal(policy.mode(), [1, 0])
  draws = jax.jit(jax.vmap(policy.sample))(
    jax.random.split(jax.random.key(0), 4_000)
  )
  assert draws.shape == (4_000, 2)
  counts = np.stack([np.bincount(row, minlength=3) for row in draws.T])
  np.testing.assert_allclose(counts / 4_000, probabilities, atol=0.03)


def test_a_certain_categorical_has_no_entropy_and_is_finite():
  policy = distributions.Categorical(jnp.array([[0.0, 1e4, -1e4]]))
  assert jax.jit(policy.entropy)() == 0
  assert np.isfinite(policy.log_prob(jnp.array([2]))).all()


def test_a_gaussian_has_the_density_of_independent_normals():
  policy = gaussian()
  action = np.array([[[0.1, 0.2]], [[-1.0, 3.0]]], np.float32)
  normal = scipy.stats.norm(MEAN, np.exp(LOG_STD))
  np.testing.assert_allclose(
    policy.log_prob(jnp.asarray(action)),
    normal.logpdf(action).sum((1, 2)),
    rtol=1e-5,
  )
  np.testing.assert_allclose(
    jax.jit(policy.entropy)(), normal.entropy().sum((1, 2)), rtol=1e-5
  )
  np.testing.assert_array_equal(policy.mode(), MEAN)
  draws = jax.jit(jax.vmap(policy.sample))(
    jax.random.split(jax.random.key(0), 4_000)
  )
  assert draws.shape == (4_000, 2, 1, 2)
  np.testing.assert_allclose(draws.mean(0), MEAN, atol=0.1)
  expected = np.broadcast_to(np.exp(LOG_STD), (2, 1, 2))
  np.testing.assert_allclose(draws.std(0), expected, rtol=0.05)


def test_a_squashed_gaussian_has_the_density_of_what_tanh_makes_of_it():
  mean, log_std = np.array([-1.5, 0.0, 0.4]), np.array([-0.5, 0.3, -2.0])
  # From one action to the next, over all of (-1, 1).
  edges = np.tanh(np.linspace(-8, 8, 4_001))
  action = (edges[1:] + edges[:-1]) / 2
  for m, s in zip(mean, log_std, strict=True):
    shape = (len(action), 1)
    policy = distributions.TanhGaussian(jnp.full(shape, m), jnp.full(shape, s))
    x = jnp.asarray(np.arctanh(action)[:, None], jnp.float32)
    density = np.exp(np.asarray(policy.log_prob_at(x), np.float64))
    found = np.cumsum(density * np.diff(edges))
    normal = scipy.stats.norm(m, np.exp(s))
    np.testing.assert_allclose(
      found, normal.cdf(np.arctanh(edges[1:])), atol=2e-3
    )


def test_a_squashed_gaussian_says_what_it_drew():
  mean, log_std = jnp.asarray(MEAN), jnp.full((2, 1, 2), -0.5)
  policy = distributions.TanhGaussian(mean, log_std)
  key = jax.random.key(0)
  action, log_prob = policy.sample_and_log_prob(key)
  np.testing.assert_array_equal(action, policy.sample(key))
  x = np.arctanh(np.asarray(action, np.float64))
  each = scipy.stats.norm(MEAN, np.exp(-0.5)).logpdf(x)
  each += 2 * np.log(np.cosh(x))
  np.testing.assert_allclose(log_prob, each.sum((1, 2)), rtol=1e-4)
  np.testing.assert_allclose(policy.mode(), np.tanh(MEAN), rtol=1e-6)


@pytest.mark.parametrize('x', [-60.0, -12.0, 12.0, 60.0])
def test_a_squashed_gaussian_is_exact_where_tanh_rounds_to_one(x):
  # 1 / cosh(x)^2 is 4 exp(-2 |x|), but for a part in 10^10.
  expected = scipy.stats.norm(0, np.exp(2)).logpdf(x)
  expected -= np.log(4) - 2 * abs(x)

  def log_prob(x):
    one = jnp.ones((1, 1))
    return distributions.TanhGaussian(0 * one, 2 * one).log_prob_at(x * one)[0]

  value, slope = jax.jit(jax.value_and_grad(log_prob))(x)
  np.testing.assert_allclose(value, expected, rtol=1e-5)
  np.testing.assert_allclose(slope, 2 * np.sign(x) - x / np.exp(4), rtol=1e-5)


@pytest.mark.parametrize('make', [categorical, gaussian])
def test_the_mode_is_the_likeliest(make):
  policy = make()
  best = policy.log_prob(policy.mode())
  for seed in range(10):
    action = policy.sample(jax.random.key(seed))
    assert np.all(policy.log_prob(action) <= best)


def of_kind(kind, outputs, log_std=LOG_STD):
  space = gymnasium.spaces.Box(-1, 1, (1, 2))
  assert distributions.num_outputs(space, kind) == 4
  return distributions.over(
    space, jnp.asarray(outputs), jnp.asarray(log_std), kind
  )


OUTPUTS = np.array([[0.5, -1.0, 0.2, -0.4], [2.0, 0.0, 1.5, -3.0]], np.float32)


def test_deviations_may_depend_on_what_is_observed():
  policy = of_kind('state_gaussian', OUTPUTS)
  np.testing.assert_allclose(policy.mean, OUTPUTS[:, None, :2])
  expected = LOG_STD[None] + OUTPUTS[:, None, 2:]
  np.testing.assert_allclose(policy.log_std, expected, rtol=1e-6)
  wild = of_kind('state_gaussian', 100 * OUTPUTS)
  assert wild.log_std.max() == 2
  assert wild.log_std.min() == -20
  squashed = of_kind('tanh_gaussian', OUTPUTS)
  assert isinstance(squashed, distributions.TanhGaussian)
  np.testing.assert_allclose(squashed.log_std, policy.log_std)


def test_a_squashed_gaussians_density_and_entropy_are_of_its_actions():
  policy = of_kind('tanh_gaussian', OUTPUTS)
  x = np.array([[[0.3, -0.9]], [[1.4, 0.2]]], np.float32)
  np.testing.assert_allclose(
    policy.log_prob(jnp.tanh(x)), policy.log_prob_at(x), rtol=1e-4
  )
  assert np.isfinite(policy.log_prob(jnp.ones((2, 1, 2)))).all()
  # An integral over the normal that is squashed.
  z = np.linspace(-8, 8, 20_001)
  weight = scipy.stats.norm.pdf(z) / scipy.stats.norm.pdf(z).sum()
  std = np.exp(np.asarray(policy.log_std, np.float64))
  x = np.asarray(policy.mean)[..., None] + std[..., None] * z
  slope = weight @ np.moveaxis(
    -2 * np.logaddexp(x, -x) + np.log(4), -1, 0
  ).reshape(len(z), -1)
  expected = scipy.stats.norm(0, std).entropy() + slope.reshape(std.shape)
  np.testing.assert_allclose(
    jax.jit(policy.entropy)(), expected.sum((1, 2)), atol=0.01
  )


def test_a_beta_distribution_is_scipys_between_minus_one_and_one():
  policy = of_kind('beta', OUTPUTS)
  log_prob = jax.jit(policy.log_prob)
  a, b = (1 + np.log1p(np.exp(x)) for x in np.split(OUTPUTS, 2, axis=1))
  expected = scipy.stats.beta(a, b, loc=-1, scale=2)
  action = np.array([[0.3, -0.9], [0.95, 0.0]], np.float32)
  np.testing.assert_allclose(
    log_prob(action[:, None]), expected.logpdf(action).sum(1), rtol=1e-4
  )
  np.testing.assert_allclose(
    jax.jit(policy.entropy)(), expected.entropy().sum(1), rtol=1e-4, atol=1e-5
  )
  np.testing.assert_allclose(
    jax.jit(policy.mode)()[:, 0], expected.mean(), rtol=1e-5
  )
  low, high = jax.jit(policy.interval)()
  np.testing.assert_allclose((high - low)[:, 0] / 2, expected.std(), rtol=1e-4)
  draws = jax.jit(jax.vmap(policy.sample))(
    jax.random.split(jax.random.key(0), 4_000)
  )
  assert np.abs(draws).max() <= 1
  np.testing.assert_allclose(draws.mean(0)[:, 0], expected.mean(), atol=0.03)
  np.testing.assert_allclose(draws.std(0)[:, 0], expected.std(), atol=0.03)
  assert np.isfinite(log_prob(jnp.ones((2, 1, 2)))).all()
  squares = lambda x: jnp.sum(of_kind('beta', x).entropy() ** 2)  # noqa: E731
  slope = jax.jit(jax.grad(squares))(jnp.asarray(OUTPUTS))
  assert np.isfinite(slope).all()
