"""A run that was stopped, however, ends as one that never was.

Processes are killed at chosen moments rather than by a clock, so that a test
hits the moment that it names on any machine.
"""

import csv
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time
import types

import pytest

from dopamine_jax import errors
from dopamine_jax.checkpoints import checkpoints as checkpoints_lib
from dopamine_jax.checkpoints import ring_files
from dopamine_jax.commands import cli
from dopamine_jax.engines import compiled
from dopamine_jax.engines import evaluation
from dopamine_jax.environments import gym_vector
from dopamine_jax.metrics import base
from dopamine_jax.metrics import csv_file
from dopamine_jax.training import advice
from dopamine_jax.training import fingerprint as fingerprint_lib
from dopamine_jax.training import run_folder
from tests import programs

# Small, but with all that a resume has to get right: a replay that wraps,
# episodes that checkpoints cut, a target network, a decaying epsilon, metrics
# between checkpoints, an evaluation.
CARTPOLE = """
from __gin__ import dynamic_registration
import optax
from dopamine_jax import networks
from dopamine_jax import runner
from dopamine_jax.agents import dqn
from dopamine_jax.environments import gym
from dopamine_jax.metrics import csv_file
from dopamine_jax.replay import uniform

runner.Runner:
  agent = @dqn.DQN
  environment = @gym.Gym()
  num_iterations = 8
  training_steps = 60
  evaluation_episodes = 1
  evaluation_period = 4
  checkpoint_period = 2
  max_to_keep = 2
  collectors = [@csv_file.CSV]
gym.Gym:
  id = 'CartPole-v1'
  max_steps_per_episode = 30
dqn.DQN:
  network = @networks.MLP
  replay = @uniform.UniformReplay
  optimizer = @optax.adam()
  target_update_period = 20
  epsilon = @optax.linear_schedule()
  n_step = 2
optax.linear_schedule:
  init_value = 1.0
  end_value = 0.1
  transition_steps = 300
networks.MLP.hidden = (8,)
uniform.UniformReplay:
  capacity = 150
  batch_size = 8
  min_history = 40
optax.adam.learning_rate = 1e-3
"""
ATARI = (
  CARTPOLE.replace('environments import gym', 'environments import atari')
  .replace('@gym.Gym()', '@atari.Atari()')
  .replace("  id = 'CartPole-v1'\n", "  game = 'Pong'\n  noop_max = 10\n")
  .replace('gym.Gym:', 'atari.Atari:')
  .replace('evaluation_episodes = 1', 'evaluation_episodes = 0')
  .replace('num_iterations = 8', 'num_iterations = 4')
)
COMPILED = (
  CARTPOLE.replace(
    'from dopamine_jax.environments import gym',
    'from dopamine_jax.engines import compiled\nfrom tests import walk',
  )
  .replace('@gym.Gym()', '@walk.Walk()\n  engine = @compiled.CompiledEngine')
  .replace("gym.Gym:\n  id = 'CartPole-v1'", 'walk.Walk:\n  length = 40')
)
PRIORITIZED, PRIORITIZED_COMPILED = (
  config.replace(
    'from dopamine_jax.replay import uniform',
    'from dopamine_jax.replay import prioritized\n'
    'from dopamine_jax.replay import uniform',
  ).replace('@uniform.UniformReplay', '@prioritized.PrioritizedReplay')
  + 'prioritized.PrioritizedReplay.beta = @optax.linear_schedule()\n'
  for config in (CARTPOLE, COMPILED)
)
# Checkpoints in the middle of rollouts of 40 steps; statistics that run on.
PPO = """
from __gin__ import dynamic_registration
import optax
from dopamine_jax import networks
from dopamine_jax import runner
from dopamine_jax.agents import ppo
from dopamine_jax.environments import gym
from dopamine_jax.metrics import csv_file

runner.Runner:
  agent = @ppo.PPO
  environment = @gym.Gym()
  num_iterations = 8
  training_steps = 60
  num_envs = 2
  evaluation_episodes = 1
  evaluation_period = 4
  checkpoint_period = 1
  max_to_keep = 2
  collectors = [@csv_file.CSV]
gym.Gym:
  id = 'Pendulum-v1'
  max_steps_per_episode = 15
ppo.PPO:
  optimizer = @optax.adam()
  update_period = 40
  num_epochs = 2
  num_minibatches = 2
  normalize_observations = True
  normalize_rewards = True
networks.ActorCritic.torso = @networks.MLPTorso
networks.MLPTorso.hidden = (8,)
optax.adam.learning_rate = 1e-3
"""

# A policy, twin critics and a temperature, each with an optimizer; checkpoints
# between updates and in episodes.
SAC = """
from __gin__ import dynamic_registration
import optax
from dopamine_jax.learning import actor_critic
from dopamine_jax import runner
from dopamine_jax.agents import sac
from dopamine_jax.environments import gym
from dopamine_jax.metrics import csv_file
from dopamine_jax.replay import uniform

runner.Runner:
  agent = @sac.SAC
  environment = @gym.Gym()
  num_iterations = 8
  training_steps = 60
  num_envs = 2
  evaluation_episodes = 1
  evaluation_period = 4
  checkpoint_period = 1
  max_to_keep = 2
  collectors = [@csv_file.CSV]
gym.Gym:
  id = 'Pendulum-v1'
  max_steps_per_episode = 15
sac.SAC:
  replay = @uniform.UniformReplay
  actor_optimizer = @optax.adam()
  critic_optimizer = @optax.adam()
  temperature_optimizer = @optax.adam()
  update_period = 4
  n_step = 2
actor_critic.Actor.hidden = (8,)
actor_critic.Critics.hidden = (8,)
uniform.UniformReplay:
  capacity = 150
  batch_size = 8
  min_history = 40
optax.adam.learning_rate = 1e-3
"""

# Runs `dopamine-jax` and kills its own process as it writes rows of the replay
# for the n-th time: `python stopper.py N train ...`.
STOPPER = """
import os
import runpy
import signal
import sys

from dopamine_jax.checkpoints import ring_files
from dopamine_jax.engines import threefry

threefry.write_out = lambda: None  # as in the other processes here
number, calls = int(sys.argv[1]), 0
original = ring_files._write_rows


def write_rows(*args, **kwargs):
  global calls
  calls += 1
  if calls == number:
    os.kill(os.getpid(), signal.SIGKILL)
  return original(*args, **kwargs)


ring_files._write_rows = write_rows
sys.argv = ['dopamine-jax', *sys.argv[2:]]
runpy.run_module('dopamine_jax', run_name='__main__')
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp('resume')
  (folder / 'cartpole.gin').write_text(CARTPOLE)
  (folder / 'atari.gin').write_text(ATARI)
  (folder / 'compiled.gin').write_text(COMPILED)
  (folder / 'prioritized.gin').write_text(PRIORITIZED)
  (folder / 'prioritized_compiled.gin').write_text(PRIORITIZED_COMPILED)
  (folder / 'ppo.gin').write_text(PPO)
  (folder / 'sac.gin').write_text(SAC)
  (folder / 'stopper.py').write_text(STOPPER)
  return folder


def command(folder, base_dir, config, *options):
  return [
    'train',
    '--gin_files',
    str(folder / f'{config}.gin'),
    '--base_dir',
    str(base_dir),
    *options,
  ]


def run_here(monkeypatch, words):
  """Runs the command line in this process; returns its status."""
  with monkeypatch.context() as patch:
    patch.setattr(sys, 'argv', ['dopamine-jax', *words])
    patch.setattr(sys, 'path', list(sys.path))
    return cli.main()


def kill_at(folder, number, words):
  """Runs the command line in a process that dies as it writes rows."""
  result = subprocess.run(
    [sys.executable, 'stopper.py', str(number), *words],
    cwd=folder,
    capture_output=True,
    text=True,
    env=os.environ
    | {'PYTHONPATH': str(pathlib.Path(__file__).resolve().parent.parent)},
  )
  assert result.returncode == -signal.SIGKILL, result.stdout + result.stderr
  return result


class Died(BaseException):  # which no handler of errors takes
  """Ends a run in this process as abruptly as can be."""


def die_at(patch, owner, method, number, action=None):
  """Makes the n-th call of a method raise Died, or do something else first."""
  original, calls = getattr(owner, method), []

  def wrapped(*args, **kwargs):
    calls.append(None)
    if len(calls) == number:
      if action is None:
        raise Died
      action()
    return original(*args, **kwargs)

  patch.setattr(owner, method, wrapped)


def die_here(monkeypatch, words, owner, method, number):
  """Runs the command line in this process until it dies at that moment.

  Runs that a signal ends leave no more behind, as those of CartPole show; this
  saves to start a process for what another agent or environment has to restore.
  """
  with monkeypatch.context() as patch:
    programs.share(patch)  # with the run that never stops
    die_at(patch, owner, method, number)
    with pytest.raises(Died):
      run_here(monkeypatch, words)


def metrics(base_dir):
  """Returns the rows of metrics.csv but for timings."""
  with open(base_dir / 'metrics.csv', newline='') as stream:
    rows = list(csv.DictReader(stream))
  for row in rows:
    del row['wall_time']
  return [row for row in rows if not base.is_timing(row['name'])]


def checkpoints(base_dir):
  return sorted(p.name for p in (base_dir / 'checkpoints').iterdir())


def assert_equal_runs(actual, expected):
  assert fingerprint_lib.fingerprint(actual) == fingerprint_lib.fingerprint(
    expected
  )
  assert metrics(actual) == metrics(expected)
  assert checkpoints(actual) == checkpoints(expected)


@pytest.fixture(scope='module')
def never_stopped(folder):
  """Returns a function that gives the folder of a run that never stopped."""
  done = {}

  def run(config='cartpole', *options):
    if (config, *options) not in done:
      base_dir = folder / '_'.join(['never_stopped', config, *options])
      with pytest.MonkeyPatch.context() as patch:
        words = command(folder, base_dir, config, '--quiet', *options)
        programs.share(patch)
        assert run_here(patch, words) == 0
      done[config, *options] = base_dir
    return done[config, *options]

  return run


# Several seeds show all that one does, but that its arrays have no such axis,
# which runs of DQN meet. They take longer to trace: PPO, whose state is a tree
# as any, has one. `python -m tests.kills` kills many more.
slow_twice = [
  pytest.param('1', True, marks=pytest.mark.slow),
  pytest.param('3', True, marks=pytest.mark.slow),
]

# Where it is not the subject what a process compiles that goes on. It is that
# of the first test below, of slow rows in `configs_test`, and of `tests.kills`.
same_programs = pytest.mark.usefixtures('same_programs')

# SIGKILL.


def test_a_run_that_was_killed_at_several_moments_ends_the_same(
  folder, never_stopped, tmp_path, monkeypatch, capsys
):
  words = command(folder, tmp_path / 'run', 'cartpole')
  # In iteration 3, whose steps are lost.
  die_here(monkeypatch, words, gym_vector.GymVector, 'step', 150)
  assert checkpoints(tmp_path / 'run') == ['000002']
  # While the second checkpoint, of iteration 6, is written.
  kill_at(folder, 7, words)
  assert checkpoints(tmp_path / 'run') == ['000002', '000004', '000006.tmp']
  # When that is whole, but not yet renamed.
  with monkeypatch.context() as patch:
    die_at(patch, pathlib.Path, 'rename', 1)
    with pytest.raises(Died):
      run_here(monkeypatch, words)
  assert checkpoints(tmp_path / 'run') == ['000002', '000004', '000006.tmp']
  assert run_here(monkeypatch, words) == 0
  assert 'Going on after iteration 4' in capsys.readouterr().err
  assert_equal_runs(tmp_path / 'run', never_stopped())


# Three seeds that XLA steps are killed below, and CSV's moments with one seed.
@pytest.mark.slow
def test_three_seeds_that_were_killed_end_the_same(
  folder, never_stopped, tmp_path, monkeypatch
):
  words = command(folder, tmp_path / 'run', 'cartpole', '--num_seeds', '3')
  # With a checkpoint there, and its iteration evaluated and not written.
  die_here(monkeypatch, words, csv_file.CSV, 'write', 4)
  assert checkpoints(tmp_path / 'run') == ['000002', '000004']
  # With a checkpoint there, and the old ones not yet removed.
  die_here(
    monkeypatch, words, checkpoints_lib.Checkpoints, 'collect_garbage', 3
  )
  assert checkpoints(tmp_path / 'run')[-1] == '000008'
  assert run_here(monkeypatch, words) == 0
  assert_equal_runs(
    tmp_path / 'run', never_stopped('cartpole', '--num_seeds', '3')
  )


# Its environments begin anew from seeds as those of Gymnasium, which is seen in
# `atari_test`; frames that wrap around are in `checkpoints_test`.
@pytest.mark.slow
def test_an_atari_run_that_was_killed_ends_the_same(
  folder, never_stopped, tmp_path, monkeypatch
):
  pytest.importorskip('ale_py')
  from dopamine_jax.environments import atari

  words = command(folder, tmp_path / 'run', 'atari')
  die_here(monkeypatch, words, atari.AtariVector, 'step', 150)
  assert checkpoints(tmp_path / 'run') == ['000002']
  assert run_here(monkeypatch, words) == 0
  assert_equal_runs(tmp_path / 'run', never_stopped('atari'))


@same_programs
@pytest.mark.parametrize(('num_seeds', 'twice'), [('3', False), *slow_twice])
def test_a_compiled_run_that_was_killed_ends_the_same(
  folder, never_stopped, tmp_path, monkeypatch, num_seeds, twice
):
  seeds = ('--num_seeds', num_seeds)
  words = command(folder, tmp_path / 'run', 'compiled', *seeds)
  # Chunks of 1, 2, 4 and then 8 steps, anew after the warm-up: in iteration 3.
  engine = compiled.CompiledEngine
  longest = engine._longest
  with monkeypatch.context() as patch:
    # So that many make an iteration.
    patch.setattr(engine, '_longest', lambda *given: min(longest(*given), 8))
    die_here(patch, words, engine, '_run_chunk', 24)
  assert checkpoints(tmp_path / 'run') == ['000002']
  if twice:  # While the checkpoint of iteration 4 is written.
    kill_at(folder, 2, words)
    assert checkpoints(tmp_path / 'run') == ['000002', '000004.tmp']
  assert run_here(monkeypatch, words) == 0
  assert_equal_runs(tmp_path / 'run', never_stopped('compiled', *seeds))


@same_programs
@pytest.mark.parametrize(
  ('config', 'num_seeds'),
  [
    ('prioritized', '1'),
    pytest.param('prioritized', '3', marks=pytest.mark.slow),
    pytest.param('prioritized_compiled', '1', marks=pytest.mark.slow),
  ],
)
def test_a_run_by_priorities_that_was_stopped_ends_the_same(
  folder, never_stopped, tmp_path, monkeypatch, config, num_seeds
):
  seeds = ('--num_seeds', num_seeds)
  words = command(folder, tmp_path / 'run', config, *seeds)
  die_here(monkeypatch, words, checkpoints_lib.Checkpoints, 'save', 3)
  assert checkpoints(tmp_path / 'run') == ['000002', '000004']
  assert run_here(monkeypatch, words) == 0
  assert_equal_runs(tmp_path / 'run', never_stopped(config, *seeds))


@same_programs
@pytest.mark.parametrize(('num_seeds', 'twice'), [('1', False), *slow_twice])
def test_a_run_that_was_killed_within_a_rollout_ends_the_same(
  folder, never_stopped, tmp_path, monkeypatch, num_seeds, twice
):
  seeds = ('--num_seeds', num_seeds)
  words = command(folder, tmp_path / 'run', 'ppo', *seeds)
  # At agent step 84, 4 into the third rollout; the checkpoint is from 60, half
  # a rollout.
  die_here(monkeypatch, words, gym_vector.GymVector, 'step', 42)
  assert checkpoints(tmp_path / 'run') == ['000001']
  if twice:
    # While that of 360 is written, so that it goes on from 300, half a rollout.
    kill_at(folder, 5 * 4 + 2, words)
    assert checkpoints(tmp_path / 'run')[-2:] == ['000005', '000006.tmp']
  assert run_here(monkeypatch, words) == 0
  assert_equal_runs(tmp_path / 'run', never_stopped('ppo', *seeds))


# A tree of states as PPO's, which is above.
@pytest.mark.slow
@pytest.mark.parametrize('num_seeds', ['1', '3'])
def test_a_run_of_sac_that_was_killed_ends_the_same(
  folder, never_stopped, tmp_path, monkeypatch, num_seeds
):
  seeds = ('--num_seeds', num_seeds)
  words = command(folder, tmp_path / 'run', 'sac', *seeds)
  # At agent step 86, between two updates.
  die_here(monkeypatch, words, gym_vector.GymVector, 'step', 43)
  assert checkpoints(tmp_path / 'run') == ['000001']
  assert run_here(monkeypatch, words) == 0
  assert_equal_runs(tmp_path / 'run', never_stopped('sac', *seeds))


@same_programs
def test_an_agent_with_statistics_of_its_environments_can_be_evaluated(
  never_stopped, monkeypatch, capsys
):
  # Trained in two environments, and played in one.
  base_dir = never_stopped('ppo', '--num_seeds', '1')
  words = ['evaluate', str(base_dir), '--episodes', '2']
  assert run_here(monkeypatch, words) == 0
  assert 'eturn' in capsys.readouterr().out


@same_programs
def test_a_run_that_was_killed_before_its_first_checkpoint_starts_anew(
  folder, never_stopped, tmp_path, monkeypatch
):
  words = command(folder, tmp_path / 'run', 'cartpole')
  with monkeypatch.context() as patch:
    die_at(patch, gym_vector.GymVector, 'step', 70)
    with pytest.raises(Died):
      run_here(monkeypatch, words)
  assert metrics(tmp_path / 'run')
  assert run_here(monkeypatch, words) == 0
  assert_equal_runs(tmp_path / 'run', never_stopped())


def half_a_write(patch):
  """Has the next metrics torn in the middle of a row."""

  def write(file, data):
    file.write(data[: len(data) // 2 - 3])
    raise Died

  original = csv_file.CSV.write

  def wrapped(self, statistics):
    patch.setattr(csv_file, '_write', write)
    original(self, statistics)

  patch.setattr(csv_file.CSV, 'write', wrapped)


@same_programs
def test_a_run_that_was_killed_between_save_and_report_ends_the_same(
  folder, never_stopped, tmp_path, monkeypatch
):
  words = command(folder, tmp_path / 'run', 'cartpole')
  csv = csv_file.CSV
  for moment, newest in (
    # Before it is noted that there is a checkpoint, of iteration 2.
    (lambda patch: die_at(patch, run_folder, 'set_progress', 1), 2),
    # With its metrics written, and that not yet noted.
    (lambda patch: die_at(patch, run_folder, 'set_progress', 1), 2),
    # While iteration 4 is evaluated, which is saved; and when it is made up.
    (lambda patch: die_at(patch, evaluation.Evaluator, 'run', 1), 4),
    (lambda patch: die_at(patch, evaluation.Evaluator, 'run', 1), 4),
    (half_a_write, 4),
    (lambda patch: die_at(patch, csv, 'open', 1), 4),
    # Iterations 5 and 6 belong to no checkpoint that was noted.
    (lambda patch: die_at(patch, csv, 'write', 3), 6),
    # The last one of all.
    (lambda patch: die_at(patch, evaluation.Evaluator, 'run', 1), 8),
  ):
    with monkeypatch.context() as patch:
      moment(patch)
      with pytest.raises(Died):
        run_here(monkeypatch, words)
    assert checkpoints(tmp_path / 'run')[-1] == f'{newest:06}'
  assert run_here(monkeypatch, words) == 0
  assert_equal_runs(tmp_path / 'run', never_stopped())


@same_programs
def test_an_evaluation_without_end_loses_nothing(
  folder, never_stopped, tmp_path, monkeypatch, capsys
):
  words = command(folder, tmp_path / 'run', 'cartpole')
  monkeypatch.setattr(evaluation, '_PATIENCE', 0.0)
  with monkeypatch.context() as patch:
    # The first evaluation begins after 240 steps of training.
    die_at(
      patch,
      gym_vector.GymVector,
      'step',
      250,
      lambda: os.kill(os.getpid(), signal.SIGTERM),
    )
    assert run_here(monkeypatch, words) == 143
  message = capsys.readouterr().err
  assert 'The evaluation of iteration 4 waits for an episode to end' in message
  assert 'gym.Gym.max_steps_per_episode' in message
  goes_on = f'The same command with --base_dir {tmp_path / "run"} goes on'
  assert f'{goes_on} after iteration 4' in message
  assert run_here(monkeypatch, words) == 0
  assert_equal_runs(tmp_path / 'run', never_stopped())


@same_programs
@pytest.mark.parametrize('number', [110, 150])  # agent steps: iterations 2, 3
def test_a_folder_that_is_renamed_stops_the_training_and_stays_whole(
  folder, never_stopped, tmp_path, monkeypatch, capsys, number
):
  old, new = tmp_path / 'run', tmp_path / 'renamed'
  with monkeypatch.context() as patch:
    die_at(patch, gym_vector.GymVector, 'step', number, lambda: old.rename(new))
    assert run_here(monkeypatch, command(folder, old, 'cartpole')) == 1
  assert f'{old} was removed or renamed' in capsys.readouterr().err
  assert not old.exists()
  assert run_here(monkeypatch, command(folder, new, 'cartpole')) == 0
  assert_equal_runs(new, never_stopped())


# What is gone.


def without_checkpoints(run):
  shutil.rmtree(run / 'checkpoints')


def with_empty_checkpoints(run):
  without_checkpoints(run)
  (run / 'checkpoints').mkdir()


def without_metrics(run):
  (run / 'metrics.csv').unlink()


def with_half_of_the_metrics(run):
  lines = (run / 'metrics.csv').read_text().splitlines(keepends=True)
  (run / 'metrics.csv').write_text(''.join(lines[: len(lines) // 2]))


def with_no_facts_and_no_checkpoints(run):
  without_checkpoints(run)
  (run / 'run.json').unlink()


@same_programs
@pytest.mark.parametrize(
  ('lose', 'words'),
  [
    (without_checkpoints, ['checkpoints up to iteration 8', 'bring the']),
    (with_empty_checkpoints, ['checkpoints up to iteration 8']),
    (without_metrics, ['metrics.csv is gone', 'Bring the whole file back']),
    (with_half_of_the_metrics, ['metrics.csv has', 'up to iteration 8']),
    (with_no_facts_and_no_checkpoints, ['has no run.json', 'bring back']),
  ],
)
def test_a_run_of_which_something_is_gone_never_goes_on_without(
  folder, never_stopped, tmp_path, monkeypatch, capsys, lose, words
):
  run = tmp_path / 'run'
  shutil.copytree(never_stopped(), run)
  lose(run)
  before = {p: p.read_bytes() for p in run.rglob('*') if p.is_file()}
  before.pop(run / 'run.json', None)  # which notes that it was tried
  longer = ('--gin_bindings', 'runner.Runner.num_iterations = 8')
  assert run_here(monkeypatch, command(folder, run, 'cartpole', *longer)) == 1
  message = capsys.readouterr().err
  assert all(word in message for word in words), message
  assert {p: p.read_bytes() for p in before} == before
  # What is named as a remedy helps.
  for each in ('checkpoints', 'metrics.csv', 'run.json'):
    lost = run / each
    if not lost.exists() or each in message:
      shutil.rmtree(lost, ignore_errors=True)
      lost.unlink(missing_ok=True)
      whole = never_stopped() / each
      (shutil.copytree if whole.is_dir() else shutil.copy)(whole, lost)
  assert run_here(monkeypatch, command(folder, run, 'cartpole')) == 0
  assert_equal_runs(run, never_stopped())


@same_programs
@pytest.mark.parametrize(
  ('options', 'words'),
  [
    (('--seed', '1'), 'seeds [1], not [0]'),
    (('-b', 'dqn.DQN.gamma = 0.5'), 'settings other than those in config.gin'),
  ],
)
def test_checkpoints_of_another_run_are_taken_by_no_command(
  folder, never_stopped, tmp_path, monkeypatch, capsys, options, words
):
  run = tmp_path / 'run'
  other = never_stopped('cartpole', *options)
  for way in ('instead', 'beside'):
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(never_stopped(), run)
    if way == 'instead':
      shutil.rmtree(run / 'checkpoints')
      shutil.copytree(other / 'checkpoints', run / 'checkpoints')
    else:  # as the newest one alone
      shutil.rmtree(run / 'checkpoints/000008')
      newest = 'checkpoints/000008'
      shutil.copytree(other / newest, run / newest)
    before = {p: p.read_bytes() for p in run.rglob('*') if p.is_file()}
    longer = ('--gin_bindings', 'runner.Runner.num_iterations = 12')
    for command_words in (
      command(folder, run, 'cartpole'),
      command(folder, run, 'cartpole', *longer),
      ['evaluate', str(run), '--episodes', '1'],
      ['record', str(run), '--output', str(tmp_path / 'film.mp4')],
      ['fingerprint', str(run)],
    ):
      assert run_here(monkeypatch, command_words) == 1, command_words
      message = capsys.readouterr().err
      assert 'is of another run: it was saved with ' + words in message
    assert {p: p.read_bytes() for p in before} == before
  # What belongs to it helps.
  shutil.rmtree(run / 'checkpoints')
  shutil.copytree(never_stopped() / 'checkpoints', run / 'checkpoints')
  assert run_here(monkeypatch, command(folder, run, 'cartpole')) == 0
  assert_equal_runs(run, never_stopped())


@same_programs
@pytest.mark.parametrize('content', [None, b'{"seeds": [0', b'\xff\xfe'])
def test_a_run_whose_facts_are_lost_goes_on_with_a_warning(
  folder, never_stopped, tmp_path, monkeypatch, capsys, content
):
  run = tmp_path / 'run'
  shutil.copytree(never_stopped(), run)
  shutil.rmtree(run / 'checkpoints/000008')
  (run / 'run.json').unlink()
  if content is not None:
    (run / 'run.json').write_bytes(content)
  assert run_here(monkeypatch, ['evaluate', str(run), '--episodes', '1']) == 0
  assert 'The checkpoint of iteration 6 says which' in capsys.readouterr().err
  words = command(folder, run, 'cartpole', '--seed', '1')
  assert run_here(monkeypatch, words) == 1
  assert 'has seeds [0], not [1]' in capsys.readouterr().err
  assert run_here(monkeypatch, words[:-2]) == 0
  assert_equal_runs(run, never_stopped())
  assert run_folder.read_facts(run)['seeds'] == [0]


@pytest.mark.slow
@pytest.mark.parametrize('attempt', range(3))
@pytest.mark.parametrize('num_seeds', [1, 3])
def test_a_run_that_was_killed_by_the_clock_ends_the_same(
  folder, never_stopped, tmp_path, monkeypatch, num_seeds, attempt
):
  seeds = ('--num_seeds', str(num_seeds)) if num_seeds > 1 else ()
  words = command(folder, tmp_path / 'run', 'cartpole', '--quiet', *seeds)
  generator = random.Random(attempt)
  for _ in range(3):
    process = subprocess.Popen(
      [sys.executable, '-m', 'dopamine_jax', *words],
      cwd=pathlib.Path(__file__).resolve().parent.parent,
    )
    while process.poll() is None:
      time.sleep(0.01)
      if (tmp_path / 'run/metrics.csv').exists():
        time.sleep(generator.uniform(0, 3))
        process.kill()
        break
    process.wait()
  assert run_here(monkeypatch, words) == 0
  assert_equal_runs(tmp_path / 'run', never_stopped('cartpole', *seeds))


# SIGTERM and Ctrl-C.


@same_programs
def test_a_run_that_was_asked_to_stop_says_how_to_go_on_and_ends_the_same(
  folder, never_stopped, tmp_path, monkeypatch, capsys
):
  words = command(folder, tmp_path / 'run', 'cartpole')
  before = signal.getsignal(signal.SIGINT)  # a background job ignores it
  for number, (kind, newest) in enumerate(
    [
      (signal.SIGTERM, 'starts again from the first step'),
      (signal.SIGINT, 'goes on after iteration 2'),
      (signal.SIGHUP, 'goes on after iteration 4'),
    ]
  ):
    with monkeypatch.context() as patch:
      die_at(
        patch,
        gym_vector.GymVector,
        'step',
        70 + 70 * number,
        lambda kind=kind: os.kill(os.getpid(), kind),
      )
      assert run_here(monkeypatch, words) == 128 + kind
    message = capsys.readouterr().err
    assert f'Stopped by {kind.name}' in message
    same = f'The same command with --base_dir {tmp_path / "run"}'
    assert f'{same} {newest}' in message
    assert 'Traceback' not in message
  assert run_here(monkeypatch, words) == 0
  assert_equal_runs(tmp_path / 'run', never_stopped())
  assert signal.getsignal(signal.SIGINT) is before


@same_programs
def test_a_signal_during_a_checkpoint_waits_until_it_is_whole(
  folder, tmp_path, monkeypatch, capsys
):
  words = command(folder, tmp_path / 'run', 'cartpole')
  with monkeypatch.context() as patch:
    die_at(
      patch,
      ring_files,
      '_write_rows',
      2,
      lambda: os.kill(os.getpid(), signal.SIGTERM),
    )
    assert run_here(monkeypatch, words) == 143
  assert 'goes on after iteration 2' in capsys.readouterr().err
  assert checkpoints(tmp_path / 'run') == ['000002']


# Damage.


@same_programs
@pytest.mark.parametrize('damaged', ['manifest.json', 'state.bin'])
def test_a_damaged_newest_checkpoint_falls_back_says_so_and_ends_the_same(
  folder, never_stopped, tmp_path, monkeypatch, capsys, damaged
):
  shutil.copytree(never_stopped(), tmp_path / 'run')
  file = tmp_path / 'run/checkpoints/000008' / damaged
  file.write_bytes(file.read_bytes()[:-1] + b'!')
  with pytest.raises(Exception, match='damaged'):
    fingerprint_lib.fingerprint(tmp_path / 'run')
  words = command(folder, tmp_path / 'run', 'cartpole')
  assert run_here(monkeypatch, words) == 0
  message = capsys.readouterr().err
  assert 'the checkpoint of iteration 8 is damaged' in message
  assert 'Going on after iteration 6' in message
  shutil.rmtree(tmp_path / 'run/checkpoints/000008.set-aside-1')
  assert_equal_runs(tmp_path / 'run', never_stopped())


@same_programs
def test_numbers_of_a_run_that_went_back_are_its_own_at_any_moment(
  folder, never_stopped, tmp_path, monkeypatch
):
  run = tmp_path / 'run'
  shutil.copytree(never_stopped(), run)
  file = run / 'checkpoints/000008/state.bin'
  file.write_bytes(file.read_bytes()[:-1] + b'!')
  with monkeypatch.context() as patch:
    die_at(patch, csv_file.CSV, 'write', 1)  # of iteration 6's rows
    with pytest.raises(Died):
      run_here(monkeypatch, command(folder, run, 'cartpole'))
  # Though metrics.csv was cut, and run.json had known of more.
  assert csv_file.altered(run / 'metrics.csv') == ''
  assert run_here(monkeypatch, command(folder, run, 'cartpole')) == 0
  shutil.rmtree(run / 'checkpoints/000008.set-aside-1')
  assert_equal_runs(run, never_stopped())


@same_programs
def test_when_every_checkpoint_is_damaged_nothing_is_overwritten(
  folder, never_stopped, tmp_path, monkeypatch, capsys
):
  shutil.copytree(never_stopped(), tmp_path / 'run')
  for name in ('000006', '000008'):
    (tmp_path / 'run/checkpoints' / name / 'manifest.json').write_text('')
  before = {
    p: p.read_bytes() for p in (tmp_path / 'run').rglob('*') if p.is_file()
  }
  words = command(folder, tmp_path / 'run', 'cartpole')
  assert run_here(monkeypatch, words) == 1
  assert 'no checkpoint' in capsys.readouterr().err
  for path, content in before.items():
    assert path.read_bytes() == content


# Without a replay in the checkpoint, and other ends.


@same_programs
def test_a_run_whose_replay_is_lost_goes_on_with_its_agent_if_asked(
  folder, never_stopped, tmp_path, monkeypatch, capsys
):
  run = tmp_path / 'run'
  shutil.copytree(never_stopped(), run)
  rows = list(run.glob('checkpoints/000006/*/*/reward.npy'))
  assert len(rows) == 2
  for file in rows:  # which both checkpoints need
    file.write_bytes(file.read_bytes()[:-1] + b'!')
  words = command(folder, run, 'cartpole', '--gin_bindings')
  words.append('runner.Runner.num_iterations = 10')
  assert run_here(monkeypatch, words) == 1
  message = capsys.readouterr().err
  assert 'The agent of iteration 8 can, its replay can not' in message
  assert run_here(monkeypatch, [*words, '--without-replay']) == 0
  assert 'without its replay (--without-replay)' in capsys.readouterr().err
  resumed = run_folder.read_facts(run)['events'][-2]
  assert resumed['iteration'] == 8 and resumed['with_replay'] is False
  updates = {
    int(row['agent_steps']): float(row['value'])
    for row in metrics(run)
    if row['name'] == 'Train/Updates'
  }
  # One every 4 steps, of which the first comes after 40.
  assert updates[540] == updates[480] + 6
  assert updates[600] == updates[540] + 15
  words = command(folder, tmp_path / 'new', 'cartpole', '--without-replay')
  assert run_here(monkeypatch, words) == 1
  assert 'has none. Leave it out' in capsys.readouterr().err


@same_programs
@pytest.mark.parametrize('config', ['cartpole', 'prioritized'])
def test_without_replay_a_run_resumes_and_says_that_it_fills_one_anew(
  folder, tmp_path, monkeypatch, capsys, config
):
  words = command(
    folder,
    tmp_path / 'run',
    config,
    '--gin_bindings',
    'runner.Runner.checkpoint_replay = False',
  )
  with monkeypatch.context() as patch:
    die_at(patch, gym_vector.GymVector, 'step', 150)
    with pytest.raises(Died):
      run_here(monkeypatch, words)
  assert not list((tmp_path / 'run').rglob('*.npy'))
  assert run_here(monkeypatch, words) == 0
  assert 'filled anew' in capsys.readouterr().err
  updates = {
    int(row['agent_steps']): float(row['value'])
    for row in metrics(tmp_path / 'run')
    if row['name'] == 'Train/Updates'
  }
  # An update every 4 steps once there are 40 to learn from: at 40, 44, ...
  # 120, and after the resume at 160, 164, ...
  assert updates[120] == 21
  assert updates[180] == 21 + 6
  assert updates[480] == 21 + 81


@same_programs
def test_a_run_can_be_made_longer_but_not_shorter(
  folder, never_stopped, tmp_path, monkeypatch, capsys
):
  words = command(folder, tmp_path / 'run', 'cartpole', '--gin_bindings')
  short = 'runner.Runner.num_iterations = 4'
  assert run_here(monkeypatch, [*words, short]) == 0
  assert run_here(monkeypatch, words[:-1]) == 0
  assert_equal_runs(tmp_path / 'run', never_stopped())
  assert run_here(monkeypatch, [*words, short]) == 1
  assert 'has done 8 iterations' in capsys.readouterr().err


@same_programs
def test_a_run_that_is_done_stays_as_it_is(
  folder, never_stopped, tmp_path, monkeypatch
):
  shutil.copytree(never_stopped(), tmp_path / 'run')
  words = command(folder, tmp_path / 'run', 'cartpole')
  assert run_here(monkeypatch, words) == 0
  assert_equal_runs(tmp_path / 'run', never_stopped())


# The fingerprint itself.


@same_programs
def test_the_fingerprint_tells_runs_apart(
  folder, never_stopped, tmp_path, monkeypatch
):
  words = command(
    folder, tmp_path / 'run', 'cartpole', '--quiet', '--seed', '1'
  )
  assert run_here(monkeypatch, words) == 0
  one = fingerprint_lib.fingerprint(never_stopped())
  other = fingerprint_lib.fingerprint(tmp_path / 'run')
  assert list(one) == [*fingerprint_lib.PARTS, 'all']
  for part, digest in one.items():
    assert len(digest) == 64
    assert digest != other[part], part


@same_programs
def test_the_fingerprint_sees_each_metric_and_no_timing(
  never_stopped, tmp_path
):
  shutil.copytree(never_stopped(), tmp_path / 'run')
  file = tmp_path / 'run/metrics.csv'
  text = file.read_text()
  file.write_text(text.replace('Train/Loss', 'Train/Lass', 1))
  with pytest.raises(errors.UserError, match='is not what the training wrote'):
    fingerprint_lib.fingerprint(tmp_path / 'run')
  file.write_text(text)
  # Of a run that does not know what it wrote.
  facts = json.loads((tmp_path / 'run/run.json').read_text())
  del facts['progress']['written']
  (tmp_path / 'run/run.json').write_text(json.dumps(facts))
  original, expected = (
    file.read_text(),
    fingerprint_lib.fingerprint(never_stopped()),
  )
  lines = original.splitlines()

  def digests(changed):
    file.write_text('\n'.join(changed) + '\n')
    return fingerprint_lib.fingerprint(tmp_path / 'run')

  def change(column, name):
    changed = []
    for line in lines:
      cells = line.split(',')
      if cells[4] == name:
        cells[column] = '77'
      changed.append(','.join(cells))
    assert changed != lines
    return digests(changed)

  assert digests(lines) == expected
  assert change(5, 'Train/Loss')['metrics'] != expected['metrics']
  assert change(5, 'Train/Loss')['all'] != expected['all']
  assert change(5, 'Train/Loss')['replay'] == expected['replay']
  assert change(5, 'Train/AverageStepsPerSecond') == expected
  assert change(3, 'Train/Loss') == expected
  for content in (b'\xff\xfe', b'step,loss\n1,2\n', b'seed,iteration\n0,x\n'):
    file.write_bytes(content)
    with pytest.raises(errors.UserError, match='is not the metrics file'):
      fingerprint_lib.fingerprint(tmp_path / 'run')
  # What comes after the checkpoint, or was cut off by a kill, is not counted.
  later = '0,9,540,0.0,Train/Loss,1.0'
  assert digests([*lines, later]) == expected
  file.write_text(original + '0,1')
  assert fingerprint_lib.fingerprint(tmp_path / 'run') == expected


@pytest.mark.parametrize(
  ('resume', 'with_replay', 'expected'),
  [
    (True, True, ' goes on after iteration 4, and ends as if'),
    (False, True, ' and without --no-resume goes on after'),
    (True, False, ' and without --without-replay goes on after '),
  ],
)
def test_the_command_to_go_on_leaves_out_what_would_begin_anew(
  resume, with_replay, expected
):
  stopped = types.SimpleNamespace(
    newest_checkpoint=4,
    folder='a',
    base_dir='a',
    iteration=5,
    resume=resume,
    with_replay=with_replay,
    engine=types.SimpleNamespace(steps=99),
    runner=types.SimpleNamespace(checkpoint_replay=True),
    stop=types.SimpleNamespace(name='SIGINT'),
  )
  message = advice.how_to_go_on(stopped)
  assert f'The same command with --base_dir a{expected}' in message
  assert ('as if it had never' in message) == with_replay
