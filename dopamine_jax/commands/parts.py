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
import threading
from typing import Any

import typer

from dopamine_jax import errors
from dopamine_jax.system import signals
from dopamine_jax.system import texts

# Variables of the environment: a part that was started here, such as 1/4; and
# how much of a GPU's memory JAX takes, three quarters if it is not told.
_STARTED = 'DOPAMINE_JAX_PART'
_GPU_MEMORY = ('XLA_CLIENT_MEM_FRACTION', 'XLA_PYTHON_CLIENT_MEM_FRACTION')
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


def follow_starter():
  """Has a part stop, as if by SIGTERM, when whoever started it is gone."""
  threading.Thread(target=_await_end_of_input, daemon=True).start()


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


def cores() -> list[int]:
  """Returns the numbers of the cores that this process may use."""
  if hasattr(os, 'sched_getaffinity'):
    return sorted(os.sched_getaffinity(0))
  return list(range(os.cpu_count() or 1))


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
      processes.append(_start(i, count))
      # Whatever goes wrong here ends what was started.
      stack.callback(processes[i].wait)
      stack.callback(processes[i].stdin.close)
    if stop.is_set:  # a signal came while they were being started
      pass_on(stop.number)
    readers = [
      _read(pipe, f'{i + 1}/{count}  ', stream)
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
  # Ended by signal N: 128 + N, as in a shell.
  statuses = [
    each.returncode if each.returncode >= 0 else 128 - each.returncode
    for each in processes
  ]
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


def _start(i, count):
  """Starts a part's process, on cores of its own."""
  env = {**os.environ, _STARTED: f'{i + 1}/{count}', 'PYTHONUNBUFFERED': '1'}
  if not any(name in env for name in _GPU_MEMORY):
    env[_GPU_MEMORY[0]] = f'{0.75 / count:.3f}'
  with _on_cores(cores()[i::count]), signals.held_back():
    return subprocess.Popen(
      # Not from the folder where one stands: a jax.py may lie there.
      [sys.executable, '-P', '-m', 'dopamine_jax', *sys.argv[1:]],
      env=env,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
    )


@contextlib.contextmanager
def _on_cores(chosen):
  """Has what is started here inherit these cores, where the system can."""
  if not hasattr(os, 'sched_setaffinity'):
    yield
    return
  before = os.sched_getaffinity(0)
  os.sched_setaffinity(0, chosen)
  try:
    yield
  finally:
    os.sched_setaffinity(0, before)


def _read(pipe, start, stream):
  """Prints what comes from a pipe, in a thread."""

  def copy():
    encoding = stream.encoding or 'utf-8'
    with pipe, contextlib.suppress(OSError):  # a terminal that is gone
      for line in pipe:
        text = texts.printable(line.decode(errors='replace').rstrip('\n'))
        text = f'{start}{text}\n'.encode(encoding, 'replace').decode(encoding)
        stream.write(text)
        stream.flush()

  thread = threading.Thread(target=copy, daemon=True)
  thread.start()
  return thread


def _await_end_of_input():
  while os.read(0, 1):
    pass
  os.kill(os.getpid(), signal.SIGTERM)
