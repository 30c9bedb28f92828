"""One tidy CSV file a run: a row for each number, ready for any data tool."""

from collections.abc import Iterable, Sequence
import csv
import io
import logging
import os
import pathlib

from dopamine_jax import errors
from dopamine_jax.metrics import base

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
    path = run.base_dir / 'metrics.csv'
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    if run.iteration > 0 and path.exists():
      rows = [row for row in _read(path) if int(row[1]) <= run.iteration]
    elif run.iteration > 0:
      logging.getLogger(__name__).warning(
        '%s is gone: a new one begins after iteration %d.', path, run.iteration
      )
    _replace(path, _text([_HEADER, *rows]))
    self._file = path.open('a', encoding='utf-8', newline='')

  def write(self, statistics: Sequence[base.Statistic]) -> None:
    """Appends a row for each statistic."""
    rows = (
      # NumPy's floats would be written with their own, fewer digits.
      s._replace(wall_time=float(s.wall_time), value=float(s.value))
      for s in statistics
    )
    self._file.write(_text(rows))
    _sync(self._file)

  def close(self) -> None:
    """Closes the file."""
    self._file.close()


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
    raise errors.UserError(
      f'{path} is not the metrics file of this run: expected the columns '
      f'{",".join(_HEADER)} and an iteration in each row. Move it away, or '
      'give another base_dir.'
    )
  return lines[1:]


def _replace(path: pathlib.Path, text: str) -> None:
  """Writes beside and renames, so that a kill leaves the old or the new."""
  beside = path.with_name(path.name + '.new')
  with beside.open('w', encoding='utf-8', newline='') as file:
    file.write(text)
    _sync(file)
  beside.replace(path)


def _sync(file: io.TextIOWrapper) -> None:
  file.flush()
  os.fsync(file.fileno())
