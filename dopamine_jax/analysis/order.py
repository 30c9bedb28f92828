"""The order in which a person would list names: 2 before 10."""

import re

# A sign counts where it can't be a hyphen, as in 'run-2'.
_NUMBER = re.compile(
  r'((?:(?<![A-Za-z0-9.)-])[-+])?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)'
)


def natural(text: str) -> tuple:
  """Returns a key to sort texts by, in which numbers count as numbers.

  'lr_0.0001' < 'lr_0.001', 'n_2' < 'n_10', '1e-4' < '0.001'.
  """
  # Texts at even places, numbers at odd ones: like is compared with like.
  parts = _NUMBER.split(text)
  key = (float(x) if i % 2 else x for i, x in enumerate(parts))
  return tuple(key), text


def is_number(text: str) -> bool:
  """Whether a text is a number, as '1e-4' is."""
  return _NUMBER.fullmatch(text) is not None
