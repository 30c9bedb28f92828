"""Replays whose frames lie in a file."""

import errno
import os
import pathlib
import shutil
import sys
import tempfile
import types
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dopamine_jax as dj
from dopamine_jax import errors
from dopamine_jax.commands import doctor
from dopamine_jax.engines import compiled
from dopamine_jax.engines import devices
from dopamine_jax.engines import disk
from dopamine_jax.engines import python_engine
from dopamine_jax.metrics import base
from dopamine_jax.replay import hindsight
from dopamine_jax.replay import mapped_rows
from dopamine_jax.replay import ring as ring_lib
from dopamine_jax.replay import uniform
from dopamine_jax.training import fingerprint
from dopamine_jax.training import starts
from tests import programs
from tests import rings
from tests.unit import lanes_test

DISK = devices.Devices(replay_memory='disk')
# With this a training fills its replay and learns nothing, so that there is
# little to compile.
IDLE = uniform.UniformReplay(capacity=200, batch_size=4, min_history=100)


@pytest.fixture(autouse=True)
def any_folder_will_do(monkeypatch):
  """Tests may run where temporary files lie in memory."""
  monkeypatch.setattr(disk, '_IN_MEMORY', ())


def frames(rng, leading):
  """Returns leaves of several types and shapes, of a page and less."""
  return {
    'picture': rng.integers(0, 256, (*leading, 5, 6), dtype=np.uint8),
    'numbers': rng.normal(size=(*leading, 3)).astype(np.float32),
    'flag': rng.random(leading) < 0.5,
  }


def idle_runner(where):
  return lanes_test.make_runner(
    lanes_test.make_dqn(1e-3, 0.9, replay=IDLE),
    devices=where,
    num_iterations=1,
    evaluation_episodes=0,
  )


def make_step(rng, lanes):
  step = rings.make_step(rng, lanes)
  return step.replace(
    observation=frames(rng, (lanes,)), next_observation=frames(rng, (lanes,))
  )


def on_disk(ring, axes=1):
  """Returns a ring's twin whose frames lie in files; it is empty."""
  frame = jax.tree.map(
    lambda x: mapped_rows.mapped(x, '.', axes).opened(), ring.slots.frame
  )
  return ring.replace(slots=ring.slots.replace(frame=frame))


def test_what_is_read_is_what_an_array_would_hold(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  rng = np.random.default_rng(0)
  example = make_step(rng, 2)
  replay = uniform.UniformReplay(
    capacity=40, batch_size=16, min_history=16, n_step=2, stack=3
  )
  add = jax.jit(jax.vmap(ring_lib.add))
  sample = jax.jit(jax.vmap(replay.sample))
  # Three seeds; the ring goes around.
  rings_ = jax.vmap(lambda _: replay.init(example))(jnp.arange(3))
  mapped = on_disk(rings_, axes=2)
  for _ in range(45):
    steps = [make_step(rng, 2) for _ in range(3)]
    step = jax.tree.map(lambda *each: np.stack(each), *steps)
    rings_, mapped = add(rings_, step), add(mapped, step)
  keys = jax.random.split(jax.random.key(1), 3)
  for expected, found in zip(
    *(jax.tree.leaves(sample(x, keys)) for x in (rings_, mapped)), strict=True
  ):
    np.testing.assert_array_equal(found, expected)
  assert not os.listdir(tmp_path)  # The files have no names.


def test_goals_are_exchanged_in_files_too(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  rng = np.random.default_rng(0)

  def goals(leading):
    names = 'observation', 'achieved_goal', 'desired_goal'
    return {x: rng.normal(size=(*leading, 2)).astype(np.float32) for x in names}

  replay = hindsight.HindsightReplay(
    capacity=40, batch_size=16, min_history=16, n_step=1, stack=1
  )
  step = rings.make_step(rng, 1)
  example = step.replace(observation=goals([1]), next_observation=goals([1]))
  ring, add = replay.init(example), jax.jit(ring_lib.add)
  mapped, seen = on_disk(ring), goals([1])
  for _ in range(30):
    after = goals([1])
    step = rings.make_step(rng, 1, ends=0.2).replace(
      observation=seen, next_observation=after
    )
    ring, mapped, seen = add(ring, step), add(mapped, step), after
  draw = jax.jit(replay.sample)
  for expected, found in zip(
    *(jax.tree.leaves(draw(x, jax.random.key(1))) for x in (ring, mapped)),
    strict=True,
  ):
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
  'engine',
  # Both trace the same.
  [
    python_engine.PythonEngine,
    pytest.param(compiled.CompiledEngine, marks=pytest.mark.slow),
  ],
)
def test_trainings_are_the_same(engine, tmp_path):
  """Two trials of two seeds in one program, stopped and gone on."""

  def train(folder, numbers, devices_, **changes):
    runners = {
      f'trial{i}': lanes_test.make_runner(
        lanes_test.make_prioritized(rate, 0.9),
        engine=engine,
        devices=devices_,
        evaluation_episodes=0,
        **changes,
      )
      for i, rate in enumerate(numbers)
    }
    dj.train(runners, tmp_path / folder, num_seeds=2, quiet=True)
    return [fingerprint.fingerprint(tmp_path / folder / x) for x in runners]

  expected = train('memory', (1e-3, 1e-2), devices.ONE_DEVICE)
  train('disk', (1e-3, 1e-2), DISK, num_iterations=1)
  assert train('disk', (1e-3, 1e-2), DISK) == expected


# That checkpoints are the same is seen above.
@pytest.mark.slow
def test_a_run_may_go_on_in_another_memory(tmp_path):
  def train(folder, devices_, **changes):
    agent = lanes_test.make_dqn(1e-3, 0.9)
    runner = lanes_test.make_runner(
      agent, devices=devices_, evaluation_episodes=0, **changes
    )
    runner.train(tmp_path / folder, quiet=True)
    return fingerprint.fingerprint(tmp_path / folder)

  expected = train('whole', devices.ONE_DEVICE)
  train('moved', devices.ONE_DEVICE, num_iterations=1)
  train('moved', DISK, num_iterations=2)
  assert train('moved', devices.ONE_DEVICE) == expected


# Both restore a checkpoint without its replay.
@pytest.mark.parametrize(
  'how',
  ['checkpoint_replay', pytest.param('start_from', marks=pytest.mark.slow)],
)
def test_a_run_may_go_on_without_its_replay(how, tmp_path, monkeypatch):
  def train(name, devices_, **changes):
    agent = lanes_test.make_dqn(1e-3, 0.9)
    changes |= {'devices': devices_, 'evaluation_episodes': 0}
    runner = lanes_test.make_runner(agent, **changes)
    runner.train(tmp_path / name, quiet=True)
    return fingerprint.fingerprint(tmp_path / name)

  found = []
  for name, where in {'disk': DISK, 'memory': devices.ONE_DEVICE}.items():
    if where is not DISK:  # whose programs are of one training's files
      programs.share(monkeypatch)
    if how == 'checkpoint_replay':
      train(name, where, num_iterations=2, checkpoint_replay=False)
      found.append(train(name, where, checkpoint_replay=False))
    else:
      train(name, where, num_iterations=2)
      start = starts.StartFrom(run=str(tmp_path / name), replay=False)
      found.append(train(f'{name} on', where, start_from=start))
  assert found[0] == found[1]


class Look(base.Collector):
  """Counts the files that this process has mapped, as trainings go on."""

  seen: ClassVar[list[int]] = []

  def write(self, statistics):
    self.seen.append(mapped_files())


def mapped_files():
  maps = pathlib.Path('/proc/self/maps').read_text().splitlines()
  return sum('/frames/' in line for line in maps)


@pytest.mark.skipif(sys.platform != 'linux', reason='looks into /proc')
def test_the_file_is_let_go_with_its_training(tmp_path):
  folder = tmp_path / 'frames'
  folder.mkdir()
  where = devices.Devices(replay_memory='disk', replay_folder=str(folder))
  runner = idle_runner(where).replace(collectors=(Look,))
  Look.seen.clear()
  runner.train(tmp_path / 'run', quiet=True)
  assert Look.seen == [1]
  assert mapped_files() == 0
  assert not os.listdir(folder)


def test_rows_beyond_two_gigabytes_are_reached(tmp_path, monkeypatch):
  # Room is not reserved here: only what is written takes any.
  monkeypatch.delattr(os, 'posix_fallocate', raising=False)
  file = mapped_rows.MappedFile(str(tmp_path), (1, 3_000, 2**20), np.uint8)
  file.open()
  lane, slot = np.zeros(10, np.int32), np.arange(2_990, 3_000, dtype=np.int32)
  rows = np.broadcast_to(slot[:, None] % 7 + 1, (10, 2**20))
  file.write(lane, slot, rows)
  np.testing.assert_array_equal(file.read(lane, slot), rows)
  file.close()


# Bad input.


def disk_of(monkeypatch, free):
  usage = types.SimpleNamespace(free=free)
  monkeypatch.setattr(shutil, 'disk_usage', lambda folder: usage)


def test_a_disk_without_room_is_refused_before_the_start(tmp_path, monkeypatch):
  runner = idle_runner(DISK)
  disk_of(monkeypatch, 10)
  with pytest.raises(errors.UserError, match=r'has no room: frames of .* free'):
    runner.train(tmp_path, quiet=True)
  assert doctor.memory(runner).disk_bytes == 200 * 5 * 4
  disk_of(monkeypatch, 10**9)
  runner.train(tmp_path, quiet=True)


def test_a_disk_that_is_full_after_all_is_told(tmp_path, monkeypatch):
  def full(*args):
    raise OSError(errno.ENOSPC, 'No space left on device')

  monkeypatch.setattr(os, 'posix_fallocate', full)
  with pytest.raises(
    errors.UserError, match=r'No space left .* lower the .* capacity'
  ):
    idle_runner(DISK).train(tmp_path, quiet=True)


def test_a_folder_in_memory_is_refused(tmp_path, monkeypatch):
  folder = os.path.realpath(tmp_path / 'memory')
  os.mkdir(folder)
  monkeypatch.setattr(disk, '_IN_MEMORY', ('tmpfs',))
  monkeypatch.setattr(
    disk.psutil,
    'disk_partitions',
    lambda all: [
      types.SimpleNamespace(mountpoint='/', fstype='ext4'),
      types.SimpleNamespace(mountpoint=folder, fstype='tmpfs'),
    ],
  )

  def train(folder):
    where = devices.Devices(replay_memory='disk', replay_folder=folder)
    idle_runner(where).train(tmp_path / 'run', quiet=True)

  with pytest.raises(errors.UserError, match=r'memory lies in memory \(tmpfs'):
    train(folder)
  train(str(tmp_path))


def test_a_folder_that_can_not_be_written_to_is_told(tmp_path, monkeypatch):
  def refuse(**kwargs):
    raise OSError(errno.EROFS, 'Read-only file system')

  monkeypatch.setattr(tempfile, 'TemporaryFile', refuse)
  file = mapped_rows.MappedFile('~', (1, 4), np.uint8)
  with pytest.raises(errors.UserError, match=r'Read-only.*another folder\.$'):
    file.open()


@pytest.mark.parametrize('name', ['', 'gone'])
def test_a_folder_for_temporary_files_is_none_other(name, monkeypatch):
  step = rings.make_step(np.random.default_rng(0), 1)
  template = jax.eval_shape(lambda: ring_lib.init(step, 8))
  settings = devices.Devices(
    replay_memory='disk', replay_folder=None if name else ''
  )
  monkeypatch.setenv('TMPDIR', name)
  with pytest.raises(errors.UserError, match='is no folder; make it first'):
    disk.laid_out(template, settings, {})


def test_a_closed_file_says_so(tmp_path):
  file = mapped_rows.MappedFile(str(tmp_path), (1, 4), np.uint8)
  file.open()
  file.close()
  with pytest.raises(ValueError, match='its training has ended'):
    file.read(np.zeros(1, int), np.zeros(1, int))


def test_a_folder_that_is_not_there_is_named(tmp_path):
  gone = str(tmp_path / 'gone')
  where = devices.Devices(replay_memory='disk', replay_folder=gone)
  with pytest.raises(errors.UserError, match=r'gone.* is no folder; make it'):
    idle_runner(where).train(tmp_path, quiet=True)
