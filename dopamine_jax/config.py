"""Gin: load a configuration, build from it, say what is wrong with it.

Configurations use gin's dynamic registration: a file imports what it names, so
classes hold no gin decorator and a misspelt name raises.
"""

import collections.abc
from collections.abc import Iterable, Iterator, Sequence
import contextlib
import difflib
import importlib
import importlib.util  # gin reads package paths with it but doesn't import it.
import inspect
import io
import pathlib
import pkgutil
import re
import typing
from typing import Any

import gin
from gin import config as gin_config
from gin import config_parser

from dopamine_jax import errors
from dopamine_jax import settings

_PACKAGE_CONFIGS = 'dopamine_jax.configs'

_BINDINGS = '--gin_bindings'

# What takes no number, among the types that an annotation may name.
_NO_NUMBERS = (
  type(None),
  str,
  list,
  tuple,
  dict,
  collections.abc.Sequence,
  collections.abc.Mapping,
  collections.abc.Callable,
)

_DYNAMIC = 'from __gin__ import dynamic_registration'

# What the last `load` read, by name, to tell in which line a bad value stands.
_sources: dict[str, str] = {}
# The (scope, selector, name) that it copied down to subclasses.
_inherited: set[tuple[str, str, str]] = set()


def load(
  gin_files: Sequence[str | pathlib.Path],
  gin_bindings: Sequence[str] = (),
  text: str | None = None,
):
  """Replaces the configuration by these files, then these bindings.

  Args:
    gin_files: paths, of the file system or of a package, as in
      `dopamine_jax/configs/dqn_cartpole.gin`.
    gin_bindings: lines of gin, which win over the files.
    text: what the only file says, where it was read before.

  Raises:
    UserError: with the file, the line and the nearest right name.
  """
  gin.clear_config(clear_constants=True)
  _sources.clear()
  _inherited.clear()
  for file in [str(find(file)) for file in gin_files]:
    with _explained(file):
      if text is None:
        text = pathlib.Path(file).read_text('utf-8')
      _sources[file] = text
      stream, text = io.StringIO(text), None
      stream.name = file  # for gin's messages
      gin.parse_config(stream)
  # A binding may name what the files import, as if it stood at their end.
  imports = {each.format() for each in gin_config._IMPORTS}
  imports = sorted(imports, key=lambda line: line != _DYNAMIC)  # that one first
  with _explained(_BINDINGS):
    _sources[_BINDINGS] = '\n'.join(gin_bindings)
    gin.parse_config([*imports, *gin_bindings])
  with _explained():
    _inherit_bindings()
    gin.finalize()
  _refuse_misfits()


def title() -> str:
  """Returns the comment that the first loaded file begins with, or ''."""
  text = next(iter(_sources.values()), '')
  return text.partition('\n')[0][1:].strip() if text.startswith('#') else ''


def find(file: str | pathlib.Path) -> pathlib.Path:
  """Returns where a gin file lies.

  Raises:
    UserError: if it is neither a file nor one of an importable package.
  """
  path = pathlib.Path(file)
  if path.is_file():
    return path
  if not path.is_absolute() and len(path.parts) > 1:
    package = '.'.join(path.parts[:-1])
    try:
      spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
      spec = None
    for folder in spec.submodule_search_locations or () if spec else ():
      inside = pathlib.Path(folder) / path.name
      if inside.is_file():
        return inside
  near = difflib.get_close_matches(path.name, _shipped(), n=1)
  hint = f' Did you mean dopamine_jax/configs/{near[0]}?' if near else ''
  raise errors.UserError(
    f'gin file not found: {file}.{hint} '
    '`dopamine-jax configs` lists the shipped ones.'
  )


def shipped() -> list[pathlib.Path]:
  """Returns the paths of the gin files that come with the framework."""
  return [path for _, path in sorted(_shipped().items())]


def _shipped() -> dict[str, pathlib.Path]:
  package = importlib.import_module(_PACKAGE_CONFIGS)
  (folder,) = {pathlib.Path(path) for path in package.__path__}
  return {path.name: path for path in folder.glob('*.gin')}


def configured(target: Any) -> Any:
  """Returns `target` with its gin bindings, or as it is if it has none.

  A class that is the default of a setting, rather than named in gin by
  `@module.Class`, was captured before gin knew of it.
  """
  try:
    return gin.get_configurable(target)
  except ValueError:
    return target


def build(target: Any, **kwargs: Any) -> Any:
  """Returns `configured(target)(**kwargs)`.

  Raises:
    UserError: if a setting is missing, misspelt or doesn't fit.
  """
  try:
    return configured(target)(**kwargs)
  except errors.UserError as error:
    raise errors.UserError(describe(error)) from error
  except (TypeError, ValueError) as error:
    raise errors.UserError(_explain(error)) from error


def describe(error: errors.UserError) -> str:
  """Returns an error's message, after the line of the setting it is about."""
  where = ''
  if isinstance(error, settings.SettingError):
    where = _where(error.owner.__mro__, error.name)
  return where + _reason(error)


def operative() -> str:
  """Returns what was really used since `load`, as gin that reproduces it."""
  return gin.operative_config_str()


def unused() -> list[str]:
  """Returns the bindings that no call has used since `load`."""
  used = {
    (scope, name, each)
    for (scope, selector), values in gin_config._OPERATIVE_CONFIG.items()
    for name in values
    for each in (selector, *_ancestors(selector))
  }
  return [
    f'{scope + "/" if scope else ""}{selector}.{name}'
    for (scope, selector), bindings in gin_config._CONFIG.items()
    for name in bindings
    if not selector.startswith('gin.')
    and (scope, selector, name) not in _inherited
    # What is bound in a scope holds in the scopes within it too.
    and not any(
      (name, selector) == (used_name, used_selector)
      and f'{used_scope}/'.startswith(f'{scope}/' if scope else '')
      for used_scope, used_name, used_selector in used
    )
  ]


def _inherit_bindings():
  """Gives each class that the configuration names its ancestors' bindings.

  `DQN.gamma = 0.9` so reaches DoubleDQN, unless DoubleDQN has a gamma of its
  own: gin by itself would leave the subclass at its default.
  """
  named = {selector for _, selector in gin_config._CONFIG}
  named |= {
    reference.configurable.selector
    for reference in gin_config.iterate_references(gin_config._CONFIG)
  }
  for selector in sorted(named):
    for ancestor in _ancestors(selector):  # the nearest first
      for (scope, other), bindings in list(gin_config._CONFIG.items()):
        if other != ancestor:
          continue
        own = gin_config._CONFIG.setdefault((scope, selector), {})
        for name in bindings.keys() - own.keys():
          own[name] = bindings[name]
          _inherited.add((scope, selector, name))


def _ancestors(selector: str) -> list[str]:
  """Returns the selectors of a class's registered ancestors, nearest first."""
  registered = {
    configurable.wrapped: configurable.selector
    for configurable in gin_config._REGISTRY._selector_map.values()
  }
  target = gin_config._REGISTRY[selector].wrapped
  if not inspect.isclass(target):
    return []
  return [registered[c] for c in target.__mro__[1:] if c in registered]


def _refuse_misfits():
  """Refuses text and numbers where a function or class takes neither.

  Our own settings check their types when they are made. What is not ours would
  fail when it is used, far from the line.
  """
  for (_, selector), bindings in gin_config._CONFIG.items():
    target = gin_config._REGISTRY[selector].wrapped
    if inspect.isclass(target) and issubclass(target, settings.Settings):
      continue
    try:
      hints = typing.get_type_hints(getattr(target, '__init__', target))
      hints |= typing.get_type_hints(target)
    except (TypeError, NameError):
      continue
    for name, value in bindings.items():
      hint = hints.get(name, Any)
      if isinstance(value, (str, int, float)) and not _fits(value, hint):
        raise errors.UserError(
          f'{_where([target], name)}{target.__name__}.{name} = {value!r} does '
          f'not fit; expected {_name(hint)}.'
        )


def _fits(value, hint):
  """Whether text or a number suits an annotation; one that is unclear does."""
  if settings.is_union(hint):
    return any(_fits(value, each) for each in typing.get_args(hint))
  kind = typing.get_origin(hint) or hint
  if kind is Any or not isinstance(kind, type):
    return True
  if isinstance(value, str):
    return issubclass(str, kind)
  return kind not in _NO_NUMBERS


def _name(hint):
  if settings.is_union(hint):
    return ' or '.join(_name(each) for each in typing.get_args(hint))
  return getattr(typing.get_origin(hint) or hint, '__name__', str(hint))


@contextlib.contextmanager
def _explained(source: str | None = None) -> Iterator[None]:
  """Raises what goes wrong in gin as a UserError, in a user's terms."""
  try:
    yield
  except Exception as error:
    raise errors.UserError(_explain(error, source)) from error


def _explain(error: Exception, source: str | None = None) -> str:
  """Returns where an error is, what it is and, if it is known, the remedy."""
  if place := re.search(r'In file "(.*)", line (\d+)', str(error)):
    where = f'{place.group(1)}, line {place.group(2)}: '
  elif isinstance(error, SyntaxError):
    # The tokenizer reports its own name. Of bindings, imports come before them.
    file = error.filename if error.filename in _sources else source
    line = '' if file == _BINDINGS else f', line {error.lineno}'
    where = f'{file}{line}: '
  else:
    where = f'{source}: ' if source else ''
  reason = error.msg if isinstance(error, SyntaxError) else _reason(error)
  if match := re.search(r"Failed to parse token '(.*)'", str(error)):
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
  return f'{where}{reason.rstrip(".")}.{_suggest(reason)}'


def _reason(error: Exception) -> str:
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
    return _did_you_mean(match.group(2), names)
  if match := re.search(r"module '([\w.]+)'.* has no attribute (\w+)", reason):
    names = vars(importlib.import_module(match.group(1)))
    return _did_you_mean(match.group(2), names)
  if match := re.search(r"No configurable matching '(\S+)'", reason):
    registered = gin_config._REGISTRY._selector_map.values()
    names = [
      '.'.join(each.selector.split('.')[-2:])
      for each in registered
      if not each.selector.startswith('gin.')
    ]
    return _did_you_mean(match.group(1), names) + (
      ' It must be named or imported before.'
    )
  if match := re.search(r"No module named '([\w.]+)'", reason):
    package, _, name = match.group(1).rpartition('.')
    if not package:
      return (
        ' Install it, or run from the folder that holds it (or add that '
        'folder to PYTHONPATH).'
      )
    folders = getattr(importlib.import_module(package), '__path__', ())
    return _did_you_mean(name, [m.name for m in pkgutil.iter_modules(folders)])
  if match := re.search(r"'(\w+)' was not provided by an import", reason):
    return (
      f' Add a line such as `from dopamine_jax... import {match.group(1)}`.'
    )
  return ''


def _did_you_mean(name: str, names: Iterable[str]) -> str:
  public = [each for each in names if not each.startswith('_')]
  near = difflib.get_close_matches(name, public, n=2)
  return f' Did you mean {" or ".join(near)}?' if near else ''


def _where(classes: Sequence[Any], name: str) -> str:
  """Returns 'FILE, line N: ' of a binding of the first class that has one."""
  for owner in classes:
    places = [
      f'{source}: ' if source == _BINDINGS else f'{source}, line {line}: '
      for source, text in _sources.items()
      for source, line in _bindings_of(owner.__name__, name, source, text)
    ]
    if places:
      return places[-1]  # the last one wins
  return ''


def _bindings_of(
  owner: str, name: str, source: str, text: str
) -> Iterator[tuple[str, int]]:
  """Yields (source, line) of the bindings of `owner.name`, in their order."""
  for statement in config_parser.ConfigParser(text, _Unresolved()):
    if isinstance(statement, config_parser.IncludeStatement):
      included = str(find(statement.filename))
      text = pathlib.Path(included).read_text('utf-8')
      yield from _bindings_of(owner, name, included, text)
    elif (
      isinstance(statement, config_parser.BindingStatement)
      and statement.selector.split('.')[-1] == owner
      and statement.arg_name == name
    ):
      yield source, statement.location.line_num


class _Unresolved(config_parser.ParserDelegate):
  """Parses without resolving references: only locations are wanted."""

  def configurable_reference(self, scoped_configurable_name, evaluate):
    return scoped_configurable_name

  def macro(self, macro_name):
    return macro_name
