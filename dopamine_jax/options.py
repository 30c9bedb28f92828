"""Options and arguments that several commands take."""

import os
import pathlib
from typing import Annotated, Any

import typer

# Seeds are 32-bit integers to JAX.
MAX_SEED = 2**31 - 1
MAX_NUM_SEEDS = 2**16


def parse_path(text: str) -> pathlib.Path:
  """Returns the path that is named, `~` as a shell would have it."""
  if not text:
    raise typer.BadParameter('is empty; expected a path.')
  try:
    return pathlib.Path(text).expanduser()
  except RuntimeError as error:
    raise typer.BadParameter(f'{text}: {error}') from error


def parse_run(text: str) -> str:
  """Returns PATH or NAME=PATH, `~` as a shell would have it."""
  name, _, rest = text.partition('=')
  if rest.startswith('~'):
    return f'{name}={parse_path(rest)}'
  parse_path(text)  # which refuses what can't be one
  return os.path.expanduser(text)


def path(*names: str, **details: Any) -> Any:
  """Returns an option that takes a path."""
  return typer.Option(*names, parser=parse_path, metavar='PATH', **details)


BaseDir = Annotated[
  pathlib.Path,
  typer.Argument(parser=parse_path, help='The folder of a training.'),
]
GinFiles = Annotated[
  list[pathlib.Path],
  path('--gin_files', help='A gin file; repeatable, later ones win.'),
]
GinBindings = Annotated[
  list[str],
  typer.Option(
    '--gin_bindings',
    help="A line of gin, e.g. 'dqn.DQN.gamma = 0.9'; repeatable.",
  ),
]
Seed = Annotated[
  int,
  typer.Option(min=0, max=MAX_SEED, help='All randomness of these episodes.'),
]
NumSeeds = Annotated[
  int,
  typer.Option(
    '--num_seeds',
    min=1,
    max=MAX_NUM_SEEDS,
    help='Seeds trained side by side.',
  ),
]
Trust = Annotated[
  list[str],
  typer.Option(
    '--trust',
    metavar='PACKAGE',
    help="What somebody else's config.gin may import and call; repeatable. "
    'Without it their run is safe: it uses parts of dopamine_jax, jax, flax, '
    'optax, rlax and gymnasium, or is refused. Your own runs need none.',
  ),
]
