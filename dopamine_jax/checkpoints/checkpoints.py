"""Checkpoints: what makes a resumed run equal to one that never stopped.

A checkpoint is one folder, written beside and renamed when it is whole:

    BASE_DIR/checkpoints/000010/
      manifest.json   what belongs to it, with checksums
      state.bin       every array but the rings' slots
      replay/         the slots written since the checkpoint before (npy)
      copy/           the same files again

A checkpoint costs what is new, see `ring_files.py`: the manifest names
the folders, this one and earlier ones, whose rows together are the live ring.
Old folders go once no kept checkpoint needs their rows. Since all checkpoints
share those rows, they lie there twice, and each save looks after them, see
`segments.py`. Running episodes are cut at a checkpoint, in the run that
goes on as in the one that comes back, so that no environment's inner state is
needed. Nothing is pickled, and a folder may be a stranger's: see `manifests.py`
and `plain_files.py`.
"""

from collections.abc import Callable, Iterator
import contextlib
import pathlib
from typing import Any

import jax
import numpy as np

from dopamine_jax import errors
from dopamine_jax.checkpoints import array_files
from dopamine_jax.checkpoints import manifests
from dopamine_jax.checkpoints import places
from dopamine_jax.checkpoints import ring_files
from dopamine_jax.checkpoints import segments
from dopamine_jax.checkpoints import state_arrays
from dopamine_jax.checkpoints import state_files
from dopamine_jax.replay import mapped_rows
from dopamine_jax.replay import ring as ring_lib
from dopamine_jax.system import plain_files
from dopamine_jax.system import processes


class Damaged(Exception):
  """A checkpoint that can't be read; says why."""


class ReplayDamaged(Damaged):
  """One whose replay alone can't be read."""


class Checkpoints:
  """The checkpoints of one run.

  Attributes:
    folder: where they lie.
    max_to_keep: how many are kept, the newest.
    kept: iterations of older ones that are kept too, without their replay.
    keep_rows: whether rows stay that a ring has overwritten since.
    say: prints what the user should know.
  """

  def __init__(
    self,
    base_dir: str | pathlib.Path,
    max_to_keep: int = 3,
    say: Callable[[str], None] = print,
    *,
    keep_rows: bool = False,
  ):
    self.folder = pathlib.Path(base_dir).absolute() / 'checkpoints'
    self.max_to_keep = max_to_keep
    self.kept: frozenset[int] = frozenset()
    self.keep_rows = keep_rows
    self.say = say
    self._watch = segments.Watch(self.folder, say)
    # A checkpoint that was restored without its replay, if one was: no later
    # one can add to that.
    self._left_out = None

  def iterations(self) -> list[int]:
    """Returns the iterations that have a checkpoint, oldest first.

    A damaged one counts: reading it says so.

    Raises:
      UserError: if the folder can't be read, or is none of the run's own.
    """
    try:
      found = self.folder.iterdir() if self._is_there() else ()
      return sorted(
        places.number(path) for path in found if places.counts(path)
      )
    except OSError as error:
      raise errors.UserError(
        f'{self.folder} can not be read: {error.strerror}.'
      ) from error

  def manifest(self, iteration: int) -> dict[str, Any]:
    """Returns what belongs to a checkpoint.

    Returns:
      Its `iteration`; `files`, with their checksums; `arrays`, what they are,
      in the order of state.bin; `rings` by name, each as `ring_files.write`
      describes it, none without replay; `run`, see `save`.

    Raises:
      Damaged: if it can't be read or isn't what was saved.
    """
    name = self._path(iteration).name
    with _as_damage('its manifest.json'):
      return manifests.read(self.folder, f'{name}/manifest.json', iteration)

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
    contents = {'iteration': iteration, 'run': run}
    try:
      earlier = self._earlier_segments(previous) if with_replay else {}
      if processes.is_writer():
        self._write(contents, state, previous, with_replay, earlier)
      else:
        self._fetch(state, previous, with_replay, earlier)
    except (OSError, ValueError) as error:
      plain_files.remove(self._path(iteration).with_suffix('.tmp'))
      last = 'none' if previous is None else f'of iteration {previous}'
      raise errors.UserError(
        f'could not save the checkpoint of iteration {iteration} in '
        f'{self.folder}: {error}\nThe last checkpoint stays: {last}. Make '
        'room or mend the folder, then run the same command to go on.'
      ) from error
    self.collect_garbage()

  def restore(
    self, iteration: int, template: Any, with_replay: bool = True
  ) -> Any:
    """Returns the state that was saved.

    Args:
      iteration: which checkpoint.
      template: a pytree of arrays or ShapeDtypeStructs like the state. Some of
        its top-level parts, such as the agent alone, are enough. Rings of a
        checkpoint without replay come back empty, and so do dead slots.
      with_replay: whether to read the rings' slots; they come back empty
        otherwise, and later checkpoints don't count on what was saved of them.

    Raises:
      Damaged: if the checkpoint can't be read.
      UserError: if it holds other leaves, shapes or types; names the first.
    """
    manifest = self.manifest(iteration)
    rings = manifest['rings'] if with_replay else {}
    wanted = state_arrays.named(state_arrays.without_slots(template))
    with _as_damage('its state'):
      stored = self._stored(manifest)
      state_arrays.refuse_misfits(stored.shapes, template, bool(rings))
      arrays = stored.read([name for name in wanted if name in stored.shapes])

    def each(path, leaf):
      name = state_arrays.path_name(path)
      if not ring_lib.is_ring(leaf):
        return state_arrays.put(arrays, name, leaf)
      if not rings:
        return mapped_rows.empty(leaf)
      if name not in rings:
        raise ReplayDamaged(f'it has no {name}')
      return self._restore_ring(leaf, name, rings[name], arrays)

    state = jax.tree_util.tree_map_with_path(
      each, template, is_leaf=ring_lib.is_ring
    )
    if not with_replay:
      self._left_out = iteration
    return state

  def restore_newest(
    self, template: Any, with_replay: bool = True, upto: int | None = None
  ) -> tuple[int, Any] | None:
    """Returns the newest good checkpoint's iteration and state, if any is.

    Args:
      template: as in `restore`.
      with_replay: as in `restore`.
      upto: the newest iteration that is asked for; None: any.

    Raises:
      UserError: if there is none, but one of which the replay alone is damaged.
    """
    without = None
    for iteration in reversed(self.iterations()):
      if upto is not None and iteration > upto:
        continue
      try:
        return iteration, self.restore(iteration, template, with_replay)
      except Damaged as damage:
        self.say(
          f'Warning: the checkpoint of iteration {iteration} is damaged '
          f'({damage}); going back to the one before.'
        )
        if without is None and isinstance(damage, ReplayDamaged):
          without = iteration
    if without is not None:
      raise errors.UserError(
        f'no checkpoint in {self.folder} can be read as a whole. The agent of '
        f'iteration {without} can, its replay can not: --without-replay goes '
        'on with that agent, and fills the replay anew (or from its dataset) '
        'before it learns.'
      )
    return None

  def arrays(self, iteration: int) -> dict[str, np.ndarray]:
    """Returns all arrays but the rings' slots, by name, verified.

    Raises:
      Damaged: if they can't be read or differ from what was saved.
    """
    with _as_damage('its state'):
      stored = self._stored(self.manifest(iteration))
      return stored.read(stored.shapes)

  def rows(
    self, iteration: int, ring: str, leaf: str, *, overwritten: bool = False
  ) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yields the live rows of one leaf of a ring, each lane's oldest first.

    With `overwritten` all that the files have, see `keep_rows`.

    Yields:
      A lane, the number of the first slot, the rows (mapped from the file).

    Raises:
      ReplayDamaged: if a file is missing or differs from what was saved, and so
        does its copy.
    """
    saved = self.manifest(iteration)['rings'][ring]
    with _as_damage('its replay', ReplayDamaged):
      yield from ring_files.rows(
        *(saved, ring, leaf, self._watch.find), overwritten=overwritten
      )

  def collect_garbage(self):
    """Removes what is neither kept nor needed by the newest ones' replays."""
    if not processes.is_writer():
      return
    newest = self.iterations()[-self.max_to_keep :]
    try:
      replay_needed = {
        segment['folder']
        for iteration in newest
        for ring in self.manifest(iteration)['rings'].values()
        for segment in ring['segments']
      }
    except Damaged:  # Nobody knows what it needs: wait until it is old.
      return
    # A disk that can't be read just now ends no run: the next save tidies too.
    with contextlib.suppress(OSError):
      for path in self.folder.iterdir():
        number = places.number(path)
        is_old = number not in (None, *newest)
        if not is_old or plain_files.kind(path) != 'a folder':
          continue
        is_needed = path.name in replay_needed
        if number in self.kept:
          for name in () if is_needed else ring_files.PLACES:
            plain_files.remove(path / name)
          continue
        # The manifest goes last: a kill in between leaves a checkpoint that is
        # known to be damaged, and older than those that are kept.
        for name in ('state', 'state.bin', 'manifest.json'):
          plain_files.remove(path / name)
        if not is_needed:
          plain_files.remove(path)

  def _path(self, iteration):
    return self.folder / f'{iteration:06d}'

  def _is_there(self):
    """Whether there is a folder of checkpoints; refuses another thing."""
    found = plain_files.kind(self.folder)
    if found not in (None, 'a folder'):
      raise errors.UserError(
        f'{self.folder} is {found}, and a run touches nothing outside of its '
        'own folder. Put a folder there; for another disk, give a --base_dir '
        'there, or one that is a link to there.'
      )
    return found is not None

  def _write(self, contents, state, previous, with_replay, earlier):
    """Writes a checkpoint beside, then puts it in its place, durably."""
    final = self._path(contents['iteration'])
    beside = final.with_suffix('.tmp')
    if not self._is_there():
      self.folder.mkdir()
      plain_files.sync(self.folder.parent)
    plain_files.remove(beside)
    beside.mkdir()
    arrays, rings = state_arrays.split(state)
    described, checksum = array_files.write(beside / 'state.bin', arrays)
    manifest = contents | {
      'arrays': described,
      'files': {'state.bin': checksum},
      'rings': {
        name: ring_files.write(
          *(ring, beside, name, final.name, earlier.get(name, [])),
          keep_all=self.keep_rows,
        )
        for name, ring in rings.items()
        if with_replay
      },
    }
    manifests.write(beside / 'manifest.json', manifest)
    plain_files.sync(beside)
    for path in list(self.folder.iterdir()):
      number = places.number(path)
      if number is not None and (previous is None or number > previous):
        places.set_aside(path)
    beside.rename(final)
    plain_files.sync(self.folder)
    self._watch.wrote(manifest['rings'])

  def _fetch(self, state, previous, with_replay, earlier):
    """Fetches what `_write` fetches, for the process that writes it."""
    _, rings = state_arrays.split(state)
    if previous is not None and not self._path(previous).exists():
      raise errors.UserError(
        f'{self._path(previous)}, which process 0 wrote, is not to be seen '
        f'from process {jax.process_index()}: all need the same --base_dir.'
      )
    for name, ring in rings.items() if with_replay else ():
      ring_files.fetch(ring, earlier.get(name, []))

  def _earlier_segments(self, previous):
    """Returns the segments, by ring, that a save adds to.

    There are none, and it has to hold all rows, if what was saved can't be read
    any more, or isn't to be counted on.
    """
    rings = {}
    if previous is not None and previous != self._left_out:
      try:
        rings = self.manifest(previous)['rings']
      except Damaged:
        pass  # The next checkpoint holds all rows, and needs none of these.
    whole = True
    if processes.is_writer():
      whole = self._watch.mend(rings)
      if whole:
        self._watch.copy(rings)
    if not processes.agree(whole):
      return {}
    return {name: ring['segments'] for name, ring in rings.items()}

  def _stored(self, manifest):
    name = self._path(manifest['iteration']).name
    return state_files.StateFiles(self.folder, name, manifest)

  def _restore_ring(self, ring, name, saved, arrays):
    with _as_damage('its replay', ReplayDamaged):
      heads = np.ravel(arrays[f'{name}.head'])
      slots = ring_files.restore(ring, name, heads, saved, self._watch.find)
    rest = jax.tree_util.tree_map_with_path(
      lambda path, leaf: state_arrays.put(
        arrays, f'{name}.{state_arrays.path_name(path)}', leaf
      ),
      state_arrays.without_slots(ring),
    )
    return rest.replace(slots=slots)


@contextlib.contextmanager
def _as_damage(what, kind=Damaged):
  try:
    yield
  except (OSError, ValueError) as error:
    raise kind(f'{what} can not be read: {error}') from error
