"""Regular files in real folders, and nothing else: what a run is made of.

A run's folder may come from a stranger, or from a broken disk. A link in it
could lead anywhere, a pipe has its reader wait for ever, a device has no end.
So whatever of a checkpoint is read or deleted is looked at first, and a link is
never followed. The run's own folder may well be a link: its user made that.
"""

from collections.abc import Iterator
import contextlib
import os
import pathlib
import shutil
import stat
from typing import BinaryIO
import zlib

_KINDS = (
  (stat.S_ISREG, 'a file'),
  (stat.S_ISDIR, 'a folder'),
  (stat.S_ISLNK, 'a link'),
  (stat.S_ISFIFO, 'a pipe'),
  (stat.S_ISSOCK, 'a socket'),
)


# Files that are being written beside those whose place they take, for a
# process that ends at once to remove.
unfinished: set[pathlib.Path] = set()


def kind(path: str | pathlib.Path) -> str | None:
  """Returns what lies there: 'a file', 'a folder', 'a link' ...; or None.

  Raises:
    OSError, ValueError: if that can't be known.
  """
  try:
    mode = os.lstat(path).st_mode
  except (FileNotFoundError, NotADirectoryError):
    return None
  return next((name for is_it, name in _KINDS if is_it(mode)), 'a device')


def is_below(name: object) -> bool:
  """Whether this is a plain path, which leads from a folder into it."""
  return (
    isinstance(name, str)
    and '\0' not in name
    and all(part not in ('', '.', '..') for part in name.split('/'))
  )


def locate(folder: pathlib.Path, name: str) -> pathlib.Path:
  """Returns the path of a regular file below a folder; refuses all links.

  Raises:
    OSError, ValueError: if it is no regular file; the message says what it is.
  """
  if not is_below(name):
    raise ValueError(f'{name!r} leads out of its folder')
  path, *parts = folder, *name.split('/')
  for part in parts:
    if (found := kind(path)) != 'a folder':
      raise ValueError(f'{path} is {found or "missing"}, not a folder')
    path = path / part
  if (found := kind(path)) != 'a file':
    raise ValueError(f'{path} is {found or "missing"}, not a file')
  return path


def open_to_read(folder: pathlib.Path, name: str) -> BinaryIO:
  """Opens a regular file below a folder; raises as `locate` does."""
  return open_there(locate(folder, name))


def open_there(path: pathlib.Path) -> BinaryIO:
  """Opens what was seen to be a regular file.

  If it became a link or a pipe just now, that is neither followed nor waited
  for.

  Raises:
    OSError: if it can't be opened.
  """
  flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
  return os.fdopen(os.open(path, flags), 'rb')


def checksum(stream: BinaryIO) -> int:
  """Returns the CRC-32 of a file, and leaves it at its start."""
  value = 0
  stream.seek(0)
  while block := stream.read(1 << 24):
    value = zlib.crc32(block, value)
  stream.seek(0)
  return value


def remove(path: pathlib.Path):
  """Removes what lies there as far as it can; a link, not where it leads."""
  try:
    if kind(path) == 'a folder':
      shutil.rmtree(path, ignore_errors=True)
    else:
      path.unlink(missing_ok=True)
  except OSError:
    pass  # What stays is in nobody's way but the disk's.


def copy(stream: BinaryIO, folder: pathlib.Path, name: str):
  """Makes a file below a folder anew, equal to one that is open, durably.

  What is in its way, such as a link or a pipe, is removed.

  Raises:
    OSError: if the disk can't take it.
  """
  path, *parts = folder, *name.split('/')[:-1]
  for part in parts:
    path = path / part
    if (found := kind(path)) != 'a folder':
      if found:
        remove(path)
      path.mkdir()
      sync(path.parent)
  file = folder / name
  if kind(file) not in (None, 'a file'):
    remove(file)
  with _replacing(file) as target:
    shutil.copyfileobj(stream, target, 1 << 24)


def write(file: pathlib.Path, data: bytes):
  """Writes a file whole or not at all, and on disk on return.

  A link in its place, or beside it, is replaced and not followed.

  Raises:
    OSError: if the disk can't take it.
  """
  with _replacing(file) as stream:
    stream.write(data)


@contextlib.contextmanager
def _replacing(file):
  """Opens a new file, which takes this one's place when it is whole."""
  beside = file.with_name(f'{file.name}.tmp')
  remove(beside)
  with going_beside(beside):
    with open(beside, 'xb') as stream:
      yield stream
      sync_stream(stream)
    beside.replace(file)
  sync(file.parent)


@contextlib.contextmanager
def going_beside(path: pathlib.Path) -> Iterator[None]:
  """Removes a file at the end, unless it was renamed by then.

  Until then it is among `unfinished`, for a process that ends at once.
  """
  unfinished.add(path)
  try:
    yield
  finally:
    path.unlink(missing_ok=True)
    unfinished.discard(path)


def sync(path: pathlib.Path):
  """Makes a file durable, or what was made and renamed in a folder."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def sync_stream(stream: BinaryIO):
  """Makes what was written to a file durable."""
  stream.flush()
  os.fsync(stream.fileno())


def instead_of(folder: pathlib.Path) -> str:
  """Returns what to give in place of a folder that holds no run."""
  below = [path.parent for path in sorted(folder.glob('*/run.json'))]
  if below:
    count = f'one of the {len(below)}' if len(below) > 1 else 'the one'
    return f'Give {count} in it: {below[0]}.'
  return 'Give the --base_dir of a training.'
