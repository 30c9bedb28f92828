"""Population-based training as a picture: who went on from whom, and when."""

from collections.abc import Mapping
import itertools
import math

import numpy as np

from dopamine_jax.analysis import html_parts as parts
from dopamine_jax.analysis import markup
from dopamine_jax.analysis import svg
from dopamine_jax.sweeps import outcome as outcome_lib
from dopamine_jax.sweeps import pictures

_WIDTH, _ROW = 920, 20
_BEND = 12  # of a fork, to the left of where its trial begins

element = markup.element


def rows(outcome: outcome_lib.Outcome) -> dict[int, int]:
  """Returns the place in the population that each trial has, by its number.

  One that went on from another has the place of the trial that ended there.
  """
  state = outcome.state
  found, count = {}, 0
  free: dict[int, list[int]] = {}
  for trial, rung in state.stopped.items():
    free.setdefault(rung, []).append(trial)
  for trial in state.trials:
    ended = free.get(trial.rung, []) if trial.parent is not None else []
    ended = [each for each in ended if each in found]
    if ended:
      free[trial.rung].remove(ended[0])
      found[trial.number] = found[ended[0]]
    else:
      found[trial.number] = count
      count += 1
  return found


def ancestors(outcome: outcome_lib.Outcome, number: int) -> list[int]:
  """Returns a trial and those that it went on from, the nearest first."""
  found = [number]
  while (parent := outcome.state.trials[found[-1]].parent) is not None:
    found.append(parent)
  return found


def draw(outcome: outcome_lib.Outcome) -> markup.Markup:
  """Draws a line for each trial from rung to rung, coloured by its score.

  Curves lead from a trial to one that went on from it; those of the best trial
  are thick.
  """
  places = rows(outcome)
  count = max(places.values()) + 1
  steps = [outcome.steps(x) for x in range(len(outcome.study.rungs))]
  frame = svg.Frame(
    *(_WIDTH, _ROW * count + 60, (0, steps[-1]), (count - 0.5, -0.5)),
    left=14,
    right=60,
  )
  scores = _scores(outcome)
  everything = np.array([*scores.values()])
  best = ancestors(outcome, outcome.trials[0].number)
  # Up to which rung what the best has learned was each ancestor's.
  until = {best[0]: len(steps)}
  for child, parent in itertools.pairwise(best):
    until[parent] = outcome.state.trials[child].rung
  drawn = [*svg.grid(frame, 'agent steps', 8, horizontal=False)]
  forks, lines = [], []
  for trial in outcome.state.trials:
    row = places[trial.number]
    kind = ' best' if trial.number in best else ''
    if trial.parent is not None:
      at = frame.at_x(outcome.steps(trial.rung))
      forks.append(_fork(frame, at, places[trial.parent], row, kind))
    thick = until.get(trial.number, -1)
    lines += _line(frame, outcome, trial, row, scores, everything, thick)
    ended = max((r for t, r in scores if t == trial.number), default=None)
    if ended == len(steps) - 1:
      x, y = frame.at_x(steps[-1]) + 8, frame.at_y(row) + 4
      label = f'{trial.number:04}'
      lines.append(element('text', label, x=x, y=y, class_=f'tick{kind}'))
  forked = sum(x.parent is not None for x in outcome.state.trials)
  words = (
    f'A population of {count}; {parts.count(forked, "trial")} went on from '
    f'others. The best, {outcome.trials[0].label}, came from '
    f'{", ".join(f"{x:04}" for x in best[1:]) or "none"}.'
  )
  return svg.picture(
    frame, 'Who went on from whom', words, [*drawn, *lines, *forks]
  )


def _scores(outcome) -> Mapping[tuple[int, int], float]:
  return {
    at: float(np.mean(scores)) for at, scores in outcome.state.scores.items()
  }


def _line(frame, outcome, trial, row, scores, everything, thick):
  """Yields a trial's line to each rung; up to some it is thick."""
  y = frame.at_y(row)
  begins = max(0, trial.rung + (trial.parent is not None))
  for rung in range(begins, len(outcome.study.rungs)):
    if (trial.number, rung) not in scores:
      return
    score = scores[trial.number, rung]
    begin = frame.at_x(outcome.steps(rung - 1))
    end = frame.at_x(outcome.steps(rung))
    kind = ' best' if rung <= thick else ''
    shade = pictures.colour(score, everything)
    words = f'{trial.number:04}: {score:.4g} at {outcome.steps(rung):,}'
    if math.isnan(score):
      words = f'{trial.number:04}: no score at {outcome.steps(rung):,}'
    yield element(
      'path',
      element('title', f'{words} agent steps'),
      d=f'M{begin:.1f} {y:.1f}H{end - 1.5:.1f}',
      class_=f'life q{shade}{kind}',
    )


def _fork(frame, x, from_row, to_row, kind):
  """Returns the curve from one place of the population to another."""
  a, b = frame.at_y(from_row), frame.at_y(to_row)
  left = x - _BEND
  d = f'M{left:.1f} {a:.1f}C{x:.1f} {a:.1f} {left:.1f} {b:.1f} {x:.1f} {b:.1f}'
  return element('path', d=d, class_=f'fork{kind}')
