"""Rows of a ring as npy files: each save writes those that are new.

A ring only ever appends, so the folders of earlier saves and of this one hold,
between them, all that is live. One folder of rows is a segment:

    {'folder': its name,
     'lanes': [[start, stop], ...]   the slot numbers that it has of each lane,
     'checksums': {leaf: CRC-32},    of one file for each leaf of `Slots`
     'copied': True}                 older ones have no second copy

Since later saves need what earlier ones wrote, each file lies there twice, in
the folders of `PLACES`: FOLDER/PLACE/RING/LEAF.npy. Damage to either does no
harm; `segments.py` mends it.
"""

from collections.abc import Callable, Iterator
import contextlib
import functools
import io
import itertools
import math
import os
import pathlib
from typing import Any, BinaryIO
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from dopamine_jax import errors
from dopamine_jax.replay import host_rows
from dopamine_jax.replay import mapped_rows
from dopamine_jax.replay import ring as ring_lib
from dopamine_jax.system import plain_files
from dopamine_jax.system import processes

# Rows that leave or enter a ring at once. It bounds the memory that a save or
# a restore needs besides the ring, and gives XLA one shape to compile.
_CHUNK = 1024
PLACES = ('replay', 'copy')


def write(
  ring: ring_lib.Ring,
  folder: pathlib.Path,
  ring_name: str,
  name: str,
  segments: list[dict[str, Any]],
  *,
  keep_all: bool = False,
) -> dict[str, Any]:
  """Writes the live rows that `segments` lack, durably.

  Args:
    ring: with or without a seed axis; lanes are counted over both axes.
    folder: the new checkpoint's, in which the segment is made.
    ring_name: what the ring is called there.
    name: what the new segment calls its folder.
    segments: what was written before, oldest first.
    keep_all: whether segments without live rows stay, too.

  Returns:
    What `rows` needs: the lanes' `capacity`, their `oldest` live slots, and
    the `segments` that hold live rows, or all, the new one last.

  Raises:
    OSError: if the disk can't take it.
  """
  capacity = ring.slots.reward.shape[-1]
  lanes, oldest = _new_lanes(ring, segments)
  homes = [folder / place / ring_name for place in PLACES]
  for home in homes:
    home.mkdir(parents=True)
  checksums = {}
  for path, leaf in _leaves(ring.slots):
    files = [home / f'{leaf_name(path)}.npy' for home in homes]
    checksums[leaf_name(path)] = _write_rows(files, leaf, ring.head.ndim, lanes)
  for home in homes:
    plain_files.sync(home)
    plain_files.sync(home.parent)
  kept = [each for each in segments if keep_all or _has_rows(each, oldest)]
  newest = {
    'folder': name,
    'lanes': lanes,
    'checksums': checksums,
    'copied': True,
  }
  return {
    'capacity': capacity,
    'oldest': oldest.tolist(),
    'segments': [*kept, newest],
  }


def fetch(ring: ring_lib.Ring, segments: list[dict[str, Any]]):
  """Takes part in `write`, which another process does: see there."""
  lanes, _ = _new_lanes(ring, segments)
  for _, leaf in _leaves(ring.slots):
    for _ in _chunks(leaf, ring.head.ndim, lanes):
      pass


def rows(
  saved: dict[str, Any],
  ring_name: str,
  leaf: str,
  find: Callable[[list[str], int], BinaryIO],
  *,
  overwritten: bool = False,
) -> Iterator[tuple[int, int, np.ndarray]]:
  """Yields the live rows of one leaf; within a lane, the oldest come first.

  Args:
    saved: what `write` returned.
    ring_name: what the ring was called.
    leaf: which one.
    find: opens the first of some files that has this checksum.
    overwritten: whether to yield all rows that the files have.

  Yields:
    A lane, the number of its first slot, the rows (mapped from the file).

  Raises:
    OSError, ValueError: if a file is missing or isn't what was written.
  """
  oldest = [0] * len(saved['oldest']) if overwritten else saved['oldest']
  for segment in saved['segments']:
    if not _has_rows(segment, oldest):
      continue
    names = file_names(segment, ring_name, leaf)
    count = sum(stop - start for start, stop in segment['lanes'])
    with find(names, segment['checksums'][leaf]) as stream:
      try:
        whole = _mapped(stream, count)
      except ValueError as error:
        raise ValueError(f'{names[0]} {error}') from error
    offset = 0
    for lane, (start, stop) in enumerate(segment['lanes']):
      # Of an old segment, the first rows may have been overwritten since.
      first = min(max(oldest[lane], start), stop)
      yield lane, first, whole[offset + first - start : offset + stop - start]
      offset += stop - start


def restore(
  ring: ring_lib.Ring,
  ring_name: str,
  heads: np.ndarray,
  saved: dict[str, Any],
  find: Callable[[list[str], int], BinaryIO],
) -> ring_lib.Slots:
  """Returns the slots of a ring; dead ones are zeros.

  Args:
    ring: of ShapeDtypeStructs, or like those.
    ring_name: what it is called.
    heads: the numbers of its lanes' next slots, as they were saved.
    saved: what `write` returned.
    find: as in `rows`.

  Raises:
    OSError, ValueError: if a file is missing or isn't what was written.
    UserError: if it is of a ring of another shape.
  """
  capacity = ring.slots.reward.shape[-1]
  if saved['capacity'] != capacity:
    raise errors.UserError(
      f'{ring_name} was saved with {saved["capacity"]} slots a lane; this run '
      f'has {capacity}.'
    )
  names = {leaf_name(path) for path, _ in _leaves(ring.slots)}
  newest = saved['segments'][-1]
  if (
    newest['checksums'].keys() != names
    or [stop for _, stop in newest['lanes']] != heads.tolist()
    or saved['oldest'] != _oldest(heads, capacity).tolist()
  ):
    raise ValueError('it holds other rows than the state says')

  def fill(path, leaf):
    name = leaf_name(path)
    slots = mapped_rows.empty(leaf)
    row = leaf.shape[ring.head.ndim + 1 :]
    for lane, start, new in rows(saved, ring_name, name, find):
      if new.shape[1:] != row or new.dtype != leaf.dtype:
        raise errors.UserError(
          f'{ring_name}.{name} was saved with rows {new.shape[1:]} of '
          f'{new.dtype}; this run has {row} of {leaf.dtype}.'
        )
      slots = put(slots, ring.head.ndim, lane, start, new)
    return slots

  return jax.tree_util.tree_map_with_path(
    fill, ring.slots, is_leaf=mapped_rows.is_mapped
  )


def file_names(segment: dict[str, Any], ring_name: str, leaf: str) -> list[str]:
  """Returns the files of a segment's leaf, below all checkpoints' folder."""
  return [
    f'{segment["folder"]}/{place}/{ring_name}/{leaf}.npy'
    for place in PLACES[: 2 if segment.get('copied') else 1]
  ]


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
  """Returns what a leaf of a tree is called, given its key path.

  No two leaves have one name, which is one of a file, whatever keys an
  environment gives its observations: '.' separates, and so '.' and '/' within a
  key are written as URLs write them.
  """
  keys = [jax.tree_util.keystr((key,), simple=True) for key in path]
  return '.'.join(
    key.replace('%', '%25').replace('.', '%2E').replace('/', '%2F')
    for key in keys
  )


def _has_rows(segment, oldest):
  """Whether a segment holds rows from these slots [lanes] on."""
  return any(
    stop > first
    for (_, stop), first in zip(segment['lanes'], oldest, strict=True)
  )


def _new_lanes(ring, segments):
  """Returns each lane's [start, stop) to write, and its oldest live slot."""
  heads = processes.fetch(ring.head).ravel()
  oldest = _oldest(heads, ring.slots.reward.shape[-1])
  written = [stop for _, stop in segments[-1]['lanes']] if segments else oldest
  lanes = [
    [int(start), int(stop)]
    for start, stop in zip(np.maximum(written, oldest), heads, strict=True)
  ]
  return lanes, oldest


def _oldest(heads, capacity):
  return np.maximum(heads - (capacity - 1), 0)


def _leaves(slots):
  return jax.tree_util.tree_flatten_with_path(
    slots, is_leaf=mapped_rows.is_mapped
  )[0]


def _write_rows(files, slots, lane_axes, lanes):
  """Writes slots [start, stop) of each lane as one array, by chunks.

  Returns the CRC-32 of each of the files, which are equal.
  """
  header = io.BytesIO()
  np.lib.format.write_array_header_1_0(
    header,
    {
      'descr': np.lib.format.dtype_to_descr(slots.dtype),
      'fortran_order': False,
      'shape': (
        sum(stop - start for start, stop in lanes),
        *slots.shape[lane_axes + 1 :],
      ),
    },
  )
  value = 0
  with contextlib.ExitStack() as stack:
    streams = [stack.enter_context(open(file, 'xb')) for file in files]
    parts = (chunk.tobytes() for chunk in _chunks(slots, lane_axes, lanes))
    for part in itertools.chain([header.getvalue()], parts):
      value = zlib.crc32(part, value)
      for stream in streams:
        stream.write(part)
    for stream in streams:
      plain_files.sync_stream(stream)
  return value


def _mapped(stream, count):
  """Returns the array of an npy file that has so many rows, mapped from it.

  Nothing that its header says is believed before the file's length bears it
  out; an array of Python objects, which would be a pickle, never is.
  """
  try:
    if np.lib.format.read_magic(stream) != (1, 0):
      raise ValueError('version')
    shape, by_columns, dtype = np.lib.format.read_array_header_1_0(stream)
  except Exception as error:  # NumPy's parser raises what Python's does.
    raise ValueError(f'is no npy file, or a pickle: {error}') from error
  if dtype.hasobject:
    raise ValueError('holds objects, not numbers')
  offset = stream.tell()
  length = os.fstat(stream.fileno()).st_size
  if (
    by_columns
    or shape[:1] != (count,)
    or min(shape) < 0
    or length != offset + math.prod(shape) * dtype.itemsize
  ):
    raise ValueError(
      f'says that it holds {shape} of {dtype}, and has {length} bytes; '
      f'{count} rows should be in it'
    )
  if length == offset:
    return np.empty(shape, dtype)
  return np.memmap(stream, dtype, 'r', offset, shape)


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
  if host_rows.are_off_device(slots):
    return host_rows.take(slots, _index(lane, place))
  return slots[(*lane, place)]


@functools.partial(jax.jit, donate_argnums=0)
def _put(slots, lane, start, chunk, count):
  """Writes the first `count` rows of a chunk; the others fall outside."""
  capacity, index = slots.shape[len(lane)], jnp.arange(_CHUNK)
  place = jnp.where(index < count, (start + index) % capacity, capacity + index)
  if host_rows.are_off_device(slots):
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
