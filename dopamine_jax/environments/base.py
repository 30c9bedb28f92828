"""What an engine sees of an environment: settings, N in lockstep, a time step.

Autoreset happens within the step (Gymnasium's `SAME_STEP`), so that every step
of the engine is a step of every environment, and no action is ever ignored.
"""

from collections.abc import Callable, Mapping, Sequence
import types
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from dopamine_jax import errors
from dopamine_jax import settings
from dopamine_jax import spaces
from dopamine_jax.environments import leaves


class TimeStep(NamedTuple):
  """What one step of N environments gave; NumPy arrays with a leading axis [N].

  Observations are such arrays, or trees of them where the space is one. No
  array is written to after it was returned, so JAX may alias its memory.

  Attributes:
    observation: What the agent acts on next. Where an episode ended, the first
      observation of the next episode.
    reward: float32 [N], as the environment gave it, never clipped.
    terminated: bool [N], whether the episode ended in a terminal state.
    truncated: bool [N], whether it was cut, as by a time limit. Both can be
      true in one step; then there is nothing to bootstrap from.
    next_observation: The true successor of the observation acted on. Differs
      from `observation` only where an episode ended, and is the same array
      where none did.
  """

  observation: Any
  reward: np.ndarray
  terminated: np.ndarray
  truncated: np.ndarray
  next_observation: Any


class VectorEnvironment:
  """N environments in lockstep, each with its own seed.

  Attributes:
    observation_space: The space of one frame of one environment; of a Dict or
      Tuple, frames are trees of arrays, see `spaces`.
    action_space: The space of one environment's action, as agents give it:
      a Box is [-1, 1], see `space_of_agents`.
    num_envs: N.
    frames_per_second: How many steps pass in a second of a film of them.
    action_names: What a film calls the actions of a Discrete space; None, where
      the environment gives them no names.
    name: What errors call the environments; None: by their class.
    told_names: What `told` has.
    told: Numbers of the environments' own by name, float32 [N], of the step
      before. They count where an episode ended, and not where they are NaN.
    begins_anew: bool [N], of the step before: where evaluated agents forget
      what they saw, although the episode goes on; False: nowhere.
    checks_answers: Whether `step` itself refuses what must not be stored, but
      for observations that are not finite.
    channels_first: Whether the environment gives images with the axis of
      channels first, which is then moved to the end.
    on_wait: Called now and then by those that wait for another process; may
      raise to stop.
  """

  observation_space: gymnasium.Space[Any]
  action_space: gymnasium.Space[Any]
  num_envs: int
  frames_per_second: float = 30
  action_names: Sequence[str] | None = None
  name: str | None = None
  told_names: Sequence[str] = ()
  told: Mapping[str, np.ndarray] = types.MappingProxyType({})
  begins_anew: np.ndarray | bool = False
  checks_answers: bool = False
  channels_first: bool = False
  on_wait: Callable[[], None] = staticmethod(lambda: None)

  @property
  def given_space(self) -> gymnasium.Space[Any]:
    """The space of an observation as the environment itself gives it."""
    return self.observation_space

  def as_seen(self, observations: Any) -> Any:
    """Returns observations [N, ...] of the environment as agents see them.

    Args:
      observations: [N, ...], arrays as `given_space` says, or trees of them.
    """
    given = self.given_space
    kept = leaves.of(given, self.observation_space, self.channels_first)
    parts = zip(kept, spaces.flatten(given, observations), strict=True)
    return spaces.unflatten(given, [leaf.as_seen(x) for leaf, x in parts])

  def as_taken(self, actions: np.ndarray) -> np.ndarray:
    """Returns agents' actions [N, ...] as the environment itself takes them."""
    return actions

  def reset(self, seeds: Sequence[int]) -> Any:
    """Restarts every environment as if it had just been made.

    What follows depends on an environment's seed and its actions alone, not on
    what it did before nor on its neighbours. A run that was resumed could not
    otherwise go on as the uninterrupted one does.

    Args:
      seeds: One seed an environment, each in [0, 2**31).

    Returns:
      The first observations, [N, ...].
    """
    raise NotImplementedError

  def step(self, actions: np.ndarray) -> TimeStep:
    """Steps every environment; one that ends starts anew within the step.

    Args:
      actions: [N, ...], one action an environment.

    Returns:
      The time step.
    """
    raise NotImplementedError

  def rest(self, lanes: np.ndarray) -> None:
    """Is told which environments need no steps until the next `reset`.

    What they show then means nothing. An adapter may step them all the same, as
    here; where a step is expensive it should not.

    Args:
      lanes: their numbers, those of earlier calls included; never all.
    """

  def render(self) -> np.ndarray:
    """Returns environment 0 as it is now: an RGB image, uint8 [H, W, 3].

    After a step that ended an episode this is the new episode's first image.
    Only for environments made with `render=True`.
    """
    raise NotImplementedError

  def stepper(self, vectorize: Callable[[Any], Any]) -> Any:
    """Returns the `steppers.Stepper` of programs, if they can step these.

    After that, only it may step them. None: only Python can.

    Args:
      vectorize: turns a function of one seed's arrays into one of all.
    """
    del vectorize
    return None

  def close(self) -> None:
    """Frees what the environments hold. Nothing can be called afterwards."""
    raise NotImplementedError


class Environment(settings.Settings):
  """Settings of an environment.

  Attributes:
    max_steps_per_episode: Agent steps after which an episode is truncated;
      None leaves it to the environment's own limit.
    reward_clip: Learning sees rewards clipped to [-reward_clip, reward_clip];
      None leaves them raw. Metrics are always raw.
    stack: Frames in the agent's observation. The environment delivers single
      frames; whoever stores them stacks them.
  """

  max_steps_per_episode: int | None = None
  reward_clip: float | None = None
  stack: int = 1
  only_for_evaluations = None  # or the setting that keeps it from training

  def __post_init__(self):
    """Raises UserError for settings that can't work."""
    super().__post_init__()
    self.require_at_least(1, 'max_steps_per_episode', 'stack')
    self.require_at_most(1_000, 'stack')
    self.require_above(0, 'reward_clip')  # None leaves rewards raw

  def make(self, num_envs: int, render: bool = False) -> VectorEnvironment:
    """Makes the environments.

    Args:
      num_envs: How many, N.
      render: Whether `VectorEnvironment.render` will be called.

    Returns:
      N environments, to be reset before the first step.

    Raises:
      UserError: For settings that can't work, or an extra that is missing.
    """
    raise NotImplementedError


def space_of_agents(space: gymnasium.Space[Any]) -> gymnasium.Space[Any]:
  """Returns the space that agents act in: a Box becomes [-1, 1].

  What is counted starts at 0, and MultiBinary is a MultiDiscrete of twos.
  Every adapter says this of its actions and calls `as_environments_action`, so
  that an agent knows no environment's units.

  Args:
    space: what the environment itself takes.

  Raises:
    UserError: if a Box has no bounds to scale to.
  """
  if isinstance(space, gymnasium.spaces.Discrete) and space.start:
    return gymnasium.spaces.Discrete(int(space.n), dtype=space.dtype.type)
  if isinstance(space, gymnasium.spaces.MultiDiscrete) and space.start.any():
    return gymnasium.spaces.MultiDiscrete(space.nvec, dtype=space.dtype.type)
  if isinstance(space, gymnasium.spaces.MultiBinary):
    return gymnasium.spaces.MultiDiscrete(np.full(space.shape, 2))
  if not isinstance(space, gymnasium.spaces.Box):
    return space
  if not space.is_bounded():
    raise errors.UserError(
      f'actions in {space} have no bounds, and agents here act in [-1, 1]. '
      'Register an environment of your own with bounds (gym.Gym.id = '
      "'your_module:YourEnv-v0'): gymnasium.wrappers.TransformAction(env, "
      f'lambda a: a, gymnasium.spaces.Box(LOW, HIGH, {space.shape})).'
    )
  return gymnasium.spaces.Box(-1.0, 1.0, space.shape)


class Actions:
  """How an agent's actions become those that an environment takes.

  What is counted is counted from the space's start on. In a Box, [-1, 1] is
  stretched to the bounds, and what is outside is clipped; of whole numbers it
  is the nearest. The result lies in the space, whatever is rounded on the way,
  and -1 and 1 are its bounds themselves.
  """

  def __init__(self, space: gymnasium.Space[Any], library: Any = np):
    """Prepares all that depends on the space alone.

    Args:
      space: What the environment itself takes.
      library: NumPy, or JAX's.

    Raises:
      UserError: If JAX has no type for the space.
    """
    self._space, self._library = space, library
    self._is_box = isinstance(space, gymnasium.spaces.Box)
    self._known = None  # a type that fits, so as not to ask at every step
    start = spaces.start(space)
    self._start = start if np.any(start) else None
    if not self._is_box:
      return
    low, high = space.low, space.high
    if library is not np:
      low, high = _as_jax_holds(space)
    self._low, self._high = low, high
    # Agents act in float32; float64 is for bounds further than it goes.
    work = np.dtype(np.float32)
    if low.dtype == np.float64 and _goes_beyond(low, high, np.finfo(work)):
      work = low.dtype
    # In halves, since a difference of bounds may be larger than any number.
    first, last = low.astype(work) / 2, high.astype(work) / 2
    self._middle, self._half = first + last, last - first
    # Then nothing is rounded that could leave the bounds.
    self._is_even = low.dtype == work and not self._middle.any()
    if low.dtype.kind == 'b':
      self._limits = 0, 1
    elif low.dtype.kind in 'iu':
      # The next number after the largest of a type is a power of 2, which
      # floats have and a cast would not take.
      limits = np.iinfo(low.dtype)
      beyond = work.type(float(limits.max) + 1)
      below = np.nextafter(beyond, work.type(0))
      self._limits = work.type(limits.min), below

  def __call__(self, action: Any) -> Any:
    """Returns what the environment takes.

    Args:
      action: [..., *action_shape], finite, of the library's.
    """
    if not self._is_box:
      if self._start is not None:
        if isinstance(action, np.ndarray):  # JAX may not have that type
          action = action.astype(self._space.dtype)
        start = np.asarray(self._start, action.dtype)
        action = action + np.broadcast_to(start, action.shape)
      kind = getattr(action, 'dtype', self._space.dtype)
      if kind != self._known:
        if not np.can_cast(kind, self._space.dtype):
          return action.astype(self._space.dtype)
        self._known = kind
      return action
    library, low, high = self._library, self._low, self._high
    unit = library.minimum(library.maximum(action, -1), 1)
    # Exact where the bounds are -1 and 1.
    stretched = self._middle + self._half * unit
    if self._is_even:
      return stretched
    if low.dtype.kind in 'biu':
      stretched = stretched.round().clip(*self._limits)
    stretched = stretched.astype(low.dtype)
    stretched = library.where(unit == 1, high, stretched)
    return library.where(unit == -1, low, stretched).clip(low, high)


def as_environments_action(space: gymnasium.Space[Any], action: Any) -> Any:
  """Returns an agent's action as the environment takes it; see `Actions`.

  Args:
    space: what the environment itself takes.
    action: [..., *action_shape], finite, of NumPy or JAX.
  """
  library = np
  if isinstance(space, gymnasium.spaces.Box):
    library = action.__array_namespace__()
  return Actions(space, library)(action)


def check_actions(space: gymnasium.Space[Any], actions: np.ndarray) -> None:
  """Refuses actions that do not exist: not finite, or beyond a Discrete.

  An environment may take one of these for another action.

  Args:
    space: that agents act in.
    actions: [N, *action_shape].

  Raises:
    UserError: if there is such an action.
  """
  if isinstance(space, gymnasium.spaces.Box):
    if not leaves.is_finite(actions):
      raise action_not_finite()
    return
  if space.shape:
    if ((actions < 0) | (actions >= space.nvec)).any():
      raise action_outside(space)
    return
  # Python's numbers: of few, they take less time than NumPy's functions.
  numbers = np.ravel(actions).tolist()
  if min(numbers) < 0 or max(numbers) >= space.n:
    raise action_outside(space)


def action_not_finite() -> errors.UserError:
  """Returns what to raise where an agent's action is NaN or infinite."""
  return errors.UserError(
    "the agent's action is not finite (NaN or infinity): its policy has "
    'diverged. No checkpoint is made with such an action. Train with a lower '
    'learning rate.'
  )


def action_outside(space: gymnasium.Space[Any]) -> errors.UserError:
  """Returns what to raise where an agent's action is none of those counted."""
  largest = space.nvec if hasattr(space, 'nvec') else space.n
  return errors.UserError(
    f"the agent's action lies outside {space}, whose actions are 0 to "
    f'{largest - 1}. Mend its act.'
  )


def _as_jax_holds(space):
  """Returns a Box's bounds in the type that JAX has for it, rounded inwards."""
  names = {'float64': 'float32', 'int64': 'int32', 'uint64': 'uint32'}
  dtype = np.dtype(names.get(space.dtype.name, space.dtype))
  if dtype == space.dtype:
    return space.low, space.high
  low, high = space.low, space.high
  fits = not _goes_beyond(low, high, _limits(dtype))
  if fits:
    low, high = low.astype(dtype), high.astype(dtype)
    if dtype.kind == 'f':
      inf = dtype.type(np.inf)
      low = np.where(low < space.low, np.nextafter(low, inf), low)
      high = np.where(high > space.high, np.nextafter(high, -inf), high)
  if not fits or (low > high).any():
    raise errors.UserError(
      f'actions in {space} have bounds that {dtype} does not hold, and '
      'environments in JAX have no wider type. Give this one other bounds.'
    )
  return low, high


def _limits(dtype):
  return np.finfo(dtype) if dtype.kind == 'f' else np.iinfo(dtype)


def _goes_beyond(low, high, limits):
  """Whether bounds lie outside those of a type."""
  return bool((low < limits.min).any() or (high > limits.max).any())
