"""Gin files: where they lie, and their text, each read once.

A file is looked for beside the one that includes it, then from the folder that
the command runs in, then in its package.
"""

from collections.abc import Iterator, Sequence
import contextlib
import difflib
import importlib
import importlib.util  # gin reads package paths with it but doesn't import it.
import io
import pathlib

import gin
from gin import config as gin_config

from dopamine_jax import errors

_PACKAGE_CONFIGS = 'dopamine_jax.configs'

BINDINGS = '--gin_bindings'

# What was read since `clear`, by name.
sources: dict[str, str] = {}
# Those that the user gave, in their order; the others were included.
given: list[str] = []
# Those that gin is parsing, each included by the one before.
_parsing: list[pathlib.Path] = []


def clear():
  """Forgets what was read."""
  sources.clear()
  given.clear()
  _parsing.clear()


def parse(file: str | pathlib.Path):
  """Has gin read a file that the user gave."""
  path = find(file)
  given.append(str(path))
  gin.parse_config_file(str(path))


def parse_text(file: str | pathlib.Path, text: str):
  """Has gin read what a file says that was read before."""
  given.append(str(file))
  with _being_parsed(pathlib.Path(file), text) as stream:
    gin.parse_config(stream)


def parse_bindings(bindings: Sequence[str], imports: Sequence[str]):
  """Has gin read bindings of the command line, after these imports."""
  given.append(BINDINGS)
  sources[BINDINGS] = '\n'.join(bindings)
  gin.parse_config([*imports, *bindings])


def title() -> str:
  """Returns the comment that the first file begins with, or ''."""
  text = next(iter(sources.values()), '')
  return text.partition('\n')[0][1:].strip() if text.startswith('#') else ''


def find(
  file: str | pathlib.Path, including: str | pathlib.Path | None = None
) -> pathlib.Path:
  """Returns where a gin file lies.

  Args:
    file: its path, of the file system or of a package; or the name of one that
      is shipped, without its suffix.
    including: the file that includes it, beside which it may lie.

  Raises:
    UserError: if it is neither a file nor one of an importable package.
  """
  path = pathlib.Path(file)
  beside = [pathlib.Path(including).parent / path] if including else []
  for candidate in (*beside, path):
    try:
      if candidate.is_file():
        return candidate
    except OSError as error:  # such as a name that is too long
      raise errors.UserError(
        f'{candidate} can not be read: {error.strerror}.'
      ) from error
  ours = _shipped()
  if len(path.parts) == 1 and f'{path.name}.gin' in ours:
    return ours[f'{path.name}.gin']
  if path.exists():
    kind = 'a folder' if path.is_dir() else 'no regular file'
    raise errors.UserError(f'{file} is {kind}; expected a gin file.')
  if not path.is_absolute() and len(path.parts) > 1:
    package = '.'.join(path.parts[:-1])
    try:
      spec = importlib.util.find_spec(package)
    except Exception:  # whatever the package's own code raises
      spec = None
    for folder in spec.submodule_search_locations or () if spec else ():
      inside = pathlib.Path(folder) / path.name
      if inside.is_file():
        return inside
  names = [each.removesuffix('.gin') for each in sorted(ours)]
  near = difflib.get_close_matches(path.stem, names, n=2)
  hint = f' Did you mean {" or ".join(near)}?' if near else ''
  raise errors.UserError(
    f'{file} is no gin file, and none that is shipped.{hint} '
    '`dopamine-jax configs` lists the shipped ones.'
  )


def shipped() -> list[pathlib.Path]:
  """Returns the paths of the gin files that come with the framework."""
  return [path for _, path in sorted(_shipped().items())]


def _shipped() -> dict[str, pathlib.Path]:
  package = importlib.import_module(_PACKAGE_CONFIGS)
  (folder,) = {pathlib.Path(path) for path in package.__path__}
  return {path.name: path for path in folder.glob('*.gin')}


def read(path: pathlib.Path) -> str:
  """Returns a file's text, without the mark that some editors begin it with.

  Raises:
    UserError: if it can't be read, or is no text.
  """
  try:
    data = path.read_bytes()
    return data.decode('utf-8-sig')
  except OSError as error:
    raise errors.UserError(f'{path} can not be read: {error.strerror}.') from (
      error
    )
  except UnicodeDecodeError as error:
    line = data[: error.start].count(b'\n') + 1
    raise errors.UserError(
      f'{path}, line {line}: this is no UTF-8 text (byte '
      f'0x{data[error.start]:02x}). Save the file as UTF-8.'
    ) from error


class _Text(io.StringIO):
  """A file's text, with the name that gin's messages give."""

  def __init__(self, text: str, name: str):
    super().__init__(text, newline=None)
    self.name = name


def _including() -> pathlib.Path | None:
  return _parsing[-1] if _parsing else None


@contextlib.contextmanager
def _open(name: str) -> Iterator[_Text]:
  """What gin opens files with."""
  path = find(name, _including())
  if any(path.samefile(each) for each in _parsing):
    circle = ' -> '.join(map(str, [*_parsing, path]))
    raise errors.UserError(f'gin files include each other: {circle}.')
  with _being_parsed(path, read(path)) as stream:
    yield stream


@contextlib.contextmanager
def _being_parsed(path: pathlib.Path, text: str) -> Iterator[_Text]:
  sources[str(path)] = text
  _parsing.append(path)
  try:
    yield _Text(text, str(path))
  finally:
    _parsing.pop()


# In place of gin's own, which knows nothing of the including file.
gin_config._FILE_READERS[:] = [
  (_open, lambda name: bool(find(name, _including())))
]
