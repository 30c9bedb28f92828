"""Frames of a replay that lie on a disk: what takes their place in a state."""

import os
import shutil
import tempfile
from typing import Any

import jax
import psutil

from dopamine_jax.replay import mapped_rows
from dopamine_jax.replay import ring as ring_lib

_IN_MEMORY = 'tmpfs', 'ramfs', 'devtmpfs'


def laid_out(
  template: Any, devices: Any, known: dict[str, mapped_rows.MappedRows]
) -> Any:
  """Returns a template of a state, with files where rings have frames.

  Args:
    template: of ShapeDtypeStructs.
    devices: the settings `Devices`.
    known: files by what lies in them, which are the same each time; new ones
      are added.

  Raises:
    SettingError: if there is no such folder, or it lies in memory.
  """
  folder = devices.replay_folder
  if folder is None:  # Python goes elsewhere where TMPDIR can't be used.
    folder = os.environ.get('TMPDIR') or tempfile.gettempdir()
  folder = os.path.expanduser(folder)
  if not os.path.isdir(folder):
    devices.refuse('replay_folder', 'is no folder; make it first')
  kind = _kind_of(folder)
  if kind in _IN_MEMORY:
    devices.refuse(
      'replay_folder',
      f'is to be on a disk, and {folder} lies in memory ({kind}). Name a '
      'folder elsewhere',
    )

  def each(path, leaf):
    if not ring_lib.is_ring(leaf):
      return leaf

    def file(inner, array):
      name = jax.tree_util.keystr((*path, *inner))
      if name not in known:
        known[name] = mapped_rows.mapped(array, folder, leaf.head.ndim)
      return known[name]

    frame = jax.tree_util.tree_map_with_path(file, leaf.slots.frame)
    return leaf.replace(slots=leaf.slots.replace(frame=frame))

  return jax.tree_util.tree_map_with_path(
    each, template, is_leaf=ring_lib.is_ring
  )


def files(template: Any) -> list[mapped_rows.MappedFile]:
  """Returns the files of a state, or of its template."""
  leaves = jax.tree.leaves(template, is_leaf=mapped_rows.is_mapped)
  return [leaf.file for leaf in leaves if mapped_rows.is_mapped(leaf)]


def _kind_of(folder):
  """Returns the type of the file system that a folder lies on, if known."""
  folder = os.path.realpath(folder)
  found = [
    each
    for each in psutil.disk_partitions(all=True)
    if os.path.commonpath([folder, each.mountpoint]) == each.mountpoint
  ]
  return max(found, key=lambda x: len(x.mountpoint)).fstype if found else ''


def free(given: list[mapped_rows.MappedFile]) -> int:
  """Returns the bytes that are free where files are to lie; 0 without any."""
  return shutil.disk_usage(given[0].folder).free if given else 0


def require_room(devices: Any, template: Any):
  """Refuses files that there is no room for.

  Args:
    devices: the settings `Devices`.
    template: of a state.

  Raises:
    SettingError: if the disk is too full. Room for checkpoints is not asked
      for.
  """
  found = files(template)
  if not found:
    return
  needed, folder = sum(each.nbytes for each in found), found[0].folder
  there = free(found)
  if needed > there:
    devices.refuse(
      'replay_folder',
      f'has no room: frames of {needed / 1e6:,.1f} MB are to lie in {folder}, '
      f'where {there / 1e6:,.1f} MB are free. Name a folder on a larger disk, '
      "or lower the replay's capacity or num_seeds",
    )
