"""Datasets that lie in files: of our own runs, and of others."""

from collections.abc import Iterator, Sequence
import contextlib
import gzip
import math
import pathlib
import zipfile
import zlib

import numpy as np

from dopamine_jax import errors
from dopamine_jax.checkpoints import checkpoints as checkpoints_lib
from dopamine_jax.datasets import base
from dopamine_jax.datasets import rows as rows_lib
from dopamine_jax.replay import ring as ring_lib

# What others call the columns of `base.Part`.
_NAMES = {
  'observation': ('observation', 'observations'),
  'action': ('action', 'actions'),
  'reward': ('reward', 'rewards'),
  'terminated': ('terminated', 'terminals', 'terminations', 'dones'),
  'truncated': ('truncated', 'timeouts', 'truncations'),
  'next_observation': ('next_observation', 'next_observations'),
}

# What a shard has of each step, beside the observation.
_COLUMNS = ('action', 'reward', 'terminal')
_LEAVES = ('frame', 'action', 'reward', 'status', 'age')


class OwnReplay(base.Dataset):
  """What the replay of a run holds, in its newest checkpoint.

  Rewards are as that run learned from them, clipped if it clipped them, and
  then by the `reward_clip` of this run. An episode whose beginning was
  overwritten is left out.

  Attributes:
    run: the run's folder.
    seed: which of its seeds; None: the first.
    whole: whether to take every step of the run, which is there if
      `runner.Runner.record_replay` was on, or nothing was overwritten yet.
  """

  run: str
  seed: int | None = None
  whole: bool = False

  agent_units = True

  def __post_init__(self):
    super().__post_init__()
    self.require_at_least(0, 'seed')

  def recorded_with(self) -> str:
    """Returns that run's settings, in gin."""
    path = pathlib.Path(self.run) / 'config.gin'
    return path.read_text('utf-8') if path.exists() else ''

  def parts(self) -> Iterator[base.Part]:
    """Yields what each environment of that run has left in its lane."""
    checkpoints = checkpoints_lib.Checkpoints(pathlib.Path(self.run))
    iterations = checkpoints.iterations()
    if not iterations:
      self._fail(f'(run = {self.run!r}) finds no checkpoint', 'Train it first')
    newest = iterations[-1]
    manifest = checkpoints.manifest(newest)
    if not manifest['rings']:
      self._fail(
        f'(run = {self.run!r}) finds a checkpoint without its replay',
        'Train it with runner.Runner.checkpoint_replay = True',
      )
    (name,) = manifest['rings']
    seeds = manifest['run']['facts']['seeds']
    if self.seed is not None and self.seed not in seeds:
      self._fail(f'.seed = {self.seed} is none of that run: {seeds}')
    which = 0 if self.seed is None else seeds.index(self.seed)
    if self.whole:
      self._require_whole(manifest['rings'][name]['segments'])
    try:
      leaves = manifest['rings'][name]['segments'][-1]['checksums']
      if 'frame' not in leaves:
        self._fail(f'holds observations of several arrays: {sorted(leaves)}')
      lanes = manifest['rings'][name]['segments'][-1]['lanes']
      lanes = len(lanes) // len(seeds)
      found = zip(
        *(
          checkpoints.rows(newest, name, leaf, overwritten=self.whole)
          for leaf in _LEAVES
        ),
        strict=True,
      )
      for pieces in found:
        if pieces[0][0] // lanes == which:
          yield from _of_slots(*(rows for _, _, rows in pieces))
    except checkpoints_lib.Damaged as damage:
      self._fail(f'(run = {self.run!r}) finds a damaged checkpoint: {damage}')

  def _require_whole(self, segments):
    """Refuses segments that lack a step between the first and the newest."""
    stops = [[0] * len(segments[0]['lanes'])]
    stops += [[stop for _, stop in each['lanes']] for each in segments]
    for before, each in zip(stops, segments, strict=False):
      if before != [start for start, _ in each['lanes']]:
        self._fail(
          f'.whole (run = {self.run!r}) finds steps that were overwritten, and '
          'no record of them',
          'Set it to False, or train that run with '
          'runner.Runner.record_replay = True from its start',
        )


def _of_slots(frame, action, reward, status, age):
  """Yields the whole episodes of a lane's slots, which end with one.

  The oldest may have been overwritten in part: frames of a stack would lack.
  """
  begin = int(np.argmax(age == 0)) if (age == 0).any() else len(age)
  for end in rows_lib.ends_of_parts(begin, status == ring_lib.LAST):
    taken = begin + np.flatnonzero(status[begin:end] != ring_lib.LAST)
    yield base.Part(
      observation=frame[taken],
      action=action[taken],
      reward=reward[taken],
      terminated=status[taken] == ring_lib.TERMINATED,
      truncated=status[taken] == ring_lib.TRUNCATED,
      next_observation=frame[taken + 1],
    )
    begin = end


class Npz(base.Dataset):
  """Columns in a `.npz` file, one row a step, episodes one after another.

  Their names are those of `base.Part`, or D4RL's: `observations`, `actions`,
  `rewards`, `terminals`, and, where there are any, `timeouts` and
  `next_observations`. A step whose next observation is not the next row's ends
  an episode there, which is truncated: of rows in any order each is one step.

  Attributes:
    path: of the file.
  """

  path: str

  def parts(self) -> Iterator[base.Part]:
    """Yields the whole file."""
    try:
      file = np.load(self.path, allow_pickle=False)
      if not isinstance(file, np.lib.npyio.NpzFile):
        self._fail(f'finds one array in {self.path}', 'Name an .npz file')
      with file:
        held = {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
      self._fail(f'can not read {self.path}: {error}', 'Name an .npz file')
    found = {}
    for name, names in _NAMES.items():
      there = [each for each in names if each in held]
      if there:
        found[name] = held[there[0]]
      elif name in ('observation', 'action', 'reward', 'terminated'):
        self._fail(
          f'finds no {" or ".join(names)} in {self.path}, which holds '
          f'{", ".join(sorted(held)) or "nothing"}',
          'Save it under one of these names',
        )
    found.setdefault('truncated', np.zeros(np.shape(found['reward']), bool))
    yield base.Part(**found)


class DopamineShards(base.Dataset):
  """Atari's frames as Dopamine logs them: Agarwal et al. (2020).

  An Optimistic Perspective on Offline Reinforcement Learning.
  https://arxiv.org/abs/1907.04543

  A shard is four files, `$store$_observation_ckpt.0.gz` and so on, and perhaps
  `add_count_ckpt.0.gz`, by which the oldest step is known. Ends are
  terminations, as Dopamine's are. Between shards steps may be missing. The
  `stack` - 1 steps of zeros that Dopamine puts before each episode are left
  out, and so is a shard's first episode if it has begun in another one.

  Attributes:
    folder: where they lie.
    shards: which of them; None: all, in the order of their numbers.
    stack: frames in an observation of the agent that wrote them.
  """

  folder: str
  shards: Sequence[int] | None = None
  stack: int = 4

  def __post_init__(self):
    super().__post_init__()
    self.require_at_least(0, 'shards')
    self.require_at_least(1, 'stack')
    if self.shards is not None and len(set(self.shards)) < len(self.shards):
      self.refuse('shards', 'names one twice, whose steps would count twice')

  def parts(self) -> Iterator[base.Part]:
    """Yields one shard after another."""
    folder, there, wanted = self.folder, self._there(), self._wanted()
    lacking = sorted(set(wanted) - set(there))
    if not wanted or lacking:
      self._fail(
        f'finds the shards {there} in {folder}'
        + (f', and not {lacking}' if lacking else '')
      )
    for number in wanted:
      blanks, ended = [], True
      for part in self._parts_of(number):
        blanks += _blanks_before(part)
        ended = part.terminated[-1] if len(part.reward) else ended
        yield part
      blanks = blanks if ended else blanks[:-1]  # the last may be cut short
      if self.stack == 1 and not all(blanks[:1]):
        blanks = blanks[1:]  # the first may have begun in another shard
      if more := min(blanks, default=0):
        stack = self.stack + more
        self._fail(
          f'(stack = {self.stack}) finds {stack - 1} steps of zeros before '
          f'each episode of shard {number}, which Dopamine writes for a stack '
          f'of {stack}',
          f'Set files.DopamineShards.stack = {stack}',
        )

  def _there(self):
    """Returns the numbers of all shards of which there is a file."""
    paths = pathlib.Path(self.folder).glob('$store$_*_ckpt.*.gz')
    numbers = {path.name.split('.')[-2] for path in paths}
    return sorted(int(number) for number in numbers if number.isdecimal())

  def _wanted(self):
    return self._there() if self.shards is None else list(self.shards)

  def _parts_of(self, number):
    """Yields the steps of a shard, oldest first, some episodes at a time."""
    self._require_whole(number)
    columns = {
      name: np.concatenate([*self._rows(f'$store$_{name}', number)])
      for name in _COLUMNS
    }
    capacity = len(columns['terminal'])
    added = self._added(number, capacity)
    # Where the next step was to be written, the oldest lies.
    oldest = added % capacity if added > capacity else 0
    columns = {
      name: np.roll(column, -oldest)[:added] for name, column in columns.items()
    }
    terminal = columns.pop('terminal').astype(bool)
    age = rows_lib.ages(terminal)
    ends = [*rows_lib.ends_of_parts(0, terminal)]
    if not ends or ends[-1] < len(terminal):
      ends.append(len(terminal))  # an episode that was running
    frames = rows_lib.regrouped(self._frames(number, oldest, capacity), ends)
    for begin, end, frame in zip([0, *ends[:-1]], ends, frames, strict=True):
      here = slice(begin, end)
      is_zero = age[here] < self.stack - 1
      kept = ~is_zero
      if begin == 0 and frame[: self.stack - 1].any():
        # It began elsewhere, and frames of a stack would lack.
        first = rows_lib.length_of_first(terminal[here])
        is_zero[:first] = kept[:first] = False
      if frame[is_zero].any():
        self._fail(
          f'(stack = {self.stack}) finds episodes in shard {number} that do '
          f'not begin with {self.stack - 1} frames of zeros, as Dopamine '
          'writes them',
          'Set files.DopamineShards.stack to what they were written with',
        )
      ended = terminal[here][kept]
      yield base.Part(
        observation=frame[kept],
        terminated=ended,
        truncated=np.zeros_like(ended),
        **{name: column[here][kept] for name, column in columns.items()},
      )

  def _added(self, number, capacity):
    """Returns how many steps were written, of which some may be gone."""
    if not self._path('add_count', number).exists():
      return capacity
    added = np.asarray(next(self._rows('add_count', number), ()))
    if added.size != 1 or added.item() < 1:
      self._fail_at(number, f'finds shard {number} of {added} steps')
    return int(added.item())

  def _frames(self, number, oldest, capacity):
    """Yields all frames of a shard, the oldest first, a few at a time."""
    for start, stop in ((oldest, capacity), (0, oldest)):
      begin = 0
      for frames in self._rows('$store$_observation', number):
        if begin >= stop:
          break
        yield frames[max(start - begin, 0) : max(stop - begin, 0)]
        begin += len(frames)

  def _require_whole(self, number):
    """Refuses a shard whose files are of different lengths."""
    sizes = {}
    for name in ('observation', *_COLUMNS):
      with self._opened(f'$store$_{name}', number) as file:
        sizes[name] = rows_lib.header(file)[0][:1]
    if set(sizes.values()) == {(0,)}:
      self._fail_at(number, f'finds no step in shard {number}')
    if len({*sizes.values()}) > 1 or () in sizes.values():
      counts = ', '.join(
        f'{size[0] if size else "no"} of {name}' for name, size in sizes.items()
      )
      self._fail_at(number, f'finds shard {number} cut short: it has {counts}')

  def _path(self, name, number):
    return pathlib.Path(self.folder) / f'{name}_ckpt.{number}.gz'

  def _rows(self, name, number):
    """Yields the rows of an array, a few at a time, or its one number."""
    with self._opened(name, number) as file:
      shape, dtype = rows_lib.header(file)
      size = math.prod(shape[1:]) * dtype.itemsize
      for start in range(0, *shape[:1] or (1,), rows_lib.AT_ONCE):
        count = min(rows_lib.AT_ONCE, shape[0] - start) if shape else 1
        rows = np.frombuffer(file.read(count * size), dtype)
        yield rows.reshape(count, *shape[1:]) if shape else rows[0]

  @contextlib.contextmanager
  def _opened(self, name, number):
    """Opens a file of a shard, and tells of what goes wrong in it."""
    path = self._path(name, number)
    try:
      with gzip.open(path) as file:
        yield file
    except (OSError, ValueError, EOFError, zlib.error) as error:
      self._fail_at(number, f'can not read {path}: {error}')

  def _fail_at(self, number, what):
    """Raises UserError about a shard; says how to do without it."""
    others = tuple(each for each in self._wanted() if each != number)
    remedy = 'Fetch it again'
    if others:
      remedy += f', or leave it out: files.DopamineShards.shards = {others}'
    self._fail(what, remedy)


def _blanks_before(part):
  """Returns how many steps of zeros each episode begins with."""
  blank = part.reward == 0
  for column in (part.observation, part.action):
    blank &= ~column.reshape(len(blank), int(np.prod(column.shape[1:]))).any(
      axis=1
    )
  return rows_lib.first_marked(part.terminated, blank)


class Minari(base.Dataset):
  """A dataset of the Farama Foundation's, https://minari.farama.org.

  Attributes:
    id: as `minari.load_dataset` takes it, such as 'D4RL/pointmaze/umaze-v2'.
    download: whether to fetch what is not on this machine.
  """

  id: str
  download: bool = False

  def parts(self) -> Iterator[base.Part]:
    """Yields one episode after another."""
    try:
      import minari
    except ImportError as error:
      raise errors.UserError(
        f'minari is not installed: {errors.install("minari")}'
      ) from error
    try:
      dataset = minari.load_dataset(self.id, download=self.download)
    except Exception as error:
      self._fail(
        f'can not load {self.id!r}: {error}',
        'Name another id, or set files.Minari.download = True',
      )
    for episode in dataset.iterate_episodes():
      seen = np.asarray(episode.observations)
      yield base.Part(
        observation=seen[:-1],
        action=np.asarray(episode.actions),
        reward=np.asarray(episode.rewards),
        terminated=np.asarray(episode.terminations),
        truncated=np.asarray(episode.truncations),
        next_observation=seen[1:],
      )
