"""Dopamine's JAX DQN in its own runner, repaired to start on today's packages.

Each repair does the least that lets its modules be imported and run; nothing
that DQN does at a step is changed.
"""

import functools
import sys
import tempfile
import time
import types
from typing import Any

import jax
from jax._src import core as jax_core
from jax.interpreters import xla
import psutil

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
import gin  # noqa: E402

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
      lambda sess, environment, summary_writer: dqn_agent.JaxDQNAgent(
        environment.action_space.n, **_space(expected)
      ),
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


def _bindings(expected):
  return f"""
JaxDQNAgent.gamma = {expected.gamma}
JaxDQNAgent.min_replay_history = {expected.min_history}
JaxDQNAgent.update_period = {expected.update_period}
JaxDQNAgent.target_update_period = {expected.target_update_period}
JaxDQNAgent.epsilon_fn = @jax.agents.dqn.dqn_agent.identity_epsilon
JaxDQNAgent.epsilon_train = {expected.epsilon}
JaxDQNAgent.seed = 0
create_optimizer.learning_rate = {expected.learning_rate}
create_optimizer.eps = {expected.adam_epsilon}
ReplayBuffer.max_capacity = {expected.buffer_size}
ReplayBuffer.batch_size = {expected.batch_size}
Runner.num_iterations = 1
Runner.training_steps = 1_000_000_000
Runner.max_steps_per_episode = {27_000 if expected.stack > 1 else 500}
Runner.fine_grained_print_to_console = False
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
    return gym_lib.create_gym_environment('CartPole', 'v1')
  return atari_lib.create_atari_environment('Pong', sticky_actions=True)


def _found(runner, expected):
  agent, environment = runner._agent, runner._environment
  found = {
    'kernels': clock.kernels_of(agent.online_params),
    'batch_size': agent._replay._batch_size,
    'update_period': agent.update_period,
    'buffer_size': agent._replay._max_capacity,
    'target_update_period': agent.target_update_period,
    'gamma': agent.cumulative_gamma,
    'epsilon': agent.epsilon_train,
    'min_history': agent.min_replay_history,
    'num_envs': 1,
    'frame_skip': 1,
    'stack': agent.stack_size,
    'sticky_actions': 0.0,
    'updates': int(agent.optimizer_state[0].count),
    **clock.adam_of(agent.optimizer, expected),
  }
  if expected.stack > 1:
    ale = environment.environment.unwrapped.ale
    found |= {
      'frame_skip': environment.frame_skip,
      'sticky_actions': ale.getFloat('repeat_action_probability'),
    }
  return found
