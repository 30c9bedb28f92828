"""An evaluation that waits says what for."""

import pytest

from dopamine_jax.engines import evaluation
from dopamine_jax.environments import catch
from dopamine_jax.environments import gym


def moment(count, left=100):
  return evaluation.Moment(None, None, count, None, left)


@pytest.mark.parametrize(
  ('ends', 'expected'),
  [
    ([], [30, 60, 120]),  # seconds after which it is said
    ([5, 20, 45, 70, 95, 120, 145], []),
    ([40], [30, 70, 100]),
    ([10, 100], [40, 70, 130]),
  ],
)
def test_it_is_said_after_30_seconds_and_when_that_has_doubled(
  monkeypatch, ends, expected
):
  clock = [0.0]
  monkeypatch.setattr(evaluation.time, 'monotonic', lambda: clock[0])
  said = []
  patience = evaluation.Patience(
    'It', gym.Gym(id='CartPole-v1'), lambda text: said.append((clock[0], text))
  )
  for second in range(150):
    clock[0] = float(second)
    patience(moment(second, 100 - sum(end <= second for end in ends)))
  assert [when for when, _ in said] == expected
  for when, text in said:
    assert text.startswith('It waits for an episode to end: none has for ')
    assert f'{int(when)} steps are done' in text
    assert 'gym.Gym.max_steps_per_episode' in text


def test_the_setting_that_is_named_is_that_of_the_environment():
  said = []
  patience = evaluation.Patience('It', catch.Catch(), said.append)
  patience._limit = 0.0
  patience(moment(1))
  assert 'catch.Catch.max_steps_per_episode' in said[0]
