"""Whether two groups of runs differ, or chance alone may have parted them.

A test and its interval are one thing here: the interval holds the differences
that the test does not refuse. So 0 lies outside of a 95% interval exactly when
p is at most 0.05. Both hold for any kind of scores, and for few runs: were the
groups the same, any run could have been of either. That is also what limits
them: two runs against two are parted by chance alone in one case of three,
however far they lie apart, and then the interval has no ends.

Where k pairs are looked at, p is k times as large and the intervals are of
1 - 0.05 / k, so that all of them hold together (Bonferroni).
"""

import functools
import math
import statistics as stdlib
from typing import NamedTuple

import numpy as np

from dopamine_jax.analysis import statistics
from dopamine_jax.metrics import intervals

LEVEL = 0.05
_PERMUTATIONS = 10_000
_MAX_EXACT = 10_000  # pairs of runs; the normal curve beyond
_POWER = 0.8


class Difference(NamedTuple):
  """What separates two groups.

  Attributes:
    interval: of the difference.
    p_value: how often chance alone would separate them so far.
  """

  interval: intervals.Interval
  p_value: float


def shift(x: np.ndarray, y: np.ndarray, pairs: int = 1) -> Difference:
  """Returns by how much runs of X are typically higher than those of Y.

  The median of all differences between a run of X and one of Y (Hodges &
  Lehmann, 1963), with the interval that the Mann-Whitney test (1947) leaves.
  Equal scores count against a difference.

  Args:
    x: [N] scores on one game.
    y: [M].
    pairs: how many pairs of groups are looked at.
  """
  differences = np.sort(np.subtract.outer(x, y), axis=None)
  tail = _tail(*sorted((len(x), len(y))))
  p_values = np.minimum(1, 2 * pairs * tail)  # by how many pairs X wins
  wins = np.count_nonzero(differences > 0)
  losses = np.count_nonzero(differences < 0)
  enough = np.flatnonzero(p_values <= LEVEL)
  low, high = -np.inf, np.inf
  if enough.size:  # the fewest wins that aren't chance
    low, high = differences[-enough[0]], differences[enough[0] - 1]
  middle = np.median(differences)
  return Difference(
    intervals.Interval(*map(np.float64, (middle, low, high))),
    float(p_values[max(wins, losses)]),
  )


def improvement(
  x: np.ndarray, y: np.ndarray, pairs: int = 1, seed: int = 0
) -> Difference:
  """Returns how probably X beats Y over games, and if that may be chance.

  A permutation test of the probability of improvement, two-sided and within
  games; the value that was seen is one of the permutations (Phipson & Smyth,
  2010). The interval reaches as far as chance alone would.

  Args:
    x: [N, G], NaN where a game has fewer runs.
    y: [M, G].
    pairs: how many pairs of groups are looked at.
    seed: of the permutations.
  """
  value = float(statistics.probability_of_improvement(x, y))
  chance = np.sort(np.abs(_by_chance(x, y, seed)))[::-1]
  # Sums of halves: what is equal may differ by rounding.
  extreme = np.count_nonzero(chance >= abs(value - 0.5) - 1e-9)
  p_values = pairs * (np.arange(len(chance)) + 1) / (len(chance) + 1)
  allowed = np.count_nonzero(p_values <= LEVEL)
  reach = chance[allowed - 1] + 1e-9 if allowed else np.inf
  ends = max(0.0, value - reach), min(1.0, value + reach)
  return Difference(
    intervals.Interval(*map(np.float64, (value, *ends))),
    float(min(1, pairs * (extreme + 1) / (len(chance) + 1))),
  )


def fewest_runs(
  pairs: int = 1, num_games: int = 1, others: int | None = None
) -> int:
  """Returns the runs with which a perfect separation is not chance.

  Args:
    pairs: how many pairs of groups are looked at.
    num_games: how many games both have.
    others: the runs of the other group, if there will be no more; None if it
      has as many.
  """
  n = 1
  while not can_tell(n, n if others is None else others, pairs, num_games):
    n += 1
  return n


def can_tell(n: int, m: int, pairs: int = 1, num_games: int = 1) -> bool:
  """Whether n runs against m can show anything, however far apart they lie."""
  return 2 * pairs <= LEVEL * float(math.comb(n + m, n)) ** num_games


def runs_to_tell_apart(
  probability: float,
  num_games: int = 1,
  others: int | None = None,
  pairs: int = 1,
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
    pairs: how many pairs of groups are looked at.

  Returns:
    N, at least 2; infinity where no number is enough.
  """
  quantile = stdlib.NormalDist().inv_cdf
  z = quantile(1 - LEVEL / 2 / pairs) + quantile(_POWER)
  effect = 12 * num_games * ((probability - 0.5) / z) ** 2
  if effect == 0:
    return math.inf
  if others is None:  # (2 N + 1) / N^2 <= effect
    return max(2, math.ceil((1 + math.sqrt(1 + effect)) / effect))
  # (N + M + 1) / (N M) <= effect
  if effect * others <= 1:
    return math.inf
  return max(2, math.ceil((others + 1) / (effect * others - 1)))


@functools.cache
def _tail(n: int, m: int) -> np.ndarray:
  """Returns P(U >= u) for u = 0 ... n m, of two groups that are the same."""
  if n * m > _MAX_EXACT:
    scale = math.sqrt(n * m * (n + m + 1) / 12)
    curve = stdlib.NormalDist(n * m / 2, scale)
    return np.array([1 - curve.cdf(u - 0.5) for u in range(n * m + 1)])
  # The highest run is of X, and beats all b of Y, or it is of Y.
  rows = [np.ones(1)] * (m + 1)
  for a in range(1, n + 1):
    row = [np.ones(1)]
    for b in range(1, m + 1):
      masses = np.zeros(a * b + 1)
      masses[b:] += a / (a + b) * rows[b]
      masses[: a * (b - 1) + 1] += b / (a + b) * row[b - 1]
      row.append(masses)
    rows = row
  return np.cumsum(rows[m][::-1])[::-1]


def _by_chance(x, y, seed):
  """Returns probabilities of improvement of mixed groups, less 1/2."""
  from scipy import stats  # which takes a third of a second

  rng = np.random.default_rng(seed)
  chance = np.zeros(_PERMUTATIONS)
  for game in range(x.shape[1]):
    a, b = (s[~np.isnan(s[:, game]), game] for s in (x, y))
    ranks = stats.rankdata(np.concatenate([a, b]))
    centre = len(a) * (len(a) + len(b) + 1) / 2
    mixed = rng.permuted(np.tile(ranks, (_PERMUTATIONS, 1)), axis=1)
    wins = mixed[:, : len(a)].sum(axis=1) - centre
    chance += wins / (len(a) * len(b) * x.shape[1])
  return chance
