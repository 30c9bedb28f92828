"""How long five seeds take, from the command to the last result.

That is what a researcher waits for: start-up, compilation (nothing is compiled
yet), training, and what is saved at the end. Ours trains them side by side, by
`--num_seeds 5`; of the others each seed is a process, one for each core at a
time, with one thread for PyTorch.

A peer's process is `python -m benchmarks.five PEER JOB STEPS SEED FOLDER`, run
by its own Python: needs nothing but Python itself until then.
"""

import importlib
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

from benchmarks import jobs

SEEDS = 5
PACKAGES = ('jax', 'jaxlib')


def measure(
  job: jobs.Job, steps: int, engine: str = 'PythonEngine'
) -> tuple[list[float], None]:
  """Returns the seconds of ours, for so many agent steps of each seed."""
  from benchmarks import ours

  files, bindings = ours.configuration(job.hyperparameters, engine)
  bindings += [
    'runner.Runner.num_iterations = 1',
    f'runner.Runner.training_steps = {steps}',
  ]
  command = [sys.executable, '-m', 'dopamine_jax', 'train', '--quiet']
  command += ['--num_seeds', str(SEEDS)]
  for file in files:
    command += ['--gin_files', file]
  for binding in bindings:
    command += ['--gin_bindings', binding]
  with tempfile.TemporaryDirectory() as folder:
    # A cache of its own, which is empty.
    cache = {'JAX_COMPILATION_CACHE_DIR': f'{folder}/cache'}
    environment = {**os.environ, **cache}
    began = time.perf_counter()
    subprocess.run(
      [*command, '--base_dir', f'{folder}/run'], check=True, env=environment
    )
    return [time.perf_counter() - began], None


def of_peer(peer: str, name: str, steps: int) -> list[float]:
  """Returns the seconds of a peer's processes; called by its own Python."""
  with tempfile.TemporaryDirectory() as folder:
    # Or PyTorch's threads of one process wait busily for those of the other.
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    began = time.perf_counter()
    running, left = [], list(range(SEEDS))
    try:
      while running or left:
        while left and len(running) < (os.cpu_count() or 1):
          seed = str(left.pop(0))
          command = [sys.executable, '-m', 'benchmarks.five', peer, name]
          command += [str(steps), seed, folder]
          running.append(subprocess.Popen(command, env=environment))
        time.sleep(0.05)
        for process in [each for each in running if each.poll() is not None]:
          running.remove(process)
          if process.returncode:
            raise RuntimeError(f'a process of {peer} failed')
    finally:
      for process in running:
        process.kill()
        process.wait()
    return [time.perf_counter() - began]


def main():
  """Trains one seed of a peer, and saves it."""
  peer, name, steps, seed, folder = sys.argv[1:]
  module: Any = importlib.import_module(f'benchmarks.peers.{peer}')
  model = module.model_of(jobs.JOBS[name].hyperparameters, int(seed))
  model.learn(int(steps))
  model.save(pathlib.Path(folder, seed))


if __name__ == '__main__':
  main()
