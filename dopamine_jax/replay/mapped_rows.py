"""Rows that lie in a file, mapped into memory, in place of an array.

A ring of ten million transitions of Atari takes 70 GB. In a file, the operating
system keeps in memory what was used last, and reads the rest from the disk.
Programs ask Python for rows. What that costs:
`python -m benchmarks.replay --disk FOLDER`.

What a run can go on from is in its checkpoints, as with any replay. The file is
no part of that: it has no name, and is gone when the training ends.

XLA may call Python once the arguments are there. A read takes what the last
write returned, and so comes after it. A write waits for no read: a program
must first write, then read, as engines do; those of the next program wait for
all of this one. To write the same rows once more would do no harm. JAX keeps no
program that calls Python, so that these are compiled at each start.
"""

from collections.abc import Sequence
import errno
import math
import mmap
import os
import tempfile
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np

from dopamine_jax import errors
from dopamine_jax.system import processes

# If so many rows are asked for, the disk is told of all before the first is
# read: it brings many at once.
_MANY = 8


class MappedFile:
  """A file of the rows of L lanes.

  Attributes:
    folder: where it lies.
    shape: (L, C, *row).
    dtype: of the rows.
  """

  def __init__(self, folder: str, shape: Sequence[int], dtype: Any):
    self.folder, self.shape = folder, tuple(shape)
    self.dtype = np.dtype(dtype)
    self._rows = self._map = None

  @property
  def nbytes(self) -> int:
    """Bytes of all rows."""
    return math.prod(self.shape) * self.dtype.itemsize

  def open(self):
    """Makes the file, all zeros; one that is there stays as it is.

    Raises:
      UserError: if the disk has no room for it, or the folder can't be used.
    """
    if self._rows is not None:
      return
    try:
      with tempfile.TemporaryFile(dir=self.folder) as file:
        if hasattr(os, 'posix_fallocate'):
          # A disk that is full later would end the process without a word.
          os.posix_fallocate(file.fileno(), 0, self.nbytes)
        rows = np.memmap(file, self.dtype, 'r+', shape=self.shape)
    except OSError as error:
      full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
      raise errors.UserError(
        f'devices.Devices.replay_folder = {self.folder!r}: a file of '
        f"{self.nbytes / 1e6:,.1f} MB for the replay's frames can not be made "
        f'there: {error.strerror or error}. Name another folder'
        + (", or lower the replay's capacity." if full else '.')
      ) from error
    self._rows, self._map = np.asarray(rows), rows._mmap
    if hasattr(mmap, 'MADV_RANDOM'):  # Nothing beside a row is needed with it.
      self._map.madvise(mmap.MADV_RANDOM)

  def close(self):
    """Lets go of the file, which is gone then."""
    self._rows = self._map = None

  def read(self, lane: Any, slot: Any) -> np.ndarray:
    """Returns rows [..., *row] of lanes and slots [...]; for programs."""
    if self._rows is None:
      raise ValueError('the file was closed: its training has ended')
    lane, slot = np.asarray(lane), np.asarray(slot)
    if lane.size >= _MANY and hasattr(mmap, 'MADV_WILLNEED'):
      self._ask_for(lane, slot)
    return self._rows[lane, slot]

  def write(self, lane: Any, slot: Any, rows: Any) -> np.ndarray:
    """Writes rows [..., *row]; returns 0, once that is done; for programs."""
    lane = np.asarray(lane)
    self._rows[lane, np.asarray(slot)] = np.asarray(rows)
    return np.zeros(lane.shape[:-1], np.int32)

  def _ask_for(self, lane, slot):
    """Has the system begin to read rows, and does not wait for them."""
    of_lane, size = self._rows.strides[:2]
    lane, slot = lane.astype(np.int64).ravel(), slot.astype(np.int64).ravel()
    begin = lane * of_lane + slot * size
    # Frames of a stack lie side by side, and are asked for at once.
    first = np.flatnonzero(np.diff(begin, prepend=-size - 1) != size)
    count = np.diff(first, append=len(begin))
    start = begin[first] // mmap.PAGESIZE * mmap.PAGESIZE
    length = begin[first] + count * size - start
    for each in zip(start.tolist(), length.tolist(), strict=True):
      self._map.madvise(mmap.MADV_WILLNEED, *each)


class MappedRows(struct.PyTreeNode):
  """What stands for an array [*lanes, C, *row] of rows that lie in a file.

  Attributes:
    lane: int32 [*lanes], where each lies in the file. Each write returns it,
      and each read takes it, which is how XLA knows that it comes later.
    file: MappedFile.
  """

  lane: jax.Array
  file: MappedFile = struct.field(pytree_node=False)

  @property
  def shape(self) -> tuple[int, ...]:
    """Of what it stands for; in one seed's program without a seed axis."""
    return *self.lane.shape, *self.file.shape[1:]

  @property
  def ndim(self) -> int:
    """The number of axes."""
    return len(self.shape)

  @property
  def dtype(self) -> np.dtype:
    """Of the rows."""
    return self.file.dtype

  def opened(self) -> 'MappedRows':
    """Returns this, once it is no template: the file is there.

    Raises:
      UserError: see `MappedFile.open`.
    """
    self.file.open()
    return self.replace(lane=jnp.asarray(self.lane))

  def take(self, index: jax.Array) -> jax.Array:
    """Returns rows [K, *row], given places [K, number of axes] int32."""
    lane, slot = self._place(index)
    shape = (len(index), *self.file.shape[2:])
    return jax.pure_callback(
      self.file.read,
      jax.ShapeDtypeStruct(shape, self.dtype),
      *(lane, slot),
      vmap_method='broadcast_all',
    )

  def put(self, index: jax.Array, rows: jax.Array) -> 'MappedRows':
    """Returns this with rows [K, *row] written at places [K, axes]."""
    lane, slot = self._place(index)
    nothing = jax.pure_callback(
      self.file.write,
      jax.ShapeDtypeStruct((), jnp.int32),
      *(lane, slot, rows.astype(self.dtype)),
      vmap_method='broadcast_all',
    )
    return self.replace(lane=self.lane + nothing)

  def _place(self, index):
    """Returns lanes, as they are numbered in the file, and slots [K]."""
    return self.lane[tuple(index[:, :-1].T)], index[:, -1]


def is_mapped(leaf: Any) -> bool:
  """Whether rows lie in a file; to stop at when a tree is walked."""
  return isinstance(leaf, MappedRows)


def empty(template: Any) -> Any:
  """Returns zeros for each leaf of a template, in its place.

  Args:
    template: of ShapeDtypeStructs, and of what stands for arrays in files.

  Raises:
    UserError: see `MappedFile.open`.
  """
  return jax.tree.map(
    lambda leaf: leaf.opened() if is_mapped(leaf) else processes.zeros(leaf),
    template,
    is_leaf=is_mapped,
  )


def mapped(array: jax.ShapeDtypeStruct, folder: str, axes: int) -> MappedRows:
  """Returns a template of what stands for an array.

  Args:
    array: [*lanes, C, *row].
    folder: where its file is to lie.
    axes: how many of its axes are lanes.
  """
  lanes, rest = array.shape[:axes], array.shape[axes:]
  count = math.prod(lanes)
  file = MappedFile(folder, (count, *rest), array.dtype)
  lane = np.arange(count, dtype=np.int32).reshape(lanes)
  return MappedRows(lane=lane, file=file)
