"""How many calls a gin file asks for, told before the first of them.

Each use of a macro, and of what is called by @name(), makes it anew. So a few
lines that use the line before ten times each would take years.
"""

from collections.abc import Iterator, Sequence
import inspect
import math
from typing import Any, NamedTuple

# Calls that making one thing may take, with all that is nested in it; the
# shipped configurations take up to ten.
_MOST_CALLS = 10_000
_DEEPEST = 30


class Binding(NamedTuple):
  """What a binding makes its target call.

  Attributes:
    line: its number.
    scope: in which it holds; of a macro, its name.
    target: the function or class, or a name of gin's own.
    calls: (scope, target) of each call; '' stays in the scope.
  """

  line: int
  scope: str
  target: Any
  calls: Sequence[tuple[str, Any]]


def lines_of_too_many_calls(bindings: Sequence[Binding]) -> Iterator[int]:
  """Yields the line of each binding whose target takes too many calls."""
  counter = _Counter(bindings)
  for each in bindings:
    if counter.count(each.target, each.scope) > _MOST_CALLS:
      yield each.line


class _Counter:
  """Counts calls, each pair of a target and a scope once."""

  def __init__(self, bindings):
    self._bindings = {}
    for each in bindings:
      self._bindings.setdefault(_key(each.target), []).append(each)
    self._counts = {}

  def count(self, target, scope, depth=0):
    place = _key(target), scope
    if depth > _DEEPEST:
      return math.inf
    if place not in self._counts:
      self._counts[place] = math.inf  # should it come back here
      self._counts[place] = 1 + sum(
        self.count(called, inner or scope, depth + 1)
        for binding in self._of(target)
        if f'{scope}/'.startswith(f'{binding.scope}/' if binding.scope else '')
        for inner, called in binding.calls
      )
    return self._counts[place]

  def _of(self, target):
    """Yields the bindings of a target, a class's ancestors' among them."""
    owners = target.__mro__ if inspect.isclass(target) else [target]
    for owner in owners:
      yield from self._bindings.get(_key(owner), ())


def _key(target):
  return target if isinstance(target, str) else id(target)
