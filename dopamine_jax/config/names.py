"""What names in a gin file mean, and what can be bound to what they name.

A file imports what it names, so that `dqn.DQN.gamma` means what Python would
mean by it there. Gin's own registry has no part in this.
"""

from collections.abc import Iterable
import difflib
import functools
import importlib
import inspect
import pkgutil
import sys
import types
from typing import Any

from gin import config_parser

from dopamine_jax import annotations
from dopamine_jax import errors
from dopamine_jax import settings
from dopamine_jax import values

# Libraries that offer things in a module above the one that defines them.
_REEXPORTING = ('flax', 'jax', 'optax', 'rlax')


def singleton(constructor: Any):
  """Stands for gin's own function of that name."""
  raise NotImplementedError


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
      hint = did_you_mean(each, vars(found))
      if path == '__main__':
        hint = (
          ' The script or notebook that was trained from defines it. Move it '
          'into a module of its own, and import it from there.'
        )
      raise errors.UserError(f'there is no {path}.{each}.{hint}')
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


def import_module(statement: config_parser.ImportStatement) -> types.ModuleType:
  """Returns what the name that an import binds stands for.

  Raises:
    UserError: if there is no such module, or its code fails.
  """
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


def require_parameter(owner: str, target: Any, name: str):
  """Refuses a binding of what a class or function does not take.

  Args:
    owner: the class or function, as it is written.
    target: the same, itself.
    name: the setting.

  Raises:
    UserError: that names the nearest setting.
  """
  try:
    found = values.signature(target).parameters
  except (TypeError, ValueError):
    return  # What has no signature may take anything.
  if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in found.values()):
    return
  names = parameters(target)
  if is_flax_module(target) and name in values.FLAX_FIELDS:
    raise errors.UserError(
      f"{annotations.full_name(target)}.{name} is Flax's own, and no setting. "
      f'There are {", ".join(names)}.'
    )
  if name not in names:
    raise errors.UserError(
      f"{short(owner)} has no setting '{name}'.{did_you_mean(name, names)}"
    )


def parameters(target: Any) -> dict[str, inspect.Parameter]:
  """Returns what a class or function can be given by name, as far as known.

  What is caught by `*args` can be given in gin too, as a list of that name.
  """
  try:
    found = values.signature(target).parameters
  except (TypeError, ValueError):
    return {}
  is_flax = is_flax_module(target)
  return {
    name: parameter
    for name, parameter in found.items()
    if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    and not (is_flax and name in values.FLAX_FIELDS)
  }


def place(target: Any) -> tuple[str, str] | None:
  """Returns (module, name) where a thing can be imported from, if anywhere."""
  module = getattr(target, '__module__', None)
  name = getattr(target, '__qualname__', None) or getattr(
    target, '__name__', None
  )
  if not isinstance(module, str) or not isinstance(name, str):
    return None
  if '<' in name or module not in sys.modules:
    return None
  if module.partition('.')[0] in _REEXPORTING:
    return _public_place(module, name, target)
  found = sys.modules[module]
  for part in name.split('.'):
    found = getattr(found, '__dict__', {}).get(part)
  return (module, name) if found is target else None


def has_settings(target: Any) -> bool:
  """Whether something is a class whose parameters are settings."""
  is_ours = inspect.isclass(target) and issubclass(target, settings.Checked)
  return is_ours or is_flax_module(target)


def is_flax_module(target: Any) -> bool:
  """Whether something is a class of Flax modules, without importing Flax."""
  return inspect.isclass(target) and any(
    base.__module__.startswith('flax.linen') and base.__name__ == 'Module'
    for base in target.__mro__
  )


def short(name: str) -> str:
  """Returns a name as gin files mostly write it: module and class."""
  return '.'.join(name.split('.')[-2:])


def did_you_mean(name: str, names: Iterable[str]) -> str:
  """Returns ' Did you mean ...?', or '' if nothing is near."""
  public = [each for each in names if not each.startswith('_')]
  near = difflib.get_close_matches(name, public, n=2)
  return f' Did you mean {" or ".join(near)}?' if near else ''


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


def _public_place(
  module: str, name: str, target: Any
) -> tuple[str, str] | None:
  """Returns (module, name) under which a library offers a thing."""
  # Thousands of modules are looked through once, until there are others.
  for each in _public_modules(module.partition('.')[0], len(sys.modules)):
    found = sys.modules.get(each)
    if getattr(found, '__dict__', {}).get(name) is target:
      return each, name
  return None


@functools.lru_cache(maxsize=len(_REEXPORTING))
def _public_modules(root: str, _: int) -> list[str]:
  """Returns a library's modules that are here, the outermost first."""
  return sorted(
    (
      each
      for each in list(sys.modules)
      if f'{each}.'.startswith(f'{root}.') and '._' not in each
    ),
    key=lambda each: (each.count('.'), len(each), each),
  )
