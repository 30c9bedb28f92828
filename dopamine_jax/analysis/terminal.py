"""A comparison in the terminal."""

import math

from rich import box
from rich import console as console_lib
from rich import table as table_lib
from rich import text

from dopamine_jax.analysis import compare as compare_lib
from dopamine_jax.analysis import statistics
from dopamine_jax.system import texts

_MAX_ROWS = 40  # of the scores; scores.csv has them all
_MAX_SENTENCES = 30
_MAX_WIDTH = 100  # of a sentence


def show(comparison: compare_lib.Comparison, console: console_lib.Console):
  """Prints settings that differ, scores, aggregates and what they allow."""
  for table in (
    _differences(comparison),
    _scores(comparison),
    _aggregates(comparison),
  ):
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
    console.print(
      '\n"Better with probability": how often a run of the first has the '
      'higher score than one of the second; p: how often chance alone would '
      f'separate them so far ({_test(comparison)}).',
      width=width,
      style='dim',
    )


def _test(comparison):
  if comparison.pairs[0].num_games == 1:
    return "Mann and Whitney's test; 95% intervals are of the same test"
  return 'permutation test within games; 95% intervals are of the same test'


def _differences(comparison):
  if not comparison.differences:
    return None
  names = [n for n in comparison.curves if n not in comparison.bands]
  table = _table('Settings that differ', ['setting', *names])
  for key, values in comparison.differences.items():
    table.add_row(*map(_plain, (key, *values)))
  return table


def _scores(comparison):
  rows = compare_lib.score_table(comparison)
  if rows.empty:
    return None
  title = f'Scores: {comparison.metric}'
  points = sorted(set(rows.points))
  if len(points) > 1:
    title += f', mean of the last {points[0]} to {points[-1]} points'
  elif points != [1]:
    title += f', mean of the last {points[0]} points'
  heads = ['game', 'group', 'agent steps', 'points', 'runs', 'mean']
  heads += ['95% interval', 'worst', 'best']
  table = _table(title, heads, right=range(2, 9))
  for row in rows.head(_MAX_ROWS).itertuples():
    table.add_row(
      _plain(row.game),
      _plain(row.group),
      f'{row.agent_steps:,}',
      str(row.points),
      str(row.runs),
      _number(row.mean),
      _interval(row.low, row.high),
      _number(row.worst),
      _number(row.best),
    )
  if len(rows) > _MAX_ROWS:
    table.caption = f'{len(rows) - _MAX_ROWS} more rows are in scores.csv.'
  return table


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


def _of_aggregate(low, high):
  return '' if math.isnan(low) else f' [{low:.3f}, {high:.3f}]'


def _interval(low, high):
  if math.isnan(low):
    return 'one seed'
  return f'[{_number(low)}, {_number(high)}]'
