"""Digests of what a training has produced: equal digests mean equal runs."""

from collections.abc import Callable
import csv
import hashlib
import pathlib

import numpy as np

from dopamine_jax import errors
from dopamine_jax.checkpoints import checkpoints as checkpoints_lib
from dopamine_jax.engines import devices
from dopamine_jax.metrics import base
from dopamine_jax.metrics import csv_file
from dopamine_jax.system import plain_files
from dopamine_jax.training import run_folder

_ON_CPUS = (
  'Equal settings, seeds and versions give equal digests on such a processor, '
  'however often a training was stopped.'
)
_IN_ORDER = (
  'Equal settings, seeds and versions give equal digests on the same kind and '
  'number of devices.'
)
_IN_ANY_ORDER = (
  'Equal digests are promised on the same kind of GPU with '
  f'XLA_FLAGS="{devices.DETERMINISTIC}" alone (devices.Devices.deterministic '
  '= True requires it).'
)
PARTS = ('parameters', 'optimizer', 'replay', 'counters', 'metrics')


def fingerprint(
  base_dir: str | pathlib.Path, say: Callable[[str], None] = print
) -> dict[str, str]:
  """Returns SHA-256 digests by part, and `all` over them.

  They are computed from the newest checkpoint's arrays and live replay slots,
  and from the metrics up to it without what a clock or the machine decides.

  Args:
    base_dir: the run's folder.
    say: is told of damage that did no harm.

  Raises:
    UserError: if there is no readable checkpoint, or one of another run.
  """
  folder = pathlib.Path(base_dir)
  seeds = run_folder.read_facts(folder, say)['seeds']
  checkpoints = checkpoints_lib.Checkpoints(folder, say=say)
  iterations = checkpoints.iterations()
  run_folder.require_own(checkpoints, seeds, run_folder.read_config(folder))
  if not iterations:
    raise errors.UserError(f'{folder} has no checkpoint yet.')
  newest = iterations[-1]
  digests = {part: hashlib.sha256() for part in PARTS}
  digests['counters'].update(f'{newest} {seeds}'.encode())
  try:
    for name, array in sorted(checkpoints.arrays(newest).items()):
      digests[_part(name)].update(f'{name} {_digest(array)}\n'.encode())
    for ring, saved in sorted(checkpoints.manifest(newest)['rings'].items()):
      for leaf in sorted(saved['segments'][-1]['checksums']):
        _update_rows(digests['replay'], checkpoints, newest, ring, leaf)
  except checkpoints_lib.Damaged as damage:
    raise errors.UserError(
      f'the newest checkpoint, of iteration {newest}, is damaged: {damage}'
    ) from damage
  metrics = folder / 'metrics.csv'
  if metrics.exists() and (fault := csv_file.altered(metrics)):
    raise errors.UserError(
      f'{fault}. Bring back the file that the training wrote.'
    )
  try:
    _update_metrics(digests['metrics'], metrics, newest)
  except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
    raise errors.UserError(
      f'{metrics} is not the metrics file of this run: {error!r}. Bring back '
      'the file that the training wrote.'
    ) from error
  result = {part: digests[part].hexdigest() for part in PARTS}
  whole = ''.join(result.values()).encode()
  return result | {'all': hashlib.sha256(whole).hexdigest()}


def promise(base_dir: str | pathlib.Path) -> str:
  """Returns on what a run was trained, and where its digests will be the same.

  Args:
    base_dir: the run's folder, which `fingerprint` could read.
  """
  events = run_folder.read_facts(pathlib.Path(base_dir)).get('events', ())
  machines = [event['machine'] for event in events if 'machine' in event]
  found = sorted({(_backend(x), x.get('xla_flags', '')) for x in machines})
  backends = {backend for backend, _ in found}
  if not backends or '?' in backends:
    return 'Not known: on what it was trained.'
  names = ' and '.join(
    f'{backend} with XLA_FLAGS="{flags}"' if flags else backend
    for backend, flags in found
  )
  in_any_order = any(
    backend == 'gpu' and devices.DETERMINISTIC not in flags
    for backend, flags in found
  )
  if in_any_order:
    where = _IN_ANY_ORDER
  else:
    where = _ON_CPUS if backends == {'cpu'} else _IN_ORDER
  return f'Trained on {names}. {where}'


def _backend(machine):
  """Returns JAX's name of it; runs of older versions tell the devices alone."""
  is_cpu = machine.get('devices', '').endswith(' x cpu')
  return machine.get('backend', 'cpu' if is_cpu else '?')


def _part(name):
  if name.startswith('experience.replay'):
    return 'replay'
  if name.startswith('agent.') and not name.endswith('updates'):
    return 'optimizer' if 'optimizer' in name else 'parameters'
  return 'counters'


def _digest(array):
  sha = hashlib.sha256(f'{array.dtype.name} {array.shape}'.encode())
  # As bytes, since bfloat16 has no buffer of its own.
  sha.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
  return sha.hexdigest()


def _update_rows(sha, checkpoints, iteration, ring, leaf):
  """Adds the live rows of one leaf of a ring, however they were saved."""
  lanes = {}
  for lane, _, rows in checkpoints.rows(iteration, ring, leaf):
    part = lanes.setdefault(lane, hashlib.sha256())
    part.update(rows.reshape(-1).view(np.uint8))
  for lane, part in sorted(lanes.items()):
    sha.update(f'{ring}.{leaf}.{lane} {part.hexdigest()}\n'.encode())


def _update_metrics(sha, file, last_iteration):
  """Adds the metrics up to a checkpoint; nothing if the run has no CSV."""
  if plain_files.kind(file) is None:
    return
  with plain_files.open_to_read(file.parent.resolve(), file.name) as stream:
    text = stream.read().decode()
  # A kill may have cut the last line short.
  for row in csv.DictReader(text[: text.rfind('\n') + 1].splitlines()):
    if int(row['iteration']) <= last_iteration and not base.is_timing(
      row['name']
    ):
      row.pop('wall_time')
      sha.update('\t'.join(row.values()).encode() + b'\n')
