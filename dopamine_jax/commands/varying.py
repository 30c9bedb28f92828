"""`train --vary`: several trainings in one program."""

from collections.abc import Callable, Sequence
import os
import pathlib
from typing import Any

import typer

from dopamine_jax.commands import options
from dopamine_jax.commands import parts
from dopamine_jax.commands import summaries
from dopamine_jax.system import children


def refuse(
  vary: Sequence[str],
  processes: int,
  part: tuple[int, int] | None,
  base_dir: pathlib.Path | None,
  profile: int | None,
  without_replay: bool,
):
  """Refuses options that don't go together.

  Raises:
    BadParameter: names one.
  """
  if vary:
    for name, given in (
      ('--profile', profile),
      ('--without-replay', without_replay),
    ):
      if given:
        raise typer.BadParameter(
          'goes with one training, and --vary trains several. Leave out '
          f'{name}.',
          param_hint=name,
        )
    if processes > 1 and not parts.started():
      _refuse_processes(processes, part)
    if part and not base_dir:
      raise typer.BadParameter(
        'trains beside other parts, in one folder. Give all the same '
        '--base_dir.',
        param_hint='--part',
      )
    return
  for name, given in (('--processes', processes > 1), ('--part', part)):
    if given:
      raise typer.BadParameter(
        f'divides the trainings of --vary, and no --vary is given. Leave out '
        f'{name}.',
        param_hint=name,
      )


def _refuse_processes(processes, part):
  """Refuses processes that would be too many, or join others."""
  present = len(children.cores())
  if processes > present:
    raise typer.BadParameter(
      f'{processes} is more than the {present} cores that are here, and each '
      f'needs one of its own. Give {present} at most.',
      param_hint='--processes',
    )
  if os.environ.get('JAX_COORDINATOR_ADDRESS'):
    raise typer.BadParameter(
      'divides trainings on one machine, and JAX_COORDINATOR_ADDRESS joins '
      'machines into one training. Unset it, or leave out --processes.',
      param_hint='--processes',
    )
  if part:
    raise typer.BadParameter(
      'is divided already by --processes. Leave one of them out.',
      param_hint='--part',
    )


def train(
  files: Sequence[pathlib.Path],
  bindings: Sequence[str],
  vary: Sequence[str],
  base_dir: pathlib.Path,
  part: tuple[int, int] | None,
  given: dict[str, Any],
  quiet: bool,
  say: Callable[[str], None],
):
  """Trains every combination, and says what each has reached.

  Args:
    files: gin files.
    bindings: lines of gin, which win.
    vary: lines as of `--vary`.
    base_dir: where the runs lie.
    part: which of how many parts of the combinations to train; None: all.
    given: other options of `variations.train`.
    quiet: whether nothing is shown.
    say: prints what the user should know.
  """
  from dopamine_jax import variations
  from dopamine_jax.training import together

  started = parts.started()
  if started:
    children.follow_starter()
  runners = variations.of_files(files, bindings, vary, say)
  if part:  # of one that was started, the starter has looked at all
    together.require_alike(runners)
  if part := part or started:
    runners = parts.of(runners, *part)
  runs = variations.train(runners, base_dir, quiet=quiet, say=say, **given)
  if quiet:
    return
  summaries.print_reached(runs)
  if not started:  # whoever did says it
    summaries.print_runs(base_dir, () if part else runs)


def train_in_parts(
  files: Sequence[pathlib.Path],
  bindings: Sequence[str],
  vary: Sequence[str],
  base_dir: pathlib.Path | None,
  count: int,
  quiet: bool,
  say: Callable[[str], None],
) -> int:
  """Has so many processes train the combinations; returns the exit status.

  Args:
    files: gin files.
    bindings: lines of gin, which win.
    vary: lines as of `--vary`.
    base_dir: where the runs lie; None: in a new folder.
    count: of the processes.
    quiet: whether nothing is shown.
    say: prints what the user should know.
  """
  import jax

  from dopamine_jax import variations
  from dopamine_jax.training import together

  # Only to look at settings: devices are for the parts.
  jax.config.update('jax_platforms', 'cpu')
  runners = variations.of_files(files, bindings, vary, say)
  parts.of(runners, 1, count)  # which says if there are too few
  together.require_alike(runners)
  base_dir = base_dir or options.new_folder(files[0])
  status = parts.train(count, say)
  if not quiet and not status:
    summaries.print_runs(base_dir, runners)
  return status
