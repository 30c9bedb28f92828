"""N environments as whoever keeps their time steps has them: looked at.

Engines and evaluations step environments through a `Border`, whoever made them:
nothing that is misshaped or not finite passes on to a replay.
"""

from collections.abc import Sequence

import numpy as np

from dopamine_jax import errors
from dopamine_jax.environments import answers
from dopamine_jax.environments import base


class Border:
  """N environments; each time step is checked, whichever adapter gave it."""

  def __init__(self, environments: base.VectorEnvironment):
    """Learns what is to be expected.

    Args:
      environments: Any.

    Raises:
      UserError: If their observations are empty.
    """
    self._environments = environments
    self._num_envs = environments.num_envs
    space = environments.observation_space
    if 0 in space.shape:
      raise errors.UserError(
        f'{answers.named(environments)} shows nothing: its observation_space '
        f'is {space}, which has no numbers to learn from. Mend the environment.'
      )
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
    return self.checked_first(self._environments.reset(seeds))

  def checked_first(self, frames: np.ndarray) -> np.ndarray:
    """Returns the first observations, whoever reset the environments.

    Raises:
      UserError: As `reset`.
    """
    self._steps = 0
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
      given = answers.kind(step)
      raise self._broken(f'step must give a TimeStep, and it gave {given}')
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
      f'{answers.kind(array)}'
    )

  def _broken(self, reason):
    where = f'step {self._steps} since the seeded reset'
    return answers.broken(answers.named(self._environments), where, reason)

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
  name = answers.named(environments)
  try:
    image = np.asarray(environments.render())
  except errors.UserError:
    raise
  except answers.CODE_ERRORS as error:
    raise errors.UserError(
      f'{name} cannot draw: {errors.described(error)}, raised by '
      f'{answers.raised_by(error)}. Mend its render, or do without films.'
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


def not_finite(
  environments: base.VectorEnvironment, number: int, steps: int, quantity: str
) -> errors.UserError:
  """Returns what to raise where an environment gave NaN or infinity."""
  where = answers.place(number, environments.num_envs, steps)
  reason = f'its {quantity} is not finite (NaN or infinity)'
  return answers.broken(answers.named(environments), where, reason)
