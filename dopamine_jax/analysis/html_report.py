"""A report of one training as one HTML file, which opens without a network."""

import base64
from collections.abc import Sequence
import hashlib
import importlib.resources
import pathlib
import string

import numpy as np

from dopamine_jax import errors
from dopamine_jax import evaluation as evaluation_lib
from dopamine_jax.analysis import markup
from dopamine_jax.analysis import run_report
from dopamine_jax.analysis import statistics
from dopamine_jax.analysis import svg

_LAST = 5  # training returns whose mean is a score, as in `compare`
_MAX_SMALL = 24  # metrics beside the returns
_MAX_ROWS = 50  # of a table of a curve
_MAX_STRIPS = 20  # seeds whose episodes are drawn
# They say again what other numbers say, or are about what is drawn already.
_NOT_DRAWN = ('/MinReturns', '/MedianReturns', '/MaxReturns', '/NumEpisodes')
_UNKNOWN = 'not recorded'

element = markup.element


def write(
  base_dir: str | pathlib.Path,
  out: pathlib.Path,
  video: pathlib.Path | None = None,
) -> Sequence[str]:
  """Writes the report of a run; returns its warnings.

  Args:
    base_dir: the run's folder.
    out: the HTML file.
    video: an mp4 to show.

  Raises:
    UserError: if there is nothing to report, or a file can't be used.
  """
  report = run_report.gather(base_dir)
  film = None
  try:
    if video is not None:
      film = video.read_bytes()
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page(report, film), 'utf-8')
  except OSError as error:
    raise errors.UserError(
      f'{error.filename or out} can not be used: {error.strerror}.'
    ) from error
  return report.warnings


def page(report: run_report.Report, film: bytes | None = None) -> str:
  """Returns the whole page.

  Args:
    report: of a run.
    film: an mp4's bytes.
  """
  style, script, skeleton = (
    _template(f'report.{suffix}') for suffix in ('css', 'js', 'html')
  )
  policy = (
    "default-src 'none'; img-src data:; media-src data:; "
    f'style-src {_hash(style)}; script-src {_hash(script)}; '
    "base-uri 'none'; form-action 'none'"
  )
  sections = [
    _warnings(report),
    _curves(report),
    _evaluation(report),
    _film(film),
    _more_metrics(report),
    _reproduce(report),
    _circumstances(report),
  ]
  body = markup.join(
    [_header(report), element('main', *sections), _footer(report)]
  )
  return string.Template(skeleton).substitute(
    title=markup.join([_name(report)]),
    policy=policy,
    style=style,
    script=script,
    body=body,
  )


def _template(name):
  folder = importlib.resources.files('dopamine_jax.analysis') / 'templates'
  return (folder / name).read_text('utf-8')


def _hash(text):
  digest = hashlib.sha256(text.encode()).digest()
  return f"'sha256-{base64.b64encode(digest).decode()}'"


def _name(report):
  if not report.config:
    return f'Run {report.folder.resolve().name}'
  return f'{report.agent} on {report.game}'


def _header(report):
  words, kind = _status(report)
  return element(
    'header',
    element('p', 'Training report', class_='eyebrow'),
    element('h1', _name(report)),
    element('p', report.title or report.folder.resolve().name),
    element('span', words, class_=f'status {kind}'),
    element('dl', *_tiles(report), class_='tiles'),
  )


def _status(report):
  stopped = report.events and report.events[-1].get('event') == 'stopped'
  of = f'iteration {report.iteration} of {report.num_iterations or "?"}'
  if stopped:
    return f'Stopped, {of}', 'bad'
  if report.finished is None:
    return f'Length unknown, {of}', 'warn'
  if report.finished:
    return f'Finished, {_count(report.iteration, "iteration")}', 'good'
  return f'Not finished, {of}', 'warn'


def _tiles(report):
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
  seeds = _count(len(report.seeds), 'seed')
  yield _tile('Agent steps', f'{report.agent_steps:,}', f'each of {seeds}')
  if report.seconds:
    rate = report.agent_steps * len(report.seeds) / report.seconds
    note = f'{rate:,.0f} agent steps/s, all seeds'
    yield _tile('Time in training', _duration(report.seconds), note)


def _score_tile(curve, title, last):
  scores = curve.scores(last)
  mean, low, high = statistics.bootstrap(statistics.mean, scores[:, None])
  note = 'one seed: no interval'
  if np.isfinite(low):
    note = (
      f'95% interval {_number(low)} to {_number(high)}, {len(scores)} seeds'
    )
  return _tile(title, _number(mean), note)


def _tile(title, number, note):
  return element(
    'div',
    element('dt', title),
    element('dd', number, class_='number'),
    element('dd', note, class_='note'),
    class_='tile',
  )


def _warnings(report):
  if not report.warnings:
    return None
  items = [element('li', text) for text in report.warnings]
  return _section(
    'What to know first', element('ul', *items), class_='warnings'
  )


def _curves(report):
  said, figures, tables = [], [], []
  titles = ('Training episodes', 'Evaluation episodes')
  for metric, title, colour in zip(
    run_report.RETURNS, titles, ('first', 'second'), strict=True
  ):
    curve = report.curve(metric, said.append)
    if curve is None:
      continue
    if len(curve.steps) > 1 or metric == run_report.RETURNS[0]:
      plot = svg.curve(curve, f'{title}: mean return', colour=colour)
      figures.append(_figure(title, plot, _legend(curve)))
    tables.append(_curve_table(curve, title))
  if not figures:
    return None
  prefix = f', {report.game}: '
  notes = [
    element('p', x.partition(prefix)[2] or x, class_='soft') for x in said
  ]
  return _section(
    'Learning curves',
    element('div', *figures, class_='charts'),
    *notes,
    _details('The curves as tables', element('div', *tables, class_='columns')),
  )


def _legend(curve):
  if curve.num_runs == 1:
    return 'Mean return of an iteration’s episodes; one seed.'
  lines = ' Thin lines: the seeds.' if curve.num_runs <= svg.MAX_SEEDS else ''
  return (
    f'Mean over {curve.num_runs} seeds with its 95% bootstrap interval.{lines}'
  )


def _curve_table(curve, title):
  interval = statistics.bootstrap(
    statistics.mean, curve.values[..., None], resamples=1_000
  )
  count = len(curve.steps)
  # Evenly spread, and the last one always.
  shown = np.unique(np.linspace(0, count - 1, min(count, _MAX_ROWS)).round())
  rows = [
    (
      f'{curve.steps[i]:,}',
      _number(interval.value[i]),
      _range(interval.low[i], interval.high[i]),
    )
    for i in shown.astype(int)
  ]
  if len(shown) < count:
    title += f', {len(shown)} of {count} points (metrics.csv has them all)'
  return _table(title, ('agent steps', 'mean return', '95% interval'), rows)


def _evaluation(report):
  table = report.evaluation
  if table is None:
    return None
  strips, rows = [], []
  for seed, episodes in table.groupby('seed'):
    returns = episodes['return'].to_numpy()
    low, high = evaluation_lib.confidence_interval(returns)
    strips.append((f'seed {seed}', returns, (low, high)))
    numbers = returns.mean(), returns.min(), np.median(returns), returns.max()
    mean, *others = map(_number, numbers)
    rows.append((str(seed), len(returns), mean, _range(low, high), *others))
  heads = ('seed', 'episodes', 'mean', '95% interval', 'lowest', 'median')
  more = len(strips) - _MAX_STRIPS
  beyond = f' {more} more seeds are in the table.' if more > 0 else ''
  plot = _figure(
    'Return of each episode',
    svg.strips(strips[:_MAX_STRIPS], 'Evaluation returns by seed', 'return'),
    f'Dots: episodes. Orange: their mean and its 95% interval.{beyond}',
  )
  means = np.array([values.mean() for _, values, _ in strips])
  overall = statistics.bootstrap(statistics.mean, means[:, None])
  words = f'Mean {_number(overall.value)} over {_count(len(means), "seed")}'
  if np.isfinite(overall.low):
    ends = _range(overall.low, overall.high)
    words += f', 95% interval over seeds {ends}'
  return _section(
    'Evaluation, exploration off',
    element('p', f'{words}. From evaluation.csv.'),
    element(
      'div', plot, _table('', (*heads, 'highest'), rows), class_='charts'
    ),
  )


def _film(film):
  if film is None:
    return None
  data = base64.b64encode(film).decode()
  return _section(
    'The agent at play',
    element(
      'video',
      src=f'data:video/mp4;base64,{data}',
      controls=True,
      loop=True,
      muted=True,
      playsinline=True,
      preload='metadata',
      aria_label='The agent of the first seed playing, exploration off',
    ),
    element('p', 'The first seed, exploration off.', class_='soft'),
  )


def _more_metrics(report):
  names = [
    name
    for name in report.metrics()
    if name not in run_report.RETURNS and not name.endswith(_NOT_DRAWN)
  ]
  found = {name: report.curve(name) for name in names}
  found = {k: c for k, c in found.items() if c and len(c.steps) > 1}
  figures = [
    _figure(name, svg.curve(curve, name, small=True))
    for name, curve in list(found.items())[:_MAX_SMALL]
  ]
  if not figures:
    return None
  more = len(found) - len(figures)
  note = f'{more} more are in metrics.csv.' if more > 0 else None
  return _section(
    'Other metrics',
    element('div', *figures, class_='charts small'),
    note and element('p', note, class_='soft'),
  )


def _reproduce(report):
  if not report.config:
    return None
  install = 'pip install dopamine-jax'
  if version := report.versions.get('dopamine-jax'):
    install += f'=={version}'
  seeds = report.seeds or [0]
  train = 'dopamine-jax train --gin_files config.gin --base_dir again'
  train += f' --seed {seeds[0]}' if seeds[0] else ''
  train += f' --num_seeds {len(seeds)}' if len(seeds) > 1 else ''
  foreign = report.foreign_imports()
  needs = None
  if foreign:
    needs = element(
      'p', f'It imports, and so needs beside it: {", ".join(foreign)}.'
    )
  data = base64.b64encode(report.config.encode()).decode()
  link = element(
    'a',
    'Save config.gin',
    href=f'data:text/plain;base64,{data}',
    download='config.gin',
  )
  return _section(
    'How to reproduce it',
    element('p', link, ', every setting that was in force, and run'),
    _code(f'{install}\n{train}\ndopamine-jax fingerprint again'),
    needs,
    element(
      'p',
      'On the same machine with the same libraries the result is the same to '
      'the bit: `dopamine-jax fingerprint` prints equal digests.',
      class_='soft',
    ),
    _details('The configuration', _code(report.config, long=True)),
  )


def _circumstances(report):
  """What it ran on, and what happened to it."""
  starts = [e for e in report.events if 'machine' in e]
  machine = starts[-1]['machine'] if starts else {}
  machine = machine if isinstance(machine, dict) else {}
  facts = [
    (name, machine.get(key, _UNKNOWN))
    for name, key in (
      ('system', 'system'),
      ('processor', 'processor'),
      ('cores', 'cores'),
      ('memory, GB', 'memory_gb'),
      ('JAX devices', 'devices'),
    )
  ]
  facts.append(('seeds', ', '.join(map(str, report.seeds))))
  versions = report.versions.items() or [('versions', _UNKNOWN)]
  command = starts[0].get('command') if starts else None
  return _section(
    'Where and when it ran',
    element(
      'div',
      _table('Machine', (), facts),
      _table('Libraries', (), versions),
      class_='columns',
    ),
    element('h3', 'Command'),
    _code(command) if command else element('p', _UNKNOWN, class_='soft'),
    element('h3', 'History'),
    _history(report),
  )


def _history(report):
  rows = [
    (
      event.get('time', ''),
      event.get('event', ''),
      event.get('iteration', ''),
      event.get('why', ''),
    )
    for event in report.events
  ]
  if not rows:
    return element('p', _UNKNOWN, class_='soft')
  note = None
  if rows[0][1] != 'started':
    text = 'What came before is not recorded.'
    note = element('p', text, class_='soft')
  heads = ('time (UTC)', 'event', 'iteration', 'why')
  if not any(row[3] for row in rows):
    heads, rows = heads[:3], [row[:3] for row in rows]
  return markup.join([note, _table('', heads, rows)])


def _footer(report):
  from dopamine_jax import __version__

  return element(
    'footer',
    f'Made by dopamine-jax {__version__} from {report.folder.resolve()}.',
  )


def _section(title, *children, class_=None):
  name = title.lower().replace(',', '').replace(' ', '-')
  heading = element('h2', title, id=name)
  return element(
    'section', heading, *children, class_=class_, aria_labelledby=name
  )


def _figure(title, plot, caption=None):
  return element(
    'figure',
    element('h3', title),
    plot,
    caption and element('figcaption', caption),
  )


def _details(title, content):
  return element('details', element('summary', title), content)


def _code(text, long=False):
  return element(
    'div',
    element('pre', element('code', text), tabindex='0'),
    element('button', 'Copy', class_='copy', type='button', hidden=True),
    class_='code long' if long else 'code',
  )


def _table(caption, heads, rows):
  """A table; without heads, each row's first cell is one."""
  head = None
  if heads:
    cells = [element('th', text, scope='col') for text in heads]
    head = element('thead', element('tr', *cells))
  body = []
  for first, *others in rows:
    cells = [element('td', text) for text in others]
    tag = 'td' if heads else 'th'
    lead = element(tag, first, scope=None if heads else 'row')
    body.append(element('tr', lead, *cells))
  return element(
    'div',
    element(
      'table',
      element('caption', caption) if caption else None,
      head,
      element('tbody', *body),
    ),
    class_='scroll',
  )


def _number(value):
  value = float(value)
  if abs(value) >= 1_000:
    return f'{value:,.0f}'
  return f'{value:.1f}' if abs(value) >= 10 else f'{value:.3g}'


def _range(low, high):
  if not np.isfinite(low):
    return 'one seed'
  return f'{_number(low)} to {_number(high)}'


def _count(number, noun):
  return f'{number} {noun}' if number == 1 else f'{number:,} {noun}s'


def _duration(seconds):
  if seconds < 60:
    return f'{seconds:.0f} s'
  if seconds < 3_600:
    return f'{seconds / 60:.0f} min'
  return f'{seconds // 3_600:.0f} h {seconds % 3_600 / 60:.0f} min'
