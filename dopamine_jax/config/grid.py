"""Settings to vary: every combination, each with a name for its folder."""

import ast
from collections.abc import Mapping, Sequence
import itertools
from typing import Any

from dopamine_jax import errors


def parse(lines: Sequence[str]) -> dict[str, list[Any]]:
  """Returns what to try of each setting, from lines as `NAME = [1e-3, 1e-4]`.

  Raises:
    UserError: if a line is anything else.
  """
  found = {}
  for line in lines:
    name, _, text = line.partition('=')
    try:
      given = ast.literal_eval(text.strip())
    except (SyntaxError, ValueError):
      given = None
    name = name.strip()
    if not name or not isinstance(given, (list, tuple)) or not given:
      raise errors.UserError(
        f'--vary {line!r}: expected a setting and what to try, as in '
        "--vary 'optax.adam.learning_rate = [1e-3, 1e-4]'."
      )
    if name in found:
      raise errors.UserError(f'--vary names {name} twice; give one list.')
    found[name] = list(given)
  return found


def combinations(vary: Mapping[str, Sequence[Any]]) -> dict[str, list[str]]:
  """Returns bindings of gin for each combination, by its name.

  Args:
    vary: what to try of each setting.

  Raises:
    UserError: if a value comes twice.
  """
  short = {name: name.rpartition('.')[2] for name in vary}
  last = list(short.values())
  found = {}
  for chosen in itertools.product(*vary.values()):
    pairs = list(zip(vary, chosen, strict=True))
    folder = '_'.join(
      f'{short[name] if last.count(short[name]) == 1 else _safe(name)}_{value}'
      for name, value in pairs
    )
    if folder in found:
      raise errors.UserError(f'--vary gives {folder} twice; leave one out.')
    found[folder] = [f'{name} = {value!r}' for name, value in pairs]
  return found


def _safe(name):
  """Returns a setting's name, scope and all, as part of a folder's."""
  return name.replace('/', '.')
