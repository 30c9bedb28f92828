"""Bindings under which any training takes seconds."""

import pathlib
import re

# Agent steps of an iteration: eight of each of up to eight environments.
STEPS = 64
REPLAY = ('capacity = 200', 'min_history = 16', 'batch_size = 4')
SEQUENCES = ('min_history = 48', 'length = 2', 'burn_in = 1')


def bindings(gin_files) -> list[str]:
  """Returns bindings for two short iterations of what these files train.

  Args:
    gin_files: as the command line takes them.
  """
  text = '\n'.join(_read(file) for file in gin_files)
  replays = sorted(set(re.findall(r'replay = @(\w+\.\w+)', text)))
  return [
    'runner.Runner.num_iterations = 2',
    f'runner.Runner.training_steps = {STEPS}',
    'runner.Runner.evaluation_episodes = 1',
    *(f'{replay}.{each}' for replay in replays for each in REPLAY),
    *(
      f'{replay}.{each}'
      for replay in replays
      for each in SEQUENCES
      if 'Sequence' in replay
    ),
  ]


def _read(file) -> str:
  """Returns a file's text, and that of the files that it includes."""
  path = pathlib.Path(file)
  if not path.exists():  # one that is shipped, by its name or path
    path = pathlib.Path(__file__).parent.parent / f'configs/{path.stem}.gin'
  text = path.read_text()
  included = re.findall(r"^include '(.*)'", text, re.MULTILINE)
  return '\n'.join([text, *map(_read, included)])
