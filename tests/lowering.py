"""Lowers the programs of small trainings for accelerators, without one.

    python -m tests.lowering [dqn.DQN ...]

Every agent trains for two tiny iterations on both engines, here on a CPU. Each
program that its engine had compiled is then traced anew for `cuda` and `tpu`
and exported by `jax.export`, which fails where a platform has no form of an
operation. Prints a Markdown table; exits with 1 if one failed.
"""

import contextlib
import functools
import pathlib
import sys
import tempfile
from typing import Any, NamedTuple

import jax
from jax import export
import numpy as np

from dopamine_jax import config
from dopamine_jax import runner
from dopamine_jax.networks import platforms
from dopamine_jax.system import processes
from tests import kills

PLATFORMS = ('cuda', 'tpu')
_ENGINES = 'dopamine_jax.engines'
_EXTRAS = """
runner.Runner.num_iterations = 2
runner.Runner.collectors = []
"""


class Program(NamedTuple):
  """A function that an engine had compiled, and what it was called with.

  Attributes:
    name: of the function.
    function: what was traced.
    options: of `jax.jit`.
    shapes: of the arguments: a tree of shapes, dtypes and weak types.
  """

  name: str
  function: Any
  options: dict[str, Any]
  shapes: tuple

  @property
  def donated(self) -> int:
    """How many arrays it is given for good."""
    which = self.options.get('donate_argnums', ())
    which = (which,) if isinstance(which, int) else which
    return len(jax.tree.leaves([self.shapes[i] for i in which]))

  def exported(self, platform: str) -> export.Exported:
    """Returns the program for a platform, lowered.

    Raises:
      Exception: of any kind, if it can't be.
    """
    jax.clear_caches()  # or inner functions stay as they were traced
    try:
      with platforms.tracing_for(platform):
        jitted = jax.jit(self.function, **self.options)
        return export.export(jitted, platforms=[platform])(*self.shapes)
    finally:
      jax.clear_caches()


class Traffic:
  """Bytes that a training's programs are given by the host, and give back.

  Attributes:
    given: in NumPy's arrays.
    taken: in arrays that were fetched.
  """

  def __init__(self):
    self.given = self.taken = 0


@contextlib.contextmanager
def recording():
  """Yields what fills as engines call programs: a list of them, and Traffic.

  The list has each program once for each shapes of its arguments.
  """
  found, jit, fetch, traffic = [], jax.jit, processes.fetch, Traffic()

  def counting(array):
    traffic.taken += array.nbytes
    return fetch(array)

  def noting(function=None, **options):
    if function is None:
      return functools.partial(noting, **options)
    jitted = jit(function, **options)
    caller = sys._getframe(1).f_globals['__name__']
    if not caller.startswith(_ENGINES) or options.get('inline'):
      return jitted
    seen = set()

    def call(*args):
      leaves, structure = jax.tree.flatten(args)
      if not any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        arrays = [leaf for leaf in leaves if isinstance(leaf, np.ndarray)]
        traffic.given += sum(leaf.nbytes for leaf in arrays)
        shapes = tuple(map(_shape, leaves))
        if (shapes, structure) not in seen:
          seen.add((shapes, structure))
          known = {k: v for k, v in options.items() if k != 'compiler_options'}
          name = _name(function)
          tree = jax.tree.unflatten(structure, shapes)
          found.append(Program(name, function, known, tree))
      return jitted(*args)

    call.lower = jitted.lower
    return call

  jax.jit, processes.fetch = noting, counting
  try:
    yield found, traffic
  finally:
    jax.jit, processes.fetch = jit, fetch


def _name(function):
  while isinstance(function, functools.partial):
    function = function.func
  return function.__name__


def _shape(leaf):
  kind = jax.typeof(leaf)
  return jax.ShapeDtypeStruct(kind.shape, kind.dtype)


def train(
  agent: str, engine: str, gin: str = ''
) -> tuple[list[Program], Traffic]:
  """Returns what `recording` has seen of a small training.

  Args:
    agent: of `kills.CONFIGS`.
    engine: 'python' or 'compiled'.
    gin: lines that are added to its configuration.
  """
  with tempfile.TemporaryDirectory() as folder:
    file = pathlib.Path(folder, 'small.gin')
    file.write_text(kills.config(agent, engine) + _EXTRAS + gin)
    run = config.load([str(file)], []).build(runner.Runner)
    with recording() as seen:
      run.train(str(pathlib.Path(folder, 'run')), quiet=True)
  return seen


def row(agent: str, engine: str, gin: str = '') -> list[str]:
  """Returns what each platform makes of a training's programs, in words."""
  found, _ = train(agent, engine, gin)
  cells = [str(len(found))]
  for platform in PLATFORMS:
    failed = []
    for program in found:
      try:
        program.exported(platform)
      except Exception as error:  # of whichever part has no form there
        failed.append(f'{program.name}: {type(error).__name__}: {error}'[:200])
    cells.append('; '.join(failed) or 'all')
  return cells


def main():
  """Prints the table."""
  print('| Agent | Engine | Programs | ' + ' | '.join(PLATFORMS) + ' |')
  print('|---' * (3 + len(PLATFORMS)) + '|', flush=True)
  lost = False
  for agent in sys.argv[1:] or kills.CONFIGS:
    for engine in kills.ENGINES:
      cells = row(agent, engine)
      lost |= any(cell != 'all' for cell in cells[1:])
      print(f'| {agent} | {engine} | ' + ' | '.join(cells) + ' |', flush=True)
  sys.exit(int(lost))


if __name__ == '__main__':
  main()
