"""What must be right before JAX looks for its devices.

JAX keeps compiled programs in `~/.cache/dopamine_jax`, which holds 4 GB at
most: what was used longest ago goes. An entry that can't be read goes too.
"""

import contextlib
import os
import pathlib
import sys
import tempfile
import warnings

from dopamine_jax import errors
from dopamine_jax.engines import allocator

_MAX_CACHE_BYTES = 4 * 2**30
_CACHE = 'JAX_COMPILATION_CACHE_DIR'
# Programs that took no time to compile are kept too.
_KEEP_ALL = {
  'jax_persistent_cache_min_compile_time_secs': '0',
  'jax_persistent_cache_min_entry_size_bytes': '-1',
}
# What decides which numbers are computed, and how.
_NUMBERS = {
  'jax_enable_x64': False,
  'jax_numpy_dtype_promotion': 'standard',
}
# What JAX 0.10 warns of.
_DAMAGED = 'Error reading persistent compilation cache entry'


def prepare(say, *, users_code: bool = True):
  """Sets what the commands need that use JAX.

  Args:
    say: prints what the user should know.
    users_code: whether modules of the folder where one stands can be imported.

  Raises:
    UserError: if JAX can't start under the environment's variables.
  """
  allocator.keep_freed_memory()
  _choose_cache(say)
  for name, value in _KEEP_ALL.items():
    os.environ.setdefault(name.upper(), value)
  came_late = 'jax' in sys.modules
  try:
    import jax

    from dopamine_jax.engines import dispatch
    from dopamine_jax.engines import threefry

    if came_late:  # What imported JAX before didn't know of these variables.
      _tell_jax(jax.config)
  except (ValueError, RuntimeError, AttributeError) as error:
    raise _can_not_start(error) from error
  for name, normal in _NUMBERS.items():
    if getattr(jax.config, name) != normal:
      raise errors.UserError(
        f'{name.upper()} is {getattr(jax.config, name)}, and numbers here are '
        'made for JAX as it is by itself. Start without it: '
        f'env -u {name.upper()} dopamine-jax ... (in Python: '
        f'jax.config.update({name!r}, {normal!r}))'
      )
  dispatch.stay_in_this_thread()
  threefry.write_out()
  if users_code:
    # Last: what is installed is what it says, whatever lies in this folder.
    with contextlib.suppress(FileNotFoundError):  # it was removed meanwhile
      if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


def _tell_jax(config):
  """Has JAX read the variables of its cache, if it was imported before."""
  if os.environ.get('JAX_ENABLE_COMPILATION_CACHE') == 'false':
    config.update('jax_enable_compilation_cache', False)
    return
  if config.jax_compilation_cache_dir is None:  # else it is the user's choice
    config.update('jax_compilation_cache_dir', os.environ[_CACHE])
  for name in _KEEP_ALL:
    number = float(os.environ[name.upper()])
    config.update(name, int(number) if number.is_integer() else number)


def find_devices():
  """Has JAX look for its devices.

  Raises:
    UserError: if it finds none.
  """
  import jax

  try:
    jax.devices()
  except (ValueError, RuntimeError) as error:
    raise _can_not_start(error) from error


def _can_not_start(error):
  variables = ' '.join(
    f'{name}={value}'
    for name, value in sorted(os.environ.items())
    if name.startswith(('JAX_', 'XLA_')) and 'CACHE' not in name
  )
  first = errors.first_line(error)
  return errors.UserError(
    f'JAX can not start: {first.rstrip(".")}. It was told: '
    f'{variables or "nothing"}. Unset or mend the variable that it names.'
  )


def _choose_cache(say):
  """Says where compiled programs are kept, if they can be."""
  try:
    folder = pathlib.Path(
      os.environ.get(_CACHE)
      or pathlib.Path(
        os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache',
        'dopamine_jax',
      )
    )
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
      pass
    if _CACHE not in os.environ:  # one that the user names is the user's
      _bound(folder)
  except (OSError, RuntimeError) as error:
    say(
      f'Warning: compiled programs can not be kept, so that each start '
      f'compiles anew: {error}. XDG_CACHE_HOME names a folder for them.'
    )
    os.environ['JAX_ENABLE_COMPILATION_CACHE'] = 'false'
    return
  os.environ[_CACHE] = str(folder)
  _heal_when_damaged(folder, say)


def _bound(folder):
  """Removes what was used longest ago where there is too much."""
  entries = []
  with os.scandir(folder) as files:
    for file in files:
      with contextlib.suppress(FileNotFoundError):  # another start was faster
        is_entry = file.name.endswith(('-cache', '-atime'))
        if is_entry and file.is_file(follow_symlinks=False):
          status = file.stat(follow_symlinks=False)
          used = max(status.st_atime, status.st_mtime)
          entries.append((used, status.st_size, file.path))
  total = sum(size for _, size, _ in entries)
  for _, size, path in sorted(entries):
    if total <= _MAX_CACHE_BYTES:
      return
    pathlib.Path(path).unlink(missing_ok=True)
    total -= size


def _heal_when_damaged(folder, say):
  """Has damaged entries removed where JAX warns of one, each time anew."""
  show = warnings.showwarning

  def look(message, *args, **kwargs):
    if not str(message).startswith(_DAMAGED):
      show(message, *args, **kwargs)
    elif number := _heal(folder):
      say(
        f'Note: {number} damaged programs were removed from the cache of '
        f'compiled programs, {folder}.'
      )

  warnings.showwarning = look
  warnings.filterwarnings('always', message=_DAMAGED)


def _heal(folder):
  """Removes the entries that can't be unpacked; returns how many."""
  bad = [each for each in folder.glob('*-cache') if not _is_whole(each)]
  for entry in bad:
    entry.unlink(missing_ok=True)
  return len(bad)


def _is_whole(entry):
  """Whether JAX can unpack an entry, with whichever library it packs them."""
  from jax._src import compilation_cache

  try:
    compilation_cache.decompress_executable(entry.read_bytes())
  except Exception:  # each library has its own
    return False
  return True
