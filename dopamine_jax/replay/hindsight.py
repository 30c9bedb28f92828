"""Hindsight: what was reached is learnt from as if it had been the goal.

Andrychowicz et al. (2017), Hindsight Experience Replay.
https://arxiv.org/abs/1707.01495

Goals are drawn by the paper's strategy `future`: they were achieved later in
the same episode.

Differs from the paper: a goal is drawn whenever a transition is sampled, where
the paper stores each transition with k of them besides its own. The shares are
the same, and the ring holds nothing twice.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dopamine_jax import agent as agent_lib
from dopamine_jax import errors
from dopamine_jax import settings
from dopamine_jax.replay import ring as ring_lib
from dopamine_jax.replay import uniform

# Where an observation has its goals, as Gymnasium-Robotics names them.
ACHIEVED, DESIRED = 'achieved_goal', 'desired_goal'

# What a step towards a goal may be worth: Fetch and Hand have the first and the
# third, mazes the second and the fourth.
PAYS = ('penalty', 'bonus', 'distance', 'nearness')


class Reach(settings.Settings):
  """What a goal asks for: to be there. A subclass may ask for something else.

  Its methods are pure functions of goals, in JAX. They are to give what the
  environment would have given, had that been its goal. Distances are Euclidean
  and float32: where the environment has float64, one that lies within rounding
  of `tolerance` may be judged otherwise.

  Attributes:
    tolerance: the largest distance at which a goal is reached.
    terminates: whether reaching the goal ends an episode. In the paper it
      doesn't: episodes go on to their time limit.
    pays: what a step is worth. 'penalty': 0 at the goal, else -1, as in the
      paper; 'bonus': 1 at the goal, else 0; 'distance': what is left of the
      way, negative; 'nearness': exp(-distance). Of the last two, `tolerance`
      only says where an episode ends.
  """

  tolerance: float = 0.0
  terminates: bool = False
  pays: str = 'penalty'

  def __post_init__(self):
    super().__post_init__()
    self.require_at_least(0, 'tolerance')
    self.require_one_of('pays', PAYS)

  def reached(self, achieved: jax.Array, desired: jax.Array) -> jax.Array:
    """Returns [B] bool: whether what was achieved is as good as the goal.

    Args:
      achieved: [B, *goal_shape], by the step.
      desired: [B, *goal_shape].
    """
    return _distance(achieved, desired) <= self.tolerance

  def reward(self, achieved: jax.Array, desired: jax.Array) -> jax.Array:
    """Returns the step's reward [B], of the kind that `pays` names.

    Args:
      achieved: [B, *goal_shape], by the step.
      desired: [B, *goal_shape].
    """
    if self.pays in ('distance', 'nearness'):
      distance = _distance(achieved, desired)
      return -distance if self.pays == 'distance' else jnp.exp(-distance)
    elsewhere = -1.0 if self.pays == 'penalty' else 0.0
    reached = self.reached(achieved, desired)
    return jnp.where(reached, elsewhere + 1, elsewhere)

  def terminated(self, achieved: jax.Array, desired: jax.Array) -> jax.Array:
    """Returns [B] bool: whether the goal ended the episode with the step.

    Args:
      achieved: [B, *goal_shape], by the step.
      desired: [B, *goal_shape].
    """
    reached = self.reached(achieved, desired)
    return reached if self.terminates else jnp.zeros_like(reached)


class HindsightReplay(uniform.UniformReplay):
  """Samples uniformly, and gives most transitions another goal.

  Observations are Dicts with an 'achieved_goal' and a 'desired_goal' among
  others. The new goal is what the same episode achieved at a later step, drawn
  uniformly from its later observations (of those there are, if it still runs).
  It is the goal in `observation` and `next_observation`, and `task` says what
  the step was worth then. The environment's `reward_clip` clips no such reward.

  Attributes:
    relabelled: the share of transitions with another goal; k / (k + 1) for the
      paper's k, which did best at 4 to 8.
    task: the rewards and ends of episodes under any goal.
  """

  relabelled: float = 0.8
  task: Reach = Reach()

  def __post_init__(self):
    super().__post_init__()
    self.require_fraction('relabelled')
    if self.n_step != 1:
      self.refuse(
        'n_step',
        'does not fit: another goal changes the reward of every step, and this '
        'replay works out that of one. Set n_step = 1 of the agent',
      )
    if self.steps_ahead:
      self.refuse(
        'steps_ahead',
        'does not fit: the agent predicts the steps that follow, and another '
        'goal is not put into those. Choose uniform.UniformReplay or '
        'prioritized.PrioritizedReplay, or an agent that does not predict',
      )

  def init(self, step: ring_lib.Step) -> ring_lib.Ring:
    """Returns an empty ring; see `UniformReplay.init`.

    Raises:
      UserError: if observations have no goals that can be exchanged.
    """
    self._check(step.observation)
    return super().init(step)

  def sample(
    self, ring: ring_lib.Ring, key: jax.Array, updates: int | jax.Array = 0
  ) -> agent_lib.Sample:
    """Returns B valid transitions, each drawn uniformly, as is its goal."""
    slot_key, goal_key = jax.random.split(key)
    sample = super().sample(ring, slot_key, updates)
    lane = sample.index // ring.capacity
    which_key, later_key = jax.random.split(goal_key)
    which = jax.random.uniform(which_key, lane.shape) < self.relabelled
    last = last_of_episode(ring, lane, sample.slot)
    later = jax.random.randint(later_key, lane.shape, sample.slot + 1, last + 1)
    goal = ring_lib.observation_at(ring, lane, later, self.stack)[ACHIEVED]
    status = ring.slots.status[lane, sample.slot % ring.capacity]
    terminated = status == ring_lib.TERMINATED
    now = self.at(updates)
    batch = now.with_goal(sample.transition, goal, terminated)
    return sample.replace(
      transition=jax.tree.map(
        lambda new, old: _where(which, new, old), batch, sample.transition
      )
    )

  def with_goal(
    self,
    batch: agent_lib.Transition,
    goal: jax.Array,
    terminated: jax.Array,
  ) -> agent_lib.Transition:
    """Returns the transitions [B] as they would be with other goals.

    Args:
      batch: of one step each.
      goal: [B, *goal_shape].
      terminated: [B] bool, as the environment said.
    """
    achieved = batch.next_observation[ACHIEVED]
    reward = self._told('reward', achieved, goal)
    # What ended otherwise, by a fall perhaps, ends so under any goal.
    own = batch.observation[DESIRED]
    terminated &= ~self._told('terminated', achieved, own)
    terminated |= self._told('terminated', achieved, goal)
    return batch.replace(
      observation=batch.observation | {DESIRED: goal},
      reward=reward.astype(jnp.float32),
      discount=jnp.where(terminated, 0.0, jnp.float32(self.gamma)),
      next_observation=batch.next_observation | {DESIRED: goal},
    )

  def _told(self, name, achieved, goal):
    """Returns what the task's method says, if it fits each transition."""
    given = getattr(self.task, name)(achieved, goal)
    shape = achieved.shape[:1]
    wanted, kind = 'a number', jnp.number
    if name == 'terminated':
      wanted, kind = 'a bool', jnp.bool_
    is_array = isinstance(given, jax.Array | np.ndarray)
    if (
      not is_array
      or given.shape != shape
      or not jnp.issubdtype(given.dtype, kind)
    ):
      came = type(given).__name__
      if is_array:
        came = f'{given.dtype} of shape {given.shape}'
      raise errors.UserError(
        f'{type(self.task).__name__}.{name} must return an array of shape '
        f'{shape}, {wanted} for each transition, and it gave {came}. Mend it.'
      )
    return jnp.asarray(given)

  def _check(self, observation):
    """Refuses observations without two goals of one kind."""
    is_dict = isinstance(observation, dict)
    keys = sorted(observation) if is_dict else []
    if not {ACHIEVED, DESIRED} <= set(keys):
      given = f'a Dict of {keys}' if is_dict else 'no Dict'
      raise errors.UserError(
        f'hindsight.HindsightReplay needs observations of a Dict with '
        f"'{ACHIEVED}' and '{DESIRED}', and those here are {given}. Choose an "
        'environment with goals, or uniform.UniformReplay.'
      )
    kinds = [_kind(observation[name]) for name in (ACHIEVED, DESIRED)]
    if kinds[0] != kinds[1] or kinds[0] == 'a tree':
      raise errors.UserError(
        f'hindsight.HindsightReplay puts what was achieved in the place of the '
        f"goal, and here '{ACHIEVED}' is {kinds[0]} and '{DESIRED}' is "
        f'{kinds[1]}. Give both spaces one shape and type, as plain arrays.'
      )
    if self.stack > 1 and observation[DESIRED].ndim > 2:
      self.refuse(
        'stack',
        f'does not fit: goals here are {kinds[0]}, of which frames would be '
        'stacked. Choose an environment whose goals are vectors',
      )


def last_of_episode(
  ring: ring_lib.Ring, lane: jax.Array, slot: jax.Array
) -> jax.Array:
  """Returns the newest slots [B] of the episodes that slots [B] belong to.

  Of an episode that has ended it is that of its last observation, and of one
  that runs that of the frame which followed the newest step.

  Args:
    ring: holds them.
    lane: [B].
    slot: [B], in which steps were taken.
  """
  newest = ring.head[lane] - (ring.age[lane] == 0)
  age = ring.slots.age[lane, slot % ring.capacity]
  bits = ring.capacity.bit_length()

  # Ages rise by one from slot to slot, and fall where an episode begins: so a
  # later slot is of the same episode exactly if it is older by the distance,
  # and the last such slot is found bit by bit.
  def look(i, ahead):
    further = ahead + (1 << (bits - 1 - i))  # the highest bit first
    there = (slot + further) % ring.capacity
    same = ring.slots.age[lane, there] == age + further
    return jnp.where(same & (slot + further <= newest), further, ahead)

  return slot + jax.lax.fori_loop(0, bits, look, jnp.zeros_like(slot))


def _distance(achieved, desired):
  """Returns distances [B] of goals [B, *goal_shape], float32."""
  apart = achieved.astype(jnp.float32) - desired.astype(jnp.float32)
  return jnp.sqrt(jnp.sum(apart.reshape(len(apart), -1) ** 2, axis=1))


def _where(which, new, old):
  """Returns rows [B, ...] of `new` where `which` [B], and else of `old`."""
  return jnp.where(which.reshape(-1, *(1,) * (new.ndim - 1)), new, old)


def _kind(leaf: Any) -> str:
  """Returns type and shape of a leaf [N, *shape], in words."""
  if not hasattr(leaf, 'shape'):
    return 'a tree'
  return f'{leaf.dtype}{list(leaf.shape[1:])}'
