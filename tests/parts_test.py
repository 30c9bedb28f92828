"""Varied trainings that several processes divide among them."""

import os
import pathlib
import signal
import subprocess
import sys
import time

from hypothesis import given
from hypothesis import strategies as st
import psutil
import pytest
import typer

from dopamine_jax.commands import cli
from dopamine_jax.commands import parts
from dopamine_jax.system import children
from dopamine_jax.training import fingerprint

CONFIG = pathlib.Path(__file__).parent.parent / 'configs/dqn_cartpole.gin'
SMALL = (
  'runner.Runner.training_steps = 40',
  'runner.Runner.evaluation_episodes = 0',
  'runner.Runner.checkpoint_period = 1',
  'networks.MLP.hidden = (8,)',
  'uniform.UniformReplay.capacity = 200',
  'uniform.UniformReplay.min_history = 20',
  'uniform.UniformReplay.batch_size = 4',
)
VARY = 'dqn.DQN.gamma = [0.5, 0.8, 0.9]'
UNLIKE = 'dqn.DQN.n_step = [1, 3]'
NAMES = ('gamma_0.5', 'gamma_0.8', 'gamma_0.9')
TWO_CORES = pytest.mark.skipif(
  len(children.cores()) < 2, reason='Each process needs a core of its own.'
)


def command(*words, iterations):
  bindings = (*SMALL, f'runner.Runner.num_iterations = {iterations}')
  return [
    *(sys.executable, '-m', 'dopamine_jax', 'train', str(CONFIG)),
    *(word for binding in bindings for word in ('-b', binding)),
    *('--vary', VARY, *words),
  ]


def wait_for(condition):
  end = time.monotonic() + 120
  while not condition():
    assert time.monotonic() < end, 'waited for too long'
    time.sleep(0.05)


def fingerprints(folder):
  return [fingerprint.fingerprint(folder / name) for name in NAMES]


@given(st.integers(1, 40), st.data())
def test_parts_have_everything_once_and_sizes_alike(trainings, data):
  count = data.draw(st.integers(1, trainings))
  runners = {f'run {i}': i for i in range(trainings)}
  divided = [parts.of(runners, i + 1, count) for i in range(count)]
  assert [name for part in divided for name in part] == list(runners)
  sizes = [len(part) for part in divided]
  assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize('text', ['', '1', '0/2', '3/2', 'a/2', '1/', '-1/2'])
def test_what_is_no_part_is_told(text):
  with pytest.raises(typer.BadParameter, match='expected one such as 1/4'):
    parts.parse(text)


@pytest.mark.parametrize(
  ('words', 'told'),
  [
    (['--processes', '2'], 'no --vary is given'),
    (['--part', '1/2'], 'no --vary is given'),
    (['--vary', VARY, '--processes', '9999'], 'cores that are here'),
    (['--vary', VARY, '--part', '1/2', '--processes', '2'], 'divided already'),
    (['--vary', VARY, '--part', '1/4'], 'gives 3 trainings'),
    (['--vary', VARY, '--processes', '4'], 'gives 3 trainings'),
    # Each part by itself could be trained.
    (['--vary', UNLIKE, '--processes', '2'], 'n_step can not differ'),
    (['--vary', UNLIKE, '--part', '1/2'], 'n_step can not differ'),
  ],
)
def test_what_can_not_be_divided_is_told(
  words, told, capsys, monkeypatch, tmp_path
):
  words = ['train', 'dqn_cartpole', '--base_dir', str(tmp_path / 'x'), *words]
  monkeypatch.setattr(sys, 'argv', ['dopamine-jax', *words])
  monkeypatch.setattr(children, 'cores', lambda: list(range(8)))
  assert cli.main() != 0
  assert told in ' '.join(capsys.readouterr().err.replace('│', '').split())
  assert not (tmp_path / 'x').exists()


def test_parts_need_one_folder_and_one_machine(capsys, monkeypatch):
  words = ['train', 'dqn_cartpole', '--vary', VARY]
  monkeypatch.setattr(sys, 'argv', ['dopamine-jax', *words, '--part', '1/2'])
  assert cli.main() == 2
  assert 'the same --base_dir' in capsys.readouterr().err
  monkeypatch.setenv('JAX_COORDINATOR_ADDRESS', 'here:1')
  monkeypatch.setattr(sys, 'argv', ['dopamine-jax', *words, '--processes', '2'])
  monkeypatch.setattr(children, 'cores', lambda: [0, 1])
  assert cli.main() == 2
  assert 'JAX_COORDINATOR_ADDRESS' in capsys.readouterr().err


# What stands for the command: it prints, and ends or waits as its part says.
STAND_IN = """
import os, sys, time
part = os.environ['DOPAMINE_JAX_PART']
print(part, sys.argv[4:], sorted(os.sched_getaffinity(0)))
sys.stderr.buffer.write(b'caf\\xe9\\n')
sys.stderr.flush()
if part == '1/2':
  os.kill(os.getpid(), 9)
sys.exit(5)
"""


@TWO_CORES
def test_what_parts_print_is_printed_and_a_failure_is_told(
  tmp_path, capfd, monkeypatch
):
  program = tmp_path / 'python'
  program.write_text(f'#!{sys.executable}\n{STAND_IN}')
  program.chmod(0o700)
  monkeypatch.setattr(sys, 'executable', str(program))
  monkeypatch.setattr(sys, 'argv', ['dopamine-jax', 'train', '--', 'a'])
  before = os.sched_getaffinity(0)
  said = []
  assert parts.train(2, said.append) == 128 + signal.SIGKILL
  assert os.sched_getaffinity(0) == before
  out, err = capfd.readouterr()
  lines = sorted(out.splitlines())
  cores = sorted(before)
  assert lines == [
    f"1/2  1/2 ['train', '--', 'a'] {cores[::2]}",
    f"2/2  2/2 ['train', '--', 'a'] {cores[1::2]}",
  ]
  assert sorted(err.splitlines()) == ['1/2  caf\ufffd', '2/2  caf\ufffd']
  assert said == [
    'Error: part 1/2 was ended by SIGKILL. The same command goes on with it.',
    'Error: part 2/2 failed with status 5: see above.',
  ]


@TWO_CORES
def test_each_process_trains_its_part_and_a_stop_reaches_all(tmp_path):
  folder = tmp_path / 'runs'
  words = ['--processes', '2', '--base_dir', str(folder)]
  started = subprocess.Popen(
    command(*words, iterations=10_000), stderr=subprocess.PIPE, text=True
  )
  wait_for(lambda: all((folder / x / 'checkpoints').is_dir() for x in NAMES))
  children = psutil.Process(started.pid).children()
  assert len(children) == 2
  cores = [each.cpu_affinity() for each in children]
  assert not set(cores[0]) & set(cores[1])
  started.send_signal(signal.SIGTERM)
  _, error = started.communicate(timeout=60)
  assert started.returncode == 128 + signal.SIGTERM
  for part in ('1/2', '2/2'):
    assert f'{part}  Error: Stopped by SIGTERM' in error
  assert not any(each.is_running() for each in children)


def test_a_part_stops_when_the_one_that_started_it_is_gone():
  program = (
    'import time; from dopamine_jax.system import children; '
    'children.follow_starter(); time.sleep(60)'
  )
  part = subprocess.Popen(
    [sys.executable, '-c', program], stdin=subprocess.PIPE
  )
  part.stdin.close()
  assert part.wait(timeout=60) == -signal.SIGTERM


# What a run needs to go on is tested in `lanes_test` and `resume_test`.
@pytest.mark.slow
def test_a_divided_training_that_was_killed_ends_as_one_never_was(tmp_path):
  words = {
    name: command(
      *('--processes', '2', '--base_dir', str(tmp_path / name)), iterations=40
    )
    for name in ('whole', 'killed')
  }
  started = subprocess.Popen(words['killed'])
  wait_for(
    lambda: all((tmp_path / f'killed/{x}/checkpoints').is_dir() for x in NAMES)
  )
  children = psutil.Process(started.pid).children()
  started.kill()
  started.wait()
  wait_for(lambda: not any(each.is_running() for each in children))
  for each in words.values():
    subprocess.run(each, check=True)
  assert fingerprints(tmp_path / 'killed') == fingerprints(tmp_path / 'whole')
