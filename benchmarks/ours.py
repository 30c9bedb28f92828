"""Our own side: whole trainings, built as the command line builds them."""

import pathlib
import tempfile
from typing import Any

import numpy as np

from benchmarks import clock
from benchmarks import jobs
from dopamine_jax import allocator

PACKAGES = ('jax', 'jaxlib', 'gymnasium')


def measure(
  job: jobs.Job, num_seeds: int = 1, engine: str = 'PythonEngine'
) -> tuple[list[float], dict[str, Any]]:
  """Returns agent steps a second over all seeds, and the hyper-parameters."""
  allocator.keep_freed_memory()
  # Only now, for the settings must precede jax.
  import jax

  from dopamine_jax import config
  from dopamine_jax import runner
  from dopamine_jax import training

  expected = job.hyperparameters
  files, bindings = configuration(expected, engine)
  config.load(files, bindings)
  with tempfile.TemporaryDirectory() as folder:
    one = training.Training(
      config.build(runner.Runner),
      pathlib.Path(folder),
      tuple(range(num_seeds)),
      say=lambda message: None,
    )
    one.prepare(resume=False)

    def run(steps):
      one.engine.run(steps, cut_with=None, on_step=lambda: None)
      jax.block_until_ready(one.engine.state)

    run(job.warmup)
    rates = []
    for _ in range(jobs.WINDOWS):
      with clock.timed(num_seeds * job.window, rates):
        run(job.window)
    found = hyperparameters(one, expected)
    one.close()
  return rates, found


def configuration(
  expected: jobs.Hyperparameters, engine: str
) -> tuple[list[str], list[str]]:
  """Returns gin files and bindings."""
  bindings = [
    f'dqn.DQN.gamma = {expected.gamma}',
    'dqn.DQN.n_step = 1',
    f'dqn.DQN.epsilon = {expected.epsilon}',
    f'dqn.DQN.update_period = {expected.update_period}',
    f'dqn.DQN.target_update_period = {expected.target_update_period}',
    f'uniform.UniformReplay.capacity = {expected.buffer_size}',
    f'uniform.UniformReplay.batch_size = {expected.batch_size}',
    f'uniform.UniformReplay.min_history = {expected.min_history}',
    f'optax.adam.learning_rate = {expected.learning_rate}',
    f'optax.adam.eps = {expected.adam_epsilon}',
    f'runner.Runner.num_envs = {expected.num_envs}',
    'runner.Runner.evaluation_episodes = 0',
  ]
  if expected.stack > 1:
    name = 'dqn_atari'
    bindings += [
      f"networks.NatureCNN.padding = '{expected.padding}'",
      f'atari.Atari.frame_skip = {expected.frame_skip}',
      f'atari.Atari.stack = {expected.stack}',
      f'atari.Atari.sticky_actions = {expected.sticky_actions}',
    ]
  else:
    name = 'dqn_cartpole'
    bindings += [f'networks.MLP.hidden = {expected.hidden}']
  if engine == 'CompiledEngine':
    bindings = [
      'from dopamine_jax import compiled',
      'from dopamine_jax.environments import classic',
      'runner.Runner.engine = @compiled.CompiledEngine',
      'runner.Runner.environment = @classic.CartPole()',
      *bindings,
    ]
  return [f'dopamine_jax/configs/{name}.gin'], bindings


def hyperparameters(one: Any, expected: jobs.Hyperparameters) -> dict[str, Any]:
  """Returns what a training really has."""
  loop, environment = one.engine.loop, one.runner.environment
  agent, replay = loop.agent, loop.replay
  state = one.engine.state
  return {
    'kernels': clock.kernels_of(state.agent.params, len(one.seeds)),
    'batch_size': replay.batch_size,
    'update_period': agent.update_period,
    'buffer_size': replay.capacity,
    'target_update_period': agent.target_update_period,
    'gamma': replay.gamma,
    'epsilon': agent.epsilon,
    'min_history': replay.min_history,
    'num_envs': loop.num_envs,
    'frame_skip': getattr(environment, 'frame_skip', 1),
    'stack': loop.stack,
    'sticky_actions': getattr(environment, 'sticky_actions', 0.0),
    'updates': int(np.max(state.updates)),
    **clock.adam_of(agent.optimizer, expected),
  }
