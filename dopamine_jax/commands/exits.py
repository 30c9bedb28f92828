"""How a command ends: what it says, and its exit status.

0 is success, 1 an error, 2 wrong usage; 128 and a signal's number where one
ended it: 130 for Ctrl-C, 143 for SIGTERM, 129 for a terminal that was closed,
141 where nobody reads what it prints.
"""

from collections.abc import Callable
import contextlib
import os
import select
import signal
import sys
from typing import Any

import typer

from dopamine_jax import errors
from dopamine_jax.system import signals

_PRINTED = (1, 2)  # stdout and stderr
# A variable of the environment: if set, what is raised is shown whole.
_TRACEBACK = 'DOPAMINE_JAX_TRACEBACK'


def status_of(command: Callable[[], Any], say: Callable[[str], None]) -> int:
  """Runs a command; returns its exit status.

  Args:
    command: returns a status or None.
    say: prints why it has failed.
  """
  streams = []
  for descriptor in _PRINTED:
    with contextlib.suppress(OSError):  # closed from the start
      # Rich puts another one in its place when it breaks.
      streams.append(os.dup(descriptor))
  try:
    with signals.ending():
      status = command()
      sys.stdout.flush()
    return status or 0
  except errors.UserError as error:
    if os.environ.get(_TRACEBACK):
      raise
    say(f'Error: {error}')
    return error.status
  except typer.Abort:
    return 1
  except MemoryError:
    say(
      'Error: there is not enough memory for this. Fewer seeds, environments '
      "or slots of the replay take less: 'dopamine-jax doctor' says how much."
    )
    return 1
  except (SystemExit, Exception) as error:
    if _is_unread(streams):  # However it was told.
      return _leave_pipe()
    # Click's own errors know how to show themselves.
    if hasattr(error, 'show') and hasattr(error, 'exit_code'):
      error.show()
      return error.exit_code
    if not errors.place(error) or os.environ.get(_TRACEBACK):
      raise
    say(
      f'Error: {errors.told(error)}. {_TRACEBACK}=1 before the command shows '
      'how it came to that.'
    )
    return 1
  finally:
    for descriptor in streams:
      os.close(descriptor)


def _is_unread(streams):
  """Whether nobody reads what is printed any more."""
  poll = select.poll()
  for stream in streams:
    poll.register(stream, 0)
  return any(event & select.POLLERR for _, event in poll.poll(0))


def _leave_pipe():
  """Has what is left in buffers go nowhere; returns the status of SIGPIPE."""
  nowhere = os.open(os.devnull, os.O_WRONLY)
  for descriptor in _PRINTED:
    os.dup2(nowhere, descriptor)
  os.close(nowhere)
  return 128 + signal.SIGPIPE
