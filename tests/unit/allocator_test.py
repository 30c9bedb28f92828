"""The settings of malloc: taken where glibc is, refused elsewhere."""

import ctypes
import subprocess
import sys

import pytest

from dopamine_jax import allocator

IS_GLIBC = sys.platform == 'linux' and hasattr(
  ctypes.CDLL(None), 'gnu_get_libc_version'
)
needs_glibc = pytest.mark.skipif(not IS_GLIBC, reason='needs glibc')


def run(code):
  """Runs code in a fresh process, for settings last as long as one does."""
  program = f"""
import numpy as np
from dopamine_jax import allocator

MIB = 1 << 20

def resident():
  with open('/proc/self/statm') as file:
    return int(file.read().split()[1]) * 4096 // MIB

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
def test_a_large_array_does_not_stay_resident():
  run("""
assert allocator.keep_freed_memory()
before = resident()
block = np.ones(1536 * MIB, np.uint8)
assert resident() >= before + 1500, (before, resident())
del block
assert resident() <= before + 300, (before, resident())
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


def test_a_refused_setting_is_reported(monkeypatch):
  class Glibc:
    calls = []  # noqa: RUF012

    def gnu_get_libc_version(self):
      raise NotImplementedError

    def mallopt(self, name, value):
      self.calls.append((name, value))
      return 0

  monkeypatch.setattr(sys, 'platform', 'linux')
  monkeypatch.setattr(ctypes, 'CDLL', lambda name: Glibc())
  assert not allocator.keep_freed_memory()
  assert len(Glibc.calls) == 3
