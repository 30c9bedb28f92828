"""What every test runs under; the environment reaches subprocesses too."""

import gc
import importlib.util
import mmap
import os
import pathlib
import tempfile

import hypothesis
import pytest

# JAX reads these when it is first imported, which is after this file.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ['JAX_NUMPY_RANK_PROMOTION'] = 'raise'

# Commands that tests start need not compile what one before them compiled. The
# cache belongs to this process and dies with it: JAX's writes aren't atomic, so
# parallel workers must not share one, and entries kept for later would hold
# machine code that another CPU of the same user can't run. This process itself
# neither writes nor reads it: see `programs.keep_compiled`.
_compilation_cache = tempfile.TemporaryDirectory(prefix='dopamine_jax_tests_')
os.environ['JAX_COMPILATION_CACHE_DIR'] = _compilation_cache.name
os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'

# Most of a test's time is XLA's, and what it optimizes is no matter of ours:
# numbers are compared within a tolerance, or with what was compiled likewise.
# Tests of a program's memory ask for `optimized`.
os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')

# These emitters take most of the time that is left, and those before them are
# still there. A program that is cut into parts, for several cores, takes longer
# to compile in all, and the other cores run other tests. XLA ends a process
# that names a flag which it does not know.
_FLAGS = {
  'xla_cpu_use_fusion_emitters': 'false',
  'xla_cpu_parallel_codegen_split_count': '1',
}


def _known_to_xla(flags):
  jaxlib = pathlib.Path(importlib.util.find_spec('jaxlib').origin).parent
  known = set()
  for library in jaxlib.glob('*.so'):
    with (
      library.open('rb') as file,
      mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
    ):
      known |= {flag for flag in flags if mapped.find(flag.encode()) >= 0}
  return known


os.environ['XLA_FLAGS'] = ' '.join(
  [
    os.environ.get('XLA_FLAGS', ''),
    *(f'--{flag}={_FLAGS[flag]}' for flag in sorted(_known_to_xla(_FLAGS))),
  ]
).strip()

# Tracing makes many objects that stay; to look through all of them again and
# again took a twentieth of the time.
gc.set_threshold(50_000, 20, 20)

# The key that signs runs is not the user's own either.
_settings_folder = tempfile.TemporaryDirectory(prefix='dopamine_jax_tests_')
os.environ['XDG_CONFIG_HOME'] = _settings_folder.name


def pytest_unconfigure():
  _compilation_cache.cleanup()
  _settings_folder.cleanup()


# No deadline: an example may be the first to compile. On CI the examples are
# the same each time, so a failure there is the change's own.
hypothesis.settings.register_profile('local', deadline=None, max_examples=30)
hypothesis.settings.register_profile(
  'ci', deadline=None, max_examples=30, derandomize=True
)
hypothesis.settings.load_profile('ci' if os.environ.get('CI') else 'local')


@pytest.fixture
def optimized():
  """Has XLA optimize what a test compiles, as it does for users."""
  import jax

  before = jax.config.read('jax_disable_most_optimizations')
  jax.config.update('jax_disable_most_optimizations', False)
  yield
  jax.config.update('jax_disable_most_optimizations', before)


@pytest.fixture(autouse=True, scope='session')
def little_is_waited_for():
  """Has no training here wait for the disk, or ask what is known.

  Tests of what is written when to the disk put their own there, and tests of
  commits have another checkout. Nor are random bits written out: they are the
  same, which `threefry_test` sees in processes of its own, and programs that
  draw many take up to three times as long to compile.
  """
  from dopamine_jax.engines import threefry
  from dopamine_jax.system import provenance
  from tests import programs

  package = pathlib.Path(provenance.__file__).parent.parent
  ask, known, versions = provenance._git, {}, provenance.versions()

  def git(folder, *words):
    if folder != package and not os.path.samefile('.', package.parent):
      return ask(folder, *words)
    if (folder, *words) not in known:
      known[folder, *words] = ask(folder, *words)
    return known[folder, *words]

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(os, 'fsync', lambda descriptor: None)
    patch.setattr(provenance, '_git', git)
    patch.setattr(provenance, 'versions', versions.copy)
    patch.setattr(threefry, 'write_out', lambda: None)
    programs.try_once(patch)
    yield


@pytest.fixture
def same_programs(monkeypatch):
  """Has trainings of equal settings share what they trace."""
  from tests import programs

  programs.share(monkeypatch)


@pytest.fixture(autouse=True, scope='module')
def as_if_alone():
  """Takes back what a file's tests did to their process, as commands do.

  Else later files look for garbage among all that earlier ones have compiled,
  and take twice as long.
  """
  import jax

  from tests import programs

  programs.keep_compiled()
  programs.share_context()
  # What was imported, and is here to stay, is looked through no more.
  gc.freeze()
  yield
  programs.forget()
  jax.clear_caches()
  gc.collect()
