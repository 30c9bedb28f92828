"""Several trainings in one program: the same but for numbers of their agents.

Each has an ordinary run folder, which can be looked at, compared, evaluated and
filmed by itself, and equals the run that was trained alone to rounding. One
engine takes the steps of all.
"""

from collections.abc import Callable, Mapping, Sequence
import contextlib
import dataclasses
import math
import pathlib
from typing import Any

import numpy as np

from dopamine_jax import errors
from dopamine_jax import lanes
from dopamine_jax import values
from dopamine_jax.engines import share
from dopamine_jax.system import signals
from dopamine_jax.training import driving
from dopamine_jax.training import evaluations
from dopamine_jax.training import folder_lock
from dopamine_jax.training import run_folder
from dopamine_jax.training import training


def train(
  runners: Mapping[str, Any],
  base_dir: pathlib.Path,
  seeds: Sequence[int],
  *,
  resume: bool,
  quiet: bool,
  title: str,
  say: Callable[[str], None],
  until: int | None = None,
) -> dict[str, dict[str, np.ndarray]]:
  """Trains, or goes on where these trainings were stopped.

  Args:
    runners: `runner.Runner`s by the name of their folders; those differ in
      numbers of their agents alone.
    base_dir: where the folders lie.
    seeds: of each training.
    resume: whether to go on from runs that lie there.
    quiet: whether nothing is shown.
    title: what the runs are, in a line.
    say: prints what the user should know.
    until: the iteration after which they pause, which has a checkpoint; None:
      they are trained to their end.

  Returns:
    The last iteration's statistics, [S] by name, of each training.

  Raises:
    UserError: if they differ in something else, or what `Runner.train` raises.
  """
  names, first = list(runners), next(iter(runners.values()))
  _require_alike(runners)
  with contextlib.ExitStack() as stack:
    folders = [
      stack.enter_context(folder_lock.open_for_training(base_dir / name, say))
      for name in names
    ]
    environments = first.environment.make(
      len(names) * len(seeds) * first.num_envs
    )
    stack.callback(environments.close)
    loops = [runner.make_loop(environments) for runner in runners.values()]
    engine = first.make_engine(
      environments,
      tuple(seeds) * len(names),
      check_finite=first.check_finite,
      numbers=_by_lane(_differing(loops, names), len(seeds)),
      names=names,
    )
    stack.callback(engine.close)
    shares = [
      share.Share(engine, loop, seeds, i) for i, loop in enumerate(loops)
    ]
    evaluates = evaluations.Together(first, engine, stack, say)
    trainings = [
      training.Training(
        *(runner, folder, seeds, say, stack, title),
        training.Shared(
          base_dir, each, evaluations.EvaluationShare(evaluates, each)
        ),
      )
      for runner, folder, each in zip(
        runners.values(), folders, shares, strict=True
      )
    ]
    _prepare(trainings, names, resume)
    stop = stack.enter_context(signals.stop_signals())
    for each in trainings:
      each.open_collectors(quiet=True)
    show = (lambda line: None) if quiet else say
    _drive(engine, shares, trainings, names, stop, show, until)
    return {
      name: each.statistics for name, each in zip(names, trainings, strict=True)
    }


def require_alike(runners: Mapping[str, Any]):
  """Refuses trainings that one program can't have; makes one environment.

  Raises:
    UserError: names the first setting that differs and may not.
  """
  _require_alike(runners)
  first = next(iter(runners.values()))
  with contextlib.closing(first.environment.make(first.num_envs)) as envs:
    loops = [runner.make_loop(envs) for runner in runners.values()]
  _differing(loops, list(runners))


def _require_alike(runners):
  """Refuses runs that differ in anything but their agents."""
  names = list(runners)
  rest = [
    {
      name: getattr(runner, name)
      for name in values.fields(runner)
      # Each may go on from a run of its own.
      if name not in ('agent', 'start_from')
    }
    for runner in runners.values()
  ]
  for path, given in lanes.differing(rest, names).items():
    raise errors.UserError(
      f'{lanes.shown(path)} can not differ between trainings of one program: '
      f'it is {given[0]:g} in {names[0]} and another in others, and only '
      'numbers of an agent, its optimizer and its replay can. Train them as '
      'runs of their own.'
    )


def _differing(loops, names):
  """Returns the numbers [V] in which trainings differ, none of them staged."""
  numbers = lanes.differing(
    [dataclasses.replace(loop, stages=()) for loop in loops], names
  )
  staged = {x for loop in loops for each in loop.stages for x in each.numbers}
  if both := numbers.keys() & staged:
    raise errors.UserError(
      f'{min(map(lanes.shown, both))} differs between trainings of one '
      'program, and stages.Stages changes it in each of them. Leave one of the '
      'two out, or train them as runs of their own.'
    )
  return numbers


def _by_lane(numbers, num_seeds):
  """Returns numbers [V] as those of V * S lanes."""
  return {path: np.repeat(given, num_seeds) for path, given in numbers.items()}


def _prepare(trainings, names, resume):
  """Makes the first states, or restores the newest that all of them have."""
  engine = trainings[0].engine.whole
  ended = [each for each in trainings if _was_ended(each.folder)]
  for each in ended:  # by a callback; the others go on without it
    each.prepare(resume)
  names = [n for n, t in zip(names, trainings, strict=True) if t not in ended]
  trainings = [each for each in trainings if each not in ended]
  if not trainings:
    return
  newest = [max(each.checkpoints.iterations(), default=0) for each in trainings]
  # Killed while they were saving, some have one checkpoint more than others.
  ahead = max(newest) - min(newest)
  if ahead > trainings[0].runner.checkpoint_period:
    raise _at_unlike_iterations(names, newest)
  for each in trainings:
    each.prepare(resume, upto=min(newest))
  engine.layout.check(engine.loop.replay, engine.abstract_state())
  iterations = [each.iteration for each in trainings]
  if len(set(iterations)) > 1:
    raise _at_unlike_iterations(names, iterations)


def _was_ended(folder):
  """Whether a callback has ended the run that lies there."""
  if not (folder / 'run.json').exists():
    return False
  return bool(run_folder.read_facts(folder, lambda line: None).get('ended_by'))


def _at_unlike_iterations(names, iterations):
  first, last = np.argmin(iterations), np.argmax(iterations)
  return errors.UserError(
    'these trainings can not go on together: the newest checkpoint of '
    f'{names[first]} is of iteration {iterations[first]}, that of '
    f'{names[last]} of iteration {iterations[last]}. Train those that lag by '
    'themselves, or all into another --base_dir.'
  )


def _drive(engine, shares, trainings, names, stop, show, until):
  """Runs the iterations that are left, or those to where they pause."""
  going = [each.iterations(stop) for each in trainings]
  wanted = []
  for i, each in enumerate(going):
    with driving.passing_on(*going[:i]):
      wanted.append(driving.ask(each))
  last = math.inf if until is None else until
  while active := [
    i
    for i, each in enumerate(trainings)
    if each.goes_on and each.iteration <= last  # which has begun
  ]:
    one = trainings[active[0]]
    with driving.passing_on(*(going[i] for i in active)):
      cut_with = shares[0].of_all(wanted[active[0]])
      metrics, seconds = driving.timed_run(engine, one, cut_with)
    share.deal(engine, shares)
    for i in active:  # all save
      result = shares[i].own_seeds(metrics), seconds
      with driving.passing_on(*(going[j] for j in active if j != i)):
        driving.ask(going[i], result)
      shares[i].forget()
    for i in active:  # and then report
      with driving.passing_on(*(going[j] for j in active if j != i)):
        wanted[i] = driving.ask(going[i])
      shares[i].forget()
    shown = [f'{names[i]}  {trainings[i].summary()}' for i in active]
    iteration = engine.steps // one.runner.training_steps
    show(f'iteration {iteration:3}  {engine.steps:,} agent steps each')
    for line in shown:
      show(f'  {line}')
