"""Who trains which pack: a lease is a file that its worker keeps young.

A worker that is gone leaves an old one, which another worker takes: at once on
the same machine, where it sees that the process is gone, else when there was no
sign of life for a while. Times are those of the file system, since clocks of
machines differ.
"""

from collections.abc import Iterator, Sequence
import contextlib
import functools
import json
import math
import os
import pathlib
import socket
import tempfile
import threading
from typing import NamedTuple

import psutil

from dopamine_jax import errors
from dopamine_jax.sweeps import plan
from dopamine_jax.system import plain_files
from dopamine_jax.system import safe_files

_FOLDER = 'leases'
_BEAT = 10.0  # seconds between two signs of life
_PATIENCE = 90.0  # seconds without one, after which a worker counts as gone
_MEGABYTES = 1
# A pack whose worker went so often, without a checkpoint more, has failed: such
# as by the system, which ended it for want of memory.
LOSSES = 3


class Lost(NamedTuple):
  """A pack whose workers went too often.

  Attributes:
    pack: the pack.
    count: how often.
  """

  pack: plan.Pack
  count: int


class Leases:
  """The leases of a sweep; all but `kept` are for who holds the journal.

  Args:
    folder: the sweep's.
  """

  def __init__(self, folder: pathlib.Path):
    self._folder = folder / _FOLDER

  def take(
    self, packs: Sequence[plan.Pack], progress
  ) -> plan.Pack | Lost | None:
    """Takes the first pack that nobody trains.

    Args:
      packs: that wait to be trained.
      progress: returns a number of a pack, which grows as it trains.

    Returns:
      The pack; one whose workers went too often; or None if all are taken.
    """
    self._folder.mkdir(exist_ok=True)
    for pack in packs:
      lease = self._read(pack)
      if lease and self.is_alive(pack):
        continue
      now = progress(pack)
      losses = 0
      if lease:
        losses = lease['losses'] + 1 if now <= lease['progress'] else 0
      if losses >= LOSSES:
        self._path(pack).unlink(missing_ok=True)
        return Lost(pack, losses)
      mine = {**_me(), 'progress': now, 'losses': losses}
      plain_files.write(self._path(pack), json.dumps(mine).encode())
      return pack
    return None

  def give_back(self, pack: plan.Pack):
    """Removes the lease of a pack, unless another process has it by now."""
    lease = self._read(pack)
    if lease and all(lease[name] == value for name, value in _me().items()):
      self._path(pack).unlink(missing_ok=True)

  @contextlib.contextmanager
  def kept(self, pack: plan.Pack) -> Iterator[None]:
    """Keeps a lease young meanwhile, from a thread."""
    ended = threading.Event()

    def beat():
      while not ended.wait(_BEAT):
        with contextlib.suppress(OSError):
          os.utime(self._path(pack))

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
      yield
    finally:
      ended.set()
      thread.join()

  def is_alive(self, pack: plan.Pack) -> bool:
    """Whether a worker has a pack, and is there."""
    lease = self._read(pack)
    if not lease:
      return False
    if lease['host'] == _here():
      return _began(lease['pid']) == lease['began']
    return self._age(pack) < _PATIENCE

  def _age(self, pack):
    """Returns the seconds since a lease's last sign of life."""
    with tempfile.TemporaryFile(dir=self._folder) as file:
      now = os.fstat(file.fileno()).st_mtime
    try:
      return now - self._path(pack).stat().st_mtime
    except FileNotFoundError:  # given back since it was read
      return math.inf

  def _read(self, pack):
    path = self._path(pack)
    try:
      return json.loads(safe_files.read_text(path, _MEGABYTES))
    except FileNotFoundError:
      return None
    except ValueError as error:
      raise errors.UserError(
        f'{path} can not be read: {error}. Remove it: a worker takes the pack '
        'anew.'
      ) from error

  def _path(self, pack):
    return self._folder / f'{pack.name}.json'


def _me():
  pid = os.getpid()
  return {'host': _here(), 'pid': pid, 'began': _began(pid)}


@functools.cache
def _here():
  """Returns what tells apart places in which a process has its number.

  Two containers, or clones of a machine, may have one host name.
  """
  found = [socket.gethostname()]
  with contextlib.suppress(OSError):  # Linux alone has these
    boot = pathlib.Path('/proc/sys/kernel/random/boot_id').read_text()
    found += [boot.strip(), os.readlink('/proc/self/ns/pid')]
  return ' '.join(found)


def _began(pid):
  """Returns when a process began, which tells it from a later one; or None.

  On Linux in ticks since the boot: a clock that is set changes other times.
  """
  try:
    process = psutil.Process(pid)
    if process.status() == psutil.STATUS_ZOMBIE:
      return None
    with contextlib.suppress(OSError):
      words = pathlib.Path(f'/proc/{pid}/stat').read_text()
      return int(words.rpartition(')')[2].split()[19])
    return process.create_time()
  except psutil.NoSuchProcess:
    return None
