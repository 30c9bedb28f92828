"""The environments of peers: which versions, and where they are installed.

On a GPU ours has one of its own too, with the same JAX.
"""

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
# Of Playground; brax takes any.
_MJX = ('mujoco==3.17.0', 'mujoco-mjx==3.17.0', 'warp-lang==1.19.0')
_BRAX = ('brax==0.14.2', 'playground==0.2.0', *_MJX)
_ROOT = pathlib.Path(__file__).resolve().parent.parent
OURS = 'ours'

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
  'brax': ((*_BRAX, *_JAX),),
  OURS: (
    (
      *('--editable', f'{_ROOT}[atari,brax,gymnax,mujoco,playground]'),
      *(*_BRAX, 'ale-py==0.12.1', *_JAX),
    ),
  ),
}
PEERS = [peer for peer in PINS if peer != OURS]
# CUDA's libraries come with JAX as wheels: a machine needs a driver alone. 12
# runs on whatever 13 does, and on older drivers and cards.
_CUDA = 'cuda12'
# PyTorch's CUDA would lie over JAX's, and sbx computes nothing by PyTorch.
_TORCH_OF_CPUS = ('--index-url', 'https://download.pytorch.org/whl/cpu')


def folder() -> pathlib.Path:
  """Returns the user's cache folder for benchmarks."""
  cache = os.environ.get('XDG_CACHE_HOME', pathlib.Path.home() / '.cache')
  return pathlib.Path(cache) / 'dopamine_jax' / 'benchmarks'


def calls_of(peer: str, cuda: bool = False) -> list[list[str]]:
  """Returns what pip is to install, call by call.

  Args:
    peer: one of `PINS`.
    cuda: whether JAX computes on an NVIDIA GPU.
  """
  calls = [list(pins) for pins in PINS[peer]]
  if not cuda:
    return calls
  for pins in calls:
    if pins == list(_TORCH):
      pins += _TORCH_OF_CPUS
    pins[:] = [
      pin.replace('jax==', f'jax[{_CUDA}]==') if pin in _JAX[:1] else pin
      for pin in pins
    ]
  return calls


def python(peer: str, cuda: bool = False) -> pathlib.Path:
  """Returns the Python of a peer's environment, which is made if missing.

  Args:
    peer: one of `PINS`.
    cuda: whether JAX computes on an NVIDIA GPU; an environment of its own.

  Raises:
    UserError: if it can't be installed.
  """
  home = folder() / (f'{peer}-{_CUDA}' if cuda else peer)
  executable = home / 'bin' / 'python'
  stamp = home / 'installed'
  wanted = calls_of(peer, cuda)
  pins = hashlib.sha256(_described(peer, cuda).encode()).hexdigest()
  if stamp.exists() and stamp.read_text() == pins:
    return executable
  print(f'Installing {peer} into {home} ...', file=sys.stderr)
  shutil.rmtree(home, ignore_errors=True)
  # The peers' releases are of a time; this version has wheels of all of them.
  base = shutil.which('python3.11') or sys.executable
  calls = [[base, '-m', 'venv', home]]
  calls += [
    [executable, '-m', 'pip', 'install', '--quiet', *pins] for pins in wanted
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


def _described(peer, cuda):
  """Returns what an environment is made of; of ours, what it asks for too."""
  if cuda or peer == OURS:
    asked = (_ROOT / 'setup.py').read_text('utf-8') if peer == OURS else ''
    return f'{calls_of(peer, cuda)}{asked}'
  return repr(PINS[peer])
