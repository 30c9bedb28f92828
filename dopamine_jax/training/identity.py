"""What makes a run the same: its settings and its seeds."""

from collections.abc import Callable
import difflib
import hashlib
import pathlib
import re
import shlex
from typing import Any

from dopamine_jax import annotations
from dopamine_jax import (
  config as config_lib,  # texts of a configuration are called `config`
)
from dopamine_jax import errors
from dopamine_jax import settings
from dopamine_jax.system import safe_files
from dopamine_jax.system import texts
from dopamine_jax.trust import strangers

# A binding, with the lines that it runs on over.
_BINDING = re.compile(r'^([\w./]+) =[ \\]*\n?(.*(?:\n[ \t].*)*)', re.MULTILINE)
# A run may be made longer. It then equals one that was as long from its start,
# but for a checkpoint and an evaluation at its old end. Histograms and videos
# only look, and where the replay's file lies changes no number. What older
# versions had no setting for changes nothing by default.
_MAY_CHANGE = re.compile(
  r'^\S*(Runner\.(num_iterations|histograms|videos) = .*'
  r'|Runner\.(callbacks = \(\)|(start_from|evaluation_environment) = None)'
  r'|Runner\.record_replay = False|Gym\.channels_first = None'
  r'|\.(observed|annealed_n_step) = None'
  r'|\.(info|leave_out|augmentation|shared) = \(\)|\.action_mask = False'
  r'|Gymnax\.sticky_actions = 0\.0|\.(continuous|forget_on_life_loss) = False'
  r'|\.continuous_threshold = 0\.5|\.target_tau = 1\.0|\.flat = True'
  r'|\.separate_targets = False|(Actor|Critics)\.(torso|network) = None'
  r'|PPO(RNN)?\.continuous = .gaussian.|Reach\.pays = .penalty.'
  r'|PixelTorso\.(activation = @nn\.relu|kernel_init = None)'
  r'|Devices\.(replay_folder = .*|matmul_precision = None'
  r'|deterministic = False)'
  r'|SAC\.encoder = None|SAC\.policy_delay = 1'
  r'|SAC\.reward_scale = 1\.0|SAC\.log_temperature_loss = False)$',
  re.MULTILINE,
)
# Which memory holds the replay changes no number either. Digests of older
# versions' runs have this line, so that it is not left out.
_MEMORY = re.compile(r'^(\S*Devices\.replay_memory = ).*$', re.MULTILINE)
# The runner's environments, and parameters of them that name a game.
ENVIRONMENTS = ('environment', 'evaluation_environment')
GAME = ('id', 'game')
_MEGABYTES = 10  # at most in run.json
_IMPORT = re.compile(r'(from \S+ )?import ')


def require_same(
  folder: pathlib.Path,
  old_config: str,
  before: dict[str, Any],
  config: str,
  facts: dict[str, Any],
  say: Callable[[str], None],
):
  """Refuses to go on under other settings or seeds.

  Args:
    folder: the run's folder.
    old_config: the configuration that it was begun with.
    before: its facts then.
    config: the one that it is to go on with.
    facts: its facts now.
    say: is told of other versions of libraries.

  Raises:
    UserError: shows what differs.
  """
  changes = [
    line
    for line in difflib.unified_diff(
      comparable(old_config), comparable(config), n=0, lineterm=''
    )
    if not line.startswith(('---', '+++', '@@'))
  ]
  if changes:
    raise errors.UserError(
      f'the run in {folder} was made with another configuration (- was, + '
      'is):\n  ' + '\n  '.join(changes) + '\nGo on with the old one: '
      f'--gin_files {shlex.quote(f"{folder}/config.gin")} (if that was edited '
      'since, undo it first). Or train into another --base_dir.'
    )
  if before['seeds'] != facts['seeds']:
    raise errors.UserError(
      f'the run in {folder} has seeds {annotations.shown(before["seeds"])}, '
      f'not {annotations.shown(facts["seeds"])}. '
      'Give the same --seed and --num_seeds, or another --base_dir.'
    )
  changed = [
    f'{name} {before["versions"].get(name)} -> {version}'
    for name, version in facts['versions'].items()
    if before['versions'].get(name) != version
  ]
  if changed:
    say(
      f'Warning: since this run began, {", ".join(changed)} changed. It goes '
      'on, but need not equal a run that was never stopped, bit for bit.'
    )


def are_same(one: str, other: str) -> bool:
  """Whether two configurations have the same settings, line by line."""
  return comparable(one) == comparable(other)


def record_of(one: Any) -> str:
  """Returns the record of the run in a folder as this version writes it.

  Args:
    one: the `training.Training` that wants to go on there.

  Raises:
    UserError: if it can't be built from what lies there.
  """
  admitted = strangers.admit(one.folder, (), one.say)
  before = config_lib.load([admitted.file], text=admitted.text)
  # The runner that all others extend, for the run may be of another.
  first = next(
    kind
    for kind in reversed(type(one.runner).__mro__)
    if issubclass(kind, settings.Settings) and kind is not settings.Settings
  )
  return config_lib.write(before.build(before.kind(first)))


def edited(file: pathlib.Path, config: str) -> str:
  """Returns how a config.gin differs from what was trained with, or ''.

  Of older versions' runs, and of a file alone, nobody knows.

  Args:
    file: where it lies; `run.json` beside it knows its digest.
    config: what it says.
  """
  run = file.with_name('run.json')
  known = safe_files.read_noted(run, _MEGABYTES, 'record')
  if known in (None, digest(config)):
    return ''
  return f'{file} has other settings than the run was trained with'


def digest(config: str) -> str:
  """Returns a checksum of the settings that decide a run's results.

  Without the imports: a module may move.
  """
  lines = [x for x in comparable(config) if not _IMPORT.match(x)]
  return hashlib.sha256('\n'.join(lines).encode()).hexdigest()


def bindings(config: str) -> dict[str, str]:
  """Returns what a configuration sets, by its full name, each in one line."""
  return {
    key: texts.line(value.replace('\\\n', ' '))
    for key, value in _BINDING.findall(config)
  }


def places(bindings: dict[str, str], name: str) -> list[str]:
  """Returns what bindings of those that the runner is given begin with."""
  for key, value in bindings.items():
    if key == f'Runner.{name}' or key.endswith(f'.Runner.{name}'):
      return re.findall(r'@([\w./]+)', value)
  return []


def place(bindings: dict[str, str], name: str) -> str:
  """Returns 'scope/dqn.DQN' of '@scope/dqn.DQN()', or 'unknown'."""
  return next(iter(places(bindings, name)), 'unknown')


def environments(bindings: dict[str, str]) -> dict[str, str]:
  """Returns which of the runner's environments a place's bindings are of."""
  named = {name: place(bindings, name) for name in ENVIRONMENTS}
  # A binding without the scope is of the class in any scope.
  return {
    each: name
    for name in reversed(ENVIRONMENTS)
    for each in (named[name], named[name].rpartition('/')[2])
  }


def games(bindings: dict[str, str]) -> dict[str, tuple[str, str]]:
  """Returns what environments play, and the parameter that says so.

  By the runner's names of them; of classes that are a game, nothing.
  """
  known, found = environments(bindings), {}
  for key, value in bindings.items():
    owner, _, parameter = key.rpartition('.')
    if owner in known and parameter in GAME:
      found[known[owner]] = value.strip('\'"'), parameter
  return found


def comparable(config: str) -> list[str]:
  """Returns the lines of a configuration that decide a run's results."""
  text = '\n'.join(config.splitlines())  # whatever ends them
  text = _MEMORY.sub(r"\1'device'", text)
  lines = _MAY_CHANGE.sub('', text).splitlines()
  return [line for line in lines if line and not line.startswith('#')]
