"""What makes a call into XLA cheap, where the call costs more than the work.

Passing an array takes some microseconds, whatever its size, and so does each
switch between XLA's threads.
"""

from collections.abc import Callable, Sequence
import functools
import math
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from dopamine_jax import spaces
from dopamine_jax.environments import base
from dopamine_jax.networks import platforms


def stay_in_this_thread():
  """Has programs of one CPU device run in the thread that calls them.

  By default JAX hands each to another thread, so that the caller may go on; an
  engine needs the action at once and can't. For small networks the way there
  and back takes as long as the program. It must be called before JAX looks for
  its devices, and changes no result.
  """
  jax.config.update('jax_cpu_enable_async_dispatch', False)


def one_by_one() -> dict[str, Any] | None:
  """Returns compiler options for programs of many tiny operations.

  By default XLA's CPU backend orders them so that many can run at once, and
  then spends several times their work on waking its threads.
  """
  if not platforms.is_cpu():
    return None
  return {'xla_cpu_scheduler_type': 'CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED'}


def reading_less(
  function: Callable[..., Any], tree: Any, *arguments: Any
) -> tuple[Callable[..., Any], list[int]]:
  """Returns `function` of only those leaves of its first argument it reads.

  Args:
    function: takes `tree` and `arguments`.
    tree: an example, or shapes and dtypes.
    arguments: examples of the others.

  Returns:
    A function of a list of those leaves and of `arguments`; their indices.
  """
  leaves, structure = jax.tree.flatten(tree)

  def over_leaves(leaves, *arguments):
    return function(jax.tree.unflatten(structure, leaves), *arguments)

  jaxpr = jax.make_jaxpr(over_leaves)(leaves, *arguments).jaxpr
  read = {id(each) for equation in jaxpr.eqns for each in equation.invars}
  read |= {id(each) for each in jaxpr.outvars}
  reads = [
    i
    for i, value in enumerate(jaxpr.invars[: len(leaves)])
    if id(value) in read
  ]

  def over_less(read, *arguments):
    # The others are looked at, at most: as shapes they need not be passed.
    everything = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in leaves]
    for i, leaf in zip(reads, read, strict=True):
      everything[i] = leaf
    return over_leaves(everything, *arguments)

  over_less.__name__ = function.__name__  # which profiles show
  return over_less, reads


class Bundle:
  """How a tree of arrays is passed: its small ones joined, one for each type.

  A call costs by the array, and by the node of a tree. Large arrays are passed
  as they are; to join them would copy them.
  """

  def __init__(self, tree: Any, largest: int):
    """Learns what is to be joined.

    Args:
      tree: an example, or shapes and dtypes.
      largest: of the arrays that are joined, in bytes; -1 joins none.
    """
    leaves, self._structure = jax.tree.flatten(tree)
    self._shapes = [leaf.shape for leaf in leaves]
    groups = {}
    for i, leaf in enumerate(leaves):
      is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.extended)
      is_small = not is_key and leaf.size * leaf.dtype.itemsize <= largest
      groups.setdefault(leaf.dtype if is_small else i, []).append(i)
    self._groups = list(groups.values())

  def tie(self, tree: Any) -> list[jax.Array]:
    """Returns a tree like the example as the arrays that are passed."""
    leaves = jax.tree.leaves(tree)
    return [
      leaves[group[0]] if len(group) == 1 else _join([leaves[i] for i in group])
      for group in self._groups
    ]

  def untie(self, arrays: list[jax.Array]) -> Any:
    """Returns the tree; undoes `tie`."""
    leaves = [None] * len(self._shapes)
    for group, array in zip(self._groups, arrays, strict=True):
      parts = [array]
      if len(group) > 1:
        parts = _part(array, tuple(self._shapes[i] for i in group))
      for i, part in zip(group, parts, strict=True):
        leaves[i] = part
    return jax.tree.unflatten(self._structure, leaves)


class Several(NamedTuple):
  """A list of any number of trees, all passed likewise."""

  bundle: Bundle

  def untie(self, lists: Sequence[list[jax.Array]]) -> list[Any]:
    """Returns the trees."""
    return [self.bundle.untie(arrays) for arrays in lists]


def _join(leaves):
  """Returns arrays as one vector; on a CPU by NumPy, which compiles nothing."""
  if _is_numpys(leaves):
    return jax.device_put(np.concatenate([np.ravel(x) for x in leaves]))
  return _joined(leaves)


def _part(array, shapes):
  """Returns the arrays of these shapes that one holds; see `_join`."""
  if not _is_numpys([array]):
    return _parted(array, shapes)
  # Its own memory: what is donated later can't be seen from elsewhere.
  return jax.device_put(_split(np, np.array(array), shapes))


def _is_numpys(arrays):
  """Whether NumPy can work on these arrays, outside of a program on a CPU."""
  are_traced = any(isinstance(x, jax.core.Tracer) for x in arrays)
  return platforms.is_cpu() and not are_traced


@jax.jit
def _joined(leaves):
  return jnp.concatenate([leaf.ravel() for leaf in leaves])


@functools.partial(jax.jit, static_argnums=1)
def _parted(array, shapes):
  return _split(jnp, array, shapes)


def _split(library, array, shapes):
  ends = np.cumsum([math.prod(shape) for shape in shapes])
  parts = library.split(array, ends[:-1])
  return [x.reshape(shape) for x, shape in zip(parts, shapes, strict=True)]


def pack(step: base.TimeStep, num_seeds: int) -> np.ndarray:
  """Returns the arrays of a time step [S * N, ...] as bytes, uint8 [S, K].

  JAX takes as long to pass an array of four numbers as one of a frame. For
  S = 1 it is [K]; `unpack` undoes one seed's.
  """
  if num_seeds == 1:  # Python joins bytes in a fifth of NumPy's time.
    parts = _leaves(step)
    return np.frombuffer(b''.join([x.tobytes() for x in parts]), np.uint8)
  parts = [
    np.ascontiguousarray(part).view(np.uint8).reshape(num_seeds, -1)
    for part in _leaves(step)
  ]
  return np.concatenate(parts, axis=1)


def _leaves(step):
  """Returns all arrays; of plain observations without a walk over a tree."""
  is_plain = type(step.observation) is np.ndarray
  return step if is_plain else jax.tree.leaves(step)


def unpack(
  packed: jax.Array, space: gymnasium.Space, num_envs: int
) -> base.TimeStep:
  """Returns the time step of one seed, arrays [N, ...], from its bytes.

  Args:
    packed: uint8 vector.
    space: of one frame.
    num_envs: N.
  """
  frame = spaces.lay_out(jax.ShapeDtypeStruct, space, (num_envs,))
  reward = jax.ShapeDtypeStruct((num_envs,), np.float32)
  flag = jax.ShapeDtypeStruct((num_envs,), np.bool_)
  leaves, structure = jax.tree.flatten(
    base.TimeStep(frame, reward, flag, flag, frame)
  )
  parts, begin = [], 0
  for shape, dtype in ((leaf.shape, leaf.dtype) for leaf in leaves):
    end = begin + int(np.prod(shape)) * dtype.itemsize
    part = packed[begin:end]
    if dtype == np.bool_:
      part = part.reshape(shape) != 0
    else:
      size = (dtype.itemsize,) if dtype.itemsize > 1 else ()
      part = jax.lax.bitcast_convert_type(part.reshape(*shape, *size), dtype)
    parts.append(part)
    begin = end
  return jax.tree.unflatten(structure, parts)
