"""Dopamine's JAX agents in its own runner, repaired for today's packages.

Each repair does the least that lets its modules be imported and run; nothing
that DQN does at a step is changed. Rainbow gets the prioritized replay that it
is configured for: its base class overwrites the scheme with 'uniform' when it
is made, so that 4.1.2 by itself never renews a priority or weights a loss.

SAC runs as it is, in the runner of discrete actions: that of continuous ones,
whose steps are the same, imports dm_control. It takes each transition's
gradient by itself and then their mean, its target network has a policy too, of
whose mean action it asks the value, and its entropy is of the environment's
actions, which on Pendulum is log 2 more than of those in [-1, 1].
"""

import functools
import sys
import tempfile
import time
import types
from typing import Any

import gymnasium
import jax
from jax._src import core as jax_core
from jax.interpreters import xla
import psutil

from benchmarks import algorithms
from benchmarks import clock
from benchmarks import jobs


def _repair_imports():
  """Makes what dopamine imports importable."""
  # OpenAI's baselines are imported for PPO's wrappers, and PyPI has no release
  # that installs.
  baselines = types.ModuleType('baselines')
  baselines.common = types.ModuleType('baselines.common')
  baselines.common.atari_wrappers = types.ModuleType('atari_wrappers')
  sys.modules |= {
    'baselines': baselines,
    'baselines.common': baselines.common,
    'baselines.common.atari_wrappers': baselines.common.atari_wrappers,
  }
  # TensorFlow Probability, for the networks of SAC and PPO, registers a type
  # under a name that JAX has moved.
  xla.pytype_aval_mappings = jax_core.pytype_aval_mappings


_repair_imports()

from dopamine.discrete_domains import atari_lib  # noqa: E402
from dopamine.discrete_domains import gym_lib  # noqa: E402
from dopamine.discrete_domains import run_experiment  # noqa: E402
from dopamine.jax import networks  # noqa: E402
from dopamine.jax.agents.dqn import dqn_agent  # noqa: E402
from dopamine.jax.agents.full_rainbow import full_rainbow_agent  # noqa: E402
from dopamine.jax.agents.rainbow import rainbow_agent  # noqa: E402
from dopamine.jax.agents.sac import sac_agent  # noqa: E402
import gin  # noqa: E402
import numpy as np  # noqa: E402

PACKAGES = ('dopamine-rl', 'jax', 'jaxlib', 'tensorflow', 'gymnasium')


def measure(
  job: jobs.Job, until_update: bool = False
) -> tuple[list[float], dict[str, Any]]:
  """Returns rates and the hyper-parameters in force.

  Args:
    job: what to do.
    until_update: whether to return the seconds from the process's start to the
      end of its first update instead, and stop there.
  """
  expected = job.hyperparameters
  watch = clock.Clock(job)
  if until_update:
    watch = _FirstUpdate()
  gin.parse_config(_bindings(expected))
  with tempfile.TemporaryDirectory() as folder:
    runner = run_experiment.TrainRunner(
      folder,
      lambda sess, environment, summary_writer: _agent(expected, environment),
      lambda: Ticking(_environment(expected), watch),
    )
    try:
      runner.run_experiment()
    except clock.Finished:
      pass
  return watch.rates, _found(runner, expected)


class _FirstUpdate:
  """Stands in for the clock; times the first update and stops after it."""

  def __init__(self):
    self.rates: list[float] = []
    train = dqn_agent.train

    def timed(*arguments):
      jax.block_until_ready(train(*arguments))
      launched = psutil.Process().create_time()
      self.rates.append(time.time() - launched)
      raise clock.Finished

    dqn_agent.train = timed

  def tick(self):
    """Counts nothing."""


class Ticking:
  """An environment that tells the clock of each step."""

  def __init__(self, environment: Any, watch: clock.Clock):
    self.inner = environment
    self.watch = watch

  def __getattr__(self, name):
    return getattr(self.inner, name)

  def step(self, action):
    """Steps and counts."""
    self.watch.tick()
    return self.inner.step(action)


def _agent(expected, environment):
  if isinstance(expected, algorithms.SAC):
    observations = environment.observation_space
    actions = environment.action_space
    return sac_agent.SACAgent(
      action_shape=actions.shape,
      action_limits=(actions.low, actions.high),
      action_dtype=actions.dtype,
      observation_shape=observations.shape,
      observation_dtype=observations.dtype,
    )
  num_actions = environment.action_space.n
  if not isinstance(expected, algorithms.Rainbow):
    return dqn_agent.JaxDQNAgent(num_actions, **_space(expected))
  if expected.agent == 'full_rainbow':
    agent = full_rainbow_agent.JaxFullRainbowAgent(num_actions)
  else:
    agent = rainbow_agent.JaxRainbowAgent(num_actions)
  agent._replay_scheme = 'prioritized'
  return agent


def _bindings(expected):
  if isinstance(expected, algorithms.SAC):
    own = f"""
SACAgent.num_layers = {len(expected.hidden)}
SACAgent.hidden_units = {expected.hidden[0]}
SACAgent.gamma = {expected.gamma}
SACAgent.min_replay_history = {expected.min_history}
SACAgent.update_period = {expected.update_period}
SACAgent.target_smoothing_coefficient = {expected.tau}
SACAgent.target_entropy = {expected.target_entropy}
SACAgent.seed = 0
Runner.clip_rewards = False
"""
  else:
    own = _bindings_of_dqn(expected)
  return f"""
{own}
create_optimizer.learning_rate = {expected.learning_rate}
create_optimizer.eps = {expected.adam_epsilon}
ReplayBuffer.max_capacity = {expected.buffer_size}
ReplayBuffer.batch_size = {expected.batch_size}
Runner.num_iterations = 1
Runner.training_steps = 1_000_000_000
Runner.max_steps_per_episode = {_longest_episode(expected)}
Runner.fine_grained_print_to_console = False
"""


def _longest_episode(expected):
  """Returns in how many steps an episode ends that nothing else ends."""
  if expected.stack > 1:
    return 27_000
  name = getattr(expected, 'environment', 'CartPole-v1')
  return gymnasium.spec(name).max_episode_steps


def _bindings_of_dqn(expected):
  # Rainbow hands its base class all of it; Full Rainbow leaves it to gin.
  owner, own = 'JaxDQNAgent', ''
  if isinstance(expected, algorithms.Rainbow):
    rainbow = 'JaxFullRainbowAgent'
    if expected.agent == 'rainbow':
      owner = rainbow = 'JaxRainbowAgent'
    own = f"""
{owner}.update_horizon = {expected.n_step}
{rainbow}.num_atoms = {expected.num_atoms}
{rainbow}.vmax = {expected.v_max}
{rainbow}.seed = 0
PrioritizedSamplingDistribution.max_capacity = {expected.buffer_size}
PrioritizedSamplingDistribution.priority_exponent = {expected.alpha}
"""
  return f"""
{own}
{owner}.gamma = {expected.gamma}
{owner}.min_replay_history = {expected.min_history}
{owner}.update_period = {expected.update_period}
{owner}.target_update_period = {expected.target_update_period}
{owner}.epsilon_fn = @jax.agents.dqn.dqn_agent.identity_epsilon
{owner}.epsilon_train = {expected.epsilon}
{owner}.seed = 0
"""


def _space(expected):
  if expected.stack > 1:
    return {}  # Atari's are the defaults
  network = functools.partial(
    networks.ClassicControlDQNNetwork,
    num_layers=len(expected.hidden),
    hidden_units=expected.hidden[0],
    min_vals=tuple(gym_lib.CARTPOLE_MIN_VALS),
    max_vals=tuple(gym_lib.CARTPOLE_MAX_VALS),
  )
  return {
    'observation_shape': (4, 1),
    'observation_dtype': jax.numpy.float64,
    'stack_size': 1,
    'network': network,
  }


def _environment(expected):
  if expected.stack == 1:
    name = getattr(expected, 'environment', 'CartPole-v1')
    return gym_lib.create_gym_environment(*name.split('-'))
  return atari_lib.create_atari_environment('Pong', sticky_actions=True)


def _found(runner, expected):
  agent, environment = runner._agent, runner._environment
  found = {
    'batch_size': agent._replay._batch_size,
    'update_period': agent.update_period,
    'buffer_size': agent._replay._max_capacity,
    'gamma': agent.gamma,
    'min_history': agent.min_replay_history,
    'num_envs': 1,
    'frame_skip': 1,
    'stack': agent.stack_size,
    'sticky_actions': 0.0,
    'updates': int(agent.optimizer_state[0].count),
  }
  if isinstance(expected, algorithms.SAC):
    return found | _sac(agent, environment, expected)
  found |= {
    'kernels': clock.kernels_of(agent.online_params),
    'target_update_period': agent.target_update_period,
    'epsilon': float(
      agent.epsilon_fn(
        agent.epsilon_decay_period,
        agent.training_steps,
        agent.min_replay_history,
        agent.epsilon_train,
      )
    ),
    **clock.adam_of(agent.optimizer, expected),
  }
  if expected.stack > 1:
    ale = environment.environment.unwrapped.ale
    found |= {
      'frame_skip': environment.frame_skip,
      'sticky_actions': ale.getFloat('repeat_action_probability'),
    }
  if isinstance(expected, algorithms.Rainbow):
    found |= _rainbow(agent)
  return found


def _sac(agent, environment, expected):
  """Returns the hyper-parameters that only SAC has."""
  if agent.target_update_type != 'soft' or agent.update_horizon != 1:
    raise ValueError('not a soft update and one-step returns')
  network, temperature = (
    clock.adam_of(each, expected)
    for each in (agent.network_optimizer, agent.alpha_optimizer)
  )
  return {
    'environment': environment.environment.spec.id,
    'kernels': clock.kernels_of(agent.network_params),
    'tau': agent.target_smoothing_coefficient,
    'target_entropy': agent.target_entropy,
    'learns_temperature': bool(np.all(agent.log_alpha != 0)),
    **clock.three_adams(network, network, temperature),
  }


def _rainbow(agent):
  """Returns the hyper-parameters that only Rainbow has."""
  sampling = agent._replay._sampling_distribution
  tree = sampling._sum_tree
  # Where nothing renews them they are all alike.
  priorities = set(tree._nodes[tree._first_leaf_offset :].tolist())
  is_full = isinstance(agent, full_rainbow_agent.JaxFullRainbowAgent)
  return {
    'agent': 'full_rainbow' if is_full else 'rainbow',
    'n_step': agent.update_horizon,
    'num_atoms': agent._num_atoms,
    'v_max': float(agent._support[-1]),
    'alpha': sampling._priority_exponent,
    'prioritized': len(priorities) > agent._replay._batch_size,
    'noisy': getattr(agent, '_noisy', False),
    'dueling': getattr(agent, '_dueling', False),
    'double': getattr(agent, '_double_dqn', False),
  }
