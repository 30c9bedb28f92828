"""PQN with memory: recurrent Q(lambda) over many environments.

Gallici et al. (2024), Simplifying Deep Temporal Difference Learning, section
5.4. https://arxiv.org/abs/2407.04811

Differs from the paper:
1. A minibatch has whole environments, with the memory that each began the
   rollout with; the authors' code learns from a window of earlier rollouts too.
2. As `pqn.PQN`.
"""

import functools

import jax.numpy as jnp
import rlax

from dopamine_jax import agent as agent_lib
from dopamine_jax import networks
from dopamine_jax import spaces
from dopamine_jax import values
from dopamine_jax.agents import pqn
from dopamine_jax.learning import action_values
from dopamine_jax.learning import exploration
from dopamine_jax.learning import masks
from dopamine_jax.learning import recurrent
from dopamine_jax.learning import returns
from dopamine_jax.networks import heads
from dopamine_jax.networks import modules
from dopamine_jax.networks import recurrent as recurrent_networks


class PQNRNN(pqn.PQN):
  """Parallelized Q-network with memory.

  Attributes:
    network: a Flax module with memory, or what makes it from `num_outputs`,
      like `networks.RecurrentQ`, with normalized layers.
    num_minibatches: gradient steps of a pass; each has a share of the
      environments.
  """

  network: modules.Maker = functools.partial(
    networks.RecurrentQ,
    torso=functools.partial(
      networks.MLPTorso, hidden=(64,), activation=networks.normalized_relu
    ),
    cell='gru',
    head=functools.partial(heads.Plain, hidden=()),
  )
  num_minibatches: int = 4

  def init_params(self, key, observation):
    """Returns the first parameters; see `OnPolicy.init_params`."""
    recurrent.require_shares(self, spaces.num_rows(observation))
    needs = [(int(self.action_space.n),)]
    return recurrent.first_params(
      self.module, key, observation, self.action_space, needs
    )

  def init_memory(self, num_envs):
    """Returns the network's; see `Agent.init_memory`."""
    return recurrent.init_memory(self.module, num_envs)

  def _now(self, state, memory, seen):
    """Returns values [N, A] of one step, and the memory after it."""
    observation = state.observations.normalize(seen.observation)
    seen = seen.replace(observation=observation)
    return recurrent_networks.one_step(self.module, state.params, memory, seen)

  def act_with_memory(self, state, memory, seen, step, key, *, explore):
    """Acts epsilon-greedily; see `Agent.act_with_memory`."""
    q, memory = self._now(state, memory, seen)
    epsilon = self.evaluation_epsilon
    if explore:
      epsilon = values.at(self.epsilon, step)
    q = self.only_allowed(q, seen.observation)
    mask = spaces.mask_of(self.observation_space, seen.observation)
    return exploration.epsilon_greedy(q, epsilon, key, mask), memory

  def outlook_with_memory(self, state, memory, seen, key):
    """Returns what films show; see `Agent.outlook`."""
    q, _ = self._now(state, memory, seen)
    q = masks.shown(self.observation_space, q, seen.observation)
    return agent_lib.Outlook(value=jnp.max(q, axis=-1), values=q)

  def batch(self, params, trajectory) -> pqn.Batch:
    """Returns what to learn of each step; see `OnPolicy.batch`."""
    q, memories = networks.apply(
      self.module, params, trajectory.memory, trajectory.seen
    )

    def best(q, observation):
      return jnp.max(self.only_allowed(q, observation), axis=-1)

    now = best(q, trajectory.seen.observation)
    next_value = recurrent.next_values(
      *(self.module, params, trajectory, now, memories), value_of=best
    )
    return pqn.Batch(
      observation=None,  # a stretch has what was seen
      action=trajectory.action,
      target=returns.lambda_returns(trajectory, next_value, self.q_lambda),
    )

  def rows(self, trajectory, batch):
    """Returns a row for each environment; see `OnPolicy.rows`."""
    return recurrent.stretches(trajectory, batch)

  def loss(self, params, batch, updates):
    """Returns half the mean squared error of the chosen actions' values."""
    del updates
    memory, seen, batch = recurrent.in_time(batch)
    q, _ = networks.apply(self.module, params, memory, seen)
    q = returns.flat(q)
    chosen = rlax.batched_index(q, batch.action)
    loss = jnp.mean(jnp.square(chosen - batch.target)) / 2
    return loss, action_values.metrics(q)

  def anatomy(self, state):
    """Returns the network, for `health`; see `Agent.anatomy`."""
    return {'': recurrent.anatomy(self.module, state.params)}
