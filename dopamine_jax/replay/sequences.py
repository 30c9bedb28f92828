"""Stretches of one lane of the ring, in order: what agents with memory learn.

Kapturowski et al. (2019), Recurrent Experience Replay in Distributed
Reinforcement Learning. https://openreview.net/forum?id=r1lyTjAqYX

A sequence is R slots one after another. Episodes may end and begin in it: an
episode's last observation has a row of its own, in which no step was taken, and
the next row begins another episode (`Seen.first`), where memory is fresh. So
nothing is padded, and what follows a step lies in the row below.
"""

from typing import Any

import jax
import jax.numpy as jnp

from dopamine_jax import agent as agent_lib
from dopamine_jax.replay import base
from dopamine_jax.replay import ring as ring_lib


class SequenceReplay(base.Replay):
  """Samples sequences uniformly, with replacement.

  A sequence has `burn_in` rows by which memory is only brought up to date,
  `length` rows to learn of, and `n_step` rows that they bootstrap from. The
  memory that the agent had at the first row comes with it.

  Attributes:
    capacity: slots over all environments; a step takes one, and each episode
      one more for its last observation. A slot holds the agent's memory, too.
    batch_size: sequences in a sample, B.
    length: rows to learn of (the paper's m).
    burn_in: rows before them (the paper's l).
    stride: slots between the starts of sequences; the paper's overlap by half.
    min_history: agent steps before the first update. Those that a training
      begins with are taken by random actions.
    n_step: rows behind them (given by the agent).
  """

  given_later = ('n_step', 'gamma', 'stack')
  keeps_memory = True

  capacity: int = 1_000_000
  batch_size: int = 64
  length: int = 80
  burn_in: int = 40
  stride: int = 1
  min_history: int = 20_000
  n_step: int = 1

  def __post_init__(self):
    super().__post_init__()
    self.require_at_least(
      *(1, 'capacity', 'batch_size', 'length', 'stride'),
      *('min_history', 'n_step'),
    )
    self.require_at_least(0, 'burn_in')
    if self.min_history > self.capacity:
      self.refuse(
        'min_history', f'is larger than the ring (capacity = {self.capacity})'
      )

  @property
  def rows(self) -> int:
    """Rows of a sequence, R."""
    return self.burn_in + self.length + self.n_step

  @property
  def warm_up(self) -> int:
    """Agent steps that are taken by random actions."""
    return self.min_history

  def check_split(self, num_devices: int):
    """Refuses devices that would share each sample."""
    self.refuse(
      'batch_size',
      f'is not split over {num_devices} devices: what follows a step must lie '
      "beside it. Choose devices.Devices.split = 'seeds' or 'none'",
    )

  def init(self, step: ring_lib.Step) -> ring_lib.Ring:
    """Returns an empty ring for steps like the example `step`.

    Raises:
      SettingError: if a sequence doesn't fit into an environment's share of
        the ring, or of the history that learning starts with.
    """
    num_envs = step.reward.shape[0]
    lane = self.capacity // num_envs
    # Room for the stack's frames and the step before, for the slot that is
    # being written, and for `stride` slots up to the next start.
    needed = self.rows + max(self.stack, 2) + self.stride
    if lane < needed:
      self.refuse(
        'capacity',
        f'is too small: {lane} slots for each of {num_envs} environments, '
        f'while sequences of {self.rows} rows (burn_in + length + n_step) need '
        f'{needed}',
      )
    history = num_envs * self.rows
    if self.min_history < history:
      self.refuse(
        'min_history',
        f'is too small: {num_envs} environments need {history} agent steps '
        f'before each has a sequence of {self.rows} rows',
      )
    return ring_lib.init(step, lane)

  def sample(
    self, ring: ring_lib.Ring, key: jax.Array, updates: int | jax.Array = 0
  ) -> agent_lib.Sample:
    """Returns B sequences [R, B], each drawn uniformly."""
    lane, slot = self._sample_slots(ring, key)
    return agent_lib.Sample(
      transition=self.at(updates).sequence_at(ring, lane, slot),
      index=lane * ring.capacity + slot % ring.capacity,
      weight=jnp.ones(self.batch_size),
      slot=slot,
    )

  def is_valid(
    self, ring: ring_lib.Ring, lane: jax.Array, slot: jax.Array
  ) -> jax.Array:
    """Returns [B] bool: whether sequences may begin at these slots [B]."""
    age = ring.slots.age[lane, slot % ring.capacity]
    # The frames of a stack, and the step before.
    earliest = slot - jnp.minimum(age, max(self.stack - 1, 1))
    valid = (earliest >= ring.oldest[lane]) & (
      slot + self.rows <= ring.head[lane]
    )
    return valid & (slot % self.stride == 0)

  def sequence_at(
    self, ring: ring_lib.Ring, lane: jax.Array, slot: jax.Array
  ) -> agent_lib.Sequence:
    """Returns the sequences [R, B] that begin at these slots [B]."""
    slots = slot[None] + jnp.arange(self.rows)[:, None]
    lanes = jnp.broadcast_to(lane[None], slots.shape)
    place = slots % ring.capacity
    status = ring.slots.status[lanes, place]
    observation = observation_at(ring, lanes, slots, self.stack)
    trajectory = agent_lib.Trajectory(
      observation=observation,
      action=ring.slots.action[lanes, place],
      reward=ring.slots.reward[lanes, place],
      discount=jnp.where(
        status == ring_lib.TERMINATED, 0.0, jnp.float32(self.gamma)
      ),
      # That of the last row is not known; nothing bootstraps from it.
      next_observation=jax.tree.map(
        lambda x: jnp.concatenate([x[1:], x[-1:]]), observation
      ),
      last=(status != ring_lib.RUNNING) & (status != ring_lib.LAST),
    )
    sequence = with_memory(ring, trajectory, lanes, slots)
    return sequence.replace(burn_in=self.burn_in)

  def _sample_slots(self, ring, key):
    """Draws lanes and slots [B] by rejection: exact, and rarely repeated."""
    num_envs = ring.head.shape[0]
    # The first slot of each lane's grid, and how many of them may be valid.
    first = -(-ring.oldest // self.stride)
    count = jnp.max((ring.head - self.rows) // self.stride + 1 - first)

    def draw(carry):
      key, lane, slot, valid = carry
      key, lane_key, slot_key = jax.random.split(key, 3)
      shape = (self.batch_size,)
      new = jax.random.randint(lane_key, shape, 0, num_envs)
      number = jax.random.randint(slot_key, shape, 0, count)
      lane = jnp.where(valid, lane, new)
      slot = jnp.where(valid, slot, (first[new] + number) * self.stride)
      return key, lane, slot, self.is_valid(ring, lane, slot)

    start = jnp.zeros((self.batch_size,), jnp.int32)
    _, lane, slot, _ = jax.lax.while_loop(
      lambda carry: ~jnp.all(carry[3]), draw, (key, start, start, start > 0)
    )
    return lane, slot


def observation_at(
  ring: ring_lib.Ring, lane: jax.Array, slot: jax.Array, stack: int
) -> Any:
  """Returns the observations [T, B, ...] at slots [T, B]."""
  found = ring_lib.observation_at(ring, lane.ravel(), slot.ravel(), stack)
  return jax.tree.map(lambda x: x.reshape(*slot.shape, *x.shape[1:]), found)


def with_memory(
  ring: ring_lib.Ring,
  trajectory: agent_lib.Trajectory,
  lane: jax.Array,
  slot: jax.Array,
) -> agent_lib.Sequence:
  """Returns a trajectory and what an agent with memory needs besides.

  Args:
    ring: keeps the agent's memory, and the step before each lane's first row.
    trajectory: [T, B].
    lane: [T, B], of its rows.
    slot: likewise; in a column those of one lane, rising.
  """
  place, before = slot % ring.capacity, (slot - 1) % ring.capacity
  first = ring.slots.age[lane, place] == 0

  def of_the_step_before(leaf):
    value = leaf[lane, before]
    begins = first.reshape(*first.shape, *(1,) * (value.ndim - 2))
    return jnp.where(begins, jnp.zeros_like(value), value)

  return agent_lib.Sequence(
    **vars(trajectory),
    seen=agent_lib.Seen(
      observation=trajectory.observation,
      action=of_the_step_before(ring.slots.action),
      reward=of_the_step_before(ring.slots.reward),
      first=first,
    ),
    next_seen=agent_lib.Seen(
      observation=trajectory.next_observation,
      action=trajectory.action,
      reward=trajectory.reward,
      first=jnp.zeros_like(first),
    ),
    memory=jax.tree.map(
      lambda leaf: leaf[lane[0], place[0]], ring.slots.memory
    ),
    taken=ring.slots.status[lane, place] != ring_lib.LAST,
  )
