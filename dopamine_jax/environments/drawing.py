"""By what MuJoCo draws, and what to say where that fails on this machine."""

import os
import sys
import traceback

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


def require(name: str, error: BaseException) -> None:
  """Refuses a MUJOCO_GL by which MuJoCo can't draw, if an error is of that.

  Args:
    name: of what was to be drawn.
    error: what was raised. Of OpenGL's it names no library that is missing.

  Raises:
    UserError: says what to choose.
  """
  frames = traceback.walk_tb(error.__traceback__)
  modules = [frame.f_globals.get('__name__', '') for frame, _ in frames]
  if any(module.startswith(_MODULES) for module in modules):
    chosen = os.environ.get('MUJOCO_GL', '')
    raise errors.UserError(
      f'{name} can not be drawn by MUJOCO_GL = {chosen!r}: '
      f'{errors.told(error)}. Choose {OTHER_GL}.'
    ) from error
