"""Which runs are one experiment, and what to call it."""

from collections.abc import Callable, Sequence
import os
import pathlib
from typing import NamedTuple

import pandas as pd

from dopamine_jax import errors
from dopamine_jax.analysis import games
from dopamine_jax.analysis import runs as runs_lib

_SHOWN = 3  # settings in a name that is made of them


class Group(NamedTuple):
  """Runs that differ in seed and game alone, or that were given one name.

  Attributes:
    name: as a reader sees it.
    runs: of one configuration for each game, each seed once.
    table: of all of them, tidy.
    published: whether it is a baseline and has no runs.
  """

  name: str
  runs: Sequence[runs_lib.Run]
  table: pd.DataFrame
  published: bool = False


class _Found(NamedTuple):
  """A run, and the argument of the command line that led to it."""

  given: str | None  # NAME of NAME=PATH
  argument: pathlib.Path
  run: runs_lib.Run


def gather(
  arguments: Sequence[str], say: Callable[[str], None] = print
) -> list[Group]:
  """Returns the groups of all runs that the arguments lead to.

  Args:
    arguments: each a PATH, of a run or a folder above several, or NAME=PATH.
    say: prints what is left out, and why.

  Raises:
    UserError: if there is no run at all, or one is to have two names.
  """
  found, faults = [], []
  for argument in arguments:
    name, path = split(argument)
    try:
      found += [_Found(name, path, run) for run in runs_lib.find(path, say)]
    except errors.UserError as error:
      faults.append(str(error))
  if not found:
    raise errors.UserError('\n'.join(faults))
  for fault in faults:
    say(f'Left out: {fault}')
  members = _by_experiment(_each_once(found))
  return [
    _group(name, group, say)
    for name, group in zip(_names(members), members, strict=True)
  ]


def differences(groups: Sequence[Group]) -> dict[str, list[str]]:
  """Returns the settings in which groups differ, with each group's value.

  Groups that share no game aren't asked; '-' is a setting that isn't there.
  """
  named = [_settings(group.runs) for group in groups if not group.published]
  keys = sorted(set().union(*named))
  values = {key: [s.get(key, '-') for s in named] for key in keys}
  return {key: v for key, v in values.items() if len(set(v)) > 1}


def split(argument: str) -> tuple[str | None, pathlib.Path]:
  """Returns NAME (or None) and PATH; a path that is there may hold a '='."""
  name, equals, path = argument.partition('=')
  if not equals or '/' in name or os.path.exists(argument):
    return None, pathlib.Path(argument)
  if not name or not path:
    raise errors.UserError(f'{argument}: expected PATH or NAME=PATH.')
  return name, pathlib.Path(path)


def _each_once(found):
  """Returns each run once, however many arguments lead to it."""
  kept = {}
  for f in found:
    first = kept.setdefault((f.run.path.resolve(), f.run.agent), f)
    if first.given != f.given:
      names = ' and '.join(
        'without a name' if name is None else f'as {name!r}'
        for name in (first.given, f.given)
      )
      raise errors.UserError(
        f'{f.run.path} is given twice, {names}: give each run once.'
      )
  return list(kept.values())


def _by_experiment(found):
  """Returns lists of `_Found`, in the order of the arguments."""
  configs = {}
  for f in found:
    place = f.given, games.key(f.run.game)
    configs.setdefault(place, set()).add(f.run.config)
  several = {name for (name, _), c in configs.items() if len(c) > 1}
  groups = {}
  for f in found:
    # One name may span games whose settings differ, but not two experiments.
    alone = f.given is None or f.given in several
    key = f.given, f.run.config if alone else None, _trial(f.run)
    groups.setdefault(key, []).append(f)
  return list(groups.values())


def _trial(run):
  """Returns a sweep's trial: each is by itself, whatever else has its settings.

  Of others that is None.
  """
  folder = run.path.resolve()
  return folder if (folder.parent / 'sweep.json').exists() else None


def _names(members):
  """Names groups: as given, by the folder, or by the settings that differ."""
  spread = {}  # how many groups an argument leads to
  for group in members:
    for argument in {f.argument for f in group}:
      spread[argument] = spread.get(argument, 0) + 1
  given = [group[0].given for group in members]
  names = []
  for name, group, label in zip(given, members, _labels(members), strict=True):
    folders = {f.argument for f in group}
    if name is not None:
      names.append(name if given.count(name) == 1 else f'{name}: {label}')
    elif len(folders) == 1 and spread[group[0].argument] == 1:
      names.append(group[0].argument.resolve().name)
    elif len(group) == 1:
      names.append(group[0].run.path.resolve().name)
    else:
      names.append(label)
  return [
    name if names.count(name) == 1 else f'{name} ({group[0].run.path})'
    for name, group in zip(names, members, strict=True)
  ]


def _labels(members):
  """Names each group by agent and the settings that not all groups share."""
  settings = [_settings([f.run for f in group]) for group in members]
  keys = sorted(set().union(*settings))
  differ = [k for k in keys if len({s.get(k) for s in settings}) > 1]
  labels = []
  for group, own in zip(members, settings, strict=True):
    parts = [
      f'{key.rpartition(".")[2]} = {own[key]}' for key in differ if key in own
    ]
    more = ['...'] if len(parts) > _SHOWN else []
    labels.append(', '.join([group[0].run.agent, *parts[:_SHOWN], *more]))
  return labels


def _settings(runs):
  """Returns the settings of runs, where those of one group agree."""
  common = dict(runs[0].settings)
  for run in runs[1:]:
    common = {k: v for k, v in common.items() if run.settings.get(k) == v}
  return common


def _group(name, members, say):
  """Makes a group, each seed of a game once: the one that went furthest."""
  longest = {}  # the member that is kept, with its agent steps
  for f in members:
    for key, steps in _lengths(f.run).items():
      if steps > longest.get(key, (None, 0))[1]:
        longest[key] = f, steps
  kept = []
  for f in members:
    table = f.run.table
    for key, steps in _lengths(f.run).items():
      other, most = longest[key]
      if other is not f:
        say(
          f'Left out: seed {key[1]} of {f.run.path}, which has {steps:,} agent '
          f'steps; {other.run.path} holds the same seed of the same settings '
          f'with {most:,}.'
        )
        table = table[table.seed != key[1]]
    if not table.empty:
      kept.append(f.run._replace(table=table))
  return Group(name, kept, runs_lib.tabulate(kept))


def _lengths(run):
  """Returns the agent steps of each seed of a run, by game and seed."""
  game = games.key(run.game)
  steps = run.table.groupby('seed').agent_steps.max()
  return {(game, int(seed)): int(most) for seed, most in steps.items()}
