"""Prioritized replay (Schaul et al., 2016, https://arxiv.org/abs/1511.05952).

A transition is drawn with probability P(i) = p_i^alpha / sum_k p_k^alpha, and
its loss weighted by (N P(i))^-beta over the largest such weight of the batch.

Differs from the paper:
1. alpha counts from what an agent returns as priority, the root of its loss.
   With 1.0 it is what Castro et al. (2018) and, on the loss, Hessel et al.
   (2018; omega = 0.5) have; the paper has 0.6, on |TD error|.
2. beta is fixed at 0.5 by default, as in Castro et al.; the paper raises it
   from 0.4 to 1.
3. Draws are independent by default; `stratified` gives the paper's.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from dopamine_jax import agent as agent_lib
from dopamine_jax import errors
from dopamine_jax import values
from dopamine_jax.replay import ring as ring_lib
from dopamine_jax.replay import sum_tree
from dopamine_jax.replay import uniform

# What an agent returns as priority where the old one is to stay.
KEEP = -1.0
_FLOAT = jnp.finfo(jnp.float32)


class PrioritizedRing(ring_lib.Ring):
  """A ring, and p^alpha of all that it holds.

  Attributes:
    tree: a sum tree with a leaf a slot, lane after lane; zero where no valid
      transition begins.
    largest: float32 scalar, the largest p^alpha that any had; 0 if none.
  """

  tree: sum_tree.SumTree
  largest: jax.Array


class PrioritizedReplay(uniform.UniformReplay):
  """Samples valid transitions, with replacement, by their priorities.

  A transition gets the largest priority so far (at least 1) when it becomes
  valid, and what the agent returns for it whenever it is sampled.

  Attributes:
    alpha: exponent of priorities; with 0 all are alike.
    beta: exponent of importance weights in [0, 1], a number or an optax
      schedule over updates; with 0 they are all one.
    stratified: whether the B draws come from B equal parts of all priorities,
      one from each.
    epsilon: added to each priority, so that none is zero.
  """

  alpha: float = 1.0
  beta: float | optax.Schedule = 0.5
  stratified: bool = False
  epsilon: float = 1e-6

  def __post_init__(self):
    super().__post_init__()
    self.require_at_least(0, 'alpha', 'epsilon')
    self.require_fraction('beta')

  def init(self, step: ring_lib.Step) -> PrioritizedRing:
    """See `Replay.init`."""
    return empty(super().init(step))

  def filled(self, ring: PrioritizedRing) -> PrioritizedRing:
    """Returns the ring with priority 1 for each valid transition; see base."""
    slot = jnp.arange(ring.capacity)
    valid = self.is_valid(ring, jnp.zeros_like(slot), slot)
    tree = sum_tree.put(ring.tree, slot, jnp.where(valid, 1.0, 0.0))
    return ring.replace(tree=tree)

  def add(self, ring: PrioritizedRing, step: ring_lib.Step) -> PrioritizedRing:
    """Adds a step; priorities follow what becomes valid, or ceases to be."""
    newest, age = ring.head[:, None], ring.age[:, None]
    done = (step.terminated | step.truncated)[:, None]
    ring = ring_lib.add(ring, step)
    # From the slot n - 1 steps back to the last that may need a frame that was
    # overwritten. In a ring the oldest slots lie behind the newest one.
    ahead = jnp.arange(1 - self.n_step, self.stack + 2)[None]
    lane = jnp.arange(len(newest))[:, None]
    slot = (newest + ahead) % ring.capacity
    complete = (ahead <= 0) & (-ahead <= age)
    complete &= done | (ahead == 1 - self.n_step)
    # One slot ahead lies the frame that followed, which ended what was there;
    # if that is an episode's last, the next to be written is one further.
    frames = jnp.minimum(ring.slots.age[lane, slot], self.stack - 1)
    lost = (ahead > 0) & (ahead - frames < 2 + done)
    priority = jnp.where(complete, jnp.maximum(ring.largest, 1.0), 0.0)
    tree = sum_tree.put(
      ring.tree,
      (lane * ring.capacity + slot).ravel(),
      priority.ravel(),
      where=(complete | lost).ravel(),
    )
    return ring.replace(tree=tree)

  def sample(
    self, ring: PrioritizedRing, key: jax.Array, updates: int | jax.Array = 0
  ) -> agent_lib.Sample:
    """Returns B valid transitions, each drawn by its priority; see base."""
    beta = values.at(self.beta, updates)
    drawn = draw(ring, key, self.batch_size, beta, stratified=self.stratified)
    return sample_of(ring, *drawn, self.at(updates).transition_at)

  def reprioritize(
    self, ring: PrioritizedRing, index: jax.Array, priority: jax.Array
  ) -> PrioritizedRing:
    """Returns the ring with priorities [B] >= 0 for what was sampled.

    Of several for one transition, the largest holds. `KEEP` leaves the old one.
    Those of slots in which no valid transition begins (any more) change
    nothing.
    """
    return put(ring, index, priority, self.epsilon, self.alpha)


def empty(ring: ring_lib.Ring) -> PrioritizedRing:
  """Returns an empty ring with a place for each slot's priority."""
  return PrioritizedRing(
    slots=ring.slots,
    head=ring.head,
    age=ring.age,
    tree=sum_tree.init(ring.head.shape[0] * ring.capacity),
    largest=jnp.zeros(()),
  )


def draw(
  ring: PrioritizedRing,
  key: jax.Array,
  batch_size: int,
  beta: float | jax.Array,
  *,
  stratified: bool,
) -> tuple[jax.Array, jax.Array]:
  """Returns B leaves of the tree, drawn by priority, and their weights [B]."""
  depth = ring.tree.depth
  fraction, *finer = jax.random.uniform(key, (1 + depth, batch_size))
  if stratified:
    fraction = (jnp.arange(batch_size) + fraction) / batch_size
    fraction = jnp.minimum(fraction, 1 - _FLOAT.epsneg)  # it may round to 1
  index = sum_tree.find(ring.tree, fraction, jnp.stack(finer))
  # N and the sum of all priorities fall out of the weights.
  relative = sum_tree.get(ring.tree, index)
  relative = jnp.min(relative) / relative
  return index, relative**beta


def place_of(
  ring: ring_lib.Ring, index: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Returns the lanes and slots [B] that belong to leaves [B] of the tree."""
  lane, slot = index // ring.capacity, index % ring.capacity
  newest = ring.head[lane] - 1
  return lane, newest - (newest - slot) % ring.capacity


def sample_of(
  ring: PrioritizedRing,
  index: jax.Array,
  weight: jax.Array,
  at: Callable[..., agent_lib.Transition],
) -> agent_lib.Sample:
  """Returns what was drawn, by `draw`.

  Args:
    ring: that was drawn from.
    index: [B], leaves of the tree.
    weight: [B].
    at: gives what begins at slots [B], of a ring, lanes and slots.
  """
  lane, slot = place_of(ring, index)
  return agent_lib.Sample(
    transition=at(ring, lane, slot), index=index, weight=weight, slot=slot
  )


def put(
  ring: PrioritizedRing,
  index: jax.Array,
  priority: jax.Array,
  epsilon: float,
  alpha: float,
) -> PrioritizedRing:
  """Returns the ring with (priority + epsilon)^alpha for what was sampled.

  Raises:
    UserError: if there is no priority for each index.
  """
  given = getattr(priority, 'shape', None)
  if given != index.shape:
    shown = type(priority).__name__ if given is None else given
    raise errors.UserError(
      f'Agent.update must return a priority for each transition, of shape '
      f'{index.shape}, and it gave {shown}. Mend the agent.'
    )
  # Below or above these, sums of them would not be what they should.
  high = _FLOAT.max / ring.tree.levels[0].size
  is_new = priority != KEEP
  priority = jnp.where(is_new, priority, 0.0)
  priority = jnp.clip((priority + epsilon) ** alpha, _FLOAT.tiny, high)
  tree = sum_tree.put(
    ring.tree,
    index,
    sum_tree.agree(index, priority),
    where=is_new & (sum_tree.get(ring.tree, index) > 0),
  )
  return ring.replace(
    tree=tree,
    largest=jnp.maximum(
      ring.largest, jnp.max(jnp.where(is_new, priority, 0.0))
    ),
  )
