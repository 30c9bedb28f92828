"""What agents share that learn from a replay, whoever acted then."""

import optax

from dopamine_jax import agent as agent_lib
from dopamine_jax.replay import base
from dopamine_jax.replay import uniform


class OffPolicy(agent_lib.Agent):
  """Learns from samples of a replay; subclasses say what.

  Attributes:
    replay: makes the replay from `n_step`, `gamma` and `stack`. Until it holds
      its `min_history`, all actions are uniform.
    gamma: discount of one agent step, a number or an optax schedule over
      updates.
    n_step: rewards summed before bootstrapping. Fewer from update to update:
      `uniform.UniformReplay.annealed_n_step`.
    updates_per_period: updates, each of a sample of its own, in every
      `update_period`; the replay ratio is the one over the other.
  """

  replay: base.Maker = uniform.UniformReplay
  gamma: float | optax.Schedule = 0.99
  n_step: int = 1
  updates_per_period: int = 1

  def __post_init__(self):
    super().__post_init__()
    self.require_at_least(1, 'n_step')
    self.require_fraction('gamma')

  def make_replay(self, stack: int) -> base.Replay:
    """Returns the replay; see `Agent.make_replay`."""
    return self.make_part(
      'replay', n_step=self.n_step, gamma=self.gamma, stack=stack
    )
