"""Rows that all checkpoints share are kept twice, watched and mended."""

import os
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from dopamine_jax import errors
from dopamine_jax.checkpoints import checkpoints as checkpoints_lib
from dopamine_jax.system import plain_files
from tests import rings


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
  monkeypatch.setattr(os, 'fsync', lambda descriptor: None)


class Run:
  """Checkpoints of a ring that grows; each shares the rows of all before."""

  def __init__(self, folder, number, capacity=200):
    self.said = []
    self.checkpoints = checkpoints_lib.Checkpoints(folder, say=self.said.append)
    self.folder = self.checkpoints.folder
    self.state = rings.state_with_ring(steps=0, capacity=capacity)
    self.saved = 0
    for _ in range(number):
      self.save()

  def save(self, steps=4):
    rng = np.random.default_rng(self.saved)
    ring = rings.extend(self.state['replay'], rng, steps)
    self.state = {**self.state, 'replay': ring}
    previous = self.saved or None
    self.saved += 1
    self.checkpoints.save(self.saved, self.state, previous=previous)

  def assert_restored(self, iteration=None):
    other = checkpoints_lib.Checkpoints(
      self.folder.parent, say=self.said.append
    )
    state = other.restore(iteration or self.saved, rings.shapes(self.state))
    ring = self.state['replay']
    rings.assert_same_ring(
      state['replay'], rings.live(ring), ring.head, ring.age
    )

  def file(self, place, iteration=1, leaf='frame'):
    return self.folder / f'{iteration:06d}/{place}/replay/{leaf}.npy'


def flip(file):
  data = bytearray(file.read_bytes())
  data[-2] ^= 1
  file.write_bytes(bytes(data))


def flip_without_a_trace(file):
  times = os.stat(file)
  flip(file)
  os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def as_a(make):
  def replace(file):
    file.unlink()
    make(file)

  return replace


DAMAGE = {
  'flipped': flip,
  'flipped, size and time as before': flip_without_a_trace,
  'truncated': lambda file: os.truncate(file, 40),
  'longer': lambda file: file.write_bytes(file.read_bytes() + b'x'),
  'missing': os.unlink,
  'a link': as_a(lambda file: file.symlink_to('/etc/passwd')),
  'a pipe': as_a(os.mkfifo),
  'a folder': as_a(os.mkdir),
  'its folder gone': lambda file: shutil.rmtree(file.parents[1]),
  'its folder a link': lambda file: (
    shutil.rmtree(file.parent),
    file.parent.symlink_to('/etc'),
  ),
}


@pytest.mark.parametrize('place', ['replay', 'copy'])
@pytest.mark.parametrize('damage', DAMAGE)
def test_a_damaged_file_does_no_harm_and_is_mended(tmp_path, damage, place):
  run = Run(tmp_path, 3)
  before = run.file(place).read_bytes()
  DAMAGE[damage](run.file(place))
  run.assert_restored()
  # Looked at again within as many saves as there are segments.
  for _ in range(1 if 'time' not in damage else 5):
    run.save()
  assert run.file(place).read_bytes() == before
  assert plain_files.kind(run.file(place)) == 'a file'
  assert any('made anew from its copy' in words for words in run.said)
  run.said.clear()
  run.save()
  run.assert_restored()
  assert not run.said


def test_rows_that_are_damaged_twice_are_written_anew_from_memory(tmp_path):
  run = Run(tmp_path, 3)
  for place in ('replay', 'copy'):
    flip(run.file(place, 2, 'reward'))
  run.save()
  assert any('anew, from memory' in words for words in run.said)
  # It shares nothing with those before.
  for name in ('000001', '000002', '000003'):
    shutil.rmtree(run.folder / name)
  run.assert_restored()
  run.save()
  run.assert_restored()


def test_a_save_reads_about_as_much_as_it_writes_and_all_in_turn(
  tmp_path, monkeypatch
):
  run = Run(tmp_path, 6)
  read = []
  open_to_read = plain_files.open_to_read

  def watched(folder, name):
    if name.endswith('.npy'):
      read.append(folder / name)
    return open_to_read(folder, name)

  monkeypatch.setattr(plain_files, 'open_to_read', watched)
  seen = set()
  for _ in range(8):
    read.clear()
    run.save()
    one = [run.file(place, run.saved) for place in ('replay', 'copy')]
    written = sum(f.stat().st_size for o in one for f in o.parent.iterdir())
    largest = max(file.stat().st_size for file in read)
    assert sum(file.stat().st_size for file in read) <= 1.2 * written + largest
    seen.update(read)
  rows = set(run.folder.glob('00000[1-6]/*/replay/*.npy'))
  assert len(rows) == 6 * 2 * 5
  assert rows <= seen


def test_copies_that_were_deleted_for_their_space_are_made_again(tmp_path):
  run = Run(tmp_path, 3)
  for copy in run.folder.glob('*/copy'):
    shutil.rmtree(copy)
  run.assert_restored()
  assert not run.said
  run.save()
  assert len(list(run.folder.glob('*/copy/replay/*.npy'))) == 4 * 5


# Without the replay.


def damage_twice(run):
  for place in ('replay', 'copy'):
    flip(run.file(place))


def test_a_damaged_replay_leaves_the_agent_and_the_words_say_how(tmp_path):
  run = Run(tmp_path, 3)
  damage_twice(run)
  with pytest.raises(errors.UserError, match='--without-replay') as raised:
    run.checkpoints.restore_newest(rings.shapes(run.state))
  assert 'iteration 3 can' in str(raised.value)
  found = run.checkpoints.restore_newest(
    rings.shapes(run.state), with_replay=False
  )
  iteration, state = found
  assert iteration == 3
  rings.assert_same(state['agent'], run.state['agent'])
  rings.assert_same(state['replay'], rings.make_ring(200, 2))


@pytest.mark.parametrize('steps', [0, 2, 30])
def test_a_save_after_that_counts_on_no_earlier_rows(tmp_path, steps):
  run = Run(tmp_path, 3)
  damage_twice(run)
  run.state = run.checkpoints.restore(
    3, rings.shapes(run.state), with_replay=False
  )
  run.save(steps)
  for name in ('000001', '000002', '000003'):
    shutil.rmtree(run.folder / name, ignore_errors=True)
  run.assert_restored()
  run.save()
  run.assert_restored()


def test_the_agent_alone_needs_no_replay(tmp_path, monkeypatch):
  run = Run(tmp_path, 2)
  for folder in run.folder.glob('*/[rc]*'):
    shutil.rmtree(folder)
  part = {'agent': {'w': jnp.zeros(4)}}
  found = run.checkpoints.restore_newest(rings.shapes(part))
  rings.assert_same(found[1]['agent'], run.state['agent'])
  assert not run.said


def test_a_checkpoint_knows_what_it_is_told_of_its_run(tmp_path):
  run = Run(tmp_path, 1)
  known = {'replay_began': 750, 'statistics': {'a': [float('nan')]}}
  run.checkpoints.save(2, run.state, previous=1, run=known)
  assert run.checkpoints.manifest(2)['run']['replay_began'] == 750
