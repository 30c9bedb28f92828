"""A report of a sweep as one HTML file, which opens without a network."""

from collections.abc import Sequence
import pathlib
from typing import NamedTuple

import numpy as np

import dopamine_jax
from dopamine_jax.analysis import html_parts as parts
from dopamine_jax.analysis import html_report
from dopamine_jax.analysis import markup
from dopamine_jax.analysis import ranking
from dopamine_jax.analysis import verdicts
from dopamine_jax.sweeps import findings as findings_lib
from dopamine_jax.sweeps import lines
from dopamine_jax.sweeps import next_steps
from dopamine_jax.sweeps import outcome as outcome_lib
from dopamine_jax.sweeps import report_parts
from dopamine_jax.sweeps import spaces
from dopamine_jax.system import safe_files

element = markup.element

_SCHEDULERS = {
  'none': 'all trials to their end',
  'asha': 'successive halving (ASHA)',
  'pbt': 'population-based training',
}


class Comparison(NamedTuple):
  """The best trial beside those that went as far.

  Attributes:
    sentences: what can be said.
    same: trials that it can not be told apart from, the best first.
  """

  sentences: Sequence[str]
  same: Sequence[outcome_lib.Trial]


def write(folder: pathlib.Path, out: pathlib.Path) -> Sequence[str]:
  """Writes the report of a sweep; returns its warnings.

  Args:
    folder: of the sweep.
    out: the HTML file.

  Raises:
    UserError: if there is nothing to report, or a file can't be used.
  """
  outcome = outcome_lib.gather(folder)
  safe_files.make_folder(out.parent, folder)
  safe_files.write(out, page(outcome), folder)
  return outcome.warnings


def page(outcome: outcome_lib.Outcome) -> str:
  """Returns the whole page."""
  findings = findings_lib.of(outcome)
  titles = ranking.short_settings([x.setting for x in outcome.study.dimensions])
  named = dict(
    zip((x.setting for x in outcome.study.dimensions), titles, strict=True)
  )
  best = compared(outcome)
  steps = next_steps.of(outcome, findings, best.same)
  sections = [
    _warnings(outcome),
    _in_words(outcome, findings, named, best, steps),
    _best(outcome),
    report_parts.influence(outcome, findings, named),
    report_parts.together(outcome, titles),
    report_parts.ranked(outcome, named),
    report_parts.learning(outcome),
    report_parts.lineages(outcome),
    report_parts.rungs(outcome),
    report_parts.failures(outcome),
    _next(steps),
    _definition(outcome),
  ]
  name = _name(outcome)
  footer = (
    f'Made by dopamine-jax {dopamine_jax.__version__} from '
    f'{outcome.folder.resolve().name}.'
  )
  body = markup.join(
    [
      _header(outcome, name),
      element('main', *sections),
      element('footer', footer),
    ]
  )
  return html_report.document(f'Sweep: {name}', body)


def compared(outcome: outcome_lib.Outcome) -> Comparison:
  """Compares the best trial with each that went as far."""
  known = [x for x in outcome.trials if x.mean == x.mean]
  if not known:
    return Comparison(['No trial has a score yet.'], ())
  first, *others = known
  alike = [x for x in others if x.rung == first.rung]
  scores = {x.name: x.scores[:, None] for x in (first, *alike)}
  pairs = [
    verdicts.pair(first.name, x.name, scores, (), len(alike)) for x in alike
  ]
  score = parts.number(first.mean)
  if np.isfinite(first.interval.low):
    ends = map(parts.number, map(float, first.interval[1:]))
    score += f' [{", ".join(ends)}]'
  else:
    score += ', one seed'
  said = [f'{first.label} is best: {score} at {first.steps:,} agent steps.']
  labels = {x.name: x.label for x in known}
  far = ' that went as far' if len(pairs) < len(others) else ''
  if pairs:
    runs = len(first.scores)
    said += ranking.told(first.name, runs, pairs, labels, far)
  apart = [ranking.other(x, first.name) for x in pairs if x.told_apart]
  return Comparison(said, [x for x in alike if x.name not in apart])


def _name(outcome):
  if outcome.game != 'unknown':
    return f'{outcome.agent} on {outcome.game}'
  return ', '.join(pathlib.PurePath(x).stem for x in outcome.study.files)


def _header(outcome, name):
  study = outcome.study
  files = ', '.join(outcome.study.files)
  words, kind = 'Finished', 'good'
  if not outcome.is_complete:
    left = len(outcome.state.waiting())
    words, kind = f'Not finished, {parts.count(left, "pack")} to train', 'warn'
  settings = parts.count(len(study.dimensions), 'setting')
  return element(
    'header',
    element('p', 'Sweep report', class_='eyebrow'),
    element('h1', name),
    element('p', f'{files}: {settings} varied, judged by {study.metric}'),
    element('span', words, class_=f'status {kind}'),
    element('dl', *_tiles(outcome), class_='tiles'),
  )


def _tiles(outcome):
  study, state = outcome.study, outcome.state
  if outcome.trials:
    best = outcome.trials[0]
    note = 'one seed: no interval'
    if np.isfinite(best.interval.low):
      ends = parts.interval(*map(float, best.interval[1:]))
      note = f'95% interval {ends}'
    title = f'Best score, {best.label}'
    yield parts.tile(title, parts.number(best.mean), note)
  note = f'{parts.count(study.num_seeds, "seed")} each'
  note += f', {len(state.stopped):,} stopped early' if state.stopped else ''
  note += f', {len(state.given_up):,} given up' if state.given_up else ''
  yield parts.tile('Trials', f'{len(state.trials):,}', note)
  each = f'{outcome.steps(len(study.rungs) - 1):,} of a seed to the end'
  yield parts.tile('Agent steps in all', f'{outcome.agent_steps:,}', each)
  how = _SCHEDULERS.get(study.scheduler, study.scheduler)
  yield parts.tile(
    'Scheduler', study.scheduler, f'{how}; {study.search} search'
  )


def _warnings(outcome):
  if not outcome.warnings:
    return None
  items = [element('li', text) for text in outcome.warnings]
  return parts.section(
    'What to know first', element('ul', *items), class_='warnings'
  )


def _in_words(outcome, findings, named, best, steps):
  """What came of it, in a few sentences."""
  items = [' '.join(best.sentences)]
  items += report_parts.in_words(outcome, findings, named)
  if steps:
    words = ', then '.join(x.title.lower() for x in steps)
    items.append(f'Next: {words}. The commands are below.')
  return parts.section(
    'In short', element('ul', *(element('li', x) for x in items), class_='said')
  )


def _best(outcome):
  """The settings of the best trial, to copy."""
  if not outcome.trials:
    return None
  best, study = outcome.trials[0], outcome.study
  command = lines.train(
    *(study, best.settings, f'{outcome.folder}-best'),
    *(study.seed, study.num_seeds),
  )
  note = None
  if best.parent is not None:
    note = element(
      'p',
      'These are its last settings. It went on from other trials, with other '
      'settings: to train with these from the start gives another agent. The '
      f'trained one lies in {best.name}.',
      class_='soft',
    )
  return parts.section(
    'The best settings',
    element('p', f'Of trial {best.label}, as lines of gin:'),
    parts.code('\n'.join(spaces.bindings(best.settings))),
    element('p', 'As a command that trains them anew, with the same seeds:'),
    parts.code(command),
    note,
  )


def _next(steps):
  """What to run next, with commands."""
  if not steps:
    words = 'Nothing that these results ask for.'
    return parts.section('What to run next', element('p', words))
  pieces = []
  for step in steps:
    pieces += [element('h3', step.title), element('p', step.why)]
    if step.commands:
      pieces.append(parts.code('\n'.join(step.commands)))
  return parts.section('What to run next', *pieces)


def _definition(outcome):
  """What the sweep was."""
  study = outcome.study
  facts = [
    ('files', ', '.join(study.files)),
    ('search', study.search),
    ('scheduler', _SCHEDULERS.get(study.scheduler, study.scheduler)),
    ('rungs, agent steps', ', '.join(_rungs(outcome))),
    ('score', f'{study.metric}, mean of the last {study.last}'),
    ('seeds', f'{study.num_seeds} from {study.seed} on'),
    ('seed of the search', study.search_seed),
  ]
  command = lines.sweep(study, study.space, f'{outcome.folder}-again')
  return parts.section(
    'How it was made',
    parts.table('', (), facts),
    element('h3', 'What was varied'),
    parts.code('\n'.join(study.space)),
    element('h3', 'The same sweep again'),
    parts.code(command),
  )


def _rungs(outcome):
  return [
    f'{outcome.steps(rung):,}' for rung in range(len(outcome.study.rungs))
  ]
