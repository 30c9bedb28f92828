"""How a network is called: made, applied, and asked what it shows of itself.

A network is a Flax module over observations [B, *observation_shape]. It may
draw noise from the rng collection 'noise', and sow `activations` and `features`
into the collection 'intermediates', which cost nothing unless asked for.
"""

from collections.abc import Callable
from typing import Any

from flax import linen as nn
from flax import traverse_util
import jax
import jax.numpy as jnp

from dopamine_jax import agent as agent_lib


def init(module: nn.Module, key: jax.Array, observation: jax.Array) -> Any:
  """Returns a network's first parameters for observations [B, ...]."""
  keys = {'params': key, 'noise': jax.random.fold_in(key, 1)}
  return module.init(keys, observation)['params']


def apply(
  module: nn.Module,
  params: Any,
  observation: jax.Array,
  key: jax.Array,
  **options: Any,
) -> Any:
  """Returns a network's outputs [B, num_outputs]; `key` is of its noise."""
  return module.apply(
    {'params': params}, observation, rngs={'noise': key}, **options
  )


def show(
  module: nn.Module,
  values: Callable[[Any, jax.Array, jax.Array], jax.Array],
  params: Any,
  observation: jax.Array,
  key: jax.Array,
) -> agent_lib.Inspection:
  """Returns what a network predicts, and what it shows of itself.

  Args:
    module: the network; it sows `activations` and `features`.
    values: of params, observation and key; for `Inspection.values`.
    params: the network's.
    observation: [B, *observation_shape].
    key: of the network's noise.
  """
  _, state = apply(module, params, observation, key, mutable='intermediates')
  sown = traverse_util.flatten_dict(state.get('intermediates', {}))
  activations, features = {}, []
  for path, arrays in sorted(sown.items()):
    if path[-1] == 'activations':
      activations |= {f'{"/".join(path)}/{i}': x for i, x in enumerate(arrays)}
    elif path[-1] == 'features':
      features += arrays
  return agent_lib.Inspection(
    values=values(params, observation, key),
    activations=activations,
    features=jnp.concatenate(features, axis=-1) if features else None,
  )
