"""Checkpoints: what makes a resumed run equal to one that never stopped.

A checkpoint is one folder, written beside and renamed when it is whole:

    BASE_DIR/checkpoints/000010/
      manifest.json   what belongs to it, with checksums
      state/          every array but the ring's slots (orbax)
      replay/         the slots written since the checkpoint before (npy)

The ring only ever appends, so a checkpoint costs what is new: the manifest
names the folders, this one and earlier ones, whose rows together are the live
ring. Old folders go once no kept checkpoint needs their rows. Running episodes
are cut at a checkpoint, in the run that goes on as in the one that comes back,
so that no environment's inner state is needed. Nothing is pickled.
"""

from collections.abc import Iterator
import hashlib
import json
import os
import pathlib
import shutil
from typing import Any
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from dopamine_jax import errors
from dopamine_jax.replay import ring as ring_lib

_CHUNK = 4096  # rows; bounds the memory that a restore needs besides the ring


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
    """Returns the iterations that have a whole checkpoint, oldest first."""
    return sorted(
      int(path.parent.name)
      for path in self.folder.glob('*/manifest.json')
      if path.parent.name.isdigit()
    )

  def manifest(self, iteration: int) -> dict[str, Any]:
    """Returns a checkpoint's manifest.

    Raises:
      Damaged: if it can't be read.
    """
    try:
      return json.loads((self._path(iteration) / 'manifest.json').read_text())
    except (OSError, ValueError) as error:
      raise Damaged(f'its manifest.json: {error}') from error

  def save(
    self,
    iteration: int,
    state: Any,
    *,
    previous: int | None,
    with_replay: bool = True,
  ):
    """Writes one checkpoint; what was there stays until it is whole.

    Args:
      iteration: what it is called.
      state: any pytree; `Ring`s in it are written incrementally.
      previous: the checkpoint that this run saved or restored before, whose
        replay this one adds to; None for a run's first.
      with_replay: whether to write the rings' slots at all.

    Raises:
      UserError: if the disk can't take it.
    """
    final = self._path(iteration)
    beside = final.with_suffix('.tmp')
    try:
      shutil.rmtree(beside, ignore_errors=True)
      beside.mkdir(parents=True)
      arrays, rings = _split(state)
      saver = ocp.StandardCheckpointer()
      saver.save(beside / 'state', arrays)
      manifest = {
        'iteration': iteration,
        'digests': {name: digest(array) for name, array in arrays.items()},
        'rings': {},
      }
      if with_replay:
        chain = {}
        if previous is not None:
          chain = self.manifest(previous)['rings']
        for name, ring in rings.items():
          manifest['rings'][name] = _write_rows(
            beside / 'replay' / name, final.name, ring, chain.get(name, [])
          )
      saver.wait_until_finished()
      saver.close()
      _write_text(beside / 'manifest.json', json.dumps(manifest, indent=1))
      if final.exists():  # only ever a damaged one, see `restore`
        final.rename(_unused_name(final, '.damaged'))
      beside.rename(final)
      _sync(self.folder)
    except (OSError, ValueError, RuntimeError, Damaged) as error:
      shutil.rmtree(beside, ignore_errors=True)
      kept = self.iterations()
      last = f'iteration {kept[-1]}' if kept else 'none'
      raise errors.UserError(
        f'could not save the checkpoint of iteration {iteration} in '
        f'{self.folder}: {error}\nThe last good checkpoint stays: {last}. Make '
        'room or mend the folder, then run the same command to go on.'
      ) from error
    self._collect_garbage()

  def restore(self, iteration: int, template: Any) -> Any:
    """Returns the state that was saved.

    Args:
      iteration: which checkpoint.
      template: a pytree of arrays or ShapeDtypeStructs like the state. A part
        of the saved state, such as the agent's alone, is enough. Rings of a
        checkpoint without replay come back empty.

    Raises:
      Damaged: if the checkpoint can't be read.
      UserError: if it holds other leaves or shapes; names the first.
    """
    manifest = self.manifest(iteration)
    arrays = self.arrays(iteration)
    leaves, structure = jax.tree_util.tree_flatten_with_path(
      template, is_leaf=_is_ring
    )
    restored = []
    for path, leaf in leaves:
      name = _name(path)
      if _is_ring(leaf):
        restored.append(
          self._restore_ring(leaf, name, arrays, manifest['rings'])
        )
      else:
        restored.append(_fit(leaf, name, arrays))
    return jax.tree_util.tree_unflatten(structure, restored)

  def arrays(self, iteration: int) -> dict[str, np.ndarray]:
    """Returns all arrays but the rings' slots, by name, verified.

    Raises:
      Damaged: if they can't be read or differ from what was saved.
    """
    digests = self.manifest(iteration)['digests']
    try:
      with ocp.StandardCheckpointer() as saver:
        arrays = saver.restore(self._path(iteration) / 'state')
      arrays = {name: np.asarray(array) for name, array in arrays.items()}
    except Exception as error:  # orbax and tensorstore raise many kinds
      reason = str(error).strip().splitlines()[0]
      raise Damaged(f'its state: {reason}') from error
    for name, expected in digests.items():
      if name not in arrays or digest(arrays[name]) != expected:
        raise Damaged(f'its array {name} is not what was saved')
    return arrays

  def rows(
    self, name: str, segments: list[dict[str, Any]], leaf: str
  ) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yields (lane, number of the first slot, rows) of one leaf of a ring.

    Raises:
      Damaged: if a file is missing or differs from what was saved.
    """
    for segment in segments:
      file = self.folder / segment['folder'] / 'replay' / name / f'{leaf}.npy'
      try:
        if _checksum(file) != segment['checksums'][leaf]:
          raise Damaged(f'{file} is not what was saved')
        rows = np.load(file, mmap_mode='r', allow_pickle=False)
      except (OSError, ValueError) as error:
        raise Damaged(f'{file}: {error}') from error
      offset = 0
      for lane, (start, stop) in enumerate(segment['lanes']):
        yield lane, start, rows[offset : offset + stop - start]
        offset += stop - start

  def oldest_slots(self, iteration: int, name: str) -> list[int]:
    """Returns the number of the oldest live slot in each lane of a ring."""
    return self.manifest(iteration)['rings'][name][-1]['oldest']

  def _path(self, iteration):
    return self.folder / f'{iteration:06d}'

  def _restore_ring(self, ring, name, arrays, saved):
    if name not in saved:
      return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), ring)
    head = _fit(ring.head, f'{name}.head', arrays)
    age = _fit(ring.age, f'{name}.age', arrays)
    lanes = head.size
    oldest = saved[name][-1]['oldest']

    def fill(path, leaf):
      slots = jnp.zeros((lanes, *leaf.shape[head.ndim :]), leaf.dtype)
      for lane, start, rows in self.rows(name, saved[name], _name(path)):
        if rows.shape[1:] != slots.shape[2:] or rows.dtype != slots.dtype:
          raise errors.UserError(
            f'{name}.{_name(path)} was saved with rows {rows.shape[1:]} '
            f'{rows.dtype}; this run has {slots.shape[2:]} {slots.dtype}.'
          )
        # Of an old folder, the first rows may have been overwritten since.
        skip = max(oldest[lane] - start, 0)
        slots = _put_rows(slots, lane, start + skip, rows[skip:])
      return slots.reshape(leaf.shape)

    slots = jax.tree_util.tree_map_with_path(fill, ring.slots)
    return ring_lib.Ring(slots=slots, head=head, age=age)

  def _collect_garbage(self):
    kept = self.iterations()[-self.max_to_keep :]
    needed = {self._path(iteration).name for iteration in kept}
    replay_needed = {
      segment['folder']
      for iteration in kept
      for segments in self.manifest(iteration)['rings'].values()
      for segment in segments
    }
    for path in self.folder.iterdir():
      if not path.name.isdigit() or path.name in needed:
        continue
      (path / 'manifest.json').unlink(missing_ok=True)
      shutil.rmtree(path / 'state', ignore_errors=True)
      if path.name not in replay_needed:
        shutil.rmtree(path)


def digest(array: np.ndarray) -> str:
  """Returns the SHA-256 of an array's type, shape and bytes, in hex."""
  array = np.asarray(array)
  sha = hashlib.sha256(f'{array.dtype.str}{array.shape}'.encode())
  sha.update(np.ascontiguousarray(array).data)
  return sha.hexdigest()


def _split(state):
  """Returns all arrays by name, and the rings (also by name) without them."""
  arrays, rings = {}, {}
  for path, leaf in jax.tree_util.tree_flatten_with_path(
    state, is_leaf=_is_ring
  )[0]:
    name = _name(path)
    if _is_ring(leaf):
      rings[name] = leaf
      arrays[f'{name}.head'] = np.asarray(leaf.head)
      arrays[f'{name}.age'] = np.asarray(leaf.age)
    else:
      arrays[name] = np.array(_plain(leaf))
  return arrays, rings


def _write_rows(folder, checkpoint, ring, chain):
  """Writes the rows since the newest of `chain`; returns the new chain."""
  folder.mkdir(parents=True)
  heads = np.asarray(ring.head).ravel()
  slots = ring.slots.reward.shape[-1]
  oldest = np.maximum(heads - (slots - 1), 0)
  starts = oldest
  if chain:
    starts = np.maximum([stop for _, stop in chain[-1]['lanes']], oldest)
  lanes = [[int(a), int(b)] for a, b in zip(starts, heads, strict=True)]
  checksums = {}
  for path, leaf in jax.tree_util.tree_flatten_with_path(ring.slots)[0]:
    # A view on CPU. It must be gone before the ring is donated again, or the
    # donation would copy the ring.
    flat = np.asarray(leaf)
    flat = flat.reshape(len(lanes), slots, *leaf.shape[ring.head.ndim + 1 :])
    rows = np.concatenate(
      [
        flat[lane, np.arange(start, stop) % slots]
        for lane, (start, stop) in enumerate(lanes)
      ]
    )
    file = folder / f'{_name(path)}.npy'
    with open(file, 'wb') as stream:
      np.save(stream, rows, allow_pickle=False)
      stream.flush()
      os.fsync(stream.fileno())
    checksums[_name(path)] = _checksum(file)
  still_live = [
    segment
    for segment in chain
    if any(
      stop > first
      for (_, stop), first in zip(segment['lanes'], oldest, strict=True)
    )
  ]
  segment = {
    'folder': checkpoint,
    'lanes': lanes,
    'oldest': [int(slot) for slot in oldest],
    'checksums': checksums,
  }
  return [*still_live, segment]


def _put_rows(slots, lane, start, rows):
  """Writes rows at slot number `start` on, around the ring's end."""
  capacity = slots.shape[1]
  done = 0
  while done < len(rows):
    place = (start + done) % capacity
    size = min(len(rows) - done, capacity - place, _CHUNK)
    slots = _put(slots, lane, place, np.asarray(rows[done : done + size]))
    done += size
  return slots


@jax.jit(donate_argnums=0)
def _put(slots, lane, place, rows):
  where = (lane, place) + (0,) * (slots.ndim - 2)
  return jax.lax.dynamic_update_slice(slots, rows[None], where)


def _fit(leaf, name, arrays):
  """Returns the saved array for a leaf of the template."""
  if name not in arrays:
    raise errors.UserError(
      f'the checkpoint has no {name}: it is of another agent or network.'
    )
  shape = jax.eval_shape(_plain, leaf).shape
  if arrays[name].shape != shape:
    raise errors.UserError(
      f'{name} was saved with shape {arrays[name].shape}; this run has {shape}.'
    )
  array = jnp.asarray(arrays[name])
  if _is_key(leaf):
    return jax.random.wrap_key_data(array)
  return array


def _plain(leaf):
  return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _is_key(leaf):
  return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _is_ring(leaf):
  return isinstance(leaf, ring_lib.Ring)


def _name(path):
  return jax.tree_util.keystr(path, simple=True, separator='.')


def _checksum(file):
  checksum = 0
  with open(file, 'rb') as stream:
    while block := stream.read(1 << 24):
      checksum = zlib.crc32(block, checksum)
  return checksum


def _write_text(file, text):
  with open(file, 'w') as stream:
    stream.write(text)
    stream.flush()
    os.fsync(stream.fileno())


def _sync(folder):
  """Makes a rename in this folder durable."""
  descriptor = os.open(folder, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def _unused_name(path, suffix):
  number = 1
  while (name := path.with_name(f'{path.name}{suffix}{number}')).exists():
    number += 1
  return name
