"""Goals of Gymnasium-Robotics: its rewards and ends, against `hindsight.Reach`.

Where the extra is missing, only what is said then is tested.
"""

import importlib.metadata
import re
import sys

import gymnasium
import jax.numpy as jnp
import numpy as np
import pytest

from dopamine_jax import errors
from dopamine_jax.environments import gym
from dopamine_jax.replay import hindsight

INSTALL = re.escape(errors.install('robotics'))
METRES = 0.05  # at which Fetch has reached its goal
HAND = hindsight.Reach(tolerance=0.01)
MAZE = hindsight.Reach(tolerance=0.45, pays='bonus')

TASKS = [
  ('FetchReach-v4', {}, hindsight.Reach(tolerance=METRES)),
  ('FetchReachDense-v4', {}, hindsight.Reach(pays='distance')),
  ('HandReach-v3', {}, HAND),
  ('HandReachDense-v3', {}, HAND.replace(pays='distance')),
  ('PointMaze_UMaze-v3', {}, MAZE),
  (
    'PointMaze_UMaze-v3',
    {'continuing_task': False},
    MAZE.replace(terminates=True),
  ),
  ('PointMaze_UMazeDense-v3', {}, MAZE.replace(pays='nearness')),
  ('AntMaze_UMaze-v5', {}, MAZE),
  (
    'AntMaze_UMazeDense-v5',
    {'continuing_task': False},
    MAZE.replace(pays='nearness', terminates=True),
  ),
]
STEPS = 30


def spread(rng, achieved, tolerance):
  """Returns a goal around what was achieved: nearer than the tolerance or not.

  None lies as near to the tolerance as rounding would decide it.
  """
  way = rng.normal(size=achieved.shape)
  far = tolerance * rng.choice([0.3, 0.99, 1.01, 3.0])
  return achieved + way / np.linalg.norm(way) * far


@pytest.mark.parametrize(('id', 'kwargs', 'task'), TASKS)
def test_a_task_says_what_the_environment_says_of_any_goal(id, kwargs, task):
  pytest.importorskip('gymnasium_robotics')
  environments = gym.Gym(id=id, kwargs=kwargs).make(1)
  (env,) = environments._envs
  rng = np.random.default_rng(0)
  seen = environments.reset([0])
  found, said = [], []
  for _ in range(STEPS):
    action = rng.uniform(-1, 1, (1, *environments.action_space.shape))
    step = environments.step(action.astype(np.float32))
    goals = [part['desired_goal'][0] for part in (seen, step.next_observation)]
    np.testing.assert_array_equal(*goals)
    (achieved,) = step.next_observation['achieved_goal']
    found.append((achieved, goals[0]))
    said.append((step.reward[0], step.terminated[0]))
    # In float64, as it computes by itself.
    goal = spread(rng, np.float64(achieved), task.tolerance or METRES)
    found.append((achieved, goal.astype(np.float32)))
    both = np.float64(achieved), goal
    reward = env.unwrapped.compute_reward(*both, {})
    said.append((reward, env.unwrapped.compute_terminated(*both, {})))
    seen = step.observation
  environments.close()
  achieved, desired = map(jnp.array, zip(*found, strict=True))
  rewards, ends = map(np.array, zip(*said, strict=True))
  assert len({*rewards}) > 1
  np.testing.assert_allclose(task.reward(achieved, desired), rewards, rtol=1e-4)
  np.testing.assert_array_equal(task.terminated(achieved, desired), ends)
  assert ends.any() == task.terminates


@pytest.mark.parametrize(('id', 'size'), [(TASKS[0][0], 3), (TASKS[4][0], 2)])
def test_a_goal_at_just_the_tolerance_is_reached(id, size):
  pytest.importorskip('gymnasium_robotics')
  task = next(task for known, _, task in TASKS if known == id)
  env = gym.make_one(id, None, {})
  goals = np.zeros((1, size)), np.zeros((1, size))
  goals[1][0, 0] = task.tolerance
  expected = env.unwrapped.compute_reward(goals[0][0], goals[1][0], {})
  env.close()
  assert task.reward(*map(jnp.array, goals)) == expected


# What is said, with the extra or without.


@pytest.mark.parametrize(
  'id', ['FetchReach-v4', 'AntMaze_UMaze-v5', 'gymnasium_robotics:HandReach-v3']
)
def test_gymnasium_robotics_missing_is_said(id, monkeypatch):
  known = {k: v for k, v in gymnasium.registry.items() if k != id}
  monkeypatch.setattr(gymnasium, 'registry', known)
  monkeypatch.setitem(sys.modules, 'gymnasium_robotics', None)
  with pytest.raises(errors.UserError, match=INSTALL):
    gym.Gym(id=id).make(1)


def made_by_robotics(monkeypatch, error):
  """Registers an id of theirs, whose making raises an error."""
  name = 'FetchNothing-v4'
  spec = gymnasium.envs.registration.EnvSpec(
    name, entry_point='gymnasium_robotics.envs.fetch:Nothing'
  )
  monkeypatch.setitem(gymnasium.registry, name, spec)

  def fail(*args, **kwargs):
    raise error

  monkeypatch.setattr(gymnasium, 'make', fail)
  return name


def test_a_missing_mujoco_is_said(monkeypatch):
  error = gymnasium.error.DependencyNotInstalled('it is not there')
  id = made_by_robotics(monkeypatch, error)
  for shown in (id, f'tests.goals:{id}'):
    with pytest.raises(errors.UserError, match=INSTALL):
      gym.Gym(id=shown).make(1)


def test_of_what_only_mujoco_py_runs_the_newest_version_is_named(monkeypatch):
  error = gymnasium.error.DependencyNotInstalled('No module mujoco_py')
  id = made_by_robotics(monkeypatch, error)
  old = id.replace('v4', 'v1')
  monkeypatch.setitem(gymnasium.registry, old, gymnasium.registry[id])
  with pytest.raises(errors.UserError, match=f"mujoco_py.*'{id}': set that"):
    gym.Gym(id=old).make(1)


@pytest.mark.parametrize(
  ('package', 'version', 'message'),
  [
    ('gymnasium_robotics', '4.0.0', rf'MuJoCo 4\.0\.0.*below 3\.12.*{INSTALL}'),
    ('gymnasium_robotics', '3.12.0', rf'MuJoCo 3\.12\.0.*{INSTALL}'),
    ('gymnasium_robotics', '3.11.0', 'failed .*AssertionError'),
    ('hands', '4.0.0', 'failed .*AssertionError'),
  ],
)
def test_a_mujoco_that_is_too_new_is_told(
  package, version, message, monkeypatch
):
  id = made_by_robotics(monkeypatch, None)
  code, theirs = 'def make(*_, **__):\n  assert False', {}
  exec(compile(code, f'site-packages/{package}/robot.py', 'exec'), theirs)
  monkeypatch.setattr(gymnasium, 'make', theirs['make'])
  monkeypatch.setattr(importlib.metadata, 'version', lambda name: version)
  with pytest.raises(errors.UserError, match=message):
    gym.Gym(id=id).make(1)
