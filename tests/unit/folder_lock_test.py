"""One training is in a folder, and one that is refused leaves none behind."""

import errno
import fcntl
import os
import pathlib
import shutil

import pytest

from dopamine_jax import errors
from dopamine_jax.training import folder_lock


def test_a_second_training_is_refused(tmp_path):
  with folder_lock.open_for_training(tmp_path / 'run'):
    with pytest.raises(errors.UserError, match='another process is training'):
      with folder_lock.open_for_training(tmp_path / 'run'):
        pass
    assert (tmp_path / 'run/.lock').exists()


@pytest.mark.parametrize(
  'number', [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL]
)
def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch, number):
  def flock(lock, how):
    raise OSError(number, os.strerror(number))

  monkeypatch.setattr(fcntl, 'flock', flock)
  said = []
  with folder_lock.open_for_training(tmp_path / 'run', said.append):
    pass
  (warning,) = said
  assert 'has no locks' in warning and os.strerror(number) in warning


@pytest.mark.parametrize('there', ['', 'a', 'a/b', 'a/b/run'])
def test_who_writes_nothing_leaves_what_was_there(tmp_path, there):
  (tmp_path / there).mkdir(parents=True, exist_ok=True)
  before = sorted(tmp_path.rglob('*'))
  with pytest.raises(errors.UserError, match='refused'):
    with folder_lock.open_for_training(tmp_path / 'a/b/run'):
      raise errors.UserError('refused')
  assert sorted(tmp_path.rglob('*')) == before


def test_who_writes_something_leaves_it(tmp_path):
  with folder_lock.open_for_training(tmp_path / 'a/run') as folder:
    (folder / 'config.gin').write_text('')
  assert (tmp_path / 'a/run/config.gin').exists()


def test_a_lock_that_was_removed_meanwhile_is_made_anew(tmp_path, monkeypatch):
  folder, flock, calls = tmp_path / 'run', fcntl.flock, []

  def slow(lock, how):
    flock(lock, how)
    calls.append(None)
    if len(calls) == 1:  # Who held it before leaves none behind.
      (folder / '.lock').unlink()
      folder.rmdir()

  monkeypatch.setattr(fcntl, 'flock', slow)
  with folder_lock.open_for_training(folder):
    assert (folder / '.lock').exists()
  assert len(calls) == 2


def removed(folder):
  shutil.rmtree(folder)


def renamed(folder):
  folder.rename(folder.with_name('moved'))


def replaced(folder):
  renamed(folder)
  folder.mkdir()


def made_anew(folder):  # which often gets the same number
  removed(folder)
  folder.mkdir()


def a_file(folder):
  removed(folder)
  folder.write_text('')


@pytest.mark.parametrize(
  'change', [removed, renamed, replaced, made_anew, a_file]
)
def test_another_folder_is_told_from_the_one_that_was(tmp_path, change):
  folder = tmp_path / 'run'
  folder.mkdir()
  place = folder_lock.Place(folder)
  place.require_same()
  change(folder)
  with pytest.raises(errors.UserError, match='removed or renamed'):
    place.require_same()
  place.close()


@pytest.mark.parametrize('base_dir', ['file', 'file/run', '/proc/run'])
def test_what_can_not_be_made_is_named(tmp_path, monkeypatch, base_dir):
  monkeypatch.chdir(tmp_path)
  pathlib.Path('file').write_text('in the way')
  with pytest.raises(errors.UserError, match=f'{base_dir} can not be written'):
    with folder_lock.open_for_training(base_dir):
      pass


def test_a_link_in_the_locks_place_is_not_followed(tmp_path):
  folder, outside = tmp_path / 'run', tmp_path / 'outside'
  folder.mkdir()
  outside.write_text('mine')
  (folder / '.lock').symlink_to(outside)
  with pytest.raises(errors.UserError, match='can not be written'):
    with folder_lock.open_for_training(folder, print):
      pass
  assert outside.read_text() == 'mine'


def test_a_pipe_in_the_locks_place_is_not_waited_for(tmp_path):
  os.mkfifo(tmp_path / '.lock')
  with folder_lock.open_for_training(tmp_path, print):
    pass
