"""One of sbx's agents on a MuJoCo task, as a run that `compare` reads.

`python -m benchmarks.sbx_run SAC Hopper-v5 100 runs/sbx/hopper`: agent, task,
seed and folder. It installs sbx into an environment of its own, whose Python
does the training. Settings are sbx's own, but for those of `_SETTINGS`.
"""

import csv
import importlib.util
import pathlib
import subprocess
import sys
import time

from benchmarks import environments

_STEPS = 100_000
_PERIOD = 5_000  # agent steps from one evaluation to the next
_EPISODES = 10
# What ours has another number for: those of the configs for MuJoCo, and of
# CrossQ the size that is trained here (sbx's critics have two layers of 1024).
_SETTINGS = {
  'SAC': {'learning_starts': 10_000},
  'TD3': {'learning_starts': 25_000},
  'TQC': {'learning_starts': 10_000},
  'CrossQ': {
    'learning_starts': 5_000,
    'policy_kwargs': {'net_arch': [256, 256]},
  },
}
_EXPLORATION_NOISE = 0.1  # of TD3: sbx has none unless it is told
_DROPPED = {'Hopper-v5': 5, 'HalfCheetah-v5': 0}  # of TQC's quantiles, as ours
_CONFIG = """\
runner.Runner.agent = @sbx.{}
runner.Runner.environment = @gym.Gym()
runner.Runner.num_iterations = {}
gym.Gym.id = '{}'
"""


def main():
  """Trains, here or by the Python that has sbx."""
  if importlib.util.find_spec('sbx') is None:
    command = [environments.python('sbx'), '-m', 'benchmarks.sbx_run']
    sys.exit(subprocess.run([*command, *sys.argv[1:]]).returncode)
  algorithm, task, seed, folder = sys.argv[1:]
  if algorithm not in _SETTINGS:
    sys.exit(f'no agent is called {algorithm}: there are {list(_SETTINGS)}')
  if algorithm == 'TQC' and task not in _DROPPED:
    sys.exit(f'of TQC the tasks are {list(_DROPPED)}, and not {task}')
  train(algorithm, task, int(seed), pathlib.Path(folder))


def train(algorithm: str, task: str, seed: int, folder: pathlib.Path):
  """Trains one seed, evaluates it now and then, and writes what it reached."""
  import gymnasium
  import numpy as np
  import sbx
  from stable_baselines3.common import callbacks
  from stable_baselines3.common import evaluation
  from stable_baselines3.common import monitor
  from stable_baselines3.common import noise

  env = gymnasium.make(task)
  evaluated = monitor.Monitor(gymnasium.make(task))
  evaluated.reset(seed=seed + 10_000)
  settings = dict(_SETTINGS[algorithm])
  if algorithm == 'TQC':
    settings['top_quantiles_to_drop_per_net'] = _DROPPED[task]
  if algorithm == 'TD3':
    zeros = np.zeros(env.action_space.shape)
    deviation = zeros + _EXPLORATION_NOISE
    settings['action_noise'] = noise.NormalActionNoise(zeros, deviation)
  folder.mkdir(parents=True)
  text = _CONFIG.format(algorithm, _STEPS // _PERIOD, task)
  (folder / 'config.gin').write_text(text, 'utf-8')

  class Evaluations(callbacks.BaseCallback):
    def _on_step(self) -> bool:
      if self.num_timesteps % _PERIOD == 0:
        mean, _ = evaluation.evaluate_policy(self.model, evaluated, _EPISODES)
        numbers = self.num_timesteps // _PERIOD, self.num_timesteps, time.time()
        rows.writerow([seed, *numbers, 'Eval/AverageReturns', float(mean)])
        file.flush()
        print(f'{self.num_timesteps:,} steps: {mean:.1f}', flush=True)
      return True

  with open(folder / 'metrics.csv', 'w', encoding='utf-8', newline='') as file:
    rows = csv.writer(file, lineterminator='\n')
    names = ('seed', 'iteration', 'agent_steps', 'wall_time', 'name', 'value')
    rows.writerow(names)
    model = getattr(sbx, algorithm)('MlpPolicy', env, seed=seed, **settings)
    model.learn(_STEPS, callback=Evaluations())


if __name__ == '__main__':
  main()
