"""Command lines that go on from a sweep, for a shell to take as they are."""

from collections.abc import Iterable, Mapping
import pathlib
import shlex
from typing import Any

from dopamine_jax.sweeps import spaces
from dopamine_jax.sweeps import study as study_lib

_PROGRAM = 'dopamine-jax'


def train(
  study: study_lib.Study,
  settings: Mapping[str, Any],
  base_dir: pathlib.Path | str,
  seed: int,
  num_seeds: int,
) -> str:
  """Returns the command that trains the settings of a trial anew.

  Args:
    study: the sweep.
    settings: of the trial.
    base_dir: of the run.
    seed: its first seed.
    num_seeds: how many follow each other from there.
  """
  words = [_PROGRAM, 'train', *study.files]
  for line in (*study.bindings, *spaces.bindings(settings)):
    words += ['-b', line]
  words += ['--seed', str(seed)] if seed else []
  words += ['--num_seeds', str(num_seeds)] if num_seeds > 1 else []
  return shlex.join([*words, '--base_dir', str(base_dir)])


def sweep(
  study: study_lib.Study,
  space: Iterable[str],
  base_dir: pathlib.Path | str,
  fixed: Mapping[str, Any] | None = None,
  search_seed: int | None = None,
) -> str:
  """Returns the command of a sweep that is like this one.

  Args:
    study: the sweep.
    space: lines of what the new one varies.
    base_dir: of the new one.
    fixed: settings that it does not vary any more.
    search_seed: of the new one; None: the same.
  """
  words = [_PROGRAM, 'sweep', *study.files]
  for line in (*study.bindings, *spaces.bindings(fixed or {})):
    words += ['-b', line]
  for line in space:
    words += ['--vary', line]
  words += ['--search', study.search]
  if study.search != 'grid':
    words += ['--trials', str(study.trials)]
  words += ['--scheduler', study.scheduler]
  if study.scheduler != 'none':
    words += ['--rung_steps', str(study.rungs[0] * study.training_steps)]
  if study.scheduler == 'asha':
    words += ['--reduction', str(study.reduction)]
  words += ['--metric', study.metric, '--last', str(study.last)]
  words += ['--seed', str(study.seed)] if study.seed else []
  words += ['--num_seeds', str(study.num_seeds)]
  seed = study.search_seed if search_seed is None else search_seed
  words += ['--search_seed', str(seed)] if seed else []
  return shlex.join([*words, '--base_dir', str(base_dir)])


def resume(folder: pathlib.Path) -> str:
  """Returns the command that goes on with a sweep."""
  return shlex.join([_PROGRAM, 'sweep', 'resume', str(folder)])


def compare(study: study_lib.Study, folder: pathlib.Path | str) -> str:
  """Returns the command that compares runs by what the sweep is judged by."""
  words = [_PROGRAM, 'compare', str(folder), '--metric', study.metric]
  return shlex.join([*words, '--last', str(study.last)])


def written(dimension: spaces.Dimension, domain: Any = None) -> str:
  """Returns the line of a setting, with another domain if one is given."""
  domain = domain or dimension.domain
  if isinstance(domain, spaces.Choice):
    what = f'[{", ".join(map(repr, domain.values))}]'
  else:
    kind = 'integers' if domain.is_whole else 'uniform'
    kind = f'log_{kind}' if domain.is_log else kind
    what = f'{kind}({domain.low!r}, {domain.high!r})'
  line = f'{dimension.setting} = {what}'
  if dimension.when is None:
    return line
  name, values = dimension.when
  return f'{line} when {name} = [{", ".join(map(repr, values))}]'
