"""Our command line as a user starts it: time to learn, and peak memory."""

import csv
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from typing import Any

from benchmarks import jobs
from benchmarks import ours

PACKAGES = ('jax', 'jaxlib')


def measure(
  job: jobs.Job, what: str
) -> tuple[list[float], dict[str, Any] | None]:
  """Returns one value, of `startup` or `memory`."""
  if what == 'startup':
    return [_seconds_to_first_update(job.hyperparameters)], None
  return [_peak_memory()], None


def _seconds_to_first_update(expected):
  """Seconds from the launch to the log of an iteration that ends with it."""
  files, bindings = ours.configuration(expected, 'PythonEngine')
  bindings += [
    'runner.Runner.num_iterations = 1',
    f'runner.Runner.training_steps = {expected.min_history}',
  ]
  with tempfile.TemporaryDirectory() as folder:
    launched = time.time()
    _train(files, bindings, folder)
    with open(pathlib.Path(folder) / 'metrics.csv', newline='') as stream:
      rows = {row['name']: row for row in csv.DictReader(stream)}
  if float(rows['Train/Updates']['value']) != 1:
    raise ValueError('the iteration did not end with the first update')
  return float(rows['Train/Updates']['wall_time']) - launched


def _peak_memory():
  """GB that the shipped Atari config takes; evaluation and checkpoint too.

  The ring is in memory whole from the start, whether filled or not.
  """
  bindings = [
    'runner.Runner.num_iterations = 1',
    'runner.Runner.training_steps = 1_200',
    'uniform.UniformReplay.min_history = 1_000',
    'atari.Atari.max_steps_per_episode = 500',
  ]
  with tempfile.TemporaryDirectory() as folder:
    _train(['dopamine_jax/configs/dqn_atari.gin'], bindings, folder)
  peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
  return peak * (1 if sys.platform == 'darwin' else 1024) / 1e9


def _train(files, bindings, folder):
  command = [sys.executable, '-m', 'dopamine_jax', 'train', '--quiet']
  command += ['--base_dir', folder]
  for file in files:
    command += ['--gin_files', file]
  for binding in bindings:
    command += ['--gin_bindings', binding]
  subprocess.run(command, check=True)
