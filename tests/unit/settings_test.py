"""Tests of settings.Settings: what its subclasses are, and what they refuse."""

from collections.abc import Callable, Mapping
import dataclasses
import math
from typing import Any, Literal

from hypothesis import given
from hypothesis import strategies as st
import pytest

from dopamine_jax import errors
from dopamine_jax import settings


class Parent(settings.Settings):
  rate: float = 0.5
  period: int = 4
  limit: int | None = None
  schedule: float | Callable[[int], float] = 1.0
  name: str = 'a'
  verbose: bool = False

  def __post_init__(self):
    super().__post_init__()
    self.require_fraction('rate')
    self.require_at_least(1, 'period', 'limit')


class Child(Parent):
  period: int = 8
  extra: Parent | None = None


class Required(settings.Settings):
  first: int
  second: float


def test_a_subclass_is_a_frozen_dataclass_with_keywords_only():
  assert [field.name for field in dataclasses.fields(Parent)] == [
    'rate',
    'period',
    'limit',
    'schedule',
    'name',
    'verbose',
  ]
  with pytest.raises(dataclasses.FrozenInstanceError):
    Parent().period = 2
  with pytest.raises(TypeError, match='positional'):
    Parent(0.5)


def test_equal_settings_are_equal_and_hash_alike():
  assert Parent(limit=3) == Parent(limit=3) != Parent(limit=4)
  assert hash(Parent(limit=3)) == hash(Parent(limit=3))
  assert Parent(period=8) != Child()


def test_a_subclass_changes_defaults_and_adds_settings():
  child = Child(extra=Parent())
  assert (child.period, child.rate, child.extra) == (8, 0.5, Parent())
  assert Parent().period == 4


def test_settings_without_a_default_must_be_given():
  assert Required(first=1, second=2).second == 2
  with pytest.raises(TypeError, match='second'):
    Required(first=1)


def test_replace_copies_and_checks_again():
  parent = Parent()
  assert parent.replace(period=2) == Parent(period=2)
  assert parent.period == 4
  with pytest.raises(errors.UserError, match='period = 0'):
    parent.replace(period=0)


@pytest.mark.parametrize('value', [0.1, lambda self: 1])
def test_an_override_without_a_type_is_refused_when_the_class_is_made(value):
  with pytest.raises(TypeError, match=r'Bad.period overrides .* `period: TYPE'):
    type('Bad', (Parent,), {'period': value})


def test_a_grandchild_cannot_override_without_a_type_either():
  with pytest.raises(TypeError, match=r'Bad\.rate'):
    type('Bad', (Child,), {'rate': 0.1})


def test_a_class_may_have_attributes_that_are_no_settings():
  class Fine(Parent):
    constant = 3

    def method(self):
      return self.constant

  assert Fine().method() == 3


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'period': 1.0}, 'Parent.period = 1.0 is of type float; expected int.'),
    ({'period': True}, 'Parent.period = True is of type bool; expected int.'),
    ({'period': None}, 'Parent.period = None is of type NoneType; expected'),
    ({'rate': False}, 'Parent.rate = False is of type bool; expected float.'),
    ({'rate': '0.1'}, "Parent.rate = '0.1' is of type str; expected float."),
    ({'verbose': 1}, 'Parent.verbose = 1 is of type int; expected bool.'),
    ({'name': 3}, 'Parent.name = 3 is of type int; expected str.'),
    ({'limit': 2.5}, 'limit = 2.5 is of type float; expected int or None.'),
    (
      {'schedule': 'slow'},
      "schedule = 'slow' is of type str; expected float or a class or function",
    ),
  ],
)
def test_a_value_of_another_type_is_refused(changes, message):
  with pytest.raises(settings.SettingError) as raised:
    Parent(**changes)
  assert message in str(raised.value)
  assert '@name' not in str(raised.value)


def test_a_class_or_function_in_a_wrong_place_explains_gins_references():
  with pytest.raises(errors.UserError) as raised:
    Child(extra=Parent)
  message = str(raised.value)
  assert 'is of type type; expected Parent or None' in message
  assert '@name passes a class or function itself and @name()' in message


def test_the_error_knows_the_class_and_the_setting():
  with pytest.raises(settings.SettingError) as raised:
    Child(limit=0)
  assert raised.value.owner is Child
  assert raised.value.name == 'limit'
  assert isinstance(raised.value, errors.UserError)


@pytest.mark.parametrize(
  'changes',
  [
    {'rate': 1},  # as gin reads what a user writes without a point
    {'limit': None},
    {'limit': 7},
    {'schedule': 0.1},
    {'schedule': math.sqrt},
    {'schedule': Parent},
    {'verbose': True},
  ],
)
def test_a_value_that_fits_is_kept_as_it_is(changes):
  [(name, value)] = changes.items()
  assert getattr(Parent(**changes), name) is value


def test_annotations_that_it_cannot_judge_let_values_pass():
  class Vague(settings.Settings):
    anything: Any = 3
    optional: int | Any = 'x'
    numbers: list[int] | None = None
    mapping: Mapping[str, int] = dataclasses.field(default_factory=dict)
    choice: Literal['a', 'b'] = 'a'

  vague = Vague(anything=Parent, numbers=['x'], choice='c')
  assert (vague.anything, vague.numbers) == (Parent, ['x'])


@given(st.floats() | st.integers(-3, 3))
def test_a_fraction_lies_between_0_and_1(rate):
  if 0 <= rate <= 1:
    assert Parent(rate=rate).rate is rate
  else:  # NaN too
    with pytest.raises(errors.UserError, match=r'must lie in \[0, 1\]'):
      Parent(rate=rate)


def test_a_bound_is_in_reach_and_none_passes_it():
  assert Parent(period=1, limit=None).period == 1
  with pytest.raises(
    errors.UserError, match='period = 0 is too small; it must'
  ):
    Parent(period=0)
  with pytest.raises(errors.UserError, match='limit = 0 is too small'):
    Parent(limit=0)


def test_not_a_number_is_below_every_bound():
  class Bounded(settings.Settings):
    value: float

    def __post_init__(self):
      super().__post_init__()
      self.require_at_least(0.5, 'value')

  assert Bounded(value=0.5).value == 0.5
  with pytest.raises(errors.UserError, match=r'at least 0\.5'):
    Bounded(value=math.nan)


@pytest.mark.parametrize('value', [-4, 0, 5, 7])
def test_a_multiple_is_a_positive_one(value):
  class Periods(settings.Settings):
    period: int = 4
    longer: int = 8

    def __post_init__(self):
      super().__post_init__()
      self.require_multiple('longer', of='period')

  assert Periods(longer=4).longer == 4
  with pytest.raises(
    errors.UserError, match='not a positive multiple of period = 4'
  ):
    Periods(longer=value)
