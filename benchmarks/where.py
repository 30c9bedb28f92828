"""Where the time of a training goes, and how far that is from the floor.

    python -m benchmarks.where [A A-small B-same B-valid]

Prints a Markdown table: milliseconds of one update and the steps that belong to
it, by who takes them. Each call is waited for, so that its time is its own; a
training as it runs (`in all`) waits only for actions. The floor of an update is
its matrix products alone, at the rate that XLA reaches in a large one.
"""

import pathlib
import sys
import tempfile
import time

import numpy as np

from benchmarks import algorithms
from benchmarks import jobs
from benchmarks import ours
from dopamine_jax import allocator


def main():
  """Prints the table."""
  names = sys.argv[1:] or ['A', 'A-small', 'B-same', 'B-valid']
  allocator.keep_freed_memory()  # before jax is imported
  from dopamine_jax import dispatch

  dispatch.stay_in_this_thread()
  rate = peak()
  print(f'A large float32 product: {rate / 1e9:.0f} GFLOP/s.\n')
  print(
    '| ms an update | in all | environment | acting | learning | Python '
    '| products alone |'
  )
  print('|---|---|---|---|---|---|---|')
  for name in names:
    row = measure(jobs.JOBS[name], rate)
    print(f'| {name} | ' + ' | '.join(f'{value:.2f}' for value in row) + ' |')


def peak() -> float:
  """Returns floating-point operations a second of a large matrix product."""
  import jax
  import jax.numpy as jnp

  size = 2_048
  product = jax.jit(jnp.matmul)
  x = jnp.ones((size, size))
  product(x, x).block_until_ready()
  seconds = []
  for _ in range(10):
    started = time.perf_counter()
    product(x, x).block_until_ready()
    seconds.append(time.perf_counter() - started)
  return 2 * size**3 / np.median(seconds)


def measure(job: jobs.Job, rate: float) -> list[float]:
  """Returns a row of the table, in milliseconds."""
  import jax

  from dopamine_jax import config
  from dopamine_jax import runner
  from dopamine_jax import training

  expected = job.hyperparameters
  config.load(*ours.configuration(expected, 'PythonEngine'))
  with tempfile.TemporaryDirectory() as folder:
    one = training.Training(
      config.build(runner.Runner), pathlib.Path(folder), (0,), lambda _: None
    )
    one.prepare(resume=False)
    engine = one.engine

    def run():
      started = time.perf_counter()
      engine.run(job.window, cut_with=None, on_step=lambda: None)
      jax.block_until_ready(engine.state)
      return time.perf_counter() - started

    engine.run(job.warmup, cut_with=None, on_step=lambda: None)
    run()
    whole = np.median([run() for _ in range(3)])
    waited = {name: [] for name in ('environment', 'acting', 'learning')}
    engine.environments.step = _timed(
      engine.environments.step, waited['environment']
    )
    program, reads = engine._act_program
    engine._act_program = _timed(program, waited['acting']), reads
    engine._learn_programs = {
      key: _timed(program, waited['learning'])
      for key, program in engine._learn_programs.items()
    }
    with_waits = run()
    one.close()
  updates = job.window / expected.update_period
  parts = [sum(seconds) for seconds in waited.values()]
  python = with_waits - sum(parts)
  floor = operations(expected) / rate * updates
  row = [whole, *parts, python, floor]
  return [1e3 * seconds / updates for seconds in row]


def operations(expected: algorithms.DQN) -> float:
  """Returns the floating-point operations of one update's matrix products.

  Two forward passes, and a backward pass of twice as many; the first layer
  needs no gradient of its input.
  """
  size, total = 84, 0.0
  for i, kernel in enumerate(expected.kernels):
    positions = 1
    if len(kernel) == 4:
      stride = (4, 2, 1)[i]
      if expected.padding == 'SAME':
        size = -(-size // stride)
      else:
        size = (size - kernel[0]) // stride + 1
      positions = size**2
    forward = 2 * expected.batch_size * positions * np.prod(kernel)
    total += forward * (3 if i == 0 else 4)
  return total


def _timed(function, seconds):
  import jax

  def call(*arguments):
    started = time.perf_counter()
    result = jax.block_until_ready(function(*arguments))
    seconds.append(time.perf_counter() - started)
    return result

  return call


if __name__ == '__main__':
  main()
