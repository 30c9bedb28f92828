"""Writes a tree of settings as the gin file that builds it again.

The tree is walked from its root: settings and Flax modules have fields, a
`functools.partial` its arguments, and what `values.call` made is written as
that call. Classes and functions are named by the module they can be imported
from. All settings are written, those at their default too, so that a record
says what was used even when a default changes.
"""

from collections.abc import Iterator, Mapping
import functools
import inspect
import math
import sys
from typing import Any, NamedTuple

import numpy as np

from dopamine_jax import errors
from dopamine_jax import settings
from dopamine_jax import values
from dopamine_jax.config import names as names_lib

DYNAMIC = 'from __gin__ import dynamic_registration'
_WIDTH = 80
# Libraries that offer things in a module above the one that defines them.
_OFFERING = ('flax', 'jax', 'optax', 'rlax')


class _Named(NamedTuple):
  """A class or function, or what it makes: `@module.Name` or `@module.Name()`.

  Attributes:
    target: the class or function.
    called: whether its result is meant.
    settings: what it is given, as pairs of name and written value.
  """

  target: Any
  called: bool
  settings: tuple[tuple[str, Any], ...]

  @property
  def section(self) -> tuple[Any, tuple[tuple[str, Any], ...]]:
    """What its lines depend on: whether it is called doesn't matter."""
    return self.target, self.settings


class _Several(NamedTuple):
  """A list, tuple or dict.

  Attributes:
    kind: which of them.
    parts: what it holds; of a dict, keys and values in turn.
  """

  kind: type
  parts: tuple[Any, ...]


class _Unwritable(Exception):
  """A value that gin can't build; says why, and what to do instead."""


def write(root: settings.Settings, title: str = '') -> str:
  """Returns settings, and all below them, as a gin file.

  Args:
    root: settings, such as a runner.
    title: a comment that the file is to begin with.

  Raises:
    UserError: that names a setting which gin could not build, and the way out.
  """
  tree = _Walk().of_part(root)
  names = _Names()
  scopes = _scopes(tree)
  sections = {}
  for scope, named in _sections(tree, scopes):
    selector = '/'.join(filter(None, (scope, names.of(named.target))))
    lines = [
      f'{selector}.{name} = {_text(value, names, scopes)}'
      for name, value in named.settings
    ]
    if lines:
      sections[selector] = lines
  text = [f'# {title}'] if title else []
  text += [DYNAMIC, '', *names.imports()]
  for selector, lines in sections.items():
    head = f'# Parameters for {selector}:'
    text += ['', head, f'# {"=" * (_WIDTH - 2)}', *lines]
  return '\n'.join(text) + '\n'


class _Walk:
  """Turns values into what is written of them."""

  def __init__(self):
    self._inside = []  # the settings that lead to where it is, for messages

  def of_part(self, part) -> _Named:
    """Returns what is written of settings or a Flax module."""
    cls = type(part)
    if not _place(cls):
      raise _Unwritable(_why(cls))
    given = getattr(cls, 'given_later', ())
    found = []
    for name, field in values.fields(part).items():
      value = getattr(part, name)
      if name in given and value == field.default:
        continue
      found += self._setting(cls, name, value, field.default)
    return _Named(cls, True, tuple(found))

  def _setting(self, owner, name, value, default) -> list[tuple[str, Any]]:
    """Returns [(name, what is written)]; [] of a default that can't be."""
    self._inside.append((owner, name))
    try:
      return [(name, self.of(value))]
    except (_Unwritable, errors.UserError) as error:
      if value is default:
        return []  # The class itself has it.
      if isinstance(error, errors.UserError):
        raise
      owner, name = self._inside[-1]
      raise errors.UserError(
        f'{settings.full_name(owner)}.{name} {error} A run writes its settings '
        'to config.gin, from which it is evaluated and goes on.'
      ) from error
    finally:
      self._inside.pop()

  def of(self, value: Any) -> '_Named | _Several | str':
    """Returns what is written of any value."""
    if isinstance(value, np.ndarray):
      value = value.tolist()
    if isinstance(value, np.generic):
      value = value.item()
    if value is None or isinstance(value, (bool, int, str)):
      return repr(value)
    if isinstance(value, float):
      if not math.isfinite(value):
        raise _Unwritable(f'holds {value}, which is no number in gin.')
      return repr(value)
    if isinstance(value, (list, tuple)) and not hasattr(value, '_fields'):
      kind = list if isinstance(value, list) else tuple
      return _Several(kind, tuple(map(self.of, value)))
    if isinstance(value, Mapping):
      pairs = [self.of(each) for pair in value.items() for each in pair]
      return _Several(dict, tuple(pairs))
    if isinstance(value, functools.partial):
      keywords = values.named(value.func, value.args, value.keywords)
      return self._named(value.func, False, keywords)
    if values.is_part(value):
      return self.of_part(value)
    if _place(value):
      return self._named(value, False, {})
    if made := values.origin(value):
      return self._named(made.function, True, made.keywords)
    raise _Unwritable(_why(value))

  def _named(self, target, called, keywords) -> _Named:
    """Returns what is written of a class or function and its arguments."""
    if not _place(target):
      raise _Unwritable(_why(target))
    found, given = [], getattr(target, 'given_later', ())
    parameters = names_lib.parameters(target)
    for name in {**parameters, **keywords}:
      default = parameters[name].default if name in parameters else ...
      if name in keywords:
        found += self._setting(target, name, keywords[name], default)
      elif not (
        default is inspect.Parameter.empty or default is ... or name in given
      ):
        found += self._setting(target, name, default, default)
    return _Named(target, called, tuple(found))


class _Names:
  """Names things by what is imported, and gives each module one name."""

  def __init__(self):
    self._modules: dict[str, str] = {}

  def of(self, target: Any) -> str:
    """Returns a class or function as this file names it."""
    module, name = _place(target)
    if module not in self._modules:
      last = module.rpartition('.')[2]
      taken, number, bound = set(self._modules.values()), 2, last
      while bound in taken:
        bound, number = f'{last}{number}', number + 1
      self._modules[module] = bound
    return f'{self._modules[module]}.{name}'

  def imports(self) -> list[str]:
    """Returns the lines that import what was named."""
    lines = []
    for module, bound in sorted(self._modules.items()):
      package, _, last = module.rpartition('.')
      line = f'from {package} import {last}' if package else f'import {last}'
      lines.append(line if bound == last else f'{line} as {bound}')
    return lines


def _scopes(tree) -> dict[tuple, str]:
  """Returns a scope for each of several things with one name, '' for others.

  It is the setting that has the thing, since that says what it is for.
  """
  found = {}
  for where, named in _all(tree, ''):
    if named.settings:
      found.setdefault(named.target, {}).setdefault(named.section, where)
  scopes, taken = {}, set()
  for variants in found.values():
    for named, where in variants.items():
      scope, number = '', 2
      if len(variants) > 1:
        scope = where
        while scope in taken:
          scope, number = f'{where}{number}', number + 1
        taken.add(scope)
      scopes[named] = scope
  return scopes


def _sections(tree, scopes) -> Iterator[tuple[str, _Named]]:
  """Yields the things whose settings are written, each once, in their order."""
  seen = set()
  for _, named in _all(tree, ''):
    key = named.section
    if named.settings and key not in seen:
      seen.add(key)
      yield scopes[key], named


def _all(value, where) -> Iterator[tuple[str, _Named]]:
  """Yields the named things of a tree, and the setting that each one is in."""
  if isinstance(value, _Several):
    for part in value.parts:
      yield from _all(part, where)
  elif isinstance(value, _Named):
    yield where, value
    for name, setting in value.settings:
      yield from _all(setting, name)


def _text(value, names, scopes) -> str:
  """Returns a value as gin reads it."""
  if isinstance(value, _Named):
    scope = scopes.get(value.section, '')
    name = '/'.join(filter(None, (scope, names.of(value.target))))
    return f'@{name}{"()" if value.called else ""}'
  if isinstance(value, str):
    return value
  parts = [_text(part, names, scopes) for part in value.parts]
  if value.kind is dict:
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return f'{{{", ".join(f"{key}: {each}" for key, each in pairs)}}}'
  if value.kind is list:
    return f'[{", ".join(parts)}]'
  return f'({", ".join(parts)}{"," if len(parts) == 1 else ""})'


def _offered(module: str, name: str, target: Any) -> tuple[str, str] | None:
  """Returns (module, name) under which a library offers a thing."""
  root = module.partition('.')[0]
  known = [
    each
    for each in list(sys.modules)
    if each.partition('.')[0] == root and '._' not in each
  ]
  for each in sorted(
    known, key=lambda each: (each.count('.'), len(each), each)
  ):
    if getattr(sys.modules[each], '__dict__', {}).get(name) is target:
      return each, name
  return None


def _place(target: Any) -> tuple[str, str] | None:
  """Returns (module, name) where a thing can be imported from, if anywhere."""
  module = getattr(target, '__module__', None)
  name = getattr(target, '__qualname__', None) or getattr(
    target, '__name__', None
  )
  if not isinstance(module, str) or not isinstance(name, str):
    return None
  if '<' in name or module not in sys.modules:
    return None
  if module.partition('.')[0] in _OFFERING:
    return _offered(module, name, target)
  found = sys.modules[module]
  for part in name.split('.'):
    found = getattr(found, '__dict__', {}).get(part)
  return (module, name) if found is target else None


def _why(value) -> str:
  """Returns why gin can't build a value, and what can be done."""
  name = getattr(value, '__qualname__', '')
  if inspect.isclass(value):
    return (
      f'is of the class {name}, which can not be imported by that name from '
      f'{value.__module__}. Define it at the top of a module.'
    )
  if '<lambda>' in name or '<locals>' in name:
    what = 'a lambda' if '<lambda>' in name else f'the inner function {name}'
    return (
      f'is {what}, which has no name to import it by. Define it at the top of '
      'a module. Or, if some function returned it, write '
      'dopamine_jax.call(that_function, ...) in place of that_function(...).'
    )
  kind = type(value)
  return (
    f'holds something of type {kind.__module__}.{kind.__qualname__}, and '
    'nothing tells how it was made. Write dopamine_jax.call(function, ...) in '
    'place of function(...), as in call(optax.adam, 1e-3).'
  )
