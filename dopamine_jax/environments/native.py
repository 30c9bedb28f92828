"""Environments written in JAX: pure functions of one environment at a time.

The compiled engine steps them inside its own program. `make` wraps them for
whoever steps from Python: the other engine, evaluation and films. Both use
`begin` and `advance`, so that a seed means the same episodes everywhere.
"""

from collections.abc import Callable, Sequence
import difflib
import functools
from typing import Any, NamedTuple

from flax import struct
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from dopamine_jax import errors
from dopamine_jax import spaces
from dopamine_jax.environments import base
from dopamine_jax.environments import counts
from dopamine_jax.environments import first_states
from dopamine_jax.environments import native_answers
from dopamine_jax.environments import observed
from dopamine_jax.environments import steppers


class Outcome(NamedTuple):
  """What one step of one environment gives.

  Attributes:
    state: a pytree, the environment after the step.
    observation: its observation, the true last one if the episode ended; an
      array, or dicts and tuples of them as its space has.
    reward: scalar, raw.
    terminated: bool scalar, whether a terminal state was reached.
    truncated: bool scalar, whether the environment itself cuts the episode;
      `advance` adds `max_steps_per_episode`.
    info: numbers by name, scalars; those that `Native.info` names become
      statistics, as they are where an episode ends.
  """

  state: Any
  observation: Any
  reward: jax.Array | float
  terminated: jax.Array | bool
  truncated: jax.Array | bool = False
  info: Any = ()  # as good as an empty dict, and an output of any program


class Native(base.Environment):
  """Settings of an environment in JAX; subclasses fill in its four parts.

  Its settings are constants of the compiled program. An environment never
  resets itself: `advance` does that. The states of `reset` and `step` are one
  kind of pytree: the same structure, shapes and types.

  Attributes:
    observed: which numbers of a vector the agent sees, counted from 0, as in
      (0, 2) for CartPole without velocities; None: all.
    info: names of numbers in `Outcome.info`, whose means over the episodes, as
      they end, become statistics: `Train/NAME` and `Eval/NAME`.
    frames_per_second: how many steps pass in a second of a film.
  """

  observed: Sequence[int] | None = None
  info: Sequence[str] = ()

  # No settings: they have no type.
  frames_per_second = 30.0
  # Whether a first state takes about as long as a step, or far longer. Then
  # none is made unless an episode has ended; or only by those environments
  # whose episodes have, one after the other.
  long_reset = False
  slow_reset = False

  def __post_init__(self):
    """Raises UserError for settings that can't work."""
    super().__post_init__()
    self.require_at_least(0, 'observed')

  @property
  def observation_space(self) -> gymnasium.Space[Any]:
    """The space of one frame; of all its numbers."""
    raise NotImplementedError

  @property
  def seen_space(self) -> gymnasium.Space[Any]:
    """The space of what the agent sees of a frame."""
    if self.observed is None:
      return self.observation_space
    setting = f'{type(self).__name__}.observed'
    return observed.space(self.observation_space, self.observed, setting)

  @property
  def action_space(self) -> gymnasium.Space[Any]:
    """The space of one action, as `step` takes it."""
    raise NotImplementedError

  def reset(self, key: jax.Array) -> tuple[Any, Any]:
    """Returns an episode's first state and observation."""
    raise NotImplementedError

  def step(self, state: Any, action: jax.Array, key: jax.Array) -> Outcome:
    """Takes one step; `key` is for dynamics that draw."""
    raise NotImplementedError

  def image(self, state: Any) -> np.ndarray:
    """Returns a state as an RGB image, uint8 [H, W, 3]; not traced.

    Raises:
      UserError: if the environment draws nothing.
    """
    del state
    raise errors.UserError(f'{type(self).__name__} draws no images.')

  def make(self, num_envs: int, render: bool = False) -> 'NativeVector':
    """Makes the environments; see `base.Environment.make`."""
    counts.check_num_envs(num_envs)
    if render and type(self).image is Native.image:
      self.image(None)  # says that there is none, before anything is played
    return NativeVector(self, num_envs)


class Lane(struct.PyTreeNode):
  """One running environment.

  Attributes:
    state: the environment's own.
    key: of all its draws; a step folds `2 * count` into it, and the reset after
      it `2 * count + 1`.
    count: int32 scalar, steps since it was seeded, counted from 1.
    age: int32 scalar, steps of the running episode.
    told: what the last step said of itself, float32 scalars by name, see
      `Native.info`; NaN before the first.
  """

  state: Any
  key: jax.Array
  count: jax.Array
  age: jax.Array
  told: dict[str, jax.Array]


def begin(environment: Native, seed: jax.Array) -> tuple[Lane, Any]:
  """Returns a lane that depends on `seed` alone, and its first observation."""
  key = jax.random.key(seed)
  state, observation = _reset(environment, jax.random.fold_in(key, 1))
  zero = jnp.zeros((), jnp.int32)
  told = {name: jnp.full((), jnp.nan) for name in environment.info}
  lane = Lane(
    state=_strong(state), key=key, count=zero + 1, age=zero, told=told
  )
  return lane, native_answers.as_space(environment, observation)


def advance(
  environment: Native, lane: Lane, action: jax.Array
) -> tuple[Lane, base.TimeStep]:
  """Takes one step; an episode that ends is followed by the next at once.

  Args:
    environment: the settings.
    lane: where it stands.
    action: as an agent gives it.

  Returns:
    The lane, and its time step: scalars and one observation, no axis [N].

  Raises:
    UserError: if an observation isn't what the environment's space says, the
      reward or an end is no scalar, or the states of `reset` and `step` differ
      in kind.
  """
  step_key = jax.random.fold_in(lane.key, 2 * lane.count)
  action = base.as_environments_action(environment.action_space, action)
  outcome = environment.step(lane.state, action, step_key)
  if not isinstance(outcome, Outcome):
    raise native_answers.broken(
      environment,
      f'step must give an Outcome, and it gave {type(outcome).__name__}',
    )
  age = lane.age + 1
  terminated = native_answers.scalar(environment, outcome, 'terminated', bool)
  truncated = native_answers.scalar(environment, outcome, 'truncated', bool)
  if environment.max_steps_per_episode is not None:
    truncated |= age >= environment.max_steps_per_episode
  done = terminated | truncated
  successor = native_answers.as_space(environment, outcome.observation)
  state, observation = _renewed(
    environment,
    done,
    jax.random.fold_in(lane.key, 2 * lane.count + 1),
    (_strong(outcome.state), successor),
  )
  lane = Lane(
    state=state,
    key=lane.key,
    count=lane.count + 1,
    age=jnp.where(done, 0, age),
    told={
      name: native_answers.told(environment, outcome, name)
      for name in environment.info
    },
  )
  return lane, base.TimeStep(
    observation=observation,
    reward=native_answers.scalar(environment, outcome, 'reward', jnp.float32),
    terminated=terminated,
    truncated=truncated,
    next_observation=successor,
  )


def meant(id: str, known: Sequence[str]) -> str:
  """Returns the ids that an unknown one may mean, in words."""
  return ' or '.join(difflib.get_close_matches(id, known, n=3) or known)


def try_out(environment: Native, reset: Callable[[jax.Array], Any]) -> None:
  """Traces an environment's first state, to see whether its `kwargs` fit.

  Args:
    environment: has a setting `kwargs`.
    reset: of the package, which those were given to.

  Raises:
    UserError: names `kwargs`, and says what was raised.
  """
  if not environment.kwargs:
    return
  try:
    jax.eval_shape(reset, jax.random.key(0))
  except Exception as error:  # of the package's code
    environment.refuse(
      'kwargs', f'does not fit: the first state fails by {errors.told(error)}'
    )


class NativeVector(base.VectorEnvironment):
  """Environments in JAX, stepped from Python.

  Whatever their number, each follows its own seed, up to the rounding of floats
  if XLA compiles the arithmetic of more of them differently.

  Attributes:
    settings: the environment's.
  """

  def __init__(self, settings: Native, num_envs: int):
    self.settings = settings
    self.name = type(settings).__name__
    self.num_envs = num_envs
    self.frames_per_second = settings.frames_per_second
    for path, leaf in spaces.leaves(settings.observation_space).items():
      if isinstance(leaf, gymnasium.spaces.Box):
        _check_dtype(self.name, path, leaf.dtype)
    self.observation_space = spaces.stored(settings.seen_space, self.name)
    self.action_space = base.space_of_agents(settings.action_space)
    self.told_names = tuple(settings.info)
    self._begin = jax.jit(jax.vmap(functools.partial(begin, settings)))
    self._advance = jax.jit(
      jax.vmap(functools.partial(advance, settings)), donate_argnums=0
    )
    self._lanes = None

  @property
  def given_space(self) -> gymnasium.Space[Any]:
    """See `VectorEnvironment.given_space`."""
    return self.settings.seen_space

  def as_taken(self, actions: np.ndarray) -> np.ndarray:
    """See `VectorEnvironment.as_taken`."""
    return base.as_environments_action(self.settings.action_space, actions)

  def stepper(self, vectorize: Callable[[Any], Any]) -> steppers.Stepper:
    """See `VectorEnvironment.stepper`."""
    return steppers.JaxStepper(
      functools.partial(begin, self.settings),
      functools.partial(advance, self.settings),
      vectorize,
    )

  def reset(self, seeds: Sequence[int]) -> Any:
    """Begins every environment anew; see the base class."""
    seeds = counts.check_seeds(seeds, self.num_envs)
    self._lanes, observation = self._begin(np.asarray(seeds, np.int32))
    return jax.tree.map(np.array, observation)

  def step(self, actions: np.ndarray) -> base.TimeStep:
    """Steps every environment; see the base class.

    Args:
      actions: [N, ...], one action an environment.

    Returns:
      The time step.

    Raises:
      ValueError: For another count.
      UserError: For an action that doesn't exist, which JAX would take for
        another one.
    """
    actions = np.asarray(actions)
    if len(actions) != self.num_envs:
      raise ValueError(f'{len(actions)} actions for {self.num_envs} envs.')
    base.check_actions(self.action_space, actions)
    self._lanes, step = self._advance(self._lanes, actions)
    step = jax.tree.map(np.array, step)
    if self.told_names:
      self.told = jax.tree.map(np.array, self._lanes.told)
    if not (step.terminated | step.truncated).any():
      step = step._replace(observation=step.next_observation)
    return step

  def render(self) -> np.ndarray:
    """Returns environment 0 as an image; see the base class."""
    state = jax.tree.map(lambda leaf: leaf[0], self._lanes.state)
    return self.settings.image(state)

  def close(self) -> None:
    """Nothing is held but arrays."""


def _check_dtype(name, path, dtype):
  """Refuses a type that JAX does not have, which would be another one."""
  held = jax.dtypes.canonicalize_dtype(dtype)
  if held != dtype:
    raise errors.UserError(
      f'{name} has an observation_space{path} of {dtype}, which JAX does not '
      'have. '
      f'Give the Box dtype=np.{held}.'
    )


def _reset(environment, key):
  """Returns the state and observation that an environment begins with."""
  answer = environment.reset(key)
  if not isinstance(answer, tuple) or len(answer) != 2:
    raise native_answers.broken(
      environment,
      'reset must give a state and an observation, and it gave '
      f'{type(answer).__name__}',
    )
  return answer


def _renewed(environment, done, key, now):
  """Returns state and observation, first ones where the episode is `done`."""

  def first(key):
    state, observation = _reset(environment, key)
    state = _strong(state)
    native_answers.check_states(environment, state, now[0])
    return state, native_answers.as_space(environment, observation)

  if environment.slow_reset or environment.long_reset:
    return first_states.where_ended(
      done, key, now, first, one_by_one=environment.slow_reset
    )
  # Computed at every step and mostly dropped, as a branch is under vmap.
  select = functools.partial(jax.lax.select, done)
  return jax.tree.map(select, first(key), now)


def _strong(state):
  """Returns the state's numbers as arrays whose types yield to no other.

  Python's own numbers are weakly typed: a state of them would change its type
  at the first step, and what steps it would be compiled twice.
  """

  def strong(leaf):
    leaf = jnp.asarray(leaf)
    return leaf.astype(leaf.dtype) if jax.typeof(leaf).weak_type else leaf

  return jax.tree.map(strong, state)
