"""Networks with memory, over sequences [T, B]: a torso, a cell, and heads.

Each maps memory [B, ...] and what was seen [T, B] (`agent.Seen`) to outputs
[T, B, ...] and the memory after each row, [T, B, ...]. Acting is a sequence of
one row. Where an episode begins within a sequence memory is fresh.
"""

from collections.abc import Sequence
import functools
from typing import Any, Literal

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dopamine_jax import agent as agent_lib
from dopamine_jax import values
from dopamine_jax.networks import heads
from dopamine_jax.networks import initializers
from dopamine_jax.networks import layers
from dopamine_jax.networks import modules
from dopamine_jax.networks import standard
from dopamine_jax.networks import variables

Cell = Literal['lstm', 'gru']
_CELLS = {'lstm': nn.OptimizedLSTMCell, 'gru': nn.GRUCell}


class Recurrent(modules.Module):
  """What networks with memory share: a torso and a cell.

  Attributes:
    num_outputs: size of the last layer's output; the number of actions, too,
      where these are whole numbers.
    torso: makes the layers that see the observation.
    cell: 'lstm' (Hochreiter & Schmidhuber, 1997) or 'gru' (Cho et al., 2014).
    units: numbers in the cell's output.
    sees_past: whether the cell is given the action and the reward of the step
      before as well.
  """

  num_outputs: int | None = None
  torso: modules.Maker = functools.partial(
    standard.MLPTorso,
    hidden=(64,),
    activation=nn.tanh,
    kernel_init=values.call(initializers.orthogonal, np.sqrt(2)),
  )
  cell: Cell = 'lstm'
  units: int = 64
  sees_past: bool = False

  def init_memory(self, batch_size: int) -> agent_lib.Memory:
    """Returns the memory with which episodes begin: zeros [B, units]."""
    # A shape, of which flax looks at the last axis alone.
    cell = _CELLS[self.cell](self.units, parent=None)
    return cell.initialize_carry(jax.random.key(0), (batch_size, 1))

  def features(
    self, memory: agent_lib.Memory, seen: agent_lib.Seen
  ) -> tuple[jax.Array, agent_lib.Memory]:
    """Returns the cell's outputs [T, B, units], and memory after each row.

    To be called in the `__call__` of a subclass.
    """
    shape = seen.first.shape
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), seen.observation)
    torso = self.make_part('torso')
    x = variables.part(self, torso, flat).reshape(*shape, -1)
    if self.sees_past:
      x = jnp.concatenate([x, *self._past(seen)], axis=-1)
    fresh = self.init_memory(shape[1])

    def step(cell, memory, row):
      x, first = row
      memory = jax.tree.map(
        lambda new, old: jnp.where(first[:, None], new, old), fresh, memory
      )
      memory, y = cell(memory, x)
      return memory, (y, memory)

    scan = nn.scan(
      step, variable_broadcast='params', split_rngs={'params': False}
    )
    cell = _CELLS[self.cell](self.units)
    _, (y, memories) = scan(cell, memory, (x, seen.first))
    self.sow('intermediates', 'activations', y.reshape(-1, self.units))
    return y, memories

  def _past(self, seen):
    """Returns the last actions and rewards as numbers [T, B, ...]."""
    action = seen.action
    if jnp.issubdtype(action.dtype, jnp.integer):
      action = jax.nn.one_hot(action, self.num_outputs)
      action = action.reshape(*seen.first.shape, -1)
      action = jnp.where(seen.first[..., None], 0.0, action)
    return action.reshape(*seen.first.shape, -1), seen.reward[..., None]


class RecurrentQ(Recurrent):
  """Values of actions that depend on what was seen before.

  Attributes:
    num_outputs: one for each action.
    torso: see `Recurrent`; likewise the others.
    cell: 'lstm' or 'gru'.
    units: numbers in the cell's output.
    sees_past: whether the cell is given the last action and reward.
    head: makes the layers from features to values.
  """

  head: modules.Maker = functools.partial(heads.Dueling, hidden=(64,))

  @nn.compact
  def __call__(
    self, memory: agent_lib.Memory, seen: agent_lib.Seen
  ) -> tuple[jax.Array, agent_lib.Memory]:
    """Returns values [T, B, num_outputs], and memory after each row."""
    x, memories = self.features(memory, seen)
    head = self.make_part('head', num_outputs=self.num_outputs)
    values_ = variables.part(self, head, x.reshape(-1, self.units))
    return values_.reshape(*x.shape[:2], -1), memories


class RecurrentActorCritic(Recurrent):
  """A policy's outputs and a value that depend on what was seen before.

  Attributes:
    num_outputs: of the policy.
    torso: see `Recurrent`; likewise the others.
    cell: 'lstm' or 'gru'.
    units: numbers in the cell's output.
    sees_past: whether the cell is given the last action and reward.
    hidden: sizes of rectified dense layers behind the cell.
  """

  hidden: Sequence[int] = ()

  @nn.compact
  def __call__(
    self, memory: agent_lib.Memory, seen: agent_lib.Seen
  ) -> tuple[tuple[jax.Array, jax.Array], agent_lib.Memory]:
    """Returns outputs [T, B, num_outputs] and values [T, B]; and memory."""
    x, memories = self.features(memory, seen)
    for units in self.hidden:
      orthogonal = initializers.orthogonal(np.sqrt(2))
      x = nn.relu(layers.Dense(units, kernel_init=orthogonal)(x))
      self.sow('intermediates', 'activations', x.reshape(-1, units))
    self.sow('intermediates', 'features', x.reshape(-1, x.shape[-1]))
    # A first policy that is nearly uniform, whatever is seen.
    nearly_zero = initializers.orthogonal(0.01)
    outputs = layers.Dense(self.num_outputs, kernel_init=nearly_zero)(x)
    value = layers.Dense(1, kernel_init=initializers.orthogonal(1.0))(x)
    return (outputs, value[..., 0]), memories


def one_step(
  module: nn.Module,
  params: Any,
  memory: agent_lib.Memory,
  seen: agent_lib.Seen,
) -> tuple[Any, agent_lib.Memory]:
  """Returns outputs [N, ...] and the memory after them, of one row.

  Args:
    module: a network with memory.
    params: of it.
    memory: [N, ...].
    seen: Seen [N].
  """
  row = jax.tree.map(lambda x: x[None], seen)
  answer = variables.apply(module, params, memory, row)
  return jax.tree.map(lambda x: x[0], answer)
