"""One tidy CSV file a run: a row for each number, ready for any data tool."""

from collections.abc import Iterable, Sequence
import csv
import hashlib
import io
import os
import pathlib
from typing import Any

import numpy as np

from dopamine_jax import errors
from dopamine_jax.metrics import base
from dopamine_jax.system import plain_files
from dopamine_jax.system import safe_files

_MAX_TEXT, _MAX_TABLE = 10, 1_000  # MB of run.json, and of a table
_HEADER = list(base.Statistic._fields)


class CSV(base.Collector):
  """Writes `BASE_DIR/metrics.csv`, a row for each `Statistic`.

  Columns are the fields of `Statistic`. Floats are written so that reading
  them gives the same number to the bit. Every write is on disk on return.
  """

  def open(self, run: base.Run) -> None:
    """Starts the file, or takes back the rows after the last checkpoint.

    Args:
      run: With `iteration` 0 a file that is there is replaced.

    Raises:
      UserError: The file that is there isn't one that this class wrote.
    """
    self._path = path = run.base_dir / 'metrics.csv'
    path.parent.mkdir(parents=True, exist_ok=True)
    if (found := plain_files.kind(path)) not in (None, 'a file'):
      raise errors.UserError(
        f'{path} is {found}, and a run touches nothing outside of its own '
        'folder. Put a regular file there, or give another --base_dir.'
      )
    kept = _text([_HEADER]).encode()
    if run.iteration > 0:
      kept = _kept(path, run)
    plain_files.write(path, kept)
    self._digest, self._size = hashlib.sha256(kept), len(kept)
    # Without a buffer, which a full disk would meet once more at the end.
    self._file = path.open('ab', buffering=0)

  def write(self, statistics: Sequence[base.Statistic]) -> None:
    """Appends a row for each statistic."""
    rows = (
      # NumPy's floats would be written with their own, fewer digits.
      s._replace(wall_time=float(s.wall_time), value=float(s.value))
      for s in statistics
    )
    ours = os.fstat(self._file.fileno())
    if (
      not os.path.exists(self._path)
      or not os.path.samestat(os.stat(self._path), ours)
      or ours.st_size != self._size
    ):
      raise errors.UserError(
        f'{self._path} was removed, replaced or changed while the training '
        'wrote it. Bring the file back, then run the same command to go on.'
      )
    data = _text(rows).encode()
    _write(self._file, data)
    self._digest.update(data)
    self._size += len(data)

  def written(self) -> dict[str, Any]:
    """Returns the file's length in bytes, and its digest."""
    return {'bytes': self._size, 'sha256': self._digest.hexdigest()}

  def close(self) -> None:
    """Closes the file."""
    self._file.close()


def of_iteration(
  base_dir: pathlib.Path, iteration: int, seeds: Sequence[int]
) -> dict[str, np.ndarray]:
  """Returns a run's statistics of an iteration, float [S] by name.

  Args:
    base_dir: of the run; without a metrics.csv there are none.
    iteration: the one that is asked for.
    seeds: the S seeds of the run.

  Raises:
    UserError: if the file isn't one that `CSV` wrote.
  """
  path = base_dir / 'metrics.csv'
  statistics = {}
  for row in _read(path) if path.exists() else ():
    each = base.Statistic(*row)
    if int(each.iteration) == iteration:
      values = statistics.setdefault(each.name, np.full(len(seeds), np.nan))
      try:
        values[seeds.index(int(each.seed))] = float(each.value)
      except ValueError:
        raise _not_ours(path) from None
  return statistics


def names(base_dir: pathlib.Path) -> set[str]:
  """Returns the names of all statistics of a run.

  Raises:
    UserError: if the file isn't one that `CSV` wrote.
  """
  return {base.Statistic(*row).name for row in _read(base_dir / 'metrics.csv')}


def score(
  base_dir: pathlib.Path,
  name: str,
  seeds: Sequence[int],
  upto: int,
  last: int,
) -> np.ndarray:
  """Returns the mean of a statistic's last points, [S]; NaN without any.

  Args:
    base_dir: of the run.
    name: of the statistic, as 'Eval/AverageReturns'.
    seeds: the S seeds of the run.
    upto: the last iteration that counts.
    last: points whose mean it is.

  Raises:
    UserError: if the file isn't one that `CSV` wrote.
  """
  points = {seed: [] for seed in seeds}
  path = base_dir / 'metrics.csv'
  for row in _read(path):
    each = base.Statistic(*row)
    if each.name == name and int(each.iteration) <= upto:
      points[int(each.seed)].append(float(each.value))
  return np.array(
    [np.mean(each[-last:]) if each else np.nan for each in points.values()]
  )


def altered(path: pathlib.Path) -> str:
  """Returns how a metrics.csv differs from what the training wrote, or ''.

  Of older versions' runs, and of a file alone, nobody knows.

  Raises:
    UserError: if it can't be read.
  """
  # Before the file itself, which a training makes longer first.
  run = path.with_name('run.json')
  written = safe_files.read_noted(
    run, _MAX_TEXT, 'progress', 'written', CSV.__name__
  )
  written = written if isinstance(written, dict) else {}
  size, digest = written.get('bytes'), written.get('sha256')
  if type(size) is not int or size < 0 or digest is None:
    return ''
  data = safe_files.read(path, _MAX_TABLE)[:size]
  if len(data) < size:
    return f'{path} has {len(data)} bytes of {size} that the training wrote'
  if hashlib.sha256(data).hexdigest() != digest:
    return f'{path} is not what the training wrote'
  return ''


def _kept(path: pathlib.Path, run: base.Run) -> bytes:
  """Returns the file up to the iteration after which a run goes on."""
  if not path.exists():
    raise _incomplete(path, run, 'is gone')
  if run.written is None:  # of a version that noted nothing
    rows = [row for row in _read(path) if int(row[1]) <= run.iteration]
    return _text([_HEADER, *rows]).encode()
  try:
    size, digest = int(run.written['bytes']), run.written['sha256']
  except (KeyError, TypeError, ValueError):
    raise _incomplete(path, run, 'can not be checked') from None
  data = path.read_bytes()
  if len(data) < size:
    raise _incomplete(path, run, f'has {len(data)} bytes of {size}')
  data = data[:size]
  if hashlib.sha256(data).hexdigest() != digest:
    raise _incomplete(path, run, 'is not what was written')
  return data


def _incomplete(path, run, what):
  return errors.UserError(
    f'{path} {what} up to iteration {run.iteration}, after which this run '
    'would go on: it would not be the same run. Bring the whole file back (a '
    'copy that was cut short? edited by hand?), or train into another '
    '--base_dir.'
  )


def _text(rows: Iterable[Iterable]) -> str:
  """Formats rows; csv writes a float by its repr, which loses no bit."""
  text = io.StringIO(newline='')
  csv.writer(text, lineterminator='\n').writerows(rows)
  return text.getvalue()


def _read(path: pathlib.Path) -> list[list[str]]:
  """Returns all rows but a last one that a kill has cut short."""
  data = path.read_bytes()
  whole = data[: data.rfind(b'\n') + 1]
  try:
    lines = list(csv.reader(io.StringIO(whole.decode(), newline='')))
    fits = lines[0] == _HEADER and all(
      len(line) == len(_HEADER) and line[1].isdecimal() for line in lines[1:]
    )
  except (csv.Error, IndexError, UnicodeDecodeError):
    fits = False
  if not fits:
    raise _not_ours(path)
  return lines[1:]


def _not_ours(path):
  return errors.UserError(
    f'{path} is not the metrics file of this run: expected the columns '
    f'{",".join(_HEADER)}, with numbers in each row. Move it away, or give '
    'another --base_dir.'
  )


def _write(file: io.FileIO, data: bytes) -> None:
  rest = memoryview(data)
  while rest:
    rest = rest[file.write(rest) :]
  os.fsync(file.fileno())
