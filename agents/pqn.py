"""PQN: Q-learning over many environments, without a replay or target network.

Gallici et al. (2024), Simplifying Deep Temporal Difference Learning.
https://arxiv.org/abs/2407.04811

The network normalizes its layers, which keeps the learning stable: a network
that you choose is to have `networks.normalized_relu` as its activation.

Differs from the paper:
1. A truncated episode goes on in the value of its last observation; the
   authors' code takes every end for a termination.
"""

from flax import struct
import jax
import jax.numpy as jnp
import optax
import rlax

from dopamine_jax import agent as agent_lib
from dopamine_jax import networks
from dopamine_jax import spaces
from dopamine_jax import values
from dopamine_jax.learning import action_values
from dopamine_jax.learning import encoding
from dopamine_jax.learning import exploration
from dopamine_jax.learning import masks
from dopamine_jax.learning import on_policy
from dopamine_jax.learning import optimization
from dopamine_jax.learning import outputs
from dopamine_jax.learning import returns
from dopamine_jax.networks import modules


class Batch(struct.PyTreeNode):
  """What the epochs go over, [B, ...]."""

  observation: jax.Array
  action: jax.Array
  target: jax.Array


class PQN(on_policy.OnPolicy):
  """Parallelized Q-network: Q(lambda) from each rollout.

  Attributes:
    network: makes the Flax module of the values from `num_outputs`; None:
      `networks.fitting`, with normalized layers.
    q_lambda: how far returns look ahead before the largest value, from 0 to 1.
    epsilon: of epsilon-greedy training, a number or an optax schedule over
      agent steps.
    evaluation_epsilon: the chance of a random action when not training.
  """

  network: modules.Maker | None = None
  optimizer: optimization.Optimizer = values.call(
    optimization.clipped, values.call(optax.radam, 2.5e-4), max_norm=10.0
  )
  update_period: int = 4_096
  num_epochs: int = 2
  num_minibatches: int = 32
  q_lambda: float = 0.65
  epsilon: float | optax.Schedule = values.call(
    optax.linear_schedule, 1.0, 0.001, 5_000_000
  )
  evaluation_epsilon: float = 0.0

  over_agent_steps = ('epsilon',)

  def __post_init__(self):
    super().__post_init__()
    self.require_discrete_actions()
    self.require_fraction('q_lambda', 'epsilon', 'evaluation_epsilon')

  def init_params(self, key, observation):
    """Returns the first parameters; see `OnPolicy.init_params`."""
    needs = [(int(self.action_space.n),)]
    return outputs.first_params(self.module, key, observation, needs=needs)

  def q_values(self, params, observation) -> jax.Array:
    """Returns Q-values [B, A]."""
    return networks.apply(self.module, params, observation)

  def only_allowed(self, q, observation) -> jax.Array:
    """Returns Q-values [..., A] by which to choose an action."""
    return masks.only_allowed(self.observation_space, q, observation)

  def act(self, state, observation, step, key, *, explore) -> jax.Array:
    """Acts epsilon-greedily; see `Agent.act`."""
    q = self.q_values(state.params, state.observations.normalize(observation))
    epsilon = self.evaluation_epsilon
    if explore:
      epsilon = values.at(self.epsilon, step)
    q = self.only_allowed(q, observation)
    mask = spaces.mask_of(self.observation_space, observation)
    return exploration.epsilon_greedy(q, epsilon, key, mask)

  def outlook(self, state, observation, key) -> agent_lib.Outlook:
    """Returns what films show; see `Agent.outlook`."""
    q = self.q_values(state.params, state.observations.normalize(observation))
    q = masks.shown(self.observation_space, q, observation)
    return agent_lib.Outlook(value=jnp.max(q, axis=-1), values=q)

  def batch(self, params, trajectory) -> Batch:
    """Returns what to learn of each step; see `OnPolicy.batch`."""

    def best(observation):
      q = self.only_allowed(self.q_values(params, observation), observation)
      return jnp.max(q, axis=-1)

    now = returns.over_rows(best, trajectory.observation)
    next_values = returns.next_values(trajectory, now, best)
    return Batch(
      observation=trajectory.observation,
      action=trajectory.action,
      target=returns.lambda_returns(trajectory, next_values, self.q_lambda),
    )

  def loss(self, params, batch, updates):
    """Returns half the mean squared error of the chosen actions' values."""
    del updates
    q = self.q_values(params, batch.observation)
    chosen = rlax.batched_index(q, batch.action)
    loss = jnp.mean(jnp.square(chosen - batch.target)) / 2
    return loss, action_values.metrics(q)

  def greedy(self) -> 'PQN':
    """Returns this agent without exploration; see `Agent.greedy`."""
    return self.replace(evaluation_epsilon=0.0)

  def schedules(self, step: int) -> dict[str, float]:
    """Returns what is logged of schedules; see `Agent.schedules`."""
    return {'Epsilon': float(values.at(self.epsilon, step))}

  @property
  def module(self):
    """The network, a Flax module."""
    if self.network is not None:
      return super().module
    module = networks.fitting(self.observation_space)(
      num_outputs=int(self.action_space.n), activation=networks.normalized_relu
    )
    return encoding.encoded(self.observation_space, module)
