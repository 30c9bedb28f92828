"""Nothing of a stranger's run is executed but what the framework is made of."""

import json
import os
import shutil
import sys

from gin import config as gin_config
import gymnasium
import pytest

from dopamine_jax import config
from dopamine_jax import errors
from dopamine_jax import runner as runner_lib
from dopamine_jax.environments import gym
from dopamine_jax.playing import trained
from dopamine_jax.trust import kinds
from dopamine_jax.trust import signature
from dopamine_jax.trust import strangers

SETTINGS = """\
from __gin__ import dynamic_registration
import optax
from dopamine_jax import networks
from dopamine_jax import runner
from dopamine_jax.agents import dqn
from dopamine_jax.environments import gym
from dopamine_jax.metrics import csv_file
from dopamine_jax.replay import uniform

dqn.DQN:
  network = @networks.MLP
  replay = @uniform.UniformReplay
  optimizer = @optax.adam()
  target_update_period = 20
  epsilon = 0.1
networks.MLP.hidden = (8,)
optax.adam.learning_rate = 0.001
gym.Gym:
  id = 'CartPole-v1'
uniform.UniformReplay:
  capacity = 60
  batch_size = 8
  min_history = 20
runner.Runner:
  agent = @dqn.DQN
  collectors = [@csv_file.CSV]
  environment = @gym.Gym()
  num_iterations = 1
  training_steps = 10
"""

DYNAMIC = b'from __gin__ import dynamic_registration\n'

# A module of a user's own, which tells by a file that it was imported.
MODULE = """\
import functools
import os
import pathlib
import gymnasium
from gymnasium.envs.classic_control import cartpole
from dopamine_jax import networks
from dopamine_jax.agents import dqn

pathlib.Path({marker!r}).touch()
gymnasium.register('Mine-v0', entry_point=cartpole.CartPoleEnv)


class Mine(dqn.DQN):
  pass


class MineEnv(cartpole.CartPoleEnv):
  pass


gymnasium.register('MineEnv-v0', entry_point=MineEnv)
small = functools.partial(networks.MLP, hidden=(8,))
hidden_in_a_partial = functools.partial(os.system, 'touch ' + {marker!r})


@functools.wraps(os.system)
def looks_wrapped(*args, **kwargs):
  os.system('touch ' + {marker!r})
"""


def with_agent(lines, reference):
  """Returns the settings with these lines, and another optimizer."""
  return SETTINGS.replace('@optax.adam()', reference).replace(
    'dqn.DQN:\n', f'{lines}\ndqn.DQN:\n'
  )


def with_binding(line):
  return f'{SETTINGS}{line}\n'


SYSTEM = """\
from dopamine_jax.system import plain_files
plain_files.os.system.command = 'touch MARKER'
"""

# What a stranger may try: a configuration, and what is said of it. MARKER is
# a file that must not come to be.
ATTACKS = {
  'a module of its own': (
    with_agent('from mine_of import mine', '@mine.Mine'),
    '--trust mine_of',
  ),
  'a package of its own': (
    with_agent('import mine.deep.down', '@mine.deep.down.Mine()'),
    '--trust mine',
  ),
  'a module under another name': (
    with_agent('import mine as optax2', '@optax2.Mine()'),
    '--trust mine',
  ),
  'the system': (
    with_agent("import os\nos.system.command = 'touch MARKER'", '@os.system()'),
    'os is none of',
  ),
  'the system through plain_files': (
    with_agent(
      SYSTEM,
      '@plain_files.os.system()',
    ),
    '@plain_files.os.system() is defined in posix',
  ),
  'an import through another module': (
    with_agent(
      'from dopamine_jax.config import files\n'
      "files.importlib.import_module.name = 'mine'",
      '@files.importlib.import_module()',
    ),
    'is defined in importlib',
  ),
  'what a plain import reaches': (
    with_agent(
      "import jax.nn\njax.profiler.start_trace.log_dir = 'MARKER'",
      '@jax.profiler.start_trace()',
    ),
    '--trust jax._src.profiler',
  ),
  'a file by run_folder': (
    with_agent(
      'from dopamine_jax.training import run_folder\n'
      "run_folder.write.file = 'MARKER'\n"
      "run_folder.write.text = 'x'",
      '@run_folder.write()',
    ),
    '--trust dopamine_jax.training.run_folder',
  ),
  'a training within': (
    with_agent("Runner.train.base_dir = 'MARKER'", '@runner.Runner.train()'),
    'Runner.train() of dopamine_jax.runner',
  ),
  'a file by numpy': (
    with_agent(
      "import jax.numpy\njax.numpy.save.file = 'MARKER'",
      '@jax.numpy.save()',
    ),
    'is defined in numpy',
  ),
  'a pickle': (
    with_agent("import jax.numpy as n\nn.load.file = 'MARKER'", '@n.load()'),
    'of jax.numpy is of no kind',
  ),
  'a profiler': (
    with_agent('import jax.profiler', '@jax.profiler.start_server()'),
    '--trust jax.profiler',
  ),
  'a cluster': (
    with_agent('import jax.distributed', '@jax.distributed.initialize()'),
    '--trust jax.distributed',
  ),
  'a callback': (
    with_agent('from jax.experimental import io_callback', '@io_callback()'),
    '--trust jax.experimental.io_callback',
  ),
  "Flax's checkpoints": (
    with_agent('from flax.training import checkpoints', '@checkpoints.save()'),
    '--trust flax.training.checkpoints',
  ),
  'a registration': (
    with_agent(
      "import gymnasium\ngymnasium.register.id = 'Evil-v0'\n"
      "gymnasium.register.entry_point = 'mine:MineEnv'",
      '@gymnasium.register()',
    ),
    'of gymnasium.envs.registration is of no kind',
  ),
  'a make': (
    with_agent(
      "import gymnasium\ngymnasium.make.id = 'mine:MineEnv-v0'",
      '@gymnasium.make()',
    ),
    '--trust mine',
  ),
  'a film of its own': (
    with_agent(
      "import gymnasium as g\ng.wrappers.RecordVideo.video_folder = 'MARKER'",
      '@g.wrappers.RecordVideo()',
    ),
    'of gymnasium.wrappers',
  ),
  'an id that imports': (
    SETTINGS.replace('CartPole-v1', 'mine:MineEnv-v0'),
    '--trust mine',
  ),
  'an id that imports, in a macro': (
    SETTINGS.replace("'CartPole-v1'", '%evil') + "evil = 'mine:MineEnv-v0'\n",
    '--trust mine',
  ),
  'an argument that names a file': (
    with_binding("gym.Gym.kwargs = {'xml_file': '/tmp/evil.xml'}"),
    'may name a file or a module',
  ),
  'an argument that names a module': (
    with_binding("gym.Gym.kwargs = {'a': [('b', 'mine:f')]}"),
    'may name a file or a module',
  ),
  "gin's own functions": (
    with_agent('import gin', '@gin.external_configurable()'),
    'gin is none of',
  ),
  "gin's own functions, through config": (
    with_agent(
      'from dopamine_jax.config import statements',
      '@statements.config_parser.ConfigParser()',
    ),
    'is defined in gin',
  ),
  'a built-in': (
    with_agent('import builtins', '@builtins.eval()'),
    '--trust builtins',
  ),
  'a partial': (
    with_agent('import functools', '@functools.partial()'),
    '--trust functools',
  ),
  'an instance that is called': (
    with_agent('from dopamine_jax.commands import cli', '@cli.app()'),
    'is defined in typer',
  ),
  'a file that is included': (
    f"include '/etc/passwd'\n{SETTINGS}",
    "include '/etc/passwd'",
  ),
  'a file that is included late': (
    with_binding("include 'evil.gin'"),
    "include 'evil.gin'",
  ),
  'the main module': (
    with_agent('from dopamine_jax import __main__', '@__main__.cli()'),
    '--trust dopamine_jax.__main__',
  ),
  'setup.py of a checkout': (
    with_agent('import dopamine_jax.setup', '@optax.adam()'),
    '--trust dopamine_jax.setup',
  ),
  'the benchmarks of a checkout': (
    with_agent('from dopamine_jax.benchmarks import peers', '@optax.adam()'),
    '--trust dopamine_jax.benchmarks',
  ),
  'a module that acts when it is imported': (
    with_agent('import this', '@optax.adam()'),
    '--trust this',
  ),
  'a tool of jax': (
    with_agent('import jax.tools.jax_to_ir', '@optax.adam()'),
    '--trust jax.tools.jax_to_ir',
  ),
  'a reference as a key': (
    SETTINGS.replace(
      "'CartPole-v1'", "'CartPole-v1'\n  kwargs = {@plain_files.os.abort(): 1}"
    ).replace(
      'import optax',
      'import optax\nfrom dopamine_jax.system import plain_files',
    ),
    '@plain_files.os.abort() is defined in posix',
  ),
  'a binding alone': (
    with_binding("runner.pathlib.Path.touch.mode = 'x'"),
    'is defined in pathlib',
  ),
  'a scope and a macro': (
    with_agent(
      'from dopamine_jax.system import plain_files\n'
      'evil = @a/plain_files.os.abort()',
      '%evil',
    ),
    '@plain_files.os.abort() is defined in posix',
  ),
  'an inner class of a module that is known': (
    with_agent('from flax import linen', '@linen.jit()'),
    'of flax.linen.transforms is of no kind',
  ),
}


@pytest.fixture
def stranger(tmp_path, monkeypatch):
  """Returns a function that makes a stranger's folder, and goes there."""
  folder, marker = tmp_path / 'run', tmp_path / 'marker'
  deep = folder / 'mine' / 'deep'
  deep.mkdir(parents=True)
  code = MODULE.format(marker=str(marker))
  for file in (folder / 'mine' / '__init__.py', deep / '__init__.py'):
    file.write_text(code)
  (deep / 'down.py').write_text(code)
  (folder / 'run.json').write_text(json.dumps({'seeds': [0], 'versions': {}}))
  monkeypatch.chdir(folder)
  monkeypatch.setattr(sys, 'path', list(sys.path))
  monkeypatch.setattr(
    gymnasium.envs.registration, 'registry', dict(gymnasium.registry)
  )
  for name in [each for each in sys.modules if each.split('.')[0] == 'mine']:
    monkeypatch.delitem(sys.modules, name)

  def make(text):
    text = text.replace('MARKER', str(marker))
    (folder / 'config.gin').write_text(text)
    return folder

  make.marker = marker
  with gin_config.interactive_mode():  # a name may come twice
    yield make
  for name in [each for each in sys.modules if each.split('.')[0] == 'mine']:
    del sys.modules[name]


def silent(message):
  raise AssertionError(f'said: {message}')


@pytest.mark.parametrize('name', ATTACKS)
def test_what_a_stranger_tries_is_refused_by_name(stranger, name):
  text, said = ATTACKS[name]
  folder = stranger(text)
  with pytest.raises(errors.UserError) as raised:
    trained.load(folder, silent)
  assert said in str(raised.value)
  assert not stranger.marker.exists()
  assert str(folder) not in sys.path


def test_all_that_is_refused_is_named_at_once_with_its_flags(stranger):
  text = SETTINGS.replace('CartPole-v1', 'mine_too:MineEnv-v0').replace(
    'import optax', 'import optax\nimport mine'
  )
  with pytest.raises(errors.UserError, match='--trust mine --trust mine_too'):
    trained.load(stranger(text), silent)


@pytest.mark.parametrize(
  'text',
  [
    SETTINGS,
    SETTINGS.replace('import optax', 'import optax as o').replace(
      'optax.adam', 'o.adam'
    ),
    # By a way that is long, to a thing that is known.
    SETTINGS.replace('@optax.adam()', '@dqn.optax.radam()')
    + 'dqn.optax.radam.learning_rate = 0.1\n',
    SETTINGS.replace('import optax', 'import jax.nn\nimport optax')
    + 'networks.MLP.activation = @jax.nn.tanh\n',
    SETTINGS.replace('import optax', 'import jax.numpy\nimport optax')
    + 'networks.MLP.activation = @jax.numpy.sin\n',
    SETTINGS.replace('import optax', 'import rlax\nimport optax')
    + "gym.Gym.kwargs = {'sutton_barto_reward': True}\n",
    SETTINGS.replace("'CartPole-v1'", '%game') + "game = 'CartPole-v1'\n",
  ],
)
def test_what_the_framework_is_made_of_needs_no_trust(stranger, text):
  admitted = strangers.admit(stranger(text), (), silent)
  assert admitted.stranger
  build(admitted)


def test_an_id_is_judged_alike_before_and_after_it_is_registered(monkeypatch):
  reach = gym.Gym(id='FetchReach-v4')
  spec = gymnasium.envs.registration.EnvSpec(
    reach.id, entry_point='gymnasium_robotics.envs.fetch.reach:MujocoFetch'
  )
  for known in ({}, {reach.id: spec}):
    monkeypatch.setattr(gymnasium, 'registry', known)
    assert not [*kinds.faults_of_environment(reach, ())]


@pytest.mark.parametrize('file', sorted(config.shipped()), ids=lambda f: f.stem)
def test_every_shipped_configuration_needs_no_trust(stranger, file):
  strangers.admit(stranger(file.read_text()), (), silent)


@pytest.mark.parametrize(
  ('text', 'flags'),
  [
    (
      SETTINGS.replace('import optax', 'import optax\nimport mine').replace(
        '@dqn.DQN', '@mine.Mine'
      ),
      ['mine'],
    ),
    (SETTINGS.replace('CartPole-v1', 'mine:MineEnv-v0'), ['mine']),
    (
      SETTINGS.replace('import optax', 'import optax\nimport mine').replace(
        '@networks.MLP\n', '@mine.small\n'
      ),
      ['mine'],
    ),
    (
      with_agent(
        SYSTEM,
        '@plain_files.os.system()',
      ),
      ['posix'],
    ),
  ],
)
def test_the_flags_that_are_printed_allow_it(stranger, text, flags):
  folder = stranger(text)
  with pytest.raises(errors.UserError) as raised:
    strangers.admit(folder, (), silent)
  assert str(raised.value).endswith(' '.join(f'--trust {f}' for f in flags))
  admitted = strangers.admit(folder, flags, silent)
  if flags == ['posix']:
    with pytest.raises(errors.UserError):  # a number is no optimizer
      build(admitted)
  else:
    build(admitted)
  assert stranger.marker.exists()


@pytest.mark.parametrize('name', ['hidden_in_a_partial', 'looks_wrapped'])
def test_a_package_that_is_trusted_vouches_for_its_own_code_only(
  stranger, name
):
  text = with_agent('import mine', f'@mine.{name}()')
  with pytest.raises(errors.UserError, match='is defined in posix'):
    strangers.admit(stranger(text), ['mine'], silent)


@pytest.mark.parametrize(
  ('data', 'said'),
  [
    (b'\xff\xfe', 'UTF-8'),
    (b'x' * 2_000_000, '1 MB'),
    (b'x' * 200_000, 'longer than'),
    (b'a = ' + b'[' * 5_000, 'brackets lie within each other'),
    (b'a = (' + b"''" * 20_000 + b')', 'pieces of text'),
    (b'a = ' + b'9' * 5_000, 'can not be read as gin'),
    (b'a = \x00', 'can not be read as gin'),
    (b'# a comment\rimport mine', 'import mine'),
    (b'import optax', 'its first import is not'),
    (b"a = '\x1b[31m' = 1", 'can not be read as gin'),
    (b'import\n', 'can not be read as gin'),
    (b'  a = 1\n b = 2\n', 'can not be read as gin'),
    (DYNAMIC + b'a = %a\n', 'more calls than any run needs'),
    (
      DYNAMIC + b''.join(
        b'a%d = [' % i + b'%%a%d, ' % (i + 1) * 9 + b']\n' for i in range(20)
      ),
      'more calls than any run needs',
    ),
    (
      DYNAMIC + b'import optax\n'
      b'optax.chain.args = [@a/optax.chain()]\n'
      b'a/optax.chain.b = [@b/optax.chain(), @b/optax.chain()]\n'
      b'b/optax.chain.b = @a/optax.chain()\n',
      'more calls than any run needs',
    ),
  ],
)  # fmt: skip
def test_a_file_that_would_take_long_is_refused(stranger, data, said):
  folder = stranger('')
  (folder / 'config.gin').write_bytes(data)
  with pytest.raises(errors.UserError, match=said):
    strangers.admit(folder, (), silent)


def test_only_a_regular_file_is_read(stranger, tmp_path):
  folder = stranger(SETTINGS)
  file = folder / 'config.gin'
  file.rename(tmp_path / 'elsewhere.gin')
  with pytest.raises(errors.UserError, match='no config'):
    strangers.admit(folder, (), silent)
  file.symlink_to(tmp_path / 'elsewhere.gin')
  with pytest.raises(errors.UserError, match='is a link'):
    strangers.admit(folder, (), silent)
  file.unlink()
  os.mkfifo(file)
  with pytest.raises(errors.UserError, match='expected a regular file'):
    strangers.admit(folder, (), silent)
  file.unlink()
  file.mkdir()
  with pytest.raises(errors.UserError, match='is a folder'):
    strangers.admit(folder, (), silent)


@pytest.fixture
def own(stranger):
  """A folder as a training leaves it, with code of one's own beside it."""
  folder = stranger(
    SETTINGS.replace('import optax', 'import optax\nimport mine')
    .replace('@dqn.DQN', '@mine.Mine')
    .replace('CartPole-v1', 'mine:MineEnv-v0')
  )
  sign(folder)
  return folder


def sign(folder):
  text = (folder / 'config.gin').read_text()
  signed = signature.of(folder, text, silent)
  (folder / signature.FILE).write_text(signed)


def build(admitted):
  """Returns the agent of a configuration that was admitted."""
  loaded = config.load([admitted.file], text=admitted.text)
  runner = loaded.build(runner_lib.Runner)
  admitted.check(runner.environment)
  return runner.make_agent(runner.environment.make(1))


def test_a_run_of_ones_own_goes_on_as_it_was(own, stranger):
  agent = build(strangers.admit(own, (), silent))
  assert 'Mine' in [each.__name__ for each in type(agent).__mro__]
  assert stranger.marker.exists()


def test_a_copy_of_ones_own_run_is_ones_own(own, tmp_path):
  shutil.copytree(own, tmp_path / 'copy')
  assert not strangers.admit(tmp_path / 'copy', (), silent).stranger


def test_packages_come_from_the_folder_that_one_trained_in(
  own, stranger, tmp_path, monkeypatch
):
  # Somebody's copy of this user's own run, beside a package of that name.
  elsewhere = tmp_path / 'elsewhere'
  shutil.copytree(own, elsewhere)
  monkeypatch.chdir(elsewhere)
  with pytest.raises(errors.UserError, match='another working folder') as e:
    strangers.admit(elsewhere, (), silent)
  assert str(e.value).endswith('--trust mine')
  assert not stranger.marker.exists()
  build(strangers.admit(elsewhere, ['mine'], silent))
  assert stranger.marker.exists()


@pytest.mark.parametrize('line', ['# nothing', 'mine.Mine.gamma = 0.5'])
def test_a_run_that_was_edited_is_a_strangers(own, stranger, line):
  with open(own / 'config.gin', 'a') as file:
    file.write(f'\n{line}\n')
  said = []
  with pytest.raises(errors.UserError, match='edited since') as raised:
    strangers.admit(own, (), said.append)
  assert str(raised.value).endswith('--trust mine')
  assert said == [
    f'Warning: {own}/config.gin was edited since you trained with it, so it is '
    "treated as a stranger's."
  ]
  assert not stranger.marker.exists()
  build(strangers.admit(own, ['mine'], said.append))


@pytest.mark.parametrize(
  'signed', [None, '', 'nonsense\n', 'a b c\n', '\xff' * 99, 'x' * 9_999]
)
def test_a_run_without_a_signature_is_a_strangers(own, stranger, signed):
  file = own / signature.FILE
  file.unlink()
  if signed is not None:
    file.write_text(signed)
  with pytest.raises(errors.UserError) as raised:
    strangers.admit(own, (), silent)
  assert 'no signature' in str(raised.value) or 'another key' in str(
    raised.value
  )
  assert str(raised.value).endswith('--trust mine')
  assert not stranger.marker.exists()


def test_a_run_that_another_user_signed_is_a_strangers(
  own, stranger, tmp_path, monkeypatch
):
  monkeypatch.setenv('XDG_CONFIG_HOME', str(tmp_path / 'other'))
  with pytest.raises(errors.UserError, match='trained none on this machine'):
    strangers.admit(own, (), silent)
  (tmp_path / 'first').mkdir()
  signature.of(tmp_path / 'first', SETTINGS, silent)  # makes the key
  with pytest.raises(errors.UserError, match=r'another key; .*signing_key'):
    strangers.admit(own, (), silent)
  assert not stranger.marker.exists()


@pytest.mark.parametrize(
  'error',
  [
    "ValueError: No module named 'mine.deep'",
    "module 'mine' of this has no attribute it",
    "No module named 'antigravity.x'",
  ],
)
def test_a_message_with_a_modules_name_does_not_import_it(stranger, error):
  stranger(SETTINGS)
  sys.path.append(str(stranger.marker.parent / 'run'))

  def fails():
    raise ValueError(f'padding = {error} is unknown')

  with pytest.raises(errors.UserError, match='is unknown'):
    config.load([]).build(fails)
  assert not stranger.marker.exists()
  assert 'antigravity' not in sys.modules


def test_what_is_known_was_made_by_the_packages_themselves():
  offered = kinds._offered().values()
  assert len(offered) > 200
  assert {kinds._module(thing).split('.')[0] for thing in offered} == {
    *('flax', 'jax', 'optax', 'rlax')
  }
