"""ReDo: neurons that hardly act begin anew: Sokar et al. (2023).

The Dormant Neuron Phenomenon in Deep Reinforcement Learning.
https://arxiv.org/abs/2302.12902

Differs from the paper:
1. Neurons are recycled between iterations, not each so many gradient steps.
2. Adam's count goes on, as in the authors' code, so that a recycled weight's
   first hundred steps are three to six and a half times as long as those of a
   new network.
"""

from collections.abc import Sequence
import fnmatch
import itertools
from typing import Any, Literal

import jax
import jax.numpy as jnp

from dopamine_jax import errors
from dopamine_jax.callbacks import resets
from dopamine_jax.callbacks import wiring
from dopamine_jax.checkpoints import state_arrays
from dopamine_jax.metrics import health
from dopamine_jax.networks import variables


class Recycling(resets.Periodic):
  """Recycles neurons; subclasses say which.

  What leads to such a neuron, a normalization's scale and shift too, gets the
  values of a new network, what leads from it becomes zero, and so do the
  optimizer's moments of both. The target network follows as ever. Nothing
  happens before the replay has its `min_history`.

  It needs networks of layers in a row (MLPs, Nature's and MinAtar's, dueling
  heads, `ActorCritic`, SAC's); others are refused.

  Attributes:
    num_transitions: on which activations are measured, rounded up to whole
      samples.
    networks: patterns of their names, as `Agent.anatomy` has them; SAC's are
      'Actor' and 'Critics'.
  """

  num_transitions: int = 1_024
  networks: Sequence[str] = ('*',)

  def __post_init__(self):
    super().__post_init__()
    self.require_at_least(1, 'num_transitions')

  def recycled(
    self, means: jax.Array, weights: jax.Array, own: Any, key: jax.Array
  ) -> jax.Array:
    """Returns which neurons of a layer are recycled, bool [C].

    Args:
      means: [C], the means of their activations' magnitudes.
      weights: [C], the sums of the magnitudes of the weights that read them,
        over those of the weights that make them.
      own: the callback's state.
      key: a PRNG key for this layer alone.
    """
    raise NotImplementedError

  def after_iteration(self, seen, own):
    """Asks for it when it is due; see `Callback.after_iteration`."""
    decision = super().after_iteration(seen, own)
    return decision._replace(change=decision.change and seen.can_sample)

  def change(self, view, own, key):
    """Recycles one seed's neurons; see `Callback.change`."""
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
    for i, name in enumerate(names):
      layer_key = jax.random.fold_in(key, i)
      changes |= self._changes(view, name, fresh[name].params, own, layer_key)
    return _applied(view.state.agent, changes)

  def _changes(self, view, network, fresh, own, key):
    """Returns which of a network's numbers become what, by parameters' ids."""
    anatomy = view.anatomy[network]
    seen = view.look(self.num_transitions, network)
    params, fresh = (
      state_arrays.named(variables.learnt(tree))
      for tree in (anatomy.params, fresh)
    )
    masks = {name: (False, False) for name in params}  # new values, zeros
    layers = wiring.neurons_of(anatomy, view.inputs(network))
    for i, neurons in enumerate(layers):
      means = jnp.mean(seen.magnitudes[neurons.name], axis=0)
      weights = _weights(params, neurons, len(means))
      layer_key = jax.random.fold_in(key, i)
      dormant = self.recycled(means, weights, own, layer_key)
      for layer in neurons.incoming:
        for name, array in _parameters(params, layer):
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


class ReDo(Recycling):
  """Recycles dormant neurons (alg. 1), those that `health` counts.

  See `Recycling` for how.

  Attributes:
    threshold: the score up to which a neuron is dormant (the paper's tau).
  """

  threshold: float = 0.025

  def __post_init__(self):
    super().__post_init__()
    self.require_at_least(0, 'threshold')

  def recycled(self, means, weights, own, key):
    """Returns the dormant ones; see `Recycling.recycled`."""
    del weights, own, key
    return health.are_dormant(means, self.threshold)


class NeuronRecycler(Recycling):
  """Recycles a part of each layer, which falls to none.

  As the paper compares ReDo with (app. B.3); see `Recycling` for how. The part
  is rate * cos(pi / 2 * iteration / last_iteration), rounded down to whole
  neurons.

  Attributes:
    score: by which the lowest are chosen: 'activation', as of ReDo; its
      'inverse', so that the busiest are; 'contribution', the activation times
      the weights that read it over those that make it (Dohare et al., 2021,
      https://arxiv.org/abs/2108.06325; without their running means); or
      'random'.
    rate: the part of a layer's neurons at first.
  """

  score: Literal['activation', 'inverse', 'contribution', 'random'] = (
    'activation'
  )
  rate: float = 0.3

  def __post_init__(self):
    super().__post_init__()
    self.require_fraction('rate')
    if self.last_iteration is None:
      self.refuse(
        'last_iteration', 'must be set: there the part that is recycled is none'
      )
    if self.period == self.last_iteration:
      self.refuse(
        'last_iteration',
        'is where the part that is recycled is none, and the first change: '
        'nothing would be. Make the period shorter',
      )

  def init(self):
    """Returns the last iteration's number; see `Callback.init`."""
    return {'iteration': 0}

  def after_iteration(self, seen, own):
    """Asks for it when it is due; see `Callback.after_iteration`."""
    return super().after_iteration(seen, own | {'iteration': seen.iteration})

  def recycled(self, means, weights, own, key):
    """Returns the lowest ones; see `Recycling.recycled`."""
    scores = {
      'activation': means,
      'inverse': -means,
      'contribution': means * weights,
      'random': jax.random.uniform(key, means.shape),
    }[self.score]
    part = own['iteration'] / self.last_iteration
    count = len(means) * self.rate * jnp.cos(jnp.pi / 2 * part)
    # Each one's rank, of equal ones in their order; some room for rounding.
    rank = jnp.argsort(jnp.argsort(scores))
    return rank < jnp.floor(count + 1e-4)


def _weights(params, neurons, count):
  """Returns the weights that read neurons, over those that make them, [C]."""

  def kernels(layer):
    found = [x for name, x in _parameters(params, layer) if _is_kernel(name)]
    return [jnp.abs(x) for x in found]

  read = sum(
    jnp.sum(x.reshape(-1, count, x.shape[-1]), axis=(0, 2))
    for layer in neurons.outgoing
    for x in kernels(layer)
  )
  made = sum(
    jnp.sum(x.reshape(-1, count), axis=0) for x in kernels(neurons.incoming[0])
  )
  return read / jnp.maximum(made, 1e-9)


def _is_kernel(name):
  return name.rpartition('.')[2] == 'kernel'


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
  if len(changes) != sum(id(leaf) in changes for leaf in leaves.values()):
    raise errors.UserError(
      'redo changes the parameters that `anatomy` shows, and some are not in '
      "the agent's state as they are there. Mend `anatomy`."
    )
  names = [tuple(name.split('.')) for name in leaves]
  params = [name for name in names if not any('optimizer' in x for x in name)]

  def each(path, leaf):
    if id(leaf) in changes:
      mask, values = changes[id(leaf)]
      return jnp.where(mask, values, leaf).astype(leaf.dtype)
    name = state_arrays.path_name(path)
    for owner in _moments_of(tuple(name.split('.')), params):
      mask, _ = changes.get(id(leaves['.'.join(owner)]), (None, None))
      if mask is not None:
        return jnp.where(mask, 0, leaf).astype(leaf.dtype)
    return leaf

  return jax.tree_util.tree_map_with_path(each, agent)


def _moments_of(name, params):
  """Returns the parameters that an optimizer's array may be of.

  Both names begin alike, as of the same part of an agent's state. Then comes a
  field of their own each, and the optimizer's ends with what follows of the
  parameter's: `optimizer_state.0.mu.Dense_0.bias`, `params.Dense_0.bias`. Of
  those the ones that have the most in common.

  Args:
    name: of the array, by its parts.
    params: names of parameters, likewise.
  """
  if not any('optimizer' in part for part in name):
    return []
  fitting = []
  for owner in params:
    pairs = zip(name, owner, strict=False)
    alike = len(list(itertools.takewhile(lambda x: x[0] == x[1], pairs)))
    rest = owner[alike + 1 :]
    if rest and name[-len(rest) :] == rest:
      fitting.append((alike + len(rest), owner))
  most = max((count for count, _ in fitting), default=0)
  return [owner for count, owner in fitting if count == most]
