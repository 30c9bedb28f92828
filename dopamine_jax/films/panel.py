"""What an agent expects and means to do, drawn beside the frames of a film.

Drawn with Pillow, at twice the size and then reduced, so that lines are smooth.
"""

from collections.abc import Callable, Sequence
import functools
import math

import numpy as np
from PIL import Image
from PIL import ImageDraw
from PIL import ImageFont

from dopamine_jax import agent as agent_lib

WIDTH = 360  # pixels

_SCALE = 2
_MARGIN = 16
_GAP = 14  # between sections
_TITLE = 22  # a section's first line
_MAX_ACTIONS = 18  # as many as Atari has; more would be too small to read
_FEW_ACTIONS = 9
_CURVE = 200  # at most; one that is higher says no more
_HISTORY = WIDTH - 2 * _MARGIN  # steps of the curve, one a pixel
_GRID = 120  # points of a distribution's curve

_BACKGROUND = (24, 27, 34)
_TRACK = (40, 45, 55)
_RULE = (74, 82, 97)
_TEXT = (233, 236, 241)
_FAINT = (150, 158, 172)
_BAR = (92, 132, 184)
_CHOSEN = (255, 178, 72)
_VALUE = (96, 206, 190)
_HEAT = (255, 64, 129)


class Panel:
  """Draws one panel a step; what scales by earlier steps is kept here.

  Attributes:
    height: of the image, in pixels.
    names: of the actions; None: their numbers.
  """

  def __init__(self, height: int, names: Sequence[str] | None = None):
    self.height = height
    self.names = names
    self._values = []
    # Scales only grow, or shrink slowly: a picture that jumps can't be read.
    self._advantage = 0.0
    self._returns = (math.inf, -math.inf)

  def begin(self):
    """Begins an episode."""
    self._values = []

  def draw(
    self, outlook: agent_lib.Outlook, action: np.ndarray, score: float
  ) -> np.ndarray:
    """Returns the next step's panel, uint8 [height, WIDTH, 3].

    Args:
      outlook: the agent's, of one environment: without the axis [N].
      action: what is done, [*action_shape].
      score: the rewards of the episode so far.
    """
    step = len(self._values)
    self._values.append(float(outlook.value))
    canvas = _Canvas(WIDTH, self.height)
    y = self._header(canvas, score, step)
    y = self._actions(canvas, y, outlook, action)
    if outlook.distribution is not None:
      bottom = min((y + self.height - _MARGIN - _GAP) // 2, y + _CURVE)
      self._distribution(canvas, y, bottom, outlook.distribution, int(action))
      y = bottom + _GAP
    self._curve(canvas, y, min(self.height - _MARGIN, y + _CURVE))
    return canvas.image()

  def _header(self, canvas, score, step):
    """Draws three numbers; returns where the next section begins."""
    width = (WIDTH - 2 * _MARGIN) / 3
    fields = (
      ('RETURN', _rounded(score), _TEXT),
      ('STEP', f'{step:,}', _TEXT),
      ('VALUE', _rounded(self._values[-1]), _VALUE),
    )
    for i, (name, number, colour) in enumerate(fields):
      x = _MARGIN + i * width
      canvas.text(x, _MARGIN - 4, name, 11, _FAINT)
      canvas.text(x, _MARGIN + 9, number, 21, colour)
    return _MARGIN + 36 + _GAP

  def _actions(self, canvas, y, outlook, action):
    """Draws what speaks for each action, if the agent tells it."""
    if outlook.probabilities is not None:
      title, hint = 'Policy', 'probability of each action'
      draw = functools.partial(_probability, outlook.probabilities)
      shown = _most(outlook.probabilities)
    elif outlook.values is not None:
      title, hint = 'Action values', 'bars: distance from their mean'
      draw = self._advantages(outlook.values)
      shown = _most(outlook.values)
    elif outlook.mean is not None:
      title, hint = 'Action', 'bar: mean, line: taken'
      draw = _continuous(outlook, np.ravel(action))
      shown = np.arange(min(outlook.mean.size, _MAX_ACTIONS))
    else:
      return y
    chosen = int(action) if outlook.mean is None else None
    canvas.title(y, title, hint)
    return self._bars(canvas, y + _TITLE, shown, chosen, draw) + _GAP

  def _bars(self, canvas, y, shown, chosen, draw: Callable):
    """Draws a row for each action that is shown; returns where they end."""
    size, row = (12, 17) if len(shown) <= _FEW_ACTIONS else (10, 13)
    row = max(row, min(26, 80 // len(shown)))
    names = [self._name(i) for i in shown]
    indent = max(canvas.length(name, size) for name in names) + 8
    left = _MARGIN + min(indent, WIDTH / 3)
    right = WIDTH - _MARGIN - canvas.length('-00.00', size) - 6
    for i, name in zip(shown, names, strict=True):
      is_chosen = i == chosen
      colour = _CHOSEN if is_chosen else _BAR
      bar = (left, y + row / 6, right, y + row - row / 6)
      canvas.box(bar, _TRACK)
      number = draw(canvas, bar, i, colour)
      canvas.text(_MARGIN, y, name, size, _TEXT if is_chosen else _FAINT, row)
      canvas.text(
        *(WIDTH - _MARGIN, y, number, size),
        *(colour if is_chosen else _FAINT, row, 'r'),
      )
      y += row
    return y

  def _name(self, i):
    return str(i) if self.names is None else str(self.names[i])

  def _advantages(self, values):
    advantage = values - np.mean(values)
    largest = float(np.max(np.abs(advantage)))
    self._advantage = max(largest, 0.995 * self._advantage, 1e-6)

    def draw(canvas, bar, i, colour):
      canvas.bar(bar, 0, advantage[i] / self._advantage, colour)
      return _rounded(values[i])

    return draw

  def _distribution(self, canvas, y, bottom, distribution, chosen):
    """Draws the curves of all actions, the chosen one's in front."""
    canvas.title(y, 'Return distribution', 'of each action')
    returns, probabilities = (np.asarray(x, float) for x in distribution)
    low, high = self._range(returns, probabilities)
    grid = np.linspace(low, high, _GRID)
    heights = density(returns, probabilities, grid)
    heights /= max(heights.max(), 1e-12)
    box = (_MARGIN, y + _TITLE, WIDTH - _MARGIN, bottom - 14)
    canvas.box(box, _TRACK)
    for i in _most(heights.max(axis=-1)):
      if i != chosen:
        canvas.curve(box, heights[i], _BAR)
    canvas.curve(box, heights[chosen], _CHOSEN, fill=True)
    mean = float(np.sum(returns[chosen] * probabilities[chosen]))
    x = box[0] + (mean - low) / (high - low) * (box[2] - box[0])
    canvas.line([(x, box[1]), (x, box[3])], _TEXT)
    canvas.text(box[0], bottom - 14, _rounded(low), 11, _FAINT)
    canvas.text(box[2], bottom - 14, _rounded(high), 11, _FAINT, side='r')

  def _range(self, returns, probabilities):
    """Returns bounds of nearly all that was expected so far."""
    below = np.cumsum(probabilities, axis=-1)
    likely = (below > 0.005) & (below - probabilities < 0.995)
    low, high = returns[likely].min(), returns[likely].max()
    margin = max(0.05 * (high - low), 1e-3)
    self._returns = (
      min(self._returns[0], low - margin),
      max(self._returns[1], high + margin),
    )
    return self._returns

  def _curve(self, canvas, y, bottom):
    """Draws the values of the last steps."""
    values = np.array(self._values[-_HISTORY:])
    low, high = values.min(), values.max()
    canvas.title(y, 'Value', f'of the last {_HISTORY} steps')
    canvas.text(WIDTH - _MARGIN, y, _rounded(high), 11, _FAINT, 16, 'r')
    canvas.text(
      WIDTH - _MARGIN, bottom - 14, _rounded(low), 11, _FAINT, side='r'
    )
    box = (_MARGIN, y + _TITLE, WIDTH - _MARGIN, bottom - 14)
    canvas.box(box, _TRACK)
    heights = np.full(_HISTORY, np.nan)
    heights[: len(values)] = 0.5
    if high > low:
      heights[: len(values)] = 0.06 + 0.88 * (values - low) / (high - low)
    canvas.curve(box, heights, _VALUE)


class _Canvas:
  """An image with few shapes; all lengths are in pixels of the result."""

  def __init__(self, width, height):
    size = (_SCALE * width, _SCALE * height)
    self._image = Image.new('RGB', size, _BACKGROUND)
    self._draw = ImageDraw.Draw(self._image, 'RGBA')

  def image(self):
    return np.asarray(self._image.reduce(_SCALE))

  def length(self, text, size):
    return _font(size).getlength(text) / _SCALE

  def text(self, x, y, text, size, colour, height=None, side='l'):
    """Writes one line below y, or in the middle of `height`."""
    anchor, place = f'{side}a', (_SCALE * x, _SCALE * y)
    if height is not None:
      anchor, place = f'{side}m', (_SCALE * x, _SCALE * (y + height / 2))
    self._draw.text(place, text, colour, _font(size), anchor=anchor)

  def title(self, y, text, hint):
    self.text(_MARGIN, y, text, 13, _TEXT, 16)
    x = _MARGIN + self.length(text, 13) + 8
    self.text(x, y + 1, hint, 11, _FAINT, 16)

  def box(self, box, colour):
    left, top, right, bottom = (_SCALE * x for x in box)
    self._draw.rectangle((left, top, max(right, left), bottom), colour)

  def bar(self, box, start, end, colour):
    """Fills a box that stands for [-1, 1] from `start` to `end`."""
    left, top, right, bottom = box
    ends = np.clip([start, end], -1, 1)
    low, high = left + (np.sort(ends) + 1) / 2 * (right - left)
    self.box((low, top, high, bottom), colour)
    if start == 0:
      middle = (left + right) / 2
      self.line([(middle, top - 2), (middle, bottom + 2)], _RULE)

  def line(self, points, colour, width=1.0):
    points = [(_SCALE * x, _SCALE * y) for x, y in points]
    self._draw.line(points, colour, round(_SCALE * width), joint='curve')

  def curve(self, box, heights, colour, fill=False):
    """Draws heights in [0, 1] over the width of a box; NaN is left out."""
    left, top, right, bottom = box
    x = np.linspace(left, right, len(heights))
    y = bottom - heights * (bottom - top - 2)
    points = [(a, b) for a, b in zip(x, y, strict=True) if math.isfinite(b)]
    if fill:
      corners = [(left, bottom), *points, (right, bottom)]
      corners = [(_SCALE * a, _SCALE * b) for a, b in corners]
      self._draw.polygon(corners, (*colour, 90))
    if len(points) > 1:
      self.line(points, colour, 1.5)


@functools.cache
def _font(size):
  return ImageFont.load_default(_SCALE * size)


def _probability(probabilities, canvas, bar, i, colour):
  canvas.bar(bar, -1, 2 * probabilities[i] - 1, colour)
  return f'{100 * probabilities[i]:.1f}%'


def _continuous(outlook, action):
  """Returns what draws one number of an action in [-1, 1]."""
  mean = np.ravel(outlook.mean)
  interval = outlook.interval and [np.ravel(x) for x in outlook.interval]

  def draw(canvas, bar, i, colour):
    if interval:
      canvas.bar(bar, interval[0][i], interval[1][i], _RULE)
    left, top, right, bottom = bar
    canvas.bar((left, top + 3, right, bottom - 3), 0, mean[i], colour)
    x = left + (np.clip(action[i], -1, 1) + 1) / 2 * (right - left)
    canvas.line([(x, top - 2), (x, bottom + 2)], _CHOSEN, 2)
    return _rounded(action[i])

  return draw


def wanted_height(outlook: agent_lib.Outlook) -> int:
  """Returns how high a panel must be, so that it can be read."""
  told = (outlook.probabilities, outlook.values, outlook.mean)
  num_actions = max(0 if x is None else np.size(x) for x in told)
  return 420 if num_actions <= _FEW_ACTIONS else 560


def _most(scores):
  """Returns the actions that are shown: all, or those of the highest scores."""
  best = np.argsort(-np.asarray(scores), kind='stable')[:_MAX_ACTIONS]
  return np.sort(best)


def _rounded(number):
  """Returns a number of at most about six characters."""
  number = float(number)
  if abs(number) >= 1e5:
    return f'{number:.2g}'
  if number == int(number):
    return f'{number:.0f}'
  digits = sum(abs(number) < limit for limit in (1, 100, 1_000))
  return f'{number:.{digits}f}'


def density(
  returns: np.ndarray, probabilities: np.ndarray, grid: np.ndarray
) -> np.ndarray:
  """Returns what to draw of distributions, [A, G]: the sum of small tents.

  They are as wide as the returns are far apart, so that of evenly spaced ones,
  C51's, the curve is the line from one probability to the next; and wide enough
  for a few of the returns to make a smooth one.

  Args:
    returns: [A, M], rising.
    probabilities: [A, M].
    grid: [G], where to draw.
  """
  spacing = np.ptp(returns, axis=-1) / max(returns.shape[-1] - 1, 1)
  widths = np.maximum(spacing, np.ptp(grid) / 25)[:, None, None]
  distance = np.abs(grid[None, :, None] - returns[:, None, :]) / widths
  tents = np.maximum(1 - distance, 0) / widths
  return np.sum(probabilities[:, None, :] * tents, axis=-1)


def beside(image: np.ndarray, panel: np.ndarray) -> np.ndarray:
  """Returns one image of both, the first in the middle of the panel's height.

  Args:
    image: uint8 [H, W, 3].
    panel: uint8 [P, WIDTH, 3], P >= H.

  Returns:
    uint8 [P, W + WIDTH, 3], made even where W is odd: films want that.
  """
  height, width = image.shape[:2]
  left = np.empty((len(panel), width + width % 2, 3), np.uint8)
  left[:] = _BACKGROUND
  top = (len(panel) - height) // 2
  left[top : top + height, :width] = image
  return np.concatenate([left, panel], axis=1)


def overlay(image: np.ndarray, saliency: np.ndarray) -> np.ndarray:
  """Returns an image under what an agent's value depends on.

  Args:
    image: uint8 [H, W, 3].
    saliency: [h, w] in [0, 1], stretched over the image.
  """
  height, width = image.shape[:2]
  heat = Image.fromarray(np.asarray(saliency, np.float32)).resize(
    (width, height), Image.Resampling.BILINEAR
  )
  heat = 0.85 * np.clip(np.asarray(heat), 0, 1)[..., None]
  mixed = (1 - heat) * image + heat * np.array(_HEAT, np.float32)
  return np.round(mixed).astype(np.uint8)
