"""Sweeps over a cluster of Ray, which runs on this machine."""

import socket
import sys

import pytest

from dopamine_jax import errors
from dopamine_jax.sweeps import packs
from dopamine_jax.sweeps import ray_cluster
from dopamine_jax.sweeps import ray_task

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
    ('echo x; echo Error: no file; exit 1', ray_task.Unable, 'sweep: no file'),
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
