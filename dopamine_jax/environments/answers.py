"""What environments answer, checked at every step before anyone keeps it.

NumPy would broadcast a number over a frame, cut a fraction off and turn 300
into 44 without a word, and a replay would keep it. `Answers` takes what one
Gymnasium environment gives, any Python objects; `border` then takes the arrays
of N environments, whoever made them.
"""

from collections.abc import Sequence
import traceback
from typing import Any

import gymnasium
import numpy as np

from dopamine_jax import errors
from dopamine_jax import spaces
from dopamine_jax.environments import base
from dopamine_jax.environments import leaves as leaves_lib

# What an environment's own code may raise; `sys.exit` would end a run as if it
# had come to its end. KeyboardInterrupt is told by `signals`.
CODE_ERRORS = (Exception, SystemExit, GeneratorExit)

_FLOAT32 = np.finfo(np.float32)
_LARGEST = float(_FLOAT32.max)


class Answers:
  """What one Gymnasium environment answers, as it is stored.

  Attributes:
    steps: since the last seeded reset.
    leaves: of its observations; a plain one is its only leaf.
    is_simple: whether observations are single Boxes with their axes as given.
  """

  def __init__(
    self,
    name: str,
    given: gymnasium.Space,
    stored: gymnasium.Space,
    *,
    number: int = 0,
    num_envs: int = 1,
    channels_first: bool = False,
  ):
    """Learns what is to be expected.

    Args:
      name: The environment's.
      given: What it says of its observations.
      stored: How they are delivered.
      number: Which one of `num_envs` it is, from 0 on.
      num_envs: How many there are.
      channels_first: Whether its images are to be transposed.
    """
    self.steps = 0
    self._name, self._number, self._num_envs = name, number, num_envs
    self._given = given
    self.leaves = leaves_lib.of(given, stored, channels_first)
    self._plain = None if spaces.is_tree(given) else self.leaves[0]
    # Whether observations are single Boxes that are stored as they come.
    self.is_simple = isinstance(given, gymnasium.spaces.Box) and not (
      self._plain.channels_first
    )

  def reset(self, env: gymnasium.Env, seed: int | None) -> np.ndarray:
    """Begins an episode; None goes on with the environment's random stream.

    Returns:
      The first observation.

    Raises:
      UserError: If it isn't what the environment's space says.
    """
    if seed is not None:
      self.steps = 0
    try:
      answer = env.reset(seed=seed)
    except CODE_ERRORS as error:
      raise self.failed('reset', error) from error
    if not isinstance(answer, tuple) or len(answer) != 2:
      raise self._error(
        'reset must give (observation, info)',
        f'it gave {leaves_lib.kind(answer)}',
      )
    return self.observation(answer[0], 'reset')

  def step(
    self, env: gymnasium.Env, action: Any
  ) -> tuple[np.ndarray, float, bool, bool]:
    """Takes a step.

    Returns:
      Observation, reward, terminated and truncated.

    Raises:
      UserError: If one of them isn't what it must be.
    """
    observation, *rest = self.ask(env, action)
    return self.observation(observation, 'step'), *rest

  def ask(
    self, env: gymnasium.Env, action: Any
  ) -> tuple[Any, float, bool, bool]:
    """Takes a step, as `step`, but the observation is as it was given.

    Whoever has several environments hands all of them to `rows`.
    """
    self.steps += 1
    try:
      answer = env.step(action)
    except CODE_ERRORS as error:
      raise self.failed('step', error) from error
    try:
      observation, reward, terminated, truncated, self.info = answer
    except (TypeError, ValueError):
      raise self._not_five(leaves_lib.kind(answer)) from None
    # False for NaN as well.
    if not (isinstance(reward, float) and -_LARGEST <= reward <= _LARGEST):
      reward = self._reward(reward)
    if terminated is not False:
      terminated = self._flag('terminated', terminated)
    if truncated is not False:
      truncated = self._flag('truncated', truncated)
    return observation, reward, terminated, truncated

  def told(self, name: str) -> float:
    """Returns a number that the last step's `info` holds.

    Raises:
      UserError: If there is none.
    """
    try:
      value = np.asarray(self.info[name])
    except (KeyError, TypeError, IndexError):
      value = None
    if value is None or value.size != 1 or value.dtype.kind not in 'biuf':
      there = sorted(map(str, self.info)) if self.info else 'nothing'
      shown = there if value is None else f'{value!r:.80}'
      raise errors.UserError(
        f'gym.Gym.info names {name!r}, a number at the end of each episode, '
        f'and {self._name} has {shown} there. Correct the setting; a run whose '
        'folder has no checkpoint yet begins in another one.'
      )
    return float(value.ravel()[0])

  def observation(self, observation: Any, giver: str) -> Any:
    """Returns an observation in the types and order that are stored.

    Raises:
      UserError: If it isn't what the environment's space says.
    """
    if self._plain is not None:
      return self._read(self._plain, observation, giver)
    try:
      parts = spaces.flatten(self._given, observation)
    except ValueError as error:
      raise self._error(
        f'its observation_space is {self._given}',
        f'{giver} gave {leaves_lib.kind(observation)}, which differs at '
        f'observation{error}',
      ) from None
    pairs = zip(self.leaves, parts, strict=True)
    return spaces.unflatten(
      self._given, [self._read(leaf, part, giver) for leaf, part in pairs]
    )

  def _read(self, leaf, part, giver):
    try:
      return leaf.read(part)
    except leaves_lib.Misfit as misfit:
      given = f'{giver} gave {misfit.given}'
      raise self._error(misfit.expected, given) from None

  def _reward(self, reward):
    """Returns a reward that isn't a plain float as one."""
    number = _single(reward, 'fiub')
    if number is None or not -_LARGEST <= number <= _LARGEST:
      raise self._error(
        'a reward must be one finite number that float32 holds',
        f'step gave {leaves_lib.kind(reward)}',
      )
    return float(number)

  def _flag(self, name, flag):
    """Returns whether an episode ended, as a plain bool."""
    if isinstance(flag, (bool, np.bool_)):
      return bool(flag)
    number = _single(flag, 'biu')
    if number is None or number not in (0, 1):
      raise self._error(
        f'{name} must be True or False', f'step gave {leaves_lib.kind(flag)}'
      )
    return bool(number)

  def _not_five(self, given):
    return self._error(
      'step must give (observation, reward, terminated, truncated, info), as '
      'Gymnasium has it since 0.26',
      f'it gave {given}',
    )

  def _error(self, expected, given):
    where = place(self._number, self._num_envs, self.steps)
    return broken(self._name, where, f'{expected}, and {given}')

  def failed(self, giver: str, error: BaseException) -> errors.UserError:
    """Returns what to raise where the environment's own code raised."""
    if isinstance(error, errors.UserError):
      return error
    if isinstance(error, leaves_lib.Misfit):  # of a wrapper of ours
      where = place(self._number, self._num_envs, self.steps)
      return errors.UserError(
        f'{self._name} ({where}): {error.expected}, and {giver} gave '
        f'{error.given}. Set gym.Gym.action_mask = False, or mend the '
        'environment.'
      )
    frame = traceback.extract_tb(error.__traceback__)[-1]
    is_inside = f'{gymnasium.__name__}/' in frame.filename
    if is_inside and giver == 'step' and 'to unpack' in str(error):
      return self._not_five(f'another number of things ({error})')
    where = place(self._number, self._num_envs, self.steps)
    return failed(self._name, where, giver, error)


def rows(answers: Sequence[Answers], observations: list[Any]) -> Any:
  """Returns observations of N environments' steps as they are stored.

  Args:
    answers: of alike environments.
    observations: of each.

  Returns:
    [N, ...].

  Raises:
    UserError: If one isn't what the environment's space says.
  """
  first = answers[0].leaves[0]
  # All at once takes less time than one after another; and an array of the
  # space's type comes only of types whose numbers it holds.
  together = None
  if answers[0].is_simple:
    try:
      together = np.array(observations)
    except ValueError:  # their shapes differ
      pass
  if (
    together is None
    or together.dtype is not first.dtype
    or together.shape[1:] != first.shape
  ):
    pairs = zip(answers, observations, strict=True)
    each = [each.observation(x, 'step') for each, x in pairs]
    together = spaces.map_trees(lambda *parts: np.array(parts), *each)
  return together


def with_rows(
  observations: Any, numbers: Sequence[int], others: Sequence[Any]
) -> Any:
  """Returns a copy of observations [N, ...] in which some are others.

  Args:
    observations: arrays, or trees of them.
    numbers: which ones are replaced.
    others: what replaces each.
  """

  def one(rows, *new):
    rows = rows.copy()
    for number, row in zip(numbers, new, strict=True):
      rows[number] = row
    return rows

  return spaces.map_trees(one, observations, *others)


def named(environments: base.VectorEnvironment) -> str:
  """Returns what messages call environments."""
  return environments.name or type(environments).__name__


def place(number: int, num_envs: int, steps: int) -> str:
  """Returns where something happened, in words."""
  which = f'environment {number + 1} of {num_envs}, ' if num_envs > 1 else ''
  return f'{which}step {steps} since the seeded reset'


def broken(name: str, where: str, reason: str) -> errors.UserError:
  """Returns what to raise where an environment isn't as it says."""
  return errors.UserError(
    f'{name} breaks its word ({where}): {reason}. {_REMEDY}'
  )


def failed(
  name: str, where: str, giver: str, error: BaseException
) -> errors.UserError:
  """Returns what to raise where an environment's own code raised.

  Args:
    name: the environment's.
    where: when it was.
    giver: which part of it was called.
    error: what it raised.
  """
  return errors.UserError(
    f'{name} failed ({where}): {errors.described(error)}, raised in its '
    f'{giver} by {raised_by(error)}. {_REMEDY}'
  )


def close(name: str, env: gymnasium.Env) -> None:
  """Closes an environment.

  Raises:
    UserError: If its own code raises.
  """
  try:
    env.close()
  except CODE_ERRORS as error:
    raise failed(name, 'while it was closed', 'close', error) from error


def raised_by(error: BaseException) -> str:
  """Returns 'FILE, line N': of the environment's own code, if it has some."""
  if place := errors.place(error):
    return place
  frame = traceback.extract_tb(error.__traceback__)[-1]  # one of Gymnasium's
  return f'{frame.filename}, line {frame.lineno}'


_REMEDY = 'Mend the environment; a run goes on from its last checkpoint.'


def _single(value, kinds):
  """Returns the only number of a value, or None if it isn't one number."""
  try:
    array = np.asarray(value)
  except ValueError:
    return None
  is_number = array.size == 1 and array.dtype.kind in kinds
  return array.item() if is_number else None
