"""What a training will take: arithmetic by hand, and real engines."""

import functools
import pathlib
import re
import types
from typing import NamedTuple

from jax import monitoring
import psutil
import pytest
from typer import testing

from dopamine_jax import config
from dopamine_jax import runner as runner_lib
from dopamine_jax.commands import cli
from dopamine_jax.commands import doctor
from dopamine_jax.engines import python_engine

ROOT = pathlib.Path(__file__).resolve().parents[2]


def findings(**changes):
  values = {
    'replay_bytes': 3 * 10**9,
    'other_bytes': 10**9,
    'available_bytes': 5 * 10**9,
    'update_period': 4,
    'environment': 2_000.0,
    'before': 1_000.0,
    'learning': 200.0,
    'total_steps': 10_000,
    'min_history': 2_000,
  }
  return doctor.Findings(**(values | changes))


def said(found, num_seeds=1):
  lines = []
  doctor.report(found, num_seeds, lines.append)
  return '\n'.join(lines)


def test_the_time_of_the_whole_is_that_of_its_two_parts():
  assert findings().seconds == 2_000 / 1_000 + 8_000 / 200
  assert findings(total_steps=500).seconds == 0.5


def test_what_lies_on_a_disk_is_told():
  on_disk = {'disk_bytes': 30 * 10**9, 'disk_free_bytes': 40 * 10**9}
  assert 'Disk: 30' in said(findings(**on_disk))
  assert 'Bound by updates' in said(findings(**on_disk))
  assert 'Disk' not in said(findings())
  full = {'disk_bytes': 3 * 10**9, 'disk_free_bytes': 2 * 10**9}
  assert 'Bound by the disk' in said(findings(**full))
  both = said(findings(**full, available_bytes=10**9))
  assert 'Bound by the disk' in both
  assert 'Bound by memory' in both
  assert 'Bound by updates' not in both


def test_an_update_takes_what_a_learning_step_takes_more():
  # 5 ms a step against 1 ms, an update every 4 steps.
  assert findings().update_seconds == pytest.approx(0.016)
  assert 'an update every 4: about 16 ms' in said(findings())
  several = findings(updates_per_period=2)
  assert '2 updates every 4: about 16 ms' in said(several)
  # 2.5 ms a step against 1 ms, an update every 1,024.
  rare = findings(update_period=1_024, learning=400.0)
  assert 'about 1.5 s' in said(rare)


def test_the_shares_of_a_step_add_up():
  shares = findings().shares()
  assert shares['updates'] == pytest.approx(0.8)
  assert shares['environment'] == pytest.approx(0.1)
  assert sum(shares.values()) == pytest.approx(1)


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    ({}, 'Bound by updates (80% of the time).'),
    ({'environment': 210.0, 'before': 205.0}, 'Bound by the environment ('),
    ({'before': 210.0}, 'Bound by calls from Python'),
    ({'environment': None, 'before': 205.0}, 'which one program does'),
  ],
)
def test_what_bounds_it_is_named_with_what_would_help(changes, words):
  text = said(findings(**changes))
  assert words in text
  assert re.search(r'num_seeds|num_envs', text)


def test_too_little_memory_is_said_and_nothing_timed():
  text = said(
    findings(available_bytes=1, environment=None, before=None, learning=None)
  )
  assert 'Memory: 3.00 GB for replay, 1.00 GB' in text
  assert 'it would not start' in text
  assert 'capacity' in text


@pytest.mark.parametrize(
  ('seconds', 'text'),
  [
    (59, '59 s'),
    (600, '10 min'),
    (3_600 * 3 + 300, '3 h 5 min'),
    (86_400 * 2 + 3_600 * 4, '2 days 4 h'),
  ],
)
def test_durations(seconds, text):
  assert doctor._duration(seconds) == text


def examine(name, num_seeds=1, bindings=()):
  loaded = config.load([ROOT / 'configs' / name], bindings)
  runner = loaded.build(runner_lib.Runner)
  return doctor.examine(runner, num_seeds, seconds=0.05)


@pytest.mark.parametrize(
  'name', ['dqn_cartpole.gin', 'dqn_cartpole_compiled.gin']
)
def test_both_engines_are_timed_before_and_while_they_learn(name):
  found = examine(name, 2) if 'compiled' in name else examined(name)[0]
  assert found.fits
  assert found.before > 0
  assert found.learning > 0
  assert (found.environment is None) == ('compiled' in name)
  assert found.total_steps == 25_000
  assert found.min_history == 1_000
  # 50,000 slots of 4 floats, an action, a reward and two flags, two seeds.
  assert 2 * 50_000 * 16 < found.replay_bytes < 2 * 50_000 * 40
  assert found.other_bytes > 2 * 128 * 128 * 4


class Timed(NamedTuple):
  """One of the runs that are timed, or of those before them."""

  start: int
  num_steps: int
  updates: int
  compiled: list[str]


@functools.cache
def examined(name):
  """Returns what an examination finds, and what it ran one after the other.

  It is of two seeds, with two environments each.
  """
  run = python_engine.PythonEngine.run
  compiled, seen = [], []

  def listen(event, *_, **__):
    if 'backend_compile' in event:
      compiled.append(event)

  def spy(engine, num_steps, **kwargs):
    start, done = engine.steps, int(engine.state.updates[0])
    compiled.clear()
    run(engine, num_steps, **kwargs)
    found = list(compiled)
    updates = int(engine.state.updates[0]) - done
    seen.append(Timed(start, num_steps, updates, found))

  monitoring.register_event_duration_secs_listener(listen)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(python_engine.PythonEngine, 'run', spy)
    found = examine(name, 2, ['runner.Runner.num_envs = 2'])
  return found, seen


@pytest.mark.parametrize('name', ['dqn_cartpole.gin', 'ppo_cartpole.gin'])
def test_what_is_timed_before_learning_holds_no_update(name):
  """An on-policy agent's first update comes at the end of its history."""
  updates = {True: 0, False: 0}
  for each in examined(name)[1]:
    updates[each.start == 0] += each.updates
  assert updates[True] == 0
  assert updates[False] > 0


@pytest.mark.parametrize('name', ['dqn_cartpole.gin', 'ppo_cartpole.gin'])
def test_nothing_is_compiled_while_it_is_timed(name):
  seen = []
  for each in examined(name)[1]:
    # The first run from a step on and of a length is not timed.
    if each[:2] in seen:
      assert not each.compiled
    seen.append(each[:2])
  assert len(set(seen)) < len(seen)


def test_a_replay_that_does_not_fit_is_not_made(monkeypatch):
  little = types.SimpleNamespace(available=10**9)
  monkeypatch.setattr(psutil, 'virtual_memory', lambda: little)
  huge = 'uniform.UniformReplay.capacity = 1_000_000_000'
  found = examine('dqn_cartpole.gin', bindings=[huge])
  assert not found.fits
  assert found.learning is None


def test_the_command_prints_it(monkeypatch):
  def examine(runner, num_seeds):
    assert (runner.training_steps, num_seeds) == (1_000, 3)
    return findings()

  monkeypatch.setattr(doctor, 'examine', examine)
  words = ['doctor', '--gin_files', str(ROOT / 'configs/dqn_cartpole.gin')]
  result = testing.CliRunner().invoke(cli.app, [*words, '--num_seeds', '3'])
  assert result.exit_code == 0, result.exception
  for line in ('Memory: ', 'Learning: ', 'The whole training', 'Bound by '):
    assert line in result.output


def test_the_command_fails_where_the_training_would(monkeypatch):
  found = findings(disk_bytes=2, disk_free_bytes=1)
  monkeypatch.setattr(doctor, 'examine', lambda runner, num_seeds: found)
  words = ['doctor', str(ROOT / 'configs/dqn_cartpole.gin')]
  result = testing.CliRunner().invoke(cli.app, words)
  assert result.exit_code == 1
  assert 'Bound by the disk: it would not start' in result.output
