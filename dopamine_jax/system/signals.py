"""Signals that ask to stop: a training ends at its next step, not in a write.

Ctrl-C is SIGINT; SIGHUP comes when a terminal is closed. The status of a
command that was stopped is 128 and the signal's number, as a shell says it:
130, 143 and 129.
"""

from collections.abc import Callable, Iterator
import contextlib
from multiprocessing import resource_tracker
import os
import signal
import stat
import sys
import time

from dopamine_jax import errors
from dopamine_jax.system import plain_files

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# A program around this one may pass on what the terminal has sent already.
_SAME_REQUEST = 1.0  # seconds


class Stop:
  """Whether the user asked to stop, and how."""

  is_set = False
  number = 0
  name = ''
  status = 0


@contextlib.contextmanager
def stop_signals(
  pass_on: Callable[[int], None] = lambda number: None,
) -> Iterator[Stop]:
  """Turns signals into a flag, so that a write can finish.

  Args:
    pass_on: is called with the first one's number.
  """
  stop = Stop()

  def ask(number):
    stop.is_set, stop.number = True, number
    stop.name = signal.Signals(number).name
    stop.status = 128 + number
    pass_on(number)

  with _handling(ask):
    yield stop


@contextlib.contextmanager
def ending() -> Iterator[None]:
  """Has signals end the process with a sentence, at once.

  For whatever leaves nothing half done. An exception would be lost, or abort
  the process, where JAX calls back from C++.
  """
  with _handling(_end):
    yield


@contextlib.contextmanager
def for_starter_alone() -> Iterator[None]:
  """Has signals that reach a whole process group pass by what is started here.

  A terminal sends Ctrl-C to all processes, and each would tell of it. The one
  that started the others finishes, and closes them.
  """
  before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
  # Python's own helper, which a closed terminal would end; where a process ends
  # at once, what it tidies then is no news.
  sys.warnoptions.append('ignore:resource_tracker')
  try:
    resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_BLOCK, NUMBERS)
    yield
  finally:
    sys.warnoptions.remove('ignore:resource_tracker')
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
  """Has signals wait that reach what is started here, until it can `receive`.

  A program that still begins would tell of Ctrl-C by a traceback.
  """
  before = signal.pthread_sigmask(signal.SIG_BLOCK, NUMBERS)
  try:
    yield
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def receive():
  """Takes signals that were held back, now that there is who handles them."""
  signal.pthread_sigmask(signal.SIG_UNBLOCK, NUMBERS)


def leave_to_starter():
  """Has a process started by `for_starter_alone` ignore `NUMBERS`."""
  for number in NUMBERS:
    # Not SIG_IGN, which programs that it starts would take over.
    signal.signal(number, lambda *_: None)
  receive()


@contextlib.contextmanager
def _handling(ask: Callable[[int], None]):
  """Calls `ask` at the first signal; whoever insists ends the process."""
  asked = None

  def handle(number, frame):
    nonlocal asked
    del frame
    now = time.monotonic()
    if number == signal.SIGHUP:
      _leave_terminal()
    if asked is None:
      asked = now
      ask(number)
    elif now - asked > _SAME_REQUEST:
      _die(number)

  previous = {}
  try:
    for number in NUMBERS:
      # `nohup` has a program ignore it.
      is_nohup = number == signal.SIGHUP and (
        signal.getsignal(number) is signal.SIG_IGN
      )
      if not is_nohup:
        previous[number] = signal.signal(number, handle)
  except ValueError:  # not the main thread: signals are someone else's
    pass
  try:
    yield
  except KeyboardInterrupt as error:
    if signal.getsignal(signal.SIGINT) is not handle:
      raise
    # No Ctrl-C, which `handle` takes: a command would end without a word.
    where = errors.place(error) or 'a library'
    raise errors.UserError(
      f'KeyboardInterrupt was raised by {where}, and nobody pressed Ctrl-C. '
      'Have the code there raise another exception.'
    ) from error
  finally:
    for number, handler in previous.items():
      signal.signal(number, handler)


def _end(number):
  for path in tuple(plain_files.unfinished):
    with contextlib.suppress(OSError):
      os.unlink(path)
  _write(f'Stopped by {signal.Signals(number).name}.')
  if multiprocessing := sys.modules.get('multiprocessing'):
    for child in multiprocessing.active_children():  # environments
      child.kill()
  os._exit(128 + number)


def _die(number):
  """Ends the process by a signal; a write leaves what was there."""
  name = signal.Signals(number).name
  _write(f'Ended at once by a second {name}. What was saved before is whole.')
  signal.signal(number, signal.SIG_DFL)
  os.kill(os.getpid(), number)


def _write(line):
  # Not by `print`, in which the signal may have come.
  with contextlib.suppress(OSError):
    os.write(2, f'{line}\n'.encode())


def _leave_terminal():
  """Sends what is printed nowhere if the terminal has been closed."""
  for descriptor in (1, 2):
    with contextlib.suppress(OSError):
      is_device = stat.S_ISCHR(os.fstat(descriptor).st_mode)
      if is_device and not os.isatty(descriptor):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
