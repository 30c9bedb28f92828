"""How a remedy is named that works where the user stands."""

import pathlib
import shlex
import shutil
import sys

from dopamine_jax import errors


def test_an_extra_is_installed_by_a_command_that_works_here(monkeypatch):
  command = errors.install('atari')
  python, *words, package = shlex.split(command)
  assert words == ['-m', 'pip', 'install']
  assert pathlib.Path(shutil.which(python)).samefile(sys.executable)
  checkout = package.removesuffix('[atari]')
  assert (pathlib.Path(checkout) / 'setup.py').is_file()
  installed = pathlib.Path('/site-packages/dopamine_jax/errors.py')
  monkeypatch.setattr(errors, '__file__', str(installed))
  assert errors.install('atari').endswith("pip install 'dopamine-jax[atari]'")


def test_a_program_is_called_by_its_path_where_the_shell_finds_another(
  tmp_path, monkeypatch
):
  folder = tmp_path / 'env/bin'
  folder.mkdir(parents=True)
  (folder / 'tensorboard').touch(mode=0o755)
  monkeypatch.setattr(sys, 'executable', str(folder / 'python'))
  monkeypatch.setenv('PATH', str(tmp_path))
  assert errors.program('tensorboard') == str(folder / 'tensorboard')
  monkeypatch.chdir(tmp_path)
  assert errors.program('tensorboard') == 'env/bin/tensorboard'
  monkeypatch.setenv('PATH', str(folder))
  assert errors.program('tensorboard') == 'tensorboard'
  assert errors.program('nothing') == 'nothing'
