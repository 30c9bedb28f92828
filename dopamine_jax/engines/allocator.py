"""How the C library's malloc treats the memory that XLA frees."""

import ctypes
import sys

# Parameter numbers of mallopt, from glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_MMAP_MAX = -4
_M_ARENA_MAX = -8

_MIB = 1 << 20


def keep_freed_memory() -> bool:
  """Tells glibc to keep freed memory for the next call of XLA.

  XLA's CPU backend allocates the temporaries of a compiled function anew at
  each call; one update of NatureCNN takes 67 MB. By default glibc maps blocks
  of that size from the kernel and unmaps them when they are freed, so each call
  pays again for the first touch of every page: 16,000 page faults, a sixth of
  the update's processor time. Here blocks below 512 MiB come from the heap, and
  the heap's free end goes back to the kernel only once it exceeds 1 GiB.

  Larger blocks, such as a replay's frames, are still mapped, and given back
  when freed. (Old versions of glibc refuse a limit that high. There all blocks
  come from the heap, and one that was freed below another in use is not given
  back, only used again.)

  Call it before jax is imported: threads keep the heap they have. It holds for
  the whole process and can be repeated.

  Returns:
    Whether glibc took the settings. False where the C library is another one
    (macOS, Windows, musl), and then nothing has changed.
  """
  if sys.platform != 'linux':
    return False
  libc = ctypes.CDLL(None)
  if not hasattr(libc, 'gnu_get_libc_version'):
    return False

  def take(parameter: int, value: int) -> bool:
    return libc.mallopt(parameter, value) == 1

  from_heap = take(_M_MMAP_THRESHOLD, 512 * _MIB) or take(_M_MMAP_MAX, 0)
  kept = take(_M_TRIM_THRESHOLD, 1024 * _MIB)
  # One heap for all threads: those of their own hold at most 64 MiB, and what
  # doesn't fit is mapped whatever the threshold.
  shared = take(_M_ARENA_MAX, 1)
  return from_heap and kept and shared
