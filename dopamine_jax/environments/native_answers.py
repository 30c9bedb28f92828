"""What environments in JAX answer, held to what they promise while traced."""

from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from dopamine_jax import errors
from dopamine_jax import spaces


def stored_space(environment: Any) -> gymnasium.Space[Any]:
  """Returns the space of observations as `begin` and `advance` give them."""
  name = type(environment).__name__
  return spaces.stored(environment.observation_space, name)


def check_states(environment, first, later):
  """Refuses states of two kinds: one would be cast to the other, or not fit."""
  # Without where they lie, which differs if a batch is split.
  kinds = [
    jax.tree.map(lambda x: _kind(jax.typeof(x)), state)
    for state in (first, later)
  ]
  structures = [jax.tree.structure(state) for state in (first, later)]
  # Leaf by leaf: what else a state is made of, as MuJoCo's arrays, may have no
  # truth when it is compared.
  leaves = [jax.tree.leaves(state) for state in kinds]
  if structures[0] != structures[1] or leaves[0] != leaves[1]:
    raise errors.UserError(
      f'{type(environment).__name__} has states of two kinds: reset gives '
      f'{kinds[0]}, and step gives {kinds[1]}. Mend the environment.'
    )


def _kind(array):
  weak = ', weak' if array.weak_type else ''
  return f'{array.dtype}{list(array.shape)}{weak}'


def as_space(environment, observation):
  """Returns the observation in its space's types, if that describes it."""
  space = environment.observation_space
  try:
    parts = spaces.flatten(space, observation)
  except ValueError as error:
    raise broken(
      environment,
      f'its observation_space is {space}, and it gave '
      f'{type(observation).__name__}, which differs at observation{error}',
    ) from None
  kept = spaces.leaves(stored_space(environment))
  pairs = zip(spaces.leaves(space).items(), parts, strict=True)
  seen = [
    _as_leaf(environment, path, leaf, part, kept[path].dtype)
    for (path, leaf), part in pairs
  ]
  if environment.observed is not None:  # of a plain vector
    seen = [seen[0][jnp.array(environment.observed)]]
  return spaces.unflatten(space, seen)


def _as_leaf(environment, path, space, given, dtype):
  """Returns a leaf of an observation as it is stored, counted from 0.

  Whoever stores it would broadcast it or cut it off without a word. A trace
  knows no values, so that integers of a Box must not become narrower at all.
  """
  type_ = getattr(given, 'dtype', None)
  shown = type(given).__name__
  fits = False
  if type_ is not None:
    shown = f'{np.dtype(type_)} {given.shape}'
    is_whole = np.dtype(type_).kind in 'iu' and space.dtype.kind in 'iu'
    rule = 'safe' if is_whole else 'same_kind'
    is_box = isinstance(space, gymnasium.spaces.Box)
    fits = np.can_cast(type_, space.dtype, rule) or (is_whole and not is_box)
  if not fits or given.shape != space.shape:
    raise broken(
      environment,
      f'its observation_space{path} says {space.dtype} {space.shape}, and it '
      f'gave {shown}',
    )
  start = spaces.start(space)
  return (given - start if np.any(start) else given).astype(dtype)


def broken(environment, reason) -> errors.UserError:
  """Returns the error that an environment breaks its word."""
  return errors.UserError(
    f'{type(environment).__name__} breaks its word: {reason}. Mend the '
    'environment.'
  )


def told(environment, outcome, name):
  """Returns a number of `Outcome.info`, float32."""
  if name not in outcome.info:
    raise errors.UserError(
      f'{type(environment).__name__}.info names {name!r}, and its step tells '
      f'{sorted(outcome.info) or "nothing"}. Name one of these, or leave it '
      'out.'
    )
  return scalar(environment, outcome, name, jnp.float32, outcome.info[name])


def scalar(environment, outcome, name, dtype, value=None):
  """Returns a part of an outcome, which must be one real number."""
  value = getattr(outcome, name) if value is None else value
  kinds, words = 'biuf', 'a number or bool'
  if dtype is bool:
    # A number that is neither 0 nor 1 could not be seen in a trace.
    kinds, words = 'b', 'a bool'
  try:
    given = jnp.asarray(value)
  except (TypeError, ValueError):  # text, or None
    given = None
  if given is None or given.shape or given.dtype.kind not in kinds:
    shown = repr(value) if given is None else f'{given.dtype} {given.shape}'
    raise broken(
      environment, f'{name} must be a scalar, {words}, and step gave {shown}'
    )
  return given.astype(dtype)
