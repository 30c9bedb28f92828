"""The interval of a mean over few runs: by hand, and how often it holds."""

import math

import numpy as np
import pytest

from benchmarks import coverage
from dopamine_jax.analysis import curves
from dopamine_jax.metrics import intervals


def test_runs_that_scatter_have_students_interval():
  # t = 4.3027 for 2 degrees of freedom, from a printed table.
  mean, low, high = intervals.of_mean(np.array([1.0, 2, 3]))
  margin = 4.3027 / 3**0.5
  np.testing.assert_allclose(
    [mean, low, high], [2, 2 - margin, 2 + margin], rtol=1e-4
  )


@pytest.mark.parametrize(
  ('n', 'share'),
  # Clopper and Pearson's ends for n of n, from printed tables.
  [(2, 1 - 0.1581), (3, 1 - 0.2924), (5, 1 - 0.4782), (10, 1 - 0.6915)],
)
def test_runs_that_agree_allow_for_those_that_were_not_drawn(n, share):
  _, low, high = intervals.of_mean(np.full(n, 500.0), lowest=0, highest=500)
  assert low == pytest.approx(500 * (1 - share), abs=0.05)
  assert high == 500
  _, low, high = intervals.of_mean(np.full(n, -3.0), lowest=-4, highest=7)
  assert high == pytest.approx(-3 + 10 * share, abs=0.001)


@pytest.mark.parametrize('values', [[7.0], [math.inf, 1.0], [math.nan, 1, 2]])
def test_what_is_not_known_has_no_interval(values):
  _, low, high = intervals.of_mean(np.array(values))
  assert np.isnan(low) and np.isnan(high)


def test_leading_axes_are_points_of_their_own():
  values = np.arange(24.0).reshape(2, 4, 3) ** 1.5
  whole = intervals.of_mean(values, lowest=np.full((2, 4), -5.0))
  for i in np.ndindex(2, 4):
    one = intervals.of_mean(values[i], lowest=-5.0)
    np.testing.assert_allclose([x[i] for x in whole], one)


def test_a_curve_knows_where_its_runs_were_before():
  values = np.array([[0.0, 1], [9, 9], [5, 5]])
  curve = curves.Curve(np.array([1, 2, 3]), values)
  low, high = (x[2] for x in curve.interval()[1:])
  unseen = 1 - 0.025**0.5
  assert (low, high) == pytest.approx((5 - 5 * unseen, 5 + 4 * unseen))
  # The last points' mean is of the same range; a loss has no such memory.
  assert curve.score_interval(1) == (5, low, high)
  assert curve.until(2).score_interval(1).low == pytest.approx(9 - 9 * unseen)
  assert curve._replace(is_return=False).score_interval(1) == (5, 5, 5)


def test_only_returns_remember_where_runs_failed():
  assert intervals.is_return('Train/AverageReturns')
  assert not intervals.is_return('Train/Loss')


BOUNDED = [name for name in coverage.SCORES if 'lognormal' not in name]


@pytest.mark.parametrize('n', coverage.SEEDS)
@pytest.mark.parametrize('name', BOUNDED)
def test_the_interval_holds_where_the_range_was_seen(name, n):
  draw = coverage.SCORES[name]
  held = coverage.of_a_mean(draw, n, (0, 1), draws=4_000, population=300_000)
  assert held >= 0.93


@pytest.mark.parametrize('n', coverage.SEEDS)
def test_runs_that_scatter_have_no_wider_interval_than_they_need(n):
  draw = coverage.SCORES['normal']
  held = coverage.of_a_mean(draw, n, draws=8_000, population=300_000)
  assert 0.935 <= held <= 0.965
