"""One step of gradient descent, and what is worth logging of it."""

from typing import Any

import jax
import optax


def take_step(
  optimizer: optax.GradientTransformation,
  gradients: optax.Updates,
  optimizer_state: optax.OptState,
  params: optax.Params,
) -> tuple[Any, optax.OptState, dict[str, jax.Array]]:
  """Returns new parameters, the optimizer's new state, and metrics.

  The metrics are the Euclidean norms of all gradients (`GradientNorm`, before
  the optimizer clips or scales them) and of the new parameters
  (`ParameterNorm`).
  """
  changes, optimizer_state = optimizer.update(
    gradients, optimizer_state, params
  )
  params = optax.apply_updates(params, changes)
  # Kept apart from the optimizer's squares of the same numbers, which XLA
  # would otherwise write to memory once more to share them.
  measured = jax.lax.optimization_barrier(gradients)
  metrics = {
    'GradientNorm': optax.tree.norm(measured),
    'ParameterNorm': optax.tree.norm(params),
  }
  return params, optimizer_state, metrics
