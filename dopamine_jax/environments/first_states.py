"""First states that take long to make: only where an episode has ended.

Under `vmap` a branch computes both its sides. So first states usually are made
at every step, in every lane, and mostly dropped. Where one takes as long as a
step, it is faster to make none unless an episode has ended in some lane; where
it takes as long as dozens, to make them in a loop, with a turn for each.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def where_ended(
  ended: jax.Array,
  key: jax.Array,
  now: Any,
  first: Callable[[jax.Array], Any],
  *,
  one_by_one: bool,
) -> Any:
  """Returns a lane as it begins anew if its episode has ended, else as it is.

  However many axes it is vmapped over, it looks at all lanes together.

  Args:
    ended: bool scalar.
    key: a PRNG key.
    now: a pytree, the lane as it is.
    first: makes one like it from a key.
    one_by_one: whether only those that ended are made, one after the other;
      else all lanes' at once, if any has ended.
  """
  renew = _one_by_one if one_by_one else _all_at_once

  @jax.custom_batching.custom_vmap
  def renewed(ended, keys, lanes):
    return renew(ended, keys, lanes, first)

  @renewed.def_vmap
  def renewed_together(size, has_axis, *args):
    def with_axis(x, has):
      return x if has else jnp.broadcast_to(x[None], (size, *x.shape))

    args = jax.tree.map(with_axis, args, tuple(has_axis))
    lanes = args[0].size  # not -1: an array may be empty
    merged = jax.tree.map(lambda x: x.reshape(lanes, *x.shape[2:]), args)
    found = renewed(*merged)
    shape = args[0].shape
    found = jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), found)
    return found, jax.tree.map(lambda _: True, found)

  one = jax.tree.map(lambda x: x[None], (ended, key, now))
  return jax.tree.map(lambda x: x[0], renewed(*one))


def _all_at_once(ended, keys, lanes, first):
  """Returns lanes [L, ...], those that `ended` [L] made anew by keys [L]."""

  def some(lanes):
    select = jax.vmap(
      lambda each, *pair: jax.tree.map(
        lambda x, y: jax.lax.select(each, x, y), *pair
      )
    )
    return select(ended, jax.vmap(first)(keys), lanes)

  return jax.lax.cond(jnp.any(ended), some, lambda lanes: lanes, lanes)


def _one_by_one(ended, keys, lanes, first):
  """Returns lanes [L, ...], those that `ended` [L] made anew by keys [L]."""

  def renew_next(carry):
    left, lanes = carry
    i = jnp.argmax(left)
    lanes = jax.tree.map(lambda x, y: x.at[i].set(y), lanes, first(keys[i]))
    return left.at[i].set(False), lanes

  _, lanes = jax.lax.while_loop(
    lambda carry: jnp.any(carry[0]), renew_next, (ended, lanes)
  )
  return lanes
