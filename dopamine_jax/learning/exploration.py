"""How agents that learn values explore."""

import jax
import jax.numpy as jnp


def epsilon_greedy(
  q: jax.Array,
  epsilon: float | jax.Array,
  key: jax.Array,
  mask: jax.Array | None = None,
) -> jax.Array:
  """Returns actions [N]: uniform with probability `epsilon`, else the best.

  Args:
    q: [N, A], the values of each action.
    epsilon: scalar in [0, 1].
    key: a PRNG key.
    mask: [N, A], above 0 where an action is allowed; None: all are. The values
      of those that aren't are the lowest.
  """
  n, num_actions = q.shape
  # One draw for both: on CPUs each is as dear as a small layer.
  coin, choice = jax.random.uniform(key, (2, n))
  if mask is None:
    random = (choice * num_actions).astype(jnp.int32)
  else:
    random = pick(mask, choice)
  return jnp.where(coin < epsilon, random, jnp.argmax(q, axis=-1))


def pick(mask: jax.Array, choice: jax.Array) -> jax.Array:
  """Returns one of the allowed actions each, int32 [N].

  Args:
    mask: [N, A], above 0 where an action is allowed, at least one.
    choice: [N] in [0, 1); uniform if the actions are to be.
  """
  allowed = (mask > 0).astype(jnp.int32)
  count = jnp.cumsum(allowed, axis=-1)
  place = (choice * count[:, -1]).astype(jnp.int32)
  return jnp.argmax(count > place[:, None], axis=-1).astype(jnp.int32)
