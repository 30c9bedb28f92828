"""Schedules over updates that optax has not."""

import jax.numpy as jnp
import optax

from dopamine_jax import errors
from dopamine_jax import lanes


def cyclic(
  first: float,
  last: float,
  transition_steps: int = 10_000,
  cycle: int = 40_000,
  first_cycle: int | None = None,
) -> optax.Schedule:
  """Returns a schedule that goes from one number to another, again and again.

  By equal factors, `transition_steps` of them; then it stays. After `cycle`
  updates it begins anew, as when a network is reset (Schwarzer et al., 2023,
  sec. 4, https://arxiv.org/abs/2305.19452).

  Args:
    first: the number at the beginning of a cycle, above 0.
    last: the number that it reaches, above 0.
    transition_steps: updates until then.
    cycle: updates from one beginning to the next.
    first_cycle: those of the first cycle; None: as many.

  Raises:
    UserError: if a number can't be.
  """
  if not all(number > 0 for number in lanes.known(first, last)):
    raise errors.UserError(
      f'schedules.cyclic goes from {first} to {last}; both must be above 0.'
    )
  cycles = transition_steps, cycle, first_cycle
  return _by_equal_factors('cyclic', first, last, *cycles)


def cyclic_discount(
  first: float,
  last: float,
  transition_steps: int = 10_000,
  cycle: int = 40_000,
  first_cycle: int | None = None,
) -> optax.Schedule:
  """Returns a schedule of discounts, of which 1 - gamma goes as by `cyclic`.

  Args:
    first: the discount at the beginning of a cycle, below 1.
    last: the one that it reaches, below 1.
    transition_steps: updates until then.
    cycle: updates from one beginning to the next.
    first_cycle: those of the first cycle; None: as many.

  Raises:
    UserError: if a number can't be.
  """
  if not all(0 <= number < 1 for number in lanes.known(first, last)):
    raise errors.UserError(
      f'schedules.cyclic_discount goes from {first} to {last}; both must lie '
      'in [0, 1).'
    )
  cycles = transition_steps, cycle, first_cycle
  away = _by_equal_factors('cyclic_discount', 1 - first, 1 - last, *cycles)
  return lambda count: 1 - away(count)


def _by_equal_factors(name, first, last, transition_steps, cycle, first_cycle):
  """Returns the schedule of `cyclic`; `name` is what was called."""
  first_cycle = cycle if first_cycle is None else first_cycle
  if not (1 <= transition_steps <= cycle and first_cycle >= 1):
    raise errors.UserError(
      f'schedules.{name} takes transition_steps = {transition_steps} of a '
      f'cycle = {cycle}, and first_cycle = {first_cycle}; each must be at '
      'least 1, and transition_steps at most cycle.'
    )

  def at(count):
    later = (count - first_cycle) % cycle
    since = jnp.where(count < first_cycle, count, later)
    part = jnp.minimum(since / transition_steps, 1.0)
    return jnp.exp((1 - part) * jnp.log(first) + part * jnp.log(last))

  return at
