"""Collectors write what they were given, and take back what comes again."""

import csv
import io
import json
import math
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import types

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pandas as pd
from PIL import Image
import pytest
from rich import console as rich_console
from tensorboard.backend.event_processing import event_accumulator
from tensorboard.backend.event_processing import plugin_event_accumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2

from dopamine_jax import config
from dopamine_jax import errors
from dopamine_jax import metrics
from dopamine_jax.analysis import curves
from dopamine_jax.analysis import groups
from dopamine_jax.metrics import base
from dopamine_jax.metrics import console
from dopamine_jax.metrics import csv_file
from dopamine_jax.metrics import tensorboard

RETURN = 'Train/AverageReturns'
EVAL = 'Eval/AverageReturns'
COLUMNS = 'seed,iteration,agent_steps,wall_time,name,value\n'


def make_run(folder, iteration=0, seeds=(0,), total=1_000, **kwargs):
  return base.Run(
    base_dir=pathlib.Path(folder),
    seeds=seeds,
    iteration=iteration,
    agent_steps=100 * iteration,
    total_agent_steps=total,
    config=kwargs.get('config', 'dqn.DQN.gamma = 0.99\n'),
    quiet=kwargs.get('quiet', False),
  )


def make_statistic(iteration, value, name=RETURN, seed=0):
  return base.Statistic(
    seed, iteration, 100 * iteration, 1e9 + iteration, name, value
  )


def write(collector, run, iterations, value=float):
  collector.open(run)
  for iteration in iterations:
    collector.write(
      [make_statistic(iteration, value(iteration), seed=s) for s in run.seeds]
    )
  collector.close()


class TestBase:
  @pytest.mark.parametrize(
    ('name', 'expected'),
    [
      ('Train/AverageStepsPerSecond', True),
      ('Eval/AverageStepsPerSecond', True),
      ('System/MemoryGB', True),
      ('Train/AverageReturns', False),
      ('Train/StepsPerSecondMean', False),
      ('Replay/System/Fill', False),
    ],
  )
  def test_timings_are_told_from_what_the_seed_decides(self, name, expected):
    assert base.is_timing(name) is expected

  def test_the_table_of_metrics_has_a_line_for_each(self):
    cells = [
      [cell.strip() for cell in line.split('|')[1:-1]]
      for line in metrics.__doc__.splitlines()
      if line.startswith('| ') and '/' in line.split('|')[1]
    ]
    names = [name for name, meaning, unit in cells if meaning and unit]
    assert len(names) == len(cells) == len(set(names)) == 43
    assert [name for name in names if base.is_timing(name)] == [
      'Train/AverageStepsPerSecond',
      'Eval/AverageStepsPerSecond',
      'System/MemoryGB',
    ]

  def test_a_user_collector_overrides_only_what_it_needs(self, tmp_path):
    class Best(base.Collector):
      def open(self, run):
        self.best = -math.inf

      def write(self, statistics):
        values = [s.value for s in statistics if s.name == EVAL]
        self.best = max([self.best, *values])

    best = Best()
    best.open(make_run(tmp_path))
    best.progress(50, {RETURN: 1.0})
    best.write([make_statistic(1, 3.0, EVAL), make_statistic(1, 9.0)])
    best.write([make_statistic(2, 2.0, EVAL)])
    best.close()
    assert best.best == 3.0

  def test_collectors_can_be_named_in_gin(self, tmp_path):
    file = tmp_path / 'collectors.gin'
    file.write_text(
      'from __gin__ import dynamic_registration\n'
      'import types\n'
      'from dopamine_jax.metrics import console\n'
      'from dopamine_jax.metrics import csv_file\n'
      'from dopamine_jax.metrics import tensorboard\n'
      'types.SimpleNamespace.collectors = '
      '[@console.Console(), @csv_file.CSV(), @tensorboard.TensorBoard()]\n'
    )
    collectors = config.load([file]).build(types.SimpleNamespace).collectors
    assert [type(collector) for collector in collectors] == [
      console.Console,
      csv_file.CSV,
      tensorboard.TensorBoard,
    ]


class TestCSV:
  @pytest.mark.parametrize('iteration', [0, 1])
  def test_no_link_or_pipe_is_followed_or_waited_for(self, tmp_path, iteration):
    folder, outside = tmp_path / 'run', tmp_path / 'outside'
    folder.mkdir()
    outside.write_text('mine')
    (folder / 'metrics.csv').symlink_to(outside)
    (folder / 'metrics.csv.tmp').symlink_to(outside)
    with pytest.raises(errors.UserError, match='is a link'):
      csv_file.CSV().open(make_run(folder, iteration))
    (folder / 'metrics.csv').unlink()
    os.mkfifo(folder / 'metrics.csv')
    with pytest.raises(errors.UserError, match='is a pipe'):
      csv_file.CSV().open(make_run(folder, iteration))
    (folder / 'metrics.csv').unlink()
    collector = csv_file.CSV()
    collector.open(make_run(folder))
    collector.close()
    assert outside.read_text() == 'mine'

  def test_file_is_as_documented_before_it_is_closed(self, tmp_path):
    collector = csv_file.CSV()
    collector.open(make_run(tmp_path / 'new' / 'folder', seeds=(3, 4)))
    collector.write([make_statistic(1, 0.1, seed=3)])
    collector.write(
      [make_statistic(2, math.nan, 'a,"b"', seed=4), make_statistic(2, -1e-300)]
    )
    text = (tmp_path / 'new' / 'folder' / 'metrics.csv').read_text()
    collector.close()
    assert text == (
      COLUMNS + '3,1,100,1000000001.0,Train/AverageReturns,0.1\n'
      '4,2,200,1000000002.0,"a,""b""",nan\n'
      '0,2,200,1000000002.0,Train/AverageReturns,-1e-300\n'
    )

  @hypothesis.given(
    st.floats(),
    st.floats(width=32),
    st.text(st.characters(exclude_categories=['Cc', 'Cs'])),
  )
  @hypothesis.settings(deadline=None, max_examples=50)
  def test_values_and_names_round_trip_exactly(self, value, narrow, name):
    with tempfile.TemporaryDirectory() as folder:
      collector = csv_file.CSV()
      collector.open(make_run(folder))
      collector.write(
        [make_statistic(1, value, name), make_statistic(1, np.float32(narrow))]
      )
      collector.close()
      path = pathlib.Path(folder) / 'metrics.csv'
      with path.open(newline='', encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    assert rows[0]['name'] == name
    np.testing.assert_array_equal(float(rows[0]['value']), value, strict=True)
    np.testing.assert_array_equal(float(rows[1]['value']), narrow, strict=True)

  def test_each_write_reaches_the_disk(self, tmp_path, monkeypatch):
    collector = csv_file.CSV()
    collector.open(make_run(tmp_path))
    sizes = []
    monkeypatch.setattr(os, 'fsync', lambda f: sizes.append(os.fstat(f)))
    collector.write([make_statistic(1, 1.0)])
    collector.write([make_statistic(2, 2.0)])
    collector.close()
    path = tmp_path / 'metrics.csv'
    assert len(sizes) == 2
    assert sizes[0].st_size < sizes[1].st_size == path.stat().st_size

  @pytest.mark.parametrize('torn', ['', '0,5,500,10000', '0,5,500,1.0,"é', '"'])
  def test_a_resumed_run_ends_with_the_file_of_an_unbroken_one(
    self, tmp_path, torn
  ):
    unbroken, killed = tmp_path / 'unbroken', tmp_path / 'killed'
    write(csv_file.CSV(), make_run(unbroken, seeds=(0, 1)), range(1, 7))
    write(csv_file.CSV(), make_run(killed, seeds=(0, 1)), range(1, 5))
    with (killed / 'metrics.csv').open('ab') as file:
      file.write(torn.encode()[:14])
    again = make_run(killed, iteration=3, seeds=(0, 1))
    write(csv_file.CSV(), again, range(4, 7))
    expected = (unbroken / 'metrics.csv').read_bytes()
    assert (killed / 'metrics.csv').read_bytes() == expected
    assert [path.name for path in killed.iterdir()] == ['metrics.csv']

  @pytest.mark.parametrize('old', [COLUMNS + '0,1,1,1.0,a,1.0\n', 'else', ''])
  def test_a_new_run_replaces_the_file(self, tmp_path, old):
    (tmp_path / 'metrics.csv').write_text(old)
    write(csv_file.CSV(), make_run(tmp_path), [])
    assert (tmp_path / 'metrics.csv').read_text() == COLUMNS

  def test_a_kill_while_rows_are_dropped_loses_nothing(
    self, tmp_path, monkeypatch
  ):
    write(csv_file.CSV(), make_run(tmp_path), [1, 2, 3])
    before = (tmp_path / 'metrics.csv').read_bytes()

    def kill(descriptor):
      raise KeyboardInterrupt

    monkeypatch.setattr(os, 'fsync', kill)
    with pytest.raises(KeyboardInterrupt):
      csv_file.CSV().open(make_run(tmp_path, iteration=2))
    assert (tmp_path / 'metrics.csv').read_bytes() == before
    monkeypatch.undo()
    write(csv_file.CSV(), make_run(tmp_path, iteration=2), [])
    assert (tmp_path / 'metrics.csv').read_text().count('\n') == 3

  def test_a_file_that_is_gone_is_told(self, tmp_path):
    with pytest.raises(errors.UserError, match=r'metrics\.csv is gone'):
      csv_file.CSV().open(make_run(tmp_path, iteration=2))
    assert not list(tmp_path.iterdir())

  @pytest.mark.parametrize(
    'change',
    [
      lambda data: data[: len(data) // 2],
      lambda data: data[:-1],
      lambda data: data[: data.index(b'\n') + 1],
      lambda data: b'',
      lambda data: data.replace(b'\n0,', b'\n1,'),
      lambda data: data.replace(b'seed,', b'game,'),
      lambda data: data.replace(b'2.0\n', b'2.5\n'),
      lambda data: data.replace(b'\n', b'\r\n'),
      lambda data: b'\xff\xfe' + data,
    ],
  )
  def test_a_file_that_lacks_something_is_told_and_kept(self, tmp_path, change):
    collector = csv_file.CSV()
    write(collector, make_run(tmp_path), [1, 2])
    written = json.loads(json.dumps(collector.written()))
    path = tmp_path / 'metrics.csv'
    whole = path.read_bytes()
    again = make_run(tmp_path, iteration=2)._replace(written=written)
    changed = change(whole)
    assert changed != whole
    path.write_bytes(changed)
    with pytest.raises(errors.UserError, match='Bring the whole file back'):
      csv_file.CSV().open(again)
    assert path.read_bytes() == changed
    # What comes after doesn't matter.
    path.write_bytes(whole + b'0,3,300,1.0,Train')
    collector = csv_file.CSV()
    collector.open(again)
    assert path.read_bytes() == whole
    assert collector.written() == written
    collector.close()

  @pytest.mark.parametrize('change', ['removed', 'replaced'])
  def test_a_file_that_goes_while_it_is_written_is_told(self, tmp_path, change):
    collector, path = csv_file.CSV(), tmp_path / 'metrics.csv'
    collector.open(make_run(tmp_path))
    collector.write([make_statistic(1, 1.0)])
    path.rename(tmp_path / 'moved.csv')
    if change == 'replaced':  # as editors do when they save
      path.write_bytes((tmp_path / 'moved.csv').read_bytes())
    with pytest.raises(errors.UserError, match='removed, replaced or changed'):
      collector.write([make_statistic(2, 2.0)])
    collector.close()

  @pytest.mark.parametrize('change', [b'', b'more', None])
  def test_a_file_that_others_write_into_is_told(self, tmp_path, change):
    collector, path = csv_file.CSV(), tmp_path / 'metrics.csv'
    collector.open(make_run(tmp_path))
    collector.write([make_statistic(1, 1.0)])
    with open(path, 'ab' if change else 'wb') as stream:
      stream.write(change or b'')
    with pytest.raises(errors.UserError, match='replaced or changed'):
      collector.write([make_statistic(2, 2.0)])
    collector.close()

  @pytest.mark.parametrize(
    'content',
    [
      b'',
      b'step,loss\n1,0.5\n',
      COLUMNS.encode() + b'0,1,100,1.0,Train/Loss\n',
      COLUMNS.encode() + b'0,first,100,1.0,Train/Loss,0.5\n',
      b'\xff\xfe\n',
    ],
  )
  def test_a_file_of_something_else_is_refused_and_kept(
    self, tmp_path, content
  ):
    (tmp_path / 'metrics.csv').write_bytes(content)
    with pytest.raises(errors.UserError, match=r'metrics\.csv is not'):
      csv_file.CSV().open(make_run(tmp_path, iteration=1))
    assert (tmp_path / 'metrics.csv').read_bytes() == content


def read_scalars(folder):
  events = event_accumulator.EventAccumulator(
    str(folder), size_guidance={event_accumulator.SCALARS: 0}
  )
  events.Reload()
  return {
    tag: [(event.step, event.value) for event in events.Scalars(tag)]
    for tag in events.Tags()['scalars']
  }


def read_texts(folder):
  events = plugin_event_accumulator.EventAccumulator(str(folder))
  events.Reload()
  plugin = events.PluginTagToContent('text')
  return {
    tag: [
      (event.step, event.tensor_proto.string_val[0].decode())
      for event in events.Tensors(tag)
    ]
    for tag in plugin
  }


class TestTensorBoard:
  def test_points_are_readable_before_the_file_is_closed(self, tmp_path):
    collector = tensorboard.TensorBoard()
    collector.open(make_run(tmp_path))
    for iteration in (1, 2, 3):
      collector.write(
        [
          make_statistic(iteration, iteration / 2),
          make_statistic(iteration, -1.0, 'my tag (raw): x'),
        ]
      )
      assert read_scalars(tmp_path / 'tensorboard') == {
        RETURN: [(100 * i, i / 2) for i in range(1, iteration + 1)],
        'my tag (raw): x': [(100 * i, -1.0) for i in range(1, iteration + 1)],
      }
    collector.close()

  @pytest.mark.parametrize('lost', ['tensorboard', 'tensorboard/seed_1'])
  def test_points_that_are_gone_are_said_once(self, tmp_path, caplog, lost):
    write(tensorboard.TensorBoard(), make_run(tmp_path, seeds=(0, 1)), [1, 2])
    again = make_run(tmp_path, iteration=2, seeds=(0, 1))
    write(tensorboard.TensorBoard(), again, [3])
    assert not caplog.text
    shutil.rmtree(tmp_path / lost)
    write(tensorboard.TensorBoard(), again, [3])
    (record,) = caplog.records
    assert 'shows this run from iteration 3 on' in record.getMessage()

  def test_points_carry_the_time_at_which_they_were_taken(self, tmp_path):
    write(tensorboard.TensorBoard(), make_run(tmp_path), [1, 2])
    events = event_accumulator.EventAccumulator(str(tmp_path / 'tensorboard'))
    events.Reload()
    times = [event.wall_time for event in events.Scalars(RETURN)]
    assert times == [1e9 + 1, 1e9 + 2]

  def test_several_seeds_have_a_sub_run_each(self, tmp_path):
    collector = tensorboard.TensorBoard()
    collector.open(make_run(tmp_path, seeds=(5, 6)))
    collector.write(
      [make_statistic(1, 1.5, seed=6), make_statistic(1, 0.5, seed=5)]
    )
    collector.close()
    root = tmp_path / 'tensorboard'
    assert sorted(path.name for path in root.iterdir()) == [
      'mean',
      'seed_5',
      'seed_6',
    ]
    assert read_scalars(root / 'seed_5') == {RETURN: [(100, 0.5)]}
    assert read_scalars(root / 'seed_6') == {RETURN: [(100, 1.5)]}
    assert list(read_texts(root / 'mean')) == ['config']  # once
    with pytest.raises(KeyError, match='text'):
      read_texts(root / 'seed_6')

  @pytest.mark.parametrize(
    ('values', 'mean', 'margin'),
    [
      # The margin is t * s / sqrt(n), with t from a printed table.
      ([1.0, 2.0, 3.0], 2.0, 4.3027 * 1 / 3**0.5),
      ([1.0, 4.0], 2.5, 12.7062 * 4.5**0.5 / 2**0.5),
      ([7.0], 7.0, None),  # two seeds had no episode
      ([5.0] * 12, 5.0, 0.0),
      ([math.inf, 1.0], math.inf, math.nan),
    ],
  )
  def test_several_seeds_have_a_mean_and_its_interval(
    self, tmp_path, values, mean, margin
  ):
    collector = tensorboard.TensorBoard()
    seeds = tuple(range(max(len(values), 3)))
    collector.open(make_run(tmp_path, seeds=seeds))
    collector.write(
      [
        make_statistic(2, value, name, seed)
        for seed, value in enumerate(values)
        for name in (RETURN, EVAL)
      ]
    )
    collector.close()
    expected = {RETURN: mean, EVAL: mean}
    if margin is not None:
      for name in (RETURN, EVAL):
        expected[f'Interval/{name}/low'] = mean - margin
        expected[f'Interval/{name}/high'] = mean + margin
    scalars = read_scalars(tmp_path / 'tensorboard/mean')
    assert scalars.keys() == expected.keys()
    for name, value in expected.items():
      ((step, found),) = scalars[name]
      assert step == 200
      np.testing.assert_allclose(found, value, rtol=1e-4)

  @pytest.mark.parametrize('stop', [1, 2, 3])
  def test_the_interval_remembers_the_range_of_returns_over_a_stop(
    self, tmp_path, stop
  ):
    """As of a run that was never stopped, and as `compare` shows it."""
    values = {1: (0.0, 1.0), 2: (9.0, 9.0), 3: (5.0, 5.0), 4: (5.0, 5.0)}
    run = make_run(tmp_path, seeds=(0, 1))

    def train(run, iterations):
      collectors = [tensorboard.TensorBoard(), csv_file.CSV()]
      for each in collectors:
        each.open(run)
      for i in iterations:
        numbers = [
          make_statistic(i, value, name, seed)
          for seed, value in enumerate(values[i])
          for name in (RETURN, 'Train/Loss')
        ]
        for each in collectors:
          each.write(numbers)
      for each in collectors:
        each.close()

    train(run, range(1, stop + 1))
    again = run._replace(iteration=stop, agent_steps=100 * stop)
    train(again, range(stop + 1, 5))
    unseen = 1 - 0.025**0.5
    scalars = read_scalars(tmp_path / 'tensorboard/mean')
    for name, end in (('low', -5), ('high', 4)):
      found = dict(scalars[f'Interval/{RETURN}/{name}'])
      assert found[400] == pytest.approx(5 + end * unseen, rel=1e-4)
    assert 'Interval/Train/Loss/low' not in scalars
    table = pd.read_csv(tmp_path / 'metrics.csv')
    rows = table[table.name == RETURN].assign(run='r', game='g', metric=RETURN)
    group = groups.Group('g', [], rows)
    (curve,) = curves.of_groups([group], RETURN)['g'].values()
    assert curve.interval().low[3] == pytest.approx(5 - 5 * unseen)

  def test_more_seeds_than_a_page_can_show_have_no_run_each(self, tmp_path):
    for num_seeds in (10, 11):
      run = make_run(tmp_path / str(num_seeds), seeds=tuple(range(num_seeds)))
      write(tensorboard.TensorBoard(), run, [1], lambda i: 0.5)
      names = {path.name for path in (run.base_dir / 'tensorboard').iterdir()}
      seeds = (
        {f'seed_{seed}' for seed in run.seeds} if num_seeds == 10 else set()
      )
      assert names == {'mean'} | seeds
      assert read_scalars(run.base_dir / 'tensorboard/mean') == {
        name: [(100, 0.5)]
        for name in (
          RETURN,
          f'Interval/{RETURN}/low',
          f'Interval/{RETURN}/high',
        )
      }

  def test_config_is_shown_as_code(self, tmp_path):
    run = make_run(tmp_path, config='import optax\n\n# Of DQN\nDQN.n = 1')
    write(tensorboard.TensorBoard(), run, [])
    assert read_texts(tmp_path / 'tensorboard') == {
      'config': [(0, '    import optax\n    \n    # Of DQN\n    DQN.n = 1\n')]
    }

  @pytest.mark.parametrize('torn_bytes', [0, 1, 9, 40])
  def test_points_after_the_checkpoint_come_once(self, tmp_path, torn_bytes):
    # All of this lies within a second, the resolution of the files' names.
    root = tmp_path / 'tensorboard'
    write(tensorboard.TensorBoard(), make_run(tmp_path), range(1, 6))
    (file,) = root.iterdir()
    os.truncate(file, file.stat().st_size - torn_bytes)
    for _ in range(2):
      write(tensorboard.TensorBoard(), make_run(tmp_path, iteration=3), [])
      assert read_scalars(root) == {RETURN: [(100, 1), (200, 2), (300, 3)]}
      again = make_run(tmp_path, iteration=3)
      write(tensorboard.TensorBoard(), again, [4, 5], lambda i: 10.0 * i)
    steps = [(100, 1), (200, 2), (300, 3), (400, 40), (500, 50)]
    assert read_scalars(root) == {RETURN: steps}
    assert [step for step, _ in read_texts(root)['config']] == [0, 301]

  def test_a_new_run_hides_all_of_one_that_reached_no_checkpoint(
    self, tmp_path
  ):
    write(tensorboard.TensorBoard(), make_run(tmp_path), [1, 2])
    write(tensorboard.TensorBoard(), make_run(tmp_path), [1], lambda i: 7.0)
    assert read_scalars(tmp_path / 'tensorboard') == {RETURN: [(100, 7.0)]}
    assert len(read_texts(tmp_path / 'tensorboard')['config']) == 1

  def test_no_other_framework_is_imported(self):
    code = (
      'import sys\n'
      'from dopamine_jax.metrics import console, csv_file, tensorboard\n'
      'print({"tensorflow", "torch", "jax"} & set(sys.modules))'
    )
    root = pathlib.Path(__file__).parents[2]
    output = subprocess.check_output([sys.executable, '-c', code], cwd=root)
    assert output.decode().strip() == 'set()'


def read_hyperparameters(folder):
  """Returns what begins and ends a run's row, and the page's other tags."""
  events = plugin_event_accumulator.EventAccumulator(str(folder))
  events.Reload()
  if not any(tag.startswith('_hparams_') for tag in events.Tags()['tensors']):
    return None
  contents = {
    tag: plugin_data_pb2.HParamsPluginData.FromString(content)
    for tag, content in events.PluginTagToContent('hparams').items()
  }
  begin = contents.pop('_hparams_/session_start_info').session_start_info
  values = {
    name: getattr(value, value.WhichOneof('kind'))
    for name, value in begin.hparams.items()
  }
  end = contents.pop('_hparams_/session_end_info', None)
  assert not contents  # a list of columns would hide those of other runs
  return values, end and end.session_end_info.status


def read_layout(folder):
  """Returns the newest layout: (group, chart, tags) in order."""
  events = plugin_event_accumulator.EventAccumulator(str(folder))
  events.Reload()
  newest = events.Tensors('custom_scalars__config__')[-1].tensor_proto
  layout = layout_pb2.Layout.FromString(newest.string_val[0])
  charts = []
  for group in layout.category:
    for chart in group.chart:
      tags = list(chart.multiline.tag)
      for series in chart.margin.series:
        tags = [series.value, series.lower, series.upper]
      charts.append((group.title, chart.title, tags))
  return charts


class TestTensorBoardPages:
  def test_settings_are_hyperparameters_of_one_row(self, tmp_path):
    config = 'import optax\n# dqn.DQN:\ndqn.DQN.gamma = 0.5\n'
    config += 'dqn.DQN.network = @networks.MLP\n'
    write(tensorboard.TensorBoard(), make_run(tmp_path, config=config), [1])
    assert read_hyperparameters(tmp_path / 'tensorboard') == (
      {'seed': '0', 'dqn.DQN.gamma': 0.5, 'dqn.DQN.network': '@networks.MLP'},
      None,
    )

  def test_several_seeds_are_one_row_with_the_mean(self, tmp_path):
    run = make_run(tmp_path, seeds=(3, 4, 5), total=200)
    write(tensorboard.TensorBoard(), run, [1, 2])
    root = tmp_path / 'tensorboard'
    values, status = read_hyperparameters(root / 'mean')
    assert values['seed'] == '3 to 5'
    assert status == 1  # success: all its steps are done
    assert read_hyperparameters(root / 'seed_3') is None

  def test_a_run_that_goes_on_keeps_its_row_and_ends_it_once(self, tmp_path):
    root = tmp_path / 'tensorboard'
    write(tensorboard.TensorBoard(), make_run(tmp_path, total=500), [1, 2, 3])
    assert read_hyperparameters(root)[1] is None
    again = make_run(tmp_path, iteration=2, total=500)
    write(tensorboard.TensorBoard(), again, [3, 4, 5])
    values, status = read_hyperparameters(root)
    assert values == {'seed': '0', 'dqn.DQN.gamma': 0.99}
    assert status == 1
    assert [x for x, _ in read_scalars(root)[RETURN]] == [
      100 * i for i in range(1, 6)
    ]

  def test_a_new_run_takes_nothing_over_from_one_without_a_checkpoint(
    self, tmp_path
  ):
    first = make_run(tmp_path, config='dqn.DQN.gamma = 0.1\n')
    write(tensorboard.TensorBoard(), first, [1, 2])
    (tmp_path / 'tensorboard/mine.txt').write_text('kept')
    write(tensorboard.TensorBoard(), make_run(tmp_path), [])
    values, _ = read_hyperparameters(tmp_path / 'tensorboard')
    assert values['dqn.DQN.gamma'] == 0.99
    assert (tmp_path / 'tensorboard/mine.txt').exists()

  @pytest.mark.parametrize(
    ('text', 'expected'),
    [
      ('a.B.c = 1\n', {'a.B.c': 1}),
      ('a.B.c = True\na.B.d = None', {'a.B.c': True, 'a.B.d': 'None'}),
      ("x/a.b = 'CartPole-v1'\n", {'x/a.b': 'CartPole-v1'}),
      ('# c = 1\n\nfrom a import b\nimport c\n', {}),
      ('a.b = (1, 2)\na.c = -1e-05', {'a.b': '(1, 2)', 'a.c': -1e-5}),
      ("a.b = \\\n    'long'\na.c = 2", {'a.b': 'long', 'a.c': 2}),
      (
        'a.b = \\\n    [@x.Y,\n     @z.Z]\n\na.c = 2',
        {'a.b': '[@x.Y, @z.Z]', 'a.c': 2},
      ),
    ],
  )
  def test_bindings_are_read_as_gin_writes_them(self, text, expected):
    actual = tensorboard.settings_of(text)
    assert actual == expected
    assert [type(x) for x in actual.values()] == [
      type(x) for x in expected.values()
    ]

  def test_charts_are_laid_out_once_there_is_something_to_show(self, tmp_path):
    collector = tensorboard.TensorBoard()
    collector.open(make_run(tmp_path, seeds=(0, 1)))
    root = tmp_path / 'tensorboard'

    def report(iteration, *names):
      collector.write(
        [
          make_statistic(iteration, 1.0, name, seed)
          for name in names
          for seed in (0, 1)
        ]
      )

    report(1, RETURN, 'Train/Loss', 'Train/ValueLoss')
    training = (
      'Returns',
      'Training: mean, lowest and highest episode',
      [RETURN, 'Train/MinReturns', 'Train/MaxReturns'],
    )
    losses = ('Losses', 'Losses', ['Train/.*Loss'])
    band = (
      'Returns',
      'Training: mean over the seeds and its 95% interval',
      [RETURN, f'Interval/{RETURN}/low', f'Interval/{RETURN}/high'],
    )
    assert read_layout(root / 'mean') == [band, losses]
    report(2, RETURN, 'Train/MinReturns', 'Train/MaxReturns')
    assert read_layout(root / 'mean') == [band, training, losses]
    size = sum(x.stat().st_size for x in (root / 'mean').iterdir())
    report(3, RETURN, 'Train/Loss')
    grown = sum(x.stat().st_size for x in (root / 'mean').iterdir())
    assert grown - size < 400  # nothing but four points
    report(4, RETURN, EVAL)
    groups = [chart[0] for chart in read_layout(root / 'mean')]
    assert groups == ['Returns', 'Returns', 'Returns', 'Losses']
    assert read_layout(root / 'mean')[0][2][0] == EVAL
    collector.close()
    events = event_accumulator.EventAccumulator(str(root / 'seed_0'))
    events.Reload()
    assert 'custom_scalars__config__' not in events.Tags()['tensors']

  def test_every_tag_that_is_documented_has_a_chart_or_is_a_count(self):
    tags = set(re.findall(r'^\| (\w+/\S+)', metrics.__doc__, re.MULTILINE))
    patterns = [
      pattern
      for charts in tensorboard._LAYOUT.values()
      for tags_of_chart in charts.values()
      for pattern in tags_of_chart
      if not pattern.startswith('Interval/')  # no collector is given those
    ]
    without = {
      tag for tag in tags if not any(re.fullmatch(p, tag) for p in patterns)
    }
    assert without == {
      f'{phase}/{name}'
      for phase in ('Train', 'Eval')
      for name in ('MedianReturns', 'NumEpisodes')
    } | {'Train/Updates', 'Train/GradientSteps'}
    for pattern in patterns:
      assert any(re.fullmatch(pattern, tag) for tag in tags), pattern

  def test_histograms_go_to_the_runs_of_their_seeds(self, tmp_path):
    collector = tensorboard.TensorBoard()
    collector.open(make_run(tmp_path, seeds=(5, 6)))
    numbers = np.array([-1.0, 0.0, 0.5, 3.0])
    counts, edges = np.histogram(numbers, bins=4)
    collector.write_histograms(
      [
        base.Histogram(
          *(6, 2, 200, 1e9, 'Parameters/a/b', edges, counts),
          *(numbers.sum(), np.square(numbers).sum()),
        )
      ]
    )
    collector.write([make_statistic(2, 1.0, seed=6)])
    collector.close()
    events = event_accumulator.EventAccumulator(
      str(tmp_path / 'tensorboard/seed_6')
    )
    events.Reload()
    (event,) = events.Histograms('Parameters/a/b')
    assert (event.step, event.wall_time) == (200, 1e9)
    value = event.histogram_value
    assert (value.min, value.max, value.num) == (-1, 3, 4)
    assert (value.sum, value.sum_squares) == (2.5, 10.25)
    # Each limit is the right end of its bucket.
    assert value.bucket_limit == [-1, 0, 1, 2, 3]
    assert value.bucket == [0, 1, 2, 0, 1]
    for name in ('seed_5', 'mean'):
      other = event_accumulator.EventAccumulator(
        str(tmp_path / 'tensorboard' / name)
      )
      other.Reload()
      assert other.Tags()['histograms'] == []

  @pytest.mark.parametrize(
    ('seeds', 'name'),
    [((5,), ''), ((5, 6), 'seed_5'), (tuple(range(5, 16)), 'mean')],
  )
  def test_a_video_goes_to_its_seeds_run(self, tmp_path, seeds, name):
    collector = tensorboard.TensorBoard()
    collector.open(make_run(tmp_path, seeds=seeds))
    stream = io.BytesIO()
    frames = [Image.new('RGB', (30, 20), colour) for colour in ('red', 'blue')]
    frames[0].save(stream, 'GIF', save_all=True, append_images=frames[1:])
    gif = stream.getvalue()
    collector.write_video(base.Video(5, 2, 200, 1e9, 'Eval/Video', gif))
    collector.close()
    for folder in sorted((tmp_path / 'tensorboard').glob('**/')):
      if not list(folder.glob('events*')):
        continue
      events = event_accumulator.EventAccumulator(str(folder))
      events.Reload()
      if folder != tmp_path / 'tensorboard' / name:
        assert events.Tags()['images'] == []
        continue
      (image,) = events.Images('Eval/Video')
      assert (image.step, image.wall_time) == (200, 1e9)
      assert (image.width, image.height) == (30, 20)
      assert image.encoded_image_string == gif


class Clock:
  """Stands where the module looks for `time`."""

  now = 1_000.0

  def monotonic(self):
    return self.now


@pytest.fixture
def clock(monkeypatch):
  clock = Clock()
  monkeypatch.setattr(console, 'time', clock)
  return clock


def make_screen(monkeypatch, columns='80'):
  """Makes the captured output a terminal.

  Not a fixture: pytest exchanges the captured output between fixtures and test.
  """
  monkeypatch.setattr(sys.stdout, 'isatty', lambda: True)
  screen = {'TERM': 'xterm', 'COLUMNS': columns, 'LINES': '24'}
  for name, value in screen.items():
    monkeypatch.setenv(name, value)
  for name in ('NO_COLOR', 'TTY_COMPATIBLE', 'TTY_INTERACTIVE'):
    monkeypatch.delenv(name, raising=False)


def read_screen(capsys):
  return re.sub(r'\x1b\[[0-9;?]*[a-zA-Z]', '', capsys.readouterr().out)


def play(clock, run, iterations, seconds=10.0, value=float, collector=None):
  """Shows iterations of 100 steps, half of their time spent in evaluation."""
  collector = collector or console.Console()
  collector.open(run)
  clock.now += 60  # compilation
  collector.progress(run.agent_steps, {})
  for iteration in iterations:
    clock.now += seconds / 2
    collector.progress(100 * iteration, {RETURN: 0.5})
    clock.now += seconds / 2
    collector.write(
      [
        make_statistic(iteration, value(iteration) + i, name, seed)
        for i, seed in enumerate(run.seeds)
        for name in ([RETURN, EVAL] if iteration % 2 == 0 else [RETURN])
      ]
    )
  collector.close()


class InANotebook(rich_console.Console):
  """What rich finds there, but for what is made for a text."""

  def __init__(self, **settings):
    super().__init__(**settings)
    self.is_jupyter = 'file' not in settings


class TestConsole:
  def test_a_pipe_gets_one_plain_line_an_iteration(
    self, clock, capsys, monkeypatch
  ):
    monkeypatch.setenv('FORCE_COLOR', '1')
    run = make_run('runs/[bold]x:smile:', total=300)
    play(clock, run, [1, 2, 3], value=lambda i: 100.0 * i)
    assert capsys.readouterr().out.splitlines() == [
      'Training seed 0: 300 agent steps',
      'Run folder: runs/[bold]x:smile:',
      'iteration   1     100 steps  train  100.0  10/s  20s left',
      'iteration   2     200 steps  train  200.0  eval  200.0  10/s  10s left',
      'iteration   3     300 steps  train  300.0  10/s  took 1m30s',
    ]

  def test_several_seeds_show_mean_return_and_common_speed(self, clock, capsys):
    run = make_run('runs/x', iteration=7, seeds=(2, 3, 4), total=1_000)
    play(clock, run, [8])
    assert capsys.readouterr().out.splitlines() == [
      'Training 3 seeds, 2 to 4: 1k agent steps each',
      'Run folder: runs/x',
      'Going on after iteration 7, at 700 steps',
      'iteration   8     800 steps  train   9.00  eval   9.00  30/s  20s left',
    ]

  def test_a_run_that_is_done_says_so(self, clock, capsys):
    console.Console().open(make_run('runs/x', iteration=3, total=300))
    assert capsys.readouterr().out.splitlines() == [
      'Trained seed 0: 300 agent steps',
      'Run folder: runs/x',
      'All 3 iterations are done. To go on, set runner.Runner.num_iterations '
      'higher.',
    ]

  def test_seeds_without_a_finished_episode_are_left_out(self, clock, capsys):
    collector = console.Console()
    collector.open(make_run('runs/x', seeds=(0, 1)))
    collector.write(
      [make_statistic(1, math.nan), make_statistic(1, 4.0, seed=1)]
    )
    collector.write([make_statistic(2, math.nan)])
    collector.write([])
    lines = capsys.readouterr().out.splitlines()[2:]
    assert lines == [
      'iteration   1     100 steps  train   4.00',
      'iteration   2     200 steps',
    ]

  def test_a_terminal_gets_a_bar_that_stays(self, clock, capsys, monkeypatch):
    make_screen(monkeypatch)
    run = make_run('runs/x', seeds=(0, 1), total=200)
    play(clock, run, [1, 2], value=lambda i: 20.0 * i)
    lines = read_screen(capsys).splitlines()
    assert lines[:2] == [
      'Training 2 seeds, 0 to 1: 200 agent steps each',
      'Run folder: runs/x',
    ]
    bar, below = lines[-2:]
    assert 'iteration 2' in bar and '100%  took 1m20s' in bar
    assert '200/200 steps x 2 seeds  20 steps/s' in below
    assert 'train  40.50  eval  40.50' in below
    assert not any(line.startswith('iteration  ') for line in lines)

  def test_the_bar_follows_progress_within_an_iteration(
    self, clock, capsys, monkeypatch
  ):
    make_screen(monkeypatch)
    collector = console.Console()
    collector.open(make_run('runs/x'))
    assert 'iteration 1 ' in read_screen(capsys)
    collector.progress(0, {})
    clock.now += 1  # too short a time to tell from
    collector.progress(30, {})
    assert 'left' not in (shown := read_screen(capsys)) and '  3%' in shown
    clock.now += 4
    collector.progress(50, {RETURN: 12.5})
    assert '  5%  1m35s left' in (shown := read_screen(capsys))
    assert '50/1k steps  10 steps/s' in shown and 'train  12.50' in shown
    collector.progress(60, {RETURN: math.nan})
    assert 'train  12.50' in read_screen(capsys)
    collector.write([make_statistic(1, 30.0)])
    assert 'iteration 2 ' in (shown := read_screen(capsys))
    assert 'train  30.00' in shown
    collector.close()

  def test_the_bar_says_that_it_evaluates(self, clock, capsys, monkeypatch):
    make_screen(monkeypatch)
    collector = console.Console()
    collector.open(make_run('runs/x'))
    collector.progress(50, {})
    assert 'evaluating' not in read_screen(capsys)
    collector.evaluating()
    assert '  5%  evaluating' in read_screen(capsys)
    collector.write([make_statistic(1, 30.0)])
    assert 'evaluating' not in read_screen(capsys)

  def test_a_notebook_gets_one_bar_drawn_in_place(self, clock, monkeypatch):
    shown = []
    place = types.SimpleNamespace(update=shown.append)

    def show(text, display_id=False, **headline):
      if display_id:
        shown.append(text)
      return place

    display = types.SimpleNamespace(Pretty=str, display=show)
    monkeypatch.setitem(sys.modules, 'IPython.display', display)
    monkeypatch.setitem(
      sys.modules, 'IPython', types.SimpleNamespace(display=display)
    )
    monkeypatch.setattr(console.rich_console, 'Console', InANotebook)
    collector = console.Console()
    collector.open(make_run('runs/x', total=200))
    for steps in range(0, 200, 2):
      clock.now += 0.1
      collector.progress(steps, {RETURN: 3.5})
    collector.close()
    assert 20 <= len(shown) <= 23  # twice a second, in 10 s
    assert '99%' in shown[-1] and 'train   3.50' in shown[-1]
    assert '\x1b' not in ''.join(shown)

  @pytest.mark.parametrize('screen', [False, True])
  def test_quiet_prints_nothing(self, clock, capsys, screen, monkeypatch):
    if screen:
      make_screen(monkeypatch)
    play(clock, make_run('runs/x', quiet=True), [1, 2])
    assert capsys.readouterr() == ('', '')

  @pytest.mark.parametrize('screen', [False, True])
  @pytest.mark.parametrize('value', [-123_456.7, -12_345_678.9, 1e-9])
  @pytest.mark.parametrize('seconds', [0.7, 1e3, 1e4])
  def test_every_line_fits_80_columns(
    self, clock, capsys, screen, value, seconds, monkeypatch
  ):
    if screen:
      make_screen(monkeypatch, columns='120')
    run = make_run('runs/x', 199, tuple(range(100)), 200_000_000)
    collector = console.Console()
    collector.open(run._replace(agent_steps=49_745_678))
    collector.progress(49_745_678, {})
    clock.now += seconds
    names = [RETURN, EVAL]
    collector.write(
      [
        make_statistic(200, value, name)._replace(agent_steps=49_995_678)
        for name in names
      ]
    )
    collector.close()
    lines = read_screen(capsys).splitlines()
    assert 'eval' in lines[-1]
    assert any(line.startswith(f'iteration {200 + screen} ') for line in lines)
    assert max(map(len, lines)) <= 80

  @pytest.mark.parametrize(
    ('number', 'expected'),
    [
      (0, '0'),
      (999, '999'),
      (1_000, '1k'),
      (12_346, '12.35k'),
      (999_999, '1M'),
      (49_750_000, '49.75M'),
      (-2e9, '-2G'),
    ],
  )
  def test_large_numbers_are_short(self, number, expected):
    assert console._compact(number) == expected

  @pytest.mark.parametrize(
    ('seconds', 'expected'),
    [
      (0.4, '0s'),
      (59.6, '1m00s'),
      (754, '12m34s'),
      (3_599.9, '1h00m'),
      (11_100, '3h05m'),
      (86_399.9, '1d00h'),
      (99 * 3600 + 59 * 60, '4d03h'),
    ],
  )
  def test_durations_have_two_units(self, seconds, expected):
    assert console._duration(seconds) == expected
