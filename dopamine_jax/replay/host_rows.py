"""Rows of an array that lies in the host's memory, or in a file.

An array in the host's memory is touched only by slices of one row, each moved
from or to the device by a copy: that is what XLA does in place there. Its
gathers and scatters would compute on the host, on a copy of the whole. Rows in
a file are read and written by `mapped_rows`.
"""

import jax
from jax import lax
import jax.numpy as jnp

from dopamine_jax.replay import mapped_rows


def are_off_device(slots: jax.Array | mapped_rows.MappedRows) -> bool:
  """Whether an array, or what stands for it in a trace, is not the device's."""
  return mapped_rows.is_mapped(slots) or _on_host(slots)


def take(
  slots: jax.Array | mapped_rows.MappedRows, index: jax.Array
) -> jax.Array:
  """Returns rows [K, ...], on the device.

  Args:
    slots: [*axes, ...], elsewhere.
    index: [K, number of axes] int32, a place in `axes` each.
  """
  if mapped_rows.is_mapped(slots):
    return slots.take(index)
  return _take(slots, index)


def put(
  slots: jax.Array | mapped_rows.MappedRows, index: jax.Array, rows: jax.Array
) -> jax.Array | mapped_rows.MappedRows:
  """Returns `slots` with `rows` written, one after the other.

  Args:
    slots: [*axes, ...], elsewhere.
    index: [K, number of axes] int32.
    rows: [K, ...], on the device.
  """
  if mapped_rows.is_mapped(slots):
    return slots.put(index, rows)
  return _put(slots, index, rows)


def _on_host(array):
  return jax.typeof(array).memory_space == jax.memory.Space.Host


@jax.custom_batching.custom_vmap
def _take(slots, index):
  def one(place):
    row = lax.dynamic_slice(slots, *_place(slots, place))
    return jax.device_put(row, jax.memory.Space.Device).reshape(
      slots.shape[len(place) :]
    )

  return lax.map(one, index)


@_take.def_vmap
def _take_each(num_seeds, batched, slots, index):
  del batched
  rows = _take(slots, _with_seeds(num_seeds, index))
  return rows.reshape(num_seeds, -1, *rows.shape[1:]), True


@jax.custom_batching.custom_vmap
def _put(slots, index, rows):
  def one(i, slots):
    start, shape = _place(slots, index[i])
    row = jax.device_put(rows[i].reshape(shape), jax.memory.Space.Host)
    return lax.dynamic_update_slice(slots, row, start)

  return lax.fori_loop(0, len(index), one, slots)


@_put.def_vmap
def _put_each(num_seeds, batched, slots, index, rows):
  del batched
  rows = rows.reshape(-1, *rows.shape[2:])
  return _put(slots, _with_seeds(num_seeds, index), rows), True


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
