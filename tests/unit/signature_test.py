"""A key that is made once, and what a run is signed with."""

import os
import pathlib
import stat

import pytest

from dopamine_jax.trust import signature

CONFIG = 'runner.Runner.num_iterations = 3\n'


@pytest.fixture
def home(tmp_path, monkeypatch):
  """A user's home without a key yet, and a run's folder."""
  monkeypatch.setenv('XDG_CONFIG_HOME', str(tmp_path / 'settings'))
  (tmp_path / 'run').mkdir()
  return tmp_path


def sign(home, config=CONFIG):
  """Signs a configuration; returns what was said."""
  said = []
  if text := signature.of(home / 'run', config, said.append):
    (home / 'run' / signature.FILE).write_text(text)
  return said


def verify(home, config=CONFIG):
  said = []
  verdict = signature.verify(home / 'run', config.encode(), said.append)
  return verdict, said


def test_the_key_is_made_once_and_is_the_users_alone(home):
  assert sign(home) == []
  file = home / 'settings' / 'dopamine_jax' / 'signing_key'
  assert signature.key_file() == file
  key = file.read_bytes()
  assert len(key) == 32
  assert stat.S_IMODE(file.stat().st_mode) == 0o600
  assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
  assert os.listdir(file.parent) == ['signing_key']
  sign(home, 'another')
  assert file.read_bytes() == key


def test_of_two_trainings_that_start_at_once_the_first_makes_the_key(
  home, monkeypatch
):
  link = os.link

  def lose_the_race(beside, file):
    pathlib.Path(file).write_bytes(b'f' * 32)
    pathlib.Path(file).chmod(0o600)
    link(beside, file)

  monkeypatch.setattr(os, 'link', lose_the_race)
  assert sign(home) == []
  assert signature.key_file().read_bytes() == b'f' * 32
  assert verify(home)[0].own


def test_only_what_was_signed_is_ones_own(home):
  sign(home)
  assert verify(home) == (signature.Verdict(own=True, here=True), [])
  verdict, said = verify(home, CONFIG + '#')
  assert not verdict.own
  assert 'edited' in verdict.why
  assert len(said) == 1


def test_a_longer_run_is_signed_beside_the_shorter_one(home):
  # A kill between the two files leaves the old configuration or the new one.
  sign(home)
  sign(home, CONFIG.replace('3', '5'))
  assert verify(home)[0].own
  assert verify(home, CONFIG.replace('3', '5'))[0].own
  before = (home / 'run' / signature.FILE).read_text()
  sign(home, CONFIG.replace('3', '5'))
  assert (home / 'run' / signature.FILE).read_text() == before
  for i in range(40):
    sign(home, str(i))
  assert len((home / 'run' / signature.FILE).read_text().splitlines()) == 16
  assert verify(home, '39')[0].own


def test_the_working_folder_is_signed_too(home, monkeypatch):
  sign(home)
  monkeypatch.chdir(home)
  assert verify(home)[0] == signature.Verdict(own=True, here=False)


def test_signatures_of_another_key_go(home, monkeypatch):
  sign(home)
  monkeypatch.setenv('XDG_CONFIG_HOME', str(home / 'other'))
  assert 'trained none' in verify(home)[0].why
  sign(home)
  assert len((home / 'run' / signature.FILE).read_text().splitlines()) == 1
  assert verify(home)[0].own


def no_home(home, monkeypatch):
  monkeypatch.delenv('XDG_CONFIG_HOME')
  monkeypatch.setenv('HOME', '')


def no_entry(home, monkeypatch):
  def fail(path):
    raise RuntimeError('Could not determine home directory.')

  monkeypatch.delenv('XDG_CONFIG_HOME')
  monkeypatch.delenv('HOME')
  monkeypatch.setattr(pathlib.Path, 'expanduser', fail)


def neither(home, monkeypatch):
  monkeypatch.setenv('XDG_CONFIG_HOME', '')
  monkeypatch.setenv('HOME', '')


def relative(home, monkeypatch):
  monkeypatch.setenv('XDG_CONFIG_HOME', 'settings')
  monkeypatch.setenv('HOME', 'home')


def a_file_in_the_way(home, monkeypatch):
  (home / 'settings').write_text('')


def no_links(home, monkeypatch):
  def fail(*paths):
    raise PermissionError(1, 'Operation not permitted')

  monkeypatch.setattr(os, 'link', fail)


def short(home, monkeypatch):
  sign(home)
  signature.key_file().write_bytes(b'short')


def readable(home, monkeypatch):
  sign(home)
  signature.key_file().chmod(0o644)


def another_users(home, monkeypatch):
  sign(home)
  monkeypatch.setattr(os, 'geteuid', lambda: 12345)


def a_pipe(home, monkeypatch):
  sign(home)
  signature.key_file().unlink()
  os.mkfifo(signature.key_file(), 0o600)


@pytest.mark.parametrize(
  ('damage', 'words'),
  [
    (no_home, 'no home folder can be found'),
    (no_entry, 'no home folder can be found'),
    (neither, 'no home folder can be found'),
    (relative, 'no home folder can be found'),
    (a_file_in_the_way, 'Not a directory'),
    (no_links, 'not permitted'),
    (short, 'damaged: it has 5 bytes, not 32'),
    (readable, 'mode 644'),
    (another_users, 'belongs to another user'),
    (a_pipe, 'is no regular file'),
  ],
)
def test_without_a_key_a_run_is_not_signed_and_that_is_said(
  home, monkeypatch, damage, words
):
  damage(home, monkeypatch)
  (said,) = sign(home)
  assert words in said
  assert '--trust PACKAGE' in said
  verdict, warned = verify(home)
  assert not verdict.own
  assert verdict.why
  for warning in warned:
    assert words in warning


def test_the_remedies_for_a_key_work(home, monkeypatch):
  readable(home, monkeypatch)
  signature.key_file().chmod(0o600)
  assert verify(home)[0].own
  short(home, monkeypatch)
  signature.key_file().unlink()
  assert sign(home) == []
  assert verify(home)[0].own
