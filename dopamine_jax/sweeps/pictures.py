"""A sweep's trials as SVG: by one setting, by all, and over agent steps."""

from collections.abc import Iterator, Sequence
import math
from typing import Any

import numpy as np

from dopamine_jax.analysis import html_parts as parts
from dopamine_jax.analysis import markup
from dopamine_jax.analysis import svg
from dopamine_jax.sweeps import findings as findings_lib
from dopamine_jax.sweeps import outcome as outcome_lib
from dopamine_jax.sweeps import spaces

COLOURS = 10  # of scores, from the lowest to the highest
_LABEL = 18  # letters of a value
_BROAD = (920, 360)

element = markup.element


def marginal(
  outcome: outcome_lib.Outcome, dimension: spaces.Dimension, title: str
) -> markup.Markup:
  """Draws the score of each trial against its value of a setting.

  Bars are 95% intervals, and end where the picture does. Trials that did not go
  as far as the best one are faint, and the best has another colour.
  """
  have = outcome.values(dimension.setting)
  axis = Axis(dimension.domain, [value for _, value in have])
  scores = np.concatenate([[x.mean, *x.scores] for x, _ in have])
  frame = svg.Frame(*svg.MEDIUM, (-0.04, 1.04), svg.span(scores))
  drawn = [*svg.grid(frame, title, axis.ticks())]
  jitter = np.random.default_rng(0)
  furthest = outcome.trials[0].rung
  for trial, value in reversed(have):  # the best lie on top
    if math.isnan(trial.mean):
      continue
    place = axis.place(value)
    if axis.is_list:
      place += jitter.uniform(-0.25, 0.25) / max(2, axis.count)
    best = trial is outcome.trials[0]
    kind = 'second' if best else 'first'
    kind += '' if trial.rung == furthest else ' faint'
    drawn += _point(frame, place, trial, kind, f'{title} {_shown(value)}')
  words = (
    f'{parts.count(len(have), "trial")}; the best, {outcome.trials[0].label}, '
    f'has {_shown(outcome.trials[0].settings.get(dimension.setting, "none"))}.'
  )
  return svg.picture(frame, f'Score by {title}', words, drawn)


def parallel(
  outcome: outcome_lib.Outcome, titles: Sequence[str]
) -> markup.Markup:
  """Draws each trial as a line through its settings and its score."""
  dimensions = outcome.study.dimensions
  means = np.array([x.mean for x in outcome.trials])
  low, high = svg.span(means)
  frame = svg.Frame(
    *(*_BROAD, (0, len(dimensions)), (-0.03, 1.03)),
    *(max(30, 3.6 * len(titles[0])), 60, 40, 28),
  )
  axes = [
    Axis(each.domain, [v for _, v in outcome.values(each.setting)])
    for each in dimensions
  ]
  drawn = []
  furthest = outcome.trials[0].rung
  for trial in reversed(outcome.trials):
    if math.isnan(trial.mean):
      continue
    heights = [
      axis.place(trial.settings[each.setting])
      if each.setting in trial.settings
      else math.nan
      for axis, each in zip(axes, dimensions, strict=True)
    ]
    heights.append((trial.mean - low) / (high - low))
    kind = f'path q{colour(trial.mean, means)}'
    kind += '' if trial.rung == furthest else ' faint'
    kind += ' best' if trial is outcome.trials[0] else ''
    d = frame.path(range(len(heights)), heights)
    note = element('title', f'{trial.label}: {trial.mean:.4g}')
    drawn.append(element('path', note, d=d, class_=kind))
  for i, (axis, title) in enumerate(zip(axes, titles, strict=True)):
    drawn += _upright(frame, i, title, axis.ends(), axis.is_list)
  ends = [(0.0, f'{low:.4g}'), (1.0, f'{high:.4g}')]
  drawn += _upright(frame, len(axes), 'score', ends, False)
  best = outcome.trials[0]
  words = f'{parts.count(len(means), "trial")}; the best is {best.label}.'
  return svg.picture(frame, 'All settings and the score', words, drawn)


def curves(
  outcome: outcome_lib.Outcome,
  trials: Sequence[outcome_lib.Trial],
  size: tuple[int, int],
) -> markup.Markup:
  """Draws the means of trials over agent steps, the first with its interval.

  The interval, which may be far wider than what was seen, is cut where the
  picture ends.
  """
  own = [x.curve for x in trials]
  first = own[0].interval()
  drawn = [own[0].values.ravel()]
  drawn += [curve.values.mean(axis=1) for curve in own]
  end = max(float(curve.steps[-1]) for curve in own)
  frame = svg.Frame(*size, (0, end), svg.span(np.concatenate(drawn)))
  pieces = [*svg.grid(frame, 'agent steps', size[0] // 80)]
  if np.isfinite(first.low).all():
    low, high = (np.clip(x, *frame.y) for x in first[1:])
    there = frame.path(own[0].steps, high)
    back = frame.path(own[0].steps[::-1], low[::-1])
    pieces.append(element('path', d=f'{there}L{back[1:]}Z', class_='band c0'))
  for i, (trial, curve) in reversed([*enumerate(zip(trials, own))]):  # noqa: B905
    d = frame.path(curve.steps, curve.values.mean(axis=1))
    note = element('title', trial.label)
    pieces.append(element('path', note, d=d, class_=f'line c{i}'))
  ends = [f'{x.label} {x.mean:.4g}' for x in trials]
  words = f'At their ends: {", ".join(ends)}.'
  return svg.picture(frame, f'{outcome.study.metric}', words, pieces)


def colour(value: float, among: np.ndarray) -> int:
  """Returns which of the colours a score has, the lowest 0."""
  among = among[np.isfinite(among)]
  low, high = float(among.min()), float(among.max())
  if math.isnan(value) or high <= low:
    return COLOURS - 1 if high <= low else 0
  share = (value - low) / (high - low)
  return min(COLOURS - 1, max(0, int(share * COLOURS)))


class Axis:
  """Where the values of a setting lie, from 0 to 1.

  Args:
    domain: what it may be.
    values: those that there are; population-based training may have others.
  """

  def __init__(self, domain: spaces.Choice | spaces.Range, values: Sequence):
    self._domain = domain
    self.is_list = isinstance(domain, spaces.Choice)
    if self.is_list:
      known = [*map(repr, domain.values), *map(repr, map(_frozen, values))]
      self._values = [*dict.fromkeys(known)]

  @property
  def count(self) -> int:
    """The number of values of a list."""
    return len(self._values)

  def place(self, value: Any) -> float:
    """Returns where a value lies."""
    if self.is_list:
      return (self._values.index(repr(_frozen(value))) + 0.5) / self.count
    return self._domain.place(value)

  def ticks(self) -> list[tuple[float, str]]:
    """Returns where something stands, and what."""
    if self.is_list:
      words = [_cut(findings_lib.shown(each)) for each in self._values]
      return [((i + 0.5) / self.count, word) for i, word in enumerate(words)]
    low, high = self._domain.low, self._domain.high
    if not self._domain.is_log:
      numbers = svg.ticks((low, high), 4)
      return [(self.place(x), _number(x)) for x in numbers]
    return [(self.place(x), _number(x)) for x in _of_log(low, high)]

  def ends(self) -> list[tuple[float, str]]:
    """Returns the least and the greatest; of a list all that have room."""
    if self.is_list:
      return self.ticks()
    low, high = self._domain.low, self._domain.high
    return [(0.0, _number(low)), (1.0, _number(high))]


def _of_log(low, high):
  """Returns round numbers between two, even in the logarithm."""
  powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
  for factors in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
    found = [
      float(f'{f}e{power}')
      for power in powers
      for f in factors
      if low <= float(f'{f}e{power}') <= high
    ]
    if len(found) >= 3:
      break
  thin = -(-len(found) // 5)
  return found[::thin]


def _point(frame, place, trial, kind, note) -> Iterator[markup.Markup]:
  """Yields a trial's score with its interval."""
  x = frame.at_x(place)
  mean, low, high = map(float, trial.interval)
  words = f'{trial.label}: {mean:.4g}'
  if math.isfinite(low):
    words += f' (95% interval {low:.4g} to {high:.4g})'
    ends = [
      frame.at_y(min(max(y, frame.y[0]), frame.y[1])) for y in (low, high)
    ]
    d = f'M{x:.1f} {ends[0]:.1f}V{ends[1]:.1f}'
    yield element('path', d=d, class_=f'whisker {kind}')
  words += f', {note}, {trial.end} at {trial.steps:,} agent steps'
  yield svg.dot(x, frame.at_y(mean), 4.5, f'dot {kind}', words)


def _upright(frame, x, title, ends, is_list) -> Iterator[markup.Markup]:
  """Yields an axis that stands upright, with its name above it."""
  at = f'{frame.at_x(x):.1f}'
  top, floor = frame.at_y(1), frame.at_y(0)
  yield element('path', d=f'M{at} {top:.1f}V{floor:.1f}', class_='axis')
  label = {'x': at, 'y': frame.top - 20, 'class_': 'label middle'}
  yield element('text', title, **label)
  for share, word in ends:
    y = frame.at_y(share) + 4
    if not is_list:  # below and above the axis, where no line goes
      y = floor + 18 if share < 0.5 else top - 7
    kind = 'tick' if is_list else 'tick middle'
    dx = 7 if is_list else 0
    yield element('text', word, x=float(at) + dx, y=f'{y:.1f}', class_=kind)


def _frozen(value):
  """Returns lists, as JSON has them, as the tuples that they were."""
  return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _number(value):
  return f'{value:.6g}'.replace('-', '\N{MINUS SIGN}')


def _shown(value):
  return _cut(findings_lib.shown(repr(value)))


def _cut(text):
  return text if len(text) <= _LABEL else f'{text[: _LABEL - 1]}\u2026'
