"""`train --vary --processes`: a part of the trainings for each process.

One process runs one program, and steps its environments in turn. Each part is
the same command in a process of its own, which an environment variable tells
its part. It stops when the process that started it is gone.
"""

from collections.abc import Callable, Mapping
import contextlib
import functools
import os
import signal
import subprocess
import sys
from typing import Any

import typer

from dopamine_jax import errors
from dopamine_jax.system import children
from dopamine_jax.system import signals

# A variable of the environment: a part that was started here, such as 1/4.
_STARTED = 'DOPAMINE_JAX_PART'
_PATIENCE = 5.0  # seconds, for the last lines of what has ended


def parse(text: str) -> tuple[int, int]:
  """Returns (2, 4) for '2/4', the second of four parts."""
  number, _, count = text.partition('/')
  is_part = number.isdecimal() and count.isdecimal()
  if is_part and 1 <= int(number) <= int(count):
    return int(number), int(count)
  raise typer.BadParameter(
    f'{text!r} is no part; expected one such as 1/4, the first of four.'
  )


@functools.cache
def started() -> tuple[int, int] | None:
  """Returns the part that another process has started this one for."""
  # What this process starts in turn is none.
  text = os.environ.pop(_STARTED, None)
  try:
    return parse(text) if text else None
  except typer.BadParameter as error:
    raise errors.UserError(
      f'{_STARTED}: {error} It is set for processes that --processes starts: '
      'unset it.'
    ) from error


def of(runners: Mapping[str, Any], number: int, count: int) -> dict[str, Any]:
  """Returns the trainings of a part; parts differ in size by one at most.

  Args:
    runners: all of them, by name.
    number: of the part, from 1 on.
    count: of the parts.

  Raises:
    UserError: if there are fewer trainings than parts.
  """
  if count > len(runners):
    raise errors.UserError(
      f'--vary gives {len(runners)} trainings, and they are to be divided into '
      f'{count} parts. Give {len(runners)} at most to --processes, or as N to '
      '--part I/N.'
    )
  begin, end = (len(runners) * i // count for i in (number - 1, number))
  return dict(list(runners.items())[begin:end])


def train(count: int, say: Callable[[str], None]) -> int:
  """Runs this command (`sys.argv`) once for each part, in processes.

  What they print is printed here, with the part before each line. A signal is
  passed on to all; a part that fails does not stop the others.

  Args:
    count: of the parts.
    say: prints what the user should know.

  Returns:
    The exit status: of the first part that failed, or 0.
  """
  processes: list[subprocess.Popen] = []

  def pass_on(number):
    for process in processes:
      process.send_signal(number)

  with (
    signals.stop_signals(pass_on) as stop,
    contextlib.ExitStack() as stack,
  ):
    for i in range(count):
      processes.append(
        children.start(sys.argv[1:], i, count, {_STARTED: f'{i + 1}/{count}'})
      )
      # Whatever goes wrong here ends what was started.
      stack.callback(processes[i].wait)
      stack.callback(processes[i].stdin.close)
    if stop.is_set:  # a signal came while they were being started
      pass_on(stop.number)
    readers = [
      children.copy_lines(pipe, f'{i + 1}/{count}  ', stream)
      for i, process in enumerate(processes)
      for pipe, stream in (
        (process.stdout, sys.stdout),
        (process.stderr, sys.stderr),
      )
    ]
    for process in processes:
      process.wait()
    for reader in readers:
      reader.join(_PATIENCE)
  statuses = [children.status(each) for each in processes]
  if not stop.is_set:
    for i, status in enumerate(statuses):
      if status:
        say(f'Error: part {i + 1}/{count} {_why(status)}')
  return next((each for each in statuses if each), 0)


def _why(status):
  if status > 128:
    name = signal.Signals(status - 128).name
    return f'was ended by {name}. The same command goes on with it.'
  return f'failed with status {status}: see above.'
