"""Which trials fit into one program: those that differ in agents' numbers."""

from collections.abc import Mapping
from typing import Any

from dopamine_jax import errors
from dopamine_jax.sweeps import plan
from dopamine_jax.sweeps import study as study_lib
from dopamine_jax.training import together

# Settings of a runner by which trials are compared.
_SCHEDULE = (
  *('num_iterations', 'training_steps', 'checkpoint_period'),
  *('evaluation_period', 'evaluation_episodes'),
)


class Groups:
  """Tells the group of settings, beside those of trials that are known.

  Args:
    study: the sweep.
    state: what its journal tells; it may grow.
  """

  def __init__(self, study: study_lib.Study, state: plan.State):
    self._study = study
    self._state = state
    self._base = None  # the runner of the files alone
    # Of trials that are being proposed: settings by group, and the other way.
    self._new = {}
    self._found = {}

  def __call__(self, settings: Mapping[str, Any]) -> int:
    """Returns the group of settings.

    Raises:
      UserError: if they can't be meant.
    """
    if repr(settings) not in self._found:
      self._found[repr(settings)] = self._find(settings)
    return self._found[repr(settings)]

  def _find(self, settings):
    known = {each.group: each.settings for each in reversed(self._state.trials)}
    known |= self._new
    with self._study.configured(settings) as runner:
      together.require_alike({'the trial': runner})
    base = self._base = self._base or self._study.runner({})
    for name in _SCHEDULE:
      if getattr(runner, name) != getattr(base, name):
        raise errors.UserError(
          f'--vary: {name} is {getattr(runner, name)} in one trial and '
          f'{getattr(base, name)} in others, and a sweep compares trials that '
          'were trained and evaluated alike. Leave it out.'
        )
    for group, others in sorted(known.items()):
      if _shape(others) == _shape(settings) and self._fit(others, settings):
        return group
    group = len(known)
    self._new[group] = settings
    return group

  def _fit(self, one, other):
    runners = {
      'one trial': self._study.runner(one),
      'another': self._study.runner(other),
    }
    try:
      together.require_alike(runners)
    except errors.UserError:
      return False
    return True


def _shape(settings):
  """Returns what of settings can't differ in one program, as far as is seen."""
  return {
    name: None if type(value) is float else (type(value), value)
    for name, value in settings.items()
  }
