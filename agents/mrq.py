"""MR.Q: values and a policy over an encoder that learns to predict.

Fujimoto et al. (2025), Towards General-Purpose Model-Free Reinforcement
Learning. https://arxiv.org/abs/2501.16142

The defaults are the paper's: one set of numbers for vectors and images, and for
actions of a Box and Discrete ones.

Differs from the authors' code:
1. The encoder takes a gradient step with each update, and is in use from the
   next target update on. There it takes `target_update_period` steps when the
   targets are copied, and is in use at once. So here the one in use is a period
   older, and in the first period untrained.
2. All learn from one sample, and the policy from the critics before the update.
3. The mean of |reward| is over what was sampled since the last target update,
   not over the whole replay. While all rewards are zero it stays as it was.
4. Samples that an episode's end cuts short count by the steps that there are;
   the authors don't draw them. Terminations are learnt from the start.
5. Without exploration the likeliest of Discrete actions is taken.
6. Images are shifted only by `augmentation`, as in `mrq_atari`.
"""

import functools

import jax
import jax.numpy as jnp
import optax
import rlax

from dopamine_jax import lanes
from dopamine_jax.learning import action_values
from dopamine_jax.learning import bins
from dopamine_jax.learning import latent_agent
from dopamine_jax.replay import base
from dopamine_jax.replay import prioritized

_MIN_PRIORITY = 1.0  # where the critics' loss turns from squared to linear
_OUTPUT_PENALTY = 1e-5  # of the squares of the actor's outputs


class MRQ(latent_agent.LatentAgent):
  """Learns scaled values of embeddings.

  Attributes:
    target_update_period: agent steps, a multiple of `update_period`; then all
      targets become what was in use, and the newest encoder is used.
    prediction_steps: how many steps ahead the encoder predicts.
    reward_weight: weight of the reward's cross-entropy in the encoder's loss;
      that of the next z is 1.
    terminal_weight: weight of the squared error of terminations in it.
    reward_log_limit: log(1 + |reward|) of the outermost bins, at most 80.
    target_noise: standard deviation of the noise of actions in targets; for
      Discrete ones half of it.
    noise_clip: the largest size of that noise; likewise.
  """

  replay: base.Maker = functools.partial(
    prioritized.PrioritizedReplay,
    batch_size=256,
    min_history=10_000,
    alpha=0.4,
    beta=0.0,
  )
  update_period: int = 1
  n_step: int = 3
  target_update_period: int = 250
  prediction_steps: int = 5
  reward_weight: float = 0.1
  terminal_weight: float = 0.1
  reward_log_limit: float = 10.0
  target_noise: float = 0.2
  noise_clip: float = 0.3

  def __post_init__(self):
    super().__post_init__()
    self.require_multiple('target_update_period', 'update_period')
    self.require_at_least(1, 'prediction_steps')
    self.require_above(0, 'reward_log_limit')
    self.require_at_most(80, 'reward_log_limit')  # or exp is no float32
    weights = 'reward_weight', 'terminal_weight'
    self.require_at_least(0, *weights, 'target_noise', 'noise_clip')

  @property
  def steps_ahead(self) -> int:
    """Steps that come with each transition; see the base class."""
    return self.prediction_steps

  @property
  def bins(self) -> jax.Array:
    """Rewards [num_bins], evenly apart as sign(x) log(1 + |x|)."""
    x = jnp.linspace(-1, 1, self.num_bins) * self.reward_log_limit
    return jnp.sign(x) * jnp.expm1(jnp.abs(x))

  def update(self, state, sample, key):
    """Takes a gradient step on each loss; see `Agent.update`."""
    state = self.with_targets(state, sample.transition)
    state, td_error, metrics = self.descend(state, sample, key)
    priority = jnp.maximum(jnp.max(abs(td_error), axis=0), _MIN_PRIORITY)
    return state, metrics | {'RewardScale': state.reward_scale}, priority

  def with_targets(self, state, batch) -> latent_agent.State:
    """Returns the state after the target update, if that is due now."""
    period = self.last_count('updates', self.target_update_period)
    is_due = state.updates % period == 0
    size = jnp.sum(abs(batch.rewards) * batch.taken) / jnp.sum(batch.taken)
    mean = jnp.where(state.updates == 0, size, state.reward_sum / period)
    new = state.replace(
      fixed_params=self.encoders(state.params),
      target_params={**state.params, **state.fixed_params},
      reward_scale=jnp.where(mean > 0, mean, state.reward_scale),
      target_reward_scale=state.reward_scale,
      reward_sum=jnp.zeros(()),
    )
    state = jax.lax.cond(
      lanes.any_of(is_due),
      lambda: jax.tree.map(functools.partial(jnp.where, is_due), new, state),
      lambda: state,
    )
    return state.replace(reward_sum=state.reward_sum + size)

  def losses(self, params, state, batch, key):
    """Returns losses [B] by name, temporal differences [K, B], and metrics.

    The encoder's loss has a gradient for encoder and model alone, the critics'
    for the critics, the policy's for the actor.
    """
    target_key, key = jax.random.split(key)
    z = self.encode(state.fixed_params, batch.observation)
    embedded = self.embed(
      state.fixed_params, z, self.actions.to_vectors(batch.action)
    )
    q = self.q_values(params, embedded)
    td_error = self.targets(state, batch, target_key)[None] - q
    action, given = self.policy(params, z, batch.observation, key)
    critics = jax.lax.stop_gradient(params)
    worth = self.q_values(critics, self.embed(state.fixed_params, z, action))
    penalty = _OUTPUT_PENALTY * jnp.mean(given**2, axis=1)
    losses = {
      'EncoderLoss': self.encoder_loss(params, state.fixed_params, batch),
      'CriticLoss': jnp.mean(rlax.huber_loss(td_error), axis=0),
      'PolicyLoss': penalty - jnp.mean(worth, axis=0),
    }
    return losses, td_error, action_values.metrics(state.reward_scale * q)

  def targets(self, state, batch, key) -> jax.Array:
    """Returns the critics' targets [B], divided by the reward's scale."""
    noise_key, key = jax.random.split(key)
    params, seen = state.target_params, batch.next_observation
    z = self.encode(params, seen)
    action, _ = self.policy(params, z, seen, key)
    given = noise_key, len(z), self.target_noise, self.noise_clip
    action += self.actions.noise(*given)
    action = self.actions.hard(self.actions.allowed(action, seen))
    q = self.q_values(params, self.embed(params, z, action))
    value = state.target_reward_scale * jnp.min(q, axis=0)
    return (batch.reward + batch.discount * value) / state.reward_scale

  def encoder_loss(self, params, fixed, batch) -> jax.Array:
    """Returns the loss [B] of predictions from predictions (eq. 14 to 17).

    Steps that were not taken in the episode do not count.
    """
    count = self.prediction_steps
    flat = jax.tree.map(
      lambda x: x.reshape(-1, *x.shape[2:]), batch.observations
    )
    seen = self.encode(fixed, flat).reshape(len(batch.reward), count, -1)
    z, total = self.encode(params, batch.observation), 0.0
    for k in range(count):
      action = self.actions.to_vectors(batch.actions[:, k])
      _, end, z, reward = self.predict(params, z, action)
      loss = jnp.mean((z - seen[:, k]) ** 2, axis=1)
      loss += self.reward_weight * self.reward_loss(reward, batch.rewards[:, k])
      loss += self.terminal_weight * (end - batch.terminated[:, k]) ** 2
      total += jnp.where(batch.taken[:, k], loss, 0.0)
    return total

  def reward_loss(self, logits, reward) -> jax.Array:
    """Returns the cross-entropy [B] to the two bins beside each reward."""
    return optax.softmax_cross_entropy(logits, bins.two_hot(reward, self.bins))
