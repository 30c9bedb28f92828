"""`python -m benchmarks`: ours beside the peers, interleaved, as a table."""

import argparse
from collections.abc import Sequence
import pathlib
import sys
import tempfile

from benchmarks import environments
from benchmarks import gpu
from benchmarks import gpu_jobs
from benchmarks import jobs
from benchmarks import rounds as rounds_lib
from benchmarks import table
from dopamine_jax import errors

_FOLDER = pathlib.Path(__file__).resolve().parent


def main() -> int:
  """Reads the command line; returns 0, or 1 after an error."""
  parser = _parser()
  arguments = parser.parse_args()
  known = gpu_jobs.JOBS if arguments.gpu else jobs.JOBS
  names = arguments.jobs or list(known)
  if wrong := [name for name in names if name not in known]:
    parser.error(f'no job is called {wrong[0]}: there are {", ".join(known)}')
  if arguments.rounds is not None and arguments.rounds < 1:
    parser.error('--rounds must be at least 1')
  if arguments.tenth and not arguments.gpu:
    parser.error('--tenth is of the jobs of --gpu: give both')
  try:
    if arguments.gpu:
      output = arguments.output or _FOLDER / 'GPU.md'
      settings = gpu.Settings(
        arguments.peers, arguments.rounds or 1, arguments.tenth
      )
      return gpu.run(names, settings, output)
    output = arguments.output or _FOLDER / 'RESULTS.md'
    for name in names:
      text = run(name, arguments.peers, arguments.rounds or 3)
      print(text)
      # At once, so that an error in a later job loses nothing.
      table.write(output, {name: text})
  except errors.UserError as error:
    print(f'Error: {error}', file=sys.stderr)
    return 1
  return 0


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m benchmarks', description=__doc__
  )
  parser.add_argument(
    '--gpu',
    action='store_true',
    help='other jobs, on an NVIDIA GPU, in under 30 minutes',
  )
  parser.add_argument(
    '--tenth',
    action='store_true',
    help='with --gpu: on the CPU, each job at about a tenth of its size',
  )
  parser.add_argument(
    '--jobs', nargs='+', metavar='JOB', help='some, by name; all without'
  )
  parser.add_argument(
    '--peers',
    nargs='*',
    default=list(environments.PEERS),
    choices=environments.PEERS,
    help='who runs beside ours; none with an empty list',
  )
  parser.add_argument(
    '--rounds', type=int, help='without it 3, and 1 with --gpu'
  )
  parser.add_argument('--output', type=pathlib.Path)
  return parser


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
    variables = {'JAX_PLATFORMS': 'cpu'} | _cache(job, folder)
    for i in range(-job.warm_cache, rounds):
      for each in contestants:
        rounds_lib.say(f'{name}, round {i + 1} of {rounds}: {each.label}')
        report = rounds_lib.measure(
          name, job, each, pythons[each.label], folder, variables
        )
        if i < 0:  # filled the cache
          continue
        table.add(rows, each.label, report, rounds)
        versions |= report['versions']
  return table.section(job, rows, versions, rounds_lib.machine())


def _cache(job: jobs.Job, folder: str) -> dict[str, str]:
  """Returns the variables of a compilation cache, if the job wants one."""
  if not job.warm_cache:
    return {}
  return {
    'JAX_COMPILATION_CACHE_DIR': f'{folder}/cache',
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '-1',
  }


if __name__ == '__main__':
  sys.exit(main())
