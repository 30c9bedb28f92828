"""Which settings of a sweep matter, and how sure that is.

Trials are ranked: those that went further first, then by their score. The
values of a setting are divided: those of a list are classes, numbers of a range
are cut into a lower, middle and upper third of the trials. Whether the ranks of
these classes differ by more than chance is asked by the test of Kruskal and
Wallis (1952), with its p from 10,000 random permutations of the ranks instead
of its limit for many trials, and with Holm's correction (1979) for the number
of settings. Thirds also find a best value in the middle, which a correlation
would miss.

How much a setting matters is the share of the variance of the ranks that its
classes explain, less what chance alone explains: (H - k + 1) / (n - k) for k
classes of n trials (Tomczak & Tomczak, 2014). Each setting is looked at alone:
of settings that matter only together nothing is seen.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from dopamine_jax.sweeps import outcome as outcome_lib
from dopamine_jax.sweeps import spaces

LEVEL = 0.05
FEWEST = 9  # trials, below which nothing is asked
_IN_CLASS = 2  # trials in two classes at least
_PERMUTATIONS = 10_000


class Class(NamedTuple):
  """Trials with like values of a setting.

  Attributes:
    label: their value, or their least and greatest.
    trials: how many.
    rank: their mean rank; 1 is the best trial.
    score: the mean of their scores at the first rung, to which all can be
      compared; NaN if none has one.
  """

  label: str
  trials: int
  rank: float
  score: float


class Finding(NamedTuple):
  """What is known of a setting.

  Attributes:
    setting: its name.
    classes: in the order of their values.
    trials: that have it.
    share: of the variance of ranks, from 0 to 1; NaN if nothing can be asked.
    p_value: corrected; NaN if nothing can be asked.
  """

  setting: str
  classes: Sequence[Class]
  trials: int
  share: float
  p_value: float

  @property
  def is_known(self) -> bool:
    """Whether there were enough trials to ask."""
    return self.p_value == self.p_value

  @property
  def matters(self) -> bool:
    """Whether it does, by more than chance explains."""
    return self.is_known and self.p_value <= LEVEL

  @property
  def best(self) -> Class:
    """The class whose trials were ranked best."""
    return min(self.classes, key=lambda x: x.rank)

  @property
  def gain(self) -> float:
    """By how much its score at the first rung is above that of the others."""
    others = [x for x in self.classes if x is not self.best]
    weights = [x.trials for x in others]
    if not others:
      return float('nan')
    return self.best.score - float(
      np.average([x.score for x in others], weights=weights)
    )


def of(outcome: outcome_lib.Outcome) -> list[Finding]:
  """Returns what is known of each setting, those that matter most first.

  Trials of population-based training go on from each other. So only those that
  began anew are asked, with their scores at the first rung.
  """
  ranks = _ranks(outcome)
  found = [
    _finding(outcome, ranks, each, i)
    for i, each in enumerate(outcome.study.dimensions)
  ]
  corrected = holm([x.p_value for x in found])
  found = [x._replace(p_value=p) for x, p in zip(found, corrected, strict=True)]

  def order(x):
    return not x.matters, not x.is_known, -np.nan_to_num(x.share, nan=-1)

  return sorted(found, key=order)


def holm(p_values: Sequence[float]) -> list[float]:
  """Returns p-values that hold together; NaN was never asked."""
  known = sorted((p, i) for i, p in enumerate(p_values) if p == p)
  corrected, highest = list(p_values), 0.0
  for place, (p, i) in enumerate(known):
    highest = max(highest, min(1.0, p * (len(known) - place)))
    corrected[i] = highest
  return corrected


def kruskal(
  ranks: np.ndarray, classes: np.ndarray, seed: int = 0
) -> tuple[float, float]:
  """Returns Kruskal and Wallis's H, and how often chance gives as much.

  Args:
    ranks: [N], of which equal ones are the mean of their places.
    classes: [N] of each, counted from 0.
    seed: of the permutations.
  """
  count = len(ranks)
  member = np.eye(classes.max() + 1)[classes]  # [N, K]
  sizes = member.sum(axis=0)
  centred = ranks - ranks.mean()
  variance = (centred**2).sum() / (count - 1)
  if not variance:
    return 0.0, 1.0

  def statistic(values):
    return (((values @ member) ** 2) / sizes).sum(axis=-1) / variance

  seen = float(statistic(centred))
  rng = np.random.default_rng(seed)
  mixed = rng.permuted(np.tile(centred, (_PERMUTATIONS, 1)), axis=1)
  extreme = np.count_nonzero(statistic(mixed) >= seen - 1e-9)
  return seen, (extreme + 1) / (_PERMUTATIONS + 1)


def _ranks(outcome):
  """Returns the rank of each trial that is asked, by its number."""
  trials = outcome.trials
  study = outcome.study
  if study.search == 'tpe':
    # Later ones were chosen by the scores of those before, all settings of
    # them together.
    trials = trials[: (study.ahead + 1) * study.pack]
  if outcome.study.scheduler == 'pbt':
    scores = {
      x.number: float(np.mean(outcome.state.scores[x.number, 0]))
      for x in trials
      if x.parent is None and (x.number, 0) in outcome.state.scores
    }
    keys = {number: (-score,) for number, score in scores.items()}
  else:
    keys = {x.number: (-x.rung, -x.mean) for x in trials}
  keys = {number: key for number, key in keys.items() if key[-1] == key[-1]}
  order = sorted(keys.values())
  return {  # equal ones share the mean of their places
    number: order.index(key) + (order.count(key) + 1) / 2
    for number, key in keys.items()
  }


def _finding(outcome, ranks, dimension, seed):
  have = [
    (x.number, value)
    for x, value in outcome.values(dimension.setting)
    if x.number in ranks
  ]
  if not have:
    nan = float('nan')
    return Finding(dimension.setting, (), 0, nan, nan)
  labels, places = _classes([value for _, value in have], dimension.domain)
  own = np.array([ranks[number] for number, _ in have])
  classes = []
  for i, label in enumerate(labels):
    numbers = [have[j][0] for j in np.flatnonzero(places == i)]
    firsts = [outcome.state.scores.get((x, 0)) for x in numbers]
    scores = [float(np.mean(x)) for x in firsts if x is not None]
    score = float(np.mean(scores)) if scores else float('nan')
    rank = float(own[places == i].mean())
    classes.append(Class(label, len(numbers), rank, score))
  share = p_value = float('nan')
  enough = sum(x.trials >= _IN_CLASS for x in classes) >= 2
  if len(have) >= FEWEST and enough and len(have) > len(classes):
    h, p_value = kruskal(own, places, seed)
    k = len(classes)
    share = max(0.0, (h - k + 1) / (len(have) - k))
  return Finding(dimension.setting, classes, len(have), share, p_value)


def _classes(values: Sequence[Any], domain) -> tuple[list[str], np.ndarray]:
  """Returns the labels of classes, and the class [N] of each value."""
  if isinstance(domain, spaces.Choice):
    order = [repr(x) for x in domain.values]
    own = [repr(x) for x in values]
    seen = [x for x in dict.fromkeys([*order, *own]) if x in own]
    return [shown(x) for x in seen], np.array([seen.index(x) for x in own])
  numbers = np.array(values, float)
  if len({*values}) <= 3:
    levels = sorted({*values})
    return [f'{x:g}' for x in levels], np.array(
      [levels.index(x) for x in values]
    )
  # Equal values stay together: a cut lies between two different ones.
  order = np.sort(numbers)
  cuts = [order[len(order) // 3], order[2 * len(order) // 3]]
  places = np.searchsorted(cuts, numbers, side='right')
  _, places = np.unique(places, return_inverse=True)
  labels = []
  for i in range(places.max() + 1):
    inside = numbers[places == i]
    low, high = float(inside.min()), float(inside.max())
    labels.append(f'{low:g}' if low == high else f'{low:g} to {high:g}')
  return labels, places


def shown(text: str) -> str:
  """Returns a value as a table shows it: a text without its quotes."""
  is_text = len(text) > 1 and text[0] == text[-1] == "'"
  return text[1:-1] if is_text else text
