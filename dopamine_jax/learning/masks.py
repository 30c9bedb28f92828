"""What agents make of masks, which say which actions are allowed.

An observation of `spaces.Masked` has one; of any other space there is none, and
everything here leaves its input as it is.
"""

from typing import Any

import gymnasium
import jax
import jax.numpy as jnp

from dopamine_jax import spaces

# Far below any value or logit; yet sums and multiples of it are finite, so that
# a discount of 0 makes it 0.
_LOWEST = -1e30


def only_allowed(
  space: gymnasium.Space, values: jax.Array, observation: Any
) -> jax.Array:
  """Returns values or logits by which no action is chosen that isn't allowed.

  Args:
    space: of observations.
    values: [B, A] or [T, B, A], or several of each action [B, K, A].
    observation: [B, *observation_shape], or [T, B, *observation_shape].
  """
  mask = spaces.mask_of(space, observation)
  if mask is None:
    return values
  mask = mask[:, None] if mask.ndim < values.ndim else mask
  return jnp.where(mask > 0, values, _LOWEST)


def shown(
  space: gymnasium.Space, values: jax.Array, observation: Any
) -> jax.Array:
  """Returns values [B, A] for films.

  An action that is not allowed gets the lowest value of those that are.
  """
  mask = spaces.mask_of(space, observation)
  if mask is None:
    return values
  allowed = (mask > 0) | ~(mask > 0).any(axis=-1, keepdims=True)
  lowest = jnp.min(values, axis=-1, keepdims=True, where=allowed, initial=1e30)
  return jnp.where(allowed, values, lowest)
