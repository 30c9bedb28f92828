"""ReDo: neurons that hardly act begin anew: Sokar et al. (2023).

The Dormant Neuron Phenomenon in Deep Reinforcement Learning.
https://arxiv.org/abs/2302.12902

Differs from the paper:
1. Neurons are recycled between iterations, not each so many gradient steps.
2. Adam's count goes on, so that a recycled weight's first steps are up to three
   times as long as those of a new network.
"""

from collections.abc import Sequence
import fnmatch
from typing import Any

import jax
import jax.numpy as jnp

from dopamine_jax import errors
from dopamine_jax.callbacks import resets
from dopamine_jax.callbacks import wiring
from dopamine_jax.checkpoints import state_arrays
from dopamine_jax.networks import variables


class ReDo(resets.Periodic):
  """Recycles dormant neurons (alg. 1), those that `health` counts.

  What leads to such a neuron gets the values of a new network, what leads from
  it becomes zero, and so do the optimizer's moments of both. The target network
  follows as ever. Nothing happens before the replay has its `min_history`.

  It needs networks of layers in a row (MLPs, Nature's and MinAtar's, dueling
  heads, `ActorCritic`, SAC's); others are refused.

  Attributes:
    threshold: the score up to which a neuron is dormant (the paper's tau).
    num_transitions: on which scores are measured, rounded up to whole samples.
    networks: patterns of their names, as `Agent.anatomy` has them; SAC's are
      'Actor' and 'Critics'.
  """

  threshold: float = 0.025
  num_transitions: int = 1_024
  networks: Sequence[str] = ('*',)

  def __post_init__(self):
    super().__post_init__()
    self.require_at_least(0, 'threshold')
    self.require_at_least(1, 'num_transitions')

  def after_iteration(self, seen, own):
    """Asks for it when it is due; see `Callback.after_iteration`."""
    decision = super().after_iteration(seen, own)
    return decision._replace(change=decision.change and seen.can_sample)

  def change(self, view, own, key):
    """Recycles one seed's neurons; see `Callback.change`."""
    del own
    new = view.loop.agent.init(key, view.state.experience.observation)
    fresh = view.loop.agent.anatomy(new)
    names = [
      name
      for name in view.anatomy
      if any(fnmatch.fnmatchcase(name, pattern) for pattern in self.networks)
    ]
    if not names:
      self.refuse(
        'networks', f'fit none of the networks {sorted(view.anatomy)}'
      )
    changes = {}  # of a parameter's id: its mask, and what it becomes there
    for name in names:
      changes |= self._changes(view, name, fresh[name].params)
    return _applied(view.state.agent, changes)

  def _changes(self, view, network, fresh):
    """Returns which of a network's numbers become what, by parameters' ids."""
    anatomy = view.anatomy[network]
    seen = view.look(self.num_transitions, network)
    params, fresh = (
      state_arrays.named(variables.learnt(tree))
      for tree in (anatomy.params, fresh)
    )
    masks = {name: (False, False) for name in params}  # new values, zeros
    for neurons in wiring.neurons_of(anatomy, view.inputs(network)):
      means = jnp.mean(seen.magnitudes[neurons.name], axis=0)
      dormant = means <= self.threshold * jnp.mean(means)
      for name, array in _parameters(params, neurons.incoming):
        is_new = jnp.broadcast_to(dormant, array.shape)
        masks[name] = masks[name][0] | is_new, masks[name][1]
      for layer in neurons.outgoing:
        for name, array in _parameters(params, layer):
          if array.ndim > 1:
            rows = array.reshape(-1, len(dormant), array.shape[-1])
            is_zero = jnp.broadcast_to(dormant[None, :, None], rows.shape)
            is_zero = is_zero.reshape(array.shape)
            masks[name] = masks[name][0], masks[name][1] | is_zero
    return {
      id(params[name]): (is_new | is_zero, jnp.where(is_zero, 0, fresh[name]))
      for name, (is_new, is_zero) in masks.items()
    }


def _parameters(params, layer) -> list[tuple[str, jax.Array]]:
  """Returns a layer's parameters by name."""
  prefix = '.'.join([*layer, ''])
  return [
    (name, array)
    for name, array in params.items()
    if name.startswith(prefix) and '.' not in name[len(prefix) :]
  ]


def _applied(agent: Any, changes: dict[int, tuple[Any, jax.Array]]) -> Any:
  """Returns an agent's state with changed parameters, their moments zero."""
  leaves = state_arrays.named(variables.learnt(agent))
  # As the optimizer's state calls them: without the name of their own field.
  changed = {
    name.partition('.')[2]: changes[id(leaf)]
    for name, leaf in leaves.items()
    if id(leaf) in changes
  }
  if len(changed) != len(changes):
    raise errors.UserError(
      'redo.ReDo changes the parameters that `anatomy` shows, and some are not '
      "in the agent's state as they are there. Mend `anatomy`."
    )

  def each(path, leaf):
    if id(leaf) in changes:
      mask, values = changes[id(leaf)]
      return jnp.where(mask, values, leaf).astype(leaf.dtype)
    name = state_arrays.path_name(path)
    fitting = [x for x in changed if name.endswith(f'.{x}')]
    if 'optimizer' in name and fitting:
      mask, _ = changed[max(fitting, key=len)]
      return jnp.where(mask, 0, leaf).astype(leaf.dtype)
    return leaf

  return jax.tree_util.tree_map_with_path(each, agent)
