"""What may import what, and how long a module may get."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
FRAMEWORK = sorted((ROOT / 'dopamine_jax').rglob('*.py'))
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


def each(paths):
  return pytest.mark.parametrize(
    'path', paths, ids=lambda path: str(path.relative_to(ROOT))
  )


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


@each(FRAMEWORK)
def test_the_framework_knows_no_agent_and_no_config(path):
  above = ['dopamine_jax.agents', 'dopamine_jax.configs']
  assert not within(imported_by(path), above)


@each(AGENTS)
def test_an_agent_knows_no_config(path):
  assert not within(imported_by(path), ['dopamine_jax.configs'])


@each(SOURCES)
def test_agents_and_configs_are_imported_under_one_name(path):
  # `import agents` would make a second copy of each class.
  assert not within(imported_by(path), ['agents', 'configs'])


@each(SOURCES)
def test_no_other_deep_learning_framework_is_imported(path):
  assert not within(imported_by(path), ['tensorflow', 'torch'])


@each([*FRAMEWORK, *AGENTS])
def test_the_package_does_not_import_its_tests_or_benchmarks(path):
  outside = ['tests', 'benchmarks', 'pytest', 'hypothesis']
  assert not within(imported_by(path), outside)


@each(FRAMEWORK)
def test_a_module_of_the_framework_has_at_most_400_lines(path):
  assert num_lines(path) <= 400


@each(AGENTS)
def test_an_agent_fits_on_180_lines(path):
  # DQN holds what all agents that learn values share.
  assert num_lines(path) <= (200 if path.stem == 'dqn' else 180)
