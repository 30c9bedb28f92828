"""What may import what, and how long a module may get."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
FRAMEWORK = [
  path
  for path in sorted((ROOT / 'dopamine_jax').rglob('*.py'))
  if not {'agents', 'configs'} & {*path.parts[len(ROOT.parts) :]}
]
AGENTS = sorted((ROOT / 'agents').rglob('*.py'))
# Every Python file of the project, and no other that lies in the checkout.
SOURCES = [
  ROOT / 'setup.py',
  *FRAMEWORK,
  *AGENTS,
  *sorted((ROOT / 'configs').rglob('*.py')),
  *sorted((ROOT / 'tests').rglob('*.py')),
  *sorted((ROOT / 'benchmarks').rglob('*.py')),
]


def imported(source, package=''):
  """Returns the dotted names that `source`, a module in `package`, imports.

  Imports inside functions count, as do `importlib.import_module` calls and
  relative imports. `from a import b` may import the module a.b: both count.
  """
  names = set()
  for node in ast.walk(ast.parse(source)):
    match node:
      case ast.Import():
        names.update(alias.name for alias in node.names)
      case ast.ImportFrom():
        parents = package.split('.')[: 1 - node.level or None]
        base = [*parents, node.module] if node.level else [node.module]
        base = '.'.join(filter(None, base))
        names.add(base)
        names.update(f'{base}.{alias.name}' for alias in node.names)
      case ast.Call(
        func=ast.Name(id='import_module' | '__import__')
        | ast.Attribute(attr='import_module'),
        args=[ast.Constant(value=str(name)), *_],
      ):
        names.add(name)
  return names


def imported_by(path):
  parts = path.relative_to(ROOT).parent.parts
  if parts and parts[0] in ('agents', 'configs'):
    parts = ('dopamine_jax', *parts)
  return imported(path.read_text('utf-8'), '.'.join(parts))


def within(names, packages):
  """Returns those of `names` that are one of `packages` or lie inside one."""
  return {
    name
    for name in names
    if any(name == p or name.startswith(f'{p}.') for p in packages)
  }


def num_lines(path):
  return len(path.read_text('utf-8').splitlines())


@pytest.mark.parametrize(
  ('source', 'package', 'expected'),
  [
    ('import a.b as c, d', '', {'a.b', 'd'}),
    ('from a import b, c', '', {'a', 'a.b', 'a.c'}),
    ('from . import b', 'a', {'a', 'a.b'}),
    ('from .b import c', 'a', {'a.b', 'a.b.c'}),
    ('from .. import c', 'a.b', {'a', 'a.c'}),
    ('from ..c import d', 'a.b', {'a.c', 'a.c.d'}),
    ('def f():\n  if x:\n    import a', '', {'a'}),
    ("importlib.import_module('a.b')", '', {'a.b'}),
    ("__import__('a')", '', {'a'}),
    ("'import a'  # import a", '', set()),
  ],
)
def test_every_form_of_import_is_seen(source, package, expected):
  assert imported(source, package) == expected


def test_there_is_something_to_look_at():
  assert len(FRAMEWORK) > 1
  assert len(AGENTS) > 1


# The rooms of the framework, the lowest first: each may import those above it
# in this list, and none of its own line.
ORDER = [
  {'annotations', 'errors'},
  {'values'},
  {'lanes', 'settings', 'spaces', 'system'},
  {'agent'},
  {'config', 'environments', 'networks'},
  {'replay'},
  {'checkpoints', 'learning'},
  {'datasets'},
  {'engines'},
  {'metrics'},
  {'callbacks', 'films', 'trust'},
  {'training'},
  {'analysis', 'runner'},
  {'playing', 'variations'},
  {'sweeps'},
  {'commands', 'library'},
  {'__main__'},
]
LEVELS = {room: level for level, rooms in enumerate(ORDER) for room in rooms}


def room_of(name):
  """Returns the room of a dotted name, or None where it is none of ours."""
  package, _, rest = name.partition('.')
  return rest.partition('.')[0] if package == 'dopamine_jax' and rest else None


def found(paths, wrong):
  """Returns what `wrong` says of each path, where it says something."""
  every = {str(path.relative_to(ROOT)): wrong(path) for path in paths}
  return {path: each for path, each in every.items() if each}


def test_imports_between_rooms_go_one_way():
  def wrong(path):
    own = path.relative_to(ROOT / 'dopamine_jax').with_suffix('').parts[0]
    if own == '__init__':
      return None  # It offers what `library` has, when it is asked for.
    others = {room_of(name) for name in imported_by(path)} - {own, None}
    known = others & LEVELS.keys()
    return {room for room in known if LEVELS[room] >= LEVELS[own]}

  assert not found(FRAMEWORK, wrong)


def test_each_room_has_a_place_in_the_order():
  rooms = {
    path.relative_to(ROOT / 'dopamine_jax').with_suffix('').parts[0]
    for path in FRAMEWORK
  }
  assert rooms - {'__init__'} == LEVELS.keys()
  for room in rooms:
    if (ROOT / 'dopamine_jax' / room).is_dir():
      text = (ROOT / 'dopamine_jax' / room / '__init__.py').read_text('utf-8')
      assert ast.get_docstring(ast.parse(text)), room


def test_the_framework_knows_no_agent_and_no_config():
  above = ['dopamine_jax.agents', 'dopamine_jax.configs']
  assert not found(FRAMEWORK, lambda path: within(imported_by(path), above))


def test_an_agent_knows_learning_and_what_lies_below_it():
  allowed = {
    *{room for room in LEVELS if LEVELS[room] <= LEVELS['learning']},
    'agents',
  }

  def wrong(path):
    rooms = {room_of(name) for name in imported_by(path)} & LEVELS.keys()
    return rooms - allowed

  assert not found(AGENTS, wrong)
  configs = ['dopamine_jax.configs']
  assert not found(AGENTS, lambda path: within(imported_by(path), configs))


def test_agents_and_configs_are_imported_under_one_name():
  # `import agents` would make a second copy of each class.
  second = ['agents', 'configs']
  assert not found(SOURCES, lambda path: within(imported_by(path), second))


def test_no_other_deep_learning_framework_is_imported():
  others = ['tensorflow', 'torch']
  assert not found(SOURCES, lambda path: within(imported_by(path), others))


def test_the_package_does_not_import_its_tests_or_benchmarks():
  outside = ['tests', 'benchmarks', 'pytest', 'hypothesis']
  paths = [*FRAMEWORK, *AGENTS]
  assert not found(paths, lambda path: within(imported_by(path), outside))


def test_a_module_has_at_most_400_lines_and_an_agent_180():
  def wrong(path):
    return num_lines(path) > 400 and num_lines(path)

  assert not found(FRAMEWORK, wrong)

  def too_long(path):
    return num_lines(path) > 180 and num_lines(path)

  assert not found(AGENTS, too_long)
