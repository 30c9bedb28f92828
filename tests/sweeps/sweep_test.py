"""Sweeps from their command line to their runs."""

import errno
import pathlib
import signal
import subprocess
import sys

import numpy as np
import psutil
import pytest
import typer.testing

import dopamine_jax as dj
from dopamine_jax import errors
from dopamine_jax.commands import cli
from dopamine_jax.metrics import csv_file
from dopamine_jax.sweeps import journal as journal_lib
from dopamine_jax.sweeps import plan
from dopamine_jax.sweeps import start
from dopamine_jax.sweeps import study as study_lib
from dopamine_jax.sweeps import worker as worker_lib
from dopamine_jax.training import advice
from dopamine_jax.training import fingerprint

SMALL = [
  'runner.Runner.num_iterations = 4',
  'runner.Runner.training_steps = 64',
  'runner.Runner.checkpoint_period = 1',
  'runner.Runner.evaluation_episodes = 2',
  'runner.Runner.evaluation_period = 1',
  'networks.MLP.hidden = (8,)',
  'uniform.UniformReplay.capacity = 300',
  'uniform.UniformReplay.min_history = 32',
  'uniform.UniformReplay.batch_size = 4',
]
GAMMAS = 'dqn.DQN.gamma = [0.5, 0.9, 0.99]'


OPTIONS = {
  'search': None,
  'trials': None,
  'scheduler': 'asha',
  'rung_steps': 64,
  'reduction': 2,
  'metric': None,
  'last': None,
  'seed': 3,
  'num_seeds': 2,
  'search_seed': 0,
  'say': lambda line: None,
}


def define(space=(GAMMAS,), bindings=(), files=('dqn_cartpole',), **given):
  files = [pathlib.Path(each) for each in files]
  return start.define(
    files, [*SMALL, *bindings], space, **{**OPTIONS, **given}
  )[0]


def begin(folder, pack=8, **given):
  start.begin(folder, define(**given), lambda: pack)
  return worker_lib.Sweep(folder)


def never():
  raise AssertionError('nobody else trains anything')


def work(folder):
  said = []
  worker_lib.work(folder, never, said.append)
  return said


def command(*words):
  """Returns the words of a command that starts a small sweep."""
  bindings = [word for each in SMALL for word in ('-b', each)]
  return ['sweep', 'dqn_cartpole', *bindings, *words]


def run(*words):
  return typer.testing.CliRunner().invoke(cli.app, words)


def prints_of(folder):
  return {
    each.parent.name: fingerprint.fingerprint(each.parent, lambda line: None)
    for each in sorted(folder.glob('*/run.json'))
  }


@pytest.mark.usefixtures('same_programs')  # what pauses is no matter of them
def test_a_sweep_is_a_folder_of_runs_that_are_as_if_they_had_never_paused(
  tmp_path,
):
  folder = tmp_path / 'sweep'
  # Nothing is worse here by more than chance, so that both trials go on.
  space = {'dqn.DQN.gamma': [0.9, 0.99]}
  begin(folder, space=('dqn.DQN.gamma = [0.9, 0.99]',), rung_steps=128)
  work(folder)
  sweep = worker_lib.Sweep(folder)
  state = sweep.look()
  assert sweep.is_complete()
  assert [each.trials for each in state.packs] == [(0, 1), (0, 1)]
  for trial, rung in ((0, 0), (1, 0), (0, 1), (1, 1)):
    path, seeds = sweep.path(trial), sweep.study.seeds
    statistics = csv_file.of_iteration(path, sweep.study.rungs[rung], seeds)
    np.testing.assert_array_equal(
      state.scores[trial, rung], statistics['Eval/AverageReturns']
    )
  assert dj.load(sweep.path(1)).act(np.zeros(4, np.float32)) in (0, 1)
  # It is ended: nothing more is done, nor noted.
  before = journal_lib.Journal(folder).read()
  work(folder)
  assert journal_lib.Journal(folder).read() == before

  dj.train(
    *('dqn_cartpole', tmp_path / 'whole'),
    **{'vary': space, 'bindings': SMALL, 'seed': 3, 'num_seeds': 2},
    quiet=True,
  )
  whole = prints_of(tmp_path / 'whole')
  assert list(prints_of(folder)) == ['0000_gamma_0.9', '0001_gamma_0.99']
  assert list(prints_of(folder).values()) == list(whole.values())


def failing(error):
  def train(self, pack, say):
    del say
    if 1 in pack.trials:
      raise error
    return {each: np.array([1.0, 2.0]) for each in pack.trials}

  return train


def test_a_trial_that_fails_is_given_up_and_the_sweep_goes_on(
  tmp_path, monkeypatch
):
  begin(tmp_path)
  error = errors.UserError('gamma is not to its taste')
  monkeypatch.setattr(worker_lib.Sweep, 'train', failing(error))
  said = work(tmp_path)
  sweep = worker_lib.Sweep(tmp_path)
  state = sweep.look()
  assert sweep.is_complete()
  assert list(state.given_up) == [1]
  assert {0, 2} <= {trial for trial, rung in state.scores if rung == 2}
  # Of all three, of the two that have it, and of it alone three times.
  files = sorted((tmp_path / 'failures').iterdir())
  assert len(files) == 5
  for each in files:
    assert 'gamma is not to its taste' in each.read_text()
    assert 'Traceback' in each.read_text()
  assert any('gamma is not to its taste' in line for line in said)


def test_what_was_given_up_is_tried_again_if_the_user_asks(
  tmp_path, monkeypatch
):
  begin(tmp_path)
  scores = {each: np.array([1.0, 2.0]) for each in range(3)}
  with monkeypatch.context() as patch:
    error = errors.UserError('the simulator has no licence')
    patch.setattr(worker_lib.Sweep, 'train', failing(error))
    work(tmp_path)
  monkeypatch.setattr(
    worker_lib.Sweep,
    'train',
    lambda self, pack, say: {x: scores[x] for x in pack.trials},
  )
  sweep = worker_lib.Sweep(tmp_path)
  assert sweep.retry() == 1
  work(tmp_path)
  state = worker_lib.Sweep(tmp_path).look()
  assert not state.given_up
  assert (1, 2) in state.scores


def no_space():
  error = errors.UserError('could not save the checkpoint')
  error.__cause__ = OSError(errno.ENOSPC, 'No space left on device')
  return error


@pytest.mark.parametrize(
  'error', [no_space(), worker_lib.CanNotGoOn('--metric Foo/Bar')]
)
def test_what_is_no_trials_fault_stops_the_worker(tmp_path, monkeypatch, error):
  begin(tmp_path)
  before = journal_lib.Journal(tmp_path).read()
  monkeypatch.setattr(worker_lib.Sweep, 'train', failing(error))
  with pytest.raises(errors.UserError) as raised:
    work(tmp_path)
  assert raised.value is error
  assert journal_lib.Journal(tmp_path).read() == before
  assert not list((tmp_path / 'leases').iterdir())


def test_a_metric_that_no_run_has_is_told(tmp_path):
  sweep = begin(tmp_path, metric='Train/Foo')
  sweep.look()
  folder = sweep.path(0)
  folder.mkdir()
  header = 'seed,iteration,agent_steps,wall_time,name,value\n'
  rows = f'{header}3,1,64,0.0,Train/Loss,1.0\n'
  (folder / 'metrics.csv').write_text(rows)
  assert np.isnan(sweep._score(0, 0)).all()  # no episode has ended yet
  rows += '3,1,64,0.0,Train/AverageReturns,1.0\n'
  (folder / 'metrics.csv').write_text(rows)
  told = 'There are Train/AverageReturns, Train/Loss'
  with pytest.raises(worker_lib.CanNotGoOn, match=told):
    sweep._score(0, 0)


def test_a_fork_keeps_its_record_where_the_sweep_has_another_name(tmp_path):
  space = ('dqn.DQN.gamma = uniform(0.5, 0.9)',)
  given = {'space': space, 'scheduler': 'pbt', 'trials': 4}
  sweep = begin(tmp_path / 'one', **given)
  sweep.look()
  fork = plan.Trial(4, '0004_fork', {'dqn.DQN.gamma': 0.7}, 0, 2, 0)
  sweep.state.take([fork.record()])
  begins = sweep._start(fork)
  assert begins == str(sweep.path(2).resolve())
  (tmp_path / 'one' / fork.name).mkdir()
  record = f'starts.StartFrom.run = {begins!r}\n'
  (tmp_path / 'one' / fork.name / 'config.gin').write_text(record)
  (tmp_path / 'one').rename(tmp_path / 'other')
  moved = worker_lib.Sweep(tmp_path / 'other')
  moved.look()
  assert moved._start(fork) == begins


def test_no_other_training_goes_into_a_sweeps_folder(tmp_path):
  begin(tmp_path)
  for more in ([], ['--vary', GAMMAS]):
    result = run('train', 'dqn_cartpole', '--base_dir', str(tmp_path), *more)
    assert 'is the folder of a sweep' in str(result.exception)


def test_a_stop_is_no_failure(tmp_path, monkeypatch):
  begin(tmp_path)
  stop = advice.Stopped('Stopped by SIGTERM', 143)
  monkeypatch.setattr(worker_lib.Sweep, 'train', failing(stop))
  before = journal_lib.Journal(tmp_path).read()
  with pytest.raises(advice.Stopped):
    work(tmp_path)
  assert journal_lib.Journal(tmp_path).read() == before
  assert not list((tmp_path / 'leases').iterdir())


def test_what_shapes_the_program_parts_packs(tmp_path):
  space = (
    'dqn.DQN.n_step = [1, 3]',
    'dqn.DQN.gamma = [0.5, 0.9]',
    'networks.MLP.hidden = [(8,), (4,)]',
  )
  sweep = begin(tmp_path, space=space)
  state = sweep.look()
  assert [each.trials for each in state.packs] == [
    (0, 2),
    (1, 3),
    (4, 6),
    (5, 7),
  ]


@pytest.mark.parametrize(
  ('given', 'why'),
  [
    ({'space': ('dqn.DQN.gama = [1]',)}, "--vary: dqn.DQN has no .* 'gama'"),
    (
      {'space': ('dqn.DQN.gamma = [0.9, 1.5]',)},
      r'--vary: dqn\.DQN\.gamma = 1\.5 is out of',
    ),
    ({'space': ('catch.Catch.rows = [4]',)}, 'catch'),
    (
      {'space': ('runner.Runner.num_iterations = [4, 8]',)},
      'num_iterations is 8 in one trial and 4 in others',
    ),
    ({'rung_steps': 100}, 'expected a multiple of 64 agent steps'),
    ({'rung_steps': 256}, 'below 256'),
    ({'scheduler': 'none'}, '--rung_steps is for a scheduler'),
    ({'search': 'random'}, 'give --trials'),
    ({'trials': 2, 'search': 'grid'}, 'the grid has 3 combinations'),
    ({'trials': None, 'scheduler': 'pbt'}, 'fewer than four'),
    (
      {
        'space': ('dqn.DQN.n_step = integers(1, 5)',),
        'scheduler': 'pbt',
        'trials': 8,
      },
      'changes real numbers',
    ),
    ({'scheduler': 'pbt', 'search': 'tpe', 'trials': 8}, 'random'),
    (
      {'rung_steps': None, 'bindings': ('runner.Runner.num_iterations = 1',)},
      'before the end, and there is none',
    ),
  ],
)
def test_what_can_not_be_meant_is_told_and_nothing_is_written(
  tmp_path, given, why
):
  with pytest.raises(errors.UserError, match=why):
    begin(tmp_path / 'sweep', **given)
  assert not list(tmp_path.iterdir())


def test_pbt_changes_no_first_value_of_what_is_learnt():
  given = {'scheduler': 'pbt', 'search': 'random', 'trials': 8}
  with pytest.raises(errors.UserError, match=r'temperature is of the agent'):
    start.define(
      [pathlib.Path('sac_pendulum')],
      [],
      ['sac.SAC.temperature = uniform(0.1, 1)'],
      **{**OPTIONS, **given, 'rung_steps': None},
    )


def test_scores_are_of_evaluations_where_each_rung_has_one():
  assert define().metric == 'Eval/AverageReturns'
  rare = define(bindings=('runner.Runner.evaluation_period = 2',))
  assert (rare.metric, rare.last) == ('Train/AverageReturns', 5)


def test_rungs_lie_at_checkpoints():
  more = ['runner.Runner.num_iterations = 30']
  given = {'bindings': more, 'rung_steps': None, 'reduction': 3}
  assert define(**given).rungs == (4, 12, 30)
  more += ['runner.Runner.checkpoint_period = 5']
  assert define(**given).rungs == (5, 15, 30)
  population = define(
    **{**given, 'scheduler': 'pbt', 'trials': 4, 'search': 'random'}
  )
  assert population.rungs == (5, 10, 15, 20, 25, 30)


def test_another_sweep_is_not_mixed_into_a_folder(tmp_path):
  begin(tmp_path)
  words = ['--vary', 'dqn.DQN.gamma = [0.5, 0.9]', '--base_dir', str(tmp_path)]
  result = run(*command(*words))
  assert isinstance(result.exception, errors.UserError)
  told = str(result.exception)
  assert 'holds another sweep: ' in told
  assert 'space was dqn.DQN.gamma = [0.5, 0.9, 0.99], is' in told
  assert f'sweep resume {tmp_path}' in told


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path):
  (tmp_path / 'thesis.tex').write_text('')
  words = ['--vary', GAMMAS, '--base_dir', str(tmp_path)]
  result = run(*command(*words))
  assert 'holds something else than a sweep' in str(result.exception)
  assert [each.name for each in tmp_path.iterdir()] == ['thesis.tex']


def test_a_config_that_changed_is_not_gone_on_with(tmp_path):
  file = tmp_path / 'mine.gin'
  text = "include 'dopamine_jax/configs/dqn_cartpole.gin'\n"
  file.write_text(text)
  begin(tmp_path / 'sweep', files=(file,))
  study_lib.require_unchanged(study_lib.read(tmp_path / 'sweep'))
  file.write_text(f'{text}dqn.DQN.n_step = 2\n')
  result = run('sweep', 'resume', str(tmp_path / 'sweep'))
  assert 'not those that the sweep began with' in str(result.exception)
  file.unlink()
  result = run('sweep', 'resume', str(tmp_path / 'sweep'))
  assert str(file) in str(result.exception)


@pytest.mark.parametrize(
  ('damage', 'why'),
  [
    (lambda folder: (folder / 'sweep.json').unlink(), 'holds no sweep'),
    (
      lambda folder: (folder / 'sweep.json').write_text('{"version": 1}'),
      'can not be read',
    ),
    (
      lambda folder: (folder / 'sweep.json').write_text('{"version": 7}'),
      'is of version 7',
    ),
    (
      lambda folder: (folder / 'journal.jsonl').write_text(
        '{"event": "result", "more": 0}\n'
      ),
      'can not be followed',
    ),
  ],
)
def test_what_is_damaged_is_told(tmp_path, damage, why):
  begin(tmp_path)
  damage(tmp_path)
  with pytest.raises(errors.UserError, match=why):
    worker_lib.Sweep(tmp_path).look()


def test_status_shows_how_far_it_is(tmp_path, monkeypatch):
  begin(tmp_path)
  error = errors.UserError('it broke')
  monkeypatch.setattr(worker_lib.Sweep, 'train', failing(error))
  work(tmp_path)
  result = run('sweep', 'status', str(tmp_path))
  assert result.exit_code == 0, result.exception
  shown = result.output
  assert '0001_gamma_0.9 was given up: UserError: it broke' in shown
  assert '1.5 [' in shown
  assert f'compare {tmp_path}' in shown


# That a stopped and a killed sweep ends as one that never was is what
# `python -m tests.sweep_kills` shows.
@pytest.mark.slow
def test_a_signal_reaches_all_workers(tmp_path):
  folder = tmp_path / 'sweep'
  words = ['--vary', GAMMAS, '--pack', '2', '--workers', '2']
  words += ['--base_dir', str(folder), '-b', SMALL[0].replace('4', '400')]
  dopamine = [sys.executable, '-P', '-m', 'dopamine_jax']
  started = subprocess.Popen(
    [*dopamine, *command(*words)], stderr=subprocess.PIPE, text=True
  )
  while not list(folder.glob('*/checkpoints/*')):
    assert started.poll() is None
  workers = psutil.Process(started.pid).children()
  assert len(workers) == 2
  started.send_signal(signal.SIGINT)
  _, error = started.communicate(timeout=60)
  assert started.returncode == 128 + signal.SIGINT
  assert f'sweep resume {folder}' in error
  assert not any(each.is_running() for each in workers)


def test_halves_of_a_pack_have_names_of_their_own():
  pack = plan.Pack('1.2', 1, (4, 5, 6))
  failed, split = plan.failed(plan.State(), pack, 'why')
  assert failed == {
    'event': 'failed',
    'pack': '1.2',
    'attempt': 1,
    'why': 'why',
  }
  assert split['into'] == {'1.2a': [4], '1.2b': [5, 6]}
