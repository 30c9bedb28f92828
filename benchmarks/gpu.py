"""`python -m benchmarks --gpu`: ours beside the peers on one NVIDIA GPU.

What fails or takes too long is a row that says so, and the rest goes on.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import datetime
import os
import pathlib
import platform
import subprocess
import tempfile
import time
from typing import Any

import psutil

from benchmarks import environments
from benchmarks import gpu_jobs
from benchmarks import jobs
from benchmarks import rounds
from benchmarks import table
from dopamine_jax import errors

_HEAD = """\
# Results on a GPU

Written by `make bench-gpu`, which is `python -m benchmarks --gpu`. A machine
needs an NVIDIA driver, Python and a network: environments of ours and of the
peers, with JAX for CUDA, are installed into the user's cache. Measuring takes
under 30 minutes, without that; a run replaces the sections of the jobs that it
ran. A process measures {windows} windows after warm-up and compilation; a row
shows their median, the lowest and the highest. "Others" is the share of the
machine's processors that other programs had, and "peak GB" is memory of the
machine, not of the card. Hyper-parameters are those of `gpu_jobs.py`; each
process reported what it really had, and it was that.

What can't be made equal: in PPO rejax gives policy and value an optimizer each;
it clips each number of a gradient by itself, in PQN too, and bootstraps nothing
where an episode is truncated. brax begins each episode of an environment in the
same first state, ours in a new one; it computes advantages anew for each
minibatch. Its PPO runs with the repair in `peers/brax.py`. sbx has a newer
MuJoCo than Playground allows ours. In Pong "all cores" are as many threads of
ALE as there are cores, and no more than games.
"""
_TRIED = 'Tried on a CPU, at about a tenth of the size'
_COLUMNS = (
  '| job | who ran | seconds in all | date |\n| --- | --- | --- | --- |'
)
_NOT_RUN = (
  'Not run on a GPU yet: `make bench-gpu` fills this in, or '
  "`make bench-gpu ARGS='--jobs {name}'` only this."
)


@dataclasses.dataclass(frozen=True)
class Settings:
  """How jobs are run.

  Attributes:
    peers: who runs beside ours.
    rounds: how often everybody runs.
    tenth: whether on the CPU, at about a tenth of the size.
  """

  peers: Sequence[str]
  rounds: int = 1
  tenth: bool = False


@dataclasses.dataclass
class Found:
  """What one job gave.

  Attributes:
    rows: of those that ran.
    missing: why the others did not, by label.
    versions: of packages; both where they differ.
    seconds: of all processes.
  """

  rows: dict[str, table.Row] = dataclasses.field(default_factory=dict)
  missing: dict[str, str] = dataclasses.field(default_factory=dict)
  versions: dict[str, str] = dataclasses.field(default_factory=dict)
  seconds: float = 0.0


def run(names: Sequence[str], settings: Settings, output: pathlib.Path) -> int:
  """Runs jobs and writes their sections; returns 0, or 1 if one failed.

  Raises:
    UserError: if there is no NVIDIA driver, unless on the CPU.
  """
  where = '' if settings.tenth else card()
  ran_all = True
  for name in names:
    found = measured(name, settings)
    ran_all &= not found.missing
    if settings.tenth:
      sections = {_TRIED: _tried(name, found, table.read(output))}
    else:
      job = gpu_jobs.JOBS[name]
      line = f'{rounds.machine()}; {where}'
      sections = {
        job.title: table.section(
          job, found.rows, found.versions, line, found.missing
        )
      }
    print('\n'.join(sections.values()))
    # At once, so that an error in a later job loses nothing.
    write(output, sections)
  return 0 if ran_all else 1


def measured(name: str, settings: Settings) -> Found:
  """Returns what one job gave, whatever failed of it."""
  every = gpu_jobs.TENTH if settings.tenth else gpu_jobs.JOBS
  job, found = every[name], Found()
  known = f'gpu-{name}-tenth' if settings.tenth else f'gpu-{name}'
  pythons = _pythons(job, settings, found)
  variables = _variables(settings)
  turns = [each for each in job.contestants if each.label in pythons]
  left = settings.rounds * len(turns)
  began = time.perf_counter()
  with tempfile.TemporaryDirectory() as folder:
    for _ in range(settings.rounds):
      for each in turns:
        found.seconds = time.perf_counter() - began
        # What one leaves of its share the next ones have.
        share = (settings.rounds * job.limit - found.seconds) / left
        left -= 1
        if each.label in found.missing:
          continue
        rounds.say(f'{known}: {each.label}, at most {share:.0f} s')
        python = pythons[each.label]
        try:
          report = rounds.measure(
            known, job, each, python, folder, variables, share
          )
        except errors.UserError as error:
          _note(found, each.label, error)
          continue
        table.add(found.rows, each.label, report, settings.rounds)
        _join(found.versions, report['versions'])
  found.seconds = time.perf_counter() - began
  return found


def _pythons(job, settings, found) -> dict[str, Any]:
  """Returns Pythons by label, and notes whose can't be installed."""
  pythons = {}
  for each in job.contestants:
    if each.peer is not None and each.peer not in settings.peers:
      continue
    try:
      pythons[each.label] = environments.python(
        each.peer or environments.OURS, cuda=not settings.tenth
      )
    except errors.UserError as error:
      _note(found, each.label, error)
  return pythons


def _note(found, label, error):
  """Notes why a contestant has no row, and says all of it."""
  rounds.say(str(error))
  last = str(error).strip().splitlines()[-1]
  found.rows.pop(label, None)
  found.missing[label] = f'no figure: {last[:200]}'.replace('|', '/')


def _join(versions: dict[str, str], more: Mapping[str, str]):
  """Adds versions; of a package that has two, both are shown."""
  for name, version in more.items():
    known = versions.setdefault(name, version)
    if version not in known.split(' and '):
      versions[name] = f'{known} and {version}'


def _variables(settings: Settings) -> dict[str, str]:
  """Returns the environment's variables of all processes."""
  if settings.tenth:
    return {'JAX_PLATFORMS': 'cpu'}
  return {
    # Not the CPU alone, should the card not be found.
    'JAX_PLATFORMS': 'cuda,cpu',
    # The others can then have memory while one is still ending.
    'XLA_PYTHON_CLIENT_PREALLOCATE': 'false',
    'CUDA_VISIBLE_DEVICES': _first_card(),
  }


def _first_card() -> str:
  """Returns the card that all use: brax would take every one that it sees."""
  return os.environ.get('CUDA_VISIBLE_DEVICES', '0').split(',')[0]


def card() -> str:
  """Returns the card's name, memory and driver.

  Raises:
    UserError: if there is none.
  """
  question = ['--query-gpu=name,memory.total,driver_version']
  command = ['nvidia-smi', '-i', _first_card(), '--format=csv,noheader']
  try:
    done = subprocess.run(
      [*command, *question], capture_output=True, text=True, check=True
    )
  except (OSError, subprocess.CalledProcessError) as error:
    said = getattr(error, 'stdout', '') or error
    raise errors.UserError(
      f'no NVIDIA GPU was found, by {" ".join(command)}: {str(said).strip()}. '
      'Install its driver, or try all jobs on the CPU, at about a tenth of the '
      'size: python -m benchmarks --gpu --tenth'
    ) from error
  name, memory, driver = done.stdout.strip().split(', ')
  return f'{name}, {memory}, driver {driver}'


def _tried(name, found, sections) -> str:
  """Returns the section of what was tried, with this job's line renewed."""
  kept = {}
  for line in sections.get(_TRIED, '').splitlines():
    if line.startswith('| ') and not line.startswith(('| job', '| ---')):
      kept[line.split(' | ')[0].removeprefix('| ')] = line
  ran = list(found.rows)
  if gpu_jobs.TENTH[name].yes_or_no:
    ran = [
      f'{label}: {table.yes_or_no(row.rounds[0][0])}'
      for label, row in found.rows.items()
    ]
  ran += [f'not {label}: {why}' for label, why in found.missing.items()]
  cells = [name, '; '.join(ran), f'{found.seconds:.0f}']
  kept[name] = f'| {" | ".join([*cells, str(datetime.date.today())])} |'
  lines = [kept[each] for each in gpu_jobs.JOBS if each in kept]
  rest = ', '.join(each for each in gpu_jobs.JOBS if each not in kept)
  text = (
    f'`python -m benchmarks --gpu --tenth`, {platform.machine()}, '
    f'{psutil.cpu_count()} cores, Python {platform.python_version()}. It shows '
    'that a job runs, with equal hyper-parameters; rates of a CPU at such '
    'sizes would say nothing.' + f' Not tried yet: {rest}.' * bool(rest)
  )
  return '\n'.join([f'## {_TRIED}', '', text, '', _COLUMNS, *lines, ''])


def write(output: pathlib.Path, sections: Mapping[str, str]):
  """Puts sections into a file that has one of each job, run or not.

  Args:
    output: the file; made if missing.
    sections: Markdown by title.
  """
  not_run = {
    job.title: table.section(
      job,
      {},
      {},
      _NOT_RUN.format(name=name),
      {each.label: '' for each in job.contestants},
    )
    for name, job in gpu_jobs.JOBS.items()
  }
  kept = table.read(output)
  table.put(
    output,
    _HEAD.format(windows=jobs.WINDOWS),
    [*not_run, _TRIED],
    not_run | kept | dict(sections),
  )
