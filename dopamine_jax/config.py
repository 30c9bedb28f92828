"""Gin: load a configuration, build from it, say what is wrong with it.

Configurations use gin's dynamic registration: a file imports what it names, so
classes hold no gin decorator and a misspelt name raises.
"""

from collections.abc import Iterable, Sequence
import difflib
import importlib
import importlib.util  # gin reads package paths with it but doesn't import it.
import inspect
import pathlib
import re
from typing import Any

import gin
from gin import config as gin_config
from gin import config_parser

from dopamine_jax import errors
from dopamine_jax import settings

_PACKAGE_CONFIGS = 'dopamine_jax.configs'

# The files of the last `load`, to tell in which line a bad value stands.
_files: list[str] = []


def load(
  gin_files: Sequence[str | pathlib.Path], gin_bindings: Sequence[str] = ()
):
  """Replaces the configuration by these files, then these bindings.

  Args:
    gin_files: paths, of the file system or of a package, as in
      `dopamine_jax/configs/dqn_cartpole.gin`.
    gin_bindings: lines of gin, which win over the files.

  Raises:
    UserError: with the file, the line and the nearest right name.
  """
  gin.clear_config(clear_constants=True)
  files = [str(find(file)) for file in gin_files]
  _files[:] = files
  try:
    gin.parse_config_files_and_bindings(
      files, list(gin_bindings), finalize_config=False
    )
    _inherit_bindings()
    gin.finalize()
  except Exception as error:
    raise errors.UserError(_explain(error)) from error


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
  shipped = [f'dopamine_jax/configs/{name}' for name in sorted(_shipped())]
  near = _nearest(path.name, [pathlib.Path(s).name for s in shipped])
  hint = f' Did you mean dopamine_jax/configs/{near}?' if near else ''
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
  except settings.SettingError as error:
    raise errors.UserError(_where(error) + _first_part(error)) from error
  except errors.UserError as error:
    raise errors.UserError(_first_part(error)) from error
  except (TypeError, ValueError) as error:
    raise errors.UserError(_explain(error)) from error


def operative() -> str:
  """Returns what was really used since `load`, as gin that reproduces it."""
  return gin.operative_config_str()


def unused() -> list[str]:
  """Returns the bindings that no call has used since `load`."""
  used = set(gin_config._OPERATIVE_CONFIG)
  used |= {
    (scope, ancestor)
    for scope, selector in used
    for ancestor in _ancestors(selector)
  }
  return [
    f'{scope + "/" if scope else ""}{selector}.{name}'
    for (scope, selector), bindings in gin_config._CONFIG.items()
    for name in bindings
    if (scope, selector) not in used and not selector.startswith('gin.')
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
        for name, value in bindings.items():
          own.setdefault(name, value)


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


def _explain(error: Exception) -> str:
  """Returns a gin error in a user's terms."""
  text = str(error)
  place = re.search(r'In (?:file "(.*)", line (\d+)|bindings string)', text)
  if isinstance(error, SyntaxError):
    where = f'{error.filename or "--gin_bindings"}, line {error.lineno}: '
    return f'{where}{error.msg}'
  where = ''
  if place and place.group(1):
    where = f'{place.group(1)}, line {place.group(2)}: '
  reason = _first_part(error)
  return f'{where}{reason}{_suggest(reason)}'


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
  if match := re.search(r"No module named '([\w.]+)'", reason):
    package, _, name = match.group(1).rpartition('.')
    if package:
      folders = importlib.import_module(package).__path__
      names = {p.stem for f in folders for p in pathlib.Path(f).glob('*.py')}
      return _did_you_mean(name, names)
    return (
      ' Install it, or run from the folder that holds it (or add that folder '
      'to PYTHONPATH).'
    )
  if match := re.search(r"'(\w+)' was not provided by an import", reason):
    return (
      f' Add a line such as `from dopamine_jax... import {match.group(1)}`.'
    )
  if match := re.search(r'missing \d+ required .*arguments?: (.*)', reason):
    return f' Set {match.group(1)} in gin.'
  return ''


def _did_you_mean(name: str, names: Iterable[str]) -> str:
  near = _nearest(name, [n for n in names if not n.startswith('_')])
  return f' Did you mean {near}?' if near else ''


def _nearest(name: str, names: Iterable[str]) -> str | None:
  return next(iter(difflib.get_close_matches(name, list(names), 1)), None)


def _first_part(error: Exception) -> str:
  """Returns the message without the context that gin appends."""
  text = re.split(r'\n\s*In (?:call|file|bindings)', str(error))[0].strip()
  return text if text.endswith(('.', '?', ')')) else text + '.'


def _where(error: settings.SettingError) -> str:
  """Returns 'FILE, line N: ' of the binding behind a setting, if it has one."""
  owners = {cls.__name__ for cls in error.owner.__mro__}
  place = ''
  for file in _files:
    with open(file) as lines:
      for statement in config_parser.ConfigParser(lines, _Unresolved()):
        if (
          isinstance(statement, config_parser.BindingStatement)
          and statement.selector.split('.')[-1] in owners
          and statement.arg_name == error.name
        ):
          place = f'{file}, line {statement.location.line_num}: '
  return place


class _Unresolved(config_parser.ParserDelegate):
  """Parses without resolving references: only locations are wanted."""

  def configurable_reference(self, scoped_configurable_name, evaluate):
    return scoped_configurable_name

  def macro(self, macro_name):
    return macro_name
