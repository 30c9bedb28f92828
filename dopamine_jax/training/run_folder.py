"""A run's folder: what lies in it, and whether a run there may go on.

`config.gin` has all settings of the run: training from it repeats the run.
`run.json` holds its seeds, the libraries' versions, its progress, and its
events: when it was started, resumed and stopped, by which command and on what
machine. Beside them lie `metrics.csv`, `tensorboard/` and `checkpoints/`, each
of which knows its seeds and versions too. `signature` tells that this user
trained with this configuration.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import datetime
import functools
import json
import pathlib
import re
import sys
from typing import Any, NamedTuple

from dopamine_jax import errors
from dopamine_jax.checkpoints import checkpoints as checkpoints_lib
from dopamine_jax.system import plain_files
from dopamine_jax.system import processes
from dopamine_jax.system import safe_files
from dopamine_jax.training import identity
from dopamine_jax.trust import signature

# Where one of these lies, so does a run, or what is left of it.
_OF_A_RUN = ('run.json', 'config.gin', 'metrics.csv', 'tensorboard')
_MEGABYTES = 32  # at most in run.json and config.gin


class Found(NamedTuple):
  """What a folder holds of the run that wants to start.

  Attributes:
    iterations: those with a checkpoint to go on from, oldest first; none to
      start at the first.
    facts: of `run.json`; none in a new run.
  """

  iterations: list[int]
  facts: dict[str, Any]


def look(
  folder: pathlib.Path,
  checkpoints: checkpoints_lib.Checkpoints,
  config: str,
  facts: dict[str, Any],
  resume: bool,
  say: Callable[[str], None] = print,
  written_today: Callable[[], str] | None = None,
) -> Found:
  """Checks that a run may start here, or that the one here may go on.

  Args:
    folder: the run's folder.
    checkpoints: its checkpoints.
    config: the settings of the run that wants to start.
    facts: its `seeds`, `versions` and `title`, which may be empty.
    resume: whether it may go on.
    say: prints what the user should know.
    written_today: returns the settings of the run here as this version writes
      them; an older one, or a user by hand, wrote the same in other words.

  Raises:
    UserError: if another run lies here, this one under other settings, or
      this one without its checkpoints.
  """
  iterations = checkpoints.iterations()
  before = {}
  if iterations or any(_has_some(folder / name) for name in _OF_A_RUN):
    if not resume:
      raise errors.UserError(
        f'{folder} already holds a run, and --no-resume never overwrites one. '
        'Choose another --base_dir, or leave --no-resume out to go on.'
      )
    before = read_facts(folder, say)
    old_config = _old_config(folder, before) or config
    if written_today and not identity.are_same(old_config, config):
      with contextlib.suppress(errors.UserError):
        old_config = written_today()
    identity.require_same(folder, old_config, before, config, facts, say)
    _check_progress(folder, before, iterations, say)
    require_own(checkpoints, facts['seeds'], config)
    wanted = re.search(r'Runner\.num_iterations = (\d+)', config)
    done = max((i for i, _ in readable(checkpoints)), default=0)
    if wanted and int(wanted.group(1)) < done:
      raise errors.UserError(
        f'the run in {folder} has done {done} iterations; '
        f'num_iterations = {wanted.group(1)} is fewer.'
      )
  processes.wait_for_all('the run folder was looked at')
  return Found(iterations, before)


def claim(
  folder: pathlib.Path,
  config: str,
  facts: dict[str, Any],
  before: dict[str, Any],
  say: Callable[[str], None] = print,
):
  """Writes what a run is that starts or goes on here, and signs it.

  Args:
    folder: the run's folder.
    config: the run's settings.
    facts: its `seeds`, `versions` and `title`, which may be empty.
    before: the facts that `look` has found.
    say: prints what the user should know.

  Raises:
    UserError: if they can't be written.
  """
  if not processes.is_writer():
    return
  # A run that goes on from its own config.gin has lost its title there.
  facts = before | {name: value for name, value in facts.items() if value}
  # The configuration last: where it is, so is the rest.
  write(folder / 'run.json', json.dumps(facts, indent=1))
  if signed := signature.of(folder, config, say):
    write(folder / signature.FILE, signed)
  write(folder / 'config.gin', config)


def require_own(
  checkpoints: checkpoints_lib.Checkpoints,
  seeds: Sequence[int],
  config: str | None,
):
  """Refuses checkpoints that another run has saved.

  They would be read without complaint: parts of two runs, called one. Those of
  older versions tell their seeds alone.

  Args:
    checkpoints: of the run's folder.
    seeds: the run's.
    config: its settings, as in config.gin; None if nobody knows them.

  Raises:
    UserError: names the checkpoint, and what it has.
  """
  own = identity.digest(config) if config is not None else None
  for iteration, saved in readable(checkpoints):
    facts = saved.get('facts') or {}
    theirs = facts.get('seeds', list(seeds))
    if theirs != list(seeds):
      problem = f'seeds {theirs}, not {list(seeds)}'
    elif own and facts.get('record', own) != own:
      problem = 'settings other than those in config.gin'
    else:
      continue
    raise errors.UserError(
      f'the checkpoint of iteration {iteration} in {checkpoints.folder} is of '
      f'another run: it was saved with {problem}. Bring back the checkpoints/ '
      'that belong to config.gin and run.json (a copy that mixed two runs?), '
      'or undo what was changed in config.gin.'
    )


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


def set_progress(folder: pathlib.Path, **progress: Any):
  """Notes in `run.json` how far a run has come.

  Args:
    folder: the run's folder.
    **progress: `checkpoint`, the newest iteration that has one; `reported`,
      the newest of these that collectors have all of, and `written`, what they
      said of it.

  Raises:
    UserError: if the file can't be read or written.
  """
  if not processes.is_writer():
    return
  facts = read_facts(folder)
  progress = facts.get('progress', {}) | progress
  write(
    folder / 'run.json', json.dumps(facts | {'progress': progress}, indent=1)
  )


def set_fact(folder: pathlib.Path, name: str, value: Any):
  """Notes something of the whole run in `run.json`.

  Raises:
    UserError: if the file can't be read or written.
  """
  if processes.is_writer():
    facts = read_facts(folder) | {name: value}
    write(folder / 'run.json', json.dumps(facts, indent=1))


def read_facts(
  folder: pathlib.Path, say: Callable[[str], None] | None = None
) -> dict[str, Any]:
  """Returns what `run.json` says: `seeds`, `versions` and more.

  Where it is lost or damaged, the newest checkpoint has seeds, versions and
  title. Runs of older versions have neither `title` nor `events`.

  Args:
    folder: the run's folder.
    say: is told of a file that is lost or damaged; None prints to stderr.

  Raises:
    UserError: if the folder holds no run, or nobody knows its facts.
  """
  try:
    text = safe_files.read_text(folder / 'run.json', _MEGABYTES)
    return _checked(json.loads(text))
  except FileNotFoundError:
    problem = f'{folder} holds no run: it has no run.json'
    remedy = plain_files.instead_of(folder)
  except (errors.UserError, ValueError, RecursionError) as error:
    problem = f'{folder}/run.json can not be read: {error}'.rstrip('.')
    remedy = 'Bring back the file that the training wrote.'
  iteration, facts = _facts_of_checkpoints(folder)
  if facts is None:
    if any(_has_some(folder / name) for name in _OF_A_RUN[1:]):
      remedy = (
        'What else lies there belongs to a run, and is never overwritten: '
        'bring back run.json and checkpoints/, or train into another '
        '--base_dir.'
      )
    raise errors.UserError(f'{problem}. {remedy}')
  message = (
    f'Warning: {problem.replace("holds no run: it ", "")}. The checkpoint of '
    f'iteration {iteration} says which run it is; when it was started and '
    'stopped is lost.'
  )
  (say or functools.partial(print, file=sys.stderr))(message)
  return facts


def read_config(folder: pathlib.Path) -> str | None:
  """Returns the text of `config.gin`; None if there is none.

  Raises:
    UserError: if it can't be read.
  """
  try:
    return safe_files.read_text(folder / 'config.gin', _MEGABYTES)
  except FileNotFoundError:
    return None
  except errors.UserError as error:
    raise errors.UserError(
      f'{error} Bring back the file that the training wrote.'
    ) from error


def write(file: pathlib.Path, text: str):
  """Writes a text file whole or not at all, and on disk on return.

  Raises:
    UserError: if it can't.
  """
  try:
    plain_files.write(file, text.encode())
  except OSError as error:
    raise errors.UserError(
      f'could not write {file}: {error.strerror}'
    ) from error


def readable(
  checkpoints: checkpoints_lib.Checkpoints,
) -> Iterator[tuple[int, dict[str, Any]]]:
  """Yields each iteration, and what its checkpoint says of the run.

  Those that are damaged are left to whoever restores them.
  """
  for iteration in checkpoints.iterations():
    with contextlib.suppress(checkpoints_lib.Damaged):
      yield iteration, checkpoints.manifest(iteration).get('run') or {}


def _has_some(path):
  """Whether something lies there; an empty folder is nothing."""
  return any(path.iterdir()) if path.is_dir() else path.exists()


def _checked(facts):
  """Returns what was read from `run.json`; raises ValueError if it can't be."""

  def check(fits, what):
    if not fits:
      raise ValueError(what)

  check(isinstance(facts, dict), 'it is no object')
  for name in ('seeds', 'versions'):
    check(name in facts, f'it has no {name}')
  seeds, progress = facts['seeds'], facts.get('progress', {})
  check(
    isinstance(seeds, list) and seeds and all(type(s) is int for s in seeds),
    'its seeds are no list of integers',
  )
  check(isinstance(facts['versions'], dict), 'its versions are no object')
  events = facts.get('events', [])
  check(
    isinstance(events, list) and all(isinstance(e, dict) for e in events),
    'its events are no list of objects',
  )
  check(isinstance(facts.get('title', ''), str), 'its title is no text')
  check(
    isinstance(progress, dict)
    and all(
      type(progress.get(name, 0)) is int for name in ('checkpoint', 'reported')
    )
    and isinstance(progress.get('written', {}), dict),
    'its progress is not in iterations',
  )
  return facts


def _facts_of_checkpoints(folder):
  """Returns an iteration and the facts in its checkpoint, if any has some."""
  checkpoints = checkpoints_lib.Checkpoints(folder)
  for iteration, saved in reversed(list(readable(checkpoints))):
    with contextlib.suppress(KeyError, TypeError, ValueError):
      return iteration, _checked(saved['facts'])
  return None, None


def _old_config(folder, before):
  """Returns what `config.gin` says; None in a run that has not written it."""
  config = read_config(folder)
  if config is None and before.get('progress'):
    raise errors.UserError(
      f'{folder}/config.gin is gone, and with it which settings the run has. '
      'Bring it back, or train into another --base_dir.'
    )
  return config


def _check_progress(folder, facts, iterations, say):
  """Refuses to begin anew where checkpoints were and are gone."""
  # Of older versions, only the events know of checkpoints.
  known = [facts.get('progress', {}).get('checkpoint', 0)] + [
    event.get('iteration', 0)
    for event in facts.get('events', [])
    if event.get('event') in ('resumed', 'finished')
  ]
  newest = max(n for n in known if type(n) is int)
  if newest and not iterations:
    raise errors.UserError(
      f'the run in {folder} has checkpoints up to iteration {newest}, and none '
      f'lies in {folder}/checkpoints. It does not begin anew, which would '
      'overwrite what is left of it: bring the checkpoints back (a copy that '
      'was cut short? another disk?), or train into another --base_dir.'
    )
  if newest > max(iterations, default=0):
    say(
      f'Warning: the checkpoint of iteration {newest} is gone from '
      f'{folder}/checkpoints; the newest one that lies there is of iteration '
      f'{iterations[-1]}.'
    )
