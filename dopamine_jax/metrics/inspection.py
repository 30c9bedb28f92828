"""What a training's networks do with its experience: what `health` measures."""

import functools
import math
from typing import Any

from flax import struct
from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from dopamine_jax import agent as agent_lib
from dopamine_jax import errors
from dopamine_jax.engines import loop as loop_lib
from dopamine_jax.learning import returns
from dopamine_jax.networks import variables
from dopamine_jax.replay import rollout

# Evaluations fold their iteration into the same key; none has this number.
_NO_ITERATION = np.uint32(2**32 - 1)


class Seen(struct.PyTreeNode):
  """What a network does with a batch of transitions.

  Attributes:
    values: [B, ...], what it predicts: of DQN Q-values [B, A].
    magnitudes: [B, units] by layer, the means of |activation| over all axes
      between, such as an image's; empty if the network shows no activations.
    features: [B, F], what its last layer reads, or its last layers, side by
      side; None if it doesn't show them.
  """

  values: Any
  magnitudes: dict[str, jax.Array]
  features: jax.Array | None


class View:
  """One seed's training, as a metric sees it; what none looks at costs nothing.

  Attributes:
    loop: the settings of agent and replay.
    state: the training state.
    anatomy: the networks by name, see `Agent.anatomy`; may raise UserError.
  """

  def __init__(self, loop: loop_lib.Loop, state: loop_lib.TrainingState):
    self.loop = loop.at(state.experience.agent_steps)
    self.state = state
    self._key = jax.random.fold_in(
      jax.random.fold_in(state.experience.keys.evaluate, _NO_ITERATION),
      state.experience.agent_steps,
    )
    self._seen = {}

  @functools.cached_property
  def anatomy(self) -> dict[str, agent_lib.Anatomy]:
    """See above."""
    agent = self.loop.agent
    found = agent.anatomy(self.state.agent)
    if not isinstance(found, dict) or not all(
      isinstance(each, agent_lib.Anatomy) for each in found.values()
    ):
      raise errors.UserError(
        f'{type(agent).__name__}.anatomy must return an agent.Anatomy by name, '
        f'a dict, and it gave {type(found).__name__}. Mend the agent.'
      )
    return found

  def look(
    self, num_transitions: int, network: str = '', *, target: bool = False
  ) -> Seen:
    """Returns what a network does with transitions from the replay.

    Samples go through it one after the other, so that this takes no more memory
    than an update.

    Args:
      num_transitions: how many, rounded up to whole samples of the replay; of a
        rollout at most all.
      network: its name.
      target: whether to look at its target network.
    """
    call = num_transitions, network, target
    if call not in self._seen:
      self._seen[call] = self._look(*call)
    return self._seen[call]

  def inputs(self, network: str = '') -> tuple[jax.Array, ...]:
    """Returns what a network is given of one sample, arrays [B, ...]."""
    seen = self._sample(self._key)
    if _in_any_order(seen):
      seen = jax.tree.map(returns.flat, seen)
    return self.anatomy[network].inputs(seen)

  def _look(self, num_transitions, network, target):
    anatomy = self.anatomy[network]
    params = anatomy.target_params if target else anatomy.params

    def each(i):
      key = jax.random.fold_in(self._key, i)
      seen = self._sample(key)
      if _in_any_order(seen):
        seen = some_of(seen, num_transitions, key)
      return see(anatomy, params, anatomy.inputs(seen), key)

    one = jax.eval_shape(self._sample, self._key)
    num_samples = math.ceil(num_transitions / one.reward.size)
    if isinstance(self.loop.replay, rollout.Rollout):
      num_samples = 1  # Another one would be the same rollout.
    return jax.tree.map(
      returns.flat, jax.lax.map(each, jnp.arange(num_samples))
    )

  def _sample(self, key):
    """Returns the transitions [B] of one sample, or a rollout [T, N]."""
    replay = self.state.experience.replay
    count = self.loop.schedule_count(self.state)
    sample = self.loop.replay.sample(replay, key, count)
    return self.loop.split_batch(sample).transition


def _in_any_order(transitions):
  """Whether they are a rollout whose rows a network may see by themselves."""
  return isinstance(transitions, agent_lib.Trajectory) and not isinstance(
    transitions, agent_lib.Sequence
  )


def some_of(
  trajectory: agent_lib.Trajectory, num_transitions: int, key: jax.Array
) -> agent_lib.Transition:
  """Returns transitions [B] of a rollout [T, N], none twice.

  Args:
    trajectory: the rollout.
    num_transitions: B, or more than there are, which gives all.
    key: a PRNG key, for which and in what order.
  """
  order = jax.random.permutation(key, trajectory.reward.size)
  chosen = order[:num_transitions]
  return jax.tree.map(lambda rows: returns.flat(rows)[chosen], trajectory)


def see(
  anatomy: agent_lib.Anatomy,
  params: Any,
  inputs: tuple,
  key: jax.Array,
) -> Seen:
  """Returns what a network with these parameters does with its inputs.

  Args:
    anatomy: the network.
    params: its own, or its target network's.
    inputs: arrays [B, ...], see `Anatomy.inputs`.
    key: a PRNG key, for noise.
  """
  values, state = variables.apply(
    anatomy.module, params, *inputs, key=key, mutable='intermediates'
  )
  sown = traverse_util.flatten_dict(state.get('intermediates', {}))
  magnitudes, features = {}, []
  for path, arrays in sorted(sown.items()):
    if path[-1] == 'activations':
      for i, array in enumerate(arrays):
        between = tuple(range(1, array.ndim - 1))
        name = '/'.join([*path, str(i)])
        magnitudes[name] = jnp.mean(jnp.abs(array), axis=between)
    elif path[-1] == 'features':
      features += [array.reshape(-1, array.shape[-1]) for array in arrays]
  if anatomy.values is not None:
    values = anatomy.values(params, *inputs, key)
  return Seen(
    values=values,
    magnitudes=magnitudes,
    features=jnp.concatenate(features, axis=-1) if features else None,
  )
