"""What the page of a report is made of: sections, tables, code, numbers."""

from collections.abc import Iterable, Sequence
import math

from dopamine_jax.analysis import markup

element = markup.element


def section(
  title: str, *children: object, class_: str | None = None
) -> markup.Markup:
  """A part of the page under a heading."""
  name = title.lower().replace(',', '').replace(' ', '-')
  heading = element('h2', title, id=name)
  return element(
    'section', heading, *children, class_=class_, aria_labelledby=name
  )


def figure(
  title: str, *plots: markup.Markup, caption: str | None = None
) -> markup.Markup:
  """Plots with what is above and below them."""
  return element(
    'figure',
    element('h3', title),
    *plots,
    caption and element('figcaption', caption),
  )


def details(title: str, content: markup.Markup) -> markup.Markup:
  """What unfolds."""
  return element('details', element('summary', title), content)


def code(text: str, long: bool = False) -> markup.Markup:
  """Code with a button that copies it; of `long` a part is seen at once."""
  return element(
    'div',
    element('pre', element('code', text), tabindex='0'),
    element('button', 'Copy', class_='copy', type='button', hidden=True),
    class_='code long' if long else 'code',
  )


def table(
  caption: str, heads: Sequence[str], rows: Iterable[Sequence[object]]
) -> markup.Markup:
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


def number(value: float) -> str:
  """As many digits as returns are worth."""
  value = float(value)
  if abs(value) >= 1_000:
    return f'{value:,.0f}'
  return f'{value:.1f}' if abs(value) >= 10 else f'{value:.3g}'


def interval(low: float, high: float) -> str:
  """An interval over seeds, which is NaN of one."""
  if not math.isfinite(low):
    return 'one seed'
  return f'{number(low)} to {number(high)}'


def count(number: int, noun: str) -> str:
  """'1 seed', '5 seeds'."""
  return f'{number} {noun}' if number == 1 else f'{number:,} {noun}s'


def duration(seconds: float) -> str:
  """'17 s', '3 min', '2 h 5 min'."""
  if seconds < 60:
    return f'{seconds:.0f} s'
  if seconds < 3_600:
    return f'{seconds / 60:.0f} min'
  return f'{seconds // 3_600:.0f} h {seconds % 3_600 / 60:.0f} min'


def tile(title: str, value: str, note: str) -> markup.Markup:
  """One of the few numbers that most readers come for."""
  return element(
    'div',
    element('dt', title),
    element('dd', value, class_='number'),
    element('dd', note, class_='note'),
    class_='tile',
  )
