"""A run as a page: what it says, what it escapes, what may be missing."""

import json
import os
import re
import sys

import numpy as np
import pytest
from typer import testing

from dopamine_jax import errors
from dopamine_jax.analysis import html_report
from dopamine_jax.analysis import markup
from dopamine_jax.analysis import run_report
from dopamine_jax.commands import cli
from tests import browser
from tests import pages

TRAIN, EVAL = 'Train/AverageReturns', 'Eval/AverageReturns'
MACHINE = {'system': 'Linux', 'processor': 'Some CPU', 'cores': 2}


def make_run(
  folder,
  metrics=None,
  *,
  seeds=(0, 1),
  iterations=3,
  events=None,
  agent='DQN',
  imports='',
):
  """Writes a run's folder; `metrics` are [S, T] by name."""
  folder.mkdir()
  if metrics is None:
    metrics = {TRAIN: [[1, 2, 3], [3, 4, 5]], 'Train/Loss': [[3, 2, 1]] * 2}
  (folder / 'config.gin').write_text(
    f'{imports}\n'
    f'runner.Runner.agent = @dqn.{agent}\n'
    'runner.Runner.environment = @gym.Gym()\n'
    f'runner.Runner.num_iterations = {iterations}\n'
    "gym.Gym.id = 'CartPole-v1'\n"
  )
  lines = ['seed,iteration,agent_steps,wall_time,name,value']
  for name, values in metrics.items():
    for (row, i), value in np.ndenumerate(np.array(values, float)):
      number = seeds[row], i + 1, 1_000 * (i + 1), 0.0, name, value
      lines.append(','.join(map(str, number)))
  (folder / 'metrics.csv').write_text('\n'.join(lines) + '\n')
  facts = {'seeds': list(seeds), 'versions': {'jax': '1.2.3'}}
  if events is not None:
    facts |= {'title': 'A title.', 'events': events}
  (folder / 'run.json').write_text(json.dumps(facts))
  return folder


def evaluation_csv(folder, returns):
  rows = [f'{s},{i},{r},9' for s, row in returns.items() for i, r in row]
  text = '\n'.join(['seed,episode,return,length', *rows]) + '\n'
  (folder / 'evaluation.csv').write_text(text)


def started(**more):
  return {
    'event': 'started',
    'time': '2026-01-02T03:04:05+00:00',
    'iteration': 0,
    'command': 'dopamine-jax train --gin_files my.gin',
    'machine': MACHINE,
    'commits': {'dopamine-jax': '0123abc-dirty'},
    'versions': {'jax': '1.2.3'},
    **more,
  }


FINISHED = {'event': 'finished', 'time': 'later', 'iteration': 3}


def words(folder, film=None):
  parser = pages.Parser(html_report.page(run_report.gather(folder), film))
  assert not parser.open
  return ' '.join(' '.join(parser.text).split())


def test_the_page_says_what_ran_and_what_was_reached(tmp_path):
  events = [started(), FINISHED]
  metrics = {
    TRAIN: [[10, 20, 30], [30, 40, 50]],
    EVAL: [[1, 2, 7], [1, 2, 9]],
    'Train/AverageStepsPerSecond': [[100, 200, 400]] * 2,
    'Train/Loss': [[3, 2, 1]] * 2,
    'Train/MinReturns': [[0, 0, 0]] * 2,
  }
  text = words(make_run(tmp_path / 'a', metrics, events=events))
  assert 'DQN on CartPole-v1' in text
  assert 'A title.' in text
  assert 'Finished, 3 iterations' in text
  # Evaluation: the last point's mean. Training: that of the three there are.
  assert 'Evaluation return, last 8 95% interval -4.71 to 20.7, 2 seeds' in text
  assert 'Training return, last 3 30.0 95% interval -97.1 to 157.1' in text
  # 2 seeds x 1,000 steps at 100, 200 and 400 steps/s.
  assert 'Time in training 35 s' in text
  assert 'dopamine-jax train --gin_files my.gin' in text
  assert 'Some CPU' in text
  assert 'jax 1.2.3' in text
  assert 'dopamine-jax, commit 0123abc-dirty' in text
  assert '--base_dir again --num_seeds 2' in text
  assert 'runner.Runner.num_iterations = 3' in text
  assert 'started , iteration 0 on 2026-01-02 at 03:04:05 UTC' in text
  assert 'finished , iteration 3 at later' in text
  assert 'Train/Loss' in text
  assert 'Train/MinReturns' not in text
  assert 'What to know first' not in text
  # A curve's table: the second point of both seeds.
  assert '2,000 30.0 -97.1 to 157.1' in text


def test_curves_are_drawn_where_the_numbers_are(tmp_path):
  """Three points on a line lie on one in the picture, from end to end."""
  page = html_report.page(run_report.gather(make_run(tmp_path / 'a')))
  d = re.search(r'<path d="([^"]+)" class="line first">', page)[1]
  points = np.array(re.findall(r'([\d.]+) ([\d.]+)', d), float)
  assert len(points) == 3
  np.testing.assert_allclose(np.diff(points, n=2, axis=0), 0, atol=0.11)
  (x0, y0), _, (x1, y1) = points
  assert x1 > x0
  assert y1 < y0  # SVG's y goes down
  assert x1 == pytest.approx(440 - 14)
  # Each point tells its number: the mean of 3 and 5.
  assert '3,000 agent steps: 4 (95% interval -8.706 to 16.71)' in page


def test_points_that_not_every_seed_has_are_said(tmp_path):
  metrics = {TRAIN: [[1, np.nan, 3], [3, 4, 5]]}
  text = words(make_run(tmp_path / 'a', metrics))
  assert f'{TRAIN}: 1 of 3 points are left out' in text


def test_a_long_curve_is_drawn_whole_with_fewer_points_to_touch(tmp_path):
  values = np.arange(1_000)
  folder = make_run(tmp_path / 'a', {TRAIN: [values]}, seeds=(0,))
  page = html_report.page(run_report.gather(folder))
  d = re.search(r'<path d="([^"]+)" class="line first">', page)[1]
  assert d.count('L') == 999
  assert page.count('class="hover"') == 2 * 200  # narrow and wide


def test_evaluation_csv_is_shown_with_intervals(tmp_path):
  folder = make_run(tmp_path / 'a')
  evaluation_csv(folder, {0: enumerate([5, 5]), 1: enumerate([7, 7])})
  text = words(folder)
  assert 'Mean 6 over 2 seeds, 95% interval over seeds -6.71 to 18.7' in text
  assert '2 episodes of each seed' in text
  assert '0 5 5 to 5 5 5 5 1 7 7 to 7 7 7 7' in text


HOSTILE = '<script>alert(1)</script>&"\''


def test_whatever_a_run_holds_is_escaped(tmp_path):
  folder = make_run(
    tmp_path / '<b>a',
    {
      TRAIN: [[1, 2]] * 2,
      f'"Train/{HOSTILE.replace(chr(34), "")}"': [[1, 2]] * 2,
    },
    agent=HOSTILE,
    imports=f'import evil.{HOSTILE}',
    events=[
      started(command=HOSTILE, machine={HOSTILE: HOSTILE}),
      {'event': HOSTILE, 'why': HOSTILE, 'time': HOSTILE, 'iteration': HOSTILE},
      {'event': 'stopped', 'why': HOSTILE, 'iteration': []},
    ],
  )
  facts = json.loads((folder / 'run.json').read_text())
  facts |= {'title': HOSTILE, 'versions': {HOSTILE: HOSTILE}}
  (folder / 'run.json').write_text(json.dumps(facts))
  page = html_report.page(run_report.gather(folder))
  assert page.count('<script') == 1
  parser = pages.Parser(page)
  assert 'b' not in {tag for tag, _ in parser.elements}
  assert ''.join(parser.text).count(HOSTILE) >= 8


def test_an_element_escapes_what_is_no_markup():
  made = markup.element('p', '<', markup.element('b', '&'), None, class_='"')
  assert made == '<p class="&quot;">&lt;<b>&amp;</b></p>'
  assert markup.element('video', controls=True, src=None) == (
    '<video controls></video>'
  )


def test_the_page_asks_for_nothing_outside(tmp_path):
  page = html_report.page(run_report.gather(make_run(tmp_path / 'a')), b'film')
  for _, attributes in pages.Parser(page).elements:
    for name in ('src', 'href', 'srcset', 'data', 'action', 'poster'):
      assert attributes.get(name, 'data:').startswith('data:')
    assert 'style' not in attributes  # the policy forbids it
  assert 'url(' not in page
  assert '@import' not in page
  assert "default-src 'none'" in page
  assert 'src="data:video/mp4;base64,ZmlsbQ=="' in page


@pytest.mark.parametrize(
  ('changes', 'said'),
  [
    ({'iterations': 9}, 'The run is not finished: 3 of 9 iterations.'),
    (
      {'iterations': 9, 'events': [started()]},
      'is still training, or was killed',
    ),
    (
      {'seeds': [4], 'metrics': {TRAIN: [[1, 2, 3]]}},
      'One seed only: no inter',
    ),
    (
      {
        'events': [started(), {'event': 'stopped', 'why': 'Loss is not finite'}]
      },
      'The run stopped: Loss is not finite',
    ),
    (
      {
        'events': [
          started(),
          started(event='resumed', iteration=2, versions={'jax': '9'}),
          FINISHED,
        ]
      },
      'resumed after iteration 2, jax 1.2.3 -> 9 had changed',
    ),
    (
      {'events': [started(event='resumed', iteration=1, damaged=[2])]},
      'checkpoint of iteration 2 was damaged: the run went on from iteration 1',
    ),
    (
      {'metrics': {TRAIN: [[1, 2]] * 2, 'Train/Loss': [[1, np.inf]] * 2}},
      'Not finite, and not drawn: 2 numbers of Train/Loss.',
    ),
    ({'imports': 'from my import advantage'}, 'needs beside it: my.advantage.'),
    (
      {'events': [started(event='resumed')]},
      'What came before is not recorded',
    ),
    ({}, 'machine not recorded'),
  ],
)
def test_what_weakens_a_run_is_said(tmp_path, changes, said):
  assert said in words(make_run(tmp_path / 'a', **changes))


def test_a_seed_without_numbers_is_said(tmp_path):
  folder = make_run(tmp_path / 'a')
  text = (folder / 'run.json').read_text()
  (folder / 'run.json').write_text(text.replace('[0, 1]', '[0, 1, 7]'))
  assert 'There is no number of seed 7.' in words(folder)


@pytest.mark.parametrize('facts', ['[]', '{', '{"seeds": 3, "versions": 4}'])
def test_a_damaged_run_json_leaves_the_rest(tmp_path, facts):
  folder = make_run(tmp_path / 'a')
  (folder / 'run.json').write_text(facts)
  text = words(folder)
  assert 'Training episodes' in text
  assert 'not recorded' in text


def test_missing_files_are_said(tmp_path):
  folder = make_run(tmp_path / 'a')
  (folder / 'run.json').unlink()
  (folder / 'config.gin').unlink()
  text = words(folder)
  assert 'There is no run.json' in text
  assert 'There is no config.gin' in text
  assert 'Run a' in text
  assert 'Training episodes' in text
  assert 'How to reproduce it' not in text


def test_of_a_damaged_csv_the_good_lines_are_drawn(tmp_path):
  folder = make_run(tmp_path / 'a')
  path = folder / 'metrics.csv'
  lines = path.read_text().splitlines()
  lines[9] = '\x00\x00garbage'
  lines[10] = lines[11]  # a number that is there twice
  path.write_text('\n'.join(lines) + '\n0,3,30')
  text = words(folder)
  assert 'metrics.csv is damaged: 2 of its 12 rows were left out' in text
  assert 'the first is line 10' in text
  assert '3,000 4' in text


def test_a_damaged_evaluation_is_left_out_and_said(tmp_path):
  folder = make_run(tmp_path / 'a')
  (folder / 'evaluation.csv').write_text('seed,episode,return\n0,0,x\n')
  assert 'evaluation.csv can not be read, and is left out' in words(folder)


def test_an_evaluation_before_the_newest_metrics_is_doubted(tmp_path):
  folder = make_run(tmp_path / 'a')
  evaluation_csv(folder, {0: enumerate([5, 5])})
  os.utime(folder / 'evaluation.csv', (1, 1))
  assert 'evaluation.csv is older' in words(folder)


def test_an_evaluation_alone_is_a_page(tmp_path):
  folder = make_run(tmp_path / 'a')
  evaluation_csv(folder, {0: enumerate([5, 6])})
  (folder / 'metrics.csv').unlink()
  text = words(folder)
  assert 'There is no metrics.csv' in text
  assert 'Mean 5.5 over 1 seed.' in text


def test_nothing_to_draw_is_a_plain_error(tmp_path):
  def error(folder):
    with pytest.raises(errors.UserError) as caught:
      run_report.gather(folder)
    return str(caught.value)

  assert 'is not there' in error(tmp_path / 'none')
  assert 'holds no run' in error(tmp_path)
  folder = make_run(tmp_path / 'a')
  assert re.search(r'A report is of one: give \S+/a\.', error(tmp_path))
  (folder / 'metrics.csv').write_text('nonsense\n')
  assert 'metrics.csv can not be read' in error(folder)
  (folder / 'metrics.csv').unlink()
  assert 'has not ended an iteration' in error(folder)


def test_the_command_writes_the_page_and_its_warnings(tmp_path):
  folder = make_run(tmp_path / 'a', iterations=9)
  result = testing.CliRunner().invoke(cli.app, ['report', str(folder)])
  assert result.exit_code == 0, result.exception
  assert 'Warning: The run is not finished' in result.output
  assert f'Written: {folder}/report.html' in result.output
  assert (folder / 'report.html').stat().st_size > 10_000


def test_an_unwritable_place_is_a_plain_error(tmp_path):
  folder = make_run(tmp_path / 'a')
  with pytest.raises(errors.UserError, match='can not be made a folder'):
    html_report.write(folder, folder / 'metrics.csv' / 'report.html')


def test_nothing_that_a_run_names_is_imported(tmp_path):
  folder = make_run(tmp_path / 'a', imports='import antigravity_of_a_stranger')
  (tmp_path / 'antigravity_of_a_stranger.py').write_text('raise SystemExit(3)')
  result = testing.CliRunner().invoke(cli.app, ['report', str(folder)])
  assert result.exit_code == 0
  assert 'antigravity_of_a_stranger' not in sys.modules


@pytest.fixture(scope='module')
def page(tmp_path_factory):
  if browser.COMMAND is None:
    pytest.skip('there is no chromium to open the page with')
  with browser.start(tmp_path_factory.mktemp('profile')) as opened:
    yield opened


@pytest.fixture
def file(tmp_path):
  folder = make_run(tmp_path / 'a', iterations=9, events=[started()])
  evaluation_csv(folder, {0: enumerate([5, 6]), 1: enumerate([5, 9])})
  html_report.write(folder, folder / 'report.html')
  return folder / 'report.html'


@pytest.mark.parametrize('dark', [False, True])
@pytest.mark.parametrize('width', [390, 1280])
def test_a_browser_shows_it_without_complaint(page, file, width, dark):
  page.open(file, width, dark)
  assert page.complaints() == []
  assert {url.partition(':')[0] for url in page.fetched()} <= {'file', 'data'}
  assert len([u for u in page.fetched() if u.startswith('file:')]) == 1
  # Nothing sticks out at the side, and all that is drawn has a size.
  assert page.evaluate('document.documentElement.scrollWidth') <= width
  heights = page.evaluate(
    "[...document.querySelectorAll('section, .tile, svg')]"
    '.filter(e => e.checkVisibility())'
    '.map(e => e.getBoundingClientRect().height)'
  )
  assert len(heights) >= 10
  assert min(heights) > 50
  ground = page.evaluate('getComputedStyle(document.body).backgroundColor')
  ink = page.evaluate('getComputedStyle(document.body).color')
  lightness = [sum(map(int, re.findall(r'\d+', c))) for c in (ground, ink)]
  assert (lightness[0] < lightness[1]) == dark


def test_in_a_browser_the_configuration_unfolds_and_is_copied(page, file):
  page.open(file)
  last = "[...document.querySelectorAll('details')].at(-1)"
  shown = f"{last}.querySelector('code').checkVisibility()"
  assert page.evaluate(f'{last}.open') is False
  assert page.evaluate(shown) is False
  page.evaluate(f"{last}.querySelector('summary').click()")
  assert page.evaluate(f'{last}.open') is True
  assert page.evaluate(shown) is True
  button = f"{last}.querySelector('button.copy')"
  page.evaluate(f'{button}.click()')
  page.evaluate('new Promise(done => setTimeout(done, 300))')
  assert page.evaluate(f'{button}.textContent') == 'Copied'
  assert page.complaints() == []


def test_in_a_browser_the_policy_stops_a_stranger(page, file, tmp_path):
  """So what the assertions above look at would show a fetch or a script."""
  text = file.read_text()
  bad = tmp_path / 'bad.html'
  bad.write_text(
    text.replace(
      '</main>', '<script>alert(1)</script><img src="https://a.test/x"></main>'
    )
  )
  page.open(bad)
  said = json.dumps(page.complaints())
  assert 'script-src' in said
  assert 'img-src' in said
