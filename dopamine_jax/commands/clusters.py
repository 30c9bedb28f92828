"""Where a sweep trains: on this machine, on a cluster of Ray, or by Slurm."""

from collections.abc import Sequence
import dataclasses
import math
import pathlib
import re
import shlex
from typing import Annotated, Any

import typer

from dopamine_jax import errors
from dopamine_jax.commands import common
from dopamine_jax.system import children

_ADDRESS = re.compile(r'(ray://)?[^\s:/]+:[0-9]+')


def _parse_cluster(text: str) -> str:
  if text in ('ray', 'slurm') or _ADDRESS.fullmatch(text):
    return text
  raise typer.BadParameter(
    f'{text!r}: expected ray, ray://HOST:10001, HOST:6379 or slurm.'
  )


Cluster = Annotated[
  str | None,
  typer.Option(
    parser=_parse_cluster,
    metavar='NAME',
    help='ray: the Ray cluster of this machine, else one that is started here; '
    'ray://HOST:10001 or HOST:6379: another one; slurm: an array of jobs is '
    'submitted, and the command ends.',
    show_default='none: this machine',
  ),
]
NumCPUs = Annotated[
  float | None,
  typer.Option(
    '--num_cpus', min=0.1, help='With Ray: cores of a task.', show_default='1'
  ),
]
NumGPUs = Annotated[
  float | None,
  typer.Option(
    '--num_gpus',
    min=0,
    help='With Ray: GPUs of a task; 0.25: four tasks share one.',
    show_default='1 if the cluster has some',
  ),
]
Sbatch = Annotated[
  list[str],
  typer.Option(
    '--sbatch',
    metavar='OPTIONS',
    help="With Slurm: options of each job, such as '--partition=gpu --gpus=1 "
    "--time=8:00:00'. Repeatable.",
  ),
]


@dataclasses.dataclass(frozen=True)
class Here:
  """Processes on this machine.

  Attributes:
    count: of them.
  """

  count: int

  def open(self, context: typer.Context):
    """Needs nothing."""

  def share(self, study: Any) -> tuple[Any, int]:
    """Returns the study and the processes for which packs are measured."""
    return study, self.count

  def run(self, folder: pathlib.Path) -> int:
    """Has them train a sweep; returns the exit status."""
    from dopamine_jax.sweeps import local

    def train(say, show):
      return local.run(folder, self.count, say, show)

    return _watched(folder, train, '')


@dataclasses.dataclass(frozen=True)
class Slurm:
  """Jobs of Slurm.

  Attributes:
    count: of them.
    options: of `sbatch`.
  """

  count: int
  options: tuple[str, ...]

  def open(self, context: typer.Context):
    """Needs nothing: where there is no Slurm, a script is written."""

  def share(self, study: Any) -> tuple[Any, int]:
    """Returns one job's share of a study, for which packs are measured."""
    return _one_share(study, self.count)

  def run(self, folder: pathlib.Path) -> int:
    """Submits them."""
    from dopamine_jax.sweeps import slurm

    said = slurm.submit(slurm.write(folder, self.count, self.options))
    name, where = errors.program('dopamine-jax'), shlex.quote(str(folder))
    common.say(f'{said}. How far they are: {name} sweep status {where}')
    return 0


@dataclasses.dataclass(frozen=True)
class Ray:
  """Tasks of Ray.

  Attributes:
    address: see `ray_cluster.connected`.
    count: tasks at once; None: as many as fit.
    num_cpus: of a task; None: see `NumCPUs`.
    num_gpus: of a task; None: see `NumGPUs`.
  """

  address: str
  count: int | None
  num_cpus: float | None
  num_gpus: float | None

  def open(self, context: typer.Context):
    """Connects to the cluster until the command ends."""
    from dopamine_jax.sweeps import ray_cluster

    connection = ray_cluster.connected(self.address)
    context.with_resource(connection)

  def share(self, study: Any) -> tuple[Any, int]:
    """Returns one task's share of a study, for which packs are measured."""
    from dopamine_jax.sweeps import ray_cluster

    slots = self._resources().slots(ray_cluster.nodes())
    return _one_share(study, slots)

  def run(self, folder: pathlib.Path) -> int:
    """Has tasks train a sweep; returns the exit status."""
    from dopamine_jax.sweeps import ray_cluster

    def train(say, show):
      return ray_cluster.run(folder, self._resources(), say, show)

    return _watched(folder, train, f' --cluster {self.address}')

  def _resources(self):
    from dopamine_jax.sweeps import ray_cluster

    return ray_cluster.resources(self.num_cpus, self.num_gpus, self.count)


Place = Here | Ray | Slurm


def place(
  cluster: str | None,
  workers: int | None,
  num_cpus: float | None,
  num_gpus: float | None,
  sbatch: Sequence[str],
) -> Place:
  """Returns where a sweep trains.

  Args:
    cluster: see `Cluster`; the others are likewise as they were given.
    workers: None: as many as fit.
    num_cpus: of a task of Ray.
    num_gpus: of a task of Ray.
    sbatch: options of jobs.

  Raises:
    BadParameter: if options don't go together.
    UserError: if options of `sbatch` can't be meant.
  """
  is_ray = cluster not in (None, 'slurm')
  for name, given, fits, what in (
    ('--num_cpus', num_cpus, is_ray, 'a task of Ray'),
    ('--num_gpus', num_gpus, is_ray, 'a task of Ray'),
    ('--sbatch', sbatch, cluster == 'slurm', 'a job of Slurm'),
  ):
    if given not in (None, (), []) and not fits:
      raise typer.BadParameter(
        f'is of {what}, and --cluster is {cluster or "not given"}. Leave '
        f'{name} out.',
        param_hint=name,
      )
  if cluster is None:
    return Here(_processes(workers))
  if cluster == 'slurm':
    from dopamine_jax.sweeps import slurm

    if workers is None:
      raise typer.BadParameter(
        'is needed with --cluster slurm: how many jobs train at once, such as '
        '--workers 8.',
        param_hint='--workers',
      )
    return Slurm(workers, tuple(slurm.check(sbatch)))
  return Ray(cluster, workers, num_cpus, num_gpus)


def _processes(count):
  """Returns how many processes to start here."""
  cores = len(children.cores())
  if count is None:
    return max(min(2, cores), cores // 2)
  if count > cores:
    raise typer.BadParameter(
      f'{count} is more than the {cores} cores that are here, and each needs '
      f'one of its own. Give {cores} at most.',
      param_hint='--workers',
    )
  return count


def _one_share(study, count):
  """Returns what one of so many machines trains, and that it does so alone."""
  trials = math.ceil(study.trials / count)
  return dataclasses.replace(study, trials=trials), 1


def _watched(folder, train, options):
  """Has something train and shows how far it is; returns the exit status."""
  from dopamine_jax.commands import sweep_table
  from dopamine_jax.sweeps import worker as worker_lib

  table = sweep_table.Table(worker_lib.Sweep(folder), common.show)
  try:
    with table:
      result = train(table.say, table.show)
  finally:
    table.finish()
  sweep = worker_lib.Sweep(folder)
  if not result and not sweep.look().scores:
    common.say('Error: no trial could be trained.')
    return 1
  if result:
    name, where = errors.program('dopamine-jax'), shlex.quote(str(folder))
    common.say(
      f"Stopped. Nothing is lost: '{name} sweep resume {where}{options}' goes "
      'on.'
    )
  return result
