"""Runs that differ in numbers of their agents, trained in one program."""

from collections.abc import Callable, Mapping, Sequence
import pathlib
from typing import Any

import numpy as np

from dopamine_jax import runner as runner_lib
from dopamine_jax.config import grid
from dopamine_jax.training import together


def of_files(
  files: Sequence[str | pathlib.Path],
  bindings: Sequence[str],
  vary: Sequence[str] | Mapping[str, Sequence[Any]],
  say: Callable[[str], None] = print,
) -> dict[str, runner_lib.Runner]:
  """Returns the runners that gin files describe, by the names of their folders.

  Args:
    files: names or paths of gin files.
    bindings: lines of gin, which win.
    vary: what to try of each setting; or lines such as 'dqn.DQN.gamma = [0.9,
      0.99]'.
    say: prints what the user should know.

  Raises:
    UserError: if there is nothing to vary, or what `configured` raises.
  """
  if not isinstance(vary, Mapping):
    vary = grid.parse(vary)
  runners = {}
  for name, more in grid.combinations(vary).items():
    with runner_lib.configured(files, [*bindings, *more], say) as (runner, _):
      runners[name] = runner
  return runners


def train(
  runners: Mapping[str, runner_lib.Runner],
  base_dir: str | pathlib.Path,
  *,
  seed: int = 0,
  num_seeds: int = 1,
  resume: bool = True,
  quiet: bool = False,
  title: str = '',
  say: Callable[[str], None] = print,
  until: int | None = None,
) -> dict[str, dict[str, np.ndarray]]:
  """Trains several in one program, or goes on where they were stopped.

  They differ in real numbers of their agents, optimizers and replays alone.
  Each has its run in a folder of `base_dir`, and equals the one that is trained
  by itself to the rounding of floats.

  Args:
    runners: by the names of their folders.
    base_dir: where these lie.
    seed: see `Runner.train`; likewise the others.
    num_seeds: of each training.
    resume: whether to go on.
    quiet: whether nothing is shown.
    title: what the runs are, in a line.
    say: prints what the user should know.
    until: the iteration after which they pause, a multiple of their
      `checkpoint_period`; None: they are trained to their end.

  Returns:
    The last iteration's statistics, [S] by name, of each training.

  Raises:
    UserError: if they differ in more, or what `Runner.train` raises.
  """
  runner_lib.check_options(
    base_dir, seed, num_seeds, title, resume=resume, quiet=quiet
  )
  return together.train(
    runners,
    pathlib.Path(base_dir),
    tuple(range(seed, seed + num_seeds)),
    resume=resume,
    quiet=quiet,
    title=title,
    say=say,
    until=until,
  )
