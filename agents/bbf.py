"""BBF and SR-SPR: SPR that learns from each step many times, and is reset.

Schwarzer et al. (2023), Bigger, Better, Faster: Human-level Atari with
human-level efficiency. https://arxiv.org/abs/2305.19452
D'Oro et al. (2023), Sample-Efficient Reinforcement Learning by Breaking the
Replay Ratio Barrier. https://openreview.net/forum?id=OpC-9aBBVJe

Most of them is numbers, in `bbf_atari100k.gin`: a wide network, resets, which
are callbacks, and schedules that begin anew with each.

Differs from the published code:
1. A prediction counts as long as the episode went on before what it predicts.
   There it takes one step more, and the first of a batch is never masked.
2. Each transition gets the priority of its own loss; see
   `published_priorities`.
"""

import jax.numpy as jnp
import optax

from dopamine_jax import values
from dopamine_jax.agents import spr
from dopamine_jax.learning import optimization


class BBF(spr.SPR):
  """SPR without noise, whose target network follows slowly and acts.

  Attributes:
    acts_by_target: whether the target network acts, as BBF's does and
      SR-SPR's does not.
    published_priorities: whether only the first transition of a batch gets a
      new priority, of the batch's mean loss, as in the published code.
  """

  optimizer: optimization.Optimizer = values.call(
    optax.adamw,
    1e-4,
    eps=1.5e-4,
    weight_decay=0.1,
    mask=optimization.kernels,
  )
  n_step: int = 10
  update_period: int = 1
  updates_per_period: int = 2
  noisy: bool = False
  epsilon: float | optax.Schedule = values.call(
    optax.linear_schedule, 1.0, 0.0, 2_001, transition_begin=2_000
  )
  target_tau: float = 0.005
  acts_by_target: bool = True
  published_priorities: bool = False

  def act(self, state, observation, step, key, *, explore):
    """Acts epsilon-greedily; see `Agent.act`."""
    state = self._acting(state)
    return super().act(state, observation, step, key, explore=explore)

  def outlook(self, state, observation, key):
    """Returns what films show; see `Agent.outlook`."""
    return super().outlook(self._acting(state), observation, key)

  def _acting(self, state):
    params = state.target_params if self.acts_by_target else state.params
    return state.replace(params=params)

  def priorities(self, losses):
    """Returns priorities [B]; a negative one leaves the old one."""
    if not self.published_priorities:
      return super().priorities(losses)
    mean = jnp.sqrt(jnp.mean(losses))
    return jnp.where(jnp.arange(len(losses)) == 0, mean, -1.0)
