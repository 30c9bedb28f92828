"""Stable-Baselines3, in PyTorch; sbx's algorithms have the same interface.

DQN's loss is Huber's and it clips the norm of gradients at 10; both have no
switch. Neither costs much. SAC's policy is moved by critics that have moved.
"""

from collections.abc import Mapping
import functools
from typing import Any

import ale_py
import gymnasium
import numpy as np
import stable_baselines3
from stable_baselines3.common import atari_wrappers
from stable_baselines3.common import callbacks
from stable_baselines3.common import noise
from stable_baselines3.common import vec_env

from benchmarks import algorithms
from benchmarks import clock
from benchmarks import five
from benchmarks import jobs

PACKAGES = ('stable-baselines3', 'torch', 'gymnasium')


def measure(
  job: jobs.Job, name: str = '', steps: int = 0
) -> tuple[list[float], dict[str, Any] | None]:
  """Returns rates and the hyper-parameters in force.

  Of so many steps of five seeds of the job called `name` it is seconds, and no
  hyper-parameters.
  """
  if steps:
    return five.of_peer('sb3', name, steps), None
  expected = job.hyperparameters
  model = model_of(expected)
  values = rates(model, job)
  found = settings(model, expected)
  if isinstance(expected, algorithms.SAC):
    return values, found | _learners_of_sac(model)
  network = model.policy
  if isinstance(expected, algorithms.DQN):
    network = model.q_net
  return values, found | {
    'kernels': _kernels_of(network),
    **_adam_of(model.policy.optimizer),
  }


def model_of(expected: algorithms.Hyperparameters, seed: int = 0) -> Any:
  """Returns the algorithm, which has learnt nothing yet."""
  policy_kwargs = {'optimizer_kwargs': {'eps': expected.adam_epsilon}}
  if expected.stack == 1:
    policy_kwargs['net_arch'] = list(expected.hidden)
  return make(stable_baselines3, expected, policy_kwargs, seed)


def _kernels_of(network):
  shapes = [
    tuple(value.shape) for value in network.parameters() if value.dim() > 1
  ]
  # PyTorch has [out, in, height, width].
  return [(*shape[2:], shape[1], shape[0]) for shape in shapes]


def _adam_of(optimizer):
  (group,) = optimizer.param_groups
  return {'learning_rate': group['lr'], 'adam_epsilon': group['eps']}


def _learners_of_sac(model):
  """Returns the hyper-parameters that lie elsewhere in sbx."""
  if model.target_update_interval != 1:
    raise ValueError('target critics do not move at each update')
  policy = clock.with_one_head(_kernels_of(model.actor))
  learners = model.actor.optimizer, model.critic.optimizer
  learners += (model.ent_coef_optimizer,)
  return {
    'kernels': policy + _kernels_of(model.critic),
    'learns_temperature': model.log_ent_coef.item() != 0,
    **clock.three_adams(*map(_adam_of, learners)),
  }


def make(
  package: Any,
  expected: algorithms.Hyperparameters,
  policy_kwargs: Mapping[str, Any],
  seed: int = 0,
) -> Any:
  """Returns the package's algorithm on the job's environment."""
  pixels = expected.stack > 1
  name = getattr(expected, 'environment', 'CartPole-v1')
  one = _pong if pixels else functools.partial(gymnasium.make, name)
  environment = vec_env.DummyVecEnv([one] * expected.num_envs)
  if pixels:
    environment = vec_env.VecFrameStack(environment, expected.stack)
  if isinstance(expected, algorithms.PPO):
    algorithm, own = package.PPO, _ppo(expected)
  elif isinstance(expected, algorithms.SAC):
    algorithm, own = package.SAC, _sac(expected)
  elif isinstance(expected, algorithms.TD3):
    algorithm, own = package.TD3, _td3(expected, environment)
  else:
    algorithm, own = package.DQN, _dqn(expected)
  return algorithm(
    'CnnPolicy' if pixels else 'MlpPolicy',
    environment,
    learning_rate=expected.learning_rate,
    batch_size=expected.batch_size,
    gamma=expected.gamma,
    policy_kwargs=policy_kwargs,
    seed=seed,
    device='cpu',
    **own,
  )


def _off_policy(expected):
  return {
    'buffer_size': expected.buffer_size,
    'learning_starts': expected.min_history,
    'train_freq': expected.update_period,
    'gradient_steps': 1,
  }


def _sac(expected):
  return _off_policy(expected) | {
    'tau': expected.tau,
    'ent_coef': 'auto',
    'target_entropy': expected.target_entropy,
  }


def _td3(expected, environment):
  # That the policy learns each second update is how it is there, and in sbx.
  zeros = np.zeros(environment.action_space.shape)
  deviation = zeros + expected.exploration_noise
  return _off_policy(expected) | {
    'tau': expected.tau,
    'action_noise': noise.NormalActionNoise(zeros, deviation),
  }


def _dqn(expected):
  return _off_policy(expected) | {
    'target_update_interval': expected.target_update_period,
    'exploration_initial_eps': expected.epsilon,
    'exploration_final_eps': expected.epsilon,
  }


def _ppo(expected):
  return {
    'n_steps': expected.rollout // expected.num_envs,
    'n_epochs': expected.num_epochs,
    'gae_lambda': expected.gae_lambda,
    'clip_range': expected.clip,
    'clip_range_vf': expected.value_clip,
    'vf_coef': expected.value_weight,
    'ent_coef': expected.entropy_weight,
    'max_grad_norm': expected.max_norm,
  }


def settings(
  model: Any, expected: algorithms.Hyperparameters
) -> dict[str, Any]:
  """Returns the hyper-parameters that sb3 and sbx keep in the same places."""
  environment = model.get_env()
  found = {
    'batch_size': model.batch_size,
    'gamma': model.gamma,
    'num_envs': environment.num_envs,
    'frame_skip': 1,
    'stack': 1,
    'sticky_actions': 0.0,
  }
  if isinstance(environment, vec_env.VecTransposeImage):
    ale = environment.get_attr('ale')[0]
    skip = environment.envs[0]
    while not isinstance(skip, atari_wrappers.MaxAndSkipEnv):
      skip = skip.env
    found |= {
      'frame_skip': skip._skip,
      'stack': model.observation_space.shape[0],
      'sticky_actions': ale.getFloat('repeat_action_probability'),
    }
  if isinstance(expected, algorithms.PPO):
    return found | _found_of_ppo(model)
  if isinstance(expected, algorithms.SAC):
    return found | _found_of_sac(model)
  return found | _found_of_dqn(model)


def _found_off_policy(model):
  if model.gradient_steps != 1 or model.n_steps != 1:
    raise ValueError('not one update and one-step returns')
  return {
    'update_period': model.train_freq.frequency,
    'buffer_size': model.replay_buffer.buffer_size,
    'min_history': model.learning_starts,
    'updates': model._n_updates,
  }


def _found_of_dqn(model):
  if model.tau != 1.0:
    raise ValueError('not a hard copy')
  return _found_off_policy(model) | {
    'target_update_period': model.target_update_interval,
    'epsilon': model.exploration_schedule(0.5),
  }


def _found_of_sac(model):
  return _found_off_policy(model) | {
    'environment': model.get_env().envs[0].spec.id,
    'tau': model.tau,
    'target_entropy': float(model.target_entropy),
  }


def _found_of_ppo(model):
  if not model.normalize_advantage or model.target_kl is not None:
    raise ValueError('advantages as they are, or a limit to the divergence')
  rollout = model.n_steps * model.n_envs
  clip = model.clip_range  # sbx leaves the number here
  return {
    'rollout': rollout,
    'num_epochs': model.n_epochs,
    'gae_lambda': model.gae_lambda,
    'clip': clip(1.0) if callable(clip) else clip,
    'value_clip': model.clip_range_vf,
    'value_weight': model.vf_coef,
    'entropy_weight': model.ent_coef,
    'max_norm': model.max_grad_norm,
    # They count epochs.
    'updates': model._n_updates * (rollout // model.batch_size),
  }


def rates(model: Any, job: jobs.Job) -> list[float]:
  """Trains until the clock has seen enough."""
  watch = clock.Clock(job)

  class Ticks(callbacks.BaseCallback):
    def _on_step(self) -> bool:
      watch.tick(job.hyperparameters.num_envs)
      return True

  try:
    model.learn(10**9, callback=Ticks())
  except clock.Finished:
    pass
  return watch.rates


def _pong():
  gymnasium.register_envs(ale_py)
  environment = gymnasium.make(
    'ALE/Pong-v5', frameskip=1, repeat_action_probability=0.25
  )
  # Dopamine's protocol: no no-ops, whole games.
  return atari_wrappers.AtariWrapper(
    environment, noop_max=0, frame_skip=4, terminal_on_life_loss=False
  )
