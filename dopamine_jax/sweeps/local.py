"""Workers on this machine: processes on cores and GPUs of their own."""

import collections
from collections.abc import Callable
import contextlib
import pathlib
import signal
import sys
import time

from dopamine_jax import errors
from dopamine_jax.sweeps import worker as worker_lib
from dopamine_jax.system import children
from dopamine_jax.system import signals

_LOOK = 0.5  # seconds between two looks at the workers
_PATIENCE = 5.0  # seconds, for the last lines of what has ended
_SOON = 20.0  # seconds after its start
_MOST_DEATHS = 5  # so soon, after which a worker is not started again


class Workers:
  """Processes that train a sweep.

  Args:
    folder: the sweep's.
    count: of the processes.
    say: prints what the user should know.
  """

  def __init__(
    self, folder: pathlib.Path, count: int, say: Callable[[str], None]
  ):
    self._arguments = ['sweep', 'worker', str(folder)]
    self._count = count
    self._say = say
    self._closers = contextlib.ExitStack()
    self._processes = {}
    self._readers = []
    self._stopped_by = None  # a signal
    self._began = {}  # when a worker was started
    self._deaths = collections.Counter()  # soon after, one after another

  def __enter__(self):
    for i in range(self._count):
      self._start(i)
    return self

  def __exit__(self, *exc):
    self._closers.close()
    for reader in self._readers:  # the last lines may say why
      reader.join(_PATIENCE)

  def tend(self, is_stopping: bool):
    """Starts anew what was killed, unless the user asked to stop."""
    for i, process in list(self._processes.items()):
      if process.poll() is None:
        continue
      del self._processes[i]
      if process.returncode < 0 and not is_stopping:
        name = signal.Signals(-process.returncode).name
        is_soon = time.monotonic() - self._began[i] < _SOON
        self._deaths[i] = self._deaths[i] + 1 if is_soon else 0
        if self._deaths[i] >= _MOST_DEATHS:
          self._say(
            f'Worker {i + 1} was ended by {name} {_MOST_DEATHS} times soon '
            'after its start, and is not started again.'
          )
          continue
        self._say(
          f'Worker {i + 1} was ended by {name}; another one takes its place '
          'and goes on from the checkpoints.'
        )
        self._start(i)

  def are_gone(self) -> bool:
    """Whether none is left."""
    return not self._processes

  def pass_on(self, number: int):
    """Sends a signal to all, and to those that are yet to be started."""
    self._stopped_by = number
    for process in list(self._processes.values()):
      process.send_signal(number)

  def _start(self, i):
    process = children.start(self._arguments, i, self._count)
    self._processes[i], self._began[i] = process, time.monotonic()
    # Whatever goes wrong here ends what was started.
    self._closers.callback(process.wait)
    self._closers.callback(process.stdin.close)
    for pipe in (process.stdout, process.stderr):
      self._readers.append(
        children.copy_lines(pipe, f'worker {i + 1}  ', sys.stderr)
      )
    if self._stopped_by:
      process.send_signal(self._stopped_by)


def run(
  folder: pathlib.Path,
  count: int,
  say: Callable[[str], None],
  show: Callable[[], None],
) -> int:
  """Has workers train a sweep to its end.

  Args:
    folder: the sweep's.
    count: of the workers.
    say: prints what the user should know.
    show: is called again and again, to show how far it is.

  Returns:
    The exit status: of a signal, or 1 if workers failed before the end.
  """
  workers = Workers(folder, count, say)
  with signals.stop_signals(workers.pass_on) as stop, workers:
    while not workers.are_gone():
      workers.tend(stop.is_set)
      show()
      time.sleep(_LOOK)
  show()
  if stop.is_set:
    return stop.status
  sweep = worker_lib.Sweep(folder)
  sweep.look()
  if not sweep.is_complete():
    raise errors.UserError(
      f'no worker is left, and the sweep in {folder} has more to train: see '
      'above why they failed. Mend it, then go on: '
      f"'dopamine-jax sweep resume {folder}'."
    )
  return 0
