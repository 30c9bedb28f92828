"""What observes a training changes nothing of it, and a run may go on with it.

Health, histograms and videos are on together, which takes one training rather
than three; the tests of each by itself are in a file of its own.
"""

import csv

import pytest

from dopamine_jax import runner as runner_lib
from dopamine_jax.engines import compiled
from dopamine_jax.engines import python_engine
from dopamine_jax.environments import catch
from dopamine_jax.metrics import base
from dopamine_jax.metrics import csv_file
from dopamine_jax.training import fingerprint
from tests import kept as kept_lib
from tests import programs
from tests.unit import health_test
from tests.unit import histograms_test

ENGINES = (python_engine.PythonEngine, compiled.CompiledEngine)
HEALTH = {'health': health_test.ALL}
ALL = {**HEALTH, 'histograms': True, 'videos': True}
# Of two layers of parameters, by their names in Flax.
PARAMETERS = {
  f'Parameters/{layer}/{part}'
  for layer in ('Dense_0', 'MLPTorso_0/Dense_0')
  for part in ('bias', 'kernel')
}


class Kept(base.Collector):
  """Keeps what it is given."""

  def __init__(self):
    self.histograms, self.videos, self.iterations = [], [], []

  def write_histograms(self, histograms):
    self.histograms += histograms

  def write_video(self, video):
    # Both come first, so that one flush does for all.
    assert video.iteration not in self.iterations
    self.videos.append(video)

  def write(self, statistics):
    assert not self.histograms or (
      self.histograms[-1].iteration == statistics[0].iteration
    )
    self.iterations.append(statistics[0].iteration)


def train(folder, observers, *, engine=ENGINES[0], num_iterations=3):
  """Trains two seeds in iterations of 15 steps; returns what was kept."""
  kept = kept_lib.keep(Kept())
  runner_lib.Runner(
    agent=histograms_test.make_agent,
    environment=catch.Catch(),
    engine=engine,
    num_iterations=num_iterations,
    training_steps=15,
    evaluation_episodes=1,
    collectors=[csv_file.CSV, kept_lib.newest],
    **observers,
  ).train(folder, num_seeds=2, quiet=True, say=lambda message: None)
  return kept


def metrics(folder):
  """Returns metrics.csv's rows by (name, iteration, seed), without times."""
  with open(folder / 'metrics.csv', newline='') as stream:
    return {
      (row['name'], int(row['iteration']), int(row['seed'])): row
      for row in csv.DictReader(stream)
      if row.pop('wall_time') and not base.is_timing(row['name'])
    }


def differences(off, on):
  """Returns which parts and metrics of a run `off` are others in `on`."""
  parts = [fingerprint.fingerprint(folder) for folder in (off, on)]
  before, after = metrics(off), metrics(on)
  found = [
    name
    for name in ('parameters', 'optimizer', 'replay', 'counters')
    if parts[0][name] != parts[1][name]
  ]
  found += [key for key, row in before.items() if after.get(key) != row]
  if [key for key in after if key in before] != list(before):
    found.append('order')
  return found


def culprits(folder, engine):
  """Returns the differences that each observer makes by itself."""
  for name, value in ALL.items():
    train(folder / name, {name: value}, engine=engine)
  return {name: differences(folder / 'off', folder / name) for name in ALL}


# Both donate what an observer might still hold; that health is the same on both
# is seen in `health_test`.
@pytest.fixture(
  scope='module',
  params=[ENGINES[0], pytest.param(ENGINES[1], marks=pytest.mark.slow)],
)
def pair(request, tmp_path_factory):
  """A folder with the runs `off` and `on`, and what was kept of each."""
  folder, engine = tmp_path_factory.mktemp('pair'), request.param
  off = train(folder / 'off', {}, engine=engine)
  with pytest.MonkeyPatch.context() as patch:
    programs.share(patch)  # with the run that is resumed
    on = train(folder / 'on', ALL, engine=engine)
  return folder, engine, off, on


def test_observers_change_nothing_else(pair):
  folder, engine, off, on = pair
  # Told only if it fails.
  assert not differences(folder / 'off', folder / 'on'), culprits(
    folder, engine
  )
  assert off.histograms == off.videos == []
  assert off.iterations == on.iterations == [1, 2, 3]


def test_observers_tell_of_each_iteration_and_seed(pair):
  folder, _, _, on = pair
  # There are 20 steps to sample from only in the second iteration.
  assert metrics(folder / 'on').keys() - metrics(folder / 'off').keys() == {
    (name, iteration, seed)
    for name in health_test.NAMES
    for iteration in (2, 3)
    for seed in (0, 1)
  }
  assert {(h.iteration, h.seed, h.name) for h in on.histograms} == {
    (iteration, seed, name)
    for iteration in (1, 2, 3)
    for seed in (0, 1)
    for name in PARAMETERS
  }
  assert len(on.histograms) == 3 * 2 * 4
  assert {h.agent_steps for h in on.histograms} == {15, 30, 45}
  assert [(v.seed, v.iteration, v.agent_steps, v.name) for v in on.videos] == [
    (0, 1, 15, 'Eval/Video'),
    (0, 2, 30, 'Eval/Video'),
    (0, 3, 45, 'Eval/Video'),
  ]


@pytest.mark.usefixtures('same_programs')
@pytest.mark.parametrize('pair', ENGINES[:1], indirect=True)
def test_a_resumed_run_measures_what_an_unbroken_one_does(tmp_path, pair):
  train(tmp_path, HEALTH, num_iterations=2)
  # A run may go on with histograms and videos.
  kept = train(tmp_path, ALL)
  assert {h.iteration for h in kept.histograms} == {3}
  assert [v.iteration for v in kept.videos] == [3]
  assert fingerprint.fingerprint(tmp_path) == fingerprint.fingerprint(
    pair[0] / 'on'
  )
