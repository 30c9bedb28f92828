"""SimBa: residual blocks between normalizations, for control.

Lee et al. (2025), SimBa: Simplicity Bias for Scaling Up Parameters in Deep
Reinforcement Learning. https://arxiv.org/abs/2410.09754

Any agent of continuous actions takes it as `network` of its actor and critics,
with `networks.RunningNorm` as their `torso`: see `simba_pendulum.gin`.

The defaults are the paper's actor; its critics have 512 units and 2 blocks.
Differs from the paper:
1. Statistics of observations are those of the samples that were learnt from,
   and normalized numbers are clipped to [-10, 10].
2. The logarithms of standard deviations are clipped, as `actor_critic.Actor`
   has it; the authors' code maps them by tanh, into [-10, 2].
3. The number of critics is a setting. The authors' code has one where nothing
   terminates, else two.
"""

from flax import linen as nn
import jax

from dopamine_jax.networks import initializers
from dopamine_jax.networks import layers
from dopamine_jax.networks import modules
from dopamine_jax.networks import standard


class SimBa(modules.Module):
  """A dense layer, residual blocks, a layer norm, and a linear layer.

  Attributes:
    num_outputs: size of the last, linear layer.
    units: d, what blocks read and write.
    num_blocks: each of a layer norm, a dense layer of 4 d, relu, one of d.
  """

  num_outputs: int | None = None
  units: int = 128
  num_blocks: int = 1

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Returns the outputs [B, num_outputs] for [B, ...]."""
    linear, he = initializers.orthogonal(1.0), nn.initializers.he_normal()
    x = layers.Dense(self.units, kernel_init=linear)(standard.flatten(x))
    for _ in range(self.num_blocks):
      y = layers.Dense(4 * self.units, kernel_init=he)(nn.LayerNorm()(x))
      y = nn.relu(y)
      self.sow('intermediates', 'activations', y)
      x += layers.Dense(self.units, kernel_init=he)(y)
    x = nn.LayerNorm()(x)
    self.sow('intermediates', 'features', x)
    return layers.Dense(self.num_outputs, kernel_init=linear)(x)
