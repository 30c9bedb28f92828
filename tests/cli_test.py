"""The command line, as a user meets it: results, messages, exit statuses."""

import csv
import datetime
import errno
import gc
import importlib.metadata
import itertools
import json
import os
import pathlib
import re
import shlex
import shutil
import sys
import types
import warnings

import gymnasium
import imageio as legacy_imageio
import imageio.v3 as imageio
import numpy as np
import psutil
import pytest
import typer

from dopamine_jax import config
from dopamine_jax import errors
from dopamine_jax import runner as runner_lib
from dopamine_jax.commands import cli
from dopamine_jax.learning import trials
from dopamine_jax.training import folder_lock
from tests import programs

# What commands say and leave is the subject, not what they compile.
pytestmark = pytest.mark.usefixtures('same_programs')

TINY = """
from __gin__ import dynamic_registration
import optax
from dopamine_jax import networks
from dopamine_jax import runner
from dopamine_jax.agents import double_dqn
from dopamine_jax.agents import dqn
from dopamine_jax.environments import atari
from dopamine_jax.environments import gym
from dopamine_jax.metrics import csv_file
from dopamine_jax.replay import uniform

runner.Runner:
  agent = @dqn.DQN
  environment = @gym.Gym()
  num_iterations = 2
  training_steps = 40
  collectors = [@csv_file.CSV]
gym.Gym:
  id = 'CartPole-v1'
  max_steps_per_episode = 20
dqn.DQN:
  network = @networks.MLP
  replay = @uniform.UniformReplay
  optimizer = @optax.adam()
  target_update_period = 20
  epsilon = 0.5
networks.MLP.hidden = (8,)
uniform.UniformReplay:
  capacity = 60
  batch_size = 8
  min_history = 20
optax.adam.learning_rate = 1e-3
"""

# Environments that a user might have, in a module of their own.
MY_ENVS = """
import gymnasium
from gymnasium import spaces
import numpy as np


class Coins(gymnasium.Env):
  '''3 to 7 steps, each worth 2, whatever one does.'''

  observation_space = spaces.Box(0, 1, (2,), np.float32)
  action_space = spaces.Discrete(2)

  def reset(self, *, seed=None, options=None):
    super().reset(seed=seed)
    self.left = self.np_random.integers(3, 8)
    return np.zeros(2, np.float32), {}

  def step(self, action):
    self.left -= 1
    return np.zeros(2, np.float32), 2.0, self.left == 0, False, {}


class Dictionary(Coins):
  observation_space = spaces.Dict({'place': Coins.observation_space})


for name, env in (
  ('Coins', Coins), ('Dictionary', Dictionary)
):
  gymnasium.register(f'{name}-v0', entry_point=env)
"""


# It is not filled: what is trained so need not compile learning.
ASLEEP = (
  'uniform.UniformReplay.capacity = 200',
  'uniform.UniformReplay.min_history = 200',
)


class Cli:
  """Runs commands in this process."""

  def __init__(self, capsys, monkeypatch):
    self._capsys = capsys
    self._monkeypatch = monkeypatch

  def __call__(self, *words, status=0):
    """Returns what was printed, without and with stderr, on one line each."""
    with self._monkeypatch.context() as patch:
      patch.setattr(sys, 'argv', ['dopamine-jax', *map(str, words)])
      patch.setattr(sys, 'path', list(sys.path))
      self._capsys.readouterr()
      actual = cli.main()
    out, err = self._capsys.readouterr()
    assert 'Traceback' not in out + err
    assert actual == status, out + err
    return out if status == 0 else err


@pytest.fixture(autouse=True)
def working_folder(tmp_path, monkeypatch):
  (tmp_path / 'tiny.gin').write_text(TINY)
  monkeypatch.chdir(tmp_path)


@pytest.fixture(scope='module', autouse=True)
def my_envs(tmp_path_factory):
  folder = tmp_path_factory.mktemp('modules')
  (folder / 'my_envs.py').write_text(MY_ENVS)
  with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(folder)
    yield


@pytest.fixture
def run(capsys, monkeypatch):
  return Cli(capsys, monkeypatch)


def train(*bindings, base_dir='run', gin='tiny.gin', options=()):
  """Returns the words of a training with these bindings."""
  words = ['train', '--gin_files', gin, '--base_dir', base_dir]
  for binding in bindings:
    words += ['--gin_bindings', binding]
  return [*words, *options]


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """Returns a function that gives a fresh copy of a trained run's folder."""
  folder = tmp_path_factory.mktemp('trained')
  (folder / 'tiny.gin').write_text(TINY)

  def copy(to, *bindings, seeds=1):
    name = re.sub(r'\W+', '_', '_'.join(['run', *bindings, str(seeds)]))
    if not (folder / name).exists():
      words = train(
        *bindings,
        gin=folder / 'tiny.gin',
        base_dir=folder / name,
        options=['--num_seeds', str(seeds), '--quiet'],
      )
      with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', ['dopamine-jax', *map(str, words)])
        patch.setattr(sys, 'path', list(sys.path))
        programs.share(patch)
        assert cli.main() == 0
    shutil.copytree(folder / name, to)
    return pathlib.Path(to)

  return copy


def files_of(folder):
  """Returns what a folder holds, to see whether it is left alone."""
  return {
    str(p): p.read_bytes()
    for p in pathlib.Path(folder).rglob('*')
    if p.is_file() and p.name != '.lock'
  }


def film_of(path):
  """Returns the frames and how many there are in a second."""
  with warnings.catch_warnings():
    warnings.simplefilter('ignore', ResourceWarning)
    frames, fps = imageio.imread(path), imageio.immeta(path)['fps']
    gc.collect()  # imageio leaves its pipes to this
  return frames, fps


def line_of(words):
  for number, line in enumerate(
    pathlib.Path('tiny.gin').read_text().splitlines()
  ):
    if words in line:
      return f'tiny.gin, line {number + 1}: '
  raise AssertionError(words)


# Usage.


COMMANDS = (
  *('train', 'evaluate', 'record', 'compare'),
  *('report', 'doctor', 'configs', 'fingerprint', 'new', 'sweep'),
)


@pytest.mark.parametrize('command', COMMANDS)
def test_each_option_of_a_command_is_explained(run, command, monkeypatch):
  monkeypatch.setenv('COLUMNS', '200')
  text = run(command, '--help')
  group = typer.main.get_command(cli.app)
  assert set(group.commands) == set(COMMANDS)
  assert group.commands[command].help in text
  for parameter in group.commands[command].params:
    assert len(parameter.help) > 10, parameter.name
    name = max(parameter.opts, key=len)
    if parameter.param_type_name == 'argument' and parameter.metavar:
      name = parameter.metavar
    assert name in text


def test_the_options_are_those_that_are_documented(run, monkeypatch):
  monkeypatch.setenv('COLUMNS', '200')
  text = run('train', '--help')
  for option in (
    '--base_dir',
    '--gin_files',
    '--gin_bindings',
    '--seed',
    '--num_seeds',
    '--resume',
    '--no-resume',
    '--quiet',
    '--profile',
  ):
    assert f'{option} ' in text
  assert '--episodes ' in run('evaluate', '--help')
  text = run('record', '--help')
  assert '--no-panel ' in text and '--saliency ' in text


def test_the_help_lists_the_commands(run):
  text = run('--help')
  assert all(f' {command} ' in text for command in COMMANDS)


@pytest.mark.parametrize(
  'words',
  [
    [],
    ['trane'],
    ['train'],
    ['train', '--base_dir', 'run'],
    ['doctor'],
    [*train(), '--nonsense'],
    [*train(), '--seed', '-1'],
    [*train(), '--seed', 'one'],
    [*train(), '--num_seeds', '0'],
    [*train(), '--seed', str(2**31)],
    [*train(), '--num_seeds', str(2**31)],
    ['doctor', '--gin_files', 'tiny.gin', '--num_seeds', str(2**40)],
    ['evaluate', 'run', '--seed', str(2**63)],
    ['record', 'run', '--seed', str(2**31)],
    train(base_dir=''),
    train(base_dir='~nobody_of_that_name/run'),
    train(gin=''),
    ['evaluate', ''],
    ['evaluate', 'run', '--output', ''],
    ['record', 'run', '--output', ''],
    ['report', 'run', '--out', ''],
    ['compare', 'run', '--out', ''],
    ['compare', ''],
    ['fingerprint', ''],
    ['evaluate'],
    ['evaluate', 'run', '--episodes', '0'],
    ['record', 'run', '--episodes', '0'],
    ['fingerprint'],
  ],
)
def test_wrong_usage_has_status_2(run, words):
  assert run(*words, status=2) or not words
  assert not pathlib.Path('run').exists()


def test_configs_lists_each_shipped_file_with_its_first_line(run):
  text = run('configs')
  root = pathlib.Path(cli.__file__).resolve().parent.parent
  files = sorted((root / 'configs').glob('*.gin'))
  assert files
  for file in files:
    header = file.read_text().splitlines()[0].removeprefix('# ')
    (line,) = [x for x in text.splitlines() if x.startswith(f'{file.stem} ')]
    assert line.split() == [file.stem, *header.split()]


def test_configs_prints_the_one_that_is_named_and_what_its_settings_mean(
  run, tmp_path
):
  file = pathlib.Path(cli.__file__).resolve().parent.parent / 'configs'
  text = (file / 'dqn_catch.gin').read_text()
  printed = run('configs', 'dqn_catch')
  assert printed.startswith(text)
  for meaning in (
    '# dqn.DQN',
    '#   n_step: rewards summed before bootstrapping.',
    '# optax.adam\n#   learning_rate: A global scaling factor',  # a library's
  ):
    assert meaning in printed
  assert all(len(line) <= 80 for line in printed.splitlines())
  # It is a gin file still.
  (tmp_path / 'mine.gin').write_text(printed)
  config.load([tmp_path / 'mine.gin']).build(runner_lib.Runner)
  assert 'Did you mean dqn_catch' in run('configs', 'dqn_cath', status=1)


@pytest.mark.parametrize(
  ('text', 'words'),
  [
    ('import strange\nstrange.X.a = 1\n', 'not shown, since that could run'),
    ("include 'theirs.gin'\n", 'not shown, since that could run'),
    (
      "include 'dopamine_jax/configs/dqn_catch.gin'\n",
      '#   n_step: rewards summed',
    ),
    ('# nothing\n', '# It sets nothing.'),
    (
      'from dopamine_jax.agents import dqn\ndqn.DQN.gama = 1\n',
      'not known here',
    ),
  ],
)
def test_configs_runs_no_code_that_a_file_brings(
  run, text, words, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  pathlib.Path('strange.py').write_text('open("was_run", "w")\n')
  pathlib.Path('theirs.gin').write_text('import strange\nstrange.X.a = 1\n')
  head = 'from __gin__ import dynamic_registration\n'
  pathlib.Path('mine.gin').write_text(head + text)
  printed = run('configs', 'mine.gin')
  assert printed.startswith(head + text) and words in printed, printed
  assert not pathlib.Path('was_run').exists()


def test_the_version_is_that_of_the_package(run):
  version = importlib.metadata.version('dopamine-jax')
  assert run('--version') == f'dopamine-jax {version}\n'


def test_a_config_is_named_and_its_run_lies_in_a_new_folder(run):
  words = ['train', 'tiny.gin', '-b', 'runner.Runner.num_iterations = 1']
  assert 'The run lies in runs/tiny/' in run(*words)
  run(*words)
  first, _ = sorted(pathlib.Path('runs/tiny').iterdir())
  facts = json.loads((first / 'run.json').read_text())
  command = facts['events'][0]['command']
  assert f' --base_dir {first} ' in command
  # So the command that is written down goes on with the run.
  run(*shlex.split(command)[1:])
  events = json.loads((first / 'run.json').read_text())['events']
  assert [each['event'] for each in events[2:]] == ['resumed', 'finished']
  assert len([*pathlib.Path('runs/tiny').iterdir()]) == 2


# What the commands do.


def test_train_says_what_was_reached_and_what_to_do_next(run):
  text = run(*train('runner.Runner.evaluation_episodes = 2'))
  assert re.search(r'Mean evaluation return in the last iteration: \d', text)
  assert re.search(r'Mean training return in the last iteration: \d', text)
  assert f'{errors.program("tensorboard")} --logdir run' in text
  assert f'{errors.program("dopamine-jax")} evaluate run' in text
  assert {'config.gin', 'metrics.csv', 'run.json', 'checkpoints'} <= set(
    os.listdir('run')
  )


def test_commands_that_are_printed_can_be_pasted(run):
  text = run(*train(base_dir="a run's"))
  for line in text.splitlines()[-2:]:
    assert shlex.split(line)[-1] == "a run's"
  error = run(*train('dqn.DQN.gamma = 0.5', base_dir="a run's"), status=1)
  words = error[error.index('--gin_files') :]
  old = shlex.split(words[: words.index('. Or train')])[1]
  run(*train(gin=old, base_dir="a run's"))


def test_a_tilde_is_the_home_in_every_path(run, trained, tmp_path, monkeypatch):
  trained('home/run')
  monkeypatch.setenv('HOME', str(tmp_path / 'home'))
  run(*train(gin='~/run/config.gin', base_dir='~/run'))
  assert run('fingerprint', '~/run')
  run('evaluate', '~/run', '--episodes', 1, '--output', '~/a.csv')
  run('report', '~/run', '--out', '~/b.html')
  run('compare', 'B=~/run', '--out', '~/c')
  run('compare', '~/run', '--out', '~/c')
  assert {'a.csv', 'b.html', 'c', 'run'} <= set(os.listdir('home'))
  assert not pathlib.Path('~').exists()


def test_seeds_whose_sum_is_too_large_are_told(run, trained):
  base_dir = trained('run', *ASLEEP, seeds=2)
  largest = 2**31 - 1
  options = ['--seed', str(largest), '--num_seeds', '2']
  error = run(*train(base_dir='other', options=options), status=1)
  assert f'seeds {largest} to {largest + 1}' in error
  assert not pathlib.Path('other').exists()
  error = run('evaluate', base_dir, '--seed', largest, status=1)
  assert f'--seed {largest} is too large' in error
  run('evaluate', base_dir, '--seed', largest - 1, '--episodes', 1)


def test_the_largest_seed_trains(run):
  run(*train(options=['--quiet', '--seed', str(2**31 - 1)]))


def test_quiet_says_nothing(run):
  assert run(*train(options=['--quiet'])) == ''


def test_the_configuration_in_the_folder_trains_the_same(
  run, trained, tmp_path
):
  first = trained('first')
  run(*train(gin='first/config.gin', base_dir='second', options=['--quiet']))
  assert run('fingerprint', 'second') == run('fingerprint', first)
  one, two = (
    pathlib.Path(x, 'config.gin').read_text() for x in ('first', 'second')
  )
  assert one == two


def test_fingerprint_prints_a_digest_for_each_part(run, trained):
  lines = run('fingerprint', trained('run')).splitlines()
  assert [line.split()[0] for line in lines] == [
    'parameters',
    'optimizer',
    'replay',
    'counters',
    'metrics',
    'all',
  ]
  assert all(re.fullmatch(r'\w+ +[0-9a-f]{64}', line) for line in lines)


# One seed's are looked at below.
@pytest.mark.parametrize('seeds', [pytest.param(1, marks=pytest.mark.slow), 3])
def test_evaluate_writes_each_episode_and_the_mean_with_its_interval(
  run, trained, seeds
):
  coins = "gym.Gym.id = 'my_envs:Coins-v0'"
  base_dir = trained('run', coins, *ASLEEP, seeds=seeds)
  text = run('evaluate', base_dir, '--episodes', '50')
  with open(base_dir / 'evaluation.csv', newline='') as stream:
    rows = list(csv.DictReader(stream))
  assert [(int(r['seed']), int(r['episode'])) for r in rows] == list(
    itertools.product(range(seeds), range(50))
  )
  by_seed = np.array([float(r['return']) for r in rows]).reshape(seeds, 50)
  lengths = np.array([int(r['length']) for r in rows]).reshape(seeds, 50)
  np.testing.assert_array_equal(by_seed, 2 * lengths)
  assert set(lengths.ravel()) == {3, 4, 5, 6, 7}
  for seed in range(seeds):
    mean, low, high = map(
      float,
      re.search(
        rf'seed {seed}: mean return (\S+), 95% interval \[(\S+), (\S+)\] over '
        '50 episodes, after iteration 2',
        text,
      ).groups(),
    )
    assert mean == pytest.approx(by_seed[seed].mean(), abs=0.006)
    half = 1.96 * by_seed[seed].std() / np.sqrt(50)
    assert low == pytest.approx(mean - half, abs=0.15 * half)
    assert high == pytest.approx(mean + half, abs=0.15 * half)
  if seeds > 1:
    assert len({tuple(row) for row in by_seed}) == seeds


def test_evaluate_repeats_itself_and_takes_a_seed_and_a_file(run, trained):
  base_dir = trained('run')
  for output, seed in (('a.csv', 1), ('b.csv', 1), ('c.csv', 2)):
    options = ('--episodes', 3, '--output', output, '--seed', seed)
    assert output in run('evaluate', base_dir, *options)
  a, b, c = (pathlib.Path(f'{x}.csv').read_text() for x in 'abc')
  assert a == b
  assert a != c
  assert not (base_dir / 'evaluation.csv').exists()


def test_evaluate_takes_an_older_checkpoint_for_a_damaged_one(
  run, trained, capsys
):
  base_dir = trained('run')
  (base_dir / 'checkpoints/000002/manifest.json').write_text('')
  text = run('evaluate', base_dir, '--episodes', 2)
  assert 'after iteration 1' in text


def test_record_films_cartpole(run, trained):
  pytest.importorskip('pygame')
  base_dir = trained('run')
  text = run('record', base_dir, '--episodes', 2)
  assert 'returns' in text
  returns = [float(x) for x in re.findall(r'[\d.]+', text.split('returns')[1])]
  video, fps = film_of(base_dir / 'video.mp4')
  assert len(returns) == 2
  assert fps == 50
  assert video.shape == (sum(returns), 420, 600 + 360, 3)
  assert video[-1].std() > 5  # there is something to see, and it moves
  assert (video[0] != video[-1]).any()


def test_record_films_the_first_of_several_seeds(run, trained):
  pytest.importorskip('pygame')
  two = trained('two', *ASLEEP, seeds=2)
  text = run('record', two, '--output', 'film.mp4')
  (value,) = re.findall(r'returns (\d+)', text)
  assert len(film_of('film.mp4')[0]) == int(value)


@pytest.mark.parametrize(
  ('module', 'bindings', 'shape', 'fps'),
  [
    # Films of Gymnasium are above.
    pytest.param(
      'minatar',
      ("gym.Gym.id = 'MinAtar/Breakout-v1'",),
      (420, 420 + 360, 3),
      30,
      marks=pytest.mark.slow,
    ),
    (
      'ale_py',
      (
        'runner.Runner.environment = @atari.Atari()',
        'atari.Atari.max_steps_per_episode = 12',
      ),
      (420, 320 + 360, 3),
      15,
    ),
  ],
)
def test_record_films_other_environments(
  run, trained, module, bindings, shape, fps
):
  pytest.importorskip(module)
  base_dir = trained('run', *bindings, *ASLEEP)
  run('record', base_dir, '--output', 'film.mp4', '--saliency')
  video, actual_fps = film_of('film.mp4')
  assert video.shape[1:] == shape
  assert video.std() > 5
  assert actual_fps == fps


def test_the_film_is_of_the_episodes_that_evaluate_plays(run, trained):
  pytest.importorskip('pygame')
  base_dir = trained('run')
  films = []
  for option in ('--panel', '--no-panel'):
    run('record', base_dir, '--seed', 4, '--output', 'film.mp4', option)
    films.append(film_of('film.mp4')[0])
  run('evaluate', base_dir, '--seed', 4, '--episodes', 1)
  with open(base_dir / 'evaluation.csv', newline='') as file:
    (row,) = csv.DictReader(file)
  assert [len(film) for film in films] == [int(row['length'])] * 2
  with_panel, without = (film.astype(int) for film in films)
  assert without.shape[1:] == (400, 600, 3)
  # But for what the film's compression makes of it.
  assert np.abs(with_panel[:, 10:410, :600] - without).mean() < 1


def test_record_refuses_saliency_where_there_is_no_image(run, trained):
  base_dir = trained('run')
  error = run('record', base_dir, '--saliency', status=1)
  assert 'no image but numbers of shape (4,)' in error
  assert not (base_dir / 'video.mp4').exists()


def test_train_traces_steps_when_asked(run):
  run(*train(options=['--quiet', '--profile', '10'], base_dir='traced'))
  run(*train(options=['--quiet'], base_dir='plain'))
  (folder,) = pathlib.Path('traced/tensorboard/plugins/profile').iterdir()
  assert [*folder.glob('*.xplane.pb')] and [*folder.glob('perfetto_*')]
  assert run('fingerprint', 'traced') == run('fingerprint', 'plain')


@pytest.mark.parametrize('left', [0.5, 0.0])
def test_a_film_that_the_disk_cut_short_is_told(
  run, trained, monkeypatch, left
):
  pytest.importorskip('pygame')
  make = legacy_imageio.get_writer

  def cut_short(output, **options):
    video = make(output, **options)
    close = video.close

    def close_and_cut():
      close()
      os.truncate(output, int(left * os.path.getsize(output)))

    video.close = close_and_cut
    return video

  monkeypatch.setattr(legacy_imageio, 'get_writer', cut_short)
  error = run('record', trained('run'), status=1)
  assert 'could not write run/video.mp4 to its end: ffmpeg ended' in error
  assert not [name for name in os.listdir('run') if name.endswith('.mp4')]


@pytest.mark.parametrize('place', ['get_writer', 'append_data', 'close'])
@pytest.mark.parametrize('free', [0, 10**9])
def test_a_film_for_which_the_disk_is_full_says_so(
  run, trained, monkeypatch, place, free
):
  pytest.importorskip('pygame')

  def at(where):
    if where == place:
      raise OSError(errno.EPIPE, 'Broken pipe, FFMPEG COMMAND: ...')

  def get_writer(output, **options):
    at('get_writer')
    return types.SimpleNamespace(
      append_data=lambda image: at('append_data'), close=lambda: at('close')
    )

  monkeypatch.setattr(legacy_imageio, 'get_writer', get_writer)
  usage = types.SimpleNamespace(free=free)
  monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage)
  error = run('record', trained('run'), status=1)
  why = 'no space is left on its disk' if free == 0 else 'ffmpeg ended'
  assert f'could not write run/video.mp4 to its end: {why}.' in error
  assert 'FFMPEG' not in error


def test_record_says_which_files_it_can_not_write(run, trained):
  base_dir = trained('run')
  error = run('record', base_dir, '--output', 'film.txt', status=1)
  assert 'film.txt' in error
  assert '.mp4' in error
  error = run('record', base_dir, '--output', 'no/film.mp4', status=1)
  assert 'no/film.mp4' in error


def test_a_score_is_said_where_its_file_can_not_be_written(
  trained, capsys, monkeypatch
):
  words = ['evaluate', str(trained('run')), '--episodes', '2']
  for output in ('no/x.csv', '/dev/full', 'run'):
    monkeypatch.setattr(
      sys, 'argv', ['dopamine-jax', *words, '--output', output]
    )
    assert cli.main() == 1
    out, error = capsys.readouterr()
    assert 'seed 0: mean return' in out
    assert f'could not write {output}' in error


@pytest.mark.parametrize('command', ['evaluate', 'record', 'fingerprint'])
def test_a_folder_that_holds_no_run_is_told(run, command):
  pathlib.Path('empty').mkdir()
  for folder in ('empty', 'nowhere'):
    error = run(command, folder, status=1)
    assert f'{folder} holds no run' in error
  pathlib.Path('empty/run.json').write_text('[]')
  assert 'empty/run.json can not be read' in run(command, 'empty', status=1)


@pytest.mark.parametrize('command', ['evaluate', 'record', 'fingerprint'])
def test_a_run_without_a_checkpoint_is_told(run, trained, command):
  base_dir = trained('run')
  shutil.rmtree(base_dir / 'checkpoints')
  error = run(command, base_dir, status=1)
  assert 'no checkpoint' in error


# Mistakes in a configuration.


@pytest.mark.parametrize(
  ('old', 'new', 'words'),
  [
    ('agents import dqn', 'agents import dqnn', ['Did you mean dqn?']),
    ('= @dqn.DQN', '= @dqn.DQQN', ['DQQN', 'Did you mean DQN?']),
    ('epsilon = 0.5', 'epsylon = 0.5', ["'epsylon'", 'Did you mean epsilon?']),
    ('learning_rate', 'lerning_rate', ['Did you mean learning_rate?']),
    ('capacity = 60', "capacity = '60'", ['of type str; expected int']),
    ('capacity = 60', 'capacity = 60.5', ['of type float; expected int']),
    (
      'learning_rate = 1e-3',
      "learning_rate = '1e-3'",
      ["'1e-3'", 'expected a number'],
    ),
    ('hidden = (8,)', 'hidden = 8', ['hidden = 8', 'Sequence']),
    ('@optax.adam()', '@optax.adam', ['@name()']),
    ('epsilon = 0.5', 'epsilon = = 0.5', ['Unable to parse']),
    ('epsilon = 0.5', 'epsilon = high', ['high', 'quotes']),
    ('epsilon = 0.5', 'epsilon = 1.5', ['1.5', '[0, 1]']),
    ('batch_size = 8', 'batch_size = 30', ['30', 'min_history = 20']),
    ('min_history = 20', 'min_history = 70', ['70', 'capacity = 60']),
    ('training_steps = 40', 'training_steps = 0', ['0', 'at least 1']),
    ('training_steps = 40', 'training_steps = -40', ['-40', 'at least 1']),
    ('update_period = 20', 'update_period = 0', ['0']),
    ('update_period = 20', 'update_period = 19', ['19', 'update_period = 4']),
  ],
)
def test_a_mistake_in_the_gin_file_is_told_with_its_line(run, old, new, words):
  assert TINY.count(old) == 1 or old == 'agents import dqn'
  pathlib.Path('tiny.gin').write_text(
    TINY.replace(f'{old}\n', f'{new}\n', 1)
    if f'{old}\n' in TINY
    else TINY.replace(old, new, 1)
  )
  error = run(*train(), status=1)
  assert error.startswith(f'Error: {line_of(new)}'), error
  for word in words:
    assert word in error


@pytest.mark.parametrize(
  ('binding', 'words'),
  [
    ('dqn.DQN.gama = 0.9', ["'gama'", 'Did you mean gamma?']),
    ("dqn.DQN.gamma = 'high'", ['of type str; expected float']),
    ('dqn.DQM.gamma = 0.9', ['dqn.DQM', 'Did you mean DQN?']),
    ('gamma', ["expected ':' or '='"]),
    ('dqn.DQN.n_step = 59', ['n_step = 59', '60']),
    ('dqn.DQN.n_step = 0', ['0', 'at least 1']),
    ('runner.Runner.checkpoint_period = 0', ['0', 'at least 1']),
    ('runner.Runner.evaluation_episodes = -1', ['-1', 'at least 0']),
    ('runner.Runner.num_envs = 3', ['40', 'num_envs = 3']),
    ('gym.Gym.stack = 0', ['0', 'at least 1']),
    ('gym.Gym.reward_clip = -1', ['-1', 'above 0']),
    ("gym.Gym.id = 'CartPol-v1'", ["'CartPol-v1'", 'CartPole-v1']),
    ("gym.Gym.id = 'no_such_module:X-v0'", ['no_such_module']),
    ("gym.Gym.id = 'ALE/Pong-v5'", ['atari.Atari.game']),
    (
      "gym.Gym.id = 'Pendulum-v1'",
      ['action_space', 'Box(-1.0, 1.0', 'Discrete', 'DQN'],
    ),
    ("gym.Gym.id = 'my_envs:Dictionary-v0'", ['Dict(', 'Box', 'its word']),
    (
      'uniform.UniformReplay.capacity = 1_000_000_000',
      ['GB for replay', 'GB are available', 'capacity'],
    ),
    ('runner.Runner.collectors = [@csv_file.CSV()]', ['without parentheses']),
  ],
)
def test_what_can_not_work_is_refused_before_training(
  run, binding, words, monkeypatch
):
  little = types.SimpleNamespace(available=10**9)
  monkeypatch.setattr(psutil, 'virtual_memory', lambda: little)
  error = run(*train(binding), status=1)
  for word in words:
    assert word in error
  assert not pathlib.Path('run').exists()


def test_a_gin_file_that_is_not_there_is_named(run):
  error = run(*train(gin='dopamine_jax/configs/dqn_cartpol.gin'), status=1)
  assert 'dopamine_jax/configs/dqn_cartpol.gin is no gin file, and' in error
  assert 'Did you mean dqn_cartpole or pqn_cartpole?' in error


@pytest.mark.parametrize('command', ['train', 'doctor'])
def test_a_command_without_a_config_says_where_they_are_listed(run, command):
  error = run(command, status=2)
  assert 'CONFIG: none is given, such as dqn_cartpole' in error
  assert not pathlib.Path('runs').exists()


@pytest.mark.parametrize('command', ['train', 'doctor'])
@pytest.mark.parametrize(
  ('binding', 'words'),
  [
    (
      'gamma = 0.9',
      'gamma = 0.9 sets nothing: a name without a class is a macro, and '
      'nothing reads %gamma. Did you mean `dqn.DQN.gamma = 0.9`?',
    ),
    (
      'double_dqn.DoubleDQN.gamma = 0.5',
      'double_dqn.DoubleDQN.gamma is set, but nothing in this run uses it. Did '
      'you mean `dqn.DQN.gamma = 0.5`?',
    ),
    (
      'foo/dqn.DQN.gamma = 0.5',
      'foo/dqn.DQN.gamma is set, but nothing in this run uses it. Did you mean '
      '`dqn.DQN.gamma = 0.5`? No dqn.DQN is made in the scope foo/.',
    ),
    # The replay's is the agent's to give, and would be refused in turn.
    (
      'foo/uniform.UniformReplay.gamma = 0.5',
      'nothing in this run uses it. Did you mean `dqn.DQN.gamma = 0.5`?',
    ),
    (
      'uniform.UniformReplay.gamma = 0.5',
      'has no effect: dqn.DQN gives it. Set dqn.DQN.gamma instead.',
    ),
    (
      "networks.NatureCNN.padding = 'VALID'",
      'uses it. To use it, set `dqn.DQN.network = @networks.NatureCNN`.',
    ),
  ],
)
def test_a_setting_that_nothing_reads_is_refused(run, command, binding, words):
  folder = ['--base_dir', 'run'] if command == 'train' else []
  asked = ['--gin_files', 'tiny.gin', '--gin_bindings', binding, *folder]
  assert words in run(command, *asked, status=1)
  assert not pathlib.Path('run/metrics.csv').exists()


@pytest.mark.parametrize(
  ('missing', 'binding', 'extra'),
  [
    (['ale_py'], 'runner.Runner.environment = @atari.Atari()', 'atari'),
    (['minatar'], "gym.Gym.id = 'MinAtar/Breakout-v1'", 'minatar'),
    (['Box2D'], "gym.Gym.id = 'LunarLander-v3'", 'box2d'),
    (['mujoco'], "gym.Gym.id = 'HalfCheetah-v5'", 'mujoco'),
  ],
)
def test_an_extra_that_is_missing_is_named_with_what_installs_it(
  run, monkeypatch, missing, binding, extra
):
  for name in [*sys.modules]:
    if name.startswith(('gymnasium.envs.box2d', 'gymnasium.envs.mujoco')):
      monkeypatch.delitem(sys.modules, name)
  for name in missing:
    monkeypatch.setitem(sys.modules, name, None)  # its import fails
  monkeypatch.delitem(gymnasium.registry, 'MinAtar/Breakout-v1', raising=False)
  error = run(*train(binding), status=1)
  assert errors.install(extra) in error


# Mistakes about a folder.


def test_a_base_dir_that_can_not_be_written_is_told(run):
  pathlib.Path('file').write_text('in the way')
  for base_dir in ('file', 'file/run'):
    error = run(*train(base_dir=base_dir), status=1)
    assert f'--base_dir {base_dir} can not be written' in error
  assert pathlib.Path('file').read_text() == 'in the way'


def test_a_disk_that_is_full_during_a_save_keeps_the_last_checkpoint(
  run, trained, monkeypatch
):
  from dopamine_jax.checkpoints import ring_files

  base_dir = trained('run')
  before = sorted(os.listdir(base_dir / 'checkpoints'))
  longer = 'runner.Runner.num_iterations = 3'

  def full(*args):
    raise OSError(28, 'No space left on device')

  with monkeypatch.context() as patch:
    patch.setattr(ring_files, '_write_rows', full)
    error = run(*train(longer), status=1)
  assert 'No space left on device' in error
  assert 'stays: of iteration 2' in error
  assert sorted(os.listdir(base_dir / 'checkpoints')) == before
  run(*train(longer))


@pytest.mark.parametrize(
  ('binding', 'words'),
  [
    ('dqn.DQN.gamma = 0.5', ['DQN.gamma = 0.99', 'DQN.gamma = 0.5']),
    (
      'runner.Runner.agent = @double_dqn.DoubleDQN',
      ['-', 'agent = @dqn.DQN', 'agent = @double_dqn.DoubleDQN'],
    ),
    ('networks.MLP.hidden = (9,)', ['hidden = (8,)', 'hidden = (9,)']),
    ('runner.Runner.num_iterations = 1', ['done 2 iterations', '= 1']),
  ],
)
def test_a_run_never_goes_on_under_another_configuration(
  run, trained, binding, words
):
  before = files_of(trained('run'))
  error = run(*train(binding), status=1)
  for word in words:
    assert word in error
  assert files_of('run') == before


@pytest.mark.parametrize(
  'options', [['--seed', '1'], ['--num_seeds', '2'], ['--no-resume']]
)
def test_a_run_is_never_overwritten(run, trained, options):
  before = files_of(trained('run'))
  error = run(*train(options=options), status=1)
  assert 'another --base_dir' in error
  assert options[0] in error
  if '--no-resume' not in options:
    assert '[0]' in error
  assert files_of('run') == before


def test_no_resume_starts_where_there_is_no_run(run):
  run(*train(options=['--no-resume']))


def test_two_processes_do_not_train_in_one_folder(run):
  with folder_lock.open_for_training('run'):
    error = run(*train(), status=1)
  assert 'another process is training in run' in error
  run(*train())


def test_a_library_that_changed_is_told(run, trained, capsys, monkeypatch):
  base_dir = trained('run')
  facts = json.loads((base_dir / 'run.json').read_text())
  facts['versions']['jax'] = '0.0.1'
  (base_dir / 'run.json').write_text(json.dumps(facts))
  monkeypatch.setattr(sys, 'argv', ['dopamine-jax', *train()])
  assert cli.main() == 0
  assert 'jax 0.0.1 -> ' in capsys.readouterr().err


def test_a_run_notes_what_happened_to_it(run):
  run(*train())
  longer = train('runner.Runner.num_iterations = 3')
  run(*longer)
  facts = json.loads(pathlib.Path('run/run.json').read_text())
  events = facts['events']
  assert [(e['event'], e['iteration']) for e in events] == [
    *(('started', 0), ('finished', 2)),
    *(('resumed', 2), ('finished', 3)),
  ]
  assert events[0]['command'] == 'dopamine-jax ' + shlex.join(train())
  assert events[2]['command'] == 'dopamine-jax ' + shlex.join(longer)
  assert events[2]['machine']['cores'] == os.cpu_count()
  assert events[2]['versions'] == facts['versions']
  times = [datetime.datetime.fromisoformat(e['time']) for e in events]
  assert times == sorted(times)
  assert times[0].utcoffset() == datetime.timedelta(0)


def test_a_run_that_noted_nothing_yet_goes_on(run, trained):
  """As runs of older versions do."""
  base_dir = trained('run')
  facts = json.loads((base_dir / 'run.json').read_text())
  del facts['events']
  (base_dir / 'run.json').write_text(json.dumps(facts))
  run(*train('runner.Runner.num_iterations = 3'))
  events = json.loads((base_dir / 'run.json').read_text())['events']
  assert [e['event'] for e in events] == ['resumed', 'finished']


def test_a_title_outlasts_a_resume_from_the_runs_own_configuration(run):
  pathlib.Path('titled.gin').write_text(f'# A title.\n{TINY}')
  run(*train(gin='titled.gin'))
  longer = 'runner.Runner.num_iterations = 3'
  run(*train(longer, gin='run/config.gin'))
  facts = json.loads(pathlib.Path('run/run.json').read_text())
  assert facts['title'] == 'A title.'


# Report.


def test_a_report_films_the_agent_if_asked(run, trained):
  base_dir = trained('run', *ASLEEP, seeds=2)
  run('report', 'run')
  assert '<video' not in (base_dir / 'report.html').read_text()
  run('report', 'run', '--video', '--out', 'pages/mine.html')
  assert '<video' in pathlib.Path('pages/mine.html').read_text()
  assert (base_dir / 'video.mp4').exists()


# NaN.


@pytest.fixture
def untried(monkeypatch):
  """Lets optimizers begin that the trial before a training would refuse."""
  monkeypatch.setattr(trials, 'check', lambda owner, last_count: None)


def test_training_stops_at_the_first_update_that_is_not_finite(run, untried):
  bindings = (
    'runner.Runner.training_steps = 20',
    'runner.Runner.num_iterations = 5',
    'optax.adam.learning_rate = @optax.piecewise_constant_schedule()',
    'optax.piecewise_constant_schedule.init_value = 1e-3',
    # From the 9th update on, which comes after step 52, in iteration 3.
    'optax.piecewise_constant_schedule.boundaries_and_scales = {8: 1e38}',
  )
  error = run(*train(*bindings), status=1)
  assert re.search(r'\w+ is not finite', error)
  step = int(re.search(r'at agent step (\d+)', error).group(1))
  assert 52 <= step <= 60
  assert 'check_finite = False' in error
  last = json.loads(pathlib.Path('run/run.json').read_text())['events'][-1]
  assert last['event'] == 'stopped'
  assert last['why'] in error
  assert sorted(os.listdir('run/checkpoints')) == ['000001', '000002']
  text = run('evaluate', 'run', '--episodes', 1)
  assert 'after iteration 2' in text


def test_the_guard_against_nan_can_be_switched_off(run, untried):
  run(
    *train(
      'optax.adam.learning_rate = 1e38', 'runner.Runner.check_finite = False'
    )
  )


def test_the_seed_with_the_nan_is_named(run, untried):
  error = run(
    *train(
      'optax.adam.learning_rate = 1e38',
      options=['--num_seeds', '2', '--seed', '5'],
    ),
    status=1,
  )
  assert 'of seed 5' in error or 'of seed 6' in error
