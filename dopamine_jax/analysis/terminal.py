"""A comparison in the terminal."""

from collections.abc import Sequence
import math
from typing import NamedTuple

from rich import box
from rich import cells
from rich import console as console_lib
from rich import table as table_lib
from rich import text

from dopamine_jax.analysis import compare as compare_lib
from dopamine_jax.analysis import order
from dopamine_jax.analysis import ranking as ranking_lib
from dopamine_jax.analysis import statistics
from dopamine_jax.system import texts

_MAX_ROWS = 40  # of the scores; scores.csv has them all
_MAX_RANKED = 200  # of all groups
_MAX_CELL = 60  # letters, for which a column makes room
_MAX_SENTENCES = 30
_MAX_WIDTH = 100  # of a sentence


def show(comparison: compare_lib.Comparison, console: console_lib.Console):
  """Prints settings that differ, scores, aggregates and what they allow."""
  tables = (
    _differences(comparison, console.width),
    _scores(comparison, console.width),
    _aggregates(comparison),
  )
  if comparison.ranking:
    tables = (_ranking(comparison, console.width),)
  for table in tables:
    if table is None:
      continue
    # Rich breaks the lines of a title to the width of its table.
    title, caption = table.title, table.caption
    table.title = table.caption = None
    console.print(title)
    console.print(table)
    if caption:
      console.print(caption, style='dim')
    console.print()
  width = min(console.width, _MAX_WIDTH)
  for sentence in comparison.sentences[:_MAX_SENTENCES]:
    console.print(_plain(f'- {sentence}'), width=width)
  more = len(comparison.sentences) - _MAX_SENTENCES
  if more > 0:
    console.print(f'- {more} more are in summary.txt.')
  if comparison.pairs:
    console.print(f'\n{_meaning(comparison)}', width=width, style='dim')


def _meaning(comparison):
  if comparison.ranking:
    return (
      'p: how often chance alone would separate a group so far from the best '
      f'({_test(comparison)}).'
    )
  return (
    '"Better with probability": how often a run of the first has the higher '
    'score than one of the second; p: how often chance alone would separate '
    f'them so far ({_test(comparison)}; 95% intervals are of the same test).'
  )


def _test(comparison):
  if comparison.pairs[0].num_games == 1:
    return "Mann and Whitney's test"
  return 'permutation test within games'


def _differences(comparison, width):
  if not comparison.differences:
    return None
  names = [n for n in comparison.curves if n not in comparison.bands]
  title, rows = 'Settings that differ', [*comparison.differences.items()]
  columns = [_Column('setting', [key for key, _ in rows])]
  for name, *values in zip(names, *(x for _, x in rows), strict=True):
    columns.append(_Column(name, values))
  if sum(column.width for column in columns) > width:
    short = ranking_lib.short_settings([key for key, _ in rows])
    columns = [_Column('group', names)]
    for key, (_, values) in zip(short, rows, strict=True):
      columns.append(_Column(key, values))
  return _filled(title, columns)


def _ranking(comparison, width):
  """All groups in one table, the best first; None if nothing is compared."""
  rows = comparison.ranking.rows
  several = rows[0].stop is None
  columns = [
    _Column('#', [str(i + 1) for i in range(len(rows))], True),
    _Column('group', [row.label for row in rows]),
    _Column(
      'beats' if several else 'mean',
      [f'{x.mean:.0%}' if several else _number(x.mean) for x in rows],
      True,
    ),
  ]
  if not several:
    ends = [_interval(x.low, x.high) for x in rows]
    columns.append(_Column('95% interval', ends, True))
  if len({row.stop for row in rows}) > 1:
    stops = [f'{row.stop:,}' for row in rows]
    columns.append(_Column('agent steps', stops, True))
  for i, name in enumerate(comparison.ranking.settings):
    values = [row.settings[i] for row in rows]
    are_numbers = all(order.is_number(x) for x in values)
    columns.append(_Column(name, values, are_numbers))
  p_values = [_p(x.p_value) for x in rows]
  columns.append(_Column('p', p_values, True))
  columns.append(_Column('runs', [str(row.runs) for row in rows], True))
  if not several:
    for name in ('worst', 'best'):
      values = [_number(getattr(row, name)) for row in rows]
      columns.append(_Column(name, values, True))
  title = f'Ranked by {comparison.metric}'
  title += ', by the share of the runs of others that a run of it beats'
  title = title if several else _score_title(comparison, 'Ranked by')
  return _filled(title, *_fitted(columns, width), 'ranking.csv', _MAX_RANKED)


def _score_title(comparison, what):
  title = f'{what} {comparison.metric}'
  points = sorted(set(compare_lib.score_table(comparison).points))
  if len(points) > 1:
    title += f', mean of the last {points[0]} to {points[-1]} points'
  elif points != [1]:
    title += f', mean of the last {points[0]} points'
  return title


def _scores(comparison, width):
  rows = compare_lib.score_table(comparison)
  if rows.empty:
    return None
  games = len(set(rows.game)) > 1
  columns = [
    _Column('game', rows.game, rank=0 if games else 7),
    _Column('group', rows.group),
    _Column('agent steps', [f'{x:,}' for x in rows.agent_steps], True, 3),
    _Column('points', [*map(str, rows.points)], True, 6),
    _Column('runs', [*map(str, rows.runs)], True, 2),
    _Column('mean', [*map(_number, rows['mean'])], True),
    _Column('95% interval', [*map(_interval, rows.low, rows.high)], True),
    _Column('worst', [*map(_number, rows.worst)], True, 5),
    _Column('best', [*map(_number, rows.best)], True, 4),
  ]
  title = _score_title(comparison, 'Scores:')
  return _filled(title, *_fitted(columns, width), 'scores.csv', _MAX_ROWS)


def _aggregates(comparison):
  rows = compare_lib.aggregate_table(comparison)
  if rows is None:
    return None
  games, of = len(comparison.human_games), len(comparison.ends)
  title = f'Human-normalized, {games} {"game" if games == 1 else "games"}'
  if games < of:
    title += f' of {of}: of the others no human score is known'
  if rows.low.notna().any():
    title += '; 95% intervals by stratified bootstrap'
  labels = list(dict.fromkeys(rows.statistic))
  table = _table(title, ['group', *labels], right=range(1, 1 + len(labels)))
  for name, own in rows.groupby('group', sort=False):
    cells = [
      f'{row.value:.3f}{_of_aggregate(row.low, row.high)}'
      for row in own.itertuples()
    ]
    table.add_row(_plain(name), *map(_plain, cells))
  if rows.low.isna().all():
    table.caption = (
      f'No intervals: they would need {statistics.MIN_GAMES} games, and '
      f'{statistics.MIN_RUNS} runs of each.'
    )
  return table


class _Column(NamedTuple):
  """A column of a table.

  Attributes:
    head: above it.
    cells: as text.
    is_right: whether they are numbers, at its right.
    rank: columns of a higher one are the first to go where there is no room; of
      equal ones the last.
  """

  head: str
  cells: Sequence[str]
  is_right: bool = False
  rank: int = 0

  @property
  def width(self) -> int:
    """How many letters it takes, with the space around it."""
    own = max(map(cells.cell_len, map(texts.line, (self.head, *self.cells))))
    return min(own, _MAX_CELL) + 3


def _fitted(columns, width):
  """Returns the columns for which there is room, and the names of the others.

  Three stay in any case.
  """
  kept = sorted(columns, key=lambda each: each.rank)  # stable
  gone = []
  while len(kept) > 3 and sum(each.width for each in kept) > width:
    gone.append(kept.pop())
  shown = [each for each in columns if each in kept]
  return shown, [each.head for each in columns if each in gone]


def _filled(title, columns, gone=(), file='', most=None):
  """Returns a table of columns, with what it doesn't show as its caption."""
  right = [i for i, each in enumerate(columns) if each.is_right]
  table = _table(title, [each.head for each in columns], right)
  rows = [*zip(*(each.cells for each in columns), strict=True)]
  for row in rows[:most]:
    table.add_row(*map(_plain, row))
  words = []
  if len(rows) > len(rows[:most]):
    words.append(f'{len(rows) - most} more rows are in {file}.')
  if gone:
    words.append(f'No room here, but in {file}: {", ".join(gone)}.')
  if words:
    table.caption = _plain(' '.join(words))
  return table


def _table(title, columns, right=()):
  table = table_lib.Table(
    title=_plain(title),
    title_justify='left',
    box=box.SIMPLE_HEAD,
    pad_edge=False,
  )
  for i, column in enumerate(columns):
    justify = 'right' if i in right else 'left'
    table.add_column(_plain(column), justify=justify)
  return table


def _plain(line):
  """Returns a line as it is, whatever a stranger wrote into it."""
  return text.Text(texts.line(line))


def _number(value):
  return f'{value:,.1f}' if abs(value) >= 1 else f'{value:.3g}'


def _p(value):
  if math.isnan(value):
    return ''
  return '<0.001' if value < 0.001 else f'{value:.2g}'


def _of_aggregate(low, high):
  return '' if math.isnan(low) else f' [{low:.3f}, {high:.3f}]'


def _interval(low, high):
  if math.isnan(low):
    return 'one seed'
  return f'[{_number(low)}, {_number(high)}]'
