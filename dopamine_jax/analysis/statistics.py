"""Statistics of a few runs on many games, with bootstrap intervals.

Agarwal, Schwarzer, Castro, Courville & Bellemare (2021), Deep Reinforcement
Learning at the Edge of the Statistical Precipice. NeurIPS.
https://arxiv.org/abs/2108.13264

A matrix of scores is [..., R, G]: R runs on each of G games, NaN where a game
has fewer runs. Leading axes, such as those of resamples or of points on a
curve, are kept.
"""

from collections.abc import Callable

import numpy as np

from dopamine_jax.metrics import intervals

Statistic = Callable[[np.ndarray], np.ndarray]  # [..., R, G] -> [...]

# What the bootstrap needs for its intervals to hold: `benchmarks.coverage`.
MIN_RUNS, MIN_GAMES = 5, 10
_CHUNK = 2**22  # scores that are resampled at once: 32 MB


def mean(scores: np.ndarray) -> np.ndarray:
  """Returns the mean over games of the mean over runs."""
  return np.nanmean(scores, axis=-2).mean(axis=-1)


def median(scores: np.ndarray) -> np.ndarray:
  """Returns the median over games of the mean over runs (their section 4)."""
  return np.median(np.nanmean(scores, axis=-2), axis=-1)


def iqm(scores: np.ndarray) -> np.ndarray:
  """Returns the interquartile mean over all runs of all games (section 4.3).

  The mean of what is left of the R * G scores when the lowest and the highest
  quarter, each rounded down, are cut off. With at most three scores, the mean.
  """
  flat = np.sort(scores.reshape(*scores.shape[:-2], -1), axis=-1)  # NaN is last
  count = np.count_nonzero(~np.isnan(flat), axis=-1)
  if (count != count.flat[0]).any():
    raise ValueError('expected as many runs at each index of the leading axes.')
  count = int(count.flat[0])
  cut = count // 4
  return flat[..., cut : count - cut].mean(axis=-1)


def optimality_gap(scores: np.ndarray, target: float = 1.0) -> np.ndarray:
  """Returns how far runs are, on average, below `target` (section 4.3).

  The mean of max(0, target - score); runs above the target gain nothing. With
  human-normalized scores and target 1 it is the distance from a human.
  """
  below = np.where(np.isnan(scores), np.nan, np.minimum(scores, target))
  return target - mean(below)


def performance_profile(
  scores: np.ndarray, thresholds: np.ndarray
) -> np.ndarray:
  """Returns the share of runs that score above each threshold (equation 2).

  The mean over games of the share of a game's runs with score > threshold.

  Args:
    scores: [..., R, G].
    thresholds: [K].

  Returns:
    [..., K].
  """
  above = scores[..., None, :, :] > np.asarray(thresholds)[:, None, None]
  return mean(np.where(np.isnan(scores)[..., None, :, :], np.nan, above))


def probability_of_improvement(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Returns how probably a run of X beats a run of Y (section 4.3).

  The mean over games of P(X > Y) = 1 / (N M) sum_ij S(x_i, y_j), where S is 1
  if x_i > y_j, 1/2 if they are equal, 0 otherwise: the Mann-Whitney statistic.
  Only the sign of a difference x_i - y_j counts, not its size.

  Args:
    x: [..., N, G].
    y: [..., M, G].
  """
  a, b = x[..., :, None, :], y[..., None, :, :]
  wins = (a > b) + 0.5 * (a == b)
  wins = np.where(np.isnan(a) | np.isnan(b), np.nan, wins)
  return np.nanmean(wins, axis=(-3, -2)).mean(axis=-1)


def bootstrap(
  statistic: Callable[..., np.ndarray],
  *scores: np.ndarray,
  resamples: int = 2_000,
  seed: int = 0,
  fewer: int = 1,
  always: bool = False,
) -> intervals.Interval:
  """Returns a statistic with its stratified bootstrap 95% interval.

  Runs are drawn with replacement within each game, and games are kept (section
  4.1). The interval reaches from the 2.5th to the 97.5th percentile of the
  statistic over the resamples. Of R runs, R - 1 are drawn (Rao & Wu, 1988):
  drawing R makes the interval too narrow, which with 3 runs covers 89%. All
  points of a curve use the same resampled runs. Algorithms are resampled
  independently.

  The interval is NaN with fewer than `MIN_GAMES` games, or with fewer than
  `MIN_RUNS` runs of any game; for one game see `intervals.of_mean`. It covers
  95% for IQM and optimality gap, but not for the median, which is biased with
  few runs (`python -m benchmarks.coverage`).

  Args:
    statistic: a function of all `scores`.
    *scores: [..., R, G], NaN in the same places at all leading indices.
    resamples: how many.
    seed: of the resampling: equal scores have equal intervals.
    fewer: from each game with R runs, R - `fewer` are drawn; 0 is the bootstrap
      of the paper.
    always: whether to ignore `MIN_GAMES` and `MIN_RUNS`; there are never
      intervals of one run.
  """
  value = statistic(*scores)
  runs = [_runs(s) for s in scores]
  if not all(n.min() > 1 and (always or _are_enough(n)) for n in runs):
    unknown = np.full_like(value, np.nan, dtype=float)
    return intervals.Interval(value, unknown, unknown)
  rng = np.random.default_rng(seed)
  chunk = max(1, _CHUNK // sum(s.size for s in scores))
  drawn = []
  for start in range(0, resamples, chunk):
    count = min(chunk, resamples - start)
    drawn.append(statistic(*(_resample(s, count, rng, fewer) for s in scores)))
  low, high = np.percentile(np.concatenate(drawn), [2.5, 97.5], axis=0)
  return intervals.Interval(value, low, high)


def _runs(scores):
  """Returns how many runs each game has, [G]."""
  first = scores.reshape(-1, *scores.shape[-2:])[0]
  return np.count_nonzero(~np.isnan(first), axis=0)


def _are_enough(runs):
  return len(runs) >= MIN_GAMES and runs.min() >= MIN_RUNS


def _resample(scores, count, rng, fewer):
  """Returns [count, ..., R, G], runs drawn within each game."""
  num_runs, num_games = scores.shape[-2:]
  runs = _runs(scores)
  # The runs that are there first, so that an index below their number is one.
  first = scores.reshape(-1, num_runs, num_games)[0]
  order = np.argsort(np.isnan(first), axis=0, kind='stable')
  drawn = (rng.random((count, num_runs, num_games)) * runs).astype(int)
  drawn = np.take_along_axis(order[None], drawn, axis=1)
  # What is past the runs that are drawn of a game stays NaN.
  missing = np.arange(num_runs)[:, None] >= runs - fewer
  leading = scores.ndim - 2
  index = drawn.reshape(count, *[1] * leading, num_runs, num_games)
  result = np.take_along_axis(scores[None], index, axis=-2)
  return np.where(missing, np.nan, result)
