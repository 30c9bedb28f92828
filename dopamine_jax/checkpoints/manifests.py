"""manifest.json: what belongs to a checkpoint, and whether it can be true.

Its checksum tells damage. It tells no lie: whoever writes a manifest writes the
checksum, too. So types, numbers and names are checked as well, before anything
is opened, allocated or deleted because of them.
"""

import hashlib
import json
import pathlib
from typing import Any

from dopamine_jax.system import plain_files

# Characters. A training of 3200 lanes writes a tenth of it.
_LONGEST = 64 << 20
_LARGEST = 2**62


def write(file: pathlib.Path, contents: dict[str, Any]):
  """Writes a manifest into a new file, durably.

  Raises:
    OSError: if the disk can't take it.
  """
  text = {'sha256': digest(contents), 'contents': contents}
  with open(file, 'x') as stream:
    stream.write(json.dumps(text, indent=1))
    plain_files.sync_stream(stream)


def read(folder: pathlib.Path, name: str, iteration: int) -> dict[str, Any]:
  """Returns the contents of a manifest that lies below a folder.

  Args:
    folder: of the run's checkpoints.
    name: the file's, below it.
    iteration: of which it should be.

  Raises:
    OSError, ValueError: if it can't be read, isn't what was saved, or is
      nothing that a save writes.
  """
  with plain_files.open_to_read(folder, name) as stream:
    data = stream.read(_LONGEST + 1)
  _expect(len(data) <= _LONGEST, f'it has more than {_LONGEST} bytes')
  try:
    saved = json.loads(data.decode(), object_pairs_hook=_object)
    _expect(isinstance(saved, dict), 'it is no object')
    contents = saved.get('contents')
    _expect(saved.get('sha256') == digest(contents), 'it is not what was saved')
  except RecursionError as error:
    raise ValueError('it is nested too deeply') from error
  _check(contents)
  found = contents['iteration']
  _expect(found == iteration, f'it is of iteration {found}')
  return contents


def digest(contents: Any) -> str:
  """Returns a checksum of a manifest's contents, whatever its whitespace."""
  return hashlib.sha256(json.dumps(contents, indent=1).encode()).hexdigest()


def _object(pairs):
  names = [name for name, _ in pairs]
  _expect(len(set(names)) == len(names), 'it has a name twice')
  return dict(pairs)


def _check(contents):
  """Refuses what no save writes."""
  _expect(isinstance(contents, dict), 'its contents are no object')
  _expect(_is_count(contents.get('iteration')), 'its iteration is no count')
  run = contents.get('run') or {}  # older versions have none
  _expect(isinstance(run, dict), 'its run is no object')
  _expect(_is_count(run.get('replay_began', 0)), 'its replay began never')
  facts = run.get('facts') or {}
  _expect(isinstance(facts, dict), 'its facts are no object')
  _expect(
    _is_list(facts.get('seeds', []), _is_count), 'its seeds are no counts'
  )
  for name, value in _table(contents, 'files').items():
    _expect(_is_count(value), f'the checksum of {name!r} is no count')
    _expect(plain_files.is_below(name), f'its file {name!r} leads out of it')
  # Of older versions, whose arrays are described where they lie.
  if 'arrays' in contents:
    _expect('state.bin' in contents['files'], 'it has no checksum of its state')
    for name, array in _table(contents, 'arrays').items():
      _expect(
        isinstance(array, dict)
        and isinstance(array.get('dtype'), str)
        and _is_list(array.get('shape'), _is_count),
        f'its array {name!r} is described by {str(array)[:80]}',
      )
  for name, ring in _table(contents, 'rings').items():
    _expect(
      plain_files.is_below(name) and '/' not in name,
      f'its ring {name!r} leads out of it',
    )
    _expect(isinstance(ring, dict), f'its ring {name!r} is no object')
    _check_ring(ring)


def _check_ring(ring):
  """Refuses a ring whose segments don't hold all that should be live."""
  capacity, oldest, segments = (
    ring.get(name) for name in ('capacity', 'oldest', 'segments')
  )
  _expect(_is_count(capacity), 'the capacity of its replay is no count')
  _expect(_is_list(oldest, _is_count) and oldest, 'its replay has no lanes')
  _expect(_is_list(segments, _is_segment) and segments, 'its replay is odd')
  reached = list(oldest)
  leaves = segments[0]['checksums'].keys()
  for segment in segments:
    _expect(
      len(segment['lanes']) == len(oldest)
      and segment['checksums'].keys() == leaves,
      'its replay has other lanes or leaves in one segment than in another',
    )
    for lane, (start, stop) in enumerate(segment['lanes']):
      # Rows that were overwritten before they were saved are in no segment.
      _expect(
        start <= stop and (start <= reached[lane] or stop <= oldest[lane]),
        'its replay has a gap',
      )
      reached[lane] = max(reached[lane], stop)
  _expect(
    all(
      stop - start < max(capacity, 1)
      for start, stop in zip(oldest, reached, strict=True)
    ),
    'its replay has more rows than slots',
  )


def _is_segment(value):
  return (
    isinstance(value, dict)
    and isinstance(value.get('folder'), str)
    # As checkpoints are called; digits lead nowhere.
    and value['folder'].isascii()
    and value['folder'].isdecimal()
    and isinstance(value.get('copied', False), bool)
    and _is_list(value.get('lanes'), _is_pair)
    and isinstance(value.get('checksums'), dict)
    and bool(value['checksums'])
    and all(
      plain_files.is_below(leaf) and '/' not in leaf and _is_count(checksum)
      for leaf, checksum in value['checksums'].items()
    )
  )


def _is_pair(value):
  return _is_list(value, _is_count) and len(value) == 2


def _is_list(value, is_item):
  return isinstance(value, list) and all(map(is_item, value))


def _is_count(value):
  return type(value) is int and 0 <= value < _LARGEST  # True is no count.


def _table(contents, name):
  table = contents.get(name)
  _expect(isinstance(table, dict), f'its {name} are no object')
  return table


def _expect(holds, complaint):
  if not holds:
    raise ValueError(complaint)
