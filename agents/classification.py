"""DQN that learns values by classification: HL-Gauss and two-hot.

Farebrother et al. (2024), Stop Regressing: Training Value Functions via
Classification for Scalable Deep RL. https://arxiv.org/abs/2403.03950

The network gives logits of classes, which are values, as C51's atoms are. What
is learnt is not the return's distribution, but one number, the target of DQN,
spread over the classes near it. With `conservatism` it is what the paper learns
offline.

Differs from the paper:
1. Optimizer, number of classes and their range are those of `c51.C51`, and the
   target network that of `dqn.DQN`.
"""

from typing import Literal

import jax
import jax.numpy as jnp
import optax
import rlax

from dopamine_jax.agents import c51
from dopamine_jax.agents import cql
from dopamine_jax.learning import action_values
from dopamine_jax.learning import bins


class ClassificationDQN(c51.C51):
  """DQN with a cross-entropy in place of a squared error.

  Attributes:
    spread: how a target becomes probabilities: 'hl_gauss', of a normal
      distribution around it (eq. 3.4), or 'two_hot', of the two classes beside
      it (eq. 3.3).
    sigma_ratio: the normal's standard deviation over the width of a class; not
      of 'two_hot'.
    double: whether the online network chooses the next action.
    conservatism: how much it is `cql.CQL` too.
  """

  spread: Literal['hl_gauss', 'two_hot'] = 'hl_gauss'
  sigma_ratio: float = 0.75
  double: bool = False
  conservatism: float = 0.0

  def __post_init__(self):
    super().__post_init__()
    self.require_above(0, 'sigma_ratio')
    self.require_at_least(0, 'conservatism')
    is_default = self.sigma_ratio == type(self).sigma_ratio
    if self.spread == 'two_hot' and not is_default:
      self.refuse('sigma_ratio', "has no effect with spread = 'two_hot'")

  def losses(self, params, target_params, batch, key):
    """Returns losses [B] and metrics; see `DQN.losses`."""
    target_key, select_key = (jax.random.fold_in(key, i) for i in (1, 2))
    logits = self.logits(params, batch.observation, key)
    q_next = self.q_values(target_params, batch.next_observation, target_key)
    q_select = q_next
    if self.double:
      fixed = jax.lax.stop_gradient(params)  # no pass for training
      q_select = self.q_values(fixed, batch.next_observation, select_key)
    q_select = self.only_allowed(q_select, batch.next_observation)
    value = rlax.batched_index(q_next, jnp.argmax(q_select, axis=-1))
    target = jax.lax.stop_gradient(batch.reward + batch.discount * value)
    taken = jax.vmap(lambda x, i: x[i])(logits, batch.action)
    losses = optax.softmax_cross_entropy(taken, self.classes(target))
    q = c51.mean(self.atoms, logits)
    given = losses, action_values.metrics(q)
    q = self.only_allowed(q, batch.observation)
    return cql.with_gap(*given, q, batch.action, self.conservatism)

  def classes(self, target: jax.Array) -> jax.Array:
    """Returns the probabilities [B, M] that stand for numbers [B]."""
    target = jnp.clip(target, self.v_min, self.v_max)
    if self.spread == 'two_hot':
      return bins.two_hot(target, self.atoms)
    edges = jnp.linspace(self.v_min, self.v_max, self.num_atoms + 1)
    scale = self.sigma_ratio * self._width * jnp.sqrt(2.0)
    below = jax.scipy.special.erf((edges[None] - target[:, None]) / scale)
    part = below[:, -1] - below[:, 0]
    return jnp.diff(below, axis=1) / part[:, None]

  @property
  def atoms(self) -> jax.Array:
    """The values of the classes [M]: their middles, or as C51's."""
    if self.spread == 'two_hot':
      return super().atoms
    half = self._width / 2
    return jnp.linspace(self.v_min + half, self.v_max - half, self.num_atoms)

  @property
  def _width(self):
    return (self.v_max - self.v_min) / self.num_atoms
