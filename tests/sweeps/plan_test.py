"""What a sweep does next, and that nothing but results decides it."""

import json
import random
import warnings

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest
from scipy import stats

from dopamine_jax.sweeps import journal
from dopamine_jax.sweeps import plan
from dopamine_jax.sweeps import schedulers
from dopamine_jax.sweeps import searches
from dopamine_jax.sweeps import study as study_lib


def study(**given):
  settings = {
    'files': (),
    'bindings': (),
    'space': ('a.b = uniform(0, 1)', 'a.n = [1, 3]'),
    'search': 'random',
    'trials': 12,
    'scheduler': 'asha',
    'training_steps': 100,
    'rungs': (1, 3, 9),
    'reduction': 3,
    'metric': 'Eval/AverageReturns',
    'last': 1,
    'seed': 0,
    'num_seeds': 3,
    'search_seed': 0,
    'pack': 4,
    'ahead': 2,
    'record': '',
  }
  return study_lib.Study(**{**settings, **given})


def scores_of(trial, rung, seeds):
  """Returns what a trial reaches; by its settings, and chance."""
  rng = np.random.default_rng([trial.number, rung])
  better = trial.settings.get('a.b', 0.5)
  mean = 10 * (rung + 1) * better + trial.settings['a.n']
  return mean + rng.normal(size=seeds)


class Simulation:
  """A sweep of which results come in some order."""

  def __init__(self, one, broken=()):
    self.study = one
    self.broken = set(broken)
    self.records = []
    self.begin()

  def begin(self):
    """Starts a new process, which has the journal alone."""
    self.state = plan.State(self.records, len(self.study.rungs))
    self.search = searches.of(self.study, lambda settings: settings['a.n'])
    self.scheduler = schedulers.of(self.study)
    self.advance()

  def advance(self):
    self.records += plan.advance(
      self.study, self.state, self.search, self.scheduler
    )

  def train(self, pack):
    if self.broken & set(pack.trials):
      new = plan.failed(self.state, pack, 'it is broken')
    else:
      new = [
        {
          'event': 'result',
          'trial': each,
          'rung': pack.rung,
          'scores': scores_of(
            self.state.trials[each], pack.rung, self.study.num_seeds
          ).tolist(),
        }
        for each in pack.trials
      ]
    self.state.take(new)
    self.records += new
    self.advance()

  def run(self, choose):
    while waiting := self.state.waiting():
      self.train(choose(waiting))
    assert plan.is_complete(self.study, self.state)
    return journal.canonical(self.records)


SWEEPS = [
  study(search='tpe', trials=16, pack=3),
  study(search='tpe', trials=10, pack=2, scheduler='none', rungs=(9,)),
  study(),
  study(scheduler='none', rungs=(9,)),
  study(pack=1),
  study(pack=100, reduction=2, rungs=(1, 2, 4, 8)),
  study(num_seeds=1, trials=20),
  study(scheduler='pbt', rungs=(2, 4, 6, 8)),
  study(scheduler='pbt', rungs=(1, 2), pack=2, num_seeds=1),
]


@pytest.mark.parametrize('one', SWEEPS)
@hypothesis.given(
  seed=st.integers(0, 2**32),
  kills=st.floats(0, 1),
  broken=st.sets(st.integers(0, 11)),
)
@hypothesis.settings(max_examples=5)
def test_neither_order_nor_kills_decide_anything(one, seed, kills, broken):
  dice = random.Random(seed)
  other = Simulation(one, broken)

  def choose(waiting):
    if dice.random() < kills:
      other.begin()
    return dice.choice(waiting)

  in_order = Simulation(one, broken).run(lambda waiting: waiting[0])
  assert other.run(choose) == in_order


@pytest.mark.parametrize('one', SWEEPS)
def test_each_trial_is_packed_once_a_rung_and_with_its_kind(one):
  simulation = Simulation(one)
  simulation.run(lambda waiting: waiting[-1])
  state = simulation.state
  packed = [(x, each.rung) for each in state.packs for x in each.trials]
  assert len(packed) == len(set(packed))
  assert set(packed) == {
    (trial, rung)
    for rung, entered in enumerate(state.entered)
    for trial in entered
  }
  for each in state.packs:
    assert 1 <= len(each.trials) <= one.pack
    assert len({state.trials[x].group for x in each.trials}) == 1


def test_without_a_scheduler_all_are_trained_to_their_end():
  simulation = Simulation(study(scheduler='none', rungs=(9,)))
  simulation.run(lambda waiting: waiting[0])
  assert simulation.state.entered == [list(range(12))]
  assert len(simulation.state.scores) == 12


def test_packs_are_of_almost_one_size():
  simulation = Simulation(study(trials=9, pack=4, space=('a.n = [1.0]',)))
  sizes = [len(each.trials) for each in simulation.state.packs]
  assert sizes == [3, 3, 3]


def tell(simulation, pack, scores):
  """Has the trials of a pack of rung 0 reach scores, by trial."""
  new = [
    {'event': 'result', 'trial': x, 'rung': 0, 'scores': scores[x]}
    for x in pack.trials
  ]
  simulation.state.take(new)
  simulation.advance()


def told(one, scores):
  """Returns a simulation in which trials reach these scores at rung 0."""
  simulation = Simulation(one)
  for pack in simulation.state.packs_of(0):
    tell(simulation, pack, scores)
  return simulation.state


def test_asha_stops_what_lies_clearly_below_and_nothing_else():
  one = study(trials=6, space=('a.n = [1]',), pack=6)
  state = told(
    one,
    # The best third are 0 and 1. Of the others 2 may be as good as 1, by its
    # seeds; 3 is not; 4 has no score yet; 5 is equal to 1.
    {
      0: [99.0, 101.0, 100.0],
      1: [50.0, 51.0, 52.0],
      2: [20.0, 80.0, 40.0],
      3: [10.0, 11.0, 12.0],
      4: [10.0, None, 12.0],
      5: [50.0, 51.0, 52.0],
    },
  )
  assert set(state.stopped) == {3}
  assert sorted(state.entered[1]) == [0, 1, 2, 4, 5]


def test_with_one_seed_asha_keeps_the_best_third():
  one = study(trials=6, num_seeds=1, space=('a.n = [1]',), pack=6)
  state = told(one, {i: [float(10 - i)] for i in range(6)})
  assert state.entered[1] == [0, 1]
  assert sorted(state.stopped) == [2, 3, 4, 5]


def test_asha_promotes_before_all_of_a_rung_are_done():
  one = study(trials=12, num_seeds=1, space=('a.n = [1]',), pack=3)
  simulation = Simulation(one)
  first = simulation.state.packs[0]
  simulation.train(first)
  assert len(simulation.state.entered[1]) == 1
  # Of a later pack nothing is known before those that precede it.
  simulation.train(simulation.state.packs[2])
  assert len(simulation.state.entered[1]) == 1


def test_what_one_pack_sends_on_trains_at_once():
  one = study(trials=18, num_seeds=1, space=('a.n = [1.0]',), pack=6)
  best = {0: 9.0, 1: 8.0, 6: 8.5, 7: 7.0}
  simulation = Simulation(one)
  packs = []
  for pack in simulation.state.packs_of(0):
    tell(simulation, pack, {x: [best.get(x, -float(x))] for x in pack.trials})
    packs.append([x.trials for x in simulation.state.packs_of(1)])
  assert packs == [[(0, 1)], [(0, 1), (6, 7)], [(0, 1), (6, 7), (2, 3)]]


def test_with_the_last_pack_what_goes_on_trains_together():
  # With three seeds each trial may be as good as another, so that all go on.
  one = study(trials=12, space=('a.n = [1.0]',), pack=6)
  simulation = Simulation(one)
  first, last = simulation.state.packs_of(0)
  for pack in (first, last):
    scores = {x: [0.0, 10.0 + x, 20.0] for x in pack.trials}
    tell(simulation, pack, scores)
  packs = [x.trials for x in simulation.state.packs_of(1)]
  # The best third of the first, and with the last one all others in two.
  assert [len(each) for each in packs] == [2, 5, 5]
  assert packs[0] == (4, 5)


def test_nothing_is_decided_with_a_pack_that_may_be_the_last():
  one = study(
    trials=12, num_seeds=1, space=('a.n = [1.0]',), pack=6, rungs=(1, 3, 9)
  )
  simulation = Simulation(one)
  first, last = simulation.state.packs_of(0)
  tell(simulation, first, {x: [float(x)] for x in first.trials})
  (pack,) = simulation.state.packs_of(1)
  assert pack.trials == (4, 5)
  simulation.train(pack)
  # Others may come into this rung yet.
  assert not simulation.state.entered[2]
  tell(simulation, last, {x: [-1.0 - x] for x in last.trials})
  assert simulation.state.entered[1] == [5, 4, 3, 2]


@pytest.mark.parametrize(('pack', 'least'), [(1, 1), (2, 2), (4, 2), (12, 4)])
def test_packs_of_higher_rungs_are_not_small(pack, least):
  one = study(trials=24, num_seeds=1, space=('a.n = [1.0]',), pack=pack)
  simulation = Simulation(one)
  simulation.run(lambda waiting: waiting[-1])
  for rung in (1, 2):
    sizes = [len(each.trials) for each in simulation.state.packs_of(rung)]
    # The last one takes what is left.
    assert all(least <= size <= pack for size in sizes[:-1])


def test_a_first_pack_that_was_halved_counts_as_a_whole():
  one = study(trials=24, num_seeds=1, space=('a.n = [1.0]',), pack=12)
  simulation = Simulation(one, broken=[0])
  group = simulation.state.trials[0].group
  assert plan._enough(one, simulation.state, group) == 4
  simulation.run(lambda waiting: waiting[0])
  assert simulation.state.packs_of(0)[0].name == '0.0aaa'
  assert plan._enough(one, simulation.state, group) == 4


def test_less_than_one_pack_sends_on_waits_for_more():
  values = ', '.join(f'{x / 10}' for x in range(12))
  space = ('a.n = [1, 3]', f'a.b = [{values}]')  # two kinds, 12 of each
  one = study(trials=24, num_seeds=1, pack=6, search='grid', space=space)
  simulation = Simulation(one)
  packs = simulation.state.packs_of(0)
  only = packs[2].trials[0]  # of the second kind that is among the best
  for pack in packs[:3]:
    scores = {x: [-float(x)] for x in pack.trials}
    tell(simulation, pack, scores | {only: [1.0]})
  assert simulation.state.entered[1] == [0, 1, 2, 3, only, 4]
  assert [x.trials for x in simulation.state.packs_of(1)] == [(0, 1), (2, 3)]


def test_a_broken_trial_is_found_and_the_others_go_on():
  simulation = Simulation(study(space=('a.n = [1]',), pack=12), broken=[7])
  simulation.run(lambda waiting: waiting[0])
  state = simulation.state
  assert set(state.given_up) == {7}
  assert state.entered[0] == list(range(12))
  assert {x for x, rung in state.scores if rung == 0} == {*range(12)} - {7}
  failed = [x for x in simulation.records if x['event'] == 'failed']
  # 12, 6, 3 and 2 or 1 trials; then the one three times.
  assert [x['attempt'] for x in failed][-3:] == [1, 2, 3]


def test_where_most_are_given_up_the_others_go_on():
  one = study(trials=4, reduction=2, num_seeds=1, space=('a.n = [1]',))
  simulation = Simulation(one, broken=[0, 1, 2])
  simulation.run(lambda waiting: waiting[0])
  assert simulation.state.entered == [[0, 1, 2, 3], [3], [3]]


def test_what_a_condition_asks_for_stays_in_a_population():
  space = (
    'a.x = [0.1, 0.2, 0.3]',
    'a.b = uniform(0, 1) when a.x = 0.1',
    'a.n = [1]',
  )
  one = study(scheduler='pbt', rungs=(2, 4, 6, 8), num_seeds=1, space=space)
  simulation = Simulation(one)
  simulation.run(lambda waiting: waiting[0])
  assert len(simulation.state.trials) > 12
  for each in simulation.state.trials:
    assert ('a.b' in each.settings) == (each.settings['a.x'] == 0.1)


def test_the_worst_of_a_population_go_on_from_the_best():
  one = study(scheduler='pbt', rungs=(2, 4), num_seeds=1, trials=8, pack=8)
  simulation = Simulation(one)
  simulation.run(lambda waiting: waiting[0])
  state = simulation.state
  first = {x: state.scores[x, 0][0] for x in range(8)}
  order = sorted(first, key=first.get)
  assert sorted(state.stopped) == sorted(order[:2])
  forks = state.trials[8:]
  assert len(forks) == 2
  for each in forks:
    assert each.parent in order[-2:]
    parent = state.trials[each.parent]
    assert each.settings['a.n'] == parent.settings['a.n']  # of the program
    assert each.settings['a.b'] != parent.settings['a.b']
    assert 0 <= each.settings['a.b'] <= 1
    assert each.rung == 0
  # Those that were replaced are not among the population.
  assert len(state.entered[1]) == 8
  assert not set(state.entered[1]) & set(order[:2])


def test_a_population_that_chance_alone_parts_stays_as_it_is():
  one = study(
    scheduler='pbt',
    rungs=(2, 4),
    trials=4,
    space=('a.b = uniform(0, 1)', 'a.n = [1]'),
  )
  state = told(one, {i: [1.0 + i, 50.0, 100.0 - i] for i in range(4)})
  assert len(state.trials) == 4
  assert state.entered[1] == [0, 1, 2, 3]


@hypothesis.given(
  x=st.lists(st.integers(0, 500), min_size=2, max_size=6),
  y=st.lists(st.integers(0, 500), min_size=2, max_size=6),
)
def test_chance_is_what_scipy_says(x, y):
  hypothesis.assume(len(set(x)) > 1 or len(set(y)) > 1)
  with warnings.catch_warnings():  # of numbers that are almost equal
    warnings.simplefilter('ignore', RuntimeWarning)
    expected = stats.ttest_ind(x, y, equal_var=False).pvalue
  found = schedulers._welch(np.array(x, float), np.array(y, float))
  np.testing.assert_allclose(found, expected, rtol=1e-9)


def retried(one, broken):
  """Returns a sweep whose broken trials are mended and tried again."""
  simulation = Simulation(one, broken)
  simulation.run(lambda waiting: waiting[0])
  given_up = sorted(simulation.state.given_up)
  assert given_up
  simulation.broken = set()
  new = [{'event': 'retried', 'trial': each} for each in given_up]
  simulation.state.take(new)
  simulation.records += new
  simulation.advance()
  simulation.run(lambda waiting: waiting[0])
  return simulation.state


@pytest.mark.parametrize(
  'one',
  [
    study(scheduler='pbt', rungs=(2, 4, 6, 8), num_seeds=1),
    study(num_seeds=1, trials=24, reduction=2),
    study(num_seeds=1, trials=24, pack=3, rungs=(1, 2, 4, 8)),
  ],
)
@hypothesis.given(broken=st.sets(st.integers(0, 11), min_size=1))
@hypothesis.settings(max_examples=10)
def test_what_is_tried_again_goes_on_and_what_was_stopped_does_not(one, broken):
  state = retried(one, broken)
  for trial in state.trials:
    reached = [
      r for r, each in enumerate(state.entered) if trial.number in each
    ]
    stop = state.stopped.get(trial.number)
    # To its end, or to where it was stopped.
    assert reached[-1] == (len(one.rungs) - 1 if stop is None else stop)


def test_lists_and_tuples_are_one_value_in_a_journal():
  space = ('a.n = [(8,), [4, 4]]', 'a.b = [0.5, 0.9] when a.n = [[8]]')
  one = study(search='tpe', trials=6, pack=2, scheduler='none', space=space)
  pytest.importorskip('optuna')
  records = []
  for _ in range(3):
    state = plan.State(json.loads(json.dumps(records)), len(one.rungs))
    search = searches.of(one, lambda settings: str(settings['a.n']))
    new = plan.advance(one, state, search, schedulers.of(one))
    for pack in state.waiting():
      new += [
        {'event': 'result', 'trial': x, 'rung': pack.rung, 'scores': [1.0]}
        for x in pack.trials
      ]
    records += new
  state = plan.State(json.loads(json.dumps(records)), len(one.rungs))
  assert len(state.trials) == 6
  assert {x.settings['a.n'] for x in state.trials} == {(8,), (4, 4)}
