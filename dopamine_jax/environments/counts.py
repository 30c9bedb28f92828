"""How many environments there are, and how many seeds they have."""

from collections.abc import Sequence
import numbers
import operator

from dopamine_jax import errors


def check_num_envs(num_envs: int) -> None:
  """Raises UserError unless there is at least one environment."""
  if not isinstance(num_envs, numbers.Integral) or num_envs < 1:
    raise errors.UserError(f'num_envs = {num_envs}: expected 1 or more.')


def check_seeds(seeds: Sequence[int], num_envs: int) -> list[int]:
  """Returns the seeds as Python ints, which is what environments insist on.

  Args:
    seeds: One seed an environment.
    num_envs: How many there must be.

  Returns:
    The same numbers.

  Raises:
    ValueError: For another count, or a seed outside [0, 2**31). ALE takes 32
      signed bits and reads a negative seed as a request for a random one.
  """
  checked = [operator.index(seed) for seed in seeds]
  if len(checked) != num_envs:
    raise ValueError(f'{len(checked)} seeds for {num_envs} environments.')
  if any(not 0 <= seed < 2**31 for seed in checked):
    raise ValueError(f'Seeds {checked}: each must be in [0, 2**31).')
  return checked
