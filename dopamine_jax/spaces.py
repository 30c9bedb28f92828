"""Spaces as trees: what an observation is made of, leaf by leaf.

A `Dict` or `Tuple` of Gymnasium is a branch; its observations are dicts and
tuples. Every other space is a leaf, whose observations are arrays. A plain Box
is a tree of one leaf, and its observation that leaf itself.

Leaves come in JAX's order: the keys of a Dict sorted. Nothing here needs JAX.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import gymnasium
from gymnasium import spaces
import numpy as np

from dopamine_jax import errors

Space = gymnasium.Space
# Types that JAX does not have, as it is used here, and what they become.
NARROWED = {
  'float64': 'float32',
  'longdouble': 'float32',
  'int64': 'int32',
  'uint64': 'uint32',
}
_LARGEST = 2**31 - 1


class Masked(spaces.Dict):
  """Observations that say which actions are allowed in them.

  A Dict of 'observation' and 'action_mask', MultiBinary [num_actions]: 1 where
  an action is allowed. Agents choose among those; networks see the observation.
  """

  def __init__(self, observation: Space, num_actions: int):
    mask = spaces.MultiBinary(num_actions)
    super().__init__({'action_mask': mask, 'observation': observation})


def unmasked(space: Space) -> Space:
  """Returns the space of observations alone, if it is `Masked`; else itself."""
  return space['observation'] if isinstance(space, Masked) else space


def mask_of(space: Space, observation: Any) -> Any:
  """Returns which actions are allowed, [..., A]; None where all always are."""
  is_masked = isinstance(space, Masked)
  return observation['action_mask'] if is_masked else None


def is_tree(space: Space) -> bool:
  """Whether a space is a branch, and no leaf."""
  return isinstance(space, (spaces.Dict, spaces.Tuple))


def map_leaves(
  function: Callable[[str, Space], Any], space: Space, path: str = ''
) -> Any:
  """Returns the tree of what a function makes of each leaf.

  Args:
    function: of a leaf's path, such as "['image']" or '[0]', and the leaf.
    space: the tree.
    path: of the tree itself.
  """
  if isinstance(space, spaces.Dict):
    return {
      key: map_leaves(function, space[key], f'{path}[{key!r}]')
      for key in sorted(space)
    }
  if isinstance(space, spaces.Tuple):
    parts = enumerate(space)
    return tuple(map_leaves(function, x, f'{path}[{i}]') for i, x in parts)
  return function(path, space)


def map_space(
  function: Callable[[str, Space], Space], space: Space, path: str = ''
) -> Space:
  """Returns the same tree with other leaves; see `map_leaves`."""
  if isinstance(space, Masked):
    inner = map_space(function, space['observation'], f"{path}['observation']")
    return Masked(inner, space['action_mask'].n)
  if isinstance(space, spaces.Dict):
    return spaces.Dict(
      {
        key: map_space(function, space[key], f'{path}[{key!r}]')
        for key in sorted(space)
      }
    )
  if isinstance(space, spaces.Tuple):
    parts = enumerate(space)
    return spaces.Tuple(
      [map_space(function, x, f'{path}[{i}]') for i, x in parts]
    )
  return function(path, space)


def leaves(space: Space) -> dict[str, Space]:
  """Returns the leaves by their paths; of a plain space itself, by ''."""
  found = {}
  map_leaves(found.__setitem__, space)
  return found


def flatten(space: Space, tree: Any) -> list[Any]:
  """Returns the leaves of an observation, in the order of `leaves`.

  Raises:
    ValueError: says where it is no dict or tuple with what the space has.
  """
  return _flatten(space, tree, '') if is_tree(space) else [tree]


def _flatten(space, tree, path):
  if isinstance(space, spaces.Dict):
    if not isinstance(tree, dict) or tree.keys() != space.spaces.keys():
      raise ValueError(path)
    parts = [(space[key], tree[key], f'[{key!r}]') for key in sorted(space)]
  elif isinstance(space, spaces.Tuple):
    if not isinstance(tree, (tuple, list)) or len(tree) != len(space):
      raise ValueError(path)
    parts = [(space[i], tree[i], f'[{i}]') for i in range(len(space))]
  else:
    return [tree]
  return [leaf for s, t, p in parts for leaf in _flatten(s, t, path + p)]


def only(space: Space, tree: Any) -> Any:
  """Returns an observation without the keys that a Dict does not have."""
  if isinstance(space, spaces.Dict) and isinstance(tree, dict):
    if space.spaces.keys() <= tree.keys():
      return {key: only(space[key], tree[key]) for key in space}
  return tree


def unflatten(space: Space, leaves: Iterable[Any]) -> Any:
  """Returns the tree of leaves in the order of `leaves`; undoes `flatten`."""
  left = iter(leaves)
  return map_leaves(lambda path, leaf: next(left), space)


def num_rows(observations: Any) -> int:
  """Returns N of observations [N, ...], an array or a tree of them."""
  while isinstance(observations, (dict, tuple)):
    is_dict = isinstance(observations, dict)
    observations = next(
      iter(observations.values() if is_dict else observations)
    )
  return len(observations)


def map_trees(function: Callable[..., Any], first: Any, *others: Any) -> Any:
  """Returns the tree of what a function makes of the leaves of alike trees."""
  if isinstance(first, dict):
    return {
      key: map_trees(function, first[key], *[each[key] for each in others])
      for key in first
    }
  if isinstance(first, tuple):
    parts = zip(first, *others, strict=True)
    return tuple(map_trees(function, *part) for part in parts)
  return function(first, *others)


def lay_out(
  function: Callable[..., Any], space: Space, lead: Sequence[Any] = ()
) -> Any:
  """Returns the tree of function(shape, dtype) of observations [*lead, ...].

  With `jax.ShapeDtypeStruct` it is what stands for them in a trace, with
  `np.zeros` an example.
  """
  return map_leaves(
    lambda path, leaf: function((*lead, *leaf.shape), leaf.dtype), space
  )


def stored(space: Space, name: str) -> Space:
  """Returns the space of observations as replays and agents have them.

  Types of 64 bits become those of 32, if their numbers fit. The values of a
  Discrete or MultiDiscrete are counted from 0, in the smallest type.

  Args:
    space: of an environment's observations.
    name: what errors call the environment.

  Raises:
    UserError: names a leaf that is no array of numbers.
  """
  _require_names(space, name)
  return map_space(lambda path, leaf: _stored_leaf(leaf, path, name), space)


def _require_names(space, name):
  """Refuses a Dict whose keys are no text, which have no common order."""
  if isinstance(space, spaces.Dict):
    for key in space:
      if not isinstance(key, str):
        raise errors.UserError(
          f'{name} has an observation_space whose key {key!r} is no text. Give '
          'it names.'
        )
  if is_tree(space):
    parts = space.values() if isinstance(space, spaces.Dict) else space
    for part in parts:
      _require_names(part, name)


def _stored_leaf(leaf, path, name):
  named = f'{name} has an observation{path}'
  if isinstance(leaf, spaces.Box):
    return _narrowed(leaf)
  if isinstance(leaf, spaces.Discrete):
    return spaces.Discrete(int(leaf.n), dtype=_counting(leaf, leaf.n, named))
  if isinstance(leaf, spaces.MultiDiscrete):
    dtype = _counting(leaf, leaf.nvec.max(initial=1), named)
    return spaces.MultiDiscrete(leaf.nvec, dtype=dtype)
  if isinstance(leaf, spaces.MultiBinary):
    return leaf
  raise errors.UserError(
    f'{named} in {leaf}, which no network here takes: they take Box, Discrete, '
    'MultiDiscrete and MultiBinary, alone or in a Dict or Tuple. '
    f'{_left_out(path)} an id of your own with a wrapper that makes numbers of '
    'it.'
  )


def _left_out(path):
  """Returns how a leaf can be left out, if it is a part of the outer Dict."""
  key, end, rest = path[2:].partition("']")
  if not path.startswith("['") or not end or rest:
    return 'Register'
  return f'Leave it out, by gym.Gym.leave_out = ({key!r},), or register'


def _counting(leaf, count, named):
  """Returns the smallest type that counts so many values, which JAX has."""
  if count - 1 > _LARGEST:
    raise errors.UserError(
      f'{named} in {leaf}, which has more values than 32 bits hold. Give it as '
      'numbers of a Box.'
    )
  dtype = np.min_scalar_type(int(count) - 1)
  return np.int32 if dtype == np.uint32 else dtype.type


def _narrowed(space):
  """Returns a Box in a type that JAX has."""
  dtype = np.dtype(NARROWED.get(space.dtype.name, space.dtype))
  if dtype == space.dtype:
    return space
  low, high = space.low, space.high
  if dtype.kind != 'f':
    limits = np.iinfo(dtype)
    low, high = low.clip(limits.min, limits.max), high.clip(max=limits.max)
  with np.errstate(over='ignore'):  # bounds past float32 are no bounds
    low, high = low.astype(dtype), high.astype(dtype)
  return spaces.Box(low, high, dtype=dtype)


def start(space: Space) -> Any:
  """Returns the first value of a Discrete or MultiDiscrete; else 0."""
  return getattr(space, 'start', 0)


def num_values(space: Space) -> Any:
  """Returns how many values each number of a space has that is no Box."""
  if isinstance(space, spaces.Discrete):
    return int(space.n)
  if isinstance(space, spaces.MultiDiscrete):
    return space.nvec.astype(np.int64)
  return 2  # MultiBinary
