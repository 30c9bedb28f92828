"""Gin: load a configuration, build from it, say what is wrong with it.

Configurations use gin's dynamic registration: a file imports what it names, so
classes hold no gin decorator and a misspelt name raises.
"""

from collections.abc import Callable, Sequence
import contextlib
import inspect
import pathlib
from typing import Any, get_args, get_type_hints

import gin
from gin import config as gin_config
from gin import config_parser

from dopamine_jax import errors
from dopamine_jax import gin_checks
from dopamine_jax import gin_files as files  # `load` has a parameter gin_files
from dopamine_jax import gin_messages
from dopamine_jax import gin_names
from dopamine_jax import gin_unread
from dopamine_jax import settings

describe = gin_messages.describe
find = files.find
read = files.read
shipped = files.shipped
title = files.title

# The (scope, selector, name) that `load` copied down to subclasses.
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
  files.clear()
  gin_unread.clear()
  _inherited.clear()
  _register_chain()
  for file in gin_files:
    with gin_messages.explained(str(file)), _noting_what_is_replaced():
      if text is None:
        files.parse(file)
      else:
        files.parse_text(file, text)
  # A binding may name what the files import, as if it stood at their end.
  imports = {each.format() for each in gin_config._IMPORTS}
  # That one first.
  imports = sorted(imports, key=lambda line: line != gin_names.DYNAMIC)
  with gin_messages.explained(files.BINDINGS), _noting_what_is_replaced():
    files.parse_bindings(gin_bindings, imports)
  gin_checks.refuse_gins_own()
  gin_unread.refuse_macros()
  with gin_messages.explained():
    _inherit_bindings()
    gin.finalize()
  gin_checks.refuse_misfits()


@contextlib.contextmanager
def _noting_what_is_replaced():
  before = gin_unread.references()
  yield
  gin_unread.note_replaced(before)


def _register_chain():
  """Has `optax.chain` take a list: gin passes nothing by position."""
  import optax  # Brings JAX, which who only lists files does without.

  from dopamine_jax import optimization

  known = gin_config._INVERSE_REGISTRY
  if optax.chain not in known:
    source = config_parser.ImportStatement('optax', False, None, None)
    gin_config._make_configurable(
      optimization.chain,
      name='chain',
      module='optax',
      import_source=(source, 'chain'),
    )
    ours = known[optimization.chain]
    known[optax.chain] = ours._replace(wrapped=optax.chain)


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
  except (TypeError, ValueError, RecursionError) as error:
    raise errors.UserError(gin_messages.explain(error)) from error


def make(owner: settings.Checked, name: str, **kwargs: Any) -> Any:
  """Returns what a setting makes, such as a network or a replay.

  Args:
    owner: whose setting it is.
    name: the setting, a class or function.
    **kwargs: what it is called with.

  Raises:
    UserError: if it takes no such arguments, or makes something else.
  """
  maker = configured(getattr(owner, name))
  try:
    if inspect.isclass(maker):  # of which gin hides what it takes
      inspect.signature(maker.__init__).bind_partial(maker, **kwargs)
    else:
      inspect.signature(maker).bind_partial(**kwargs)
  except TypeError:
    owner.refuse(name, f'does not fit: it does not take {" and ".join(kwargs)}')
  except ValueError:
    pass  # What has no signature may take anything.
  made = build(maker, **kwargs)
  gin_unread.note_given(type(made), kwargs)
  kind = get_args(get_type_hints(type(owner))[name])[-1:]
  if kind and isinstance(kind[0], type) and not isinstance(made, kind[0]):
    owner.refuse(
      name,
      f'makes what is of type {type(made).__name__}; expected '
      f'{settings.full_name(kind[0])}',
    )
  return made


def operative() -> str:
  """Returns what was really used since `load`, as gin that reproduces it."""
  return gin.operative_config_str()


def unused() -> list[gin_unread.Binding]:
  """Returns the bindings that no call has used since `load`."""
  used = {
    (scope, name, each)
    for (scope, selector), values in gin_config._OPERATIVE_CONFIG.items()
    for name in values
    for each in (selector, *_ancestors(selector))
  }
  return [
    gin_unread.Binding(scope, selector, name)
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


def refuse_unread(say: Callable[[str], None]):
  """Refuses bindings that nothing has used since `load`; see `gin_unread`."""
  gin_unread.report(unused(), say)


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
