"""One pack, trained by a process of its own: a cluster has it on its nodes."""

from collections.abc import Callable
import json
import pathlib
import traceback
from typing import Any

from dopamine_jax import errors
from dopamine_jax.sweeps import study as study_lib
from dopamine_jax.sweeps import worker as worker_lib
from dopamine_jax.system import plain_files
from dopamine_jax.training import advice


def train(
  folder: pathlib.Path,
  name: str,
  output: pathlib.Path,
  say: Callable[[str], None],
):
  """Trains a pack, and writes what came of it, which `outcome` describes.

  Nothing is noted in the journal: whoever took the pack does.

  Args:
    folder: the sweep's.
    name: the pack's.
    output: a file for what came of it. Without one, nothing could be trained
      here at all.
    say: prints what the user should know.

  Raises:
    UserError: if this machine can't train the sweep.
    Stopped: after SIGINT, SIGTERM or SIGHUP.
  """
  sweep = worker_lib.Sweep(folder)
  study_lib.require_unchanged(sweep.study)
  packs = {each.name: each for each in sweep.look().packs}
  if name not in packs:
    raise errors.UserError(
      f'{folder} has no pack {name} that is to be trained; those that are: '
      f'{", ".join(x.name for x in sweep.state.waiting()) or "none"}.'
    )
  pack = packs[name]
  found = outcome(lambda: sweep.train(pack, sweep.log(pack, say)))
  plain_files.write(output, json.dumps(found).encode())


def outcome(train: Callable[[], dict[int, Any]]) -> dict[str, Any]:
  """Returns what came of a training, for JSON.

  Args:
    train: returns scores [S] by trial.

  Returns:
    `scores` by trial; or `why` it failed and its `traceback`.
  """
  try:
    scores = train()
  except advice.Stopped:
    raise
  except Exception as error:
    if worker_lib.of_the_machine(error):
      raise
    text = ''.join(traceback.format_exception(error))
    return {'why': errors.told(error), 'traceback': text}
  return {'scores': {str(k): each.tolist() for k, each in scores.items()}}
