"""What to run after a sweep, and why: words, and commands that do it."""

from collections.abc import Sequence
import dataclasses
from typing import Any, NamedTuple

from dopamine_jax.analysis import chance
from dopamine_jax.analysis import ranking
from dopamine_jax.sweeps import findings as findings_lib
from dopamine_jax.sweeps import lines
from dopamine_jax.sweeps import outcome as outcome_lib
from dopamine_jax.sweeps import spaces

_EDGE = 0.1  # of a range, in which the best value is said to be at its edge
_TOP = 4  # one of so many trials is of the best
_NEAR = 0.25  # of a range, in which half of the best must lie too
_TRIALS_TO_FIX = 20  # below which no setting is said to be without influence
_SMALL = 0.05  # share of the ranks, up to which it may be
_CANDIDATES = 4  # trials that are trained with more seeds


class Step(NamedTuple):
  """A thing to do.

  Attributes:
    title: in a few words.
    why: in sentences.
    commands: that do it; may be empty.
  """

  title: str
  why: str
  commands: Sequence[str] = ()


def of(
  outcome: outcome_lib.Outcome,
  findings: Sequence[findings_lib.Finding],
  same: Sequence[outcome_lib.Trial],
) -> list[Step]:
  """Returns what to do, the most urgent first.

  Args:
    outcome: of the sweep.
    findings: on its settings.
    same: trials that the best can not be told apart from.
  """
  steps = []
  if not outcome.is_complete:
    steps.append(
      Step(
        'Let it end',
        'Trials are not trained to their end, and what is best may change. '
        'Where it was stopped, this goes on; beside a sweep that still runs, '
        'it adds workers.',
        [lines.resume(outcome.folder)],
      )
    )
  if not outcome.trials:
    return steps
  if same:
    steps.append(_more_seeds(outcome, same))
  again = _another_sweep(outcome, findings)
  steps += [again] if again else []
  return steps


def _more_seeds(outcome, same):
  """More seeds of the best few, which chance did not choose."""
  few = [outcome.trials[0], *same][:_CANDIDATES]
  pairs = len(few) * (len(few) - 1) // 2
  seeds = max(5, chance.fewest_runs(pairs))
  study = outcome.study
  folder = f'{outcome.folder}-seeds'
  first = study.seed + study.num_seeds
  commands = [
    lines.train(study, x.settings, f'{folder}/{x.label}', first, seeds)
    for x in few
  ]
  words = (
    f'{ranking.listed([x.label for x in few])} can not be told apart yet. '
    f'Train them with {seeds} seeds that the sweep has not used, so that what '
    'was best by luck shows; '
    f'with fewer than {chance.fewest_runs(pairs)} nothing can.'
  )
  if study.scheduler == 'pbt':
    words += (
      ' These begin anew, with the settings that the trials had at their end: '
      'what their ancestors had learned is not theirs.'
    )
  return Step(
    'More seeds of the best', words, [*commands, lines.compare(study, folder)]
  )


def _another_sweep(outcome, findings):
  """A sweep without what does not matter, wider where the best lie."""
  study = outcome.study
  fixed, wider, said = {}, {}, []
  for dimension in study.dimensions:
    name = dimension.setting
    finding = next(x for x in findings if x.setting == name)
    short = ranking.short_settings([name])[0]
    if found := _widened(outcome, dimension):
      side, wider[name] = found
      said.append(
        f'The best values of {short} lie at the {side} of its range: widen it.'
      )
    elif _can_be_fixed(outcome, dimension, finding):
      fixed[name] = outcome.trials[0].settings[name]
      said.append(
        f'No influence of {short} can be seen: fix it at '
        f'{findings_lib.shown(repr(fixed[name]))}, as the best trial has it.'
      )
  kept = [x for x in study.dimensions if x.setting not in fixed]
  if not said or not kept:
    return None
  space = [lines.written(x, wider.get(x.setting)) for x in kept]
  command = lines.sweep(
    *(study, space, f'{outcome.folder}-2'),
    fixed=fixed,
    search_seed=study.search_seed + 1,
  )
  return Step('Another sweep', ' '.join(said), [command])


def _can_be_fixed(outcome, dimension, finding):
  """Whether a setting is seen to be without influence, and another is not."""
  is_needed = any(
    x.when and x.when[0] == dimension.setting for x in outcome.study.dimensions
  )
  return (
    finding.is_known
    and not finding.matters
    and finding.trials >= _TRIALS_TO_FIX
    and finding.share <= _SMALL
    and dimension.when is None
    and not is_needed
    and dimension.setting in outcome.trials[0].settings
    and outcome.study.scheduler != 'pbt'
  )


def _widened(outcome, dimension) -> tuple[str, Any] | None:
  """Returns at which end of a domain the best lie, and a wider one."""
  values = [value for _, value in outcome.values(dimension.setting)]
  best = values[: max(3, len(values) // _TOP)]
  domain = dimension.domain
  if (
    len(values) < 4
    or outcome.trials[0].settings.get(dimension.setting) != best[0]
  ):
    return None
  if isinstance(domain, spaces.Choice):
    return _longer(domain, best)
  places = [domain.place(x) for x in best]
  for side, at in (
    ('lower end', places),
    ('upper end', [1 - x for x in places]),
  ):
    near = sum(x <= _NEAR for x in at)
    if at[0] <= _EDGE and 2 * near >= len(at):
      wider = _wider(domain, side == 'lower end')
      return (side, wider) if wider else None
  return None


def _wider(domain, is_low):
  """Returns a range that goes on beyond an end; None if it can't be told how.

  What lies between 0 and 1, as a discount does, stays there.
  """
  low, high = domain.low, domain.high
  if is_low:
    if domain.is_whole:
      new = max(1, low // 2)
    elif domain.is_log:
      new = float(f'{low / 10:.4g}')
    else:
      new = max(low - (high - low) / 2, low / 2) if low >= 0 else 2 * low
      new = float(f'{new:.4g}')
    return dataclasses.replace(domain, low=new) if new < low else None
  if domain.is_whole:
    new = 2 * high if high > 0 else 0
  elif 0 <= low and high <= 1 and not domain.is_log:
    new = float(f'{1 - (1 - high) / 10:.8g}')
  elif domain.is_log:
    new = min(10 * high, 1.0) if high <= 1 else 10 * high
  else:
    new = high + (high - low) / 2
  new = new if domain.is_whole else float(f'{new:.8g}')
  return dataclasses.replace(domain, high=new) if new > high else None


def _longer(domain, best):
  """Returns a list of numbers with one more, where the best is at its end."""
  values = domain.values
  are_numbers = all(type(x) in (int, float) for x in values)
  if len(values) < 3 or not are_numbers or 2 * best.count(best[0]) < len(best):
    return None
  order = sorted(values)
  is_low = best[0] == order[0]
  if not is_low and best[0] != order[-1]:
    return None
  one, other = (order[0], order[1]) if is_low else (order[-1], order[-2])
  new = one * one / other if min(order) > 0 else 2 * one - other
  if all(type(x) is int for x in values):
    new = max(1, round(new)) if min(order) > 0 else round(new)
  elif min(order) >= 0 and max(order) <= 1 < new:
    new = 1 - (1 - one) / 10
  new = new if type(new) is int else float(f'{new:.4g}')
  if new in values or not (new < one if is_low else new > one):
    return None
  both = (new, *values) if is_low else (*values, new)
  return ('lower end' if is_low else 'upper end'), spaces.Choice(both)
