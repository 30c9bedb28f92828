"""How agents that learn values explore."""

import jax
import jax.numpy as jnp


def epsilon_greedy(
  q: jax.Array, epsilon: float | jax.Array, key: jax.Array
) -> jax.Array:
  """Returns actions [N]: uniform with probability `epsilon`, else the best.

  Args:
    q: [N, A], the values of each action.
    epsilon: scalar in [0, 1].
    key: a PRNG key.
  """
  n, num_actions = q.shape
  # One draw for both: on CPUs each is as dear as a small layer.
  coin, choice = jax.random.uniform(key, (2, n))
  return jnp.where(
    coin < epsilon,
    (choice * num_actions).astype(jnp.int32),
    jnp.argmax(q, axis=-1),
  )
