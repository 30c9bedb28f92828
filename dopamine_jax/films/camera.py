"""The frames of a film: what is seen, and beside it what the agent thinks."""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dopamine_jax import agent as agent_lib
from dopamine_jax import errors
from dopamine_jax import spaces
from dopamine_jax.engines import evaluation
from dopamine_jax.engines import memory as memory_lib
from dopamine_jax.environments import answers
from dopamine_jax.environments import base
from dopamine_jax.environments import border
from dopamine_jax.films import panel as panel_lib

_MIN_HEIGHT = 240  # of a film, in pixels; MinAtar draws 10


class Camera:
  """Takes a picture a step, of one environment; only looks, changes nothing."""

  def __init__(
    self,
    agent: agent_lib.Agent,
    environments: base.VectorEnvironment,
    stack: int,
    panel: bool,
    saliency: bool,
    say: Callable[[str], None],
  ):
    """Compiles nothing yet.

    Args:
      agent: the settings.
      environments: one that renders.
      stack: frames in an observation.
      panel: whether to draw a `panel.Panel`.
      saliency: whether to draw the value's derivative.
      say: prints what the user should know.

    Raises:
      UserError: if there is no saliency to draw.
    """
    self._environments = environments
    name = type(agent).__name__
    # Inherited, it tells nothing.
    is_told = memory_lib.tells_outlook(agent)
    if saliency:
      _require_saliency(is_told, name, environments.observation_space)
    if panel and not is_told:
      say(f'No panel: {name} has no method `outlook`, see agent.Agent.')
    self._wants_panel, self._panel = panel and is_told, None
    self._size = None  # of the images
    self._look = jax.jit(functools.partial(look, agent))
    self._saliency = None
    if saliency:
      self._saliency = jax.jit(functools.partial(derivative, agent, stack))

  def begin(self, state: Any, key: jax.Array):
    """Turns to an agent's first episode.

    Args:
      state: the agent's.
      key: by which the evaluation acts.
    """
    self._state, self._key, self._is_first = state, key, True
    self._score = self._brightest = 0.0
    if self._panel:
      self._panel.begin()

  def shoot(self, moment: evaluation.Moment) -> np.ndarray:
    """Returns a picture of a moment, uint8 [H, W, 3] with H and W even."""
    self._count(moment.answer)
    seen = (
      *(self._state, moment.observation, self._key),
      *(np.int32(moment.count), moment.memory),
    )
    outlook, height = None, _MIN_HEIGHT
    if self._wants_panel:
      outlook = self._outlook(seen)
      height = panel_lib.wanted_height(outlook)
    image = border.picture(self._environments)
    self._require_same_size(image)
    image = _enlarged(image, height)
    if self._saliency:
      image = panel_lib.overlay(image, self._dimmed(self._saliency(*seen)))
    if outlook is None:
      return image
    if self._panel is None:
      height = max(len(image), height)
      self._panel = panel_lib.Panel(
        height + height % 2, self._environments.action_names
      )
    drawn = self._panel.draw(outlook, moment.actions[0], self._score)
    return panel_lib.beside(image, drawn)

  def _outlook(self, seen):
    """Returns the outlook of the one environment; without the axis [N]."""
    outlook = jax.tree.map(lambda x: np.asarray(x)[0], self._look(*seen))
    if not all(np.isfinite(x).all() for x in jax.tree.leaves(outlook)):
      raise errors.UserError(
        'what the agent expects is not finite (NaN or infinity), so that its '
        'panel can not be drawn. Film it with --no-panel, or train without '
        'runner.Runner.videos.'
      )
    return outlook

  def _require_same_size(self, image):
    """Refuses an image that has no place in the film of those before."""
    if self._is_first and image.shape != self._size:
      self._size, self._panel = image.shape, None  # as high as the images
    self._is_first = False
    if image.shape != self._size:
      raise errors.UserError(
        f'{answers.named(self._environments)} cannot draw: its render gave an '
        f'image {image.shape} after one {self._size}, and a film has one size. '
        'Mend its render, or do without films.'
      )

  def _count(self, answer):
    """Adds up the rewards of the running episode."""
    if answer is None:
      return
    self._score += float(answer.reward[0])
    if answer.terminated[0] or answer.truncated[0]:
      self._score = 0.0
      if self._panel:
        self._panel.begin()

  def _dimmed(self, slopes):
    """Returns derivatives in [0, 1], by the largest of late."""
    slopes = np.asarray(slopes)
    bright = float(np.quantile(slopes, 0.998))
    self._brightest = max(bright, 0.98 * self._brightest, 1e-12)
    return slopes / self._brightest


def look(
  agent, state, observation, key, count, memory=()
) -> agent_lib.Outlook | None:
  """Returns an agent's outlook in an evaluation's step.

  Raises:
    UserError: if it is anything but an Outlook of these observations.
  """
  key = evaluation.step_key(key, count)
  found = memory_lib.outlook(agent, state, memory, observation, key)
  if found is None:
    return None
  shape = (spaces.num_rows(observation),)
  is_outlook = isinstance(found, agent_lib.Outlook)
  if not is_outlook or jnp.shape(found.value) != shape:
    given = type(found).__name__
    if is_outlook:
      given = f'a value of shape {jnp.shape(found.value)}'
    raise errors.UserError(
      f'{type(agent).__name__}.outlook must return an agent.Outlook with a '
      f'value of shape {shape}, or None, and it gave {given}. Mend the agent, '
      'or film with --no-panel.'
    )
  return found


def derivative(
  agent, stack, state, observation, key, count, memory=()
) -> jax.Array:
  """Returns |d value / d pixel| [H, W] of the newest frame.

  A pixel's colours, or the layers of a grid, are summed.

  Args:
    agent: the settings.
    stack: frames in an observation, along its last axis if there are several.
    state: the agent's.
    observation: [1, H, W, ...].
    key: see `look`.
    count: see `look`.
    memory: what an agent with memory carries, of the one environment.
  """

  def value(observation):
    found = look(agent, state, observation, key, count, memory)
    if found is None:
      raise errors.UserError(
        f'{type(agent).__name__}.outlook tells no value, on which --saliency '
        'depends. Leave --saliency out.'
      )
    return jnp.sum(found.value)

  slopes = jnp.abs(jax.grad(value)(observation.astype(jnp.float32)))[0]
  if stack > 1:
    slopes = slopes[..., -1]
  return slopes.reshape(*slopes.shape[:2], -1).sum(axis=-1)


def _require_saliency(is_told, name, space):
  if not is_told:
    raise errors.UserError(
      f'--saliency shows what a value depends on, and {name} does not tell its '
      'value: it has no method `outlook`. Add one, as agent.Agent describes '
      'it, or leave --saliency out.'
    )
  if spaces.is_tree(space):
    raise errors.UserError(
      '--saliency shows the pixels on which the value depends, and this agent '
      f'sees several things, {space}. Leave --saliency out.'
    )
  if len(space.shape) not in (2, 3):
    raise errors.UserError(
      '--saliency shows the pixels on which the value depends, and this agent '
      f'sees no image but numbers of shape {space.shape}. Leave --saliency out.'
    )


def _enlarged(image, wanted):
  """Returns an image of about that many pixels or more, its own made larger."""
  times = max(round(wanted / len(image)), -(-_MIN_HEIGHT // len(image)))
  return image.repeat(times, axis=0).repeat(times, axis=1)
