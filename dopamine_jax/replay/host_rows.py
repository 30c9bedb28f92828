"""Rows of an array that lies in the host's memory, not the device's.

Such an array is touched only by slices of one row, each moved from or to the
device by a copy: that is what XLA does in place there. Its gathers and scatters
would compute on the host, on a copy of the whole.
"""

import jax
from jax import lax
import jax.numpy as jnp


def on_host(array: jax.Array) -> bool:
  """Whether an array, or what stands for it in a trace, lies in the host's."""
  return jax.typeof(array).memory_space == jax.memory.Space.Host


@jax.custom_batching.custom_vmap
def take(slots: jax.Array, index: jax.Array) -> jax.Array:
  """Returns rows [K, ...], on the device.

  Args:
    slots: [*axes, ...], on the host.
    index: [K, number of axes] int32, a place in `axes` each.
  """

  def one(place):
    row = lax.dynamic_slice(slots, *_place(slots, place))
    return jax.device_put(row, jax.memory.Space.Device).reshape(
      slots.shape[len(place) :]
    )

  return lax.map(one, index)


@take.def_vmap
def _take_each(num_seeds, batched, slots, index):
  del batched
  rows = take(slots, _with_seeds(num_seeds, index))
  return rows.reshape(num_seeds, -1, *rows.shape[1:]), True


@jax.custom_batching.custom_vmap
def put(slots: jax.Array, index: jax.Array, rows: jax.Array) -> jax.Array:
  """Returns `slots` with `rows` written, one after the other.

  Args:
    slots: [*axes, ...], on the host.
    index: [K, number of axes] int32.
    rows: [K, ...], on the device.
  """

  def one(i, slots):
    start, shape = _place(slots, index[i])
    row = jax.device_put(rows[i].reshape(shape), jax.memory.Space.Host)
    return lax.dynamic_update_slice(slots, row, start)

  return lax.fori_loop(0, len(index), one, slots)


@put.def_vmap
def _put_each(num_seeds, batched, slots, index, rows):
  del batched
  rows = rows.reshape(-1, *rows.shape[2:])
  return put(slots, _with_seeds(num_seeds, index), rows), True


def _with_seeds(num_seeds, index):
  """Returns places [S, K, axes] as [S * K, axes + 1]."""
  seed = jnp.broadcast_to(
    jnp.arange(num_seeds, dtype=index.dtype)[:, None, None],
    (*index.shape[:2], 1),
  )
  places = jnp.concatenate([seed, index], axis=-1)
  return places.reshape(-1, places.shape[-1])


def _place(slots, place):
  """Returns where the row at `place` starts, and its shape as a slice."""
  row = slots.shape[len(place) :]
  start = [*place, *[jnp.zeros((), place.dtype)] * len(row)]
  return start, (*[1] * len(place), *row)
