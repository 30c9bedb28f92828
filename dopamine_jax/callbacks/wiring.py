"""Which layers lead to a network's neurons, and which read them.

A network says what its activations are (Flax's `sow`), not what stands before
and behind them. So it is run once on numbers that are all different, and each
layer's input is compared with the activations: whose numbers it has, it reads.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from flax import linen as nn
from flax import traverse_util
import jax
import numpy as np

from dopamine_jax import agent as agent_lib
from dopamine_jax import errors
from dopamine_jax.networks import variables

# A layer by the path of its module, as its parameters have it.
Layer = tuple[str, ...]


class Neurons(NamedTuple):
  """One layer of neurons, [..., C] numbers.

  Attributes:
    name: as in `inspection.Seen.magnitudes`.
    incoming: the layer that makes them; the last axis of its kernel is C.
    outgoing: those that read them; the last axis but one of their kernels is a
      multiple of C, and C runs fastest.
  """

  name: str
  incoming: Layer
  outgoing: tuple[Layer, ...]


class _Call(NamedTuple):
  layer: Layer
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
    shape = (2, *leaf.shape[1:])
    return random.uniform(1, 100, shape).astype(leaf.dtype)

  def distinct_weights(leaf):  # sums that don't grow from layer to layer
    largest = 1 / max(1, np.prod(leaf.shape[:-1]))
    return random.uniform(0, largest, leaf.shape).astype(leaf.dtype)

  # Numbers to compare, in the midst of a trace; `ensure_compile_time_eval`
  # would still trace what has derivatives of its own.
  with jax.core.eval_context():
    calls, activations = _run(
      anatomy.module,
      jax.tree.map(distinct_weights, anatomy.params),
      jax.tree.map(distinct, list(inputs)),
    )
  found = []
  for name, numbers in activations.items():
    readers = [
      i
      for i, call in enumerate(calls)
      if np.array_equal(call.read.ravel(), numbers.ravel())
    ]
    maker = calls[readers[0] - 1] if readers and readers[0] else None
    if maker is None or maker.made.shape != numbers.shape:
      raise errors.UserError(
        f'ReDo can not recycle the neurons of {name} in '
        f'{type(anatomy.module).__name__}: it needs layers in a row, each '
        'reading what the one before made. Name other networks in its setting '
        '`networks`, choose another one, or resets.Reset.'
      )
    outgoing = tuple(calls[i].layer for i in readers)
    found.append(Neurons(name, maker.layer, outgoing))
  return found


def _run(module, params, inputs) -> tuple[list[_Call], dict[str, np.ndarray]]:
  """Returns the calls of layers with a kernel, and activations by name."""
  calls = []

  def note(call, args, kwargs, context):
    made = call(*args, **kwargs)
    layer = context.module
    if context.method_name == '__call__' and layer.has_variable(
      'params', 'kernel'
    ):
      calls.append(_Call(layer.path, np.asarray(args[0]), np.asarray(made)))
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
