"""Double DQN: the online network chooses the action, the target rates it.

van Hasselt, Guez & Silver (2016), Deep Reinforcement Learning with Double
Q-learning. https://arxiv.org/abs/1509.06461
"""

import jax
import rlax

from dopamine_jax.agents import dqn


class DoubleDQN(dqn.DQN):
  """DQN with the target of eq. 4."""

  def losses(self, params, target_params, batch, key):
    """See base class."""
    q = self.q_values(params, batch.observation, key)
    target_key, select_key = (jax.random.fold_in(key, i) for i in (1, 2))
    q_next = self.q_values(target_params, batch.next_observation, target_key)
    q_select = self.q_values(params, batch.next_observation, select_key)
    return self.td_losses(
      jax.vmap(rlax.double_q_learning)(
        q, batch.action, batch.reward, batch.discount, q_next, q_select
      )
    )
