"""A damaged or foreign folder of checkpoints does no harm, whatever is in it.

A stranger makes the checksums right, too. What can't be true is then damage, an
older checkpoint is gone back to, and nothing outside of the folder is read,
changed or removed; nothing waits, and nothing is allocated on a lie's behalf.
"""

import json
import os
import pathlib
import random
import shutil
import socket
import tarfile
import zlib

import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore

from dopamine_jax import errors
from dopamine_jax.checkpoints import checkpoints as checkpoints_lib
from dopamine_jax.checkpoints import manifests
from dopamine_jax.training import fingerprint as fingerprint_lib
from tests import rings

OLD = pathlib.Path(__file__).resolve().parents[1] / 'data'


@pytest.fixture(scope='module', autouse=True)
def no_waiting_for_the_disk():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(os, 'fsync', lambda descriptor: None)
    yield


def make_state():
  """What the checkpoints of older versions in tests/data hold, too."""
  state = rings.state_with_ring(steps=3, capacity=30)
  state['agent']['b'] = jnp.array([1.5, -0.0], jnp.bfloat16)
  return state


def extended(state):
  ring = rings.extend(state['replay'], np.random.default_rng(5), 3)
  return {**state, 'replay': ring}


@pytest.fixture(scope='module')
def original(tmp_path_factory):
  """Checkpoints 1 and 2, of which 2 needs rows of 1."""
  folder = tmp_path_factory.mktemp('original')
  checkpoints = checkpoints_lib.Checkpoints(folder)
  state = make_state()
  checkpoints.save(1, state, previous=None)
  state = extended(state)
  checkpoints.save(2, state, previous=1)
  (folder / 'run.json').write_text('{"seeds": [0], "versions": {}}')
  return folder, state


class Case:
  """A copy that may be broken, beside a folder that is none of its business."""

  def __init__(self, original, tmp_path):
    folder, self.state = original
    shutil.copytree(folder, tmp_path / 'run')
    shutil.copytree(folder, tmp_path / 'outside')
    (tmp_path / 'outside/file').write_text('mine')
    self.outside = tmp_path / 'outside'
    self.base_dir = tmp_path / 'run'
    self.said = []
    self.checkpoints = checkpoints_lib.Checkpoints(
      self.base_dir, max_to_keep=1, say=self.said.append
    )
    self.folder = self.checkpoints.folder
    self.before = self._look()

  def newest(self):
    found = self.checkpoints.restore_newest(rings.shapes(self.state))
    return found and found[0]

  def assert_back_to_the_first(self):
    assert self.newest() == 1
    assert 'iteration 2 is damaged' in self.said[0]
    with pytest.raises(errors.UserError, match='iteration 2, is damaged'):
      fingerprint_lib.fingerprint(self.base_dir)
    self.assert_outside_is_untouched()

  def use_as_a_run_would(self):
    """Restores, saves, cleans up; a UserError may end it, and nothing else."""
    try:
      newest = self.newest()
    except errors.UserError:
      newest = None
    assert newest in (None, 1, 2)
    for number in (3, 4):
      try:
        self.checkpoints.save(number, self.state, previous=newest)
      except errors.UserError:
        break
      assert self.newest() == number
      newest = number
    try:
      fingerprint_lib.fingerprint(self.base_dir)
    except errors.UserError:
      pass
    self.assert_outside_is_untouched()

  def assert_outside_is_untouched(self):
    assert self._look() == self.before

  def _look(self):
    return {
      str(p): (p.lstat().st_mode, p.is_file() and p.read_bytes())
      for p in self.outside.rglob('*')
    }

  def contents(self):
    return self.checkpoints.manifest(2)

  def lie(self, contents):
    """Writes a manifest whose checksum is right."""
    text = {'sha256': manifests.digest(contents), 'contents': contents}
    (self.folder / '000002/manifest.json').write_text(json.dumps(text))


@pytest.fixture
def case(original, tmp_path):
  return Case(original, tmp_path)


# Manifests.


def at(*path, value):
  """Returns what sets one place of a manifest's contents."""

  def change(contents):
    *before, last = path
    inner = contents
    for step in before:
      inner = inner[step]
    inner[last] = value

  return change


RING = ('rings', 'replay')
NEWEST = (*RING, 'segments', -1)
LIES = {
  'an iteration in words': at('iteration', value='2'),
  'an iteration that is true': at('iteration', value=True),
  'another iteration': at('iteration', value=1),
  'a fraction of an iteration': at('iteration', value=2.0),
  'a run in words': at('run', value='mine'),
  'a beginning before time': at('run', value={'replay_began': -1}),
  'files in a list': at('files', value=['state.bin']),
  'no files': at('files', value={}),
  'a checksum in words': at('files', 'state.bin', value='1'),
  'a file above': at('files', '../000001/state.bin', value=1),
  'a file from the root': at('files', '/etc/passwd', value=1),
  'a file with a NUL': at('files', 'state.bin\0', value=1),
  'a device': at('files', '/dev/zero', value=1),
  'a lone surrogate': at('files', '\ud800', value=1),
  'arrays in a list': at('arrays', value=[]),
  'an array without a shape': at('arrays', 'agent.w', value={}),
  'an array of 4 TB': at('arrays', 'agent.w', 'shape', value=[10**12]),
  'an array beyond counting': at(
    'arrays', 'agent.w', 'shape', value=[2**61] * 9
  ),
  'an array of less than nothing': at('arrays', 'agent.w', 'shape', value=[-4]),
  'a shape in words': at('arrays', 'agent.w', 'shape', value='4'),
  'Python objects': at('arrays', 'agent.w', 'dtype', value='object'),
  'text': at('arrays', 'agent.w', 'dtype', value='<U1'),
  'a type that is a list': at('arrays', 'agent.w', 'dtype', value=['f4']),
  'rings in a list': at('rings', value=[]),
  'a ring that is a number': at(*RING, value=3),
  'a ring above': at('rings', '../x', value={}),
  'a capacity below zero': at(*RING, 'capacity', value=-1),
  'a capacity beyond counting': at(*RING, 'capacity', value=10**400),
  'a capacity that is no number': at(*RING, 'capacity', value=float('nan')),
  'a capacity of nothing': at(*RING, 'capacity', value=None),
  'no lanes': at(*RING, 'oldest', value=[]),
  'more lanes': at(*RING, 'oldest', value=[0, 0, 0]),
  'no segments': at(*RING, 'segments', value=[]),
  'a segment missing': lambda c: c['rings']['replay']['segments'].pop(0),
  'a segment in words': at(*NEWEST, value='000002'),
  'a segment above': at(*NEWEST, 'folder', value='../../outside'),
  'a segment from the root': at(*NEWEST, 'folder', value='/etc'),
  'a segment of another one': at(*NEWEST, 'folder', value='000001'),
  'lanes of three numbers': at(*NEWEST, 'lanes', value=[[1, 2, 3]] * 2),
  'lanes backwards': at(*NEWEST, 'lanes', value=[[9, 1], [9, 1]]),
  'lanes of 4 TB': at(*NEWEST, 'lanes', value=[[0, 10**12]] * 2),
  'a leaf above': at(*NEWEST, 'checksums', '../x', value=1),
  'no leaves': at(*NEWEST, 'checksums', value={}),
  'a copy in words': at(*NEWEST, 'copied', value='no'),
  'nothing': lambda c: c.clear(),
}


@pytest.mark.parametrize('name', LIES)
def test_a_manifest_that_can_not_be_true_is_damage(case, name):
  contents = case.contents()
  LIES[name](contents)
  case.lie(contents)
  case.assert_back_to_the_first()


def test_a_manifest_of_other_rows_than_the_state_has_is_damage(case):
  contents = case.contents()
  contents['rings']['replay']['oldest'] = [1, 1]
  case.lie(contents)
  assert case.newest() == 1


@pytest.mark.parametrize(
  'data',
  [
    b'[' * 100_000,
    b'{"contents":' * 5_000,
    b'\xff\xfe{}',
    b'\xef\xbb\xbf{}',
    b'9' * 5000,
    b'NaN',
    b'"\\ud800"',
    b'{"sha256": {}, "contents": []}',
    b'{"sha256": "", "sha256": ""}',
  ],
  ids=lambda data: repr(data[:20]),
)
def test_a_file_that_is_no_manifest_is_damage(case, data):
  (case.folder / '000002/manifest.json').write_bytes(data)
  case.assert_back_to_the_first()


def test_a_name_that_is_there_twice_is_damage(case):
  file = case.folder / '000002/manifest.json'
  text = file.read_text()
  file.write_text(text.replace('"contents"', '"contents": 0, "contents"', 1))
  case.assert_back_to_the_first()


def test_a_manifest_without_end_is_not_read_to_its_end(case, monkeypatch):
  length = (case.folder / '000001/manifest.json').stat().st_size
  monkeypatch.setattr(manifests, '_LONGEST', length)
  assert case.newest() == 1  # The second is longer.


# Rows.


def header(shape, descr="'|u1'", order='False'):
  text = (
    f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"
  ).encode()
  return b'\x93NUMPY\x01\x00' + len(text).to_bytes(2, 'little') + text


@pytest.mark.parametrize(
  'data',
  [
    header('(10000000000000, 3)'),
    header('(8, 5000000000)'),
    header('(-8, -3)') + bytes(24),
    header('(8, 3)', order='True') + bytes(24),
    header('(8, 3)', "'|O'") + bytes(192),
    header('(8, 3)', "[('a', '<f8'), ('b', '|O')]") + bytes(600),
    header('(8.0, 3)') + bytes(24),
    header('8') + bytes(8),
    header('()') + bytes(1),
    header('(' * 3000),
    header('(8, 3)' + ' ' * 20_000) + bytes(24),
    header("__import__('os').mkdir('x')"),
    header('(8, 3)').replace(b'\x01\x00', b'\x03\x00', 1) + bytes(24),
    b'',
    b'\x93NUMPY',
    b'PK\x03\x04',
  ],
  ids=lambda data: repr(data[:70]),
)
def test_a_header_that_can_not_be_true_is_damage(case, data):
  contents = case.contents()
  segment = contents['rings']['replay']['segments'][-1]
  for place in ('replay', 'copy'):
    file = case.folder / f'000002/{place}/replay/frame.npy'
    file.write_bytes(data)
  segment['checksums']['frame'] = zlib.crc32(data)
  case.lie(contents)
  case.assert_back_to_the_first()


# Checkpoints of older versions, which orbax wrote.


@pytest.fixture
def old(tmp_path):
  case = Case.__new__(Case)
  case.base_dir, case.outside = tmp_path / 'run', tmp_path / 'outside'
  with tarfile.open(OLD / 'checkpoints_by_orbax.tar.gz') as archive:
    archive.extractall(case.base_dir, filter='data')
  case.outside.mkdir()
  (case.base_dir / 'run.json').write_text('{"seeds": [0], "versions": {}}')
  case.said = []
  case.checkpoints = checkpoints_lib.Checkpoints(
    case.base_dir, say=case.said.append
  )
  case.folder = case.checkpoints.folder
  case.state = extended(make_state())
  case.before = case._look()
  return case


def assert_restored(case, iteration, state):
  actual = case.checkpoints.restore(iteration, rings.shapes(state))
  ring = state['replay']
  rings.assert_same(actual['agent'], state['agent'])
  rings.assert_same_ring(
    actual['replay'], rings.live(ring), ring.head, ring.age
  )


def test_a_checkpoint_of_an_older_version_comes_back_and_is_gone_on_from(old):
  assert_restored(old, 2, old.state)
  state = extended(old.state)
  old.checkpoints.save(3, state, previous=2)
  assert not old.said
  assert_restored(old, 3, state)
  # Its rows have a second copy now.
  for file in old.folder.glob('00000[12]/replay/replay/*.npy'):
    file.write_bytes(b'')
  assert_restored(old, 3, state)


def lie_about_an_array(case, **change):
  """Changes what an array is said to be, in a checkpoint of orbax's."""
  folder = case.folder / '000002'
  store = tensorstore.KvStore.open(
    {'driver': 'ocdbt', 'base': f'file://{folder}/state/'}
  ).result()
  key = 'agent.w/.zarray'
  array = json.loads(store.read(key).result().value) | change
  store.write(key, json.dumps(array).encode()).result()
  contents = case.contents()
  contents['files'] = {
    str(path.relative_to(folder)): zlib.crc32(path.read_bytes())
    for path in (folder / 'state').rglob('*')
    if path.is_file()
  }
  case.lie(contents)


@pytest.mark.parametrize(
  'change',
  [
    {'shape': [10**13], 'chunks': [10**13]},
    {'chunks': [10**11]},
    {'dtype': '<M8[s]'},
  ],
  ids=str,
)
def test_an_older_checkpoint_that_lies_about_its_arrays_is_damage(old, change):
  lie_about_an_array(old, **change)
  try:
    assert old.newest() == 1
    assert 'iteration 2 is damaged' in old.said[0]
  except errors.UserError as error:
    assert 'agent.w was saved with' in str(error)
  with pytest.raises(errors.UserError):
    fingerprint_lib.fingerprint(old.base_dir)


@pytest.mark.parametrize(
  'add',
  [
    lambda path: path.write_text('more'),
    os.mkfifo,
    lambda path: path.symlink_to('/etc/passwd'),
  ],
  ids=['a file', 'a pipe', 'a link'],
)
def test_orbax_is_given_nothing_that_is_not_listed(old, add):
  add(old.folder / '000002/state/d/more')
  old.assert_back_to_the_first()


# Links, pipes and other things.


def bind(path):
  here = os.getcwd()
  os.chdir(path.parent)  # A socket's path has to be short.
  try:
    with socket.socket(socket.AF_UNIX) as listener:
      listener.bind(path.name)
  finally:
    os.chdir(here)


OTHER_THINGS = {
  'a link': lambda path, case: path.symlink_to(
    case.outside / 'checkpoints' / path.relative_to(case.folder)
  ),
  'a link to nothing': lambda path, case: path.symlink_to('nowhere'),
  'a link to itself': lambda path, case: path.symlink_to(path.name),
  'a pipe': lambda path, case: os.mkfifo(path),
  'a socket': lambda path, case: bind(path),
  'a folder': lambda path, case: path.mkdir(),
  'a file': lambda path, case: path.write_text('{}'),
}


@pytest.mark.parametrize('thing', sorted({*OTHER_THINGS} - {'a folder'}))
def test_only_a_folder_of_the_runs_own_may_hold_its_checkpoints(case, thing):
  shutil.rmtree(case.folder)
  OTHER_THINGS[thing](case.folder, case)
  for use in (
    case.checkpoints.iterations,
    lambda: case.checkpoints.save(3, case.state, previous=None),
    lambda: fingerprint_lib.fingerprint(case.base_dir),
    case.newest,
  ):
    with pytest.raises(errors.UserError, match='checkpoints is a'):
      use()
  case.assert_outside_is_untouched()


def test_the_runs_folder_itself_may_be_a_link(original, tmp_path):
  folder, state = original
  shutil.copytree(folder, tmp_path / 'scratch')
  (tmp_path / 'run').symlink_to(tmp_path / 'scratch')
  checkpoints = checkpoints_lib.Checkpoints(tmp_path / 'run')
  checkpoints.save(3, state, previous=2)
  assert checkpoints.restore_newest(rings.shapes(state))[0] == 3
  assert fingerprint_lib.fingerprint(tmp_path / 'run')


@pytest.mark.parametrize('thing', OTHER_THINGS)
@pytest.mark.parametrize('name', ['000001', '000002', '000003', '000003.tmp'])
def test_what_lies_in_a_checkpoints_place_is_not_followed(case, name, thing):
  path = case.folder / name
  shutil.rmtree(path, ignore_errors=True)
  OTHER_THINGS[thing](path, case)
  case.use_as_a_run_would()


def test_a_folder_of_rows_in_a_new_checkpoints_place_is_set_aside(case):
  shutil.copytree(case.folder / '000001/replay', case.folder / '000003/replay')
  case.checkpoints.save(3, case.state, previous=2)
  assert case.newest() == 3
  assert (case.folder / '000003.set-aside-1/replay').is_dir()


def test_names_that_are_no_iterations_are_let_be(case):
  for name in ('²', '٣', '10', '-00001', '0000003', 'x', '000004.set-aside-1'):
    (case.folder / name / 'state').mkdir(parents=True)
  names = set(os.listdir(case.folder)) - {'000001', '000002'}
  case.use_as_a_run_would()
  assert names <= set(os.listdir(case.folder))


# All of it, at random.


def damages(case, path, rng):
  """Yields ways to break a file or folder."""
  if path.is_file():
    data = path.read_bytes()
    place = rng.randrange(max(len(data), 1))
    yield lambda: path.write_bytes(
      data[:place] + bytes([rng.randrange(256)]) + data[place + 1 :]
    )
    yield lambda: path.write_bytes(data[:place])
    yield lambda: path.write_bytes(data + data)
    yield lambda: path.write_text(rng.choice(['', '[]', 'null', '{}', '"x"']))
    yield lambda: os.chmod(path, 0)

  def replace(make):
    def change():
      shutil.rmtree(path) if path.is_dir() else path.unlink()
      make(path, case)

    return change

  yield from map(replace, OTHER_THINGS.values())
  yield replace(lambda path, case: None)


def everything(folder):
  return sorted(folder.rglob('*'))


def fuzz(original, tmp_path, seed):
  case = Case(original, tmp_path / str(seed))
  rng = random.Random(seed)
  # One or two things broken at once.
  for _ in range(rng.choice([1, 1, 2])):
    path = rng.choice(everything(case.folder))
    if path.parent.is_symlink():
      continue
    rng.choice(list(damages(case, path, rng)))()
  case.use_as_a_run_would()


@pytest.mark.parametrize('seed', range(40))
def test_no_damage_does_harm(original, tmp_path, seed):
  fuzz(original, tmp_path, seed)


@pytest.mark.slow
def test_no_damage_does_harm_at_length(original, tmp_path):
  for seed in range(100, 1100):
    fuzz(original, tmp_path, seed)
    shutil.rmtree(tmp_path / str(seed))
