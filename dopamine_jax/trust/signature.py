"""Which runs this user trained: their `config.gin` is signed, with a key.

The key is 32 random bytes, made by a user's first training, and lies outside
all runs: `$XDG_CONFIG_HOME/dopamine_jax/signing_key`, by default
`~/.config/dopamine_jax/signing_key`. Whoever has it can sign as this user, so
nobody else may read it.

A run's `signature` has a line for each configuration that was trained there:
the key's name, an HMAC-SHA256 of the bytes of `config.gin`, and one of these
and the working folder, for that is where packages were imported from that are
installed nowhere.
"""

from collections.abc import Callable
import hashlib
import hmac
import os
import pathlib
import secrets
import stat
import tempfile
from typing import NamedTuple

from dopamine_jax import errors
from dopamine_jax.system import safe_files

FILE = 'signature'

_KEY_SIZE = 32  # bytes
_MOST_LINES = 16  # a run that is made longer adds one


class Verdict(NamedTuple):
  """Whose a run is.

  Attributes:
    own: whether this user trained it, by its configuration as it is now.
    here: whether that was from this working folder.
    why: why it is not their own; '' if it is.
  """

  own: bool
  here: bool = False
  why: str = ''


def of(
  folder: pathlib.Path, config: str, say: Callable[[str], None]
) -> str | None:
  """Returns a signature's text: up to 16 lines of this key, `config`'s last.

  A training never fails for want of a key: the user is told, and None is
  returned.

  Args:
    folder: the run's.
    config: the text of its configuration.
    say: prints what the user should know.
  """
  try:
    key = _make_key()
  except (errors.UserError, OSError) as error:
    say(
      f"Warning: this run can't be signed as yours: {error} It trains as ever, "
      "but `evaluate` and `record` will take it for a stranger's, and ask for "
      '--trust PACKAGE if it uses packages of your own.'
    )
    return None
  line = _line(key, config.encode())
  before = [each for each in _lines(folder) if each[0] == line[0]]
  lines = [each for each in before if each != line] + [line]
  return ''.join(f'{" ".join(each)}\n' for each in lines[-_MOST_LINES:])


def verify(
  folder: pathlib.Path, config: bytes, say: Callable[[str], None]
) -> Verdict:
  """Tells whose a run is.

  Args:
    folder: the run's.
    config: its `config.gin`.
    say: prints what the user should know.
  """
  try:
    key = _read_key(key_file())
  except FileNotFoundError:
    return Verdict(False, why='you have trained none on this machine yet')
  except (errors.UserError, OSError) as error:
    say(f'Warning: which runs are yours is not known: {error}')
    return Verdict(False, why='your key can not be read')
  name, *digests = _line(key, config)
  lines = _lines(folder)
  if not lines:
    return Verdict(
      False, why='it has no signature; going on with its training signs it'
    )
  mine = [line for line in lines if line[0] == name]
  if not mine:
    return Verdict(
      False,
      why='it was signed with another key; if you trained it on another '
      f"machine, copy that one's {key_file()} here",
    )
  same = [
    [hmac.compare_digest(*pair) for pair in zip(line[1:], digests, strict=True)]
    for line in mine
  ]
  if not any(config for config, _ in same):
    say(
      f'Warning: {folder}/config.gin was edited since you trained with it, so '
      "it is treated as a stranger's."
    )
    return Verdict(False, why='its config.gin was edited since')
  return Verdict(True, here=any(config and here for config, here in same))


def key_file() -> pathlib.Path:
  """Returns where this user's key lies, or will.

  Raises:
    UserError: if no home folder can be found.
  """
  base = os.environ.get('XDG_CONFIG_HOME', '')
  if not os.path.isabs(base):  # as its specification says
    try:
      # Of an empty HOME Python makes the root.
      home = pathlib.Path(os.environ.get('HOME', '~')).expanduser()
    except RuntimeError:
      home = pathlib.Path()
    if not home.is_absolute():
      raise errors.UserError(
        'no home folder can be found for a key. Set HOME, or XDG_CONFIG_HOME, '
        'to a folder that lasts.'
      )
    base = home / '.config'
  return pathlib.Path(base, 'dopamine_jax', 'signing_key')


def _lines(folder):
  """Returns the lines of a run's signature that have the right form."""
  try:
    data = safe_files.read(folder / FILE, 1)
  except (FileNotFoundError, errors.UserError):
    return []
  lines = [
    line.split() for line in data.decode('ascii', 'replace').splitlines()
  ]
  return [
    line for line in lines if len(line) == 3 and all(map(str.isalnum, line))
  ]


def _line(key, config):
  """Returns the key's name and the two digests of a configuration."""
  name = hashlib.sha256(b'name of ' + key).hexdigest()[:16]
  try:
    here = os.fsencode(os.path.realpath(os.getcwd()))
  except FileNotFoundError:  # it was deleted, and holds no packages
    here = b''
  return [
    name,
    hmac.digest(key, b'config\0' + config, 'sha256').hex(),
    hmac.digest(key, b'folder\0' + here + b'\0' + config, 'sha256').hex(),
  ]


def _make_key():
  """Returns the key, made now if there is none."""
  file = key_file()
  try:
    return _read_key(file)
  except FileNotFoundError:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
  descriptor, beside = tempfile.mkstemp(dir=file.parent)  # mode 0600
  try:
    with open(descriptor, 'wb') as stream:
      stream.write(secrets.token_bytes(_KEY_SIZE))
      stream.flush()
      os.fsync(descriptor)
    # Whole or not at all, and of several trainings the first one's is it.
    os.link(beside, file)
  except FileExistsError:
    pass
  finally:
    os.unlink(beside)
  return _read_key(file)


def _read_key(file):
  with open(file, 'rb', opener=_without_waiting) as stream:
    status = os.fstat(stream.fileno())
    fault = None
    if not stat.S_ISREG(status.st_mode):
      fault = 'is no regular file'
    elif status.st_uid != os.geteuid():
      fault = 'belongs to another user'
    elif status.st_mode & 0o077:
      fault = (
        f'is open to others (mode {stat.S_IMODE(status.st_mode):o}), who could '
        f'sign as you. If none of them has read it, run `chmod 600 {file}`'
      )
    elif status.st_size != _KEY_SIZE:
      fault = f'is damaged: it has {status.st_size} bytes, not {_KEY_SIZE}'
    if fault is None:
      return stream.read()
  raise errors.UserError(
    f'the key {file} {fault}. Or delete it, and your next training makes '
    "another; runs that were signed with this one are then a stranger's."
  )


def _without_waiting(path, flags):
  return os.open(path, flags | os.O_NONBLOCK)
