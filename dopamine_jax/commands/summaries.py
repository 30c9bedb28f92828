"""What a training reached, in a few lines of the terminal."""

from collections.abc import Iterable, Mapping
import math
import pathlib
import shlex

import numpy as np
import typer

from dopamine_jax import errors


def print_run(base_dir: pathlib.Path, statistics: Mapping[str, np.ndarray]):
  """Says what was reached, where the run lies and how to look at it."""
  for phase, words in (('Eval', 'evaluation'), ('Train', 'training')):
    returns = statistics.get(f'{phase}/AverageReturns')
    if returns is not None:
      values = _listed(returns)
      typer.echo(f'Mean {words} return in the last iteration: {values}')
  typer.echo(f'The run lies in {base_dir}. To look at it:')
  tensorboard, ours = map(errors.program, ('tensorboard', 'dopamine-jax'))
  typer.echo(f'  {tensorboard} --logdir {shlex.quote(str(base_dir))}')
  typer.echo(f'  {ours} evaluate {shlex.quote(str(base_dir))}')


def print_reached(runs: Mapping[str, Mapping[str, np.ndarray]]):
  """Says what several trainings have reached."""
  for name, statistics in runs.items():
    reached = 'has no metrics.csv'
    for phase, words in (('Train', 'training'), ('Eval', 'evaluation')):
      returns = statistics.get(f'{phase}/AverageReturns')
      if returns is not None:
        reached = f'mean {words} return {_listed(returns)}'
    typer.echo(f'{name}  {reached}')


def _listed(returns):
  """Returns the seeds' mean returns in words."""
  return ', '.join(
    'none (no episode ended)' if math.isnan(value) else f'{value:.1f}'
    for value in returns
  )


def print_runs(base_dir: pathlib.Path, names: Iterable[str]):
  """Says where several runs lie, and how to compare them.

  Args:
    base_dir: of all of them.
    names: of those to compare; none: all that lie there.
  """
  folders = [shlex.quote(str(base_dir / name)) for name in names or ['']]
  typer.echo(f'The runs lie in {base_dir}. To compare them:')
  typer.echo(f'  {errors.program("dopamine-jax")} compare {" ".join(folders)}')
