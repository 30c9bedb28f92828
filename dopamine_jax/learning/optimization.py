"""Steps of gradient descent, and what is worth logging of them."""

from collections.abc import Callable, Mapping, Sequence
import types
from typing import Any

import jax
import jax.numpy as jnp
import optax

from dopamine_jax import errors
from dopamine_jax import lanes
from dopamine_jax.networks import variables

# A setting whose value is an optimizer. `optax.MultiSteps` is none of optax's
# own type, but has its two functions.
Optimizer = optax.GradientTransformation | optax.MultiSteps


def chain(args: Sequence[Optimizer]) -> optax.GradientTransformation:
  """Returns `optax.chain(*args)`.

  It stands behind `@optax.chain()` in gin files, which can't pass a function
  its arguments by position: `optax.chain.args = [@optax.sgd(), ...]`.
  """
  return optax.chain(*args)


def clipped(
  optimizer: Optimizer, max_norm: float
) -> optax.GradientTransformation:
  """Returns an optimizer of gradients whose global norm is clipped.

  That is `optax.chain(optax.clip_by_global_norm(max_norm), optimizer)`, for gin
  files, which can't pass a function its arguments by position.

  Args:
    optimizer: an optax transformation.
    max_norm: the largest global L2 norm that gradients keep; longer ones are
      scaled down to it.

  Raises:
    UserError: if the norm is not above 0.
  """
  if not all(number > 0 for number in lanes.known(max_norm)):
    raise errors.UserError(
      f'optimization.clipped.max_norm = {max_norm} is too small; it must be '
      'above 0.'
    )
  return optax.chain(optax.clip_by_global_norm(max_norm), optimizer)


def apart(
  **optimizers: Optimizer | None,
) -> optax.GradientTransformation:
  """Returns one optimizer of a dict of parameters, each entry with its own.

  An entry whose optimizer is None stays as it is.
  """
  optimizers = {
    name: optimizer or optax.set_to_zero()
    for name, optimizer in optimizers.items()
  }
  return optax.partition(optimizers, {name: name for name in optimizers})


def kernels(params: Any) -> Any:
  """Returns which parameters have several axes, as a tree of bools.

  Those are kernels, and no biases or scales; the `mask` of `optax.adamw`.
  """
  return jax.tree.map(lambda x: x.ndim > 1, params)


def learn(
  loss_fn: Callable[[Any], tuple[jax.Array, Any]],
  optimizer: optax.GradientTransformation,
  params: Any,
  optimizer_state: optax.OptState,
  key: jax.Array | None,
) -> tuple[Any, optax.OptState, Any, dict[str, jax.Array]]:
  """Takes a gradient step on a loss.

  Passes within the loss are for training: see `networks.variables`. What they
  leave, such as running statistics of batches, is part of the new parameters.

  Args:
    loss_fn: of parameters; gives a loss and anything else.
    optimizer: an optax transformation, of `networks.learnt(params)`.
    params: a tree of parameters, in which `networks.Variables` may be.
    optimizer_state: of the optimizer.
    key: a PRNG key, for dropout; None does where there are no `Variables`.

  Returns:
    New parameters, the optimizer's new state, what else the loss gave, and
    metrics: `Loss` and those of `take_step`.
  """

  def of_learnt(learnt):
    given = variables.training(variables.with_learnt(params, learnt), key)
    loss, rest = loss_fn(given)
    return loss, (rest, variables.collections(given))

  gradient_fn = jax.value_and_grad(of_learnt, has_aux=True)
  (loss, (rest, left)), gradients = gradient_fn(variables.learnt(params))
  params, optimizer_state, metrics = take_step(
    optimizer,
    gradients,
    optimizer_state,
    variables.with_collections(params, left),
  )
  return params, optimizer_state, rest, metrics | {'Loss': loss}


def take_step(
  optimizer: optax.GradientTransformation,
  gradients: optax.Updates,
  optimizer_state: optax.OptState,
  params: optax.Params,
) -> tuple[Any, optax.OptState, dict[str, jax.Array]]:
  """Returns new parameters, the optimizer's new state, and metrics.

  The metrics are the Euclidean norms of all gradients (`GradientNorm`, before
  the optimizer clips or scales them) and of the new parameters
  (`ParameterNorm`).
  """
  learnt = variables.learnt(params)
  changes, optimizer_state = optimizer.update(
    gradients, optimizer_state, learnt
  )
  learnt = optax.apply_updates(learnt, changes)
  # Kept apart from the optimizer's squares of the same numbers, which XLA
  # would otherwise write to memory once more to share them.
  measured = jax.lax.optimization_barrier(gradients)
  metrics = {
    'GradientNorm': optax.tree.norm(measured),
    'ParameterNorm': optax.tree.norm(learnt),
  }
  return variables.with_learnt(params, learnt), optimizer_state, metrics


def incremental_update(params: Any, targets: Any, tau: float) -> Any:
  """Returns a target network that has moved by `tau` to another's parameters.

  What else the networks keep, such as statistics of batches, is copied.
  """
  learnt = map(variables.learnt, (params, targets))
  return variables.with_learnt(params, optax.incremental_update(*learnt, tau))


def shuffled(
  key: jax.Array, size: int, num_epochs: int, num_minibatches: int
) -> jax.Array:
  """Returns rows of data for each minibatch, int32 [K, M].

  In each epoch every row comes once, in an order of its own.

  Args:
    key: a PRNG key.
    size: rows of the data, a multiple of `num_minibatches`.
    num_epochs: passes over the data.
    num_minibatches: of an epoch; K is the product of the two.
  """
  # The rows' numbers in the low bits, random ones above them: XLA's CPU sorts
  # one array of whole numbers six times as fast as keys and what belongs to
  # them. Rows whose random bits are equal keep their order among themselves,
  # which only matters where a minibatch ends between them.
  low = jnp.uint32((1 << (size - 1).bit_length()) - 1)
  random = jax.random.bits(key, (num_epochs, size)) & ~low
  row = jnp.arange(size, dtype=jnp.uint32)[None]
  orders = jnp.sort(random | row) & low
  return orders.astype(jnp.int32).reshape(num_epochs * num_minibatches, -1)


def descend(
  loss_fn: Callable[[Any, Any], tuple[jax.Array, dict[str, jax.Array]]],
  optimizer: optax.GradientTransformation,
  params: optax.Params,
  optimizer_state: optax.OptState,
  data: Any,
  rows: jax.Array,
  stop: Callable[[dict[str, jax.Array]], jax.Array] | None = None,
  reductions: Mapping[str, str] = types.MappingProxyType({}),
  key: jax.Array | None = None,
) -> tuple[Any, optax.OptState, dict[str, jax.Array]]:
  """Takes a gradient step on each minibatch.

  Args:
    loss_fn: gives the loss and its metrics, of parameters and a minibatch.
    optimizer: an optax transformation; its schedules count gradient steps.
    params: where to begin.
    optimizer_state: where the optimizer begins.
    data: a pytree of arrays [B, ...].
    rows: int32 [K, M], the rows of `data` in each minibatch.
    stop: says of a minibatch's metrics whether neither its step nor any later
      one is to be taken.
    reductions: as `Agent.reductions`, of the steps' metrics.
    key: a PRNG key, see `learn`; that of `shuffled` will do.

  Returns:
    New parameters, the optimizer's new state, and metrics: means over the steps
    that were taken, or what `reductions` says, `Loss` and `take_step`'s among
    them, and `GradientSteps`, how many these were.
  """

  def step(carry, given):
    params, optimizer_state, going = carry
    row, key = given
    minibatch = jax.tree.map(lambda x: x[row], data)
    *new, metrics, of_step = learn(
      *(lambda params: loss_fn(params, minibatch), optimizer),
      *(params, optimizer_state, key),
    )
    metrics |= of_step
    if stop is not None:
      going &= ~stop(metrics)
      new = jax.tree.map(
        lambda new, old: jnp.where(going, new, old),
        new,
        [params, optimizer_state],
      )
    metrics |= {'GradientSteps': jnp.float32(1.0)}
    return (*new, going), jax.tree.map(
      lambda x: jnp.where(going, x, 0), metrics
    )

  def guarded(carry, given):
    if stop is None:
      return step(carry, given)
    nothing = jax.eval_shape(step, carry, given)[1]
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), nothing)
    return jax.lax.cond(
      carry[-1], step, lambda c, _: (c, nothing), carry, given
    )

  keys = None  # where nothing draws by them, and the program has none
  if variables.has_any(params):
    keys = jax.random.split(jax.random.fold_in(key, 1), len(rows))
  start = (params, optimizer_state, jnp.array(True))
  (params, optimizer_state, _), metrics = jax.lax.scan(
    guarded, start, (rows, keys)
  )
  steps = jnp.sum(metrics.pop('GradientSteps'))

  def reduced(name, values):
    how = reductions.get(name)
    if how == 'last':
      return values[steps.astype(jnp.int32) - 1]
    total = jnp.sum(values)
    return total if how == 'sum' else total / steps

  metrics = {name: reduced(name, values) for name, values in metrics.items()}
  return params, optimizer_state, metrics | {'GradientSteps': steps}
