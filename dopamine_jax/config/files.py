"""Gin files: where they lie, and their text.

A file is looked for beside the one that includes it, then from the folder that
the command runs in, then in its package.
"""

import difflib
import importlib
import importlib.util
import pathlib

from dopamine_jax import errors

_PACKAGE_CONFIGS = 'dopamine_jax.configs'


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


def title(text: str) -> str:
  """Returns the comment that a gin file's text begins with, or ''."""
  first = text.partition('\n')[0]
  return first[1:].strip() if first.startswith('#') else ''
