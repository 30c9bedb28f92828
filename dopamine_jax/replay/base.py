"""The contract of a replay: settings, and pure functions over a ring."""

from collections.abc import Callable
from typing import Self

import jax
import optax

from dopamine_jax import agent as agent_lib
from dopamine_jax import lanes
from dopamine_jax import settings
from dopamine_jax.replay import ring as ring_lib


class Replay(settings.Settings):
  """What loop and engines need of a replay; it adds to a ring.

  Attributes:
    gamma: discount of one step, a number or an optax schedule over updates
      (given by the agent).
    stack: frames in an observation (given by the environment).
    min_history: agent steps before the first update; subclasses have it.
    warm_up: agent steps of a training that are taken by random actions, at most
      `min_history`; subclasses have it.
  """

  given_later = ('gamma', 'stack')

  gamma: float | optax.Schedule = 0.99
  stack: int = 1

  # No settings: they have no type. Whether the ring keeps the agent's memory
  # with each step.
  keeps_memory = False
  # Those that may be schedules over updates.
  over_updates = ('gamma',)

  def __post_init__(self):
    super().__post_init__()
    self.require_at_least(1, 'stack')
    self.require_fraction('gamma')

  def at(self, updates: int | jax.Array) -> Self:
    """Returns the replay with numbers where it has schedules over updates."""
    schedules = {name: getattr(self, name) for name in self.over_updates}
    numbers = {
      (name,): schedule(updates)
      for name, schedule in schedules.items()
      if callable(schedule)
    }
    return lanes.put(self, numbers) if numbers else self

  def check_split(self, num_devices: int):
    """Refuses devices that can't share each sample."""
    raise NotImplementedError

  def init(self, step: ring_lib.Step) -> ring_lib.Ring:
    """Returns an empty ring for steps like the example `step`."""
    raise NotImplementedError

  def add(self, ring: ring_lib.Ring, step: ring_lib.Step) -> ring_lib.Ring:
    """Returns the ring with one step of each environment added."""
    return ring_lib.add(ring, step)

  def fill(self, ring: ring_lib.Ring) -> jax.Array:
    """Returns the fraction of the ring that is in use, float32 scalar."""
    return ring.fill

  def sample(
    self, ring: ring_lib.Ring, key: jax.Array, updates: int | jax.Array = 0
  ) -> agent_lib.Sample:
    """Returns what to learn from.

    Args:
      ring: has a valid one.
      key: a PRNG key for this sample alone.
      updates: how many came before; what schedules count.
    """
    raise NotImplementedError

  def reprioritize(
    self, ring: ring_lib.Ring, index: jax.Array, priority: jax.Array
  ) -> ring_lib.Ring:
    """Returns the ring as it is; a replay with priorities keeps them.

    Args:
      ring: that was sampled.
      index: the sample's.
      priority: what the agent returned for it, >= 0.
    """
    del index, priority
    return ring


# A setting that makes a replay.
Maker = Replay | Callable[..., Replay]
