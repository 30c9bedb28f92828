"""Schedules and optimizers are tried over a run's range before it starts.

Both are functions, of which a setting's type says nothing: a learning rate
below 0 climbs the loss, a schedule from 50 makes a probability of 50. So a
schedule is asked for its value at the run's first count, its middle and its
last, and what it says must fit its setting as a number there would. An
optimizer is given a gradient of ones, some hundred times from each of the three
counts: what it says must be finite, of a sane size, and lead downhill. One that
can't be tried so, for it wants the names of true parameters, is traced with the
agent's own.
"""

from collections.abc import Callable
import dataclasses
from typing import Any

import jax
from jax.extend import core
import jax.numpy as jnp
import numpy as np
import optax

from dopamine_jax import annotations
from dopamine_jax import errors
from dopamine_jax import settings
from dopamine_jax import spaces
from dopamine_jax.learning import outputs

_STEPS = 300  # powers of a decay above 1 overflow before
_ROUNDED = 1e-5  # of the way at other counts: a schedule's end at 0, rounded
_LARGEST_STEP = 10.0  # for a gradient of ones

# What optimizers are tried on; of no shapes that a setting has by chance.
_PARAMS = {
  'x': np.full((3, 5), 0.5, np.float32),
  'y': np.full(7, 0.5, np.float32),
}

# What was found, by program: trainings in one process mostly repeat it.
_found: dict[Any, Any] = {}


def check(owner: settings.Settings, last_count: Callable[[str], int]):
  """Refuses schedules and optimizers that can't work.

  Args:
    owner: an agent or replay; each of its settings is looked at.
    last_count: returns what a setting's schedule counts up to in the run.

  Raises:
    SettingError: that names the setting, and where a schedule gives what.
  """
  for field in dataclasses.fields(owner):
    value = getattr(owner, field.name)
    last = last_count(field.name)
    if type(last) is not int or last < 0:
      raise errors.UserError(
        f'{type(owner).__name__}.last_count must return a count, and it gave '
        f'{last!r} for {field.name}. Mend the agent.'
      )
    last = min(last, 2**31 - 1)  # as far as programs count
    counts = np.array([0, last // 2, last], np.int32)
    if isinstance(value, (optax.GradientTransformation, optax.MultiSteps)):
      _check_optimizer(owner, field.name, value, counts)
    elif callable(value) and settings.takes(owner, field.name, optax.Schedule):
      _check_schedule(owner, field.name, value, counts)


def _check_schedule(owner, name, schedule, counts):
  try:
    values = _run(schedule, counts)
  except Exception as error:
    owner.refuse(
      name,
      f'fails when it is asked for its value at a count, as a schedule is: '
      f'{errors.first_line(error)}',
    )
  if not isinstance(values, np.ndarray) or values.shape != counts.shape:
    owner.refuse(name, 'gives no number when it is asked for its value')
  for count, value in zip(counts, values, strict=True):
    try:
      # Rounded: a way to 0 may end a hair below it.
      number = value.item()
      owner.replace(
        **{name: round(number, 6) if isinstance(number, float) else number}
      )
    except settings.SettingError as error:
      raise settings.SettingError(
        type(owner),
        name,
        f'{error} That is what its schedule gives at count {count}.',
      ) from error


def _check_optimizer(owner, name, optimizer, counts):
  try:
    _require_floats(owner, name, optimizer, _PARAMS)
    finite, way, sizes = _run(lambda count: _descend(optimizer, count), counts)
  except settings.SettingError:
    raise
  except Exception:  # It may want the names or shapes of true parameters.
    _check_on_own(owner, name, optimizer)
    return
  for count, is_finite, up, steps in zip(
    counts, finite, way, sizes, strict=True
  ):
    if not is_finite:
      problem = 'gives numbers that are not finite'
    elif up > _ROUNDED * np.abs(way).max():
      problem = 'climbs: it moves parameters along the gradient, so that the '
      problem += 'loss grows; its learning rate is below 0, or is missing'
    elif steps.min() > _LARGEST_STEP:
      problem = f'moves parameters by {steps[0]:g} for a gradient of 1'
    else:
      continue
    raise _unfit(owner, name, f'{problem} (at count {count} of its steps)')


def _require_floats(owner, name, optimizer, params):
  """Refuses an optimizer whose moments have a type that can't hold them."""
  shapes = [leaf.shape for leaf in jax.tree.leaves(params) if leaf.shape]
  for leaf in jax.tree.leaves(jax.eval_shape(optimizer.init, params)):
    if leaf.shape in shapes and not jnp.issubdtype(leaf.dtype, jnp.floating):
      raise _unfit(
        owner,
        name,
        f'keeps what it knows of each parameter as {leaf.dtype.name}; expected '
        "floats (optax's mu_dtype or accumulator_dtype)",
      )


def _check_on_own(owner, name, optimizer):
  """Refuses an optimizer that fails on the agent's own parameters, too.

  That is only traced: a sound step of it may be any.
  """

  def step(params):
    state = optimizer.init(params)
    return state, *optimizer.update(params, state, params)

  params = _own_params(owner, name)
  if params is None:
    return
  try:
    _require_floats(owner, name, optimizer, params)
    before, updates, after = jax.eval_shape(step, params)
    _require_shapes(updates, params)
    if jax.tree.structure(before) != jax.tree.structure(after):
      raise ValueError('its state is of another kind after a step')
  except settings.SettingError:
    raise
  except Exception as error:
    problem = errors.first_line(error).rstrip('.:')
    raise _unfit(
      owner,
      name,
      f'fails when it is given a gradient of the parameters: {problem}. '
      'Change its settings, or choose another optimizer: one that needs more, '
      "such as the loss (optax's `value`), is not given it",
    ) from error


def _own_params(owner, name):
  """Returns shapes and types of the parameters that an optimizer is given.

  None if `init` gives it none.
  """
  given = []

  def init(params):
    given.append(jax.eval_shape(lambda: params))
    return ()

  observation = spaces.lay_out(
    jax.ShapeDtypeStruct, owner.observation_space, (1,)
  )
  recorder = optax.GradientTransformation(init, lambda *args: args[:2])
  agent = owner.replace(**{name: recorder})
  with outputs.telling(agent, 'init'):
    jax.eval_shape(agent.init, jax.random.key(0), observation)
  return given[0] if given else None


def _require_shapes(updates, params):
  def check(update, param):
    if update.shape != param.shape:
      raise ValueError(f'steps {update.shape} for parameters {param.shape}')

  jax.tree.map(check, updates, params)


def _unfit(owner, name, problem):
  """Returns what to raise about an optimizer, which has no short name."""
  kind = type(owner)
  message = f'{annotations.full_name(kind)}.{name} {problem}.'
  return settings.SettingError(kind, name, message)


def _descend(optimizer, count):
  """Returns whether steps are finite, their sum, and their sizes.

  All are taken at the same count, so that no schedule is asked for what lies
  beyond the run. The rest of the state is a first one's: of that, some sound
  optimizers make a large step or two.
  """
  params = jax.tree.map(jnp.asarray, _PARAMS)
  gradients = jax.tree.map(jnp.ones_like, params)

  def step(state, _):
    state = jax.tree_util.tree_map_with_path(counted, state)
    updates, state = optimizer.update(gradients, state, params)
    _require_shapes(updates, params)
    return state, updates['x'].astype(jnp.float32)

  def counted(path, leaf):
    is_count = path and getattr(path[-1], 'name', None) == 'count'
    return jnp.asarray(count, leaf.dtype) if is_count else leaf

  _, updates = jax.lax.scan(step, optimizer.init(params), length=_STEPS)
  return (
    jnp.isfinite(updates).all(),
    jnp.sum(updates),
    jnp.max(jnp.abs(updates), axis=(1, 2)),
  )


def _run(function, counts):
  """Returns NumPy's arrays of `function` at each count."""
  program, shape = jax.make_jaxpr(jax.vmap(function), return_shape=True)(counts)
  constants = [np.asarray(each).tobytes() for each in program.consts]
  key = (str(program.jaxpr), *constants, counts.tobytes())
  if key not in _found:
    # It runs once, on a few numbers: to compile it well, or for an accelerator,
    # would take longer than all the rest. Who debugs without jit has it too.
    with jax.default_device(_cpu()), jax.disable_jit(False):
      lowered = jax.jit(core.jaxpr_as_fun(program)).lower(counts)
      compiled = lowered.compile({'xla_backend_optimization_level': 0})
      _found[key] = [np.asarray(each) for each in compiled(counts)]
  return jax.tree.unflatten(jax.tree.structure(shape), _found[key])


def _cpu() -> jax.Device | None:
  """Returns a CPU, or None where JAX is told to see none."""
  try:
    return jax.local_devices(backend='cpu')[0]
  except RuntimeError:
    return None
