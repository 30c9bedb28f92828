"""Text that a stranger wrote, made safe to show.

The name of a run, an agent or a tag may hold what a terminal obeys (it moves
the cursor, sets the window's title), what turns the direction of writing, or
what a spreadsheet takes for a formula.
"""

import re

# Control characters but for the end of a line and the tab, what is invisible or
# turns the direction of writing, and halves of characters, as which Python
# reads the bytes of a file's name that are no UTF-8.
_UNPRINTABLE = re.compile(
  '[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e'
  '\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]'
)
_NUMBER = re.compile(r'[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|[-+]?(nan|inf)')


def printable(text: str) -> str:
  """Returns text; what a terminal could obey is shown as Python writes it."""
  return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


def line(text: str) -> str:
  """Returns text that is printable and one line long."""
  return printable(' '.join(text.split()) if text.strip() else text.strip())


def cell(text: str) -> str:
  """Returns printable text that no spreadsheet takes for a formula."""
  text = printable(text)
  if text[:1] in ('=', '+', '-', '@', '\t') and not _NUMBER.fullmatch(text):
    return f"'{text}"
  return text
