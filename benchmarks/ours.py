"""Our own side: whole trainings, built as the command line builds them."""

from collections.abc import Iterator, Sequence
import contextlib
import pathlib
import tempfile
from typing import Any

import numpy as np

from benchmarks import algorithms
from benchmarks import clock
from benchmarks import jobs
from dopamine_jax.engines import allocator

PACKAGES = ('jax', 'jaxlib', 'gymnasium')


def measure(
  job: jobs.Job,
  num_seeds: int = 1,
  engine: str = 'PythonEngine',
  devices: int = 1,
) -> tuple[list[float], dict[str, Any]]:
  """Returns agent steps a second over all seeds, and the hyper-parameters.

  Args:
    job: what is measured.
    num_seeds: how many train side by side.
    engine: 'PythonEngine' or 'CompiledEngine'.
    devices: how many devices the processor is to JAX; each trains its share of
      the seeds.
  """
  expected = job.hyperparameters
  files, bindings = configuration(expected, engine)
  if devices > 1:
    bindings += [
      'from dopamine_jax.engines import devices',
      'runner.Runner.devices = @devices.Devices()',
      "devices.Devices.split = 'seeds'",
    ]
  rates = []
  with trained(files, bindings, num_seeds, devices) as (one, run):
    run(job.warmup)
    for _ in range(jobs.WINDOWS):
      with clock.timed(num_seeds * job.window, rates):
        run(job.window)
    found = hyperparameters(one, expected)
  return rates, found


@contextlib.contextmanager
def trained(
  files: Sequence[str],
  bindings: Sequence[str],
  num_seeds: int = 1,
  devices: int = 1,
) -> Iterator[tuple[Any, Any]]:
  """Yields a training, and what takes so many agent steps of it and waits.

  Args:
    files: gin files.
    bindings: gin bindings.
    num_seeds: how many train side by side.
    devices: how many the processor is to JAX.
  """
  allocator.keep_freed_memory()
  # Only now, for the settings must precede jax.
  import jax

  from dopamine_jax import config
  from dopamine_jax import runner
  from dopamine_jax.engines import dispatch
  from dopamine_jax.engines import threefry
  from dopamine_jax.training import training

  dispatch.stay_in_this_thread()
  threefry.write_out()
  if devices > 1:
    jax.config.update('jax_num_cpu_devices', devices)
  with (
    tempfile.TemporaryDirectory() as folder,
    contextlib.ExitStack() as closers,
  ):
    one = training.Training(
      config.load(files, bindings).build(runner.Runner),
      pathlib.Path(folder),
      tuple(range(num_seeds)),
      lambda message: None,
      closers,
    )
    one.prepare(resume=False)

    def run(steps):
      one.engine.run(steps, cut_with=None, on_step=lambda: None)
      jax.block_until_ready(one.engine.state)

    yield one, run


def configuration(
  expected: algorithms.Hyperparameters, engine: str
) -> tuple[list[str], list[str]]:
  """Returns gin files and bindings."""
  own = {
    algorithms.PPO: _ppo,
    algorithms.NativePPO: _native_ppo,
    algorithms.PQN: _pqn,
    algorithms.SAC: _sac,
    algorithms.TD3: _td3,
  }.get(type(expected), _dqn)
  name, bindings = own(expected)
  bindings += [
    f'optax.adam.learning_rate = {expected.learning_rate}',
    f'optax.adam.eps = {expected.adam_epsilon}',
    f'runner.Runner.num_envs = {expected.num_envs}',
    'runner.Runner.evaluation_episodes = 0',
  ]
  if expected.stack > 1:
    bindings += [
      f'atari.Atari.frame_skip = {expected.frame_skip}',
      f'atari.Atari.stack = {expected.stack}',
      f'atari.Atari.sticky_actions = {expected.sticky_actions}',
    ]
  if engine == 'CompiledEngine':
    bindings = [
      'from dopamine_jax.engines import compiled',
      'runner.Runner.engine = @compiled.CompiledEngine',
      *(_native(expected) if expected.stack == 1 else ()),
      *(line for line in bindings if not line.startswith('gym.')),
    ]
  return [f'dopamine_jax/configs/{name}.gin'], bindings


def _native(expected):
  """Returns the bindings of an environment in JAX."""
  package = getattr(expected, 'package', 'classic')
  is_pendulum = getattr(expected, 'environment', None) == 'Pendulum-v1'
  name = {
    'classic': 'Pendulum' if is_pendulum else 'CartPole',
    'gymnax': 'Gymnax',
    'brax': 'Brax',
    'playground': 'Playground',
  }[package]
  bindings = [
    f'from dopamine_jax.environments import {package}',
    f'runner.Runner.environment = @{package}.{name}()',
  ]
  if package != 'classic':
    bindings += [f'{package}.{name}.id = {expected.environment!r}']
  if backend := getattr(expected, 'backend', ''):
    bindings += [f'{package}.{name}.kwargs = {{"backend": {backend!r}}}']
  return bindings


def _dqn(expected):
  """Returns the config's name and bindings, of Rainbow too."""
  agent, replay = 'dqn.DQN', 'uniform.UniformReplay'
  name = 'dqn_atari' if expected.stack > 1 else 'dqn_cartpole'
  bindings = []
  if isinstance(expected, algorithms.Rainbow):
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
    f"networks.NatureCNN.padding = '{expected.padding}'"
    if expected.stack > 1
    else f'networks.MLP.hidden = {expected.hidden}',
  ]
  return name, bindings


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
      'from dopamine_jax.agents import full_rainbow',
      f'runner.Runner.agent = @{agent}',
      f'{agent}.optimizer = @optax.adam()',
      'full_rainbow.RainbowNetwork.shared = (512,)',  # as Dopamine's
      'full_rainbow.RainbowNetwork.hidden = ()',
      f'{agent}.network = @full_rainbow.RainbowNetwork',
      f'{agent}.replay = @{replay}',
      *bindings,
    ]
  return bindings


def _ppo(expected):
  """Returns the config's name and bindings; its networks are the job's."""
  bindings = [
    f'ppo.PPO.gamma = {expected.gamma}',
    f'ppo.PPO.update_period = {expected.rollout}',
    f'ppo.PPO.num_epochs = {expected.num_epochs}',
    f'ppo.PPO.num_minibatches = {expected.num_minibatches}',
    f'ppo.PPO.gae_lambda = {expected.gae_lambda}',
    f'ppo.PPO.clip = {expected.clip}',
    f'ppo.PPO.value_clip = {expected.value_clip}',
    # Ours weights half the squared error.
    f'ppo.PPO.value_weight = {2 * expected.value_weight}',
    f'ppo.PPO.entropy_weight = {expected.entropy_weight}',
    f'optimization.clipped.max_norm = {expected.max_norm}',
  ]
  return 'ppo_atari' if expected.stack > 1 else 'ppo_cartpole', bindings


def _native_ppo(expected):
  """Returns the config's name and bindings, whatever the environment."""
  name, bindings = _ppo(expected)
  return name, [
    'from flax import linen',
    'from dopamine_jax import networks',
    f'ppo.PPO.normalize_observations = {expected.normalize_observations}',
    'ppo.PPO.network = @networks.ActorCritic',
    'networks.ActorCritic.torso = @networks.MLPTorso',
    f'networks.MLPTorso.hidden = {expected.hidden}',
    'networks.MLPTorso.activation = @linen.tanh',
    *bindings,
  ]


def _pqn(expected):
  """Returns the config's name and bindings."""
  is_atari = expected.stack > 1
  bindings = [
    f'pqn.PQN.gamma = {expected.gamma}',
    f'pqn.PQN.update_period = {expected.rollout}',
    f'pqn.PQN.num_epochs = {expected.num_epochs}',
    f'pqn.PQN.num_minibatches = {expected.num_minibatches}',
    f'pqn.PQN.q_lambda = {expected.q_lambda}',
    f'pqn.PQN.epsilon = {expected.epsilon}',
    f'optimization.clipped.max_norm = {expected.max_norm}',
    'optimization.clipped.optimizer = @optax.adam()',
  ]
  if is_atari:
    return 'pqn_atari', [
      f'atari.Atari.game = {expected.environment!r}',
      f"networks.NatureCNN.padding = '{expected.padding}'",
      *bindings,
    ]
  return 'pqn_cartpole', [
    f'networks.MLP.hidden = {expected.hidden}',
    'networks.MLP.low = None',
    'networks.MLP.high = None',
    *bindings,
  ]


def _sac(expected):
  """Returns the config's name and bindings, whatever the environment."""
  action = expected.kernels[2][-1] // 2  # numbers of one
  bindings = [
    f"gym.Gym.id = '{expected.environment}'",
    f'sac.SAC.gamma = {expected.gamma}',
    'sac.SAC.n_step = 1',
    f'sac.SAC.update_period = {expected.update_period}',
    f'sac.SAC.tau = {expected.tau}',
    # Ours is of each number.
    f'sac.SAC.target_entropy = {expected.target_entropy / action}',
    f'actor_critic.Actor.hidden = {expected.hidden}',
    f'actor_critic.Critics.hidden = {expected.hidden}',
    f'uniform.UniformReplay.capacity = {expected.buffer_size}',
    f'uniform.UniformReplay.batch_size = {expected.batch_size}',
    f'uniform.UniformReplay.min_history = {expected.min_history}',
  ]
  return 'sac_pendulum', bindings


def _td3(expected):
  """Returns the config's name and bindings, whatever the environment."""
  bindings = [
    f"gym.Gym.id = '{expected.environment}'",
    f'td3.TD3.gamma = {expected.gamma}',
    f'td3.TD3.update_period = {expected.update_period}',
    f'td3.TD3.tau = {expected.tau}',
    f'td3.TD3.exploration_noise = {expected.exploration_noise}',
    f'actor_critic.DeterministicActor.hidden = {expected.hidden}',
    f'actor_critic.Critics.hidden = {expected.hidden}',
    f'uniform.UniformReplay.capacity = {expected.buffer_size}',
    f'uniform.UniformReplay.batch_size = {expected.batch_size}',
    f'uniform.UniformReplay.min_history = {expected.min_history}',
  ]
  return 'td3_pendulum', bindings


def hyperparameters(
  one: Any, expected: algorithms.Hyperparameters
) -> dict[str, Any]:
  """Returns what a training really has."""
  loop, environment = one.engine.loop, one.runner.environment
  state = one.engine.state
  found = {
    'kernels': clock.kernels_of(state.agent.params, len(one.seeds)),
    'gamma': loop.replay.gamma,
    'num_envs': loop.num_envs,
    'frame_skip': getattr(environment, 'frame_skip', 1),
    'stack': loop.stack,
    'sticky_actions': getattr(environment, 'sticky_actions', 0.0),
  }
  if isinstance(expected, algorithms.SAC):
    found |= {'environment': environment.id}
    return found | _found_of_sac(loop.agent, loop.replay, state, expected)
  found |= clock.adam_of(loop.agent.optimizer, expected)
  if isinstance(expected, algorithms.OnPolicy):
    of_environment = _found_of_environment(environment, loop.agent, expected)
    own = _found_of_pqn if hasattr(loop.agent, 'q_lambda') else _found_of_ppo
    return found | own(loop.agent, state) | of_environment
  found |= _found_of_dqn(loop.agent, loop.replay, state)
  if isinstance(expected, algorithms.Rainbow):
    found |= _found_of_rainbow(loop.agent, loop.replay, state)
    found |= {'agent': expected.agent}
  return found


def _found_off_policy(agent, replay, state):
  return {
    'batch_size': replay.batch_size,
    'update_period': agent.update_period,
    'buffer_size': replay.capacity,
    'min_history': replay.min_history,
    'updates': int(np.max(state.updates)),
  }


def _found_of_dqn(agent, replay, state):
  return _found_off_policy(agent, replay, state) | {
    'target_update_period': agent.target_update_period,
    'epsilon': float(agent.epsilon_at(0, explore=True)),
  }


def _found_of_sac(agent, replay, state, expected):
  numbers = int(np.prod(agent.action_space.shape))
  log_temperature = state.agent.params['log_temperature']
  adams = agent.actor_optimizer, agent.critic_optimizer
  adams += (agent.temperature_optimizer,)
  return {
    **_found_off_policy(agent, replay, state),
    **clock.three_adams(*(clock.adam_of(each, expected) for each in adams)),
    'tau': agent.tau,
    'target_entropy': agent.target_entropy * numbers,
    'learns_temperature': bool(
      np.all(log_temperature != np.log(agent.temperature))
    ),
  }


def _found_of_rainbow(agent, replay, state):
  from dopamine_jax.replay import sum_tree

  slots = np.arange(replay.capacity)
  # Where nothing renews them they are all alike.
  priorities = np.unique(sum_tree.get(state.experience.replay.tree, slots))
  return {
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


def _found_of_environment(environment, agent, expected):
  """Returns what only some jobs of PPO and PQN have."""
  package = type(environment).__module__.rpartition('.')[2]
  found = {
    'package': package,
    'environment': getattr(environment, 'id', None)
    or getattr(environment, 'game', None),
    'backend': getattr(environment, 'kwargs', {}).get('backend', ''),
    'normalize_observations': agent.normalize_observations,
  }
  return {name: found[name] for name in found if hasattr(expected, name)}


def _found_on_policy(agent, state):
  import optax

  steps = optax.tree.get(state.agent.optimizer_state, 'count')
  return {
    'batch_size': agent.update_period // agent.num_minibatches,
    'rollout': agent.update_period,
    'num_epochs': agent.num_epochs,
    'max_norm': clock.max_norm_of(agent.optimizer),
    'updates': int(np.max(steps)),
  }


def _found_of_pqn(agent, state):
  return _found_on_policy(agent, state) | {
    'q_lambda': agent.q_lambda,
    'epsilon': float(agent.epsilon),
  }


def _found_of_ppo(agent, state):
  return _found_on_policy(agent, state) | {
    'gae_lambda': agent.gae_lambda,
    'clip': agent.clip,
    'value_clip': agent.value_clip,
    'value_weight': agent.value_weight / 2,
    'entropy_weight': agent.entropy_weight,
  }
