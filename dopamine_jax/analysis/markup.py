"""HTML and SVG of which nothing can break out: text is escaped by default."""

import html

from dopamine_jax.system import texts


class Markup(str):
  """Text that is HTML already, and is left as it is."""


def element(tag: str, *children: object, **attributes: object) -> Markup:
  """Returns an element.

  Args:
    tag: its name.
    *children: escaped, but for `Markup`; None is left out.
    **attributes: escaped; `class_` is class, `aria_label` is aria-label, None
      is left out and True stands without a value.
  """
  words = [tag]
  for name, value in attributes.items():
    name = name.rstrip('_').replace('_', '-')
    if value is True:
      words.append(name)
    elif value is not None:
      words.append(f'{name}="{_escape(value)}"')
  return Markup(f'<{" ".join(words)}>{join(children)}</{tag}>')


def join(children) -> Markup:
  """Returns children one after the other, as `element` takes them."""
  return Markup(
    ''.join(
      child if isinstance(child, Markup) else _escape(child)
      for child in children
      if child is not None
    )
  )


def _escape(text):
  """Text as HTML; what turns its direction or ends a page is shown instead."""
  return html.escape(texts.printable(str(text)))
