"""Begins a run with what another one has learned.

Of the other run, only arrays, numbers and names are read; none of its settings
is built or called. The new run saves a checkpoint before its first step, and
goes on from that alone.
"""

from collections.abc import Sequence
import csv
import functools
import io
import pathlib
import re
from typing import Any, NamedTuple

import jax
import numpy as np

from dopamine_jax import errors
from dopamine_jax import settings
from dopamine_jax.checkpoints import checkpoints as checkpoints_lib
from dopamine_jax.checkpoints import state_arrays
from dopamine_jax.engines import engine as engine_lib
from dopamine_jax.engines import loop as loop_lib
from dopamine_jax.engines import stacking
from dopamine_jax.system import plain_files
from dopamine_jax.system import processes
from dopamine_jax.system import safe_files
from dopamine_jax.training import identity
from dopamine_jax.training import kept
from dopamine_jax.training import recording
from dopamine_jax.training import run_folder

_MEGABYTES = 1_000  # at most in metrics.csv


class StartFrom(settings.Settings):
  """Which part of which run to begin with.

  Without `names` a run goes on from the other's checkpoint, under its own
  settings: agent, replay, counts and keys are taken, and its first iteration is
  the one that follows. What callbacks remember is taken where they and the
  environments have the same settings, and both runs are evaluated or none.
  Under the same settings it equals the other run.

  With `names` it begins at its own start, and only arrays of the agent that fit
  them are taken.

  Attributes:
    run: the path of the other run's folder.
    checkpoint: an iteration in digits, or a name by which a callback has kept
      it; '': the newest.
    names: patterns of the agent's arrays, such as 'params.*': see
      `callbacks.resets`.
    replay: whether the replay is taken too, if no `names` are given. Otherwise
      it is filled anew before learning goes on.
  """

  run: str
  checkpoint: str = ''
  names: Sequence[str] = ()
  replay: bool = True


class Began(NamedTuple):
  """What a run has begun with.

  Attributes:
    iteration: after which it goes on; 0 at its own start.
    source: the other run's folder.
    facts: for `run.json`: where it comes from.
  """

  iteration: int
  source: pathlib.Path
  facts: dict[str, Any]


def begin(one: Any, template: loop_lib.TrainingState) -> Began:
  """Gives a training's engine a state that is taken from another run.

  Args:
    one: a `training.Training`, whose engine has been reset, and has no state
      yet.
    template: the shapes of its state.

  Raises:
    UserError: if there is no such run or checkpoint, or something doesn't fit.
  """
  start, engine, say = one.runner.start_from, one.engine, one.say
  start = StartFrom(run=start) if isinstance(start, str) else start
  source = pathlib.Path(start.run).expanduser()
  facts = run_folder.read_facts(source, say)
  checkpoints = checkpoints_lib.Checkpoints(source, say=say)
  config = run_folder.read_config(source)
  run_folder.require_own(checkpoints, facts['seeds'], config)
  found = _iteration(checkpoints, start.checkpoint)
  try:
    _require_same_first(engine.loop.agent, start.names, source, config or '')
    if start.names:
      iteration = 0
      _take_names(start.names, checkpoints, found, facts['seeds'], engine)
    else:
      iteration = _take_all(
        *(one, start, checkpoints, found, facts['seeds'], template),
        _decided_by(config or '') == _decided_by(one.config),
      )
  except checkpoints_lib.Damaged as damage:
    remedy = 'choose another checkpoint'
    if isinstance(damage, checkpoints_lib.ReplayDamaged):
      remedy += ', or go on without it: starts.StartFrom.replay = False'
    raise errors.UserError(
      f'the checkpoint of iteration {found} in {checkpoints.folder} can not be '
      f'started from: {damage}. If it was only kept by its name, its replay is '
      f'gone; {remedy}.'
    ) from damage
  say(f'Starting from iteration {found} of {source}.')
  lineage = {
    'run': str(source.resolve()),
    'iteration': found,
    'record': facts.get('record'),
    'title': facts.get('title', ''),
    'names': list(start.names),
    'replay': start.replay and not start.names,
    'started_from': facts.get('started_from'),
  }
  return Began(iteration, source, lineage)


def _require_same_first(agent, names, source, config):
  """Refuses a setting that only a first state depends on, if it differs."""
  its_agent = re.search(r'^[\w./]*Runner\.agent = @([\w./]+)', config, re.M)
  if not its_agent:  # an older run's
    return
  for name, array in agent.of_first_state:
    if names and not state_arrays.fits(array, names):
      continue
    setting = re.escape(f'{its_agent[1]}.{name}')
    found = re.search(rf'^{setting} = ([-+.\deE]+)$', config, re.M)
    if found and float(found[1]) != getattr(agent, name):
      agent.refuse(
        name,
        f'has no effect: this run begins with what {source} has learnt, where '
        f'it was {found[1]} at first. Give it that value, or take parts of the '
        f'agent without {array}: starts.StartFrom.names',
      )


def copy_metrics(began: Began, folder: pathlib.Path):
  """Begins a run's metrics.csv with the iterations that it goes on from."""
  if not began.iteration or not processes.is_writer():
    return
  try:
    text = safe_files.read_text(began.source / 'metrics.csv', _MEGABYTES)
  except FileNotFoundError:
    return
  rows = csv.reader(text[: text.rfind('\n') + 1].splitlines())
  header, *rows = rows
  column = header.index('iteration')
  stream = io.StringIO()
  csv.writer(stream, lineterminator='\n').writerows(
    [header, *(r for r in rows if int(r[column]) <= began.iteration)]
  )
  plain_files.write(folder / 'metrics.csv', stream.getvalue().encode())


def show_first_frames(engine: engine_lib.Engine):
  """Has the agents act on what an engine's environments show now.

  In the other run these were its own environments' frames.
  """
  first = functools.partial(stacking.first_observation, stack=engine.loop.stack)
  see = jax.jit(engine.vectorize(first))
  observation = see(engine.axis.split(engine.first_frames))
  experience = engine.state.experience.replace(observation=observation)
  engine.state = engine.state.replace(experience=experience)


def _iteration(checkpoints, name):
  if name:
    return kept.iteration_called(checkpoints, name)
  if iterations := checkpoints.iterations():
    return iterations[-1]
  raise errors.UserError(
    f'{checkpoints.folder.parent} has no checkpoint yet to start from.'
  )


def _decided_by(config):
  """Returns what a config says of callbacks and of what these look at."""
  bindings = identity.bindings('\n'.join(identity.comparable(config)))
  given = {
    key: value
    for key, value in bindings.items()
    if re.search(r'Runner\.(callbacks|(evaluation_)?environment)$', key)
  }
  places = set(re.findall(r'@([\w./]+)', ' '.join(given.values())))
  is_evaluated = any(
    key.endswith('Runner.evaluation_episodes') and value != '0'
    for key, value in bindings.items()
  )
  return (
    given,
    is_evaluated,
    {
      key: value
      for key, value in bindings.items()
      if key.rpartition('.')[0] in places
    },
  )


def _take_all(
  one, start, checkpoints, found, seeds, template, has_same_callbacks
):
  """Restores all of a checkpoint; returns the iteration to go on after."""
  engine, runner = one.engine, one.runner
  if list(seeds) != list(engine.seeds):
    raise errors.UserError(
      f'{start.run} has seeds {seeds}, and this run {list(engine.seeds)}. Give '
      'the same --seed and --num_seeds, or take parts of the agent alone: '
      "starts.StartFrom.names = ['params.*']."
    )
  if start.replay and engine.fills_replay:
    raise errors.UserError(
      f'{start.run} has a replay of its own, and this run learns from a '
      'dataset. Leave that replay out: starts.StartFrom.replay = False.'
    )
  try:
    state = checkpoints.restore(found, template, start.replay)
  except errors.UserError as error:
    without = ''
    if start.replay and 'experience.replay' in str(error):
      without = ', or starts.StartFrom.replay = False'
    raise errors.UserError(
      f'{start.run} does not fit this run: {error} Change the settings, or '
      f'take what fits alone: starts.StartFrom.names{without}.'
    ) from error
  counted = int(processes.fetch(state.experience.agent_steps).ravel()[0])
  saved = checkpoints.manifest(found).get('run') or {}
  steps = saved.get('agent_steps', counted)  # which older ones don't have
  iteration, rest = divmod(steps, runner.training_steps)
  if rest or iteration >= runner.num_iterations:
    raise errors.UserError(
      f'{start.run} has done {steps} agent steps in iteration {found}, and '
      f'this run has num_iterations = {runner.num_iterations} of '
      f'training_steps = {runner.training_steps}. Make it longer than that, in '
      f'iterations that add up to {steps} on the way.'
    )
  began = saved.get('replay_began', 0)
  has_replay = start.replay and checkpoints.manifest(found)['rings']
  if has_replay:
    recording.check_start(runner, state.experience.replay, start.run)
  engine.restore(state, steps, began if has_replay else steps)
  if decided := saved.get('callbacks'):
    if has_same_callbacks:
      wanted = {'callbacks': one.decisions.template()}
      own = checkpoints.restore(found, wanted, with_replay=False)
      _take_decisions(one, decided, own['callbacks'], iteration, found)
    else:
      late = ', and what they had yet to change stays as it is'
      one.say(
        'What the callbacks of that run remember is not taken, since they, the '
        'environments or whether it is evaluated were others there'
        f'{late if decided["due"] else ""}.'
      )
  return iteration


def _take_decisions(one, saved, own, iteration, found):
  """Has callbacks go on; what they kept stays, but for where they go on."""
  kept = {name: iteration for name, at in saved['kept'].items() if at == found}
  one.decisions.restore(own, {**saved, 'kept': kept, 'stop': ''})
  if others := saved['kept'].keys() - kept.keys():
    one.say(
      f'What was kept as {", ".join(sorted(others))} stays with that run.'
    )


def _take_names(names, checkpoints, found, seeds, engine):
  """Makes a new state, and takes the arrays whose names fit."""
  engine.init()
  setting = 'starts.StartFrom.names'
  own = state_arrays.named(engine.state.agent)
  state_arrays.require_fits(setting, names, own)
  if len(seeds) not in (1, len(engine.seeds)):
    raise errors.UserError(
      f'{checkpoints.folder.parent} has {len(seeds)} seeds, and this run '
      f'{len(engine.seeds)}. Give --num_seeds {len(seeds)}, or start from a '
      'run of one seed, which all can begin with.'
    )
  is_one = len(seeds) < len(engine.seeds)
  arrays = checkpoints.arrays(found)

  def each(path, leaf):
    name = state_arrays.path_name(path)
    if not state_arrays.fits(name, names):
      return leaf
    array = arrays.get(f'agent.{name}')
    if array is None and state_arrays.is_younger(name, engine.state.agent):
      return leaf
    if array is not None and is_one:
      array = np.stack([array] * len(engine.seeds))
    like = jax.eval_shape(processes.plain, leaf)
    if array is None or (array.shape, array.dtype) != (like.shape, like.dtype):
      has = 'none' if array is None else f'{array.dtype} {array.shape}'
      raise errors.UserError(
        f'{setting}: {name} is {like.dtype} {like.shape} in this run, and '
        f'{checkpoints.folder.parent} has {has}. Name what fits, or change the '
        'network.'
      )
    return processes.put(array, leaf)

  agent = jax.tree_util.tree_map_with_path(each, engine.state.agent)
  engine.state = engine.state.replace(agent=agent)
