"""Stable-Baselines3's DQN, in PyTorch; sbx's has the same interface.

Its loss is Huber's and it clips the norm of gradients at 10; both have no
switch. Neither costs much.
"""

from typing import Any

import ale_py
import gymnasium
from stable_baselines3 import dqn
from stable_baselines3.common import atari_wrappers
from stable_baselines3.common import callbacks
from stable_baselines3.common import vec_env

from benchmarks import clock
from benchmarks import jobs

PACKAGES = ('stable-baselines3', 'torch', 'gymnasium')


def measure(job: jobs.Job) -> tuple[list[float], dict[str, Any]]:
  """Returns rates and the hyper-parameters in force."""
  expected = job.hyperparameters
  policy_kwargs = {'optimizer_kwargs': {'eps': expected.adam_epsilon}}
  if expected.stack == 1:
    policy_kwargs['net_arch'] = list(expected.hidden)
  model = make(dqn.DQN, expected, policy_kwargs)
  # PyTorch has [out, in, height, width].
  shapes = [
    tuple(value.shape) for value in model.q_net.parameters() if value.dim() > 1
  ]
  kernels = [(*shape[2:], shape[1], shape[0]) for shape in shapes]
  group = model.policy.optimizer.param_groups[0]
  found = settings(model) | {
    'kernels': kernels,
    'learning_rate': group['lr'],
    'adam_epsilon': group['eps'],
  }
  values = rates(model, job)
  return values, found | {'updates': model._n_updates}


def make(algorithm: Any, expected: jobs.Hyperparameters, policy_kwargs: Any):
  """Returns the algorithm on the job's environment."""
  pixels = expected.stack > 1
  environment = vec_env.DummyVecEnv([_pong if pixels else _cartpole])
  if pixels:
    environment = vec_env.VecFrameStack(environment, expected.stack)
  return algorithm(
    'CnnPolicy' if pixels else 'MlpPolicy',
    environment,
    learning_rate=expected.learning_rate,
    buffer_size=expected.buffer_size,
    learning_starts=expected.min_history,
    batch_size=expected.batch_size,
    gamma=expected.gamma,
    train_freq=expected.update_period,
    gradient_steps=1,
    target_update_interval=expected.target_update_period,
    exploration_initial_eps=expected.epsilon,
    exploration_final_eps=expected.epsilon,
    policy_kwargs=policy_kwargs,
    seed=0,
    device='cpu',
  )


def settings(model: Any) -> dict[str, Any]:
  """Returns the hyper-parameters that sb3 and sbx keep in the same places."""
  environment = model.get_env()
  if model.gradient_steps != 1 or model.tau != 1.0 or model.n_steps != 1:
    raise ValueError('not one update, a hard copy and one-step returns')
  found = {
    'batch_size': model.batch_size,
    'update_period': model.train_freq.frequency,
    'buffer_size': model.replay_buffer.buffer_size,
    'target_update_period': model.target_update_interval,
    'gamma': model.gamma,
    'epsilon': model.exploration_schedule(0.5),
    'min_history': model.learning_starts,
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
  return found


def rates(model: Any, job: jobs.Job) -> list[float]:
  """Trains until the clock has seen enough."""
  watch = clock.Clock(job)

  class Ticks(callbacks.BaseCallback):
    def _on_step(self) -> bool:
      watch.tick()
      return True

  try:
    model.learn(10**9, callback=Ticks())
  except clock.Finished:
    pass
  return watch.rates


def _cartpole():
  return gymnasium.make('CartPole-v1')


def _pong():
  gymnasium.register_envs(ale_py)
  environment = gymnasium.make(
    'ALE/Pong-v5', frameskip=1, repeat_action_probability=0.25
  )
  # Dopamine's protocol: no no-ops, whole games.
  return atari_wrappers.AtariWrapper(
    environment, noop_max=0, frame_skip=4, terminal_on_life_loss=False
  )
