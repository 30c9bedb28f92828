"""Rows of a ring as npy files: each save writes those that are new.

A ring only ever appends, so the folders of earlier saves and of this one hold,
between them, all that is live. One folder of rows is a segment:

    {'folder': its name,
     'lanes': [[start, stop], ...]   the slot numbers that it has of each lane,
     'checksums': {leaf: CRC-32}}    of one file for each leaf of `Slots`
"""

from collections.abc import Iterator
import functools
import os
import pathlib
from typing import Any
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from dopamine_jax import processes
from dopamine_jax.replay import host_rows
from dopamine_jax.replay import ring as ring_lib

# Rows that leave or enter a ring at once. It bounds the memory that a save or
# a restore needs besides the ring, and gives XLA one shape to compile.
_CHUNK = 1024


def write(
  ring: ring_lib.Ring,
  folder: pathlib.Path,
  name: str,
  segments: list[dict[str, Any]],
) -> dict[str, Any]:
  """Writes the live rows that `segments` lack.

  Args:
    ring: with or without a seed axis; lanes are counted over both axes.
    folder: where the files go; must not exist.
    name: what the new segment calls its folder.
    segments: what was written before, oldest first.

  Returns:
    What `rows` needs: the lanes' `capacity`, their `oldest` live slots, and
    the `segments` that hold live rows, the new one last.

  Raises:
    OSError: if the disk can't take it.
  """
  capacity = ring.slots.reward.shape[-1]
  lanes, oldest = _new_lanes(ring, segments)
  folder.mkdir(parents=True)
  checksums = {}
  for path, leaf in jax.tree_util.tree_flatten_with_path(ring.slots)[0]:
    file = folder / f'{leaf_name(path)}.npy'
    _write_rows(file, leaf, ring.head.ndim, lanes)
    checksums[leaf_name(path)] = checksum(file)
  live = [
    segment
    for segment in segments
    if any(
      stop > first
      for (_, stop), first in zip(segment['lanes'], oldest, strict=True)
    )
  ]
  newest = {'folder': name, 'lanes': lanes, 'checksums': checksums}
  return {
    'capacity': capacity,
    'oldest': oldest.tolist(),
    'segments': [*live, newest],
  }


def fetch(ring: ring_lib.Ring, segments: list[dict[str, Any]]):
  """Takes part in `write`, which another process does: see there."""
  lanes, _ = _new_lanes(ring, segments)
  for leaf in jax.tree.leaves(ring.slots):
    for _ in _chunks(leaf, ring.head.ndim, lanes):
      pass


def rows(
  saved: dict[str, Any], leaf: str, locate: Any
) -> Iterator[tuple[int, int, np.ndarray]]:
  """Yields the live rows of one leaf; within a lane, the oldest come first.

  Args:
    saved: what `write` returned.
    leaf: which one.
    locate: gives a segment's folder by its name.

  Yields:
    A lane, the number of its first slot, the rows (mapped from the file).

  Raises:
    OSError, ValueError: if a file is missing or isn't what was written.
  """
  for segment in saved['segments']:
    file = locate(segment['folder']) / f'{leaf}.npy'
    if checksum(file) != segment['checksums'][leaf]:
      raise ValueError(f'{file} is not what was saved')
    whole = np.load(file, mmap_mode='r', allow_pickle=False)
    offset = 0
    for lane, (start, stop) in enumerate(segment['lanes']):
      # Of an old segment, the first rows may have been overwritten since.
      first = min(max(saved['oldest'][lane], start), stop)
      yield lane, first, whole[offset + first - start : offset + stop - start]
      offset += stop - start


def put(
  slots: jax.Array, lane_axes: int, lane: int, start: int, new: np.ndarray
) -> jax.Array:
  """Returns one leaf with rows written from slot number `start` on, around.

  Args:
    slots: [(S, )N, C, ...], donated.
    lane_axes: how many of its axes are lanes: 2 with a seed axis, else 1.
    lane: counted over those axes.
    start: slot number.
    new: [at most C, ...].
  """
  where = np.unravel_index(lane, slots.shape[:lane_axes])
  for done in range(0, len(new), _CHUNK):
    count = len(new[done : done + _CHUNK])
    chunk = np.zeros((_CHUNK, *new.shape[1:]), new.dtype)
    chunk[:count] = new[done : done + _CHUNK]
    slots = _put(slots, where, start + done, chunk, count)
  return slots


def leaf_name(path: Any) -> str:
  """Returns what a leaf of `Slots` is called, given its key path."""
  return jax.tree_util.keystr(path, simple=True, separator='.')


def checksum(file: pathlib.Path) -> int:
  """Returns the CRC-32 of a file.

  Raises:
    OSError: if it can't be read.
  """
  value = 0
  with open(file, 'rb') as stream:
    while block := stream.read(1 << 24):
      value = zlib.crc32(block, value)
  return value


def _new_lanes(ring, segments):
  """Returns each lane's [start, stop) to write, and its oldest live slot."""
  heads = processes.fetch(ring.head).ravel()
  oldest = np.maximum(heads - (ring.slots.reward.shape[-1] - 1), 0)
  written = [stop for _, stop in segments[-1]['lanes']] if segments else oldest
  lanes = [
    [int(start), int(stop)]
    for start, stop in zip(np.maximum(written, oldest), heads, strict=True)
  ]
  return lanes, oldest


def _write_rows(file, slots, lane_axes, lanes):
  """Writes slots [start, stop) of each lane as one array, by chunks."""
  header = {
    'descr': np.lib.format.dtype_to_descr(slots.dtype),
    'fortran_order': False,
    'shape': (
      sum(stop - start for start, stop in lanes),
      *slots.shape[lane_axes + 1 :],
    ),
  }
  with open(file, 'wb') as stream:
    np.lib.format.write_array_header_1_0(stream, header)
    for chunk in _chunks(slots, lane_axes, lanes):
      stream.write(chunk.tobytes())
    stream.flush()
    os.fsync(stream.fileno())


def _chunks(slots, lane_axes, lanes):
  """Yields slots [start, stop) of each lane, a few rows at once."""
  for lane, (start, stop) in enumerate(lanes):
    where = np.unravel_index(lane, slots.shape[:lane_axes])
    for first in range(start, stop, _CHUNK):
      yield processes.fetch(_take(slots, where, first))[: stop - first]


# Copies of a few rows, though NumPy's view of the whole ring would be free on
# a CPU: while such a view lives, donating the ring copies it.
@jax.jit
def _take(slots, lane, start):
  """Returns _CHUNK rows of a lane from slot number `start` on, around."""
  place = (start + jnp.arange(_CHUNK)) % slots.shape[len(lane)]
  if host_rows.on_host(slots):
    return host_rows.take(slots, _index(lane, place))
  return slots[(*lane, place)]


@functools.partial(jax.jit, donate_argnums=0)
def _put(slots, lane, start, chunk, count):
  """Writes the first `count` rows of a chunk; the others fall outside."""
  capacity, index = slots.shape[len(lane)], jnp.arange(_CHUNK)
  place = jnp.where(index < count, (start + index) % capacity, capacity + index)
  if host_rows.on_host(slots):
    # The rows that would fall outside are the last one, again.
    index = jnp.minimum(index, count - 1)
    place = (start + index) % capacity
    return host_rows.put(slots, _index(lane, place), chunk[index])
  # With the lanes' axes flattened, XLA may copy the ring for each chunk.
  return slots.at[(*lane, place)].set(chunk, mode='drop', unique_indices=True)


def _index(lane, place):
  """Returns [K, number of axes]: one lane's number beside each place [K]."""
  lane = [jnp.full(place.shape, number, place.dtype) for number in lane]
  return jnp.stack([*lane, place], axis=-1)
