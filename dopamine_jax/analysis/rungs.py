"""Where the trials of a sweep ended: not all of them are trained to the end.

The last points of a trial that was stopped early are of another agent step than
those of one that went on. So each is scored at the last rung that it reached,
and one that went further is ranked above those that did not.
"""

from collections.abc import Callable, Mapping, Sequence
import functools
import json
import pathlib
from typing import NamedTuple

import numpy as np
import pandas as pd

from dopamine_jax import errors
from dopamine_jax.analysis import curves as curves_lib
from dopamine_jax.analysis import groups as groups_lib
from dopamine_jax.system import safe_files

_MEGABYTES = 10
_MOST = 2**53  # agent steps


class Rungs(NamedTuple):
  """What a sweep's file says that concerns a comparison of its trials.

  Attributes:
    metric: by which its trials are judged.
    last: points whose mean is a score.
    steps: agent steps of the rungs, in ascending order.
  """

  metric: str
  last: int
  steps: Sequence[int]


def above(folders: Sequence[pathlib.Path]) -> Rungs | None:
  """Returns the rungs of the sweep whose runs these are; None if of none.

  A file that can't be read counts as none: the runs can be compared without.

  Args:
    folders: of runs, or the sweep's own.
  """
  if not folders:
    return None
  first = folders[0]
  sweep = first if (first / 'sweep.json').exists() else first.parent
  if any(sweep not in (each, each.parent) for each in folders):
    return None
  try:
    fields = json.loads(safe_files.read_text(sweep / 'sweep.json', _MEGABYTES))
    length = int(fields['training_steps'])
    steps = [int(each) * length for each in fields['rungs']]
    if not steps or max(steps) > _MOST or min(steps) < 1:
      return None
    return Rungs(str(fields['metric']), max(1, int(fields['last'])), steps)
  except (
    *(OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError),
    errors.UserError,
  ):
    return None


def of(groups: Sequence[groups_lib.Group]) -> Rungs | None:
  """Returns the rungs of the sweep whose runs these groups are, or None."""
  own = [group for group in groups if not group.published]
  return above([run.path for group in own for run in group.runs])


def stops(curves: curves_lib.Curves, game: str, rungs: Rungs) -> dict[str, int]:
  """Returns the agent step at which each group is scored, by its name.

  It is the last rung that it reached, and of those that reached none the end of
  the shortest.

  Args:
    curves: by group's name and game's key.
    game: the key of the one that is compared.
    rungs: of the sweep.
  """
  ends = {name: int(c[game].steps[-1]) for name, c in curves.items()}
  begins = {name: int(c[game].steps[0]) for name, c in curves.items()}
  found = {}
  for name, end in ends.items():
    reached = [x for x in rungs.steps if begins[name] <= x <= end]
    found[name] = max(reached, default=None)
  low = min((ends[n] for n, x in found.items() if x is None), default=0)
  return {
    name: max(low, begins[name]) if x is None else x
    for name, x in found.items()
  }


def where(
  curves: curves_lib.Curves,
  titles: Mapping[str, str],
  sweep: Rungs | None,
  published: Mapping[str, Mapping[str, pd.DataFrame]],
  say: Callable[[str], None],
) -> tuple[dict[str, int], dict[str, dict[str, int]]]:
  """Returns the agent steps that scores are taken at.

  Args:
    curves: by group's name and game's key.
    titles: of the games, by key.
    sweep: whose trials the groups are; None: of none.
    published: the bands of baselines whose scores are laid beside; a sweep's
      trials go by its rungs all the same.
    say: prints what is not compared, and why.

  Returns:
    By the keys of those games that all groups can be compared on, and the same
    for each group, by its name.
  """
  shared = curves_lib.common_games(curves)
  if sweep is None or len(titles) > 1 or not shared:
    ends = _ends(curves, titles, published, say)
    return ends, {name: ends for name in curves}
  (game,) = shared
  found = stops(curves, game, sweep)
  if words := in_words(found):
    say(words)
  ends = {game: max(found.values())}
  return ends, {name: {game: stop} for name, stop in found.items()}


def in_words(stops: Mapping[str, int]) -> str:
  """Says how many ended before the others, and where; '' if none did."""
  last = max(stops.values())
  steps, counts = np.unique([*stops.values()], return_counts=True)
  early = [
    f'{count} at {step:,}'
    for step, count in zip(steps, counts, strict=True)
    if step < last
  ]
  if not early:
    return ''
  number = sum(step < last for step in stops.values())
  return (
    f'{number} of {len(stops)} ended before {last:,} agent steps: '
    f'{", ".join(early)}. Each is scored where it ended, and ranked after '
    'those that went further.'
  )


def _last_shared(curves, game, published):
  """Returns the last step at which all have a number, or None."""
  steps = [by_game[game].steps for by_game in curves.values()]
  steps += [b[game].agent_steps for b in published.values() if game in b]
  shared = functools.reduce(np.intersect1d, steps)
  return int(shared[-1]) if len(shared) else None


def _ends(curves, titles, published, say):
  """Returns where scores are taken, on the games that all groups have."""
  shared = curves_lib.common_games(curves)
  if not shared and len(curves) > 1:
    say(
      'No game has runs of all groups: curves are drawn, nothing is compared.'
    )
  elif len(shared) < len(titles):
    alone = ', '.join(t for k, t in titles.items() if k not in shared)
    say(f'Not compared, since not all groups have it: {alone}.')
  ends = curves_lib.ends(curves, shared)
  # An agent is better the later it is asked: only numbers of the same step are
  # laid beside what was published.
  for game in shared:
    names = [name for name, bands in published.items() if game in bands]
    last = _last_shared(curves, game, published) if names else ends[game]
    if last is not None:
      ends[game] = min(ends[game], last)
    elif names[0] in curves:  # and not of means, which are in no pair
      del ends[game]
      say(
        f'{titles[game]} is not compared: there is no agent step with a number '
        f'of each group and of {names[0]}.'
      )
  short = {}
  for game, end in [*ends.items()]:
    late = [n for n, c in curves.items() if c[game].steps[0] > end]
    if late:
      del ends[game]
      say(
        f'{titles[game]} is not compared: {late[0]} begins after the last of '
        f'another, at {end:,} agent steps.'
      )
    elif (stops := {c[game].steps[-1] for c in curves.values()}) != {end}:
      why = (
        'where the shortest ends' if end in stops else 'the last that all have'
      )
      short.setdefault((end, why), []).append(titles[game])
  for (end, why), names in short.items():
    say(f'Compared up to {end:,} agent steps, {why}: {", ".join(names)}.')
  return ends
