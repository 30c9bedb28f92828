"""What is read of runs and of Dopamine's files, and what is refused."""

import collections
import functools
import gzip
import hashlib
import json
import os
import pathlib
import pickle
import re

import numpy as np
import pandas as pd
import pytest

from dopamine_jax import analysis
from dopamine_jax import errors
from dopamine_jax.analysis import baselines
from dopamine_jax.analysis import games
from dopamine_jax.analysis import log_pickle
from dopamine_jax.analysis import runs
from dopamine_jax.training import identity

CONFIG = """from __gin__ import dynamic_registration
from dopamine_jax.agents import dqn

# Parameters for dqn.DQN:
# ==============================================================================
dqn.DQN.n_step = 3
dqn.DQN.network = \\
    @networks.MLP

# Parameters for gym.Gym:
# ==============================================================================
gym.Gym.id = 'CartPole-v1'
gym.Gym.stack = 1
networks.MLP.high = \\
    (2.4,
     5.0)

# Parameters for runner.Runner:
# ==============================================================================
runner.Runner.agent = @dqn.DQN
runner.Runner.environment = @gym.Gym()
runner.Runner.num_iterations = 9
"""
HEADER = 'seed,iteration,agent_steps,wall_time,name,value\n'
ROWS = (
  '0,1,10,1.5,Train/AverageReturns,3.25\n'
  '1,1,10,1.5,Train/AverageReturns,0.1\n'
  '0,2,20,2.5,Train/Loss,nan\n'
)


def make_run(folder, config=CONFIG, text=HEADER + ROWS):
  folder.mkdir(parents=True)
  (folder / 'config.gin').write_text(config)
  (folder / 'run.json').write_text('{}')
  if text is not None:
    (folder / 'metrics.csv').write_text(text)
  return folder


def read(path):
  """Loads, and returns the table and what was said."""
  said = []
  return analysis.load(path, said.append), said


# Our own runs.


def test_a_run_becomes_a_row_for_each_number(tmp_path):
  folder = make_run(tmp_path / 'a')
  table, said = read(tmp_path)
  assert not said
  assert list(table.columns) == runs.COLUMNS
  assert len(table) == 3
  row = table.iloc[0].to_dict()
  assert row.pop('config') == table.config[1]
  assert row == {
    'run': str(folder),
    'agent': 'DQN',
    'game': 'CartPole-v1',
    'seed': 0,
    'iteration': 1,
    'agent_steps': 10,
    'metric': 'Train/AverageReturns',
    'value': 3.25,
  }
  assert np.isnan(table.value[2])


def test_runs_are_found_at_any_depth_but_not_in_checkpoints(tmp_path):
  for place in ('b', 'a/deep/down', 'b/checkpoints/old', 'b/tensorboard/x'):
    make_run(tmp_path / place)
  table, _ = read(tmp_path)
  assert list(table.run.unique()) == [
    str(tmp_path / 'a/deep/down'),
    str(tmp_path / 'b'),
  ]


def test_a_metrics_file_may_be_named_itself(tmp_path):
  table, _ = read(make_run(tmp_path / 'a') / 'metrics.csv')
  assert table.run[0] == str(tmp_path / 'a')


@pytest.mark.parametrize(
  ('old', 'new', 'same'),
  [
    ('n_step = 3', 'n_step = 1', False),
    ('5.0)', '6.0)', False),
    ('stack = 1', 'stack = 2', False),
    ('@networks.MLP', '@networks.NatureCNN', False),
    ('@dqn.DQN\n', '@double_dqn.DoubleDQN\n', False),
    ("'CartPole-v1'", "'Acrobot-v1'", True),
    ('num_iterations = 9', 'num_iterations = 8', True),
    ('# =', '# -', True),
  ],
)
def test_a_config_is_what_decides_results_but_for_the_game(
  tmp_path, old, new, same
):
  assert old in CONFIG
  make_run(tmp_path / 'a')
  make_run(tmp_path / 'b', CONFIG.replace(old, new))
  table, _ = read(tmp_path)
  assert (table.config.nunique() == 1) == same


def test_an_environment_that_is_a_class_is_the_game():
  config = CONFIG.replace('@gym.Gym()', '@x/classic.CartPole()').replace(
    'gym.Gym.id', 'other.id'
  )
  config += 'classic.CartPole.max_steps_per_episode = 200\n'
  agent, game, settings, iterations = runs.identify(config, 'name')
  assert (agent, game, iterations) == ('DQN', 'CartPole', 9)
  assert settings['environment.max_steps_per_episode'] == '200'
  assert settings['networks.MLP.high'] == '(2.4, 5.0)'
  assert settings['dqn.DQN.network'] == '@networks.MLP'


@pytest.mark.parametrize(
  ('evaluated', 'found'), [('Pong', None), ('Krull',) * 2]
)
def test_the_game_of_an_environment_beside_one_for_evaluations(
  evaluated, found
):
  bindings = {
    'runner.Runner.agent': '@dqn.DQN',
    'runner.Runner.environment': '@environment/atari.Atari100k()',
    'runner.Runner.evaluation_environment': '@evaluation/atari.Atari100k()',
    'environment/atari.Atari100k.game': "'Pong'",
    'environment/atari.Atari100k.terminate_on_life_loss': 'True',
    'evaluation/atari.Atari100k.game': f"'{evaluated}'",
    'evaluation/atari.Atari100k.terminate_on_life_loss': 'False',
  }
  config = '\n'.join(f'{key} = {value}' for key, value in bindings.items())
  agent, game, settings, _ = runs.identify(config, 'name')
  assert (agent, game) == ('DQN', 'Pong')
  assert settings.pop('evaluation_environment.game', None) == found
  assert settings == {
    'runner.Runner.agent': '@dqn.DQN',
    'environment.terminate_on_life_loss': 'True',
    'evaluation_environment': 'Atari100k',
    'evaluation_environment.terminate_on_life_loss': 'False',
  }


@pytest.mark.parametrize(
  'bindings',
  [
    'runner.Runner.record_replay = True',
    'runner.Runner.histograms = True',
    'runner.Runner.videos = True',
    'runner.Runner.health = (@health.DormantNeurons(),)\n'
    'health.DormantNeurons.threshold = 0.1',
    'runner.Runner.collectors = [@tensorboard.TensorBoard]\n'
    'tensorboard.TensorBoard.folder = 1',
  ],
)
def test_what_only_watches_a_run_makes_no_other_experiment(bindings):
  watched = runs.identify(f'{CONFIG}\n{bindings}\n', 'name')
  assert watched == runs.identify(CONFIG, 'name')


def test_a_last_line_that_a_kill_cut_short_is_left_out(tmp_path):
  make_run(tmp_path / 'a', text=HEADER + ROWS + '1,2,20,2.5,Tra')
  table, said = read(tmp_path)
  assert len(table) == 3
  assert not said


@pytest.mark.parametrize(
  ('text', 'words'),
  [
    ('', ['can not be read']),
    ('hello\n', ['its columns are not seed,iteration']),
    (HEADER + '0,1,ten,1.0,a,1\n', ['ten']),
    (HEADER + '0,1,10,1.0,a,1\n' * 2, ['line 3', 'twice']),
    (HEADER + '0,1,10,1.0,,1\n', ['line 2', 'no name']),
    (HEADER + '0,1,10,1.0,a,1,7,8\n', ['can not be read']),
    (HEADER + '0,1,10,1.0,a,\xff\n', ['can not be read']),
    (HEADER, ['no iteration has ended']),
    (None, ['has not ended an iteration yet', 'csv_file.CSV']),
  ],
)
def test_a_run_that_can_not_be_read_is_told_and_the_others_are(
  tmp_path, text, words
):
  make_run(tmp_path / 'good')
  bad = make_run(tmp_path / 'bad', text=None)
  if text is not None:
    (bad / 'metrics.csv').write_text(text, encoding='latin1')
  table, (line,) = read(tmp_path)
  assert set(table.run) == {str(tmp_path / 'good')}
  assert line.startswith('Left out: ')
  for word in (str(bad), *words):
    assert word in line
  with pytest.raises(errors.UserError, match='bad'):
    analysis.load(bad)


def note_written(folder):
  """Has run.json say what a training has written."""
  data = (folder / 'metrics.csv').read_bytes()
  written = {'bytes': len(data), 'sha256': hashlib.sha256(data).hexdigest()}
  facts = {'progress': {'reported': 2, 'written': {'CSV': written}}}
  (folder / 'run.json').write_text(json.dumps(facts))


@pytest.mark.parametrize(
  ('text', 'words'),
  [
    (HEADER + ROWS[:-1], 'bytes of .* that the training wrote'),
    (HEADER, 'bytes of .* that the training wrote'),
    (HEADER + ROWS.replace('3.25', '9.25'), 'is not what the training wrote'),
    ('x' + HEADER + ROWS, 'is not what the training wrote'),
  ],
)
def test_a_run_whose_numbers_are_not_the_trainings_is_left_out(
  tmp_path, text, words
):
  make_run(tmp_path / 'good')
  folder = make_run(tmp_path / 'changed')
  note_written(folder)
  assert set(read(tmp_path)[0].run) == {str(tmp_path / 'good'), str(folder)}
  (folder / 'metrics.csv').write_text(text)
  table, (line,) = read(tmp_path)
  assert set(table.run) == {str(tmp_path / 'good')}
  assert re.search(words, line)
  # The remedies that are named.
  (folder / 'metrics.csv').write_text(HEADER + ROWS)
  assert not read(tmp_path)[1]
  (folder / 'metrics.csv').write_text(text)
  (folder / 'run.json').unlink()
  assert all('the training' not in line for line in read(tmp_path)[1])


@pytest.mark.parametrize(
  ('old', 'new', 'is_same'),
  [
    ('n_step = 3', 'n_step = 1', False),
    ('num_iterations = 9', 'num_iterations = 12', True),
    ('# Parameters', '# Settings', True),
  ],
)
def test_a_run_whose_settings_were_edited_is_left_out(
  tmp_path, old, new, is_same
):
  make_run(tmp_path / 'good')
  folder = make_run(tmp_path / 'changed')
  facts = {'record': identity.digest(CONFIG)}
  (folder / 'run.json').write_text(json.dumps(facts))
  assert not read(tmp_path)[1]
  assert old in CONFIG
  (folder / 'config.gin').write_text(CONFIG.replace(old, new))
  said = read(tmp_path)[1]
  if is_same:
    assert not said
    return
  (line,) = said
  assert 'has other settings than the run was trained with' in line
  # The remedy that is named.
  (folder / 'run.json').unlink()
  assert not read(tmp_path)[1]


def test_rows_behind_what_is_noted_are_of_a_training_that_goes_on(tmp_path):
  folder = make_run(tmp_path / 'a')
  note_written(folder)
  with open(folder / 'metrics.csv', 'a') as stream:
    stream.write('0,3,30,3.5,Train/Loss,0.5\n')
  table, said = read(tmp_path)
  assert (len(table), said) == (4, [])


@pytest.mark.parametrize(
  'written',
  [
    None,
    [],
    {'CSV': None},
    {'CSV': {'bytes': 1e999, 'sha256': 'y'}},
    {'CSV': {'bytes': -3, 'sha256': 'y'}},
    {'CSV': {'bytes': True, 'sha256': 'y'}},
    {'CSV': {'bytes': 'x', 'sha256': 'y'}},
    {'CSV': {}},
  ],
)
def test_of_a_run_that_noted_nothing_of_the_kind_nobody_knows(
  tmp_path, written
):
  folder = make_run(tmp_path / 'a')
  facts = {'progress': {'written': written}}
  (folder / 'run.json').write_text(json.dumps(facts))
  assert len(read(tmp_path)[0]) == 3


def test_where_there_is_no_run_it_is_told(tmp_path):
  with pytest.raises(errors.UserError, match=r'holds no run.*--base_dir'):
    analysis.load(tmp_path)
  with pytest.raises(errors.UserError, match='nowhere is not there'):
    analysis.load(tmp_path / 'nowhere')
  (tmp_path / 'x.txt').write_text('')
  with pytest.raises(errors.UserError, match=r'expected metrics\.csv'):
    analysis.load(tmp_path / 'x.txt')


# Dopamine's JSON.


def test_a_baselines_json_gives_runs_by_order(tmp_path):
  values = [(0, 5.0), (1, 6.0), (0, 7.0), (1, 8.0)]  # two runs
  content = [
    {'Iteration': k, 'Value': v, 'Agent': agent}
    for agent in ('DQN', 'C51')
    for k, v in values
  ]
  (tmp_path / 'asterix_CNN.json').write_text(json.dumps(content, indent=1))
  (tmp_path / 'other.json').write_text('{"a": 1}')
  table, said = read(tmp_path)
  assert not said
  assert set(table.config) == {
    runs.Run(None, '', '', {'baseline': f'dopamine:{a}:cnn'}, None, None).config
    for a in ('DQN', 'C51')
  }
  dqn = table[table.agent == 'DQN'].sort_values(['seed', 'iteration'])
  assert list(dqn.value) == [5, 6, 7, 8]
  assert list(dqn.seed) == [0, 0, 1, 1]
  assert list(dqn.agent_steps) == [250_000, 500_000] * 2
  assert set(dqn.game) == {'asterix'}


def test_a_mujoco_iteration_has_a_thousand_steps(tmp_path):
  content = [{'Agent': 'SAC', 'Iteration': 9, 'Value': 1.0}]
  (tmp_path / 'halfcheetah.json').write_text(json.dumps(content))
  table, _ = read(tmp_path)
  assert table.agent_steps[0] == 10_000


def test_a_broken_json_is_told(tmp_path):
  path = tmp_path / 'asterix.json'
  path.write_text('[{"Iteration": 0, "Value": 1}]')
  with pytest.raises(errors.UserError, match='Iteration, Value and Agent'):
    analysis.load(path)


# Dopamine's pickles.


def log_content():
  """Returns what both of Dopamine's loggers pickle, in one."""
  listdict = functools.partial(collections.defaultdict, list)
  content = collections.defaultdict(listdict)
  for k in range(2):
    lists = content[f'iteration_{k}']
    lists['train_episode_lengths'] += [100, 50]
    lists['train_episode_returns'] += [np.float64(k), np.float32(4)]
    lists['eval_episode_returns'] += [7]
    lists['Train/Loss'].append(0.5)
  return content


def test_a_log_is_read_with_its_steps_game_agent_and_seed(tmp_path):
  folder = tmp_path / 'dqn' / 'BankHeist' / '3' / 'logs'
  folder.mkdir(parents=True)
  (folder / 'log_0').write_bytes(b'not read: it is older')
  (folder / 'log_1').write_bytes(pickle.dumps(log_content()))
  table, said = read(tmp_path)
  assert not said
  wide = table.pivot(index='agent_steps', columns='metric', values='value')
  assert list(wide.index) == [150, 300]
  assert list(wide['Train/AverageReturns']) == [2.0, 2.5]
  assert list(wide['Eval/AverageReturns']) == [7, 7]
  assert list(wide['Train/Loss']) == [0.5, 0.5]
  assert set(table.game) == {'BankHeist'}
  assert set(table.agent) == {'dqn'}
  assert set(table.seed) == {3}


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_log_of_any_protocol_is_read(tmp_path, protocol):
  path = tmp_path / 'log_1'
  content = {k: dict(v) for k, v in log_content().items()}
  path.write_bytes(pickle.dumps(content, protocol))
  table, _ = read(path)
  assert list(table[table.metric == 'Train/AverageReturns'].value) == [2, 2.5]


class Evil:
  def __init__(self, *call):
    self.call = call

  def __reduce__(self):
    return self.call


@pytest.mark.parametrize(
  'call',
  [
    (os.system, ('touch ran',)),
    (eval, ("open('ran', 'w')",)),
    (exec, ("open('ran', 'w')",)),
    (getattr, (pathlib.Path('ran'), 'touch')),
    (functools.reduce, (max, [1])),
    (np.load, ('ran',)),
    (pickle.loads, (b'',)),
    (np.array, ([1],)),
    (collections.deque, ([1],)),
  ],
)
def test_a_pickle_that_would_run_code_is_refused(tmp_path, monkeypatch, call):
  monkeypatch.chdir(tmp_path)
  content = {'iteration_0': {'train_episode_returns': [Evil(*call)]}}
  path = tmp_path / 'log_0'
  path.write_bytes(pickle.dumps(content))
  with pytest.raises(errors.UserError, match='may run code'):
    analysis.load(path)
  assert not (tmp_path / 'ran').exists()


def test_what_a_log_may_name_is_a_stand_in():
  # A partial that is called, or a factory, would be a way to code.
  real = {collections.defaultdict, functools.partial, np.dtype, list}
  assert not real & set(log_pickle._STAND_INS.values())


@pytest.mark.parametrize(
  'data',
  [
    b'',
    b'\x80\x05garbage',
    pickle.dumps([1, 2]),
    pickle.dumps({'a': {}}),
    pickle.dumps({}),
    pickle.dumps({'iteration_0': {'x': ['word']}}),
    pickle.dumps(log_content())[:-40],
  ],
)
def test_a_damaged_log_is_told(tmp_path, data):
  path = tmp_path / 'log_0'
  path.write_bytes(data)
  with pytest.raises(errors.UserError, match='log_0'):
    analysis.load(path)


# The published curves.


def test_a_baseline_is_as_tidy_as_a_run_and_says_its_numbers():
  table = analysis.baseline('rainbow', 'CNN')
  assert list(table.columns) == runs.COLUMNS
  assert set(table.agent) == {'Rainbow'}
  assert set(table.seed) == {0, 1, 2, 3, 4}
  assert table.game.nunique() == 60
  assert (table.agent_steps == table.iteration * 250_000).all()
  assert table.iteration.max() == 200
  with gzip.open(games.data('dopamine_atari_curves.csv.gz'), 'rt') as file:
    (line,) = [x for x in file if x.startswith('cnn,Rainbow,pong,7,')]
  rows = table[(table.game == 'pong') & (table.iteration == 8)]
  expected = [float(x) for x in line.split(',')[4:]]
  assert list(rows.sort_values('seed').value) == expected


def test_a_missing_published_run_has_no_rows():
  table = analysis.baseline('QR-DQN', 'cnn')
  game = table[table.game == 'montezumarevenge']
  assert len(game) == 5 * 200 - 144
  assert not table.value.isna().any()


def test_a_band_is_mean_lowest_and_highest():
  band = baselines.band(analysis.baseline('DQN'))
  rows = analysis.baseline('DQN', 'cnn')
  rows = rows[(rows.game == 'qbert') & (rows.agent_steps == 250_000)].value
  at = band[(band.game == 'qbert') & (band.agent_steps == 250_000)].iloc[0]
  assert at['mean'] == pytest.approx(rows.mean())
  assert (at.low, at.high) == (rows.min(), rows.max())


def test_sacs_band_is_what_was_published():
  band = baselines.band(analysis.baseline('SAC'))
  first = band[band.game == 'ant'].iloc[0]
  assert list(first[['agent_steps', 'mean', 'low', 'high']]) == [
    *(1_000, -86.7161, -192.608, -44.91)
  ]
  assert len(band) == 5 * 320


@pytest.mark.parametrize(
  ('text', 'words'),
  [
    ('dopamine:Rainbo', ['Did you mean Rainbow:cnn?', 'SAC']),
    ('dopamine:DQN:resnet', ['DQN:resnet', 'DQN:impala']),
    ('dqn', ['dopamine:AGENT:NETWORK']),
    ('dopamine', ['dopamine:AGENT:NETWORK']),
    ('dopamine:', ['dopamine:AGENT:NETWORK']),
    ('dopamine:SAC:cnn', ['Did you mean SAC?']),
  ],
)
def test_a_baseline_that_there_is_not_is_told(text, words):
  with pytest.raises(errors.UserError) as error:
    baselines.parse(text)
  for word in words:
    assert word in str(error.value)


@pytest.mark.parametrize(
  ('name', 'key'),
  [
    ('BankHeist', 'bankheist'),
    ('bank_heist', 'bankheist'),
    ('ALE/BankHeist-v5', 'bankheist'),
    ('BankHeistNoFrameskip-v4', 'bankheist'),
    ('HalfCheetah-v5', 'halfcheetah'),
    ('CartPole-v1', 'cartpole'),
    ('ale_py:ALE/BankHeist-v5', 'bankheist'),
    ('MinAtar/Breakout-v1', 'minatarbreakout'),
    ('Breakout-MinAtar', 'breakoutminatar'),
  ],
)
def test_a_game_has_one_key_however_it_is_written(name, key):
  assert games.key(name) == key


def test_minatar_is_not_atari():
  for name in ('MinAtar/Breakout-v1', 'Breakout-MinAtar'):
    with pytest.raises(KeyError):
      games.human_normalized(np.array([1.0]), name)


def test_human_normalized_is_0_for_random_and_1_for_a_human():
  # alien,227.8,7127.7
  x = games.human_normalized(np.array([227.8, 7127.7, 3677.75]), 'Alien')
  np.testing.assert_allclose(x, [0, 1, 0.5])
  with pytest.raises(KeyError):
    games.human_normalized(np.zeros(1), 'CartPole')


def test_every_published_game_is_known_or_one_of_the_five_without_a_human():
  table = pd.concat([analysis.baseline('DQN'), analysis.baseline('SAC')])
  assert len(set(table.game) - games.KNOWN) == 5
