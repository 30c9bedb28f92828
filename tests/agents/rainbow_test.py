"""Rainbow is C51 with its defaults, and its replay follows its losses."""

import jax
import numpy as np

from dopamine_jax.agents import c51
from dopamine_jax.agents import rainbow
from dopamine_jax.replay import prioritized
from dopamine_jax.replay import ring
from tests import linear


def make(num_actions=2, cls=rainbow.Rainbow, **settings):
  support = {'num_atoms': 3, 'v_min': 0.0, 'v_max': 2.0}
  return linear.make(cls, num_actions, **support | settings)


def test_replay_is_prioritized_and_returns_have_three_steps():
  replay = make().make_replay(1)
  assert isinstance(replay, prioritized.PrioritizedReplay)
  assert (replay.n_step, replay.alpha, replay.beta) == (3, 1.0, 0.5)


def test_it_learns_as_c51_does():
  kernel, target, batch, weight = linear.random_problem(0, 2, 6)
  ours, theirs = (
    linear.update(make(cls=cls), kernel, target, batch, weight)
    for cls in (rainbow.Rainbow, c51.C51)
  )
  jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_importance_weights_scale_each_transitions_gradient():
  # Two transitions that share no weight of the network.
  agent = make(num_actions=1)
  batch = linear.make_batch(
    [[1, 0], [0, 1]], [0, 0], [1, 1], [0, 0], [[0, 0], [0, 0]]
  )
  zeros = np.zeros((2, 3))
  plain, _, _ = linear.update(agent, zeros, zeros, batch, [1.0, 1.0])
  weighted, _, _ = linear.update(agent, zeros, zeros, batch, [0.25, 0.0])
  # By the logits: 1/3 less the target, all on the middle one; over B = 2.
  expected = -linear.RATE / 2 * np.array([1 / 3, -2 / 3, 1 / 3])
  np.testing.assert_allclose(plain, [expected, expected], rtol=1e-5)
  np.testing.assert_allclose(
    weighted, [0.25 * expected, np.zeros(3)], rtol=1e-5
  )


def test_transitions_are_drawn_in_proportion_to_the_root_of_their_loss():
  agent = make(num_actions=1, n_step=1)
  replay = prioritized.PrioritizedReplay(
    capacity=16, batch_size=8, min_history=8, gamma=0.99
  )
  # Episodes of one step, in turn from either observation: of one the return is
  # known, of the other less so.
  kernel = np.array([[0, 9, 0], [0, 1, 0]], np.float32)
  add, reprioritize = jax.jit(replay.add), jax.jit(replay.reprioritize)
  state = jax.jit(replay.init)(step_from(0))
  for i in range(6):
    state = add(state, step_from(i % 2))
  draw, learn = jax.jit(replay.sample), jax.jit(agent.update)
  init = jax.jit(agent.init)
  agent_state = init(jax.random.key(0), np.eye(2, dtype=np.float32)).replace(
    params=linear.params_of(kernel)
  )
  for i in range(20):
    sample = draw(state, jax.random.key(i))
    _, _, priorities = learn(agent_state, sample, jax.random.key(i))
    state = reprioritize(state, sample.index, priorities)

  draws = [draw(state, jax.random.key(100 + i)) for i in range(300)]
  seen = np.concatenate([d.transition.observation for d in draws])
  weight = np.concatenate([d.weight for d in draws])

  roots = np.sqrt(np.log(np.exp(kernel).sum(axis=1)) - kernel[:, 1])
  share = roots[0] / roots.sum()
  bound = 5 * np.sqrt(share * (1 - share) / len(seen))
  np.testing.assert_allclose(seen[:, 0].mean(), share, atol=bound)
  # Weights, with beta = 1/2, make up for half of that.
  known, unknown = weight[seen[:, 0] == 1], weight[seen[:, 0] == 0]
  np.testing.assert_allclose(known, 1.0)
  np.testing.assert_allclose(
    unknown.min(), np.sqrt(roots[0] / roots[1]), rtol=1e-3
  )


def step_from(state):
  observation = np.eye(2, dtype=np.float32)[state : state + 1]
  return ring.Step(
    observation=observation,
    action=np.zeros(1, np.int32),
    reward=np.ones(1, np.float32),
    terminated=np.ones(1, bool),
    truncated=np.zeros(1, bool),
    next_observation=observation,
  )
