"""QR-DQN: learns the distribution of the return, as values of its quantiles.

Dabney, Rowland, Bellemare & Munos (2018), Distributional Reinforcement Learning
with Quantile Regression. https://arxiv.org/abs/1710.10044

Differs from the paper:
1. Three-step returns and prioritized replay by default, as in Castro et al.
   (2018); `n_step = 1` and `uniform.UniformReplay` are the paper's.
2. Epsilon, target network and warm-up as there too: see `dqn`.
"""

import jax
import jax.numpy as jnp
import optax

from dopamine_jax import values
from dopamine_jax.agents import dqn
from dopamine_jax.learning import action_values
from dopamine_jax.learning import optimization
from dopamine_jax.learning import quantiles as quantiles_lib  # also a method
from dopamine_jax.replay import base
from dopamine_jax.replay import prioritized


class QuantileDQN(dqn.DQN):
  """DQN whose network gives quantiles, for each action M of them.

  Attributes:
    num_quantiles: M, one in the middle of each of M equal parts of [0, 1].
    kappa: where the loss turns from squared to linear; 0: linear everywhere.
  """

  replay: base.Maker = prioritized.PrioritizedReplay
  optimizer: optimization.Optimizer = values.call(
    optax.adam, 5e-5, eps=3.125e-4
  )
  n_step: int = 3
  num_quantiles: int = 200
  kappa: float = 1.0

  def __post_init__(self):
    super().__post_init__()
    self.require_at_least(1, 'num_quantiles')
    self.require_at_least(0, 'kappa')
    self.require_no_huber('the loss of quantiles has kappa instead')

  def quantiles(self, params, observation, key) -> jax.Array:
    """Returns the quantiles' values [B, M, A]."""
    outputs = self.outputs(params, observation, key)
    return outputs.reshape(len(outputs), self.num_quantiles, -1)

  def q_values(self, params, observation, key) -> jax.Array:
    """Returns the means of the distributions [B, A]."""
    return jnp.mean(self.quantiles(params, observation, key), axis=1)

  def distribution(self, params, observation, key):
    """Returns the quantiles in order, which the network need not keep."""
    quantiles = self.quantiles(params, observation, key).swapaxes(1, 2)
    returns = jnp.sort(quantiles, axis=-1)
    return returns, jnp.full_like(returns, 1 / self.num_quantiles)

  def losses(self, params, target_params, batch, key):
    """Returns the losses [B] of Algorithm 1 and metrics; see `DQN.losses`.

    Summed over the quantiles that are learnt, averaged over the target's.
    """
    quantiles = self.quantiles(params, batch.observation, key)
    target_key = jax.random.fold_in(key, 1)
    target = self.quantiles(target_params, batch.next_observation, target_key)
    loss = jax.vmap(quantiles_lib.regression, (0, None, 0, 0, 0, 0, 0, None))
    losses = loss(
      quantiles,
      self.midpoints,
      batch.action,
      batch.reward,
      batch.discount,
      self.only_allowed(target, batch.next_observation),  # chooses the action
      target,  # rates it
      self.kappa,
    )
    return losses, action_values.metrics(jnp.mean(quantiles, axis=1))

  @property
  def num_outputs(self) -> int:
    """What the network's last layer has: M quantiles for each action."""
    return super().num_outputs * self.num_quantiles

  @property
  def midpoints(self) -> jax.Array:
    """The quantiles' probabilities [M] (Lemma 2)."""
    return (jnp.arange(self.num_quantiles) + 0.5) / self.num_quantiles
