"""When a profile begins and ends."""

import types

import jax
import pytest

from dopamine_jax.metrics import profiling


@pytest.fixture
def calls(monkeypatch):
  calls = []
  monkeypatch.setattr(
    jax.profiler, 'start_trace', lambda *_, **__: calls.append('start')
  )
  monkeypatch.setattr(jax.profiler, 'stop_trace', lambda: calls.append('stop'))
  return calls


def make(num_steps, *, period=4, min_history=20, steps=0, began=0):
  engine = types.SimpleNamespace(
    steps=steps,
    learning_begins=began + min_history,
    loop=types.SimpleNamespace(
      agent=types.SimpleNamespace(update_period=period)
    ),
  )
  said = []
  return (
    engine,
    profiling.Profiler(engine, num_steps, 'folder', said.append),
    said,
  )


def steps_traced(engine, profiler, calls, num_steps, stride=1):
  """Returns the steps at which the trace began and ended."""
  seen = {}
  for steps in range(engine.steps, engine.steps + num_steps, stride):
    engine.steps = steps
    before = len(calls)
    profiler.on_step()
    for call in calls[before:]:
      seen[call] = steps
  return seen


@pytest.mark.parametrize(
  ('settings', 'num_steps', 'expected'),
  [
    # Three updates after learning began, which is at 20.
    ({}, 10, (32, 42)),
    # A restored run compiles again, and has its replay...
    ({'steps': 400}, 10, (412, 422)),
    # ... or not: then learning begins anew 20 steps on.
    ({'steps': 400, 'began': 400}, 10, (432, 442)),
    # An on-policy agent updates once a rollout, and one is traced.
    ({'period': 64, 'min_history': 64}, 10, (256, 320)),
  ],
)
def test_steps_are_traced_once_learning_is_under_way(
  calls, settings, num_steps, expected
):
  engine, profiler, said = make(num_steps, **settings)
  seen = steps_traced(engine, profiler, calls, 800)
  assert (seen['start'], seen['stop']) == expected
  profiler.end()
  profiler.close()
  assert calls == ['start', 'stop']
  (message,) = said
  assert f'agent steps {expected[0]} to {expected[1]}' in message
  assert 'tensorboard --logdir folder' in message


def test_chunks_are_traced_whole(calls):
  engine, profiler, _ = make(10)
  seen = steps_traced(engine, profiler, calls, 800, stride=50)
  assert seen == {'start': 50, 'stop': 100}


def test_an_iteration_that_ends_ends_the_trace(calls):
  engine, profiler, said = make(1_000)
  profiler.end()  # before it began: nothing
  steps_traced(engine, profiler, calls, 100)
  profiler.end()
  assert calls == ['start', 'stop']
  steps_traced(engine, profiler, calls, 2_000)
  profiler.close()
  assert calls == ['start', 'stop']
  assert len(said) == 1


def test_a_training_too_short_for_a_trace_says_so(calls):
  engine, profiler, said = make(10)
  steps_traced(engine, profiler, calls, 30)
  profiler.close()
  assert calls == []
  assert said[0].startswith('No profile: learning was not under way')
