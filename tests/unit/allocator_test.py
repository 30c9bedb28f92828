"""The settings of malloc: taken where glibc is, refused elsewhere."""

import ctypes
import subprocess
import sys

import pytest

from dopamine_jax.engines import allocator

IS_GLIBC = sys.platform == 'linux' and hasattr(
  ctypes.CDLL(None), 'gnu_get_libc_version'
)
needs_glibc = pytest.mark.skipif(not IS_GLIBC, reason='needs glibc')


def run(code):
  """Runs code in a fresh process, for settings last as long as one does."""
  program = f"""
import resource
import numpy as np
from dopamine_jax.engines import allocator

MIB = 1 << 20

def resident():
  with open('/proc/self/statm') as file:
    return int(file.read().split()[1]) * resource.getpagesize() // MIB

{code}
"""
  subprocess.run([sys.executable, '-c', program], check=True)


@needs_glibc
def test_freed_memory_stays_for_the_next_call():
  run("""
assert allocator.keep_freed_memory()
before = resident()
block = np.ones(64 * MIB, np.uint8)
del block
assert resident() >= before + 60, (before, resident())
""")


@needs_glibc
def test_without_it_glibc_gives_freed_memory_back():
  run("""
before = resident()
block = np.ones(64 * MIB, np.uint8)
del block
assert resident() <= before + 10, (before, resident())
""")


@needs_glibc
def test_threads_keep_freed_memory_too():
  run("""
import threading
assert allocator.keep_freed_memory()
before = resident()

def allocate():
  block = np.ones(128 * MIB, np.uint8)
  del block
  assert resident() >= before + 120, (before, resident())
  done.append(True)

done = []
thread = threading.Thread(target=allocate)
thread.start()
thread.join()
assert done
""")


@needs_glibc
def test_a_large_array_is_given_back_though_memory_above_it_is_in_use():
  run("""
assert allocator.keep_freed_memory()
before = resident()
block = np.ones(768 * MIB, np.uint8)
above = np.ones(MIB, np.uint8)
assert resident() >= before + 750, (before, resident())
del block
assert resident() <= before + 50, (before, resident())
""")


@needs_glibc
def test_it_imports_no_jax_and_can_be_repeated():
  run("""
import sys
assert allocator.keep_freed_memory()
assert allocator.keep_freed_memory()
assert 'jax' not in sys.modules
""")


@pytest.mark.parametrize('platform', ['darwin', 'win32'])
def test_other_systems_are_left_alone(platform, monkeypatch):
  def refuse(*arguments):
    raise AssertionError(arguments)

  monkeypatch.setattr(sys, 'platform', platform)
  monkeypatch.setattr(ctypes, 'CDLL', refuse)
  assert not allocator.keep_freed_memory()


def test_other_c_libraries_are_left_alone(monkeypatch):
  # As musl: Linux, and no such function.
  monkeypatch.setattr(sys, 'platform', 'linux')
  monkeypatch.setattr(ctypes, 'CDLL', lambda name: object())
  assert not allocator.keep_freed_memory()


class OldGlibc:
  """Refuses thresholds above 32 MiB for mapping, as old ones do."""

  def __init__(self, refused=()):
    self.refused = refused
    self.taken = []

  def gnu_get_libc_version(self):
    raise NotImplementedError

  def mallopt(self, parameter, value):
    if parameter in self.refused or (parameter == -3 and value > 1 << 25):
      return 0
    self.taken.append((parameter, value))
    return 1


def test_an_old_glibc_takes_all_blocks_from_the_heap(monkeypatch):
  libc = OldGlibc()
  monkeypatch.setattr(sys, 'platform', 'linux')
  monkeypatch.setattr(ctypes, 'CDLL', lambda name: libc)
  assert allocator.keep_freed_memory()
  # M_MMAP_MAX, M_TRIM_THRESHOLD, M_ARENA_MAX of malloc.h.
  assert libc.taken == [(-4, 0), (-1, 1 << 30), (-8, 1)]


@pytest.mark.parametrize('parameter', [-4, -1, -8])
def test_a_refused_setting_is_reported(parameter, monkeypatch):
  monkeypatch.setattr(sys, 'platform', 'linux')
  monkeypatch.setattr(ctypes, 'CDLL', lambda name: OldGlibc([parameter]))
  assert not allocator.keep_freed_memory()
