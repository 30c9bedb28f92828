"""Which layers lead to a network's neurons, and which read them.

A network says what its activations are (Flax's `sow`), not what stands before
and behind them. So it is run once on numbers that are all different, and each
layer's input is compared with the activations: whose numbers it has, it reads.
Then another number is put into what a layer makes: the last one whose numbers
show in the activations makes them. And it is run on other inputs, with the same
numbers from that layer: if the activations stay the same, no other has a part.
"""

from collections.abc import Sequence
import functools
from typing import Any, NamedTuple

from flax import linen as nn
from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from dopamine_jax import agent as agent_lib
from dopamine_jax import errors
from dopamine_jax.networks import variables

# What a layer has that makes neurons, or changes their numbers.
_OWN = ('kernel', 'scale', 'bias')
_ROWS = 8  # shown to it
# A layer by the path of its module, as its parameters have it.
Layer = tuple[str, ...]


class Neurons(NamedTuple):
  """One layer of neurons, [..., C] numbers.

  Attributes:
    name: as in `inspection.Seen.magnitudes`.
    incoming: the layer that makes them, the last axis of whose kernel is C, and
      those that scale or shift what it makes, with parameters [C].
    outgoing: those that read them; the last axis but one of their kernels is a
      multiple of C, and C runs fastest.
  """

  name: str
  incoming: tuple[Layer, ...]
  outgoing: tuple[Layer, ...]


class _Call(NamedTuple):
  layer: Layer
  own: dict[str, tuple[int, ...]]  # shapes of `_OWN` that it has
  read: np.ndarray
  made: np.ndarray


def neurons_of(
  anatomy: agent_lib.Anatomy, inputs: Sequence[jax.Array]
) -> list[Neurons]:
  """Returns a network's layers of neurons; may be called while tracing.

  Args:
    anatomy: the network.
    inputs: arrays [B, ...], of which shapes and types are looked at.

  Raises:
    UserError: if a layer's neurons are not made by one layer and read as they
      are by others, as in a residual network.
  """
  random = np.random.default_rng(0)

  def distinct(leaf):
    shape = (_ROWS, *leaf.shape[1:])
    if leaf.dtype == bool:
      return random.uniform(size=shape) < 0.5
    # Small numbers, of which no activation is the same everywhere.
    low, high = (-1, 1) if np.issubdtype(leaf.dtype, np.floating) else (1, 100)
    return random.uniform(low, high, shape).astype(leaf.dtype)

  def distinct_weights(leaf):  # sums that don't grow from layer to layer
    low, high = 0.0, 1.0  # also of a variance
    if leaf.ndim > 1:
      high = np.sqrt(3 / np.prod(leaf.shape[:-1]))
      low = -high
    return random.uniform(low, high, leaf.shape).astype(leaf.dtype)

  # Numbers to compare, in the midst of a trace; `ensure_compile_time_eval`
  # would still trace what has derivatives of its own.
  with jax.core.eval_context():
    params = jax.tree.map(distinct_weights, anatomy.params)
    shown, others = (jax.tree.map(distinct, list(inputs)) for _ in range(2))
    run = functools.partial(_run, anatomy.module, params)
    calls, activations = run(shown)
    found = []
    for name, numbers in activations.items():
      readers = [
        i
        for i, call in enumerate(calls)
        if 'kernel' in call.own
        and np.array_equal(call.read.ravel(), numbers.ravel())
      ]
      before = calls[: readers[0]] if readers else []
      incoming = _incoming(before, name, numbers, run, shown, others)
      if not incoming:
        raise errors.UserError(
          f'callbacks.redo can not recycle the neurons of {name} in '
          f'{type(anatomy.module).__name__}: it needs layers in a row, each '
          'reading what the one before made. Name other networks in its '
          'setting `networks`, choose another one, or resets.Reset.'
        )
      outgoing = tuple(calls[i].layer for i in readers)
      found.append(Neurons(name, incoming, outgoing))
  return found


def _incoming(calls, name, numbers, run, shown, others) -> tuple[Layer, ...]:
  """Returns what makes activations: a layer, and what changes its numbers.

  Args:
    calls: of layers, up to the first that reads these activations.
    name: of the activations.
    numbers: what they are.
    run: does what `_run` does with this network.
    shown: its inputs.
    others: likewise, other numbers.

  Returns:
    Nothing, if it is not one layer that makes them.
  """

  def has_a_part(i):
    made = calls[i].made
    other = made * np.linspace(2, 3, made.shape[-1])
    _, changed = run(shown, fixed=(i, other))
    return not np.array_equal(changed[name], numbers)

  last_first = reversed(range(len(calls)))
  kernels = (i for i in last_first if 'kernel' in calls[i].own)
  maker = next(filter(has_a_part, kernels), None)
  if maker is None or calls[maker].made.shape != numbers.shape:
    return ()
  _, held = run(others, fixed=(maker, calls[maker].made))
  if not np.array_equal(held[name], numbers):
    return ()
  scaling = (
    calls[i].layer
    for i in range(maker + 1, len(calls))
    if set(calls[i].own.values()) == {numbers.shape[-1:]}
    and calls[i].made.shape == numbers.shape
    and has_a_part(i)
  )
  return calls[maker].layer, *scaling


def _run(
  module, params, inputs, fixed=None
) -> tuple[list[_Call], dict[str, np.ndarray]]:
  """Returns the calls of layers, and activations by name.

  Args:
    module: the network.
    params: its parameters.
    inputs: what it is shown.
    fixed: the number of a call, and what it makes whatever it reads.
  """
  calls = []

  def note(call, args, kwargs, context):
    made = call(*args, **kwargs)
    layer = context.module
    own = {
      name: layer.get_variable('params', name).shape
      for name in _OWN
      if layer.has_variable('params', name)
    }
    read = next(iter((*args, *kwargs.values())), None)
    are_arrays = all(
      isinstance(x, (jax.Array, np.ndarray)) for x in (read, made)
    )
    if context.method_name == '__call__' and own and are_arrays:
      if fixed and fixed[0] == len(calls):
        made = jnp.asarray(fixed[1], made.dtype)
      calls.append(_Call(layer.path, own, np.asarray(read), np.asarray(made)))
    return made

  with nn.intercept_methods(note):
    _, state = variables.apply(
      *(module, params, *inputs),
      key=jax.random.key(0),
      mutable='intermediates',
    )
  sown: Any = traverse_util.flatten_dict(state.get('intermediates', {}))
  return calls, {
    '/'.join([*path, str(i)]): np.asarray(array)
    for path, arrays in sorted(sown.items())
    if path[-1] == 'activations'
    for i, array in enumerate(arrays)
  }
