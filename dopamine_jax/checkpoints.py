"""Checkpoints: what makes a resumed run equal to one that never stopped.

A checkpoint is one folder, written beside and renamed when it is whole:

    BASE_DIR/checkpoints/000010/
      manifest.json   what belongs to it, with checksums
      state/          every array but the rings' slots (orbax)
      replay/         the slots written since the checkpoint before (npy)

A checkpoint costs what is new, see `replay/ring_files.py`: the manifest names
the folders, this one and earlier ones, whose rows together are the live ring.
Old folders go once no kept checkpoint needs their rows. Running episodes are
cut at a checkpoint, in the run that goes on as in the one that comes back, so
that no environment's inner state is needed. Nothing is pickled.
"""

from collections.abc import Callable, Iterator
import hashlib
import json
import os
import pathlib
import shutil
from typing import Any

import jax
import numpy as np

from dopamine_jax import array_files
from dopamine_jax import errors
from dopamine_jax import processes
from dopamine_jax.replay import ring as ring_lib
from dopamine_jax.replay import ring_files


class Damaged(Exception):
  """A checkpoint that can't be read; says why."""


class Checkpoints:
  """The checkpoints of one run.

  Attributes:
    folder: where they lie.
    max_to_keep: how many are kept, the newest.
  """

  def __init__(self, base_dir: str | pathlib.Path, max_to_keep: int = 3):
    self.folder = pathlib.Path(base_dir).absolute() / 'checkpoints'
    self.max_to_keep = max_to_keep

  def iterations(self) -> list[int]:
    """Returns the iterations that have a checkpoint, oldest first.

    A damaged one counts: reading it says so.
    """
    return sorted(
      int(path.name)
      for path in self.folder.glob('*')
      if path.name.isdigit()
      and ((path / 'manifest.json').exists() or (path / 'state').exists())
    )

  def manifest(self, iteration: int) -> dict[str, Any]:
    """Returns what belongs to a checkpoint.

    Returns:
      Its `iteration`; `files`, the checksums of what orbax wrote; `rings` by
      name, each as `ring_files.write` describes it; none without replay.

    Raises:
      Damaged: if it can't be read or isn't what was saved.
    """
    try:
      saved = json.loads((self._path(iteration) / 'manifest.json').read_text())
      contents = saved['contents']
      if saved['sha256'] != _text_digest(contents):
        raise Damaged('its manifest.json is not what was saved')
    except (OSError, ValueError, KeyError, TypeError) as error:
      raise Damaged(f'its manifest.json can not be read: {error}') from error
    return contents

  def save(
    self,
    iteration: int,
    state: Any,
    *,
    previous: int | None,
    with_replay: bool = True,
    run: dict[str, Any] | None = None,
  ):
    """Writes one checkpoint; what was there stays until it is whole.

    Checkpoints after `previous` are of a course that was given up, or damaged:
    they are renamed, so that none of them counts as the newest.

    Args:
      iteration: what it is called.
      state: a pytree of arrays; `Ring`s in it are written incrementally, up to
        `head`: running episodes must have been cut.
      previous: the checkpoint that this run saved or restored before, whose
        replay this one adds to; None for a run's first.
      with_replay: whether to write the rings' slots at all.
      run: what is known of the run, for JSON; see `training`.

    Raises:
      UserError: if the disk can't take it.
    """
    if not processes.is_writer():
      return self._save_elsewhere(state, previous, with_replay)
    final = self._path(iteration)
    beside = final.with_suffix('.tmp')
    try:
      shutil.rmtree(beside, ignore_errors=True)
      beside.mkdir(parents=True)
      self._write(beside, iteration, state, previous, with_replay, run)
      for newer in self.iterations():
        if previous is None or newer > previous:
          _set_aside(self._path(newer))
      beside.rename(final)
      sync(self.folder)
    # tensorstore, below orbax, reports a full disk by a ValueError.
    except (OSError, ValueError, RuntimeError) as error:
      shutil.rmtree(beside, ignore_errors=True)
      last = 'none' if previous is None else f'of iteration {previous}'
      raise errors.UserError(
        f'could not save the checkpoint of iteration {iteration} in '
        f'{self.folder}: {error}\nThe last checkpoint stays: {last}. Make '
        'room or mend the folder, then run the same command to go on.'
      ) from error
    self.collect_garbage()

  def restore(self, iteration: int, template: Any) -> Any:
    """Returns the state that was saved.

    Args:
      iteration: which checkpoint.
      template: a pytree of arrays or ShapeDtypeStructs like the state. Some of
        its top-level parts, such as the agent alone, are enough. Rings of a
        checkpoint without replay come back empty, and so do dead slots.

    Raises:
      Damaged: if the checkpoint can't be read.
      UserError: if it holds other leaves, shapes or types; names the first.
    """
    rings = self.manifest(iteration)['rings']
    arrays = self.arrays(iteration)
    _refuse_extra(arrays, template)

    def each(path, leaf):
      if not ring_lib.is_ring(leaf):
        return _fit(leaf, _name(path), arrays)
      if not rings:
        return processes.zeros(leaf)
      return self._restore_ring(iteration, leaf, _name(path), arrays)

    return jax.tree_util.tree_map_with_path(
      each, template, is_leaf=ring_lib.is_ring
    )

  def restore_newest(
    self, template: Any, say: Callable[[str], None]
  ) -> tuple[int, Any] | None:
    """Returns the newest good checkpoint's iteration and state, if any is.

    Args:
      template: as in `restore`.
      say: is told of each damaged one that is passed over.
    """
    for iteration in reversed(self.iterations()):
      try:
        return iteration, self.restore(iteration, template)
      except Damaged as damage:
        say(
          f'Warning: the checkpoint of iteration {iteration} is damaged '
          f'({damage}); going back to the one before.'
        )
    return None

  def arrays(self, iteration: int) -> dict[str, np.ndarray]:
    """Returns all arrays but the rings' slots, by name, verified.

    Raises:
      Damaged: if they can't be read or differ from what was saved.
    """
    folder = self._path(iteration)
    try:
      for name, expected in self.manifest(iteration)['files'].items():
        if ring_files.checksum(folder / name) != expected:
          raise Damaged(f'its {name} is not what was saved')
      return array_files.read(folder / 'state')
    except (OSError, ValueError) as error:
      raise Damaged(f'its state can not be read: {error}') from error

  def rows(
    self, iteration: int, ring: str, leaf: str
  ) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yields the live rows of one leaf of a ring, each lane's oldest first.

    Yields:
      A lane, the number of the first slot, the rows (mapped from the file).

    Raises:
      Damaged: if a file is missing or differs from what was saved.
    """
    saved = self.manifest(iteration)['rings'][ring]

    def locate(folder):
      return self.folder / folder / 'replay' / ring

    try:
      yield from ring_files.rows(saved, leaf, locate)
    except (OSError, ValueError) as error:
      raise Damaged(f'its replay can not be read: {error}') from error

  def _path(self, iteration):
    return self.folder / f'{iteration:06d}'

  def _write(self, beside, iteration, state, previous, with_replay, run):
    """Writes everything into the folder `beside`, its manifest last."""
    arrays, rings = _split(state)
    manifest = {'iteration': iteration, 'run': run, 'files': {}, 'rings': {}}
    with array_files.writing(beside / 'state', arrays):
      if with_replay:
        earlier = self._rings(previous)
        for name, ring in rings.items():
          manifest['rings'][name] = ring_files.write(
            ring,
            beside / 'replay' / name,
            self._path(iteration).name,
            _segments(earlier, name),
          )
    manifest['files'] = {
      str(path.relative_to(beside)): ring_files.checksum(path)
      for path in sorted((beside / 'state').rglob('*'))
      if path.is_file()
    }
    text = {'sha256': _text_digest(manifest), 'contents': manifest}
    with open(beside / 'manifest.json', 'w') as stream:
      stream.write(json.dumps(text, indent=1))
      stream.flush()
      os.fsync(stream.fileno())

  def _save_elsewhere(self, state, previous, with_replay):
    """Fetches what `_write` fetches, for the process that writes it."""
    _, rings = _split(state)
    if previous is not None and not self._path(previous).exists():
      raise errors.UserError(
        f'{self._path(previous)}, which process 0 wrote, is not to be seen '
        f'from process {jax.process_index()}: all need the same --base_dir.'
      )
    earlier = self._rings(previous)
    for name, ring in rings.items() if with_replay else ():
      ring_files.fetch(ring, _segments(earlier, name))

  def _rings(self, iteration):
    """Returns the rings in a manifest; none if it can't be read (any more)."""
    try:
      return {} if iteration is None else self.manifest(iteration)['rings']
    except Damaged:
      return {}  # The next checkpoint holds all rows, and needs none of these.

  def _restore_ring(self, iteration, ring, name, arrays):
    head = _fit(ring.head, f'{name}.head', arrays)
    saved = self.manifest(iteration)['rings'][name]
    capacity = ring.slots.reward.shape[-1]
    if saved['capacity'] != capacity:
      raise errors.UserError(
        f'{name} was saved with {saved["capacity"]} slots a lane; this run has '
        f'{capacity}.'
      )

    def fill(path, leaf):
      leaf_name = ring_files.leaf_name(path)
      slots = processes.zeros(leaf)
      row = leaf.shape[head.ndim + 1 :]
      for lane, start, rows in self.rows(iteration, name, leaf_name):
        if rows.shape[1:] != row or rows.dtype != leaf.dtype:
          raise errors.UserError(
            f'{name}.{leaf_name} was saved with rows {rows.shape[1:]} of '
            f'{rows.dtype}; this run has {row} of {leaf.dtype}.'
          )
        slots = ring_files.put(slots, head.ndim, lane, start, rows)
      return slots

    slots = jax.tree_util.tree_map_with_path(fill, ring.slots)
    rest = jax.tree_util.tree_map_with_path(
      lambda path, leaf: _fit(leaf, f'{name}.{_name(path)}', arrays),
      _without_slots(ring),
    )
    return rest.replace(slots=slots)

  def collect_garbage(self):
    """Removes what neither the newest checkpoints nor their replays need."""
    if not processes.is_writer():
      return
    kept = self.iterations()[-self.max_to_keep :]
    try:
      replay_needed = {
        segment['folder']
        for iteration in kept
        for ring in self.manifest(iteration)['rings'].values()
        for segment in ring['segments']
      }
    except Damaged:  # Nobody knows what it needs: wait until it is old.
      return
    for path in self.folder.iterdir():
      if not path.name.isdigit() or int(path.name) in kept:
        continue
      # The manifest goes last: a kill in between leaves a checkpoint that is
      # known to be damaged, and older than those that are kept.
      shutil.rmtree(path / 'state', ignore_errors=True)
      (path / 'manifest.json').unlink(missing_ok=True)
      if path.name not in replay_needed:
        shutil.rmtree(path, ignore_errors=True)


def _segments(rings, name):
  return rings[name]['segments'] if name in rings else []


def _split(state):
  """Returns all arrays but the rings' slots, and the rings, both by name."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(
    state, is_leaf=ring_lib.is_ring
  )
  rings = {_name(path): leaf for path, leaf in leaves if ring_lib.is_ring(leaf)}
  arrays = {
    name: processes.fetch(processes.plain(leaf))
    for name, leaf in _named(_without_slots(state)).items()
    if leaf.size  # orbax can't save an empty array, and there is no need to
  }
  return arrays, rings


def _refuse_extra(arrays, template):
  """Refuses a saved array that the template lacks, in a part that it has."""
  expected = _named(_without_slots(template)).keys()
  parts = {name.split('.')[0] for name in expected}
  for name in arrays:
    if name not in expected and name.split('.')[0] in parts:
      raise errors.UserError(
        f'the checkpoint has {name}, which this run does not have: it is of '
        'another agent or network.'
      )


def _fit(leaf, name, arrays):
  """Returns the saved array for a leaf of the template."""
  like = jax.eval_shape(processes.plain, leaf)
  if not like.size:
    return processes.zeros(leaf)
  if name not in arrays:
    raise errors.UserError(
      f'the checkpoint has no {name}: it is of another agent or network.'
    )
  array = arrays[name]
  if array.shape != like.shape or array.dtype != like.dtype:
    raise errors.UserError(
      f'{name} was saved with shape {array.shape} of {array.dtype}; this run '
      f'has {like.shape} of {like.dtype}.'
    )
  return processes.put(array, leaf)


def _without_slots(tree):
  return jax.tree.map(
    lambda leaf: leaf.replace(slots=None) if ring_lib.is_ring(leaf) else leaf,
    tree,
    is_leaf=ring_lib.is_ring,
  )


def _named(tree):
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {_name(path): leaf for path, leaf in leaves}


def _name(path):
  return jax.tree_util.keystr(path, simple=True, separator='.') or 'state'


def _text_digest(contents):
  return hashlib.sha256(json.dumps(contents, indent=1).encode()).hexdigest()


def _set_aside(path):
  """Renames a folder to the first free of `000010.set-aside-1`, `-2`, ..."""
  number = 1
  while (name := path.with_name(f'{path.name}.set-aside-{number}')).exists():
    number += 1
  path.rename(name)


def sync(folder: pathlib.Path):
  """Makes a rename in this folder durable."""
  descriptor = os.open(folder, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)
