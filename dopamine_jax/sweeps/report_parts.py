"""The parts of a sweep's page that show its trials."""

from collections.abc import Iterator, Mapping, Sequence
import math

import numpy as np

from dopamine_jax.analysis import html_parts as parts
from dopamine_jax.analysis import markup
from dopamine_jax.analysis import order
from dopamine_jax.analysis import svg
from dopamine_jax.sweeps import findings as findings_lib
from dopamine_jax.sweeps import lineage
from dopamine_jax.sweeps import outcome as outcome_lib
from dopamine_jax.sweeps import pictures
from dopamine_jax.system import texts

_CURVES = 5  # trials whose learning is drawn
_SHOWN = 15  # trials that are seen at once
_MAX_AXES = 12  # settings that are drawn side by side

element = markup.element
Names = Mapping[str, str]


def in_words(
  outcome: outcome_lib.Outcome,
  findings: Sequence[findings_lib.Finding],
  named: Names,
) -> Iterator[str]:
  """Yields which settings matter, and how sure that is."""
  asked = [x for x in findings if x.is_known]
  if not asked:
    yield (
      f'{_count(outcome)} are too few to tell which setting matters: at least '
      f'{findings_lib.FEWEST} are needed, with several of each value.'
    )
    return
  matter = [x for x in asked if x.matters]
  for x in matter:
    gain = ''
    if math.isfinite(x.gain) and x.gain > 0:
      gain = (
        f', where the score was {parts.number(x.gain)} higher on average at '
        f'{outcome.steps(0):,} agent steps'
      )
    yield (
      f'{named[x.setting]} matters ({_p_in_words(x.p_value)}): it explains '
      f'{x.share:.0%} of the order of the trials. Best were {x.best.label}'
      f'{gain}.'
    )
  rest = [named[x.setting] for x in asked if not x.matters]
  if rest:
    own = 'its' if len(rest) == 1 else 'their'
    yield (
      f'Of {_listed(rest)} no influence is seen: {own} differences may be '
      f'chance, which does not show that there are none. '
      + ('' if len(outcome.trials) > 30 else 'More trials would tell.')
    ).strip()
  unknown = [named[x.setting] for x in findings if not x.is_known]
  if unknown:
    yield f'Of {_listed(unknown)} too few trials can be compared.'


def influence(
  outcome: outcome_lib.Outcome,
  findings: Sequence[findings_lib.Finding],
  named: Names,
) -> markup.Markup | None:
  """Each setting: what is known of it, and the scores of its values."""
  if not outcome.trials:
    return None
  rows = [
    (
      named[x.setting],
      f'{x.share:.0%}' if x.is_known else 'too few trials',
      _p(x.p_value) if x.is_known else '',
      ('yes' if x.matters else 'not seen') if x.is_known else 'unknown',
      x.best.label if x.is_known else '',
    )
    for x in findings
  ]
  heads = ('setting', 'explains', 'p', 'matters', 'best values')
  whole = [
    parts.figure(
      named[x.setting],
      pictures.marginal(
        outcome,
        outcome_lib.dimension(outcome.study, x.setting),
        named[x.setting],
      ),
    )
    for x in findings
    if x.trials or outcome.values(x.setting)
  ]
  return parts.section(
    'Which settings matter',
    parts.table('', heads, rows),
    element('p', _method(outcome), class_='soft'),
    element('div', *whole, class_='charts'),
    element('p', _legend(outcome), class_='soft'),
  )


def together(
  outcome: outcome_lib.Outcome, titles: Sequence[str]
) -> markup.Markup | None:
  """All settings side by side."""
  count = len(outcome.study.dimensions)
  if len(outcome.trials) < 2 or not 1 < count <= _MAX_AXES:
    return None
  return parts.section(
    'All settings together',
    _broad(pictures.parallel(outcome, titles)),
    _scale('lowest score', 'highest'),
    element(
      'p',
      'A line is a trial. The best is thick; those that did not go as far are '
      'faint.',
      class_='soft',
    ),
  )


def ranked(outcome: outcome_lib.Outcome, named: Names) -> markup.Markup | None:
  """All trials, the best first."""
  if not outcome.trials:
    return None
  rows = [_row(i, x, named) for i, x in enumerate(outcome.trials, 1)]
  heads = ('#', 'trial', 'score', '95% interval', 'agent steps')
  heads = (*heads, *named.values(), 'end')
  numbers = [
    i for i in range(len(heads)) if all(_is_number(row[i]) for row in rows)
  ]
  pieces = [_table(heads, rows[:_SHOWN], numbers)]
  if len(rows) > _SHOWN:
    title = f'The other {len(rows) - _SHOWN:,}'
    rest = _table(heads, rows[_SHOWN:], numbers)
    pieces.append(parts.details(title, rest))
  return parts.section(
    'The trials, ranked',
    element(
      'p',
      'Those that went further come first, and then those with the higher '
      'score: scores at different agent steps can not be compared. "forked" '
      'tells whom a trial went on from.'
      if outcome.study.scheduler == 'pbt'
      else 'Those that went further come first, and then those with the higher '
      'score: scores at different agent steps can not be compared.',
      class_='soft',
    ),
    *pieces,
  )


def learning(outcome: outcome_lib.Outcome) -> markup.Markup | None:
  """Learning curves of the best few."""
  best = [x for x in outcome.trials if x.curve is not None][:_CURVES]
  best = [x for x in best if len(x.curve.steps) > 1]
  if not best:
    return None
  drawings = [
    element(
      'div', pictures.curves(outcome, best, svg.MEDIUM), class_='narrow charts'
    ),
    element('div', pictures.curves(outcome, best, svg.WIDE), class_='wide'),
  ]
  legend = [
    element('span', element('i', class_=f'swatch c{i}'), x.label)
    for i, x in enumerate(best)
  ]
  seeds = parts.count(outcome.study.num_seeds, 'seed')
  return parts.section(
    'How the best learned',
    *drawings,
    element('p', *legend, class_='legend'),
    element(
      'p',
      f'{outcome.study.metric}: means over {seeds}; of the best its 95% '
      'interval, which at an edge goes on beyond it.'
      if outcome.study.num_seeds > 1
      else f'{outcome.study.metric}, one seed.',
      class_='soft',
    ),
  )


def lineages(outcome: outcome_lib.Outcome) -> markup.Markup | None:
  """Who went on from whom, of population-based training."""
  if not any(x.parent is not None for x in outcome.state.trials):
    return None
  return parts.section(
    'The population',
    _broad(lineage.draw(outcome)),
    _scale('lowest score', 'highest'),
    element(
      'p',
      'A row is a place in the population, a curve a trial that went on from '
      'another. The line of the best is thick.',
      class_='soft',
    ),
  )


def rungs(outcome: outcome_lib.Outcome) -> markup.Markup | None:
  """How many trials entered each rung, and how many went on."""
  state, study = outcome.state, outcome.study
  if len(study.rungs) < 2:
    return None
  rows = []
  for rung, entered in enumerate(state.entered):
    reached = [x for x in entered if (x, rung) in state.scores]
    means = [(np.mean(state.scores[x, rung]), -x) for x in reached]
    means = [x for x in means if math.isfinite(x[0])]
    mean, number = max(means, default=(math.nan, 0))
    best = f'{parts.number(mean)} by {-number:04}' if means else ''
    stopped = sum(x == rung for x in state.stopped.values())
    steps = f'{outcome.steps(rung):,}'
    row = (rung + 1, steps, len(entered), len(reached), stopped, best)
    rows.append(tuple(map(str, row)))
  heads = ('rung', 'agent steps', 'entered', 'reached it', 'stopped', 'best')
  return parts.section('The rungs', _table(heads, rows, range(5)))


def failures(outcome: outcome_lib.Outcome) -> markup.Markup | None:
  """What could not be trained, and why."""
  state = outcome.state
  if not state.failures and not state.given_up:
    return None
  rows = [
    (f'{number:04}', texts.line(str(why)))
    for number, why in sorted(state.given_up.items())
  ]
  count = parts.count(sum(state.failures.values()), 'time')
  words = f'Packs failed {count} and were tried again.'
  if rows:
    words += f' {parts.count(len(rows), "trial")} failed each time: given up.'
  return parts.section(
    'Failures',
    element('p', f'{words} Tracebacks lie in the folder failures.'),
    parts.table('', ('trial', 'why'), rows) if rows else None,
  )


def _method(outcome):
  who = 'All trials are ranked, those that went further first.'
  if outcome.study.scheduler == 'pbt':
    who = (
      'Trials that went on from others are not independent of them: asked are '
      'those that began anew, by their score at the first rung.'
    )
  chosen = ''
  if outcome.study.search == 'tpe':
    chosen = (
      ' The search chose values near those that were good: then p is too low '
      'or too high, and only a guide.'
    )
  return (
    f'{who} Numbers are cut into thirds of the trials. "Explains" is the share '
    'of the variance of the ranks that the classes explain beyond chance; p '
    "is of Kruskal and Wallis's test by 10,000 permutations, corrected for the "
    'number of settings (Holm). Each setting is looked at alone.' + chosen
  )


def _legend(outcome):
  words = 'A dot is a trial, orange the best. '
  if outcome.study.num_seeds > 1:
    words += 'Bars are 95% intervals; at an edge they go on beyond it. '
  if len({x.rung for x in outcome.trials}) > 1:
    words += 'Faint trials ended before the others, where scores are lower.'
  return words.strip()


def _row(place, trial, named):
  end = trial.end
  if trial.why:
    end = f'{end}: {trial.why}'
  if trial.parent is not None:
    end = f'forked from {trial.parent:04}; {end}'
  known = math.isfinite(trial.mean)
  return (
    str(place),
    trial.label,
    parts.number(trial.mean) if known else 'none',
    parts.interval(*map(float, trial.interval[1:])) if known else '',
    f'{trial.steps:,}',
    *(_value(trial.settings, name) for name in named),
    end,
  )


def _value(settings, name):
  if name not in settings:
    return ''
  return findings_lib.shown(repr(settings[name]))


def _is_number(text):
  return not text or order.is_number(text.replace(',', ''))


def _table(heads, rows, numbers):
  """Returns a table, of which some columns are numbers, at the right."""
  cells = [
    element('th', x, scope='col', class_='number' if i in numbers else None)
    for i, x in enumerate(heads)
  ]
  body = [
    element(
      'tr',
      *(
        element('td', x, class_='number' if i in numbers else None)
        for i, x in enumerate(row)
      ),
    )
    for row in rows
  ]
  return element(
    'div',
    element(
      'table',
      element('thead', element('tr', *cells)),
      element('tbody', *body),
    ),
    class_='scroll dense',
    tabindex='0',
  )


def _broad(drawing):
  return element('div', drawing, class_='scroll broad', tabindex='0')


def _scale(low, high):
  """A legend of the colours of scores."""
  swatches = [
    element('i', class_=f'swatch q{i}') for i in range(pictures.COLOURS)
  ]
  return element('p', f'{low} ', *swatches, f' {high}', class_='legend scale')


def _p(value):
  return '< 0.001' if value < 0.001 else f'{value:.2g}'


def _p_in_words(value):
  return f'p {_p(value)}' if value < 0.001 else f'p = {_p(value)}'


def _listed(names):
  return ', '.join(names)


def _count(outcome):
  """Returns how many trials are asked: those that began anew."""
  own = [x for x in outcome.trials if x.parent is None]
  anew = ' that began anew' if len(own) < len(outcome.trials) else ''
  return parts.count(len(own), 'trial') + anew
