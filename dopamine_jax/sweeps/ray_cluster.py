"""Ray trains the packs of a sweep, each as a task on whichever node is free.

This process takes packs as a worker does, and notes what comes of them. Which
task runs where, and what happens when a node is gone, is Ray's.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import logging
import math
import os
import pathlib
import secrets
import shutil
import socket
import time
from typing import Any, NamedTuple
import warnings

import numpy as np

from dopamine_jax import errors
from dopamine_jax.sweeps import ray_task
from dopamine_jax.sweeps import worker as worker_lib
from dopamine_jax.system import children
from dopamine_jax.system import signals

_INCOMING = '.incoming'  # a folder: runs that come from nodes
_LOOK = 0.5  # seconds between two looks at the tasks
_REACH = 5.0  # seconds, for an address to answer
_STOP = 20.0  # seconds, for tasks to stop
_RETRIES = 3  # of a task whose node or process is gone


class Resources(NamedTuple):
  """What tasks need, and how many there are at once.

  Attributes:
    num_cpus: of a task.
    num_gpus: of a task.
    most: tasks at once; None: as many as fit.
  """

  num_cpus: float
  num_gpus: float
  most: int | None

  def slots(self, nodes: Sequence[dict[str, float]]) -> int:
    """Returns how many tasks to have at once on nodes of these resources."""
    return self.most or max(1, sum(map(self.fitting, nodes)))

  def fitting(self, node: dict[str, float]) -> int:
    """Returns how many tasks fit on a node, which has these resources."""
    needed = {'CPU': self.num_cpus, 'GPU': self.num_gpus}
    return min(
      math.floor(node.get(name, 0) / share + 1e-6)
      for name, share in needed.items()
      if share
    )


@contextlib.contextmanager
def connected(address: str) -> Iterator[None]:
  """Connects to a cluster meanwhile.

  Args:
    address: 'ray': the one of this machine, else one that is started; or
      'ray://HOST:PORT' or 'HOST:PORT'.

  Raises:
    UserError: if Ray is not installed, or nothing answers.
  """
  ray = _imported(address)
  quiet = {'log_to_driver': False, 'logging_level': logging.ERROR}
  try:
    with warnings.catch_warnings(action='ignore'):
      if address == 'ray':
        _connect_here(ray, quiet)
      else:
        _reach(address)
        ray.init(address, **quiet)
    _keep_quiet(ray)
  except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
    raise errors.UserError(
      f'--cluster {address}: no Ray cluster lets this process in there '
      f'({errors.first_line(error).rstrip(".")}). Start one by '
      "'ray start --head', or give the address that it has told. Of one on "
      'another machine Ray wants RAY_AUTH_MODE=token and its token.'
    ) from error
  try:
    yield
  finally:
    ray.shutdown()


def resources(
  num_cpus: float | None, num_gpus: float | None, most: int | None
) -> Resources:
  """Returns what tasks need, by what the cluster has.

  Args:
    num_cpus: None: one.
    num_gpus: None: one, if a node has some.
    most: tasks at once; None: as many as fit.
  """
  if num_gpus is None:
    num_gpus = float(any(each.get('GPU') for each in nodes()))
  return Resources(num_cpus or 1.0, num_gpus, most)


def run(
  folder: pathlib.Path,
  needed: Resources,
  say: Callable[[str], None],
  show: Callable[[], None],
) -> int:
  """Has the cluster that is connected train a sweep to its end.

  Args:
    folder: the sweep's.
    needed: of tasks.
    say: prints what the user should know.
    show: is called again and again, to show how far it is.

  Returns:
    The exit status: 0, or that of a signal.

  Raises:
    UserError: if a node can't train the sweep at all.
  """
  if not any(map(needed.fitting, nodes())):
    say(
      f'Warning: no node has {needed.num_cpus:g} CPUs and {needed.num_gpus:g} '
      'GPUs for a task, which waits until one comes. --num_cpus and --num_gpus '
      'ask for less.'
    )
  sweep = worker_lib.Sweep(folder)
  with signals.stop_signals() as stop, _Tasks(sweep, needed, say) as tasks:
    while not stop.is_set:
      tasks.start()
      if not tasks.running and sweep.is_complete():
        break
      tasks.collect()
      show()
  show()
  return stop.status


class _Tasks:
  """The tasks of a sweep."""

  def __init__(self, sweep, needed, say):
    import ray

    self.running = {}  # (pack, what lets go of its lease) by reference
    self._ray = ray
    self._sweep = sweep
    self._needed = needed
    self._say = say
    self._nodes = 0  # how many there were
    self._sends = False  # whether nodes need files
    self._token = f'.ray-{secrets.token_hex(16)}'
    self._remote = ray.remote(ray_task.train).options(
      num_cpus=needed.num_cpus,
      num_gpus=needed.num_gpus,
      max_retries=_RETRIES,
      retry_exceptions=[ray_task.Lost],
    )

  def __enter__(self):
    _tidy(self._sweep.folder)
    (self._sweep.folder / self._token).touch()
    return self

  def __exit__(self, *exc):
    """Cancels what still runs, and gives its packs back."""
    for reference in self.running:
      self._ray.cancel(reference, force=False)
    if self.running:
      references = list(self.running)
      self._ray.wait(references, num_returns=len(references), timeout=_STOP)
    for pack, closers in self.running.values():
      closers.close()
      with self._sweep.journal.locked():
        self._sweep.leases.give_back(pack)
    (self._sweep.folder / self._token).unlink(missing_ok=True)

  def start(self):
    """Takes packs and hands them to Ray, as many as fit."""
    there = nodes()
    if len(there) < self._nodes:
      self._say(
        f'{self._nodes - len(there)} of {self._nodes} nodes are gone: others '
        'go on with what they trained.'
      )
    self._nodes = len(there)
    slots = self._needed.slots(there)
    while len(self.running) < slots and (pack := self._sweep.take()):
      closers = contextlib.ExitStack()
      closers.enter_context(self._sweep.leases.kept(pack))
      self._submit(pack, closers)

  def collect(self):
    """Notes what has come of tasks, after a short wait."""
    if not self.running:  # others train what is left
      time.sleep(_LOOK)
      return
    ready, _ = self._ray.wait(list(self.running), timeout=_LOOK)
    for reference in ready:
      pack, closers = self.running[reference]
      done = self._result(reference, pack)
      del self.running[reference]
      if done and done.outcome is None:
        self._sends = True
        self._require_no_parents()
        self._submit(pack, closers)
        continue
      closers.close()
      if done:
        self._note(pack, done)

  def _submit(self, pack, closers):
    job = ray_task.Job(
      str(self._sweep.folder.resolve()),
      self._token,
      pack.name,
      os.getcwd(),
      max(1, int(self._needed.num_cpus)),
      self._needed.num_gpus,
      self._files(pack) if self._sends else None,
    )
    self.running[self._remote.remote(job)] = pack, closers

  def _files(self, pack):
    """Returns an archive of what a node needs to train a pack."""
    folder = self._sweep.folder
    paths = [folder / 'sweep.json', folder / 'journal.jsonl']
    paths += [self._sweep.path(each) for each in pack.trials]
    return ray_task.pack(folder, paths)

  def _result(self, reference, pack):
    """Returns a `Done`; None if the pack has failed, which is noted."""
    exceptions = self._ray.exceptions
    try:
      return self._ray.get(reference)
    except exceptions.RayTaskError as error:
      if isinstance(error.cause, ray_task.Unable):
        raise _unable(error.cause) from error
      if not isinstance(error.cause, ray_task.Lost):
        raise _unable(error.cause or error) from error
      why = str(error.cause)
    except exceptions.RayError as error:  # such as its node, and the next ones
      why = errors.told(error)
    self._say(f'Pack {pack.name} has failed: {why}')
    self._sweep.give_up(pack, why, why)
    return None

  def _note(self, pack, done):
    """Notes in the journal what a task has returned."""
    for line in done.said:
      self._say(line)
    if done.files:
      _put(done.files, self._sweep.folder)
    if 'scores' in done.outcome:
      scores = {int(k): np.array(x) for k, x in done.outcome['scores'].items()}
      self._sweep.end(pack, scores)
      return
    why = done.outcome['why']
    self._say(f'Pack {pack.name} has failed: {why}')
    self._sweep.give_up(pack, why, done.outcome['traceback'])

  def _require_no_parents(self):
    if self._sweep.study.scheduler == 'pbt':
      raise errors.UserError(
        f'a node does not see {self._sweep.folder}, and with --scheduler pbt '
        'trials go on from runs of others, which lie there. Put the sweep on '
        'storage that all nodes share, under one path.'
      )


def _put(data, folder):
  """Puts runs in the place of what lies there, each whole or not at all."""
  new, old = folder / _INCOMING / 'new', folder / _INCOMING / 'old'
  old.mkdir(parents=True)
  ray_task.unpack(data, new)
  (folder / 'logs').mkdir(exist_ok=True)
  for log in new.glob('logs/*'):
    with open(folder / 'logs' / log.name, 'ab') as file:
      file.write(log.read_bytes())
  for run in [each for each in new.iterdir() if each.name != 'logs']:
    with contextlib.suppress(FileNotFoundError):  # there was none
      os.rename(folder / run.name, old / run.name)
    os.rename(run, folder / run.name)
  shutil.rmtree(folder / _INCOMING)


def _tidy(folder):
  """Undoes what a kill has cut short in `_put`."""
  for run in (folder / _INCOMING / 'old').glob('*'):
    if not (folder / run.name).exists():
      os.rename(run, folder / run.name)
  shutil.rmtree(folder / _INCOMING, ignore_errors=True)


def _imported(address):
  """Returns the module, if it is installed."""
  try:
    import ray
  except ImportError as error:
    raise errors.UserError(
      f'--cluster {address} needs Ray, which is not installed: '
      f'{errors.install("ray")}'
    ) from error
  return ray


def _connect_here(ray, quiet):
  """Connects to the cluster of this machine, else starts one."""
  find = ray._private.services.get_ray_address_from_environment
  try:
    _reach(find('auto', None))  # of one that is gone Ray still has an address
  except OSError:
    if os.environ.get('RAY_ADDRESS'):
      raise
    os.environ.setdefault('RAY_USAGE_STATS_ENABLED', '0')
    cores = len(children.cores())
    ray.init('local', num_cpus=cores, include_dashboard=False, **quiet)
  else:
    ray.init('auto', **quiet)


def _keep_quiet(ray):
  """Drops what Ray prints, such as a hundred lines where a node is gone."""
  with contextlib.suppress(AttributeError):  # another version of Ray
    ray._private.worker.print_to_stdstream = lambda *args, **kwargs: None


def _reach(address):
  """Asks whether anything listens there, since Ray itself waits for minutes."""
  host, _, port = address.removeprefix('ray://').rpartition(':')
  socket.create_connection((host, int(port)), _REACH).close()


def nodes() -> list[dict[str, Any]]:
  """Returns the resources of the nodes that are there."""
  import ray

  return [each['Resources'] for each in ray.nodes() if each['Alive']]


def _unable(error):
  return errors.UserError(
    f'a node can not train the sweep: {errors.first_line(error).rstrip(".")}. '
    'Each needs this version of dopamine-jax, and the files and modules that '
    'the configuration names.'
  )
