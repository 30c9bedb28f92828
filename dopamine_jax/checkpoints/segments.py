"""Earlier saves' files, which the next checkpoint counts on: watched, mended.

A file that was whole when it was written need not be so hours later. Before
each save, every file of a segment that it reuses is looked at: one that is
missing, or has another size or time than it had, is read. And some are read
anyway, those that were not read for longest, as many bytes as the save before
wrote: so a save reads at most about twice what it writes, and each file has its
turn. A bad file is made anew from its copy.
"""

from collections.abc import Callable
import contextlib
import os
import pathlib
from typing import Any, BinaryIO

from dopamine_jax.checkpoints import ring_files
from dopamine_jax.system import plain_files


class Watch:
  """What one process knows of the files of a run's segments.

  Attributes:
    root: the folder of the run's checkpoints.
    say: is told of what was bad.
  """

  def __init__(self, root: pathlib.Path, say: Callable[[str], None]):
    self.root = root
    self.say = say
    # Size and time of each file when it was last known to be whole; the one
    # for which that is longest ago comes first.
    self._whole = {}
    self._bad = set()

  def wrote(self, rings: dict[str, Any]):
    """Takes note of the files that a save has just written."""
    for ring_name, ring in rings.items():
      newest = ring['segments'][-1]
      for leaf in newest['checksums']:
        for name in ring_files.file_names(newest, ring_name, leaf):
          self._note(name)

  def find(self, names: list[str], checksum: int) -> BinaryIO:
    """Opens the first of some equal files that is whole.

    Raises:
      ValueError: if none is; says what is the matter with the first.
    """
    complaints = []
    for name in names:
      try:
        stream = self._open(name, checksum)
      except (OSError, ValueError) as error:
        complaints.append(str(error))
        self._bad.add(name)
        continue
      if complaints:
        self.say(f'Warning: {complaints[0]}; its copy was read.')
      return stream
    raise ValueError(complaints[0])

  def mend(self, rings: dict[str, Any]) -> bool:
    """Looks after all files of a checkpoint's rings; whether all are whole.

    Raises:
      OSError: if a file can't be made anew.
    """
    files = {
      name: (names, segment['checksums'][leaf], segment['folder'])
      for ring_name, ring in rings.items()
      for segment in ring['segments']
      for leaf in segment['checksums']
      for names in [ring_files.file_names(segment, ring_name, leaf)]
      for name in names
    }
    stamps = {name: self._stamp(name) for name in files}
    newest = {ring['segments'][-1]['folder'] for ring in rings.values()}
    budget = sum(
      stamp[0]
      for name, stamp in stamps.items()
      if stamp and files[name][-1] in newest
    )
    return all(
      [
        self._check(name, *files[name][:2])
        for name in self._to_read(stamps, budget)
      ]
    )

  def copy(self, rings: dict[str, Any]):
    """Makes the second copy of segments that older versions wrote.

    Raises:
      OSError, ValueError: if a file can't be read or made.
    """
    for ring_name, ring in rings.items():
      for segment in ring['segments']:
        if segment.get('copied'):
          continue
        segment['copied'] = True
        for leaf, checksum in segment['checksums'].items():
          original, copy = ring_files.file_names(segment, ring_name, leaf)
          with self._open(original, checksum) as stream:
            self._make(copy, stream)

  def _to_read(self, stamps, budget):
    """Returns the files that look bad, and some others, of `budget` bytes."""
    bad = [
      name
      for name, stamp in stamps.items()
      if not stamp or name in self._bad or stamp != self._whole.get(name, stamp)
    ]
    age = {name: place for place, name in enumerate(self._whole)}
    others = sorted(
      stamps.keys() - set(bad), key=lambda name: (age.get(name, -1), name)
    )
    taken = 0
    for name in others:
      if taken >= budget:
        break
      bad.append(name)
      taken += stamps[name][0]
    return bad

  def _check(self, name, names, checksum):
    """Reads a file, and makes it anew if need be; whether it is whole now."""
    with contextlib.suppress(OSError, ValueError):
      self._open(name, checksum).close()
      return True
    for other in names:
      try:
        stream = self._open(other, checksum)
      except (OSError, ValueError):
        continue
      with stream:
        self._make(name, stream)
      self.say(
        f'Warning: {self.root / name} was damaged or missing; it was made anew '
        'from its copy.'
      )
      return True
    self.say(
      f'Warning: {self.root / name} was damaged, and so is its copy. This '
      "checkpoint writes all of the replay's rows anew, from memory."
    )
    return False

  def _open(self, name, checksum):
    """Opens a file that is whole, and takes note of it."""
    stream = plain_files.open_to_read(self.root, name)
    if plain_files.checksum(stream) != checksum:
      stream.close()
      raise ValueError(f'{self.root / name} is not what was saved')
    self._note(name)
    return stream

  def _make(self, name, stream):
    """Writes a file anew, equal to one that is open."""
    plain_files.copy(stream, self.root, name)
    self._note(name)

  def _note(self, name):
    self._bad.discard(name)
    self._whole.pop(name, None)
    if stamp := self._stamp(name):
      self._whole[name] = stamp

  def _stamp(self, name):
    """Returns size and time of a regular file, None if there is none."""
    try:
      status = os.lstat(plain_files.locate(self.root, name))
    except (OSError, ValueError):
      return None
    return status.st_size, status.st_mtime_ns
