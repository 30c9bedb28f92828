"""A run's folder: who may train in it, and whether a run there may go on.

`config.gin` is the operative configuration: running it again reproduces the
run. `run.json` holds its seeds, the libraries' versions and its events: when it
was started, resumed and stopped, by which command and on what machine. Beside
them lie `metrics.csv`, `tensorboard/` and `checkpoints/`.
"""

from collections.abc import Callable, Iterator
import contextlib
import datetime
import difflib
import fcntl
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import shlex
import sys
from typing import Any

import jax
import psutil

from dopamine_jax import checkpoints as checkpoints_lib
from dopamine_jax import errors
from dopamine_jax import processes

_LIBRARIES = ('dopamine-jax', 'jax', 'jaxlib', 'flax', 'optax', 'gymnasium')
# A run may be made longer. It then equals one that was as long from its start,
# but for a checkpoint and an evaluation at its old end. Histograms and videos
# only look.
_MAY_CHANGE = re.compile(
  r'^\S*Runner\.(num_iterations|histograms|videos) = .*$', re.MULTILINE
)


@contextlib.contextmanager
def open_for_training(base_dir: str | pathlib.Path) -> Iterator[pathlib.Path]:
  """Makes the folder and holds it, so that only one training is in it.

  Raises:
    UserError: if it can't be written, or another process holds it.
  """
  folder = pathlib.Path(base_dir)
  if not processes.is_writer():  # The one that is holds it for all.
    yield folder
    return
  try:
    folder.mkdir(parents=True, exist_ok=True)
    lock = open(folder / '.lock', 'w')
  except OSError as error:
    raise errors.UserError(
      f'--base_dir {base_dir} can not be written: {error.strerror}. Choose a '
      'folder that you may write to.'
    ) from error
  with lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
      raise errors.UserError(
        f'another process is training in {base_dir}. Wait for it, stop it, or '
        'choose another --base_dir.'
      ) from error
    yield folder


def claim(
  folder: pathlib.Path,
  checkpoints: checkpoints_lib.Checkpoints,
  config: str,
  facts: dict[str, Any],
  resume: bool,
  say: Callable[[str], None] = print,
) -> list[int]:
  """Starts a run here, or checks that the one that lies here may go on.

  Args:
    folder: the run's folder.
    checkpoints: its checkpoints.
    config: the operative configuration of the run that wants to start.
    facts: its `seeds`, `versions` and `title`, which may be empty.
    resume: whether it may go on.
    say: prints what the user should know.

  Returns:
    The iterations to go on from, oldest first; empty to start at the first.

  Raises:
    UserError: if another run lies here, or this one under other settings.
  """
  config_file, facts_file = folder / 'config.gin', folder / 'run.json'
  iterations = checkpoints.iterations()
  before = {}
  if config_file.exists() or iterations:
    if not resume:
      raise errors.UserError(
        f'{folder} already holds a run, and --no-resume never overwrites one. '
        'Choose another --base_dir, or leave --no-resume out to go on.'
      )
    before = _check_same(folder, config, facts, say)
    if iterations:
      wanted = re.search(r'Runner\.num_iterations = (\d+)', config)
      if wanted and int(wanted.group(1)) < iterations[-1]:
        raise errors.UserError(
          f'the run in {folder} has done {iterations[-1]} iterations; '
          f'num_iterations = {wanted.group(1)} is fewer.'
        )
  processes.wait_for_all('the run folder was looked at')
  if not processes.is_writer():
    return iterations
  # A run that goes on from its own config.gin has lost its title there.
  facts = before | {name: value for name, value in facts.items() if value}
  # The configuration last: where it is, so is the rest.
  write(facts_file, json.dumps(facts, indent=1))
  write(config_file, config)
  return iterations


def versions() -> dict[str, str]:
  """Returns the versions that a bit-exact resume depends on."""
  found = {'python': platform.python_version()}
  for library in _LIBRARIES:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      found[library] = importlib.metadata.version(library)
  return found


def machine() -> dict[str, Any]:
  """Returns what the speed of a run depends on."""
  return {
    'system': platform.platform(),
    'processor': _processor(),
    'cores': os.cpu_count(),
    'memory_gb': round(psutil.virtual_memory().total / 1e9, 1),
    'devices': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
  }


def command() -> str:
  """Returns the command that runs, as a shell would take it."""
  program, *words = sys.argv
  if pathlib.Path(program).parent.name == 'dopamine_jax':  # python -m
    program = 'dopamine-jax'
  return shlex.join([pathlib.Path(program).name, *words])


def add_event(folder: pathlib.Path, kind: str, **details: Any):
  """Adds what happened to the `events` of `run.json`, with the time.

  Args:
    folder: the run's folder.
    kind: 'started', 'resumed', 'stopped' or 'finished'.
    **details: what else is known of it, for JSON.

  Raises:
    UserError: if the file can't be read or written.
  """
  if not processes.is_writer():
    return
  facts = read_facts(folder)
  now = datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
  events = [*facts.get('events', ()), {'event': kind, 'time': now, **details}]
  write(folder / 'run.json', json.dumps(facts | {'events': events}, indent=1))


def read_facts(folder: pathlib.Path) -> dict[str, Any]:
  """Returns what `run.json` says: `seeds`, `versions` and more.

  Runs of older versions have neither `title` nor `events`.

  Raises:
    UserError: if the folder holds no run.
  """
  try:
    facts = json.loads((folder / 'run.json').read_text())
    return {name: facts[name] for name in ('seeds', 'versions')} | facts
  except FileNotFoundError as error:
    raise errors.UserError(
      f'{folder} holds no run: it has no run.json. Give the --base_dir of a '
      'training.'
    ) from error
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise errors.UserError(
      f'{folder}/run.json can not be read: {error}'
    ) from error


def write(file: pathlib.Path, text: str):
  """Writes a text file whole or not at all.

  Raises:
    UserError: if it can't.
  """
  beside = file.with_suffix('.tmp')
  try:
    beside.write_text(text)
    os.replace(beside, file)
  except OSError as error:
    raise errors.UserError(f'could not write {file}: {error}') from error


def _processor():
  """Returns the processor's name, as far as the system tells it."""
  with contextlib.suppress(OSError):
    text = pathlib.Path('/proc/cpuinfo').read_text()
    if name := re.search(r'^model name\s*: (.+)$', text, re.MULTILINE):
      return name.group(1)
  return platform.processor() or platform.machine()


def _check_same(folder, config, facts, say):
  """Returns the facts of the run that lies here, if it may go on."""
  old_config = ''
  if (folder / 'config.gin').exists():
    old_config = (folder / 'config.gin').read_text()
  if _comparable(old_config) != _comparable(config):
    changes = [
      line
      for line in difflib.unified_diff(
        _comparable(old_config), _comparable(config), n=0, lineterm=''
      )
      if not line.startswith(('---', '+++', '@@'))
    ]
    raise errors.UserError(
      f'the run in {folder} was made with another configuration (- was, + '
      'is):\n  ' + '\n  '.join(changes) + '\nGo on with the old one: '
      f'--gin_files {folder}/config.gin. Or train into another --base_dir.'
    )
  old = read_facts(folder)
  if old['seeds'] != facts['seeds']:
    raise errors.UserError(
      f'the run in {folder} has seeds {old["seeds"]}, not {facts["seeds"]}. '
      'Give the same --seed and --num_seeds, or another --base_dir.'
    )
  changed = [
    f'{name} {old["versions"].get(name)} -> {version}'
    for name, version in facts['versions'].items()
    if old['versions'].get(name) != version
  ]
  if changed:
    say(
      f'Warning: since this run began, {", ".join(changed)} changed. It goes '
      'on, but need not equal a run that was never stopped, bit for bit.'
    )
  return old


def _comparable(config):
  """Returns the lines of a configuration that decide a run's results."""
  lines = _MAY_CHANGE.sub('', config).splitlines()
  return [line for line in lines if line and not line.startswith('#')]
