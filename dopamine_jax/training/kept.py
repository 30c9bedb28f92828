"""What a checkpoint is called: its iteration, or the name it is kept by."""

import contextlib

from dopamine_jax import errors
from dopamine_jax.checkpoints import checkpoints as checkpoints_lib
from dopamine_jax.system import texts
from dopamine_jax.training import run_folder


def iteration_called(
  checkpoints: checkpoints_lib.Checkpoints, name: str
) -> int:
  """Returns the iteration of a checkpoint, given what it is called.

  Args:
    checkpoints: of the run's folder.
    name: an iteration in digits, or a name that a callback keeps one by, as the
      newest checkpoint knows them.

  Raises:
    UserError: if there is none; says which there are.
  """
  iterations = [iteration for iteration, _ in run_folder.readable(checkpoints)]
  names = {}
  for _, run in run_folder.readable(checkpoints):
    with contextlib.suppress(KeyError, TypeError, ValueError):
      names = dict(run['callbacks']['kept'])
  called = {str(i): i for i in iterations} | names
  wanted = str(int(name)) if name.isdecimal() else name
  if called.get(wanted) in iterations:
    return called[wanted]
  known = ', '.join(map(str, iterations)) or 'none'
  kept = ', '.join(name for name, i in names.items() if i in iterations)
  hint = (
    f'; by name: {texts.printable(kept)}'
    if kept
    else ('. Names are given by callbacks such as stopping.KeepBest')
  )
  raise errors.UserError(
    f'{checkpoints.folder} has no checkpoint {name!r}. There are those of '
    f'iterations {known}{hint}.'
  )
