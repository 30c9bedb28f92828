"""Runs side by side: groups and their names, words, files, and the command."""

import itertools
import pathlib
import re

import numpy as np
import pandas as pd
import pytest
from typer import testing

from dopamine_jax import analysis
from dopamine_jax import errors
from dopamine_jax.analysis import compare as compare_lib
from dopamine_jax.analysis import curves as curves_lib
from dopamine_jax.analysis import groups as groups_lib
from dopamine_jax.analysis import plots
from dopamine_jax.analysis import terminal
from dopamine_jax.analysis import verdicts
from dopamine_jax.commands import cli

TRAIN, EVAL = 'Train/AverageReturns', 'Eval/AverageReturns'


def make_run(
  folder,
  values,
  *,
  game='CartPole-v1',
  n_step=1,
  steps=1_000,
  metric=TRAIN,
  first_seed=0,
  iterations=None,
):
  """Writes a run's folder; `values` are [seeds, iterations]."""
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True)
  values = np.atleast_2d(values)
  (folder / 'config.gin').write_text(
    f'dqn.DQN.n_step = {n_step}\n'
    f"gym.Gym.id = '{game}'\n"
    'runner.Runner.agent = @dqn.DQN\n'
    'runner.Runner.environment = @gym.Gym()\n'
    f'runner.Runner.num_iterations = {iterations or values.shape[1]}\n'
  )
  with open(folder / 'metrics.csv', 'w') as file:
    file.write('seed,iteration,agent_steps,wall_time,name,value\n')
    for (seed, i), value in np.ndenumerate(values):
      row = seed + first_seed, i + 1, (i + 1) * steps, 0.0, metric, value
      file.write(','.join(map(str, row)) + '\n')
  return folder


def curve(level, seeds=5, iterations=10, spread=1.0):
  """Returns runs that differ by `spread` and end at about `level`."""
  ramp = np.linspace(0, level, iterations)
  return ramp + spread * np.arange(seeds)[:, None]


@pytest.fixture(autouse=True)
def working_folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)


def gather(*arguments):
  said = []
  return groups_lib.gather([str(a) for a in arguments], said.append), said


def compare(*arguments, **options):
  said = []
  arguments = [str(a) for a in arguments]
  return compare_lib.compare(arguments, say=said.append, **options), said


def run(*words):
  """Returns what the command prints, with stderr."""
  result = testing.CliRunner().invoke(cli.app, ['compare', *map(str, words)])
  if isinstance(result.exception, errors.UserError):
    raise result.exception
  assert result.exit_code == 0, result.output
  return result.output


# Groups.


def test_runs_of_the_same_settings_are_one_group_over_games_and_seeds():
  make_run('a', curve(5, 2))
  make_run('b', curve(5, 2), first_seed=2)
  make_run('c', curve(5), game='Acrobot-v1')
  make_run('d', curve(5), n_step=3)
  groups, said = gather('a', 'b', 'c', 'd')
  assert not said
  assert [len(group.runs) for group in groups] == [3, 1]
  assert set(groups[0].table.seed) == {0, 1, 2, 3, 4}
  assert [g.name for g in groups] == ['DQN, n_step = 1', 'd']
  assert groups_lib.differences(groups) == {'dqn.DQN.n_step': ['1', '3']}


def test_groups_are_named_by_folders_if_each_has_one():
  make_run('x/one', curve(5))
  make_run('x/three', curve(5), n_step=3)
  for arguments in (['x'], ['x/one', 'x/three'], ['x/one/', 'x/three/']):
    groups, _ = gather(*arguments)
    assert [g.name for g in groups] == ['one', 'three']


def test_folders_of_one_name_are_told_apart():
  make_run('x/dqn', curve(5))
  make_run('y/dqn', curve(5), n_step=3)
  groups, _ = gather('x/dqn', 'y/dqn')
  assert [g.name for g in groups] == ['dqn (x/dqn)', 'dqn (y/dqn)']


def test_a_name_that_is_given_counts_and_splits_where_settings_differ():
  make_run('x/one', curve(5))
  make_run('x/three', curve(5), n_step=3)
  make_run('y', curve(5), n_step=7, game='Acrobot-v1')
  groups, _ = gather('mine=x/one', 'mine=y')
  assert [g.name for g in groups] == ['mine']
  groups, _ = gather('mine=x')
  assert [g.name for g in groups] == [
    'mine: DQN, n_step = 1',
    'mine: DQN, n_step = 3',
  ]


def test_a_folder_with_an_equals_sign_is_a_folder():
  make_run('n=3', curve(5))
  assert [g.name for g in gather('n=3')[0]] == ['n=3']
  assert [g.name for g in gather('./n=3')[0]] == ['n=3']
  with pytest.raises(errors.UserError, match='NAME=PATH'):
    gather('=n')


def test_a_run_that_is_reached_twice_counts_once():
  make_run('x/a', curve(5))
  groups, said = gather('x', 'x/a')
  assert len(groups) == 1
  assert len(groups[0].runs) == 1
  assert not said


@pytest.mark.parametrize(
  ('arguments', 'names'),
  [
    (('x=r/a', 'y=r/a'), "as 'x' and as 'y'"),
    (('r', 'y=r/a'), "without a name and as 'y'"),
    (('y=r/a', './r'), "as 'y' and without a name"),
    (('y=r', 'z=r/b'), "as 'y' and as 'z'"),
  ],
)
def test_a_run_has_one_name_or_is_refused(arguments, names):
  make_run('r/a', curve(5))
  make_run('r/b', curve(5), first_seed=5)
  with pytest.raises(errors.UserError, match=f'given twice, {names}'):
    gather(*arguments)
  assert len(gather('y=r', 'y=r/a')[0]) == 1


def test_of_the_same_seed_the_run_that_went_further_counts():
  make_run('smoke', curve(5, 2, 2), iterations=2)
  make_run('whole', curve(7, 3, 9))
  make_run('again', curve(7, 1, 9), first_seed=2)
  for order in (['smoke', 'whole'], ['whole', 'smoke']):
    (group,), said = gather(*order)
    assert group.table.agent_steps.max() == 9_000
    assert set(group.table.run) == {'whole'}
    assert said == [
      f'Left out: seed {seed} of smoke, which has 2,000 agent steps; whole '
      'holds the same seed of the same settings with 9,000.'
      for seed in (0, 1)
    ]
  # Of two that are as long the first one counts.
  (group,), said = gather('whole', 'again')
  assert said == [
    'Left out: seed 2 of again, which has 9,000 agent steps; whole holds the '
    'same seed of the same settings with 9,000.'
  ]
  # A seed that one alone has is taken from it.
  make_run('more', curve(7, 2, 3), first_seed=2)
  (group,), said = gather('more', 'whole')
  seeds = group.table.groupby('run').seed.unique().map(list)
  assert dict(seeds) == {'more': [3], 'whole': [0, 1, 2]}


def test_what_can_be_read_is_when_some_can_not():
  make_run('a', curve(5))
  pathlib.Path('empty').mkdir()
  groups, said = gather('a', 'empty', 'nowhere')
  assert len(groups) == 1
  assert len(said) == 2
  with pytest.raises(errors.UserError, match=r'(?s)holds no run.*not there'):
    gather('empty', 'nowhere')


# Curves.


def test_runs_of_different_lengths_are_used_as_far_as_the_shortest():
  make_run('a', curve(5, 1, 10))
  make_run('b', curve(5, 1, 6), first_seed=1)
  comparison, said = compare('g=a', 'g=b')
  assert comparison.curves['g']['cartpole'].steps[-1] == 6_000
  assert any('between 6,000 and 10,000 agent steps' in s for s in said)
  assert not any('points are left out' in s for s in said)


def test_different_iterations_are_told_and_meet_where_both_have_numbers():
  make_run('a', curve(5, 1, 6), steps=1_000)
  make_run('b', curve(5, 1, 4), steps=1_500, first_seed=1)
  comparison, said = compare('g=a', 'g=b')
  assert list(comparison.curves['g']['cartpole'].steps) == [3_000, 6_000]
  assert any('6 of 8 points are left out' in s for s in said)


def test_runs_without_a_step_in_common_are_told():
  make_run('a', curve(5, 1, 2), steps=1_000)
  make_run('b', curve(5, 1, 2), steps=1_001, first_seed=1)
  make_run('c', curve(5), n_step=3)
  comparison, said = compare('g=a', 'g=b', 'c')
  assert list(comparison.curves) == ['c']
  assert any('none in common' in s for s in said)


def test_a_point_where_a_run_has_no_episode_is_left_out_and_told():
  values = curve(5, 2, 5)
  file = make_run('a', values) / 'metrics.csv'
  file.write_text(re.sub(r'^1,1,.*\n', '', file.read_text(), flags=re.M))
  comparison, said = compare('a')
  assert len(comparison.curves['a']['cartpole'].steps) == 4
  assert any('1 of 5 points' in s for s in said)


def test_the_score_is_the_mean_of_the_last_points():
  values = np.arange(10.0)[None]
  make_run('a', values)
  make_run('b', values + 0.5, n_step=3, metric=EVAL)
  assert compare('a')[0].scores['a'] == 7
  assert compare('a', last=2)[0].scores['a'] == 8.5
  assert compare('b', metric=EVAL)[0].scores['b'] == 9.5


@pytest.mark.parametrize(
  ('iterations', 'last', 'title'),
  [
    ((2, 2), None, 'mean of the last 2 points'),
    ((9, 9), None, 'mean of the last 5 points'),
    ((9, 9), 3, 'mean of the last 3 points'),
    ((1, 9), None, 'AverageReturns\n'),
    ((9, 9), 1, 'AverageReturns\n'),
  ],
)
def test_the_points_that_are_said_are_those_that_were_used(
  iterations, last, title
):
  for n, length in enumerate(iterations):
    make_run(f'r{n}', curve(9, 4, length), n_step=n)
  text = run('r0', 'r1', *(('--last', last) if last else ()))
  assert title in text
  assert ('mean of the last' in text) == ('mean' in title)
  table = pd.read_csv('comparison/scores.csv')
  expected = min(last or 5, *iterations)
  assert list(table.points) == [expected] * 2


def test_the_step_that_is_said_is_that_of_the_last_point():
  make_run('fine', curve(9, 4, 10), steps=1_000)
  make_run('coarse', curve(9, 4, 5), steps=3_000, n_step=3)
  comparison, _ = compare('fine', 'coarse')
  table = compare_lib.score_table(comparison)
  assert list(table.agent_steps) == [10_000, 9_000]
  assert list(table.points) == [5, 3]
  assert 'mean of the last 3 to 5 points' in run('fine', 'coarse')


def test_groups_are_compared_at_the_last_step_that_all_have():
  make_run('long', curve(100, 3, 20), iterations=30)
  make_run('short', curve(100, 3, 10), n_step=3)
  comparison, said = compare('long', 'short', last=1)
  assert comparison.ends == {'cartpole': 10_000}
  assert comparison.scores['short'].max() > comparison.scores['long'].max()
  assert any('long is not finished: iteration 20 of 30' in s for s in said)
  assert any('Compared up to 10,000 agent steps' in s for s in said)
  assert comparison.curves['long']['cartpole'].steps[-1] == 20_000  # is drawn


def test_games_that_not_all_groups_have_are_drawn_and_not_compared():
  make_run('x/a', curve(5))
  make_run('x/b', curve(5), game='Acrobot-v1')
  make_run('y', curve(5), n_step=3)
  comparison, said = compare('x', 'y')
  assert list(comparison.titles) == ['acrobot', 'cartpole']
  assert list(comparison.ends) == ['cartpole']
  assert any('not all groups have it: Acrobot-v1' in s for s in said)
  make_run('z', curve(5), n_step=7, game='Pendulum-v1')
  comparison, said = compare('x', 'z')
  assert not comparison.pairs
  assert any('nothing is compared' in s for s in said)
  assert run('x', 'z')


def test_a_metric_that_no_run_has_is_told_with_those_there_are():
  make_run('a', curve(5))
  with pytest.raises(errors.UserError, match=f'Eval/Av.*There are {TRAIN}'):
    compare('a', metric=EVAL)
  make_run('b', curve(5), metric=EVAL, n_step=3)
  comparison, said = compare('a', 'b')
  assert list(comparison.curves) == ['a']
  assert any('b has no number of Train' in s for s in said)


# Words.


def sentence(x, y, published=()):
  """Returns what is said of groups A and B, scores on one game."""
  scores = {'A': np.array(x, float)[:, None], 'B': np.array(y, float)[:, None]}
  (pair,) = verdicts.pairs(scores, published)
  return verdicts.sentence(pair)


def test_a_clear_difference_is_said_to_be_one():
  text = sentence([1, 2, 3, 4, 5], [11, 12, 13, 14, 16])
  assert text.startswith('B is better than A with probability 1.00 (every run')
  assert 'runs of B typically 10 higher (95% interval 7 to 13)' in text
  assert 'chance alone would hardly do that (p = 0.008)' in text
  assert 'you need' not in text


def test_a_small_difference_says_how_many_seeds_would_tell():
  text = sentence([1, 2, 3, 8], [5, 6, 7, 9])
  # B wins 4 - 1/4 ... of 16 pairs: 13. 1 of 16 at each end is left out.
  assert text.startswith('B is better than A with probability 0.81, runs')
  assert '(95% interval -3 to 8)' in text
  assert 'may be chance (p = 0.2' in text
  assert 'you need about 10 more seeds of each.' in text


@pytest.mark.parametrize(
  ('n', 'm', 'words'),
  [
    (
      3,
      3,
      '3 against 3 seeds can not tell that from chance, however far apart '
      'they lie: train at least 1 more seed of each.',
    ),
    (2, 2, '2 against 2 seeds can not'),
    (2, 2, 'train at least 2 more seeds of each.'),
    (4, 1, 'train at least 3 more seeds of A.'),
    (2, 3, 'at least 2 more seeds of B and at least 1 more seed of A.'),
  ],
)
def test_few_seeds_are_never_enough_however_far_they_are_apart(n, m, words):
  text = sentence(np.arange(m), np.arange(n) + 100)
  assert words in text
  assert 'p = ' not in text and '95% interval' not in text


def test_unequal_groups_are_told_apart_in_what_they_need():
  text = sentence([1, 2, 3, 8], [5, 6, 7, 9, 4])
  assert 'more seeds of B and about' in text


def test_equals_are_said_to_be_equals():
  text = sentence([1, 2, 3, 4], [1, 2, 3, 4])
  assert text.startswith('A and B beat each other equally often')
  assert 'more than 100 seeds of each' in text


def test_one_seed_each_allows_nothing():
  text = sentence([1], [2])
  assert text.startswith('B scores higher than A, one seed each: nothing')
  assert 'at least 4 seeds' in text
  assert sentence([2], [2]) == 'A and B score the same, one seed each.'


def test_a_published_group_is_never_asked_for_more_seeds():
  text = sentence([5, 6, 7, 9], [1, 2, 3, 8, 4.5], published=['B'])
  assert 'of B' not in text
  text = sentence([1, 2, 3, 4.1], [1, 2, 3, 4, 0], published=['B'])
  assert 'However many seeds you add, 5 published runs are too few' in text
  text = sentence([1, 2], [11, 12, 13, 14, 15], published=['B'])
  assert 'train at least 1 more seed of A.' in text


def test_many_comparisons_make_it_harder_to_say_anything():
  x, y = np.arange(4.0)[:, None], np.arange(4.0)[:, None] + 50
  (pair,) = verdicts.pairs({'A': x, 'B': y})
  assert pair.told_apart
  assert verdicts.on_several([pair], 'A') == []
  pairs = verdicts.pairs({'A': x, 'B': y, 'C': y + 50})
  assert [(p.better, p.worse) for p in pairs] == [
    *(('B', 'A'), ('C', 'A'), ('C', 'B'))
  ]
  assert not any(p.told_apart for p in pairs)
  assert '4 against 4 seeds of 3 pairs can not' in verdicts.sentence(pairs[0])
  (line,) = verdicts.on_several(pairs, 'A')
  assert line.startswith('3 pairs were looked at: p and the intervals')


def test_more_than_four_groups_are_compared_with_the_first():
  x = {str(i): np.arange(4.0)[:, None] + i for i in range(6)}
  pairs = verdicts.pairs(x)
  assert len(pairs) == 5
  (line,) = verdicts.on_several(pairs, '0')
  assert line.endswith('With more than 4 groups each is compared with 0.')
  del x['5'], x['4']
  assert len(verdicts.pairs(x)) == 6


def test_where_a_run_leaves_the_published_range_is_said():
  steps = np.arange(1, 7) * 250_000
  band = pd.DataFrame({'agent_steps': steps, 'low': 1.0, 'high': 3.0})
  values = np.array([2.0, 0.5, 0.9, 3.0, 3.1, 1.0])[:, None]
  own = curves_lib.Curve(steps, values)
  assert verdicts.departures('mine', own, band) == (
    'mine is outside the published range at 3 of 6 points, at most below it '
    'from 500,000 to 750,000 agent steps.'
  )
  inside = curves_lib.Curve(steps[:2], values[[0, 3]])
  assert verdicts.departures('mine', inside, band) == (
    'mine stays within the published range up to 500,000 agent steps (2 '
    'points).'
  )
  other = curves_lib.Curve(steps + 7, values)
  assert 'every 250,000: drawn' in verdicts.departures('mine', other, band)


# The command.


def published_runs(folder, agent, game, seeds=(0, 1), iterations=20, n_step=1):
  """Writes published runs as if they were one's own."""
  table = analysis.baseline(agent)
  rows = table[(table.game == game.lower()) & table.seed.isin(seeds)]
  wide = rows.pivot(index='seed', columns='iteration', values='value')
  values = wide.to_numpy()[:, :iterations]
  return make_run(folder, values, game=game, n_step=n_step, steps=250_000)


def test_the_command_says_draws_and_writes():
  make_run('one', curve(100, 4))
  make_run('three', curve(300, 4), n_step=3)
  text = run('one', 'three', '--out', 'out/here')
  assert 'dqn.DQN.n_step' in text
  assert 'three is better than one with probability 1.00' in text
  assert 'mean of the last 5 points' in text
  assert 'Mann and Whitney' in text
  names = {p.name for p in pathlib.Path('out/here').iterdir()}
  assert names == {
    *('curves.png', 'curves.svg', 'curves.csv', 'scores.csv', 'summary.txt')
  }
  for name in names:
    assert f'out/here/{name}' in text
  assert pathlib.Path('out/here/curves.png').read_bytes()[1:4] == b'PNG'
  assert 'three is better' in pathlib.Path('out/here/summary.txt').read_text()
  scores = pd.read_csv('out/here/scores.csv')
  assert list(scores.group) == ['one', 'three']
  expected = curve(100, 4)[:, -5:].mean()
  assert scores['mean'][0] == pytest.approx(expected)
  assert scores.low[0] < expected < scores.high[0]
  points = pd.read_csv('out/here/curves.csv')
  assert len(points) == 20
  assert list(points.agent_steps[:10]) == [*range(1_000, 11_000, 1_000)]


def test_a_baseline_is_drawn_compared_and_left():
  published_runs('Breakout', 'DQN', 'Breakout')
  text = run('Breakout', '--baseline', 'dopamine:Rainbow:cnn')
  assert ':Rainbow:' in text  # and no emoji
  assert 'Breakout is better than dopamine:Rainbow:cnn' in text
  assert 'Breakout is outside the published range at' in text
  assert 'above it' in text
  assert 'Human-normalized, 1 game' in text
  svg = pathlib.Path('comparison/curves.svg')
  assert svg.exists()


def test_runs_are_within_the_range_that_they_are_part_of():
  published_runs('mine', 'DQN', 'Pong')
  comparison, _ = compare('mine', baselines=['dopamine:DQN'])
  assert 'mine stays within the published range' in comparison.sentences[1]
  assert comparison.ends == {'pong': 20 * 250_000}


def test_a_baseline_without_runs_gives_a_band_alone():
  make_run('sac', curve(100, 2, 30), game='Hopper-v5')
  comparison, _ = compare('sac', baselines=['dopamine:SAC'])
  assert list(comparison.bands['dopamine:SAC']) == ['hopper']
  assert not comparison.pairs
  assert 'published range' in comparison.sentences[0]
  assert run('sac', '--baseline', 'dopamine:SAC')


def test_a_baseline_that_does_not_fit_is_told_and_the_rest_is_drawn():
  make_run('a', curve(5))
  make_run('b', curve(5), metric=EVAL, game='Pong')
  text = run('a', '--baseline', 'dopamine:DQN:cnn')
  assert 'dopamine:DQN:cnn has no curve of CartPole-v1' in text
  text = run('b', '--metric', EVAL, '--baseline', 'dopamine:DQN:cnn')
  assert f'dopamine:DQN:cnn is not drawn: it has {TRAIN}, and not' in text
  with pytest.raises(errors.UserError, match='Did you mean DQN:cnn'):
    run('a', '--baseline', 'dopamine:DQM:cnn')
  # A run that ends before the first published point.
  make_run('c', curve(5), game='Pong', n_step=3)
  text = run('c', '--baseline', 'dopamine:DQN:cnn')
  assert 'Pong is not compared' in text
  assert 'every 250,000: drawn, not compared' in text


@pytest.mark.parametrize(
  ('baseline', 'game', 'runs', 'last'),
  [
    ('dopamine:IQN:impala', 'Breakout', 1, 199),
    ('dopamine:IQN:impala', 'ChopperCommand', 2, 199),
    ('dopamine:QR-DQN:cnn', 'MontezumaRevenge', 1, 56),
    ('dopamine:QR-DQN:impala', 'Tutankham', 1, 198),
  ],
)
def test_published_runs_that_end_early_are_told(baseline, game, runs, last):
  published_runs('mine', 'DQN', game, iterations=200)
  comparison, said = compare('mine', baselines=[baseline])
  assert f'{baseline}, {game}: of {runs} of the 5 runs the last' in ''.join(
    said
  )
  assert comparison.ends == {game.lower(): last * 250_000}
  band = comparison.bands[baseline][game.lower()].set_index('agent_steps')
  assert band.runs[last * 250_000] == 5
  assert band.runs[(last + 1) * 250_000] == 5 - runs
  label = f'mean and range of {5 - runs} to 5 runs'
  assert label in _legend_of(comparison)


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf, 1e308])
@pytest.mark.parametrize('iteration', [0, 2, 5])
def test_a_seed_that_diverged_is_named_and_left_out(value, iteration):
  values = np.tile(np.arange(1.0, 5.0)[:, None], 6)
  values[2, iteration] = value
  make_run('a', values)
  make_run('b', values[:2] + 3, n_step=3)
  comparison, said = compare('a', 'b')
  step = (iteration + 1) * 1_000
  (words,) = [s for s in said if 'Left out' in s]
  assert words.startswith(
    f'Left out: seed 2 of a, CartPole-v1: {TRAIN} is {value:g} at agent step '
    f'{step:,}, '
  )
  assert not any('as far as the shortest' in s for s in said)
  assert comparison.curves['a']['cartpole'].values[-1].tolist() == [1, 2, 4]


def test_published_runs_that_are_whole_are_not_spoken_of():
  published_runs('mine', 'DQN', 'Pong')
  comparison, said = compare('mine', baselines=['dopamine:IQN:impala'])
  assert not any('not published' in s for s in said)
  assert 'mean and range of 5 runs' in _legend_of(comparison)


def _legend_of(comparison):
  figure = plots.learning_curves(
    *(comparison.curves, comparison.titles, comparison.bands),
    comparison.metric,
  )
  return ' '.join(text.get_text() for text in figure.legends[0].get_texts())


def test_no_two_of_many_groups_look_the_same():
  style = plots.Style([str(i) for i in range(500)])
  looks = [tuple(style[str(i)].values()) for i in range(500)]
  assert len(set(looks)) == 500
  for one, other in itertools.pairwise(looks):
    assert one[0] != other[0] and one[1] != other[1]


def test_several_games_with_human_scores_have_aggregates():
  for game in ('Pong', 'Breakout', 'Qbert'):
    published_runs(f'dqn/{game}', 'DQN', game)
    published_runs(f'rainbow/{game}', 'Rainbow', game, n_step=3)
  text = run('dqn', 'rainbow')
  assert 'Human-normalized, 3 games' in text
  assert 'IQM' in text
  assert pathlib.Path('comparison/aggregate.svg').exists()
  comparison, _ = compare('dqn', 'rainbow')
  table = compare_lib.aggregate_table(comparison)
  row = table[(table.group == 'dqn') & (table.statistic == 'mean')].iloc[0]
  scores = comparison.normalized_scores()['dqn']
  assert scores.shape == (2, 3)
  assert row.value == pytest.approx(scores.mean())
  assert comparison.pairs[0].num_games == 3
  assert comparison.pairs[0].difference.interval.value == pytest.approx(
    comparison.pairs[0].probability
  )
  # 3 games with 2 runs are too few for a bootstrap.
  assert table.low.isna().all()
  assert 'No intervals: they would need 10 games, and 5 runs of each' in text


def test_aggregates_are_over_the_games_that_have_human_scores():
  published_runs('a/Pong', 'DQN', 'Pong')
  published_runs('a/AirRaid', 'DQN', 'AirRaid')
  comparison, _ = compare('a')
  assert list(comparison.ends) == ['airraid', 'pong']
  assert comparison.human_games == ['pong']
  expected = (comparison.scores['a'][:, 1] + 20.7) / (14.6 + 20.7)
  np.testing.assert_allclose(
    comparison.normalized_scores()['a'][:, 0], expected
  )
  assert '1 game of 2: of the others no human' in run('a')


def test_a_long_list_of_sentences_is_cut_and_whole_in_the_file(monkeypatch):
  monkeypatch.setattr(terminal, '_MAX_SENTENCES', 5)
  for game in ('Pong', 'Breakout'):
    for n in range(7):
      published_runs(f'x{n}/{game}', 'DQN', game, (0,), 3, n_step=n)
  text = run(*(f'x{n}' for n in range(7)), '--baseline', 'dopamine:DQN')
  lines = pathlib.Path('comparison/summary.txt').read_text().splitlines()
  assert len(lines) == 2 + 2 * 7 + 1
  assert f'{len(lines) - 5} more are in summary.txt' in text


def test_games_without_human_scores_have_none():
  make_run('x/a', curve(5))
  make_run('x/b', curve(5), game='Acrobot-v1')
  assert 'Human-normalized' not in run('x')
  assert not pathlib.Path('comparison/aggregate.png').exists()


def test_one_run_of_one_point_is_drawn():
  make_run('a', [[5.0]])
  assert 'one seed' in run('a')


def test_names_are_printed_as_they_are():
  make_run('a', curve(5))
  text = run('[bold]:smile:=a')
  assert '[bold]:smile:' in text


def test_a_folder_that_can_not_be_written_is_told():
  make_run('a', curve(5))
  pathlib.Path('file').write_text('')
  with pytest.raises(errors.UserError, match='file can not be made a folder'):
    run('a', '--out', 'file')


def test_without_pandas_the_extra_is_named(monkeypatch):
  import sys

  for name in [*sys.modules]:
    if name.startswith('dopamine_jax.analysis'):
      monkeypatch.delitem(sys.modules, name)
  monkeypatch.setitem(sys.modules, 'pandas', None)
  with pytest.raises(
    errors.UserError, match=re.escape(errors.install('analysis'))
  ):
    run('a')
