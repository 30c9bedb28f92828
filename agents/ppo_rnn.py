"""PPO with memory: a recurrent policy, learnt from whole stretches of steps.

Schulman et al. (2017), Proximal Policy Optimization Algorithms.
https://arxiv.org/abs/1707.06347

With a recurrent network as in Huang et al. (2022), details of LSTM:
https://iclr-blog-track.github.io/2022/03/25/ppo-implementation-details. A
minibatch has whole environments, each with the memory that it began the rollout
with, and memory is fresh where an episode begins.
"""

import jax
import jax.numpy as jnp

from dopamine_jax import agent as agent_lib
from dopamine_jax import networks
from dopamine_jax import spaces
from dopamine_jax.agents import ppo
from dopamine_jax.learning import distributions
from dopamine_jax.learning import masks
from dopamine_jax.learning import recurrent
from dopamine_jax.learning import returns
from dopamine_jax.networks import modules


class PPORNN(ppo.PPO):
  """Proximal policy optimization with memory.

  `num_minibatches` divides the environments of a rollout.

  Attributes:
    network: makes the Flax module of policy and value from `num_outputs`, like
      `networks.RecurrentActorCritic`.
    num_minibatches: gradient steps of a pass; each has a share of the
      environments.
  """

  network: modules.Maker = networks.RecurrentActorCritic
  num_minibatches: int = 4

  def init_params(self, key, observation):
    """Returns the first parameters; see `OnPolicy.init_params`."""
    recurrent.require_shares(self, spaces.num_rows(observation))
    needs = [(self.num_outputs,), ()]
    params = recurrent.first_params(
      self.module, key, observation, self.action_space, needs
    )
    log_std = jnp.full(self.action_space.shape, self.log_std, jnp.float32)
    return {'network': params, 'log_std': log_std}

  def init_memory(self, num_envs):
    """Returns the network's; see `Agent.init_memory`."""
    return recurrent.init_memory(self.module, num_envs)

  def unroll(self, params, memory, seen):
    """Returns policy and values of rows, and the memory after each.

    Args:
      params: see `init_params`.
      memory: [B, ...], before the first row.
      seen: Seen [T, B].

    Returns:
      The distribution of actions [T * B], values [T, B], memory [T, B, ...].
    """
    network = self.module, params['network']
    (outputs, value), memories = networks.apply(*network, memory, seen)
    outputs, observation = jax.tree.map(
      returns.flat, (outputs, seen.observation)
    )
    outputs = masks.only_allowed(self.observation_space, outputs, observation)
    policy = distributions.over(
      self.action_space, outputs, params['log_std'], self.continuous
    )
    return policy, value, memories

  def act_with_memory(self, state, memory, seen, step, key, *, explore):
    """Draws an action, or takes the likeliest; see `Agent`."""
    policy, _, memory = self._now(state, memory, seen)
    return policy.sample(key) if explore else policy.mode(), memory

  def outlook_with_memory(self, state, memory, seen, key):
    """Returns what films show; see `Agent.outlook`."""
    policy, value, _ = self._now(state, memory, seen)
    return distributions.outlook(policy, value)

  def _now(self, state, memory, seen):
    """Returns policy and values [N] of one step, and memory after it."""
    observation = state.observations.normalize(seen.observation)
    row = jax.tree.map(lambda x: x[None], seen.replace(observation=observation))
    policy, value, memories = self.unroll(state.params, memory, row)
    return policy, value[0], jax.tree.map(lambda x: x[0], memories)

  def batch(self, params, trajectory) -> ppo.Batch:
    """Returns what to learn of each step; see `OnPolicy.batch`."""
    memory, seen = trajectory.memory, trajectory.seen
    policy, value, memories = self.unroll(params, memory, seen)
    log_prob = policy.log_prob(returns.flat(trajectory.action))
    next_value = recurrent.next_values(
      *(self.module, params['network'], trajectory, value, memories),
      value_of=lambda outputs, observation: outputs[1],
    )
    return ppo.Batch(
      observation=None,  # a stretch has what was seen
      action=trajectory.action,
      log_prob=log_prob.reshape(value.shape),
      value=value,
      target=returns.lambda_returns(trajectory, next_value, self.gae_lambda),
    )

  def rows(self, trajectory, batch):
    """Returns a row for each environment; see `OnPolicy.rows`."""
    return recurrent.stretches(trajectory, batch)

  def loss(self, params, batch, updates):
    """Returns PPO's loss of the steps of some environments."""
    memory, seen, batch = recurrent.in_time(batch)
    policy, value, _ = self.unroll(params, memory, seen)
    return self.objective(policy, returns.flat(value), batch, updates)

  def anatomy(self, state):
    """Returns the network, for `health`; see `Agent.anatomy`."""
    observations = state.observations

    def inputs(sequence):
      seen = sequence.seen
      observation = observations.normalize(seen.observation)
      return sequence.memory, seen.replace(observation=observation)

    params = state.params['network']
    return {'': agent_lib.Anatomy(self.module, params, inputs=inputs)}
