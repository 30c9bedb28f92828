"""How fast the replay is and what a transition takes: Atari frames, n = 3.

    python -m benchmarks.replay [--slots 200_000] [--calls 2_000]
    python -m benchmarks.replay --disk . --slots 10_000_000 [--side 42]

The second has the frames in a file in a folder, see `replay/mapped_rows.py`,
and prints only what that changes.

Every call is waited for, as training waits for it. Beside the rate of the
median call stands that of the fastest tenth; if they are far apart, something
else was running. `python -m benchmarks --jobs replay` puts it into the results.
"""

import argparse
from collections.abc import Callable
import functools
import math
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import jobs
from dopamine_jax.engines import allocator
from dopamine_jax.engines import dispatch
from dopamine_jax.engines import threefry
from dopamine_jax.replay import mapped_rows
from dopamine_jax.replay import prioritized
from dopamine_jax.replay import ring as ring_lib
from dopamine_jax.replay import uniform

_EPISODE = 800  # agent steps
_BATCH = 32
# Steps that are played again and again: drawing them is not what is measured.
_POOL = 500


PACKAGES = ('jax', 'jaxlib')


def main():
  """Prints rates and bytes."""
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--slots', type=int, default=200_000)
  parser.add_argument('--calls', type=int, default=2_000)
  parser.add_argument('--side', type=int, default=84, help='of a frame')
  parser.add_argument('--disk', metavar='FOLDER', help='for the frames')
  arguments = parser.parse_args()
  slots, calls, side = arguments.slots, arguments.calls, arguments.side
  print(f'{slots:,} slots of {side}x{side} bytes, n = 3, stack 4')
  _prepare()
  if arguments.disk:
    found = _of_disk(_steps(_POOL, side), slots, calls, arguments.disk)
  else:
    found = figures(slots, calls, side)
  for name, values in found.items():
    print(f'{values[0]:12,.0f} {name} ({values[1]:,.0f} the fastest tenth)')


def measure(job: jobs.Job) -> tuple[dict[str, list[float]], None]:
  """Returns each row's values, for the table of results."""
  del job
  _prepare()
  return {
    name: values[:1] for name, values in figures(200_000, 2_000).items()
  }, None


def _prepare():
  """Does what a training does first."""
  allocator.keep_freed_memory()
  dispatch.stay_in_this_thread()
  threefry.write_out()


def figures(slots: int, calls: int, side: int = 84) -> dict[str, list[float]]:
  """Returns by name the figure of the median call, and of the fastest tenth."""
  steps = _steps(_POOL, side)
  found = _of_ring(uniform.UniformReplay, steps, slots, calls)
  del found[f'reprioritize({_BATCH})/s']  # which does nothing
  by_priority = _of_ring(prioritized.PrioritizedReplay, steps, slots, calls)
  found |= {f'prioritized {name}': each for name, each in by_priority.items()}
  return found | _of_floor(steps, slots, calls)


def _of_ring(replay, steps, slots, calls):
  """Of one kind of replay."""
  replay = replay(
    capacity=slots, batch_size=_BATCH, min_history=_BATCH, n_step=3, stack=4
  )
  ring = _filled(replay, steps)
  size = sum(leaf.nbytes for leaf in jax.tree.leaves(ring))
  taken = size / (slots * _EPISODE / (_EPISODE + 1))
  sampling = _sampling(replay, ring, calls)
  state = _Donated(ring)

  renew, add = state.program(replay.reprioritize), state.program(replay.add)
  # What handing over the ring and a step takes, whatever is done with them.
  call = state.program(lambda ring, step: ring.replace(head=ring.head + 1))
  rng = np.random.default_rng(0)
  places = rng.integers(0, slots, (_POOL, _BATCH)).astype(np.int32)
  priorities = rng.exponential(size=(_POOL, _BATCH)).astype(np.float32)
  return {
    'bytes a transition': [taken, taken],
    f'sample({_BATCH})/s': sampling,
    f'reprioritize({_BATCH})/s': _rates(
      calls, lambda i: renew(places[i % _POOL], priorities[i % _POOL])
    ),
    'add/s': _rates(calls, lambda i: add(steps[i % _POOL])),
    'bare call of add/s': _rates(calls, lambda i: call(steps[i % _POOL])),
  }


def _sampling(replay, ring, calls):
  """Returns the rates of samples."""
  key = jax.random.key(0)
  sample = jax.jit(
    lambda ring, i: replay.sample(ring, jax.random.fold_in(key, i))
  )
  return _rates(calls, lambda i: sample(ring, np.int32(i)))


def _of_disk(steps, slots, calls, folder):
  """Of uniform replay with frames in a file."""
  replay = uniform.UniformReplay(
    capacity=slots, batch_size=_BATCH, min_history=_BATCH, n_step=3, stack=4
  )
  frames = np.stack([step.observation for step in steps])[:, 0]
  # Of all but the frames, as above: to write these one by one takes too long.
  ring = _filled(
    replay,
    [
      step.replace(
        observation=step.observation[:, 0, 0],
        next_observation=step.next_observation[:, 0, 0],
      )
      for step in steps
    ],
  )
  shape = jax.ShapeDtypeStruct((1, slots, *frames.shape[1:]), jnp.uint8)
  mapped = mapped_rows.mapped(shape, folder, 1).opened()
  places = np.arange(_POOL)
  for start in range(0, slots - _POOL + 1, _POOL):
    mapped.file.write(np.zeros_like(places), start + places, frames)
  ring = ring.replace(slots=ring.slots.replace(frame=mapped))
  sampling = _sampling(replay, ring, calls)
  add = _Donated(ring).program(replay.add)
  return {
    'GB in the file': [mapped.file.nbytes / 1e9] * 2,
    f'sample({_BATCH})/s': sampling,
    'add/s': _rates(calls, lambda i: add(steps[i % _POOL])),
  }


def _of_floor(steps, slots, calls):
  """Frames put where the caller says, and fetched from there; no more.

  No add is faster than the first, no sample than the others: both stacks of
  each transition, as they lie and as networks take them, without a draw or a
  look at where episodes end.
  """
  side = steps[0].observation.shape[-1]
  frames = _Donated(jnp.zeros((slots, side, side), jnp.uint8))
  write = frames.program(lambda frames, frame, i: frames.at[i].set(frame[0]))
  rates = _rates(
    calls,
    lambda i: write(steps[i % _POOL].observation, np.int32(i % slots)),
  )
  fetch = frames.reader(lambda frames, rows: frames[rows])
  stack = frames.reader(lambda frames, rows: _stacks(frames, rows))
  rng = np.random.default_rng(0)
  first = rng.integers(0, slots - 7, (_POOL, _BATCH, 1)).astype(np.int32)
  rows = first + np.array([0, 1, 2, 3, 3, 4, 5, 6], np.int32)
  return {
    'bare donated write/s': rates,
    f'bare gather({_BATCH})/s': _rates(calls, lambda i: fetch(rows[i % _POOL])),
    f'bare stacks({_BATCH})/s': _rates(calls, lambda i: stack(rows[i % _POOL])),
  }


def _stacks(frames, rows):
  """Returns both stacks of each row of numbers, frames last for networks."""
  frames = frames.reshape(len(frames), -1)
  stacks = [jnp.moveaxis(frames[part], 1, -1) for part in jnp.split(rows, 2, 1)]
  side = math.isqrt(frames.shape[-1])
  return [stack.reshape(_BATCH, side, side, 4) for stack in stacks]


class _Donated:
  """State that passes from call to call."""

  def __init__(self, state: Any):
    self._state = state

  def program(self, function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the jitted function of what it takes besides the state."""
    program = jax.jit(function, donate_argnums=0)

    def call(*arguments):
      self._state = program(self._state, *arguments)
      return self._state

    return call

  def reader(self, function: Callable[..., Any]) -> Callable[..., Any]:
    """Likewise, but the state stays as it is."""
    program = jax.jit(function)
    return lambda *arguments: program(self._state, *arguments)


def _steps(count: int, side: int) -> list[ring_lib.Step]:
  """Returns steps of one environment, none of which ends an episode."""
  rng = np.random.default_rng(0)
  shape = count + 1, 1, side, side
  frames = rng.integers(0, 256, shape).astype(np.uint8)
  return [
    ring_lib.Step(
      observation=frames[i],
      action=rng.integers(0, 18, 1).astype(np.int32),
      reward=rng.normal(size=1).astype(np.float32),
      terminated=np.array([False]),
      truncated=np.array([False]),
      next_observation=frames[i + 1],
    )
    for i in range(count)
  ]


def _filled(
  replay: uniform.UniformReplay, steps: list[ring_lib.Step]
) -> ring_lib.Ring:
  """Returns a full ring of episodes, added by one program."""
  pool = jax.tree.map(lambda *leaves: jnp.stack(leaves), *steps)

  @functools.partial(jax.jit, donate_argnums=0)
  def fill(ring, pool):
    def add(i, ring):
      step = jax.tree.map(lambda leaf: leaf[i % _POOL], pool)
      ended = jnp.full(1, i % _EPISODE == _EPISODE - 1)
      return replay.add(ring, step.replace(terminated=ended))

    return jax.lax.fori_loop(0, replay.capacity, add, ring)

  return jax.block_until_ready(fill(replay.init(steps[0]), pool))


def _rates(calls: int, call: Callable[[int], object]) -> list[float]:
  """Returns calls a second at the pace of the median and the fastest tenth."""
  seconds = []
  for i in range(calls + 10):
    started = time.perf_counter()
    jax.block_until_ready(call(i))
    seconds.append(time.perf_counter() - started)
  # The first ones compile, and warm up.
  fast, median = np.quantile(seconds[10:], [0.1, 0.5])
  return [float(1 / median), float(1 / fast)]


if __name__ == '__main__':
  main()
