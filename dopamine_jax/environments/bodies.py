"""What the environments of brax and of MuJoCo Playground have in common.

Both simulate bodies, and have one API: `reset(key)` and `step(state, action)`
of a state that holds its observation, reward and end. Their wrappers for time
limits and resets are left out: `native.advance` does both, and draws a new
first state for each episode, where they repeat the lane's first one.
"""

from collections.abc import Mapping
import dataclasses
import functools
from typing import Any

import gymnasium
import jax
import numpy as np

from dopamine_jax import spaces
from dopamine_jax.environments import native


class Bodies(native.Native):
  """An environment with that API; subclasses make it, as `_made`.

  Observations are float vectors without bounds, or dicts of them. An action is
  a vector in [-1, 1], for the actuators' range. What the environment measures
  of each step (its `metrics`) is there for `info`.

  Attributes:
    id: a name that the package knows.
    kwargs: further arguments for the environment.
  """

  id: str
  kwargs: Mapping[str, Any] = dataclasses.field(
    default_factory=dict,
    hash=False,  # a dict has no hash, and settings should have one
  )

  long_reset = True  # bodies that begin are simulated as bodies that move

  @property
  def _made(self) -> Any:
    """The environment."""
    raise NotImplementedError

  @functools.cached_property
  def observation_space(self) -> gymnasium.Space[Any]:
    """The space of one frame, a Box or a Dict of them; see the base class."""
    return _space(jax.eval_shape(self._made.reset, jax.random.key(0)).obs)

  @functools.cached_property
  def action_space(self) -> gymnasium.spaces.Box:
    """The space of one action; see the base class."""
    return gymnasium.spaces.Box(-1, 1, (self._made.action_size,))

  def reset(self, key: jax.Array) -> tuple[Any, Any]:
    """See the base class."""
    state = self._made.reset(key)
    return state, spaces.only(self.observation_space, state.obs)

  def step(
    self, state: Any, action: jax.Array, key: jax.Array
  ) -> native.Outcome:
    """See the base class."""
    del key
    state = self._after(state, action)
    observation = spaces.only(self.observation_space, state.obs)
    return native.Outcome(
      state, observation, state.reward, state.done > 0, info=state.metrics
    )

  def _after(self, state, action):
    """Returns the state after an action."""
    # A copy of its containers: some write into the dictionaries of a state.
    return self._made.step(jax.tree.map(lambda leaf: leaf, state), action)


def _space(shape):
  if isinstance(shape, Mapping):
    return gymnasium.spaces.Dict({key: _space(shape[key]) for key in shape})
  return gymnasium.spaces.Box(-np.inf, np.inf, shape.shape, shape.dtype)
