"""SIGINT and SIGTERM: a training ends at its next step, never in a write."""

from collections.abc import Iterator
import contextlib
import signal


class Stop:
  """Whether the user asked to stop, and how."""

  is_set = False
  name = ''


@contextlib.contextmanager
def stop_signals() -> Iterator[Stop]:
  """Turns SIGINT and SIGTERM into a flag, so that a write can finish."""
  stop = Stop()

  def handle(number, frame):
    del frame
    stop.is_set, stop.name = True, signal.Signals(number).name

  numbers = (signal.SIGINT, signal.SIGTERM)
  try:
    previous = {number: signal.signal(number, handle) for number in numbers}
  except ValueError:  # not the main thread: signals are someone else's
    yield stop
    return
  try:
    yield stop
  finally:
    for number, handler in previous.items():
      signal.signal(number, handler)
