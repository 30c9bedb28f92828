"""Transitions and the steps that follow them, for agents that predict these."""

from typing import Any

import jax
import jax.numpy as jnp

from dopamine_jax import agent as agent_lib
from dopamine_jax.replay import ring as ring_lib


class Followed(agent_lib.Transition):
  """A Transition, and the K steps of which its own action is the first.

  Attributes:
    actions: [B, K, *action_shape], those of the steps.
    observations: [B, K, *observation_shape], what was seen after each of them.
    same_episode: [B, K] bool, whether the episode went on after the step, and
      after all before it. Where it did not, the observation means nothing.
  """

  actions: jax.Array
  observations: Any
  same_episode: jax.Array


def followed(
  ring: ring_lib.Ring,
  lane: jax.Array,
  slot: jax.Array,
  transition: agent_lib.Transition,
  count: int,
  stack: int,
) -> Followed:
  """Returns transitions with the steps that follow them.

  Args:
    ring: holds them.
    lane: [B], where each transition lies.
    slot: [B], where it begins.
    transition: [B].
    count: of the steps, K.
    stack: frames in an observation.
  """
  slots = slot[:, None] + jnp.arange(count)[None]
  lanes = jnp.broadcast_to(lane[:, None], slots.shape)
  place = slots % ring.capacity
  goes_on = ring.slots.status[lanes, place] == ring_lib.RUNNING
  goes_on &= slots < ring.head[lane][:, None]
  same_episode = jnp.cumprod(goes_on, axis=1, dtype=bool)
  # Of what means nothing, an observation that is there.
  after = jnp.where(same_episode, slots + 1, slot[:, None])
  seen = ring_lib.observation_at(ring, lanes.ravel(), after.ravel(), stack)
  return Followed(
    **vars(transition),
    actions=ring.slots.action[lanes, place],
    observations=jax.tree.map(
      lambda x: x.reshape(*slots.shape, *x.shape[1:]), seen
    ),
    same_episode=same_episode,
  )
