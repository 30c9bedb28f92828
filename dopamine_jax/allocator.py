"""How the C library's malloc treats the memory that XLA frees."""

import ctypes
import sys

# Parameter numbers of mallopt, from glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_MAX = -4

_MIB = 1 << 20


def keep_freed_memory() -> bool:
  """Tells glibc to keep freed memory for the next call of XLA.

  XLA's CPU backend allocates the temporaries of a compiled function anew at
  each call, tens of megabytes for one update of a convolutional network. By
  default, glibc maps blocks of that size from the kernel and unmaps them when
  they are freed, so every call pays a page fault for every 4 KiB. Here large
  blocks come from the heap instead, and the heap's free end goes back to the
  kernel only once it exceeds 1 GiB.

  The price: up to 1 GiB stays resident after it was freed, and a large block
  that is freed below one still in use is not given back, only used again.

  Call it before the large allocations, best before jax is imported. It holds
  for the whole process and can be repeated.

  Returns:
    Whether glibc took the settings. False where the C library is another one
    (macOS, Windows, musl), and then nothing has changed.
  """
  if sys.platform != 'linux':
    return False
  libc = ctypes.CDLL(None)
  if not hasattr(libc, 'gnu_get_libc_version'):
    return False
  settings = (
    (_M_MMAP_MAX, 0),
    (_M_TRIM_THRESHOLD, 1024 * _MIB),
    (_M_TOP_PAD, 256 * _MIB),
  )
  # mallopt answers 1 for done. A list, so that no setting is left out.
  return all([libc.mallopt(name, value) == 1 for name, value in settings])
