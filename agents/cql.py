"""CQL: Q-learning that keeps the values of actions nobody took low.

Kumar et al. (2020), Conservative Q-Learning for Offline Reinforcement Learning.
https://arxiv.org/abs/2006.04779

`CQL` is DQN and one term: CQL(H) of eq. 4. For data that is only looked at, by
`offline.OfflineEngine`; it also learns while it acts.

Differs from the paper:
1. On DQN and on Rainbow; the paper's agent of discrete actions is QR-DQN.
2. Values, optimizer and target network are those of `dqn.DQN` or of
   `full_rainbow.FullRainbow`.
3. The squared error has no factor 1/2, so that a `conservatism` of 2 is the
   paper's alpha of 1. With `huber_delta`, small errors have it.
"""

import jax
import jax.numpy as jnp
import rlax

from dopamine_jax.agents import c51
from dopamine_jax.agents import dqn
from dopamine_jax.agents import full_rainbow
from dopamine_jax.learning import action_values
from dopamine_jax.replay import base
from dopamine_jax.replay import uniform


class CQL(dqn.DQN):
  """Conservative Q-learning of discrete actions.

  Attributes:
    conservatism: factor of the added term; with 0 it is DQN.
  """

  conservatism: float = 1.0

  def __post_init__(self):
    super().__post_init__()
    self.require_at_least(0, 'conservatism')

  def losses(self, params, target_params, batch, key):
    """Returns losses [B] and metrics; see `DQN.losses`."""
    # Not DQN's method and a second pass, which training would count as well.
    q = self.q_values(params, batch.observation, key)
    target_key = jax.random.fold_in(key, 1)
    q_next = self.q_values(target_params, batch.next_observation, target_key)
    q_next = self.only_allowed(q_next, batch.next_observation)
    td_error = jax.vmap(rlax.q_learning)(
      q, batch.action, batch.reward, batch.discount, q_next
    )
    losses, metrics = self.td_losses(td_error), action_values.metrics(q)
    q = self.only_allowed(q, batch.observation)
    return with_gap(losses, metrics, q, batch.action, self.conservatism)


class CategoricalCQL(full_rainbow.FullRainbow):
  """The same of Full Rainbow, without noise: C51, double, dueling, n = 3.

  Samples are uniform, as in Dopamine's lab: priorities would be of losses in
  which the added term counts.

  Attributes:
    conservatism: factor of the added term.
  """

  replay: base.Maker = uniform.UniformReplay
  noisy: bool = False
  conservatism: float = 0.1

  def __post_init__(self):
    super().__post_init__()
    self.require_at_least(0, 'conservatism')

  def losses_of(self, outputs, params, target_params, batch, key):
    """Returns losses [B] and metrics; see `FullRainbow.losses_of`."""
    given = outputs, params, target_params, batch, key
    losses, metrics = super().losses_of(*given)
    q = outputs
    if self.distributional:
      logits = outputs.reshape(len(outputs), -1, self.num_atoms)
      q = c51.mean(self.atoms, logits)
    q = self.only_allowed(q, batch.observation)
    return with_gap(losses, metrics, q, batch.action, self.conservatism)


def with_gap(losses, metrics, q, action, conservatism):
  """Returns losses [B] with CQL's term, and metrics with its mean.

  Args:
    losses: [B].
    metrics: by name.
    q: [B, A], values of all actions, the lowest of those not allowed.
    action: [B], those that were taken.
    conservatism: the term's factor.
  """
  # How much is expected of all actions, beyond what is known of one.
  gap = jax.nn.logsumexp(q, axis=-1) - rlax.batched_index(q, action)
  return losses + conservatism * gap, metrics | {'Gap': jnp.mean(gap)}
