"""A trained agent as files that need no framework; see `Player.export`."""

from collections.abc import Callable, Mapping
import contextlib
import json
import pathlib
from typing import Any

import jax
from jax.interpreters import partial_eval
import numpy as np

from dopamine_jax import errors
from dopamine_jax import spaces
from dopamine_jax.engines import loop
from dopamine_jax.engines import memory as memory_lib
from dopamine_jax.system import provenance
from dopamine_jax.training import run_folder

_POLICY, _PARAMETERS = 'policy.jax', 'parameters.safetensors'


def write(
  player: Any, choose: Callable[..., Any], folder: str | pathlib.Path
) -> pathlib.Path:
  """Writes a player's agent into a folder; see `Player.export`.

  Args:
    player: a `player.Player`.
    choose: returns actions and memory, given the agent's state, memory,
      observations, and how many actions were chosen before.
    folder: where to.
  """
  try:
    import flatbuffers  # noqa: F401  which jax.export needs
    from safetensors import numpy as safetensors
  except ImportError as error:
    raise errors.UserError(
      f'{error.name} is not installed: {errors.install("export")}'
    ) from error
  if not isinstance(folder, (str, pathlib.Path)):
    raise errors.UserError(f'export({folder!r}): expected a folder.')
  folder = pathlib.Path(folder)
  for name in (_POLICY, _PARAMETERS, 'card.json'):
    if (folder / name).exists():
      raise errors.UserError(
        f'{folder / name} is there already. Choose another folder.'
      )
  act, takes = _policy(player, choose)
  exported = jax.export.export(jax.jit(lambda *x: act(player.state, *x)))(
    *takes
  )
  read = _read(act, player.state, takes)
  params = getattr(player.state, 'params', player.state)
  arrays = _named(params) | read
  card = _card(player, arrays, list(read), exported)
  contents = {
    _PARAMETERS: safetensors.save(
      {name: np.array(leaf) for name, leaf in arrays.items()}
    ),
    _POLICY: bytes(exported.serialize()),
    'card.json': (json.dumps(card, indent=1) + '\n').encode(),
  }
  try:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
      (folder / name).write_bytes(content)
  except OSError as error:
    for name in contents:  # half an agent is none
      with contextlib.suppress(OSError):
        (folder / name).unlink()
    raise errors.UserError(
      f'{folder} can not be written: {error.strerror}. Choose another folder.'
    ) from error
  return folder


def _policy(player, choose):
  """Returns the policy of a state and inputs, and shapes [N, ...] of these."""
  agent = player.agent
  action = loop.random_actions(agent.action_space, jax.random.key(0), 1)
  carried = memory_lib.begin(agent, action)

  def act(state, observation):
    # One by one: a network may choose a form by how many it is given.
    one = jax.tree.map(lambda x: x[None], observation)
    return choose(state, (), one, 0)[0][0]

  def act_with_memory(state, observation, action, reward, first, *memory):
    given = jax.tree.map(lambda x: x[None], (action, reward, first, memory))
    action, reward, first, memory = given
    now = jax.tree.unflatten(jax.tree.structure(carried.now), memory)
    reward = loop.clipped(reward, player.environment.reward_clip)
    before = memory_lib.see(
      *(agent, carried.replace(now=now), action, reward, first)
    )
    one = jax.tree.map(lambda x: x[None], observation)
    taken, after = choose(state, before, one, 0)
    return jax.tree.map(lambda x: x[0], (taken, *jax.tree.leaves(after.now)))

  (number,) = jax.export.symbolic_shape('n')
  space = agent.observation_space
  takes = [spaces.lay_out(jax.ShapeDtypeStruct, space, (number,))]
  if carried:
    act = act_with_memory
    leaves = (action, carried.reward, carried.first)
    takes += [
      jax.ShapeDtypeStruct((number, *leaf.shape[1:]), leaf.dtype)
      for leaf in (*leaves, *jax.tree.leaves(carried.now))
    ]
  return jax.vmap(act, in_axes=(None, *(0 for _ in takes))), takes


def _read(act, state, takes) -> Mapping[str, jax.Array]:
  """Returns the arrays of a state that the policy reads, by name.

  Those of `params` by their paths in it, the others by their field before.
  """
  one = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype), takes
  )
  program = jax.make_jaxpr(act)(state, *one).jaxpr
  # Without what it computes for nothing, as PPO the value.
  _, read = partial_eval.dce_jaxpr(program, [True] * len(program.outvars))
  prefix = 'params/' if hasattr(state, 'params') else ''
  return {
    name.removeprefix(prefix): leaf
    for (name, leaf), is_read in zip(_named(state).items(), read, strict=False)
    if is_read
  }


def _named(tree):
  """Returns a pytree's leaves by their paths, as 'Dense_0/kernel'."""
  return {
    '/'.join(str(getattr(k, 'key', getattr(k, 'name', k))) for k in path): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


def _card(player, arrays, read, exported):
  kind = type(player.agent)
  space = player.agent.observation_space
  return {
    'agent': f'{kind.__module__}.{kind.__qualname__}',
    'seed': player.seed,
    'iteration': player.iteration,
    'agent_steps': player.agent_steps,
    'observation_space': str(space),
    'action_space': str(player.agent.action_space),
    'policy': {
      'input': ', '.join(map(str, exported.in_avals)),
      'output': ', '.join(map(str, exported.out_avals)),
      'platforms': list(exported.platforms),
      'actions': "in [-1, 1] of a Box; the environment's are stretched",
      'parameters': read,
    },
    'parameters': {name: list(leaf.shape) for name, leaf in arrays.items()},
    'versions': provenance.versions(),
    'settings': run_folder.read_config(player.folder),
  }
