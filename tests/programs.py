"""Trainings of one process that use the same programs again.

Most of the time of a training as small as in tests is that of tracing programs.
Those that differ in what happens to them, and not in their settings, need that
only once.
"""

import re
import sys

from jax._src import compilation_cache
from jax._src.interpreters import mlir

from dopamine_jax import config
from dopamine_jax import values
from dopamine_jax.environments import steppers
from dopamine_jax.learning import trials
from dopamine_jax.training import evaluations
from dopamine_jax.training import training

# What no program of a training depends on.
_OTHER = re.compile(
  r'\b(num_iterations|training_steps|collectors|checkpoint_\w+|max_to_keep'
  r'|evaluation_period'
  r'|record_replay|start_from|histograms|videos) = |\b(starts|health)\b|^#|^$'
)

# What engines and evaluators keep of what they traced.
_OF_ENGINES = (
  *('_init', '_metric_shapes', '_programs'),
  *('_bundles', '_several', '_draw', '_remember'),
  *('_act_programs', '_learn_programs'),
  *('_chunk', '_learn', '_ready'),
)
_OF_EVALUATORS = ('_first', '_next', '_act')
_OF_ENVIRONMENTS = ('_begin', '_advance')  # of those in JAX

_kept = {}
_compiled = {}
_tried = {}


def forget():
  """Lets go of all programs."""
  _kept.clear()
  _compiled.clear()


# As JAX has it: in files.
ON_DISK = {
  name: getattr(compilation_cache, name)
  for name in ('get_executable_and_time', 'put_executable_and_time')
}


def keep_compiled():
  """Has JAX keep what this process compiles in memory instead of in files.

  To write it, and read it again, took a fourteenth of the tests' time.
  """
  compilation_cache.get_executable_and_time = _get_compiled
  compilation_cache.put_executable_and_time = _put_compiled


def _get_compiled(key, *_):
  return _compiled.get(key, (None, None))


def _put_compiled(key, name, executable, backend, compile_time):
  _compiled[key] = executable, compile_time


# As JAX has it: one for each program.
MAKE_CONTEXT = mlir.make_ir_context


def share_context():
  """Has JAX lower the programs that come next in one MLIR context.

  To make one of its own for each, and to let go of it, took as long as all else
  that is done for a small program before it is compiled.
  """
  context = MAKE_CONTEXT()
  mlir.make_ir_context = lambda: context


def try_once(patch):
  """Has each optimizer that works be tried out once, while a patch lasts."""
  check, check_on_own = trials._check_optimizer, trials._check_on_own
  on_own = []

  def check_once(owner, name, optimizer, counts):
    key = _origin(optimizer), counts.tobytes()
    if key not in _tried:
      on_own.clear()
      check(owner, name, optimizer, counts)
      if not on_own:  # else it works for this agent
        _tried[key] = optimizer  # which no other one's id can be

  def note(*args):
    on_own.append(args)
    check_on_own(*args)

  patch.setattr(trials, '_check_optimizer', check_once)
  patch.setattr(trials, '_check_on_own', note)


def _origin(value):
  """Returns what tells a value from those that were made in another way."""
  if made := values.origin(value):
    given = made.keywords.items()
    return made.function, *((name, _origin(each)) for name, each in given)
  return repr(value) if isinstance(value, (int, float)) else id(value)


def share(patch):
  """Has trainings of equal settings trace once, while a patch lasts."""
  alone, together = training.Training._alone, evaluations.Together.__init__

  def share_alone(self):
    made = alone(self)
    key = _key(self.config, self.seeds)
    _reuse(key, made.engine, made.evaluations._evaluator)
    return made

  def share_together(self, runner, engine, *others):
    together(self, runner, engine, *others)
    numbers = [(*x, *engine.numbers[x].tolist()) for x in engine.numbers]
    key = *_key(config.record(runner, ''), engine.seeds), *numbers
    _reuse(key, engine, self._evaluator)

  patch.setattr(training.Training, '_alone', share_alone)
  patch.setattr(evaluations.Together, '__init__', share_together)


def _reuse(key, engine, evaluator):
  """Gives them the programs of those before that have the same key."""
  shapes = []
  if key in _kept:
    *before, shapes = _kept[key]
    _take(engine, before[0], _OF_ENGINES)
    pairs = [(engine, before[0])]
    if evaluator:
      pairs.append((evaluator, before[1]))
      _take(*pairs[-1], _OF_EVALUATORS)
    for one, other in pairs:
      _take(one.environments, other.environments, _OF_ENVIRONMENTS)
    if isinstance(vars(engine).get('_stepper'), steppers.JaxStepper):
      _take(engine, before[0], ['_stepper'])
  _kept[key] = engine, evaluator, shapes
  abstract_state = engine.abstract_state

  def once():
    if not shapes:
      shapes.append(abstract_state())
    return shapes[0]

  engine.abstract_state = once


def _key(text, seeds):
  """Returns what the programs of a training depend on, given its config."""
  lines = [x for x in text.splitlines() if not _OTHER.search(x)]
  text = '\n'.join(lines)
  names = re.findall(r'^(?:from (\S+) )?import (\S+)', text, re.MULTILINE)
  # Not by their names: a test's own module may have had another one's.
  modules = (sys.modules.get('.'.join(filter(None, x))) for x in names)
  return text, len(seeds), *modules


def _take(taker, giver, names):
  """Sets what one has of another's."""
  kept = vars(giver)
  vars(taker).update({name: kept[name] for name in names if name in kept})
