"""Times the gradient of an MLP of our dense layers and of Flax's, on a CPU.

    python -m benchmarks.layers

Prints a Markdown table of microseconds, the medians of calls taken in turns.
Takes a minute on 2 cores.
"""

from collections.abc import Callable
import itertools
import time

import numpy as np

from dopamine_jax.engines import allocator

SEEDS = (1, 8, 32)
BATCHES = (32, 256)
HIDDEN = (64, 128, 256)  # units of both layers
CALLS = 60


def main():
  """Prints the table."""
  allocator.keep_freed_memory()  # before jax is imported
  from flax import linen as nn

  from dopamine_jax.engines import dispatch
  from dopamine_jax.networks import layers

  dispatch.stay_in_this_thread()
  print('| layers | batch | seeds | nn.Dense | ours | ours / nn.Dense |')
  print('|---|---|---|---|---|---|')
  for size, batch, seeds in itertools.product(HIDDEN, BATCHES, SEEDS):
    theirs, ours = medians(
      [make(dense, size, batch, seeds) for dense in (nn.Dense, layers.Dense)]
    )
    print(
      f'| {size}, {size} | {batch} | {seeds} | {theirs:.0f} | {ours:.0f} '
      f'| {ours / theirs:.2f} |',
      flush=True,
    )


def make(dense: Callable, size: int, batch: int, seeds: int) -> Callable:
  """Returns a function without arguments that takes the seeds' gradients."""
  from flax import linen as nn
  import jax
  import jax.numpy as jnp

  network = nn.Sequential(
    [dense(size), nn.relu, dense(size), nn.relu, dense(2)]
  )
  x = jax.random.normal(jax.random.key(0), (seeds, batch, 8))
  keys = jax.random.split(jax.random.key(1), seeds)
  params = jax.vmap(network.init)(keys, x)

  def gradient(params, x):
    return jax.grad(lambda params: jnp.sum(network.apply(params, x) ** 2))(
      params
    )

  if seeds == 1:  # as an engine has it: without an axis of seeds
    params, x = jax.tree.map(lambda leaf: leaf[0], (params, x))
    program = jax.jit(gradient)
  else:
    program = jax.jit(jax.vmap(gradient))
  return lambda: program(params, x)


def medians(calls: list[Callable]) -> list[float]:
  """Returns the microseconds of each; the first call compiles."""
  import jax

  seconds = [[] for _ in calls]
  for _ in range(CALLS + 1):
    for call, own in zip(calls, seconds, strict=True):
      started = time.perf_counter()
      jax.block_until_ready(call())
      own.append(time.perf_counter() - started)
  return [1e6 * float(np.median(own[1:])) for own in seconds]


if __name__ == '__main__':
  main()
