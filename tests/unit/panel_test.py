"""The panel shows the numbers that it is given, and nothing is out of place."""

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from dopamine_jax import agent as agent_lib
from dopamine_jax.films import panel as panel_lib

BAR, CHOSEN, CURVE = panel_lib._BAR, panel_lib._CHOSEN, panel_lib._VALUE


def runs_of(image, colour):
  """Returns (row, first column, length) of long runs of one colour."""
  found = []
  for y, row in enumerate(np.abs(image.astype(int) - colour).max(axis=-1) <= 2):
    edges = np.flatnonzero(np.diff([0, *row, 0]))
    found += [
      (y, first, end - first)
      for first, end in zip(edges[::2], edges[1::2], strict=True)
      if end - first > 6
    ]
  return found


def bars_of(image):
  """Returns (first column, length) of each bar, in the order of the rows."""
  bars = {}
  for y, first, length in sorted(runs_of(image, BAR) + runs_of(image, CHOSEN)):
    if not bars or y - max(bars) > 3:
      bars[y] = first, length
    else:
      bars[y] = bars.pop(max(bars))
  return list(bars.values())


def draw(outlook, action, score=0.0, names=None, height=420):
  return panel_lib.Panel(height, names).draw(outlook, action, score)


def policy(*probabilities):
  return agent_lib.Outlook(
    value=np.float32(1), probabilities=np.array(probabilities)
  )


def values(*numbers):
  numbers = np.array(numbers, np.float32)
  return agent_lib.Outlook(value=numbers.max(), values=numbers)


def test_bars_of_a_policy_are_as_long_as_actions_are_likely():
  image = draw(policy(0.2, 0.5, 0.3), 1)
  (a, n), (b, m), (c, k) = bars_of(image)
  assert a == b == c
  full = 2 * m
  np.testing.assert_allclose([n / full, k / full], [0.2, 0.3], atol=0.01)
  assert {y for y, *_ in runs_of(image, CHOSEN)}.isdisjoint(
    y for y, *_ in runs_of(image, BAR)
  )


def test_bars_of_values_show_what_is_above_and_below_the_mean():
  panel = panel_lib.Panel(420)
  image = panel.draw(values(1.0, 4.0, 4.0), 1, 0.0)
  (a, n), (b, m), (c, k) = bars_of(image)
  middle = a + n  # -2 from a mean of 3; the others have 1
  assert abs(b - middle) <= 2 and abs(c - middle) <= 2
  np.testing.assert_allclose([m / n, k / n], 0.5, atol=0.03)
  # The scale remembers: the same picture after one that was much flatter.
  again = panel.draw(values(1.0, 1.2, 1.1), 1, 0.0)
  assert all(length < 0.1 * n for _, length in bars_of(again))


def test_a_continuous_action_shows_its_mean_where_it_is():
  mean = np.array([[-0.5, 0.25]])
  outlook = agent_lib.Outlook(
    value=np.float32(0), mean=mean, interval=(mean - 0.1, mean + 0.1)
  )
  image = draw(outlook, np.array([[0.9, -3.0]]))
  (a, n), (b, m) = bars_of(image)
  np.testing.assert_allclose(m / n, 0.5, atol=0.03)
  assert abs(a + n - b) <= 2  # the middle
  assert len(runs_of(image, panel_lib._RULE)) > 0


def test_actions_have_the_names_that_they_are_given():
  named, other, numbers = (
    draw(policy(0.5, 0.5), 0, names=names)
    for names in (['UP', 'DOWN'], ['ON', 'OFF'], None)
  )
  assert (named != other).any()
  assert (named != numbers).any()


def test_the_curve_rises_with_the_value_and_starts_anew_with_an_episode():
  panel = panel_lib.Panel(420)
  for value in range(100):
    image = panel.draw(agent_lib.Outlook(value=np.float32(value)), 0, 0.0)

  def points(image):
    # Below the headline, which has the same colour.
    near = np.abs(image[90:].astype(int) - CURVE).max(axis=-1) < 30
    return np.nonzero(near)

  rows, columns = points(image)
  assert np.ptp(columns) > 90
  assert np.corrcoef(rows, columns)[0, 1] < -0.99
  panel.begin()
  image = panel.draw(agent_lib.Outlook(value=np.float32(5)), 0, 0.0)
  assert len(points(image)[0]) == 0
  fresh = panel_lib.Panel(420)
  expected = fresh.draw(agent_lib.Outlook(value=np.float32(5)), 0, 0.0)
  np.testing.assert_array_equal(image, expected)


def test_what_is_said_of_score_step_and_value_is_drawn():
  outlook = values(1.0, 2.0)
  image = draw(outlook, 1, score=3.0)
  assert (image != draw(outlook, 1, score=4.0)).any()
  panel = panel_lib.Panel(420)
  first, second = (panel.draw(outlook, 1, 3.0) for _ in range(2))
  np.testing.assert_array_equal(image, first)
  assert (first[:50] != second[:50]).any()


@pytest.mark.parametrize(
  ('number', 'expected'),
  [
    (0, '0'),
    (-21, '-21'),
    (-0.0123, '-0.012'),
    (1.239, '1.24'),
    (-99.994, '-99.99'),
    (123.45, '123.5'),
    (-1234.5, '-1234'),
    (99_999, '99999'),
    (1_234_567, '1.2e+06'),
  ],
)
def test_numbers_are_short(number, expected):
  assert panel_lib._rounded(number) == expected


def test_the_curve_of_c51_goes_from_probability_to_probability():
  atoms = np.linspace(-2, 2, 5)
  probabilities = np.array([[0.1, 0.2, 0.4, 0.2, 0.1], [0, 0, 0, 0.5, 0.5]])
  grid = np.linspace(-2, 2, 33)
  actual = panel_lib.density(np.stack([atoms, atoms]), probabilities, grid)
  expected = [np.interp(grid, atoms, p) for p in probabilities]
  np.testing.assert_allclose(actual, expected, atol=1e-12)


def test_the_curve_of_quantiles_is_a_density():
  from scipy import stats

  tau = (np.arange(200) + 0.5) / 200
  returns = stats.norm.ppf(tau)[None]
  grid = np.linspace(-4, 4, 401)
  actual = panel_lib.density(returns, np.full((1, 200), 1 / 200), grid)[0]
  assert np.sum(actual) * 0.02 == pytest.approx(1, abs=0.01)
  assert np.abs(actual - stats.norm.pdf(grid)).max() < 0.03


def test_a_distribution_is_drawn_about_its_mean():
  rng = np.random.default_rng(0)
  returns = np.sort(rng.normal([[0.0], [5.0]], 0.5, (2, 400)))
  outlook = values(0.0, 5.0)._replace(
    distribution=(returns, np.full((2, 400), 1 / 400))
  )
  image = draw(outlook, 1, height=420)
  filled = (0.65 * np.array(panel_lib._TRACK) + 0.35 * np.array(CHOSEN)).astype(
    int
  )
  near = np.abs(image.astype(int) - filled).max(axis=-1) < 8
  columns = np.nonzero(near)[1]
  # 5 of about [-1.5, 6.5], over the panel's width.
  middle = np.median(columns)
  assert 0.72 * panel_lib.WIDTH < middle < 0.88 * panel_lib.WIDTH


def outlooks():
  number = st.floats(-1e6, 1e6, width=32)

  @st.composite
  def make(draw):
    num = draw(st.integers(1, 40))
    kind = draw(st.sampled_from(['values', 'policy', 'mean', 'value']))
    numbers = np.array(
      draw(st.lists(number, min_size=num, max_size=num)), np.float32
    )
    outlook = agent_lib.Outlook(value=np.float32(draw(number)))
    if kind == 'values':
      outlook = outlook._replace(values=numbers)
      if draw(st.booleans()):
        size = draw(st.integers(1, 60))
        returns = np.sort(numbers[:, None] + np.zeros((1, size)))
        outlook = outlook._replace(
          distribution=(returns, np.full((num, size), 1 / size))
        )
    elif kind == 'policy':
      exp = np.exp(numbers / 1e6)
      outlook = outlook._replace(probabilities=exp / exp.sum())
    elif kind == 'mean':
      outlook = outlook._replace(mean=numbers)
      return outlook, numbers
    return outlook, draw(st.integers(0, num - 1))

  return make()


@hypothesis.given(outlooks(), st.floats(-1e6, 1e6))
@hypothesis.settings(deadline=None, max_examples=40)
def test_whatever_is_told_can_be_drawn(told, score):
  outlook, action = told
  height = panel_lib.wanted_height(outlook)
  panel = panel_lib.Panel(height)
  for _ in range(2):
    image = panel.draw(outlook, action, score)
  assert image.shape == (height, panel_lib.WIDTH, 3)
  assert image.dtype == np.uint8
  # Nothing touches the edges.
  edges = np.concatenate([image[:4], image[-4:]]).reshape(-1, 3)
  assert (edges == panel_lib._BACKGROUND).all()


@pytest.mark.parametrize('width', [160, 161])
def test_the_frame_is_in_the_middle_of_the_height_and_films_get_even_sizes(
  width,
):
  image = np.full((100, width, 3), 255, np.uint8)
  panel = np.zeros((420, panel_lib.WIDTH, 3), np.uint8)
  both = panel_lib.beside(image, panel)
  assert both.shape == (420, 160 + 2 * (width % 2) + panel_lib.WIDTH, 3)
  assert (both[160:260, :width] == 255).all()
  assert (both[:160, :width] == panel_lib._BACKGROUND).all()
  assert (both[260:, :width] == panel_lib._BACKGROUND).all()
  assert (both[:, -panel_lib.WIDTH :] == 0).all()


def test_saliency_is_laid_over_its_place():
  image = np.full((40, 20, 3), 100, np.uint8)
  saliency = np.zeros((4, 2))
  np.testing.assert_array_equal(panel_lib.overlay(image, saliency), image)
  saliency[0, 1] = 1
  drawn = panel_lib.overlay(image, saliency)
  expected = 0.15 * 100 + 0.85 * np.array(panel_lib._HEAT)
  np.testing.assert_allclose(drawn[2, 17], expected, atol=1)
  np.testing.assert_array_equal(drawn[20:], image[20:])
  np.testing.assert_array_equal(drawn[:, :5], image[:, :5])
