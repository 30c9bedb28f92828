"""A training's state as named arrays, and such arrays as a state.

The slots of rings are left out: `checkpoints/ring_files.py` writes those.
"""

from collections.abc import Iterable
import fnmatch
import re
from typing import Any

import jax
import numpy as np

from dopamine_jax import errors
from dopamine_jax.checkpoints import ring_files
from dopamine_jax.replay import ring as ring_lib
from dopamine_jax.system import processes


def split(state: Any) -> tuple[dict[str, np.ndarray], dict[str, ring_lib.Ring]]:
  """Returns all arrays but the rings' slots, and the rings, both by name.

  All processes must call this.
  """
  leaves, _ = jax.tree_util.tree_flatten_with_path(
    state, is_leaf=ring_lib.is_ring
  )
  rings = {
    path_name(path): leaf for path, leaf in leaves if ring_lib.is_ring(leaf)
  }
  arrays = {
    name: processes.fetch(processes.plain(leaf))
    for name, leaf in named(without_slots(state)).items()
    if leaf.size  # there is nothing to save of an empty array
  }
  return arrays, rings


def named(tree: Any) -> dict[str, Any]:
  """Returns a tree's leaves by name."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {path_name(path): leaf for path, leaf in leaves}


def path_name(path: Any) -> str:
  """Returns what a leaf is called, given its key path."""
  return ring_files.leaf_name(path) or 'state'


def short(name: str) -> str:
  """Returns a name without the `params` of `variables.Variables`.

  These lie within parameters: `target_params.params.Dense_1.kernel`, of a
  network with dropout, is `target_params.Dense_1.kernel` as of any other.
  """
  first, *rest = re.split(r'(?<=params)\.', name, maxsplit=1)
  inner = [part for part in '.'.join(rest).split('.') if part != 'params']
  return '.'.join([first, *inner]) if rest else name


def fits(name: str, patterns: Iterable[str]) -> bool:
  """Whether a name, or its end after a dot, fits one of the patterns.

  `*` stands for anything: `Dense_1.*` fits `params.Dense_1.kernel`. What begins
  with a dot fits whole names alone: `.params.*` not `passive.params.Dense_1`.
  The name is as `short` has it; with `.params.` a pattern may fit it as it is,
  too.
  """
  whole, name = f'.{name}', f'.{short(name)}'

  def fit(pattern):
    full = pattern if pattern.startswith('.') else f'*.{pattern}'
    return fnmatch.fnmatchcase(name, full) or (
      '.params.' in pattern[1:] and fnmatch.fnmatchcase(whole, full)
    )

  return any(fit(pattern) for pattern in patterns)


def require_fits(setting: str, patterns: Iterable[str], names: Iterable[str]):
  """Refuses patterns that fit none of the names.

  Args:
    setting: which has the patterns.
    patterns: as in `fits`.
    names: of an agent's state.

  Raises:
    UserError: says which names there are.
  """
  names = list(names)
  for pattern in patterns:
    if not any(fits(name, [pattern]) for name in names):
      shown = ', '.join(map(short, names[:20]))
      shown += ', ...' if len(names) > 20 else ''
      raise errors.UserError(
        f"{setting}: {pattern!r} fits nothing in the agent's state, which has "
        f"{shown}. Name some of these; '*' stands for anything."
      )


def without_slots(tree: Any) -> Any:
  """Returns a tree whose rings have no slots."""
  return jax.tree.map(
    lambda leaf: leaf.replace(slots=None) if ring_lib.is_ring(leaf) else leaf,
    tree,
    is_leaf=ring_lib.is_ring,
  )


def refuse_misfits(
  saved: dict[str, jax.ShapeDtypeStruct], template: Any, with_rings: bool
):
  """Refuses saved arrays that are not those of a template, before any is read.

  Args:
    saved: what was saved, by name.
    template: some of the top-level parts of a state.
    with_rings: whether what was saved of rings is to fit as well.

  Raises:
    UserError: names the first that doesn't fit.
  """
  expected = named(without_slots(template))
  parts = {name.split('.')[0] for name in expected}
  leaves, _ = jax.tree_util.tree_flatten_with_path(
    template, is_leaf=ring_lib.is_ring
  )
  left_out = tuple(
    f'{path_name(path)}.'
    for path, leaf in leaves
    if ring_lib.is_ring(leaf) and not with_rings
  )
  for name in saved:
    if name.startswith(left_out):
      continue
    if name not in expected and name.split('.')[0] in parts:
      raise errors.UserError(
        f'the checkpoint has {name}, which this run does not have: it is of '
        'another agent or network.'
      )
  if not with_rings:
    expected = named(
      jax.tree.map(
        lambda leaf: None if ring_lib.is_ring(leaf) else leaf,
        template,
        is_leaf=ring_lib.is_ring,
      )
    )
  agent = template.get('agent') if isinstance(template, dict) else template
  agent = getattr(agent, 'agent', agent)
  for name, leaf in expected.items():
    like = jax.eval_shape(processes.plain, leaf)
    if not like.size:
      continue
    if name not in saved and not is_younger(name, agent):
      raise errors.UserError(
        f'the checkpoint has no {name}: it is of another agent or network.'
      )
    array = saved.get(name, like)
    if array.shape != like.shape or array.dtype != like.dtype:
      raise errors.UserError(
        f'{name} was saved with shape {array.shape} of {array.dtype}; this run '
        f'has {like.shape} of {like.dtype}.'
      )


def is_younger(name: str, agent: Any) -> bool:
  """Whether older checkpoints lack an array that an agent's state has.

  Its class says so, in `younger`: names of fields, whose arrays begin at 0.

  Args:
    name: of the array, in the training's state or in the agent's.
    agent: the agent's state.
  """
  return name.removeprefix('agent.') in getattr(agent, 'younger', ())


def put(arrays: dict[str, np.ndarray], name: str, leaf: Any) -> jax.Array:
  """Returns what was saved of a leaf, in its place; empty if it is empty."""
  if name not in arrays:
    return processes.zeros(leaf)
  # A copy: JAX may go on to use the memory that it is given, and change it.
  return processes.put(np.array(arrays[name]), leaf)
