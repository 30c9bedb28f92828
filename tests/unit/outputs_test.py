"""Tests of outputs: networks and agents of wrong shapes don't start."""

import functools

from flax import linen as nn
import gymnasium
import jax
import jax.numpy as jnp
import pytest

from dopamine_jax import errors
from dopamine_jax import networks
from dopamine_jax.agents import c51
from dopamine_jax.agents import double_dqn
from dopamine_jax.agents import dqn
from dopamine_jax.agents import full_rainbow
from dopamine_jax.agents import iqn
from dopamine_jax.agents import munchausen
from dopamine_jax.agents import ppo
from dopamine_jax.agents import pqn
from dopamine_jax.agents import quantile
from dopamine_jax.agents import rainbow
from dopamine_jax.agents import sac
from dopamine_jax.engines import evaluation
from dopamine_jax.engines import loop as loop_lib
from dopamine_jax.engines import python_engine
from dopamine_jax.environments import catch
from dopamine_jax.learning import actor_critic
from dopamine_jax.learning import outputs
from dopamine_jax.replay import prioritized

OBSERVATIONS = gymnasium.spaces.Box(-1, 1, (4,))
TWO = gymnasium.spaces.Discrete(2)
BOX = gymnasium.spaces.Box(-1, 1, (3,))
MLP = functools.partial(networks.MLP, hidden=(4,))


class Odd(nn.Module):
  """A network that is larger than it is asked to be."""

  num_outputs: int = 0
  num_atoms: int = 1
  noisy: bool = False
  dueling: bool = False
  more: int = 1

  @nn.compact
  def __call__(self, observation, tau=None):
    return nn.Dense(self.num_outputs + self.more)(observation)


class OddQuantiles(Odd):
  @nn.compact
  def __call__(self, observation, tau=None):
    num = 1 if tau is None else tau.shape[1]
    x = nn.Dense(self.num_outputs + self.more)(observation)
    return jnp.repeat(x[:, None], num, axis=1)


class OddPair(nn.Module):
  num_outputs: int
  more: int = 0
  value: tuple = ()

  @nn.compact
  def __call__(self, observation):
    x = nn.Dense(self.num_outputs + self.more)(observation)
    return x, jnp.zeros((len(observation), *self.value))


class OddActor(nn.Module):
  action_shape: tuple

  @nn.compact
  def __call__(self, observation):
    return actor_critic.Actor((7,), (4,))(observation)


class OneCritic(nn.Module):
  shape: tuple = ()

  @nn.compact
  def __call__(self, observation, action):
    return nn.Dense(1)(observation).reshape(-1, *self.shape)


def wide(network, **settings):
  return functools.partial(network, **settings)


@pytest.mark.parametrize(
  ('kind', 'space', 'settings', 'message'),
  [
    (dqn.DQN, TWO, {}, r'Odd does not fit: expected \[B, 2\], .* \[B, 3\]'),
    (double_dqn.DoubleDQN, TWO, {}, r'\[B, 2\], and it gave \[B, 3\]'),
    (munchausen.MunchausenDQN, TWO, {}, r'\[B, 2\], and it gave \[B, 3\]'),
    (c51.C51, TWO, {'network': wide(Odd, more=51)}, r'it gave \[B, 3\]'),
    (c51.C51, TWO, {}, r'Odd does not fit: expected \[B, 2\]'),
    (rainbow.Rainbow, TWO, {'network': wide(Odd, more=-51)}, r'\[B, 1\]'),
    (full_rainbow.FullRainbow, TWO, {}, r'Odd does not fit'),
    (
      full_rainbow.FullRainbow,
      TWO,
      {'distributional': False, 'network': wide(Odd, more=2)},
      r'it gave \[B, 4\]',
    ),
    (quantile.QuantileDQN, TWO, {'network': wide(Odd, more=200)}, r'\[B, 3\]'),
    (iqn.IQN, TWO, {'network': OddQuantiles}, r'OddQuantiles.*\[B, 3\]'),
    (iqn.IQN, TWO, {}, r'it gave \[B\]'),
    (munchausen.MunchausenIQN, TWO, {'network': OddQuantiles}, r'\[B, 3\]'),
    (pqn.PQN, TWO, {}, r'expected \[B, 2\], and it gave \[B, 3\]'),
    (ppo.PPO, TWO, {'network': wide(OddPair, more=2)}, r'\[B, 4\] and \[B\]'),
    (ppo.PPO, TWO, {'network': MLP}, r'\[B, 2\] and \[B\], .* gave \[B, 2\]\.'),
    (ppo.PPO, TWO, {'network': wide(OddPair, value=(1,))}, r'and \[B, 1\]'),
    (ppo.PPO, BOX, {'network': wide(OddPair, more=3)}, r'\[B, 6\] and \[B\]'),
    (sac.SAC, BOX, {'actor': OddActor}, r'OddActor .* \[B, 3\], .* \[B, 7\]'),
    (sac.SAC, BOX, {'critics': OneCritic}, r'expected \[K, B\], .* \[B\]'),
    (sac.SAC, BOX, {'critics': wide(OneCritic, shape=(1,))}, r'gave \[B, 1\]'),
  ],
)  # fmt: skip
def test_a_network_of_another_size_is_refused_before_it_trains(
  kind, space, settings, message
):
  if kind is not sac.SAC:
    settings = {'network': Odd} | settings
  agent = kind(observation_space=OBSERVATIONS, action_space=space, **settings)
  # One environment, where [B, 1] and [1, B] are the same.
  with pytest.raises(errors.UserError, match=message) as caught:
    jax.eval_shape(agent.init, jax.random.key(0), jnp.zeros((1, 4)))
  assert 'num_outputs' in str(caught.value)


class NoFloats(nn.Module):
  """A network of the right size that gives something else."""

  num_outputs: int = 0
  kind: str = ''

  @nn.compact
  def __call__(self, observation):
    values = nn.Dense(self.num_outputs)(observation)
    if self.kind == 'raises':
      raise KeyError('gate')
    if self.kind == 'none':
      return None
    return values.astype(self.kind)


@pytest.mark.parametrize(
  ('kind', 'message'),
  [
    ('none', 'gave None, where floats are due'),
    ('int32', r'gave int32 \(997, 2\), where floats are due'),
    ('bool', r'gave bool'),
    ('complex64', r'gave complex64'),
    ('raises', r"KeyError: 'gate', raised by /.*outputs_test.py, line \d"),
  ],
)
def test_a_network_that_gives_no_floats_is_refused(kind, message):
  agent = dqn.DQN(
    observation_space=OBSERVATIONS,
    action_space=TWO,
    network=functools.partial(NoFloats, kind=kind),
  )
  with pytest.raises(errors.UserError, match=message):
    agent.init(jax.random.key(0), jnp.zeros((1, 4)))


class Learning(dqn.DQN):
  """Its losses, or its update, are not what they must be."""

  kind: str = ''

  def losses(self, params, target_params, batch, key):
    losses, metrics = super().losses(params, target_params, batch, key)
    answers = {
      'three': losses[:3],
      'mean': jnp.mean(losses),
      'column': losses[:, None],
      'integers': losses.astype(jnp.int32),
      'none': None,
      'number': 0.5,
    }
    if self.kind == 'raises':
      raise RuntimeError('boom')
    if self.kind == 'alone':
      return losses
    return answers.get(self.kind, losses), metrics

  def update(self, state, sample, key):
    after, metrics, priorities = super().update(state, sample, key)
    if self.kind == 'two':
      return after, metrics
    if self.kind == 'state':
      after = after.replace(updates=after.updates.astype(jnp.float32))
    if self.kind == 'less':
      after = after.replace(target_params={})
    if self.kind == 'metrics':
      metrics = [metrics]
    odd = {'vector': priorities, 'nothing': None, 'words': 'high', 'tree': {}}
    if self.kind in odd:
      metrics |= {'Q': odd[self.kind]}
    if self.kind == 'list':
      after = after.replace(optimizer_state=list(after.optimizer_state))
    return after, metrics, priorities


@pytest.mark.parametrize(
  ('kind', 'message'),
  [
    (
      'three',
      r'losses\(\)\[0\] must be floats of shape \(32,\), .* float32 \(3,\)',
    ),
    ('alone', r'must return losses \(32,\) and a dict .* `return losses, {}`'),
    ('mean', r'is float32 \(\)\. Mend the agent'),
    ('column', r'is float32 \(32, 1\)'),
    ('integers', r'is int32 \(32,\)'),
    ('none', 'is None'),
    ('number', r'is 0\.5 \(float\)'),
    ('raises', r'update fails: RuntimeError: boom, raised by .*_test.py, line'),
    ('two', 'a state, metrics and priorities, and it gave tuple of 2'),
    ('list', 'has other containers'),
    ('nothing', 'scalar metrics, and its Q is None'),
    ('words', r'scalar metrics, and its Q is .high. \(str\)'),
    ('tree', 'scalar metrics, and its Q is {'),
    ('state', r'state\.updates was int32 \(\) and is now float32 \(\)'),
    ('less', r'state\.target_params.* and is now not there'),
    ('metrics', 'must return metrics by name, a dict'),
    ('vector', r'scalar metrics, and its Q is float32 \(32,\)'),
  ],
)
def test_an_agent_that_learns_from_nothing_sound_is_refused_at_the_start(
  kind, message
):
  environment = catch.Catch()
  agent = Learning(
    observation_space=environment.observation_space,
    action_space=environment.action_space,
    network=MLP,
    kind=kind,
  )
  loop = loop_lib.Loop(agent, agent.make_replay(1), None, 1, 3)
  frame = jnp.zeros((3, *environment.observation_space.shape))
  state = jax.eval_shape(loop.init, 0, frame)
  # Traced, as each engine does before its first update.
  with pytest.raises(errors.UserError, match=f'Learning.*{message}'):
    jax.eval_shape(loop.learn, state)


def test_what_the_frameworks_own_agent_raises_is_no_users_mistake():
  agent = dqn.DQN(observation_space=OBSERVATIONS, action_space=TWO, network=MLP)
  names = {
    '__name__': 'dopamine_jax.engines.loop',
    'agent': agent,
    'outputs': outputs,
  }
  with pytest.raises(ZeroDivisionError):
    exec("with outputs.telling(agent, 'update'):\n  1 / 0", names)


class Targets(sac.SAC):
  """Its critics are to say one number for a whole batch."""

  def targets(self, params, target_params, batch, key):
    return super().targets(params, target_params, batch, key)[0]


def test_targets_that_would_be_broadcast_are_refused():
  agent = Targets(observation_space=OBSERVATIONS, action_space=BOX)
  loop = loop_lib.Loop(agent, agent.make_replay(1), None, 1, 2)
  state = jax.eval_shape(loop.init, 0, jnp.zeros((2, 4)))
  message = r'Targets.targets\(\) must be floats of shape \(256,\)'
  with pytest.raises(errors.UserError, match=message):
    jax.eval_shape(loop.learn, state)


class Answering(dqn.DQN):
  """Its actions are no such actions."""

  given: jax.ShapeDtypeStruct | None = None

  def act(self, state, observation, step, key, *, explore):
    return jnp.zeros(self.given.shape, self.given.dtype)


@pytest.mark.parametrize(
  ('shape', 'dtype', 'message'),
  [
    ((3,), jnp.float32, r'shape \(3,\), integers, .* gave float32 \(3,\)'),
    ((3, 1), jnp.int32, r'Answering.act .* gave int32 \(3, 1\)'),
    ((), jnp.int32, r'gave int32 \(\)'),
  ],
)
def test_actions_of_another_shape_or_type_are_refused_at_the_start(
  shape, dtype, message
):
  environment = catch.Catch()
  agent = Answering(
    observation_space=environment.observation_space,
    action_space=environment.action_space,
    network=MLP,
    given=jax.ShapeDtypeStruct(shape, dtype),
  )
  loop = loop_lib.Loop(agent, agent.make_replay(1), None, 1, 3)
  engine = python_engine.PythonEngine(loop, environment.make(3), (0,))
  engine.reset([0, 1, 2])
  with pytest.raises(errors.UserError, match=message):
    engine.abstract_state()
  evaluator = evaluation.Evaluator(agent, environment, 1, 3)
  with pytest.raises(errors.UserError, match=message):
    evaluator.run(None, jax.random.key(0), [0, 1, 2], 0)


def test_priorities_of_another_shape_are_refused():
  replay = prioritized.PrioritizedReplay(n_step=1, gamma=0.9, stack=1)
  for priority in (jnp.zeros(()), jnp.zeros((4, 1)), None, [0.0] * 4):
    with pytest.raises(errors.UserError, match=r'priority .* shape \(4,\)'):
      replay.reprioritize(None, jnp.zeros(4, jnp.int32), priority)
