"""How many trials train in one program."""

import time

import pytest

from dopamine_jax.commands import doctor
from dopamine_jax.commands import packing
from dopamine_jax.sweeps import study as study_lib


class Machine:
  """Stands for the doctor: a start, and seconds for each lane.

  Args:
    start: seconds until a program runs.
    calls: seconds of a whole training, whatever the lanes.
    lane: more seconds for each.
    memory: lanes that fit into what is free.
  """

  def __init__(self, patch, start, calls, lane, memory=10_000):
    self.clock, self.asked = 0.0, []
    self.start, self.calls, self.lane = start, calls, lane
    self.free = memory
    patch.setattr(doctor, 'memory', self.memory)
    patch.setattr(doctor, 'examine', self.examine)
    patch.setattr(time, 'monotonic', lambda: self.clock)

  def findings(self, lanes, **given):
    return doctor.Findings(
      **{
        'replay_bytes': lanes,
        'other_bytes': 0,
        'available_bytes': self.free,
        'update_period': 1,
        'environment': None,
        'before': None,
        'learning': None,
        'total_steps': 1_000,
        'min_history': 0,
      }
      | given
    )

  def memory(self, runner, lanes):
    return self.findings(lanes)

  def examine(self, runner, lanes, seconds):
    self.asked.append(lanes)
    self.clock += self.start + 2 * seconds
    rate = 1_000 / (self.calls + self.lane * lanes)
    return self.findings(lanes, before=rate, learning=rate)


def study(trials=64, rungs=(10, 30, 90), search='random'):
  return study_lib.Study(
    **{name: () for name in ('files', 'bindings', 'space')},
    search=search,
    trials=trials,
    scheduler='asha',
    training_steps=100,
    rungs=rungs,
    reduction=3,
    metric='',
    last=1,
    seed=0,
    num_seeds=2,
    search_seed=0,
    pack=1,
    ahead=1,
    record='',
  )


@pytest.mark.parametrize(
  ('start', 'calls', 'lane', 'expected'),
  [
    (0, 10_000, 0, 32),  # calls are all there is: as many as there are
    (0, 0, 1_000, 1),  # lanes are all there is: few decide earlier
    (100, 0, 9, 32),  # to start takes longer than to train
    (10, 0, 9_000, 1),
  ],
)
def test_many_train_together_where_that_saves_time(
  monkeypatch, start, calls, lane, expected
):
  Machine(monkeypatch, start, calls, lane)
  said = []
  assert packing.size(None, study(), 2, said.append) == expected
  assert f'--pack {expected}' in said[0]


def test_a_short_sweep_is_not_measured_further(monkeypatch):
  machine = Machine(monkeypatch, 1, 1, 0.1)
  assert packing.size(None, study(), 2, print) == 32
  assert machine.asked == [64]


def test_memory_is_shared_by_the_workers(monkeypatch):
  Machine(monkeypatch, 0, 10_000, 0, memory=80)
  # Half of 80 bytes, of 2 a trial, for each of two workers.
  assert packing.size(None, study(), 2, print) == 10
  machine = Machine(monkeypatch, 0, 10_000, 0, memory=1)
  assert packing.size(None, study(), 2, print) == 1
  assert not machine.asked


def test_a_search_that_learns_asks_several_times(monkeypatch):
  Machine(monkeypatch, 0, 10_000, 0)
  assert packing.size(None, study(search='tpe'), 2, print) == 4
