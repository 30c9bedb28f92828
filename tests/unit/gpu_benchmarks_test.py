import pathlib
import sys

import pytest

from benchmarks import __main__ as main
from benchmarks import algorithms
from benchmarks import environments
from benchmarks import gpu
from benchmarks import gpu_jobs
from benchmarks import jobs
from benchmarks import ours
from benchmarks import rounds
from benchmarks import table
from benchmarks import twice
from dopamine_jax import config
from dopamine_jax import errors
from dopamine_jax import runner

EVERY = gpu_jobs.BY_NAME


def test_all_jobs_together_have_less_than_half_an_hour():
  limits = [job.limit for job in gpu_jobs.JOBS.values()]
  assert min(limits) > 0
  assert sum(limits) <= gpu_jobs.SECONDS < 30 * 60


@pytest.mark.parametrize('name', EVERY)
def test_the_numbers_of_a_job_fit_each_other(name):
  job = EVERY[name]
  assert {each.peer for each in job.contestants} <= {None, *environments.PEERS}
  rows = {each.label for each in job.contestants} | twice.TRAININGS.keys()
  for each in job.comparisons:
    assert {each.row, each.over or each.row} <= rows
  expected = job.hyperparameters
  if isinstance(expected, algorithms.OnPolicy):
    assert expected.rollout % expected.num_envs == 0
    assert expected.rollout % expected.batch_size == 0
    # brax's minibatches are of whole pieces, one of each environment.
    has_pieces = expected.num_envs % expected.num_minibatches == 0
    assert has_pieces or 'brax' not in rows
    assert job.window % expected.rollout == 0 < job.window
    assert job.warmup % job.window == 0
  elif expected:
    assert job.warmup > expected.min_history >= expected.batch_size


@pytest.mark.parametrize(
  'name', [name for name in EVERY if EVERY[name].hyperparameters]
)
def test_our_side_takes_every_job(name):
  job = EVERY[name]
  arguments = dict(job.contestants[0].arguments)
  engine = arguments.get('engine', 'PythonEngine')
  files, bindings = ours.configuration(job.hyperparameters, engine)
  built = config.load(files, bindings).build(runner.Runner)
  assert built.num_envs == job.hyperparameters.num_envs
  assert (type(built.engine).__name__ == engine) or (
    getattr(built.engine, '__name__', '') == engine
  )


def test_a_tenth_is_smaller_and_told_apart():
  for name, job in gpu_jobs.JOBS.items():
    small = EVERY[f'gpu-{name}-tenth']
    assert EVERY[f'gpu-{name}'] is job
    assert name == 'twice' or small.window < job.window
  labels = [each.label for each in gpu_jobs.TENTH['seeds'].contestants]
  assert labels[-2:] == ['ours, 256 seeds', 'rejax, 256 seeds']


JOB = jobs.Job(
  'Z: nothing',
  'agent steps/s',
  (
    jobs.Contestant('ours', 'ours'),
    jobs.Contestant('rejax', 'peers.rejax'),
    jobs.Contestant('brax', 'peers.brax'),
  ),
  (
    jobs.Comparison('ours', 'rejax', at_least=1.3),
    jobs.Comparison('ours', 'brax', at_least=1.0),
  ),
  limit=90,
)


@pytest.fixture
def measured(monkeypatch):
  """Returns what measures a job of three, of which rejax fails."""
  calls = []

  def measure(name, job, contestant, python, folder, variables, seconds):
    calls.append((name, contestant.label, python, variables, seconds))
    if contestant.label == 'rejax':
      raise errors.UserError('z: rejax failed:\nTraceback\nout | of memory')
    versions = {'jax': '1' if contestant.label == 'ours' else '2'}
    return {
      'values': [2.0, 3.0, 4.0],
      'memory': 10**9,
      'others': 0.5,
      'versions': versions,
    }

  now = iter(range(0, 1_000, 10))
  monkeypatch.setattr(gpu.time, 'perf_counter', lambda: next(now))
  monkeypatch.setattr(rounds, 'measure', measure)
  monkeypatch.setattr(
    environments, 'python', lambda peer, cuda: f'{peer}{cuda}'
  )
  monkeypatch.setitem(gpu_jobs.JOBS, 'z', JOB)
  monkeypatch.setitem(gpu_jobs.TENTH, 'z', JOB)

  def run(**settings):
    settings = gpu.Settings(environments.PEERS, **settings)
    return gpu.measured('z', settings), calls

  return run


def test_one_that_fails_is_a_row_and_the_others_run(measured):
  found, calls = measured()
  assert [call[1] for call in calls] == ['ours', 'rejax', 'brax']
  assert found.rows.keys() == {'ours', 'brax'}
  # The last line, which is no cell of its own.
  assert found.missing == {'rejax': 'no figure: out / of memory'}
  assert found.versions == {'jax': '1 and 2'}
  text = table.section(JOB, found.rows, found.versions, '', found.missing)
  assert '| rejax | no figure: out / of memory | | | |' in text
  assert '| ours / rejax |  |  | >= 1.30 |  |' in text
  assert '| ours / brax | 1.00 | 1.00 to 1.00 | >= 1.00 | yes |' in text


def test_each_has_a_fair_share_of_the_time_that_is_left(measured):
  _, calls = measured()
  # 10 s have passed before the first, 20 before the second, 30 before the last.
  assert [call[4] for call in calls] == [80 / 3, 70 / 2, 60 / 1]


def test_one_that_failed_is_not_run_again(measured):
  found, calls = measured(rounds=2)
  assert [call[1] for call in calls] == [
    'ours',
    'rejax',
    'brax',
    'ours',
    'brax',
  ]
  assert len(found.rows['ours'].rounds) == 2


def test_processes_use_one_card_or_the_cpu_alone(measured, monkeypatch):
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '3,4')
  _, calls = measured()
  name, _, python, variables, _ = calls[0]
  assert (name, python) == ('gpu-z', 'oursTrue')
  assert variables['JAX_PLATFORMS'] == 'cuda,cpu'
  assert variables['CUDA_VISIBLE_DEVICES'] == '3'
  assert variables['XLA_PYTHON_CLIENT_PREALLOCATE'] == 'false'
  calls.clear()
  measured(tenth=True)
  name, _, python, variables, _ = calls[0]
  assert (name, python) == ('gpu-z-tenth', 'oursFalse')
  assert variables == {'JAX_PLATFORMS': 'cpu'}


def test_one_that_can_not_be_installed_is_a_row(measured, monkeypatch):
  def python(peer, cuda):
    if peer == 'brax':
      raise errors.UserError('brax could not be installed: no network')
    return peer

  monkeypatch.setattr(environments, 'python', python)
  found, _ = measured()
  assert found.rows.keys() == {'ours'}
  assert 'no network' in found.missing['brax']


def test_a_process_past_its_time_ends_with_those_it_started(tmp_path):
  note = tmp_path / 'note'
  child = f'import time; time.sleep(1.5); open({str(note)!r}, "w")'
  script = (
    'import subprocess, sys, time;'
    f'subprocess.Popen([sys.executable, "-c", {child!r}]); time.sleep(60)'
  )
  code, _ = rounds._run([sys.executable, '-c', script], {}, 0.5)
  assert code is None
  rounds._run([sys.executable, '-c', 'import time; time.sleep(2)'], {}, None)
  assert not note.exists()


def test_what_a_process_said_is_kept():
  command = [sys.executable, '-c', 'import sys; sys.exit("so it is")']
  assert rounds._run(command, {}, 20) == (1, 'so it is\n')


def test_a_machine_without_a_driver_is_told(monkeypatch, tmp_path):
  monkeypatch.setenv('PATH', str(tmp_path))
  with pytest.raises(errors.UserError, match='--gpu --tenth'):
    gpu.card()


def test_the_card_is_named_with_its_driver(monkeypatch, tmp_path):
  program = tmp_path / 'nvidia-smi'
  program.write_text('#!/bin/sh\necho "NVIDIA $2, 80 MiB, 580.1"\n')
  program.chmod(0o755)
  monkeypatch.setenv('PATH', str(tmp_path))
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '1,0')
  assert gpu.card() == 'NVIDIA 1, 80 MiB, driver 580.1'


def test_on_a_gpu_jax_comes_with_cuda_and_torch_without():
  calls = environments.calls_of('sbx', cuda=True)
  assert calls[0][-2:] == list(environments._TORCH_OF_CPUS)
  assert 'jax[cuda12]==0.10.2' in calls[1]
  for peer in environments.PINS:
    plain = [list(call) for call in environments.PINS[peer]]
    assert environments.calls_of(peer) == plain
    calls = environments.calls_of(peer, cuda=True)
    wanted = {pin for call in calls for pin in call}
    has_jax = any('jaxlib==0.10.2' in call for call in plain)
    assert has_jax == ('jax[cuda12]==0.10.2' in wanted)
    assert not any(pin.startswith('jax==') for pin in wanted)


@pytest.mark.parametrize(
  ('arguments', 'said'),
  [
    (['--tenth'], 'give both'),
    (['--gpu', '--jobs', 'A'], 'no job is called A: there are seeds, '),
    (['--jobs', 'pong-pqn'], 'no job is called pong-pqn'),
    (['--gpu', '--rounds', '0'], 'at least 1'),
  ],
)
def test_what_does_not_fit_is_refused(arguments, said, monkeypatch, capsys):
  monkeypatch.setattr(sys, 'argv', ['benchmarks', *arguments])
  with pytest.raises(SystemExit):
    main.main()
  assert said in capsys.readouterr().err


@pytest.mark.parametrize(('digests', 'said'), [('aa', 'yes'), ('ab', 'no')])
def test_two_trainings_are_alike_or_not(digests, said, monkeypatch):
  given = iter(digests * len(twice.TRAININGS))
  monkeypatch.setattr(twice, '_trained', lambda *_: next(given))
  job = gpu_jobs.JOBS['twice']
  values, _ = twice.measure(job)
  rows = {name: table.Row([numbers]) for name, numbers in values.items()}
  text = table.section(job, rows, {}, '')
  for name in twice.TRAININGS:
    assert f'| {name} | {said} | {said} to {said} | yes | {said} |' in text


def test_a_file_says_what_was_not_run_and_keeps_what_was(tmp_path):
  path = tmp_path / 'gpu.md'
  first, second, *_ = gpu_jobs.JOBS.values()
  gpu.write(path, {first.title: f'## {first.title}\n\nmeasured\n'})
  found = gpu.Found({'DQN on Pong': table.Row([[1.0]])})
  tried = gpu._tried('twice', found, {})
  gpu.write(path, {gpu._TRIED: tried})
  found = gpu.Found({'ours': table.Row()}, {'rejax': 'no figure: why'}, {}, 5)
  again = gpu._tried('seeds', found, table.read(path))
  gpu.write(path, {gpu._TRIED: again})
  sections = table.read(path)
  assert list(sections) == [
    *[job.title for job in gpu_jobs.JOBS.values()],
    gpu._TRIED,
  ]
  assert 'measured' in sections[first.title]
  assert 'Not run on a GPU yet' in sections[second.title]
  assert 'Not tried yet: minatar-ppo, ' in sections[gpu._TRIED]
  lines = sections[gpu._TRIED].splitlines()
  assert lines[-2].startswith(
    '| seeds | ours; not rejax: no figure: why | 5 | '
  )
  assert lines[-1].startswith('| twice | DQN on Pong: yes | 0 | ')


def test_the_shipped_file_has_every_target():
  path = pathlib.Path(gpu.__file__).with_name('GPU.md')
  sections = table.read(path)
  for job in gpu_jobs.JOBS.values():
    for each in job.comparisons:
      name = f'{each.row} / {each.over}' if each.over else each.row
      show = table.yes_or_no if job.yes_or_no else table.number
      target = table._verdict(each, 0.0, show)[0]
      lines = [
        line
        for line in sections[job.title].splitlines()
        if line.startswith(f'| {name} |') and f'| {target} |' in line
      ]
      assert len(lines) == 1, (job.title, name)
