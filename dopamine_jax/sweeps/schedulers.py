"""Which trials go on from a rung: what a sweep saves agent steps by.

Over several seeds a trial is stopped only if its scores lie below those of the
last one that goes on by more than chance explains: Welch's test at 5%. One
without a score, since no episode has ended, is not stopped either.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import special

from dopamine_jax.sweeps import plan
from dopamine_jax.sweeps import spaces
from dopamine_jax.sweeps import study as study_lib

_LEVEL = 0.05
_FRACTION = 0.25  # of a population that is replaced, and that replaces it
_RESAMPLED = 0.25  # of the settings of a trial that goes on from another
_STEP = 0.2  # of a range, by which the others change


class Everything:
  """All trials are trained to their end."""

  def decide(
    self, state: plan.State, rung: int, is_closed: bool
  ) -> list[dict[str, Any]]:
    """Returns the events that follow from the results at a rung.

    Args:
      state: what the journal tells.
      rung: to look at.
      is_closed: whether no more trials can enter it.
    """
    del state, rung, is_closed
    return []


class Asha:
  """Successive halving, asynchronous: the best of a rung go on at once.

  Li et al. (2020), A System for Massively Parallel Hyperparameter Tuning.
  https://arxiv.org/abs/1810.05934

  When a pack of a rung has ended and there is a next one, the best 1 /
  `reduction` of the trials so far go on. With the last pack of a rung it is
  decided on all others, so that what goes on can train together. Packs are
  looked at in their order instead of that of arrival. What is promoted goes on
  with its own training, so that nothing is trained twice.
  """

  def __init__(self, study: study_lib.Study):
    self._reduction = study.reduction
    self._last = len(study.rungs) - 1

  def decide(
    self, state: plan.State, rung: int, is_closed: bool
  ) -> list[dict[str, Any]]:
    """See `Everything.decide`."""
    if rung == self._last:
      return []
    promoted = set(state.entered[rung + 1])
    seen, packs = [], state.packs_of(rung)
    for pack in packs:
      if not state.is_done(pack):
        return []
      seen += pack.trials
      if pack is packs[-1] and not state.unpacked(rung):
        # Whether it is the last may be known before its end or after, which
        # depends on the workers. So nothing is decided until then.
        if not is_closed:
          return []
        return self._rest(state, seen, rung, promoted)
      best = ranked(state, seen, rung)[: len(seen) // self._reduction]
      # A trial that was tried again may let ones through that were stopped.
      new = [x for x in best if x not in promoted and x not in state.stopped]
      if new:  # before the next pack is looked at they may fill one
        return [plan.entered(each, rung + 1) for each in new]
    return []

  def _rest(self, state, seen, rung, promoted):
    """Decides for all others, when a rung is complete."""
    best = ranked(state, seen, rung)
    if not best:
      return []
    # Of those that were seen some may have been given up.
    cut = best[min(len(best), max(1, len(seen) // self._reduction)) - 1]
    events = []
    for trial in best:
      if trial in promoted or trial in state.stopped:
        continue
      why = _below(state, trial, cut, rung)
      if why:
        events.append(_stopped(trial, rung, why))
      else:
        events.append(plan.entered(trial, rung + 1))
    return events


class PopulationBased:
  """Population-based training: the worst go on from the best, changed.

  Jaderberg et al. (2017), Population Based Training of Neural Networks.
  https://arxiv.org/abs/1711.09846

  At each rung trials of the worst quarter end if they are worse than one of the
  best quarter. In the place of each a new trial goes on from what that one has
  learned, under settings near its own: each is drawn anew with probability 1/4,
  and else moves by a fifth of its range, or to a neighbor in its list. Only
  real numbers change while an agent goes on; whole numbers and choices keep
  their value.
  """

  def __init__(self, study: study_lib.Study):
    self._study = study
    self._last = len(study.rungs) - 1

  def decide(
    self, state: plan.State, rung: int, is_closed: bool
  ) -> list[dict[str, Any]]:
    """See `Everything.decide`."""
    entrants = state.entered[rung]
    is_over = all(state.is_over(each, rung) for each in entrants)
    if rung == self._last or not (is_closed and is_over and entrants):
      return []
    if state.entered[rung + 1]:
      return self._goes_on(state, rung)  # what was tried again, and succeeded
    # Forks are in a pack of this rung: it trains no step, but copies what the
    # parents have learned before these go on.
    has_forks = any(state.trials[each].rung == rung for each in entrants)
    if not has_forks and (forks := self._forks(state, rung)):
      return forks
    return self._goes_on(state, rung)

  def _goes_on(self, state, rung):
    """Returns the events of those that enter the next rung and have not yet."""
    over = {*state.stopped, *state.given_up, *state.entered[rung + 1]}
    return [
      plan.entered(each, rung + 1)
      for each in state.entered[rung]
      if each not in over
    ]

  def _forks(self, state, rung):
    """Returns the events of those that are replaced, and of what replaces."""
    best = ranked(state, state.entered[rung], rung)
    count = int(len(best) * _FRACTION)
    if len(best) >= 2:
      count = max(1, count)
    rng = np.random.default_rng([self._study.search_seed, 1, rung])
    events, number = [], len(state.trials)
    for loser in best[len(best) - count :]:
      parent = best[int(rng.integers(count))]
      why = _below(state, loser, parent, rung)
      if not why:
        continue
      settings = self._changed(state.trials[parent], rng)
      trial = plan.Trial(
        number,
        spaces.folder_name(number, settings),
        settings,
        state.trials[parent].group,
        parent,
        rung,
      )
      events += [
        _stopped(loser, rung, f'{why}; trial {number} takes its place'),
        trial.record(),
        plan.entered(number, rung),
      ]
      number += 1
    return events

  def _changed(self, parent, rng):
    """Returns settings near those of a trial."""
    settings = {}
    needed = {x.when[0] for x in self._study.dimensions if x.when}
    for each in self._study.dimensions:
      draws = rng.uniform(size=3)  # as many for each, whatever it is
      if each.setting not in parent.settings:
        continue
      value = parent.settings[each.setting]
      # What others depend on stays: they would be given in vain, or lack.
      if can_change(each.domain) and each.setting not in needed:
        place = draws[1]
        if draws[0] >= _RESAMPLED:
          step = _step(each.domain)
          place = each.domain.place(value) + (step if draws[2] < 0.5 else -step)
        value = each.domain.at(min(max(place, 0.0), 1.0))
      settings[each.setting] = value
    return settings


def can_change(domain: spaces.Choice | spaces.Range) -> bool:
  """Whether a setting can change while an agent goes on: real numbers can."""
  if isinstance(domain, spaces.Range):
    return not domain.is_whole
  return all(type(each) is float for each in domain.values)


def ranked(state: plan.State, trials: Sequence[int], rung: int) -> list[int]:
  """Returns trials with results at a rung, best first, unknown scores last."""
  known = [each for each in trials if (each, rung) in state.scores]

  def order(trial):
    mean = state.means[trial, rung]
    return (mean != mean, -mean, trial)

  return sorted(known, key=order)


def _below(state, trial, other, rung):
  """Returns how a trial lies below another by more than chance; '' if not."""
  x, y = state.scores[trial, rung], state.scores[other, rung]
  if np.isnan(x).any() or np.isnan(y).any() or np.mean(x) >= np.mean(y):
    return ''
  by = f'{np.mean(x):.4g} is below the {np.mean(y):.4g} of trial {other}'
  if len(x) == 1:
    return f'{by}, one seed each'
  if np.ptp(x) == np.ptp(y) == 0:
    return f'{by}, in all seeds'
  p_value = _welch(x, y)
  return f'{by}, p = {p_value:.2g}' if p_value <= _LEVEL else ''


def _welch(x, y) -> float:
  """Returns the two-sided p-value of two means, of unequal variances.

  Welch (1947), The Generalization of "Student's" Problem. SciPy's warns where
  scores are almost equal, as those of a solved task are.
  """
  parts = np.var(x, ddof=1) / len(x), np.var(y, ddof=1) / len(y)
  total = sum(parts)
  freedom = total**2 / (
    parts[0] ** 2 / (len(x) - 1) + parts[1] ** 2 / (len(y) - 1)
  )
  t = abs(np.mean(x) - np.mean(y)) / np.sqrt(total)
  return float(2 * special.stdtr(freedom, -t))


def _step(domain):
  if isinstance(domain, spaces.Choice):
    return 1 / len(domain.values)
  return _STEP


def _stopped(trial, rung, why):
  return {'event': 'stopped', 'trial': trial, 'rung': rung, 'why': why}


def of(study: study_lib.Study) -> Any:
  """Returns the scheduler of a sweep."""
  if study.scheduler == 'asha':
    return Asha(study)
  if study.scheduler == 'pbt':
    return PopulationBased(study)
  return Everything()
