"""N environments as whoever keeps their time steps has them: looked at.

Engines and evaluations step environments through a `Border`, whoever made them:
nothing that is misshaped or not finite passes on to a replay.
"""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

from dopamine_jax import errors
from dopamine_jax import spaces
from dopamine_jax.environments import answers
from dopamine_jax.environments import base
from dopamine_jax.environments import drawing
from dopamine_jax.environments import leaves


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
    self._space = environments.observation_space
    # Shape and type of each leaf, by its path.
    self._leaves = {
      path: ((self._num_envs, *leaf.shape), np.dtype(leaf.dtype))
      for path, leaf in spaces.leaves(self._space).items()
    }
    self._require_numbers()
    self._floats = [
      i
      for i, (_, dtype) in enumerate(self._leaves.values())
      if dtype.kind not in 'iub'
    ]
    each = (self._num_envs,)
    self._expected = {
      'reward': (each, np.dtype(np.float32)),
      'terminated': (each, np.dtype(np.bool_)),
      'truncated': (each, np.dtype(np.bool_)),
    }
    self._steps = 0
    self._is_masked = isinstance(self._space, spaces.Masked)
    if self._is_masked:
      self._require_actions_to_mask()
    self._allowed = None

  def _require_actions_to_mask(self):
    """Refuses masks of other actions than there are."""
    actions = self._environments.action_space
    size = self._space['action_mask'].n
    if not isinstance(actions, gymnasium.spaces.Discrete) or actions.n != size:
      raise errors.UserError(
        f'{answers.named(self._environments)} has masks of {size} actions, and '
        f'its action_space is {actions}. Mend the environment.'
      )

  def _require_numbers(self):
    """Refuses observations without numbers, or of types that JAX lacks."""
    name = answers.named(self._environments)
    shapes = [shape for shape, _ in self._leaves.values()]
    if not shapes or any(0 in shape for shape in shapes):
      raise errors.UserError(
        f'{name} shows nothing: its observation_space is {self._space}, which '
        'has no numbers to learn from, or a part without. Mend the environment.'
      )
    spaces.stored(self._space, name)  # says which leaf is no array of numbers
    for path, (_, dtype) in self._leaves.items():
      if held := spaces.NARROWED.get(dtype.name):
        raise errors.UserError(
          f'{name} has an observation{path} of {dtype}, which JAX does not '
          f'have here. Give its space dtype=np.{held}, and deliver that.'
        )

  def reset(self, seeds: Sequence[int]) -> Any:
    """Restarts every environment; see `base.VectorEnvironment.reset`.

    Raises:
      UserError: If an observation isn't what the environments' space says.
    """
    return self.checked_first(self._environments.reset(seeds))

  def checked_first(self, frames: Any) -> Any:
    """Returns the first observations, whoever reset the environments.

    Raises:
      UserError: As `reset`.
    """
    self._steps = 0
    self._check_observation('observation', frames)
    self._require_finite(frames)
    if self._is_masked:
      self._allowed = self._some_allowed(frames)
    return frames

  def step(self, actions: np.ndarray) -> base.TimeStep:
    """Steps every environment; see `base.VectorEnvironment.step`.

    Raises:
      UserError: If the time step isn't what the contract says, or a number of
        it is NaN or infinite.
    """
    if self._is_masked:
      self._require_allowed(actions)
    step = self._environments.step(actions)
    self._steps += 1
    if not self._environments.checks_answers:
      self._check_each(step)
    if self._floats:
      self._require_finite(step.next_observation)
      if step.observation is not step.next_observation:
        self._require_finite(step.observation)
    if self._is_masked:
      self._allowed = self._some_allowed(step.observation)
      # Where it terminated, nothing can be done, and nothing need be allowed.
      self._some_allowed(step.next_observation, step.terminated)
    return step

  def _require_allowed(self, actions):
    if not self._allowed[np.arange(self._num_envs), actions].all():
      raise not_allowed()

  def _some_allowed(self, observation, excused=False):
    """Returns the masks [N, A], once each allows an action."""
    masks = observation['action_mask']
    some = masks.any(axis=1) | excused
    if not some.all():
      lane = int(np.argmin(some))
      raise none_allowed(self._environments, lane, self._steps)
    return masks

  def _require_finite(self, observation):
    parts = spaces.flatten(self._space, observation)
    for i in self._floats:
      if not leaves.is_finite(parts[i]):
        path = list(self._leaves)[i]
        raise self._not_finite(f'observation{path}', parts[i])

  def _check_each(self, step):
    if type(step) is not base.TimeStep:
      given = leaves.kind(step)
      raise self._broken(f'step must give a TimeStep, and it gave {given}')
    self._check_observation('observation', step.observation)
    self._check_observation('next_observation', step.next_observation)
    for name, (shape, dtype) in self._expected.items():
      self._check(name, getattr(step, name), shape, dtype)
    if not leaves.is_finite(step.reward):
      raise self._not_finite('reward', step.reward)

  def _check_observation(self, quantity, observation):
    try:
      parts = spaces.flatten(self._space, observation)
    except ValueError:
      raise self._broken(
        f'{quantity} must be a tree of arrays for {self._space}, and it gave '
        f'{leaves.kind(observation)}'
      ) from None
    for part, (path, kinds) in zip(parts, self._leaves.items(), strict=True):
      self._check(quantity + path, part, *kinds)

  def _check(self, quantity, array, shape, dtype):
    if (
      type(array) is np.ndarray and array.shape == shape
    ) and array.dtype == dtype:
      return
    raise self._broken(
      f'{quantity} must be an array {np.dtype(dtype)} {shape}, and it gave '
      f'{leaves.kind(array)}'
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
    with drawing.told(name):
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


def not_allowed() -> errors.UserError:
  """Returns what to raise where an agent did what its mask does not allow."""
  return errors.UserError(
    "the agent's action is not allowed by the action_mask that it saw. Mend "
    'its act: observations are dicts of `observation` and `action_mask`, and '
    'learning.masks.only_allowed makes of values those to choose by.'
  )


def none_allowed(
  environments: base.VectorEnvironment, number: int, steps: int
) -> errors.UserError:
  """Returns what to raise where a mask allows no action."""
  where = answers.place(number, environments.num_envs, steps)
  reason = 'its action_mask allows no action, and the episode goes on'
  return answers.broken(answers.named(environments), where, reason)


def not_finite(
  environments: base.VectorEnvironment, number: int, steps: int, quantity: str
) -> errors.UserError:
  """Returns what to raise where an environment gave NaN or infinity."""
  where = answers.place(number, environments.num_envs, steps)
  reason = f'its {quantity} is not finite (NaN or infinity)'
  return answers.broken(answers.named(environments), where, reason)
