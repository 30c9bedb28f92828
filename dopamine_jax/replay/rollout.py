"""The newest steps, all of them and in order: what on-policy agents learn from.

A rollout is read off a ring, as any other replay's samples are, so that stacks
of frames, true last observations and checkpoints need nothing of their own.
"""

import jax
import jax.numpy as jnp

from dopamine_jax import agent as agent_lib
from dopamine_jax.replay import base
from dopamine_jax.replay import ring as ring_lib
from dopamine_jax.replay import sequences


class Rollout(base.Replay):
  """Hands out the newest T steps of each of N environments.

  An update is due once so many have been taken, so that each step is in one
  sample. The agent acts from the first step on.

  Attributes:
    steps: agent steps of a rollout, T * N (the agent's `update_period`).
  """

  given_later = ('steps', 'gamma', 'stack')

  steps: int

  keeps_memory = True

  def __post_init__(self):
    super().__post_init__()
    self.require_at_least(1, 'steps')

  @property
  def min_history(self) -> int:
    """Agent steps before the first update: a whole rollout."""
    return self.steps

  @property
  def warm_up(self) -> int:
    """Agent steps that are taken by random actions: none."""
    return 0

  def check_split(self, num_devices: int):
    """Refuses devices that would share each sample."""
    self.refuse(
      'steps',
      f'are not split over {num_devices} devices: what follows a step must lie '
      "beside it. Choose devices.Devices.split = 'seeds' or 'none'",
    )

  def init(self, step: ring_lib.Step) -> ring_lib.Ring:
    """Returns an empty ring for steps like the example `step`.

    Raises:
      SettingError: if the environments can't take equally many steps.
    """
    num_envs = step.reward.shape[0]
    if self.steps % num_envs:
      self.refuse(
        'steps',
        f'is not a multiple of num_envs = {num_envs}; it is the update_period '
        'of the agent, and counts the steps of all environments',
      )
    # T episodes of one step take two slots each; before them lie the frames
    # that the first observation is stacked from, and the step before.
    before = max(self.stack, 2) if jax.tree.leaves(step.memory) else self.stack
    return ring_lib.init(step, 2 * (self.steps // num_envs) + before)

  def sample(
    self, ring: ring_lib.Ring, key: jax.Array, updates: int | jax.Array = 0
  ) -> agent_lib.Sample:
    """Returns the newest T steps, oldest first: leading axes [T, N].

    They are all there once `min_history` steps have been added.
    """
    del key
    lane, slot = self._newest(ring)
    place = slot % ring.capacity
    status = ring.slots.status[lane, place]
    trajectory = agent_lib.Trajectory(
      observation=sequences.observation_at(ring, lane, slot, self.stack),
      action=ring.slots.action[lane, place],
      reward=ring.slots.reward[lane, place],
      discount=jnp.where(
        status == ring_lib.TERMINATED, 0.0, jnp.float32(self.at(updates).gamma)
      ),
      next_observation=sequences.observation_at(
        ring, lane, slot + 1, self.stack
      ),
      last=status != ring_lib.RUNNING,
    )
    if jax.tree.leaves(ring.slots.memory):
      trajectory = sequences.with_memory(ring, trajectory, lane, slot)
    return agent_lib.Sample(
      transition=trajectory,
      index=lane * ring.capacity + place,
      weight=jnp.ones(slot.shape),
      slot=slot,
    )

  def _newest(self, ring):
    """Returns lanes and slots [T, N] of the newest steps, oldest first."""
    num_envs = ring.head.shape[0]
    length = self.steps // num_envs
    slot = ring.head[:, None] - jnp.arange(2 * length, 0, -1)[None]
    lane = jnp.arange(num_envs)[:, None]
    status = ring.slots.status[lane, slot % ring.capacity]
    taken = (slot >= 0) & (status != ring_lib.LAST)
    # Behind those in which no step was taken, the newest T come last.
    slot = jnp.sort(jnp.where(taken, slot, -1), axis=1)[:, -length:].T
    return jnp.broadcast_to(lane.T, slot.shape), slot
