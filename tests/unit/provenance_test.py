"""What a run's record says of the code that made it."""

import pathlib
import subprocess

import pytest

from dopamine_jax.system import provenance


def git(folder, *words):
  identity = ('-c', 'user.name=A', '-c', 'user.email=a@b.c')
  return subprocess.run(
    ['git', '-C', folder, *identity, *words],
    check=True,
    capture_output=True,
    text=True,
  ).stdout.strip()


@pytest.fixture
def checkout(tmp_path, monkeypatch):
  """A checkout in whose package `provenance` seems to lie."""
  folder = tmp_path / 'checkout'
  (folder / 'dopamine_jax').mkdir(parents=True)
  (folder / 'dopamine_jax/__init__.py').write_text('')
  git(folder, 'init', '-q')
  git(folder, 'add', '.')
  git(folder, 'commit', '-qm', 'all')
  file = folder / 'dopamine_jax/system/provenance.py'
  monkeypatch.setattr(provenance, '__file__', str(file))
  monkeypatch.chdir(tmp_path)
  return folder


def test_a_checkout_has_its_commit_and_whether_it_was_changed(checkout):
  commit = git(checkout, 'rev-parse', 'HEAD')
  git(checkout, 'tag', 'v1')
  assert provenance.commits() == {'dopamine-jax': commit}
  (checkout / 'dopamine_jax/__init__.py').write_text('x = 1')
  assert provenance.commits() == {'dopamine-jax': f'{commit}-dirty'}


def test_an_installation_within_a_repository_is_none_of_it(
  checkout, monkeypatch
):
  package = checkout / '.venv/dopamine_jax'
  package.mkdir(parents=True)
  (package / '__init__.py').write_text('')
  monkeypatch.setattr(
    provenance, '__file__', str(package / 'system/provenance.py')
  )
  monkeypatch.chdir(checkout)
  commit = git(checkout, 'rev-parse', 'HEAD')
  assert provenance.commits() == {'working folder': commit}


def test_what_a_working_folder_has_git_run_is_not_run(checkout, monkeypatch):
  monkeypatch.chdir(checkout)
  marker = checkout.parent / 'ran'
  for name in ('core.fsmonitor', 'filter.f.clean'):
    git(checkout, 'config', name, f'touch {marker}; cat')
  (checkout / '.gitattributes').write_text('* filter=f\n')
  (checkout / 'dopamine_jax/__init__.py').write_text('x = 1')
  monkeypatch.setattr(provenance, '__file__', str(checkout.parent / 'p.py'))
  assert set(provenance.commits()) == {'working folder'}
  assert not marker.exists()
  git(checkout, 'status')  # which would run them
  assert marker.exists()


def test_without_git_nothing_is_said(checkout, monkeypatch):
  monkeypatch.setenv('PATH', str(checkout))
  assert provenance.commits() == {}


def test_a_working_folder_that_is_gone_is_no_error(checkout, monkeypatch):
  folder = checkout.parent / 'gone'
  folder.mkdir()
  monkeypatch.chdir(folder)
  pathlib.Path(folder).rmdir()
  assert 'working folder' not in provenance.commits()
