"""What the `config.gin` of somebody else's run may name.

A configuration names Python code: gin imports its modules and calls what it
refers to. A run that this user trained goes on as it always did; `signature`
tells which these are. Of any other run

1. the text is read by gin's parser, which resolves nothing here, so that all
   imports are known before the first of them;
2. modules are imported that belong to `PACKAGES`, and no others;
3. each name is looked up without running anything, and is judged by what it
   leads to, not by the way there: `cli.os.system` is defined in `posix`. It has
   to be of a kind that only makes things: settings, engines, collectors,
   networks, and the functions of a few modules;
4. the environment is judged when its settings are made, before it is.

What is refused is named, with the flag that allows it (`--trust PACKAGE`).
`gin_names`, `kinds` and `gin_effort` do 1 to 3.
"""

from collections.abc import Callable, Iterable, Sequence
import contextlib
import importlib.util
import os
import pathlib
import sys
from typing import NamedTuple

from dopamine_jax import errors
from dopamine_jax.environments import base
from dopamine_jax.system import plain_files
from dopamine_jax.system import safe_files
from dopamine_jax.trust import gin_names
from dopamine_jax.trust import kinds
from dopamine_jax.trust import signature

_MOST_SHOWN = 8  # refusals


class Configuration(NamedTuple):
  """The text of a run's `config.gin` that may be loaded.

  Attributes:
    file: where it lies.
    text: what it says.
    stranger: why it is not this user's own; '' if it is.
    packages: what else the user trusts.
  """

  file: pathlib.Path
  text: str
  stranger: str
  packages: tuple[str, ...]

  def check(self, environment: base.Environment):
    """Refuses an environment that would import or read what it may not.

    Raises:
      UserError: that names it, and the flag that allows it.
    """
    if self.stranger:
      found = kinds.faults_of_environment(environment, self.packages)
      _refuse(self.file.parent, found, self.stranger)


def admit(
  folder: pathlib.Path,
  packages: Sequence[str],
  say: Callable[[str], None],
) -> Configuration:
  """Returns a run's configuration, if all that it names may be used.

  Args:
    folder: the run's.
    packages: those that the user trusts, beside the framework's.
    say: prints what the user should know.

  Raises:
    UserError: that says what it names, and which flag allows it.
  """
  packages = tuple(packages)
  file = folder / 'config.gin'
  try:
    data = safe_files.read(file, 1)
    # With line ends of one kind, for any other reader to see the same lines.
    text = data.decode('utf-8-sig').replace('\r\n', '\n').replace('\r', '\n')
  except FileNotFoundError as error:
    raise errors.UserError(
      f'{folder} holds no run: it has no config.gin. '
      f'{plain_files.instead_of(folder)}'
    ) from error
  except UnicodeDecodeError as error:
    raise errors.UserError(f'{file} is no text in UTF-8: {error}.') from error
  verdict = signature.verify(folder, data, say)
  if not verdict.own:
    named = gin_names.read(file, text)
    _refuse(folder, kinds.faults_of_text(named, packages), verdict.why)
  elif not (verdict.here or packages):
    _refuse_strayed(folder, gin_names.read(file, text))
  if packages or verdict.here:
    _find_modules_here()
  if not verdict.own:
    _refuse(folder, kinds.faults_of_things(named, packages), verdict.why)
  return Configuration(file, text, verdict.why, packages)


def _find_modules_here():
  """Lets packages be imported from the working folder, as `train` does.

  Behind all others, so that it can replace none; and never for a stranger's
  run alone, which may lie there together with packages of its own.
  """
  with contextlib.suppress(FileNotFoundError):  # it was removed meanwhile
    if os.getcwd() not in sys.path:
      sys.path.append(os.getcwd())


def _refuse(folder, faults: Iterable[gin_names.Fault], why):
  faults = list(dict.fromkeys(faults))
  if not faults:
    return
  shown = [f'  {fault.what}' for fault in faults[:_MOST_SHOWN]]
  if more := len(faults) - len(shown):
    shown.append(f'  and {more} more')
  flags = dict.fromkeys(fault.package for fault in faults if fault.package)
  remedy = ''
  if flags:
    flags = ' '.join(f'--trust {package}' for package in flags)
    remedy = f' If you know what they do, allow them: {flags}'
  raise errors.UserError(
    f'{folder} is not a run that you trained ({why}), and its config.gin names '
    "what a stranger's run may not use:\n" + '\n'.join(shown) + '\nNone of '
    f'these was run.{remedy}'
  )


def _refuse_strayed(folder, named):
  """Refuses to take packages from a folder in which the run wasn't trained.

  Somebody may have put a copy of this user's own run beside packages of theirs.
  """
  here = [
    root
    for root in gin_names.roots(named)
    if any(pathlib.Path(name).exists() for name in (root, f'{root}.py'))
    and importlib.util.find_spec(root) is None
  ]
  if here:
    flags = ' '.join(f'--trust {root}' for root in here)
    raise errors.UserError(
      f'{folder} was trained in another working folder than this one, which '
      f'holds {" and ".join(here)}. If that is yours: {flags}'
    )
