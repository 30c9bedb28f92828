"""Named arrays as one file: their bytes, one array after another.

What they are is said elsewhere, in a checkpoint's manifest:

    {name: {'dtype': 'float32', 'shape': [2, 3]}}   in the order of the file

Nothing in the file itself has to be believed, unpacked or parsed, so that a
damaged or foreign one can take no more memory than it has bytes.
"""

from collections.abc import Iterable
import itertools
import math
import os
import pathlib
from typing import Any, BinaryIO
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from dopamine_jax.system import plain_files

_DTYPES = {
  np.dtype(scalar).name: np.dtype(scalar)
  for scalar in (
    *(np.bool_, np.int8, np.int16, np.int32, np.int64),
    *(np.uint8, np.uint16, np.uint32, np.uint64),
    *(np.float16, np.float32, np.float64, np.complex64, np.complex128),
    *(jnp.bfloat16, jnp.float8_e4m3fn, jnp.float8_e5m2, jnp.int4, jnp.uint4),
  )
}


def write(
  file: pathlib.Path, arrays: dict[str, np.ndarray]
) -> tuple[dict[str, Any], int]:
  """Writes arrays into a new file, durably.

  Returns:
    What they are, and the file's CRC-32.

  Raises:
    OSError: if the disk can't take it.
    ValueError: if an array is of a type that `read` does not know.
  """
  for name, array in arrays.items():
    if array.dtype.name not in _DTYPES:
      raise ValueError(f'{name} is of the unknown type {array.dtype.name!r}')
  value = 0
  with open(file, 'xb') as stream:
    for array in arrays.values():
      # As bytes, since bfloat16 has no buffer of its own.
      data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
      stream.write(data)
      value = zlib.crc32(data, value)
    plain_files.sync_stream(stream)
  described = {
    name: {'dtype': array.dtype.name, 'shape': list(array.shape)}
    for name, array in arrays.items()
  }
  return described, value


def shapes(described: dict[str, Any]) -> dict[str, jax.ShapeDtypeStruct]:
  """Returns what the arrays are.

  Raises:
    ValueError: if no array can be that.
  """
  for name, array in described.items():
    if array['dtype'] not in _DTYPES:
      raise ValueError(f'{name} is of the unknown type {array["dtype"]!r}')
  return {
    name: jax.ShapeDtypeStruct(tuple(array['shape']), _DTYPES[array['dtype']])
    for name, array in described.items()
  }


def read(
  stream: BinaryIO,
  expected: dict[str, jax.ShapeDtypeStruct],
  names: Iterable[str],
) -> dict[str, np.ndarray]:
  """Returns some of a file's arrays, mapped from it.

  Args:
    stream: the file.
    expected: what `shapes` says of all its arrays, in their order.
    names: which ones.

  Raises:
    OSError, ValueError: if the file is of another length than they are.
  """
  sizes = {name: size(array) for name, array in expected.items()}
  length = os.fstat(stream.fileno()).st_size
  if length != sum(sizes.values()):
    raise ValueError(
      f'has {length} bytes, and its arrays would take {sum(sizes.values())}'
    )
  if not length:
    return {}
  whole = np.memmap(stream, np.uint8, 'r')
  ends = dict(zip(sizes, itertools.accumulate(sizes.values()), strict=True))
  return {
    name: whole[ends[name] - sizes[name] : ends[name]]
    .view(expected[name].dtype)
    .reshape(expected[name].shape)
    for name in names
  }


def size(array: Any) -> int:
  """Returns an array's bytes, in Python's numbers, which never overflow."""
  return math.prod(array.shape) * np.dtype(array.dtype).itemsize
