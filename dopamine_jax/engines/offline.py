"""The offline engine: learns from a dataset, and steps no environment.

The replay is filled before the first update, outside of any program, and stays
as it is. An agent step stands for a step that would have been taken: so many
updates are done as the same settings do online, and schedules, target networks
and iterations count as ever. Evaluation is on the run's environment.
"""

import time
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from dopamine_jax import errors
from dopamine_jax.datasets import base as datasets_base
from dopamine_jax.engines import engine
from dopamine_jax.engines import loop as loop_lib
from dopamine_jax.replay import uniform

_SECONDS = 0.3  # that a program should take, so that one can stop


class OfflineEngine(engine.Engine):
  """Updates from a dataset alone.

  Several seeds have the same data, each in a replay of its own.
  """

  def __init__(self, *args: Any, dataset: datasets_base.Dataset, **kwargs: Any):
    """Takes a dataset.

    Args:
      *args: see `Engine`.
      dataset: what to learn from.
      **kwargs: see `Engine`.

    Raises:
      UserError: if agent, replay or devices can't learn so.
    """
    super().__init__(*args, **kwargs)
    replay = self.loop.replay
    if not isinstance(replay, uniform.UniformReplay):
      raise errors.UserError(
        f'offline.OfflineEngine fills a replay of transitions, and '
        f'{type(self.loop.agent).__name__} has a {type(replay).__name__}. '
        'Choose an agent with a replay, such as dqn.DQN or cql.CQL.'
      )
    if self.loop.num_envs != 1 or not self.layout.is_simple:
      raise errors.UserError(
        'offline.OfflineEngine has one lane on one device. Leave '
        'runner.Runner.num_envs and runner.Runner.devices as they are.'
      )
    self._dataset = dataset
    self._learn = jax.jit(self.vectorize_loop(_learn), donate_argnums=(0, 1))
    self._length = 1  # updates of a program

  def init(self):
    """Makes the state before the first update, the replay full of data."""
    super().init()
    experience = self.state.experience
    ring = jax.tree.map(
      lambda leaf: (
        jnp.stack([leaf] * self.axis.size) if self.axis.size > 1 else leaf
      ),
      self._filled(self.axis.pick(experience.replay, 0)),
    )
    self.state = self.state.replace(experience=experience.replace(replay=ring))

  def _filled(self, ring):
    parts = self._dataset.checked(
      self.environments.observation_space,
      self.environments.action_space,
      self._as_given,
    )
    if not self._dataset.agent_units:
      parts = (self._clipped(part) for part in parts)
    slots = datasets_base.laid_out(parts)
    size = len(slots['reward'])
    if size >= ring.capacity:
      raise errors.UserError(
        f"the dataset takes {size} slots, and the replay's capacity is "
        f'{ring.capacity}. Set it to {size + 1} or more.'
      )
    ring = self.loop.replay.filled(datasets_base.fill(ring, slots))
    valid = self.loop.replay.is_valid(
      ring, jnp.zeros(size, jnp.int32), jnp.arange(size)
    )
    if not bool(valid.any()):
      raise errors.UserError(
        'the dataset has no transition of '
        f'n_step = {self.loop.replay.n_step} steps. Choose a larger one.'
      )
    return ring

  def _as_given(self, actions):
    """Returns an environment's actions as agents give them."""
    space, taken = self.environments.action_space, self.environments.as_taken
    if not isinstance(space, gymnasium.spaces.Box):
      return actions - taken(np.zeros((1, *space.shape), np.int32))
    ends = np.ones((1, *space.shape), np.float32)
    low, high = (np.asarray(taken(x), np.float32) for x in (-ends, ends))
    return 2 * (actions - low) / (high - low) - 1

  def _clipped(self, part):
    """Returns a part with rewards as learning sees them."""
    reward = loop_lib.clipped(part.reward, self.loop.reward_clip)
    return part._replace(reward=np.asarray(reward, np.float32))

  def run(self, num_steps, *, cut_with, on_step):
    """Does the updates of so many agent steps; see `Engine.run`.

    No episode is running that could be cut.
    """
    del cut_with
    metrics = self._zero_metrics(self.state)
    due = self._updates_due_by(self.steps + num_steps)
    left = due - self._updates_due_by(self.steps)
    while left:
      on_step()
      count = min(left, self._length)
      began = time.perf_counter()
      self.state, metrics, finite = self._learn(
        self.state, metrics, self.axis.number(count)
      )
      self._require_finite(metrics.total, finite)
      if time.perf_counter() - began < _SECONDS and count == self._length:
        self._length *= 2
      left -= count
    self.steps += num_steps
    experience = self.state.experience
    self.state = self.state.replace(
      experience=experience.replace(
        agent_steps=jnp.asarray(self.axis.number(self.steps))
      )
    )
    return self._reduced(metrics)

  def _updates_due_by(self, steps):
    agent = self.loop.agent
    return steps // agent.update_period * agent.updates_per_period


def _learn(loop, state, metrics, count):
  """Updates so many times; the number is no constant of the program."""

  def once(_, changing):
    state, metrics, finite = changing
    state, metrics, now = loop.update(1, state, metrics)
    return state, metrics, finite & now

  finite = jnp.ones(len(metrics.total), bool)
  return jax.lax.fori_loop(0, count, once, (state, metrics, finite))
