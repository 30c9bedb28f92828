"""95% intervals of a mean over few runs: one estimator for all that is shown.

Student's t is right for runs that scatter about their mean. But now and then a
run ends elsewhere: it never learns, or is the only one that does. That is
missing among n runs more often than not, if n is small, and then t is far too
narrow: of three runs that reach 500 it says that the mean is 500 to 500.

If a share q of all runs ends elsewhere, n runs hold none of them with the
probability (1 - q)^n. This is at least 2.5% for every q up to 1 - 0.025^(1/n):
so large a share can't be excluded. Each end of the interval is therefore at
least as far from the mean as if so many runs ended where the range ends in
which these runs were seen: since their training began, where that is known.
For one value that is taken or not it is the end of Clopper and Pearson's
interval (1934). `python -m benchmarks.coverage` shows how often it holds.
"""

from typing import NamedTuple

import numpy as np
from scipy import special

_TAIL = 0.025  # on either side


class Interval(NamedTuple):
  """A statistic of the runs that there are, and its 95% interval.

  `low` and `high` are NaN where there is no second run: nothing is known then
  of how much runs differ.
  """

  value: np.ndarray
  low: np.ndarray
  high: np.ndarray


def of_mean(
  values: np.ndarray,
  lowest: np.ndarray | float = np.inf,
  highest: np.ndarray | float = -np.inf,
) -> Interval:
  """Returns the mean over runs with its 95% interval.

  Args:
    values: [..., R], one of each run.
    lowest: [...] the lowest value that such runs are known to take; by default,
      and at most, that of `values`.
    highest: [...] the highest value that such runs are known to take.

  Returns:
    Three arrays [...]; NaN where a value isn't finite.
  """
  values = np.asarray(values, float)
  n = values.shape[-1]
  with np.errstate(invalid='ignore', over='ignore'):
    mean = values.mean(axis=-1)
    if n < 2:
      unknown = np.full_like(mean, np.nan)
      return Interval(mean, unknown, unknown)
    spread = values.std(axis=-1, ddof=1) / np.sqrt(n)
    margin = special.stdtrit(n - 1, 1 - _TAIL) * spread
    unseen = unseen_share(n)
    down = unseen * (mean - np.minimum(lowest, values.min(axis=-1)))
    up = unseen * (np.maximum(highest, values.max(axis=-1)) - mean)
    return Interval(
      mean, mean - np.maximum(margin, down), mean + np.maximum(margin, up)
    )


def is_return(name: str) -> bool:
  """Whether runs that fail show it in this statistic by staying low.

  Of a loss or of the replay's fill, the range since the start says nothing of
  where another run would be now.
  """
  return name.endswith('Returns')


def unseen_share(n: int) -> float:
  """Returns the share of runs that n runs miss with a probability of 2.5%."""
  return 1 - _TAIL ** (1 / n)
