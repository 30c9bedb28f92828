"""The names in a gin file, read without importing or resolving any."""

from collections.abc import Iterator, Sequence
import io
import pathlib
import tokenize
from typing import Any, NamedTuple

from gin import config_parser

from dopamine_jax import errors

DYNAMIC = 'from __gin__ import dynamic_registration'

# gin's parser calls itself for each bracket, and reads a text that is made of
# many strings anew for each of them.
_DEEPEST = 50  # brackets within each other
_MOST_STRINGS = 1_000
_LARGEST = 100_000  # characters; a run's has some 6_000


class Fault(NamedTuple):
  """Something that a stranger's configuration may not name.

  Attributes:
    what: what and why, in words.
    package: what `--trust` would have to allow; '' where nothing helps.
  """

  what: str
  package: str = ''


class Reference(NamedTuple):
  """What stands behind an @ or %, as `@scope/module.name()`."""

  scope: str
  path: str
  is_called: bool


class Statement(NamedTuple):
  """A statement of a gin file.

  Attributes:
    line: its number.
    parsed: as gin's parser has it.
    references: all that it refers to, however deep.
  """

  line: int
  parsed: Any
  references: Sequence[Reference]


def read(file: pathlib.Path, text: str) -> list[Statement]:
  """Returns the statements of a gin file.

  Args:
    file: what errors call it.
    text: what it says.

  Raises:
    UserError: if it is no gin, or made to take long.
  """
  try:
    _check_effort(text)
    return list(_statements(text))
  except Exception as error:  # A stranger's text may break a parser anywhere.
    reason = getattr(error, 'msg', None) or str(error)
    line = getattr(error, 'lineno', None)
    where = f', line {line}' if line else ''
    reason = reason.strip().partition('\n')[0].rstrip('.')
    reason = ''.join(c if c.isprintable() else '?' for c in reason)
    raise errors.UserError(
      f'{file}{where}: can not be read as gin: {reason}.'
    ) from error


def imports(
  statements: Sequence[Statement],
) -> Iterator[tuple[Statement, str]]:
  """Yields each import and its module, but not `DYNAMIC`."""
  for statement in statements:
    parsed = statement.parsed
    if isinstance(parsed, config_parser.ImportStatement):
      if parsed.format() != DYNAMIC:
        yield statement, parsed.module


def registers_by_imports(statements: Sequence[Statement]) -> bool:
  """Whether the first import is gin's dynamic registration (`DYNAMIC`)."""
  return (
    DYNAMIC
    in [
      parsed.format()
      for _, parsed, _ in statements
      if isinstance(parsed, config_parser.ImportStatement)
    ][:1]
  )


def ids(statements: Sequence[Statement]) -> Iterator[tuple[int, str]]:
  """Yields (line, module) of each environment's id, as 'module:Name-v0'."""
  for line, parsed, _ in statements:
    value = getattr(parsed, 'value', None)
    if getattr(parsed, 'arg_name', None) == 'id' and isinstance(value, str):
      module, colon, _ = value.partition(':')
      if colon:
        yield line, module


def called(value: Any) -> Iterator[Reference]:
  """Yields the references of a value whose result it takes."""
  if isinstance(value, Reference):
    if value.is_called:
      yield value
  elif isinstance(value, dict):
    for item in value.items():
      yield from called(item)
  elif isinstance(value, (list, tuple)):
    for each in value:
      yield from called(each)


def roots(statements: Sequence[Statement]) -> list[str]:
  """Returns the packages that a configuration imports from."""
  modules = [module for _, module in imports(statements)]
  modules += [module for _, module in ids(statements)]
  return list(dict.fromkeys(each.partition('.')[0] for each in modules))


def _statements(text):
  collector = _Collector()
  parser = config_parser.ConfigParser(text, collector)
  for parsed in parser:
    yield Statement(parsed.location.line_num, parsed, tuple(collector.found))
    # Those of a block are parsed with its head, and are judged with that.
    collector.found.clear()


class _Collector(config_parser.ParserDelegate):
  """Notes references instead of resolving them."""

  def __init__(self):
    self.found = []

  def configurable_reference(self, scoped_configurable_name, evaluate):
    scope, _, path = scoped_configurable_name.rpartition('/')
    reference = Reference(scope, path, evaluate)
    self.found.append(reference)
    return reference

  def macro(self, macro_name):
    return self.configurable_reference(f'{macro_name}/gin.macro', True)


def _check_effort(text):
  if len(text) > _LARGEST:
    raise ValueError(f'it is longer than {_LARGEST:_} characters')
  depth = strings = 0
  for token in tokenize.generate_tokens(io.StringIO(text).readline):
    strings += token.type == tokenize.STRING
    if token.type == tokenize.OP:
      depth += (token.string in ('(', '[', '{')) - (
        token.string in (')', ']', '}')
      )
    if depth > _DEEPEST:
      raise ValueError(f'more than {_DEEPEST} brackets lie within each other')
    if strings > _MOST_STRINGS:
      raise ValueError(f'it has more than {_MOST_STRINGS:_} pieces of text')
