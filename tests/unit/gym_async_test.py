"""Tests of environments in processes of their own: as in one, to the bit.

The environments below are found by the processes under this module's name.
"""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import warnings

import gymnasium
import numpy as np
import pytest

from dopamine_jax import errors
from dopamine_jax.environments import gym

MODULE = 'tests.unit.gym_async_test'
SHARED, BROKEN = (f'{MODULE}:AsyncTest/{n}-v0' for n in ('Shared', 'Broken'))


class Shared(gymnasium.Env):
  """Observations [number of resets, step, action, noise], always one buffer.

  The count of resets survives a seeded one.
  """

  observation_space = gymnasium.spaces.Box(-100, 100, (4,), np.float64)
  action_space = gymnasium.spaces.Box(-2, 6, (1,), np.float32)

  def __init__(self):
    self.state = np.zeros(4)

  def reset(self, *, seed=None, options=None):
    super().reset(seed=seed)
    self.state[:] = self.state[0] + 1, 0, 0, self.np_random.normal()
    return self.state, {'not': 'read'}

  def step(self, action):
    self.state[1:] = self.state[1] + 1, action[0], self.np_random.normal()
    terminated = bool(self.state[3] > 1)
    return self.state, self.state[3] / 3, terminated, False, {}


class Broken(Shared):
  """Raises at its second step."""

  def step(self, action):
    if self.state[1] == 1:
      raise ZeroDivisionError('broken')
    return super().step(action)


for kind in (Shared, Broken):
  if f'AsyncTest/{kind.__name__}-v0' not in gymnasium.registry:
    gymnasium.register(
      f'AsyncTest/{kind.__name__}-v0', kind, max_episode_steps=4
    )


def make(num_envs, vector, id, **settings):
  made = gym.Gym(id=id, vector=vector, **settings).make(num_envs)
  return contextlib.closing(made)


def play(environments, actions):
  """Returns all arrays of two rounds, each from a seeded reset."""
  seen = []
  for seeds in ((3, 1, 2), (7, 3, 3)):
    seen.append(environments.reset(seeds))
    for action in actions:
      seen.extend(environments.step(action))
  return seen


@pytest.mark.parametrize(
  ('id', 'limit'), [(SHARED, None), ('CartPole-v1', 9), ('Pendulum-v1', 5)]
)
def test_experience_is_that_of_one_process_to_the_bit(id, limit):
  rng = np.random.default_rng(0)
  actions = rng.uniform(-1.2, 1.2, (20, 3, 1)).astype(np.float32)
  if id == 'CartPole-v1':
    actions = rng.integers(2, size=(20, 3))
  rounds = []
  for vector in ('sync', 'async'):
    with make(3, vector, id, max_steps_per_episode=limit) as environments:
      rounds.append(play(environments, actions))
      spaces = environments.observation_space, environments.action_space
      rounds[-1].append(spaces)
      rounds[-1].append(environments.frames_per_second)
  one, other = rounds
  assert one[-2:] == other[-2:]
  assert len(one) == len(other) == 2 * (1 + 20 * 5) + 2
  for a, b in zip(one[:-2], other[:-2], strict=True):
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(a, b)


def test_a_truncation_keeps_the_true_last_observation():
  with make(2, 'async', SHARED) as environments:
    first = environments.reset([0, 4])
    np.testing.assert_array_equal(first[:, :3], [[1, 0, 0]] * 2)
    action = np.full((2, 1), 0.5, np.float32)  # of -2 to 6: 4
    truncated = np.zeros(2, bool)
    while not truncated.any():
      step = environments.step(action)
      truncated = step.truncated
    for i in np.flatnonzero(truncated):
      assert not step.terminated[i]
      np.testing.assert_array_equal(step.next_observation[i][1:3], [4, 4])
      np.testing.assert_array_equal(step.observation[i][1:3], [0, 0])


def test_no_process_is_left_after_an_error():
  with make(2, 'async', BROKEN) as environments:
    environments.reset([0, 0])
    actions = np.zeros((2, 1), np.float32)
    environments.step(actions)
    assert len(multiprocessing.active_children()) == 2
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')  # Gymnasium tells of it by these too
      with pytest.raises(ZeroDivisionError, match='broken'):
        environments.step(actions)
  assert not multiprocessing.active_children()
  environments.close()


KILLED = f"""
import multiprocessing
import os
import signal

import numpy as np

from dopamine_jax.environments import gym

if __name__ == '__main__':
  environments = gym.Gym(id={SHARED!r}, vector='async').make(2)
  environments.reset([0, 1])
  pids = [child.pid for child in multiprocessing.active_children()]
  os.kill(pids[0], signal.SIGINT)
  environments.step(np.zeros((2, 1), np.float32))
  print(*pids, flush=True)
  os.kill(os.getpid(), signal.SIGKILL)
"""


def test_processes_outlive_an_interrupt_but_not_who_started_them(tmp_path):
  script = tmp_path / 'killed.py'
  script.write_text(KILLED)
  done = subprocess.run(
    [sys.executable, script],
    env={**os.environ, 'PYTHONPATH': os.getcwd()},
    stdout=subprocess.PIPE,
    text=True,
  )
  assert done.returncode == -signal.SIGKILL
  pids = [int(pid) for pid in done.stdout.split()]
  assert len(pids) == 2
  while any(
    is_running(pid) for pid in pids
  ):  # or the test's time limit ends it
    time.sleep(0.1)


def is_running(pid):
  """Whether there is such a process; one that nobody waited for is none."""
  done = subprocess.run(
    ['ps', '-o', 'stat=', '-p', str(pid)], stdout=subprocess.PIPE, text=True
  )
  return bool(done.stdout.strip()) and 'Z' not in done.stdout


def test_films_and_unknown_kinds():
  settings = gym.Gym(id='CartPole-v1', vector='async')
  with contextlib.closing(settings.make(1, render=True)) as environments:
    environments.reset([0])
    assert environments.render().ndim == 3
  with pytest.raises(errors.UserError, match=r"vector = 'threads'.*'async'"):
    gym.Gym(id='CartPole-v1', vector='threads')
