"""Sweeps over a cluster of Ray, which runs on this machine."""

import contextlib
import os
import socket
import subprocess
import sys
import time

import psutil
import pytest

from dopamine_jax import errors
from dopamine_jax.sweeps import packs
from dopamine_jax.sweeps import ray_cluster
from dopamine_jax.sweeps import ray_task
from tests.sweeps import small

# In the place of Python: what it does is its folder's `does`.
PYTHON = """\
#!/bin/bash
here=$(dirname "$0")
echo "$NPROC $XLA_CLIENT_MEM_FRACTION $PWD" > "$here/environment"
folder=$6 output=$8
source "$here/does"
"""
SCORES = """echo '{"scores": {"1": [2.0, NaN]}}' > "$output"; echo Warning"""


def job(folder, **changes):
  given = ray_task.Job(str(folder), 'a', '0.0', str(folder), 3, 0.5)
  return given._replace(**changes)


@pytest.fixture
def python(tmp_path, monkeypatch):
  """Sets what a task's process does, in shell."""
  folder = tmp_path / 'python'
  folder.mkdir()
  (folder / 'python').write_text(PYTHON)
  (folder / 'python').chmod(0o755)
  monkeypatch.setattr(sys, 'executable', str(folder / 'python'))
  monkeypatch.delenv('XLA_CLIENT_MEM_FRACTION', raising=False)
  monkeypatch.delenv('XLA_PYTHON_CLIENT_MEM_FRACTION', raising=False)
  return (folder / 'does').write_text


@pytest.fixture
def shared(tmp_path):
  """The folder of a sweep that a task sees."""
  folder = tmp_path / 'sweep'
  folder.mkdir()
  (folder / 'a').touch()
  return folder


def test_a_task_trains_where_it_sees_the_folder(python, shared, tmp_path):
  python(f'touch "$folder/trained"; {SCORES}')
  done = ray_task.train(job(shared))
  assert done.outcome['scores']['1'][0] == 2.0
  assert done.said == ['Warning']
  assert done.files is None
  assert (shared / 'trained').exists()
  environment = (tmp_path / 'python/environment').read_text()
  assert environment == f'3 0.375 {shared}\n'


def test_a_task_elsewhere_sends_back_what_it_trained(python, shared, tmp_path):
  old = shared / 'run/checkpoints/1'
  old.mkdir(parents=True)
  (old / 'state').write_text('old')
  (shared / 'sweep.json').write_text('{}')
  sent = ray_task.pack(
    shared, [shared / 'sweep.json', shared / 'run', shared / 'none']
  )
  (shared / 'a').unlink()
  python(
    'cat "$folder/sweep.json" > "$folder/run/run.json"; mkdir "$folder/logs"; '
    'echo b > "$folder/logs/0.0.txt"; mkdir "$folder/run/checkpoints/2"; '
    'rm -r "$folder/run/checkpoints/1"; '
    f'{SCORES}'
  )
  assert ray_task.train(job(shared)).outcome is None  # which asks for files
  done = ray_task.train(job(shared, files=sent))
  assert old.exists()
  (shared / 'logs').mkdir()
  (shared / 'logs/0.0.txt').write_text('a\n')
  ray_cluster._put(done.files, shared)
  found = sorted(str(x.relative_to(shared)) for x in shared.rglob('*'))
  assert found == [
    *('logs', 'logs/0.0.txt', 'run', 'run/checkpoints'),
    *('run/checkpoints/2', 'run/run.json', 'sweep.json'),
  ]
  assert (shared / 'logs/0.0.txt').read_text() == 'a\nb\n'


def test_a_kill_between_old_and_new_leaves_the_old(shared):
  old = shared / ray_cluster._INCOMING / 'old/run'
  old.mkdir(parents=True)
  (old / 'run.json').touch()
  ray_cluster._tidy(shared)
  assert sorted(x.name for x in shared.iterdir()) == ['a', 'run']


@pytest.mark.parametrize(
  ('does', 'error', 'told'),
  [
    ('kill -KILL $$', ray_task.Lost, 'ended by SIGKILL: for want of memory'),
    ('exit 143', ray_task.Lost, 'ended by SIGTERM'),
    ('echo x; echo Error: no file; exit 1', ray_task.Unable, 'says: no file'),
    ('echo no module; exit 1', ray_task.Unable, 'no module'),
  ],
)
def test_a_process_that_wrote_nothing_is_told(
  python, shared, does, error, told
):
  python(does)
  with pytest.raises(error, match=told):
    ray_task.train(job(shared))


def test_what_a_training_raises_is_its_outcome():
  def fail():
    raise ValueError('of mine')

  found = packs.outcome(fail)
  assert found['why'].startswith('ValueError: of mine')
  assert 'in fail' in found['traceback']


@pytest.mark.parametrize(
  ('cpus', 'gpus', 'node', 'fits'),
  [
    (1, 0, {'CPU': 4}, 4),
    (1.5, 0, {'CPU': 4}, 2),
    (1, 0.25, {'CPU': 16, 'GPU': 2}, 8),
    (1, 0.1, {'CPU': 16, 'GPU': 1}, 10),  # whatever floats say
    (1, 1, {'CPU': 16}, 0),
  ],
)
def test_as_many_tasks_as_fit(cpus, gpus, node, fits):
  assert ray_cluster.Resources(cpus, gpus, None).fitting(node) == fits


def test_without_ray_its_extra_is_named(monkeypatch):
  monkeypatch.setitem(sys.modules, 'ray', None)
  with (
    pytest.raises(errors.UserError, match=r"pip install '.*\[ray\]'"),
    ray_cluster.connected('ray'),
  ):
    pass


@pytest.mark.parametrize('scheme', ['', 'ray://'])
def test_where_nothing_listens_is_told_at_once(scheme, monkeypatch):
  monkeypatch.setattr(ray_cluster, '_imported', lambda address: _NoRay)
  with socket.socket() as taken:  # and nobody listens
    taken.bind(('127.0.0.1', 0))
    address = f'{scheme}127.0.0.1:{taken.getsockname()[1]}'
    with (
      pytest.raises(errors.UserError, match=f'{address}.*refused'),
      ray_cluster.connected(address),
    ):
      pass


class _NoRay:
  class exceptions:
    RayError = RuntimeError


def _alone(folder):
  """Returns words before a command that then sees nothing in a folder."""
  hide = f'mount -t tmpfs none "{folder}" && exec "$@"'
  return ['unshare', '-Urm', 'sh', '-c', hide, 'sh']


def _can_be_alone(folder):
  with contextlib.suppress(FileNotFoundError):
    words = [*_alone(folder), 'true']
    return not subprocess.run(words, capture_output=True).returncode
  return False


@pytest.fixture
def start_node(tmp_path, monkeypatch):
  """Starts a node, the first at whose address the others join."""
  pytest.importorskip('ray')
  monkeypatch.setenv('RAY_AUTH_MODE', 'disabled')
  monkeypatch.delenv('RAY_ADDRESS', raising=False)
  nodes = []

  def start(address, *before, **env):
    _, _, port = address.partition(':')
    where = ['--head', f'--port={port}', '--include-dashboard=false']
    words = [
      *(*before, sys.executable, '-m', 'ray.scripts.scripts', 'start'),
      *([f'--address={address}'] if nodes else where),
      *('--num-cpus=1', '--object-store-memory=83886080', '--block'),
      '--disable-usage-stats',
    ]
    with open(tmp_path / f'node{len(nodes)}', 'w') as log:
      nodes.append(
        subprocess.Popen(
          words,
          env={**os.environ, **env},
          stdout=log,
          stderr=log,
          start_new_session=True,
        )
      )
    wait_for(lambda: 'started' in (tmp_path / log.name).read_text())
    return nodes[-1]

  yield start
  for node in reversed(nodes):
    end(node)


def end(node):
  """Kills a node and all that it has started."""
  with contextlib.suppress(psutil.NoSuchProcess):
    for each in psutil.Process(node.pid).children(recursive=True):
      with contextlib.suppress(psutil.NoSuchProcess):
        each.kill()
  node.kill()
  node.wait()


def wait_for(condition):
  limit = time.monotonic() + 300
  while not condition():
    assert time.monotonic() < limit, 'waited for too long'
    time.sleep(0.05)


def free_address():
  with socket.socket() as taken:
    taken.bind(('127.0.0.1', 0))
    return f'127.0.0.1:{taken.getsockname()[1]}'


# The first node shares the folder, the second doesn't, and is killed; then so
# is the command.
@pytest.mark.slow
def test_a_sweep_over_ray_equals_one_by_processes(start_node, tmp_path):
  sweeps = tmp_path / 'sweeps'
  sweeps.mkdir()
  if not _can_be_alone(sweeps):
    pytest.skip('Here no process can be kept from a folder.')
  assert small.sweep(sweeps / 'here') == 0
  address, folder = free_address(), sweeps / 'ray'
  start_node(address)
  second = start_node(address, *_alone(sweeps))
  words = small.words(folder, '--cluster', address)
  with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as command:
    wait_for(lambda: list(folder.glob('0*/checkpoints/*')))
    end(second)
    wait_for(lambda: '"result"' in (folder / 'journal.jsonl').read_text())
    command.kill()
  resume = [*small.COMMAND, 'resume', str(folder), '--cluster', address]
  assert subprocess.run(resume).returncode == 0
  assert small.outcome(folder) == small.outcome(sweeps / 'here')
  assert not list(folder.glob('leases/*'))


@pytest.mark.slow
def test_a_node_that_can_not_train_ends_the_command(start_node, tmp_path):
  sweeps, own = tmp_path / 'sweeps', tmp_path / 'own'
  sweeps.mkdir()
  own.mkdir()
  if not _can_be_alone(own):
    pytest.skip('Here no process can be kept from a folder.')
  config = own / 'mine.gin'
  config.write_text("include 'dopamine_jax/configs/dqn_cartpole.gin'\n")
  address = free_address()
  start_node(address, *_alone(own))
  words = small.words(sweeps / 'a', '--cluster', address, config=str(config))
  done = subprocess.run(words, capture_output=True, text=True)
  assert done.returncode == 1
  told = 'Error: a node can not train the sweep: '
  assert told in done.stderr
  assert 'mine.gin' in done.stderr.partition(told)[2]
  assert '"failed"' not in (sweeps / 'a/journal.jsonl').read_text()
