"""A network of observations of any kind: an encoder for each leaf, all joined.

Observations of a Dict or Tuple have several leaves, and the values of a
Discrete are names rather than amounts. Here each leaf becomes a vector, and a
network as of plain vectors gets all of them, side by side.
"""

from typing import Any

from flax import linen as nn
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from dopamine_jax import spaces
from dopamine_jax.networks import modules
from dopamine_jax.networks import standard
from dopamine_jax.networks import variables

# Images with a smaller side are grids of codes, as MiniGrid's.
_PIXELS = 32
_KERNEL = 3  # the smallest side that a convolution here takes


class Encoded(modules.Module):
  """Encodes each leaf of an observation, and gives a network what they join to.

  Agents wrap their network in one where observations are no plain Box. Named
  as the agent's network, it lets the encoders be chosen.

  Attributes:
    space: of observations (given by the agent).
    network: makes the network on top, of vectors [B, F].
    image: the torso of images, Boxes of three axes or bytes of two; None:
      `NatureTorso` for bytes, `MinAtarTorso` for others and for grids with a
      side below 32. Frames of a stack become channels.
    vector: the torso of all other Boxes; None: their numbers as they are.
    embedding: size of the vector that is learnt for each value of a Discrete;
      None: one-hot.
  """

  given_later = ('space',)

  space: gymnasium.Space | None = None
  network: modules.Maker = standard.MLP
  image: nn.Module | None = None
  vector: nn.Module | None = None
  embedding: int | None = None

  @nn.compact
  def __call__(self, observation: Any, *others: jax.Array) -> Any:
    """Returns what the network makes of the joined leaves, and of `others`."""
    space = self.space
    parts = spaces.flatten(space, observation)
    kinds = spaces.leaves(space).values()
    vectors = [self._encode(*pair) for pair in zip(kinds, parts, strict=True)]
    joined = jnp.concatenate(vectors, axis=-1)
    return variables.part(self, self.network, joined, *others)

  def _encode(self, leaf, x):
    """Returns one leaf [B, *shape] as vectors [B, F], float32."""
    if not isinstance(leaf, gymnasium.spaces.Box):
      return self._count(leaf, x)
    if is_image(leaf):
      x = x.reshape(*x.shape[:3], -1)
      torso = self._torso(self.image or _image_torso(leaf))
      return variables.part(self, torso, x)
    if self.vector is not None:
      return variables.part(self, self._torso(self.vector), x)
    return standard.flatten(x)

  def _torso(self, torso):
    """Returns a torso with parameters of its own, whichever leaf it is for."""
    return torso.clone(parent=self, name=None)

  def _count(self, leaf, x):
    """Returns vectors of what is counted: one-hot, or learnt."""
    if isinstance(leaf, gymnasium.spaces.MultiBinary):
      return standard.flatten(x)
    is_one = isinstance(leaf, gymnasium.spaces.Discrete)
    sizes = [int(leaf.n)] if is_one else np.ravel(leaf.nvec).tolist()
    columns = x.reshape(len(x), -1).T
    if self.embedding is None:
      each = [
        jax.nn.one_hot(*pair) for pair in zip(columns, sizes, strict=True)
      ]
    else:
      each = [
        nn.Embed(size, self.embedding)(column)
        for column, size in zip(columns, sizes, strict=True)
      ]
    return jnp.concatenate(each, axis=-1)


class Unmasked(modules.Module):
  """A network of observations that come with a mask, which it does not see.

  Attributes:
    network: of the observations alone.
  """

  network: nn.Module

  @nn.compact
  def __call__(self, observation: Any, *others: jax.Array) -> Any:
    """Returns what the network makes of the observation, and of `others`."""
    seen = observation['observation']
    return variables.part(self, self.network, seen, *others)


def is_image(leaf: gymnasium.Space) -> bool:
  """Whether a leaf is an image: three axes or more, or bytes on two."""
  if not isinstance(leaf, gymnasium.spaces.Box):
    return False
  axes = 2 if leaf.dtype == np.uint8 else 3
  return len(leaf.shape) >= axes and min(leaf.shape[:2]) >= _KERNEL


def _image_torso(leaf):
  if standard.are_bytes(leaf) and min(leaf.shape[:2]) >= _PIXELS:
    return standard.NatureTorso(parent=None)
  return standard.MinAtarTorso(parent=None)
