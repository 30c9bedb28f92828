"""A number of the agent that changes at given agent steps."""

from collections.abc import Sequence
from typing import Any

from dopamine_jax import annotations
from dopamine_jax import errors
from dopamine_jax import lanes
from dopamine_jax import settings
from dopamine_jax import values as values_lib  # a field is called `values`
from dopamine_jax.callbacks import base


class Stages(base.Callback):
  """Gives a number of the agent another value from given agent steps on.

  Acting, learning and evaluations at step `at_steps[i]` or later go by
  `values[i]`; what came before goes by the agent's own setting. The value
  follows from the count of agent steps alone, so that a run that is resumed has
  the right one, and no program is compiled again. Under the offline engine,
  which counts steps by iterations, it changes when the next iteration begins.

  Any real number can change that doesn't shape the program: `gamma`,
  `replay.alpha`, `optimizer.learning_rate`. A setting that is an optax schedule
  changes by itself, at each update or agent step, and is refused here; so is
  the first value of what is learnt, as a learnt temperature's.

  Runs that `--vary` a setting can't have stages of the same one.

  Attributes:
    setting: the agent's, with dots into what it is made of.
    at_steps: agent steps from which on the values hold, rising.
    values: one for each step.
  """

  setting: str
  at_steps: Sequence[int]
  values: Sequence[float]

  def __post_init__(self):
    super().__post_init__()
    self.require_at_least(1, 'at_steps')
    if list(self.at_steps) != sorted(set(self.at_steps)) or not self.at_steps:
      self.refuse('at_steps', 'are not one or more rising numbers')
    if len(self.values) != len(self.at_steps):
      self.refuse(
        'values', f'are not one for each of {len(self.at_steps)} steps'
      )

  def why_idle(self, runner, engine):
    """Tells of a run that ends before the first value."""
    del engine
    steps = runner.num_iterations * runner.training_steps
    if self.at_steps[0] <= steps:  # of which the last evaluation is
      return ''
    return (
      f'its first value holds from agent step {self.at_steps[0]:,} on, and the '
      f'run ends with step {steps:,}'
    )

  def after_iteration(self, seen, own):
    """Decides nothing: the values follow from agent steps alone."""
    del seen
    return base.Decision(own)

  def applied(self, agent: Any, agent_steps: int) -> Any:
    """Returns the agent with its value at this step, checked as any other.

    Raises:
      UserError: if the agent has no such setting, or it is no real number.
    """
    if self.setting in dict(agent.of_first_state):
      self.refuse(
        'setting',
        "is of the agent's first state alone, from which learning goes on: "
        'another value later has no effect. Leave this callback out (or, of '
        "SAC's temperature, have it not learnt: temperature_optimizer = None)",
      )
    stage = sum(agent_steps >= step for step in self.at_steps)
    number = float(self.values[stage - 1])
    try:
      changed = self._changed(agent, self.setting.split('.'), number)
    except settings.SettingError as error:
      if error.owner is type(self):
        raise
      self.refuse('values', f'do not fit: {str(error).rstrip(".")}')
    return changed if stage else agent

  def _changed(self, part, path, number):
    shown, *rest = path
    parts = lanes.parts(part)
    names = {str(name): name for name in parts}  # a list's are numbers
    if shown not in names:
      known = ', '.join(sorted(map(str, parts))) or 'no settings that show'
      self.refuse(
        'setting',
        f'is not known: {shown} is none of {known}. (Make an optimizer in '
        'Python by dj.call(optax.adam, ...), as its numbers show)',
      )
    name = names[shown]
    if not rest:
      self._require_number(part, name, parts[name])
    new = self._changed(parts[name], rest, number) if rest else number
    if made := values_lib.origin(part):
      args, kwargs = values_lib.positional(
        made.function, {**made.keywords, name: new}
      )
      return values_lib.call(made.function, *args, **kwargs)
    if values_lib.is_part(part):
      return values_lib.changed(part, **{name: new})
    return lanes.put(part, {(name,): new})

  def _require_number(self, owner, name, value):
    """Refuses what can't change while a program runs."""
    if callable(value):
      self.refuse(
        'setting',
        'is a schedule or function already, which changes by itself. Give it '
        'a number, or leave this callback out',
      )
    is_real = type(value) in (int, float)
    if isinstance(owner, settings.Checked):
      is_real = is_real and settings.takes(owner, name, float)
    if not is_real:
      raise self.unfit(f'names what is {annotations.shown(value)}')

  def unfit(self, reason: str) -> errors.UserError:
    """Returns what to raise about a setting that shapes the program."""
    return settings.SettingError(
      type(self),
      'setting',
      f'stages.Stages.setting = {self.setting!r} {reason}. Only a real number '
      'can change while a program runs. For what shapes it (whole numbers, '
      'sizes, choices, networks) end the run at that step, and begin another '
      "one with the new value: runner.Runner.start_from = 'FOLDER'.",
    )
