"""A restored state is the saved one, to the bit, or there is an error."""

import contextlib
import json
import os
import pathlib
import pickle
import shutil
import zlib

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dopamine_jax import errors
from dopamine_jax.checkpoints import array_files
from dopamine_jax.checkpoints import checkpoints as checkpoints_lib
from dopamine_jax.checkpoints import manifests
from dopamine_jax.checkpoints import ring_files
from tests import rings


@pytest.fixture(scope='module', autouse=True)
def no_waiting_for_the_disk():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(os, 'fsync', lambda descriptor: None)
    yield


def plain_state():
  params = {
    'Dense_0': {
      'kernel': jnp.linspace(-1, 1, 6).reshape(2, 3),
      'bias': jnp.array([jnp.nan, -0.0, jnp.inf]),
    },
    'odd/name with space': jnp.ones((1,), jnp.bfloat16),
  }
  return {
    'agent': {'params': params, 'optimizer': optax.adam(1e-3).init(params)},
    'keys': jax.random.split(jax.random.key(3), 2),
    'key': jax.random.key(7),
    'counters': (jnp.int32(2**31 - 1), jnp.array(True), [jnp.uint8(255)]),
    'empty': jnp.zeros((0, 4)),
    'nothing': None,
  }


def rows_in(folder):
  """Returns how many rows the npy files of a checkpoint's folder hold."""
  return {
    len(np.load(file)) for file in pathlib.Path(folder).rglob('replay/**/*.npy')
  }


# What is saved comes back.


def test_arrays_of_every_kind_come_back_to_the_bit(tmp_path):
  checkpoints = checkpoints_lib.Checkpoints(tmp_path)
  state = plain_state()
  checkpoints.save(1, state, previous=None)
  rings.assert_same(checkpoints.restore(1, rings.shapes(state)), state)
  rings.assert_same(checkpoints.restore(1, state), state)


def test_an_array_that_could_not_be_read_again_is_not_written(tmp_path):
  state = {'x': jnp.zeros(3, jnp.float8_e4m3b11fnuz)}
  checkpoints = checkpoints_lib.Checkpoints(tmp_path)
  with pytest.raises(errors.UserError, match='x is of the unknown type'):
    checkpoints.save(1, state, previous=None)
  assert not checkpoints.iterations()


@settings(max_examples=12)
@given(st.data())
def test_arbitrary_trees_come_back_to_the_bit(tmp_path_factory, data):
  leaf = st.builds(
    lambda shape, dtype, seed: jax.device_put(
      np.asarray(
        np.random.default_rng(seed).integers(0, 2**31, shape) % 251, dtype
      )
    ),
    st.lists(st.integers(0, 3), max_size=3).map(tuple),
    st.sampled_from(['uint8', 'int32', 'float32', 'bool', 'float16']),
    st.integers(0, 99),
  )
  tree = st.recursive(
    leaf,
    lambda inner: (
      st.lists(inner, min_size=1, max_size=3)
      | st.lists(inner, min_size=1, max_size=3).map(tuple)
      | st.dictionaries(st.sampled_from('abc'), inner, min_size=1)
    ),
    max_leaves=8,
  )
  state = {'tree': data.draw(tree)}
  checkpoints = checkpoints_lib.Checkpoints(tmp_path_factory.mktemp('tree'))
  checkpoints.save(3, state, previous=None)
  rings.assert_same(checkpoints.restore(3, rings.shapes(state)), state)


@pytest.mark.parametrize('seeds', [None, 3])
@pytest.mark.parametrize('steps', [0, 5, 40])
def test_rings_come_back_with_their_live_slots(tmp_path, seeds, steps):
  rng = np.random.default_rng(steps)
  ring = rings.extend(rings.make_ring(8, 2, seeds), rng, steps)
  if steps == 40:
    heads = np.array(ring.head).ravel()
    assert len(set(heads)) > 1, 'lanes should stand at different slots'
    assert heads.min() > 2 * 8, 'lanes should have wrapped'
  checkpoints = checkpoints_lib.Checkpoints(tmp_path)
  checkpoints.save(1, {'x': jnp.ones(2), 'ring': ring}, previous=None)
  restored = checkpoints.restore(
    1, rings.shapes({'x': jnp.ones(2), 'ring': ring})
  )['ring']
  assert restored.slots.frame.shape == ring.slots.frame.shape
  rings.assert_same_ring(restored, rings.live(ring), ring.head, ring.age)


@pytest.mark.parametrize('heads', [[2500, 1500], [100, 7001]])
def test_a_ring_longer_than_a_chunk_comes_back(tmp_path, heads):
  ring = rings.make_ring(2600, 2)
  assert 2600 > 2 * ring_files._CHUNK
  slots = jax.tree.map(
    lambda x: jax.device_put(
      np.random.default_rng(0).integers(0, 200, x.shape).astype(x.dtype)
    ),
    ring.slots,
  )
  ring = ring.replace(slots=slots, head=jax.device_put(np.int32(heads)))
  checkpoints = checkpoints_lib.Checkpoints(tmp_path)
  checkpoints.save(1, {'ring': ring}, previous=None)
  restored = checkpoints.restore(1, rings.shapes({'ring': ring}))['ring']
  rings.assert_same_ring(restored, rings.live(ring), ring.head, ring.age)


@settings(max_examples=12)
@given(
  seeds=st.sampled_from([None, 2]),
  # Steps before each save; a negative number first goes back that many saves.
  course=st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 15)), min_size=1, max_size=6
  ),
  max_to_keep=st.integers(1, 3),
  seed=st.integers(0, 999),
)
def test_any_course_of_adds_saves_and_restores_keeps_what_is_live(
  tmp_path_factory, seeds, course, max_to_keep, seed
):
  rng = np.random.default_rng(seed)
  checkpoints = checkpoints_lib.Checkpoints(
    tmp_path_factory.mktemp('course'), max_to_keep
  )
  ring = rings.make_ring(6, 2, seeds)
  template = rings.shapes({'ring': ring})
  expected, previous = {}, None
  for back, steps in course:
    if back and expected:
      # A new process, which goes on from an older checkpoint.
      checkpoints = checkpoints_lib.Checkpoints(
        checkpoints.folder.parent, max_to_keep
      )
      kept = checkpoints.iterations()
      previous = kept[max(len(kept) - back, 0)]
      ring = checkpoints.restore(previous, template)['ring']
    ring = rings.extend(ring, rng, steps)
    iteration = (previous or 0) + 10
    checkpoints.save(iteration, {'ring': ring}, previous=previous)
    expected = {i: v for i, v in expected.items() if i < iteration}
    expected[iteration] = (
      rings.live(ring),
      np.array(ring.head),
      np.array(ring.age),
    )
    # What is gone doesn't come back when a later course has fewer.
    expected = dict(sorted(expected.items())[-max_to_keep:])
    previous = iteration
    assert checkpoints.iterations() == list(expected)
  for kept in checkpoints.iterations():
    restored = checkpoints.restore(kept, template)['ring']
    rings.assert_same_ring(restored, *expected[kept])


def test_a_part_of_the_state_is_enough(tmp_path):
  checkpoints = checkpoints_lib.Checkpoints(tmp_path)
  state = rings.state_with_ring()
  checkpoints.save(1, state, previous=None)
  part = {'agent': state['agent']}
  rings.assert_same(checkpoints.restore(1, rings.shapes(part)), part)


def test_without_replay_the_ring_comes_back_empty(tmp_path):
  checkpoints = checkpoints_lib.Checkpoints(tmp_path)
  state = rings.state_with_ring()
  checkpoints.save(1, state, previous=None, with_replay=False)
  assert checkpoints.manifest(1)['rings'] == {}
  assert not list(tmp_path.rglob('*.npy'))
  restored = checkpoints.restore(1, rings.shapes(state))
  rings.assert_same(restored['agent'], state['agent'])
  rings.assert_same(restored['replay'], rings.make_ring(8, 2))


# A save costs what is new, and nothing that is needed goes.


def test_a_checkpoint_writes_only_the_rows_since_the_one_before(tmp_path):
  checkpoints = checkpoints_lib.Checkpoints(tmp_path)
  rng = np.random.default_rng(0)
  ring = rings.extend(rings.make_ring(50, 2), rng, 10)
  total = int(np.sum(ring.head))
  checkpoints.save(1, {'ring': ring}, previous=None)
  assert rows_in(checkpoints.folder / '000001') == {total}
  ring = rings.extend(ring, rng, 3)
  new = int(np.sum(ring.head)) - total
  assert 0 < new < total
  checkpoints.save(2, {'ring': ring}, previous=1)
  assert rows_in(checkpoints.folder / '000002') == {new}
  checkpoints.save(3, {'ring': ring}, previous=2)
  assert rows_in(checkpoints.folder / '000003') == {0}


def test_rows_that_were_overwritten_since_are_not_written(tmp_path):
  checkpoints = checkpoints_lib.Checkpoints(tmp_path)
  rng = np.random.default_rng(0)
  ring = rings.extend(rings.make_ring(8, 2), rng, 4)
  checkpoints.save(1, {'ring': ring}, previous=None)
  ring = rings.extend(ring, rng, 30)
  checkpoints.save(2, {'ring': ring}, previous=1)
  assert rows_in(checkpoints.folder / '000002') == {2 * (8 - 1)}


def test_folders_stay_exactly_as_long_as_their_rows_are_needed(tmp_path):
  checkpoints = checkpoints_lib.Checkpoints(tmp_path, max_to_keep=2)
  ring = rings.make_ring(7, 1)  # 6 slots live
  steady = jax.tree.map(
    lambda x: x, rings.make_step(np.random.default_rng(0), 1, ends=0)
  )

  def folders():
    """Names, with a * if the checkpoint itself is there too."""
    found = {}
    for path in checkpoints.folder.iterdir():
      whole = {p.name for p in path.iterdir()}
      rows = {'replay', 'copy'}
      assert whole in ({'manifest.json', 'state.bin', *rows}, rows)
      found[int(path.name)] = '*' if 'state.bin' in whole else ''
    return ' '.join(f'{i}{found[i]}' for i in sorted(found))

  seen = []
  for iteration in range(1, 7):
    for _ in range(2):  # so that a checkpoint has 2 new rows of the 6
      ring = rings.add(ring, steady)
    checkpoints.save(iteration, {'ring': ring}, previous=iteration - 1 or None)
    seen.append(folders())
  assert seen == [
    '1*',
    '1* 2*',
    '1 2* 3*',
    '1 2 3* 4*',  # 3 needs rows of 1, 2 and 3
    '2 3 4* 5*',
    '3 4 5* 6*',
  ]


def test_a_save_leaves_the_ring_to_be_changed_in_place(tmp_path):
  checkpoints = checkpoints_lib.Checkpoints(tmp_path)
  rng = np.random.default_rng(0)
  for seeds, step in ((None, rings.add), (2, rings.add_over_seeds)):
    ring = rings.extend(rings.make_ring(64, 2, seeds), rng, 3)
    before = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(ring.slots)]
    checkpoints.save(1, {'ring': ring}, previous=None)
    ring = step(ring, rings.make_step(rng, 2, 0.3, *([seeds] if seeds else [])))
    after = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(ring.slots)]
    assert after == before


def test_a_view_of_the_ring_would_have_been_noticed():
  """What the test before this one relies on."""
  ring = rings.extend(rings.make_ring(64, 2), np.random.default_rng(0), 3)
  before = ring.slots.frame.unsafe_buffer_pointer()
  view = np.asarray(ring.slots.frame)
  ring = rings.add(ring, rings.make_step(np.random.default_rng(1), 2))
  assert ring.slots.frame.unsafe_buffer_pointer() != before
  del view


def test_a_save_takes_a_ring_by_small_pieces(tmp_path, monkeypatch):
  pieces = []
  take = ring_files._take

  def watched(slots, *rest):
    rows = take(slots, *rest)
    pieces.append(rows.nbytes / slots.nbytes)
    return rows

  monkeypatch.setattr(ring_files, '_take', watched)
  ring = rings.make_ring(20 * ring_files._CHUNK, 1)
  head = jax.device_put(np.int32([19 * ring_files._CHUNK]))
  ring = ring.replace(head=head)
  checkpoints_lib.Checkpoints(tmp_path).save(1, {'r': ring}, previous=None)
  assert len(pieces) == 5 * 19
  assert max(pieces) <= 0.05


# What does not fit is named.


@pytest.mark.parametrize(
  ('change', 'words'),
  [
    (lambda s: s['agent'].update(extra=jnp.ones(1)), ['no agent.extra']),
    (lambda s: s['agent'].pop('b'), ['has agent.b,']),
    (
      lambda s: s['agent'].update(w=jnp.ones((2, 2))),
      ['agent.w', '(4,)', '(2, 2)'],
    ),
    (
      lambda s: s['agent'].update(w=jnp.ones(4, jnp.int32)),
      ['agent.w', 'float32', 'int32'],
    ),
    (
      lambda s: s.update(replay=rings.make_ring(9, 2)),
      ['replay', '8 slots', '9'],
    ),
    (
      lambda s: s.update(replay=rings.make_ring(8, 3)),
      ['replay.head', '(2,)', '(3,)'],
    ),
    (
      lambda s: s.update(replay=rings.make_ring(8, 2, seeds=1)),
      ['replay.head', '(2,)', '(1, 2)'],
    ),
    (lambda s: s.update(other=s.pop('replay')), ['no other.head']),
    (lambda s: s.update(replay=jnp.ones(3)), ['has replay.', 'another agent']),
    (lambda s: s.update(agent=rings.make_ring(8, 2)), ['has agent.b,']),
    (
      lambda s: s.update(
        replay=s['replay'].replace(
          slots=s['replay'].slots.replace(frame=jnp.zeros((2, 8, 5)))
        )
      ),
      ['replay.frame', '(3,)', 'uint8', '(5,)', 'float32'],
    ),
  ],
)
def test_a_leaf_that_does_not_fit_is_named(tmp_path, change, words):
  checkpoints = checkpoints_lib.Checkpoints(tmp_path)
  state = rings.state_with_ring()
  state['agent']['b'] = jnp.zeros(2)
  checkpoints.save(1, state, previous=None)
  template = {'agent': dict(state['agent']), 'replay': state['replay']}
  change(template)
  with pytest.raises(errors.UserError) as raised:
    checkpoints.restore(1, rings.shapes(template))
  for word in words:
    assert word in str(raised.value)


# Damage is found, whatever was damaged.


def flip(file, place):
  data = bytearray(file.read_bytes())
  data[place % len(data)] ^= 0x10
  file.write_bytes(bytes(data))


def saved_files(folder):
  return sorted(
    str(p.relative_to(folder)) for p in folder.rglob('*') if p.is_file()
  )


@pytest.fixture(scope='module')
def two_checkpoints(tmp_path_factory):
  """Two checkpoints, of which the second needs rows of the first."""
  folder = tmp_path_factory.mktemp('two')
  checkpoints = checkpoints_lib.Checkpoints(folder)
  state = rings.state_with_ring(steps=3, capacity=30)
  checkpoints.save(1, state, previous=None)
  rng = np.random.default_rng(5)
  state['replay'] = rings.extend(state['replay'], rng, 3)
  checkpoints.save(2, state, previous=1)
  return folder, state


@pytest.fixture
def copied(two_checkpoints, tmp_path):
  folder, state = two_checkpoints
  shutil.copytree(folder, tmp_path / 'copy')
  checkpoints = checkpoints_lib.Checkpoints(tmp_path / 'copy')
  rings.assert_same(
    checkpoints.restore(2, rings.shapes(state))['agent'], state['agent']
  )
  return checkpoints, state


def assert_damaged(checkpoints, iteration, state):
  assert iteration in checkpoints.iterations()
  with pytest.raises(checkpoints_lib.Damaged) as raised:
    checkpoints.restore(iteration, rings.shapes(state))
  assert str(raised.value).strip()


def test_every_missing_or_truncated_or_altered_file_is_found(copied):
  checkpoints, state = copied
  folder = checkpoints.folder
  names = saved_files(folder)
  own = ['000002/manifest.json', '000002/state.bin']
  rows = [name for name in names if name.endswith('.npy')]
  assert len(rows) == 2 * 2 * 5
  assert set(own) <= set(names)
  ring = state['replay']
  said = []
  checkpoints._watch.say = said.append
  for name in [*own, *rows]:
    file = folder / name
    original = file.read_bytes()
    for damage in ('missing', 'empty', 'truncated', 'flipped'):
      if damage == 'missing':
        file.unlink()
      elif damage == 'empty':
        file.write_bytes(b'')
      elif damage == 'truncated':
        file.write_bytes(original[:-1])
      else:
        flip(file, len(original) * 2 // 3)
      assert 2 in checkpoints.iterations(), (name, damage)
      said.clear()
      if name in own:
        with pytest.raises(checkpoints_lib.Damaged) as raised:
          checkpoints.restore(2, rings.shapes(state))
        assert str(raised.value).strip()
      else:
        restored = checkpoints.restore(2, rings.shapes(state))['replay']
        rings.assert_same_ring(restored, rings.live(ring), ring.head, ring.age)
        # Of a bad copy nobody knows before it is needed, or saved again.
        assert len(said) == name.startswith(('000001/re', '000002/re'))
      file.write_bytes(original)


@settings(max_examples=20)
@given(place=st.integers(0, 10**6))
def test_any_flipped_bit_of_the_manifest_is_found(two_checkpoints, place):
  folder, _ = two_checkpoints
  checkpoints = checkpoints_lib.Checkpoints(folder)
  file = folder / 'checkpoints/000002/manifest.json'
  original, contents = file.read_bytes(), checkpoints.manifest(2)
  try:
    flip(file, place)
    with contextlib.suppress(checkpoints_lib.Damaged):
      # In white space, a flip may change nothing.
      assert checkpoints.manifest(2) == contents
  finally:
    file.write_bytes(original)


@pytest.mark.parametrize(
  'text', ['', '[]', '{}', 'null', '{"contents": {}, "sha256": 3}']
)
def test_a_manifest_of_another_form_is_damage(copied, text):
  checkpoints, state = copied
  (checkpoints.folder / '000002/manifest.json').write_text(text)
  assert_damaged(checkpoints, 2, state)


def test_the_checkpoint_before_can_be_read_and_gone_on_from(copied):
  checkpoints, state = copied
  flip(checkpoints.folder / '000002/state.bin', 7)
  assert_damaged(checkpoints, 2, state)
  restored = checkpoints.restore(1, rings.shapes(state))
  ring = rings.extend(restored['replay'], np.random.default_rng(5), 3)
  checkpoints.save(2, {**state, 'replay': ring}, previous=1)
  again = checkpoints.restore(2, rings.shapes(state))['replay']
  rings.assert_same_ring(again, rings.live(ring), ring.head, ring.age)
  # The damaged one is kept beside, and counts no more.
  assert (checkpoints.folder / '000002.set-aside-1').is_dir()
  assert checkpoints.iterations() == [1, 2]


def test_a_damaged_checkpoint_is_no_reason_to_delete_what_is_good(copied):
  checkpoints, state = copied
  checkpoints.max_to_keep = 1
  (checkpoints.folder / '000002/manifest.json').write_text('{')
  checkpoints.save(3, state, previous=1)
  # 2 does not count as newer than 1, and 3 needs rows of 1.
  assert checkpoints.iterations() == [3]
  restored = checkpoints.restore(3, rings.shapes(state))['replay']
  ring = state['replay']
  rings.assert_same_ring(restored, rings.live(ring), ring.head, ring.age)


def test_when_the_one_before_can_not_be_read_all_rows_are_written(copied):
  checkpoints, state = copied
  (checkpoints.folder / '000002/manifest.json').unlink()
  checkpoints.save(3, state, previous=2)
  ring = state['replay']
  assert rows_in(checkpoints.folder / '000003') == {int(np.sum(ring.head))}
  shutil.rmtree(checkpoints.folder / '000001')
  shutil.rmtree(checkpoints.folder / '000002')
  restored = checkpoints.restore(3, rings.shapes(state))['replay']
  rings.assert_same_ring(restored, rings.live(ring), ring.head, ring.age)


def test_a_pickle_in_place_of_rows_is_refused_unread(copied, tmp_path):
  checkpoints, state = copied
  marker = tmp_path / 'executed'

  class Malicious:
    def __reduce__(self):
      return os.mkdir, (str(marker),)

  file = checkpoints.folder / '000002/replay/replay/frame.npy'
  objects = np.empty(1, object)
  objects[0] = Malicious()
  for write in (
    lambda: np.save(file, objects, allow_pickle=True),
    lambda: file.write_bytes(pickle.dumps(Malicious())),
  ):
    write()
    # A stranger would make the checksums right.
    manifest = checkpoints.manifest(2)
    segment = manifest['rings']['replay']['segments'][-1]
    segment['checksums']['frame'] = zlib.crc32(file.read_bytes())
    text = {
      'sha256': manifests.digest(manifest),
      'contents': manifest,
    }
    (file.parents[2] / 'manifest.json').write_text(json.dumps(text))
    with pytest.raises(checkpoints_lib.Damaged, match=r'objects|pickle'):
      checkpoints.restore(2, rings.shapes(state))
    assert not marker.exists()


# A save that fails, or is killed, leaves what was there.


def assert_untouched(checkpoints, state, before):
  assert saved_files(checkpoints.folder) == before
  assert checkpoints.iterations() == [1, 2]
  restored = checkpoints.restore(2, rings.shapes(state))
  ring = state['replay']
  rings.assert_same_ring(
    restored['replay'], rings.live(ring), ring.head, ring.age
  )


@pytest.mark.parametrize('full', ['rows', 'manifest', 'state', 'rename'])
def test_a_full_disk_leaves_the_older_checkpoints_and_says_so(
  copied, monkeypatch, full
):
  checkpoints, state = copied
  before = saved_files(checkpoints.folder)

  def fail(*args, **kwargs):
    raise OSError(28, 'No space left on device')

  if full == 'rows':
    monkeypatch.setattr(ring_files, '_write_rows', fail)
  elif full == 'manifest':
    monkeypatch.setattr(json, 'dumps', fail)
  elif full == 'state':
    monkeypatch.setattr(array_files, 'write', fail)
  else:
    monkeypatch.setattr(pathlib.Path, 'rename', fail)
  with pytest.raises(errors.UserError) as raised:
    checkpoints.save(3, state, previous=2)
  message = str(raised.value)
  assert 'No space left on device' in message
  assert 'iteration 3' in message
  assert 'stays: of iteration 2' in message
  monkeypatch.undo()
  assert_untouched(checkpoints, state, before)
  checkpoints.save(3, state, previous=2)
  assert checkpoints.iterations() == [1, 2, 3]


def test_a_disk_that_is_really_full_leaves_the_older_checkpoints(tmp_path):
  resource = pytest.importorskip('resource')
  checkpoints = checkpoints_lib.Checkpoints(tmp_path)
  ring = rings.make_ring(40_000, 1)
  state = {'w': jnp.arange(4.0), 'replay': ring}
  checkpoints.save(1, state, previous=None)
  before = saved_files(checkpoints.folder)
  state['replay'] = ring.replace(head=jax.device_put(np.int32([39_000])))
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
  try:
    with pytest.raises(errors.UserError, match='File too large'):
      checkpoints.save(2, state, previous=1)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
  assert saved_files(checkpoints.folder) == before
  checkpoints.save(2, state, previous=1)


def test_a_folder_that_is_a_file_is_told(tmp_path):
  (tmp_path / 'checkpoints').write_text('in the way')
  checkpoints = checkpoints_lib.Checkpoints(tmp_path)
  with pytest.raises(errors.UserError, match='checkpoints is a file'):
    checkpoints.save(1, rings.state_with_ring(), previous=None)


def test_what_a_killed_save_left_is_not_taken_for_a_checkpoint(copied):
  checkpoints, state = copied
  folder = checkpoints.folder
  shutil.copytree(folder / '000002', folder / '000003.tmp')
  assert checkpoints.iterations() == [1, 2]
  checkpoints.save(3, state, previous=2)
  assert checkpoints.iterations() == [1, 2, 3]
  assert not (folder / '000003.tmp').exists()


def test_what_a_killed_cleaning_left_is_cleaned(copied):
  checkpoints, state = copied
  checkpoints.max_to_keep = 1
  (checkpoints.folder / '000001/state.bin').unlink()
  checkpoints.save(3, state, previous=2)
  assert checkpoints.iterations() == [3]
  assert not (checkpoints.folder / '000001/manifest.json').exists()
