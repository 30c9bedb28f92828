"""Munchausen DQN and IQN: rewards that include the agent's own log-policy.

Vieillard, Pietquin & Geist (2020), Munchausen Reinforcement Learning.
https://arxiv.org/abs/2007.14430

The policy is the softmax of the target network's values over `tau`. It is in
the targets alone: actions are epsilon-greedy by the values, as in the paper.
"""

import jax
import jax.numpy as jnp
import rlax

from dopamine_jax.agents import dqn
from dopamine_jax.agents import iqn
from dopamine_jax.learning import action_values


class MunchausenDQN(dqn.DQN):
  """DQN with the target of eq. 2, for steps taken one by one.

  Attributes:
    tau: temperature of the policy; of the entropy's weight too.
    alpha: what part of the scaled log-policy is added to the reward.
    log_policy_min: where tau * log(policy) is clipped from below, the paper's
      l_0.
  """

  tau: float = 0.03
  alpha: float = 0.9
  log_policy_min: float = -1.0

  def __post_init__(self):
    super().__post_init__()
    check(self)

  def losses(self, params, target_params, batch, key):
    """Returns losses [B] and metrics; see `DQN.losses`."""
    q = self.q_values(params, batch.observation, key)
    next_key, now_key = (jax.random.fold_in(key, i) for i in (1, 2))
    q_next = self.q_values(target_params, batch.next_observation, next_key)
    q_now = self.q_values(target_params, batch.observation, now_key)
    q_next = self.only_allowed(q_next, batch.next_observation)
    q_now = self.only_allowed(q_now, batch.observation)
    value_next = soft_value(q_next, self.tau)
    bonus = munchausen_bonus(
      q_now, batch.action, self.tau, self.alpha, self.log_policy_min
    )
    target = batch.reward + bonus + batch.discount * value_next
    td_error = jax.lax.stop_gradient(target) - rlax.batched_index(
      q, batch.action
    )
    return self.td_losses(td_error), action_values.metrics(q)


class MunchausenIQN(iqn.IQN):
  """IQN with the same reward, and the mean of quantiles by the same policy.

  Of each quantile of the next observation, the policy's mean over actions is
  learnt (app. B.1), where IQN learns the best action's.

  Attributes:
    tau: see `MunchausenDQN`.
    alpha: see `MunchausenDQN`.
    log_policy_min: see `MunchausenDQN`.
  """

  n_step: int = 1
  tau: float = 0.03
  alpha: float = 0.9
  log_policy_min: float = -1.0

  def __post_init__(self):
    super().__post_init__()
    check(self)
    if self.double:
      self.refuse('double', 'does not fit: no next action is chosen')

  def losses(self, params, target_params, batch, key):
    """Returns losses [B] and metrics; see `IQN.losses`."""
    q_now = self.q_values(
      target_params, batch.observation, jax.random.fold_in(key, 2)
    )
    q_now = self.only_allowed(q_now, batch.observation)
    bonus = munchausen_bonus(
      q_now, batch.action, self.tau, self.alpha, self.log_policy_min
    )
    batch = batch.replace(reward=batch.reward + bonus)
    return super().losses(params, target_params, batch, key)

  def next_quantiles(self, params, target_params, observation, key):
    """Returns what there is to learn as if it were the only action's, twice."""
    select, quantiles = super().next_quantiles(
      params, target_params, observation, key
    )
    log_policy = scaled_log_policy(jnp.mean(select, axis=1), self.tau)[:, None]
    policy = jnp.exp(log_policy / self.tau)
    soft = jnp.sum(policy * (quantiles - log_policy), axis=-1, keepdims=True)
    return soft, soft


def check(agent: dqn.DQN):
  """Refuses settings with which the target would not be the paper's."""
  agent.require_fraction('alpha')
  agent.require_above(0, 'tau')  # DQN is what is left at 0
  agent.require_at_most(0, 'log_policy_min')  # as log-policies are
  if agent.n_step != 1:
    agent.refuse(
      'n_step',
      'does not fit: each action adds its log-policy to the reward, and of n '
      'steps only the first one is known to the target. Set n_step = 1, as '
      'the paper does',
    )


def scaled_log_policy(q: jax.Array, tau: float) -> jax.Array:
  """Returns tau * log softmax(q / tau) [..., A] of values [..., A] (app. B.1).

  The largest value is taken off before anything is divided by `tau`.
  """
  advantage = q - jnp.max(q, axis=-1, keepdims=True)
  return tau * jax.nn.log_softmax(advantage / tau, axis=-1)


def soft_value(q: jax.Array, tau: float) -> jax.Array:
  """Returns the policy's mean of q - tau * log(policy), [...] for [..., A].

  In closed form: tau * log sum exp(q / tau).
  """
  largest = jnp.max(q, axis=-1, keepdims=True)
  return largest[..., 0] + tau * jax.nn.logsumexp((q - largest) / tau, axis=-1)


def munchausen_bonus(
  q: jax.Array, action: jax.Array, tau: float, alpha: float, minimum: float
) -> jax.Array:
  """Returns what eq. 2 adds to the rewards of actions [B] at values [B, A]."""
  log_policy = rlax.batched_index(scaled_log_policy(q, tau), action)
  return alpha * jnp.clip(log_policy, minimum, 0.0)
