"""Options and arguments that several commands take."""

from collections.abc import Sequence
import datetime
import importlib.metadata
import itertools
import os
import pathlib
import sys
from typing import Annotated, Any

import typer

from dopamine_jax import errors
from dopamine_jax.commands import parts

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


def show_version(is_asked: bool):
  """Prints the version and ends the command, if that is asked."""
  if is_asked:
    typer.echo(f'dopamine-jax {importlib.metadata.version("dopamine-jax")}')
    raise typer.Exit


def complete_config(incomplete: str) -> list[str]:
  """Returns the shipped configs whose names begin so."""
  from dopamine_jax import config

  names = [path.stem for path in config.shipped()]
  return [name for name in names if name.startswith(incomplete)]


def path(*names: str, **details: Any) -> Any:
  """Returns an option that takes a path."""
  return typer.Option(*names, parser=parse_path, metavar='PATH', **details)


BaseDir = Annotated[
  pathlib.Path,
  typer.Argument(parser=parse_path, help='The folder of a training.'),
]
Checkpoint = Annotated[
  str | None,
  typer.Option(
    metavar='NAME',
    help='Which one: its iteration, or the name by which a callback keeps it, '
    'such as best.',
    show_default='the newest',
  ),
]
Configs = Annotated[
  list[pathlib.Path],
  typer.Argument(
    metavar='CONFIG',
    parser=parse_path,
    autocompletion=complete_config,
    show_default=False,
    help="What to train: a shipped config's name, as 'dopamine-jax configs' "
    'lists them, or the path of a gin file; later ones win.',
  ),
]
GinFiles = Annotated[
  list[pathlib.Path],
  path('--gin_files', help='The same as CONFIG; repeatable.'),
]
GinBindings = Annotated[
  list[str],
  typer.Option(
    *('--gin_bindings', '-b'),
    help="A line of gin, e.g. 'dqn.DQN.gamma = 0.9'; repeatable.",
  ),
]
Vary = Annotated[
  list[str],
  typer.Option(
    '--vary',
    metavar='LINE',
    help='Train several at once, in one program: a number of the agent, its '
    "optimizer or its replay, and what to try, e.g. 'dqn.DQN.gamma = [0.9, "
    "0.99]'; repeatable, for every combination. Each run lies in a folder of "
    'its own in --base_dir.',
  ),
]
Processes = Annotated[
  int,
  typer.Option(
    '--processes',
    min=1,
    help='Train the combinations of --vary in so many processes on this '
    'machine, each on cores of its own.',
  ),
]
Part = Annotated[
  tuple | None,
  typer.Option(
    '--part',
    parser=parts.parse,
    metavar='I/N',
    help='Train only part I of N of the combinations of --vary, for example '
    'on machine I of N.',
    show_default='all',
  ),
]
EnvironmentBindings = Annotated[
  list[str],
  typer.Option(
    *('--gin_bindings', '-b'),
    help='A line of gin that changes the environment to play on, e.g. '
    "'gym.Gym.max_steps_per_episode = 1000'; repeatable.",
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


def files(
  configs: Sequence[pathlib.Path], gin_files: Sequence[pathlib.Path]
) -> list[pathlib.Path]:
  """Returns the gin files that are given.

  Raises:
    BadParameter: if there is none.
  """
  if not configs and not gin_files:
    raise typer.BadParameter(
      "none is given, such as dqn_cartpole: 'dopamine-jax configs' lists those "
      'that are shipped.',
      param_hint='CONFIG',
    )
  return [*configs, *gin_files]


def new_folder(config: pathlib.Path) -> pathlib.Path:
  """Returns a folder for a run that was given none; it is not there yet.

  It becomes a part of the command, as the run's record has it.

  Raises:
    UserError: if other processes train the same run, and would not find it.
  """
  import jax

  if jax.distributed.is_initialized() and jax.process_count() > 1:
    raise errors.UserError(
      'several processes train one run: give all the same --base_dir.'
    )
  time = datetime.datetime.now().strftime('%Y-%m-%d_%H-%M-%S')
  first = pathlib.Path('runs') / config.stem / time
  others = (first.with_name(f'{time}_{i}') for i in itertools.count(2))
  folders = itertools.chain([first], others)
  folder = next(each for each in folders if not os.path.lexists(each))
  sys.argv[2:2] = ['--base_dir', str(folder)]
  return folder


def meanings(name: pathlib.Path) -> str:
  """Returns what a gin file's settings mean, as comments of a gin file.

  A file may be a stranger's, and to be read: no code that it brings is run.
  """
  from dopamine_jax import config

  if fault := _code_of(config.find(name), set()):
    return f'# What they mean is not shown, since that could run code: {fault}.'
  return config.meanings_of(name)


def _code_of(file: pathlib.Path, seen: set[pathlib.Path]) -> str:
  """Returns what in a gin file, or below it, is not the framework's; or ''."""
  from gin import config_parser

  from dopamine_jax import config
  from dopamine_jax.trust import gin_names
  from dopamine_jax.trust import kinds

  if file in seen or file in config.shipped():
    return ''
  seen.add(file)
  rest = []
  for statement in gin_names.read(file, config.read(file)):
    if isinstance(statement.parsed, config_parser.IncludeStatement):
      if fault := _code_of(config.find(statement.parsed.filename), seen):
        return fault
    else:
      rest.append(statement)
  return next((each.what for each in kinds.faults_of_text(rest, ())), '')
