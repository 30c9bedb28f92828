"""Agents choose, and believe that they will choose, among allowed actions."""

import functools

from gymnasium import spaces as gym_spaces
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dopamine_jax import agent as agent_lib
from dopamine_jax import errors
from dopamine_jax import networks
from dopamine_jax import runner as runner_lib
from dopamine_jax import spaces
from dopamine_jax import values
from dopamine_jax.agents import dqn
from dopamine_jax.agents import iqn
from dopamine_jax.agents import ppo
from dopamine_jax.agents import ppo_rnn
from dopamine_jax.agents import pqn
from dopamine_jax.agents import pqn_rnn
from dopamine_jax.agents import r2d2
from dopamine_jax.engines import compiled
from dopamine_jax.engines import plain_engine
from dopamine_jax.engines import python_engine
from dopamine_jax.environments import border
from dopamine_jax.environments import gym
from dopamine_jax.learning import exploration
from dopamine_jax.playing import trained
from dopamine_jax.replay import uniform
from dopamine_jax.training import fingerprint
from tests import masked
from tests import trees
from tests.agents import outlook_test
from tests.unit import engine_test

SPACE = spaces.Masked(gym_spaces.Box(-1, 1, (2,)), 3)
ACTIONS = gym_spaces.Discrete(3)
KEY = jax.random.key(0)


def seen(masks):
  """Returns observations [B, ...] with these masks."""
  rng = np.random.default_rng(0)
  numbers = rng.normal(size=(len(masks), 2)).astype(np.float32)
  return {
    'observation': jnp.asarray(numbers),
    'action_mask': jnp.asarray(masks, jnp.int8),
  }


# Choosing.


def test_random_actions_are_uniform_over_what_is_allowed():
  mask = jnp.int8([[1, 0, 1, 1], [0, 0, 1, 0], [1, 1, 1, 1]])
  choices = np.linspace(0, 1, 12, endpoint=False, dtype=np.float32)
  pick = jax.vmap(lambda choice: exploration.pick(mask, jnp.full(3, choice)))
  found = np.asarray(pick(choices)).T
  counts = [np.bincount(row, minlength=4).tolist() for row in found]
  assert counts == [[4, 0, 4, 4], [0, 0, 12, 0], [3, 3, 3, 3]]


# Slow are agents that choose as the class does which they are made from.
@pytest.mark.parametrize(
  ('cls', 'settings'),
  [
    *(
      pytest.param(
        *(cls, settings),
        marks=pytest.mark.slow
        if cls in outlook_test.ALIKE or 'distributional' in settings
        else (),
      )
      for cls, settings in outlook_test.VALUE_BASED
    ),
    (ppo.PPO, {'normalize_observations': True}),
  ],
)
def test_no_action_is_chosen_that_is_not_allowed(cls, settings):
  agent = cls(observation_space=SPACE, action_space=ACTIONS, **settings)
  if hasattr(agent, 'epsilon'):
    agent = agent.replace(epsilon=0.5, evaluation_epsilon=0.5)
  masks = [[0, 1, 0], [1, 0, 1]] * 20

  def act(key):
    observation = seen(masks)
    state = agent.init(key, observation)
    step = jnp.int32(0)
    actions = [
      agent.act(state, observation, step, key, explore=explore)
      for explore in (True, False)
    ]
    return actions, agent.outlook(state, observation, key)

  both, outlook = jax.jit(act)(KEY)
  for actions in both:
    assert set(actions.tolist()[::2]) == {1}
    assert set(actions.tolist()[1::2]) <= {0, 2}
  shown = [outlook.probabilities, outlook.values, outlook.value]
  assert all(np.isfinite(x).all() for x in shown if x is not None)
  if outlook.values is not None:
    allowed = np.where(masks, outlook.values, -np.inf)
    np.testing.assert_allclose(outlook.value, allowed.max(axis=1), rtol=1e-5)
  else:
    assert not np.any(np.where(masks, 0, outlook.probabilities))


RECURRENT = [
  ppo_rnn.PPORNN,
  # Chooses as R2D2, and learns from a rollout as PPORNN.
  pytest.param(pqn_rnn.PQNRNN, marks=pytest.mark.slow),
  r2d2.R2D2,
]


@pytest.mark.parametrize('cls', RECURRENT)
def test_agents_with_memory_choose_what_is_allowed(cls):
  agent = cls(observation_space=SPACE, action_space=ACTIONS)
  if hasattr(agent, 'epsilon'):
    agent = agent.replace(epsilon=0.5)
  masks = [[0, 1, 0], [1, 0, 1]] * 20

  def act(key):
    state = agent.init(key, seen(masks))
    now = agent_lib.Seen(
      observation=seen(masks),
      action=jnp.zeros(40, jnp.int32),
      reward=jnp.zeros(40),
      first=jnp.ones(40, bool),
    )
    memory = agent.init_memory(40)
    step = jnp.int32(0)
    return agent.act_with_memory(state, memory, now, step, key, explore=True)[0]

  actions = jax.jit(act)(KEY).tolist()
  assert set(actions[::2]) == {1} and set(actions[1::2]) == {0, 2}


@pytest.mark.parametrize('cls', RECURRENT)
def test_agents_with_memory_learn_from_parts_and_masks(cls):
  environment = MaskedParts()
  environments = environment.make(4)
  agent = functools.partial(cls, update_period=16)
  run = Run(agent=agent, environment=environment, num_envs=4)
  engine = run.make_engine(environments, (0,), check_finite=True)
  engine.reset([0, 1, 2, 3])
  jax.eval_shape(engine.loop.learn, engine.abstract_state())


class MaskedParts(trees.Parts):
  """Observations of several parts, and a mask."""

  @property
  def observation_space(self):
    return spaces.Masked(trees.SPACE, 3)

  def reset(self, key):
    state, observation = super().reset(key)
    return state, self._with_mask(observation)

  def step(self, state, action, key):
    outcome = super().step(state, action, key)
    observation = self._with_mask(outcome.observation)
    return outcome._replace(observation=observation)

  def _with_mask(self, observation):
    return {'observation': observation, 'action_mask': jnp.ones(3, jnp.int8)}


def test_targets_with_memory_are_of_what_is_allowed():
  agent = r2d2.R2D2(
    observation_space=SPACE, action_space=ACTIONS, n_step=1, rescaled=False
  )
  params = jax.jit(agent.init)(KEY, seen([[1, 1, 0]])).params
  observation = jax.tree.map(
    lambda x: x.reshape(4, 1, -1), seen([[1, 1, 0]] * 4)
  )
  shape = (4, 1)
  now = agent_lib.Seen(
    observation=observation,
    action=jnp.zeros(shape, jnp.int32),
    reward=jnp.zeros(shape),
    first=jnp.zeros(shape, bool),
  )
  sequence = agent_lib.Sequence(
    observation=observation,
    action=jnp.zeros(shape, jnp.int32),
    reward=jnp.zeros(shape),
    discount=jnp.full(shape, 0.9),
    next_observation=observation,
    last=jnp.zeros(shape, bool),
    seen=now,
    next_seen=now,
    memory=agent.init_memory(1),
    taken=jnp.ones(shape, bool),
  )
  errors_, q = jax.jit(agent.td_errors)(params, params, sequence)
  values_ = jax.jit(agent.unroll)(params, sequence)[1:, 0]
  best = np.asarray(values_)[:, :2].max(axis=1)
  expected = 0.9 * best - np.asarray(q)[:, 0, 0]
  np.testing.assert_allclose(errors_[:, 0], expected, rtol=1e-4, atol=1e-6)
  assert (np.asarray(values_)[:, 2] > best).any()


def test_a_policy_is_one_over_what_is_allowed():
  agent = ppo.PPO(observation_space=SPACE, action_space=ACTIONS)
  observation = seen([[1, 0, 1], [1, 1, 1]])
  params = jax.jit(agent.init_params)(KEY, observation)

  @jax.jit
  def look(params):
    policy, _ = agent.policy(params, observation)
    free, _ = agent.policy(
      params, observation | {'action_mask': jnp.ones((2, 3))}
    )
    found = policy.log_prob(jnp.int32([2, 1])), policy.entropy()
    return *found, free.logits, free.log_prob(jnp.int32([0, 1]))

  log_probs, entropies, logits, of_free = map(np.asarray, look(params))
  expected = np.exp(logits[0, [0, 2]])
  expected /= expected.sum()
  np.testing.assert_allclose(np.exp(log_probs[0]), expected[1], rtol=1e-6)
  np.testing.assert_allclose(log_probs[1], of_free[1])
  entropy = -(expected * np.log(expected)).sum()
  np.testing.assert_allclose(entropies[0], entropy, rtol=1e-6)

  def loss(params):
    policy, _ = agent.policy(params, observation)
    return jnp.sum(policy.entropy() + policy.log_prob(jnp.int32([0, 0])))

  gradients = jax.jit(jax.grad(loss))(params)
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradients))


# Learning.

LINEAR = {
  'network': functools.partial(networks.MLP, hidden=()),
}
LEARNERS = [
  (cls, settings if 'network' in settings else settings | LINEAR)
  for cls, settings in outlook_test.VALUE_BASED
  if cls is not pqn.PQN
]
LEARNERS.append(
  (iqn.IQN, {'network': outlook_test.iqn_network, 'double': True})
)


@pytest.mark.parametrize(('cls', 'settings'), LEARNERS)
def test_targets_are_of_what_is_allowed_next(cls, settings):
  agent = cls(observation_space=SPACE, action_space=ACTIONS, **settings)
  if hasattr(agent, 'dueling'):
    agent = agent.replace(dueling=False, noisy=False)
  observation = seen([[1, 0, 0]] * 4)
  params = jax.jit(agent.init)(KEY, observation).params

  path, bias = last_bias(agent, params)

  def columns(bias):
    return agent.q_values(with_bias(params, bias, path), observation, KEY)

  slopes = jax.jit(jax.jacobian(columns))(bias)  # [B, A, outputs]
  # The outputs of the action that is not allowed next, and of no other.
  of_last = np.abs(slopes[:, 2]).max(axis=0) > 0
  assert of_last.any() and not np.abs(slopes[:, :2, of_last]).any()
  other = bias + 5 * jnp.where(of_last, jnp.arange(len(bias)) % 7 + 1.0, 0.0)

  @jax.jit
  def losses(bias, masks):
    batch = agent_lib.Transition(
      observation=observation,
      action=jnp.zeros(4, jnp.int32),
      reward=jnp.arange(4.0),
      discount=jnp.full(4, 0.9),
      next_observation=seen([[0, 0, 0]] * 4) | {'action_mask': masks},
    )
    now = with_bias(params, bias, path)
    return agent.losses(now, now, batch, KEY)[0]

  some, every = jnp.int8([[1, 1, 0]] * 4), jnp.ones((4, 3), jnp.int8)
  np.testing.assert_array_equal(losses(bias, some), losses(other, some))
  assert np.any(losses(bias, every) != losses(other, every))


def last_bias(agent, params):
  """Returns the path and the value of the last layer's bias."""
  leaves = jax.tree_util.tree_leaves_with_path(params)
  biases = [(path, x) for path, x in leaves if 'bias' in str(path[-1])]
  return next(
    (path, x) for path, x in reversed(biases) if len(x) % 3 == 0 and len(x) != 8
  )


def with_bias(params, bias, path):
  return jax.tree_util.tree_map_with_path(
    lambda mine, x: bias if mine == path else x, params
  )


# The whole framework.

Agent = functools.partial(
  dqn.DQN,
  network=functools.partial(networks.MLP, hidden=()),
  replay=functools.partial(
    uniform.UniformReplay, capacity=2_000, batch_size=16, min_history=40
  ),
  optimizer=values.call(optax.adam, 2e-2),
  gamma=0.8,
  update_period=2,
  target_update_period=10,
  epsilon=0.8,
  evaluation_epsilon=0.9,
)
Run = functools.partial(
  runner_lib.Runner,
  agent=Agent,
  environment=masked.Masked(),
  num_iterations=2,
  training_steps=600,
  num_envs=2,
  evaluation_episodes=3,
  collectors=(),
)


@pytest.fixture(scope='module')
def base_dir(tmp_path_factory):
  base_dir = tmp_path_factory.mktemp('masks') / 'python'
  Run().train(base_dir, num_seeds=2, quiet=True)
  return base_dir


def require_values(loaded, state):
  """Asserts that the values of what is allowed are those of the probe."""
  eye = jnp.eye(masked.NUM_STATES)[:2]
  observation = {
    'observation': eye,
    'action_mask': jnp.asarray(masked.ALLOWED[:2]),
  }
  q = jax.jit(loaded.agent.q_values)(state.params, observation, KEY)
  expected = masked.values(0.8)
  for i, row in enumerate(expected):
    found = [float(q[i, action]) for action in row]
    np.testing.assert_allclose(found, list(row.values()), atol=0.1)
  agent = loaded.agent.greedy()
  act = jax.jit(functools.partial(agent.act, explore=False))
  best = act(state, observation, np.int32(0), KEY)
  assert best.tolist() == masked.BEST


def test_values_are_of_what_is_allowed(base_dir):
  loaded = trained.load(base_dir)
  for i in range(2):
    require_values(loaded, loaded.axis.pick(loaded.state, i))


@pytest.mark.parametrize(
  'other',
  [
    # Masks are parts of observations, which it passes on as they are.
    pytest.param(plain_engine.PlainEngine, marks=pytest.mark.slow),
    compiled.CompiledEngine,
  ],
)
def test_engines_agree_on_masks(other, tmp_path):
  short = {
    'training_steps': 60,
    'num_iterations': 1,
    'evaluation_episodes': 0,
  }
  found = set()
  for engine in (python_engine.PythonEngine, other):
    folder = tmp_path / engine.__name__
    Run(engine=engine, **short).train(folder, num_seeds=2, quiet=True)
    found.add(fingerprint.fingerprint(folder)['replay'])
  assert len(found) == 1


# As with any observation of several parts, which `trees_test` has.
@pytest.mark.slow
def test_a_run_with_masks_that_goes_on_ends_as_one_never_stopped(
  base_dir, tmp_path
):
  Run(num_iterations=1).train(tmp_path, num_seeds=2, quiet=True)
  Run().train(tmp_path, num_seeds=2, quiet=True)
  assert fingerprint.fingerprint(tmp_path) == fingerprint.fingerprint(base_dir)


def test_masks_of_gymnasium_are_taken_out_of_info(tmp_path):
  environment = gym.Gym(id='tests.masked:Masked/Probe-v0', action_mask=True)
  # Two seeds, as above, so that the same is not compiled again for one.
  made = Run(environment=environment, evaluation_episodes=0)
  made.train(tmp_path, num_seeds=2, quiet=True)
  loaded = trained.load(tmp_path)
  require_values(loaded, loaded.axis.pick(loaded.state, 0))


@pytest.mark.parametrize(
  ('told', 'said'),
  [
    ({}, r"info\['action_mask'\] must tell .* 3 bools.*step gave none"),
    ({'action_mask': [1, 0]}, r'step gave \[1, 0\] \(list\)'),
    ({'action_mask': [1, 0, 2]}, r'step gave \[1, 0, 2\]'),
    ({'action_mask': np.full(3, 0.5)}, r'step gave float64 \(3,\)'),
    ({'action_mask': [0, 0, 0]}, 'its action_mask allows no action'),
  ],
)
@pytest.mark.parametrize('vector', ['sync', 'async'])
def test_a_mask_that_is_none_is_named(told, said, vector):
  if vector == 'async' and told:
    pytest.skip('one of them is enough, since processes start slowly')
  environments = gym.Gym(
    id='tests.masked:Masked/Probe-v0',
    kwargs={'told': told},
    action_mask=True,
    vector=vector,
  ).make(1)
  looked_at = border.Border(environments)
  looked_at.reset([0])
  looked_at.step(np.array([1]))
  looked_at.step(np.array([0]))
  with pytest.raises(errors.UserError, match=said) as caught:
    looked_at.step(np.array([1]))
  assert '(step 3 since the seeded reset)' in str(caught.value)
  environments.close()


@pytest.mark.parametrize(
  'engine', [python_engine.PythonEngine, compiled.CompiledEngine]
)
def test_what_is_not_as_masks_say_ends_a_training(engine, tmp_path):
  nothing = masked.Masked(allowed=((0, 1, 1), (0, 0, 0), (0, 0, 0)))
  run = functools.partial(Run, engine=engine, agent=Heedless)
  with pytest.raises(errors.UserError, match='allows no action'):
    run(environment=nothing).train(tmp_path / 'a', quiet=True)
  with pytest.raises(errors.UserError, match='action is not allowed'):
    run().train(tmp_path / 'b', quiet=True)


class Heedless(engine_test.Spy):
  """Does what no mask allows, and has little to compile."""

  def act(self, state, observation, step, key, *, explore):
    return jnp.zeros(len(observation['action_mask']), jnp.int32)


def test_masks_are_of_discrete_actions_as_many_as_there_are():
  with pytest.raises(errors.UserError, match='of Discrete actions'):
    gym.Gym(id='Pendulum-v1', action_mask=True).make(1)

  class Wrong(masked.Masked):
    @property
    def action_space(self):
      return gym_spaces.Discrete(4)

  with pytest.raises(errors.UserError, match='masks of 3 actions'):
    border.Border(Wrong().make(1))
