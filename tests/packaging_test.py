"""The package works however it came to be there: as a wheel, from an sdist,
editable, and uninstalled from the root of a checkout.

Everything is built from a copy of the checkout and installed into a fresh
environment that borrows what the package depends on from this one, so the tests
need no network.
"""

import dataclasses
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
CONFIGS = sorted(path.stem for path in (ROOT / 'configs').glob('*.gin'))


@dataclasses.dataclass(frozen=True)
class Installation:
  python: pathlib.Path
  command: list  # what a user types for `dopamine-jax`
  cwd: pathlib.Path  # where they type it
  home: pathlib.Path  # what must hold every imported file


def run(*command, cwd):
  """Returns what `command` prints on stdout; it must exit with status 0."""
  environment = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
  # Wide enough that no line of a listing wraps.
  environment['COLUMNS'] = '200'
  result = subprocess.run(
    [str(word) for word in command],
    cwd=cwd,
    env=environment,
    capture_output=True,
    text=True,
  )
  if result.returncode:
    pytest.fail(f'{result.args} failed:\n{result.stdout}{result.stderr}', False)
  return result.stdout


def copy_checkout(target):
  target.mkdir()
  for name in ('setup.py', 'pyproject.toml', 'README.md', 'LICENSE'):
    shutil.copy(ROOT / name, target)
  for name in ('dopamine_jax', 'agents', 'configs', 'tests'):
    unwanted = shutil.ignore_patterns('__pycache__')
    shutil.copytree(ROOT / name, target / name, symlinks=True, ignore=unwanted)
  return target


def build_wheel(checkout, through_sdist):
  # Without a flag, `build` makes an sdist and builds the wheel from that.
  flags = [] if through_sdist else ['--wheel']
  build = (sys.executable, '-m', 'build', '--no-isolation', *flags)
  run(*build, '--outdir', checkout / 'dist', checkout, cwd=checkout.parent)
  (wheel,) = (checkout / 'dist').glob('*.whl')
  return wheel


def make_environment(environment):
  """Makes one that lacks nothing but the package, and returns its python."""
  venv.create(environment, symlinks=True)
  paths = sysconfig.get_paths('venv', {'base': environment})
  # A folder named in a .pth file is searched last, and the .pth files in it are
  # not read: an editable install beside the dependencies stays out of sight.
  borrowed = {sysconfig.get_path('purelib'), sysconfig.get_path('platlib')}
  pth = pathlib.Path(paths['purelib'], 'borrowed.pth')
  pth.write_text('\n'.join(sorted(borrowed)) + '\n')
  return pathlib.Path(paths['scripts'], 'python')


def install(python, *what):
  pip = (sys.executable, '-m', 'pip', '--python', python, 'install', '--quiet')
  offline = ('--no-deps', '--no-index', '--no-build-isolation')
  run(*pip, *offline, '--ignore-installed', *what, cwd=python.parent)


@pytest.fixture(
  scope='module',
  params=[
    # From an sdist there is a wheel too, which has passed through both.
    pytest.param('wheel', marks=pytest.mark.slow),
    'sdist',
    'editable',
    'uninstalled',
  ],
)
def installation(request, tmp_path_factory):
  folder = tmp_path_factory.mktemp(request.param)
  checkout = copy_checkout(folder / 'checkout')
  python = make_environment(folder / 'environment')
  if request.param == 'uninstalled':
    command = [python, '-m', 'dopamine_jax']
    return Installation(python, command, cwd=checkout, home=checkout)
  elsewhere = folder / 'elsewhere'
  elsewhere.mkdir()
  if request.param == 'editable':
    install(python, '--editable', checkout)
    home = checkout
  else:
    install(python, build_wheel(checkout, request.param == 'sdist'))
    shutil.rmtree(checkout)
    home = folder / 'environment'
  command = [python.with_name('dopamine-jax')]
  return Installation(python, command, cwd=elsewhere, home=home)


@pytest.mark.parametrize(
  'through_sdist', [pytest.param(False, marks=pytest.mark.slow), True]
)
def test_a_wheel_holds_the_package_and_nothing_else(tmp_path, through_sdist):
  checkout = copy_checkout(tmp_path / 'checkout')
  expected = set()
  for folder, name in [
    ('dopamine_jax', 'dopamine_jax'),
    ('agents', 'dopamine_jax/agents'),
    ('configs', 'dopamine_jax/configs'),
  ]:
    for path in (checkout / folder).rglob('*'):
      if path.is_file():  # behind no link, which `rglob` does not follow
        inside = path.relative_to(checkout / folder).as_posix()
        expected.add(f'{name}/{inside}')
  wheel = build_wheel(checkout, through_sdist)
  names = set(zipfile.ZipFile(wheel).namelist())
  metadata = {name for name in names if '.dist-info/' in name}
  assert names - metadata == expected
  assert any(name.endswith('/LICENSE') for name in metadata)


def test_every_module_is_found_in_the_installation(installation):
  names = ['dopamine_jax', 'dopamine_jax.agents', 'dopamine_jax.agents.dqn']
  files = run(
    installation.python,
    '-c',
    'import importlib.util, sys\n'
    'for name in sys.argv[1:]: print(importlib.util.find_spec(name).origin)',
    *names,
    cwd=installation.cwd,
  ).splitlines()
  assert len(files) == len(names)
  for file in files:
    assert pathlib.Path(file).is_relative_to(installation.home)


def test_a_config_is_read_by_its_package_path(installation):
  text = run(
    installation.python,
    '-c',
    'import importlib.util, sys\n'
    'from gin import resource_reader\n'
    'sys.stdout.write(resource_reader.system_path_reader(sys.argv[1]).read())',
    'dopamine_jax/configs/dqn_cartpole.gin',
    cwd=installation.cwd,
  )
  assert text == (ROOT / 'configs/dqn_cartpole.gin').read_text('utf-8')


def test_the_command_lists_every_config(installation):
  listing = run(*installation.command, 'configs', cwd=installation.cwd)
  missing = [name for name in CONFIGS if name not in listing]
  assert CONFIGS
  assert not missing, listing


@pytest.mark.slow
def test_every_config_of_the_wheel_trains_and_resumes(installation):
  if installation.home.name != 'environment':
    pytest.skip('installed from no wheel')
  # Without the checkout's settings of pytest, which put it on the path.
  settings = installation.cwd / 'pytest.ini'
  settings.write_text('[pytest]\npython_files = *_test.py\npythonpath = .\n')
  for name in ('conftest.py', 'configs_test.py'):
    shutil.copy(ROOT / 'tests' / name, installation.cwd)
  (installation.cwd / 'tests').mkdir()
  shutil.copy(ROOT / 'tests' / 'programs.py', installation.cwd / 'tests')
  pytest_of_it = (installation.python, '-m', 'pytest', '-c', settings)
  tests = installation.cwd / 'configs_test.py'
  said = run(*pytest_of_it, '-q', '-k', 'resumes', tests, cwd=installation.cwd)
  assert ' passed' in said, said


def test_the_module_runs_in_a_checkout_beside_any_installation(
  installation, tmp_path
):
  checkout = copy_checkout(tmp_path / 'checkout')
  module = (installation.python, '-m', 'dopamine_jax')
  listing = run(*module, 'configs', cwd=checkout)
  assert all(name in listing for name in CONFIGS)


def test_types_are_found_by_tools_that_run_nothing(installation):
  paths = run(
    installation.python,
    '-c',
    'import sys; print(*sys.path, sep="\\n")',
    cwd=installation.cwd,
  ).splitlines()
  found = [
    file
    for path in ['', *paths]
    for name in ('py.typed', 'agents/dqn.py')
    if (file := installation.cwd / path / 'dopamine_jax' / name).exists()
  ]
  assert len(found) >= 2


def test_no_module_can_be_imported_under_another_name(installation):
  names = ['dopamine_jax.dopamine_jax', 'dopamine_jax.setup', 'agents.dqn']
  for name in names:
    found = run(
      installation.python,
      '-c',
      'import importlib.util, sys\n'
      'try: print(importlib.util.find_spec(sys.argv[1]))\n'
      'except ImportError: print(None)',
      name,
      cwd=installation.cwd,
    )
    assert found.strip() == 'None', name


def test_importing_the_package_imports_no_jax():
  loaded = run(
    sys.executable,
    '-c',
    'import dopamine_jax, sys; print(*sys.modules)',
    cwd=ROOT,
  ).split()
  assert 'dopamine_jax' in loaded
  assert not {'jax', 'jaxlib', 'flax', 'numpy'} & set(loaded)


def test_no_module_brings_in_another_deep_learning_framework():
  names = []
  for path in (ROOT / 'dopamine_jax').rglob('*.py'):
    names.append('.'.join(path.relative_to(ROOT).with_suffix('').parts))
  for path in (ROOT / 'agents').glob('*.py'):
    names.append(f'dopamine_jax.agents.{path.stem}')
  names = sorted(
    name.removesuffix('.__init__')
    for name in names
    if not name.endswith('.__main__')
  )
  loaded = run(
    sys.executable,
    '-c',
    'import importlib, sys\n'
    'for name in sys.argv[1:]: importlib.import_module(name)\n'
    'print(*sys.modules)',
    *names,
    cwd=ROOT,
  ).split()
  assert set(names) <= set(loaded)
  assert not {'tensorflow', 'torch'} & set(loaded)
