"""What a sweep is: all that decides its results, in `sweep.json`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import functools
import json
import pathlib
import typing
from typing import Any

from dopamine_jax import config
from dopamine_jax import errors
from dopamine_jax import runner as runner_lib
from dopamine_jax.sweeps import spaces
from dopamine_jax.system import plain_files
from dopamine_jax.system import safe_files
from dopamine_jax.training import identity
from dopamine_jax.training import starts

_FILE = 'sweep.json'
_MEGABYTES = 10
_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Study:
  """A sweep's definition, which never changes.

  Attributes:
    files: paths or names of gin files.
    bindings: lines of gin, which win over them.
    space: lines as of `spaces`.
    search: which settings are tried: 'grid', 'random' or 'tpe'.
    trials: how many.
    scheduler: which trials go on: 'none' (all), 'asha' or 'pbt'.
    training_steps: agent steps of an iteration.
    rungs: iterations after which the scheduler decides, in ascending order; the
      last is the whole training.
    reduction: of ASHA: one of so many goes on from each rung; packs of higher
      rungs are at least so many times smaller than those of the first.
    metric: whose mean over seeds is a trial's score.
    last: points of the metric whose mean is a seed's score.
    seed: of the first seed of each trial; the others follow it.
    num_seeds: S of each trial.
    search_seed: of what is drawn for the search and the scheduler.
    pack: trials at most that train in one program.
    ahead: packs that 'tpe' asks for before it is told of the first.
    record: digest of the settings that the files gave when the sweep began.
  """

  files: tuple[str, ...]
  bindings: tuple[str, ...]
  space: tuple[str, ...]
  search: str
  trials: int
  scheduler: str
  training_steps: int
  rungs: tuple[int, ...]
  reduction: int
  metric: str
  last: int
  seed: int
  num_seeds: int
  search_seed: int
  pack: int
  ahead: int
  record: str

  @functools.cached_property
  def dimensions(self) -> spaces.Space:
    """The space."""
    return spaces.parse(self.space)

  @property
  def seeds(self) -> tuple[int, ...]:
    """The seeds of each trial."""
    return tuple(range(self.seed, self.seed + self.num_seeds))

  @contextlib.contextmanager
  def configured(
    self,
    settings: Mapping[str, Any],
    say: Callable[[str], None] = lambda line: None,
  ) -> Iterator[runner_lib.Runner]:
    """Yields the runner of a trial; what is raised inside names gin's lines.

    Args:
      settings: of the trial, by name.
      say: prints what the user should know.
    """
    lines = [*self.bindings, *spaces.bindings(settings)]
    try:
      with runner_lib.configured(self.files, lines, say) as (runner, _):
        yield runner
    except errors.UserError as error:
      own = '--gin_bindings: '
      words = str(error)
      if words.startswith(own) and any(
        _is_of(name, words) for name in settings
      ):
        # The trial's own lines are bindings too.
        raise errors.UserError(f'--vary: {words[len(own) :]}') from error
      raise

  def runner(
    self, settings: Mapping[str, Any], start_from: str | None = None
  ) -> runner_lib.Runner:
    """Returns the runner of a trial.

    Args:
      settings: of the trial, by name.
      start_from: the run that it begins with; None: it begins anew.
    """
    with self.configured(settings) as runner:
      if start_from is None:
        return runner
      return runner.replace(start_from=starts.StartFrom(run=start_from))

  def write(self, folder: pathlib.Path):
    """Writes the definition into a sweep's folder."""
    fields = {'version': _VERSION, **dataclasses.asdict(self)}
    plain_files.write(
      folder / _FILE, json.dumps(fields, indent=2).encode() + b'\n'
    )


def read(folder: pathlib.Path) -> Study:
  """Returns the definition of the sweep in a folder.

  Raises:
    UserError: if there is none, or it can't be read.
  """
  path = folder / _FILE
  try:
    fields = json.loads(safe_files.read_text(path, _MEGABYTES))
    version = fields.pop('version')
    if version != _VERSION:
      raise errors.UserError(
        f'{path} is of version {version}, and this program knows {_VERSION}. '
        'Go on with the program that began the sweep.'
      )
    lists = {k: tuple(v) for k, v in fields.items() if isinstance(v, list)}
    found = Study(**{**fields, **lists})
    _check(found)
    return found
  except FileNotFoundError as error:
    raise errors.UserError(
      f"{folder} holds no sweep: there is no {_FILE} in it. Give a sweep's "
      'folder.'
    ) from error
  except (ValueError, TypeError, AttributeError, KeyError) as error:
    raise errors.UserError(
      f'{path} can not be read: {errors.described(error)}. Bring back the file '
      'that the sweep wrote.'
    ) from error


def _check(study):
  """Raises ValueError where a value is none that was written."""
  for each in dataclasses.fields(study):
    value = getattr(study, each.name)
    items = value if isinstance(value, tuple) else (value,)
    is_several = typing.get_origin(each.type) is tuple
    kind = typing.get_args(each.type)[0] if is_several else each.type
    if is_several != isinstance(value, tuple) or not all(
      type(x) is kind and (kind is str or x >= 0) for x in items
    ):
      raise ValueError(f'{each.name} is {value!r:.60}')
  if not study.rungs or list(study.rungs) != sorted({*study.rungs} - {0}):
    raise ValueError(f'rungs are {study.rungs}')


def is_sweep(folder: pathlib.Path) -> bool:
  """Whether a sweep lies in a folder."""
  return (folder / _FILE).exists()


def require_same(folder: pathlib.Path, old: Study, new: Study):
  """Refuses to go on with a sweep under another definition.

  Raises:
    UserError: names what differs.
  """
  changed = [
    f'{each.name} was {_shown(getattr(old, each.name))}, is '
    f'{_shown(getattr(new, each.name))}'
    for each in dataclasses.fields(Study)
    if getattr(old, each.name) != getattr(new, each.name)
  ]
  if changed:
    raise errors.UserError(
      f'{folder} holds another sweep: {"; ".join(changed)}. To go on with that '
      f"one: 'dopamine-jax sweep resume {folder}'. For this one give another "
      '--base_dir.'
    )


def require_unchanged(one: Study):
  """Refuses to go on when the files of a sweep give other settings by now.

  Raises:
    UserError: if they do.
  """
  with runner_lib.configured(one.files, one.bindings, lambda line: None) as (
    runner,
    _,
  ):
    now = digest(runner)
  if now != one.record:
    raise errors.UserError(
      f'the settings of {", ".join(one.files)} are not those that the sweep '
      'began with, so that new trials could not be compared with the old. Undo '
      'the change, or begin another sweep.'
    )


def digest(runner: runner_lib.Runner) -> str:
  """Returns a checksum of what decides a run's results."""
  return identity.digest(config.write(runner))


def _shown(value):
  if isinstance(value, Sequence) and not isinstance(value, str):
    return ', '.join(map(str, value)) or 'empty'
  return str(value)


def _is_of(name, words):
  """Whether an error is about a setting, by its name or by class and field."""
  kind, _, field = name.rpartition('.')
  return name in words or (kind in words and repr(field) in words)
