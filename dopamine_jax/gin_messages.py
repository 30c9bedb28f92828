"""What is wrong with a configuration, in a user's terms, and in which line."""

from collections.abc import Iterable, Iterator, Sequence
import contextlib
import difflib
import inspect
import pathlib
import pkgutil
import re
import sys
import tokenize
import types
from typing import Any, NamedTuple

from gin import config as gin_config
from gin import config_parser

from dopamine_jax import errors
from dopamine_jax import gin_files
from dopamine_jax import settings


class Place(NamedTuple):
  """Where a binding stands.

  Attributes:
    source: a file, or the command line's bindings.
    line: counted from 1.
  """

  source: str
  line: int

  def __str__(self):
    if self.source == gin_files.BINDINGS:
      return self.source
    return f'{self.source}, line {self.line}'


def describe(error: errors.UserError) -> str:
  """Returns an error's message, after the line of the setting it is about."""
  where = ''
  if isinstance(error, settings.SettingError):
    where = found_at(place_of(error.owner.__mro__, error.name))
  return where + _reason(error)


def found_at(place: Place | None) -> str:
  """Returns what a message about this place begins with."""
  return f'{place}: ' if place else ''


def place_of(classes: Sequence[Any], name: str) -> Place | None:
  """Returns where `name` of the first class that has a binding is bound."""
  for owner in classes:
    found = [
      place
      for place, statement in _bindings()
      if statement.arg_name == name
      and statement.selector.split('.')[-1] == owner.__name__
    ]
    if found:
      return found[-1]  # the last one wins
  return None


def place_of_macro(macro: str) -> Place | None:
  """Returns where a macro is set last."""
  found = [
    place
    for place, statement in _bindings()
    if not statement.arg_name
    and '/'.join(filter(None, (statement.scope, statement.selector))) == macro
  ]
  return found[-1] if found else None


def _bindings() -> Iterator[tuple[Place, config_parser.BindingStatement]]:
  """Yields all bindings that were read, in their order."""
  for source in gin_files.given:
    yield from _bindings_of(source)


def _bindings_of(source: str):
  text = gin_files.sources.get(source, '')
  for statement in config_parser.ConfigParser(text, _Unresolved()):
    if isinstance(statement, config_parser.IncludeStatement):
      path = gin_files.find(statement.filename, pathlib.Path(source))
      yield from _bindings_of(str(path))
    elif isinstance(statement, config_parser.BindingStatement):
      yield Place(source, statement.location.line_num), statement


class _Unresolved(config_parser.ParserDelegate):
  """Parses without resolving references: only locations are wanted."""

  def configurable_reference(self, scoped_configurable_name, evaluate):
    return scoped_configurable_name

  def macro(self, macro_name):
    return macro_name


@contextlib.contextmanager
def explained(source: str | None = None) -> Iterator[None]:
  """Raises what goes wrong in gin as a UserError, in a user's terms."""
  try:
    yield
  except (Exception, SystemExit) as error:  # of a module that is imported, too
    raise errors.UserError(explain(error, source)) from error


def explain(error: BaseException, source: str | None = None) -> str:
  """Returns where an error is, what it is and, if it is known, the remedy."""
  reason = error.msg if isinstance(error, SyntaxError) else _reason(error)
  if isinstance(error, RecursionError):
    reason = 'what is bound needs itself, in a circle'
  elif isinstance(error, tokenize.TokenError):
    reason = 'a bracket or a quote is opened and never closed'
  elif place := errors.place(error):
    kind = type(error).__name__
    reason = f'{kind}: {reason.rstrip(".")}, raised by {place}'
  elif 'not enough values to unpack' in reason:
    reason = 'a reference names a module; expected a class or function of one'
  elif match := re.search(r"Failed to parse token '(.*)'", str(error)):
    reason = (
      f'{match.group(1)} is no value. Text stands in quotes; a class or '
      'function is written @module.name'
    )
  elif match := re.search(
    r"No bindings specified for '(.*)/gin.macro'", reason
  ):
    reason = f'{match.group(1)} is used as %{match.group(1)} but never set'
  elif match := re.search(r'^(\w+).*\(\) missing .*arguments?: (.*)$', reason):
    name, missing = match.group(1), match.group(2).replace("'", '')
    reason = (
      f'{name} needs {missing}, which nothing sets. Set it in gin; or write '
      f'@{name} without parentheses if it is only made later'
    )
  elif match := re.search(
    r"Required bindings for `(.*)` not provided in config: \['(.*)'\]", reason
  ):
    reason = f'{match.group(1)}.{match.group(2)} is to be set, and nothing does'
  elif match := re.search(r"In call to configurable '(\S+)'", str(error)):
    return _of_call(match.group(1), reason)
  return f'{_where(error, source)}{reason.rstrip(".")}.{_suggest(reason)}'


def _of_call(name: str, reason: str) -> str:
  """Returns what is wrong with a call, whose message may quote a setting."""
  for place, statement in reversed(list(_bindings())):  # the last one wins
    if (
      statement.selector.split('.')[-1] == name.split('.')[-1]
      and isinstance(statement.value, str)
      and repr(statement.value) in reason
    ):
      setting = f'{statement.selector}.{statement.arg_name}'
      return f'{place}: {setting} = {statement.value!r}: {reason.rstrip(".")}.'
  return f'{name} fails when it is made: {reason.rstrip(".")}.'


def _where(error: BaseException, source: str | None) -> str:
  if place := re.search(r'In file "(.*)", line (\d+)', str(error)):
    where = f'{place.group(1)}, line {place.group(2)}: '
  elif isinstance(error, SyntaxError):
    # The tokenizer reports its own name. Of bindings, imports come before them.
    file = error.filename if error.filename in gin_files.sources else source
    line = '' if file == gin_files.BINDINGS else f', line {error.lineno}'
    where = f'{file}{line}: '
  else:
    where = f'{source}: ' if source else ''
  # A file that can't be read says itself where.
  file = where.partition(':')[0]
  return '' if file and _reason(error).startswith(file) else where


def _reason(error: BaseException) -> str:
  """Returns the message without the context that gin appends."""
  return re.split(r'\n\s*(?:In (?:call|file|bindings)|No values)', str(error))[
    0
  ].strip()


def _suggest(reason: str) -> str:
  """Returns ' Did you mean ...?' for the errors that name something wrong."""
  if match := re.search(
    r"able '(\S+)' doesn't have a parameter named '(\S+)'", reason
  ):
    target = gin_config._REGISTRY.get_match(match.group(1).split('/')[-1])
    names = inspect.signature(target.wrapped).parameters if target else ()
    return did_you_mean(match.group(2), names)
  if match := re.search(r"module '([\w.]+)'.* has no attribute (\w+)", reason):
    names = vars(_imported(match.group(1)))
    return did_you_mean(match.group(2), names)
  if match := re.search(r"No configurable matching '(\S+)'", reason):
    registered = gin_config._REGISTRY._selector_map.values()
    names = [
      '.'.join(each.selector.split('.')[-2:])
      for each in registered
      if not each.selector.startswith('gin.')
    ]
    return did_you_mean(match.group(1), names) + (
      ' It must be named or imported before.'
    )
  if match := re.search(r"No module named '([\w.]+)'", reason):
    package, _, name = match.group(1).rpartition('.')
    if not package:
      return (
        ' Install it, or run from the folder that holds it (or add that '
        'folder to PYTHONPATH).'
      )
    folders = getattr(_imported(package), '__path__', ())
    return did_you_mean(name, [m.name for m in pkgutil.iter_modules(folders)])
  if match := re.search(r"'(\w+)' was not provided by an import", reason):
    return (
      f' Add a line such as `from dopamine_jax... import {match.group(1)}`.'
    )
  return ''


def _imported(name: str) -> types.ModuleType:
  """Returns a module that was imported, or an empty one.

  It is not imported now: its name may be a value's, of a stranger's run.
  """
  return sys.modules.get(name) or types.ModuleType(name)


def did_you_mean(name: str, names: Iterable[str]) -> str:
  """Returns ' Did you mean ...?', or '' if nothing is near."""
  public = [each for each in names if not each.startswith('_')]
  near = difflib.get_close_matches(name, public, n=2)
  return f' Did you mean {" or ".join(near)}?' if near else ''
