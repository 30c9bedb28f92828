"""Sequences by their priorities: Kapturowski et al. (2019), section 2.3.

Recurrent Experience Replay in Distributed Reinforcement Learning.
https://openreview.net/forum?id=r1lyTjAqYX
"""

import jax
import jax.numpy as jnp
import optax

from dopamine_jax import agent as agent_lib
from dopamine_jax import values
from dopamine_jax.replay import prioritized
from dopamine_jax.replay import ring as ring_lib
from dopamine_jax.replay import sequences
from dopamine_jax.replay import sum_tree


class PrioritizedSequenceReplay(sequences.SequenceReplay):
  """Samples valid sequences, with replacement, by their priorities.

  A sequence gets the largest priority so far (at least 1) when its last row is
  there, and what the agent returns for it whenever it is sampled.

  Attributes:
    alpha: exponent of priorities; with 0 all are alike.
    beta: exponent of importance weights in [0, 1], a number or an optax
      schedule over updates; with 0 they are all one.
    epsilon: added to each priority, so that none is zero.
  """

  alpha: float = 0.9
  beta: float | optax.Schedule = 0.6
  epsilon: float = 1e-6

  def __post_init__(self):
    super().__post_init__()
    self.require_at_least(0, 'alpha', 'epsilon')
    self.require_fraction('beta')

  def init(self, step: ring_lib.Step) -> prioritized.PrioritizedRing:
    """See `Replay.init`."""
    return prioritized.empty(super().init(step))

  def add(
    self, ring: prioritized.PrioritizedRing, step: ring_lib.Step
  ) -> prioritized.PrioritizedRing:
    """Adds a step; priorities follow what becomes valid, or ceases to be."""
    done = (step.terminated | step.truncated)[:, None]
    ring = ring_lib.add(ring, step)
    lane = jnp.arange(len(ring.head))[:, None]
    # The end of an episode fills two slots, and so may complete two sequences.
    back = jnp.array([[0, 1]])
    new = ring.head[:, None] - self.rows - back
    complete = (back == 0) | done
    complete &= self.is_valid(ring, lane, new) & (new >= 0)
    # The oldest may lose their first row, its frames or the step before it.
    ahead = jnp.arange(-2, max(self.stack - 1, 1))[None]
    old = ring.oldest[:, None] + ahead
    lost = (old >= 0) & ~self.is_valid(ring, lane, old)
    slot = jnp.concatenate([new, old], axis=1)
    where = jnp.concatenate([complete, lost], axis=1)
    largest = jnp.maximum(ring.largest, 1.0)
    priority = jnp.where(jnp.arange(slot.shape[1]) < 2, largest, 0.0)
    tree = sum_tree.put(
      ring.tree,
      (lane * ring.capacity + slot % ring.capacity).ravel(),
      jnp.broadcast_to(priority[None], slot.shape).ravel(),
      where=where.ravel(),
    )
    return ring.replace(tree=tree)

  def sample(
    self,
    ring: prioritized.PrioritizedRing,
    key: jax.Array,
    updates: int | jax.Array = 0,
  ) -> agent_lib.Sample:
    """Returns B sequences [R, B], each drawn by its priority; see base."""
    beta = values.at(self.beta, updates)
    drawn = prioritized.draw(ring, key, self.batch_size, beta, stratified=False)
    now = self.at(updates)
    return prioritized.sample_of(ring, *drawn, now.sequence_at)

  def reprioritize(
    self,
    ring: prioritized.PrioritizedRing,
    index: jax.Array,
    priority: jax.Array,
  ) -> prioritized.PrioritizedRing:
    """Returns the ring with new priorities [B]; see `PrioritizedReplay`."""
    return prioritized.put(ring, index, priority, self.epsilon, self.alpha)
