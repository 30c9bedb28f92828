"""`train --vary`: several trainings in one program."""

from collections.abc import Callable, Sequence
import pathlib
from typing import Any

import typer

from dopamine_jax.commands import summaries


def refuse_with_vary(profile: int | None, without_replay: bool):
  """Refuses what trainings that share a program can't do.

  Raises:
    BadParameter: names it.
  """
  for name, given in (
    ('--profile', profile),
    ('--without-replay', without_replay),
  ):
    if given:
      raise typer.BadParameter(
        f'goes with one training, and --vary trains several. Leave out {name}.',
        param_hint=name,
      )


def train(
  files: Sequence[pathlib.Path],
  bindings: Sequence[str],
  vary: Sequence[str],
  base_dir: pathlib.Path,
  options: dict[str, Any],
  quiet: bool,
  say: Callable[[str], None],
):
  """Trains every combination, and says what each has reached.

  Args:
    files: gin files.
    bindings: lines of gin, which win.
    vary: lines as of `--vary`.
    base_dir: where the runs lie.
    options: of `variations.train`.
    quiet: whether nothing is shown.
    say: prints what the user should know.
  """
  from dopamine_jax import variations

  runners = variations.of_files(files, bindings, vary, say)
  runs = variations.train(runners, base_dir, quiet=quiet, say=say, **options)
  if quiet:
    return
  summaries.print_runs(base_dir, runs)
