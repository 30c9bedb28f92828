"""DrQ-v2: continuous actions from pixels.

Yarats, Fergus, Lazaric & Pinto (2021), Mastering Visual Continuous Control:
Improved Data-Augmented Reinforcement Learning. https://arxiv.org/abs/2107.09645

Differs from the paper:
1. The policy learns from the critics as they were before the update.
2. Images move by whole pixels, as its offsets are, without interpolation.
"""

from collections.abc import Sequence
import functools

import jax.numpy as jnp
import optax

from dopamine_jax import lanes
from dopamine_jax import networks
from dopamine_jax import values
from dopamine_jax.agents import td3
from dopamine_jax.learning import actor_critic
from dopamine_jax.learning import augmentation as augmentation_lib
from dopamine_jax.learning import continuous_actions
from dopamine_jax.learning import optimization
from dopamine_jax.networks import initializers
from dopamine_jax.networks import modules
from dopamine_jax.replay import base
from dopamine_jax.replay import uniform

_ORTHOGONAL = values.call(initializers.orthogonal, 1.0)


class DrQV2(td3.TD3):
  """DDPG of images that are shifted, with two critics and n-step returns.

  Policy and critics see the same encoder's features; targets are of the policy
  and the encoder that learn.

  Attributes:
    target_noise: standard deviation of the noise on actions in targets and in
      the policy's loss; None: `exploration_noise` at the current agent step,
      which follows from the number of updates (it is too early a step in a run
      that filled its replay anew, without updates).
  """

  actor: modules.Maker = functools.partial(
    actor_critic.DeterministicActor,
    hidden=(1024, 1024),
    kernel_init=_ORTHOGONAL,
    torso=networks.Projection(),
  )
  critics: modules.Maker = functools.partial(
    actor_critic.Critics,
    hidden=(1024, 1024),
    kernel_init=_ORTHOGONAL,
    torso=networks.Projection(),
  )
  encoder: modules.Maker | None = networks.PixelTorso
  replay: base.Maker = functools.partial(
    uniform.UniformReplay, batch_size=256, min_history=2_000
  )
  augmentation: Sequence[augmentation_lib.Augmentation] = (
    augmentation_lib.RandomShift(),
  )
  actor_optimizer: optimization.Optimizer = values.call(optax.adam, 1e-4)
  critic_optimizer: optimization.Optimizer = values.call(optax.adam, 1e-4)
  update_period: int = 2
  n_step: int = 3
  tau: float = 0.01
  policy_delay: int = 1
  exploration_noise: float | optax.Schedule = values.call(
    optax.linear_schedule, 1.0, 0.1, 500_000
  )
  target_noise: float | None = None
  noise_clip: float = 0.3

  has_target_policy = False
  policy_value = continuous_actions.ContinuousActions.policy_value

  def update(self, state, sample, key):
    """Takes a gradient step on each loss; see `Agent.update`."""
    if self.target_noise is not None:
      return super().update(state, sample, key)
    std = values.at(self.exploration_noise, self._agent_steps(state.updates))
    now = lanes.put(self, {('target_noise',): jnp.float32(std)})
    # Of this class: what a subclass adds around it is already under way.
    return super(DrQV2, now).update(state, sample, key)

  def _agent_steps(self, updates):
    """Returns how many agent steps there were at the n-th update.

    At most what 32 bits hold, of so many updates that there were more.
    """
    history, period = self.make_replay(stack=1).min_history, self.update_period
    most = (2**31 - 1 - history) // period
    periods = jnp.minimum(updates // self.updates_per_period, most)
    return history + periods * period

  def policy_loss(self, params, critics, observation, key):
    """Returns the loss [B] of the actor's parameters (eq. 4)."""
    action = self.noisy_action(params, observation, key)
    return -self.policy_value(critics, observation, action, key)
