"""Environments of brax: rigid bodies, with continuous actions, in JAX.

Freeman et al. (2021), Brax: A Differentiable Physics Engine for Large Scale
Rigid Body Simulation. https://arxiv.org/abs/2106.13281

brax is an extra, imported when an environment is made. Its wrappers for time
limits and resets are left out: `native.advance` does both, and draws a new
first state for each episode, where they repeat the lane's first one.
"""

from collections.abc import Mapping
import dataclasses
import difflib
import functools
from typing import Any

import gymnasium
import jax
import numpy as np

from dopamine_jax import errors
from dopamine_jax.environments import native


class Brax(native.Native):
  """An environment of brax.

  Observations are float32 vectors without bounds. An action is a vector in
  [-1, 1], for the actuators' range.

  Attributes:
    id: a name that brax knows, as 'halfcheetah'.
    kwargs: further arguments for the environment, as {'backend': 'spring'};
      without one, brax's default is the 'generalized' backend.
    max_steps_per_episode: agent steps; the default is that of brax.
  """

  id: str
  kwargs: Mapping[str, Any] = dataclasses.field(
    default_factory=dict,
    hash=False,  # a dict has no hash, and settings should have one
  )
  max_steps_per_episode: int | None = 1_000

  @functools.cached_property
  def _made(self) -> Any:
    """The environment.

    Raises:
      UserError: if brax is missing or doesn't know the id.
    """
    return _make(self.id, self.kwargs)

  @functools.cached_property
  def observation_space(self) -> gymnasium.spaces.Box:
    """The space of one frame; see the base class.

    Raises:
      UserError: if an observation is more than one array.
    """
    observation = jax.eval_shape(self._made.reset, jax.random.key(0)).obs
    if isinstance(observation, Mapping):
      raise errors.UserError(
        f'{self.id} has observations {sorted(observation)}, and agents here '
        'take one array.'
      )
    return gymnasium.spaces.Box(-np.inf, np.inf, observation.shape)

  @functools.cached_property
  def action_space(self) -> gymnasium.spaces.Box:
    """The space of one action; see the base class."""
    return gymnasium.spaces.Box(-1, 1, (self._made.action_size,))

  def reset(self, key: jax.Array) -> tuple[Any, jax.Array]:
    """See the base class."""
    state = self._made.reset(key)
    return state, state.obs

  def step(
    self, state: Any, action: jax.Array, key: jax.Array
  ) -> native.Outcome:
    """See the base class."""
    del key
    # A copy of its containers: brax writes into the dictionary of metrics.
    state = self._made.step(jax.tree.map(lambda leaf: leaf, state), action)
    return native.Outcome(state, state.obs, state.reward, state.done > 0)


def _make(id: str, kwargs: Mapping[str, Any]) -> Any:
  try:
    from brax import envs
  except ImportError as error:
    raise errors.UserError(
      f'Brax.id = {id!r} needs brax: {errors.install("brax")} ({error})'
    ) from error
  try:
    return envs.get_environment(id, **kwargs)
  except KeyError as error:
    known = sorted(envs._envs)  # brax has no public list
    known = difflib.get_close_matches(id, known, n=3) or known
    raise errors.UserError(
      f'Brax.id = {id!r}: no such environment. Did you mean '
      f'{" or ".join(known)}?'
    ) from error
