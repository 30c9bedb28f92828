"""A comparison in the terminal."""

import math

from rich import box
from rich import console as console_lib
from rich import markup
from rich import table as table_lib

from dopamine_jax.analysis import compare as compare_lib

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
    if table is not None:
      console.print(table)
      console.print()
  width = min(console.width, _MAX_WIDTH)
  for sentence in comparison.sentences[:_MAX_SENTENCES]:
    console.print(markup.escape(f'- {sentence}'), width=width)
  more = len(comparison.sentences) - _MAX_SENTENCES
  if more > 0:
    console.print(f'- {more} more are in summary.txt.')
  if comparison.pairs:
    console.print(
      '\n"Better with probability": how often a run of the first has the '
      'higher score than one of the second; p: how often chance alone would '
      'separate them so far (permutation test, Holm over all pairs).',
      width=width,
      style='dim',
    )


def _differences(comparison):
  if not comparison.differences:
    return None
  names = [n for n in comparison.curves if n not in comparison.bands]
  table = _table('Settings that differ', ['setting', *names])
  for key, values in comparison.differences.items():
    table.add_row(*(markup.escape(x) for x in (key, *values)))
  return table


def _scores(comparison):
  rows = compare_lib.score_table(comparison)
  if rows.empty:
    return None
  of = f'mean of the last {comparison.last} points'
  title = (
    f'Scores: {comparison.metric}, {of}'
    if comparison.last > 1
    else (f'Scores: {comparison.metric}')
  )
  heads = ['game', 'group', 'agent steps', 'runs', 'mean', '95% interval']
  table = _table(title, [*heads, 'worst', 'best'], right=range(2, 8))
  for row in rows.head(_MAX_ROWS).itertuples():
    table.add_row(
      markup.escape(row.game),
      markup.escape(row.group),
      f'{row.agent_steps:,}',
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
  labels = list(dict.fromkeys(rows.statistic))
  table = _table(title, ['group', *labels], right=range(1, 1 + len(labels)))
  for name, own in rows.groupby('group', sort=False):
    cells = [
      f'{row.value:.3f} {_interval(row.low, row.high, ".3f")}'
      for row in own.itertuples()
    ]
    table.add_row(markup.escape(name), *cells)
  return table


def _table(title, columns, right=()):
  table = table_lib.Table(
    title=title, title_justify='left', box=box.SIMPLE_HEAD, pad_edge=False
  )
  for i, column in enumerate(columns):
    justify = 'right' if i in right else 'left'
    table.add_column(markup.escape(column), justify=justify)
  return table


def _number(value):
  return f'{value:,.1f}' if abs(value) >= 1 else f'{value:.3g}'


def _interval(low, high, form=None):
  if math.isnan(low):
    return 'one seed'
  if form:
    return f'[{low:{form}}, {high:{form}}]'
  return f'[{_number(low)}, {_number(high)}]'
