"""Many groups in one order: tables, words, figures; and sweeps, where some of
them ended early.
"""

import io
import json
import pathlib

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest
from rich import console as console_lib

from dopamine_jax.analysis import compare as compare_lib
from dopamine_jax.analysis import order
from dopamine_jax.analysis import plots
from dopamine_jax.analysis import ranking
from dopamine_jax.analysis import rungs
from dopamine_jax.analysis import terminal
from tests.unit import analysis_compare_test

TRAIN = 'Train/AverageReturns'


@pytest.fixture(autouse=True)
def working_folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)


def make_run(folder, values, settings, metric=TRAIN, iterations=None):
  """Writes a run's folder; `values` are [seeds, iterations]."""
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True)
  values = np.atleast_2d(values)
  lines = [
    *(f'{name} = {value}' for name, value in settings.items()),
    "gym.Gym.id = 'CartPole-v1'",
    'runner.Runner.agent = @dqn.DQN',
    'runner.Runner.environment = @gym.Gym()',
    f'runner.Runner.num_iterations = {iterations or values.shape[1]}',
  ]
  (folder / 'config.gin').write_text('\n'.join(lines) + '\n')
  rows = ['seed,iteration,agent_steps,wall_time,name,value']
  for (seed, i), value in np.ndenumerate(values):
    rows.append(f'{seed},{i + 1},{(i + 1) * 1_000},0.0,{metric},{value}')
  (folder / 'metrics.csv').write_text('\n'.join(rows) + '\n')


def make_groups(levels, seeds, name='x/{}', setting='dqn.DQN.n_step'):
  """Groups at these levels, of which no two runs have the same score."""
  for i, level in enumerate(levels):
    values = level + np.arange(seeds)[:, None] + np.zeros((1, 2))
    make_run(name.format(i), values, {setting: i})


def make_sweep(folder, ends, steps=(1, 3), metric=TRAIN, name='{:04}_n_{}'):
  """A sweep whose trial i has so many iterations, each with the score i."""
  for i, end in enumerate(ends):
    values = 10.0 * i + np.array([[0.0], [1.0]]) + np.zeros((1, end))
    path = f'{folder}/{name.format(i, i)}'
    make_run(path, values, {'dqn.DQN.n_step': i}, metric, steps[-1])
  definition = {
    'training_steps': 1_000,
    'rungs': list(steps),
    'metric': metric,
    'last': 1,
  }
  pathlib.Path(folder, 'sweep.json').write_text(json.dumps(definition))


def compare(*arguments, **options):
  said = []
  return compare_lib.compare(arguments, say=said.append, **options), said


def shown(comparison, width):
  console = console_lib.Console(width=width, file=io.StringIO())
  terminal.show(comparison, console)
  return console.file.getvalue()


# The order of names.


@pytest.mark.parametrize(
  'names',
  [
    ['n_2', 'n_10'],
    ['lr_0.0001', 'lr_0.001', 'lr_0.01', 'lr_1'],
    ['1e-4', '0.001', '1e2'],
    ['-2', '-1', '0', '+1'],
    ['run-2', 'run-10'],
    ['0007_gamma_0.9', '0007_gamma_0.99', '0010_gamma_0.9'],
    ['a', 'a1', 'b'],
    ['DQN, n_step = 3', 'DQN, n_step = 20'],
  ],
)
def test_names_are_in_the_order_of_their_numbers(names):
  assert sorted(reversed(names), key=order.natural) == names


@hypothesis.given(st.lists(st.floats(allow_nan=False, allow_infinity=False)))
def test_numbers_are_ordered_as_numbers(numbers):
  texts = sorted(map(repr, numbers), key=order.natural)
  assert [float(x) for x in texts] == sorted(numbers)


@hypothesis.given(st.lists(st.text()))
def test_any_texts_have_an_order(texts):
  once = sorted(texts, key=order.natural)
  assert sorted(reversed(once), key=order.natural) == once


def test_runs_are_found_in_that_order():
  make_groups([1] * 11, 1)
  comparison, _ = compare('x')
  assert [*comparison.curves] == [str(i) for i in range(11)]


# The ranking.


def test_the_best_is_told_with_what_it_can_not_be_told_apart_from():
  # Of 6 runs against 6 that are all lower, p = 2 / 924; of 7 pairs 0.0152. Of
  # runs 0.5 lower, 21 of 36 pairs win: chance.
  make_groups([100, 99.5, 0, 10, 20, 30, 40, 50], 6)
  comparison, _ = compare('x')
  rows = comparison.ranking.rows
  assert [row.name for row in rows] == ['0', '1', *'765432']
  assert rows[0].mean == pytest.approx(102.5)
  assert np.isnan(rows[0].p_value)
  assert rows[1].p_value == 1
  assert rows[2].p_value == pytest.approx(7 * 2 / 924)
  words = comparison.sentences
  low, high = rows[0].low, rows[0].high
  assert words == [
    f'0 is best: 102.5 [{low:.1f}, {high:.1f}].',
    'Not distinguishable from it: 1.',
    '6 others are not the best: chance explains less than that.',
    'Each of 7 was compared with the best: p allows for that (Bonferroni).',
  ]


def test_too_few_seeds_are_said_once():
  # 2 * 7 / C(2n, n) is below 0.05 from C(2n, n) = 280 on: n = 6 has 924.
  make_groups(range(0, 80, 10), 3)
  comparison, _ = compare('x')
  assert comparison.sentences[1:] == [
    'It can not be told apart from any of the 7 others, however far apart they '
    'lie: that takes at least 6 seeds of each, and there are 3.'
  ]


def test_six_groups_are_spoken_of_in_pairs_as_before():
  make_groups(range(6), 2)
  comparison, _ = compare('x')
  assert comparison.ranking is None
  assert len(comparison.pairs) == 5


def test_groups_with_equal_means_are_in_the_order_of_their_names():
  make_groups([5] * 11, 2)
  comparison, _ = compare('x')
  names = [row.name for row in comparison.ranking.rows]
  assert names == [str(i) for i in range(11)]


def test_on_several_games_the_share_of_beaten_runs_ranks():
  def levels(game, values):
    for i, value in enumerate(values):
      make_run(f'{game}/{i}', [[value]], {'dqn.DQN.n_step': i})
      text = pathlib.Path(f'{game}/{i}/config.gin')
      text.write_text(text.read_text().replace('CartPole-v1', game))

  levels('Acrobot-v1', [1, 2, 3, 4, 5, 6, 7])
  levels('MountainCar-v0', [1_000, 0, 0, 0, 0, 0, 7_000])
  comparison, _ = compare('Acrobot-v1', 'MountainCar-v0')
  rows = comparison.ranking.rows
  assert rows[0].settings == ('6',)
  assert rows[0].mean == 1
  # Of settings 0: none of 6 on one game, 5 of 6 on the other.
  (first,) = [row for row in rows if row.settings == ('0',)]
  assert first.mean == pytest.approx(5 / 12)
  assert 'beats 100% of the runs of others' in comparison.sentences[0]
  assert '100%' in shown(comparison, 80)


# Names.


def test_numbers_of_trials_are_short_names_where_they_are_clear():
  names = ['0001_gamma_0.9', '0002_gamma_0.99']
  assert [*ranking.short_names(names).values()] == ['0001', '0002']
  names = ['0001_gamma_0.9', '0001_gamma_0.99']
  assert [*ranking.short_names(names).values()] == names
  assert ranking.short_names(['0001_a', 'dqn']) == {
    '0001_a': '0001_a',
    'dqn': 'dqn',
  }


def test_settings_are_named_by_what_is_clear():
  names = ['dqn.DQN.gamma', 'rate/optax.linear.init', 'a.A.n', 'b.B.n']
  short = ['gamma', 'rate/init', 'a.A.n', 'b.B.n']
  assert ranking.short_settings(names) == short


# Sweeps.


def test_a_trial_is_scored_at_the_last_rung_that_it_reached():
  # The fourth is on its way to the second rung, the last has not reached one.
  make_sweep('s', [1, 1, 4, 3, 1, 4, 1, 2], steps=(2, 4))
  comparison, said = compare('s')
  stops = {x.label: x.stop for x in comparison.ranking.rows}
  assert stops == {
    **{'0005': 4_000, '0002': 4_000, '0003': 2_000, '0007': 2_000},
    **{'0006': 1_000, '0004': 1_000, '0001': 1_000, '0000': 1_000},
  }
  assert [*stops] == '0005 0002 0007 0003 0006 0004 0001 0000'.split()
  assert said == [
    '6 of 8 ended before 4,000 agent steps: 4 at 1,000, 2 at 2,000. Each is '
    'scored where it ended, and ranked after those that went further.'
  ]
  assert len(comparison.pairs) == 1
  assert comparison.sentences[-1] == (
    '6 of 8 ended before 4,000 agent steps, and are not compared with it.'
  )
  table = compare_lib.score_table(comparison).set_index('group')
  assert table.agent_steps['0003_n_3'] == 2_000


def test_trials_of_a_small_sweep_are_compared_where_they_went_as_far():
  make_sweep('s', [3, 1, 3])
  comparison, _ = compare('s')
  assert comparison.ranking is None
  (pair,) = comparison.pairs
  assert {pair.better, pair.worse} == {'0000_n_0', '0002_n_2'}


def test_a_sweep_is_judged_by_its_own_metric():
  make_sweep('s', [3, 3], metric='Eval/AverageReturns')
  comparison, _ = compare('s')
  assert comparison.metric == 'Eval/AverageReturns'
  assert comparison.last == 1


def test_trials_with_the_same_settings_stay_two():
  make_sweep('s', [3, 3])
  for folder in pathlib.Path('s').glob('0*'):
    config = folder / 'config.gin'
    config.write_text(config.read_text().replace('n_step = 1', 'n_step = 0'))
  comparison, said = compare('s')
  assert len(comparison.curves) == 2
  assert not said


@pytest.mark.parametrize(
  'text',
  [
    *('', '[]', '{}', 'null', '{"training_steps": 1}', '[' * 100_000),
    '{"training_steps": "x", "rungs": [1], "metric": "", "last": 1}',
    '{"training_steps": 1, "rungs": 5, "metric": "", "last": 1}',
    '{"training_steps": 1, "rungs": [1e999], "metric": "", "last": 1}',
  ],
)
def test_a_definition_that_can_not_be_read_is_none(text):
  make_sweep('s', [3, 1])
  pathlib.Path('s/sweep.json').write_text(text)
  assert rungs.above([pathlib.Path('s/0000_n_0')]) is None
  comparison, said = compare('s')
  assert comparison.ends == {'cartpole': 1_000}
  assert any('where the shortest ends' in line for line in said)


# Tables and figures.


@pytest.mark.parametrize('width', [80, 200])
def test_each_group_has_one_line_at_any_width(width):
  make_sweep('s', [3] * 12 + [1] * 20)
  comparison, _ = compare('s')
  lines = shown(comparison, width).splitlines()
  assert max(map(len, lines)) <= width
  start = next(i for i, line in enumerate(lines) if '\u2500' in line) + 1
  rows = [line.split() for line in lines[start : start + 32]]
  assert [row[0] for row in rows] == [str(i + 1) for i in range(32)]
  assert rows[0][1] == '0011'
  assert rows[12][1] == '0031'
  assert 'agent steps' in lines[start - 2]


def test_what_has_no_room_is_named():
  make_groups(range(7), 2, setting='a.A.' + 'long' * 14)
  comparison, _ = compare('x')
  text = ' '.join(shown(comparison, 80).split())
  assert 'No room here, but in ranking.csv' in text
  assert 'No room' not in shown(comparison, 200)


def test_the_ranking_is_a_file_too(tmp_path):
  make_groups(range(7), 2)
  comparison, _ = compare('x')
  compare_lib.write(comparison, tmp_path / 'out')
  first, second, *_ = (tmp_path / 'out/ranking.csv').read_text().splitlines()
  assert first.startswith('rank,stop,runs,mean,low,high,worst,best,p_value,gro')
  assert first.endswith('group,dqn.DQN.n_step')
  assert second.startswith('1,2000,2,6.5,')
  assert second.endswith(',6,6')


def test_a_figure_grows_with_its_legend_and_its_panel_stays():
  heights, panels = {}, {}
  for count in (8, 30):
    make_sweep(f's{count}', [2] * count, steps=(1, 2))
    comparison, _ = compare(f's{count}')
    figure = plots.learning_curves(
      *(comparison.curves, comparison.titles, comparison.bands),
      *(comparison.metric, comparison.ranking),
    )
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(set(labels)) == count
    assert labels[0] == f'{count - 1:04}: {count - 1}'
    figure.draw_without_rendering()
    heights[count] = figure.get_figheight()
    (axes,) = figure.axes
    panels[count] = axes.get_position().height * heights[count]
    looks = [
      (x.get_color(), x.get_linestyle(), x._dash_pattern, x.get_marker())
      for x in axes.lines
    ]
    assert len(set(map(str, looks))) == count
  assert heights[30] > heights[8] + 0.2
  assert panels[30] == pytest.approx(panels[8], rel=0.15)


def test_a_title_that_would_not_fit_names_no_settings(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for i in range(7):
    path = analysis_compare_test.make_run(f'run{i}', [[1.0, i]], n_step=i)
    more = ''.join(f'dqn.DQN.setting_{k} = {i}\n' for k in range(9))
    config = (path / 'config.gin').read_text()
    (path / 'config.gin').write_text(more + config)
  comparison = compare_lib.compare([f'run{i}' for i in range(7)])
  assert len(comparison.ranking.settings) == 10
  figure = plots.learning_curves(
    *(comparison.curves, comparison.titles, comparison.bands),
    *(comparison.metric, comparison.ranking),
  )
  title = figure.legends[0].get_title().get_text()
  assert title == 'best first; with intervals: the best 5'


def test_intervals_are_of_groups_that_have_them(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for i in range(7):  # the two best have one seed
    seeds = [0] if i > 4 else [0, 1]
    analysis_compare_test.make_run(
      f'run{i}', [[1.0, i + seed] for seed in seeds], n_step=i
    )
  comparison = compare_lib.compare([f'run{i}' for i in range(7)])
  figure = plots.learning_curves(
    *(comparison.curves, comparison.titles, comparison.bands),
    *(comparison.metric, comparison.ranking),
  )
  title = figure.legends[0].get_title().get_text()
  assert title.endswith('with intervals: the best 5 with several seeds')
  assert len(figure.axes[0].collections) == 5
  clear = [x.get_color() for x in figure.axes[0].lines if x.get_linewidth() > 1]
  assert len(set(clear)) == 5
