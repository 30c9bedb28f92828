"""A checkpoint's arrays on disk, as this version or an older one wrote them."""

from collections.abc import Iterable
import os
import pathlib
from typing import Any

import jax
import numpy as np

from dopamine_jax.checkpoints import array_files
from dopamine_jax.checkpoints import orbax_files
from dopamine_jax.system import plain_files


class StateFiles:
  """The arrays of one checkpoint, its files verified.

  Attributes:
    shapes: what they are, by name.
  """

  shapes: dict[str, jax.ShapeDtypeStruct]

  def __init__(self, root: pathlib.Path, name: str, manifest: dict[str, Any]):
    """Verifies the files.

    Args:
      root: the folder of all checkpoints.
      name: the checkpoint's own.
      manifest: its contents.

    Raises:
      OSError, ValueError: if the files aren't what was saved.
    """
    self._root = root
    self._name = name
    self._is_old = 'arrays' not in manifest
    for file, expected in manifest['files'].items():
      with plain_files.open_to_read(root, f'{name}/{file}') as stream:
        if plain_files.checksum(stream) != expected:
          raise ValueError(f'{file} is not what was saved')
    if self._is_old:
      _require_alone(root / name, 'state', manifest['files'])
      described = orbax_files.describe(root / name / 'state')
      self.shapes = array_files.shapes(described)
    else:
      self.shapes = array_files.shapes(manifest['arrays'])
      self.read(())  # The file's length has to bear them out.

  def read(self, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Returns some of the arrays, by name.

    Raises:
      OSError, ValueError: if they can't be read.
    """
    if self._is_old:
      wanted = {name: self.shapes[name] for name in names}
      return orbax_files.read(self._root / self._name / 'state', wanted)
    with plain_files.open_to_read(
      self._root, f'{self._name}/state.bin'
    ) as stream:
      return array_files.read(stream, self.shapes, names)


def _require_alone(folder, name, expected):
  """Refuses a folder that has more below `name` than some regular files."""
  waiting = [name]
  while waiting:
    below = waiting.pop()
    for entry in sorted(os.listdir(folder / below)):
      found = plain_files.kind(folder / below / entry)
      if found == 'a folder':
        waiting.append(f'{below}/{entry}')
      elif found != 'a file' or f'{below}/{entry}' not in expected:
        raise ValueError(f'{below}/{entry}, {found}, is not of it')
