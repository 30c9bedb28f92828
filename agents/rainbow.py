"""Rainbow in its compact form: C51, three-step returns, prioritized replay.

Hessel et al. (2018), Rainbow: Combining Improvements in Deep Reinforcement
Learning. https://arxiv.org/abs/1710.02298

Differs from the paper:
1. Three of its six extensions, as in Castro et al. (2018): no double
   Q-learning, no dueling and no noisy networks. It explores by epsilon-greedy
   actions instead: see `dqn`.
2. The exponent of the importance weights stays at 0.5 instead of rising from
   0.4 to 1.
3. A priority is the root of a cross-entropy, where the paper has the root of a
   Kullback-Leibler divergence; they differ by the entropy of the target.
"""

import optax

from dopamine_jax import values
from dopamine_jax.agents import c51
from dopamine_jax.learning import optimization
from dopamine_jax.replay import base
from dopamine_jax.replay import prioritized


class Rainbow(c51.C51):
  """C51 with other defaults: `update` gives the replay its priorities.

  The replay's weights scale each transition's loss, and so its gradient.
  """

  replay: base.Maker = prioritized.PrioritizedReplay
  optimizer: optimization.Optimizer = values.call(
    optax.adam, 6.25e-5, eps=1.5e-4
  )
  n_step: int = 3
