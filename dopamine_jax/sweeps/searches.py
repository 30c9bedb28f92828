"""Which settings are tried: every combination, or so many at random."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dopamine_jax.sweeps import plan
from dopamine_jax.sweeps import spaces
from dopamine_jax.sweeps import study as study_lib

# Returns the group of settings: trials of one can train in one program.
GroupOf = Callable[[Mapping[str, Any]], int]


class AtOnce:
  """All trials are known from the start.

  Args:
    study: the sweep.
    group_of: returns the group of settings.
  """

  def __init__(self, study: study_lib.Study, group_of: GroupOf):
    self._settings = at_once(study)
    self._group_of = group_of

  def propose(self, state: plan.State) -> list[dict[str, Any]]:
    """Returns the events of new trials; none while results are awaited.

    Raises:
      UserError: if one of them can't be meant, and none has begun yet.
    """
    if state.trials:
      return []
    found = []
    for number, settings in enumerate(self._settings):
      found += events(number, settings, self._group_of)
    return found


def events(
  number: int, settings: dict[str, Any], group_of: GroupOf
) -> list[dict[str, Any]]:
  """Returns the events of a new trial, which enters the first rung."""
  name = spaces.folder_name(number, settings)
  trial = plan.Trial(number, name, settings, group_of(settings))
  return [trial.record(), plan.entered(number, 0)]


def at_once(study: study_lib.Study) -> Sequence[dict[str, Any]]:
  """Returns the settings of all trials of a grid, or of a random search."""
  if study.search == 'grid':
    return spaces.combinations(study.dimensions)
  return [
    spaces.draw(
      study.dimensions, np.random.default_rng([study.search_seed, 0, number])
    )
    for number in range(study.trials)
  ]


def of(study: study_lib.Study, group_of: GroupOf) -> Any:
  """Returns the search of a sweep."""
  if study.search == 'tpe':
    from dopamine_jax.sweeps import tpe

    return tpe.Tpe(study, group_of)
  return AtOnce(study, group_of)
