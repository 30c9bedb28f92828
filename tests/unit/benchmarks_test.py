import dataclasses
import json
import re

import gymnasium
import optax
import pytest

from benchmarks import clock
from benchmarks import environments
from benchmarks import jobs
from benchmarks import ours
from benchmarks import products
from benchmarks import rounds
from benchmarks import table
from dopamine_jax import config
from dopamine_jax import errors
from dopamine_jax import runner
from dopamine_jax.learning import optimization

A = jobs.JOBS['A']


def reported(job=A, **changes):
  """What a process that has just the job's hyper-parameters writes."""
  found = dataclasses.asdict(job.hyperparameters)
  steps = job.warmup + jobs.WINDOWS * job.window
  found['updates'] = int(job.hyperparameters.updates(steps))
  return json.loads(json.dumps(found | changes))


def test_equal_hyperparameters_are_accepted():
  rounds.refuse_differences(A, 'sb3', reported())
  # Read from an optimizer's step, in float32; in a framework's own order.
  rounds.refuse_differences(
    A,
    'sbx',
    reported(
      learning_rate=0.00099999, kernels=[[512, 2], [4, 512], [512, 512]]
    ),
  )


@pytest.mark.parametrize(
  ('name', 'value'),
  [
    ('kernels', [[4, 512], [512, 256], [256, 2]]),
    ('batch_size', 64),
    ('update_period', 1),
    ('buffer_size', 10_000),
    ('target_update_period', 10_000),
    ('gamma', 0.999),
    ('learning_rate', 1.002e-3),
    ('adam_epsilon', 1e-5),
    ('epsilon', 1.0),
    ('min_history', 100),
    ('num_envs', 4),
    ('frame_skip', 4),
    ('stack', 4),
    ('sticky_actions', 0.25),
    ('updates', 500),
  ],
)
def test_a_hyperparameter_that_differs_is_refused(name, value):
  with pytest.raises(errors.UserError, match=rf'sb3 .*{name}'):
    rounds.refuse_differences(A, 'sb3', reported(**{name: value}))


def test_a_hyperparameter_that_is_not_reported_is_refused():
  for name in reported():
    found = reported()
    del found[name]
    with pytest.raises(errors.UserError, match=name):
      rounds.refuse_differences(A, 'sb3', found)


def test_each_hyperparameter_has_a_case_above():
  marks = test_a_hyperparameter_that_differs_is_refused.pytestmark
  cases = {name for name, _ in marks[0].args[1]}
  assert cases == reported().keys()


@pytest.mark.parametrize(
  ('name', 'value'),
  [
    ('agent', 'rainbow'),
    ('n_step', 1),
    ('num_atoms', 1),
    ('v_max', 20.0),
    ('alpha', 0.5),
    ('prioritized', False),
    ('noisy', False),
    ('dueling', False),
    ('double', False),
  ],
)
def test_a_rainbow_that_differs_is_refused(name, value):
  full = jobs.JOBS['C-full-rainbow']
  assert not jobs.differences(full, reported(full))
  (difference,) = jobs.differences(full, reported(full, **{name: value}))
  assert difference.startswith(name)


@pytest.mark.parametrize(
  ('name', 'value'),
  [
    ('kernels', [[4, 64], [64, 64], [64, 2], [4, 64], [64, 1]]),
    ('batch_size', 64),
    ('rollout', 2_048),
    ('num_epochs', 10),
    ('gae_lambda', 1.0),
    ('clip', 0.1),
    ('value_clip', 0.2),
    ('value_weight', 0.25),
    ('entropy_weight', 0.0),
    ('max_norm', 10.0),
  ],
)
def test_a_ppo_that_differs_is_refused(name, value):
  ppo = jobs.JOBS['D']
  assert not jobs.differences(ppo, reported(ppo))
  (difference,) = jobs.differences(ppo, reported(ppo, **{name: value}))
  assert difference.startswith(name)


@pytest.mark.parametrize(
  ('name', 'value'),
  [
    ('environment', 'Pendulum-v0'),
    # One critic; means without deviations.
    (
      'kernels',
      [[3, 256], [256, 256], [256, 2], [4, 256], [256, 256], [256, 1]],
    ),
    (
      'kernels',
      [[3, 256], [256, 256], [256, 1], *[[4, 256], [256, 256], [256, 1]] * 2],
    ),
    ('batch_size', 100),
    ('update_period', 2),
    ('buffer_size', 1_000_000),
    ('min_history', 100),
    ('learning_rate', 1e-3),
    ('critic_learning_rate', 1e-3),
    ('temperature_learning_rate', 1e-3),
    ('tau', 0.01),
    ('target_entropy', -0.5),
    ('learns_temperature', False),
    ('updates', 1_500),
  ],
)
def test_a_sac_that_differs_is_refused(name, value):
  sac = jobs.JOBS['E']
  assert not jobs.differences(sac, reported(sac))
  (difference,) = jobs.differences(sac, reported(sac, **{name: value}))
  assert difference.startswith(name)


@pytest.mark.parametrize(
  ('name', 'needs'), [('E', 'gymnasium'), ('E-cheetah', 'mujoco')]
)
def test_a_job_of_sac_fits_its_environment(name, needs):
  pytest.importorskip(needs)
  expected = jobs.JOBS[name].hyperparameters
  environment = gymnasium.make(expected.environment)
  (observation,) = environment.observation_space.shape
  (action,) = environment.action_space.shape
  assert expected.kernels == (
    *((observation, 256), (256, 256), (256, 2 * action)),
    *((observation + action, 256), (256, 256), (256, 1)) * 2,
  )
  assert expected.hidden == (256, 256)
  assert expected.target_entropy == -action  # the paper's, in nats


def test_sacs_three_optimizers_are_reported_as_one_each():
  def adam(rate, epsilon=1e-8):
    return {'learning_rate': rate, 'adam_epsilon': epsilon}

  assert clock.three_adams(adam(1e-3), adam(2e-3), adam(3e-3)) == {
    'learning_rate': 1e-3,
    'critic_learning_rate': 2e-3,
    'temperature_learning_rate': 3e-3,
    'adam_epsilon': 1e-8,
  }
  with pytest.raises(ValueError, match='epsilons'):
    clock.three_adams(adam(1e-3), adam(1e-3), adam(1e-3, 1e-5))


def test_two_heads_of_a_policy_count_as_one():
  kernels = [(17, 64), (64, 32), (32, 6), (32, 6)]
  assert clock.with_one_head(kernels) == [(17, 64), (64, 32), (32, 12)]
  with pytest.raises(ValueError, match='two heads'):
    clock.with_one_head([(17, 64), (64, 6)])


def test_how_many_updates_belong_to_so_many_steps():
  # One in four steps after 500; 16 gradient steps after each 1,024.
  assert A.hyperparameters.updates(1_500) == 250
  assert A.hyperparameters.updates(100) == 0
  sac = jobs.JOBS['E'].hyperparameters
  assert [sac.updates(steps) for steps in (100, 500, 501, 3_500)] == [
    0, 0, 1, 3_000,
  ]  # fmt: skip
  ppo = jobs.JOBS['D'].hyperparameters
  assert [ppo.updates(steps) for steps in (1_023, 1_024, 3_000)] == [0, 16, 32]


def test_adam_is_read_from_what_it_does():
  expected = jobs.JOBS['D'].hyperparameters
  optimizer = optimization.clipped(optax.adam(3e-4, eps=1e-5), max_norm=0.5)
  assert clock.adam_of(optimizer, expected) == pytest.approx(
    {'learning_rate': 3e-4, 'adam_epsilon': 1e-5}, rel=1e-4
  )
  assert clock.max_norm_of(optimizer) == pytest.approx(0.5)
  other = optimization.clipped(optax.adam(1e-3, eps=2e-5), max_norm=2.0)
  assert clock.adam_of(other, expected) == pytest.approx(
    {'learning_rate': 1e-3, 'adam_epsilon': 2e-5}, rel=1e-4
  )
  assert clock.max_norm_of(other) == pytest.approx(2.0)


def cells(line):
  return [cell.strip() for cell in line.strip('|').split('|')]


JOB = jobs.Job(
  'Z: nothing',
  'agent steps/s',
  (jobs.Contestant('ours', 'ours'), jobs.Contestant('sb3', 'peers.sb3')),
  (
    jobs.Comparison('ours', 'sb3', at_least=2.5),
    jobs.Comparison('ours', at_most=1_000.0),
    jobs.Comparison('ours', 'absent', at_least=1.0),
  ),
)
ROWS = {
  'ours': table.Row([[100.0, 300.0, 200.0], [900.0, 900.0, 900.0]], 2**30, 0.1),
  'sb3': table.Row([[100.0, 100.0, 100.0], [300.0, 300.0, 900.0]], 10**9, 0.0),
}


def test_a_section_shows_medians_ranges_and_ratios():
  text = table.section(JOB, ROWS, {'b': '2', 'a': '1'}, 'today, a machine')
  assert text.startswith('## Z: nothing\n\ntoday, a machine; 2 rounds.\n')
  assert text.endswith('\nVersions: a 1, b 2.\n')
  lines = [line for line in text.splitlines() if line.startswith('|')]
  # The median of six windows; 600 = (300 + 900) / 2.
  assert cells(lines[2]) == ['ours', '600', '100 to 900', '1.07', '10%']
  assert cells(lines[3]) == ['sb3', '200', '100 to 900', '1.00', '0%']
  # Round by round: 200 / 100 and 900 / 300, whose median is 2.5.
  assert cells(lines[6]) == [
    'ours / sb3', '2.50', '2.00 to 3.00', '>= 2.50', 'yes',
  ]  # fmt: skip
  assert cells(lines[7]) == ['ours', '550', '200 to 900', '<= 1,000', 'yes']
  assert len(lines) == 8  # nothing about a row that was not run


@pytest.mark.parametrize(
  ('comparison', 'reached'),
  [
    (jobs.Comparison('ours', 'sb3', at_least=2.6), 'no'),
    (jobs.Comparison('ours', at_most=549.0), 'no'),
    (jobs.Comparison('ours', at_least=550.0), 'yes'),
    (jobs.Comparison('sb3', 'ours'), ''),
  ],
)
def test_a_target_is_reached_or_not(comparison, reached):
  job = dataclasses.replace(JOB, comparisons=(comparison,))
  text = table.section(job, ROWS, {}, '')
  (line,) = re.findall(r'^\|.*\|$', text, re.MULTILINE)[-1:]
  assert cells(line)[-1] == reached


def test_a_run_replaces_the_sections_of_its_jobs_only(tmp_path):
  path = tmp_path / 'results.md'
  first = f'## {A.title}\n\nold\n'
  second = f'## {jobs.JOBS["replay"].title}\n\nkept\n\n| a |\n'
  table.write(path, {'replay': second})
  table.write(path, {'A': first})
  table.write(path, {'A': first.replace('old', 'new')})
  text = path.read_text()
  assert 'old' not in text
  # In the order of the jobs, after the head.
  assert text.startswith('# Results\n')
  assert text.endswith(f'{first.replace("old", "new")}\n{second}')


def test_the_clock_leaves_the_warm_up_out(monkeypatch):
  now = iter([10.0, 12.0, 13.0, 17.0, 21.0, 31.0])
  monkeypatch.setattr(clock.time, 'perf_counter', lambda: next(now))
  watch = clock.Clock(dataclasses.replace(JOB, warmup=3, window=20))
  for _ in range(3 + 5 * 20 - 1):
    watch.tick()
  with pytest.raises(clock.Finished):
    watch.tick()
  assert watch.rates == [10.0, 20.0, 5.0, 5.0, 2.0]


def test_the_clock_counts_the_steps_of_all_environments(monkeypatch):
  now = iter([10.0, 11.0, 13.0, 14.0, 15.0, 16.0])
  monkeypatch.setattr(clock.time, 'perf_counter', lambda: next(now))
  watch = clock.Clock(dataclasses.replace(JOB, warmup=4, window=8))
  with pytest.raises(clock.Finished):
    for _ in range(11):
      watch.tick(4)
  assert watch.rates == [8.0, 4.0, 8.0, 8.0, 8.0]


def test_every_peer_has_pins_and_every_comparison_its_rows():
  for job in jobs.JOBS.values():
    peers = {each.peer for each in job.contestants} - {None}
    assert peers <= environments.PINS.keys()
    labels = {each.label for each in job.contestants}
    for each in job.comparisons:
      if job is not jobs.JOBS['replay']:  # whose rows it names itself
        assert {each.row, each.over or each.row} <= labels


def runs_as_the_table_says(job, **arguments):
  rates, found = ours.measure(job, **arguments)
  assert len(rates) == jobs.WINDOWS
  assert min(rates) > 0
  return not jobs.differences(job, json.loads(json.dumps(found)))


@pytest.mark.parametrize('engine', ['PythonEngine', 'CompiledEngine'])
@pytest.mark.parametrize('name', sorted(jobs.FIVE))
def test_a_training_of_five_seeds_takes_all_of_its_bindings(name, engine):
  expected = jobs.FIVE[name].hyperparameters
  loaded = config.load(*ours.configuration(expected, engine))
  built = loaded.build(runner.Runner)
  loaded.refuse_unread(lambda warning: None)
  assert engine in (type(built.engine).__name__, built.engine.__name__)


# Two seeds run in the test of PPO.
@pytest.mark.parametrize(
  'num_seeds', [1, pytest.param(2, marks=pytest.mark.slow)]
)
def test_our_dqn_runs_with_the_hyperparameters_of_the_table(num_seeds):
  job = dataclasses.replace(
    jobs.JOBS['A-small'],
    hyperparameters=dataclasses.replace(
      jobs.JOBS['A-small'].hyperparameters, min_history=100, buffer_size=1_000
    ),
    warmup=120,
    window=40,
  )
  assert runs_as_the_table_says(job, num_seeds=num_seeds)


def test_our_sac_runs_with_the_hyperparameters_of_the_table():
  expected = jobs.JOBS['E'].hyperparameters
  changed = {
    'kernels': tuple(
      tuple(32 if size == 256 else size for size in kernel)
      for kernel in expected.kernels
    ),
    'batch_size': 32,
    'min_history': 40,
    'tau': 0.01,
    'target_entropy': -2.0,
  }
  job = dataclasses.replace(
    jobs.JOBS['E'],
    hyperparameters=dataclasses.replace(expected, **changed),
    warmup=60,
    window=20,
  )
  assert runs_as_the_table_says(job)


@pytest.mark.parametrize(
  'arguments',
  [
    pytest.param({}, marks=pytest.mark.slow),  # as DQN, above
    {'num_seeds': 2, 'engine': 'CompiledEngine'},
  ],
)
def test_our_ppo_runs_with_the_hyperparameters_of_the_table(arguments):
  job = dataclasses.replace(
    jobs.JOBS['D-compiled'],
    hyperparameters=dataclasses.replace(
      jobs.JOBS['D-compiled'].hyperparameters, rollout=32, batch_size=16
    ),
    warmup=40,
    window=32,
  )
  assert runs_as_the_table_says(job, **arguments)


def test_products_are_counted_as_updates_have_them(monkeypatch):
  """By hand: of each kind, layer and network, at a second each."""
  monkeypatch.setattr(products, '_seconds', lambda *given: 1.0)

  def seconds(name):
    job = jobs.JOBS[name]
    return products.measure(job, job.hyperparameters.min_history + 8)[0]

  # Three layers; the first passes no gradient on.
  dqn = 3 * 2 + 2 * 1 + 3 * 1
  assert seconds('five-A-small') == [8 / 4 * dqn]
  sac = (3 * 2 + 2 * 1 + 3 * 1) + 2 * (3 * 3 + 2 * 2 + 3 * 1)
  assert seconds('five-E') == [8 * sac]
  actor = 3 * 1.5 + 2 * 0.5 + 3 * 0.5
  first, second = 3 * 2.5 + 2 * 1.5 + 3, 3 * 2 + 2 * 1 + 3
  assert seconds('five-E-td3') == [8 * (actor + first + second)]
