"""Environments of gymnax: MinAtar, bsuite, classic control and others in JAX.

Lange (2022), gymnax: A JAX-based Reinforcement Learning Environment Library.
https://github.com/RobertTLange/gymnax

gymnax is an extra, imported when an environment is made. Its `step` resets by
itself and adds up what an episode was to be without; `step_env` and
`is_truncated`, which are used here, leave that to `native.advance`.
"""

from collections.abc import Mapping
import dataclasses
import functools
import importlib.metadata
import re
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from dopamine_jax import errors
from dopamine_jax.environments import native

_OLDEST = (1, 0, 1)  # before it, a time limit was a termination


class Gymnax(native.Native):
  """An environment of gymnax that has Box observations.

  Attributes:
    id: what `gymnax.make` takes, as 'Breakout-MinAtar'.
    kwargs: further arguments for `gymnax.make`, as {'size': 20} of
      'DeepSea-bsuite'.
    max_steps_per_episode: agent steps; replaces the environment's own limit,
      which None leaves as it is.
    sticky_actions: the probability of taking the last action again in place of
      a new one, as Young & Tian (2019) have it for MinAtar, with 0.1.
  """

  id: str
  kwargs: Mapping[str, Any] = dataclasses.field(
    default_factory=dict,
    hash=False,  # a dict has no hash, and settings should have one
  )
  sticky_actions: float = 0.0

  def __post_init__(self):
    super().__post_init__()
    self.require_fraction('sticky_actions')

  @functools.cached_property
  def _made(self) -> tuple[Any, Any]:
    """The environment and its parameters.

    Raises:
      UserError: if gymnax is missing or too old, or doesn't know the id.
    """
    env, params = _make(self.id, self.kwargs)
    if self.max_steps_per_episode is not None:
      params = params.replace(max_steps_in_episode=self.max_steps_per_episode)
    return env, params

  @functools.cached_property
  def observation_space(self) -> gymnasium.spaces.Box:
    """The space of one frame; see the base class.

    Raises:
      UserError: if observations don't form a Box.
    """
    env, params = self._made
    space = env.observation_space(params)
    if not _is_box(space):
      raise errors.UserError(
        f'{self.id} has observations {space}, and agents here take a Box.'
      )
    first, _ = jax.eval_shape(env.reset_env, jax.random.key(0), params)
    # Catch's space says int32 where its observations are float32.
    return _box(space, jnp.promote_types(space.dtype, first.dtype))

  @functools.cached_property
  def action_space(self) -> gymnasium.Space[Any]:
    """The space of one action, Discrete or a Box; see the base class."""
    env, params = self._made
    space = env.action_space(params)
    if _is_box(space):
      return _box(space, space.dtype)
    return gymnasium.spaces.Discrete(int(space.n))

  def reset(self, key: jax.Array) -> tuple[Any, jax.Array]:
    """See the base class."""
    env, params = self._made
    observation, state = env.reset_env(key, params)
    if self.sticky_actions:
      kind = jnp.float32 if _is_box(self.action_space) else jnp.int32
      none = jnp.zeros(self.action_space.shape, kind), jnp.zeros((), bool)
      return (state, *none), observation
    return state, observation

  def step(
    self, state: Any, action: jax.Array, key: jax.Array
  ) -> native.Outcome:
    """See the base class."""
    env, params = self._made
    if self.sticky_actions:
      state, last, has_last = state
      key, coin_key = jax.random.split(key)
      coin = jax.random.uniform(coin_key)
      sticks = has_last & (coin < self.sticky_actions)
      action = jnp.where(sticks, last, action.astype(last.dtype))
    observation, state, reward, terminated, _ = env.step_env(
      key, state, action, params
    )
    truncated = env.is_truncated(state, params)
    if self.sticky_actions:
      state = state, action, jnp.ones((), bool)
    return native.Outcome(state, observation, reward, terminated, truncated)


def _make(id: str, kwargs: Mapping[str, Any]) -> tuple[Any, Any]:
  try:
    version = importlib.metadata.version('gymnax')
    if tuple(map(int, re.findall(r'\d+', version)[:3])) < _OLDEST:
      raise errors.UserError(
        f'gymnax {version} is installed, in which a time limit terminates; '
        f'1.0.1 is needed: {errors.install("gymnax")}'
      )
    import gymnax
  except ImportError as error:  # PackageNotFoundError is one
    raise errors.UserError(
      f'Gymnax.id = {id!r} needs gymnax: {errors.install("gymnax")} ({error})'
    ) from error
  if id not in gymnax.registered_envs:
    raise errors.UserError(
      f'Gymnax.id = {id!r}: no such environment. Did you mean '
      f'{native.meant(id, gymnax.registered_envs)}?'
    )
  try:
    return gymnax.make(id, **kwargs)
  except TypeError as error:
    if 'unexpected keyword argument' not in str(error):
      raise
    raise errors.UserError(
      f'{id} refuses its arguments, Gymnax.kwargs = {dict(kwargs)}: {error}'
    ) from error


def _is_box(space: Any) -> bool:
  return hasattr(space, 'low')


def _box(space: Any, dtype: Any) -> gymnasium.spaces.Box:
  low, high = (
    np.broadcast_to(np.asarray(bound, dtype), space.shape)
    for bound in (space.low, space.high)
  )
  return gymnasium.spaces.Box(low, high, dtype=np.dtype(dtype))
