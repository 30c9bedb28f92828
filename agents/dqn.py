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
from dopamine_jax.learning import action_values
from dopamine_jax.learning import optimization
from dopamine_jax.learning import outputs as outputs_lib  # also a method


class DQNState(struct.PyTreeNode):
  """What learning changes."""

  params: optax.Params
  target_params: optax.Params
  optimizer_state: optax.OptState
  updates: jax.Array  # int32 scalar


class DQN(action_values.ActionValues):
  """Deep Q-learning; variants override `q_values` or `losses`.

  Attributes:
    optimizer: an optax transformation; its schedules count updates.
    target_update_period: agent steps between updates of the target network, a
      multiple of `update_period`; None: each update of the network is one.
    target_tau: how far the target network moves to the online one in each of
      its updates; 1 makes it a copy.
    huber_delta: where the loss turns from squared to linear; None: never.
  """

  schedule_count = 'updates'  # so that a reset of it begins them anew

  optimizer: optimization.Optimizer = values.call(
    optax.adam, 6.25e-5, eps=1.5e-4
  )
  target_update_period: int | None = 8_000
  target_tau: float = 1.0
  huber_delta: float | None = None

  def __post_init__(self):
    super().__post_init__()
    if self.target_update_period is not None:
      self.require_multiple('target_update_period', 'update_period')
    self.require_above(0, 'huber_delta', 'target_tau')
    self.require_fraction('target_tau')

  def require_no_huber(self, instead: str):
    """Refuses `huber_delta` where errors of values are not learnt from."""
    if self.huber_delta is not None:
      self.refuse('huber_delta', f'has no effect: {instead}')

  def init(self, key, observation) -> DQNState:
    """Returns a network and its copy; see `Agent.init`."""
    params = self.init_params(key, observation)
    return DQNState(
      params=params,
      # A copy: the update donates both.
      target_params=jax.tree.map(jnp.copy, params),
      optimizer_state=self.optimizer.init(networks.learnt(params)),
      updates=jnp.zeros((), jnp.int32),
    )

  def init_params(self, key, observation) -> optax.Params:
    """Returns the first parameters, once the network's outputs fit."""
    rngs = {'params': key, 'noise': jax.random.fold_in(key, 1)}
    params = outputs_lib.init(self.module, rngs, observation)
    q_values = functools.partial(self.q_values, key=key)
    needs = [(int(self.action_space.n),)]
    outputs_lib.require(self.module, q_values, params, observation, needs=needs)
    return params

  def losses(
    self,
    params: optax.Params,
    target_params: optax.Params,
    batch: agent_lib.Transition,
    key: jax.Array,
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns each transition's loss [B] (Mnih et al., 2015, eq. 2).

    Args:
      params: the online network's parameters.
      target_params: the target network's.
      batch: a `Transition`, leading axis [B].
      key: a PRNG key, for networks with noise; each pass has its own.

    Returns:
      The losses [B], and scalar metrics by name.
    """
    q = self.q_values(params, batch.observation, key)
    target_key = jax.random.fold_in(key, 1)
    q_next = self.q_values(target_params, batch.next_observation, target_key)
    q_next = self.only_allowed(q_next, batch.next_observation)
    td_error = jax.vmap(rlax.q_learning)(
      q, batch.action, batch.reward, batch.discount, q_next
    )
    return self.td_losses(td_error), action_values.metrics(q)

  def td_losses(self, td_error: jax.Array) -> jax.Array:
    """Returns the squared or Huber loss [B] of temporal differences [B]."""
    if self.huber_delta is None:
      return jnp.square(td_error)
    return rlax.huber_loss(td_error, self.huber_delta)

  def update(self, state, sample, key):
    """Takes one gradient step; see `Agent.update`."""
    batch = sample.transition

    def loss_fn(params):
      answer = self.losses(params, state.target_params, batch, key)
      losses, metrics = outputs_lib.require_losses(self, answer, batch.reward)
      return jnp.mean(sample.weight * losses), (losses, metrics)

    state, (losses, seen), metrics = self.descend(state, loss_fn, key)
    return state, metrics | seen, jnp.sqrt(losses)

  def descend(self, state, loss_fn, key):
    """Takes one gradient step, and moves the target network if that is due.

    Args:
      state: the agent's.
      loss_fn: of parameters; gives a loss and anything else.
      key: a PRNG key, for networks with dropout.

    Returns:
      The new state, what else `loss_fn` gave, and metrics by name.
    """
    params, optimizer_state, rest, metrics = optimization.learn(
      *(loss_fn, self.optimizer, state.params, state.optimizer_state, key)
    )
    state = state.replace(
      params=params,
      target_params=self.follow(params, state.target_params, state.updates + 1),
      optimizer_state=optimizer_state,
      updates=state.updates + 1,
    )
    return state, rest, metrics

  def follow(self, params, target_params, updates):
    """Returns the target network's parameters after so many updates."""
    # Where it varies from lane to lane, it is traced.
    if not (isinstance(self.target_tau, float) and self.target_tau == 1):
      moved = params, target_params, self.target_tau
      params = optimization.incremental_update(*moved)
    if self.target_update_period is None:
      return params
    period = self.last_count('updates', self.target_update_period)
    return optax.periodic_update(params, target_params, updates, period)
