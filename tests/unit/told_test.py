"""What environments tell of episodes, and evaluations on another environment.

An environment that tells an episode's length is its own oracle: the mean of
that is a statistic already.
"""

import csv
import re

import gymnasium
import numpy as np
import pytest
from typer import testing

from dopamine_jax import errors
from dopamine_jax import runner as runner_lib
from dopamine_jax.commands import cli
from dopamine_jax.engines import compiled
from dopamine_jax.engines import engine as engine_lib
from dopamine_jax.engines import python_engine
from dopamine_jax.environments import atari
from dopamine_jax.environments import base
from dopamine_jax.environments import catch
from dopamine_jax.environments import gym
from dopamine_jax.metrics import csv_file
from dopamine_jax.playing import trained
from dopamine_jax.replay import uniform
from dopamine_jax.training import reports
from tests import walk
from tests.unit import callbacks_test


class Teller(walk.Walk):
  """A walk that tells how old it is, and whether that is odd."""

  def step(self, state, action, key):
    outcome = super().step(state, action, key)
    age = outcome.state.age
    return outcome._replace(info={'odd': age % 2 == 1, 'age': age})


class Counter(gymnasium.Env):
  """Episodes of 3, 4, 5, 3, ... steps; `info` tells of each last one."""

  observation_space = gymnasium.spaces.Box(0, 9, (2,), np.float32)
  action_space = gymnasium.spaces.Discrete(4)

  def reset(self, *, seed=None, options=None):
    again = 3 + (self.length - 2) % 3 if seed is None else 0
    self.length = again or 3 + seed % 3
    self.age = 0
    return np.zeros(2, np.float32), {}

  def step(self, action):
    self.age += 1
    ended = self.age == self.length
    info = {'age': np.int64(self.age), 'odd': self.age % 2 == 1}
    seen = np.full(2, self.age, np.float32)
    return seen, 1.0, ended, False, info if ended else {}


gymnasium.register('Counter-v0', Counter)
COUNTER = gym.Gym(id='Counter-v0', info=('odd', 'age'))

# It never learns, so that learning is not compiled.
ASLEEP = callbacks_test.make_agent().replace(
  replay=uniform.UniformReplay(capacity=400, batch_size=4, min_history=400)
)


def train(folder, environment, engine, num_seeds=2, **settings):
  return runner_lib.Runner(
    **{
      'agent': ASLEEP,
      'environment': environment,
      'engine': engine,
      'num_iterations': 2,
      'training_steps': 60,
      'num_envs': 2,
      'evaluation_episodes': 12,
      'collectors': [csv_file.CSV],
      **settings,
    }
  ).train(folder, num_seeds=num_seeds, quiet=True)


@pytest.mark.parametrize(
  ('environment', 'engine'),
  [
    (Teller(info=('odd', 'age')), compiled.CompiledEngine),
    # Each of the two is in another row.
    pytest.param(
      *(Teller(info=('odd', 'age')), python_engine.PythonEngine),
      marks=pytest.mark.slow,
    ),
    (COUNTER, python_engine.PythonEngine),
  ],
)
def test_what_is_told_when_an_episode_ends_becomes_a_statistic(
  environment, engine, tmp_path
):
  statistics = train(tmp_path, environment, engine)
  for phase in ('Train', 'Eval'):
    np.testing.assert_allclose(
      statistics[f'{phase}/age'], statistics[f'{phase}/AverageEpisodeLengths']
    )
    assert all(0 < part < 1 for part in statistics[f'{phase}/odd'])
  with open(tmp_path / 'metrics.csv', newline='') as stream:
    names = [row['name'] for row in csv.DictReader(stream)]
  assert names.count('Train/odd') == names.count('Eval/odd') == 4


def test_episodes_keep_what_was_told_at_their_ends():
  episodes = engine_lib.Episodes(2, ('x', 'y'))
  nothing = np.zeros(2, bool)
  for done, x in (([0, 1], [1, 2]), ([0, 0], [3, 4]), ([1, 1], [5, np.nan])):
    step = base.TimeStep(None, np.ones(2), np.array(done, bool), nothing, None)
    episodes.record(step, {'x': np.array(x), 'y': np.array(x) * 2})
  assert episodes.finished == [(1, 1.0, 1), (0, 3.0, 3), (1, 2.0, 2)]
  np.testing.assert_array_equal(
    episodes.told, [[2, 4], [5, 10], [np.nan, np.nan]]
  )


@pytest.mark.parametrize(
  ('environment', 'message'),
  [
    (
      COUNTER.replace(info=('ages',)),
      r"'ages', a number .* has \['age', 'odd'",
    ),
    (
      Teller(info=('ages',)),
      r"names 'ages', and its step tells \['age', 'odd'",
    ),
  ],
)
def test_a_name_that_is_not_told_is_refused(environment, message, tmp_path):
  with pytest.raises(errors.UserError, match=message):
    train(tmp_path, environment, python_engine.PythonEngine, num_seeds=1)
  with pytest.raises(errors.UserError, match="set vector = 'sync'"):
    COUNTER.replace(vector='async')


def test_a_name_that_is_taken_is_refused():
  statistics = {'Eval/NumEpisodes': np.zeros(1)}
  with pytest.raises(errors.UserError, match='is measured already'):
    reports.add_told(statistics, 'Eval/NumEpisodes', [[1.0]])
  reports.add_told(statistics, 'Eval/x', [[1, np.nan, 4], [np.nan], []])
  np.testing.assert_array_equal(statistics['Eval/x'], [2.5, np.nan, np.nan])


def test_returns_of_whole_games_are_told_beside_those_of_lives():
  vector = atari.Atari(game='Breakout', terminate_on_life_loss=True).make(2)
  vector.reset([1, 2])
  rng = np.random.default_rng(0)
  running, games, told = np.zeros(2), [], []
  for _ in range(500):
    lives = vector._lives.copy()
    step = vector.step(rng.integers(0, 4, 2))
    running += step.reward
    # A new game has all its lives again.
    for lane in np.flatnonzero(vector._lives > lives):
      games.append(running[lane])
      running[lane] = 0
    told += vector.told['GameReturn'][
      ~np.isnan(vector.told['GameReturn'])
    ].tolist()
  vector.close()
  assert told == games and len(games) >= 2 and any(games)


def test_evaluations_play_on_their_own_environment(tmp_path):
  folder = tmp_path / 'run'
  statistics = train(
    folder,
    catch.Catch(),
    compiled.CompiledEngine,
    num_seeds=1,
    evaluation_environment=catch.Catch(max_steps_per_episode=3),
  )
  assert statistics['Eval/AverageEpisodeLengths'] == 3
  assert statistics['Train/AverageEpisodeLengths'] > 3

  def lengths(*words):
    words = ['evaluate', str(folder), '--episodes', '2', *words]
    result = testing.CliRunner().invoke(cli.app, words)
    assert not result.exception, result.exception
    with open(folder / 'evaluation.csv', newline='') as stream:
      return {int(row['length']) for row in csv.DictReader(stream)}

  assert lengths() == {3}
  name = 'evaluation_environment/catch.Catch.max_steps_per_episode'
  assert lengths('-b', f'{name} = 2') == {2}


@pytest.mark.parametrize('is_apart', [False, True])
def test_what_is_bound_to_play_on_changes_what_is_played_on(is_apart, tmp_path):
  folder = tmp_path / 'run'
  apart = catch.Catch(max_steps_per_episode=3) if is_apart else None
  train(
    folder,
    catch.Catch(),
    compiled.CompiledEngine,
    num_seeds=1,
    evaluation_environment=apart,
  )
  epsilon = 'dqn.DQN.evaluation_epsilon = 0.5'
  expected = f'{epsilon} changes nothing of the environment to play on'
  with pytest.raises(errors.UserError, match=re.escape(expected)):
    trained.load(folder, bindings=[epsilon])
  line = 'catch.Catch.max_steps_per_episode = 2'
  if is_apart:
    # Both environments have lines of their own, which win over this one.
    with pytest.raises(errors.UserError, match=r'nothing in this run uses it'):
      trained.load(folder, bindings=[line])
    line = f'evaluation_environment/{line}'
  found = trained.load(folder, bindings=[line]).environment
  assert found == catch.Catch(max_steps_per_episode=2)


def test_another_environment_has_the_same_spaces(tmp_path):
  with pytest.raises(errors.UserError) as error:
    train(
      tmp_path,
      catch.Catch(),
      compiled.CompiledEngine,
      evaluation_environment=walk.Walk(),
    )
  spaces = catch.Catch().observation_space, walk.Walk().observation_space
  for space in spaces:
    assert str(space) in str(error.value)
