"""Datasets that lie in files: of our own runs, and of others."""

from collections.abc import Iterator, Sequence
import gzip
import pathlib
import zipfile

import numpy as np

from dopamine_jax import errors
from dopamine_jax.checkpoints import checkpoints as checkpoints_lib
from dopamine_jax.datasets import base
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


class OwnReplay(base.Dataset):
  """What the replay of a run holds, in its newest checkpoint.

  Rewards are as that run learned from them, clipped if it clipped them.

  Attributes:
    run: the run's folder.
    seed: which of its seeds; None: the first.
  """

  run: str
  seed: int | None = None

  agent_units = True

  def __post_init__(self):
    super().__post_init__()
    self.require_at_least(0, 'seed')

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
    columns = {
      leaf: _by_lane(checkpoints.rows(newest, name, leaf))
      for leaf in ('frame', 'action', 'reward', 'status')
    }
    lanes = len(columns['reward']) // len(seeds)
    for lane in range(which * lanes, (which + 1) * lanes):
      yield _of_slots({leaf: rows[lane] for leaf, rows in columns.items()})


def _by_lane(rows):
  """Returns the rows of each lane, oldest first."""
  found = {}
  for lane, _, some in rows:
    found.setdefault(lane, []).append(np.array(some))
  return [np.concatenate(found[lane]) for lane in sorted(found)]


def _of_slots(slots):
  """Returns the steps of one lane's slots."""
  status = slots['status']
  taken = status != ring_lib.LAST
  taken[-1] = False  # what followed it is in no slot
  after = np.flatnonzero(taken) + 1
  return base.Part(
    observation=slots['frame'][taken],
    action=slots['action'][taken],
    reward=slots['reward'][taken],
    terminated=status[taken] == ring_lib.TERMINATED,
    truncated=status[taken] == ring_lib.TRUNCATED,
    next_observation=slots['frame'][after],
  )


class Npz(base.Dataset):
  """Columns in a `.npz` file, one row a step, episodes one after another.

  Their names are those of `base.Part`, or D4RL's: `observations`, `actions`,
  `rewards`, `terminals`, and, where there are any, `timeouts` and
  `next_observations`.

  Attributes:
    path: of the file.
  """

  path: str

  def parts(self) -> Iterator[base.Part]:
    """Yields the whole file."""
    try:
      with np.load(self.path, allow_pickle=False) as file:
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
    found.setdefault('truncated', np.zeros(len(found['reward']), bool))
    yield base.Part(**found)


class DopamineShards(base.Dataset):
  """Atari's frames as Dopamine logs them: Agarwal et al. (2020).

  An Optimistic Perspective on Offline Reinforcement Learning.
  https://arxiv.org/abs/1907.04543

  A shard is four files, `$store$_observation_ckpt.0.gz` and so on. Ends are
  terminations, as Dopamine's are. Between shards steps may be missing.

  Attributes:
    folder: where they lie.
    shards: which of them; None: all, in the order of their numbers.
  """

  folder: str
  shards: Sequence[int] | None = None

  def __post_init__(self):
    super().__post_init__()
    self.require_at_least(0, 'shards')

  def parts(self) -> Iterator[base.Part]:
    """Yields one shard after another."""
    folder = pathlib.Path(self.folder)
    there = sorted(
      int(path.name.split('.')[-2])
      for path in folder.glob('$store$_observation_ckpt.*.gz')
    )
    wanted = there if self.shards is None else list(self.shards)
    lacking = sorted(set(wanted) - set(there))
    if not wanted or lacking:
      self._fail(
        f'finds the shards {there} in {folder}'
        + (f', and not {lacking}' if lacking else '')
      )
    for number in wanted:
      columns = {
        name: self._column(folder / f'$store$_{name}_ckpt.{number}.gz')
        for name in ('observation', 'action', 'reward', 'terminal')
      }
      ends = columns.pop('terminal').astype(bool)
      yield base.Part(**columns, terminated=ends, truncated=np.zeros_like(ends))

  def _column(self, path):
    try:
      with gzip.open(path) as file:
        return np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
      self._fail(f'can not read {path}: {error}')


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
