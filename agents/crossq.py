"""CrossQ: SAC without target networks, by batch normalization.

Bhatt et al. (2024), CrossQ: Batch Normalization in Deep Reinforcement Learning
for Greater Sample Efficiency and Simplicity. https://arxiv.org/abs/1902.05605

Differs from the paper:
1. The policy learns with the first of its three updates, not with the last, and
   from the critics as they were before it.
2. The temperature's Adam has b1 = 0.5 too; in the authors' code 0.9.
3. By default the first update comes after 10,000 agent steps; there, as in
   `crossq_mujoco`, after 5,000.
"""

import functools
import types

import jax
import jax.numpy as jnp
import optax

from dopamine_jax import networks
from dopamine_jax import values
from dopamine_jax.agents import sac
from dopamine_jax.learning import actor_critic
from dopamine_jax.learning import optimization
from dopamine_jax.networks import modules

_ADAM = values.call(optax.adam, 1e-3, b1=0.5)


class CrossQ(sac.SAC):
  """Critics see steps and what followed in one batch, and need no targets."""

  actor: modules.Maker = functools.partial(
    actor_critic.Actor, network=networks.BatchRenormMLP
  )
  critics: modules.Maker = functools.partial(
    actor_critic.Critics,
    network=functools.partial(networks.BatchRenormMLP, hidden=(2048, 2048)),
  )
  actor_optimizer: optimization.Optimizer = _ADAM
  critic_optimizer: optimization.Optimizer = _ADAM
  temperature_optimizer: optimization.Optimizer | None = _ADAM
  policy_delay: int = 3

  uncalled = types.MappingProxyType({'targets': 'critic_loss'})

  def __post_init__(self):
    super().__post_init__()
    if self.tau != type(self).tau:
      self.refuse('tau', 'has no effect: there are no target networks')

  def followed(self, params):
    """Returns nothing: no network has a target; see the base class."""
    del params
    return {}

  def target_critics(self, state):
    """Returns None; see the base class."""
    del state

  def critic_loss(self, params, target_params, batch, key):
    """Returns what the base class does, by one pass of both halves (eq. 3)."""
    del target_params
    fixed = jax.lax.stop_gradient(params)
    policy = self.policy(fixed['actor'], batch.next_observation)
    action, log_prob = policy.sample_and_log_prob(key)
    seen, taken = (
      jax.tree.map(lambda *pair: jnp.concatenate(pair), *each)
      for each in (
        (batch.observation, batch.next_observation),
        (batch.action, action),
      )
    )
    both = self.q_values(params['critics'], seen, taken)
    q, q_next = jnp.split(both, 2, axis=1)
    value = self.pooled(jax.lax.stop_gradient(q_next), key)
    target = self.backed_up(fixed, batch, value, log_prob)
    return self.squared_loss(q, target)
