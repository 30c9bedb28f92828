"""Running mean and variance of arrays."""

from flax import struct
import jax
import jax.numpy as jnp

# Normalized numbers are clipped to [-BOUND, BOUND], as in OpenAI's baselines.
BOUND = 10.0


class Statistics(struct.PyTreeNode):
  """Of all arrays seen so far.

  Attributes:
    mean: [*shape] float32.
    variance: [*shape] float32, 1 before anything was seen.
    count: float32 scalar, how many arrays.
  """

  mean: jax.Array
  variance: jax.Array
  count: jax.Array

  @classmethod
  def empty(cls, shape: tuple[int, ...]) -> 'Statistics':
    """Returns the statistics of nothing."""
    return cls(
      mean=jnp.zeros(shape), variance=jnp.ones(shape), count=jnp.zeros(())
    )

  def add(self, seen: jax.Array) -> 'Statistics':
    """Returns them with arrays [..., *shape] added.

    Chan, Golub & LeVeque (1979), Updating formulae and a pairwise algorithm for
    computing sample variances, eq. 2.1.
    """
    seen = seen.reshape(-1, *self.mean.shape).astype(jnp.float32)
    count = self.count + len(seen)
    change = jnp.mean(seen, axis=0) - self.mean
    share = len(seen) / count
    variance = (
      self.variance * (1 - share)
      + jnp.var(seen, axis=0) * share
      + jnp.square(change) * share * (1 - share)
    )
    return Statistics(
      mean=self.mean + change * share, variance=variance, count=count
    )

  def normalize(self, x: jax.Array) -> jax.Array:
    """Returns [..., *shape] with mean 0 and variance 1, within [-10, 10]."""
    axes = tuple(range(x.ndim - self.mean.ndim))
    mean, variance = (
      jnp.expand_dims(each, axes) for each in (self.mean, self.variance)
    )
    scaled = (x.astype(jnp.float32) - mean) * jax.lax.rsqrt(variance + 1e-8)
    return jnp.clip(scaled, -BOUND, BOUND)
