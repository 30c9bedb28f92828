"""REDQ and DroQ: SAC that learns twenty times as much from each step.

Chen, Wang, Zhou & Ross (2021), Randomized Ensembled Double Q-Learning: Learning
Fast Without a Model. https://arxiv.org/abs/2101.05982

Hiraoka et al. (2022), Dropout Q-Functions for Doubly Efficient Reinforcement
Learning. https://arxiv.org/abs/2110.02034

DroQ has two critics with dropout, both of which count, in place of ten:
`networks.dropout_relu` with `layer_norm`, see `droq_pendulum.gin`.

Differs from the papers:
1. The policy learns with the first of its twenty updates, not with the last,
   and from the critics as they were before it.
"""

import functools

import jax
import jax.numpy as jnp

from dopamine_jax.agents import sac
from dopamine_jax.learning import actor_critic
from dopamine_jax.networks import modules
from dopamine_jax.networks import variables


class REDQ(sac.SAC):
  """Many critics, of which few at a time count in targets, all in the policy.

  Attributes:
    num_sampled: how many of the critics, drawn anew for each update, count in
      targets: the lowest of them.
  """

  critics: modules.Maker = functools.partial(
    actor_critic.Critics, num_critics=10
  )
  updates_per_period: int = 20
  policy_delay: int = 20
  num_sampled: int = 2

  def __post_init__(self):
    super().__post_init__()
    self.require_at_least(1, 'num_sampled')

  def init(self, key, observation):
    """Returns the first state, once there are as many critics."""
    state = super().init(key, observation)
    action = jnp.zeros((1, *self.action_space.shape))
    one = jax.tree.map(lambda x: x[:1], observation)
    seen = self.features(state.params, one)
    q = jax.eval_shape(self.q_values, state.params['critics'], seen, action)
    if self.num_sampled > len(q):
      self.refuse('num_sampled', f'is more than the {len(q)} critics')
    return state

  def pooled(self, q, key):
    """Returns the lowest [B] of a few of the critics' values [K, B]."""
    chosen = jax.random.permutation(jax.random.fold_in(key, 1), len(q))
    return jnp.min(q[chosen[: self.num_sampled]], axis=0)

  def targets(self, params, target_params, batch, key):
    """Returns targets of critics with dropout, if any; see the base class."""
    dropped = variables.training(target_params, jax.random.fold_in(key, 2))
    return super().targets(params, dropped, batch, key)

  def policy_value(self, critics, observation, action, key):
    """Returns the mean of all, with dropout; see the base class."""
    critics = variables.training(critics, jax.random.fold_in(key, 2))
    return jnp.mean(self.q_values(critics, observation, action), axis=0)

  def outlook(self, state, observation, key):
    """Returns what films show, without dropout; see `Agent.outlook`."""
    shown = super().outlook(state, observation, key)
    seen = self.features(state.params, observation)
    q = self.q_values(state.params['critics'], seen, shown.mean)
    return shown._replace(value=jnp.mean(q, axis=0) / self.reward_scale)
