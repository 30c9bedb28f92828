"""How a training goes on: from its own checkpoint, or from another run's."""

import numpy as np

from dopamine_jax import errors
from dopamine_jax.engines import loop
from dopamine_jax.engines import streams
from dopamine_jax.metrics import csv_file
from dopamine_jax.replay import prioritized
from dopamine_jax.training import starts


def restore(one, newest, template, upto):
  """Goes on from the newest good checkpoint.

  Args:
    one: a Training.
    newest: the newest iteration that has a checkpoint.
    template: the training state's shapes.
    upto: the newest that may be restored; None: any.
  """
  with_replay = one.with_replay
  found = one.checkpoints.restore_newest(
    one.with_callbacks(template, one.decisions.template()),
    *(with_replay, upto),
  )
  if found is None:
    raise errors.UserError(
      f'no checkpoint in {one.checkpoints.folder} can be read. Nothing was '
      'changed. Train into another --base_dir, or move this folder away.'
    )
  iteration, arrays = found
  own = arrays.pop('callbacks')
  state = loop.TrainingState(**arrays)
  steps = iteration * one.runner.training_steps
  manifest = one.checkpoints.manifest(iteration)
  run = manifest.get('run') or {}
  began = run.get('replay_began', 0)
  if one.runner.callbacks:
    one.decisions.restore(own, run['callbacks'])
    one.checkpoints.kept = frozenset(one.decisions.kept.values())
  is_without = not with_replay or not manifest['rings']
  began = steps if is_without else began
  if iteration == newest:
    # A run that was killed after a save may have left old ones behind.
    one.checkpoints.collect_garbage()
  one.engine.restore(state, steps, began)
  if is_without:
    _say_without_replay(one)
  one.iteration = one.newest_checkpoint = iteration
  one.engine.reset(
    one.env_seeds(streams.Stream.TRAIN, iteration, one.runner.num_envs)
  )
  if not one.has_ended():
    one.say(f'Going on after iteration {iteration} in {one.folder}.')


def _say_without_replay(one):
  """Says what fills the replay, and what that means for the run."""
  why = 'checkpoint_replay = False' if one.with_replay else '--without-replay'
  how = 'that is filled anew before learning goes on'
  if one.engine.fills_replay:
    how, now = 'the dataset is read again', one.engine.filled_with
    is_same = one.facts.get('dataset', now) == now
    has_priorities = isinstance(
      one.engine.loop.replay, prioritized.PrioritizedReplay
    )
    if is_same and not has_priorities:
      one.say(f'The run goes on without its replay ({why}): {how}.')
      return
    if has_priorities:
      how += ', and priorities begin anew'
    if not is_same:
      how += ', and is not what it was when the run began'
  one.say(
    f'The run goes on without its replay ({why}): {how}. It no longer equals '
    'one never stopped.'
  )


def start_from(one, template):
  """Begins with what another run has learned."""
  began = starts.begin(one, template)
  one.iteration, one.facts['started_from'] = began.iteration, began.facts
  starts.copy_metrics(began, one.folder)
  one.engine.reset(
    one.env_seeds(streams.Stream.TRAIN, one.iteration, one.runner.num_envs)
  )
  starts.show_first_frames(one.engine)


def last_statistics(one) -> dict[str, np.ndarray]:
  """Returns what a finished run reached: as it saved it, and reported it."""
  saved = one.checkpoints.manifest(one.iteration).get('run') or {}
  try:
    statistics = _arrays(saved.get('statistics', {}), one.seeds)
  except (TypeError, ValueError, AttributeError) as error:
    raise _unreadable(one, error) from error
  # Evaluations come after the save, and have no checkpoint of theirs.
  return statistics | csv_file.of_iteration(
    one.folder, one.iteration, one.seeds
  )


def find_unreported(one, progress):
  """Looks for what a run that was stopped after its save has left to do."""
  saved = one.checkpoints.manifest(one.iteration).get('run')
  if progress.get('reported') == one.iteration:
    one.written = progress.get('written', {})
  # Older versions reported before they saved; a start has nothing to report.
  elif saved and saved.get('statistics') != {}:
    try:
      one.written = dict(saved['written'])
      one.unreported = _arrays(saved['statistics'], one.seeds)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
      raise _unreadable(one, error) from error


def _arrays(statistics, seeds):
  """Returns statistics [S] by name, of lists."""
  return {
    name: np.array(values, float).reshape(len(seeds))
    for name, values in statistics.items()
  }


def _unreadable(one, error):
  return errors.UserError(
    f'the checkpoint of iteration {one.iteration} has no statistics that can '
    f'be read: {error!r}. Bring back the one that was saved, or train into '
    'another --base_dir.'
  )
