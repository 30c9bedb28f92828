"""`dopamine-jax sweep`: many trainings that search for good settings."""

import dataclasses
import os
import pathlib
import stat
import time
from typing import Annotated

import typer
import typer.core

from dopamine_jax import errors
from dopamine_jax.commands import clusters
from dopamine_jax.commands import common
from dopamine_jax.commands import options
from dopamine_jax.system import children

_POLL = 1.0  # seconds, of a worker that waits for others
_SEARCHES = ('grid', 'random', 'tpe')
_SCHEDULERS = ('none', 'asha', 'pbt')


class _StartByDefault(typer.core.TyperGroup):
  """`sweep CONFIG ...` is `sweep start CONFIG ...`."""

  def parse_args(self, ctx, args):
    if args and args[0] not in (*self.commands, '--help'):
      args = ['start', *args]
    return super().parse_args(ctx, args)


app = typer.Typer(
  name='sweep',
  cls=_StartByDefault,
  help='Train many trials and find the best settings: sweep CONFIG --vary ... '
  'starts (see sweep start --help); what was stopped goes on with resume.',
  no_args_is_help=True,
)

Folder = Annotated[
  pathlib.Path,
  typer.Argument(parser=options.parse_path, help='The folder of a sweep.'),
]
Workers = Annotated[
  int | None,
  typer.Option(
    min=1,
    help='Processes that train on this machine, each on cores of its own; with '
    '--cluster tasks of Ray at once, or jobs of Slurm.',
    show_default='one for each two cores, two at least if there are; with Ray '
    'as many as fit',
  ),
]


def _leave_devices():
  """Has this process take no GPU, which workers need."""
  import jax

  jax.config.update('jax_platforms', 'cpu')


def refuse(base_dir: pathlib.Path | None):
  """Refuses to train one run, or several, in the folder of a sweep.

  Raises:
    UserError: if `base_dir` is one.
  """
  if base_dir and (base_dir / 'sweep.json').exists():
    raise errors.UserError(
      f'{base_dir} is the folder of a sweep, whose trials another run would be '
      'taken for. Give another --base_dir.'
    )


def _one_of(names):
  def parse(text: str) -> str:
    if text not in names:
      raise typer.BadParameter(f'{text!r}: expected one of {", ".join(names)}.')
    return text

  return parse


@app.command()
def start(
  context: typer.Context,
  configs: options.Configs = (),
  base_dir: Annotated[
    pathlib.Path | None,
    options.path(
      '--base_dir',
      help="The sweep's folder: a run of each trial, and a journal.",
      show_default='a new folder in runs/CONFIG',
    ),
  ] = None,
  gin_files: options.GinFiles = (),
  gin_bindings: options.GinBindings = (),
  vary: Annotated[
    list[str],
    typer.Option(
      '--vary',
      metavar='LINE',
      help="A setting and what to try: 'dqn.DQN.n_step = [1, 3]' or "
      "'optax.adam.learning_rate = log_uniform(1e-4, 1e-2)'; also uniform, "
      "integers, log_integers, and a condition: '... when dqn.DQN.n_step = 3'. "
      'Repeatable.',
    ),
  ] = (),
  space: Annotated[
    pathlib.Path | None,
    options.path('--space', help='A file of such lines.', show_default='none'),
  ] = None,
  search: Annotated[
    str | None,
    typer.Option(
      parser=_one_of(_SEARCHES),
      metavar='NAME',
      help='grid: every combination; random; tpe: near what was good, by '
      "Optuna, with 'dopamine-jax\\[sweep]'.",
      show_default='random with --trials, else grid',
    ),
  ] = None,
  trials: Annotated[
    int | None, typer.Option(min=1, help='How many settings to draw.')
  ] = None,
  scheduler: Annotated[
    str,
    typer.Option(
      parser=_one_of(_SCHEDULERS),
      metavar='NAME',
      help='none: all are trained to their end; asha: those that are clearly '
      'worse at a rung stop there; pbt: the worst go on from the best, with '
      'other settings.',
    ),
  ] = 'none',
  rung_steps: Annotated[
    int | None,
    typer.Option(
      '--rung_steps',
      min=1,
      help='Agent steps to the first rung; with pbt, to each.',
      show_default='a ninth of all, with pbt a tenth',
    ),
  ] = None,
  reduction: Annotated[
    int,
    typer.Option(
      min=2,
      help='With asha: one of so many goes on at once, and each rung has so '
      'many times the steps of the one before.',
    ),
  ] = 3,
  metric: Annotated[
    str | None,
    typer.Option(
      help='What a trial is judged by: its mean over seeds, of which more is '
      'better.',
      show_default='Eval/AverageReturns where each rung has it, else '
      'Train/AverageReturns',
    ),
  ] = None,
  last: Annotated[
    int | None,
    typer.Option(
      min=1,
      help="Points whose mean is a seed's score.",
      show_default='5 of training returns, else 1',
    ),
  ] = None,
  seed: Annotated[
    int,
    typer.Option(
      min=0,
      max=options.MAX_SEED,
      help='Of the first seed of each trial; the others follow it.',
    ),
  ] = 0,
  num_seeds: options.NumSeeds = 1,
  search_seed: Annotated[
    int,
    typer.Option(
      '--search_seed',
      min=0,
      max=options.MAX_SEED,
      help='Of what is drawn: settings, and who goes on from whom.',
    ),
  ] = 0,
  workers: Workers = None,
  pack: Annotated[
    int | None,
    typer.Option(
      min=1,
      help='Trials at most that train in one program.',
      show_default='as many as memory and a short measurement allow',
    ),
  ] = None,
  cluster: clusters.Cluster = None,
  num_cpus: clusters.NumCPUs = None,
  num_gpus: clusters.NumGPUs = None,
  sbatch: clusters.Sbatch = (),
):
  """Start a sweep, or go on with the one that lies in --base_dir."""
  files = options.files(configs, gin_files)
  place = clusters.place(cluster, workers, num_cpus, num_gpus, sbatch)
  common.prepare(finds_devices=False)
  place.open(context)
  from dopamine_jax.commands import packing
  from dopamine_jax.sweeps import start as start_lib
  from dopamine_jax.sweeps import study as study_lib

  if pack:
    _leave_devices()
  study, runner = start_lib.define(
    *(files, gin_bindings, [*_lines(space), *vary]),
    search=search,
    trials=trials,
    scheduler=scheduler,
    rung_steps=rung_steps,
    reduction=reduction,
    metric=metric,
    last=last,
    seed=seed,
    num_seeds=num_seeds,
    search_seed=search_seed,
    say=common.say,
  )
  base_dir = base_dir or options.new_folder(files[0])
  if study_lib.is_sweep(base_dir):
    old = study_lib.read(base_dir)
    study = dataclasses.replace(study, pack=pack or old.pack, ahead=old.ahead)
    study_lib.require_same(base_dir, old, study)
    return place.run(base_dir)
  if base_dir.exists() and any(base_dir.iterdir()):
    raise errors.UserError(
      f'{base_dir} holds something else than a sweep. Give an empty folder as '
      '--base_dir, or a new one.'
    )
  start_lib.begin(
    base_dir,
    dataclasses.replace(study, ahead=place.count or 2),
    lambda: pack or packing.size(runner, *place.share(study), common.say),
  )
  return place.run(base_dir)


@app.command()
def resume(
  context: typer.Context,
  folder: Folder,
  workers: Workers = None,
  cluster: clusters.Cluster = None,
  num_cpus: clusters.NumCPUs = None,
  num_gpus: clusters.NumGPUs = None,
  sbatch: clusters.Sbatch = (),
  retry: Annotated[
    bool,
    typer.Option('--retry', help='Try trials again that were given up.'),
  ] = False,
):
  """Go on with a sweep that was stopped."""
  place = clusters.place(cluster, workers, num_cpus, num_gpus, sbatch)
  common.prepare(finds_devices=False)
  place.open(context)
  _leave_devices()
  from dopamine_jax.sweeps import study as study_lib

  study_lib.require_unchanged(study_lib.read(folder))
  if retry:
    from dopamine_jax.sweeps import worker as worker_lib

    common.say(f'{worker_lib.Sweep(folder).retry()} trials are tried again.')
  return place.run(folder)


@app.command()
def status(folder: Folder):
  """Show how far a sweep is, and what is best so far."""
  common.prepare(finds_devices=False)
  from dopamine_jax.commands import sweep_table
  from dopamine_jax.sweeps import worker as worker_lib

  sweep = worker_lib.Sweep(folder)
  sweep.look()
  sweep_table.Table(sweep, common.show).finish()


@app.command()
def report(
  folder: Folder,
  out: Annotated[
    pathlib.Path | None,
    options.path(help='An HTML file.', show_default='FOLDER/report.html'),
  ] = None,
):
  """Write a sweep as one HTML page: what is best, what matters, what next."""
  write_report(folder, out or folder / 'report.html')


def write_report(folder: pathlib.Path, out: pathlib.Path):
  """Writes the page of a sweep, and says where it lies."""
  from dopamine_jax.sweeps import report as report_lib

  for warning in report_lib.write(folder, out):
    common.say(f'Warning: {warning}')
  common.show(f'Written: {out}')


@app.command(hidden=True)
def worker(folder: Folder):
  """Train packs of a sweep until nothing is left."""
  _begin()
  from dopamine_jax.sweeps import study as study_lib
  from dopamine_jax.sweeps import worker as worker_lib

  study_lib.require_unchanged(study_lib.read(folder))  # of this node's files
  worker_lib.work(folder, lambda: time.sleep(_POLL), common.say)


@app.command(hidden=True)
def pack(
  folder: Folder,
  name: Annotated[str, typer.Argument(help='The name of a pack.')],
  output: Annotated[
    pathlib.Path,
    typer.Argument(
      parser=options.parse_path, help='A file for what comes of it.'
    ),
  ],
):
  """Train a pack of a sweep, and note nothing in its journal."""
  _begin()
  from dopamine_jax.sweeps import packs

  packs.train(folder, name, output, common.say)


def _begin():
  """Sets up a process that trains, and that another one has started."""
  common.prepare(finds_devices=False)
  from dopamine_jax.engines import startup
  from dopamine_jax.system import signals

  signals.receive()
  if stat.S_ISFIFO(os.fstat(0).st_mode):  # a batch job has no starter
    children.follow_starter()
  startup.find_devices()


def _lines(space):
  """Returns the lines of a file; none without one."""
  if space is None:
    return []
  from dopamine_jax.system import safe_files

  try:
    return safe_files.read_text(space, 1).splitlines()
  except FileNotFoundError as error:
    raise errors.UserError(
      f'--space {space} is not there. Give a file of lines such as '
      "'dqn.DQN.gamma = uniform(0.9, 0.999)'."
    ) from error
