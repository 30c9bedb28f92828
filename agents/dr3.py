"""DR3: offline Q-learning whose features of two steps in a row stay apart.

Kumar et al. (2022), DR3: Value-Based Deep Reinforcement Learning Requires
Explicit Regularization. https://arxiv.org/abs/2112.04716

It is CQL, with `conservatism = 0` DQN, and one term (eq. 5).

Differs from the paper:
1. The magnitude of the features' product counts, as in Dopamine's lab.
2. With `n_step` above 1 the next features are those of so many steps on.
3. Of a network with dropout or statistics of batches, the features are those
   of evaluation.
"""

import jax
import jax.numpy as jnp

from dopamine_jax import networks
from dopamine_jax.agents import cql


class DR3(cql.CQL):
  """Q-learning with the features of a step kept apart from the next one's.

  Attributes:
    feature_penalty: the paper's c_0, of the added term.
    conservatism: the paper's alpha of CQL; 0: none.
  """

  feature_penalty: float = 0.1
  conservatism: float = 0.0

  def __post_init__(self):
    super().__post_init__()
    self.require_at_least(0, 'feature_penalty')

  def losses(self, params, target_params, batch, key):
    """Returns losses [B] and metrics; see `DQN.losses`."""
    losses, metrics = super().losses(params, target_params, batch, key)
    seen = batch.observation, batch.next_observation
    now, then = (
      networks.features(
        self.module, params, each, key=jax.random.fold_in(key, i)
      )
      for i, each in enumerate(seen, start=3)
    )
    product = jnp.abs(jnp.sum(now * then, axis=-1))
    metrics = metrics | {'FeatureProduct': jnp.mean(product)}
    return losses + self.feature_penalty * product, metrics
