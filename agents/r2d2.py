"""R2D2: Q-learning with memory, from prioritized sequences.

Kapturowski et al. (2019), Recurrent Experience Replay in Distributed
Reinforcement Learning. https://openreview.net/forum?id=r1lyTjAqYX

Differs from the paper:
1. Environments are stepped beside learning, not by distributed actors.
2. Sequences go on over the ends of episodes, with fresh memory behind them.
3. A sequence's loss is the mean over the rows of it that are learnt.
4. Sequences may begin at any slot; the replay's `stride` restricts that.
"""

import jax
import jax.numpy as jnp
import optax
import rlax

from dopamine_jax import agent as agent_lib
from dopamine_jax import networks
from dopamine_jax import spaces
from dopamine_jax import values
from dopamine_jax.agents import dqn
from dopamine_jax.learning import action_values
from dopamine_jax.learning import exploration
from dopamine_jax.learning import masks
from dopamine_jax.learning import optimization
from dopamine_jax.learning import recurrent
from dopamine_jax.learning import returns
from dopamine_jax.networks import modules
from dopamine_jax.networks import recurrent as recurrent_networks
from dopamine_jax.replay import base
from dopamine_jax.replay import prioritized_sequences
from dopamine_jax.replay import sequences


class R2D2(dqn.DQN):
  """Recurrent double DQN of n-step returns, with rescaled values.

  Attributes:
    network: a Flax module with memory, or what makes it from `num_outputs`,
      like `networks.RecurrentQ`.
    replay: makes the replay of sequences from `n_step`, `gamma` and `stack`.
    n_step: rewards summed before bootstrapping.
    optimizer: an optax transformation; its schedules count updates.
    epsilon: of epsilon-greedy training, a number or an optax schedule over
      agent steps; that of the first environment.
    epsilon_alpha: of N environments the i-th, from 0, explores with
      epsilon^(1 + epsilon_alpha i / (N - 1)): Horgan et al. (2018).
    rescaled: whether the network learns h(value), as in eq. 1, which is near
      the root of large values.
    priority_mix: the paper's eta: a sequence's priority is eta times the
      largest of its |TD errors|, and 1 - eta times their mean.
  """

  network: modules.Maker = networks.RecurrentQ
  replay: base.Maker = prioritized_sequences.PrioritizedSequenceReplay
  gamma: float | optax.Schedule = 0.997
  n_step: int = 5
  optimizer: optimization.Optimizer = values.call(optax.adam, 1e-4, eps=1e-3)
  target_update_period: int | None = 10_000
  epsilon: float | optax.Schedule = 0.4
  epsilon_alpha: float = 7.0
  rescaled: bool = True
  priority_mix: float = 0.9

  def __post_init__(self):
    super().__post_init__()
    self.require_fraction('priority_mix')
    self.require_at_least(0, 'epsilon_alpha')

  def make_replay(self, stack):
    """Returns the replay of sequences; see `Agent.make_replay`."""
    replay = super().make_replay(stack)
    if not isinstance(replay, sequences.SequenceReplay):
      self.refuse(
        'replay',
        f'makes a {type(replay).__name__}; this agent learns from sequences. '
        'Choose sequences.SequenceReplay, or '
        'prioritized_sequences.PrioritizedSequenceReplay',
      )
    return replay

  def init_params(self, key, observation):
    """Returns the first parameters, once the network's outputs fit."""
    needs = [(self.num_outputs,)]
    return recurrent.first_params(
      self.module, key, observation, self.action_space, needs
    )

  def init_memory(self, num_envs):
    """Returns the network's; see `Agent.init_memory`."""
    return recurrent.init_memory(self.module, num_envs)

  def act_with_memory(self, state, memory, seen, step, key, *, explore):
    """Acts epsilon-greedily; see `Agent.act_with_memory`."""
    q, memory = recurrent_networks.one_step(
      self.module, state.params, memory, seen
    )
    epsilon = self.epsilon_at(step, explore=explore)
    if explore and len(q) > 1:
      part = jnp.arange(len(q)) / (len(q) - 1)
      epsilon = epsilon ** (1 + self.epsilon_alpha * part)
    q = self.only_allowed(q, seen.observation)
    mask = spaces.mask_of(self.observation_space, seen.observation)
    return exploration.epsilon_greedy(q, epsilon, key, mask), memory

  def outlook_with_memory(self, state, memory, seen, key):
    """Returns what films show; see `Agent.outlook`."""
    q, _ = recurrent_networks.one_step(self.module, state.params, memory, seen)
    q = self.unscaled(q)
    q = masks.shown(self.observation_space, q, seen.observation)
    return agent_lib.Outlook(value=jnp.max(q, axis=-1), values=q)

  def unscaled(self, q: jax.Array) -> jax.Array:
    """Returns values as returns, h^-1 of what the network gives."""
    return rlax.signed_parabolic(q) if self.rescaled else q

  def unroll(self, params, sequence) -> jax.Array:
    """Returns the network's outputs [R - burn_in, B, A] behind the burn-in."""
    burn_in = sequence.burn_in

    def part(params, memory, rows):
      seen = jax.tree.map(lambda x: x[rows], sequence.seen)
      return networks.apply(self.module, params, memory, seen)

    memory = sequence.memory
    if burn_in:
      fixed = jax.lax.stop_gradient(params)
      _, memories = part(fixed, memory, slice(burn_in))
      memory = jax.tree.map(lambda x: jax.lax.stop_gradient(x[-1]), memories)
    return part(params, memory, slice(burn_in, None))[0]

  def td_errors(self, params, target_params, sequence):
    """Returns the errors [L, B] of the rows that are learnt, 0 of no step.

    Args:
      params: the online network's parameters.
      target_params: the target network's.
      sequence: a `Sequence` [R, B].

    Returns:
      The errors, and the values [L, B, A] that the network gave.
    """
    q = self.unroll(params, sequence)
    target_q = self.unroll(target_params, sequence)
    # Double Q-learning: the online network chooses.
    seen = jax.tree.map(lambda x: x[sequence.burn_in :], sequence.seen)
    best = jnp.argmax(self.only_allowed(q, seen.observation), axis=-1)
    value = self.unscaled(rlax.batched_index(target_q, best))
    behind = sequence.after_burn_in()
    target = returns.n_step_returns(behind, value, self.n_step)
    if self.rescaled:
      target = rlax.signed_hyperbolic(target)
    error = jax.lax.stop_gradient(target) - rlax.batched_index(q, behind.action)
    learnt = slice(-self.n_step)
    return jnp.where(behind.taken, error, 0.0)[learnt], q[learnt]

  def update(self, state, sample, key):
    """Takes one gradient step on sequences; see `Agent.update`."""
    sequence = sample.transition
    taken = sequence.after_burn_in().taken[: -self.n_step]
    count = jnp.maximum(jnp.sum(taken, axis=0), 1)

    def loss_fn(params):
      error, q = self.td_errors(params, state.target_params, sequence)
      losses = jnp.sum(self.td_losses(error), axis=0) / count
      return jnp.mean(sample.weight * losses), (jnp.abs(error), q)

    state, (error, q), metrics = self.descend(state, loss_fn, key)
    mean = jnp.sum(error, axis=0) / count
    mix = self.priority_mix
    priorities = mix * jnp.max(error, axis=0) + (1 - mix) * mean
    q = returns.flat(self.unscaled(q))
    return state, metrics | action_values.metrics(q), priorities

  def anatomy(self, state):
    """Returns the network, for `health`; see `Agent.anatomy`."""
    params = state.params, state.target_params
    return {'': recurrent.anatomy(self.module, *params)}
