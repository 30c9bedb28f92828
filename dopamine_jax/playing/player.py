"""A trained agent that acts: NumPy in, NumPy out."""

from collections.abc import Sequence
import contextlib
import pathlib
from typing import Any

import gymnasium
import jax
import numpy as np

from dopamine_jax import agent as agent_lib
from dopamine_jax import errors
from dopamine_jax import spaces
from dopamine_jax.engines import counting
from dopamine_jax.engines import evaluation
from dopamine_jax.engines import loop
from dopamine_jax.engines import memory as memory_lib
from dopamine_jax.engines import stacking
from dopamine_jax.playing import exports
from dopamine_jax.playing import trained as trained_lib


class Player:
  """One seed of a training, which acts on what an environment gives.

  Observations are those of the environment itself, one or a batch [N, ...]:
  of Gymnasium's as they come, of Atari the single frames that
  `environments.atari` makes. Frames are stacked here, so tell where an episode
  begins. Actions are the environment's too.

  Attributes:
    folder: the run's.
    seed: which one of its seeds.
    agent: the settings, all exploration off.
    state: the agent's state.
    environment: settings of what it was trained on.
    iteration: of the checkpoint.
    agent_steps: of training, until then.
  """

  def __init__(self, trained: trained_lib.Trained, seed: int | None = None):
    seed = trained.seeds[0] if seed is None else seed
    seed = int(seed) if isinstance(seed, np.integer) else seed
    if type(seed) is not int or seed not in trained.seeds:
      raise errors.UserError(
        f'{trained.folder} has no seed {seed!r}; its seeds are '
        f'{", ".join(map(str, trained.seeds))}.'
      )
    self.folder, self.seed = trained.folder, seed
    self.agent, self.environment = trained.agent, trained.environment
    self.iteration, self.agent_steps = trained.iteration, trained.steps
    self.state = trained.axis.pick(trained.state, trained.seeds.index(seed))
    with contextlib.closing(self.environment.make(1)) as environments:
      self._environments = environments
    self._key = jax.random.key(seed)
    self._count = 0
    self._stacked: Any = None  # array [N, *observation_shape]
    self._taken: Any = None  # the actions [N, ...], and what is carried on
    self._act = jax.jit(self._choose)
    self._look = jax.jit(self._outlook)

  def act(
    self,
    observation: Any,
    first: bool | Sequence[bool] = False,
    reward: float | Sequence[float] = 0.0,
  ) -> np.ndarray:
    """Returns the action for an observation, or the actions for a batch.

    Args:
      observation: what the environment gives, [*shape], or [N, *shape].
      first: whether an episode begins with it, [N] of a batch. It matters to
        agents that see stacks of frames or have memory; the first of all needs
        no word.
      reward: what the step before brought, [N] of a batch; for agents with
        memory that see it.

    Raises:
      UserError: if the observation has another shape or type.
    """
    frames, is_one = self._frames(observation)
    self._stacked = self._stack(frames, first)
    memory = self._carried(first, reward)
    actions, carried = self._act(self.state, memory, self._stacked, self._count)
    self._taken = actions, carried
    self._count += 1
    actions = self._environments.as_taken(np.asarray(actions))
    return actions[0] if is_one else actions

  def reset(self):
    """Forgets what was seen; the next observations begin episodes."""
    self._stacked = self._taken = None

  def outlook(self, observation: Any) -> agent_lib.Outlook:
    """Returns what the agent expects and means to do, see `agent.Outlook`.

    Of what it sees if the next observation is this one, and the step before
    brought no reward; nothing is remembered.

    Raises:
      UserError: if the agent tells nothing.
    """
    frames, is_one = self._frames(observation)
    stacked = self._stack(frames, False)
    memory = self._carried(False, 0.0, spaces.num_rows(frames))
    found = self._look(self.state, memory, stacked, self._count)
    if found is None:
      raise errors.UserError(
        f'{type(self.agent).__name__} tells nothing: it has no method outlook.'
      )
    return jax.tree.map(
      lambda leaf: np.asarray(leaf)[0] if is_one else np.asarray(leaf), found
    )

  def values(self, observation: Any) -> np.ndarray:
    """Returns the value of each action [A], or [N, A] of a batch.

    Raises:
      UserError: if the agent has no values of actions.
    """
    values = self.outlook(observation).values
    if values is None:
      raise errors.UserError(
        f'{type(self.agent).__name__} has no values of actions; `outlook` '
        'returns what it has.'
      )
    return values

  def export(self, folder: str | pathlib.Path) -> pathlib.Path:
    """Writes the agent for use without this framework; returns the folder.

    `parameters.safetensors` has the networks' parameters, by their paths, and
    what else of the agent's state the policy reads, by the field's name first
    (BBF acts by `target_params`). `policy.jax` is what
    `jax.export.deserialize` reads: a function of observations [N, ...] as the
    agent sees them, stacked, that returns its actions [N, ...]. `card.json`
    says what they are, and which parameters the policy reads. Of an agent with
    memory the function also takes the actions and rewards of the step before,
    whether episodes begin, and the arrays of its memory, which it returns
    behind the actions.

    Raises:
      UserError: if the folder has such files already, or an extra is missing.
    """
    return exports.write(self, self._choose, folder)

  def _frames(self, observation):
    """Returns frames [N, ...] as agents see them, and whether it was one."""
    space = self._environments.given_space
    try:
      parts = spaces.flatten(space, spaces.only(space, observation))
    except ValueError as error:
      hint = ''
      if isinstance(space, spaces.Masked):
        hint = (
          " Give a dict: {'observation': ..., 'action_mask': "
          "info['action_mask']}."
        )
      raise errors.UserError(
        f'an observation of type {type(observation).__name__}; expected one of '
        f'{space}, or several of them in its arrays; it differs at '
        f'observation{error}.{hint}'
      ) from None
    kinds = zip(
      spaces.leaves(space).values(),
      spaces.leaves(self._environments.observation_space).values(),
      parts,
      strict=True,
    )
    read = [_rows(*each) for each in kinds]
    rows, is_one = zip(*read, strict=True)
    if len({(len(each), one) for each, one in read}) > 1:
      raise errors.UserError(
        'an observation whose parts are of '
        f'{" and ".join(str(len(each)) for each in rows)} observations; '
        'expected as many in each.'
      )
    tree = spaces.unflatten(space, rows)
    return self._environments.as_seen(tree), is_one[0]

  def _stack(self, frames, first):
    """Returns the stacks [N, ...] that an agent sees, with these as newest."""
    if np.asarray(first).dtype != bool:
      raise errors.UserError(f'first = {first!r:.60}; expected True or False.')
    count = spaces.num_rows(frames)
    if np.shape(first) not in ((), (count,)):
      raise errors.UserError(
        f'first has the shape {np.shape(first)}; expected one bool, or one for '
        f'each of {count} observations.'
      )
    size = self.environment.stack
    if self._stacked is None:
      return stacking.first_observation(frames, size)
    remembers = size > 1 or memory_lib.is_carried(self.agent)
    if remembers and spaces.num_rows(self._stacked) != count:
      raise errors.UserError(
        f'{count} observations, and there were '
        f'{spaces.num_rows(self._stacked)} before. Call reset() where others '
        'begin.'
      )
    begins = np.broadcast_to(first, count)
    return stacking.next_observation(self._stacked, frames, begins, size)

  def _carried(self, first, reward, num_envs=None):
    """Returns what an agent with memory carries into the next step."""
    if not memory_lib.is_carried(self.agent):
      return ()
    if self._taken is None:
      num_envs = num_envs or spaces.num_rows(self._stacked)
      actions = loop.random_actions(
        self.agent.action_space, self._key, num_envs
      )
      return memory_lib.begin(self.agent, actions)
    actions, carried = self._taken
    reward = np.asarray(reward, np.float32)
    if reward.shape not in ((), (len(actions),)):
      raise errors.UserError(
        f'reward has the shape {reward.shape}; expected one number, or one for '
        f'each of {len(actions)} observations.'
      )
    reward = loop.clipped(reward, self.environment.reward_clip)
    shape = (len(actions),)
    return memory_lib.see(
      *(self.agent, carried, actions),
      *(np.broadcast_to(reward, shape), np.broadcast_to(first, shape)),
    )

  def _choose(self, state, memory, observation, count):
    step = np.int32(counting.in_32_bits(self.agent_steps))
    key = self._step_key(count)
    return memory_lib.act(
      self.agent, state, memory, observation, step, key, explore=False
    )

  def _outlook(self, state, memory, observation, count):
    key = self._step_key(count)
    return memory_lib.outlook(self.agent, state, memory, observation, key)

  def _step_key(self, count):
    return evaluation.step_key(self._key, count)


def _rows(given, seen, part):
  """Returns a leaf's rows [N, ...], and whether it was but one.

  Args:
    given: the leaf's space, as the environment gives it.
    seen: as agents see it.
    part: what was given.
  """
  try:
    rows = np.asarray(part)
  except ValueError:  # rows of unlike lengths
    rows = np.empty((), object)
  shape = given.shape
  if rows.dtype.kind not in 'biuf':
    raise errors.UserError(
      f'an observation of {rows.dtype}: {str(part)[:60]}; expected numbers of '
      f'shape {shape}, or several of them. (reset() of Gymnasium returns an '
      'observation and more, of which the first is meant.)'
    )
  is_one = rows.shape == shape
  if not is_one and (rows.shape[1:] != shape or not len(rows)):
    raise errors.UserError(
      f'an observation of shape {rows.shape}; expected {shape}, or several of '
      f'them, {("N", *shape)}.'
    )
  _require_held(given, seen.dtype, rows)
  return (rows[None] if is_one else rows), is_one


def _require_held(given, kind, rows):
  """Refuses numbers that are no observations, or that their type can't hold."""
  with np.errstate(over='ignore'):
    kept = rows if kind.kind in 'biu' else rows.astype(kind)
  if not np.isfinite(kept).all():
    raise errors.UserError(
      f'the observation is not finite (NaN or infinity) as {kept.dtype}.'
    )
  counted = not isinstance(given, gymnasium.spaces.Box)
  if counted:
    rest = rows - spaces.start(given)
    fits = ((rest >= 0) & (rest < spaces.num_values(given))).all()
    kind = np.dtype(np.int64)
  if (counted and not fits) or (
    kind.kind in 'biu' and not np.array_equal(rows.astype(kind), rows)
  ):
    raise errors.UserError(
      f'an observation of {rows.dtype} from {rows.min()} to {rows.max()}; the '
      f'agent was trained on {given if counted else kind}, which does not hold '
      'these numbers. Give them as the environment does.'
    )
