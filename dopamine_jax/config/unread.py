"""Settings that nothing reads: macros without a use, bindings of idle classes.

A misspelt binding would train on with the old value and not say a word.
"""

from collections.abc import Callable, Iterator, Sequence
import difflib
import functools
import inspect
from typing import Any

from dopamine_jax import annotations
from dopamine_jax import errors
from dopamine_jax.config import checks
from dopamine_jax.config import names
from dopamine_jax.config import statements
from dopamine_jax.config.statements import Binding

# What a user sets to choose the parts of a run; the search begins there.
_ROOT = 'runner.Runner'


def refuse_macros(read: statements.Statements):
  """Refuses macros that are set and not read, or read and not set.

  Raises:
    UserError: that names the setting that was probably meant.
  """
  used = {name for value, _ in read.macros.values() for name in _names(value)}
  for binding in read.bindings.values():
    for name in _names(binding.value):
      used.add(name)
      if name not in read.macros and name != statements.REQUIRED.name:
        raise errors.UserError(
          f'{binding.place}: {name} is used as %{name} but never set.'
        )
  for macro, (value, place) in read.macros.items():
    if macro not in used:
      shown = annotations.shown(value)
      raise errors.UserError(
        f'{place}: {macro} = {shown} sets nothing: a name without a class is a '
        f'macro, and nothing reads %{macro}.{_nearest(read, macro, shown)}'
      )
  for macro in read.macros:
    _refuse_circle(read, macro, [])
  for value, place in read.macros.values():
    for name in _names(value):
      if name not in read.macros:
        raise errors.UserError(
          f'{place}: {name} is used as %{name} but never set.'
        )


def _refuse_circle(read, macro, above):
  """Refuses a macro that stands for itself, through others."""
  if macro in above:
    circle = ' -> '.join(f'%{name}' for name in [*above, macro])
    raise errors.UserError(f'macros stand for each other: {circle}.')
  value, _ = read.macros.get(macro, (None, None))
  for name in _names(value):
    _refuse_circle(read, name, [*above, macro])


def report(
  read: statements.Statements,
  unused: Sequence[Binding],
  say: Callable[[str], None],
):
  """Refuses bindings that nothing uses, or says it where they may be meant.

  They may be where something replaced what they belong to (as a command line
  does with a file's network), and in files that others include.

  Args:
    read: what the files say.
    unused: the bindings that nothing uses.
    say: prints what the user should know.

  Raises:
    UserError: that names the first one that is a mistake.
  """
  orphans = []
  for binding, before in read.replaced:
    orphans += _say_replaced(binding, before, unused, say)
  rest = []
  for binding in unused:
    if binding in orphans:
      continue
    place = binding.place
    if place.given and (
      place.source == statements.COMMAND_LINE or not read.replaced
    ):
      raise errors.UserError(
        f'{place}: {binding} is set, but nothing in this run uses it.'
        f'{_instead(read, binding)}'
      )
    rest.append(str(binding))
  if rest:
    verb = 'is' if len(rest) == 1 else 'are'
    say(
      f'Warning: {", ".join(rest)} {verb} set, but nothing in this run uses '
      f'{"it" if len(rest) == 1 else "them"}.'
    )


def _say_replaced(binding, before, unused, say) -> list[Binding]:
  """Says that a number took a schedule's place; returns what that left idle."""
  now = binding.value
  if not isinstance(before, statements.Reference):
    return []
  if not before.called or type(now) not in (int, float):
    return []
  known = list(names.parameters(before.target))
  first = 'init_value' if 'init_value' in known else next(iter(known), None)
  owner = '/'.join((*before.scope, names.short(before.name)))
  remedy = f' To keep the schedule, set {owner}.{first} instead.'
  say(
    f'Warning: {binding} = {now} takes the place of {before}, so that it stays '
    f'the same all the time.{remedy if first else ""}'
  )
  return [
    each
    for each in unused
    if (each.scope, each.target) == (before.scope, before.target)
  ]


def _instead(read, binding: Binding) -> str:
  """Returns ' Did you mean ...?' in place of a binding that nothing reads."""
  owner = names.short(binding.owner)
  value = annotations.shown(binding.value)
  if binding.scope and any(
    name == owner and binding.name in known for name, _, known in _in_use(read)
  ):
    scope = '/'.join(binding.scope)
    return (
      f' Did you mean `{owner}.{binding.name} = {value}`? No {owner} is made '
      f'in the scope {scope}/.'
    )
  return _nearest(read, binding.name, value, owner) or _place_for(read, binding)


def _place_for(read, binding: Binding) -> str:
  """Returns ' To use it, set ...' with a setting that takes such a part."""
  for owner, target, known in _in_use(read):
    if target is binding.target:
      return ''
    for name, hint in checks.hints(target).items():
      if name in known and annotations.is_for(binding.target, hint):
        part = names.short(binding.owner)
        return f' To use it, set `{owner}.{name} = @{part}`.'
  return ''


def _nearest(read, name: str, value: str, besides: str = '') -> str:
  """Returns ' Did you mean ...?' with a setting of what this run uses."""
  found = {}
  for owner, _, known in _in_use(read):
    if owner != besides:
      for each in known:
        found.setdefault(each, f'{owner}.{each}')
  near = difflib.get_close_matches(name, found, n=1, cutoff=0.7)
  return f' Did you mean `{found[near[0]]} = {value}`?' if near else ''


def _in_use(read) -> Iterator[tuple[str, Any, list[str]]]:
  """Yields what the runner leads to, nearest first: name, itself, settings."""
  waiting = [
    (names.short(binding.owner), binding.target)
    for binding in read.bindings.values()
    if annotations.full_name(binding.target) == _ROOT
  ]
  seen = []
  while waiting:
    name, target = waiting.pop(0)
    if target in seen:
      continue
    seen.append(target)
    parameters = names.parameters(target)
    given = getattr(target, 'given_later', ())
    yield name, target, [each for each in parameters if each not in given]
    waiting += _parts(read, target, parameters)


def _parts(read, target, parameters) -> list[tuple[str, Any]]:
  """Returns the classes and functions that something is set to, or has."""
  bound = {
    binding.name: binding.value
    for binding in read.bindings.values()
    if binding.target is target
  }
  found = [
    (names.short(reference.name), reference.target)
    for reference in statements.references(bound)
  ]
  for name, parameter in parameters.items():
    default = parameter.default
    if isinstance(default, functools.partial):
      default = default.func
    if (
      name not in bound
      and inspect.isclass(default)
      and default is not inspect.Parameter.empty
    ):
      found.append((annotations.full_name(default), default))
  return found


def _names(value) -> list[str]:
  return list(statements.macros(value))
