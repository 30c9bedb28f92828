"""Lines that say what a sweep tries."""

import math

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from dopamine_jax import errors
from dopamine_jax.sweeps import spaces


def one(line):
  (dimension,) = spaces.parse([line])
  return dimension


@pytest.mark.parametrize(
  ('line', 'domain'),
  [
    ('a.b = [1, 3]', spaces.Choice((1, 3))),
    ("a.b = ('x', None)", spaces.Choice(('x', None))),
    ('a.b = [1, 1.0, True]', spaces.Choice((1, 1.0, True))),
    ('s/a.b=uniform(0, 1)', spaces.Range(0.0, 1.0, False, False)),
    ('a.b = log_uniform(1e-4, 1)', spaces.Range(1e-4, 1.0, True, False)),
    ('a.b = integers(-3, 4)', spaces.Range(-3, 4, False, True)),
    ('a.b = log_integers(1, 2_000)', spaces.Range(1, 2_000, True, True)),
  ],
)
def test_a_line_names_a_setting_and_its_values(line, domain):
  assert one(line).domain == domain


@pytest.mark.parametrize(
  ('line', 'why'),
  [
    ('a.b', 'expected a setting'),
    ('ab = [1]', 'expected a setting'),
    ('a.b = 1', 'expected a setting'),
    ('a.b = [x]', 'expected a setting'),
    ('a.b = uniform(0, 1', 'expected a setting'),
    ('a.b = []', 'the list is empty'),
    ('a.b = [1, 2, 1]', '1 comes twice'),
    ('a.b = normal(0, 1)', 'there is no normal'),
    ('a.b = uniform(1)', 'two numbers'),
    ('a.b = uniform(0, 1e999)', 'two numbers'),
    ('a.b = integers(0, 1.5)', 'two whole numbers'),
    ('a.b = integers(True, 5)', 'two whole numbers'),
    ('a.b = uniform(1, 0)', '1 is not below 0'),
    ('a.b = integers(2, 2)', '2 is not below 2'),
    ('a.b = log_uniform(0, 1)', 'numbers above 0'),
    ('a.b = [1] when c.d = 1', 'in a line before'),
    ('# nothing', 'nothing to vary'),
  ],
)
def test_what_can_not_be_meant_is_told(line, why):
  with pytest.raises(errors.UserError, match=why):
    spaces.parse([line])


def test_a_setting_is_varied_once():
  with pytest.raises(errors.UserError, match=r'a\.b is varied already'):
    spaces.parse(['a.b = [1]', 'a.b = [2]'])


def test_a_condition_is_of_values_that_there_are():
  with pytest.raises(errors.UserError, match='never 2'):
    spaces.parse(['a.b = [1, 3]', 'a.c = [5] when a.b = 2'])
  with pytest.raises(errors.UserError, match='never True'):
    spaces.parse(['a.b = [1, 3]', 'a.c = [5] when a.b = True'])


def test_a_grid_has_every_combination_and_conditions_leave_some_out():
  space = spaces.parse(
    ['a.n = [1, 3]', 'a.x = [True, False]', 'a.y = [0.5, 0.9] when a.x = True']
  )
  assert spaces.combinations(space) == [
    {'a.n': n, **rest}
    for n in (1, 3)
    for rest in (
      {'a.x': True, 'a.y': 0.5},
      {'a.x': True, 'a.y': 0.9},
      {'a.x': False},
    )
  ]


def test_a_grid_needs_lists():
  with pytest.raises(errors.UserError, match='--trials 64'):
    spaces.combinations(spaces.parse(['a.b = uniform(0, 1)']))


def test_draws_are_even_in_what_they_should_be_even_in():
  space = spaces.parse(
    [
      'a.u = uniform(2, 4)',
      'a.l = log_uniform(1e-4, 1e-2)',
      'a.i = integers(1, 4)',
      'a.c = ["x", "y", "z", "w"]',
    ]
  )
  rng = np.random.default_rng(0)
  drawn = [spaces.draw(space, rng) for _ in range(4_000)]
  quarters = [2.5, 3.0, 3.5]
  u = np.digitize([each['a.u'] for each in drawn], quarters)
  exponents = [math.log10(each['a.l']) for each in drawn]
  logs = np.digitize(exponents, [-3.5, -3.0, -2.5])
  whole = np.array([each['a.i'] for each in drawn]) - 1
  words = np.array(['xyzw'.index(each['a.c']) for each in drawn])
  for shares in (u, logs, whole, words):  # a quarter each, within 5 sigma
    counts = np.bincount(shares, minlength=4)
    np.testing.assert_allclose(counts, 1_000, atol=5 * math.sqrt(750))


@hypothesis.given(
  place=st.floats(0, 1),
  low=st.floats(1e-6, 1e3),
  factor=st.floats(1.001, 1e4),
  is_log=st.booleans(),
)
def test_a_range_keeps_its_bounds_and_knows_where_its_numbers_lie(
  place, low, factor, is_log
):
  domain = spaces.Range(low, low * factor, is_log, False)
  value = domain.at(place)
  assert low <= value <= low * factor
  # As near as four digits of the number are.
  digits = abs(value) * 1e-3 / (low * (factor - 1))
  if is_log:
    digits = 1e-3 / math.log(factor)
  assert abs(domain.place(value) - place) <= digits + 1e-9


@hypothesis.given(place=st.floats(0, 1), low=st.integers(1, 50))
def test_whole_numbers_have_equal_shares(place, low):
  domain = spaces.Range(low, low + 3, False, True)
  assert domain.at(place) == low + min(int(place * 4 + 1e-9), 3) or (
    abs(place * 4 - round(place * 4)) < 1e-6
  )
  assert domain.at(domain.place(low + 2)) == low + 2


def test_a_name_has_the_number_and_what_is_tried():
  name = spaces.folder_name(7, {'a/adam.rate': 0.001, 'dqn.DQN.n_step': 3})
  assert name == '0007_rate_0.001_n_step_3'
  both = spaces.folder_name(0, {'a/adam.rate': 0.1, 'b/adam.rate': 0.2})
  assert both == '0000_a.adam.rate_0.1_b.adam.rate_0.2'
  odd = spaces.folder_name(1, {'a.b': '../../etc', 'a.c': '@x/y()'})
  assert '/' not in odd
  long = {f'module.Class.setting_{i}': 0.1234 for i in range(20)}
  assert spaces.folder_name(12, long) == '0012'


def test_references_of_gin_are_written_as_they_are():
  settings = {'a.b': '@networks.MLP', 'a.c': 'text', 'a.d': 0.5}
  assert spaces.bindings(settings) == [
    'a.b = @networks.MLP',
    "a.c = 'text'",
    'a.d = 0.5',
  ]
