"""Settings that nothing reads: macros without a use, bindings of idle classes.

A misspelt binding would train on with the old value and not say a word.
"""

from collections.abc import Callable, Iterable, Iterator
import difflib
import inspect
from typing import Any, NamedTuple

from gin import config as gin_config

from dopamine_jax import errors
from dopamine_jax import gin_checks
from dopamine_jax import gin_files
from dopamine_jax import gin_messages
from dopamine_jax import settings

# What a user sets to choose the parts of a run; the search begins there.
_ROOT = 'runner.Runner'


class Binding(NamedTuple):
  """One entry of gin's configuration."""

  scope: str
  selector: str
  name: str

  def __str__(self):
    scope = f'{self.scope}/' if self.scope else ''
    return f'{scope}{gin_checks.short(self.selector)}.{self.name}'


# References that a later file or binding replaced, as they were.
_replaced: dict[Binding, Any] = {}


# What is given to a class, by its name, where it is made: a binding of that
# has no effect.
_given: dict[str, set[str]] = {}


def clear():
  """Forgets what was replaced, and what was given."""
  _replaced.clear()
  _given.clear()


def note_given(kind: type, names: Iterable[str]):
  """Keeps which settings of a class are no user's to choose."""
  _given.setdefault(kind.__name__, set()).update(names)


def references() -> dict[Binding, Any]:
  """Returns the bindings that choose classes or functions."""
  return {
    Binding(scope, selector, name): value
    for (scope, selector), bindings in gin_config._CONFIG.items()
    for name, value in bindings.items()
    if gin_checks.holds_references(value) and not selector.startswith('gin.')
  }


def note_replaced(before: dict[Binding, Any]):
  """Keeps which of these references hold no longer."""
  for binding, reference in before.items():
    now = gin_config._CONFIG[binding.scope, binding.selector][binding.name]
    if repr(now) != repr(reference):
      _replaced.setdefault(binding, reference)


def refuse_macros():
  """Refuses macros that are set and not read.

  Raises:
    UserError: that names the setting that was probably meant.
  """
  read = {
    reference.config_key[0]
    for reference in gin_config.iterate_references(gin_config._CONFIG)
    if reference.configurable.selector == 'gin.macro'
  }
  for (macro, selector), bindings in gin_config._CONFIG.items():
    if selector == 'gin.macro' and macro not in read:
      value = settings.shown(bindings['value'])
      where = gin_messages.found_at(gin_messages.place_of_macro(macro))
      raise errors.UserError(
        f'{where}{macro} = {value} sets nothing: a name without a class is a '
        f'macro, and nothing reads %{macro}.{_nearest(macro, value)}'
      )


def report(unread: list[Binding], say: Callable[[str], None]):
  """Refuses bindings that nothing reads, or says it where they may be meant.

  They may be where something replaced what they belong to (as a command line
  does with a file's network), and in files that others include.

  Raises:
    UserError: that names the first one that is a mistake.
  """
  orphans = []
  for binding, before in _replaced.items():
    orphans += _say_replaced(binding, before, unread, say)
  rest = []
  for binding in unread:
    if binding in orphans:
      continue
    place = _place(binding)
    own = place is not None and place.source in gin_files.given
    if own and (place.source == gin_files.BINDINGS or not _replaced):
      where = gin_messages.found_at(place)
      value = gin_config._CONFIG[binding.scope, binding.selector][binding.name]
      raise errors.UserError(
        f'{where}{binding} is set, but nothing in this run uses it.'
        f'{_instead(binding, settings.shown(value))}'
      )
    rest.append(str(binding))
  if rest:
    verb = 'is' if len(rest) == 1 else 'are'
    say(
      f'Warning: {", ".join(rest)} {verb} set, but nothing in this run uses '
      f'{"it" if len(rest) == 1 else "them"}.'
    )


def _say_replaced(binding, before, unread, say) -> list[Binding]:
  """Says that a number took a schedule's place; returns what that left idle."""
  bound = gin_config._CONFIG.get((binding.scope, binding.selector), {})
  if binding.name not in bound:  # gin was cleared since, behind our back
    return []
  now = gin_checks.resolved(bound[binding.name])
  if not isinstance(before, gin_config.ConfigurableReference):
    return []
  if not before.evaluate or type(now) not in (int, float):
    return []
  scope, selector = before.config_key
  names = list(_parameters(before.configurable.wrapped))
  first = 'init_value' if 'init_value' in names else next(iter(names), None)
  instead = Binding(scope, selector, first)
  remedy = f' To keep the schedule, set {instead} instead.' if first else ''
  say(
    f'Warning: {binding} = {now} takes the place of {before!r}, so that it '
    f'stays the same all the time.{remedy}'
  )
  return [each for each in unread if each[:2] == (scope, selector)]


def _place(binding) -> gin_messages.Place | None:
  target = gin_config._REGISTRY[binding.selector].wrapped
  return gin_messages.place_of([target], binding.name)


def _instead(binding: Binding, value: str) -> str:
  """Returns ' Did you mean ...?' in place of a binding that nothing reads."""
  owner = gin_checks.short(binding.selector)
  if binding.scope and any(
    name == owner and binding.name in names for name, names in _in_use()
  ):
    return (
      f' Did you mean `{owner}.{binding.name} = {value}`? No {owner} is made '
      f'in the scope {binding.scope}/.'
    )
  return _nearest(binding.name, value, binding.selector)


def _nearest(name: str, value: str, besides: str = '') -> str:
  """Returns ' Did you mean ...?' with a setting of what this run uses."""
  found = {}
  for owner, names in _in_use():
    if owner != gin_checks.short(besides):
      for each in names:
        found.setdefault(each, f'{owner}.{each}')
  near = difflib.get_close_matches(name, found, n=1, cutoff=0.7)
  return f' Did you mean `{found[near[0]]} = {value}`?' if near else ''


def _in_use() -> Iterator[tuple[str, list[str]]]:
  """Yields what the runner leads to, nearest first, and its settings' names."""
  waiting = [
    gin_config._REGISTRY[selector].wrapped
    for _, selector in gin_config._CONFIG
    if selector.endswith(_ROOT)
  ]
  seen = []
  while waiting:
    target = waiting.pop(0)
    if target in seen:
      continue
    seen.append(target)
    configurable = gin_config._INVERSE_REGISTRY.get(target)
    name = (
      gin_checks.short(configurable.selector)
      if configurable
      else settings.full_name(target)
    )
    parameters = _parameters(target)
    given = _given.get(name.rpartition('.')[2], ())
    yield name, [each for each in parameters if each not in given]
    waiting += _parts(configurable, parameters)


def _parameters(target) -> dict[str, inspect.Parameter]:
  found = gin_checks.parameters(target)
  return {k: v for k, v in found.items() if k not in gin_checks.FLAX_FIELDS}


def _parts(configurable, parameters) -> list[Any]:
  """Returns the classes and functions that something is set to, or has."""
  bound = {}
  if configurable:
    for (_, selector), bindings in gin_config._CONFIG.items():
      if selector == configurable.selector:
        bound |= bindings
  found = [
    reference.configurable.wrapped
    for reference in gin_config.iterate_references(bound)
    if not reference.configurable.selector.startswith('gin.')
  ]
  return found + [
    parameter.default
    for name, parameter in parameters.items()
    if name not in bound
    and inspect.isclass(parameter.default)
    and parameter.default is not inspect.Parameter.empty
  ]
