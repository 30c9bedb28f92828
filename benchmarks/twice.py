"""Whether a training gives the same bits when it is done again.

Each is a process that compiles everything anew, so that what XLA tries out and
chooses on a GPU is chosen twice.
"""

import os
import pathlib
import subprocess
import sys
import tempfile

from benchmarks import jobs
from benchmarks import ours
from dopamine_jax.training import fingerprint

PACKAGES = ours.PACKAGES
_SHORT = (
  'runner.Runner.num_iterations = 1',
  'runner.Runner.evaluation_episodes = 0',
)
# By row: the config, and what makes it short.
TRAININGS = {
  'PPO on CartPole, compiled': (
    'ppo_cartpole_compiled',
    'runner.Runner.training_steps = 20_480',
  ),
  'DQN on Pong': (
    'dqn_atari',
    'runner.Runner.training_steps = 400',
    'uniform.UniformReplay.min_history = 100',
    'uniform.UniformReplay.capacity = 1_000',
  ),
}


def measure(job: jobs.Job) -> tuple[dict[str, list[float]], None]:
  """Returns 1 by row where both fingerprints are equal, and 0 elsewhere."""
  del job
  return {
    row: [float(are_alike(*training))] for row, training in TRAININGS.items()
  }, None


def are_alike(config: str, *bindings: str) -> bool:
  """Whether two trainings of a config have one fingerprint."""
  with tempfile.TemporaryDirectory() as folder:
    return len({_trained(folder, i, config, bindings) for i in range(2)}) == 1


def _trained(folder, number, config, bindings):
  home = pathlib.Path(folder, str(number))
  command = [sys.executable, '-m', 'dopamine_jax', 'train', config, '--quiet']
  command += ['--base_dir', home / 'run', '--seed', '0']
  for binding in (*_SHORT, *bindings):
    command += ['--gin_bindings', binding]
  environment = {**os.environ, 'XDG_CACHE_HOME': str(home / 'cache')}
  subprocess.run(command, check=True, env=environment)
  return fingerprint.fingerprint(home / 'run')['all']
