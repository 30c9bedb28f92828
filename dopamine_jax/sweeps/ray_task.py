"""What Ray runs on a node: a task that trains one pack.

The pack is trained by a process of its own, whose signals, threads and devices
are those of a local worker. Where the sweep's folder is there, it trains in it;
else in a folder of its own, and what lies there then is sent back.
"""

from collections.abc import Iterable, Sequence
import io
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
from typing import Any, NamedTuple

_MEMORY = 'XLA_CLIENT_MEM_FRACTION'
_OLD_MEMORY = 'XLA_PYTHON_CLIENT_MEM_FRACTION'
_LINES = 20  # of what a process said that could not train
_POLL = 1.0  # seconds


class Job(NamedTuple):
  """A pack that is to be trained.

  Attributes:
    folder: the sweep's.
    token: the name of a file there: a node that sees it shares the folder.
    pack: its name.
    here: where the user's modules lie, if anywhere.
    threads: of the training.
    gpus: its share of them.
    files: an archive of what a node needs that doesn't share the folder; None:
      it is sent if the node asks for it.
  """

  folder: str
  token: str
  pack: str
  here: str
  threads: int
  gpus: float
  files: bytes | None = None


class Done(NamedTuple):
  """What came of a job.

  Attributes:
    outcome: as of `packs.outcome`; None: the node needs `Job.files`.
    said: lines that the user should know.
    files: an archive of what was trained, if the folder isn't shared.
  """

  outcome: dict[str, Any] | None
  said: Sequence[str] = ()
  files: bytes | None = None


class Lost(Exception):
  """A process was ended while it trained; Ray tries again."""


class Unable(Exception):
  """A node can't train the sweep at all."""


def train(job: Job) -> Done:
  """Trains a pack; Ray calls this on a node.

  Raises:
    Lost: if the process was ended.
    Unable: if it could not begin.
  """
  folder = pathlib.Path(job.folder)
  if (folder / job.token).exists():
    with tempfile.TemporaryDirectory(prefix='dopamine_jax_') as own:
      return _train(job, folder, pathlib.Path(own))
  if job.files is None:
    return Done(None)
  with tempfile.TemporaryDirectory(prefix='dopamine_jax_') as own:
    copy = pathlib.Path(own, 'sweep')
    unpack(job.files, copy)
    done = _train(job, copy, pathlib.Path(own))
    sent = [each for each in copy.iterdir() if (each / 'run.json').exists()]
    sent += copy.glob('logs/*')
    return done._replace(files=pack(copy, sent))


def pack(folder: pathlib.Path, paths: Iterable[pathlib.Path]) -> bytes:
  """Returns an archive of what lies at these paths in a folder, if it does."""
  stream = io.BytesIO()
  with tarfile.open(fileobj=stream, mode='w') as archive:
    for path in paths:
      if path.exists():
        archive.add(path, str(path.relative_to(folder)))
  return stream.getvalue()


def unpack(data: bytes, folder: pathlib.Path):
  """Writes what `pack` returned into a folder."""
  with tarfile.open(fileobj=io.BytesIO(data)) as archive:
    archive.extractall(folder, filter='data')


def _train(job, folder, own):
  """Has a process train; `own` is a folder that nobody else uses."""
  output = own / 'outcome.json'
  words = [
    *(sys.executable, '-P', '-m', 'dopamine_jax', 'sweep', 'pack'),
    *(str(folder), job.pack, str(output)),
  ]
  process = subprocess.Popen(
    words,
    cwd=job.here if os.path.isdir(job.here) else own,
    env=_environment(job),
    stdin=subprocess.PIPE,  # at whose end it stops: when this one is gone
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
  )
  said = []

  def listen():
    with process.stdout as lines:
      said.extend(x.decode(errors='replace').rstrip() for x in lines)

  listener = threading.Thread(target=listen, daemon=True)
  listener.start()
  try:
    while process.poll() is None:
      try:  # Short waits: Ray cancels by an exception between two.
        process.wait(_POLL)
      except subprocess.TimeoutExpired:
        pass
  finally:
    process.terminate()
    process.wait()
    process.stdin.close()
  listener.join(_POLL)  # what it has started may hold the pipe
  if process.returncode == 0:
    return Done(json.loads(output.read_text()), said)
  raise _failure(process.returncode, said)


def _failure(status, said):
  """Returns the exception of a process that wrote no outcome."""
  where = socket.gethostname()
  number = -status if status < 0 else status - 128
  if number in set(signal.Signals):
    name = signal.Signals(number).name
    hint = ': for want of memory?' if name == 'SIGKILL' else ''
    return Lost(f'its process on {where} was ended by {name}{hint}')
  told = [i for i, line in enumerate(said) if line.startswith('Error: ')]
  lines = said[told[-1] :] if told else said[-_LINES:]
  why = '\n'.join(lines).removeprefix('Error: ')
  return Unable(f'{where} says: {why}')


def _environment(job):
  """Returns the environment of a training, with threads and GPUs as given."""
  given = {'NPROC': str(job.threads), 'PYTHONUNBUFFERED': '1'}
  has_share = {_MEMORY, _OLD_MEMORY} & os.environ.keys()
  if 0 < job.gpus < 1 and not has_share:
    given[_MEMORY] = f'{0.75 * job.gpus:.3f}'
  return {**os.environ, **given}
