"""Numbers as probabilities of bins, by which classification learns them."""

import jax
import jax.numpy as jnp
import rlax


def two_hot(x: jax.Array, bins: jax.Array) -> jax.Array:
  """Returns probabilities [B, M] of the two bins beside each of x [B].

  Their mean is x, which is clipped to the bins [M], in rising order.
  """
  return jax.vmap(rlax.categorical_l2_project, (0, 0, None))(
    x[:, None], jnp.ones_like(x)[:, None], bins
  )
