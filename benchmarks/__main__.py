"""`python -m benchmarks`: ours beside the peers, interleaved, as a table."""

import argparse
from collections.abc import Sequence
import datetime
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np
import psutil

from benchmarks import environments
from benchmarks import jobs
from benchmarks import table
from dopamine_jax import errors

_ROOT = pathlib.Path(__file__).resolve().parent.parent


def main() -> int:
  """Reads the command line; returns 0, or 1 after an error."""
  parser = argparse.ArgumentParser(
    prog='python -m benchmarks', description=__doc__
  )
  parser.add_argument(
    '--jobs', nargs='+', default=list(jobs.JOBS), choices=jobs.JOBS
  )
  parser.add_argument(
    '--peers',
    nargs='*',
    default=list(environments.PINS),
    choices=environments.PINS,
    help='who runs beside ours; none with an empty list',
  )
  parser.add_argument('--rounds', type=int, default=3)
  parser.add_argument(
    '--output', type=pathlib.Path, default=_ROOT / 'benchmarks' / 'RESULTS.md'
  )
  arguments = parser.parse_args()
  if arguments.rounds < 1:
    parser.error('--rounds must be at least 1')
  try:
    for name in arguments.jobs:
      text = run(name, arguments.peers, arguments.rounds)
      print(text)
      # At once, so that an error in a later job loses nothing.
      table.write(arguments.output, {name: text})
  except errors.UserError as error:
    print(f'Error: {error}', file=sys.stderr)
    return 1
  return 0


def run(name: str, peers: Sequence[str], rounds: int) -> str:
  """Runs one job; returns its section of the results.

  Raises:
    UserError: if an environment can't be made, a process fails, or somebody's
      hyper-parameters are not the job's.
  """
  job = jobs.JOBS[name]
  contestants = [
    each for each in job.contestants if each.peer is None or each.peer in peers
  ]
  pythons = {
    each.label: environments.python(each.peer) if each.peer else sys.executable
    for each in contestants
  }
  rows, versions = {}, {}
  with tempfile.TemporaryDirectory() as folder:
    for i in range(-job.warm_cache, rounds):
      for each in contestants:
        _say(f'{name}, round {i + 1} of {rounds}: {each.label}')
        report = _measure(name, each, pythons[each.label], folder)
        if i < 0:  # filled the cache
          continue
        values = report['values']
        if not isinstance(values, dict):
          values = {each.label: values}
        for label, numbers in values.items():
          row = rows.setdefault(label, table.Row())
          row.rounds.append(numbers)
          row.memory = max(row.memory, report['memory'])
          row.others += report['others'] / rounds
        versions |= report['versions']
  return table.section(job, rows, versions, machine())


def _measure(
  name: str, contestant: jobs.Contestant, python: Any, folder: str
) -> dict[str, Any]:
  """Returns one process's report, and what others did meanwhile."""
  result = pathlib.Path(folder) / 'report.json'
  command = [python, '-m', 'benchmarks.process', contestant.script, name]
  command += [json.dumps(dict(contestant.arguments)), result]
  environment = {**os.environ, 'JAX_PLATFORMS': 'cpu'}
  if jobs.JOBS[name].warm_cache:
    environment |= {
      'JAX_COMPILATION_CACHE_DIR': f'{folder}/cache',
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
      'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '-1',
    }
  started, busy, own = time.perf_counter(), _busy(), _children()
  done = subprocess.run(
    command,
    cwd=_ROOT,
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
  )
  if done.returncode:
    log = done.stdout.decode(errors='replace')[-3000:]
    raise errors.UserError(f'{name}: {contestant.label} failed:\n{log}')
  report = json.loads(result.read_text('utf-8'))
  result.unlink()
  others = _busy() - busy - (_children() - own)
  seconds = (time.perf_counter() - started) * psutil.cpu_count()
  report['others'] = max(0.0, others / seconds)
  if report['hyperparameters'] is not None:
    refuse_differences(name, contestant.label, report['hyperparameters'])
  return report


def refuse_differences(name: str, label: str, reported: dict[str, Any]):
  """Raises: UserError if the reported hyper-parameters are not the job's."""
  found = jobs.differences(jobs.JOBS[name], reported)
  if found:
    raise errors.UserError(
      f'{name}: {label} ran with other hyper-parameters than the table in '
      f'benchmarks/jobs.py, so that its figures mean nothing: '
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


def _say(message: str):
  print(message, file=sys.stderr, flush=True)


if __name__ == '__main__':
  sys.exit(main())
