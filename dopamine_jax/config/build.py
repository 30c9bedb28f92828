"""Builds settings from what gin files say, all of them at once.

A class gets the settings that are bound to it or to its ancestors, the nearest
first: `dqn.DQN.gamma = 0.9` holds for DoubleDQN too, unless that has a gamma of
its own. `@module.Class()` is built on the spot; `@module.Class` becomes the
class, or a `functools.partial` that has its settings. Bindings also reach a
part that is only a setting's default, though no gin file refers to it.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import functools
import inspect
import pathlib
import types
from typing import Any

from dopamine_jax import annotations
from dopamine_jax import errors
from dopamine_jax import settings
from dopamine_jax import values
from dopamine_jax.config import checks
from dopamine_jax.config import names as names_lib
from dopamine_jax.config import statements as statements_lib
from dopamine_jax.config import unread
from dopamine_jax.config.statements import Binding
from dopamine_jax.config.statements import Macro
from dopamine_jax.config.statements import Place
from dopamine_jax.config.statements import Reference

_Scope = tuple[str, ...]


def load(
  gin_files: Sequence[str | pathlib.Path],
  gin_bindings: Sequence[str] = (),
  text: str | None = None,
) -> 'Config':
  """Reads these files, then these bindings.

  Args:
    gin_files: paths, of the file system or of a package, as in
      `dopamine_jax/configs/dqn_cartpole.gin`; or names of shipped ones.
    gin_bindings: lines of gin, which win over the files.
    text: what the only file says, where it was read before.

  Raises:
    UserError: with the file, the line and the nearest right name.
  """
  read = statements_lib.Statements()
  for file in gin_files:
    read.read_file(file, text)
  read.read_bindings(gin_bindings)
  config = Config(read)
  config.check()
  return config


class Config:
  """What gin files and bindings say, ready to be built from.

  Attributes:
    title: the comment that the first file begins with, or ''.
  """

  def __init__(self, read: statements_lib.Statements):
    self.title = read.title or ''
    self._read = read
    self._used: set[Binding] = set()
    self._building: list[tuple[Any, _Scope]] = []
    self._singletons: dict[_Scope, Any] = {}
    self._by_target: dict[Any, list[Binding]] = {}
    for binding in read.bindings.values():
      self._by_target.setdefault(binding.target, []).append(binding)

  def check(self):
    """Refuses macros and values that can't be meant.

    Raises:
      UserError: that names the first one, with its line.
    """
    unread.refuse_macros(self._read)
    for binding in self._read.bindings.values():
      with self._at(binding.place):
        checks.refuse_misfit(binding, self._resolved(binding.value)[0])

  def build(self, target: Any, /, **given: Any) -> Any:
    """Returns `target(**settings, **given)`, and builds all that lies below.

    Args:
      target: a class or function.
      **given: what gin doesn't say.

    Raises:
      UserError: if a setting is missing, misspelt or doesn't fit.
    """
    with self.located():
      return self._call(target, (), given)

  def kind(self, base: type) -> type:
    """Returns the class to build: `base`, or a subclass whose settings are.

    Raises:
      UserError: if there are two, of which neither is the other's parent.
    """
    below = [
      target
      for target in self._by_target
      if inspect.isclass(target) and issubclass(target, base)
    ]
    lowest = max(below, key=lambda kind: len(kind.__mro__), default=base)
    for other in below:
      if not issubclass(lowest, other):
        one, two = map(annotations.full_name, (lowest, other))
        raise errors.UserError(
          f'settings of {one} and of {two} are bound, and one of them is to be '
          'built. Leave the bindings of the other out.'
        )
    return lowest

  @contextlib.contextmanager
  def located(self) -> Iterator[None]:
    """Adds file and line to a `SettingError` raised inside.

    Training runs inside it: some settings are checked only there.
    """
    try:
      yield
    except settings.SettingError as error:
      for owner in getattr(error.owner, '__mro__', (error.owner,)):
        bound = self._by_target.get(owner, ())
        for binding in reversed(bound):
          if binding.name == error.name:
            raise errors.UserError(f'{binding.place}: {error}') from error
      raise

  def unused(self) -> list[Binding]:
    """Returns the bindings that nothing has used that was built so far."""
    return [b for b in self._read.bindings.values() if b not in self._used]

  def refuse_unread(self, say: Callable[[str], None]):
    """Refuses bindings that nothing has used; see `unread`.

    Args:
      say: is told of those that may be meant, such as of an included file.
    """
    unread.report(self._read, self.unused(), say)

  def _call(self, target, scope, given=types.MappingProxyType({})):
    """Returns what a class or function makes of its settings."""
    kwargs = self._settings(target, scope)
    for name in kwargs.keys() & given.keys():
      raise settings.SettingError(
        target,
        name,
        f'{annotations.full_name(target)}.{name} = '
        f'{annotations.shown(kwargs[name])} '
        'has no effect: it is given where this is made. Leave it out.',
      )
    kwargs |= given
    _require_complete(target, kwargs)
    with self._explained(target, scope):
      return values.call(target, **kwargs)

  def _maker(self, target, scope):
    """Returns the class or function, or a partial that has its settings."""
    kwargs = self._settings(target, scope)
    if not kwargs:
      return target
    return values.partial(target, kwargs)

  def _settings(self, target, scope) -> dict[str, Any]:
    """Returns what is bound to a class or function, or below its defaults."""
    if (target, scope) in self._building:
      name = annotations.full_name(target)
      raise errors.UserError(
        f'{name} needs itself, in a circle: what is bound to it has it inside.'
      )
    self._building.append((target, scope))
    try:
      return self._settings_once(target, scope)
    finally:
      self._building.pop()

  def _settings_once(self, target, scope):
    bound = self._bound(target, scope)
    for binding in bound.values():
      if binding.value == statements_lib.REQUIRED:
        raise errors.UserError(
          f'{binding.place}: {binding} is to be set, and nothing does.'
        )
    found = {
      name: self._value(binding.value, scope) for name, binding in bound.items()
    }
    if not (inspect.isclass(target) and issubclass(target, settings.Checked)):
      return found
    parameters = names_lib.parameters(target)
    defaults = {name: each.default for name, each in parameters.items()}
    for name in target.given_later:
      if name in bound and found[name] == defaults[name]:
        raise errors.UserError(
          f'{bound[name].place}: {bound[name]} is no setting: what uses it '
          'gives it. Leave this line out.'
        )
    return self._with_adopted(found, defaults, scope)

  def _bound(self, target, scope) -> dict[str, Binding]:
    """Returns the bindings that hold for something, by name."""
    if not self._by_target:
      return {}
    found = {}
    names = None
    lineage = target.__mro__ if inspect.isclass(target) else (target,)
    for depth in range(len(scope) + 1):
      for owner in reversed(lineage):
        for binding in self._by_target.get(owner, ()):
          if binding.scope != scope[:depth]:
            continue
          if owner is not target:
            names = names or names_lib.parameters(target)
            if binding.name not in names:
              continue
          found[binding.name] = binding
          # A file's line may be there for others, which don't have another one.
          if binding.place.source != statements_lib.COMMAND_LINE:
            self._used.add(binding)
    self._used.update(found.values())
    return found

  def _value(self, value, scope):
    """Returns what a value stands for."""
    value, scope = self._resolved(value, scope)
    if value == statements_lib.REQUIRED:
      raise errors.UserError('%gin.REQUIRED is to be set, and nothing does.')
    if isinstance(value, Reference):
      if value.target is names_lib.singleton:
        return self._singleton(value.scope)
      inside = value.scope or scope
      make = self._call if value.called else self._maker
      return make(value.target, inside)
    if isinstance(value, dict):
      return {
        self._value(k, scope): self._value(v, scope) for k, v in value.items()
      }
    if isinstance(value, (list, tuple)):
      return type(value)(self._value(each, scope) for each in value)
    return value

  def _adopted(self, default, scope):
    """Returns a default with what gin binds to it; as it is if that is none."""
    if isinstance(default, (list, tuple)) and not hasattr(default, '_fields'):
      each = [self._adopted(part, scope) for part in default]
      same = all(a is b for a, b in zip(each, default, strict=True))
      return default if same else type(default)(each)
    if isinstance(default, functools.partial):
      kwargs = values.named(default.func, default.args, default.keywords)
      found = self._below(default.func, kwargs, scope)
      return values.partial(default.func, kwargs | found) if found else default
    if made := values.origin(default):
      found = self._below(made.function, made.keywords, scope)
      kwargs = made.keywords | found
      return values.call(made.function, **kwargs) if found else default
    if isinstance(default, type) or inspect.isroutine(default):
      return self._maker(default, scope)
    if values.is_part(default):
      return self._adopted_part(default, scope)
    return default

  def _below(self, function, keywords, scope):
    """Returns what gin binds to a function, and to what it is given."""
    return self._with_adopted(self._settings(function, scope), keywords, scope)

  def _with_adopted(self, found, held, scope):
    """Adds what gin binds below what is held, and not found by its name."""
    for name, value in held.items():
      if name not in found:
        adopted = self._adopted(value, scope)
        if adopted is not value:
          found[name] = adopted
    return found

  def _adopted_part(self, part, scope):
    """Returns settings or a network, with what gin binds to it and below."""
    bound = self._bound(type(part), scope)
    changes = {k: self._value(b.value, scope) for k, b in bound.items()}
    held = {name: getattr(part, name) for name in values.fields(part)}
    changes = self._with_adopted(changes, held, scope)
    return values.changed(part, **changes) if changes else part

  def _singleton(self, scope):
    if scope not in self._singletons:
      bound = self._bound(names_lib.singleton, scope)
      name = '/'.join(scope)
      if 'constructor' not in bound:
        raise errors.UserError(
          f'@{name}/gin.singleton() needs {name}/gin.singleton.constructor.'
        )
      maker = self._value(bound['constructor'].value, scope)
      self._singletons[scope] = values.call(maker)
    return self._singletons[scope]

  def _resolved(self, value, scope=()):
    """Returns what a macro stands for, and in which scope: its own.

    Any other value as it is, and `scope`. `unread` has refused circles.
    """
    while isinstance(value, Macro) and value != statements_lib.REQUIRED:
      scope = tuple(value.name.split('/'))
      value, _ = self._read.macros[value.name]
    return value, scope

  @contextlib.contextmanager
  def _at(self, place: Place):
    try:
      yield
    except errors.UserError as error:
      raise errors.UserError(f'{place}: {error}') from error

  @contextlib.contextmanager
  def _explained(self, target, scope):
    """Raises what a call raises as a UserError, in a user's terms."""
    try:
      yield
    except errors.UserError:
      raise
    except RecursionError as error:
      raise errors.UserError('what is bound needs itself, in a circle.') from (
        error
      )
    except (TypeError, ValueError) as error:
      reason = errors.first_line(error).rstrip('.')
      if errors.place(error):
        raise errors.UserError(f'{errors.told(error)}.') from error
      for binding in self._bound(target, scope).values():
        value, _ = self._resolved(binding.value)
        if isinstance(value, str) and repr(value) in reason:
          raise errors.UserError(
            f'{binding.place}: {binding} = {value!r}: {reason}.'
          ) from error
      raise errors.UserError(
        f'{annotations.full_name(target)} fails when it is made: {reason}.'
      ) from error


def _require_complete(target, kwargs):
  """Refuses a call that lacks an argument, or has one that is not taken."""
  missing = [
    name
    for name, parameter in names_lib.parameters(target).items()
    if parameter.default is inspect.Parameter.empty
    and parameter.kind is not inspect.Parameter.VAR_POSITIONAL
    and name not in kwargs
  ]
  if missing:
    name = annotations.full_name(target).rpartition('.')[2]
    raise errors.UserError(
      f'{name} needs {" and ".join(missing)}, which nothing sets. Set it in '
      f'gin; or write @{name} without parentheses if it is only made later.'
    )
