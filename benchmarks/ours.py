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
  agent, replay = 'dqn.DQN', 'uniform.UniformReplay'
  name = 'dqn_atari' if expected.stack > 1 else 'dqn_cartpole'
  bindings = []
  if isinstance(expected, jobs.RainbowHyperparameters):
    agent, replay = 'rainbow.Rainbow', 'prioritized.PrioritizedReplay'
    name = 'rainbow_atari'
    if expected.agent == 'full_rainbow':
      agent = 'full_rainbow.FullRainbow'
    bindings += _rainbow(expected, agent, replay)
  bindings += [
    f'{agent}.gamma = {expected.gamma}',
    f'{agent}.n_step = {getattr(expected, "n_step", 1)}',
    f'{agent}.epsilon = {expected.epsilon}',
    f'{agent}.update_period = {expected.update_period}',
    f'{agent}.target_update_period = {expected.target_update_period}',
    f'{replay}.capacity = {expected.buffer_size}',
    f'{replay}.batch_size = {expected.batch_size}',
    f'{replay}.min_history = {expected.min_history}',
    f'optax.adam.learning_rate = {expected.learning_rate}',
    f'optax.adam.eps = {expected.adam_epsilon}',
    f'runner.Runner.num_envs = {expected.num_envs}',
    'runner.Runner.evaluation_episodes = 0',
  ]
  if expected.stack > 1:
    bindings += [
      f"networks.NatureCNN.padding = '{expected.padding}'",
      f'atari.Atari.frame_skip = {expected.frame_skip}',
      f'atari.Atari.stack = {expected.stack}',
      f'atari.Atari.sticky_actions = {expected.sticky_actions}',
    ]
  else:
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


def _rainbow(expected, agent, replay):
  """Returns the bindings that only Rainbow has."""
  bindings = [
    f'{agent}.num_atoms = {expected.num_atoms}',
    f'{agent}.v_min = {-expected.v_max}',
    f'{agent}.v_max = {expected.v_max}',
    f'{replay}.alpha = {expected.alpha}',
    f'{replay}.beta = 0.5',
  ]
  if expected.agent == 'full_rainbow':
    bindings = [
      'from benchmarks import torsos',
      'from dopamine_jax.agents import full_rainbow',
      f'runner.Runner.agent = @{agent}',
      f'{agent}.optimizer = @optax.adam()',
      'full_rainbow.RainbowNetwork.torso = @torsos.NoisyNature()',
      'full_rainbow.RainbowNetwork.hidden = ()',
      f'{agent}.network = @full_rainbow.RainbowNetwork',
      f'{agent}.replay = @{replay}',
      *bindings,
    ]
  return bindings


def hyperparameters(one: Any, expected: jobs.Hyperparameters) -> dict[str, Any]:
  """Returns what a training really has."""
  from dopamine_jax.replay import sum_tree

  loop, environment = one.engine.loop, one.runner.environment
  agent, replay = loop.agent, loop.replay
  state = one.engine.state
  found = {
    'kernels': clock.kernels_of(state.agent.params, len(one.seeds)),
    'batch_size': replay.batch_size,
    'update_period': agent.update_period,
    'buffer_size': replay.capacity,
    'target_update_period': agent.target_update_period,
    'gamma': replay.gamma,
    'epsilon': float(agent.epsilon_at(0, explore=True)),
    'min_history': replay.min_history,
    'num_envs': loop.num_envs,
    'frame_skip': getattr(environment, 'frame_skip', 1),
    'stack': loop.stack,
    'sticky_actions': getattr(environment, 'sticky_actions', 0.0),
    'updates': int(np.max(state.updates)),
    **clock.adam_of(agent.optimizer, expected),
  }
  if isinstance(expected, jobs.RainbowHyperparameters):
    slots = np.arange(replay.capacity)
    # Where nothing renews them they are all alike.
    priorities = np.unique(sum_tree.get(state.experience.replay.tree, slots))
    found |= {
      'agent': expected.agent,
      'n_step': replay.n_step,
      'num_atoms': agent.num_atoms,
      'v_max': -agent.v_min,
      'alpha': replay.alpha,
      'prioritized': len(priorities) > replay.batch_size,
      **{
        name: getattr(agent, name, False)
        for name in ('noisy', 'dueling', 'double')
      },
    }
  return found
