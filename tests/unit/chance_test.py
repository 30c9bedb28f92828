"""Whether groups differ: against plain counts; the test and its interval."""

import itertools
import math

import hypothesis
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
import numpy as np
import pytest

from benchmarks import coverage
from dopamine_jax.analysis import chance
from dopamine_jax.analysis import verdicts

runs = hnp.arrays(
  float, st.integers(1, 9), elements=st.integers(-12, 12).map(lambda n: n / 4)
)
matrices = hnp.arrays(
  float, st.tuples(st.integers(2, 6), st.just(3)), elements=st.integers(0, 9)
)


def splits(x, y):
  """Yields how often X wins in all ways to mix the runs of both."""
  pool = np.argsort(np.argsort(np.concatenate([x, y]), kind='stable'))
  for chosen in itertools.combinations(range(len(pool)), len(x)):
    a = pool[list(chosen)]
    b = np.delete(pool, chosen)
    yield np.count_nonzero(a[:, None] > b)


@pytest.mark.parametrize(('n', 'm'), [(2, 2), (3, 4), (1, 5), (5, 5), (4, 2)])
def test_p_is_that_of_all_ways_to_mix_the_runs(n, m):
  rng = np.random.default_rng(n)
  x, y = rng.normal(size=n) + 0.7, rng.normal(size=m)
  wins = np.count_nonzero(x[:, None] > y)
  by_chance = np.array([*splits(x, y)])
  extreme = max(wins, n * m - wins)
  expected = min(1, 2 * np.mean(by_chance >= extreme))
  assert chance.shift(x, y).p_value == pytest.approx(expected)


@pytest.mark.parametrize(('n', 'splits'), [(2, 6), (3, 20), (4, 70), (5, 252)])
def test_a_perfect_separation_has_the_p_value_of_all_splits(n, splits):
  x = np.arange(n) + 100.0
  assert chance.shift(x, x - 50).p_value == pytest.approx(2 / splits)


def test_many_runs_are_close_to_the_normal_curve():
  rng = np.random.default_rng(0)
  x, y = rng.normal(size=(2, 100))
  exact = chance.shift(x, y + 0.1).p_value
  large = chance.shift(np.append(x, 0.0), np.append(y + 0.1, 0.1)).p_value
  assert large == pytest.approx(exact, abs=0.02)


def test_the_shift_by_hand():
  # Differences: -1 ... 9, 25 of them; 5 against 5 need 23 wins.
  x, y = np.array([1.0, 2, 3, 4, 10]), np.array([1.0, 1.5, 2.5, 0, 0.5])
  differences = np.sort(np.subtract.outer(x, y).ravel())
  value, low, high = chance.shift(x, y).interval
  assert value == np.median(differences)
  assert (low, high) == (differences[-23], differences[22])


@pytest.mark.parametrize(('n', 'm'), [(2, 2), (3, 3), (1, 30), (2, 4)])
def test_so_few_runs_leave_any_difference_possible(n, m):
  interval = chance.shift(np.arange(n) + 1e9, np.arange(m)).interval
  assert (interval.low, interval.high) == (-math.inf, math.inf)
  assert not chance.can_tell(n, m)


@hypothesis.given(runs, runs, st.integers(1, 6))
def test_p_is_small_exactly_where_the_interval_leaves_out_0(x, y, pairs):
  (_, low, high), p_value = chance.shift(x, y, pairs)
  assert (p_value <= chance.LEVEL) == (low > 0 or high < 0)


@hypothesis.given(matrices, matrices, st.integers(1, 6))
@hypothesis.settings(max_examples=25)
def test_over_games_p_is_small_where_the_interval_leaves_out_half(x, y, pairs):
  (value, low, high), p_value = chance.improvement(x, y, pairs)
  assert (p_value <= chance.LEVEL) == (low > 0.5 or high < 0.5)
  assert low <= value <= high


@hypothesis.given(st.lists(runs, min_size=2, max_size=5))
def test_the_words_agree_with_p_and_interval(groups):
  scores = {str(i): x[:, None] for i, x in enumerate(groups)}
  for pair in verdicts.pairs(scores):
    text = verdicts.sentence(pair)
    (_, low, high), p_value = pair.difference
    clear = low > 0 or high < 0
    assert ('would hardly do that' in text) == clear == (p_value <= 0.05)
    assert clear == pair.told_apart
    assert 'nan' not in text and 'inf' not in text
    if not chance.can_tell(*pair.runs, pair.num_pairs):
      assert 'p = ' not in text


@hypothesis.given(runs, runs, st.integers(-3, 3))
def test_the_interval_moves_with_the_scores(x, y, by):
  plain, moved = chance.shift(x, y), chance.shift(x + by, y)
  np.testing.assert_allclose(moved.interval, np.add(plain.interval, by))


@pytest.mark.parametrize('n', [2, 3, 5, 10])
@pytest.mark.parametrize(
  'name', ['normal', 'two modes, 80% high', '70% at the cap']
)
def test_equal_groups_are_hardly_ever_told_apart(name, n):
  draw = coverage.SCORES[name]
  assert coverage.of_verdict(draw, n, draws=1_000) <= 0.065


def test_over_games_p_is_that_of_all_permutations_within_games():
  x = np.array([[3.0, 1], [5, 1]])
  y = np.array([[4.0, 0], [1, 1]])
  ways = list(itertools.combinations(range(4), 2))
  by_chance = []
  for both in itertools.product(ways, ways):
    value = 0.0
    for game, chosen in enumerate(both):
      pool = [*x[:, game], *y[:, game]]
      rest = [i for i in range(4) if i not in chosen]
      for i, j in itertools.product(chosen, rest):
        value += (pool[i] > pool[j]) + 0.5 * (pool[i] == pool[j])
    by_chance.append(value / 8)
  seen, p_value = chance.improvement(x, y)
  far = abs(float(seen.value) - 0.5)
  exact = np.mean(np.abs(np.array(by_chance) - 0.5) >= far - 1e-12)
  assert 0.1 < exact < 0.9
  assert p_value == pytest.approx(exact, abs=0.015)


@pytest.mark.parametrize(
  ('pairs', 'games', 'others', 'fewest'),
  # 2 / C(8, 4) = 0.029; 12 / C(10, 5) = 0.048; 2 / C(8, 3) = 0.036;
  # 2 / C(4, 2)^3 = 0.009.
  [(1, 1, None, 4), (6, 1, None, 5), (1, 1, 5, 3), (1, 3, None, 2)],
)
def test_the_fewest_runs_by_hand(pairs, games, others, fewest):
  assert chance.fewest_runs(pairs, games, others) == fewest


def test_the_runs_needed_fulfil_noethers_bound_and_one_less_does_not():
  z = 1.959964 + 0.841621

  def enough(n, m, p, g):
    return abs(p - 0.5) >= z * math.sqrt((n + m + 1) / (12 * n * m * g))

  for p, g in itertools.product((0.55, 0.7, 0.9, 0.2), (1, 10)):
    n = chance.runs_to_tell_apart(p, g)
    assert enough(n, n, p, g)
    assert n == 2 or not enough(n - 1, n - 1, p, g)
    n = chance.runs_to_tell_apart(p, g, others=5)
    if n < math.inf:
      assert enough(n, 5, p, g)
      assert n == 2 or not enough(n - 1, 5, p, g)
    else:
      assert not enough(10**9, 5, p, g)


def test_no_number_of_runs_tells_equals_apart():
  assert chance.runs_to_tell_apart(0.5) == math.inf
  assert chance.runs_to_tell_apart(0.5, others=5) == math.inf
