"""MR.Q: values and a policy over an encoder that learns to predict.

Fujimoto et al. (2025), Towards General-Purpose Model-Free Reinforcement
Learning. https://arxiv.org/abs/2501.16142

The defaults are the paper's: one set of numbers for vectors and images, and for
actions of a Box and Discrete ones.

Differs from the authors' code:
1. The encoder learns a little with each update. There it learns
   `target_update_period` times at once, just before it is exchanged; here it
   has seen what was gathered until one period before.
2. Policy and critics learn from the sample that the encoder learns from, and
   the policy by critics as they were before the update.
3. The size of rewards is that of what was sampled since the last exchange, not
   of all that the replay holds. While all are zero it stays as it was.
4. Where an episode was cut, steps count as far as they were taken; there such
   samples are not drawn. Whether episodes end is always learnt.
5. Of Discrete actions the likeliest is taken where nothing explores.
"""

import functools

import jax
import jax.numpy as jnp
import optax
import rlax

from dopamine_jax import lanes
from dopamine_jax.learning import action_values
from dopamine_jax.learning import embedding
from dopamine_jax.replay import base
from dopamine_jax.replay import prioritized

_LEAST_PRIORITY = 1.0  # where the values' loss turns from squared to linear
_OUTPUT_PENALTY = 1e-5  # of the squares of what the actor gives


class MRQ(embedding.Embedding):
  """Learns values in the size of rewards, with targets that are exchanged.

  Attributes:
    target_update_period: agent steps from one exchange to the next, a multiple
      of `update_period`. Then actor and critics see by what the encoder has
      become, and targets are of what they all were.
    prediction_steps: over which the encoder predicts.
    reward_weight: of the rewards' cross-entropy, where that of z has 1.
    end_weight: of the squared error of whether an episode ends.
    largest_reward: log(1 + |reward|) of the outermost classes.
    target_noise: standard deviation of the noise of actions in targets, of
      Discrete ones half as much.
    noise_clip: the largest size of that noise, likewise.
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
  end_weight: float = 0.1
  largest_reward: float = 10.0
  target_noise: float = 0.2
  noise_clip: float = 0.3

  def __post_init__(self):
    super().__post_init__()
    self.require_multiple('target_update_period', 'update_period')
    self.require_at_least(1, 'prediction_steps')
    self.require_above(0, 'largest_reward')
    self.require_at_least(0, 'reward_weight', 'end_weight')
    self.require_at_least(0, 'target_noise', 'noise_clip')

  @property
  def steps_ahead(self) -> int:
    """Steps that come with each transition; see the base class."""
    return self.prediction_steps

  @property
  def classes(self) -> jax.Array:
    """Rewards [num_classes], evenly apart as sign(x) log(1 + |x|)."""
    x = jnp.linspace(-1, 1, self.num_classes) * self.largest_reward
    return jnp.sign(x) * jnp.expm1(jnp.abs(x))

  def update(self, state, sample, key):
    """Takes a gradient step on each loss; see `Agent.update`."""
    state = self.exchanged(state, sample.transition)
    state, td_error, metrics = self.descend(state, sample, key)
    priority = jnp.maximum(jnp.max(abs(td_error), axis=0), _LEAST_PRIORITY)
    return state, metrics | {'RewardScale': state.scale}, priority

  def exchanged(self, state, batch) -> embedding.State:
    """Returns the state after an exchange, if that is due before an update."""
    period = self.last_count('updates', self.target_update_period)
    is_first, is_due = state.updates == 0, state.updates % period == 0
    size = jnp.sum(abs(batch.rewards) * batch.taken) / jnp.sum(batch.taken)
    mean = jnp.where(is_first, size, state.sizes / period)  # of a period
    scale = jnp.where(mean > 0, mean, state.scale)
    old = {**state.params, **state.held}
    new = state.replace(
      held=self.seeing(state.params),
      target_params=old,
      scale=scale,
      target_scale=jnp.where(is_first, scale, state.scale),
      sizes=jnp.zeros(()),
    )
    state = jax.lax.cond(
      lanes.any_of(is_due),
      lambda: jax.tree.map(functools.partial(jnp.where, is_due), new, state),
      lambda: state,
    )
    return state.replace(sizes=state.sizes + size)

  def losses(self, params, state, batch, key):
    """Returns losses [B] by name, temporal differences [K, B], and metrics.

    The encoder's loss has a gradient by encoder and model alone, the values' by
    critics, the policy's by the actor.
    """
    target_key, key = jax.random.split(key)
    z = self.encode(state.held, batch.observation)
    embedded = self.embed(state.held, z, self.actions.of(batch.action))
    q = self.q_values(params, embedded)
    td_error = self.targets(state, batch, target_key)[None] - q
    action, given = self.policy(params, z, batch.observation, key)
    fixed = jax.lax.stop_gradient(params)
    worth = self.q_values(fixed, self.embed(state.held, z, action))
    penalty = _OUTPUT_PENALTY * jnp.mean(given**2, axis=1)
    losses = {
      'EncoderLoss': self.encoder_loss(params, state.held, batch),
      'CriticLoss': jnp.mean(rlax.huber_loss(td_error), axis=0),
      'PolicyLoss': penalty - jnp.mean(worth, axis=0),
    }
    return losses, td_error, action_values.metrics(state.scale * q)

  def targets(self, state, batch, key) -> jax.Array:
    """Returns what the critics are to say [B], in the size of rewards."""
    noise_key, key = jax.random.split(key)
    params, seen = state.target_params, batch.next_observation
    z = self.encode(params, seen)
    action, _ = self.policy(params, z, seen, key)
    noise = self.target_noise, self.noise_clip
    action += self.actions.noise(noise_key, len(z), *noise)
    action = self.actions.hard(self.actions.allowed(action, seen))
    q = self.q_values(params, self.embed(params, z, action))
    value = state.target_scale * jnp.min(q, axis=0)
    return (batch.reward + batch.discount * value) / state.scale

  def encoder_loss(self, params, held, batch) -> jax.Array:
    """Returns the loss [B] of predictions of predictions (eq. 14 to 16).

    Steps that were not taken in the episode do not count.
    """
    count = self.prediction_steps
    flat = jax.tree.map(
      lambda x: x.reshape(-1, *x.shape[2:]), batch.observations
    )
    seen = self.encode(held, flat).reshape(len(batch.reward), count, -1)
    z, total = self.encode(params, batch.observation), 0.0
    for k in range(count):
      action = self.actions.of(batch.actions[:, k])
      _, end, z, reward = self.predict(params, z, action)
      loss = jnp.mean((z - seen[:, k]) ** 2, axis=1)
      loss += self.reward_weight * self.reward_loss(reward, batch.rewards[:, k])
      loss += self.end_weight * (end - batch.terminated[:, k]) ** 2
      total += jnp.where(batch.taken[:, k], loss, 0.0)
    return total

  def reward_loss(self, logits, reward) -> jax.Array:
    """Returns the cross-entropy [B] to the two classes beside each reward."""
    told = jax.vmap(rlax.categorical_l2_project, (0, 0, None))(
      reward[:, None], jnp.ones_like(reward)[:, None], self.classes
    )
    return optax.softmax_cross_entropy(logits, told)
