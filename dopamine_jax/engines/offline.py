"""The offline engine: learns from a dataset, and steps no environment.

The replay is filled before the first update, outside of any program, and stays
as it is. An agent step stands for a step that would have been taken: so many
updates are done as the same settings do online, and schedules, target networks
and iterations count as ever. Evaluation is on the run's environment.
"""

from typing import Any
import zlib

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from dopamine_jax import errors
from dopamine_jax.datasets import base as datasets_base
from dopamine_jax.engines import compiled
from dopamine_jax.engines import counting
from dopamine_jax.engines import engine
from dopamine_jax.engines import loop as loop_lib
from dopamine_jax.replay import uniform
from dopamine_jax.system import processes


class OfflineEngine(engine.Engine):
  """Updates from a dataset alone.

  Several seeds have the same data, each in a replay of its own. The first
  checkpoint holds it, so that a run which goes on needs no dataset.

  Attributes:
    dataset: what it learns from.
  """

  fills_replay = True

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
    self.dataset = dataset
    self._learn = jax.jit(self._take_updates, donate_argnums=(0, 1))
    self._ready = jax.jit(self.vectorize_loop(_ready), donate_argnums=0)
    self._pace = compiled.Pace()

  @property
  def learning_begins(self):
    """At once: the replay is full."""
    return 0

  def init(self):
    """Makes the state before the first update, the replay full of data."""
    super().init()
    self._fill()

  def restore(self, state, steps, began):
    """Goes on from a checkpoint's state; see `Engine.restore`.

    Of a checkpoint without the replay, the dataset is read again.
    """
    super().restore(state, steps, began)
    if not processes.fetch(state.experience.replay.head).all():
      self._fill()

  def _fill(self):
    """Writes the dataset into the empty replay of each seed."""
    parts = self.dataset.checked(
      self.environments.observation_space,
      self.environments.action_space,
      self._as_given,
    )
    parts = (self._clipped(part) for part in parts)
    experience = self.state.experience
    pieces = self._read(datasets_base.laid_out(parts))
    ring = datasets_base.fill(experience.replay, pieces)
    ring, is_enough = self._ready(ring)
    if not processes.fetch(is_enough).all():
      raise errors.UserError(
        'the dataset has no transition of '
        f'n_step = {self.loop.replay.n_step} steps. Choose a larger one.'
      )
    self.state = self.state.replace(experience=experience.replace(replay=ring))

  def _read(self, pieces):
    """Yields the pieces, and takes down what they hold.

    Raises:
      UserError: if the agent learns whole returns, and an episode is longer
        than its `n_step`.
    """
    digests, longest = {}, 0
    for piece in pieces:
      longest = max(longest, int(piece['age'].max()))
      for name, rows in piece.items():
        rows = np.ascontiguousarray(rows).view(np.uint8)
        digests[name] = zlib.crc32(rows, digests.get(name, 0))
      yield piece
    agent, n_step = self.loop.agent, self.loop.replay.n_step
    if agent.needs_whole_returns and n_step < longest:
      agent.refuse(
        'n_step',
        f'is less than the longest episode of the dataset, so that returns '
        f'would not be whole; set it to {longest}',
      )
    self.filled_with = ''.join(f'{digests[x]:08x}' for x in sorted(digests))

  def _as_given(self, actions):
    """Returns an environment's actions as agents give them."""
    space, taken = self.environments.action_space, self.environments.as_taken
    if not isinstance(space, gymnasium.spaces.Box):
      return actions - taken(np.zeros((1, *space.shape), np.int32))
    ends = np.ones((1, *space.shape), np.float32)
    low, high = (np.asarray(taken(x), np.float32) for x in (-ends, ends))
    width = high - low
    given = 2 * (actions - low) / np.where(width == 0, 1, width) - 1
    # Where both bounds are equal there is one action.
    only = np.where(actions == low, 0, np.inf)
    return np.where(width == 0, only, given)

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
    agent, end = self.loop.agent, self.steps + num_steps
    done, due = map(self._updates_due_by, (self.steps, end))
    while done < due:
      on_step()
      self._pace.start()
      self.state, metrics, finite, count = self._learn(
        self.state, metrics, np.int32(min(due - done, self._pace.length))
      )
      count = int(processes.fetch(count))
      self._pace.stop(count)
      done += count
      self.steps = done // agent.updates_per_period * agent.update_period
      self._require_finite(metrics.total, finite)
    self.steps = end
    experience = self.state.experience
    count = self.axis.number(counting.in_32_bits(self.steps))
    self.state = self.state.replace(
      experience=experience.replace(agent_steps=jnp.asarray(count))
    )
    return self._reduced(metrics)

  def _updates_due_by(self, steps):
    agent = self.loop.agent
    return steps // agent.update_period * agent.updates_per_period

  def _take_updates(self, state, metrics, num_updates):
    """Updates up to the first whose metrics are not finite; traced.

    Returns:
      The state, the sums, which metrics are finite, and how many it took. The
      number is no constant of the program.
    """

    def update(loop, state, metrics):
      return loop.update(1, state, metrics)

    def goes_on(carry):
      _, _, finite, i = carry
      return (i < num_updates) & jnp.all(finite)

    def once(carry):
      state, metrics, finite, i = carry
      state, metrics, now = self.vectorize_loop(update)(state, metrics)
      finite = finite & now if self.check_finite else finite
      return state, metrics, finite, i + 1

    finite = jnp.ones((*metrics.count.shape, len(metrics.total)), bool)
    start = state, metrics, finite, jnp.zeros((), jnp.int32)
    return jax.lax.while_loop(goes_on, once, start)


def _ready(loop, ring):
  """Returns a filled ring as the replay needs it, and if any step is valid."""
  ring = loop.replay.filled(ring)
  slot = jnp.arange(ring.capacity)
  return ring, loop.replay.is_valid(ring, jnp.zeros_like(slot), slot).any()
