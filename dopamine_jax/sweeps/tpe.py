"""Settings near good ones: Optuna's tree-structured Parzen estimator.

Bergstra et al. (2011), Algorithms for Hyper-Parameter Optimization.
https://optuna.readthedocs.io/en/stable/reference/samplers/index.html

Packs are asked for in turn. When one is asked for, Optuna is told what the
trials of the packs before have reached at the first rung, but for the newest
`ahead` packs, which may still be trained: of these it knows the settings. So
what is asked for does not depend on who finishes first. Optuna's own memory is
made from the sweep's journal each time, and lies nowhere else.
"""

from typing import Any
import warnings

import numpy as np

from dopamine_jax import errors
from dopamine_jax.sweeps import plan
from dopamine_jax.sweeps import searches
from dopamine_jax.sweeps import spaces
from dopamine_jax.sweeps import study as study_lib


class Tpe:
  """Asks Optuna for trials.

  Args:
    study: the sweep.
    group_of: returns the group of settings.
  """

  def __init__(self, study: study_lib.Study, group_of: searches.GroupOf):
    self._optuna = _import()
    self._study = study
    self._group_of = group_of

  def propose(self, state: plan.State) -> list[dict[str, Any]]:
    """Returns the events of new trials; see `searches.AtOnce`."""
    if not plan.has_more(self._study, state):
      return []
    first = len(state.trials)
    known = max(0, first - self._study.ahead * self._study.pack)
    if not all(state.is_over(each, 0) for each in range(known)):
      return []
    last = min(first + self._study.pack, self._study.trials)
    asked = self._ask(state, known, last - first)
    events = []
    for number, settings in enumerate(asked, first):
      events += searches.events(number, settings, self._group_of)
    return events

  def _ask(self, state, known, count):
    """Returns the settings of so many trials, of `known` told the scores."""
    optuna = self._optuna
    seed = np.random.SeedSequence(
      [self._study.search_seed, 2, len(state.trials)]
    )
    with warnings.catch_warnings():
      warnings.simplefilter('ignore', optuna.exceptions.ExperimentalWarning)
      sampler = optuna.samplers.TPESampler(
        seed=int(seed.generate_state(1)[0]),
        constant_liar=True,
        multivariate=True,
        group=True,
      )
    memory = optuna.create_study(direction='maximize', sampler=sampler)
    for trial in state.trials:
      memory.add_trial(self._told(state, trial, trial.number < known))
    return [self._settings(memory.ask()) for _ in range(count)]

  def _told(self, state, trial, is_known):
    """Returns a trial as Optuna has it."""
    states = self._optuna.trial.TrialState
    value, found = None, states.RUNNING
    if is_known:
      scores = state.scores.get((trial.number, 0), np.array([np.nan]))
      value, found = float(np.mean(scores)), states.COMPLETE
      if np.isnan(value):
        value, found = None, states.FAIL
    given = [
      each for each in self._study.dimensions if each.setting in trial.settings
    ]
    return self._optuna.trial.create_trial(
      state=found,
      value=value,
      params={x.setting: _plain(x, trial.settings[x.setting]) for x in given},
      distributions={x.setting: self._distribution(x) for x in given},
    )

  def _settings(self, asked):
    """Returns the settings that Optuna suggests."""
    settings = {}
    for each in self._study.dimensions:
      if each.is_given(settings):
        settings[each.setting] = self._suggested(asked, each)
    return settings

  def _suggested(self, asked, dimension):
    name, domain = dimension.setting, dimension.domain
    if isinstance(domain, spaces.Choice):
      indices = range(len(domain.values))
      return domain.values[asked.suggest_categorical(name, indices)]
    suggest = asked.suggest_int if domain.is_whole else asked.suggest_float
    return domain.rounded(
      suggest(name, domain.low, domain.high, log=domain.is_log)
    )

  def _distribution(self, dimension):
    domain = dimension.domain
    kinds = self._optuna.distributions
    if isinstance(domain, spaces.Choice):
      return kinds.CategoricalDistribution(range(len(domain.values)))
    kind = kinds.IntDistribution if domain.is_whole else kinds.FloatDistribution
    return kind(domain.low, domain.high, log=domain.is_log)


def _plain(dimension, value):
  """Returns a value as Optuna has it: of a list, its place."""
  domain = dimension.domain
  if isinstance(domain, spaces.Choice):
    return domain.index(value)
  return value


def _import():
  try:
    import optuna
  except ImportError as error:
    raise errors.UserError(
      f'--search tpe needs Optuna: {errors.install("sweep")}. Or give --search '
      'random.'
    ) from error
  optuna.logging.set_verbosity(optuna.logging.WARNING)
  return optuna
