"""C51: learns the distribution of the return, as weights of 51 fixed atoms.

Bellemare, Dabney & Munos (2017), A Distributional Perspective on Reinforcement
Learning. https://arxiv.org/abs/1707.06887

Differs from the paper:
1. Epsilon, target network and warm-up as in Castro et al. (2018): see `dqn`.
2. Dopamine initializes the kernels uniformly by fan-in, the paper doesn't say
   how; `c51_atari.gin` does as Dopamine, the default is `NatureCNN`'s.
"""

import jax
import jax.numpy as jnp
import optax
import rlax

from dopamine_jax import values
from dopamine_jax.agents import dqn
from dopamine_jax.learning import action_values
from dopamine_jax.learning import optimization


class C51(dqn.DQN):
  """DQN whose network gives logits of atoms, for each action M of them.

  Attributes:
    num_atoms: returns that have a probability, M.
    v_min: the lowest return that has one; what is lower counts as this.
    v_max: the highest return that has one. The others lie evenly between.
  """

  optimizer: optimization.Optimizer = values.call(
    optax.adam, 2.5e-4, eps=3.125e-4
  )
  num_atoms: int = 51
  v_min: float = -10.0
  v_max: float = 10.0

  def __post_init__(self):
    super().__post_init__()
    require_atoms(self)
    if getattr(self, 'distributional', True):
      self.require_no_huber('a cross-entropy is learnt')

  def logits(self, params, observation, key) -> jax.Array:
    """Returns unnormalized log-probabilities of the atoms [B, A, M]."""
    outputs = self.outputs(params, observation, key)
    return outputs.reshape(len(outputs), -1, self.num_atoms)

  def q_values(self, params, observation, key) -> jax.Array:
    """Returns the means of the distributions [B, A]."""
    return mean(self.atoms, self.logits(params, observation, key))

  def distribution(self, params, observation, key):
    """Returns the atoms and their probabilities, for films."""
    probabilities = jax.nn.softmax(self.logits(params, observation, key))
    return jnp.broadcast_to(self.atoms, probabilities.shape), probabilities

  def losses(self, params, target_params, batch, key):
    """Returns the cross-entropies [B] of Algorithm 1, and metrics.

    See `DQN.losses`.
    """
    logits = self.logits(params, batch.observation, key)
    target_key = jax.random.fold_in(key, 1)
    next_logits = self.logits(target_params, batch.next_observation, target_key)
    q_next = mean(self.atoms, next_logits)
    q_next = self.only_allowed(q_next, batch.next_observation)
    losses = self.categorical_losses(logits, batch, next_logits, q_next)
    return losses, action_values.metrics(mean(self.atoms, logits))

  def categorical_losses(self, logits, batch, next_logits, q_select):
    """Returns `categorical_loss` [B]; `q_select` [B, A] chooses the action."""
    return jax.vmap(categorical_loss, in_axes=(None, 0, 0, 0, 0, 0, 0))(
      self.atoms,
      logits,
      batch.action,
      batch.reward,
      batch.discount,
      next_logits,
      q_select,
    )

  @property
  def num_outputs(self) -> int:
    """What the network's last layer has: M logits for each action."""
    return super().num_outputs * self.num_atoms

  @property
  def atoms(self) -> jax.Array:
    """The returns that have a probability [M]."""
    return jnp.linspace(self.v_min, self.v_max, self.num_atoms)


def require_atoms(agent) -> None:
  """Refuses `num_atoms`, `v_min` and `v_max` that are no support."""
  agent.require_at_least(2, 'num_atoms')
  if not agent.v_min < agent.v_max:
    agent.refuse(
      'v_min',
      f'does not fit v_max = {agent.v_max}: give two numbers, the lower one '
      'first, that enclose the discounted returns',
    )


def mean(atoms: jax.Array, logits: jax.Array) -> jax.Array:
  """Returns the expectations [B, A], given atoms [M] and logits [B, A, M]."""
  return jax.nn.softmax(logits) @ atoms


def categorical_loss(
  atoms: jax.Array,
  logits: jax.Array,
  action: jax.Array,
  reward: jax.Array,
  discount: jax.Array,
  next_logits: jax.Array,
  q_select: jax.Array,
) -> jax.Array:
  """Returns the cross-entropy of one transition (Algorithm 1).

  As `rlax.categorical_double_q_learning`, which can round to less than 0,
  while a priority is the loss's square root.

  Args:
    atoms: [M], the support.
    logits: [A, M], what is learnt.
    action: the action that was taken.
    reward: as in `Transition`.
    discount: 0 after a termination.
    next_logits: [A, M], the target network's for the next observation.
    q_select: [A], the values by which the next action is chosen.
  """
  next_probabilities = jax.nn.softmax(next_logits[jnp.argmax(q_select)])
  target = rlax.categorical_l2_project(
    reward + discount * atoms, next_probabilities, atoms
  )
  target = jax.lax.stop_gradient(target)
  return optax.softmax_cross_entropy(logits[action], target)
