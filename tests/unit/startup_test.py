"""What is set before JAX starts, and what is said where it can't."""

import os
import pathlib
import subprocess
import sys
import warnings
import zlib

import jax
import jax.numpy as jnp
import pytest

from dopamine_jax import errors
from dopamine_jax.engines import startup
from tests import programs

VARIABLE = 'JAX_COMPILATION_CACHE_DIR'


@pytest.fixture(autouse=True)
def environment(monkeypatch):
  """Keeps what `prepare` sets to one test."""
  monkeypatch.setattr(warnings, 'showwarning', warnings.showwarning)
  monkeypatch.setattr(os, 'environ', os.environ.copy())
  monkeypatch.setattr(sys, 'path', list(sys.path))
  with warnings.catch_warnings():
    yield


def prepare(**options):
  said = []
  startup.prepare(said.append, **options)
  return said


def fill(folder, *entries):
  """Makes entries of that name and content, the first the oldest."""
  folder.mkdir(exist_ok=True)
  for age, (name, content) in enumerate(entries):
    (folder / f'{name}-cache').write_bytes(content)
    os.utime(folder / f'{name}-cache', (1e9 + age, 1e9 + age))


def names(folder):
  return sorted(path.name.removesuffix('-cache') for path in folder.iterdir())


def test_the_cache_keeps_what_was_used_last(tmp_path, monkeypatch):
  monkeypatch.setattr(startup, '_MAX_CACHE_BYTES', 25)
  os.environ.pop(VARIABLE, None)
  os.environ['XDG_CACHE_HOME'] = str(tmp_path)
  cache = tmp_path / 'dopamine_jax'
  fill(cache, *((name, b'x' * 10) for name in 'abcd'))
  (cache / 'mine').write_bytes(b'x' * 100)
  assert prepare() == []
  assert names(cache) == ['c', 'd', 'mine']
  os.environ.pop(VARIABLE)
  prepare()
  assert names(cache) == ['c', 'd', 'mine']


def test_a_folder_that_the_user_names_is_not_bounded(tmp_path, monkeypatch):
  monkeypatch.setattr(startup, '_MAX_CACHE_BYTES', 25)
  os.environ[VARIABLE] = str(tmp_path / 'cache')
  fill(tmp_path / 'cache', *((name, b'x' * 10) for name in 'abcd'))
  assert prepare() == []
  assert names(tmp_path / 'cache') == ['a', 'b', 'c', 'd']


WHOLE = zlib.compress(b'a program' * 100)


@pytest.mark.parametrize(
  'damaged',
  [WHOLE[:-5], b'', WHOLE[:20] + b'!' + WHOLE[21:], b'no program'],
)
def test_a_damaged_program_in_the_cache_is_removed(tmp_path, damaged):
  os.environ[VARIABLE] = str(tmp_path)
  said = prepare()
  fill(tmp_path, ('good', WHOLE), ('bad', damaged))
  warnings.warn(f"{startup._DAMAGED} for 'f': zlib.error: ...", stacklevel=1)
  assert names(tmp_path) == ['good']
  (message,) = said
  assert 'damaged programs were removed' in message


def test_jax_warns_of_a_damaged_program_as_we_think(tmp_path, monkeypatch):
  from jax._src import compilation_cache

  for name, function in programs.ON_DISK.items():
    monkeypatch.setattr(compilation_cache, name, function)
  os.environ[VARIABLE] = str(tmp_path)
  said = prepare()
  settings = {
    'jax_compilation_cache_dir': str(tmp_path),
    'jax_persistent_cache_min_compile_time_secs': 0.0,
  }
  before = {name: getattr(jax.config, name) for name in settings}
  compilation_cache.reset_cache()
  try:
    for name, value in settings.items():
      jax.config.update(name, value)
    for _ in range(3):
      jax.jit(lambda x: x + 41)(jnp.zeros(3)).block_until_ready()
      entries = list(tmp_path.glob('*-cache'))
      assert entries
      if not said:
        for entry in entries:
          entry.write_bytes(entry.read_bytes()[:-4])
      jax.clear_caches()
  finally:
    for name, value in before.items():
      jax.config.update(name, value)
    compilation_cache.reset_cache()
  assert said
  assert all(startup._is_whole(entry) for entry in tmp_path.glob('*-cache'))


@pytest.mark.parametrize('place', ['file', '/proc/no/cache', 'no home'])
def test_a_cache_that_can_not_be_kept_is_said_once(
  tmp_path, monkeypatch, place
):
  os.environ.pop(VARIABLE)
  os.environ.pop('XDG_CACHE_HOME', None)
  if place == 'no home':

    def home():
      raise RuntimeError('Could not determine home directory.')

    monkeypatch.setattr(pathlib.Path, 'home', home)
  else:
    (tmp_path / 'file').write_text('in the way')
    os.environ['XDG_CACHE_HOME'] = str(tmp_path / place)
  (message,) = prepare()
  assert 'can not be kept' in message and 'XDG_CACHE_HOME' in message
  assert os.environ['JAX_ENABLE_COMPILATION_CACHE'] == 'false'
  assert VARIABLE not in os.environ


@pytest.mark.parametrize(
  ('name', 'value'),
  [
    ('jax_enable_x64', True),
    ('jax_numpy_dtype_promotion', 'strict'),
  ],
)
def test_other_numbers_than_jaxs_own_are_refused(name, value):
  before = getattr(jax.config, name)
  jax.config.update(name, value)
  try:
    with pytest.raises(errors.UserError, match=f'env -u {name.upper()} '):
      prepare()
  finally:
    jax.config.update(name, before)


@pytest.mark.parametrize(
  'error',
  [
    RuntimeError("Unable to initialize backend 'nonsense': unknown"),
    ValueError('no such thing'),
    RuntimeError(''),
  ],
)
def test_devices_that_can_not_be_had_are_told(monkeypatch, error):
  def devices():
    raise error

  os.environ['JAX_PLATFORMS'] = 'nonsense'
  monkeypatch.setattr(jax, 'devices', devices)
  with pytest.raises(errors.UserError, match='JAX_PLATFORMS=nonsense'):
    startup.find_devices()


def test_modules_of_ones_own_come_last_and_only_where_they_are_needed(
  tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  prepare(users_code=False)
  assert str(tmp_path) not in sys.path
  prepare()
  prepare()
  assert sys.path[-1] == str(tmp_path)
  assert sys.path.count(str(tmp_path)) == 1


def test_a_folder_that_is_gone_has_no_modules(tmp_path, monkeypatch):
  (tmp_path / 'gone').mkdir()
  monkeypatch.chdir(tmp_path / 'gone')
  (tmp_path / 'gone').rmdir()
  before = list(sys.path)
  prepare()
  assert sys.path == before


def test_nothing_that_lies_in_the_folder_is_executed(tmp_path):
  for name in ('jax', 'queue', 'numpy', 'typer', 'pathlib', 'dopamine'):
    (tmp_path / f'{name}.py').write_text(f'raise SystemExit("ran {name}")')
  root = str(pathlib.Path(__file__).resolve().parent.parent.parent)
  result = subprocess.run(
    [sys.executable, '-m', 'dopamine_jax', 'fingerprint', '.'],
    cwd=tmp_path,
    env=os.environ | {'PYTHONPATH': root},
    capture_output=True,
    text=True,
  )
  assert result.stderr.startswith('Error: . holds no run'), result.stderr
  assert result.returncode == 1
