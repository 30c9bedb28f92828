"""One training at a time in a folder, which stays where it is meanwhile."""

from collections.abc import Callable, Iterator
import contextlib
import errno
import fcntl
import os
import pathlib

from dopamine_jax import errors
from dopamine_jax.system import processes

_LOCK = '.lock'
_HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)


class Held(errors.UserError):
  """Another process trains in the folder."""


@contextlib.contextmanager
def open_for_training(
  base_dir: str | pathlib.Path, say: Callable[[str], None] = print
) -> Iterator[pathlib.Path]:
  """Makes the folder and holds it, so that only one training is in it.

  A training that writes nothing, since it was refused, leaves no folder behind
  that was not there before.

  Args:
    base_dir: the run's folder; made if missing.
    say: is told where a file system has no locks.

  Raises:
    UserError: if it can't be written, or another process holds it.
  """
  folder = pathlib.Path(base_dir)
  if not processes.is_writer():  # The one that is holds it for all.
    yield folder
    return
  made = [f for f in (folder, *folder.parents) if not os.path.exists(f)]
  with _locked(folder, say):
    try:
      yield folder
    finally:  # While it is held, so that nobody else is in it.
      _leave_none(folder, made)


class Place:
  """A folder, told from whatever else gets its name later."""

  def __init__(self, folder: pathlib.Path):
    self._folder = folder
    # While it is open no other gets its number.
    self._open = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)

  def require_same(self):
    """Refuses to write where the folder was removed, renamed or replaced.

    Raises:
      UserError: if its path no longer leads to it.
    """
    if not _is_same(self._folder, self._open):
      raise errors.UserError(
        f'{self._folder} was removed or renamed while it trained there, so '
        'that nothing more is written. If it was renamed, the run lies whole '
        'under its new name up to the newest checkpoint: give that as '
        '--base_dir to go on.'
      )

  def close(self):
    """Lets go of the folder."""
    os.close(self._open)


@contextlib.contextmanager
def _locked(folder, say):
  """Holds the lock of a folder, which is made."""
  while True:
    try:
      folder.mkdir(parents=True, exist_ok=True)
      # A stranger's link is not followed, nor a pipe waited for.
      flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
      lock = os.fdopen(os.open(folder / _LOCK, flags, 0o666), 'wb')
    except OSError as error:
      raise _unwritable(folder, error) from error
    try:
      _lock(lock, folder, say)
      # Whoever held it may just have removed it.
      if _is_same(folder / _LOCK, lock.fileno()):
        break
    except BaseException:
      lock.close()
      raise
    lock.close()
  with lock:
    yield


def _lock(lock, folder, say):
  try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except OSError as error:
    if error.errno in _HELD:
      raise Held(
        f'another process is training in {folder}. Wait for it, stop it, or '
        'choose another --base_dir.'
      ) from error
    say(
      f'Warning: the file system of {folder} has no locks ({error.strerror}). '
      'Nothing keeps a second training out of it: start none.'
    )


def _is_same(path, descriptor):
  try:
    return os.path.samestat(os.stat(path), os.fstat(descriptor))
  except OSError:
    return False


def _leave_none(folder, made):
  """Removes the folders that were made, if they hold nothing but the lock."""
  with contextlib.suppress(OSError):
    if os.listdir(folder) == [_LOCK]:
      (folder / _LOCK).unlink()
      for each in made:
        each.rmdir()


def _unwritable(folder, error):
  return errors.UserError(
    f'--base_dir {folder} can not be written: {error.strerror}. Choose a '
    'folder that you may write to.'
  )
