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
    rewards: [B, K] float32, of each step alone.
    observations: [B, K, *observation_shape], what was seen after each of them.
    taken: [B, K] bool, whether the step was taken in this episode. Where it was
      not, action, reward and observation mean nothing.
    terminated: [B, K] bool, whether the step ended the episode, uncut.
    same_episode: [B, K] bool, whether the episode went on after the step, and
      after all before it.
  """

  actions: jax.Array
  rewards: jax.Array
  observations: Any
  taken: jax.Array
  terminated: jax.Array
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
  status = ring.slots.status[lanes, place]
  is_there = slots < ring.head[lane][:, None]
  goes_on = is_there & (status == ring_lib.RUNNING)
  same_episode = jnp.cumprod(goes_on, axis=1, dtype=bool)
  before = jnp.pad(same_episode[:, :-1], ((0, 0), (1, 0)), constant_values=True)
  taken = before & is_there
  # Of what means nothing, an observation that is there.
  after = jnp.where(taken, slots + 1, slot[:, None])
  seen = ring_lib.observation_at(ring, lanes.ravel(), after.ravel(), stack)
  return Followed(
    **vars(transition),
    actions=ring.slots.action[lanes, place],
    rewards=ring.slots.reward[lanes, place],
    observations=jax.tree.map(
      lambda x: x.reshape(*slots.shape, *x.shape[1:]), seen
    ),
    taken=taken,
    terminated=taken & (status == ring_lib.TERMINATED),
    same_episode=same_episode,
  )
