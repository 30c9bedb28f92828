"""What agents share whose networks have memory.

The networks are those of `networks.recurrent`: first parameters, and rollouts
that are learnt environment by environment.
"""

from collections.abc import Callable, Sequence
from typing import Any

from flax import linen as nn
from flax import struct
import gymnasium
import jax
import jax.numpy as jnp

from dopamine_jax import agent as agent_lib
from dopamine_jax import errors
from dopamine_jax import spaces
from dopamine_jax.learning import on_policy
from dopamine_jax.learning import outputs
from dopamine_jax.learning import returns
from dopamine_jax.networks import recurrent
from dopamine_jax.networks import variables


class Stretches(struct.PyTreeNode):
  """A rollout, a row for each environment, of which minibatches are drawn.

  Attributes:
    memory: [K, ...], with which each begins.
    seen: Seen [K, T].
    batch: what is learnt of each step, arrays [K, T, ...].
  """

  memory: agent_lib.Memory
  seen: agent_lib.Seen
  batch: Any


def stretches(trajectory: agent_lib.Sequence, batch: Any) -> Stretches:
  """Returns a rollout, and what is learnt of it, environment by environment.

  Args:
    trajectory: [T, N].
    batch: arrays [T, N, ...].
  """
  seen, batch = _swapped((trajectory.seen, batch))
  return Stretches(memory=trajectory.memory, seen=seen, batch=batch)


def in_time(
  given: Stretches,
) -> tuple[agent_lib.Memory, agent_lib.Seen, Any]:
  """Returns memory [K, ...], Seen [T, K], and the batch as rows [T * K]."""
  seen, batch = _swapped((given.seen, given.batch))
  return given.memory, seen, jax.tree.map(returns.flat, batch)


def next_values(
  module: nn.Module,
  params: Any,
  trajectory: agent_lib.Sequence,
  value: jax.Array,
  memories: agent_lib.Memory,
  value_of: Callable[[Any, Any], jax.Array],
) -> jax.Array:
  """Returns the values [T, N] of what followed each step.

  Args:
    module: a network with memory.
    params: of it.
    trajectory: [T, N].
    value: [T, N], of what was seen.
    memories: [T, N, ...], after it.
    value_of: gives values [N] of what the network gives of a step, and of the
      observation.
  """

  def value_after(row):
    memory, seen = row
    outputs, _ = recurrent.one_step(module, params, memory, seen)
    return value_of(outputs, seen.observation)

  following = memories, trajectory.next_seen
  return returns.next_values(trajectory, value, value_after, following)


def require_shares(agent: on_policy.OnPolicy, num_envs: int):
  """Refuses environments that minibatches can't share evenly.

  Raises:
    SettingError: names `num_minibatches`.
  """
  if num_envs % agent.num_minibatches:
    agent.refuse(
      'num_minibatches',
      f'does not divide num_envs = {num_envs}; a minibatch has whole '
      'environments. Change runner.Runner.num_envs, or this',
    )


def init_memory(module: nn.Module, num_envs: int) -> agent_lib.Memory:
  """Returns what a network's episodes begin with, [N, ...].

  Raises:
    UserError: if the network has no memory.
  """
  if not hasattr(module, 'init_memory'):
    raise errors.UserError(
      f'the network {type(module).__name__} has no memory. Choose one that '
      'has, such as networks.RecurrentQ or networks.RecurrentActorCritic, or '
      'an agent without memory.'
    )
  return module.init_memory(num_envs)


def first_params(
  module: nn.Module,
  key: jax.Array,
  observation: jax.Array,
  action_space: gymnasium.Space,
  needs: Sequence[outputs.Shape],
) -> Any:
  """Returns the first parameters.

  Args:
    module: see `networks.recurrent`.
    key: a PRNG key.
    observation: [N, *observation_shape], an example.
    action_space: of the agent.
    needs: the shape after [N] of each output, in an episode's first step.

  Raises:
    UserError: if the network has no memory, or its outputs don't fit.
  """

  def inputs(observation):
    num_envs = spaces.num_rows(observation)
    is_box = isinstance(action_space, gymnasium.spaces.Box)
    kind = jnp.float32 if is_box else jnp.int32
    return init_memory(module, num_envs), agent_lib.Seen(
      observation=observation,
      action=jnp.zeros((num_envs, *action_space.shape), kind),
      reward=jnp.zeros(num_envs),
      first=jnp.ones(num_envs, bool),
    )

  def apply(params, observation):
    return recurrent.one_step(module, params, *inputs(observation))[0]

  memory, seen = inputs(observation)
  rows = jax.tree.map(lambda x: x[None], seen)
  params = outputs.init(module, key, memory, rows)
  outputs.require(module, apply, params, observation, needs=needs)
  return params


def anatomy(
  module: nn.Module, params: Any, target_params: Any = None
) -> agent_lib.Anatomy:
  """Returns a network of values, for `health`; see `Agent.anatomy`."""

  def values(params, memory, seen, key):
    del key
    return returns.flat(variables.apply(module, params, memory, seen)[0])

  return agent_lib.Anatomy(
    module,
    params,
    target_params,
    inputs=lambda sequence: (sequence.memory, sequence.seen),
    values=values,
  )


def _swapped(tree):
  return jax.tree.map(lambda x: x.swapaxes(0, 1), tree)
