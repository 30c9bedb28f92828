"""Digests of what a training has produced: equal digests mean equal runs."""

import csv
import hashlib
import pathlib

from dopamine_jax import checkpoints as checkpoints_lib
from dopamine_jax import errors
from dopamine_jax import run_folder
from dopamine_jax.metrics import base

PARTS = ('parameters', 'optimizer', 'replay', 'counters', 'metrics')


def fingerprint(base_dir: str | pathlib.Path) -> dict[str, str]:
  """Returns SHA-256 digests by part, and `all` over them.

  They are computed from the newest checkpoint's arrays and live replay slots,
  and from the metrics up to it without what a clock or the machine decides.

  Raises:
    UserError: if there is no readable checkpoint.
  """
  folder = pathlib.Path(base_dir)
  facts = run_folder.read_facts(folder)
  checkpoints = checkpoints_lib.Checkpoints(folder)
  iterations = checkpoints.iterations()
  if not iterations:
    raise errors.UserError(f'{folder} has no checkpoint yet.')
  try:
    digests = _digest_checkpoint(checkpoints, iterations[-1])
  except checkpoints_lib.Damaged as damage:
    raise errors.UserError(
      f'the newest checkpoint, of iteration {iterations[-1]}, is damaged: '
      f'{damage}'
    ) from damage
  digests['counters'].update(f'{iterations[-1]} {facts["seeds"]}'.encode())
  digests['metrics'] = _digest_metrics(folder / 'metrics.csv', iterations[-1])
  result = {part: digests[part].hexdigest() for part in PARTS}
  whole = ''.join(result.values()).encode()
  return result | {'all': hashlib.sha256(whole).hexdigest()}


def _digest_checkpoint(checkpoints, iteration):
  digests = {part: hashlib.sha256() for part in PARTS}
  arrays = checkpoints.arrays(iteration)
  for name in sorted(arrays):
    line = f'{name} {checkpoints_lib.digest(arrays[name])}\n'
    digests[_part(name)].update(line.encode())
  rings = checkpoints.manifest(iteration)['rings']
  for name in sorted(rings):
    oldest = checkpoints.oldest_slots(iteration, name)
    for leaf in sorted(rings[name][-1]['checksums']):
      lanes = [hashlib.sha256() for _ in oldest]
      for lane, start, rows in checkpoints.rows(name, rings[name], leaf):
        live = rows[max(oldest[lane] - start, 0) :]
        lanes[lane].update(live.tobytes())
      for lane in lanes:
        digests['replay'].update(f'{name}.{leaf} {lane.hexdigest()}'.encode())
  return digests


def _part(name):
  if name.startswith('experience.replay'):
    return 'replay'
  if name.startswith('agent.') and not name.endswith('updates'):
    return 'optimizer' if 'optimizer' in name else 'parameters'
  return 'counters'


def _digest_metrics(file, last_iteration):
  sha = hashlib.sha256()
  if not file.exists():  # the run has no CSV collector
    return sha
  with open(file, newline='') as stream:
    for row in csv.DictReader(stream):
      if int(row['iteration']) <= last_iteration and not base.is_timing(
        row['name']
      ):
        row.pop('wall_time')
        sha.update('\t'.join(row.values()).encode() + b'\n')
  return sha
