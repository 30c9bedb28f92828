"""Named arrays as files, by orbax."""

from collections.abc import Iterator
import contextlib
import pathlib

import jax
import numpy as np
import orbax.checkpoint as ocp


@contextlib.contextmanager
def writing(
  folder: pathlib.Path, arrays: dict[str, np.ndarray]
) -> Iterator[None]:
  """Writes arrays into a new folder, during and at the latest after the body.

  Raises:
    OSError, ValueError, RuntimeError: if the disk can't take it.
  """
  with _checkpointer() as saver:
    saver.save(folder, arrays)
    yield
    saver.wait_until_finished()


def read(folder: pathlib.Path) -> dict[str, np.ndarray]:
  """Returns all arrays of a folder, by name.

  Raises:
    OSError, ValueError: if they can't be read.
  """
  with _checkpointer() as saver:
    arrays = saver.restore(folder)
  return {name: np.asarray(array) for name, array in arrays.items()}


def _checkpointer():
  # Each process for itself: orbax would wait for all to do the same.
  me = jax.process_index()
  return ocp.StandardCheckpointer(
    multiprocessing_options=ocp.options.MultiprocessingOptions(
      primary_host=me, active_processes={me}
    )
  )
