"""Who trains which pack."""

import json
import os
import subprocess
import time

import pytest

from dopamine_jax.sweeps import leases as leases_lib
from dopamine_jax.sweeps import plan

PACKS = [plan.Pack('0.0', 0, (0, 1)), plan.Pack('0.1', 0, (2,))]


def nothing(pack):
  del pack
  return 0


def file_of(tmp_path, pack):
  return tmp_path / 'leases' / f'{pack.name}.json'


def of_another(tmp_path, pack, **changes):
  """Has a lease be another process's."""
  path = file_of(tmp_path, pack)
  path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def ended():
  """Returns the number of a process that has ended."""
  process = subprocess.Popen(['true'])
  process.wait()
  return process.pid


def test_each_pack_is_taken_once(tmp_path):
  leases = leases_lib.Leases(tmp_path)
  assert leases.take(PACKS, nothing) == PACKS[0]
  other = leases_lib.Leases(tmp_path)
  assert other.take(PACKS, nothing) == PACKS[1]
  assert other.take(PACKS, nothing) is None
  leases.give_back(PACKS[0])
  assert other.take(PACKS, nothing) == PACKS[0]


def test_the_pack_of_a_process_that_is_gone_is_taken(tmp_path):
  leases = leases_lib.Leases(tmp_path)
  leases.take(PACKS[:1], nothing)
  of_another(tmp_path, PACKS[0], pid=ended())
  assert not leases.is_alive(PACKS[0])
  assert leases.take(PACKS[:1], nothing) == PACKS[0]
  assert leases.is_alive(PACKS[0])


def test_a_process_that_has_its_number_by_now_is_another(tmp_path):
  leases = leases_lib.Leases(tmp_path)
  leases.take(PACKS[:1], nothing)
  of_another(tmp_path, PACKS[0], began=1.0)
  assert not leases.is_alive(PACKS[0])


def test_on_another_machine_a_lease_lives_while_it_is_young(tmp_path):
  leases = leases_lib.Leases(tmp_path)
  leases.take(PACKS[:1], nothing)
  of_another(tmp_path, PACKS[0], host='elsewhere', pid=ended())
  assert leases.take(PACKS[:1], nothing) is None
  hour_ago = time.time() - 3_600
  os.utime(file_of(tmp_path, PACKS[0]), (hour_ago, hour_ago))
  assert leases.take(PACKS[:1], nothing) == PACKS[0]


def test_a_lease_that_is_kept_stays_young(tmp_path, monkeypatch):
  monkeypatch.setattr(leases_lib, '_BEAT', 0.01)
  leases = leases_lib.Leases(tmp_path)
  leases.take(PACKS[:1], nothing)
  path = file_of(tmp_path, PACKS[0])
  os.utime(path, (0, 0))
  with leases.kept(PACKS[0]):
    while path.stat().st_mtime == 0:
      time.sleep(0.01)
  os.utime(path, (0, 0))
  time.sleep(0.03)
  assert path.stat().st_mtime == 0


@pytest.mark.parametrize('progress', [[0, 0, 0, 0], [0, 1, 1, 1, 1]])
def test_a_pack_whose_workers_die_without_progress_is_lost(tmp_path, progress):
  leases = leases_lib.Leases(tmp_path)
  taken = []
  for now in progress:
    taken.append(leases.take(PACKS[:1], lambda pack, now=now: now))
    if isinstance(taken[-1], plan.Pack):
      of_another(tmp_path, PACKS[0], pid=ended())
  assert taken[:-1] == [PACKS[0]] * (len(progress) - 1)
  assert taken[-1] == leases_lib.Lost(PACKS[0], leases_lib.LOSSES)
  # What follows is a new attempt.
  assert leases.take(PACKS[:1], nothing) == PACKS[0]


def test_progress_counts_losses_anew(tmp_path):
  leases = leases_lib.Leases(tmp_path)
  for now in range(10):
    assert leases.take(PACKS[:1], lambda pack, now=now: now) == PACKS[0]
    of_another(tmp_path, PACKS[0], pid=ended())
