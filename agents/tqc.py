"""TQC: SAC whose critics give quantiles, the largest of which are left out.

Kuznetsov, Shvechikov, Grishin & Vetrov (2020), Controlling Overestimation Bias
with Truncated Mixture of Continuous Distributional Quantile Critics.
https://arxiv.org/abs/2005.04269

Differs from the paper:
1. Critics are two layers of 256, as SAC's, instead of three of 512.
2. The losses of the critics are summed, where the paper takes their mean. Adam
   makes the same steps of both.
"""

import functools
import types

import jax
import jax.numpy as jnp

from dopamine_jax.agents import sac
from dopamine_jax.learning import actor_critic
from dopamine_jax.learning import quantiles as quantiles_lib  # also a method
from dopamine_jax.networks import modules


class TQC(sac.SAC):
  """Truncated quantile critics.

  Attributes:
    num_quantiles: M, of each critic.
    num_dropped: of the largest quantiles of all critics together, how many are
      left out of targets, for each critic.
  """

  critics: modules.Maker = functools.partial(
    actor_critic.Critics, num_critics=5
  )
  num_quantiles: int = 25
  num_dropped: int = 2

  uncalled = types.MappingProxyType(
    {
      'targets': 'target_quantiles',
      'pooled': 'target_quantiles',
      'squared_loss': 'critic_loss',
    }
  )

  def __post_init__(self):
    super().__post_init__()
    self.require_at_least(2, 'num_quantiles')
    self.require_at_least(0, 'num_dropped')
    if self.num_dropped >= self.num_quantiles:
      self.refuse(
        'num_dropped', f'leaves nothing of num_quantiles = {self.num_quantiles}'
      )

  @property
  def critic_outputs(self):
    """The number of quantiles; see the base class."""
    return self.num_quantiles

  def quantiles(self, params, observation, action) -> jax.Array:
    """Returns the critics' quantiles [K, B, M], given their parameters."""
    return super().q_values(params, observation, action)

  def q_values(self, params, observation, action):
    """Returns their means [K, B]; see the base class."""
    return jnp.mean(self.quantiles(params, observation, action), axis=-1)

  def policy_value(self, critics, observation, action, key):
    """Returns the mean of all; see the base class."""
    del key
    return jnp.mean(self.q_values(critics, observation, action), axis=0)

  def target_quantiles(self, params, target_params, batch, key) -> jax.Array:
    """Returns the target's quantiles [B, K * (M - num_dropped)] (eq. 5)."""
    policy = self.policy(params['actor'], batch.next_observation)
    action, log_prob = policy.sample_and_log_prob(key)
    found = self.quantiles(target_params, batch.next_observation, action)
    num_critics, size, _ = found.shape
    pool = jnp.moveaxis(found, 0, 1).reshape(size, -1)
    kept = num_critics * (self.num_quantiles - self.num_dropped)
    value = jnp.sort(pool, axis=-1)[:, :kept]
    of_quantiles = jax.vmap(self.backed_up, (None, None, 1, None), 1)
    return of_quantiles(params, batch, value, log_prob)

  def critic_loss(self, params, target_params, batch, key):
    """Returns the quantile Huber loss (eq. 6); see the base class."""
    fixed = jax.lax.stop_gradient(params)
    target = self.target_quantiles(fixed, target_params, batch, key)
    found = self.quantiles(params['critics'], batch.observation, batch.action)
    tau = (jnp.arange(self.num_quantiles) + 0.5) / self.num_quantiles
    of_batch = jax.vmap(quantiles_lib.loss, (0, None, 0, None))
    of_critics = jax.vmap(of_batch, (0, None, None, None))
    losses = of_critics(found, tau, target, 1.0) / self.num_quantiles  # [K, B]
    q = jnp.mean(found, axis=-1)
    td_error = jnp.mean(target, axis=-1)[None] - q
    return jnp.sum(losses, axis=0), td_error, self.value_metrics(q)
