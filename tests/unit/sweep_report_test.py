"""A sweep as a page: what has come of it, what matters, what to run next."""

import json
import math
import pathlib
import shlex

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest
from scipy import stats
import typer
from typer import testing

from dopamine_jax import errors
from dopamine_jax.commands import cli
from dopamine_jax.sweeps import findings
from dopamine_jax.sweeps import journal as journal_lib
from dopamine_jax.sweeps import lineage
from dopamine_jax.sweeps import lines
from dopamine_jax.sweeps import next_steps
from dopamine_jax.sweeps import outcome as outcome_lib
from dopamine_jax.sweeps import pictures
from dopamine_jax.sweeps import plan
from dopamine_jax.sweeps import report
from dopamine_jax.sweeps import spaces
from dopamine_jax.sweeps import study as study_lib
from tests import pages

METRIC = 'Eval/AverageReturns'
SPACE = ('optax.adam.learning_rate = log_uniform(1e-4, 1e-2)',)


@pytest.fixture(autouse=True)
def working_folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)


def make_study(**changes):
  fields = {
    'files': ('dqn_cartpole',),
    'bindings': ('runner.Runner.num_iterations = 3',),
    'space': SPACE,
    'search': 'random',
    'trials': 4,
    'scheduler': 'asha',
    'training_steps': 1_000,
    'rungs': (1, 3),
    'reduction': 3,
    'metric': METRIC,
    'last': 1,
    'seed': 0,
    'num_seeds': 2,
    'search_seed': 0,
    'pack': 4,
    'ahead': 2,
    'record': '',
  }
  return study_lib.Study(**(fields | changes))


def make_sweep(trials, ends=(), study=None, more=(), folder='s'):
  """Writes a sweep.

  Args:
    trials: settings, scores [rungs, S], and of a fork its parent and its rung.
    ends: events of trials that ended.
    study: its definition.
    more: events besides.
    folder: where.
  """
  folder = pathlib.Path(folder)
  folder.mkdir()
  study = study or make_study(trials=len(trials))
  study.write(folder)
  records = []
  for number, (settings, scores, *fork) in enumerate(trials):
    parent, rung = fork or (None, -1)
    name = f'{number:04}'
    trial = plan.Trial(number, name, settings, 0, parent, rung)
    records.append(trial.record())
    for i, each in enumerate(scores, max(rung, 0)):
      records.append(plan.entered(number, i))
      records.append(
        {'event': 'result', 'trial': number, 'rung': i, 'scores': list(each)}
      )
    make_run(folder / name, study, scores)
  journal_lib.Journal(folder).append([*records, *ends, *more])
  return folder


def make_run(folder, study, scores):
  folder.mkdir()
  (folder / 'config.gin').write_text(
    'runner.Runner.agent = @dqn.DQN\n'
    'runner.Runner.environment = @gym.Gym()\n'
    "gym.Gym.id = 'CartPole-v1'\n"
  )
  rows = ['seed,iteration,agent_steps,wall_time,name,value']
  for iteration, each in zip(study.rungs, scores, strict=False):
    steps = iteration * study.training_steps
    for seed, score in enumerate(each):
      if score is not None:
        rows.append(f'{seed},{iteration},{steps},0.0,{study.metric},{score}')
  (folder / 'metrics.csv').write_text('\n'.join(rows) + '\n')


def rate(value):
  return {'optax.adam.learning_rate': value}


def stopped(trial, rung, why='too low'):
  return {'event': 'stopped', 'trial': trial, 'rung': rung, 'why': why}


def small():
  """Three trials, of which one stops at the first rung, and one that failed."""
  return make_sweep(
    [
      (rate(0.001), [[1, 3], [10, 20]]),
      (rate(0.002), [[4, 6]]),
      (rate(0.003), [[2, 4], [30, 40]]),
      (rate(0.004), []),
    ],
    [
      stopped(1, 0),
      {'event': 'given_up', 'trial': 3, 'why': 'it is <b>nan</b>'},
    ],
  )


def population():
  """Trial 2 goes on from trial 0 in the place of 1, and 3 from 2 likewise."""
  study = make_study(scheduler='pbt', trials=2, rungs=(1, 2, 3))
  return make_sweep(
    [
      (rate(0.001), [[5, 5], [6, 6]]),
      (rate(0.002), [[1, 1]]),
      (rate(0.003), [[5, 5], [8, 8], [9, 9]], 0, 0),
      (rate(0.004), [[8, 8], [7, 7]], 2, 1),
    ],
    [stopped(1, 0), stopped(0, 1)],
    study,
  )


def words(folder):
  parser = pages.Parser(report.page(outcome_lib.gather(folder)))
  assert not parser.open
  return ' '.join(' '.join(parser.text).split())


# What has come of it.


def test_trials_are_ranked_by_how_far_they_went_then_by_their_score():
  outcome = outcome_lib.gather(small())
  assert [x.number for x in outcome.trials] == [2, 0, 1]
  assert [x.number for x in outcome.others] == [3]
  best, _, last = outcome.trials
  assert (best.mean, best.steps, best.end) == (35, 3_000, 'finished')
  assert (last.mean, last.steps, last.end, last.why) == (
    *(5, 1_000, 'stopped', 'too low'),
  )
  assert outcome.agent_steps == 2 * (3_000 + 3_000 + 1_000)
  assert (outcome.agent, outcome.game) == ('DQN', 'CartPole-v1')
  assert outcome.is_complete
  # Of two seeds 84% may end elsewhere: from 35 down to where training began, 2.
  share = 1 - 0.025**0.5
  low = min(35 - share * (35 - 2), 35 - 12.7062 * 5)
  assert best.interval.low == pytest.approx(low, rel=1e-4)


def test_what_a_trial_took_over_is_not_counted_as_trained_again():
  # Trials 0 and 1 trained 2,000 and 1,000 steps, 2 from 1,000 to 3,000 and 3
  # from 2,000 to 3,000.
  outcome = outcome_lib.gather(population())
  assert outcome.agent_steps == 2 * (2_000 + 1_000 + 2_000 + 1_000)


def test_a_sweep_that_still_runs_is_not_complete():
  pack = plan.Pack('1.0', 1, (0,))
  folder = make_sweep(
    [(rate(0.001), [[1, 2]]), (rate(0.002), [[1, 2]])],
    more=[plan.entered(0, 1), pack.record()],
  )
  outcome = outcome_lib.gather(folder)
  assert not outcome.is_complete
  assert outcome.trials[0].end == 'not finished'
  text = words(folder)
  assert 'Not finished, 1 pack to train' in text
  assert 'dopamine-jax sweep resume s' in text


@pytest.mark.parametrize(
  'event',
  [
    {'event': 'result', 'trial': 9, 'rung': 0, 'scores': [1, 2]},
    {'event': 'result', 'trial': 0, 'rung': 7, 'scores': [1, 2]},
    {'event': 'result', 'trial': 0, 'rung': 0, 'scores': [1, 2, 3]},
    {'event': 'result', 'trial': 0, 'rung': 0, 'scores': [1e200, 1]},
    {'event': 'result', 'trial': 0, 'rung': 0, 'scores': 'x'},
    {'event': 'entered', 'trial': 'x', 'rung': 0},
    {'event': 'stopped', 'trial': [], 'rung': 0},
    plan.Trial(1, '../x', {}, 0).record(),
    plan.Trial(1, '..', {}, 0).record(),
    plan.Trial(1, '/etc', {}, 0).record(),
    plan.Trial(1, 'a', [], 0).record(),
    plan.Trial(1, 'a', {}, 0, 5).record(),
    plan.Trial(1, 'a', {}, 0, 0, 9).record(),
    plan.Trial(7, 'a', {}, 0).record(),
  ],
)
def test_a_journal_that_no_sweep_wrote_is_refused(event):
  folder = make_sweep([(rate(0.001), [[1, 2]])], more=[event])
  with pytest.raises(errors.UserError, match='can not be read'):
    outcome_lib.gather(folder)


@pytest.mark.parametrize(
  'change',
  [
    *({'rungs': []}, {'rungs': [3, 1]}, {'rungs': ['1']}, {'rungs': [0]}),
    *({'num_seeds': 0}, {'metric': 5}, {'training_steps': '1'}),
    *({'files': [1]}, {'space': ['x']}, {'trials': None}),
  ],
)
def test_a_definition_that_no_sweep_wrote_is_refused(change):
  folder = small()
  fields = json.loads((folder / 'sweep.json').read_text())
  (folder / 'sweep.json').write_text(json.dumps(fields | change))
  with pytest.raises(errors.UserError):
    outcome_lib.gather(folder)


def test_without_a_result_there_is_no_page():
  folder = make_sweep([(rate(0.001), [])])
  with pytest.raises(errors.UserError, match='no trial has reached a rung'):
    outcome_lib.gather(folder)


def test_a_run_whose_numbers_are_gone_is_told_and_still_ranked():
  folder = small()
  (folder / '0002/metrics.csv').write_text('x\n')
  outcome = outcome_lib.gather(folder)
  assert 'metrics.csv can not be read' in outcome.warnings[0]
  assert outcome.trials[0].number == 2
  assert 'What to know first' in words(folder)


# Which settings matter.


def test_the_statistic_is_that_of_kruskal_and_wallis():
  # By hand: of the ranks 1 to 6 the mean is 3.5 and the variance 3.5. Sums of
  # the classes from it: -4.5 and 4.5, squared and by their size 6.75 each.
  h, p = findings.kruskal(np.arange(1.0, 7), np.array([0, 0, 0, 1, 1, 1]))
  assert h == pytest.approx(2 * 6.75 / 3.5)
  # Of 20 ways to choose three of six, two are as extreme.
  assert p == pytest.approx(0.1, abs=0.01)


@hypothesis.settings(max_examples=15)
@hypothesis.given(
  st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 2)), min_size=6, max_size=12
  )
)
def test_it_agrees_with_scipy_also_where_ranks_are_equal(pairs):
  scores, classes = map(np.array, zip(*pairs, strict=True))
  _, classes = np.unique(classes, return_inverse=True)
  hypothesis.assume(len(set(scores)) > 1 and classes.max())
  h, p = findings.kruskal(stats.rankdata(scores), classes)
  groups = [scores[classes == i] for i in range(classes.max() + 1)]
  assert h == pytest.approx(stats.kruskal(*groups).statistic)
  assert 0 < p <= 1


def test_scores_that_are_all_equal_say_nothing():
  assert findings.kruskal(np.ones(6), np.array([0, 1] * 3)) == (0, 1)


def test_p_values_that_hold_together():
  # Sorted 0.01, 0.02, 0.03: times 3, 2 and 1; none is below one before it.
  assert findings.holm([0.03, math.nan, 0.01, 0.02]) == pytest.approx(
    [0.04, math.nan, 0.03, 0.04], nan_ok=True
  )
  assert findings.holm([0.9, 0.8]) == [1, 1]


def humped(count=18):
  """Trials that are best in the middle of one setting; another is nothing."""
  space = ('a.A.x = uniform(0.0, 1.0)', 'a.A.y = [1, 2]')
  study = make_study(trials=count, space=space, scheduler='none', rungs=(1,))
  trials = []
  for i in range(count):
    x = (i + 0.5) / count
    settings = {'a.A.x': x, 'a.A.y': 1 + i % 2}
    score = round(100 - 100 * abs(x - 0.5), 6)
    trials.append((settings, [[score, score + 1]]))
  return make_sweep(trials, study=study)


def test_a_best_value_in_the_middle_is_found():
  x, y = findings.of(outcome_lib.gather(humped()))
  assert x.setting == 'a.A.x'
  assert x.matters and not y.matters
  assert [each.trials for each in x.classes] == [6, 6, 6]
  # Ranks 1 to 6 lie in the middle, and each two of 7 to 18 at both sides.
  assert [each.rank for each in x.classes] == pytest.approx([12.5, 3.5, 12.5])
  assert x.best is x.classes[1]
  text = words(pathlib.Path('s'))
  assert 'x matters (p = 0.00' in text
  assert 'Of y no influence is seen' in text


def test_too_few_trials_tell_nothing():
  assert not any(x.is_known for x in findings.of(outcome_lib.gather(small())))
  assert '3 trials are too few to tell which setting matters' in words(
    pathlib.Path('s')
  )


def test_of_a_population_only_those_that_began_anew_are_asked():
  (finding,) = findings.of(outcome_lib.gather(population()))
  assert finding.trials == 2
  assert [x.score for x in finding.classes] == [5, 1]


# What to run next.


@pytest.mark.parametrize(
  ('text', 'side', 'expected'),
  [
    ('log_uniform(1e-4, 1e-2)', 'low', 'log_uniform(1e-05, 0.01)'),
    ('log_uniform(1e-4, 1e-2)', 'high', 'log_uniform(0.0001, 0.1)'),
    ('log_uniform(1e-4, 0.5)', 'high', 'log_uniform(0.0001, 1.0)'),
    ('uniform(0.9, 0.99)', 'high', 'uniform(0.9, 0.999)'),
    ('uniform(0.0, 1.0)', 'high', None),
    ('uniform(0.0, 1.0)', 'low', None),
    ('uniform(2.0, 4.0)', 'low', 'uniform(1.0, 4.0)'),
    ('uniform(2.0, 4.0)', 'high', 'uniform(2.0, 5.0)'),
    ('integers(1, 8)', 'low', None),
    ('integers(4, 8)', 'low', 'integers(2, 8)'),
    ('log_integers(4, 8)', 'high', 'log_integers(4, 16)'),
  ],
)
def test_a_range_grows_where_the_best_lie(text, side, expected):
  (dimension,) = spaces.parse([f'a.A.x = {text}'])
  wider = next_steps._wider(dimension.domain, side == 'low')
  line = wider and lines.written(dimension, wider)
  assert line == (expected and f'a.A.x = {expected}')


@pytest.mark.parametrize(
  ('values', 'best', 'expected'),
  [
    ((1, 3, 9), [9, 9, 3], (1, 3, 9, 27)),
    ((1, 3, 9), [9, 3, 3], None),
    ((1, 3, 9), [3, 3, 3], None),
    ((1, 3, 9), [1, 1, 1], None),
    ((1e-2, 1e-3, 1e-4), [1e-4, 1e-4], (1e-5, 1e-2, 1e-3, 1e-4)),
    ((0.9, 0.99, 0.999), [0.999], (0.9, 0.99, 0.999, 0.9999)),
    ((1, 3), [3, 3], None),
    (('a', 'b', 'c'), ['c'], None),
  ],
)
def test_a_list_grows_where_the_best_lie(values, best, expected):
  found = next_steps._longer(spaces.Choice(values), best)
  assert (found and found[1].values) == expected


def test_best_values_at_an_end_ask_for_a_wider_sweep():
  trials = [(rate(1e-2 / 1.5**i), [[50 - i, 51 - i]] * 2) for i in range(8)]
  outcome = outcome_lib.gather(make_sweep(trials))
  (step,) = next_steps.of(outcome, findings.of(outcome), [])
  assert 'The best values of learning_rate lie at the upper end' in step.why
  assert 'learning_rate = log_uniform(0.0001, 0.1)' in step.commands[0]


def test_a_setting_without_influence_is_fixed_where_enough_trials_show_it():
  outcome = outcome_lib.gather(humped(32))
  (step,) = next_steps.of(outcome, findings.of(outcome), [])
  assert "-b 'a.A.y = " in step.commands[0]
  assert 'a.A.y = [' not in step.commands[0]
  assert 'No influence of y can be seen: fix it at' in step.why


def test_trials_that_are_alike_are_trained_with_seeds_that_are_new():
  outcome = outcome_lib.gather(small())
  best = report.compared(outcome)
  assert [x.number for x in best.same] == [0]
  step, *_ = next_steps.of(outcome, findings.of(outcome), best.same)
  *trainings, comparison = step.commands
  assert len(trainings) == 2
  assert all('--seed 2 --num_seeds 5' in each for each in trainings)
  assert comparison == (
    f'dopamine-jax compare s-seeds --metric {METRIC} --last 1'
  )


# Commands.


def parsed(command):
  """Returns what the command line makes of a command, without running it."""
  program, *arguments = shlex.split(command)
  assert program == 'dopamine-jax'
  group = typer.main.get_command(cli.app)
  name = arguments.pop(0)
  found = group.commands[name]
  if name == 'sweep':
    sub = arguments.pop(0) if arguments[0] in found.commands else 'start'
    found = found.commands[sub]
  return found.make_context(name, arguments).params


@pytest.mark.parametrize(
  'changes',
  [
    {},
    {'scheduler': 'none', 'rungs': (3,)},
    {'scheduler': 'pbt', 'seed': 7, 'search_seed': 3},
    {'search': 'grid', 'space': ("a.A.x = ['it is', None, (1, 2)]",)},
    {
      'space': (
        'a.A.x = [1, 2]',
        'a.A.y = log_integers(1, 8) when a.A.x = [1]',
      )
    },
  ],
)
def test_the_command_of_a_sweep_is_that_sweep(changes):
  study = make_study(**changes)
  given = parsed(lines.sweep(study, study.space, 'x y'))
  assert spaces.parse(given['vary']) == study.dimensions
  written = [lines.written(each) for each in study.dimensions]
  assert spaces.parse(written) == study.dimensions
  for name in ('search', 'scheduler', 'metric', 'last', 'seed', 'num_seeds'):
    assert given[name] == getattr(study, name)
  assert given['search_seed'] == study.search_seed
  assert given['trials'] == (None if study.search == 'grid' else study.trials)
  steps = None if study.scheduler == 'none' else 1_000
  assert given['rung_steps'] == steps
  assert given['gin_bindings'] == [*study.bindings]
  assert given['base_dir'] == pathlib.Path('x y')


def test_each_command_of_a_page_can_be_parsed():
  for make in (humped, population, small):
    folder = make()
    parser = pages.Parser(report.page(outcome_lib.gather(folder)))
    commands = [
      line
      for text in parser.text
      for line in text.splitlines()
      if line.startswith('dopamine-jax ')
    ]
    assert len(commands) >= 3
    for each in commands:
      parsed(each)
    folder.rename(f'old-{make.__name__}')


# Pictures.


def test_a_fork_has_the_place_of_the_trial_that_it_replaces():
  outcome = outcome_lib.gather(population())
  assert lineage.rows(outcome) == {0: 0, 1: 1, 2: 1, 3: 0}
  assert lineage.ancestors(outcome, 3) == [3, 2, 0]
  text = words(pathlib.Path('s'))
  assert 'A population of 2; 2 trials went on from others' in text


def test_a_fork_without_a_free_place_has_a_new_one():
  study = make_study(scheduler='pbt', trials=1, rungs=(1, 2))
  trials = [(rate(0.001), [[1, 1]]), (rate(0.002), [[1, 1]], 0, 0)]
  outcome = outcome_lib.gather(make_sweep(trials, study=study))
  assert lineage.rows(outcome) == {0: 0, 1: 1}


@pytest.mark.parametrize(
  ('low', 'high', 'expected'),
  [
    (1e-4, 1e-2, [1e-4, 1e-3, 1e-2]),
    (1e-4, 1e-3, [1e-4, 3e-4, 1e-3]),
    (16, 256, [20, 50, 100, 200]),
    (0.02, 0.03, [0.02, 0.03]),
  ],
)
def test_an_axis_of_logarithms_has_round_numbers(low, high, expected):
  assert pictures._of_log(low, high) == expected


def test_values_lie_where_their_domain_has_them():
  (log, choice) = spaces.parse(
    ['a.A.x = log_uniform(1e-4, 1e-2)', "a.A.y = [None, 'b', (1, 2)]"]
  )
  assert pictures.Axis(log.domain, []).place(1e-3) == pytest.approx(0.5)
  axis = pictures.Axis(choice.domain, [None, 'b', [1, 2]])
  assert axis.count == 3
  assert axis.place([1, 2]) == pytest.approx(5 / 6)
  assert [word for _, word in axis.ticks()] == ['None', 'b', '(1, 2)']


def test_colours_go_from_the_lowest_score_to_the_highest():
  scores = np.array([0.0, 5, 10, np.nan])
  assert [pictures.colour(x, scores) for x in scores] == [0, 5, 9, 0]
  assert pictures.colour(1.0, np.array([1.0])) == 9


# The page.


def test_the_page_says_what_came_of_it():
  text = words(small())
  assert 'DQN on CartPole-v1' in text
  assert '0002 is best: 35.0 [' in text
  assert 'Finished' in text
  assert '2 seeds each, 1 stopped early, 1 given up' in text
  assert '14,000' in text
  assert 'optax.adam.learning_rate = 0.003' in text
  assert 'stopped: too low' in text
  assert 'it is <b>nan</b>' in text  # as text: escaped in the page
  assert '<b>nan' not in report.page(outcome_lib.gather(pathlib.Path('s')))


def test_what_strangers_wrote_stays_text():
  bad = '<script>alert(1)</script>'
  study = make_study(
    files=(bad,), space=(f'a.A.x = [{bad!r}, 2]',), metric=bad, trials=1
  )
  folder = make_sweep(
    [({'a.A.x': bad, bad: bad}, [[1, 2]] * 2)],
    [stopped(0, 0, bad)],
    study,
    [{'event': 'failed', 'pack': bad, 'attempt': 1, 'why': bad}],
  )
  parser = pages.Parser(report.page(outcome_lib.gather(folder)))
  assert [tag for tag, _ in parser.elements].count('script') == 1
  assert not any(
    name.startswith('on') or str(value).startswith('http')
    for tag, attributes in parser.elements
    for name, value in attributes.items()
    if name != 'xmlns'
  )


@pytest.mark.parametrize(
  ('seeds', 'trials'),
  [
    (1, [(rate(0.001), [[5]])]),
    (1, [(rate(0.001), [[5]]), (rate(0.002), [[5]])]),
    (2, [(rate(0.001), [[None, None]]), (rate(0.002), [[None, 3]])]),
    (2, [(rate(0.001), [[0, 0], [0, 0]])] * 3),
    (2, [({}, [[1, 2]]), (rate(0.001), [[2, 3]])]),
  ],
)
def test_there_is_a_page_of_whatever_there_is(seeds, trials):
  study = make_study(num_seeds=seeds, trials=len(trials))
  assert 'Sweep report' in words(make_sweep(trials, study=study))


def test_there_is_a_page_where_all_have_failed():
  ends = [{'event': 'given_up', 'trial': 0, 'why': 'nan'}]
  text = words(make_sweep([(rate(0.001), [])], ends))
  assert 'No trial has a score yet' in text
  assert '1 trial failed each time' in text


def test_both_commands_write_the_same_page():
  folder = small()
  runner = testing.CliRunner()
  result = runner.invoke(cli.app, ['sweep', 'report', str(folder)])
  assert result.output.endswith('Written: s/report.html\n'), result.output
  result = runner.invoke(cli.app, ['report', str(folder), '--out', 'o/x.html'])
  assert result.output.endswith('Written: o/x.html\n'), result.output
  page = pathlib.Path('s/report.html').read_text()
  assert pathlib.Path('o/x.html').read_text() == page
  result = runner.invoke(cli.app, ['report', str(folder), '--video'])
  assert 'is a sweep, of which no agent is filmed' in result.output
