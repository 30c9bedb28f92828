"""What gin files say: bindings and macros, each with its place, names resolved.

A file imports what it names, so that `dqn.DQN.gamma` means what Python would
mean by it there. Gin's own registry has no part in this.
"""

from collections.abc import Iterable, Iterator, Sequence
import contextlib
import dataclasses
import difflib
import importlib
import inspect
import pathlib
import pkgutil
import re
import tokenize
import types
from typing import Any, NamedTuple

from gin import config_parser

from dopamine_jax import errors
from dopamine_jax import settings
from dopamine_jax import values
from dopamine_jax.config import files

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


# What a setting is bound to that another file is to set.
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
    return '/'.join((*self.scope, f'{short(self.owner)}.{self.name}'))


def singleton(constructor):
  """Stands for gin's own function of that name."""
  raise NotImplementedError


class Statements:
  """All that some gin files and bindings say.

  Attributes:
    bindings: those that hold, by scope, target and name; later ones win.
    replaced: (binding, earlier value) where one took a reference's place.
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
    self._had: dict[tuple, tuple[Binding, Any]] = {}

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
        symbols[statement.bound_name()] = _import(statement)
    elif isinstance(statement, config_parser.IncludeStatement):
      path = files.find(statement.filename, place.source)
      for name, module in self._read(path, None, given=False).items():
        symbols.setdefault(name, module)
    elif isinstance(statement, config_parser.BlockDeclaration):
      resolve(statement.selector, symbols)
    elif not statement.arg_name:
      name = '/'.join(filter(None, (statement.scope, statement.selector)))
      self.macros[name] = _resolved(statement.value, symbols), place
    else:
      target = resolve(statement.selector, symbols)
      _require_parameter(statement.selector, target, statement.arg_name)
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
        self._had.setdefault(key, (binding, before.value))

  def _note_replaced(self):
    """Keeps which references of earlier sources hold no longer."""
    for key, (_, before) in self._had.items():
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


def short(name: str) -> str:
  """Returns a name as gin files mostly write it: module and class."""
  return '.'.join(name.split('.')[-2:])


def parameters(target: Any) -> dict[str, inspect.Parameter]:
  """Returns what a class or function can be given by name, as far as known.

  What is caught by `*args` can be given in gin too, as a list of that name.
  """
  try:
    found = inspect.signature(target).parameters
  except (TypeError, ValueError):
    return {}
  is_flax = is_flax_module(target)
  return {
    name: parameter
    for name, parameter in found.items()
    if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    and not (is_flax and name in values.FLAX_FIELDS)
  }


def is_flax_module(target: Any) -> bool:
  """Whether something is a class of Flax modules, without importing Flax."""
  return inspect.isclass(target) and any(
    base.__module__.startswith('flax.linen') and base.__name__ == 'Module'
    for base in target.__mro__
  )


def did_you_mean(name: str, names: Iterable[str]) -> str:
  """Returns ' Did you mean ...?', or '' if nothing is near."""
  public = [each for each in names if not each.startswith('_')]
  near = difflib.get_close_matches(name, public, n=2)
  return f' Did you mean {" or ".join(near)}?' if near else ''


def resolve(name: str, symbols: dict[str, Any]) -> Any:
  """Returns the class or function that a dotted name stands for.

  Args:
    name: as a gin file writes it.
    symbols: modules by the names under which they were imported.

  Raises:
    UserError: if it leads nowhere, or to a module.
  """
  if name in _GINS_OWN:
    return _GINS_OWN[name]
  first, *rest = name.split('.')
  if first not in symbols:
    raise errors.UserError(
      f"'{first}' was not provided by an import. Add a line such as `from "
      f'dopamine_jax... import {first}`.'
    )
  found, path = symbols[first], first
  for each in rest:
    if not hasattr(found, each):
      raise errors.UserError(
        f'there is no {path}.{each}.{did_you_mean(each, vars(found))}'
      )
    found, path = getattr(found, each), f'{path}.{each}'
  if isinstance(found, types.ModuleType):
    raise errors.UserError(
      f'{name} names a module; expected a class or function of one.'
    )
  if not callable(found):
    raise errors.UserError(
      f'{name} is of type {type(found).__name__}; expected a class or function.'
    )
  return found


class _Names(config_parser.ParserDelegate):
  """Leaves names as they are: what they mean is known one line later."""

  def configurable_reference(self, scoped_configurable_name, evaluate):
    scope, _, name = scoped_configurable_name.rpartition('/')
    return Reference(_scopes(scope), name, evaluate)

  def macro(self, macro_name):
    return Macro(macro_name)


def _own(name, how):
  def refuse(*args, **kwargs):
    raise errors.UserError(f'@gin.{name} is no value: a {name} {how}.')

  return refuse


_MACRO = 'is set by `NAME = value` and read by `%NAME`'
_GINS_OWN = {
  'gin.macro': _own('macro', _MACRO),
  'gin.constant': _own('constant', _MACRO),
  'gin.singleton': singleton,
}


def _resolved(value, symbols):
  """Returns a value whose references know what they name."""
  if isinstance(value, Reference):
    target = resolve(value.name, symbols)
    if value.name in ('gin.macro', 'gin.constant'):
      target()
    if target is singleton and not (value.called and value.scope):
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


def _require_parameter(owner, target, name):
  """Refuses a binding of what a class or function does not take."""
  try:
    found = inspect.signature(target).parameters
  except (TypeError, ValueError):
    return  # What has no signature may take anything.
  if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in found.values()):
    return
  names = parameters(target)
  if is_flax_module(target) and name in values.FLAX_FIELDS:
    raise errors.UserError(
      f"{settings.full_name(target)}.{name} is Flax's own, and no setting. "
      f'There are {", ".join(names)}.'
    )
  if name not in names:
    raise errors.UserError(
      f"{short(owner)} has no setting '{name}'.{did_you_mean(name, names)}"
    )


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


def _import(statement) -> types.ModuleType:
  """Returns what the name that an import binds stands for."""
  try:
    module = importlib.import_module(statement.module)
    if statement.is_from or statement.alias:
      return module
    return importlib.import_module(statement.module.partition('.')[0])
  except ModuleNotFoundError as error:
    if not f'{statement.module}.'.startswith(f'{error.name}.'):
      raise _failed(error) from error
    raise errors.UserError(
      f"there is no module '{statement.module}'.{_nearest(statement.module)}"
    ) from error
  except (Exception, SystemExit) as error:  # of the module's own code
    raise _failed(error) from error


def _failed(error):
  return errors.UserError(f'{errors.told(error)}.')


def _nearest(name):
  """Returns what may have been meant by a module that is not there."""
  package, _, last = name.rpartition('.')
  if not package:
    return (
      ' Install it, or run from the folder that holds it (or add that folder '
      'to PYTHONPATH).'
    )
  try:
    folders = getattr(importlib.import_module(package), '__path__', ())
  except ImportError:
    return ''
  return did_you_mean(last, [m.name for m in pkgutil.iter_modules(folders)])


def _scopes(text: str) -> tuple[str, ...]:
  return tuple(filter(None, text.split('/')))


def _same(path, other):
  try:
    return path.samefile(other)
  except OSError:  # One that was read before, and is not there.
    return False
