"""Mixtures of experts in the place of a network's penultimate layer.

Obando-Ceron et al. (2024), Mixtures of Experts Unlock Parameter Scaling for
Deep RL. https://arxiv.org/abs/2402.08609

A torso's maps are cut into tokens, which experts, small networks of one shape,
share among themselves. `Mixture` is a torso again, for networks that take one.

Differs from the published code: there are no tokens of patches, no experts that
hold a whole encoder, and no losses that spread tokens over experts (whose
weights are 0 there). Soft experts' tokens are normalized by default, there not;
experts begin LeCun-normal, there Xavier-uniform; none is noisy; the `capacity`
of top-k experts counts each token k times.
"""

from collections.abc import Sequence
from typing import Literal

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dopamine_jax import networks
from dopamine_jax.networks import initializers
from dopamine_jax.networks import layers
from dopamine_jax.networks import modules


class Experts(nn.Module):
  """E networks of two layers, each applied to slots of its own.

  Attributes:
    units: of the rectified layer; the other one has those of a token.
  """

  units: int

  @nn.compact
  def __call__(self, slots: jax.Array) -> jax.Array:
    """Returns [B, E, P, D] for slots [B, E, P, D]."""
    _, count, _, size = slots.shape
    kernel_init = nn.initializers.lecun_normal(batch_axis=0)

    def layer(x, name, units):
      shape = (count, x.shape[-1], units)
      kernel = self.param(f'{name}_kernel', kernel_init, shape)
      bias = self.param(f'{name}_bias', nn.initializers.zeros, (count, units))
      return jnp.einsum('bepd,edh->beph', x, kernel) + bias[None, :, None]

    x = nn.relu(layer(slots, 'hidden', self.units))
    self.sow('intermediates', 'activations', x)
    return layer(x, 'output', size)


class SoftMoE(modules.Module):
  """Experts of weighted means of tokens: Puigcerver et al. (2024), sec. 2.1.

  From Sparse to Soft Mixtures of Experts. https://arxiv.org/abs/2308.00951

  Attributes:
    num_experts: E.
    units: of each expert's rectified layer.
    capacity: slots of all experts, over the number of tokens.
    normalized: whether tokens and slots' parameters have length 1 where they
      are compared, times one number that is learnt.
  """

  num_experts: int = 8
  units: int = 512
  capacity: float = 1.0
  normalized: bool = True

  def __post_init__(self):
    super().__post_init__()
    self.require_above(0, 'capacity')

  @nn.compact
  def __call__(self, tokens: jax.Array) -> jax.Array:
    """Returns [B, T, D] for tokens [B, T, D]."""
    _, count, size = tokens.shape
    slots = int(np.ceil(count * self.capacity / self.num_experts))
    shape = (size, self.num_experts, slots)
    phi = self.param('phi', nn.initializers.lecun_normal(), shape)
    seen = tokens
    if self.normalized:
      scale = self.param('scale', nn.initializers.ones, ())
      seen, phi = _unit(tokens, -1), scale * _unit(phi, 0)
    logits = jnp.einsum('btd,dep->btep', seen, phi)
    dispatch = jax.nn.softmax(logits, axis=1)
    combine = jax.nn.softmax(logits, axis=(2, 3))
    given = jnp.einsum('btep,btd->bepd', dispatch, tokens)
    return jnp.einsum('btep,bepd->btd', combine, Experts(self.units)(given))


class TopKMoE(modules.Module):
  """Experts of the tokens that a router sends them: Shazeer et al. (2017).

  Outrageously Large Neural Networks. https://arxiv.org/abs/1701.06538

  A token goes to `k` experts, and its result is theirs, times the router's
  probabilities, which are of all experts and without noise, as Fedus et al.
  (2022) have it (https://arxiv.org/abs/2101.03961). An expert takes as many
  tokens as it has slots, those with the smaller numbers first, and all first
  choices before the second; a token that finds no place counts as zero.

  Attributes:
    num_experts: E.
    k: experts of a token.
    units: of each expert's rectified layer.
    capacity: slots of all experts, over k times the number of tokens.
  """

  num_experts: int = 8
  k: int = 1
  units: int = 512
  capacity: float = 1.0

  def __post_init__(self):
    super().__post_init__()
    self.require_above(0, 'capacity')
    if self.k > self.num_experts:
      self.refuse('k', f'is more than num_experts = {self.num_experts}')

  @nn.compact
  def __call__(self, tokens: jax.Array) -> jax.Array:
    """Returns [B, T, D] for tokens [B, T, D]."""
    count = tokens.shape[1]
    slots = int(np.ceil(self.k * count * self.capacity / self.num_experts))
    router = layers.Dense(self.num_experts, use_bias=False, name='router')
    gates = jax.nn.softmax(router(tokens))
    _, chosen = jax.lax.top_k(gates, self.k)  # [B, T, k]
    places, used = [], 0
    for i in range(self.k):
      to = jax.nn.one_hot(chosen[..., i], self.num_experts)
      place = jnp.cumsum(to, axis=1) - to + used
      used = used + jnp.sum(to, axis=1, keepdims=True)
      # One-hot of slots; of a place beyond the last all zeros.
      slot = jax.nn.one_hot(place.astype(jnp.int32), slots)
      places.append(to[..., None] * slot)
    dispatch = sum(places)  # [B, T, E, P]
    given = jnp.einsum('btep,btd->bepd', dispatch, tokens)
    combine = dispatch * gates[..., None]
    return jnp.einsum('btep,bepd->btd', combine, Experts(self.units)(given))


class Simplicial(modules.Module):
  """A layer whose units are probabilities: Lavoie et al. (2023).

  Simplicial Embeddings in Self-Supervised Learning and Downstream
  Classification. https://arxiv.org/abs/2204.00616

  It takes the place of a mixture, to compare with.

  Attributes:
    groups: how many vectors of probabilities there are.
    units: of each group.
    temperature: of the softmax.
  """

  groups: int = 32
  units: int = 16
  temperature: float = 0.1

  def __post_init__(self):
    super().__post_init__()
    self.require_above(0, 'temperature')

  @nn.compact
  def __call__(self, tokens: jax.Array) -> jax.Array:
    """Returns [B, groups, units] for tokens [B, T, D]."""
    x = layers.Dense(self.groups * self.units)(tokens.reshape(len(tokens), -1))
    x = x.reshape(len(tokens), self.groups, self.units)
    return jax.nn.softmax(x / self.temperature)


class Mixture(modules.Module):
  """A torso, whose maps go through a mixture, flattened.

  Attributes:
    torso: a Flax module that gives maps [B, H, W, C]: with `flat = False`.
    mixture: a Flax module of tokens [B, T, D], as `SoftMoE`.
    tokens: what a token is: the C numbers of a 'pixel', the H * W ones of a
      'map', or all of a 'sample'.
  """

  torso: nn.Module = networks.NatureTorso(flat=False)
  mixture: nn.Module = SoftMoE()
  tokens: Literal['pixel', 'map', 'sample'] = 'pixel'

  @nn.compact
  def __call__(self, observation: jax.Array) -> jax.Array:
    """Returns the features [B, F] of observations."""
    maps = networks.part(self, self.torso, observation)
    if maps.ndim != 4:
      self.refuse(
        'torso',
        f'gives features of shape {maps.shape[1:]}, and a mixture takes maps, '
        '(height, width, channels). Take a torso of images, such as '
        'networks.NatureTorso, with `flat = False`',
      )
    x = maps.reshape(len(maps), -1, maps.shape[-1])
    if self.tokens == 'map':
      x = jnp.swapaxes(x, 1, 2)
    elif self.tokens == 'sample':
      x = x.reshape(len(maps), 1, -1)
    x = networks.part(self, self.mixture, x)
    x = x.reshape(len(x), -1)
    self.sow('intermediates', 'activations', x)
    return x


class MixtureNetwork(modules.Module):
  """`Mixture`, and what it is read by; for agents without a torso to choose.

  Attributes:
    num_outputs: size of the last, linear layer.
    torso: see `Mixture`.
    mixture: see `Mixture`.
    tokens: see `Mixture`.
    hidden: sizes of rectified layers behind the mixture.
    kernel_init: initializer of these kernels.
  """

  num_outputs: int | None = None
  torso: nn.Module = networks.NatureTorso(flat=False)
  mixture: nn.Module = SoftMoE()
  tokens: Literal['pixel', 'map', 'sample'] = 'pixel'
  hidden: Sequence[int] = ()
  kernel_init: networks.Initializer = initializers.XAVIER_UNIFORM

  @nn.compact
  def __call__(self, observation: jax.Array) -> jax.Array:
    """Returns the outputs [B, num_outputs] for observations [B, ...]."""
    torso = Mixture(self.torso, self.mixture, self.tokens)
    x = networks.part(self, torso, observation)
    x = networks.hidden_layers(self, x, nn.relu)
    return networks.output_layer(self, x)


def _unit(x, axis):
  """Returns vectors of length 1 along an axis."""
  square = jnp.sum(jnp.square(x), axis=axis, keepdims=True)
  return x / jnp.sqrt(jnp.maximum(square, 1e-12))
