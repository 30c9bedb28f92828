"""Statistics of a few runs on a few games, with intervals that say how few.

Agarwal, Schwarzer, Castro, Courville & Bellemare (2021), Deep Reinforcement
Learning at the Edge of the Statistical Precipice. NeurIPS.
https://arxiv.org/abs/2108.13264

A matrix of scores is [..., R, G]: R runs on each of G games, NaN where a game
has fewer runs. Leading axes, such as those of resamples or of points on a
curve, are kept.
"""

from collections.abc import Callable
import math
from typing import NamedTuple

import numpy as np

Statistic = Callable[[np.ndarray], np.ndarray]  # [..., R, G] -> [...]

_CHUNK = 2**22  # scores that are resampled at once: 32 MB
# Normal quantiles: two-sided 95%, and a power of 80%.
_Z_95, _Z_POWER = 1.959964, 0.841621


class Interval(NamedTuple):
  """A statistic of the runs that there are, and its 95% interval.

  `low` and `high` are NaN where an algorithm has no second run of any game:
  nothing is known then of how much its runs differ.
  """

  value: np.ndarray
  low: np.ndarray
  high: np.ndarray


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
  A game counts for the direction of the difference, whatever its size.

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
) -> Interval:
  """Returns a statistic with its stratified bootstrap 95% interval.

  Runs are drawn anew with replacement within each game, games stay as they are
  (section 4.1), and the interval is from the 2.5th to the 97.5th percentile of
  the statistic of the resamples. All leading axes use the same runs, so that
  a point of a curve is resampled with the rest of its curve. Algorithms are
  resampled independently.

  Args:
    statistic: of one matrix, or of as many as `scores` are.
    *scores: [..., R, G], NaN in the same places at all leading indices.
    resamples: how many.
    seed: of the resampling: equal scores have equal intervals.
  """
  value = statistic(*scores)
  if any(_runs(s).max() < 2 for s in scores):
    unknown = np.full_like(value, np.nan, dtype=float)
    return Interval(value, unknown, unknown)
  rng = np.random.default_rng(seed)
  chunk = max(1, _CHUNK // sum(s.size for s in scores))
  drawn = []
  for start in range(0, resamples, chunk):
    count = min(chunk, resamples - start)
    drawn.append(statistic(*(_resample(s, count, rng) for s in scores)))
  low, high = np.percentile(np.concatenate(drawn), [2.5, 97.5], axis=0)
  return Interval(value, low, high)


def p_value(
  x: np.ndarray, y: np.ndarray, permutations: int = 10_000, seed: int = 0
) -> float:
  """Returns how often chance alone separates X and Y as much as was seen.

  A permutation test of the probability of improvement, two-sided and within
  games: were X and Y the same, any run could have been of either. Unlike a
  bootstrap's interval it holds for three or four runs too. The value that was
  seen is one of the permutations (Phipson & Smyth, 2010).

  Args:
    x: [N, G].
    y: [M, G].
    permutations: how many.
    seed: of the permutations.
  """
  rng = np.random.default_rng(seed)
  seen = 0.0
  chance = np.zeros(permutations)
  for game in range(x.shape[1]):
    a, b = (s[~np.isnan(s[:, game]), game] for s in (x, y))
    ranks = _midranks(np.concatenate([a, b]))
    scale = len(a) * len(b)
    centre = len(a) * (len(a) + len(b) + 1) / 2
    seen += (ranks[: len(a)].sum() - centre) / scale
    mixed = rng.permuted(np.tile(ranks, (permutations, 1)), axis=1)
    chance += (mixed[:, : len(a)].sum(axis=1) - centre) / scale
  # Sums of halves: what is equal may differ by rounding.
  extreme = np.count_nonzero(np.abs(chance) >= np.abs(seen) - 1e-9)
  return (extreme + 1) / (permutations + 1)


def holm(p_values: np.ndarray) -> np.ndarray:
  """Returns p-values that allow for how many of them were looked at.

  Holm (1979), A simple sequentially rejective multiple test procedure: the
  k-th smallest of m times m - k + 1, made monotone.
  """
  p_values = np.asarray(p_values, float)
  order = np.argsort(p_values)
  scaled = p_values[order] * np.arange(len(p_values), 0, -1)
  adjusted = np.empty_like(p_values)
  adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
  return adjusted


def runs_to_tell_apart(
  probability: float, num_games: int = 1, others: int | None = None
) -> float:
  """Returns how many runs of X, on each game, would tell it from Y.

  At 95% and with a power of 80%, if `probability` is the true probability of
  improvement. Noether (1987), Sample size determination for some common
  nonparametric tests: under the null a game's statistic has the variance
  (N + M + 1) / (12 N M); its mean over G games has that divided by G.

  Args:
    probability: of improvement, 0 to 1.
    num_games: G.
    others: M, the runs of Y, if there will be no more; None if Y has N too.

  Returns:
    N, at least 2; infinity where no number is enough.
  """
  effect = 12 * num_games * ((probability - 0.5) / (_Z_95 + _Z_POWER)) ** 2
  if effect == 0:
    return math.inf
  if others is None:  # (2 N + 1) / N^2 <= effect
    return max(2, math.ceil((1 + math.sqrt(1 + effect)) / effect))
  # (N + M + 1) / (N M) <= effect
  if effect * others <= 1:
    return math.inf
  return max(2, math.ceil((others + 1) / (effect * others - 1)))


def _runs(scores):
  """Returns how many runs each game has, [G]."""
  first = scores.reshape(-1, *scores.shape[-2:])[0]
  return np.count_nonzero(~np.isnan(first), axis=0)


def _resample(scores, count, rng):
  """Returns [count, ..., R, G], runs drawn within each game."""
  num_runs, num_games = scores.shape[-2:]
  runs = _runs(scores)
  # The runs that are there first, so that an index below their number is one.
  first = scores.reshape(-1, num_runs, num_games)[0]
  order = np.argsort(np.isnan(first), axis=0, kind='stable')
  drawn = (rng.random((count, num_runs, num_games)) * runs).astype(int)
  drawn = np.take_along_axis(order[None], drawn, axis=1)
  # Past a game's number of runs stays NaN.
  missing = np.arange(num_runs)[:, None] >= runs
  leading = scores.ndim - 2
  index = drawn.reshape(count, *[1] * leading, num_runs, num_games)
  result = np.take_along_axis(scores[None], index, axis=-2)
  return np.where(missing, np.nan, result)


def _midranks(values):
  """Returns ranks from 1 on; equal values share the mean of theirs."""
  _, inverse, counts = np.unique(
    values, return_inverse=True, return_counts=True
  )
  last = np.cumsum(counts)
  return (last - (counts - 1) / 2)[inverse]
