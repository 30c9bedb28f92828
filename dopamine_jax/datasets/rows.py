"""Rows of episodes that lie one after another, as datasets' files have them."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

# Rows that are read at once, or an episode's if it is longer.
AT_ONCE = 4096


def ends_of_parts(begin: int, last: np.ndarray) -> Iterator[int]:
  """Yields where to end parts; `last` [R] marks where episodes end.

  A part has about `AT_ONCE` rows from `begin` on, or a whole episode.
  """
  ends = np.flatnonzero(last) + 1
  ends = ends[ends > begin].tolist()
  for i, end in enumerate(ends):
    if i + 1 == len(ends) or ends[i + 1] - begin > AT_ONCE:
      yield end
      begin = end


def header(file: Any) -> tuple[tuple[int, ...], np.dtype]:
  """Returns the shape and type of an npy file's rows, which follow.

  Raises:
    ValueError: if they are of no use.
  """
  version = np.lib.format.read_magic(file)
  read = np.lib.format.read_array_header_1_0
  if version == (2, 0):
    read = np.lib.format.read_array_header_2_0
  shape, by_columns, dtype = read(file)
  if by_columns or dtype.hasobject:
    raise ValueError(f'it is an array of {dtype}, by columns or no numbers')
  return shape, dtype


def ages(last: np.ndarray) -> np.ndarray:
  """Returns the steps since the episode began; `last` [T] marks its end."""
  number = np.arange(len(last))
  begins = np.zeros_like(number)
  begins[1:] = np.where(last[:-1], number[1:], 0)
  return number - np.maximum.accumulate(begins)


def length_of_first(last: np.ndarray) -> int:
  """Returns how many steps the first episode has."""
  return int(np.argmax(last)) + 1 if last.any() else len(last)


def first_marked(last: np.ndarray, marked: np.ndarray) -> list[int]:
  """Returns how many marked rows each episode begins with.

  Args:
    last: [T], marks where episodes end.
    marked: [T].
  """
  begins = np.flatnonzero(ages(last) == 0)
  episodes = np.split(marked, begins[1:]) if len(last) else []
  return [int(np.argmin([*each, False])) for each in episodes]


def regrouped(
  chunks: Iterable[np.ndarray], ends: Sequence[int]
) -> Iterator[np.ndarray]:
  """Yields the rows of chunks, cut at `ends` in place of where they end."""
  chunks = iter(chunks)
  held, size, begin = [], 0, 0
  for end in ends:
    while size < end - begin:
      held.append(next(chunks))
      size += len(held[-1])
    rows = np.concatenate(held)
    yield rows[: end - begin]
    held, size = [rows[end - begin :]], size - (end - begin)
    begin = end
