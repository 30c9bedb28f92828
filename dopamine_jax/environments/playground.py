"""Environments of MuJoCo Playground: the control suite and robots, in JAX.

Zakka et al. (2025), MuJoCo Playground. https://arxiv.org/abs/2502.08844

playground is an extra, imported when an environment is made.
"""

import atexit
from collections.abc import Sequence
import functools
import subprocess
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from dopamine_jax import errors
from dopamine_jax.environments import bodies
from dopamine_jax.environments import drawing
from dopamine_jax.environments import native


class Playground(bodies.Bodies):
  """An environment of MuJoCo Playground.

  Where an observation has several parts ('state' and 'privileged_state' of the
  robots that walk), it is a dict. The configuration's `action_repeat` is heeded
  here: an action is taken so often, and the rewards are summed.

  Attributes:
    id: a name that playground's registry knows, as 'CartpoleSwingup'. The
      robots' models are fetched from GitHub, when one is first made; those of
      the control suite are in the package.
    kwargs: what replaces parts of the environment's configuration, by their
      names, as {'sim_dt': 0.005} or {'reward_config.scales.energy': 0.0}.
    max_steps_per_episode: agent steps; replaces the configuration's
      `episode_length`, which is in steps before they are repeated.
    impl: by what MuJoCo is computed: 'jax', or 'warp', playground's default,
      which is made for NVIDIA's GPUs. Their numbers differ.
    leave_out: keys of a dict of observations that agents don't see, as
      ('privileged_state',).
  """

  impl: str = 'jax'
  leave_out: Sequence[str] = ()

  def __post_init__(self):
    """Raises UserError for settings that can't work."""
    super().__post_init__()
    self.require_one_of('impl', ('jax', 'warp'))
    if 'impl' in self.kwargs:
      self.refuse('kwargs', "holds 'impl': set Playground.impl instead")

  @functools.cached_property
  def _made_with(self) -> tuple[Any, Any]:
    """The environment and its configuration.

    Raises:
      UserError: if playground is missing or doesn't know the id, or for
        arguments that the configuration doesn't have.
    """
    registry = _registry(self)
    config = _config(self, registry)
    try:
      made = registry.load(self.id, config)
    # Git failed, or there is none.
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
      raise errors.UserError(
        f'Playground.id = {self.id!r} fails when it is made: '
        f'{errors.first_line(error).rstrip(".")}. The '
        "robots' models are fetched from "
        'https://github.com/google-deepmind/mujoco_menagerie by git, into the '
        "installed package's folder external_deps/mujoco_menagerie. Make one "
        'with a network first, or copy that folder from where there is one. '
        "The control suite needs none, as 'CartpoleSwingup'."
      ) from error
    native.try_out(self, made.reset)
    return made, config

  @property
  def _made(self) -> Any:
    return self._made_with[0]

  @property
  def _repeat(self) -> int:
    return self._made_with[1].get('action_repeat', 1)

  @property
  def frames_per_second(self) -> float:
    """How many agent steps pass in a second, simulated."""
    return 1 / (self._made.dt * self._repeat)

  @functools.cached_property
  def observation_space(self) -> gymnasium.Space[Any]:
    """The space of one frame, without what is left out; see the base class.

    Raises:
      UserError: if there is no such key to leave out.
    """
    space = super().observation_space
    keys = list(space) if isinstance(space, gymnasium.spaces.Dict) else []
    if wrong := [key for key in self.leave_out if key not in keys]:
      self.refuse(
        'leave_out',
        f'names {wrong[0]!r}, and observations of {self.id} have '
        f'{" and ".join(keys) or "no keys"}',
      )
    if not self.leave_out:
      return space
    kept = {key: space[key] for key in keys if key not in self.leave_out}
    if not kept:
      self.refuse('leave_out', 'leaves nothing to see')
    return gymnasium.spaces.Dict(kept)

  def reset(self, key: jax.Array) -> tuple[Any, Any]:
    """See the base class."""
    state, observation = super().reset(key)
    return (state, jnp.zeros((), jnp.int32)), observation

  def step(
    self, state: Any, action: jax.Array, key: jax.Array
  ) -> native.Outcome:
    """See the base class."""
    state, count = state
    outcome = super().step(state, action, key)
    count = count + self._repeat
    truncated = jnp.zeros((), bool)
    if self.max_steps_per_episode is None:
      truncated = count >= self._made_with[1].episode_length
    return outcome._replace(state=(outcome.state, count), truncated=truncated)

  def _after(self, state, action):
    """Returns the state after an action was repeated, or at the end."""
    after = super()._after

    def again(_, state):
      later = after(state, action)
      later = later.replace(reward=state.reward + later.reward)
      select = functools.partial(jax.lax.select, state.done > 0)
      return jax.tree.map(select, state, later)

    state = after(state, action)
    if self._repeat > 1:
      state = jax.lax.fori_loop(1, self._repeat, again, state)
    return state

  def image(self, state: Any) -> np.ndarray:
    """Draws a state by MuJoCo, [240, 320, 3]; see the base class.

    Raises:
      UserError: if nothing can be drawn on this machine.
    """
    import mujoco

    data = mujoco.MjData(self._made.mj_model)
    for name in ('qpos', 'qvel', 'mocap_pos', 'mocap_quat'):
      setattr(data, name, np.asarray(getattr(state[0].data, name)))
    mujoco.mj_forward(self._made.mj_model, data)
    self._renderer.update_scene(data)
    return self._renderer.render()

  @functools.cached_property
  def _renderer(self) -> Any:
    import mujoco

    try:
      renderer = mujoco.Renderer(self._made.mj_model)
      atexit.register(renderer.close)  # later, OpenGL is gone before it
      return renderer
    except Exception as error:  # MuJoCo's own, OpenGL's, ...
      raise errors.UserError(
        f'{self.id} can not be drawn: {errors.told(error)}. Choose '
        f'{drawing.OTHER_GL}.'
      ) from error


def _registry(settings):
  """Returns playground's registry."""
  drawing.without_display()  # MuJoCo asks as it is imported
  try:
    with drawing.told(settings.id):
      from mujoco_playground import registry
  except ImportError as error:
    raise errors.UserError(
      f'Playground.id = {settings.id!r} needs playground: '
      f'{errors.install("playground")} ({error})'
    ) from error
  return registry


def _config(settings, registry):
  """Returns the configuration of an environment with what replaces its parts.

  Raises:
    UserError: if there is no such environment, or no such part.
  """
  try:
    config = registry.get_default_config(settings.id)
  except ValueError as error:
    raise errors.UserError(
      f'Playground.id = {settings.id!r}: no such environment. Did you mean '
      f'{native.meant(settings.id, list(registry.ALL_ENVS))}?'
    ) from error
  if 'impl' in config:  # one of its robots has none
    config.impl = settings.impl
  try:
    config.lock().update_from_flattened_dict(settings.kwargs)
  except (KeyError, TypeError, ValueError) as error:
    why = errors.first_line(error).partition('. Other fields')[0].strip('\'"')
    raise errors.UserError(
      f'Playground.kwargs = {dict(settings.kwargs)} does not fit '
      f'{settings.id}, whose configuration has {", ".join(sorted(config))}: '
      f'{why}'
    ) from error
  _check(settings, config)
  return config


def _check(settings, config):
  """Refuses numbers by which no time would pass, or no episode last."""
  for name in ('action_repeat', 'episode_length'):
    if config.get(name, 1) < 1:
      settings.refuse('kwargs', f'has {name} = {config[name]}; at least 1 fits')
  whole, part = (config.get(name, 1.0) for name in ('ctrl_dt', 'sim_dt'))
  steps = whole / part if part > 0 else 0
  if round(steps) < 1 or abs(steps - round(steps)) > 1e-3 * steps:
    settings.refuse(
      'kwargs',
      f'has sim_dt = {part} and ctrl_dt = {whole}: an agent step (ctrl_dt) '
      'must be one or more steps of the simulation (sim_dt)',
    )
