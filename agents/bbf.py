"""BBF and SR-SPR: SPR that learns from each step many times, and is reset.

Schwarzer et al. (2023), Bigger, Better, Faster: Human-level Atari with
human-level efficiency. https://arxiv.org/abs/2305.19452
D'Oro et al. (2023), Sample-Efficient Reinforcement Learning by Breaking the
Replay Ratio Barrier. https://openreview.net/forum?id=OpC-9aBBVJe

Most of what they add is in their configs: a wide network, resets, which are
callbacks, and schedules that begin anew with each, as `updates` does.

Differs from the published code:
1. Each transition gets the priority of its own loss; see
   `published_priorities`.
2. A target is n rewards and the value n steps on. There the value is of the
   observation one step earlier, and an end at the n-th step is none.
3. After a reset Adam's count goes on, and so do the moments of what is shrunk;
   those of what is drawn anew are zero. There all of the optimizer begins anew,
   since copying does not reach into its state.
4. Predictions and shifts differ as in 5 and 8 of `spr`.
5. Each batch is drawn by itself. There a step's batches are one draw, in the
   order of the replay: its first update learns from the oldest part.
6. All resets that are due take place, as in the version of 2023. That of 2025
   leaves out the last: BBF of two updates is not reset at 80,000 agent steps.
"""

import jax.numpy as jnp
import optax

from dopamine_jax import values
from dopamine_jax.agents import spr
from dopamine_jax.learning import optimization
from dopamine_jax.replay import prioritized


class BBF(spr.SPR):
  """SPR without noise, whose target network follows slowly and acts.

  Attributes:
    published_priorities: whether only the first transition of a batch gets a
      new priority, of the batch's mean loss. In the published code those of a
      group of batches go to as many transitions, which are the group's first.
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
  target_tau: float = 0.005
  published_priorities: bool = False

  def make_replay(self, stack):
    """Returns the replay; see `SPR.make_replay`."""
    replay = super().make_replay(stack)
    has_priorities = isinstance(replay, prioritized.PrioritizedReplay)
    if self.published_priorities and not has_priorities:
      self.refuse(
        'published_priorities',
        f'is of prioritized replay, and the replay is a '
        f'{type(replay).__name__}; leave it out',
      )
    return replay

  def act(self, state, observation, step, key, *, explore):
    """Acts epsilon-greedily by the target network; see `Agent.act`."""
    state = state.replace(params=state.target_params)
    return super().act(state, observation, step, key, explore=explore)

  def outlook(self, state, observation, key):
    """Returns what films show; see `Agent.outlook`."""
    state = state.replace(params=state.target_params)
    return super().outlook(state, observation, key)

  def priorities(self, losses):
    """Returns priorities [B], of the losses [B] of values alone."""
    if not self.published_priorities:
      return super().priorities(losses)
    mean = jnp.sqrt(jnp.mean(losses))
    is_first = jnp.arange(len(losses)) == 0
    return jnp.where(is_first, mean, prioritized.KEEP)
