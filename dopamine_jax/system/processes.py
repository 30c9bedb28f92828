"""What one training does that runs in several processes (`jax.distributed`).

Each process, one a machine as a rule, runs the same command and has devices of
its own. All step the same environments with the same seeds, and so come to the
same numbers; arrays may have shares in all of them. Process 0 alone writes: the
run's folder, which all must see, and the screen.
"""

import os
from typing import Any

import jax
from jax.experimental import multihost_utils
import jax.numpy as jnp
import numpy as np

from dopamine_jax import errors


def join():
  """Joins the processes that the environment names, if it does.

  Call it before JAX is used for anything else. `JAX_COORDINATOR_ADDRESS` is
  host:port of process 0, which listens there; `JAX_NUM_PROCESSES` and
  `JAX_PROCESS_ID`, counted from 0, say how many there are and which this is.

  Raises:
    UserError: if only some of the three are set, or not to numbers.
  """
  names = ('JAX_COORDINATOR_ADDRESS', 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID')
  values = [os.environ.get(name) for name in names]
  if not any(values):
    return
  address, *numbers = values
  if not address or not all(n and n.isdecimal() for n in numbers):
    raise errors.UserError(
      'a training over several processes needs '
      + ', '.join(f'{n} (now {v})' for n, v in zip(names, values, strict=True))
      + ': host:port of process 0, how many there are, and which this is.'
    )
  count, number = map(int, numbers)
  # Whoever stops alone, by an error or a signal, doesn't wait for the others:
  # they can't go on. At the end of a training all have waited already.
  jax.distributed.initialize(
    address, count, number, shutdown_timeout_seconds=10
  )


def is_writer() -> bool:
  """Whether this process writes the run's folder and the screen."""
  return jax.process_index() == 0


def wait_for_all(moment: str):
  """Returns when all processes have come to this moment."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(moment)


def agree(answer: bool) -> bool:
  """Returns process 0's answer, in all processes; all must call this."""
  if jax.process_count() == 1:
    return answer
  return bool(multihost_utils.broadcast_one_to_all(np.asarray(answer)))


def fetch(array: jax.Array) -> np.ndarray:
  """Returns an array as NumPy's, copied; all processes must call this.

  A view of the device's memory would keep it from being donated.
  """
  if (
    jax.process_count() > 1
    and isinstance(array, jax.Array)
    and not array.is_fully_addressable
    and not array.is_fully_replicated
  ):
    array = multihost_utils.process_allgather(array, tiled=True)
  return np.array(array)


def local(tree: Any) -> Any:
  """Returns a tree of arrays that this process has to itself."""
  if jax.process_count() == 1:
    return tree

  return jax.tree.map(
    lambda leaf: put(
      fetch(plain(leaf)), jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    ),
    tree,
  )


def plain(array: jax.Array) -> jax.Array:
  """Returns an array that NumPy has a type for: of PRNG keys, their data."""
  return jax.random.key_data(array) if _is_key(array) else array


def put(array: np.ndarray, like: Any) -> jax.Array:
  """Returns what was fetched as an array like another, in its place.

  Args:
    array: for PRNG keys, their data.
    like: an array, or a ShapeDtypeStruct with a `sharding` or none.
  """
  sharding = getattr(like, 'sharding', None)
  if sharding is None:
    array = jnp.asarray(array)
  elif sharding.is_fully_addressable:
    array = jax.device_put(array, sharding)
  else:  # device_put would compare what all processes have.
    array = jax.make_array_from_callback(
      array.shape, sharding, lambda share: array[share]
    )
  return jax.random.wrap_key_data(array) if _is_key(like) else array


def zeros(template: Any) -> Any:
  """Returns zeros for each ShapeDtypeStruct of a template, in its place."""
  # NumPy's zeros take no memory until they are copied, and no program.
  return jax.tree.map(
    lambda leaf: put(np.zeros(leaf.shape, leaf.dtype), leaf), template
  )


def _is_key(array):
  return jnp.issubdtype(array.dtype, jax.dtypes.prng_key)
