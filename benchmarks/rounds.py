"""One contestant's turn: its process, what it reports, the machine it had."""

from collections.abc import Mapping
import datetime
import json
import os
import pathlib
import platform
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np
import psutil

from benchmarks import jobs
from dopamine_jax import errors

_ROOT = pathlib.Path(__file__).resolve().parent.parent


def measure(
  name: str,
  job: jobs.Job,
  contestant: jobs.Contestant,
  python: Any,
  folder: str,
  variables: Mapping[str, str],
  seconds: float | None = None,
) -> dict[str, Any]:
  """Returns one process's report, and what others did meanwhile.

  Args:
    name: the job's, as processes know it.
    job: the job.
    contestant: who runs it.
    python: by which Python.
    folder: for the report.
    variables: of the environment, in place of those that there are.
    seconds: how long it may take; None for any time.

  Raises:
    UserError: if it fails, takes longer, or its hyper-parameters are not the
      job's.
  """
  result = pathlib.Path(folder) / 'report.json'
  command = [python, '-m', 'benchmarks.process', contestant.script, name]
  command += [json.dumps(dict(contestant.arguments)), result]
  started, busy, own = time.perf_counter(), _busy(), _children()
  code, log = _run(command, {**os.environ, **variables}, seconds)
  if code is None:
    raise errors.UserError(
      f'{name}: {contestant.label} took longer than the {seconds:.0f} s that '
      'it had'
    )
  if code:
    raise errors.UserError(f'{name}: {contestant.label} failed:\n{log[-3000:]}')
  report = json.loads(result.read_text('utf-8'))
  result.unlink()
  others = _busy() - busy - (_children() - own)
  passed = (time.perf_counter() - started) * psutil.cpu_count()
  report['others'] = max(0.0, others / passed)
  if report['hyperparameters'] is not None:
    refuse_differences(job, contestant.label, report['hyperparameters'])
  return report


def _run(command, environment, seconds):
  """Returns a process's exit code, None past its time, and what it said."""
  with subprocess.Popen(
    command,
    cwd=_ROOT,
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    start_new_session=True,
  ) as process:
    try:
      said, _ = process.communicate(timeout=seconds)
    except BaseException as error:
      # With those that it has started.
      os.killpg(process.pid, signal.SIGKILL)
      if isinstance(error, subprocess.TimeoutExpired):
        return None, ''
      raise
  return process.returncode, said.decode(errors='replace')


def refuse_differences(job: jobs.Job, label: str, reported: dict[str, Any]):
  """Raises: UserError if the reported hyper-parameters are not the job's."""
  found = jobs.differences(job, reported)
  if found:
    raise errors.UserError(
      f'{job.title}: {label} ran with other hyper-parameters than the job has, '
      f'so that its figures mean nothing: '
      f'{"; ".join(found)}.'
    )


def _busy() -> float:
  """Processor seconds of all programs since the machine started."""
  times = psutil.cpu_times()
  return sum(times) - times.idle - getattr(times, 'iowait', 0.0)


def _children() -> float:
  """Processor seconds of the processes that were started here and ended."""
  times = os.times()
  return times.children_user + times.children_system


def machine() -> str:
  """Returns the date, the processor and how fast it multiplies."""
  name = platform.processor() or platform.machine()
  info = pathlib.Path('/proc/cpuinfo')
  if info.exists():
    lines = info.read_text().splitlines()
    named = [line for line in lines if line.startswith('model name')]
    name = named[0].split(':')[1].strip() if named else name
  size = 2048
  matrix = np.random.default_rng(0).random((size, size), np.float32)
  seconds = []
  for _ in range(5):
    started = time.perf_counter()
    matrix @ matrix
    seconds.append(time.perf_counter() - started)
  speed = 2 * size**3 / min(seconds) / 1e9
  return (
    f'{datetime.date.today()}, {name}, {psutil.cpu_count()} cores, Python '
    f'{platform.python_version()}; a float32 product of {size} x {size} '
    f'matrices runs at {speed:.0f} GFLOP/s'
  )


def say(message: str):
  """Prints what happens now, beside the results."""
  print(message, file=sys.stderr, flush=True)
