"""By what MuJoCo draws, and what to say where that fails on this machine."""

from collections.abc import Iterator
import contextlib
import os
import sys
import traceback
from typing import Any

import gymnasium

from dopamine_jax import errors

# What a user may choose where MuJoCo can't draw.
OTHER_GL = (
  'another MUJOCO_GL: egl, osmesa (which needs the OSMesa library) or glfw (a '
  'screen)'
)
# How the names of modules begin that load OpenGL's libraries, or ask for them.
_MODULES = (
  *('OpenGL.', 'dm_control._render', 'mujoco.egl', 'mujoco.gl_context'),
  *('mujoco.glfw', 'mujoco.osmesa', 'mujoco.rendering'),
)


def without_display() -> None:
  """Has MuJoCo draw by EGL where there is no screen and nothing else is said.

  By itself it takes GLFW, which then fails.
  """
  has_screen = {'DISPLAY', 'WAYLAND_DISPLAY'} & os.environ.keys()
  if sys.platform == 'linux' and not has_screen:
    os.environ.setdefault('MUJOCO_GL', 'egl')


@contextlib.contextmanager
def told(name: str) -> Iterator[None]:
  """Tells of a MUJOCO_GL by which MuJoCo can't draw, if something fails by it.

  What OpenGL's libraries raise then names none that is missing.

  Args:
    name: of what is to be drawn.

  Raises:
    UserError: says what to choose.
  """
  try:
    yield
  except errors.UserError:
    raise
  except Exception as error:
    # Gymnasium raises its own by reason of it.
    for each in (error, error.__cause__):
      if each is not None and _is_opengls(each):
        chosen = os.environ.get('MUJOCO_GL', '')
        raise errors.UserError(
          f'{name} can not be drawn by MUJOCO_GL = {chosen!r}: '
          f'{errors.told(each)}. Choose {OTHER_GL}.'
        ) from error
    raise


def _is_opengls(error):
  frames = traceback.walk_tb(error.__traceback__)
  modules = [frame.f_globals.get('__name__', '') for frame, _ in frames]
  return any(module.startswith(_MODULES) for module in modules)


class InOwnContext(gymnasium.Wrapper):
  """Draws one of Gymnasium's MuJoCo environments in its own OpenGL context.

  By itself it draws in whichever is current: that of the environment which was
  first drawn last, of all in the process, and black once that one is closed.
  What a closed one has drawn with goes when its memory is collected, and would
  take the same numbers' things from the context that is current then.
  """

  def render(self) -> Any:
    """Returns the image; see `gymnasium.Env.render`."""
    if viewer := self._viewer():
      viewer.make_context_current()
    return self.env.render()

  def close(self) -> None:
    """Frees what was drawn with, and closes the environment."""
    if viewer := self._viewer():
      viewer.make_context_current()
      viewer.con.free()
    self.env.close()

  def _viewer(self):
    """What draws; None before the first image, and of other environments."""
    renderer = getattr(self.env.unwrapped, 'mujoco_renderer', None)
    return getattr(renderer, 'viewer', None)
