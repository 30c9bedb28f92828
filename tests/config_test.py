"""Gin files: what they set, what subclasses inherit, what is said of mistakes.

The classes that the configurations here name live in a module of their own,
outside the package, as a user's do.
"""

import importlib
import os
import pathlib
import re
import sys
import textwrap

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dopamine_jax import config
from dopamine_jax import errors

MODULE = """
from collections.abc import Callable, Sequence

from dopamine_jax import settings


class Grandparent(settings.Settings):
  number: int = 0
  word: str = 'default'
  rate: float | None = None


class Parent(Grandparent):
  pass


class Child(Parent):
  part: object = None


class Sibling(Parent):
  pass


class Part(settings.Settings):
  given: int
  size: int = 1


class Unnamed(Grandparent):
  pass


class Maker(settings.Settings):
  make: Callable[..., object] = Part


class Typed(settings.Settings):
  make: Callable[..., Part] = Part


def makes_text(given):
  return 'text'


class Plain:
  def __init__(self, number=0):
    self.number = number


class PlainChild(Plain):
  def __init__(self, number=0, other=0):
    super().__init__(number)
    self.other = other


class Broken(Grandparent):
  def __post_init__(self):
    a, b = (self.number,)


class Misused(Grandparent):
  def __post_init__(self):
    makes_text()


def halves():
  return 0.5


def function(size: int, parts: Sequence[int] = (), note: str = '', free=None):
  return size, parts, note, free
"""

HEADER = """
from __gin__ import dynamic_registration
import family
"""


@pytest.fixture(scope='module')
def family(tmp_path_factory):
  """Returns the module; one for all tests, since gin takes no second one."""
  folder = tmp_path_factory.mktemp('family')
  (folder / 'family.py').write_text(MODULE)
  with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(folder)
    yield importlib.import_module('family')
  del sys.modules['family']


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch, family):
  monkeypatch.chdir(tmp_path)


def write(text, name='test.gin', header=HEADER):
  path = pathlib.Path(name)
  path.write_text(header + textwrap.dedent(text))
  return path


def load(text, *bindings):
  return config.load([write(text)], bindings)


def line_of(words, name='test.gin'):
  """Returns 'FILE, line N:' of the line with these words."""
  for number, line in enumerate(pathlib.Path(name).read_text().splitlines()):
    if words in line:
      return f'{name}, line {number + 1}: '
  raise AssertionError(words)


def message_of(function, *args):
  with pytest.raises(errors.UserError) as raised:
    function(*args)
  message = str(raised.value)
  assert 'In call to' not in message
  assert 'In file' not in message
  return message


def unused(loaded):
  return [str(binding) for binding in loaded.unused()]


# Loading.


def test_bindings_win_over_files_and_later_files_over_earlier(family):
  first = write('family.Parent.number = 1\nfamily.Parent.word = "a"\n')
  second = write('family.Parent.number = 2\n', 'second.gin')
  loaded = config.load([first, second])
  assert loaded.build(family.Parent).number == 2
  assert loaded.build(family.Parent).word == 'a'
  loaded = config.load([first, second], ['family.Parent.number = 3'])
  assert loaded.build(family.Parent).number == 3


def test_a_load_forgets_the_one_before(family):
  loaded = load('family.Parent.number = %X\nX = 5\n')
  loaded = load('family.Parent.word = %X\nX = "b"\n')
  assert loaded.build(family.Parent).number == 0
  assert loaded.build(family.Parent).word == 'b'


def test_macros_and_includes(family):
  write('SIZE = 7\nfamily.Parent.number = %SIZE\n', 'base.gin')
  loaded = load('include "base.gin"\nSIZE = 8\nfamily.Parent.word = "c"\n')
  built = loaded.build(family.Parent)
  assert (built.number, built.word) == (8, 'c')


def test_a_file_is_found_by_its_path_or_in_its_package(tmp_path):
  path = write('')
  assert config.find(path) == path
  assert config.find(str(path.absolute())) == path.absolute()
  packaged = config.find('dopamine_jax/configs/dqn_cartpole.gin')
  assert packaged.is_file()
  assert packaged in config.shipped()


def test_a_shipped_file_can_be_included_by_its_package_path(family):
  loaded = load(
    """
    include 'dopamine_jax/configs/dqn_cartpole.gin'
    family.Parent.number = 4
    """
  )
  assert loaded.build(family.Parent).number == 4


@pytest.mark.parametrize(
  'name', ['none.gin', '/no/where.gin', 'no_package/x.gin']
)
def test_a_file_that_is_not_there_is_named(name):
  message = message_of(config.load, [name])
  assert f'{name} is no gin file, and none that is shipped.' in message
  assert 'dopamine-jax configs' in message


@pytest.mark.parametrize('folder', ['dopamine_jax/configs/', ''])
def test_a_shipped_file_of_a_similar_name_is_suggested(folder):
  message = message_of(config.load, [f'{folder}dqn_cartpol.gin'])
  assert 'Did you mean dqn_cartpole or pqn_cartpole?' in message


# Inheritance of bindings.


def test_a_subclass_inherits_its_parents_bindings(family):
  loaded = load(
    """
    family.Parent.number = 1
    family.Child.word = 'own'
    """
  )
  built = loaded.build(family.Child)
  assert (built.number, built.word) == (1, 'own')
  # Not the other way round.
  assert loaded.build(family.Parent).word == 'default'


def test_over_two_levels_the_nearest_ancestor_wins(family):
  loaded = load(
    """
    family.Grandparent:
      number = 1
      word = 'grandparent'
      rate = 0.1
    family.Parent:
      number = 2
      word = 'parent'
    family.Child.word = 'child'
    """
  )
  built = loaded.build(family.Child)
  assert (built.number, built.word, built.rate) == (2, 'child', 0.1)
  built = loaded.build(family.Parent)
  assert (built.number, built.word, built.rate) == (2, 'parent', 0.1)


def test_a_subclass_that_is_only_referred_to_inherits_too(family):
  loaded = load(
    """
    family.Parent.number = 3
    family.Maker.make = @family.Child
    """
  )
  assert loaded.build(loaded.build(family.Maker).make).number == 3
  loaded = load(
    """
    family.Parent.number = 4
    family.Child.part = @family.Sibling()
    """
  )
  built = loaded.build(family.Child)
  assert (built.number, built.part.number) == (4, 4)


def test_bindings_of_the_command_line_are_inherited(family):
  loaded = load(
    'family.Child.word = "x"\nfamily.Parent.number = 1',
    'family.Parent.number = 5',
  )
  assert loaded.build(family.Child).number == 5


def test_a_setting_of_ones_own_wins_wherever_it_stands(family):
  for lines in (
    ['family.Child.number = 1', 'family.Parent.number = 2'],
    ['family.Parent.number = 2', 'family.Child.number = 1'],
  ):
    loaded = load('\n'.join(lines))
    assert loaded.build(family.Child).number == 1
    assert loaded.build(family.Parent).number == 2
  loaded = load('family.Child.number = 1', 'family.Grandparent.number = 2')
  assert loaded.build(family.Child).number == 1


def test_scopes_keep_to_themselves(family):
  loaded = load(
    """
    family.Maker.make = @small/family.Child
    family.Child.part = @family.Sibling()
    small/family.Parent.number = 6
    family.Parent.word = 'all'
    """
  )
  small = loaded.build(family.Maker).make()
  assert (small.number, small.word) == (6, 'all')
  assert loaded.build(family.Child).number == 0


def test_plain_classes_inherit_what_they_take(family):
  loaded = load('family.Plain.number = 2\nfamily.PlainChild.other = 3\n')
  built = loaded.build(family.PlainChild)
  assert (built.number, built.other) == (2, 3)


def test_what_is_inherited_is_written_of_the_subclass(family):
  loaded = load('family.Parent.number = 3\nfamily.Child.word = "x"\n')
  text = config.write(loaded.build(family.Child))
  assert 'family.Child.number = 3' in text
  assert 'Parent.number' not in text


# Building.


def test_a_default_that_gin_does_not_name_has_its_bindings(family):
  loaded = load('family.Part.size = 5\nfamily.Maker.make = @family.Part\n')
  assert loaded.build(family.Part, given=1).size == 5
  assert loaded.build(family.Maker).make(given=2).size == 5


def test_what_gin_does_not_know_stays_as_it_is(family):
  loaded = load('')
  assert loaded.build(family.Unnamed, number=1).number == 1
  assert loaded.build(family.Maker).make is family.Part


# What was used.


def test_what_is_written_builds_the_same_again(family):
  loaded = load(
    """
    SIZE = 3
    family.Maker.make = @family.Child
    family.Parent.number = %SIZE
    family.Child:
      word = 'it\\'s "quoted"'
      part = @scope/family.Sibling()
    scope/family.Sibling.rate = 1e-30
    """
  )
  first = loaded.build(family.Maker)
  text = config.write(first)
  pathlib.Path('written.gin').write_text(text)
  loaded = config.load(['written.gin'])
  second = loaded.build(family.Maker)
  assert config.write(second) == text
  assert loaded.unused() == []
  for built in (first.make(), second.make()):
    assert built.number == 3
    assert built.word == 'it\'s "quoted"'
    assert built.part.rate == 1e-30


def test_a_binding_that_nothing_uses_is_named(family):
  loaded = load('family.Parent.number = 1\nfamily.Part.size = 5\n')
  loaded.build(family.Parent)
  assert unused(loaded) == ['family.Part.size']


def test_what_an_unused_class_inherits_is_not_told_again(family):
  loaded = load('family.Parent.number = 1\nfamily.Child.word = "x"\n')
  loaded.build(family.Parent)
  assert unused(loaded) == ['family.Child.word']


def test_a_binding_that_the_caller_overrules_is_refused(family):
  loaded = load('family.Part:\n  given = 1\n  size = 2\n')
  message = message_of(lambda: loaded.build(family.Part, given=5))
  assert message.startswith(line_of('given = 1') + 'family.Part.given = 1')


def test_a_binding_that_a_subclass_inherited_is_used(family):
  loaded = load('family.Parent.number = 1\nfamily.Child.word = "x"\n')
  loaded.build(family.Child)
  assert loaded.unused() == []


def test_a_binding_is_used_by_a_call_in_a_scope(family):
  loaded = load(
    """
    family.Part.size = 2
    a/family.Part.given = 2
    b/family.Part.given = 3
    family.Maker.make = @a/family.Part
    """
  )
  loaded.build(loaded.build(family.Maker).make)
  assert unused(loaded) == ['b/family.Part.given']


# Mistakes: the file, the line, the nearest right name.


@pytest.mark.parametrize(
  ('line', 'words'),
  [
    ('family.Parent.numbr = 1', ["'numbr'", 'Did you mean number?']),
    ('family.Parnet.number = 1', ['Parnet', 'Did you mean Parent']),
    ('import familly', ['familly', 'PYTHONPATH']),
    ('import optax.optx', ['optax.optx']),
    ('import os.nothing', ['os.nothing']),
    (
      'from dopamine_jax.agents import dqnn',
      ['dopamine_jax.agents.dqnn', 'Did you mean dqn?'],
    ),
    (
      'from dopamine_jax.agent import nothing',
      ['dopamine_jax.agent.nothing'],
    ),
    ('famly.Parent.number = 1', ['famly', 'import']),
    ('family.Maker.make = @family.Prt', ['Prt', 'Did you mean Part']),
    ('family.Parent.number = = 2', ['Unable to parse']),
    ('family.Parent.number 2', ["expected ':' or '='"]),
    ('family.Parent.word = bare', ['bare', 'quotes']),
    ('include "missing.gin"', ['missing.gin']),
    ("family.function.size = '3'", ["function.size = '3'", 'expected int']),
    ('family.function.parts = 3', ['function.parts = 3', 'Sequence']),
    ('family.function.note = 3', ['function.note = 3', 'str']),
  ],
)
def test_a_mistake_in_a_file_is_told_with_its_line(line, words):
  path = write(f'family.Maker.make = @family.Part\n{line}\n')
  message = message_of(config.load, [path])
  assert message.startswith(line_of(line)), message
  for word in words:
    assert word in message


def test_a_broken_indentation_is_told_with_the_file():
  path = write('family.Parent:\n    number = 1\n  word = "x"\n')
  assert message_of(config.load, [path]).startswith(line_of('word ='))


def test_a_file_that_is_no_text_is_named():
  pathlib.Path('test.gin').write_bytes(b'\xff\xfe')
  message = message_of(config.load, ['test.gin'])
  assert message.startswith('test.gin, line 1: this is no UTF-8 text')


@pytest.mark.parametrize(
  ('binding', 'words'),
  [
    ('family.Parent.numbr = 1', ["'numbr'", 'Did you mean number?']),
    ('family.Parnt.number = 1', ['Parnt', 'Did you mean Parent']),
    ('family.Parent.number = ', ['Unable to parse']),
    ('number', ["expected ':' or '='"]),
    ("family.function.size = '3'", ["function.size = '3'"]),
  ],
)
def test_a_mistake_on_the_command_line_is_told_as_that(binding, words):
  path = write('family.Parent.number = 1\nfamily.function.size = 1\n')
  message = message_of(config.load, [path], [binding])
  assert message.startswith('--gin_bindings')
  for word in words:
    assert word in message


@pytest.mark.parametrize(
  'binding',
  [
    "note = 'text'",
    'size = 2',
    'size = 2e5',  # for optax, as good as 200_000
    'parts = (1, 2)',
    'parts = [1]',
    "free = 'anything'",
    'free = 3',
  ],
)
def test_what_may_fit_is_let_through(binding):
  load(f'family.function.{binding}')


@pytest.mark.parametrize(
  ('value', 'expected'),
  [
    ("'four'", 'of type str; expected int'),
    ('4.5', 'of type float; expected int'),
    ('None', 'of type NoneType; expected int'),
    ('@family.Plain', 'expected int'),
  ],
)
def test_a_setting_of_the_wrong_type_is_told_with_its_line(
  family, value, expected
):
  loaded = load(f'family.Parent.word = "x"\nfamily.Parent.number = {value}\n')
  message = message_of(loaded.build, family.Parent)
  assert message.startswith(line_of('family.Parent.number'))
  assert 'Parent.number = ' in message
  assert expected in message


def test_the_line_is_that_of_the_binding_that_holds(family):
  write('family.Parent.number = "included"\n', 'base.gin')
  loaded = load('include "base.gin"')
  message = message_of(loaded.build, family.Parent)
  assert message.startswith(line_of('included', 'base.gin'))

  loaded = load('include "base.gin"\nfamily.Parent.number = "file"')
  message = message_of(loaded.build, family.Parent)
  assert message.startswith(line_of('"file"'))

  loaded = load(
    'family.Parent.number = "file"', 'family.Parent.number = "typed"'
  )
  message = message_of(loaded.build, family.Parent)
  assert message.startswith("--gin_bindings: family.Parent.number = 'typed'")

  # A subclass's own, though the parent's stands below it.
  loaded = load('family.Child.number = "own"\nfamily.Parent.number = "parent"')
  message = message_of(loaded.build, family.Child)
  assert message.startswith(line_of('"own"'))

  loaded = load('family.Parent.number = "parent"\nfamily.Child.word = "x"')
  message = message_of(loaded.build, family.Child)
  assert message.startswith(line_of('"parent"'))


def test_a_mistake_in_a_part_is_told_as_directly(family):
  loaded = load('family.Child.part = @family.Part()\nfamily.Part.given = "x"\n')
  message = message_of(loaded.build, family.Child)
  assert message.startswith(
    line_of('family.Part.given') + 'family.Part.given = '
  )


def test_a_setting_that_is_missing_is_named(family):
  loaded = load('family.Part.size = 2')
  message = message_of(loaded.build, family.Part)
  assert 'Part needs given' in message
  loaded = load('family.Child.part = @family.Part()\n')
  message = message_of(loaded.build, family.Child)
  assert 'Part needs given' in message
  assert '@Part without parentheses' in message


def test_a_macro_without_a_value_is_named():
  message = message_of(load, 'family.Parent.number = %SIZE\n')
  assert '%SIZE' in message
  assert len(message) < 200


# How files are read.


def test_an_include_is_looked_for_beside_the_including_file_first(family):
  pathlib.Path('inner').mkdir()
  write('family.Parent.number = 1\n', 'base.gin')
  write('family.Parent.number = 2\n', 'inner/base.gin')
  write('include "base.gin"\n', 'inner/top.gin')
  write('include "inner/top.gin"\n', 'outer.gin')
  for file in ('inner/top.gin', 'outer.gin'):
    loaded = config.load([file])
    assert loaded.build(family.Parent).number == 2
  # Then where it was looked for before: from the working folder.
  write('include "inner/base.gin"\n', 'inner/far.gin')
  loaded = config.load(['inner/far.gin'])
  assert loaded.build(family.Parent).number == 2
  # A mistake in it is told with its line there.
  write('family.Parent.number = "x"\n', 'inner/base.gin')
  loaded = config.load(['inner/top.gin'])
  message = message_of(loaded.build, family.Parent)
  assert message.startswith(line_of('"x"', 'inner/base.gin'))


def test_a_mark_before_the_text_is_no_part_of_it(family):
  text = HEADER.lstrip() + 'family.Parent.number = 3\n'
  pathlib.Path('test.gin').write_bytes(b'\xef\xbb\xbf# A title\r\n')
  with open('test.gin', 'ab') as stream:
    stream.write(text.replace('\n', '\r\n').encode())
  loaded = config.load(['test.gin'])
  assert loaded.build(family.Parent).number == 3
  assert loaded.title == 'A title'


@pytest.mark.parametrize(
  ('texts', 'circle'),
  [
    (['include "0.gin"'], '0.gin -> 0.gin'),
    (['include "1.gin"', 'include "0.gin"'], '0.gin -> 1.gin -> 0.gin'),
    (['include "./sub/../0.gin"'], '0.gin -> sub/../0.gin'),
    (
      ['include "1.gin"', 'include "2.gin"', 'include "1.gin"'],
      '0.gin -> 1.gin -> 2.gin -> 1.gin',
    ),
  ],
)
def test_files_that_include_each_other_are_refused(texts, circle):
  pathlib.Path('sub').mkdir()
  for i, text in enumerate(texts):
    write(text, f'{i}.gin')
  message = message_of(config.load, ['0.gin'])
  assert f'gin files include each other: {circle}.' in message


def test_what_is_included_twice_but_in_no_circle_is_read_twice(family):
  write('family.Parent.number = 3\n', 'base.gin')
  loaded = load(
    'include "base.gin"\nfamily.Parent.number = 4\ninclude "base.gin"\n'
  )
  assert loaded.build(family.Parent).number == 3


@pytest.mark.parametrize('encoding', ['latin-1', 'utf-16'])
def test_another_encoding_is_told_with_its_line(encoding):
  text = f'{HEADER}family.Parent.word = "\u00e9"\n'
  pathlib.Path('test.gin').write_bytes(text.encode(encoding))
  line = 1 if encoding == 'utf-16' else 4
  for file in ('test.gin', write('include "test.gin"', 'top.gin')):
    message = message_of(config.load, [file])
    assert f'test.gin, line {line}: this is no UTF-8 text' in message


@pytest.mark.parametrize(
  ('make', 'words'),
  [
    (lambda path: path.mkdir(), 'is a folder'),
    (lambda path: os.mkfifo(path), 'is no regular file'),
    (lambda path: path.symlink_to('/dev/zero'), 'is no regular file'),
  ],
)
def test_what_is_no_file_is_not_read(make, words):
  make(pathlib.Path('odd.gin'))
  for file in ('odd.gin', write('include "odd.gin"')):
    message = message_of(config.load, [file])
    assert f'odd.gin {words}; expected a gin file' in message


# Values of gin's own, and of functions that are not ours.


@pytest.mark.parametrize(
  ('value', 'words'),
  [
    ('@gin.macro', 'is set by `NAME = value` and read by `%NAME`'),
    ('@gin.macro()', 'is set by `NAME = value` and read by `%NAME`'),
    ('[1, @gin.constant]', 'is set by `NAME = value` and read by `%NAME`'),
    ('@gin.singleton', '@NAME/gin.singleton()'),
    ('@gin.singleton()', '@NAME/gin.singleton()'),
    ('@family', 'names a module'),
    ('(1, 2', 'never closed'),
    ('"""', 'never closed'),
  ],
)
def test_a_value_that_is_none_is_told(value, words):
  write('family.Parent.word = "x"')
  message = message_of(
    config.load, ['test.gin'], [f'family.Child.part = {value}']
  )
  assert words in message


def test_macros_that_stand_for_each_other_are_told():
  message = message_of(load, 'family.function.size = %A\n', 'A = %B', 'B = %A')
  assert 'macros stand for each other: %A -> %B -> %A.' in message


def test_a_part_that_needs_itself_is_told(family):
  loaded = load('family.Child.part = @family.Child()')
  assert 'needs itself' in message_of(loaded.build, family.Child)


def test_a_singleton_of_gins_works(family):
  loaded = load(
    """
    family.Child.part = @one/gin.singleton()
    one/gin.singleton.constructor = @family.Sibling
    """
  )
  first, second = (loaded.build(family.Child) for _ in range(2))
  assert first.part is second.part


@pytest.mark.parametrize(
  ('binding', 'words'),
  [
    ('family.function.size = True', 'expected int'),
    ('family.function.size = None', 'expected int'),
    ('family.function.size = 2.5', 'expected int'),
    ('family.function.size = 1e400', 'is not finite'),
    ("family.function.parts = ('a',)", 'expected Sequence of int'),
    ('family.function.size = %N', 'expected int'),
    ('optax.adam.learning_rate = -1', 'too small; it must be at least 0'),
    ('optax.adam.learning_rate = None', 'expected a number or a schedule'),
    ('optax.adam.learning_rate = True', 'expected a number or a schedule'),
    ('optax.adam.b1 = 3', 'too large; it must be below 1'),
    ('optax.adamw.weight_decay = -0.1', 'too small; it must be at least 0'),
    ('optax.linear_schedule.init_value = True', 'expected a number'),
    ('optax.linear_schedule.transition_steps = 0', 'it must be at least 1'),
    ('optax.cosine_decay_schedule.decay_steps = -5', 'must be at least 1'),
    ('optax.MultiSteps.every_k_schedule = 0', 'it must be at least 1'),
    ('optax.adam.learning_rate = 1e400', 'is not finite'),
    ('optax.adam.nesterov = @family.Part', 'expected bool'),
    ('optax.adam.eps = @family.Part', 'does not fit; expected'),
    ('family.function.size = @family.Part()', 'expected int'),
    ('optax.linear_schedule.transition_begin = 1e30', 'is too large'),
  ],
)
def test_nonsense_for_functions_of_others_is_told_with_its_line(binding, words):
  name = binding.partition(' = ')[0]
  path = write(f"import optax\n{binding}\nN = 'a'\n" + 'M = %N\nL = %M\n')
  path.write_text(path.read_text() + 'family.Child.part = %L\n')
  message = message_of(config.load, [path])
  assert message.startswith(line_of(binding) + name)
  assert words in message


@pytest.mark.parametrize('field', ['parent = None', "name = 'x'"])
def test_fields_of_flax_itself_are_no_settings(field):
  message = message_of(load, f'import flax.linen\nflax.linen.Dense.{field}\n')
  name = field.partition(' ')[0]
  assert f"linear.Dense.{name} is Flax's own, and no setting" in message
  assert 'features, use_bias' in message


def test_optax_chain_takes_a_list_and_multi_steps_is_an_optimizer(family):
  loaded = load(
    """
    import optax
    family.Child.part = @optax.chain()
    optax.chain.args = [@optax.clip(), @optax.MultiSteps()]
    optax.clip.max_delta = 1.0
    optax.MultiSteps:
      opt = @optax.sgd()
      every_k_schedule = 2
    optax.sgd.learning_rate = 0.5
    """
  )
  child = loaded.build(family.Child)
  optimizer = child.part
  params = jnp.zeros(2)
  state = optimizer.init(params)
  first, state = optimizer.update(jnp.array([4.0, -0.5]), state, params)
  second, _ = optimizer.update(jnp.array([4.0, -0.5]), state, params)
  np.testing.assert_array_equal(first, [0.0, 0.0])
  np.testing.assert_allclose(second, [-0.5, 0.25])
  text = config.write(child)
  assert 'optax.chain.args = [@optax.clip(), @optax.MultiSteps()]' in text
  pathlib.Path('again.gin').write_text(text)
  again = config.load(['again.gin']).build(family.Child)
  assert config.write(again) == text


# What nothing reads.


@pytest.mark.parametrize(
  ('lines', 'words'),
  [
    ('size = 3', 'size = 3 sets nothing'),
    ('part = @family.Child', 'part = @family.Child sets nothing'),
    ('a/number = 2', 'a/number = 2 sets nothing'),
    ('A = 1\nB = %A', 'B = %A sets nothing'),
  ],
)
def test_a_macro_that_nothing_reads_is_refused(lines, words):
  path = write(f'family.Parent.number = 1\n{lines}\n')
  message = message_of(config.load, [path])
  last = lines.splitlines()[-1]
  assert message.startswith(line_of(last) + words)
  message = message_of(
    config.load, [write('family.Parent.number = 1')], lines.splitlines()
  )
  assert message.startswith(f'--gin_bindings: {words}')


def test_a_macro_is_read_by_bindings_and_other_macros(family):
  loaded = load('A = 1\nB = %A\nfamily.Child.part = [(%B,)]\n')
  assert loaded.build(family.Child).part == [(1,)]


def test_the_nearest_setting_is_that_of_what_the_run_uses():
  for binding, near in (
    ('gamma = 0.9', 'dqn.DQN.gamma = 0.9'),
    ('num_iteration = 3', 'runner.Runner.num_iterations = 3'),
    ('capacity = 9', 'uniform.UniformReplay.capacity = 9'),
    ('replay = @dqn.DQN', 'dqn.DQN.replay = @dqn.DQN'),
    ('hiden = (3,)', 'networks.MLP.hidden = (3,)'),
    ('eps = 1e-3', 'optax.adam.eps = 0.001'),
  ):
    message = message_of(
      config.load, ['dopamine_jax/configs/dqn_cartpole.gin'], [binding]
    )
    assert f'Did you mean `{near}`?' in message


def report(loaded):
  said = []
  loaded.refuse_unread(said.append)
  return said


def test_an_idle_binding_of_a_given_file_or_the_command_line_is_refused(family):
  loaded = load('family.Parent.number = 1\nfamily.Part.size = 5\n')
  loaded.build(family.Parent)
  message = message_of(report, loaded)
  assert message.startswith(line_of('family.Part.size') + 'family.Part.size is')
  loaded = load('family.Parent.number = 1\n', 'family.Part.size = 5')
  loaded.build(family.Parent)
  message = message_of(report, loaded)
  assert message.startswith('--gin_bindings: family.Part.size is set, but')


def test_an_idle_binding_of_an_included_file_is_said_once(family):
  write('family.Part.size = 5\nfamily.Sibling.word = "x"\n', 'base.gin')
  loaded = load('include "base.gin"\nfamily.Parent.number = 1\n')
  loaded.build(family.Parent)
  assert report(loaded) == [
    'Warning: family.Part.size, family.Sibling.word are set, but nothing in '
    'this run uses them.'
  ]


def test_what_the_command_line_put_out_of_use_is_said_once(family):
  text = 'family.Maker.make = @family.Part\nfamily.Part.size = 5\n'
  loaded = load(text, 'family.Maker.make = @family.Child')
  loaded.build(loaded.build(family.Maker).make)
  assert report(loaded) == [
    'Warning: family.Part.size is set, but nothing in this run uses it.'
  ]


def test_a_number_in_the_place_of_a_schedule_is_one_sentence(family):
  loaded = load(
    """
    import optax
    family.Parent.rate = @a/optax.linear_schedule()
    a/optax.linear_schedule:
      init_value = 1.0
      end_value = 0.5
      transition_steps = 10
    """,
    'family.Parent.rate = 0.25',
  )
  loaded.build(family.Parent)
  assert report(loaded) == [
    'Warning: family.Parent.rate = 0.25 takes the place of '
    '@a/optax.linear_schedule(), so that it stays the same all the time. To '
    'keep the schedule, set a/optax.linear_schedule.init_value instead.'
  ]


def test_what_takes_the_place_of_a_function_without_arguments_is_said(family):
  loaded = load(
    'family.Parent.rate = @family.halves()', 'family.Parent.rate = 0.25'
  )
  loaded.build(family.Parent)
  assert report(loaded) == [
    'Warning: family.Parent.rate = 0.25 takes the place of @family.halves(), '
    'so that it stays the same all the time.'
  ]


def test_a_module_that_leaves_while_it_is_imported_is_told():
  pathlib.Path('leaves.py').write_text('import sys\nsys.exit(0)\n')
  with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend('.')
    message = message_of(config.load, [write('import leaves')])
  assert re.search(r'SystemExit: 0, raised by .*leaves\.py, line 2', message)


def test_a_module_that_registers_wrongly_is_told_by_its_own_line():
  pathlib.Path('registers.py').write_text(
    'import gymnasium\n\ngymnasium.register("no id", 3)\n'
  )
  with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend('.')
    message = message_of(config.load, [write('import registers')])
  assert re.search(r'raised by .*registers\.py, line 3', message)


def test_a_setting_that_a_library_does_not_understand_is_named():
  text = 'import optax\noptax.adam.learning_rate = 1\n'
  bindings = ["foo/optax.adam.mu_dtype = 'float'", "optax.adam.mu_dtype = ''"]
  bindings += ["optax.adam.mu_dtype = 'float99'"]
  loaded = config.load([write(text)], bindings)
  message = message_of(loaded.build, optax.adam)
  assert message == (
    "--gin_bindings: optax.adam.mu_dtype = 'float99': data type 'float99' not "
    'understood.'
  )


def test_it_is_said_too_where_another_setting_still_has_the_schedule(family):
  loaded = load(
    """
    import optax
    family.Parent.rate = @optax.linear_schedule()
    family.Child.part = @optax.linear_schedule()
    optax.linear_schedule:
      init_value = 1.0
      end_value = 0.5
      transition_steps = 10
    """,
    'family.Parent.rate = 0.25',
  )
  loaded.build(family.Child)
  [said] = report(loaded)
  assert 'set optax.linear_schedule.init_value instead' in said


def test_nothing_is_said_where_all_is_read(family):
  loaded = load('family.Maker.make = @family.Part\nfamily.Part.size = 5\n')
  loaded.build(loaded.build(family.Maker).make, given=3)
  assert report(loaded) == []


# What a setting makes.


@pytest.mark.parametrize(
  ('value', 'words'),
  [
    ('@family.function', 'does not fit: it does not take given'),
    ('@family.makes_text', 'makes what is of type str; expected family.Part'),
  ],
)
def test_what_a_setting_makes_is_checked_when_it_is_made(family, value, words):
  loaded = load(f'family.Typed.make = {value}\nfamily.function.size = 3\n')
  typed = loaded.build(family.Typed)
  message = message_of(lambda: typed.make_part('make', given=3))
  assert words in message


def test_a_class_that_takes_something_else_is_refused(family):
  loaded = load('family.Maker.make = @family.Plain')
  maker = loaded.build(family.Maker)
  message = message_of(lambda: maker.make_part('make', given=3))
  assert 'does not fit: it does not take given' in message


@pytest.mark.parametrize(
  ('name', 'words'),
  [
    ('Broken', 'ValueError: not enough values to unpack'),
    ('Misused', 'TypeError: makes_text() missing 1 required positional'),
  ],
)
def test_what_a_users_code_raises_is_told_with_its_place(family, name, words):
  loaded = load(f'family.{name}.number = 1')
  message = message_of(loaded.build, getattr(family, name))
  assert words in message
  assert re.search(r'raised by /.*/family\.py, line \d+\.$', message)


def test_what_a_setting_makes_has_its_bindings(family):
  loaded = load('family.Typed.make = @family.Part\nfamily.Part.size = 4\n')
  typed = loaded.build(family.Typed)
  made = typed.make_part('make', given=3)
  assert (made.given, made.size) == (3, 4)
