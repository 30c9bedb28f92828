"""The one exception that a user's mistake raises, and what others tell."""

import pathlib
import shlex
import shutil
import sys
import traceback

# Code that hands on what somebody's own has done: the framework, and what it is
# built on.
_LIBRARIES = {
  *sys.stdlib_module_names,
  *('dopamine_jax', 'gin', 'gymnasium', 'click', 'rich', 'typer'),
  *('imageio', 'imageio_ffmpeg', 'matplotlib', 'pandas', 'PIL', 'psutil'),
  *('tensorboard', 'tensorboardX', 'tensorstore'),
  *('chex', 'distrax', 'flax', 'jax', 'jaxlib', 'ml_dtypes', 'numpy'),
  *('opt_einsum', 'optax', 'rlax', 'scipy', 'tensorflow_probability'),
}
_INSTALLED = ('site-packages', 'dist-packages')


class UserError(Exception):
  """Input that can't work: says what was given, what fits, how to mend it.

  The command line prints the message alone, without a traceback, and exits
  with `status`.
  """

  status = 1


def install(extra: str) -> str:
  """Returns the command that installs an extra, wherever one stands.

  Args:
    extra: its name, such as 'atari'.
  """
  checkout = pathlib.Path(__file__).resolve().parent.parent
  package = checkout if (checkout / 'setup.py').is_file() else 'dopamine-jax'
  python = shlex.quote(program('python'))
  return f"{python} -m pip install '{package}[{extra}]'"


def program(name: str) -> str:
  """Returns how a program beside this Python is called from the shell.

  By its path, if it is there and the shell finds another; else by name.
  """
  own = pathlib.Path(sys.executable).with_name(name)
  found = shutil.which(name)
  if not own.exists() or (found and pathlib.Path(found).samefile(own)):
    return name
  here = pathlib.Path.cwd()
  return str(own.relative_to(here) if own.is_relative_to(here) else own)


def described(error: BaseException) -> str:
  """Returns an exception's type and message."""
  return f'{type(error).__name__}: {error}' if str(error) else repr(error)


def place(error: BaseException) -> str:
  """Returns where an exception comes from, as 'FILE, line N'.

  That is the innermost line of code that is neither the framework's nor a
  library's, and is not installed, if there is such code; '' if there is none.
  """
  where = {}
  for frame, line in traceback.walk_tb(error.__traceback__):
    package = frame.f_globals.get('__name__', '').partition('.')[0]
    file = frame.f_code.co_filename
    if package not in _LIBRARIES and not file.startswith('<'):
      is_installed = any(folder in file for folder in _INSTALLED)
      where[is_installed] = f'{file}, line {line}'
  return where.get(False) or where.get(True, '')


def told(error: BaseException) -> str:
  """Returns an exception's type, its first line, and whose line raised it."""
  where = place(error)
  by = f', raised by {where}' if where else ''
  return f'{type(error).__name__}: {first_line(error).rstrip(".:")}{by}'


def first_line(error: BaseException) -> str:
  """Returns the first line of an exception's message, or else its type."""
  return next(iter(str(error).splitlines()), '') or type(error).__name__
