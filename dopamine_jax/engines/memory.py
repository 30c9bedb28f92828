"""How an agent's memory begins, and is passed on from step to step.

Training, evaluation, films and players all act by `act`. Of an agent without
memory all that is carried is (), and `act` is the agent's own.
"""

from typing import Any

from flax import struct
import jax
import jax.numpy as jnp

from dopamine_jax import agent as agent_lib
from dopamine_jax import errors
from dopamine_jax import spaces
from dopamine_jax.learning import outputs


class Carried(struct.PyTreeNode):
  """The memory of N environments, and the rest of what is seen next.

  Attributes:
    before: [N, ...], what the newest action was chosen with.
    now: [N, ...], what the next one is chosen with.
    action: [N, *action_shape], see `agent.Seen`; likewise the others.
    reward: [N] float32.
    first: [N] bool.
  """

  before: agent_lib.Memory
  now: agent_lib.Memory
  action: jax.Array
  reward: jax.Array
  first: jax.Array


def is_carried(agent: agent_lib.Agent) -> bool:
  """Whether an agent has memory."""
  return type(agent).init_memory is not agent_lib.Agent.init_memory


def begin(agent: agent_lib.Agent, action: jax.Array) -> Carried | tuple:
  """Returns what is carried into the first step of N environments.

  Args:
    agent: the settings.
    action: [N, *action_shape], an example.

  Raises:
    UserError: if the agent's memory is not made of arrays [N, ...].
  """
  if not is_carried(agent):
    return ()
  num_envs = len(action)
  memory = _fresh(agent, num_envs)
  return Carried(
    # Copies: a donated buffer must not be passed twice.
    before=jax.tree.map(jnp.copy, memory),
    now=memory,
    action=jnp.zeros_like(action),
    reward=jnp.zeros(num_envs),
    first=jnp.ones(num_envs, bool),
  )


def see(
  agent: agent_lib.Agent,
  carried: Carried | tuple,
  action: jax.Array,
  reward: jax.Array,
  done: jax.Array,
) -> Carried | tuple:
  """Returns what is carried after a step: fresh where an episode ended.

  Args:
    agent: the settings.
    carried: since the action was chosen.
    action: [N, *action_shape], that was taken.
    reward: [N], what it brought, as learning sees it.
    done: [N] bool, whether the episode ended.
  """
  if not is_carried(agent):
    return ()

  def where_done(fresh, running):
    shape = done.shape + (1,) * (running.ndim - 1)
    return jnp.where(done.reshape(shape), fresh, running)

  fresh = _fresh(agent, len(done))
  return carried.replace(
    now=jax.tree.map(where_done, fresh, carried.now),
    action=where_done(jnp.zeros_like(action), action),
    reward=where_done(jnp.zeros(()), jnp.asarray(reward, jnp.float32)),
    first=done,
  )


def seen(carried: Carried, observation: Any) -> agent_lib.Seen:
  """Returns what the agent acts on, given an observation [N, ...]."""
  return agent_lib.Seen(
    observation=observation,
    action=carried.action,
    reward=carried.reward,
    first=carried.first,
  )


def act(
  agent: agent_lib.Agent,
  state: Any,
  carried: Carried | tuple,
  observation: Any,
  step: jax.Array,
  key: jax.Array,
  *,
  explore: bool,
) -> tuple[jax.Array, Carried | tuple]:
  """Returns actions [N, *action_shape], and what is carried on.

  Args:
    agent: the settings.
    state: the agent's.
    carried: what `begin` or `see` returned.
    observation: [N, *observation_shape].
    step: see `Agent.act`; likewise the others.
    key: a PRNG key.
    explore: whether it is for training.

  Raises:
    UserError: if actions or memory are not what they must be.
  """
  if is_carried(agent):
    with outputs.telling(agent, 'act_with_memory'):
      answer = agent.act_with_memory(
        *(state, carried.now, seen(carried, observation), step, key),
        explore=explore,
      )
    action, now = _require_both(agent, carried.now, answer)
    carried = carried.replace(before=carried.now, now=now)
  else:
    with outputs.telling(agent, 'act'):
      action = agent.act(state, observation, step, key, explore=explore)
  action = outputs.require_actions(
    agent, action, agent.action_space, spaces.num_rows(observation)
  )
  return action, carried


def outlook(
  agent: agent_lib.Agent,
  state: Any,
  carried: Carried | tuple,
  observation: Any,
  key: jax.Array,
) -> agent_lib.Outlook | None:
  """Returns what an agent expects of what it sees; see `Agent.outlook`."""
  if not is_carried(agent):
    return agent.outlook(state, observation, key)
  return agent.outlook_with_memory(
    state, carried.now, seen(carried, observation), key
  )


def tells_outlook(agent: agent_lib.Agent) -> bool:
  """Whether an agent tells what it expects: a method of its own does."""
  base, own = agent_lib.Agent, type(agent)
  return own.outlook is not base.outlook or (
    own.outlook_with_memory is not base.outlook_with_memory
  )


def _fresh(agent, num_envs):
  """Returns `Agent.init_memory`, once it is arrays [N, ...]."""
  with outputs.telling(agent, 'init_memory'):
    memory = agent.init_memory(num_envs)
  leaves = jax.tree_util.tree_leaves_with_path(memory)
  for path, leaf in leaves or [((), None)]:
    if getattr(leaf, 'shape', ())[:1] != (num_envs,):
      raise errors.UserError(
        f'{type(agent).__name__}.init_memory({num_envs}) must return arrays '
        f'with a leading axis of {num_envs}, one row for each environment, and '
        f'its memory{jax.tree_util.keystr(path)} is {outputs.kind(leaf)}. Mend '
        'the agent.'
      )
  return jax.tree.map(jnp.asarray, memory)


def _require_both(agent, before, answer):
  """Returns what `act_with_memory` gave: actions, and memory as before."""
  name = f'{type(agent).__name__}.act_with_memory'
  if not (isinstance(answer, (tuple, list)) and len(answer) == 2):
    raise errors.UserError(
      f'{name} must return two things, actions and memory, and it gave '
      f'{outputs.kind(answer)}. Mend the agent.'
    )
  outputs.require_alike(name, 'memory', before, answer[1])
  return answer
