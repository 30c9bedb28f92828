"""Statistics against hand-worked values, plain loops and published figures."""

import math

import hypothesis
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
import numpy as np
import pytest

from dopamine_jax import analysis
from dopamine_jax.analysis import games
from dopamine_jax.analysis import statistics

NAN = math.nan

scores = hnp.arrays(
  float,
  st.tuples(st.integers(2, 6), st.integers(1, 5)),
  elements=st.integers(-50, 50).map(lambda n: n / 8),
)


@pytest.fixture(scope='module', autouse=True)
def few_are_enough():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(statistics, 'MIN_GAMES', 1)
    patch.setattr(statistics, 'MIN_RUNS', 1)
    yield


# By hand.


def test_iqm_cuts_off_a_quarter_at_both_ends():
  x = np.array([[100.0, 3], [1, 4], [2, 5], [-100, 6]])  # 8 runs: cut 2 + 2
  assert statistics.iqm(x) == (2 + 3 + 4 + 5) / 4
  assert statistics.iqm(x[:3]) == (2 + 3 + 4 + 5) / 4  # 6 runs: cut 1 + 1


def test_iqm_of_at_most_three_scores_is_their_mean():
  assert statistics.iqm(np.array([[1.0], [2], [9]])) == 4


def test_mean_and_median_are_over_games_of_means_over_runs():
  x = np.array([[0.0, 10, 100], [2, 20, NAN]])
  assert statistics.mean(x) == pytest.approx((1 + 15 + 100) / 3)
  assert statistics.median(x) == 15


def test_optimality_gap_gives_nothing_for_what_is_above_the_target():
  x = np.array([[0.0, 5.0], [0.5, 0.75]])
  assert statistics.optimality_gap(x) == (1 + 0 + 0.5 + 0.25) / 4
  assert statistics.optimality_gap(x, target=0.5) == (0.5 + 0 + 0 + 0) / 4


def test_a_profile_counts_runs_strictly_above():
  x = np.array([[0.0, 1], [1, 2]])
  profile = statistics.performance_profile(x, np.array([-1.0, 0, 0.5, 1, 2]))
  np.testing.assert_array_equal(profile, [1, 0.75, 0.75, 0.25, 0])


def test_probability_of_improvement_counts_a_tie_as_half():
  x, y = np.array([[1.0], [3]]), np.array([[1.0], [2], [4]])
  # 1 against 1, 2, 4: 1/2 + 0 + 0; 3: 1 + 1 + 0.
  assert statistics.probability_of_improvement(x, y) == pytest.approx(2.5 / 6)


def test_probability_of_improvement_is_the_mean_over_games():
  x = np.array([[1.0, 0], [2, NAN]])
  y = np.array([[0.0, 5], [0, 5]])
  assert statistics.probability_of_improvement(x, y) == (1 + 0) / 2


# The bootstrap.


def test_one_run_has_no_interval():
  x = np.array([[1.0, 2.0]])
  value, low, high = statistics.bootstrap(statistics.mean, x)
  assert value == 1.5
  assert np.isnan(low) and np.isnan(high)
  # Nor has a comparison with one, however many the other has.
  pair = np.array([[0.0, 3], [1, 2], [5, 5]])
  interval = statistics.bootstrap(
    statistics.probability_of_improvement, x, pair
  )
  assert np.isnan(interval.low)


def test_resamples_draw_runs_and_never_games():
  x = np.array([[0.0, 100], [1, 101], [2, NAN]])
  seen = []

  def statistic(s):
    seen.append(s)
    return statistics.mean(s)

  statistics.bootstrap(statistic, x, resamples=300, fewer=0)
  drawn = seen[-1]
  assert drawn.shape == (300, 3, 2)
  assert set(np.unique(drawn[..., 0])) == {0, 1, 2}
  assert np.isnan(drawn[:, 2, 1]).all()  # as many runs as there are
  assert set(np.unique(drawn[:, :2, 1])) == {100, 101}


def test_one_run_less_than_there_is_is_drawn_of_each_game():
  x = np.array([[0.0, 100], [1, 101], [2, NAN]])
  seen = []

  def statistic(s):
    seen.append(s)
    return statistics.mean(s)

  statistics.bootstrap(statistic, x, resamples=300)
  drawn = seen[-1]
  assert (
    np.isfinite(drawn[:, :2, 0]).all() and np.isfinite(drawn[:, 0, 1]).all()
  )
  assert np.isnan(drawn[:, 2, 0]).all() and np.isnan(drawn[:, 1:, 1]).all()


@pytest.mark.parametrize(
  ('runs', 'games', 'enough'),
  [
    (5, 10, True),
    (5, 9, False),
    (4, 55, False),
    (1, 99, False),
    (30, 1, False),
  ],
)
def test_a_bootstrap_needs_runs_and_games(runs, games, enough, monkeypatch):
  monkeypatch.setattr(statistics, 'MIN_GAMES', 10)
  monkeypatch.setattr(statistics, 'MIN_RUNS', 5)
  x = np.random.default_rng(0).normal(size=(runs, games))
  interval = statistics.bootstrap(statistics.iqm, x, resamples=20)
  assert np.isfinite(interval.low) == enough
  interval = statistics.bootstrap(statistics.iqm, x, resamples=20, always=True)
  assert np.isfinite(interval.low) == (runs > 1)


def test_the_interval_of_a_mean_is_that_of_a_plain_loop():
  rng = np.random.default_rng(1)
  x = rng.normal(size=(5, 3))
  means = []
  for _ in range(4_000):
    columns = [rng.choice(x[:, g], 4) for g in range(3)]
    means.append(np.mean(columns))
  low, high = np.percentile(means, [2.5, 97.5])
  interval = statistics.bootstrap(statistics.mean, x, resamples=4_000)
  assert interval.low == pytest.approx(low, abs=0.03)
  assert interval.high == pytest.approx(high, abs=0.03)


def test_all_points_of_a_curve_are_of_the_same_runs():
  curve = np.stack([np.array([[0.0], [1], [5]]) + t for t in range(4)])
  interval = statistics.bootstrap(statistics.mean, curve)
  np.testing.assert_allclose(np.diff(interval.low), 1)
  np.testing.assert_allclose(np.diff(interval.high), 1)


def test_chunks_change_nothing(monkeypatch):
  x = np.random.default_rng(0).normal(size=(4, 3))
  whole = statistics.bootstrap(statistics.iqm, x)
  monkeypatch.setattr(statistics, '_CHUNK', 7 * x.size)
  assert statistics.bootstrap(statistics.iqm, x) == whole


@hypothesis.given(scores, st.sampled_from([-3, 2]), st.integers(-4, 4))
def test_intervals_move_and_scale_with_the_scores(x, scale, shift):
  plain = statistics.bootstrap(statistics.iqm, x, resamples=50)
  moved = statistics.bootstrap(statistics.iqm, x * scale + shift, resamples=50)
  low, high = sorted((plain.low * scale + shift, plain.high * scale + shift))
  np.testing.assert_allclose(moved.low, low, atol=1e-9)
  np.testing.assert_allclose(moved.high, high, atol=1e-9)


@hypothesis.given(scores)
def test_an_interval_lies_within_the_scores_and_is_ordered(x):
  for statistic in (statistics.iqm, statistics.mean, statistics.median):
    value, low, high = statistics.bootstrap(statistic, x, resamples=50)
    assert x.min() - 1e-9 <= low <= high <= x.max() + 1e-9
    assert x.min() - 1e-9 <= value <= x.max() + 1e-9


@hypothesis.given(scores, st.randoms(use_true_random=False))
def test_the_order_of_runs_and_games_is_nothing(x, random):
  runs = random.sample(range(x.shape[0]), x.shape[0])
  columns = random.sample(range(x.shape[1]), x.shape[1])
  mixed = x[runs][:, columns]
  thresholds = np.array([-1.0, 0, 1])
  for statistic in (
    statistics.iqm,
    statistics.mean,
    statistics.median,
    statistics.optimality_gap,
    lambda s: statistics.performance_profile(s, thresholds),
  ):
    np.testing.assert_allclose(statistic(mixed), statistic(x), atol=1e-9)


@hypothesis.given(scores, st.integers(0, 3))
def test_a_run_that_is_missing_is_nothing(x, missing):
  y = np.concatenate([x, np.full((missing, x.shape[1]), NAN)])
  for statistic in (statistics.iqm, statistics.mean, statistics.median):
    assert statistic(y) == pytest.approx(statistic(x), abs=1e-12)
  assert statistics.probability_of_improvement(y, x) == pytest.approx(0.5)


@hypothesis.given(scores, scores)
def test_to_beat_and_to_be_beaten_add_up_to_one(x, y):
  y = np.resize(y, (len(y), x.shape[1]))
  better = statistics.probability_of_improvement(x, y)
  worse = statistics.probability_of_improvement(y, x)
  assert better + worse == pytest.approx(1)
  # What keeps the order of all scores keeps it.
  assert statistics.probability_of_improvement(
    np.exp(x / 9), np.exp(y / 9)
  ) == pytest.approx(better)


# Published figures.


def published(agent, network, iteration):
  """Returns human-normalized scores, [R, G], in plain steps."""
  table = analysis.baseline(agent, network)
  known = games.random_human()
  columns = []
  for game, rows in table[table.game.isin(known.index)].groupby('game'):
    window = rows[
      (rows.iteration > iteration - 4) & (rows.iteration <= iteration + 1)
    ]
    runs = window.groupby('seed').value.mean().to_numpy()
    columns.append(games.human_normalized(runs, game))
  assert {len(runs) for runs in columns} == {5}
  return np.stack(columns, axis=1)


@pytest.mark.parametrize(
  ('agent', 'expected'),
  [('DQN', [0.265, 0.803, 1.374]), ('Rainbow', [0.457, 1.251, 1.635])],
)
def test_iqm_of_dopamines_curves(agent, expected):
  # Iterations counted from 0, the mean of the last 5, 55 games, 5 runs.
  found = []
  for iteration in (9, 49, 199):
    scores = published(agent, 'cnn', iteration)
    assert scores.shape == (5, 55)
    found.append(round(float(statistics.iqm(scores)), 3))
  assert found == expected


def test_the_55_games_are_those_of_both_tables():
  curves = set(analysis.baseline('DQN', 'cnn').game)
  people = set(games.random_human().index)
  assert len(curves & people) == 55
  assert people - curves == {'defender', 'surround'}
  assert curves - people == {
    *('airraid', 'carnival', 'elevatoraction', 'journeyescape', 'pooyan')
  }
