"""What followed a step, worth how much: targets of agents that learn in order.

All of it is over rollouts [T, N] in which episodes terminate, are cut and go
on beyond the last row.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import rlax

from dopamine_jax import agent as agent_lib


def next_values(
  trajectory: agent_lib.Trajectory,
  values: jax.Array,
  value: Callable[[Any], jax.Array],
  following: Any = None,
) -> jax.Array:
  """Returns the values [T, N] of `trajectory.next_observation`.

  Mostly that is the observation of the row below, whose value is known. Below
  the last row nothing is, and below a truncation lies another episode: only
  the rows that hold one are asked for their true next observations. (Below a
  termination, whose discount is 0, any number does.)

  Args:
    trajectory: [T, N].
    values: [T, N], of `trajectory.observation`.
    value: gives the values [N] of a row of `following`.
    following: arrays [T, N, ...]; None: `trajectory.next_observation`.
  """
  if following is None:
    following = trajectory.next_observation

  def value_of(row):
    return value(jax.tree.map(lambda x: x[row], following))

  newest = value_of(-1)
  below = jnp.concatenate([values[1:], newest[None]])
  truncated = trajectory.last & (trajectory.discount > 0)

  def ask(carry):
    known, unknown = carry
    row = jnp.argmax(jnp.any(unknown, axis=1))
    true = value_of(row)
    true = jnp.where(unknown[row], true, known[row])
    return known.at[row].set(true), unknown.at[row].set(False)

  start = below, truncated
  return jax.lax.while_loop(lambda carry: jnp.any(carry[1]), ask, start)[0]


def lambda_returns(
  trajectory: agent_lib.Trajectory, next_values: jax.Array, lambda_: float
) -> jax.Array:
  """Returns the lambda-returns [T, N] of each step.

  G_t = r_t + discount_t ((1 - lambda) v_{t+1} + lambda G_{t+1}), where after an
  episode's last step, and the rollout's, v alone goes on: Sutton & Barto
  (2018), Reinforcement Learning, eq. 12.20 as a recursion. With the values of a
  policy, G_t - v_t is the advantage that Schulman et al. (2016), eq. 16,
  estimate: https://arxiv.org/abs/1506.02438

  Args:
    trajectory: [T, N].
    next_values: [T, N], the values v_{t+1} of the true next observations.
    lambda_: from 0, one step and the value there, to 1, all steps.
  """
  lambdas = jnp.where(trajectory.last, 0.0, jnp.float32(lambda_))
  return jax.vmap(rlax.lambda_returns, in_axes=1, out_axes=1)(
    trajectory.reward, trajectory.discount, next_values, lambdas
  )


def n_step_returns(
  sequence: agent_lib.Sequence, values: jax.Array, n: int | jax.Array
) -> jax.Array:
  """Returns the n-step returns [R, B] of a sequence's rows.

  G_t = r_t + discount_t G_{t+1}, n times over and then `values`; at an
  episode's last step the value of the row below stands for all that follows.

  Args:
    sequence: [R, B].
    values: [R, B], what is expected of each row.
    n: how many rewards; may be traced. The last n rows have fewer, and rows in
      which no step was taken mean nothing.
  """

  def below(rows):
    return jnp.concatenate([rows[1:], rows[-1:]])

  def one_more(_, returns):
    rest = jnp.where(sequence.last, below(values), below(returns))
    return sequence.reward + sequence.discount * rest

  return jax.lax.fori_loop(0, n, one_more, values)


def over_rows(function: Callable[..., Any], *rows: Any) -> Any:
  """Returns what `function` of batches [B, ...] makes of rows [T, N, ...]."""
  shape = jax.tree.leaves(rows)[0].shape[:2]
  out = function(*jax.tree.map(flat, rows))
  return jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), out)


def flat(rows: jax.Array) -> jax.Array:
  """Returns rows [T, N, ...] as one batch [T * N, ...]."""
  return rows.reshape(-1, *rows.shape[2:])
