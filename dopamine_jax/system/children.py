"""Processes that this one starts to work beside it, on cores of their own.

They hold signals back until they can handle them, and stop, as if by SIGTERM,
when whoever started them is gone.
"""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import glob
import os
import signal
import subprocess
import sys
import threading
from typing import TextIO

from dopamine_jax.system import signals
from dopamine_jax.system import texts

# How much of a GPU's memory JAX takes, three quarters if it is not told.
_GPU_MEMORY = ('XLA_CLIENT_MEM_FRACTION', 'XLA_PYTHON_CLIENT_MEM_FRACTION')
_GPUS = 'CUDA_VISIBLE_DEVICES'


def start(
  arguments: Sequence[str],
  number: int,
  count: int,
  env: Mapping[str, str] | None = None,
) -> subprocess.Popen:
  """Starts `python -m dopamine_jax` as one of several processes.

  Each gets a share of the cores. GPUs are dealt out, and shared where there are
  fewer than processes.

  Args:
    arguments: of the command.
    number: of the process, from 0 on.
    count: of the processes.
    env: variables of its environment beside those of this one.

  Returns:
    The process, with pipes of bytes.
  """
  env = {**os.environ, **(env or {}), 'PYTHONUNBUFFERED': '1'}
  env |= _gpu(number, count, env)
  with on_cores(cores()[number::count]), signals.held_back():
    return subprocess.Popen(
      # Not from the folder where one stands: a jax.py may lie there.
      [sys.executable, '-P', '-m', 'dopamine_jax', *arguments],
      env=env,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
    )


def cores() -> list[int]:
  """Returns the numbers of the cores that this process may use."""
  if hasattr(os, 'sched_getaffinity'):
    return sorted(os.sched_getaffinity(0))
  return list(range(os.cpu_count() or 1))


def status(process: subprocess.Popen) -> int:
  """Returns the exit status of a process that has ended, as a shell has it."""
  code = process.returncode
  return code if code >= 0 else 128 - code


def _gpu(number, count, env):
  """Returns the variables that give a process its GPU, or its share of one."""
  gpus = env.get(_GPUS)
  if gpus is None:
    gpus = ','.join(
      each.removeprefix('/dev/nvidia')
      for each in sorted(glob.glob('/dev/nvidia[0-9]*'))
    )
  gpus = [each for each in gpus.split(',') if each]
  given = {}
  if len(gpus) > 1:
    given[_GPUS] = gpus[number % len(gpus)]
  sharing = -(-count // max(1, len(gpus)))
  if not any(name in env for name in _GPU_MEMORY):
    given[_GPU_MEMORY[0]] = f'{0.75 / sharing:.3f}'
  return given


@contextlib.contextmanager
def on_cores(chosen: Sequence[int]) -> Iterator[None]:
  """Has what is started here inherit these cores, where the system can."""
  if not hasattr(os, 'sched_setaffinity') or not chosen:
    yield
    return
  before = os.sched_getaffinity(0)
  os.sched_setaffinity(0, chosen)
  try:
    yield
  finally:
    os.sched_setaffinity(0, before)


def copy_lines(pipe, beginning: str, stream: TextIO) -> threading.Thread:
  """Prints the lines that come from a pipe, in a thread, which it returns.

  Args:
    pipe: of bytes.
    beginning: what stands before each line.
    stream: where they go.
  """

  def copy():
    encoding = stream.encoding or 'utf-8'
    with pipe, contextlib.suppress(OSError):  # a terminal that is gone
      for line in pipe:
        text = texts.printable(line.decode(errors='replace').rstrip('\n'))
        text = f'{beginning}{text}\n'.encode(encoding, 'replace')
        stream.write(text.decode(encoding))
        stream.flush()

  thread = threading.Thread(target=copy, daemon=True)
  thread.start()
  return thread


def follow_starter():
  """Stops this process, as if by SIGTERM, when whoever started it is gone."""
  threading.Thread(target=_await_end_of_input, daemon=True).start()


def _await_end_of_input():
  while os.read(0, 1):
    pass
  os.kill(os.getpid(), signal.SIGTERM)
