"""What a network keeps: its parameters, and what else passes for training need.

Most networks have parameters alone, and those are the `params` of an agent, a
dict as Flax makes it. A network with other collections, such as the running
statistics of batch normalization, or with layers that differ in training, such
as dropout, has `Variables` in their place. They go wherever parameters go: into
the agent's state, its target network, checkpoints and exports.

In a loss the `Variables` are `Training`, and a pass of those is for training:
it has a key for 'dropout', modules whose `__call__` takes `train` get True, and
the collections that it changes stay in them. Every other pass changes nothing:
acting, targets, evaluations, films, and those of `jax.lax.stop_gradient` of the
parameters. (REDQ has its targets' passes be for training, as DroQ asks.)
"""

import contextlib
import functools
import inspect
import itertools
from typing import Any

from flax import errors as flax_errors
from flax import linen as nn
from flax import struct
from flax import traverse_util
import jax

from dopamine_jax import errors

# Agents fold small numbers into an update's key, none such a one.
_DROPOUT = 1 << 31


class Variables(struct.PyTreeNode):
  """A network's variables, in the place of its parameters.

  Attributes:
    params: what an optimizer learns, as Flax has it.
    collections: the others by name, such as `batch_stats`; may be empty.
  """

  params: Any
  collections: dict[str, Any]


@jax.tree_util.register_pytree_node_class
class Training:
  """Variables within a loss, by which networks make passes for training.

  It is an object that changes, as Flax's own are within `apply`, and never
  leaves the loss: `optimization.learn` takes out what its passes have left.
  Copies that `jax.tree.map` or `jax.lax.stop_gradient` make are `Variables`.

  Attributes:
    params: see `Variables`.
    collections: see `Variables`; as the last pass left them.
  """

  def __init__(self, variables: Variables, key: jax.Array):
    self.params = variables.params
    self.collections = variables.collections
    self._key = key
    self._passes = 0

  def next_key(self) -> jax.Array:
    """Returns the PRNG key of one more pass."""
    self._passes += 1
    return jax.random.fold_in(self._key, self._passes)

  def tree_flatten(self):
    """Returns what JAX sees: the arrays, as those of `Variables`."""
    return (self.params, self.collections), None

  @classmethod
  def tree_unflatten(cls, _, children):
    """Returns a copy, which is no longer for training."""
    return Variables(*children)


def init(module: nn.Module, rngs: Any, *inputs: Any) -> Any:
  """Returns a network's first parameters, or `Variables` if it needs them.

  Args:
    module: the network.
    rngs: a PRNG key, or several by name.
    inputs: examples, [B, ...].
  """
  differs = False

  def note(call, args, kwargs, context):
    nonlocal differs
    differs |= isinstance(context.module, nn.Dropout)
    differs |= _takes_train(type(context.module))
    return call(*args, **kwargs)

  with nn.intercept_methods(note):
    collections = module.init(rngs, *inputs, **_told(module, train=False))
  params = collections.pop('params', {})
  return Variables(params, collections) if differs or collections else params


def apply(
  module: nn.Module,
  params: Any,
  *inputs: Any,
  key: jax.Array | None = None,
  **options: Any,
) -> Any:
  """Returns what a network gives, as `module.apply` does.

  Args:
    module: the network.
    params: its parameters, `Variables`, or `Training`, which makes the pass one
      for training.
    *inputs: what `module` takes.
    key: a PRNG key for 'noise'; None: there is none.
    **options: of `module.apply`.

  Raises:
    UserError: if the network draws numbers or changes a collection where that
      can't be.
  """
  rngs = {} if key is None else {'noise': key}
  if not isinstance(params, Variables | Training):
    with _telling(module):
      return module.apply({'params': params}, *inputs, rngs=rngs, **options)
  variables = {'params': params.params, **params.collections}
  train = isinstance(params, Training)
  options |= _told(module, train=train)
  if not train:
    with _telling(module):
      return module.apply(variables, *inputs, rngs=rngs, **options)
  rngs['dropout'] = params.next_key()
  mutable = list(params.collections)
  with _telling(module):
    answer, changed = module.apply(
      variables, *inputs, rngs=rngs, mutable=mutable, **options
    )
  params.collections = {**params.collections, **changed}
  return answer


def features(
  module: nn.Module, params: Any, *inputs: Any, key: jax.Array | None = None
) -> jax.Array:
  """Returns what a network's last layer reads, [B, F]; as when not training.

  Args:
    module: shows it by `self.sow('intermediates', 'features', x)`, as ours do.
    params: see `apply`.
    *inputs: what `module` takes.
    key: see `apply`.

  Raises:
    UserError: if the network shows none, or more than one.
  """
  if isinstance(params, Training):
    params = Variables(params.params, params.collections)
  _, state = apply(module, params, *inputs, key=key, mutable='intermediates')
  sown = traverse_util.flatten_dict(state.get('intermediates', {}))
  found = [x for path, xs in sown.items() if path[-1] == 'features' for x in xs]
  if len(found) != 1:
    raise errors.UserError(
      f'one array of features is needed, what the last layer reads, and the '
      f'network {type(module).__name__} shows {len(found)}. Choose another '
      "one, or let its `__call__` do `self.sow('intermediates', 'features', x)`"
      ' once.'
    )
  return found[0]


def part(module: nn.Module, inner: nn.Module, *inputs: Any) -> Any:
  """Returns what an inner network gives, told of training if it asks.

  Args:
    module: in whose `__call__` this is.
    inner: a part of it, which a user chooses.
    *inputs: what `inner` takes.
  """
  return call(inner, *inputs, train=is_training(module))


def call(module: nn.Module, *inputs: Any, train: bool) -> Any:
  """Returns what a module gives, told of training if its `__call__` asks."""
  return module(*inputs, **_told(module, train=train))


def is_training(module: nn.Module) -> bool:
  """Whether this pass is for training; to be called in a `__call__`."""
  return module.has_rng('dropout')


def learnt(tree: Any) -> Any:
  """Returns a tree with parameters alone in the place of `Variables`."""
  return jax.tree.map(
    lambda x: x.params if _is_node(x) else x, tree, is_leaf=_is_node
  )


def with_learnt(tree: Any, params: Any) -> Any:
  """Returns a tree with other parameters, which are as `learnt` gives them."""
  return jax.tree.map(
    lambda old, new: old.replace(params=new) if _is_node(old) else new,
    *(tree, params),
    is_leaf=_is_node,
  )


def training(tree: Any, key: jax.Array) -> Any:
  """Returns a tree with `Training` in the place of `Variables`.

  Args:
    tree: parameters, in which `Variables` may be.
    key: a PRNG key, of an update, say.
  """
  number = itertools.count(_DROPOUT)
  return jax.tree.map(
    lambda x: (
      Training(x, jax.random.fold_in(key, next(number))) if _is_node(x) else x
    ),
    tree,
    is_leaf=_is_node,
  )


def collections(tree: Any) -> Any:
  """Returns a tree with collections in the place of `Variables`, else None."""
  return jax.tree.map(
    lambda x: x.collections if _is_node(x) else None, tree, is_leaf=_is_node
  )


def with_collections(tree: Any, others: Any) -> Any:
  """Returns a tree with other ones, which are as `collections` gives them."""
  return jax.tree.map(
    lambda old, new: old.replace(collections=new) if _is_node(old) else old,
    *(tree, others),
    is_leaf=_is_node,
  )


def has_any(tree: Any) -> bool:
  """Whether there are `Variables` in a tree."""
  return any(map(_is_node, jax.tree.leaves(tree, is_leaf=_is_node)))


def _is_node(x):
  return isinstance(x, Variables | Training)


def _told(module, *, train):
  """Returns `train` as a keyword for a module that takes it."""
  return {'train': train} if _takes_train(type(module)) else {}


@functools.cache
def _takes_train(kind):
  return 'train' in inspect.signature(kind.__call__).parameters


@contextlib.contextmanager
def _telling(module):
  """Tells what Flax raises of numbers and collections as a UserError."""
  name = type(module).__name__
  try:
    yield
  except flax_errors.InvalidRngError as error:
    raise errors.UserError(
      f'the network {name} draws random numbers in a pass that has none of '
      f"their kind: {_said(error)}. Passes for training have 'dropout', and "
      "those of DQN and its kin 'noise'; in others its layers must not draw "
      '(let `__call__` take `train: bool`, or use networks.Dropout).'
    ) from error
  except flax_errors.ModifyScopeVariableError as error:
    raise errors.UserError(
      f'the network {name} changes what it keeps where it must not: '
      f'{_said(error)}. Passes for training may change what was there at '
      'first, and others nothing (let `__call__` take `train: bool`, or use '
      'networks.BatchNorm).'
    ) from error


def _said(error):
  """Returns what Flax says, without the address of its page, and where."""
  place = errors.place(error)
  by = f', raised by {place}' if place else ''
  said = errors.first_line(error).partition(' (http')[0].rstrip('.')
  return said + by
