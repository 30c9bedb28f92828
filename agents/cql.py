"""CQL: Q-learning that keeps the values of actions nobody took low.

Kumar et al. (2020), Conservative Q-Learning for Offline Reinforcement Learning.
https://arxiv.org/abs/2006.04779

It is DQN and one term: CQL(H) of eq. 4. For data that is only looked at, by
`offline.OfflineEngine`; it also learns while it acts.

Differs from the paper:
1. On DQN; the paper's agent of discrete actions is QR-DQN.
2. Values, optimizer and target network are those of `dqn.DQN`.
"""

import jax
import jax.numpy as jnp
import rlax

from dopamine_jax.agents import dqn


class CQL(dqn.DQN):
  """Conservative Q-learning of discrete actions.

  Attributes:
    conservatism: the paper's alpha, of the added term; with 0 it is DQN.
  """

  conservatism: float = 1.0

  def __post_init__(self):
    super().__post_init__()
    self.require_at_least(0, 'conservatism')

  def losses(self, params, target_params, batch, key):
    """Returns losses [B] and metrics; see `DQN.losses`."""
    losses, metrics = super().losses(params, target_params, batch, key)
    q = self.q_values(params, batch.observation, key)
    q = self.only_allowed(q, batch.observation)
    # How much is expected of all actions, beyond what is known of one.
    gap = jax.nn.logsumexp(q, axis=-1) - rlax.batched_index(q, batch.action)
    metrics = metrics | {'Gap': jnp.mean(gap)}
    return losses + self.conservatism * gap, metrics
