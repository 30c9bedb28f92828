"""The folders of checkpoints: which is one, and of which iteration."""

import pathlib

from dopamine_jax.system import plain_files


def number(path: pathlib.Path) -> int | None:
  """Returns the iteration that a folder is called after, None if none."""
  name = path.name
  is_number = name.isascii() and name.isdecimal()
  return int(name) if is_number and name == f'{int(name):06d}' else None


def counts(path: pathlib.Path) -> bool:
  """Whether this is a checkpoint, or in the place of one."""
  found = number(path)
  if found is None or plain_files.kind(path) != 'a folder':
    return found is not None
  # A folder of rows alone is none: later checkpoints need those.
  parts = ('manifest.json', 'state', 'state.bin')
  return any(plain_files.kind(path / part) for part in parts)


def set_aside(path: pathlib.Path):
  """Renames a folder to the first free of `000010.set-aside-1`, `-2`, ..."""
  count = 1
  while plain_files.kind(
    name := path.with_name(f'{path.name}.set-aside-{count}')
  ):
    count += 1
  path.rename(name)
