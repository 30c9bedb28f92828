"""The hundred kills, and that all which they take hold of is there."""

import pytest

from dopamine_jax import config
from dopamine_jax import runner
from tests import killed
from tests import kills


@pytest.mark.slow
def test_runs_that_were_killed_a_hundred_times_end_the_same():
  assert kills.main(['--kills', '100']) == 0


@pytest.mark.parametrize('engine', kills.ENGINES)
@pytest.mark.parametrize('agent', kills.CONFIGS)
def test_every_agent_is_trained_on_both_engines(agent, engine, tmp_path):
  file = tmp_path / 'small.gin'
  file.write_text(kills.config(agent, engine))
  small = config.load([file]).build(runner.Runner)
  assert small.num_iterations == kills.ITERATIONS
  environments = small.environment.make(small.num_envs)
  made = small.make_agent(environments)
  environments.close()
  assert type(made).__name__ == agent.partition('.')[2]
  assert engine in small.engine.__name__.lower()


def test_there_is_what_moments_are_counted_by():
  for owner, name in (*killed.PHASES, *killed.MOMENTS):
    assert callable(getattr(owner, name))


def test_a_moment_kills_no_sooner_and_no_later(monkeypatch):
  died = []
  monkeypatch.setattr(killed.os, 'kill', lambda *args: died.append(args))
  moments = killed.Moments('saving', 2)
  for phase, last in (('start-up', 1), ('saving', 1), ('training', 3)):
    moments.phase = phase
    for _ in range(last):
      moments.next()
  assert not died
  with moments.within('saving'):
    assert len(died) == 1
  assert moments.counts['saving'] == 2
