"""Agents whose observations are no plain Box, and what their networks see."""

import functools

from flax import linen as nn
from gymnasium import spaces as gym_spaces
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dopamine_jax import agent as agent_lib
from dopamine_jax import errors
from dopamine_jax import networks
from dopamine_jax import spaces
from dopamine_jax.agents import dqn
from dopamine_jax.agents import ppo
from dopamine_jax.agents import sac
from dopamine_jax.learning import distributions
from dopamine_jax.learning import normalization
from tests import trees
from tests.agents import outlook_test

SPACE = spaces.stored(trees.SPACE, 'Trees')
BOX = gym_spaces.Box(-1, 1, (2,))
AGENTS = [
  # A network encodes, and some agents differ from others in losses and actions
  # alone.
  *(
    pytest.param(
      *(cls, gym_spaces.Discrete(3), settings),
      marks=pytest.mark.slow if cls in outlook_test.ALIKE else (),
    )
    for cls, settings in outlook_test.VALUE_BASED
  ),
  (ppo.PPO, gym_spaces.Discrete(3), {'normalize_observations': True}),
  (ppo.PPO, gym_spaces.MultiDiscrete([3, 2]), {'normalize_rewards': True}),
  (ppo.PPO, BOX, {}),
  (sac.SAC, BOX, {}),
]


class Identity(nn.Module):
  """Returns what it sees, and how often it was told `others`."""

  @nn.compact
  def __call__(self, x, *others):
    return x, len(others)


def rows(*lead, space=SPACE):
  """Returns observations [*lead, ...], all zeros."""
  return spaces.lay_out(jnp.zeros, space, lead)


def trajectory(lead, space, kind):
  dtype = jnp.float32 if space == BOX else jnp.int32
  fields = {
    'observation': rows(*lead),
    'action': jnp.zeros((*lead, *space.shape), dtype),
    'reward': jnp.zeros(lead),
    'discount': jnp.zeros(lead),
    'next_observation': rows(*lead),
  }
  if kind is agent_lib.Trajectory:
    fields['last'] = jnp.zeros(lead, bool)
  return kind(**fields)


@pytest.mark.parametrize(('cls', 'space', 'settings'), AGENTS)
def test_every_agent_takes_observations_of_several_parts(cls, space, settings):
  agent = cls(observation_space=SPACE, action_space=space, **settings)
  key = jax.random.key(0)
  is_on_policy = hasattr(agent, 'num_epochs')
  lead, kind = ((7,), agent_lib.Transition)
  if is_on_policy:
    agent = agent.replace(update_period=12, num_minibatches=3)
    lead, kind = (4, 3), agent_lib.Trajectory
  sample = agent_lib.Sample(
    transition=trajectory(lead, space, kind),
    index=jnp.zeros(lead, jnp.int32),
    weight=jnp.ones(lead),
  )

  def everything(key):
    state = agent.init(key, rows(3))
    seen = agent.act(state, rows(3), jnp.int32(0), key, explore=True)
    shown = agent.outlook(state, rows(3), key)
    return state, seen, shown, agent.update(state, sample, key)

  state, seen, shown, update = jax.eval_shape(everything, key)
  assert seen.shape == (3, *space.shape)
  assert shown.value.shape == (3,)
  assert jax.tree.structure(update[0]) == jax.tree.structure(state)


def test_each_leaf_is_encoded_by_what_it_is():
  space = spaces.stored(
    gym_spaces.Tuple(
      [
        gym_spaces.Box(-9, 9, (2,), np.int32),
        gym_spaces.Discrete(3),
        gym_spaces.MultiDiscrete([2, 3]),
        gym_spaces.MultiBinary(2),
      ]
    ),
    'X',
  )
  module = networks.Encoded(space=space, network=Identity())
  seen = (
    np.array([[4, -5]], np.int32),
    np.array([1], np.uint8),
    np.array([[1, 2]], np.uint8),
    np.array([[0, 1]], np.int8),
  )
  (joined, others), _ = module.init_with_output(jax.random.key(0), seen, 1, 2)
  assert joined.dtype == jnp.float32 and others == 2
  expected = [4, -5, 0, 1, 0, 0, 1, 0, 0, 1, 0, 1]
  assert joined.tolist() == [expected]


def test_counted_values_can_have_learnt_vectors():
  module = networks.Encoded(
    space=gym_spaces.Discrete(3), network=Identity(), embedding=5
  )
  seen = np.array([2, 0, 2], np.uint8)
  (joined, _), variables = module.init_with_output(jax.random.key(0), seen)
  table = variables['params']['Embed_0']['embedding']
  np.testing.assert_array_equal(joined, table[seen])


@pytest.mark.parametrize(
  ('space', 'torso'),
  [
    (gym_spaces.Box(0, 255, (40, 40), np.uint8), 'NatureTorso_0'),
    (gym_spaces.Box(0, 255, (40, 40, 3, 2), np.uint8), 'NatureTorso_0'),
    (gym_spaces.Box(0, 255, (7, 7, 3), np.uint8), 'MinAtarTorso_0'),
    (gym_spaces.Box(0, 1, (40, 40, 3), np.float32), 'MinAtarTorso_0'),
    (gym_spaces.Box(0, 1, (5, 3), np.float32), None),
    (gym_spaces.Box(0, 255, (2, 9, 9), np.uint8), None),
  ],
)
def test_images_get_convolutions(space, torso):
  module = networks.Encoded(space=space, network=Identity())
  seen = spaces.lay_out(jnp.zeros, space, (1,))
  variables = jax.eval_shape(module.init, jax.random.key(0), seen)
  assert list(variables.get('params', {})) == ([torso] if torso else [])


def test_encoders_can_be_chosen():
  agent = dqn.DQN(
    observation_space=SPACE,
    action_space=gym_spaces.Discrete(3),
    network=functools.partial(
      networks.Encoded,
      network=functools.partial(networks.MLP, hidden=(4,)),
      image=networks.MLPTorso(hidden=(5,)),
      vector=networks.MLPTorso(hidden=(6,)),
      embedding=2,
    ),
  )
  state = jax.eval_shape(agent.init, jax.random.key(0), rows(1))
  kernels = {
    jax.tree_util.keystr(path): leaf.shape
    for path, leaf in jax.tree_util.tree_leaves_with_path(state.params)
    if len(leaf.shape) == 2
  }
  # Numbers, a bool and a single whole number have a torso each; what is
  # counted three vectors of 2, and MultiBinary its 2 numbers.
  encoders = [(16, 5), (2, 6), (1, 6), (1, 6), (3, 2), (2, 2), (300, 2)]
  top = [(5 + 3 * 6 + 3 * 2 + 2, 4), (4, 3)]
  assert sorted(kernels.values()) == sorted([*encoders, *top])


def test_a_plain_box_has_the_network_that_is_named_and_no_other():
  agent = dqn.DQN(
    observation_space=gym_spaces.Box(0, 1, (4,)),
    action_space=gym_spaces.Discrete(2),
    network=networks.MLP,
  )
  assert isinstance(agent.module, networks.MLP)


def test_floats_alone_are_normalized():
  first = normalization.of(SPACE, rows(2))
  seen = jax.tree.map(lambda x: x + (x.dtype == np.float32) * 3, rows(2))
  found = first.add(seen).normalize(seen)
  assert jax.tree.structure(found) == jax.tree.structure(seen)
  after = spaces.flatten(SPACE, found)
  before = spaces.flatten(SPACE, seen)
  for path, mine, other in zip(
    spaces.leaves(SPACE), after, before, strict=True
  ):
    assert mine.dtype == other.dtype
    assert np.all(mine == (0 if path == "['numbers']" else other))


# Actions of several numbers.


def test_a_product_is_of_independent_choices():
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(4, 5)).astype(np.float32)
  space = gym_spaces.MultiDiscrete([2, 3])
  policy = distributions.over(space, jnp.asarray(logits), None)
  parts = [
    x - np.log(np.exp(x).sum(1, keepdims=True))
    for x in (logits[:, :2], logits[:, 2:])
  ]
  action = np.array([[0, 2], [1, 1], [0, 0], [1, 2]])
  expected = [a[i] + b[j] for (i, j), a, b in zip(action, *parts, strict=True)]
  np.testing.assert_allclose(policy.log_prob(action), expected, rtol=1e-5)
  entropy = sum(-(np.exp(x) * x).sum(1) for x in parts)
  np.testing.assert_allclose(policy.entropy(), entropy, rtol=1e-5)
  best = np.stack([x.argmax(1) for x in parts], axis=1)
  np.testing.assert_array_equal(policy.mode(), best)
  drawn = policy.sample(jax.random.key(0))
  assert drawn.shape == (4, 2) and drawn.dtype == jnp.int32
  assert distributions.num_outputs(space) == 5


def test_agents_of_values_say_what_takes_several_choices():
  with pytest.raises(errors.UserError, match='MultiDiscrete actions, as PPO'):
    dqn.DQN(action_space=gym_spaces.MultiDiscrete([2, 3]))
  with pytest.raises(errors.UserError, match=r'MultiDiscrete\(\[n, ...\]\)'):
    ppo.PPO(action_space=gym_spaces.MultiDiscrete([[2, 3]]))
