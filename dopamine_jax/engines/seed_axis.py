"""The leading axis [S] of several seeds, which one seed does not have."""

from collections.abc import Callable
import dataclasses
from typing import Any

import jax
import numpy as np

from dopamine_jax import lanes
from dopamine_jax.system import processes


@dataclasses.dataclass(frozen=True)
class SeedAxis:
  """The seed axis of an engine's arrays: [S, ...], or [...] where S = 1.

  A batch of one would be slower, and its sums could be ordered differently.
  So an engine's arrays begin with S only if S > 1; the metrics that it returns
  always do.

  Attributes:
    size: S.
  """

  size: int

  @property
  def next(self) -> int:
    """The number of the axis that follows it: 1, or 0 where S = 1."""
    return int(self.size > 1)

  def over(self, function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns one seed's `function`, vmapped over S if S > 1."""
    if self.size == 1:
      return function
    return jax.vmap(function, axis_name=lanes.AXIS)

  def split(self, tree: Any) -> Any:
    """Returns arrays of lanes [S * N, ...] as [S, N, ...]."""
    if self.size == 1:
      return tree
    return jax.tree.map(lambda x: x.reshape(self.size, -1, *x.shape[1:]), tree)

  def merge(self, array: jax.Array) -> np.ndarray:
    """Returns an array [S, N, ...] as NumPy's, of lanes [S * N, ...], copied.

    A view of the device's memory would keep it from being donated.
    """
    array = processes.fetch(array)
    return array if self.size == 1 else array.reshape(-1, *array.shape[2:])

  def of(self, array: Any) -> Any:
    """Returns an array [S, ...], without its first axis where S = 1."""
    return array if self.size > 1 else array[0]

  def pick(self, tree: Any, i: int) -> Any:
    """Returns what the i-th seed has, arrays [...]."""
    if self.size == 1:
      return tree
    return jax.tree.map(lambda x: x[i], tree)

  def number(self, number: int) -> np.ndarray:
    """Returns the same int32 for every seed, [S]."""
    return self.of(np.full(self.size, number, np.int32))
