"""Plots as SVG inside a page, whose colours they take by class."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from matplotlib import ticker
import numpy as np

from dopamine_jax.analysis import curves as curves_lib
from dopamine_jax.analysis import markup
from dopamine_jax.analysis import plots

SMALL, MEDIUM, WIDE = (300, 170), (440, 270), (920, 320)
MAX_SEEDS = 10  # that are drawn one by one behind their mean
_MAX_DOTS = 200  # episodes of a seed that are drawn
_MAX_HOVER = 200  # points of a curve that a pointer finds
_ROW = 30  # of a strip, its height

element = markup.element


class Frame(NamedTuple):
  """Where a plot lies in its picture, and the numbers that it spans."""

  width: float
  height: float
  x: tuple[float, float]
  y: tuple[float, float]
  left: float = 50
  right: float = 14
  top: float = 12
  bottom: float = 40

  def at_x(self, value: float) -> float:
    """Returns where a number lies from left to right."""
    share = (value - self.x[0]) / (self.x[1] - self.x[0])
    return self.left + share * (self.width - self.left - self.right)

  def at_y(self, value: float) -> float:
    """Returns where a number lies from top to bottom."""
    share = (value - self.y[0]) / (self.y[1] - self.y[0])
    return (
      self.height - self.bottom - share * (self.height - self.top - self.bottom)
    )

  def path(self, x: Sequence[float], y: Sequence[float]) -> str:
    """Returns the `d` of a line; a number that isn't finite breaks it."""
    words, pen = [], 'M'
    for a, b in zip(x, y, strict=True):
      if not np.isfinite(b):
        pen = 'M'
        continue
      words.append(f'{pen}{self.at_x(a):.1f} {self.at_y(b):.1f}')
      pen = 'L'
    return ''.join(words)


def curve(
  curve: curves_lib.Curve,
  title: str,
  *,
  colour: str = 'first',
  size: tuple[int, int] = MEDIUM,
) -> markup.Markup:
  """Draws the mean over seeds in its 95% interval, over agent steps.

  Args:
    curve: of one metric, [T, S].
    title: what it is of, for those who can't see it.
    colour: a class of the page, 'first' or 'second'.
    size: width and height; `SMALL` has no single seeds.
  """
  interval = curve.interval()
  small = size == SMALL
  drawn = [interval.value, interval.low, interval.high]
  seeds = curve.values.T if 1 < curve.num_runs <= MAX_SEEDS else []
  if not small:
    drawn += [*seeds]
  ends = (0, float(curve.steps[-1]))
  frame = Frame(*size, ends, span(np.concatenate(drawn)))
  parts = [*grid(frame, 'agent steps', x_ticks=size[0] // 80)]
  if not small:
    parts += [
      element('path', d=frame.path(curve.steps, seed), class_=f'seed {colour}')
      for seed in seeds
    ]
  parts += _mean(frame, curve.steps, interval, colour)
  return picture(frame, title, _in_words(curve, interval), parts)


def strips(
  rows: Sequence[tuple[str, np.ndarray, tuple[float, float]]],
  title: str,
  label: str,
) -> markup.Markup:
  """Draws a row of dots for each seed, with the mean and its interval.

  Args:
    rows: name, values [E] and the interval of their mean.
    title: what it is of.
    label: of the values.
  """
  height = _ROW * len(rows) + 52
  everything = np.concatenate([values for _, values, _ in rows])
  frame = Frame(440, height, span(everything), (len(rows) - 0.5, -0.5), left=64)
  parts = [*grid(frame, label, x_ticks=5, horizontal=False)]
  jitter = np.random.default_rng(0)
  for i, (name, values, (low, high)) in enumerate(rows):
    y = frame.at_y(i)
    parts.append(
      element('text', name, x=frame.left - 10, y=y + 4, class_='tick end')
    )
    shown = values[:_MAX_DOTS]
    offsets = jitter.uniform(-8, 8, len(shown))
    for value, offset in zip(shown, offsets, strict=True):
      x = f'{frame.at_x(value):.1f}'
      parts.append(
        element('circle', cx=x, cy=f'{y + offset:.1f}', r=2, class_='episode')
      )
    ends = f'M{frame.at_x(low):.1f} {y:.1f}H{frame.at_x(high):.1f}'
    mean = float(np.mean(values))
    note = f'{name}: mean {mean:.4g}, 95% interval {low:.4g} to {high:.4g}'
    parts += [
      element('path', d=ends, class_='bar second'),
      dot(frame.at_x(mean), y, 4.5, 'dot second', note),
    ]
  means = ', '.join(f'{name} {np.mean(values):.4g}' for name, values, _ in rows)
  return picture(frame, title, f'Means: {means}.', parts)


def _mean(frame, steps, interval, colour):
  """Yields the interval, the line and what a pointer over it shows."""
  known = np.isfinite(interval.low).all()
  if len(steps) == 1:
    if known:
      ends = frame.path(steps.repeat(2), [interval.low[0], interval.high[0]])
      yield element('path', d=ends, class_=f'bar {colour}')
  else:
    if known:
      there = frame.path(steps, interval.high)
      back = frame.path(steps[::-1], interval.low[::-1])
      d = f'{there}L{back[1:]}Z'
      yield element('path', d=d, class_=f'band {colour}')
    d = frame.path(steps, interval.value)
    yield element('path', d=d, class_=f'line {colour}')
  thin = slice(None, None, -(-len(steps) // _MAX_HOVER))
  points = (numbers[thin] for numbers in (steps, *interval))
  for step, value, low, high in zip(*points, strict=True):
    if np.isfinite(value):
      note = f'{step:,} agent steps: {value:.4g}'
      if np.isfinite(low):
        note += f' (95% interval {low:.4g} to {high:.4g})'
      x, y = frame.at_x(step), frame.at_y(value)
      alone = f'dot {colour}' if len(steps) == 1 else 'hover'
      yield dot(x, y, 4.5, alone, note)


def dot(
  x: float, y: float, radius: float, class_: str, note: str
) -> markup.Markup:
  """Draws a dot that says something to a pointer over it."""
  return element(
    'circle',
    element('title', note),
    cx=f'{x:.1f}',
    cy=f'{y:.1f}',
    r=radius,
    class_=class_,
  )


def grid(
  frame: Frame,
  label: str,
  x_ticks: int | Sequence[tuple[float, str]],
  horizontal: bool = True,
) -> Iterator[markup.Markup]:
  """Yields lines and numbers of the axes.

  Args:
    frame: of the plot.
    label: of the axis below.
    x_ticks: how many numbers it has at most; or where, and what stands there.
    horizontal: whether lines lie across, with numbers at the left, or upright.
  """
  right, floor = frame.width - frame.right, frame.height - frame.bottom
  if horizontal:
    for value in ticks(frame.y, 6 if frame.height > 200 else 4):
      y = f'{frame.at_y(value):.1f}'
      yield element('path', d=f'M{frame.left} {y}H{right}', class_='grid')
      at = {'x': frame.left - 8, 'y': float(y) + 4}
      yield element('text', short(value, frame.y), class_='tick end', **at)
  if isinstance(x_ticks, int):
    x_ticks = [(x, short(x, frame.x)) for x in ticks(frame.x, x_ticks)]
  for value, text in x_ticks:
    x = f'{frame.at_x(value):.1f}'
    if not horizontal:
      yield element('path', d=f'M{x} {frame.top}V{floor}', class_='grid')
    yield element('text', text, x=x, y=floor + 17, class_='tick middle')
  yield element('path', d=f'M{frame.left} {floor}H{right}', class_='axis')
  middle = (frame.left + right) / 2
  at = {'x': middle, 'y': frame.height - 5}
  yield element('text', label, class_='label middle', **at)


def picture(
  frame: Frame, title: str, description: str, parts: Iterable[markup.Markup]
) -> markup.Markup:
  """Returns a plot with what it says to those who can't see it."""
  return element(
    'svg',
    element('title', title),
    element('desc', description),
    *parts,
    viewBox=f'0 0 {frame.width:g} {frame.height:g}',
    role='img',
    aria_label=f'{title}. {description}',
    xmlns='http://www.w3.org/2000/svg',
  )


def span(values: np.ndarray) -> tuple[float, float]:
  """Returns the finite values' ends with a little room around them."""
  values = values[np.isfinite(values)]
  if not len(values):
    return 0.0, 1.0
  low, high = float(values.min()), float(values.max())
  room = 0.05 * (high - low) or 0.05 * abs(high) or 0.5
  # Zero is a floor, where nothing lies below it.
  return (max(0.0, low - room) if low >= 0 else low - room), high + room


def ticks(ends: tuple[float, float], count: int) -> list[float]:
  """Returns so many round numbers at most that lie between two."""
  low, high = sorted(ends)
  ticks = ticker.MaxNLocator(count, steps=(1, 2, 5, 10)).tick_values(low, high)
  return [x for x in ticks if low <= x <= high]


def short(value: float, ends: tuple[float, float]) -> str:
  """Returns a number as an axis shows it that spans `ends`."""
  if abs(value) < 1e-9 * abs(ends[1] - ends[0]):  # 0, up to rounding
    return '0'
  return plots.short(float(f'{value:.6g}')).replace('-', '\N{MINUS SIGN}')


def _in_words(curve, interval):
  """Describes a curve for those who can't see it."""
  seeds = curve.num_runs
  of = 'One seed' if seeds == 1 else f'Mean over {seeds} seeds'
  (first, *_), (*_, last) = curve.steps, curve.steps
  start, end = interval.value[0], interval.value[-1]
  if len(curve.steps) == 1:
    return f'{of}: {end:.4g} at {last:,} agent steps.'
  return (
    f'{of}: {start:.4g} at {first:,} agent steps, {end:.4g} at {last:,}, '
    f'highest {np.nanmax(interval.value):.4g}.'
  )
