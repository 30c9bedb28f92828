"""The journal of a sweep: a line of JSON for all that was decided and done.

Lines are only ever appended, by whichever worker holds the lock, and are on
disk before anything follows from them. What is decided at once is written at
once: `more` says how many lines of it follow, and of what a kill has cut short
nothing counts.
"""

from collections.abc import Iterator, Sequence
import contextlib
import fcntl
import json
import os
import pathlib
import time
from typing import Any

from dopamine_jax import errors
from dopamine_jax.system import safe_files

_FILE, _LOCK = 'journal.jsonl', '.journal.lock'
_MEGABYTES = 1_000  # at most

# What a line holds that is not the same in a sweep that was killed.
_BY_CHANCE = ('time',)


class Journal:
  """The journal in a sweep's folder."""

  def __init__(self, folder: pathlib.Path):
    self._file = folder / _FILE
    self._lock = folder / _LOCK

  @contextlib.contextmanager
  def locked(self) -> Iterator[None]:
    """Waits until no other process reads and appends, and keeps them out."""
    with open(self._lock, 'ab') as lock:
      try:
        fcntl.flock(lock, fcntl.LOCK_EX)
      except OSError as error:
        raise errors.UserError(
          f'the file system of {self._lock.parent} has no locks '
          f'({error.strerror}), which a sweep needs. Give a --base_dir on '
          'another one.'
        ) from error
      yield

  def read(self) -> list[dict[str, Any]]:
    """Returns all lines, oldest first.

    Raises:
      UserError: if one can't be read.
    """
    try:
      data = safe_files.read(self._file, _MEGABYTES)
    except FileNotFoundError:
      return []
    return self._whole(data)[0]

  def append(self, records: Sequence[dict[str, Any]]):
    """Writes lines, which are on disk on return; for who holds the lock.

    Raises:
      UserError: if the disk can't take them.
    """
    if not records:
      return
    now = round(time.time(), 3)
    lines = [
      json.dumps({**record, 'time': now, 'more': len(records) - i}) + '\n'
      for i, record in enumerate(records, 1)
    ]
    try:
      with open(self._file, 'ab+') as file:
        file.seek(0)
        file.truncate(self._whole(file.read())[1])
        file.write(''.join(lines).encode())
        file.flush()
        os.fsync(file.fileno())
    except OSError as error:
      raise errors.UserError(
        f'{self._file} can not be written: {error.strerror}. Nothing is lost: '
        'make room, then go on.'
      ) from error

  def _whole(self, data):
    """Returns the events that were written whole, and their length in bytes."""
    found, count, size, whole = [], 0, 0, 0
    for number, line in enumerate(data.splitlines(keepends=True), 1):
      if not line.endswith(b'\n'):
        break
      try:
        record = json.loads(line)
        more = record.pop('more')
        record['event']
      except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise self._unreadable(number, errors.described(error)) from error
      found.append(record)
      size += len(line)
      if not more:
        count, whole = len(found), size
    return found[:count], whole

  def _unreadable(self, number, why):
    return errors.UserError(
      f'{self._file}: line {number} can not be read: {why}. Bring back the '
      'file that the sweep wrote.'
    )


def canonical(records: Sequence[dict[str, Any]]) -> list[str]:
  """Returns what is the same of two sweeps however they were interrupted.

  Workers finish in any order, and a sweep that was killed has other times.
  """
  return sorted(
    json.dumps(
      {k: v for k, v in each.items() if k not in _BY_CHANCE}, sort_keys=True
    )
    for each in records
  )
