"""Where the time of a training goes, and how far that is from the floor.

    python -m benchmarks.where [A B-same D-compiled der_atari100k ...]

Prints a Markdown table: milliseconds of one update and the steps that belong to
it, by who takes them. Each call is waited for, so that its time is its own; a
training as it runs (`in all`) waits only for actions. Inside one compiled
program nothing can be told apart: those rows are of all seeds' updates at once.

Learning can't be faster than its matrix products and Adam, each of which is
timed alone, as XLA runs it on the job's own shapes. The floor is these, and
the environment, acting and Python as they are: what no form of convolution, no
replay and no loss could go below. `network alone` is what learning takes of the
network with all its layers and their gradients, without replay, loss and
optimizer; not of SAC, which has three.

Of a shipped config that learns from a replay, `products alone` is the number of
operations that XLA counts in an update, at the rate of a product of 1,024 by
1,024 matrices, and there is no Adam apart.
"""

from collections.abc import Callable, Iterator
import concurrent.futures
import contextlib
import multiprocessing
import pathlib
import sys
import tempfile
import time
from typing import Any

import numpy as np

from benchmarks import algorithms
from benchmarks import jobs
from benchmarks import ours
from dopamine_jax.engines import allocator

# By name in the table: the job, the engine, and how many seeds it trains.
ROWS = {
  'A': ('A', 'PythonEngine', 1),
  'A-small': ('A-small', 'PythonEngine', 1),
  'seeds-8': ('seeds', 'PythonEngine', 8),
  'A-compiled': ('A-compiled', 'CompiledEngine', 1),
  'B-same': ('B-same', 'PythonEngine', 1),
  'B-valid': ('B-valid', 'PythonEngine', 1),
  'C-rainbow': ('C-rainbow', 'PythonEngine', 1),
  'C-full-rainbow': ('C-full-rainbow', 'PythonEngine', 1),
  'D-compiled': ('D-compiled', 'CompiledEngine', 32),
  'D-pixels': ('D-pixels', 'PythonEngine', 1),
  'D-pixels-compiled': ('D-pixels', 'CompiledEngine', 1),
  'E': ('E', 'PythonEngine', 1),
}
COLUMNS = (
  'in all',
  'environment',
  'acting',
  'learning',
  'Python',
  'products alone',
  'Adam alone',
  'network alone',
  'floor',
)


def main():
  """Prints the table.

  Each row in a process of its own, like a training: memory that one left in
  pieces slows the next by up to half.
  """
  print('| ms an update | ' + ' | '.join(COLUMNS) + ' |')
  print('|---' * (len(COLUMNS) + 1) + '|', flush=True)
  spawn = multiprocessing.get_context('spawn')
  for name in sys.argv[1:] or ROWS:
    with concurrent.futures.ProcessPoolExecutor(1, spawn) as process:
      print(process.submit(_row, name).result(), flush=True)


def _row(name: str) -> str:
  allocator.keep_freed_memory()  # before jax is imported
  from dopamine_jax.engines import dispatch
  from dopamine_jax.engines import threefry

  dispatch.stay_in_this_thread()
  threefry.write_out()
  if name in ROWS:
    job, engine, seeds = ROWS[name]
    row = measure(jobs.JOBS[job], engine, seeds)
  else:
    row = measure_config(name)
  cells = ['' if value is None else f'{value:.2f}' for value in row]
  return f'| {name} | ' + ' | '.join(cells) + ' |'


def measure(job: jobs.Job, engine: str, seeds: int) -> list[float | None]:
  """Returns a row of the table.

  Args:
    job: what to train.
    engine: 'PythonEngine' or 'CompiledEngine'.
    seeds: how many it trains side by side.
  """
  expected = job.hyperparameters
  updates = job.window / period(expected)
  parts, network = _train(job, engine, seeds)
  row = [
    None if seconds is None else 1e3 * seconds / updates for seconds in parts
  ]
  products = sum(
    times * milliseconds(*_product(shape, seeds))
    for times, shape in products_of(expected)
  )
  adam = expected.updates_at_once * milliseconds(*_adam(expected, seeds))
  _, environment, acting, _, python = row
  beside = sum(part or 0.0 for part in (environment, acting, python))
  return [*row, products, adam, network, beside + products + adam]


def measure_config(name: str, window: int = 4) -> list[float | None]:
  """Returns a row of the table, of a config that learns from a replay.

  Args:
    name: of a shipped config.
    window: agent steps that are timed, thrice.
  """
  from dopamine_jax import config
  from dopamine_jax import runner

  loaded = config.load([name], ['runner.Runner.evaluation_episodes = 0'])
  run = loaded.build(runner.Runner)
  with _engine(run, 1) as engine:
    agent, replay = engine.loop.agent, engine.loop.replay
    parts = _parts(engine, replay.min_history + 2, window)
    operations = _operations(engine)
  updates = window // agent.update_period * agent.updates_per_period
  row = [
    None if seconds is None else 1e3 * seconds / updates for seconds in parts
  ]
  size = 1_024
  product = milliseconds(*_product((size, size, size), 1))
  products = operations / (2 * size**3) * product
  _, environment, acting, _, python = row
  beside = sum(part or 0.0 for part in (environment, acting, python))
  return [*row, products, None, None, beside + products]


def _operations(engine: Any) -> float:
  """Returns how many operations of numbers XLA counts in an update."""
  import jax

  def update(state, key):
    sample = engine.loop.replay.sample(state.experience.replay, key)
    return engine.loop.agent.update(
      state.agent, engine.loop.agent.prepare(sample, key), key
    )

  state = engine.state
  program = jax.jit(update).lower(state, jax.random.key(0)).compile()
  return program.cost_analysis()['flops']


def period(expected: algorithms.Hyperparameters) -> int:
  """Returns the agent steps from one update to the next."""
  return getattr(expected, 'rollout', None) or expected.update_period


def _train(
  job: jobs.Job, engine_name: str, num_seeds: int
) -> tuple[list[float | None], float | None]:
  """Returns a window's seconds, in all and by who takes them.

  And milliseconds of an update in which the network works by itself.
  """
  from dopamine_jax import config
  from dopamine_jax import runner

  loaded = config.load(*ours.configuration(job.hyperparameters, engine_name))
  with _engine(loaded.build(runner.Runner), num_seeds) as engine:
    parts = _parts(engine, job.warmup, job.window)
    network = _network(engine, job.hyperparameters)
  return parts, network


@contextlib.contextmanager
def _engine(run: Any, num_seeds: int) -> Iterator[Any]:
  """Yields the engine of a training that is ready to run."""
  from dopamine_jax.training import training

  with (
    tempfile.TemporaryDirectory() as folder,
    contextlib.ExitStack() as closers,
  ):
    one = training.Training(
      run,
      pathlib.Path(folder),
      tuple(range(num_seeds)),
      lambda _: None,
      closers,
    )
    one.prepare(resume=False)
    yield one.engine


def _parts(engine: Any, warmup: int, window: int) -> list[float | None]:
  """Returns a window's seconds, in all and by who takes them."""
  import jax

  from dopamine_jax.engines import compiled

  def run():
    started = time.perf_counter()
    engine.run(window, cut_with=None, on_step=lambda: None)
    jax.block_until_ready(engine.state)
    return time.perf_counter() - started

  engine.run(warmup, cut_with=None, on_step=lambda: None)
  run()
  whole = float(np.median([run() for _ in range(3)]))
  if isinstance(engine, compiled.CompiledEngine):  # all in one program
    return [whole, *[None] * 4]
  waited = _wait_for_each_call(engine)
  with_waits = run()
  parts = [sum(seconds) for seconds in waited]
  return [whole, *parts, with_waits - sum(parts)]


def _network(engine: Any, expected: algorithms.Hyperparameters) -> float | None:
  """Returns the milliseconds of an update's passes and gradients, no more."""
  import jax
  import jax.numpy as jnp

  networks = engine.loop.agent.anatomy(engine.state.agent)
  if list(networks) != ['']:
    return None
  module, params, *_ = networks['']
  several = len(engine.seeds) > 1
  seen = engine.state.experience.observation[(0,) * (1 + several)]
  noise = {'noise': jax.random.key(0)}

  def over_seeds(function):
    function = jax.vmap(function, (0, None)) if several else function
    return jax.jit(function)

  def outputs(params, batch):
    return module.apply({'params': params}, batch, rngs=noise)

  def squares(params, batch):
    leaves = jax.tree.leaves(outputs(params, batch))
    return sum(jnp.sum(jnp.square(leaf)) for leaf in leaves)

  def batch(size):
    return jnp.tile(seen, (size, *(1,) * seen.ndim))

  rows = getattr(expected, 'rollout', None) or expected.batch_size
  passes = 2 if getattr(expected, 'double', False) else 1
  gradients = expected.updates_at_once * milliseconds(
    over_seeds(jax.grad(squares)), params, batch(expected.batch_size)
  )
  return gradients + passes * milliseconds(
    over_seeds(outputs), params, batch(rows)
  )


def _wait_for_each_call(engine: Any) -> tuple[list[float], ...]:
  """Returns lists that fill: stepping, acting and learning, in seconds."""
  environment, acting, learning = [], [], []
  engine.environments.step = _timed(engine.environments.step, environment)
  # None where each step's update acts.
  engine._act_programs = {
    key: (_timed(program, acting), reads)
    for key, (program, reads) in engine._act_programs.items()
  }
  engine._learn_programs = {
    key: _timed(program, learning)
    for key, program in engine._learn_programs.items()
  }
  return environment, acting, learning


Shape = tuple[int, int, int]


def products_of(
  expected: algorithms.Hyperparameters,
) -> list[tuple[int, Shape]]:
  """Returns how often an update multiplies [M, K] by [K, N], and (M, K, N)."""
  if isinstance(expected, algorithms.SAC):
    layers = len(expected.kernels) // 3
    policy, critics = expected.kernels[:layers], expected.kernels[layers:]
    # The policy acts on both observations and learns from one; critics judge as
    # targets, as what learns, and for the policy, whose gradient passes through
    # them down to the action.
    return [
      *_layers(expected, policy, forward=2, to_kernels=1, to_inputs=1),
      *_layers(expected, critics[:layers], 2 * 3, 2 * 1, 2 * 2),
    ]
  if isinstance(expected, algorithms.PPO):
    # Each row is seen once before the epochs, as if in an epoch more.
    steps = expected.updates_at_once
    forward = steps + expected.num_minibatches
    return list(_layers(expected, expected.kernels, forward, steps, steps))
  forward = (
    3 if getattr(expected, 'double', False) else 2
  )  # one is the target's
  return list(_layers(expected, expected.kernels, forward, 1, 1))


def _layers(
  expected: algorithms.Hyperparameters,
  kernels: algorithms.Shapes,
  forward: int,
  to_kernels: int,
  to_inputs: int,
) -> Iterator[tuple[int, Shape]]:
  """Yields each layer's products, of a batch; the first needs no input's."""
  size = 84
  for i, kernel in enumerate(kernels):
    rows, inputs = expected.batch_size, int(np.prod(kernel[:-1]))
    if len(kernel) == 4:
      stride = (4, 2, 1)[i]
      if expected.padding == 'SAME':
        size = -(-size // stride)
      else:
        size = (size - kernel[0]) // stride + 1
      rows *= size**2
    outputs = kernel[-1]
    yield forward, (rows, inputs, outputs)
    yield to_kernels, (inputs, rows, outputs)
    yield to_inputs * (i > 0), (rows, outputs, inputs)


def _product(shape: Shape, seeds: int):
  """Returns a program and what it multiplies, a matrix for each seed."""
  import jax
  import jax.numpy as jnp

  m, k, n = shape
  lead = (seeds,) if seeds > 1 else ()
  return jax.jit(jnp.matmul), jnp.ones((*lead, m, k)), jnp.ones((*lead, k, n))


def _adam(expected: algorithms.Hyperparameters, seeds: int):
  """Returns a call that updates the job's kernels in place, and gradients."""
  import jax
  import jax.numpy as jnp
  import optax

  optimizer = optax.adam(expected.learning_rate, eps=expected.adam_epsilon)
  shapes = [(seeds, *shape) for shape in expected.kernels]
  gradients, params = ([jnp.ones(shape) for shape in shapes] for _ in range(2))
  state = params, optimizer.init(params)

  def update(state, gradients):
    params, optimizer_state = state
    changes, optimizer_state = optimizer.update(gradients, optimizer_state)
    return optax.apply_updates(params, changes), optimizer_state

  program = jax.jit(update, donate_argnums=0)

  def call(gradients):
    nonlocal state
    state = program(state, gradients)
    return state

  return call, gradients


def milliseconds(call: Callable[..., object], *arguments: object) -> float:
  """Returns the median of 20 calls, after one that compiles."""
  seconds: list[float] = []
  timed = _timed(call, seconds)
  for _ in range(21):
    timed(*arguments)
  return 1e3 * float(np.median(seconds[1:]))


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
