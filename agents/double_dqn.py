"""Double DQN: the online network chooses the action, the target rates it.

van Hasselt, Guez & Silver (2016), Deep Reinforcement Learning with Double
Q-learning. https://arxiv.org/abs/1509.06461
"""

import jax
import rlax

from dopamine_jax.agents import dqn
from dopamine_jax.learning import action_values


class DoubleDQN(dqn.DQN):
  """DQN with the target of eq. 4."""

  def losses(self, params, target_params, batch, key):
    """Returns losses [B] and metrics; see `DQN.losses`."""
    q = self.q_values(params, batch.observation, key)
    target_key, select_key = (jax.random.fold_in(key, i) for i in (1, 2))
    q_next = self.q_values(target_params, batch.next_observation, target_key)
    fixed = jax.lax.stop_gradient(params)  # no pass for training
    q_select = self.q_values(fixed, batch.next_observation, select_key)
    q_select = self.only_allowed(q_select, batch.next_observation)
    td_error = jax.vmap(rlax.double_q_learning)(
      q, batch.action, batch.reward, batch.discount, q_next, q_select
    )
    return self.td_losses(td_error), action_values.metrics(q)
