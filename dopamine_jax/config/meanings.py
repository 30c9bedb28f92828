"""What settings mean: their docstrings' words, for who reads a gin file."""

from collections.abc import Iterator
import inspect
import pathlib
import re
import textwrap
from typing import Any

from dopamine_jax import annotations
from dopamine_jax import errors
from dopamine_jax.config import names
from dopamine_jax.config import statements

_SECTION = re.compile(r'^(?:Attributes|Args|Parameters):\n', re.MULTILINE)
_ENTRY = re.compile(r'^(\w+)(?: \(.*?\))?: ', re.MULTILINE)


def of(target: Any, name: str) -> str:
  """Returns what a class or function says of its setting; '' if nothing."""
  for owner in getattr(target, '__mro__', [target]):
    documents = [owner.__doc__]
    if isinstance(owner, type):
      documents.append(owner.__init__.__doc__)
    for document in filter(None, documents):
      found = dict(_entries(inspect.cleandoc(document)))
      if name in found:
        return found[name]
  return ''


def _entries(document: str) -> Iterator[tuple[str, str]]:
  """Yields the names of a docstring's attributes or arguments, and texts."""
  section = _SECTION.search(document)
  if not section:
    return
  body = document[section.end() :]
  # It ends where a line is indented no more.
  body = re.split(r'^(?=\S)', body, maxsplit=1, flags=re.MULTILINE)[0]
  body = textwrap.dedent(body)
  starts = list(_ENTRY.finditer(body))
  for each, after in zip(starts, [*starts[1:], None], strict=True):
    text = body[each.end() : after.start() if after else len(body)]
    yield each[1], ' '.join(text.split())


def of_file(file: str | pathlib.Path) -> str:
  """Returns what a file's settings mean, as comments of a gin file.

  Where that can't be known, since an extra is missing, they say so.
  """
  read = statements.Statements()
  try:
    read.read_file(file)
  except errors.UserError as error:
    return '\n'.join(_wrapped(f'# What they mean is not known here: {error}'))
  if not read.bindings:
    return '# It sets nothing.'
  by_target = {}
  for binding in read.bindings.values():
    by_target.setdefault(binding.target, []).append(binding.name)
  lines = ['# What these settings mean:']
  for target, found in by_target.items():
    lines += ['#', f'# {annotations.full_name(target)}']
    known = list(names.parameters(target))
    for name in sorted(set(found), key=known.index):
      text = of(target, name) or 'see its documentation.'
      lines += _wrapped(f'#   {name}: {text}')
  return '\n'.join(lines)


def _wrapped(line: str) -> list[str]:
  return textwrap.wrap(
    line,
    width=80,
    subsequent_indent='#     ',
    break_long_words=False,
    break_on_hyphens=False,
  )
