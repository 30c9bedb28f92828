"""C51 against Algorithm 1, written as loops in NumPy."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax

from dopamine_jax import errors
from dopamine_jax.agents import c51
from dopamine_jax.agents import classification
from dopamine_jax.agents import full_rainbow
from dopamine_jax.agents import iqn
from dopamine_jax.agents import quantile
from tests import linear

NUM_ACTIONS, NUM_ATOMS = 3, 5


def make(num_actions=NUM_ACTIONS, **settings):
  support = {'num_atoms': NUM_ATOMS, 'v_min': -2.0, 'v_max': 3.0}
  return linear.make(c51.C51, num_actions, **support | settings)


def softmax(logits):
  e = np.exp(logits - np.max(logits, axis=-1, keepdims=True))
  return e / e.sum(axis=-1, keepdims=True)


def project(atoms, probabilities, reward, discount):
  """Returns the projection of the target: Algorithm 1 to the letter."""
  projected = np.zeros(len(atoms))
  v_min, v_max = atoms[0], atoms[-1]
  spacing = (v_max - v_min) / (len(atoms) - 1)
  for z, p in zip(atoms, probabilities, strict=True):
    b = (np.clip(reward + discount * z, v_min, v_max) - v_min) / spacing
    # So that rounding leaves what falls on an atom there.
    b = round(b, 9)
    low, high = int(np.floor(b)), int(np.ceil(b))
    if low == high:
      projected[low] += p  # the letter would lose it
    else:
      projected[low] += p * (high - b)
      projected[high] += p * (b - low)
  return projected


def expected(agent, kernel, target_kernel, batch, _):
  """Returns each transition's loss [B] and gradient [B, F, A * M]."""
  batch = jax.tree.map(lambda x: np.asarray(x, np.float64), batch)
  atoms = np.linspace(agent.v_min, agent.v_max, agent.num_atoms)
  shape = (int(agent.action_space.n), agent.num_atoms)
  losses, gradients = [], []
  for i, action in enumerate(batch.action.astype(int)):
    now, then = batch.observation[i], batch.next_observation[i]
    p = softmax((now @ kernel).reshape(shape))[action]
    next_p = softmax((then @ target_kernel).reshape(shape))
    target = project(
      atoms,
      next_p[np.argmax(next_p @ atoms)],
      batch.reward[i],
      batch.discount[i],
    )
    losses.append(-np.sum(target * np.log(p)))
    by_logits = np.zeros(shape)
    by_logits[action] = p - target
    gradients.append(np.outer(now, by_logits))
  return np.array(losses), np.array(gradients)


@pytest.mark.parametrize(
  'support', [{}, {'v_min': 0.0}, {'v_max': 0.0}, {'num_atoms': 2}], ids=str
)
def test_an_update_agrees_with_numpy(support):
  agent = make(**support)
  for seed in range(4):
    problem = linear.random_problem(seed, NUM_ACTIONS, agent.num_outputs)
    linear.assert_update(agent, problem, *expected(agent, *problem))


def test_losses_agree_with_rlax():
  agent = make()
  kernel, target, batch, _ = linear.random_problem(5, 3, agent.num_outputs)

  def logits(kernel, observation):
    outputs = observation @ jnp.asarray(kernel, jnp.float32)
    return outputs.reshape(-1, NUM_ACTIONS, NUM_ATOMS)

  atoms = jnp.linspace(-2.0, 3.0, NUM_ATOMS)
  with warnings.catch_warnings():
    warnings.simplefilter('ignore', PendingDeprecationWarning)
    each = None, 0, 0, 0, 0, None, 0
    oracle = jax.jit(jax.vmap(rlax.categorical_q_learning, each))(
      atoms,
      logits(kernel, batch.observation),
      batch.action,
      batch.reward,
      batch.discount,
      atoms,
      logits(target, batch.next_observation),
    )
  np.testing.assert_allclose(
    linear.losses(agent, kernel, target, batch), oracle, rtol=1e-4
  )


# From observation 0, with probabilities 1/2, 1/4 and 1/4 of 0, 1 and 2, to
# observation 1, with 0, 3/4 and 1/4.
LEARNT, NEXT = (0.5, 0.25, 0.25), (0.0, 0.75, 0.25)


@pytest.mark.parametrize(
  ('reward', 'discount', 'target'),
  [
    (0.0, 1.0, NEXT),
    (1.0, 1.0, (0, 0, 1)),  # 2 and 3: what is too much counts as v_max
    (-1.0, 1.0, (0.75, 0.25, 0)),
    (-9.0, 1.0, (1, 0, 0)),  # as v_min, which is 0 here
    (9.0, 1.0, (0, 0, 1)),
    (0.25, 0.5, (0.1875, 0.75, 0.0625)),  # 3/4 of 0.75, 1/4 of 1.25
    # A termination: the reward alone, and nothing of what comes next.
    (0.0, 0.0, (1, 0, 0)),
    (0.5, 0.0, (0.5, 0.5, 0)),
    (2.0, 0.0, (0, 0, 1)),
  ],
)
def test_the_target_is_moved_shrunk_and_projected(reward, discount, target):
  agent = make(num_actions=1, num_atoms=3, v_min=0.0, v_max=2.0)
  batch = linear.make_batch([[1, 0]], [0], [reward], [discount], [[0, 1]])
  log = np.log(np.maximum([LEARNT, NEXT], 1e-30))
  np.testing.assert_allclose(
    linear.losses(agent, log, log, batch),
    [-np.dot(target, np.log(LEARNT))],
    rtol=1e-5,
  )


def test_the_next_action_has_the_largest_mean_of_the_target_network():
  agent = make(num_actions=2, num_atoms=3, v_min=0.0, v_max=2.0)
  # Action 1 has the larger mean, action 0 the likelier best return.
  target = np.log([[1e-9] * 6, [0.5, 1e-9, 0.5, 1e-9, 0.5, 0.5]])
  online = np.log([[0.5, 0.25, 0.25] * 2, [1e-9, 1e-9, 1, 1, 1e-9, 1e-9]])
  batch = linear.make_batch([[1, 0]], [0], [0], [1], [[0, 1]])
  np.testing.assert_allclose(
    linear.losses(agent, online, target, batch), [np.log(4)], rtol=1e-5
  )


def test_q_values_are_expectations():
  agent = make(num_actions=2, num_atoms=3, v_min=0.0, v_max=4.0)
  kernel = np.log([[0.5, 0.25, 0.25, 0.2, 0.2, 0.6], [1] * 6])
  q = agent.q_values(linear.params_of(kernel), jnp.eye(2), jax.random.key(0))
  np.testing.assert_allclose(q, [[1.5, 2.8], [2, 2]], rtol=1e-6)


def test_v_min_is_honoured_even_if_it_is_zero():
  np.testing.assert_array_equal(make(v_min=0.0).atoms[0], 0.0)
  np.testing.assert_array_equal(make(v_min=-7.0).atoms[0], -7.0)
  np.testing.assert_array_equal(make(v_min=-7.0, v_max=0.0).atoms[-1], 0.0)


def test_a_sure_prediction_has_a_priority():
  # The rounded loss of what is known for sure must not be below 0.
  agent = make(num_actions=1)
  scales = np.linspace(0, 30, 200)
  kernel = np.stack([np.zeros(5), np.eye(5)[2]])
  batch = linear.make_batch(
    [[0, s] for s in scales], [0] * 200, [0.5] * 200, [0] * 200, [[1, 0]] * 200
  )
  losses = linear.losses(agent, kernel, kernel, batch)
  assert (losses >= 0).all()
  np.testing.assert_allclose(losses[-1], 0, atol=1e-6)


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'num_atoms': 1}, 'num_atoms = 1.*at least 2'),
    ({'huber_delta': 1.0}, 'huber_delta = 1.0 has no effect: a cross-entropy'),
    ({'v_min': 3.0}, r'v_min = 3\.0 does not fit v_max = 3\.0'),
    ({'v_min': 4.0}, r'v_min = 4\.0 does not fit v_max = 3\.0'),
    ({'v_max': float('inf')}, 'v_max = inf is not finite'),
    ({'v_max': float('nan')}, 'v_max = nan is not finite'),
  ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
  with pytest.raises(errors.UserError, match=f'C51.{message}'):
    make(**settings)


def test_huber_delta_is_of_errors_of_values():
  for cls in (quantile.QuantileDQN, iqn.IQN):
    with pytest.raises(errors.UserError, match='has kappa instead'):
      cls(huber_delta=1.0)
  with pytest.raises(errors.UserError, match='has no effect'):
    full_rainbow.FullRainbow(huber_delta=1.0)
  full_rainbow.FullRainbow(huber_delta=1.0, distributional=False)
  with pytest.raises(errors.UserError, match=r'sigma_ratio = .* has no effect'):
    classification.ClassificationDQN(spread='two_hot', sigma_ratio=0.5)
