"""How a sweep begins: everything is looked at before anything is written."""

from collections.abc import Callable, Sequence
import contextlib
import dataclasses
import math
import os
import pathlib

from dopamine_jax import config
from dopamine_jax import errors
from dopamine_jax import runner as runner_lib
from dopamine_jax.sweeps import journal as journal_lib
from dopamine_jax.sweeps import plan
from dopamine_jax.sweeps import programs
from dopamine_jax.sweeps import schedulers
from dopamine_jax.sweeps import searches
from dopamine_jax.sweeps import study as study_lib

# Of ASHA and of population-based training: rungs, if no steps are given.
_RUNGS = {'asha': 3, 'pbt': 10}
_LAST = {'Train/AverageReturns': 5}  # points of a score, as `compare` has


def define(
  files: Sequence[pathlib.Path],
  bindings: Sequence[str],
  space: Sequence[str],
  *,
  search: str | None,
  trials: int | None,
  scheduler: str,
  rung_steps: int | None,
  reduction: int,
  metric: str | None,
  last: int | None,
  seed: int,
  num_seeds: int,
  search_seed: int,
  say: Callable[[str], None],
) -> tuple[study_lib.Study, runner_lib.Runner]:
  """Returns a sweep's definition, without its packs, and its runner.

  Args:
    files: gin files.
    bindings: lines of gin, which win.
    space: lines as of `spaces`.
    search: see `Study`; None: random if the number of trials is given.
    trials: how many; None: all of a grid.
    scheduler: see `Study`.
    rung_steps: agent steps of the first rung, or of PBT from each to the next.
    reduction: see `Study`; likewise the others.
    metric: None: of evaluations, if there is one at each rung.
    last: None: as `compare` does.
    seed: see `Study`.
    num_seeds: see there.
    search_seed: see there.
    say: prints what the user should know.

  Raises:
    UserError: if something can't be meant.
  """
  with runner_lib.configured(files, bindings, say) as (runner, _):
    pass
  rungs = _rungs(runner, scheduler, rung_steps, reduction)
  metric = metric or _metric(runner, rungs)
  search = search or ('grid' if trials is None else 'random')
  study = study_lib.Study(
    files=tuple(map(_lasting, files)),
    bindings=tuple(bindings),
    space=tuple(space),
    search=search,
    trials=trials or 0,
    scheduler=scheduler,
    training_steps=runner.training_steps,
    rungs=rungs,
    reduction=reduction,
    metric=metric,
    last=last or _LAST.get(metric, 1),
    seed=seed,
    num_seeds=num_seeds,
    search_seed=search_seed,
    pack=1,
    ahead=1,
    record=study_lib.digest(runner),
  )
  study = _counted(study)
  if scheduler == 'pbt':
    _check_changes(study, runner)
  return study, runner


def begin(
  folder: pathlib.Path,
  study: study_lib.Study,
  pack: Callable[[], int],
):
  """Writes a new sweep: its definition, and what it does first.

  Args:
    folder: where it is to lie.
    study: its definition, but for the size of packs.
    pack: returns that, once all trials are seen to be possible.

  Raises:
    UserError: if a trial can't be meant, or the folder can't be written.
  """
  state = plan.State(rungs=len(study.rungs))
  search = searches.of(study, programs.Groups(study, state))
  search.propose(state)
  study = dataclasses.replace(study, pack=pack())
  first = plan.advance(study, state, search, schedulers.of(study))
  try:
    folder.mkdir(parents=True, exist_ok=True)
    journal = journal_lib.Journal(folder)
    with journal.locked():
      if not journal.read():  # else another process has just begun it
        study.write(folder)
        journal.append(first)
  except OSError as error:
    raise errors.UserError(
      f'--base_dir {folder} can not be written: {error.strerror}. Choose a '
      'folder that you may write to.'
    ) from error


def _counted(study):
  """Returns a study with the number of its trials."""
  if study.search == 'grid':
    count = len(searches.at_once(study))
    if study.trials not in (0, count):
      raise errors.UserError(
        f'--trials {study.trials}: the grid has {count} combinations, which '
        'are all tried. Leave --trials out, or draw so many of them: --search '
        'random.'
      )
  elif not (count := study.trials):
    raise errors.UserError(
      f'--search {study.search} draws settings, and needs to know how many: '
      'give --trials, such as --trials 64.'
    )
  if study.scheduler == 'pbt':
    _check_population(study, count)
  return dataclasses.replace(study, trials=count)


def _check_population(study, count):
  if study.search == 'tpe':
    raise errors.UserError(
      '--scheduler pbt chooses settings itself, and --search tpe does too. '
      'Give --search random.'
    )
  if count < 4:
    raise errors.UserError(
      f'--scheduler pbt replaces a quarter of its trials, and {count} are '
      'fewer than four. Give more trials.'
    )
  if not any(schedulers.can_change(x.domain) for x in study.dimensions):
    raise errors.UserError(
      '--scheduler pbt changes real numbers while agents learn, and none is '
      'varied. Vary one, such as a learning rate.'
    )


def _check_changes(study, runner):
  """Refuses settings that a trial which goes on from another one can't have."""
  with contextlib.closing(runner.environment.make(runner.num_envs)) as envs:
    agent = runner.make_agent(envs)
  for each in study.dimensions:
    name = each.setting.rpartition('.')[2]
    owner = type(agent).__name__
    if name in dict(agent.of_first_state) and owner in each.setting.split('.'):
      raise errors.UserError(
        f"--scheduler pbt: {each.setting} is of the agent's first state alone, "
        'and a trial that goes on from another one has what that has learnt. '
        'Vary something else, or give --scheduler asha.'
      )


def _rungs(runner, scheduler, steps, reduction) -> tuple[int, ...]:
  """Returns after which iterations a scheduler decides."""
  total, period = runner.num_iterations, runner.checkpoint_period
  if scheduler == 'none':
    if steps is not None:
      raise errors.UserError(
        '--rung_steps is for a scheduler, and there is none. Give --scheduler '
        'asha or pbt, or leave it out.'
      )
    return (total,)
  if steps is None:
    count = _RUNGS[scheduler]
    first = total / (reduction ** (count - 1) if scheduler == 'asha' else count)
    first = min(total, math.ceil(first / period) * period)
  else:
    first = _iterations(runner, steps)
  factor = reduction if scheduler == 'asha' else 1
  rungs = []
  at = first
  while at < total:
    rungs.append(at)
    at = at * factor if scheduler == 'asha' else at + first
  if not rungs:
    raise errors.UserError(
      f'--scheduler {scheduler} decides at checkpoints before the end, and '
      f'there is none: {total} iterations, a checkpoint every {period}. Set '
      'runner.Runner.checkpoint_period = 1, or more iterations.'
    )
  return (*rungs, total)


def _iterations(runner, steps):
  """Returns the iterations of so many agent steps, with a checkpoint."""
  unit = runner.training_steps * runner.checkpoint_period
  total = runner.training_steps * runner.num_iterations
  if steps % unit or not 0 < steps < total:
    raise errors.UserError(
      f'--rung_steps {steps}: expected a multiple of {unit:,} agent steps, '
      'since a trial can pause at checkpoints alone '
      f'(runner.Runner.training_steps = {runner.training_steps:,}, '
      f'checkpoint_period = {runner.checkpoint_period}), below {total:,}.'
    )
  return steps // runner.training_steps


def _metric(runner, rungs):
  """Returns what trials are judged by: evaluations, if all rungs have one."""
  total, period = runner.num_iterations, runner.evaluation_period
  is_evaluated = runner.evaluation_episodes and all(
    each % period == 0 or each == total for each in rungs
  )
  return f'{"Eval" if is_evaluated else "Train"}/AverageReturns'


def _lasting(file: pathlib.Path) -> str:
  """Returns a file's name that holds wherever the sweep goes on."""
  found = config.find(file)
  return found.stem if found in config.shipped() else os.path.abspath(found)
