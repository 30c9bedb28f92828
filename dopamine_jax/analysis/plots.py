"""Figures: learning curves, and scores over many games."""

from collections.abc import Mapping, Sequence
import io
import itertools
import math
import pathlib
from typing import Any
import warnings

from matplotlib import axes as axes_lib
from matplotlib import figure as figure_lib
from matplotlib import ticker
from matplotlib.backends import backend_agg
import numpy as np
import pandas as pd

from dopamine_jax.analysis import baselines as baselines_lib
from dopamine_jax.analysis import curves as curves_lib
from dopamine_jax.analysis import ranking as ranking_lib
from dopamine_jax.analysis import statistics
from dopamine_jax.system import safe_files
from dopamine_jax.system import texts

# Okabe & Ito (2008), Color universal design; yellow is too faint for a line.
_COLOURS = (
  *('#0072B2', '#D55E00', '#009E73', '#CC79A7'),
  *('#E69F00', '#56B4E9', '#000000'),
)
# Lines differ in more than colour, for those who see few and for gray paper.
_DASHES = ('-', '--', '-.', ':')
_BAND_DASHES = (
  *_DASHES,
  *((0, (1, gap)) for gap in (3, 5, 8)),
  *((0, (6, gap)) for gap in (3, 5, 8)),
  (0, (3, 1, 1, 1, 1, 1)),
)
_MARKERS = ('', 'o', 's', '^', 'D', 'v', 'X', 'P', '<', '>', 'p')
_MARKS = 9  # of a line
_PUBLISHED = '#777777'
_LABELS = {
  'Train/AverageReturns': 'return of a training episode',
  'Eval/AverageReturns': 'return of an evaluation episode',
}
_WHAT = 'mean of seeds, 95% interval'
_PANEL, _SINGLE, _LARGE = (4.2, 3.1), (6.4, 4.4), (10, 6)  # inches
_TITLE = 60  # characters of a legend's title that name settings, at most
_CLEAR = 5  # of many groups, those that are drawn with their intervals
_MANY = 12  # entries of a legend, from which on it is small
_RESAMPLES = 1_000


class Style:
  """Gives each group one colour, dash and marker in all figures.

  Neighbours differ in colour and dash, and never are two alike.
  """

  def __init__(self, names: Sequence[str]):
    self._index = {name: i for i, name in enumerate(names)}

  def __getitem__(self, name: str) -> dict[str, Any]:
    """Returns keyword arguments of `Axes.plot` for a group."""
    i = self._index[name]
    row = i // len(_COLOURS)
    return {
      'color': _COLOURS[i % len(_COLOURS)],
      'linestyle': _DASHES[(i % len(_COLOURS) + row) % len(_DASHES)],
      'marker': _marker(row // len(_DASHES)),
    }


def _marker(number):
  """Returns a marker; after those of matplotlib, stars of ever more points."""
  if number < len(_MARKERS):
    return _MARKERS[number]
  return (number - len(_MARKERS) + 4, 1, 0)


def learning_curves(
  curves: curves_lib.Curves,
  titles: Mapping[str, str],
  bands: Mapping[str, Mapping[str, pd.DataFrame]],
  metric: str,
  ranking: ranking_lib.Ranking | None = None,
) -> figure_lib.Figure:
  """Draws a panel a game: means over runs, 95% intervals, published bands.

  Of groups that are ranked, in that order, the best few have their intervals,
  of those with several seeds if there are any.

  Args:
    curves: by group's name and game's key.
    titles: of games, by key: these are drawn.
    bands: by baseline's name and game's key, as `baselines.band` gives them.
    metric: the tag that is drawn.
    ranking: of the groups, if they are many.
  """
  columns = min(len(titles), 4 if len(titles) <= 16 else 6)
  many = ranking is not None
  figure, grid = _figure(math.ceil(len(titles) / columns), columns, many)
  names = [row.name for row in ranking.rows] if many else curves
  own = {name: curves[name] for name in names if name not in bands}
  several = [
    name
    for name, games in own.items()
    if any(curve.num_runs > 1 for curve in games.values())
  ]
  clear = (several or [*own])[:_CLEAR] if many else own
  labels = _labels(own, ranking)
  pale = 0.18 * min(1, 3 / max(1, len(clear)))  # many bands lie on each other
  # First the clear ones, so that their colours differ.
  style = Style(sorted(own, key=lambda name: name not in clear))
  for axes, (game, title) in zip(grid, titles.items(), strict=False):
    last = max(c[game].steps[-1] for c in own.values() if game in c)
    ends = [last]
    for name, games in own.items():
      if game in games:
        curve = games[game]
        interval = curve.interval()
        label = labels.get(name) or (
          f'{name} ({_count(curve.num_runs, "seed")})'
        )
        how = {'pale': pale, 'is_clear': name in clear}
        _draw(axes, curve.steps, interval, _plain(label), style[name], **how)
    for dash, (name, games) in zip(
      itertools.cycle(_BAND_DASHES), bands.items()
    ):
      if game in games:
        ends.append(_draw_band(axes, games[game], last, name, dash))
    axes.set_title(_plain(title))
    _steps_axis(axes, max(ends))
  for axes in grid[len(titles) :]:
    axes.remove()
  for axes in grid[: len(titles) : columns]:
    axes.set_ylabel(f'{_plain(_LABELS.get(metric, metric))}\n{_WHAT}')
  title = None
  if many:
    settings = ', '.join(ranking.settings)
    title = f'best first; with intervals: the best {len(clear)}'
    if len(several) not in (0, len(own)):
      title += ' with several seeds'
    if settings and len(settings) <= _TITLE:  # else they are in ranking.csv
      title = f'{settings}; {title}'
    title = _plain(title)
  _legend(figure, grid[: len(titles)], title)
  return figure


def _labels(own, ranking):
  """Returns short labels of groups that are ranked: number and settings."""
  if ranking is None:
    return {}
  labels = {}
  for row in ranking.rows:
    values = ', '.join(row.settings)
    is_short = row.label != row.name and values
    labels[row.name] = f'{row.label}: {values}' if is_short else row.label
  return {name: labels[name] for name in own}


def aggregate(
  curves: curves_lib.Curves, games: Sequence[str], last: int
) -> figure_lib.Figure:
  """Draws IQM over agent steps, and the profile of the last scores.

  Args:
    curves: human-normalized, by group's name and game's key.
    games: keys of those that every group has.
    last: points that make a score.
  """
  figure, (left, right) = _figure(1, 2)
  style = Style(list(curves))
  matrices = {}
  for name, by_game in curves.items():
    steps, values = curves_lib.stack(by_game, games)
    if len(steps):
      interval = statistics.bootstrap(
        statistics.iqm, values, resamples=_RESAMPLES // 4
      )
      _draw(left, steps, interval, _plain(name), style[name])
    matrices[name] = curves_lib.score_matrix(by_game, games, last)
  everything = np.concatenate([m.ravel() for m in matrices.values()])
  top = max(2.0, float(np.nanpercentile(everything, 90)))
  thresholds = np.linspace(0, top, 101)
  for name, scores in matrices.items():
    interval = statistics.bootstrap(
      lambda s: statistics.performance_profile(s, thresholds),
      scores,
      resamples=_RESAMPLES,
    )
    _draw(right, thresholds, interval, _plain(name), style[name])
  left.set_title(f'{len(games)} games')
  left.set_ylabel('IQM of human-normalized\nreturns, 95% bootstrap interval')
  left.axhline(1, color=_PUBLISHED, linewidth=0.8, zorder=0)
  _steps_axis(left, max(c[g].steps[-1] for c in curves.values() for g in games))
  right.set_title('performance profile, last scores')
  right.set_xlabel('human-normalized score')
  right.set_ylabel('share of runs above it')
  right.set_ylim(0, 1)
  right.set_xlim(0, top)
  _legend(figure, [left])
  return figure


def save(
  figure: figure_lib.Figure,
  folder: pathlib.Path,
  name: str,
  *strange: pathlib.Path,
):
  """Writes a figure as PNG and as SVG; returns nothing.

  Raises:
    UserError: if it can't.
  """
  for suffix, options in (('png', {'dpi': 160}), ('svg', {})):
    with warnings.catch_warnings():
      # A name may have letters that matplotlib's font does not.
      warnings.filterwarnings('ignore', 'Glyph .* missing')
      data = io.BytesIO()
      figure.savefig(data, format=suffix, **options)
    safe_files.write(folder / f'{name}.{suffix}', data.getvalue(), *strange)


def _figure(rows, columns, is_large=False):
  """Returns a figure and its axes in one list, without any global state."""
  panel = _SINGLE if rows * columns == 1 else _PANEL
  panel = _LARGE if is_large and rows * columns == 1 else panel
  size = panel[0] * columns, panel[1] * rows
  figure = figure_lib.Figure(figsize=size, layout='constrained')
  backend_agg.FigureCanvasAgg(figure)
  grid = figure.subplots(rows, columns, squeeze=False)
  for axes in grid.flat:
    axes.spines[['top', 'right']].set_visible(False)
    axes.grid(color='#e4e4e4', linewidth=0.7)
    axes.set_axisbelow(True)
    axes.yaxis.set_major_formatter(short)
  return figure, list(grid.flat)


def _draw(
  axes: axes_lib.Axes, x, interval, label, style, pale=0.18, is_clear=True
):
  """Draws a line in its interval; a single point as a dot with a bar."""
  if len(x) == 1:
    bars = np.array(
      [interval.value - interval.low, interval.high - interval.value]
    )
    bars = None if np.isnan(bars).any() else np.maximum(bars, 0)
    marker = style['marker'] or 'o'
    axes.errorbar(
      x, interval.value, bars, fmt=marker, color=style['color'], label=label
    )
    return
  look = {'markevery': max(1, len(x) // _MARKS), 'markersize': 4}
  look |= {'linewidth': 1.7} if is_clear else {'linewidth': 0.9, 'alpha': 0.7}
  axes.plot(x, interval.value, label=label, **look, **style)
  if is_clear and not np.isnan(interval.low).any():
    colour = style['color']
    axes.fill_between(x, interval.low, interval.high, fc=colour, alpha=pale)


def _draw_band(axes, band, end, name, dash):
  """Draws the range of published runs, and returns where the axis ends.

  It goes a little further than one's own runs, for one to see where they are
  bound, and so far that it has four points. Of scores at the end alone, lines
  go through the whole panel.
  """
  end = max(1.1 * end, band.agent_steps.nsmallest(4).max())
  band = band[band.agent_steps <= end]
  label = _plain(f'{name}: {_published(band)}')
  line = {'color': _PUBLISHED, 'linewidth': 1.2, 'linestyle': dash}
  if len(band) == 1:
    low, high = band.low.iloc[0], band.high.iloc[0]
    if not np.isnan(low):
      axes.axhspan(low, high, color=_PUBLISHED, alpha=0.15, lw=0, zorder=1)
    axes.axhline(band['mean'].iloc[0], label=label, zorder=1.5, **line)
    return end
  axes.fill_between(
    *(band[column] for column in ('agent_steps', 'low', 'high')),
    color=_PUBLISHED,
    alpha=0.22,
    lw=0,
    zorder=1,
  )
  axes.plot(
    band.agent_steps,
    band['mean'],
    label=label,
    zorder=1.5,
    **line,
  )
  return end


def _steps_axis(axes, end):
  axes.set_xlabel('agent steps')
  axes.set_xlim(0, end * 1.01)
  axes.xaxis.set_major_formatter(short)
  axes.xaxis.set_major_locator(ticker.MaxNLocator(6))


def short(value: float, _: int | None = None) -> str:
  """Returns 250000 as '250k'; a formatter of matplotlib too."""
  for size, letter in ((1e9, 'G'), (1e6, 'M'), (1e3, 'k')):
    if abs(value) >= size:
      return f'{value / size:g}{letter}'
  return f'{value:g}'


def _legend(figure, grid, title=None):
  """Puts one legend for all panels below them, and makes room for it."""
  entries = {}
  for axes in grid:
    for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
      entries.setdefault(label, handle)
  size = 7.5 if len(entries) > _MANY else 10
  width, height = figure.get_size_inches()
  # A letter is about 0.6 of its size wide, and the handle takes as many as 8.
  letters = width * 72 / (0.6 * size)
  longest = max(map(len, entries), default=1)
  columns = max(1, min(len(entries), int(letters / (longest + 8))))
  rows = math.ceil(len(entries) / columns) + (title is not None)
  if rows > 1:  # a row is as high as one and a half letters
    figure.set_size_inches(width, height + (rows - 1) * 1.55 * size / 72)
  figure.legend(
    entries.values(),
    entries.keys(),
    loc='outside lower center',
    ncols=columns,
    fontsize=size,
    title=title,
    title_fontsize=size,
    handlelength=3,
    frameon=False,
  )


def _plain(line):
  """Returns a stranger's line as matplotlib draws it as it is.

  A `$` would begin a formula, and a line that begins with `_` has no legend.
  """
  line = texts.line(line).replace('$', r'\$')
  return f' {line}' if line.startswith('_') else line


def _published(band):
  """Says what is drawn; '4 to 5 runs' where iterations of one are missing."""
  ends = sorted({int(band.runs.min()), int(band.runs.max())})
  if ends == [0]:
    return 'mean'
  kind = '95% range' if ends[0] >= baselines_lib.MANY else 'range'
  return f'mean and {kind} of {" to ".join(map(str, ends))} runs'


def _count(number, noun):
  return f'{number} {noun}' if number == 1 else f'{number} {noun}s'
