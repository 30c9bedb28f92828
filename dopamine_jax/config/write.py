"""Writes a tree of settings as the gin file that builds it again.

The tree is walked from its root: settings and Flax modules have fields, a
`functools.partial` its arguments, and what `values.call` made is written as
that call. Classes and functions are named by the module they can be imported
from. All settings are written, those at their default too, so that a record
says what was used even when a default changes. Only a default that has no name,
such as a function that another one returned, is left to its class.
"""

from collections.abc import Iterator, Mapping
import enum
import functools
import inspect
import math
from typing import Any, NamedTuple

import numpy as np

from dopamine_jax import annotations
from dopamine_jax import errors
from dopamine_jax import settings
from dopamine_jax import values
from dopamine_jax.config import build
from dopamine_jax.config import names as names_lib

DYNAMIC = 'from __gin__ import dynamic_registration'
_WIDTH = 80


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
    """The key of its lines: `@X` and `@X()` with equal settings share them."""
    return self.target, self.settings


class _Several(NamedTuple):
  """A list, tuple or dict.

  Attributes:
    kind: which of them.
    parts: what it holds; of a dict, keys and values in turn.
  """

  kind: type
  parts: tuple[Any, ...]


# Arrays of these are to JAX what a list of their numbers is.
_AS_LISTS = ('int32', 'int64', 'float32', 'float64')
# A default that gin could not build, which the class itself has.
_LEFT_OUT = 'left out'


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
  return _written(_tree(root), title)


def record(root: settings.Settings, title: str = '') -> str:
  """Returns what `write` does, once it was seen to build the same again.

  Args:
    root: settings, such as a runner.
    title: a comment that the file is to begin with.

  Raises:
    UserError: as `write`; or that names a setting which would not come back.
  """
  tree = _tree(root)
  text = _written(tree, title)
  again = build.load(['config.gin'], text=text).build(type(root))
  if difference := _difference(tree, _tree(again)):
    raise errors.UserError(
      f'{difference} would not come back from config.gin as it is, and a run '
      'is evaluated and goes on from there. Give it a value that can be named: '
      'a number, text, settings, a class or function of a module, or what '
      'dopamine_jax.call(function, ...) returns.'
    )
  return text


def _tree(root) -> '_Named':
  try:
    return _of_part(root)
  except _Unwritable as error:
    raise errors.UserError(
      f'{annotations.full_name(type(root))} {error}'
    ) from error


def _written(tree, title) -> str:
  """Returns a tree as a gin file."""
  names = _Names()
  scopes = _scopes(tree)
  sections = {}
  for scope, named in _sections(tree, scopes):
    selector = '/'.join(filter(None, (scope, names.of(named.target))))
    lines = [
      f'{selector}.{name} = {_text(value, names, scopes)}'
      for name, value in named.settings
      if value is not _LEFT_OUT
    ]
    if lines:
      sections[selector] = lines
  text = [f'# {" ".join(title.split())}'] if title else []
  text += [DYNAMIC, '', *names.imports()]
  for selector, lines in sections.items():
    head = f'# Parameters for {selector}:'
    text += ['', head, f'# {"=" * (_WIDTH - 2)}', *lines]
  return '\n'.join(text) + '\n'


def _difference(tree, other) -> str:
  """Returns the name of the first setting in which two trees differ, or ''."""
  if tree == other:
    return ''
  if isinstance(tree, _Named) and isinstance(other, _Named):
    found = dict(other.settings)
    for name, value in tree.settings:
      if name not in found or found[name] != value:
        inner = _difference(value, found.get(name))
        return inner or f'{annotations.full_name(tree.target)}.{name}'
  if isinstance(tree, _Several) and isinstance(other, _Several):
    for part, its in zip(tree.parts, other.parts, strict=False):
      if part != its:
        return _difference(part, its)
  return ''


def _of_part(part) -> _Named:
  """Returns what is written of settings or a Flax module."""
  cls = type(part)
  if not names_lib.place(cls):
    raise _Unwritable(_why(cls))
  if lost := values.not_of_fields(part):
    raise _Unwritable(
      f'is a {annotations.full_name(cls)} whose {lost} was set after it was '
      'made, which no gin file says. Make it one of its arguments.'
    )
  given = getattr(cls, 'given_later', ())
  found = []
  for name, field in values.fields(part).items():
    value = getattr(part, name)
    if name in given and value == field.default:
      continue
    found.append((name, _setting(cls, name, value, field.default)))
  return _Named(cls, True, tuple(found))


def _of_call(target, called, keywords) -> _Named:
  """Returns what is written of a class or function and its arguments."""
  if not names_lib.place(target):
    raise _Unwritable(_why(target))
  if keywords is None:
    raise _Unwritable(
      'is given arguments by position, of which nobody knows the names. Give '
      'them by name.'
    )
  found, given = [], getattr(target, 'given_later', ())
  parameters = names_lib.parameters(target)
  # A function that nobody calls here stays the one that it is.
  has_defaults = called or names_lib.has_settings(target)
  for name in {**parameters, **keywords}:
    default = parameters[name].default if name in parameters else ...
    if name in keywords:
      value = keywords[name]
    elif not has_defaults or name in given:
      continue
    elif default is inspect.Parameter.empty or default is ...:
      continue
    else:
      value = default
    found.append((name, _setting(target, name, value, default)))
  return _Named(target, called, tuple(found))


def _setting(owner, name, value, default) -> Any:
  """Returns what is written of a setting; a default may be left out."""
  try:
    return _of(value)
  except (_Unwritable, errors.UserError) as error:
    if value is default:
      return _LEFT_OUT  # The class itself has it.
    if isinstance(error, errors.UserError):
      raise
    raise errors.UserError(
      f'{annotations.full_name(owner)}.{name} {error} A run writes its '
      'settings to config.gin, from which it is evaluated and goes on.'
    ) from error


def _of(value: Any) -> '_Named | _Several | str':
  """Returns what is written of any value."""
  if isinstance(value, enum.Enum):
    raise _Unwritable(
      f'is {value!r}, and gin knows no enumerations. Take a text or a number.'
    )
  if isinstance(value, np.ndarray):
    if not (value.dtype.kind in 'bU' or value.dtype.name in _AS_LISTS):
      raise _Unwritable(
        f'is an array of {value.dtype}, and gin would give a list of other '
        'numbers. Give it as a list, and make the array where it is used.'
      )
    value = value.tolist()
  if isinstance(value, np.generic):
    value = value.item()
  if type(value) in (bool, int, str, type(None)):
    return repr(value)
  if type(value) is float:
    if not math.isfinite(value):
      raise _Unwritable(
        f'holds {value}, which is no number in gin. Take a large one, or None '
        'where that means the same.'
      )
    return repr(value)
  if isinstance(value, bytes):
    raise _Unwritable('holds bytes, which gin does not know. Take a text.')
  if isinstance(value, (list, tuple)) and not hasattr(value, '_fields'):
    kind = list if isinstance(value, list) else tuple
    return _Several(kind, tuple(map(_of, value)))
  if isinstance(value, Mapping):
    pairs = [_of(each) for pair in value.items() for each in pair]
    return _Several(dict, tuple(pairs))
  if made := values.origin(value):
    return _of_call(made.function, True, made.keywords)
  if isinstance(value, functools.partial):
    keywords = values.named(value.func, value.args, value.keywords)
    return _of_call(value.func, False, keywords)
  if values.is_part(value):
    return _of_part(value)
  if names_lib.place(value):
    return _of_call(value, False, {})
  raise _Unwritable(_why(value))


class _Names:
  """Names things by what is imported, and gives each module one name."""

  def __init__(self):
    self._modules: dict[str, str] = {}

  def of(self, target: Any) -> str:
    """Returns a class or function as this file names it."""
    module, name = names_lib.place(target)
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
  """Returns a scope for each section that needs one, '' for others.

  Several things of one name have scopes, named by the setting that has each.
  So has whatever is below one with a scope, for bindings of a scope hold there.
  """
  found = {}
  for where, named in _all(tree, ''):
    found.setdefault(named.target, {}).setdefault(named.section, where)
  scoped = {
    section: where
    for variants in found.values()
    for section, where in variants.items()
    if len(variants) > 1
  }
  for _, named in _all(tree, ''):  # from the root on
    if named.section in scoped:
      for where, inner in _all(named, ''):
        scoped.setdefault(inner.section, where)
  scopes, taken = {}, set()
  for variants in found.values():
    for section in variants:
      scope, number = scoped.get(section, ''), 2
      while scope and scope in taken:
        scope, number = f'{scoped[section]}{number}', number + 1
      taken.add(scope)
      scopes[section] = scope
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
    'place of function(...), as in call(optax.adam, 1e-3). Where the function '
    'has no name itself, define one at the top of a module that returns this.'
  )
