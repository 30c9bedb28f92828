"""The peers' environments: which versions, and where they are installed."""

import hashlib
import os
import pathlib
import shutil
import subprocess
import sys

from dopamine_jax import errors

_JAX = ('jax==0.10.2', 'jaxlib==0.10.2', 'flax==0.12.8', 'optax==0.2.8')
_GYMNASIUM = ('gymnasium[mujoco]==1.4.0', 'mujoco==4.0.0', 'ale-py==0.12.1')
_STABLE = ('stable-baselines3==2.9.2', 'opencv-python-headless<6')
_TORCH = ('torch==2.13.0',)

# Peer: calls of pip, one after another. PyTorch comes first, alone, so that pip
# takes the build that it finds and not the newest. Where PyPI's has CUDA and
# that is not wanted, set PIP_EXTRA_INDEX_URL to PyTorch's index of CPU builds.
PINS = {
  'dopamine': (
    # tensorboard is imported but not asked for.
    (
      'dopamine-rl==4.1.2',
      'tensorflow==2.21.0',
      'tensorboard==2.21.0',
      *_GYMNASIUM,
      *_JAX,
    ),
  ),
  'sb3': (_TORCH, (*_STABLE, *_GYMNASIUM)),
  'sbx': (_TORCH, ('sbx-rl==0.28.0', *_STABLE, *_GYMNASIUM, *_JAX)),
  'rejax': (('rejax==0.1.3', 'gymnax==1.0.1', *_JAX),),
}


def folder() -> pathlib.Path:
  """Returns the user's cache folder for benchmarks."""
  cache = os.environ.get('XDG_CACHE_HOME', pathlib.Path.home() / '.cache')
  return pathlib.Path(cache) / 'dopamine_jax' / 'benchmarks'


def python(peer: str) -> pathlib.Path:
  """Returns the Python of a peer's environment, which is made if missing.

  Raises:
    UserError: if it can't be installed.
  """
  home = folder() / peer
  executable = home / 'bin' / 'python'
  stamp = home / 'installed'
  pins = hashlib.sha256(repr(PINS[peer]).encode()).hexdigest()
  if stamp.exists() and stamp.read_text() == pins:
    return executable
  print(f'Installing {peer} into {home} ...', file=sys.stderr)
  shutil.rmtree(home, ignore_errors=True)
  # The peers' releases are of a time; this version has wheels of all of them.
  base = shutil.which('python3.11') or sys.executable
  calls = [[base, '-m', 'venv', home]]
  calls += [
    [executable, '-m', 'pip', 'install', '--quiet', *pins]
    for pins in PINS[peer]
  ]
  for call in calls:
    done = subprocess.run(call, stderr=subprocess.PIPE, text=True)
    if done.returncode:
      raise errors.UserError(
        f'{peer} could not be installed: {" ".join(map(str, call))}\n'
        f'{done.stderr[-2000:]}'
      )
  stamp.write_text(pins)
  return executable
