"""Uniform replay over a ring of single frames (Mnih et al., 2015)."""

import jax
import jax.numpy as jnp
import optax

from dopamine_jax import agent as agent_lib
from dopamine_jax.replay import base
from dopamine_jax.replay import following
from dopamine_jax.replay import ring as ring_lib


class UniformReplay(base.Replay):
  """Samples uniformly, with replacement, over all valid transitions.

  A transition is valid once its n steps have been taken or its episode has
  ended, and until one of its frames is overwritten.

  Attributes:
    capacity: slots over all environments; a step takes one, and each episode
      one more for its last observation.
    batch_size: transitions in a sample, B.
    min_history: agent steps before the first update. Those that a training
      begins with are taken by random actions.
    n_step: steps over which rewards are summed (given by the agent).
    annealed_n_step: how many of those steps count, an optax schedule over
      updates whose values are rounded, such as one from 10 to 3 (Schwarzer et
      al., 2023, https://arxiv.org/abs/2305.19452). `n_step` is the most that
      there may be, and what makes a transition valid. None: all of them.
    steps_ahead: steps that come with each transition, whose samples then are of
      `following.Followed` (given by an agent that predicts).
  """

  given_later = ('n_step', 'gamma', 'stack', 'steps_ahead')
  over_updates = ('gamma', 'annealed_n_step')

  capacity: int = 1_000_000
  batch_size: int = 32
  min_history: int = 20_000
  n_step: int = 1
  annealed_n_step: float | optax.Schedule | None = None
  steps_ahead: int = 0

  def __post_init__(self):
    super().__post_init__()
    self.require_at_least(1, 'capacity', 'batch_size', 'min_history', 'n_step')
    self.require_at_least(1, 'annealed_n_step')
    self.require_at_least(0, 'steps_ahead')
    if max(self._numbers_of('annealed_n_step'), default=0) > self.n_step:
      self.refuse(
        'annealed_n_step',
        f'is more than n_step = {self.n_step}, the most that may count. Set '
        'n_step of the agent to the largest value of the schedule, and in '
        'Python make the replay by functools.partial, so that it is told',
      )
    if self.batch_size > self.min_history:
      self.refuse(
        'batch_size',
        f'is larger than the history that learning starts with '
        f'(min_history = {self.min_history})',
      )
    if self.min_history > self.capacity:
      self.refuse(
        'min_history', f'is larger than the ring (capacity = {self.capacity})'
      )

  @property
  def warm_up(self) -> int:
    """Agent steps that are taken by random actions."""
    return self.min_history

  def check_split(self, num_devices: int):
    """Refuses devices that can't share each batch evenly."""
    if self.batch_size % num_devices:
      self.refuse(
        'batch_size',
        f'is not a multiple of the {num_devices} devices that it is split over '
        "(devices.Devices.split = 'batch')",
      )

  def init(self, step: ring_lib.Step) -> ring_lib.Ring:
    """Returns an empty ring for steps like the example `step`.

    Raises:
      SettingError: if n steps and a stack don't fit into an environment's
        share of the ring, or of the history that learning starts with.
    """
    num_envs = step.reward.shape[0]
    lane = self.capacity // num_envs
    if lane < self.n_step + self.stack + 1:
      self.refuse(
        'capacity',
        f'is too small: {lane} slots for each of {num_envs} environments, '
        f'while n_step = {self.n_step} and stack = {self.stack} need '
        f'{self.n_step + self.stack + 1}',
      )
    if self.min_history < self.n_step * num_envs:
      self.refuse(
        'min_history',
        f'is too small: {num_envs} environments need {self.n_step} steps each '
        f'(n_step) before a transition is complete',
      )
    return ring_lib.init(step, lane)

  def sample(
    self, ring: ring_lib.Ring, key: jax.Array, updates: int | jax.Array = 0
  ) -> agent_lib.Sample:
    """Returns B valid transitions, each drawn uniformly."""
    lane, slot = self._sample_slots(ring, key)
    return agent_lib.Sample(
      transition=self.at(updates).transition_at(ring, lane, slot),
      index=lane * ring.capacity + slot % ring.capacity,
      weight=jnp.ones(self.batch_size),
      slot=slot,
    )

  def filled(self, ring: ring_lib.Ring) -> ring_lib.Ring:
    """Returns a ring of one lane whose slots were written from outside."""
    return ring

  def _sample_slots(self, ring, key):
    """Draws lanes and slots [B] by rejection: exact, and rarely repeated.

    Only an episode's last observation, the newest n - 1 steps and the oldest
    frames are invalid, so that nearly every first draw stands.
    """
    live = jnp.max(ring.head - ring.oldest)
    choices = (live * ring.head.shape[0]).astype(jnp.uint32)
    # The largest multiple of `choices` in 32 bits: numbers beyond it, which
    # would make the remainder favour small ones, are drawn again too.
    end = jnp.uint32(2**32 - 1) // choices * choices

    def draw(carry):
      key, lane, slot, valid = carry
      key, draw_key = jax.random.split(key)
      number = jax.random.bits(draw_key, (self.batch_size,))
      choice = (number % choices).astype(jnp.int32)
      new_lane, back = choice // live, choice % live
      lane = jnp.where(valid, lane, new_lane)
      slot = jnp.where(valid, slot, ring.head[new_lane] - 1 - back)
      fair = valid | (number < end)
      return key, lane, slot, fair & self.is_valid(ring, lane, slot)

    start = jnp.zeros((self.batch_size,), jnp.int32)
    _, lane, slot, _ = jax.lax.while_loop(
      lambda carry: ~jnp.all(carry[3]), draw, (key, start, start, start > 0)
    )
    return lane, slot

  def is_valid(
    self, ring: ring_lib.Ring, lane: jax.Array, slot: jax.Array
  ) -> jax.Array:
    """Returns [B] bool: whether valid transitions start at these slots [B].

    Slots are counted from the start of the training, see `ring`.
    """
    age = ring.slots.age[lane, slot % ring.capacity]
    earliest = slot - jnp.minimum(age, self.stack - 1)
    live = (earliest >= ring.oldest[lane]) & (slot < ring.head[lane])
    status, taken = self._steps_from(ring, lane, slot)
    complete = (slot + self.n_step <= ring.head[lane]) | jnp.any(
      taken & _ended(status), axis=1
    )
    return live & complete & (status[:, 0] != ring_lib.LAST)

  def transition_at(
    self, ring: ring_lib.Ring, lane: jax.Array, slot: jax.Array
  ) -> agent_lib.Transition:
    """Builds the transitions [B] that start at these slots.

    Near an episode's end the k steps that count are fewer than n; `discount`
    is gamma**k, or 0 if the last of them terminated. Of a replay with schedules
    it is that of `at`.
    """
    status, taken = self._steps_from(ring, lane, slot)
    ended = taken & _ended(status)
    # A step counts if no step before it ended the episode.
    counts = jnp.cumsum(ended, axis=1) - ended == 0
    if self.annealed_n_step is not None:
      counts &= jnp.arange(self.n_step)[None] < jnp.round(self.annealed_n_step)
    powers = jnp.asarray(self.gamma, jnp.float32) ** jnp.arange(self.n_step)
    index = (slot[:, None] + jnp.arange(self.n_step)[None]) % ring.capacity
    rewards = ring.slots.reward[lane[:, None], index]
    reward = jnp.sum(jnp.where(counts, rewards * powers[None], 0.0), axis=1)
    k = jnp.sum(counts, axis=1)
    terminated = jnp.any(counts & (status == ring_lib.TERMINATED), axis=1)
    discount = jnp.where(terminated, 0.0, jnp.float32(self.gamma) ** k)
    transition = agent_lib.Transition(
      observation=ring_lib.observation_at(ring, lane, slot, self.stack),
      action=ring.slots.action[lane, slot % ring.capacity],
      reward=reward,
      discount=discount,
      next_observation=ring_lib.observation_at(
        ring, lane, slot + k, self.stack
      ),
    )
    if not self.steps_ahead:
      return transition
    return following.followed(
      ring, lane, slot, transition, self.steps_ahead, self.stack
    )

  def _steps_from(self, ring, lane, slot):
    """Returns status [B, n] of the n steps on, and which have been taken."""
    ahead = slot[:, None] + jnp.arange(self.n_step)[None]
    status = ring.slots.status[lane[:, None], ahead % ring.capacity]
    return status, ahead < ring.head[lane][:, None]


def _ended(status):
  return (status == ring_lib.TERMINATED) | (status == ring_lib.TRUNCATED)
