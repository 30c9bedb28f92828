"""A ring of single frames, written in place under donation.

Each of the N environments has a lane of C slots. An episode of L steps takes
L + 1 slots: one a step, holding the frame that was acted on, and one more for
the episode's last observation, on which nothing was done. Slots are numbered
from the start of training (`head` is the number of the next one) and slot i
lies at `i % C`, so "older" and "newer" are plain comparisons.

Stacks of frames, n-step returns and next observations are built by a gather
when a batch is sampled. A frame is so kept once: 7 kB a transition of Atari.
"""

from typing import Any

from flax import struct
import jax
import jax.numpy as jnp

from dopamine_jax.replay import host_rows
from dopamine_jax.replay import mapped_rows

# How the step that was taken in a slot ended.
RUNNING, TERMINATED, TRUNCATED = 0, 1, 2
# The slot holds an episode's last observation; no step was taken in it.
LAST = 3


class Step(struct.PyTreeNode):
  """One step of N environments; leading axis [N].

  Attributes:
    observation: [N, *frame_shape], the newest frame that was acted on; an array
      or a tree of them, each leaf of a shape and type of its own.
    action: [N, *action_shape].
    reward: [N] float32.
    terminated: [N] bool.
    truncated: [N] bool.
    next_observation: [N, *frame_shape], the frame that followed, the true one
      if the episode ended.
    memory: [N, ...], what the agent carried when it chose the action; () of an
      agent without memory, or where the replay does not keep it.
  """

  observation: Any
  action: jax.Array
  reward: jax.Array
  terminated: jax.Array
  truncated: jax.Array
  next_observation: Any
  memory: Any = ()


class Slots(struct.PyTreeNode):
  """What a slot holds; leading axes [N, C].

  Attributes:
    frame: [N, C, *frame_shape], or a tree of such; each may be a `MappedRows`.
    action: [N, C, *action_shape].
    reward: [N, C] float32.
    status: [N, C] uint8, RUNNING, TERMINATED, TRUNCATED or LAST.
    age: [N, C] int32, steps since the episode began.
    memory: [N, C, ...], see `Step`.
  """

  frame: Any
  action: jax.Array
  reward: jax.Array
  status: jax.Array
  age: jax.Array
  memory: Any = ()


class Ring(struct.PyTreeNode):
  """The lanes, and where they stand.

  Attributes:
    slots: Slots.
    head: [N] int32, the number of the slot that the next step goes to. The
      slot before it and C - 2 more are live; the one at `head` itself holds
      the frame that followed the newest step. Overflows after 2**31 slots.
    age: [N] int32, steps that the running episode has taken.
  """

  slots: Slots
  head: jax.Array
  age: jax.Array

  @property
  def capacity(self) -> int:
    """Slots in a lane, C."""
    return self.slots.reward.shape[1]

  @property
  def oldest(self) -> jax.Array:
    """[N] int32, the number of the oldest live slot."""
    return jnp.maximum(self.head - (self.capacity - 1), 0)

  @property
  def fill(self) -> jax.Array:
    """The fraction of all slots that is live, float32 scalar."""
    return jnp.mean((self.head - self.oldest) / (self.capacity - 1))


def is_ring(leaf: Any) -> bool:
  """Returns whether this is a ring, to stop at when a tree is walked."""
  return isinstance(leaf, Ring)


def init(step: Step, capacity: int) -> Ring:
  """Returns an empty ring.

  Args:
    step: an example, leading axis [N]; only shapes and dtypes are used.
    capacity: slots in each lane.
  """

  def empty(leaf, dtype=None):
    n, *shape = leaf.shape
    return jnp.zeros((n, capacity, *shape), dtype or leaf.dtype)

  slots = Slots(
    frame=jax.tree.map(empty, step.observation),
    action=empty(step.action),
    reward=empty(step.reward, jnp.float32),
    status=empty(step.reward, jnp.uint8),
    age=empty(step.reward, jnp.int32),
    memory=jax.tree.map(empty, step.memory),
  )
  zeros = jnp.zeros(step.reward.shape, jnp.int32)
  # Two arrays: a donated buffer must not be passed twice.
  return Ring(slots=slots, head=zeros, age=zeros + 0)


def add(ring: Ring, step: Step) -> Ring:
  """Writes one step of every environment; in place if `ring` is donated."""
  here = ring.head % ring.capacity
  after = (ring.head + 1) % ring.capacity
  status = jnp.where(
    step.terminated,
    TERMINATED,
    jnp.where(step.truncated, TRUNCATED, RUNNING),
  ).astype(jnp.uint8)
  done = step.terminated | step.truncated
  last = jnp.full_like(status, LAST)
  slots = ring.slots
  # The slot after this one gets the frame that followed. If the episode goes
  # on, the next step writes there again; if it ended, `head` moves past it.
  slots = Slots(
    frame=jax.tree.map(
      lambda leaf, now, then: _put_both(leaf, here, now, after, then),
      slots.frame,
      step.observation,
      step.next_observation,
      is_leaf=mapped_rows.is_mapped,
    ),
    action=_put(slots.action, here, step.action),
    reward=_put(slots.reward, here, step.reward),
    status=_put(_put(slots.status, here, status), after, last),
    age=_put(_put(slots.age, here, ring.age), after, ring.age + 1),
    memory=jax.tree.map(
      lambda leaf, value: _put(leaf, here, value), slots.memory, step.memory
    ),
  )
  return ring.replace(
    slots=slots,
    head=ring.head + 1 + done,
    age=jnp.where(done, 0, ring.age + 1),
  )


def _put_both(leaf, here, now, after, then):
  """Returns `leaf` [N, C, ...] with values [N, ...] at two slots of a lane."""
  if not host_rows.are_off_device(leaf):
    return _put(_put(leaf, here, now), after, then)
  lane = jnp.arange(len(here))
  where = [jnp.stack([lane, slot], axis=-1) for slot in (here, after)]
  return host_rows.put(
    leaf, jnp.concatenate(where), jnp.concatenate([now, then])
  )


def _put(leaf: jax.Array, slot: jax.Array, value: jax.Array) -> jax.Array:
  """Returns `leaf` [N, C, ...] with `value` [N, ...] at each lane's slot."""
  if len(slot) == 1:  # XLA writes a slice faster than the points of a scatter.
    start = (0, slot[0], *(0 for _ in leaf.shape[2:]))
    value = value[:, None].astype(leaf.dtype)
    return jax.lax.dynamic_update_slice(leaf, value, start)
  lane = jnp.arange(len(slot))
  return leaf.at[lane, slot].set(value, unique_indices=True)


def stacks(frame: Any, stack: int, axes: int) -> Any:
  """Returns how many frames are stacked in each leaf of an observation.

  `stack` holds for an observation that is a single array. Of a tree it holds
  for every leaf with at least two axes of its own, such as images; of the other
  leaves an observation contains the newest value only.

  Args:
    frame: an array, or a tree of arrays.
    stack: the environment's setting.
    axes: the number of leading batch axes.
  """
  if jax.tree.structure(frame, is_leaf=mapped_rows.is_mapped) == _PLAIN:
    return stack
  return jax.tree.map(
    lambda x: stack if x.ndim - axes >= 2 else 1,
    frame,
    is_leaf=mapped_rows.is_mapped,
  )


_PLAIN = jax.tree.structure(0)


def observation_at(
  ring: Ring, lane: jax.Array, slot: jax.Array, stack: int
) -> Any:
  """Returns the observations [B, *frame_shape(, stack)] at slots [B].

  Frames from before the episode's start are zeros; `stack` = 1 adds no axis.
  """
  frame = ring.slots.frame

  def one(frames, stack):
    return _stacked(frames, ring.slots.age, lane, slot, stack)

  return jax.tree.map(
    one, frame, stacks(frame, stack, axes=2), is_leaf=mapped_rows.is_mapped
  )


def _stacked(frames, age, lane, slot, stack):
  """Returns `observation_at` of one leaf."""
  capacity = frames.shape[1]
  back = jnp.arange(stack - 1, -1, -1)[None]
  where = (slot[:, None] - back) % capacity
  rows = _rows(frames, jnp.broadcast_to(lane[:, None], where.shape), where)
  inside = age[lane, slot % capacity][:, None] >= back
  stacked = jnp.where(inside[..., None], rows, 0).astype(frames.dtype)
  shape = (*slot.shape, *frames.shape[2:])
  if stack > 1:
    shape += (stack,)
  return jnp.moveaxis(stacked, 1, -1).reshape(shape)


def _rows(frames, lane, where):
  """Returns frames as flat rows [B, stack, pixels]."""
  if host_rows.are_off_device(frames):
    index = jnp.stack([lane, where], axis=-1)
    rows = host_rows.take(frames, index.reshape(-1, 2))
    return rows.reshape(*where.shape, -1)
  # As rows of a matrix: on CPUs XLA gathers rows in half the time that it takes
  # to count through a frame's own axes. A matrix a lane: of one over all lanes,
  # no device could have a share of each lane's slots (`devices.py`).
  return frames.reshape(*frames.shape[:2], -1)[lane, where]
