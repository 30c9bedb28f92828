"""Where a training lies: over which devices and processes, in which memory.

Data are placed once, and the programs of an engine follow them (`jax.jit` over
a mesh): no other code knows how many devices there are.

- `split = 'seeds'`: every array's leading seed axis is split. No device waits
  for another.
- `split = 'batch'`: networks and optimizer lie on every device, and so does all
  of the replay but the frames, of which each device has a share of the slots.
  Each computes its part of the batch, and XLA adds up the gradients. At an
  update the devices exchange the frames that were sampled and one gradient.

Several processes are the same over more devices; see `processes.py`.
"""

from collections.abc import Callable
import contextlib
import functools
import math
import os
from typing import Any

import jax
import numpy as np
import psutil

from dopamine_jax import errors
from dopamine_jax import settings
from dopamine_jax.engines import disk
from dopamine_jax.engines import dispatch
from dopamine_jax.replay import mapped_rows
from dopamine_jax.replay import ring as ring_lib

# The flag by which a GPU's programs add in one order.
DETERMINISTIC = '--xla_gpu_deterministic_ops=true'
_AXIS = 'devices'
_PRECISIONS = 'bfloat16', 'tensorfloat32', 'float32'
_P = jax.sharding.PartitionSpec


class Devices(settings.Settings):
  """Which devices train, what is split over them, where the replay lies.

  Sums over a split batch are ordered differently, so that a run equals one on
  another number of devices to rounding only. On the same devices it is exact.

  Attributes:
    split: 'none': all on one device; 'seeds': each device trains a share of
      the seeds; 'batch': each computes a share of every batch.
    num_devices: how many to split over; None for all that JAX sees.
    replay_memory: 'device', or 'pinned_host' for GPUs that are too small for
      the replay: its frames then lie in the machine's memory, each row copied
      to the device when it is sampled. Tested for its numbers on CPUs; not yet
      measured on a GPU or TPU. 'disk': they lie in a file, where the machine's
      memory is too small for them; see `mapped_rows`. Training gives the same
      numbers. Checkpoints hold the replay besides, each row twice.
    replay_folder: a folder on a disk with room for that file, which is gone
      when the training ends; None: that of temporary files (TMPDIR).
    matmul_precision: how products of matrices and convolutions may round what
      they multiply, while it trains: 'bfloat16', 'tensorfloat32' or 'float32';
      None: as JAX chooses, which on GPUs and TPUs is less than 32 bits. CPUs
      always have all 32.
    deterministic: whether to refuse a GPU whose programs may add in any order;
      see `require_deterministic`.
  """

  split: str = 'none'
  num_devices: int | None = None
  replay_memory: str = 'device'
  replay_folder: str | None = None
  matmul_precision: str | None = None
  deterministic: bool = False

  def __post_init__(self):
    super().__post_init__()
    self.require_at_least(1, 'num_devices')
    for name, choices in (
      ('split', ('none', 'seeds', 'batch')),
      ('replay_memory', ('device', 'pinned_host', 'disk')),
      ('matmul_precision', (None, *_PRECISIONS)),
    ):
      if getattr(self, name) not in choices:
        known = ', '.join(map(str, choices))
        self.refuse(name, f'is unknown; choose one of {known}')
    if self.split == 'none' and (self.num_devices or 1) > 1:
      self.refuse('num_devices', "needs split = 'seeds' or 'batch'")
    if self.replay_folder is not None and self.replay_memory != 'disk':
      self.refuse('replay_folder', "needs replay_memory = 'disk'")
    if self.split != 'none' and self.replay_memory != 'device':
      self.refuse(
        'replay_memory',
        f"does not go with split = {self.split!r}: choose 'device', since each "
        "device then holds only a share of the replay, or split = 'none'",
      )

  def computing(self) -> contextlib.AbstractContextManager[None]:
    """Returns a context in which programs multiply as these settings say."""
    if self.matmul_precision is None:
      return contextlib.nullcontext()
    return jax.default_matmul_precision(self.matmul_precision)

  def require_deterministic(self):
    """Refuses a GPU that was not told to add in one order.

    XLA reads that when JAX starts. It costs speed, most where gradients of
    gathers are added up.

    Raises:
      SettingError: says how to start.
    """
    flags = os.environ.get('XLA_FLAGS', '')
    if jax.default_backend() == 'gpu' and DETERMINISTIC not in flags:
      self.refuse(
        'deterministic',
        'needs a flag that XLA reads when JAX starts: start with '
        f'XLA_FLAGS="{DETERMINISTIC}" in the environment',
      )

  def count(self) -> int:
    """Returns how many devices train.

    Raises:
      SettingError: if there are fewer, or processes that have none.
    """
    present, group = jax.device_count(), jax.process_count()
    if self.split == 'none':
      if group > 1:
        self.refuse(
          'split',
          f'would have {group} processes train the same on devices of '
          "their own; choose 'seeds' or 'batch', or start one process",
        )
      return 1
    count = self.num_devices or present
    if count > present:
      self.refuse(
        'num_devices',
        f'is more than the {present} that JAX sees here (a trial on a CPU can '
        'have as many as you like: '
        f'XLA_FLAGS=--xla_force_host_platform_device_count={count})',
      )
    if group > 1 and count < present:
      self.refuse(
        'num_devices',
        f'leaves out some of the {present} devices of {group} processes; '
        'leave it unset to use all',
      )
    return count


ONE_DEVICE = Devices()


class Layout:
  """Where one run's arrays lie, and which device computes what.

  Attributes:
    settings: the run's `Devices`.
    num_seeds: S.
    count: how many devices train.
  """

  def __init__(self, devices: Devices, num_seeds: int):
    self.settings = devices
    self.num_seeds = num_seeds
    if devices.deterministic:
      devices.require_deterministic()
    self.count = devices.count()
    if devices.split != 'none':
      members = np.array(jax.devices()[: self.count])
      self._mesh = jax.sharding.Mesh(members, (_AXIS,))
    if devices.split == 'seeds' and (num_seeds < 2 or num_seeds % self.count):
      devices.refuse(
        'split',
        f'needs --num_seeds to be at least 2 and a multiple of the devices; '
        f'it is {num_seeds}, and there are {self.count} devices (fewer by '
        'devices.Devices.num_devices)',
      )
    self._files = {}  # of frames that lie on a disk
    self._on_disk = devices.replay_memory == 'disk'
    self._on_host = devices.replay_memory == 'pinned_host'
    if self._on_host:
      memories = [m.kind for m in jax.local_devices()[0].addressable_memories()]
      if 'pinned_host' not in memories:
        devices.refuse(
          'replay_memory',
          f'is a memory that {jax.local_devices()[0]} does not have; it has '
          f'{", ".join(memories)}',
        )

  @property
  def is_simple(self) -> bool:
    """Whether all arrays lie on one device, in its own memory.

    Frames in files are no arrays: programs ask for them.
    """
    return self.settings.split == 'none' and not self._on_host

  def spread(self, function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns `function` as each device computes its part.

    Args:
      function: over the seeds, if there are several: all its arguments and
        results then have a leading axis [S].
    """
    if self.settings.split == 'seeds':
      # Nothing is the same on two devices, so that there is nothing to check.
      return jax.shard_map(
        function,
        mesh=self._mesh,
        in_specs=_P(_AXIS),
        out_specs=_P(_AXIS),
        check_vma=False,
      )
    if self.settings.split == 'batch':
      # XLA would lay out results as it likes, and then compile for that anew.
      return functools.partial(self._in_place, function)
    return function

  def _in_place(self, function, *args):
    return self._map(jax.lax.with_sharding_constraint, function(*args))

  def split_batch(self, sample: Any) -> Any:
    """Returns a sample [B, ...], a share of it on each device."""
    if self.settings.split != 'batch':
      return sample
    share = jax.sharding.NamedSharding(self._mesh, _P(_AXIS))
    return jax.lax.with_sharding_constraint(sample, share)

  def place(self, template: Any) -> Any:
    """Returns ShapeDtypeStructs whose `sharding` says where each array lies.

    Raises:
      UserError: if a ring's slots can't be split evenly.
    """
    if self._on_disk:
      return disk.laid_out(template, self.settings, self._files)
    return self._map(
      lambda leaf, sharding: jax.ShapeDtypeStruct(
        leaf.shape, leaf.dtype, sharding=sharding
      ),
      template,
    )

  def init(self, function: Callable[..., Any], *args: Any) -> Any:
    """Returns the state that a function makes, each array in its place."""
    if not (self._on_host or self._on_disk):
      # One operation after the other: where several wait for threads of their
      # own, as orthogonal kernels of some seeds do, two cores may never end.
      options = dispatch.one_by_one()
      return jax.jit(function, compiler_options=options)(*args)
    # Frames that lie elsewhere may be too many for the device to make.
    template = self.place(jax.eval_shape(function, *args))

    def without_frames(*args):
      return jax.tree.map(
        lambda leaf: _without_frame(leaf) if ring_lib.is_ring(leaf) else leaf,
        function(*args),
        is_leaf=ring_lib.is_ring,
      )

    def put(leaf, made):
      if made is None:
        return mapped_rows.empty(leaf)
      return jax.device_put(made, leaf.sharding) if leaf.sharding else made

    return jax.tree.map(
      put,
      template,
      jax.jit(without_frames, compiler_options=dispatch.one_by_one())(*args),
      is_leaf=mapped_rows.is_mapped,
    )

  def close(self):
    """Lets go of the frames that lie on a disk, and of their room there."""
    for each in self._files.values():
      each.file.close()

  def check(self, replay: Any, template: Any):
    """Refuses batches that can't be split evenly, and what can't fit.

    Args:
      replay: the replay's settings.
      template: what `place` returned for the training state.

    Raises:
      UserError: if a batch or the memory is too small.
    """
    if self.settings.split == 'batch':
      replay.check_split(self.count)
    on_device, on_host = 0, 0
    for leaf in jax.tree.leaves(template):
      kind, shape = None, leaf.shape
      if getattr(leaf, 'sharding', None) is not None:
        kind = leaf.sharding.memory_kind
        shape = leaf.sharding.shard_shape(leaf.shape)
      size = math.prod(shape) * leaf.dtype.itemsize
      if kind == 'pinned_host':
        on_host += size
      else:
        on_device += size
    disk.require_room(self.settings, template)
    available = psutil.virtual_memory().available
    stats = jax.local_devices()[0].memory_stats() or {}
    if 'bytes_limit' in stats:
      _refuse_above(stats['bytes_limit'], on_device, 'a device')
    else:  # A CPU, whose devices share the machine's memory.
      on_host += on_device * (self.count // jax.process_count())
    _refuse_above(available, on_host, 'this machine')

  def versions(self) -> dict[str, str]:
    """Returns what a bit-exact resume depends on, beside the libraries."""
    if self.settings.split == 'none' and jax.default_backend() == 'cpu':
      return {}
    return {'devices': f'{self.count} {jax.devices()[0].device_kind}'}

  def _map(self, function, tree):
    """Applies function(array, its sharding) to all arrays of a state."""

    def each(leaf):
      if not ring_lib.is_ring(leaf):
        return function(leaf, self._sharding())
      frame = jax.tree.map(
        lambda x: function(x, self._frame_sharding(x, leaf.head.ndim)),
        leaf.slots.frame,
      )
      rest = jax.tree.map(each, _with_frame(leaf, None))
      return _with_frame(rest, frame)

    return jax.tree.map(each, tree, is_leaf=ring_lib.is_ring)

  def _sharding(self):
    """Where all arrays lie but the rings' frames; None: where JAX likes."""
    if self._on_host:
      # Said of all: beside frames that have their place, JAX gives one to all
      # results, and would compile anew for them.
      return jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    if self.settings.split == 'none':
      return None
    spec = _P(_AXIS) if self.settings.split == 'seeds' else _P()
    return jax.sharding.NamedSharding(self._mesh, spec)

  def _frame_sharding(self, frame, slots_axis):
    if self._on_host:
      return self._sharding().with_memory_kind('pinned_host')
    if self.settings.split != 'batch':
      return self._sharding()
    slots = frame.shape[slots_axis]
    if slots % self.count:
      raise errors.UserError(
        f'the replay has {slots} slots for each environment, which is not a '
        f'multiple of the {self.count} devices that share them '
        "(devices.Devices.split = 'batch'). Change the replay's capacity."
      )
    spec = _P(*[None] * slots_axis, _AXIS)
    return jax.sharding.NamedSharding(self._mesh, spec)


def _with_frame(ring, frame):
  return ring.replace(slots=ring.slots.replace(frame=frame))


def _without_frame(ring):
  return _with_frame(ring, jax.tree.map(lambda _: None, ring.slots.frame))


def _refuse_above(available, needed, where):
  if needed > available:
    raise errors.UserError(
      f'this run needs {needed / 1e9:.1f} GB for replay, networks and '
      f'optimizer on {where}; {available / 1e9:.1f} GB are available. Lower '
      "the replay's capacity, or num_seeds."
    )
