"""For which platform a program is traced, which decides on the form of layers.

That is JAX's default one, but where a program is only looked at, as tests do
that lower it for another. Read when tracing; no compiled function asks for it.
"""

from collections.abc import Iterator
import contextlib
import contextvars

import jax

_traced_for = contextvars.ContextVar('platform', default=None)


def is_cpu() -> bool:
  """Whether what is traced now is for a CPU."""
  return (_traced_for.get() or jax.default_backend()) == 'cpu'


@contextlib.contextmanager
def tracing_for(platform: str) -> Iterator[None]:
  """Has programs that are traced meanwhile be for a platform.

  JAX keeps what it has traced: clear its caches before and afterwards.

  Args:
    platform: 'cpu', 'cuda', 'rocm' or 'tpu'.
  """
  token = _traced_for.set(platform)
  try:
    yield
  finally:
    _traced_for.reset(token)
