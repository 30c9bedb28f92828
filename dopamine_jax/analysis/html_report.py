"""A report of one training as one HTML file, which opens without a network."""

import base64
from collections.abc import Sequence
import datetime
import hashlib
import importlib.resources
import pathlib
import re
import string

import dopamine_jax
from dopamine_jax import errors
from dopamine_jax.analysis import html_numbers as numbers
from dopamine_jax.analysis import html_parts as parts
from dopamine_jax.analysis import markup
from dopamine_jax.analysis import run_report
from dopamine_jax.system import safe_files

_UNKNOWN = 'not recorded'
_MAX_FILM = 500  # MB
_VERSION = re.compile(r'[0-9][0-9A-Za-z.+!-]*')

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
  folder = pathlib.Path(base_dir)
  report = run_report.gather(folder)
  film = None
  try:
    film = video and safe_files.read(video, _MAX_FILM)
  except (errors.UserError, FileNotFoundError) as error:
    report = report._replace(warnings=[*report.warnings, str(error)])
  safe_files.make_folder(out.parent, folder)
  safe_files.write(out, page(report, film), folder)
  return report.warnings


def page(report: run_report.Report, film: bytes | None = None) -> str:
  """Returns the whole page.

  Args:
    report: of a run.
    film: an mp4's bytes.
  """
  sections = [
    _warnings(report),
    numbers.curves(report),
    numbers.evaluation(report),
    _film(film),
    numbers.more_metrics(report),
    _reproduce(report),
    _circumstances(report),
  ]
  body = markup.join(
    [_header(report), element('main', *sections), _footer(report)]
  )
  return document(_name(report), body)


def document(title: str, body: markup.Markup) -> str:
  """Returns a whole page, of which nothing is loaded from elsewhere."""
  style, script, skeleton = (
    _template(f'report.{suffix}') for suffix in ('css', 'js', 'html')
  )
  policy = (
    "default-src 'none'; img-src data:; media-src data:; "
    f'style-src {_hash(style)}; script-src {_hash(script)}; '
    "base-uri 'none'; form-action 'none'"
  )
  return string.Template(skeleton).substitute(
    title=markup.join([title]),
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
    element('dl', *numbers.tiles(report), class_='tiles'),
  )


def _status(report):
  stopped = report.events and report.events[-1].get('event') == 'stopped'
  of = f'iteration {report.iteration} of {report.num_iterations or "?"}'
  if stopped:
    return f'Stopped, {of}', 'bad'
  if report.finished is None:
    return f'Length unknown, {of}', 'warn'
  if report.finished:
    return f'Finished, {parts.count(report.iteration, "iteration")}', 'good'
  return f'Not finished, {of}', 'warn'


def _warnings(report):
  if not report.warnings:
    return None
  items = [element('li', text) for text in report.warnings]
  return parts.section(
    'What to know first', element('ul', *items), class_='warnings'
  )


def _film(film):
  if film is None:
    return None
  data = base64.b64encode(film).decode()
  return parts.section(
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


def _reproduce(report):
  if not report.config:
    return None
  install = 'pip install dopamine-jax'
  version = str(report.versions.get('dopamine-jax'))
  if _VERSION.fullmatch(version):  # else a stranger's words, to be copied
    install += f'=={version}'
  seeds = report.seeds or [0]
  train = 'dopamine-jax train --gin_files config.gin --base_dir again'
  train += f' --seed {seeds[0]}' if seeds[0] else ''
  train += f' --num_seeds {len(seeds)}' if len(seeds) > 1 else ''
  needs = []
  if foreign := report.foreign_imports():
    text = f'It imports, and so needs beside it: {", ".join(foreign)}.'
    needs.append(element('p', text))
  if report.lineage:
    text = f'It starts from another run, and so needs {report.lineage[0]}.'
    needs.append(element('p', text))
  data = base64.b64encode(report.config.encode()).decode()
  link = element(
    'a',
    'Save config.gin',
    href=f'data:text/plain;base64,{data}',
    download='config.gin',
  )
  return parts.section(
    'How to reproduce it',
    element('p', link, ', every setting that was in force, and run'),
    parts.code(f'{install}\n{train}\ndopamine-jax fingerprint again'),
    *needs,
    element(
      'p',
      'On the same machine with the same libraries the result is the same to '
      'the bit: ',
      element('code', 'dopamine-jax fingerprint'),
      ' prints equal digests for both folders.',
      class_='soft',
    ),
    parts.details('The configuration', parts.code(report.config, long=True)),
  )


def _circumstances(report):
  """What it ran on, and what happened to it."""
  starts = [e for e in report.events if 'machine' in e]
  machine = starts[-1]['machine'] if starts else None
  facts = [('machine', _UNKNOWN)]
  if isinstance(machine, dict):
    facts = [(key.replace('_gb', ', GB'), machine[key]) for key in machine]
  commits = starts[-1].get('commits') if starts else None
  for name, commit in (commits if isinstance(commits, dict) else {}).items():
    facts.append((f'{name}, commit', commit))
  facts.append(('seeds', ', '.join(map(str, report.seeds))))
  facts += [('started from', each) for each in report.lineage]
  versions = report.versions.items() or [('versions', _UNKNOWN)]
  command = starts[0].get('command') if starts else None
  return parts.section(
    'Where and when it ran',
    element(
      'div',
      parts.table('Machine', (), facts),
      parts.table('Libraries', (), versions),
      class_='columns',
    ),
    element('h3', 'Command'),
    parts.code(command) if command else element('p', _UNKNOWN, class_='soft'),
    element('h3', 'History'),
    _history(report),
  )


def _history(report):
  items = [
    element(
      'li',
      element('strong', event.get('event', _UNKNOWN)),
      f', iteration {event.get("iteration", _UNKNOWN)}',
      element('span', _time(event), class_='soft'),
      element('p', event['why'], class_='soft') if event.get('why') else None,
    )
    for event in report.events
  ]
  if not items:
    return element('p', _UNKNOWN, class_='soft')
  note = None
  if report.events[0].get('event') != 'started':
    text = 'What came before is not recorded.'
    note = element('p', text, class_='soft')
  return markup.join([note, element('ol', *items, class_='history')])


def _time(event):
  try:
    time = datetime.datetime.fromisoformat(event.get('time'))
  except (TypeError, ValueError):
    return f' at {event.get("time", _UNKNOWN)}'
  return time.strftime(' on %Y-%m-%d at %H:%M:%S %Z')


def _footer(report):
  version, name = dopamine_jax.__version__, report.folder.resolve().name
  return element('footer', f'Made by dopamine-jax {version} from {name}.')
