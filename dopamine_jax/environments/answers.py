"""What environments answer, checked at every step before anyone keeps it.

NumPy would broadcast a number over a frame, cut a fraction off and turn 300
into 44 without a word, and a replay would keep it. `Answers` takes what one
Gymnasium environment gives, any Python objects, and `Border` takes the arrays
of N environments, whoever made them.
"""

from collections.abc import Sequence
import reprlib
import traceback
from typing import Any

import gymnasium
import numpy as np

from dopamine_jax import errors
from dopamine_jax.environments import base

_FLOAT32 = np.finfo(np.float32)
_LARGEST = float(_FLOAT32.max)


class Answers:
  """What one Gymnasium environment answers, as it is stored.

  Attributes:
    steps: since the last seeded reset.
    dtype: that observations are stored in.
    shape: of an observation as it is given.
    channels_first: whether its axes are then moved.
  """

  def __init__(
    self,
    name: str,
    given: gymnasium.spaces.Box,
    stored: np.dtype,
    *,
    number: int = 0,
    num_envs: int = 1,
    channels_first: bool = False,
  ):
    """Learns what is to be expected.

    Args:
      name: The environment's.
      given: What it says of its observations.
      stored: The type that they are delivered in.
      number: Which one of `num_envs` it is, from 0 on.
      num_envs: How many there are.
      channels_first: Whether its images are to be transposed.
    """
    self.steps = 0
    self._name, self._number, self._num_envs = name, number, num_envs
    self.dtype, self.shape = stored, given.shape
    self._given = given
    self.channels_first = channels_first

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
    except Exception as error:
      raise self._failed('reset', error) from error
    if not isinstance(answer, tuple) or len(answer) != 2:
      raise self._error(
        'reset must give (observation, info)', f'it gave {_kind(answer)}'
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
    except Exception as error:
      raise self._failed('step', error) from error
    try:
      observation, reward, terminated, truncated, _ = answer
    except (TypeError, ValueError):
      raise self._not_five(_kind(answer)) from None
    # False for NaN as well.
    if not (isinstance(reward, float) and -_LARGEST <= reward <= _LARGEST):
      reward = self._reward(reward)
    if terminated is not False:
      terminated = self._flag('terminated', terminated)
    if truncated is not False:
      truncated = self._flag('truncated', truncated)
    return observation, reward, terminated, truncated

  def observation(self, observation: Any, giver: str) -> np.ndarray:
    """Returns an observation in the type and order that is stored.

    Raises:
      UserError: If it isn't what the environment's space says.
    """
    try:
      array = np.asarray(observation)
    except ValueError:  # a list whose rows differ in length
      array = None
    if (
      array is None or array.shape != self.shape or not self._fits(array.dtype)
    ):
      raise self._error(
        f'its observation_space says {self._given.dtype} {self.shape}',
        f'{giver} gave {_kind(observation)}',
      )
    if array.dtype != self.dtype:
      array = self._cast(array, giver)
    return array.transpose(1, 2, 0) if self.channels_first else array

  def _fits(self, dtype):
    """Whether a type is the space's own, or of its kind."""
    given = self._given.dtype
    return dtype == given or np.can_cast(dtype, given, 'same_kind')

  def _cast(self, array, giver):
    """Returns the same numbers in the type that is stored."""
    if self.dtype.kind in 'iu' and array.size:
      bounds = np.iinfo(self.dtype)
      for extreme in int(array.min()), int(array.max()):
        if not bounds.min <= extreme <= bounds.max:
          raise self._error(
            f'its observations are stored as {self.dtype}, which holds '
            f'{bounds.min} to {bounds.max}',
            f'{giver} gave {extreme}',
          )
    try:
      with np.errstate(over='raise'):
        return array.astype(self.dtype)
    except FloatingPointError:
      raise self._error(
        f'its observations are stored as {self.dtype}, whose largest number '
        f'is {np.finfo(self.dtype).max}',
        f'{giver} gave {np.nanmax(np.abs(array))}',
      ) from None

  def _reward(self, reward):
    """Returns a reward that isn't a plain float as one."""
    number = _single(reward, 'fiub')
    if number is None or not -_LARGEST <= number <= _LARGEST:
      raise self._error(
        'a reward must be one finite number that float32 holds',
        f'step gave {_kind(reward)}',
      )
    return float(number)

  def _flag(self, name, flag):
    """Returns whether an episode ended, as a plain bool."""
    if isinstance(flag, (bool, np.bool_)):
      return bool(flag)
    number = _single(flag, 'biu')
    if number is None or number not in (0, 1):
      raise self._error(
        f'{name} must be True or False', f'step gave {_kind(flag)}'
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

  def _failed(self, giver, error):
    """Returns what to raise where the environment's own code raised."""
    if isinstance(error, errors.UserError):
      return error
    frame = traceback.extract_tb(error.__traceback__)[-1]
    is_inside = f'{gymnasium.__name__}/' in frame.filename
    if is_inside and giver == 'step' and 'to unpack' in str(error):
      return self._not_five(f'another number of things ({error})')
    where = place(self._number, self._num_envs, self.steps)
    return errors.UserError(
      f'{self._name} failed ({where}): {described(error)}, raised in its '
      f'{giver} by {frame.filename}, line {frame.lineno}. {_REMEDY}'
    )


def rows(answers: Sequence[Answers], observations: list[Any]) -> np.ndarray:
  """Returns observations of N environments' steps as they are stored.

  Args:
    answers: of alike environments.
    observations: of each.

  Returns:
    [N, ...].

  Raises:
    UserError: If one isn't what the environment's space says.
  """
  first = answers[0]
  # All at once takes less time than one after another; and an array of the
  # space's type comes only of types whose numbers it holds.
  try:
    together = np.array(observations)
  except ValueError:  # their shapes differ
    together = None
  if (
    together is None
    or together.dtype is not first.dtype
    or together.shape[1:] != first.shape
    or first.channels_first
  ):
    pairs = zip(answers, observations, strict=True)
    together = np.array([each.observation(x, 'step') for each, x in pairs])
  return together


class Border:
  """N environments, whose time steps are checked whoever made them.

  Engines and evaluations call `reset` and `step` here and not the environments'
  own: nothing that is misshaped or not finite passes on to a replay.
  """

  def __init__(self, environments: base.VectorEnvironment):
    """Learns what is to be expected.

    Args:
      environments: Any.
    """
    self._environments = environments
    self._num_envs = environments.num_envs
    space = environments.observation_space
    self._dtype = np.dtype(space.dtype)
    self._may_be_infinite = self._dtype.kind not in 'iub'
    frames = (self._num_envs, *space.shape), self._dtype
    each = (self._num_envs,)
    self._expected = {
      'observation': frames,
      'next_observation': frames,
      'reward': (each, np.dtype(np.float32)),
      'terminated': (each, np.dtype(np.bool_)),
      'truncated': (each, np.dtype(np.bool_)),
    }
    self._steps = 0

  def reset(self, seeds: Sequence[int]) -> np.ndarray:
    """Restarts every environment; see `base.VectorEnvironment.reset`.

    Raises:
      UserError: If an observation isn't what the environments' space says.
    """
    self._steps = 0
    frames = self._environments.reset(seeds)
    self._check('observation', frames, *self._expected['observation'])
    if self._may_be_infinite and not base.is_finite(frames):
      raise self._not_finite('observation', frames)
    return frames

  def step(self, actions: np.ndarray) -> base.TimeStep:
    """Steps every environment; see `base.VectorEnvironment.step`.

    Raises:
      UserError: If the time step isn't what the contract says, or a number of
        it is NaN or infinite.
    """
    step = self._environments.step(actions)
    self._steps += 1
    if not self._environments.checks_answers:
      self._check_each(step)
    if self._may_be_infinite:
      observation, successor = step.observation, step.next_observation
      if not base.is_finite(successor):
        raise self._not_finite('observation', successor)
      if observation is not successor and not base.is_finite(observation):
        raise self._not_finite('observation', observation)
    return step

  def _check_each(self, step):
    if type(step) is not base.TimeStep:
      raise self._broken(f'step must give a TimeStep, and gave {_kind(step)}')
    for name, (shape, dtype) in self._expected.items():
      self._check(name, getattr(step, name), shape, dtype)
    if not base.is_finite(step.reward):
      raise self._not_finite('reward', step.reward)

  def _check(self, quantity, array, shape, dtype):
    if (
      type(array) is np.ndarray and array.shape == shape
    ) and array.dtype == dtype:
      return
    raise self._broken(
      f'{quantity} must be an array {np.dtype(dtype)} {shape}, and it gave '
      f'{_kind(array)}'
    )

  def _broken(self, reason):
    where = f'step {self._steps} since the seeded reset'
    return broken(named(self._environments), where, reason)

  def _not_finite(self, quantity, array):
    rows = np.isfinite(array.reshape(self._num_envs, -1)).all(axis=1)
    return not_finite(
      self._environments, int(np.argmin(rows)), self._steps, quantity
    )


def picture(environments: base.VectorEnvironment) -> np.ndarray:
  """Returns environment 0 as an image, uint8 [H, W, 3].

  Raises:
    UserError: If it can't be drawn, or is no image.
  """
  name = named(environments)
  try:
    image = np.asarray(environments.render())
  except errors.UserError:
    raise
  except Exception as error:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    raise errors.UserError(
      f'{name} cannot draw: {described(error)}, raised by {frame.filename}, '
      f'line {frame.lineno}. Mend its render, or do without films.'
    ) from error
  is_image = image.ndim == 3 and image.shape[2] == 3 and image.size
  if image.dtype != np.uint8 or not is_image:
    shown = 'None' if image.dtype == object else f'{image.dtype} {image.shape}'
    raise errors.UserError(
      f'{name} cannot draw: its render must return an RGB image, uint8 '
      f'[height, width, 3], and gave {shown}. Mend its render, or do without '
      'films.'
    )
  return image


def named(environments: base.VectorEnvironment) -> str:
  """Returns what messages call environments."""
  return environments.name or type(environments).__name__


def place(number: int, num_envs: int, steps: int) -> str:
  """Returns where something happened, in words."""
  which = f'environment {number + 1} of {num_envs}, ' if num_envs > 1 else ''
  return f'{which}step {steps} since the seeded reset'


def not_finite(
  environments: base.VectorEnvironment, number: int, steps: int, quantity: str
) -> errors.UserError:
  """Returns what to raise where an environment gave NaN or infinity."""
  where = place(number, environments.num_envs, steps)
  reason = f'its {quantity} is not finite (NaN or infinity)'
  return broken(named(environments), where, reason)


def broken(name: str, where: str, reason: str) -> errors.UserError:
  """Returns what to raise where an environment isn't as it says."""
  return errors.UserError(
    f'{name} breaks its word ({where}): {reason}. {_REMEDY}'
  )


def described(error: BaseException) -> str:
  """Returns an exception's type and message."""
  return f'{type(error).__name__}: {error}' if str(error) else repr(error)


_REMEDY = 'Mend the environment; a run goes on from its last checkpoint.'


def _single(value, kinds):
  """Returns the only number of a value, or None if it isn't one number."""
  try:
    array = np.asarray(value)
  except ValueError:
    return None
  is_number = array.size == 1 and array.dtype.kind in kinds
  return array.item() if is_number else None


def _kind(value):
  """Returns what a value is, in words."""
  if isinstance(value, (np.ndarray, np.generic)) and np.shape(value):
    return f'{value.dtype} {value.shape}'
  return f'{reprlib.repr(value)} ({type(value).__name__})'
