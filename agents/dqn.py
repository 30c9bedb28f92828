"""DQN: a Q-network, a replay memory and a target network.

Mnih et al. (2015), Human-level control through deep reinforcement learning.
https://www.nature.com/articles/nature14236

Differs from the paper:
1. Adam with the mean squared error by default, as in Castro et al. (2018)
   and Ceron & Castro (2021), instead of RMSProp with clipped errors;
   `huber_delta = 1.0` clips as the paper does.
2. Epsilon decays to 0.01 over 250k agent steps, after the random warm-up,
   instead of to 0.1 over 1M; 0.001 instead of 0.05 in evaluation.
3. The target network is a copy each 8,000 agent steps instead of 40,000, and
   learning begins with 20,000 transitions instead of 50,000, as there.
"""

import functools

from flax import struct
import jax
import jax.numpy as jnp
import optax
import rlax

from dopamine_jax import agent as agent_lib
from dopamine_jax import networks
from dopamine_jax import values
from dopamine_jax.learning import exploration
from dopamine_jax.learning import off_policy
from dopamine_jax.learning import optimization
from dopamine_jax.learning import (
  outputs as outputs_lib,  # a method is called `outputs`
)
from dopamine_jax.networks import modules


class DQNState(struct.PyTreeNode):
  """What learning changes."""

  params: optax.Params
  target_params: optax.Params
  optimizer_state: optax.OptState
  updates: jax.Array  # int32 scalar


class DQN(off_policy.OffPolicy):
  """Deep Q-learning; variants override `q_values` or `losses`.

  Attributes:
    network: makes the Flax module from `num_outputs`, one for each action.
    optimizer: an optax transformation; its schedules count updates.
    target_update_period: agent steps between copies to the target network; a
      multiple of `update_period`.
    epsilon: of epsilon-greedy training, a number or an optax schedule over
      agent steps. Until the replay holds its `min_history`, all is random.
    evaluation_epsilon: the same when not training.
    huber_delta: where the loss turns from squared to linear; None: never.
  """

  network: modules.Maker = networks.NatureCNN
  optimizer: optimization.Optimizer = values.call(
    optax.adam, 6.25e-5, eps=1.5e-4
  )
  target_update_period: int = 8_000
  epsilon: float | optax.Schedule = values.call(
    optax.linear_schedule, 1.0, 0.01, 250_000, transition_begin=20_000
  )
  evaluation_epsilon: float = 0.001
  huber_delta: float | None = None

  over_agent_steps = ('epsilon',)

  def __post_init__(self):
    super().__post_init__()
    self.require_discrete_actions()
    self.require_multiple('target_update_period', 'update_period')
    self.require_fraction('epsilon', 'evaluation_epsilon')
    self.require_above(0, 'huber_delta')

  def init(self, key, observation) -> DQNState:
    """See base class."""
    rngs = {'params': key, 'noise': jax.random.fold_in(key, 1)}
    params = outputs_lib.init(self.module, rngs, observation)
    values = functools.partial(self.q_values, key=key)
    needs = [(int(self.action_space.n),)]
    outputs_lib.require(self.module, values, params, observation, needs=needs)
    return DQNState(
      params=params,
      # A copy: the update donates both.
      target_params=jax.tree.map(jnp.copy, params),
      optimizer_state=self.optimizer.init(params),
      updates=jnp.zeros((), jnp.int32),
    )

  def outputs(self, params, observation, key) -> jax.Array:
    """Returns what the network does [B, num_outputs]; `key`: its noise."""
    variables, rngs = {'params': params}, {'noise': key}
    return self.module.apply(variables, observation, rngs=rngs)

  def q_values(self, params, observation, key) -> jax.Array:
    """Returns Q-values [B, A]."""
    return self.outputs(params, observation, key)

  def batch_q_values(self, params, observation, key) -> jax.Array:
    """Returns what metrics report [B, A]: Q-values as `losses` has them."""
    return self.q_values(params, observation, key)

  def distribution(self, params, observation, key):
    """Returns the return's distribution, see `Outlook`; None: values alone."""
    del params, observation, key
    return None

  def losses(self, params, target_params, batch, key) -> jax.Array:
    """Returns each transition's loss [B] (Mnih et al., 2015, eq. 2).

    The online network sees `batch.observation` with `key` itself, so that XLA
    does this once for `batch_q_values` too; any other pass has its own key.
    """
    q = self.q_values(params, batch.observation, key)
    target_key = jax.random.fold_in(key, 1)
    q_next = self.q_values(target_params, batch.next_observation, target_key)
    td_error = jax.vmap(rlax.q_learning)(
      q, batch.action, batch.reward, batch.discount, q_next
    )
    return self.td_losses(td_error)

  def td_losses(self, td_error: jax.Array) -> jax.Array:
    """Returns the squared or Huber loss [B] of temporal differences [B]."""
    if self.huber_delta is None:
      return jnp.square(td_error)
    return rlax.huber_loss(td_error, self.huber_delta)

  def act(self, state, observation, step, key, *, explore) -> jax.Array:
    """Acts epsilon-greedily; see base class."""
    network_key, explore_key = jax.random.split(key)
    q = self.q_values(state.params, observation, network_key)
    epsilon = self.epsilon_at(step, explore=explore)
    return exploration.epsilon_greedy(q, epsilon, explore_key)

  def epsilon_at(self, step, *, explore: bool) -> float | jax.Array:
    """Returns how many of the actions are random after `step` agent steps."""
    schedule = self.epsilon if explore else self.evaluation_epsilon
    return values.at(schedule, step)

  def update(self, state, sample, key):
    """Takes one gradient step; see base class."""
    batch = sample.transition

    def loss_fn(params):
      losses = self.losses(params, state.target_params, batch, key)
      outputs_lib.require_floats(self, 'losses()', losses, batch.reward.shape)
      q = self.batch_q_values(params, batch.observation, key)
      return jnp.mean(sample.weight * losses), (losses, q)

    gradient_fn = jax.value_and_grad(loss_fn, has_aux=True)
    (loss, (losses, q)), gradients = gradient_fn(state.params)
    params, optimizer_state, metrics = optimization.take_step(
      self.optimizer, gradients, state.optimizer_state, state.params
    )
    updates = state.updates + 1
    period = self.target_update_period // self.update_period
    target_params = optax.periodic_update(
      params, state.target_params, updates, period
    )
    state = DQNState(params, target_params, optimizer_state, updates)
    metrics |= {'Loss': loss, 'QMean': jnp.mean(q), 'QMax': jnp.max(q)}
    return state, metrics, jnp.sqrt(losses)

  def anatomy(self, state) -> dict[str, agent_lib.Anatomy]:
    """See base class."""
    params, target_params = state.params, state.target_params
    network = agent_lib.Anatomy(
      self.module, params, target_params, values=self.q_values
    )
    return {'': network}

  def outlook(self, state, observation, key) -> agent_lib.Outlook:
    """See base class."""
    network_key, _ = jax.random.split(key)  # as in `act`
    see = state.params, observation, network_key
    q = self.q_values(*see)
    return agent_lib.Outlook(
      value=jnp.max(q, axis=-1),
      values=q,
      distribution=self.distribution(*see),
    )

  def greedy(self) -> 'DQN':
    """See base class."""
    return self.replace(evaluation_epsilon=0.0)

  def schedules(self, step: int) -> dict[str, float]:
    """See base class."""
    return {'Epsilon': float(self.epsilon_at(step, explore=True))}

  @property
  def num_outputs(self) -> int:
    """What the network's last layer has: one value for each action."""
    return int(self.action_space.n)

  @property
  def module(self):
    """The network, a Flax module."""
    return self.make_part('network', num_outputs=self.num_outputs)
