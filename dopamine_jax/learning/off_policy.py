"""What agents share that learn from a replay, whoever acted then."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dopamine_jax import agent as agent_lib
from dopamine_jax.learning import (
  augmentation as augmentation_lib,  # also a field
)
from dopamine_jax.learning import outputs
from dopamine_jax.replay import base
from dopamine_jax.replay import following
from dopamine_jax.replay import uniform

# Which no pass of a network folds into its key.
_AUGMENT, _AHEAD = 1_000, 1_001


class OffPolicy(agent_lib.Agent):
  """Learns from samples of a replay; subclasses say what.

  Attributes:
    replay: makes the replay from `n_step`, `gamma` and `stack`. Until it holds
      its `min_history`, all actions are uniform.
    gamma: discount of one agent step, a number or an optax schedule over
      updates.
    n_step: rewards summed before bootstrapping. Fewer from update to update:
      `uniform.UniformReplay.annealed_n_step`.
    updates_per_period: updates, each of a sample of its own, in every
      `update_period`; the replay ratio is the one over the other.
    augmentation: changes of the images that it learns from, one after another.
  """

  replay: base.Maker = uniform.UniformReplay
  gamma: float | optax.Schedule = 0.99
  n_step: int = 1
  updates_per_period: int = 1
  augmentation: Sequence[augmentation_lib.Augmentation] = ()

  # No setting: it has no type. Steps that come with each transition, of agents
  # that predict; see `following.Followed`.
  steps_ahead = 0

  def __post_init__(self):
    super().__post_init__()
    self.require_at_least(1, 'n_step')
    self.require_fraction('gamma')
    if self.augmentation and not _are_images(self.observation_space):
      self.refuse(
        'augmentation',
        'is of images, [height, width] or with channels, and observations are '
        f'{self.observation_space}; set it to ()',
      )

  def prepare(self, sample, key) -> agent_lib.Sample:
    """Returns a sample whose images are changed; see `Agent.prepare`."""
    if not self.augmentation:
      return sample
    transition = sample.transition
    if isinstance(transition, agent_lib.Trajectory):  # as a Sequence is one
      self.refuse(
        'augmentation',
        f'is of transitions, and the replay gives a {type(transition).__name__}'
        '; set it to ()',
      )
    now, then = jax.random.split(jax.random.fold_in(key, _AUGMENT))
    transition = transition.replace(
      observation=self.augmented(transition.observation, now),
      next_observation=self.augmented(transition.next_observation, then),
    )
    if isinstance(transition, following.Followed):
      seen, ahead = transition.observations, jax.random.fold_in(key, _AHEAD)
      flat = self.augmented(seen.reshape(-1, *seen.shape[2:]), ahead)
      transition = transition.replace(observations=flat.reshape(seen.shape))
    return sample.replace(transition=transition)

  def weighted(self, losses, weight) -> dict[str, jax.Array]:
    """Returns the weighted means of losses [B] by name, once these fit."""
    for name, loss in losses.items():
      outputs.require_floats(self, name, loss, weight.shape)
    return {name: jnp.mean(weight * loss) for name, loss in losses.items()}

  def augmented(self, images, key) -> jax.Array:
    """Returns images [B, ...], each changed by all of `augmentation`."""
    for i, each in enumerate(self.augmentation):
      images = each(jax.random.fold_in(key, i), images)
    return images

  def make_replay(self, stack: int) -> base.Replay:
    """Returns the replay; see `Agent.make_replay`."""
    replay = self.make_part(
      'replay', n_step=self.n_step, gamma=self.gamma, stack=stack
    )
    if not self.steps_ahead:
      return replay
    if not isinstance(replay, uniform.UniformReplay):
      self.refuse(
        'replay',
        f'makes a {type(replay).__name__}, which can not give the steps that '
        'follow a transition. Choose uniform.UniformReplay or '
        'prioritized.PrioritizedReplay',
      )
    return replay.replace(steps_ahead=self.steps_ahead)


def _are_images(space):
  """Whether observations are images; True while their space is not known."""
  if space is None:
    return True
  # Stacked vectors have two axes as well.
  is_gray = len(space.shape or ()) == 2 and space.dtype == np.uint8
  return is_gray or len(space.shape or ()) in (3, 4)  # stacks have one more
