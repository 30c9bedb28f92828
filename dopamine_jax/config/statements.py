"""What gin files say: bindings and macros, each with its place."""

from collections.abc import Iterator, Sequence
import contextlib
import dataclasses
import pathlib
import re
import tokenize
from typing import Any, NamedTuple

from gin import config_parser

from dopamine_jax import errors
from dopamine_jax.config import files
from dopamine_jax.config import names

# What a binding of the command line is said to stand in.
COMMAND_LINE = '--gin_bindings'


class Place(NamedTuple):
  """Where a statement stands.

  Attributes:
    source: a file, or the command line's bindings.
    line: counted from 1.
    given: whether the user gave that source, and no file included it.
  """

  source: str
  line: int
  given: bool = True

  def __str__(self):
    if self.source == COMMAND_LINE:
      return self.source
    return f'{self.source}, line {self.line}'


@dataclasses.dataclass(frozen=True)
class Macro:
  """What `%name` stands for."""

  name: str

  def __str__(self):
    return f'%{self.name}'

  __repr__ = __str__


# Marks a setting that another file, or the command line, must set.
REQUIRED = Macro('gin.REQUIRED')


@dataclasses.dataclass(frozen=True)
class Reference:
  """What `@scope/module.name` or `@scope/module.name()` stands for.

  Attributes:
    scope: the scopes that it is made in; none: where it is used.
    name: as it is written, without scopes.
    called: whether its result is meant.
    target: the class or function.
  """

  scope: tuple[str, ...]
  name: str
  called: bool
  target: Any = None

  def __str__(self):
    scoped = '/'.join((*self.scope, self.name))
    return f'@{scoped}{"()" if self.called else ""}'

  __repr__ = __str__


@dataclasses.dataclass(frozen=True, eq=False)
class Binding:
  """A setting of a class or function.

  Attributes:
    scope: where it holds.
    owner: the class or function, as it is written.
    target: the same, itself.
    name: the setting.
    value: as it is parsed, with `Macro` and `Reference` in it.
    place: where it stands.
  """

  scope: tuple[str, ...]
  owner: str
  target: Any
  name: str
  value: Any
  place: Place

  def __str__(self):
    return '/'.join((*self.scope, f'{names.short(self.owner)}.{self.name}'))


class Statements:
  """All that some gin files and bindings say.

  Attributes:
    bindings: those that hold, by scope, target and name; later ones win.
    replaced: (binding, old value) of each that replaced a reference.
    macros: (value, place) by name.
    title: the comment that the first file begins with.
  """

  def __init__(self):
    self.bindings: dict[tuple, Binding] = {}
    self.replaced: list[tuple[Binding, Any]] = []
    self.macros: dict[str, tuple[Any, Place]] = {}
    self.title: str | None = None
    self._symbols: dict[str, Any] = {}  # of all files, for the command line
    self._parsing: list[pathlib.Path] = []  # each included by the one before
    self._had: dict[tuple, Any] = {}  # references, by what binds them

  def read_file(self, file: str | pathlib.Path, text: str | None = None):
    """Reads a file that the user gave; `text` if it was read before."""
    path = pathlib.Path(file) if text is not None else files.find(file)
    self._symbols |= self._read(path, text, given=True)
    self._note_replaced()

  def read_bindings(self, bindings: Sequence[str]):
    """Reads bindings of the command line; they see what files import."""
    for text in bindings:
      self._read_text(COMMAND_LINE, text, self._symbols, given=True)
    self._note_replaced()

  def _read(self, path, text, given) -> dict[str, Any]:
    """Reads a file and what it includes; returns what they import."""
    if any(_same(path, each) for each in self._parsing):
      circle = ' -> '.join(map(str, [*self._parsing, path]))
      raise errors.UserError(f'gin files include each other: {circle}.')
    self._parsing.append(path)
    text = files.read(path) if text is None else text
    text = '\n'.join(text.splitlines()) + '\n'  # whatever ends them
    if self.title is None:
      self.title = files.title(text)
    symbols = {}
    self._read_text(str(path), text, symbols, given)
    self._parsing.pop()
    return symbols

  def _read_text(self, source, text, symbols, given):
    for place, statement in _parsed(source, text, given):
      with _told(place):
        self._add(place, statement, symbols)

  def _add(self, place, statement, symbols):
    if isinstance(statement, config_parser.ImportStatement):
      if statement.module != '__gin__.dynamic_registration':
        symbols[statement.bound_name()] = names.import_module(statement)
    elif isinstance(statement, config_parser.IncludeStatement):
      path = files.find(statement.filename, place.source)
      for name, module in self._read(path, None, given=False).items():
        symbols.setdefault(name, module)
    elif isinstance(statement, config_parser.BlockDeclaration):
      names.resolve(statement.selector, symbols)
    elif not statement.arg_name:
      name = '/'.join(filter(None, (statement.scope, statement.selector)))
      self.macros[name] = _resolved(statement.value, symbols), place
    else:
      target = names.resolve(statement.selector, symbols)
      names.require_parameter(statement.selector, target, statement.arg_name)
      scope = _scopes(statement.scope)
      key = scope, target, statement.arg_name
      before = self.bindings.get(key)
      binding = Binding(
        *(scope, statement.selector, target, statement.arg_name),
        *(_resolved(statement.value, symbols), place),
      )
      # As the last in the order, which is that of places.
      self.bindings.pop(key, None)
      self.bindings[key] = binding
      if before and next(references(before.value), None):
        self._had.setdefault(key, before.value)

  def _note_replaced(self):
    """Keeps which references of earlier sources hold no longer."""
    for key, before in self._had.items():
      now = self.bindings[key]
      if repr(now.value) != repr(before):
        self.replaced.append((now, before))
    self._had.clear()


def references(value: Any) -> Iterator[Reference]:
  """Yields the references in a value."""
  if isinstance(value, Reference):
    yield value
  elif isinstance(value, dict):
    for item in value.items():
      yield from references(item)
  elif isinstance(value, (list, tuple)):
    for each in value:
      yield from references(each)


def macros(value: Any) -> Iterator[str]:
  """Yields the names of the macros in a value."""
  if isinstance(value, Macro):
    yield value.name
  elif isinstance(value, dict):
    for item in value.items():
      yield from macros(item)
  elif isinstance(value, (list, tuple)):
    for each in value:
      yield from macros(each)


class _Names(config_parser.ParserDelegate):
  """Leaves names as they are: what they mean is known one line later."""

  def configurable_reference(self, scoped_configurable_name, evaluate):
    scope, _, name = scoped_configurable_name.rpartition('/')
    return Reference(_scopes(scope), name, evaluate)

  def macro(self, macro_name):
    return Macro(macro_name)


def _resolved(value, symbols):
  """Returns a value whose references know what they name."""
  if isinstance(value, Reference):
    target = names.resolve(value.name, symbols)
    if value.name in ('gin.macro', 'gin.constant'):
      target()
    if target is names.singleton and not (value.called and value.scope):
      raise errors.UserError(
        '@gin.singleton is no value: a singleton is written '
        '@NAME/gin.singleton(), with NAME/gin.singleton.constructor as what '
        'makes it.'
      )
    return dataclasses.replace(value, target=target)
  if isinstance(value, Macro):
    return value
  if isinstance(value, dict):
    return {
      _resolved(k, symbols): _resolved(v, symbols) for k, v in value.items()
    }
  if isinstance(value, (list, tuple)):
    return type(value)(_resolved(each, symbols) for each in value)
  return value


def _parsed(source, text, given) -> Iterator[tuple[Place, Any]]:
  """Yields what gin's parser finds, and tells what it can't read."""
  try:
    parser = config_parser.ConfigParser(text, _Names())
    for statement in parser:
      yield Place(source, statement.location.line_num, given), statement
  except SyntaxError as error:
    line, reason = error.lineno, error.msg
  except tokenize.TokenError as error:
    line = error.args[1][0]
    reason = 'a bracket or a quote is opened and never closed'
  except ValueError as error:  # gin says the line in its message
    found = re.search(r'line (\d+)', str(error))
    line, reason = int(found.group(1)) if found else 1, str(error)
  else:
    return
  if match := re.search(r"Failed to parse token '(.*)'", reason):
    reason = (
      f'{match.group(1)} is no value. Text stands in quotes; a class or '
      'function is written @module.name'
    )
  place = Place(source, line or 1, given)
  raise _Placed(f'{place}: {reason.splitlines()[0].rstrip(".")}.')


class _Placed(errors.UserError):
  """A message that says where already."""


@contextlib.contextmanager
def _told(place: Place) -> Iterator[None]:
  """Adds its place to what goes wrong in a statement."""
  try:
    yield
  except _Placed:
    raise
  except errors.UserError as error:
    raise _Placed(f'{place}: {error}') from error


def _scopes(text: str) -> tuple[str, ...]:
  return tuple(filter(None, text.split('/')))


def _same(path, other):
  try:
    return path.samefile(other)
  except OSError:  # One that was read before, and is not there.
    return False
