"""One leaf of an observation: is it what its space says, and how is it kept?

A plain observation is one leaf; one of a Dict or Tuple has several.
"""

import math
import reprlib
from typing import Any

import gymnasium
import numpy as np

from dopamine_jax import spaces

# Numbers that Python adds faster than NumPy is called.
_FEW = 16
_MANY = 4096


class Misfit(Exception):
  """A leaf that isn't what its space says.

  Attributes:
    expected: in words.
    given: in words.
  """

  def __init__(self, expected: str, given: str):
    super().__init__(expected, given)
    self.expected, self.given = expected, given


class Leaf:
  """Takes what an environment gives of one leaf.

  Attributes:
    shape: of the leaf as it is given.
    dtype: that it is stored in.
    channels_first: whether its axes are then moved.
  """

  def __init__(
    self,
    given: gymnasium.Space,
    dtype: np.dtype,
    *,
    path: str = '',
    channels_first: bool = False,
  ):
    """Learns what is to be expected.

    Args:
      given: What the environment says of it.
      dtype: The type that it is stored in.
      path: Of the leaf in the observation, see `spaces`.
      channels_first: Whether its images are to be transposed.
    """
    self.shape, self.dtype = given.shape, dtype
    self.channels_first = channels_first
    self._given = given
    self._name = f'observation_space{path}'
    self._counts = not isinstance(given, gymnasium.spaces.Box)
    if self._counts:
      self._start = spaces.start(given)
      self._size = spaces.num_values(given)

  def read(self, value: Any) -> np.ndarray:
    """Returns what was given in the type and order that is stored.

    Raises:
      Misfit: If it isn't what the space says.
    """
    try:
      array = np.asarray(value)
    except ValueError:  # a list whose rows differ in length
      array = None
    if (
      array is None or array.shape != self.shape or not self._fits(array.dtype)
    ):
      raise Misfit(
        f'its {self._name} says {self._given.dtype} {self.shape}', kind(value)
      )
    if self._counts:
      return self._counted(array)
    if array.dtype != self.dtype:
      array = self._cast(array)
    return array.transpose(1, 2, 0) if self.channels_first else array

  def as_seen(self, values: np.ndarray) -> np.ndarray:
    """Returns values [N, *shape] that fit as they are stored, unchecked."""
    if self._counts:
      values = values - self._start
    values = values.astype(self.dtype)
    return values.transpose(0, 2, 3, 1) if self.channels_first else values

  def _fits(self, dtype):
    """Whether a type is the space's own, or of its kind."""
    given = self._given.dtype
    if dtype == given or np.can_cast(dtype, given, 'same_kind'):
      return True
    # Each of these numbers is looked at, whatever their type.
    return self._counts and dtype.kind in 'biu'

  def _counted(self, array):
    """Returns values of a Discrete, say, counted from 0."""
    number = array.astype(np.int64) - self._start
    if not ((number >= 0) & (number < self._size)).all():
      raise Misfit(f'its {self._name} is {self._given}', kind(array))
    return number.astype(self.dtype)

  def _cast(self, array):
    """Returns the same numbers in the type that is stored."""
    if self.dtype.kind in 'iu' and array.size:
      bounds = np.iinfo(self.dtype)
      for extreme in int(array.min()), int(array.max()):
        if not bounds.min <= extreme <= bounds.max:
          raise Misfit(
            f'its observations are stored as {self.dtype}, which holds '
            f'{bounds.min} to {bounds.max}',
            str(extreme),
          )
    try:
      with np.errstate(over='raise'):
        return array.astype(self.dtype)
    except FloatingPointError:
      raise Misfit(
        f'its observations are stored as {self.dtype}, whose largest number '
        f'is {np.finfo(self.dtype).max}',
        str(np.nanmax(np.abs(array))),
      ) from None


def of(
  given: gymnasium.Space, stored: gymnasium.Space, channels_first: bool
) -> list[Leaf]:
  """Returns the leaves of an environment's observations, in order.

  Args:
    given: what the environment says of them.
    stored: as they are kept.
    channels_first: whether leaves of three axes are to be transposed.
  """
  kept = spaces.leaves(stored)
  return [
    Leaf(
      leaf,
      np.dtype(kept[path].dtype),
      path=path,
      channels_first=channels_first
      and len(leaf.shape) == 3
      and isinstance(leaf, gymnasium.spaces.Box),
    )
    for path, leaf in spaces.leaves(given).items()
  ]


def is_finite(array: np.ndarray) -> bool:
  """Whether no number of an array, at most float32, is NaN or infinite."""
  if array.size <= _FEW:
    # Python adds in float64, where few such numbers do not overflow, before
    # NumPy has been called.
    return math.isfinite(sum(array.ravel().tolist()))
  finite = np.isfinite(array)
  # Of few, in bytes, which takes less time than `all`.
  if array.size < _MANY:
    return not finite.tobytes().count(0)
  return bool(finite.all())


def kind(value: Any) -> str:
  """Returns what a value is, in words."""
  if isinstance(value, (np.ndarray, np.generic)) and np.shape(value):
    return f'{value.dtype} {value.shape}'
  return f'{reprlib.repr(value)} ({type(value).__name__})'
