"""The command line. Each command imports what it needs when it runs."""

import csv
import io
import os
import pathlib
import sys
from typing import Annotated

import rich.console
import rich.table
import typer

from dopamine_jax.commands import common
from dopamine_jax.commands import exits
from dopamine_jax.commands import options
from dopamine_jax.commands import parts
from dopamine_jax.commands import scaffold
from dopamine_jax.commands import summaries
from dopamine_jax.commands import sweeping
from dopamine_jax.commands import varying

app = typer.Typer(
  name='dopamine-jax',
  help='Reinforcement-learning research in JAX: train, evaluate and compare '
  'agents from gin files.',
  no_args_is_help=True,
  pretty_exceptions_enable=False,
)
app.add_typer(scaffold.app)
app.add_typer(sweeping.app)


@app.callback()
def root(
  version: Annotated[
    bool,
    typer.Option(
      '--version',
      callback=options.show_version,
      is_eager=True,
      help='Print the version.',
    ),
  ] = False,
):
  """Train, evaluate and compare agents of reinforcement learning in JAX."""


@app.command()
def train(
  configs: options.Configs = (),
  base_dir: Annotated[
    pathlib.Path | None,
    options.path(
      '--base_dir',
      help='Where the run lies: config, metrics, checkpoints.',
      show_default='a new folder in runs/CONFIG',
    ),
  ] = None,
  gin_files: options.GinFiles = (),
  gin_bindings: options.GinBindings = (),
  vary: options.Vary = (),
  processes: options.Processes = 1,
  part: options.Part = None,
  seed: Annotated[
    int,
    typer.Option(
      min=0,
      max=options.MAX_SEED,
      help='All randomness of the first seed; the others follow it.',
    ),
  ] = 0,
  num_seeds: options.NumSeeds = 1,
  resume: Annotated[
    bool, typer.Option(help='Go on with the run that lies in --base_dir.')
  ] = True,
  without_replay: Annotated[
    bool,
    typer.Option(
      '--without-replay',
      help='Go on with the newest agent whose own arrays are whole, where the '
      'replay beside it is damaged; it is filled anew, or from its dataset.',
    ),
  ] = False,
  quiet: Annotated[
    bool, typer.Option('--quiet', help='No progress, no summary.')
  ] = False,
  profile: Annotated[
    int | None,
    typer.Option(
      min=1,
      help='Trace that many agent steps, and a whole update, once learning is '
      "under way. TensorBoard's page Profile shows it, with 'dopamine-jax"
      "\\[profile]', or https://ui.perfetto.dev the perfetto_trace.json.gz.",
      show_default='none',
    ),
  ] = None,
):
  """Train an agent, or go on with a training that was stopped."""
  files = options.files(configs, gin_files)
  sweeping.refuse(base_dir)
  varying.refuse(vary, processes, part, base_dir, profile, without_replay)
  common.prepare(finds_devices=False)  # other processes may have some of them
  if processes > 1 and not parts.started():
    return varying.train_in_parts(
      *(files, gin_bindings, vary, base_dir, processes, quiet, common.say)
    )
  from dopamine_jax import runner as runner_lib
  from dopamine_jax.engines import startup
  from dopamine_jax.system import processes as processes_lib

  processes_lib.join()
  startup.find_devices()
  quiet = quiet or not processes_lib.is_writer()
  if vary:
    base_dir = base_dir or options.new_folder(files[0])
    given = {'seed': seed, 'num_seeds': num_seeds, 'resume': resume}
    varying.train(
      *(files, gin_bindings, vary, base_dir, part),
      *(given, quiet, common.say),
    )
    return
  with runner_lib.configured(files, gin_bindings, common.say) as (
    runner,
    title,
  ):
    base_dir = base_dir or options.new_folder(files[0])
    statistics = runner.train(
      base_dir,
      seed=seed,
      num_seeds=num_seeds,
      resume=resume,
      quiet=quiet,
      profile=profile or 0,
      with_replay=not without_replay,
      title=title,
      say=common.say,
    )
  if not quiet:
    summaries.print_run(base_dir, statistics)


@app.command()
def evaluate(
  base_dir: options.BaseDir,
  episodes: Annotated[
    int, typer.Option(min=1, help='Whole episodes, for each seed.')
  ] = 100,
  seed: options.Seed = 0,
  output: Annotated[
    pathlib.Path | None,
    options.path(
      help='Returns as CSV.',
      show_default='BASE_DIR/evaluation.csv',
    ),
  ] = None,
  checkpoint: options.Checkpoint = None,
  gin_bindings: options.EnvironmentBindings = (),
  trust: options.Trust = (),
):
  """Play episodes with a training's agent, exploration off."""
  common.prepare(users_code=False)
  import numpy as np

  from dopamine_jax.metrics import intervals
  from dopamine_jax.playing import trained
  from dopamine_jax.system import safe_files

  agent = trained.load(base_dir, common.say, trust, checkpoint, gin_bindings)
  result = trained.play(agent, episodes, seed)
  for row, name in enumerate(agent.seeds):
    returns = result.returns[row]
    _, low, high = intervals.of_mean(returns)
    over = f'95% interval [{low:.2f}, {high:.2f}] over {episodes} episodes'
    over = over if episodes > 1 else 'one episode, and so no interval'
    typer.echo(
      f'seed {name}: mean return {np.mean(returns):.2f}, {over}, after '
      f'iteration {agent.iteration}'
    )
  # Now, so that a disk that is full costs the file and not the score.
  output = output or base_dir / 'evaluation.csv'
  rows = [
    [name, i, float(result.returns[row, i]), int(result.lengths[row, i])]
    + [float(numbers[row, i]) for numbers in result.told.values()]
    for row, name in enumerate(agent.seeds)
    for i in range(episodes)
  ]
  stream = io.StringIO()
  writer = csv.writer(stream, lineterminator='\n')
  header = ['seed', 'episode', 'return', 'length', *result.told]
  writer.writerows([header, *rows])
  safe_files.write(output, stream.getvalue(), base_dir)
  typer.echo(f'Returns of each episode: {output}')


@app.command()
def record(
  base_dir: options.BaseDir,
  output: Annotated[
    pathlib.Path | None,
    options.path(
      help='An mp4 file.',
      show_default='BASE_DIR/video.mp4',
    ),
  ] = None,
  episodes: Annotated[int, typer.Option(min=1, help='Whole episodes.')] = 1,
  seed: options.Seed = 0,
  panel: Annotated[
    bool,
    typer.Option(
      help='Beside the frames: action values or policy, distribution of the '
      'return, value over time.'
    ),
  ] = True,
  saliency: Annotated[
    bool,
    typer.Option(
      '--saliency',
      help='Over the frames: the pixels on which the value depends, |d value / '
      'd pixel|; for agents that see images.',
    ),
  ] = False,
  checkpoint: options.Checkpoint = None,
  gin_bindings: options.EnvironmentBindings = (),
  trust: options.Trust = (),
):
  """Film a training's agent (its first seed) playing, exploration off."""
  common.prepare(users_code=False)
  from dopamine_jax.playing import trained

  output = output or base_dir / 'video.mp4'
  agent = trained.load(base_dir, common.say, trust, checkpoint, gin_bindings)
  result = trained.film(
    *(agent, episodes, seed, output),
    panel=panel,
    saliency=saliency,
    say=common.say,
  )
  typer.echo(f'{output}: returns {", ".join(f"{r:g}" for r in result)}')


@app.command()
def compare(
  runs: Annotated[
    list[str],
    typer.Argument(
      parser=options.parse_run,
      metavar='RUN...',
      help='Folders of runs, or above several; NAME=PATH gives a name.',
    ),
  ],
  metric: Annotated[
    str | None,
    typer.Option(
      help="A tag, as 'Eval/AverageReturns'.",
      show_default="a sweep's or a baseline's, else Train/AverageReturns",
    ),
  ] = None,
  baseline: Annotated[
    list[str],
    typer.Option(
      help="Published runs, as 'dopamine:DQN:cnn', 'dopamine:SAC' or "
      "'atari100k:DER'; repeatable."
    ),
  ] = (),
  last: Annotated[
    int | None,
    typer.Option(
      min=1,
      help="Points whose mean is a run's score.",
      show_default='5 of training returns, else 1',
    ),
  ] = None,
  out: Annotated[
    pathlib.Path,
    options.path(help='Folder for figures and tables.'),
  ] = pathlib.Path('comparison'),
):
  """Compare runs: learning curves, scores with 95% intervals, and in words."""
  from dopamine_jax.analysis import compare as compare_lib
  from dopamine_jax.analysis import terminal

  comparison = compare_lib.compare(runs, metric, baseline, last, common.say)
  files = compare_lib.write(comparison, out)
  width = None if sys.stdout.isatty() else 200
  console = rich.console.Console(width=width, highlight=False, emoji=False)
  terminal.show(comparison, console)
  common.show(f'Written: {", ".join(str(file) for file in files)}')


@app.command()
def report(
  base_dir: options.BaseDir,
  out: Annotated[
    pathlib.Path | None,
    options.path(
      help='An HTML file.',
      show_default='BASE_DIR/report.html',
    ),
  ] = None,
  video: Annotated[
    bool,
    typer.Option(
      '--video',
      help="Film the agent to BASE_DIR/video.mp4 first; safe as 'dopamine-jax "
      "record' is.",
    ),
  ] = False,
  trust: options.Trust = (),
):
  """Write a training, or a sweep, as one HTML page that needs no network."""
  from dopamine_jax.analysis import html_report

  if (base_dir / 'sweep.json').exists():
    if video:
      raise typer.BadParameter(
        f'{base_dir} is a sweep, of which no agent is filmed. Leave out '
        '--video, or give the folder of one of its trials.',
        param_hint='--video',
      )
    return sweeping.write_report(base_dir, out or base_dir / 'report.html')
  film = base_dir / 'video.mp4'
  if video:
    common.prepare(users_code=False)
    from dopamine_jax.playing import trained

    agent = trained.load(base_dir, say=common.say, trusted=trust)
    trained.film(agent, 1, 0, film, say=common.say)
  out = out or base_dir / 'report.html'
  shown = film if os.path.lexists(film) else None
  for warning in html_report.write(base_dir, out, shown):
    common.say(f'Warning: {warning}')
  common.show(f'Written: {out}')


@app.command()
def doctor(
  configs: options.Configs = (),
  gin_files: options.GinFiles = (),
  gin_bindings: options.GinBindings = (),
  num_seeds: options.NumSeeds = 1,
):
  """Say what a training will take here, and why; exit with 1 if too much."""
  common.prepare()
  from dopamine_jax import runner as runner_lib
  from dopamine_jax.commands import doctor as doctor_lib

  files = options.files(configs, gin_files)
  with runner_lib.configured(files, gin_bindings, common.say) as (runner, _):
    findings = doctor_lib.examine(runner, num_seeds)
  doctor_lib.report(findings, num_seeds, typer.echo)
  if not findings.fits:
    raise typer.Exit(1)


@app.command()
def configs(
  name: Annotated[
    pathlib.Path | None,
    typer.Argument(
      metavar='CONFIG',
      parser=options.parse_path,
      autocompletion=options.complete_config,
      show_default=False,
      help='Print this one.',
    ),
  ] = None,
):
  """List the gin files that come with the framework, or explain one."""
  from dopamine_jax import config

  if name:
    common.show(config.read(config.find(name)).rstrip() + '\n')
    common.prepare(finds_devices=False)
    common.show(options.meanings(name))
    return
  table = rich.table.Table(box=None, pad_edge=False)
  table.add_column('CONFIG', no_wrap=True)
  table.add_column('what it is')
  for path in config.shipped():
    header = path.read_text().splitlines()[0].lstrip('# ')
    table.add_row(path.stem, header)
  width = None if sys.stdout.isatty() else 200
  rich.console.Console(width=width, highlight=False).print(table)


@app.command()
def fingerprint(base_dir: options.BaseDir):
  """Print digests of the newest checkpoint: equal ones mean equal runs."""
  common.prepare(users_code=False)
  from dopamine_jax.training import fingerprint as fingerprint_lib

  for part, value in fingerprint_lib.fingerprint(base_dir, common.say).items():
    typer.echo(f'{part:<10} {value}')
  common.say(fingerprint_lib.promise(base_dir))


def main() -> int:
  """Runs the command line; returns its exit status, see `exits`."""
  return exits.status_of(lambda: app(standalone_mode=False), common.say)
