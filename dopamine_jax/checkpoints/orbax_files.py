"""Named arrays as orbax wrote them: the state in older versions' checkpoints.

They are packed by zstd, and a few bytes of that can unpack to any number. So a
process of its own reads them, which may take no more memory than the arrays
that it is asked for, and some to work with:

    python orbax_files.py FOLDER BYTES [NAME...]

It prints what the arrays are, as JSON, or with names the bytes of those.
"""

import json
import math
import pathlib
import subprocess
import sys
from typing import Any

import numpy as np
import psutil

_TO_WORK_WITH = 4 << 30  # bytes of address space, most of which is never used
_UNPACKED = 1 << 15  # bytes that zstd makes of one, at the most


def describe(folder: pathlib.Path) -> dict[str, Any]:
  """Returns what the arrays of a folder are, as `array_files.shapes` takes it.

  Raises:
    OSError, ValueError: if that can't be known.
  """
  return json.loads(_run(folder, 0))


def read(folder: pathlib.Path, arrays: dict[str, Any]) -> dict[str, np.ndarray]:
  """Returns some arrays of a folder.

  Args:
    folder: where they lie.
    arrays: what they are, by name: anything that has a shape and a dtype.

  Raises:
    OSError, ValueError: if they can't be read, or take more memory than that.
  """
  sizes = [
    math.prod(array.shape) * array.dtype.itemsize for array in arrays.values()
  ]
  packed = sum(
    path.lstat().st_size for path in folder.rglob('*') if path.is_file()
  )
  if sum(sizes) > packed * _UNPACKED:
    raise ValueError(
      f'its arrays would take {sum(sizes)} bytes, and their files have {packed}'
    )
  if (free := psutil.virtual_memory().available) < 3 * sum(sizes):
    raise ValueError(
      f'its arrays take {sum(sizes) / 1e9:.1f} GB, three times as much while '
      f'they are read, and {free / 1e9:.1f} GB are free'
    )
  data = _run(folder, sum(sizes), *arrays)
  if len(data) != sum(sizes):
    raise ValueError('its arrays have other sizes than they say')
  result, done = {}, 0
  for (name, array), size in zip(arrays.items(), sizes, strict=True):
    flat = np.frombuffer(data, np.uint8, size, done)
    result[name] = flat.view(array.dtype).reshape(array.shape)
    done += size
  return result


def _run(folder, size, *names):
  # -P: nothing is imported from where the user happens to be.
  command = [sys.executable, '-P', __file__]
  try:
    done = subprocess.run(
      [*command, str(folder), str(size), *names],
      stdin=subprocess.DEVNULL,
      capture_output=True,
      timeout=120 + size / 1e7,
    )
  except subprocess.TimeoutExpired as error:
    raise ValueError('it takes too long to read') from error
  if done.returncode:
    lines = done.stderr.decode(errors='replace').splitlines() or ['killed']
    raise ValueError(f'it can not be unpacked: {lines[-1][:300]}')
  return done.stdout


def _main(folder, size, *names):
  """What the other process does."""
  import resource

  limit = _TO_WORK_WITH + 3 * int(size)
  resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
  resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
  import tensorstore

  store = {'driver': 'ocdbt', 'base': f'file://{folder}/'}

  def open_array(name):
    spec = {'driver': 'zarr', 'kvstore': {**store, 'path': f'{name}/'}}
    return tensorstore.open(spec, open=True, read=True).result()

  if names:
    for name in names:
      array = np.ascontiguousarray(open_array(name).read().result())
      sys.stdout.buffer.write(array.reshape(-1).view(np.uint8))
    return
  keys = tensorstore.KvStore.open(store).result().list().result()
  arrays = {}
  for key in keys:
    name, _, file = key.decode().rpartition('/')
    if file == '.zarray':
      array = open_array(name)
      arrays[name] = {
        'dtype': array.dtype.numpy_dtype.name,
        'shape': list(array.shape),
      }
  print(json.dumps(arrays))


if __name__ == '__main__':
  _main(*sys.argv[1:])
