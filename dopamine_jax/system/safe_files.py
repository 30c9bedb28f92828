"""Reads and writes files in a folder that may be a stranger's.

There a link could lead anywhere, a pipe lets its reader wait for ever, and a
device has no end. Only regular files are read, up to a size, and files are
written beside and renamed: a link in their place is replaced, not followed.
Elsewhere a link is the user's, and leads where the user says.
"""

from collections.abc import Iterator
import contextlib
import json
import os
import pathlib
import secrets
from typing import Any

from dopamine_jax import errors
from dopamine_jax.system import plain_files

MEGABYTE = 1_000_000


def read(path: pathlib.Path, megabytes: int) -> bytes:
  """Returns what a regular file holds.

  Args:
    path: of the file; its folder is the user's choice, and may be a link.
    megabytes: the most that it may hold.

  Raises:
    UserError: if it is no regular file, too long, or can't be read.
    FileNotFoundError: if nothing is there.
  """
  found = _kind(path)
  if found is None:
    raise FileNotFoundError(f'{path} is not there')
  if found != 'a file':
    raise errors.UserError(
      f'{path} is {found}, and is not read: expected a regular file. Put a '
      'copy of the file there.'
    )
  try:
    with plain_files.open_there(path) as file:
      data = file.read(megabytes * MEGABYTE + 1)
  except OSError as error:
    raise errors.UserError(
      f'{path} can not be read: {error.strerror}.'
    ) from error
  if len(data) > megabytes * MEGABYTE:
    raise errors.UserError(
      f'{path} is longer than {megabytes:,} MB, and is not read.'
    )
  return data


def read_text(path: pathlib.Path, megabytes: int) -> str:
  """Returns the text of a regular file in UTF-8, without a byte-order mark.

  Raises:
    UserError: as `read` does, or if it is no text.
    FileNotFoundError: if nothing is there.
  """
  try:
    text = read(path, megabytes).decode('utf-8-sig')
  except UnicodeDecodeError as error:
    raise errors.UserError(
      f'{path} can not be read: byte {error.start} is no UTF-8.'
    ) from error
  if '\0' in text:
    raise errors.UserError(
      f'{path} can not be read: character {text.index(chr(0))} is NUL, and a '
      'text has none.'
    )
  return text


def read_noted(path: pathlib.Path, megabytes: int, *names: str) -> Any:
  """Returns what a JSON file has under these names, one within the other.

  None if it is not there, or can't be read: then nobody knows.
  """
  try:
    found = json.loads(read_text(path, megabytes))
    for name in names:
      found = found[name]
    return found
  except (
    *(OSError, ValueError, KeyError, TypeError, RecursionError),
    errors.UserError,
  ):
    return None


def write(path: pathlib.Path, data: bytes | str, *strange: pathlib.Path):
  """Writes a file whole or not at all; see `making`."""
  with making(path, *strange) as beside:
    beside.write_bytes(data.encode() if isinstance(data, str) else data)


@contextlib.contextmanager
def making(
  path: pathlib.Path, *strange: pathlib.Path
) -> Iterator[pathlib.Path]:
  """Gives the name of an empty new file, which takes a path's place at the end.

  Args:
    path: of the file to make; a file that lies there is replaced, a device
      written to.
    *strange: folders that may be a stranger's: where the path leads into one
      of them, it leads through no link there, and one that lies there is
      replaced.

  Raises:
    UserError: if the file can't be made there.
  """
  _refuse_links(path, strange)
  target = path
  if not _is_below(path, strange):
    target = pathlib.Path(os.path.realpath(path))
  try:
    found = plain_files.kind(target)
  except OSError as error:
    raise errors.UserError(
      f'could not write {path}: {error.strerror}. Choose another place.'
    ) from error
  if found not in (None, 'a file', 'a link', 'a device'):
    raise errors.UserError(
      f'could not write {path}: {found} is there. Give another name.'
    )
  beside = target.with_name(f'.{secrets.token_hex(8)}{target.suffix}')
  try:
    if found == 'a device' and target is not path:
      yield target
      return
    with plain_files.going_beside(beside):
      beside.open('xb').close()
      yield beside
      plain_files.sync(beside)
      os.replace(beside, target)
      plain_files.sync(target.parent)
  except OSError as error:
    raise errors.UserError(
      f'could not write {path}: {error.strerror or error}. Choose another '
      'place.'
    ) from error


def make_folder(path: pathlib.Path, *strange: pathlib.Path):
  """Makes a folder, and those above it that are missing; see `making`.

  Raises:
    UserError: if it can't be made.
  """
  _refuse_links(path / 'file', strange)
  try:
    path.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise errors.UserError(
      f'{path} can not be made a folder: {error.strerror}. Choose another one.'
    ) from error


def _is_below(path, folders):
  parents = pathlib.Path(os.path.abspath(path)).parents
  return any(pathlib.Path(os.path.abspath(x)) in parents for x in folders)


def _refuse_links(path, strange):
  """Refuses a path whose folders below one of those are links."""
  for folder in pathlib.Path(os.path.abspath(path)).parents:
    if _is_below(folder, strange) and _kind(folder) == 'a link':
      raise errors.UserError(
        f'{path} is not written: {folder} is a link, which may lead out of the '
        'run. Give a place outside of it.'
      )


def _kind(path):
  """Returns what lies there, or None; a link is not followed."""
  try:
    return plain_files.kind(path)
  except ValueError:
    return None
  except OSError:
    return 'out of reach'
