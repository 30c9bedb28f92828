"""What agents share that learn from what they have just done, and once.

An update gets a rollout, and makes of it a batch whose targets are fixed. Then
it passes over the batch some times, in shuffled minibatches: one XLA program.
"""

from collections.abc import Callable
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
import optax

from dopamine_jax import agent as agent_lib
from dopamine_jax import spaces
from dopamine_jax.learning import distributions
from dopamine_jax.learning import encoding
from dopamine_jax.learning import normalization
from dopamine_jax.learning import optimization
from dopamine_jax.learning import outputs
from dopamine_jax.learning import returns
from dopamine_jax.networks import modules
from dopamine_jax.networks import variables
from dopamine_jax.replay import rollout


class State(struct.PyTreeNode):
  """What learning changes."""

  params: optax.Params
  optimizer_state: optax.OptState
  updates: jax.Array  # int32 scalar
  observations: normalization.Normalization
  rewards: normalization.RewardScale | normalization.Identity


class OnPolicy(agent_lib.Agent):
  """Learns from each rollout once; subclasses say what.

  The statistics of observations change after an update, not at every step, so
  that an update can tell what the policy that acted saw.

  Attributes:
    network: makes the Flax module from `num_outputs`, one for each action, or
      for each number of a continuous one.
    optimizer: an optax transformation; its schedules count gradient steps,
      `num_epochs * num_minibatches` an update.
    update_period: agent steps of a rollout, T * N.
    num_epochs: passes over a rollout.
    num_minibatches: gradient steps of a pass.
    gamma: discount of one agent step.
    normalize_observations: by running mean and variance.
    normalize_rewards: by the running variance of discounted returns.
  """

  network: modules.Maker | None
  optimizer: optimization.Optimizer
  update_period: int
  num_epochs: int
  num_minibatches: int
  gamma: float = 0.99
  normalize_observations: bool = False
  normalize_rewards: bool = False

  # No setting: it has no type. What subclasses may make one.
  continuous = 'gaussian'

  def __post_init__(self):
    super().__post_init__()
    self.require_fraction('gamma')
    self.require_at_least(1, 'num_epochs', 'num_minibatches')
    self.require_multiple('update_period', 'num_minibatches')

  def init_params(self, key: jax.Array, observation: jax.Array) -> optax.Params:
    """Returns the first parameters; see `init`."""
    raise NotImplementedError

  def batch(
    self, params: optax.Params, trajectory: agent_lib.Trajectory
  ) -> Any:
    """Returns what to learn of each step: a pytree of arrays [T, N, ...].

    Args:
      params: those that acted.
      trajectory: [T, N], normalized.
    """
    raise NotImplementedError

  def loss(
    self, params: optax.Params, batch: Any, updates: jax.Array
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the loss of a minibatch, and metrics.

    Args:
      params: those that learn.
      batch: some rows of what `batch` returned, arrays [B, ...].
      updates: int32 scalar, updates so far.
    """
    raise NotImplementedError

  def rows(self, trajectory: agent_lib.Trajectory, batch: Any) -> Any:
    """Returns what minibatches are made of: rows [K, ...].

    Args:
      trajectory: [T, N], normalized.
      batch: what `batch` made of it.
    """
    del trajectory
    return jax.tree.map(returns.flat, batch)

  def last_count(self, name, agent_steps):
    """Counts an update's gradient steps; see `Agent.last_count`."""
    updates = super().last_count(name, agent_steps)
    each = self.num_epochs * self.num_minibatches
    return updates * each if name == 'optimizer' else updates

  def stop(self) -> Callable[[dict[str, jax.Array]], jax.Array] | None:
    """Returns what ends an update early, see `optimization.descend`."""
    return None

  def make_replay(self, stack: int) -> rollout.Rollout:
    """Returns the replay; see `Agent.make_replay`."""
    return rollout.Rollout(
      steps=self.update_period, gamma=self.gamma, stack=stack
    )

  def init(self, key, observation) -> State:
    """Returns the first state; see `Agent.init`."""
    params = self.init_params(key, observation)
    observations = rewards = normalization.Identity()
    if self.normalize_observations:
      observations = normalization.of(self.observation_space, observation)
    if self.normalize_rewards:
      num_envs = spaces.num_rows(observation)
      rewards = normalization.RewardScale.empty(num_envs)
    return State(
      params=params,
      optimizer_state=self.optimizer.init(variables.learnt(params)),
      updates=jnp.zeros((), jnp.int32),
      observations=observations,
      rewards=rewards,
    )

  def update(self, state, sample, key):
    """Learns from a rollout [T, N]; see `Agent.update`."""
    seen = sample.transition
    rewards = state.rewards.add(seen, self.gamma)
    trajectory = _normalized(seen, state.observations, rewards)
    rows = self.rows(trajectory, self.batch(state.params, trajectory))
    num_rows = len(jax.tree.leaves(rows)[0])

    def loss_fn(params, batch):
      loss, metrics = self.loss(params, batch, state.updates)
      outputs.require_floats(self, 'loss()[0]', loss, ())
      name = f'{type(self).__name__}.loss'
      return loss, outputs.require_scalars(name, metrics)

    params, optimizer_state, metrics = optimization.descend(
      loss_fn,
      self.optimizer,
      state.params,
      state.optimizer_state,
      rows,
      optimization.shuffled(
        key, num_rows, self.num_epochs, self.num_minibatches
      ),
      self.stop(),
      self.reductions,
      key,
    )
    state = state.replace(
      params=params,
      optimizer_state=optimizer_state,
      updates=state.updates + 1,
      observations=state.observations.add(seen.observation),
      rewards=rewards,
    )
    return state, metrics, sample.weight

  def anatomy(self, state) -> dict[str, agent_lib.Anatomy]:
    """Returns the one network, which all parameters are of."""
    see = state.observations.normalize
    network = agent_lib.Anatomy(
      self.module,
      state.params,
      inputs=lambda trajectory: (see(trajectory.observation),),
    )
    return {'': network}

  @property
  def module(self):
    """The network, a Flax module."""
    return encoding.network(self, 'network', num_outputs=self.num_outputs)

  @property
  def num_outputs(self) -> int:
    """How many numbers of the network make a policy."""
    return distributions.num_outputs(self.action_space, self.continuous)


def _normalized(trajectory, observations, rewards):
  """Returns a trajectory as it is learnt from."""
  see = observations.normalize
  if isinstance(trajectory, agent_lib.Sequence):
    seen, after = trajectory.seen, trajectory.next_seen
    trajectory = trajectory.replace(
      seen=seen.replace(observation=see(seen.observation)),
      next_seen=after.replace(observation=see(after.observation)),
    )
  return trajectory.replace(
    observation=see(trajectory.observation),
    next_observation=see(trajectory.next_observation),
    reward=rewards.normalize(trajectory.reward),
  )
