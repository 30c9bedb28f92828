"""Craftax and Craftax-Classic: open worlds to survive in, in JAX.

Matthews et al. (2024), Craftax: A Lightning-Fast Benchmark for Open-Ended
Reinforcement Learning. https://arxiv.org/abs/2402.16801. Craftax-Classic is
Crafter: Hafner (2022), https://arxiv.org/abs/2109.06780.

craftax is an extra, imported when an environment is made. Its time limit and
its deaths are one end there; here the first truncates.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
import importlib
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from dopamine_jax import errors
from dopamine_jax.environments import native

IDS = (
  *('Craftax-Symbolic-v1', 'Craftax-Pixels-v1'),
  *('Craftax-Classic-Symbolic-v1', 'Craftax-Classic-Pixels-v1'),
)
_NEVER = 2**31 - 1  # a time limit that no episode reaches


class Craftax(native.Native):
  """Craftax or Craftax-Classic, of symbols or of pixels.

  Observations are float32: a vector of symbols, [8268], of which some reach
  2.1, or of Classic [1345] in [0, 1], or an image [130, 110, 3] or [63, 63, 3]
  in [0, 1]. A new achievement brings 1, harder ones of Craftax more; each point
  of health that is won or lost 0.1 or -0.1.

  Names for `info` are the achievements, as 'collect_wood': 1 if an episode has
  it, so that its mean is the success rate; and 'achievements', their number.

  Attributes:
    id: one of `IDS`.
    kwargs: fields of the package's EnvParams or StaticEnvParams, as
      {'always_diamond': False} or {'map_size': (32, 32)}.
    max_steps_per_episode: agent steps; replaces the package's own limit,
      100,000, or 10,000 of Classic, which None leaves as it is.
  """

  id: str
  kwargs: Mapping[str, Any] = dataclasses.field(
    default_factory=dict,
    hash=False,  # a dict has no hash, and settings should have one
  )
  info: Sequence[str] = ('achievements',)

  frames_per_second = 10
  slow_reset = True  # a world takes as long as dozens of steps

  def __post_init__(self):
    """Raises UserError for settings that can't work."""
    super().__post_init__()
    if self.id not in IDS:
      known = native.meant(self.id, IDS)
      self.refuse('id', f'is no such environment; it may be {known}')
    if 'max_timesteps' in self.kwargs:
      self.refuse(
        'kwargs',
        "holds 'max_timesteps': set Craftax.max_steps_per_episode instead",
      )

  @functools.cached_property
  def _made(self) -> tuple[Any, Any, int]:
    """The environment, its parameters without a time limit, and the limit.

    Raises:
      UserError: if craftax is missing or doesn't have an argument.
    """
    env, params = _make(self.id, self.kwargs)
    limit = self.max_steps_per_episode or params.max_timesteps
    native.try_out(self, lambda key: env.reset_env(key, params))
    return env, params.replace(max_timesteps=_NEVER), limit

  @functools.cached_property
  def observation_space(self) -> gymnasium.spaces.Box:
    """The space of one frame; see the base class."""
    env, params, _ = self._made
    most = np.inf if self.id == 'Craftax-Symbolic-v1' else 1
    shape = env.observation_space(params).shape
    return gymnasium.spaces.Box(0, most, shape)

  @functools.cached_property
  def action_space(self) -> gymnasium.spaces.Discrete:
    """The space of one action; see the base class."""
    return gymnasium.spaces.Discrete(int(self._made[0].num_actions))

  @functools.cached_property
  def _achievements(self) -> dict[str, int]:
    """The achievements' names, and where each stands in a state."""
    kinds = _module(self.id, 'constants').Achievement
    return {each.name.lower(): each.value for each in kinds}

  def reset(self, key: jax.Array) -> tuple[Any, jax.Array]:
    """See the base class."""
    env, params, _ = self._made
    observation, state = env.reset_env(key, params)
    return state, observation

  def step(
    self, state: Any, action: jax.Array, key: jax.Array
  ) -> native.Outcome:
    """See the base class."""
    env, params, limit = self._made
    observation, state, reward, terminated, _ = env.step_env(
      key, state, action, params
    )
    # Its own are those of an end by its limit or death, and here it sees one.
    reached = state.achievements
    info = {name: reached[at] for name, at in self._achievements.items()}
    info['achievements'] = jnp.sum(reached)
    truncated = state.timestep >= limit
    return native.Outcome(
      state, observation, reward, terminated, truncated, info
    )

  @functools.cached_property
  def _draw(self) -> Any:
    size = _module(self.id, 'constants').BLOCK_PIXEL_SIZE_IMG
    renderer = _module(self.id, 'renderer')
    return jax.jit(renderer.make_craftax_pixel_renderer(size))

  def image(self, state: Any) -> np.ndarray:
    """Draws what the player sees; see the base class."""
    pixels = np.asarray(self._draw(state))
    return pixels.clip(0, 255).round().astype(np.uint8)


def score(rates: Sequence[float]) -> float:
  """Returns Crafter's score of the success rates of all achievements.

  Their geometric mean, shifted by 1%: Hafner (2022), section 3.3. The rates are
  over all episodes, so that it is no mean over episodes, and no `info`.

  Args:
    rates: of each achievement, from 0 to 1.

  Returns:
    Percent, from 0 to 100.
  """
  percent = 100 * np.asarray(rates, np.float64)
  return float(np.exp(np.mean(np.log1p(percent))) - 1)


def _make(id: str, kwargs: Mapping[str, Any]) -> tuple[Any, Any]:
  try:
    from craftax import craftax_env

    env = craftax_env.make_craftax_env_from_name(id, auto_reset=False)
  except ImportError as error:
    raise errors.UserError(
      f'Craftax.id = {id!r} needs craftax: {errors.install("craftax")} '
      f'({error})'
    ) from error
  parts = [env.default_params, env.static_env_params]
  known = [{each.name for each in dataclasses.fields(part)} for part in parts]
  if wrong := sorted(kwargs.keys() - set.union(*known)):
    fitting = sorted(set.union(*known) - {'max_timesteps'})
    raise errors.UserError(
      f'Craftax.kwargs = {dict(kwargs)}: {id} has no {wrong[0]!r}; it has '
      f'{", ".join(fitting)}.'
    )
  params, static = (
    part.replace(**{name: kwargs[name] for name in names & kwargs.keys()})
    for part, names in zip(parts, known, strict=True)
  )
  return type(env)(static), params


def _module(id, name):
  """Returns a module of the game that an id means."""
  game = 'craftax_classic' if 'Classic' in id else 'craftax'
  return importlib.import_module(f'craftax.{game}.{name}')
