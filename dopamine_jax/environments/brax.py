"""Environments of brax: rigid bodies, with continuous actions, in JAX.

Freeman et al. (2021), Brax: A Differentiable Physics Engine for Large Scale
Rigid Body Simulation. https://arxiv.org/abs/2106.13281

brax is an extra, imported when an environment is made.
"""

from collections.abc import Mapping
import functools
from typing import Any

from dopamine_jax import errors
from dopamine_jax.environments import bodies
from dopamine_jax.environments import drawing
from dopamine_jax.environments import native


class Brax(bodies.Bodies):
  """An environment of brax.

  Observations are float32 vectors without bounds. An action is a vector in
  [-1, 1], for the actuators' range.

  Attributes:
    id: a name that brax knows, as 'halfcheetah'.
    kwargs: further arguments for the environment, as {'backend': 'spring'};
      without one, brax's default is the 'generalized' backend.
    max_steps_per_episode: agent steps; the default is that of brax.
  """

  max_steps_per_episode: int | None = 1_000

  @functools.cached_property
  def _made(self) -> Any:
    """The environment.

    Raises:
      UserError: if brax is missing or doesn't know the id.
    """
    return _make(self.id, self.kwargs)


def _make(id: str, kwargs: Mapping[str, Any]) -> Any:
  try:
    with drawing.told(id):
      from brax import envs
  except ImportError as error:
    raise errors.UserError(
      f'Brax.id = {id!r} needs brax: {errors.install("brax")} ({error})'
    ) from error
  try:
    return envs.get_environment(id, **kwargs)
  except KeyError as error:
    known = sorted(envs._envs)  # brax has no public list
    raise errors.UserError(
      f'Brax.id = {id!r}: no such environment. Did you mean '
      f'{native.meant(id, known)}?'
    ) from error
