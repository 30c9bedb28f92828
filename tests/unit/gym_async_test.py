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

import gymnasium
import numpy as np
import pytest

from dopamine_jax import errors
from dopamine_jax.environments import gym
from dopamine_jax.environments import gym_async

MODULE = 'tests.unit.gym_async_test'
SHARED, BROKEN, IMAGES, SIGNALLING, UNLIKE = (
  f'{MODULE}:AsyncTest/{name}-v0'
  for name in ('Shared', 'Broken', 'Images', 'Signalling', 'Unlike')
)


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


class Unsent(Exception):
  """Has what no other process can be sent."""

  def __init__(self):
    super().__init__('not to be sent')
    self.function = lambda: None


def hang():
  signal.signal(signal.SIGTERM, signal.SIG_IGN)
  time.sleep(600)


def fail(error):
  raise error


# What happens at the second step of the second environment.
ENDS = {
  'raises': lambda: fail(ZeroDivisionError('broken')),
  'unsent': lambda: fail(Unsent()),
  'exits': lambda: os._exit(7),
  'interrupts': lambda: fail(KeyboardInterrupt()),
  'gives up': lambda: fail(GeneratorExit()),
  'killed': lambda: os.kill(os.getpid(), signal.SIGKILL),
  'hangs': hang,
}


class Signalling(Shared):
  """Sends a signal to the whole group while a process makes it."""

  def __init__(self, number):
    super().__init__()
    if multiprocessing.parent_process():  # not the one that is looked at
      os.killpg(0, getattr(signal, number))


class Broken(Shared):
  """Ends badly, in its second step or in a later reset, if seeded with 1."""

  def __init__(self, end, where='step'):
    super().__init__()
    self.end, self.where = end, where

  def reset(self, *, seed=None, options=None):
    self.seed = seed if seed is not None else self.seed
    if self.where == 'reset' and seed is None and self.seed == 1:
      ENDS[self.end]()
    return super().reset(seed=seed)

  def step(self, action):
    if self.where == 'step' and self.state[1] == 1 and self.seed == 1:
      ENDS[self.end]()
    return super().step(action)


class Images(gymnasium.Env):
  """Images of three channels, first."""

  observation_space = gymnasium.spaces.Box(0, 255, (3, 8, 6), np.uint8)
  action_space = gymnasium.spaces.Discrete(2)

  def reset(self, *, seed=None, options=None):
    super().reset(seed=seed)
    return self.see(), {}

  def step(self, action):
    return self.see(), 1.0, False, False, {}

  def see(self):
    return self.np_random.integers(256, size=(3, 8, 6), dtype=np.uint8)


class Unlike(Shared):
  """The second one has other spaces, or can't be made."""

  def __init__(self, quantity):
    super().__init__()
    name = multiprocessing.current_process().name
    if name.endswith('-1'):  # as Gymnasium calls its workers
      if quantity == 'action':
        self.action_space = gymnasium.spaces.Box(-2, 6, (2,), np.float32)
      elif quantity == 'observation':
        self.observation_space = gymnasium.spaces.Box(-1, 1, (5,), np.float64)
      else:
        raise RuntimeError('no licence')


for kind in (Shared, Broken, Images, Signalling, Unlike):
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
  ('id', 'limit'),
  [
    (SHARED, None),  # whose actions are in a Box
    ('CartPole-v1', 9),
    pytest.param(*('Pendulum-v1', 5), marks=pytest.mark.slow),
  ],
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


def step_until_it_ends(environments):
  environments.reset([0, 1])
  for _ in range(9):
    environments.step(np.zeros((2, 1), np.float32))


@pytest.mark.parametrize(
  ('kwargs', 'message'),
  [
    (
      {'end': 'raises'},
      'environment 2 of 2, step 2 since.*ZeroDivisionError: broken, raised in '
      'its step by .*gym_async_test.py, line',
    ),
    ({'end': 'unsent', 'where': 'reset'}, 'Unsent: not to be sent, .* reset'),
    (
      {'end': 'interrupts'},
      r'step 2 .*KeyboardInterrupt\(\), raised in its',
    ),
    ({'end': 'gives up'}, r'GeneratorExit\(\), raised in its step by .*_test'),
    ({'end': 'exits'}, 'process of environment 2 of 2, .*with exit status 7'),
    ({'end': 'killed', 'where': 'reset'}, 'environment 2 of 2, .*by SIGKILL'),
  ],
)
def test_what_went_wrong_in_a_process_is_said_and_none_is_left(kwargs, message):
  with make(2, 'async', BROKEN, kwargs=kwargs) as environments:
    assert len(multiprocessing.active_children()) == 2
    with pytest.raises(errors.UserError, match=message):
      step_until_it_ends(environments)
  assert not multiprocessing.active_children()
  environments.close()


def test_a_process_that_hangs_is_said_and_can_be_stopped(monkeypatch, capsys):
  monkeypatch.setattr(gym_async, 'PATIENCE', 0.2)
  monkeypatch.setattr(gym_async, 'FAREWELL', 0.3)
  asked = []

  def stop():
    asked.append(1)
    if len(asked) == 4:  # as a training does after SIGTERM
      raise errors.UserError('stopped')

  with make(2, 'async', BROKEN, kwargs={'end': 'hangs'}) as environments:
    environments.on_wait = stop
    with pytest.raises(errors.UserError, match='stopped'):
      step_until_it_ends(environments)
  assert not multiprocessing.active_children()  # though it ignores SIGTERM
  said = capsys.readouterr().err
  assert said.count('environment 2 of 2, step 2') == 1
  assert 'has not answered' in said


def test_images_are_transposed_in_processes_too():
  rounds = []
  for vector in ('sync', 'async'):
    with make(2, vector, IMAGES, channels_first=True) as environments:
      assert environments.observation_space.shape == (8, 6, 3)
      seen = environments.reset([3, 4])
      rounds.append([seen, *environments.step(np.zeros(2, np.int32))])
  for a, b in zip(*rounds, strict=True):
    np.testing.assert_array_equal(a, b)
  image = np.random.Generator(np.random.PCG64(3)).integers(
    256, size=(3, 8, 6), dtype=np.uint8
  )
  np.testing.assert_array_equal(rounds[0][0][0], image.transpose(1, 2, 0))


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


GROUP = f"""
import os
import signal
import sys

import numpy as np

from dopamine_jax.system import signals
from dopamine_jax.environments import gym

if __name__ == '__main__':
  number = getattr(signal, sys.argv[1])
  with signals.stop_signals() as stop:
    environments = gym.Gym(id={SHARED!r}, vector='async').make(2)
    environments.reset([0, 1])
    os.killpg(0, number)
    for _ in range(50):
      environments.step(np.zeros((2, 1), np.float32))
    environments.close()
  print(stop.name)
"""

MAKING = f"""
import sys

from dopamine_jax.system import signals
from dopamine_jax.environments import gym

if __name__ == '__main__':
  kwargs = {{'number': sys.argv[1]}}
  with signals.stop_signals() as stop:
    gym.Gym(id={SIGNALLING!r}, vector='async', kwargs=kwargs).make(2).close()
  print(stop.name)
"""

ENDING = f"""
import os
import signal
import sys

from dopamine_jax.system import signals
from dopamine_jax.environments import gym

if __name__ == '__main__':
  with signals.ending():
    environments = gym.Gym(id={SHARED!r}, vector='async').make(2)
    environments.reset([0, 1])
    os.killpg(0, getattr(signal, sys.argv[1]))
"""


# Every signal and every moment once; all of them together are slow.
@pytest.mark.parametrize(
  ('script', 'number'),
  [
    pytest.param(
      *(script, number),
      marks=pytest.mark.slow if number != quick else (),
    )
    for script, quick in (
      (GROUP, 'SIGHUP'),
      (MAKING, 'SIGINT'),
      (ENDING, 'SIGTERM'),
    )
    for number in ('SIGINT', 'SIGTERM', 'SIGHUP')
  ],
)
def test_a_signal_to_the_whole_group_is_for_its_starter_alone(
  tmp_path, script, number
):
  file = tmp_path / 'group.py'
  file.write_text(script)
  done = subprocess.run(
    [sys.executable, file, number],
    env={**os.environ, 'PYTHONPATH': os.getcwd()},
    capture_output=True,
    text=True,
    start_new_session=True,
    timeout=300,
  )
  # No traceback of a worker, and nothing of Python's own helpers.
  if script is ENDING:
    assert done.stderr == f'Stopped by {number}.\n'
    assert done.returncode == 128 + getattr(signal, number)
  else:
    assert (done.stdout, done.stderr) == (f'{number}\n', '')


FORGETTING = f"""
import sys

from dopamine_jax.environments import gym

if __name__ == '__main__':
  environments = gym.Gym(id={SHARED!r}, vector='async').make(2)
  environments.reset([0, 1])
  sys.exit(int(sys.argv[1]))
"""


# What is forgotten is the same, whatever the status.
@pytest.mark.parametrize('status', [pytest.param(0, marks=pytest.mark.slow), 3])
def test_whoever_forgets_to_close_them_ends_all_the_same(tmp_path, status):
  file = tmp_path / 'forgetting.py'
  file.write_text(FORGETTING)
  done = subprocess.run(
    [sys.executable, file, str(status)],
    env={**os.environ, 'PYTHONPATH': os.getcwd()},
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert (done.returncode, done.stderr) == (status, '')


@pytest.mark.parametrize(
  ('quantity', 'message'),
  [
    (
      'action',
      r'has Box\(-2.*\(2,\).* in environment 2 of 2, and Box',
    ),
    ('observation', r'has Box\(-1.*\(5,\).* in environment 2 of 2, and Box'),
    ('none', 'a process ended while it made its environment'),
  ],
)
def test_processes_whose_environments_differ_are_told_and_end(
  quantity, message
):
  settings = gym.Gym(id=UNLIKE, vector='async', kwargs={'quantity': quantity})
  with pytest.raises(errors.UserError, match=message):
    with contextlib.closing(settings.make(2)) as environments:
      environments.reset([0, 1])
  assert not multiprocessing.active_children()


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
