"""Schedules over updates that optax has not."""

import jax.numpy as jnp
import optax

from dopamine_jax import errors
from dopamine_jax import lanes


def geometric(
  first: float, last: float, transition_steps: int = 10_000
) -> optax.Schedule:
  """Returns a schedule that goes from one number to another by equal factors.

  There are `transition_steps` of them; then it stays, as n in Schwarzer et al.
  (2023), sec. 4, https://arxiv.org/abs/2305.19452. It is a decay of optax, but
  trainings of one program may differ in its numbers.

  Args:
    first: the number at the beginning, above 0.
    last: the number that it reaches, above 0.
    transition_steps: updates until then.

  Raises:
    UserError: if a number can't be.
  """
  if not all(number > 0 for number in lanes.known(first, last)):
    raise errors.UserError(
      f'schedules.geometric goes from {first} to {last}; both must be above 0.'
    )
  return _by_equal_factors('geometric', first, last, transition_steps)


def geometric_discount(
  first: float, last: float, transition_steps: int = 10_000
) -> optax.Schedule:
  """Returns a schedule of discounts, of which 1 - gamma goes as `geometric`.

  Args:
    first: the discount at the beginning, below 1.
    last: the one that it reaches, below 1.
    transition_steps: updates until then.

  Raises:
    UserError: if a number can't be.
  """
  if not all(0 <= number < 1 for number in lanes.known(first, last)):
    raise errors.UserError(
      f'schedules.geometric_discount goes from {first} to {last}; both must '
      'lie in [0, 1).'
    )
  given = 1 - first, 1 - last, transition_steps
  away = _by_equal_factors('geometric_discount', *given)
  return lambda count: 1 - away(count)


def _by_equal_factors(name, first, last, transition_steps):
  """Returns the schedule of `geometric`; `name` is what was called."""
  if transition_steps < 1:
    raise errors.UserError(
      f'schedules.{name}.transition_steps = {transition_steps} must be at '
      'least 1.'
    )

  def at(count):
    part = jnp.minimum(count / transition_steps, 1.0)
    return jnp.exp((1 - part) * jnp.log(first) + part * jnp.log(last))

  return at
