"""Gymnasium environments, each in a process of its own.

By `gymnasium.vector.AsyncVectorEnv`, for environments whose step takes longer
than a message. What may go wrong in another process is said here: what it
raises, that it has ended, that it does not answer.
"""

import atexit
from collections.abc import Callable, Iterator, Sequence
import contextlib
import functools
import multiprocessing
import os
import select
import signal
import sys
import time
from typing import Any

import gymnasium
import numpy as np

from dopamine_jax import errors
from dopamine_jax import spaces as trees  # and a setting `spaces`
from dopamine_jax.environments import answers
from dopamine_jax.environments import base
from dopamine_jax.environments import counts
from dopamine_jax.environments import gym_vector
from dopamine_jax.system import signals

PATIENCE = 30.0  # seconds without an answer, until that is said
FAREWELL = 5.0  # seconds that environments have to close
_PERIOD = 0.2  # seconds between two questions whether to wait on


class AsyncVector(gym_vector.Vector):
  """Gymnasium environments in lockstep, each in a process of its own."""

  def __init__(
    self,
    name: str,
    makers: Sequence[Callable[[], gymnasium.Env]],
    channels_first: bool | None = None,
  ):
    """Starts the processes; see `gym_vector.GymVector`."""
    env = makers[0]()
    try:
      super().__init__(name, len(makers), env, channels_first)
    finally:
      answers.close(name, env)
    kinds = {
      'stored': self.observation_space,
      'spaces': (env.observation_space, env.action_space),
      'num_envs': self.num_envs,
      'channels_first': self.channels_first,
      'starter': os.getpid(),
    }
    before = multiprocessing.active_children()
    try:
      with _safe_path(), signals.for_starter_alone():
        self._vector = gymnasium.vector.AsyncVectorEnv(
          [
            functools.partial(_Remote, name, maker, number=i, **kinds)
            for i, maker in enumerate(makers)
          ],
          # A fork would copy the locks of JAX's threads, held for ever.
          context='spawn',
          autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP,
        )
    except BaseException as error:
      _kill(p for p in multiprocessing.active_children() if p not in before)
      if not isinstance(error, (EOFError, ConnectionError)):
        raise
      raise errors.UserError(
        f'{name}: a process ended while it made its environment; what it '
        "printed tells why. vector = 'sync' makes them all in this one."
      ) from error
    # Whoever forgets to close them would wait for ever: multiprocessing's own
    # end asks by SIGTERM, which they leave to their starter.
    atexit.register(self._kill)
    # Each process's end of the pipe, to be asked whether there is an answer.
    self._polls = []
    for pipe in self._vector.parent_pipes:
      self._polls.append(select.poll())
      self._polls[-1].register(pipe.fileno(), select.POLLIN)
    self._steps = 0

  def reset(self, seeds: Sequence[int]) -> Any:
    """Makes every environment anew and seeds it; see the base class."""
    seeds = counts.check_seeds(seeds, self.num_envs)
    self._steps = 0
    with self._told_of_ends('reset'):
      self._vector.reset_async(seed=seeds)
      self._wait('reset')
      seen, infos = self._vector.reset_wait()
    _check_failures(infos)
    return self._tree(seen)

  def step(self, actions: np.ndarray) -> base.TimeStep:
    """Steps every environment; see the base class."""
    self._steps += 1
    actions = self._as_taken(actions)
    with self._told_of_ends('step'):
      self._vector.step_async(actions)
      self._wait('step')
      observation, reward, *ends, infos = self._vector.step_wait()
    _check_failures(infos)
    observation = successor = self._tree(observation)
    ended = np.flatnonzero(ends[0] | ends[1])
    if len(ended):
      last = [self._tree(infos['final_obs'][i]) for i in ended]
      successor = answers.with_rows(observation, ended, last)
    return base.TimeStep(
      observation, reward.astype(np.float32), *ends, successor
    )

  def _tree(self, observations):
    """Returns observations as plain dicts and tuples, which JAX tells apart."""
    parts = trees.flatten(self.observation_space, observations)
    return trees.unflatten(self.observation_space, parts)

  def close(self) -> None:
    """Ends the processes, at the latest some seconds later by force."""
    if self._vector.closed:
      return
    self._vector.closed = True  # Gymnasium would wait for their answers
    # Gymnasium has none left of a process that raised on its own.
    pipes = [pipe for pipe in self._vector.parent_pipes if pipe is not None]
    for pipe in pipes:
      with contextlib.suppress(OSError):
        pipe.send(('close', None))
    deadline = time.monotonic() + FAREWELL
    for process in self._vector.processes:
      process.join(max(0.0, deadline - time.monotonic()))
    self._kill()
    atexit.unregister(self._kill)
    for pipe in pipes:
      pipe.close()

  def _kill(self):
    _kill(self._vector.processes)

  def _wait(self, giver):
    """Returns when every process has answered; says which one hangs."""
    began, is_said = time.monotonic(), False
    for i, poll in enumerate(self._polls):
      while not poll.poll(1_000 * _PERIOD):
        self.on_wait()
        if not is_said and time.monotonic() - began >= PATIENCE:
          is_said = True
          print(
            f'{self.name}: {self._place(i)} has not answered for '
            f'{PATIENCE:.0f} s (process '
            f'{self._vector.processes[i].pid}, in its {giver}). Waiting on.',
            file=sys.stderr,
            flush=True,
          )

  @contextlib.contextmanager
  def _told_of_ends(self, giver):
    """Says which process has ended, where its pipe tells no more than that."""
    try:
      yield
    except (EOFError, ConnectionError) as error:
      raise self._ended(giver) from error

  def _ended(self, giver):
    processes = self._vector.processes
    for process in processes:  # one of them ends just now, if it has not yet
      process.join(0.1 if all(each.is_alive() for each in processes) else 0)
    number, process = next(
      ((i, each) for i, each in enumerate(processes) if not each.is_alive()),
      (0, processes[0]),
    )
    code = process.exitcode
    how = f'with exit status {code}'
    if code is not None and code < 0:
      how = f'by {signal.Signals(-code).name}'
      if -code == signal.SIGKILL:
        how += ', as where memory is short'
    return errors.UserError(
      f'{self.name}: the process of {self._place(number)} ended {how} in a '
      f'{giver}. A run goes on from its last checkpoint; if it ends again, a '
      "training in another --base_dir with vector = 'sync' shows where."
    )

  def _place(self, number):
    return answers.place(number, self.num_envs, self._steps)


def _kill(processes):
  """Ends processes that have not ended by themselves."""
  left = [each for each in processes if each.is_alive()]
  for process in left:
    process.kill()
  for process in left:
    process.join(1.0)


@contextlib.contextmanager
def _safe_path() -> Iterator[None]:
  """Has processes that are started here not look in the current folder first.

  They then import what this one would, by the path that it hands to them.
  """
  before = os.environ.get('PYTHONSAFEPATH')
  os.environ['PYTHONSAFEPATH'] = '1'
  try:
    yield
  finally:
    if before is None:
      del os.environ['PYTHONSAFEPATH']
    else:
      os.environ['PYTHONSAFEPATH'] = before


class _Remote(gymnasium.Wrapper):
  """An environment in a process of its own, treated as `GymVector` would.

  It raises nothing: an exception may be of a class that can't be sent. What
  went wrong is told by `info`, as text.
  """

  def __init__(
    self,
    name: str,
    maker: Callable[[], gymnasium.Env],
    *,
    number: int,
    num_envs: int,
    stored: gymnasium.Space,
    spaces: tuple[gymnasium.Space, gymnasium.Space],
    channels_first: bool,
    starter: int,
  ):
    """Makes the environment.

    Args:
      name: What errors call it.
      maker: Makes it, again at each seeded reset.
      number: Which one it is, from 0 on.
      num_envs: Of how many.
      stored: The space of observations as they are delivered.
      spaces: Of observations and actions of the first environment.
      channels_first: Whether its images are to be transposed.
      starter: The process that asked for it, which makes one too, to look at.
    """
    if os.getpid() != starter:
      signals.leave_to_starter()
    super().__init__(maker())
    self._maker, self._fresh = maker, True
    self._place = name, number, num_envs
    self._spaces = spaces
    self._answers = answers.Answers(
      name,
      self.env.observation_space,
      stored,
      number=number,
      num_envs=num_envs,
      channels_first=channels_first,
    )
    # What is not alike is told at the reset, by a sentence.
    self.observation_space = _as_boxes(stored)
    self.action_space = spaces[1]

  def reset(self, *, seed=None, options=None):
    """Begins an episode; given a seed, in a new environment unless unused."""
    try:
      if seed is not None and not self._fresh:
        self.env.close()
        self.env = self._maker()
      self._fresh = False
      spaces = self.env.observation_space, self.env.action_space
      gym_vector.require_alike(*self._place, self._spaces, spaces)
      return self._answers.reset(self.env, seed), {}
    except BaseException as error:
      return self._nothing(), self._failure('reset', error)

  def step(self, action):
    """Steps the environment, and sends no more than is read."""
    try:
      observation, *rest = self._answers.step(self.env, action)
    except BaseException as error:
      return self._nothing(), 0.0, False, False, self._failure('step', error)
    # A copy: a reset may write into the same buffer before this is sent.
    return trees.map_trees(np.array, observation), *rest, {}

  def _failure(self, giver, error):
    return {'failure': str(self._answers.failed(giver, error))}

  def _nothing(self):
    return trees.lay_out(np.zeros, self.observation_space)


def _as_boxes(space):
  """Returns Boxes of the same arrays, whose batches keep their types."""
  return trees.map_space(
    lambda path, leaf: gymnasium.spaces.Box(0, 1, leaf.shape, leaf.dtype), space
  )


def _check_failures(infos: dict[str, Any]) -> None:
  """Raises: UserError with what the first environment that failed told."""
  for failure in infos.get('failure', ()):
    if failure:
      raise errors.UserError(failure)
