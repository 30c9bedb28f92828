"""The parts of a report's page that show what was reached."""

from collections.abc import Iterator

import numpy as np

from dopamine_jax.analysis import html_parts as parts
from dopamine_jax.analysis import markup
from dopamine_jax.analysis import run_report
from dopamine_jax.analysis import svg
from dopamine_jax.metrics import intervals

_LAST = 5  # training returns whose mean is a score, as in `compare`
_MAX_SMALL = 24  # metrics beside the returns
_MAX_ROWS = 50  # of a table of a curve
_MAX_STRIPS = 20  # seeds whose episodes are drawn
# They say again what other numbers say, or are about what is drawn already.
_NOT_DRAWN = ('/MinReturns', '/MedianReturns', '/MaxReturns', '/NumEpisodes')

element = markup.element


def tiles(report: run_report.Report) -> Iterator[markup.Markup]:
  """Yields the few numbers that most readers come for."""
  for metric, words, last in (
    ('Eval/AverageReturns', 'Evaluation return', 1),
    ('Train/AverageReturns', 'Training return', _LAST),
  ):
    curve = report.curve(metric)
    if curve is not None:
      last = min(last, len(curve.steps))
      where = f'last {last}' if last > 1 else 'last'
      yield _score_tile(curve, f'{words}, {where}', last)
  seeds = parts.count(len(report.seeds), 'seed')
  yield parts.tile('Agent steps', f'{report.agent_steps:,}', f'each of {seeds}')
  if report.seconds:
    rate = report.agent_steps * len(report.seeds) / report.seconds
    note = f'{rate:,.0f} agent steps/s, all seeds'
    yield parts.tile('Time in training', parts.duration(report.seconds), note)


def _score_tile(curve, title, last):
  mean, low, high = curve.score_interval(last)
  note = 'one seed: no interval'
  if np.isfinite(low):
    note = f'95% interval {parts.interval(low, high)}, {curve.num_runs} seeds'
  return parts.tile(title, parts.number(mean), note)


def curves(report: run_report.Report) -> markup.Markup | None:
  """Returns over agent steps, drawn and as tables; None without any."""
  said, figures, tables = [], [], []
  titles = ('Training episodes', 'Evaluation episodes')
  for metric, title, colour in zip(
    run_report.RETURNS, titles, ('first', 'second'), strict=True
  ):
    curve = report.curve(metric, said.append)
    if curve is None:
      continue
    if len(curve.steps) > 1 or metric == run_report.RETURNS[0]:
      figures.append((title, curve, colour))
    tables.append(_curve_table(curve, title))
  if not figures:
    return None
  # They name a group and its game: here a metric, and what everything is of.
  said = [text.replace(f', {report.game}: ', ': ', 1) for text in said]
  notes = [element('p', text, class_='soft') for text in said]
  return parts.section(
    'Learning curves',
    element('div', *_return_figures(figures), class_='charts'),
    *notes,
    parts.details(
      'The curves as tables', element('div', *tables, class_='columns')
    ),
  )


def _return_figures(figures):
  """Yields a plot of each; one alone fills the page, where that is wide."""
  for title, curve, colour in figures:
    name = f'{title}: mean return'
    plots = [svg.curve(curve, name, colour=colour)]
    if len(figures) == 1:
      wide = svg.curve(curve, name, colour=colour, size=svg.WIDE)
      plots = [
        element('div', *plots, class_='narrow'),
        element('div', wide, class_='wide'),
      ]
    yield parts.figure(title, *plots, caption=_legend(curve))


def _legend(curve):
  if curve.num_runs == 1:
    return "Mean return of an iteration's episodes; one seed."
  lines = ' Thin lines: the seeds.' if curve.num_runs <= svg.MAX_SEEDS else ''
  return (
    f'Mean over {curve.num_runs} seeds with its 95% interval, which allows for '
    f'other seeds that end elsewhere than these.{lines}'
  )


def _curve_table(curve, title):
  interval = curve.interval()
  count = len(curve.steps)
  # Evenly spread, and the last one always.
  shown = np.unique(np.linspace(0, count - 1, min(count, _MAX_ROWS)).round())
  rows = [
    (
      f'{curve.steps[i]:,}',
      parts.number(interval.value[i]),
      parts.interval(interval.low[i], interval.high[i]),
    )
    for i in shown.astype(int)
  ]
  if len(shown) < count:
    title += f', {len(shown)} of {count} points (metrics.csv has them all)'
  return parts.table(
    title, ('agent steps', 'mean return', '95% interval'), rows
  )


def evaluation(report: run_report.Report) -> markup.Markup | None:
  """Episodes of evaluation.csv, by seed; None without any."""
  table = report.evaluation
  if table is None:
    return None
  strips, rows = [], []
  for seed, episodes in table.groupby('seed'):
    returns = episodes['return'].to_numpy()
    _, low, high = intervals.of_mean(returns)
    strips.append((f'seed {seed}', returns, (low, high)))
    summary = returns.mean(), returns.min(), np.median(returns), returns.max()
    mean, *others = map(parts.number, summary)
    rows.append((str(seed), mean, parts.interval(low, high), *others))
  heads = ('seed', 'mean', '95% interval', 'lowest', 'median')
  fewest = int(table.groupby('seed').size().min())
  episodes = f'{parts.count(fewest, "episode")} of each seed'
  more = len(strips) - _MAX_STRIPS
  beyond = f' {more} more seeds are in the table.' if more > 0 else ''
  plot = parts.figure(
    'Return of each episode',
    svg.strips(strips[:_MAX_STRIPS], 'Evaluation returns by seed', 'return'),
    caption=f'Gray: episodes. Orange: mean, 95% interval.{beyond}',
  )
  means = np.array([values.mean() for _, values, _ in strips])
  everything = table['return']
  overall = intervals.of_mean(means, everything.min(), everything.max())
  words = (
    f'Mean {parts.number(overall.value)} over {parts.count(len(means), "seed")}'
  )
  if np.isfinite(overall.low):
    ends = parts.interval(overall.low, overall.high)
    words += f', 95% interval over seeds {ends}'
  return parts.section(
    'Evaluation, exploration off',
    element('p', f'{words}. From evaluation.csv, {episodes}.'),
    element(
      'div', plot, parts.table('', (*heads, 'highest'), rows), class_='charts'
    ),
  )


def more_metrics(report: run_report.Report) -> markup.Markup | None:
  """The other metrics, small; None without any."""
  names = [
    name
    for name in report.metrics()
    if name not in run_report.RETURNS and not name.endswith(_NOT_DRAWN)
  ]
  found = {name: report.curve(name) for name in names}
  found = {k: c for k, c in found.items() if c and len(c.steps) > 1}
  figures = [
    parts.figure(name, svg.curve(curve, name, size=svg.SMALL))
    for name, curve in list(found.items())[:_MAX_SMALL]
  ]
  if not figures:
    return None
  more = len(found) - len(figures)
  note = f'{more} more are in metrics.csv.' if more > 0 else None
  return parts.section(
    'Other metrics',
    element('div', *figures, class_='charts small'),
    note and element('p', note, class_='soft'),
  )
