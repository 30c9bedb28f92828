"""What a stranger's configuration may import and call: see `trust`.

The packages of `PACKAGES` hold dangerous things too (`jax.numpy.save`, a
runner's `train`), so what may be named is told by kinds, and of functions by
the module that offers them. What may be called with what decides nothing here:
whatever reaches an argument is plain data or was judged itself.
"""

from collections.abc import Iterator, Mapping, Sequence
import functools
import importlib
import inspect
import pathlib
import re
import types
from typing import Any

from flax import linen as nn
from flax.linen import activation
from flax.linen import initializers
from gin import config_parser
import gymnasium
import jax
from jax.nn import initializers as jax_initializers
import optax
import optax.contrib
import rlax

import dopamine_jax
from dopamine_jax import errors
from dopamine_jax import settings
from dopamine_jax.engines import engine
from dopamine_jax.environments import base
from dopamine_jax.environments import gym
from dopamine_jax.metrics import base as metrics
from dopamine_jax.trust import gin_effort
from dopamine_jax.trust import gin_names

PACKAGES = ('dopamine_jax', 'jax', 'flax', 'optax', 'rlax', 'gymnasium')

# Modules of others that a configuration may import.
_IMPORTED = {
  *('jax', 'jax.nn', 'jax.nn.initializers', 'jax.numpy'),
  *('flax', 'flax.linen', 'flax.linen.activation', 'flax.linen.initializers'),
  *('optax', 'optax.contrib', 'optax.schedules', 'optax.transforms'),
  *('rlax', 'gymnasium', 'gymnasium.spaces'),
}
# All that these offer, if it is their package's own, and of any of `PACKAGES`
# in the case of Flax's, which offer JAX's.
_OFFERING = (
  *(optax, optax.contrib, optax.schedules, optax.transforms, rlax, jax.nn),
  *(jax_initializers, activation, initializers),
)
# Activations that are not in `jax.nn`.
_ELEMENTWISE = ('abs', 'arctan', 'cos', 'exp', 'sin', 'square', 'tanh')
# Classes of the framework, in whatever module, and so those of its agents.
_CLASSES = (settings.Settings, engine.Engine, metrics.Collector, nn.Module)
# Modules of the framework whose public functions make or compute something.
_FUNCTIONS = (
  *('learning.distributions', 'learning.exploration', 'learning.optimization'),
  *(
    'learning.returns',
    'learning.schedules',
    'networks',
    'networks.initializers',
    'networks.latent',
  ),
)
# Whose environments the adapters make, by an id.
_FAMILIES = ('gymnasium', 'gymnasium_robotics', 'minatar')
# Text among an environment's arguments: names, but no paths, modules or URLs.
_PLAIN = re.compile(r'[\w -]*')
_DEEPEST = 20  # wrappers around a function
_BUILTINS = ('gin.macro', 'gin.constant', 'gin.singleton')


def faults_of_text(
  named: Sequence[gin_names.Statement], packages: Sequence[str]
) -> Iterator[gin_names.Fault]:
  """Yields what can be told before anything is imported."""
  if not gin_names.registers_by_imports(named):
    yield gin_names.Fault(
      f'its first import is not `{gin_names.DYNAMIC}`, so that its names would '
      'mean what else is registered'
    )
  for statement, module in gin_names.imports(named):
    if not _may_import(module, packages):
      root = module.partition('.')[0]
      reason = f'{root} is none of {", ".join(PACKAGES)}'
      if root in PACKAGES:
        reason = 'no module of what trainings are made of'
      yield gin_names.Fault(
        f'line {statement.line}: `{statement.parsed.format()}`: {reason}',
        module if root in PACKAGES else root,
      )
  for line, module in gin_names.ids(named):
    if not _within(module, packages):
      yield _importing_id(module, f'line {line}: ')
  for line, parsed, _ in named:
    if isinstance(parsed, config_parser.IncludeStatement):
      yield gin_names.Fault(
        f'line {line}: include {parsed.filename!r}: a run has one file'
      )


def faults_of_things(
  named: Sequence[gin_names.Statement], packages: Sequence[str]
) -> Iterator[gin_names.Fault]:
  """Yields what may not be named, after importing modules, which were judged.

  Args:
    named: the statements of a configuration.
    packages: those that the user trusts.
  """
  symbols, named_already = {}, set()
  bindings = []
  for line, parsed, references in named:
    if isinstance(parsed, config_parser.ImportStatement):
      if not parsed.module.startswith('__gin__.'):
        symbols[parsed.bound_name()] = _imported(parsed)
      continue
    paths = [(f'@{r.path}{"()" if r.is_called else ""}', r) for r in references]
    paths = [(shown, r.path) for shown, r in paths if r.path not in _BUILTINS]
    if getattr(parsed, 'selector', '') and getattr(parsed, 'arg_name', True):
      paths.append((parsed.selector, parsed.selector))
    for shown, path in paths:
      thing = _look_up(path, symbols)
      fault = _fault(thing, packages)
      if fault and shown not in named_already:
        named_already.add(shown)
        yield gin_names.Fault(f'line {line}: {shown} {fault[0]}', fault[1])
    if isinstance(parsed, config_parser.BindingStatement):
      bindings.append(_resolved(parsed, symbols))
  for line in gin_effort.lines_of_too_many_calls(bindings):
    yield gin_names.Fault(f'line {line}: more calls than any run needs')


def faults_of_environment(
  environment: base.Environment, packages: Sequence[str]
) -> Iterator[gin_names.Fault]:
  """Yields why an environment may not be made, given its settings."""
  if _within(type(environment).__module__, packages):
    return
  # An adapter's module has the name of the package that it adapts.
  family = type(environment).__module__.rpartition('.')[2]
  if isinstance(environment, gym.Gym):
    module, colon, _ = environment.id.partition(':')
    if colon and not _within(module, packages):
      yield _importing_id(module)
    family = module if colon else _family(environment.id)
    if not colon and family not in _FAMILIES and not _within(family, packages):
      yield gin_names.Fault(
        f'Gym.id = {environment.id!r} is made by {family}', family
      )
  for name, value in getattr(environment, 'kwargs', {}).items():
    if not (_is_plain(value) or _within(family, packages)):
      yield gin_names.Fault(
        f'{type(environment).__name__}.kwargs[{name!r}] = {value!r} may name a '
        'file or a module',
        family,
      )


def _may_import(module, packages):
  parts = module.split('.')
  if _within(module, packages) or module in _IMPORTED:
    return True
  if parts[0] != 'dopamine_jax' or any(p.startswith('_') for p in parts):
    return False
  # Of a checkout, the package's path reaches its tests and setup.py as well.
  framework = pathlib.Path(dopamine_jax.__file__).parent
  return (
    len(parts) == 1
    or parts[1] == 'agents'
    or (framework / parts[1]).is_dir()
    or (framework / f'{parts[1]}.py').is_file()
  )


def _imported(statement):
  """Imports a module as gin would; returns what its name then stands for."""
  try:
    module = importlib.import_module(statement.module)
  except Exception as error:  # Whatever the code of a package does wrong.
    raise errors.UserError(
      f'config.gin, line {statement.location.line_num}: '
      f'`{statement.format()}` fails: {error}.'
    ) from error
  if statement.is_from or statement.alias:
    return module
  return importlib.import_module(statement.module.partition('.')[0])


def _look_up(path, symbols):
  """Returns what a path leads to; None where it leads nowhere.

  Without `getattr`, which may run what a module or a class makes of it.
  """
  first, *rest = path.split('.')
  thing = symbols.get(first)
  for name in rest:
    if not isinstance(thing, (types.ModuleType, type)):
      return None
    thing = vars(thing).get(name)
  return thing


def _fault(thing, packages):
  """Returns why a thing may not be named and which module to trust, or None."""
  if thing is None:
    return 'leads to nothing that it imports', ''
  for layer in _layers(thing):
    module = _module(layer)
    if _within(module, packages) or _is_known(layer):
      continue
    root = module.partition('.')[0]
    if root not in PACKAGES:
      return f'is defined in {module}', root
    return f'of {module} is of no kind that only makes things', module
  return None


def _layers(thing):
  """Yields a thing and what it wraps, unless it is known as it is."""
  for _ in range(_DEEPEST):
    if isinstance(thing, functools.partial):
      thing = thing.func
      continue
    yield thing
    if (
      _is_known(thing)
      or (thing := _attributes(thing).get('__wrapped__')) is None
    ):
      return


def _attributes(thing):
  try:
    return vars(thing)
  except TypeError:
    return {}


def _module(thing):
  """Returns the module that defines a thing, as far as it says so."""
  module = getattr(thing, '__module__', None)
  return str(module or getattr(type(thing), '__module__', 'builtins'))


def _is_known(thing):
  """Whether naming a thing of `PACKAGES` does no harm."""
  if id(thing) in _offered():
    return True
  module, name = _module(thing), getattr(thing, '__name__', '')
  if inspect.isclass(thing):
    if module.startswith('flax.linen.'):
      return issubclass(thing, nn.Module)
    if module.startswith('gymnasium.spaces.'):
      return issubclass(thing, gymnasium.Space)
    return issubclass(thing, _CLASSES) and _is_frameworks(module)
  return (
    inspect.isfunction(thing)
    and module in {f'dopamine_jax.{each}' for each in _FUNCTIONS}
    and not name.startswith('_')
    and vars(importlib.import_module(module)).get(name) is thing
  )


def _is_frameworks(module):
  return _within(module, ('dopamine_jax',)) and _may_import(module, ())


@functools.cache
def _offered() -> dict[int, Any]:
  """Returns the functions and classes of `_OFFERING`, by their ids."""
  found = [vars(jax.numpy)[name] for name in _ELEMENTWISE]
  for module in _OFFERING:
    root = module.__name__.partition('.')[0]
    roots = ('flax', 'jax') if root == 'flax' else (root,)
    found += [
      thing
      for name, thing in vars(module).items()
      if not name.startswith('_')
      and callable(thing)
      and _within(_module(thing), roots)
    ]
  return {id(thing): thing for thing in found}


def _within(module, packages):
  """Whether a module is one of these packages or lies inside one."""
  return any(
    module == package or module.startswith(f'{package}.')
    for package in packages
  )


def _importing_id(module, where=''):
  root = module.partition('.')[0]
  return gin_names.Fault(
    f"{where}the environment's id imports the module {module}", root
  )


def _family(id):
  """Returns the package whose code makes a Gymnasium environment."""
  if id.startswith('MinAtar/'):
    return 'minatar'
  for name, spec in gymnasium.registry.items():
    if name == id or name.startswith(f'{id}-v'):  # without: the newest one
      entry = spec.entry_point
      module = entry if isinstance(entry, str) else _module(entry)
      if (family := re.split('[.:]', module)[0]) != 'gymnasium':
        return family
  return 'gymnasium'  # which, if it doesn't know the id, says so


def _is_plain(value):
  """Whether a value is data that names no file and no module."""
  if isinstance(value, Mapping):
    return _is_plain(list(value)) and _is_plain(list(value.values()))
  if isinstance(value, (list, tuple)):
    return all(map(_is_plain, value))
  if isinstance(value, str):
    return bool(_PLAIN.fullmatch(value))
  return value is None or isinstance(value, (bool, int, float))


def _resolved(parsed, symbols):
  """Returns a binding and the calls that it takes, for `gin_effort`."""
  calls = [
    (reference.scope, _target(reference.path, symbols))
    for reference in gin_names.called(parsed.value)
  ]
  line, scope = parsed.location.line_num, parsed.scope
  if parsed.arg_name:
    target = _target(parsed.selector, symbols)
  else:
    scope = '/'.join(filter(None, (parsed.scope, parsed.selector)))
    target = 'gin.macro'
  return gin_effort.Binding(line, scope, target, calls)


def _target(path, symbols):
  return path if path in _BUILTINS else _look_up(path, symbols)
