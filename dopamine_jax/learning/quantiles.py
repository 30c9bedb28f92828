"""Quantile regression, in a form that is fast on CPUs.

Dabney, Rowland, Bellemare & Munos (2018), Distributional Reinforcement Learning
with Quantile Regression, eq. 10 and Algorithm 1. https://arxiv.org/abs/1710.10044

The plain form is `rlax.quantile_q_learning`, which the tests hold this to. It
writes all M * N pairs of quantiles to memory, and their gradients again. Here
the target's quantiles are taken one after another, and the gradient is summed
beside the loss. Huber's loss of an error is s * error - s^2 / 2, where s is its
slope.
"""

import jax
import jax.numpy as jnp


def regression(
  quantiles: jax.Array,
  tau: jax.Array,
  action: jax.Array,
  reward: jax.Array,
  discount: jax.Array,
  select: jax.Array,
  target: jax.Array,
  kappa: float,
) -> jax.Array:
  """Returns the quantile Huber loss of one transition.

  The sum over what is learnt, and mean over the target's quantiles, of eq. 10.

  Args:
    quantiles: [M, A], what is learnt.
    tau: [M], their probabilities.
    action: the action that was taken.
    reward: of that action.
    discount: 0 if it ended the episode.
    select: [K, A], by whose means the next action is chosen.
    target: [N, A], the target network's for the next observation.
    kappa: where the loss turns from squared to linear; 0: linear everywhere.
  """
  target = target[:, jnp.argmax(jnp.mean(select, axis=0))]
  target = reward + discount * target
  return loss(quantiles[:, action], tau, target, kappa)


def loss(
  quantiles: jax.Array, tau: jax.Array, target: jax.Array, kappa: float
) -> jax.Array:
  """Returns the quantile Huber loss, as `regression`, of what targets are.

  Args:
    quantiles: [M], what is learnt.
    tau: [M], their probabilities.
    target: [N], quantiles of the target; they have no gradient.
    kappa: see `regression`.
  """
  target = jax.lax.stop_gradient(target)
  still = jax.lax.stop_gradient(quantiles)

  def add(sums, target):
    error = target - still  # [M]
    slope = jnp.clip(error, -kappa, kappa) if kappa else jnp.sign(error)
    huber = slope * (error - slope / 2 if kappa else error)
    weight = jnp.where(error < 0, 1 - tau, tau)
    losses, slopes = sums
    return (losses + weight * huber, slopes + weight * slope), None

  zeros = jnp.zeros_like(still)
  (losses, slopes), _ = jax.lax.scan(add, (zeros, zeros), target, unroll=8)
  # The last factor is 0, and so adds nothing to the loss; its gradient is what
  # was summed above: d loss / d quantiles = -slopes.
  return jnp.sum(losses - slopes * (quantiles - still)) / len(target)
