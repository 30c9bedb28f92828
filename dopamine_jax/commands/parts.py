"""`train --vary --processes`: a part of the trainings for each process.

One process steps its environments on one core, however many there are. Each
part is the same command with `--part`, on cores of its own. It stops when the
process that started it is gone.
"""

from collections.abc import Mapping
import contextlib
import os
import signal
import subprocess
import sys
import threading
from typing import Any

import typer

from dopamine_jax.system import signals
from dopamine_jax.system import texts


def parse(text: str) -> tuple[int, int]:
  """Returns (2, 4) for '2/4', the second of four parts."""
  number, _, count = text.partition('/')
  is_part = number.isdecimal() and count.isdecimal()
  if is_part and 1 <= int(number) <= int(count):
    return int(number), int(count)
  raise typer.BadParameter(
    f'{text!r} is no part; expected one such as 1/4, the first of four.'
  )


def of(runners: Mapping[str, Any], number: int, count: int) -> dict[str, Any]:
  """Returns the trainings of a part; parts differ in size by one at most.

  Args:
    runners: all of them, by name.
    number: of the part, from 1 on.
    count: of the parts.

  Raises:
    BadParameter: if there are fewer trainings than parts.
  """
  if count > len(runners):
    raise typer.BadParameter(
      f'{count} parts are more than the {len(runners)} trainings that --vary '
      'gives. Choose fewer.'
    )
  begin, end = (len(runners) * i // count for i in (number - 1, number))
  return dict(list(runners.items())[begin:end])


def train(count: int) -> int:
  """Has this command's parts trained, each by a process.

  What they print is printed here, with the part before each line. A signal is
  passed on to all; one that fails leaves the others alone.

  Args:
    count: of the parts.

  Returns:
    The exit status: of the first part that failed, or 0.
  """
  processes = []
  # Of a GPU that they share, JAX would give the first three quarters.
  share = {'XLA_PYTHON_CLIENT_MEM_FRACTION': f'{0.75 / count:.3f}'}

  def pass_on(number):
    for process in processes:
      process.send_signal(number)

  with contextlib.ExitStack() as stack:
    stop = stack.enter_context(signals.stop_signals(pass_on))
    for i, cores in enumerate(_cores(count)):
      process = subprocess.Popen(
        [
          # Not from the folder where one stands: a jax.py may lie there.
          *(sys.executable, '-P', '-m', __name__, *sys.argv[1:]),
          *('--processes', '1', '--part', f'{i + 1}/{count}'),
        ],
        env=share | os.environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
      )
      processes.append(process)
      stack.callback(process.wait)
      _pin(process, cores)
      for pipe, is_error in ((process.stdout, False), (process.stderr, True)):
        reader = threading.Thread(
          target=_print, args=(pipe, f'{i + 1}/{count}  ', is_error)
        )
        reader.start()
        stack.callback(reader.join)
    if stop.is_set:  # before the last of them was there
      pass_on(stop.status - 128)
  statuses = [each.returncode for each in processes]
  # As a shell says it of what a signal has ended.
  statuses = [each if each >= 0 else 128 - each for each in statuses]
  return next((each for each in statuses if each), 0)


def _cores(count):
  """Returns the cores of each process; None where there are too few."""
  if not hasattr(os, 'sched_getaffinity'):
    return [None] * count
  cores = sorted(os.sched_getaffinity(0))
  if count > len(cores):
    return [None] * count
  return [cores[i::count] for i in range(count)]


def _pin(process, cores):
  """Keeps a process to its cores, for which it then sizes its thread pools."""
  with contextlib.suppress(ProcessLookupError):  # it has ended
    if cores:
      os.sched_setaffinity(process.pid, cores)


def _stop_with_starter():
  """Stops this process when the other end of its input is closed."""
  while os.read(0, 1):
    pass
  os.kill(os.getpid(), signal.SIGTERM)


def main() -> int:
  """Is a part's process; returns its exit status."""
  with signals.ending():
    from dopamine_jax.commands import cli

    threading.Thread(target=_stop_with_starter, daemon=True).start()
    sys.argv[0] = 'dopamine-jax'
    return cli.main()


def _print(pipe, start, is_error):
  with pipe:
    for line in pipe:
      text = line.decode(errors='replace').rstrip('\n')
      with contextlib.suppress(OSError):  # a terminal that is gone
        typer.echo(start + texts.printable(text), err=is_error)


if __name__ == '__main__':
  sys.exit(main())
