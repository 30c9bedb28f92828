"""Tests of settings.Settings: what its subclasses are, and what they refuse."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
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


def makes_child() -> Child:
  return Child()


def makes_text() -> str:
  return 'a'


def makes_anything(*args):
  return args


class Parts(settings.Settings):
  many: Sequence[int] = ()
  rates: Sequence[float] = ()
  listed: list[int] | None = None
  pair: tuple[int, int] = (1, 2)
  named: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  choice: Literal['a', 'b'] = 'a'
  makes: Callable[..., Parent] = Parent
  makers: Sequence[Callable[[], Parent]] = ()
  count: int = 0


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
  message = r'Parent\(0.5\): settings are given by name, as in Parent\(rate='
  with pytest.raises(errors.UserError, match=message):
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
  message = 'Required needs second, which nothing sets'
  with pytest.raises(errors.UserError, match=message):
    Required(first=1)


def test_a_name_that_is_no_setting_is_refused_with_the_nearest():
  message = "Parent has no setting 'perod'. Did you mean period"
  with pytest.raises(errors.UserError, match=message):
    Parent(perod=3)
  with pytest.raises(errors.UserError, match=message):
    Parent().replace(perod=3)


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
  assert '@name without parentheses passes a class or' in message


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

  vague = Vague(anything=Parent, optional=Parent)
  assert (vague.anything, vague.optional) == (Parent, Parent)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'many': (1, 2.5)}, 'Parts.many = (1, 2.5) is a tuple of float, int'),
    ({'many': 'ab'}, 'is of type str; expected Sequence of int'),
    ({'many': [True]}, 'expected Sequence of int'),
    ({'listed': ['x']}, 'expected list of int or None'),
    ({'pair': (1,)}, 'Parts.pair = (1,)'),
    ({'named': [1, 2]}, 'expected Mapping with keys of str'),
    ({'named': {1: 2}}, 'expected Mapping with keys of str'),
    ({'choice': 'c'}, "choice = 'c' is unknown; expected 'a' or 'b'"),
    ({'choice': 3}, "choice = 3 is of type int; expected 'a' or 'b'"),
    ({'makes': int}, 'a class or function that makes settings_test.Parent'),
    ({'makes': Parent()}, 'that makes settings_test.Parent'),
    ({'makes': makes_text}, 'that makes settings_test.Parent'),
    ({'makers': [Parent, int]}, 'that makes settings_test.Parent'),
    ({'many': (1, math.inf)}, 'expected Sequence of int'),
    ({'rates': (1, math.inf)}, 'is not finite'),
    ({'rates': (1e39,)}, 'is too large for the 32 bits of a number'),
    ({'count': 2**31}, 'is too large for the 32 bits of a number'),
    ({'count': 10**400}, '... is too large for the 32 bits of a number'),
  ],
)
def test_what_a_setting_holds_or_makes_is_checked_too(changes, message):
  with pytest.raises(settings.SettingError) as raised:
    Parts(**changes)
  assert message in str(raised.value)
  assert len(str(raised.value)) < 400


def test_parts_that_fit_are_kept():
  parts = Parts(
    many=[1, 2], rates=(1, 2.5), pair=(3, 4), named={'a': math.inf}, count=-3
  )
  assert parts.many == [1, 2]
  for maker in (Child, makes_child, makes_anything, functools.partial(Parent)):
    assert Parts(makes=maker).makes is maker


@given(st.floats() | st.integers(-3, 3))
def test_a_fraction_lies_between_0_and_1(rate):
  if 0 <= rate <= 1:
    assert Parent(rate=rate).rate is rate
  else:  # NaN too, and what is too large for a float of 32 bits
    with pytest.raises(errors.UserError, match=r'\[0, 1\]|finite|too large'):
      Parent(rate=rate)


def test_a_bound_is_in_reach_and_none_passes_it():
  assert Parent(period=1, limit=None).period == 1
  with pytest.raises(
    errors.UserError, match='period = 0 is too small; it must'
  ):
    Parent(period=0)
  with pytest.raises(errors.UserError, match='limit = 0 is too small'):
    Parent(limit=0)


def test_not_a_number_is_refused_whatever_its_bounds():
  class Bounded(settings.Settings):
    value: float

    def __post_init__(self):
      super().__post_init__()
      self.require_at_least(0.5, 'value')

  assert Bounded(value=0.5).value == 0.5
  with pytest.raises(errors.UserError, match='not finite'):
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
