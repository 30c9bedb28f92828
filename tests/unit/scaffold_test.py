"""What `dopamine-jax new` writes works as it is."""

import os
import pathlib
import runpy
import subprocess
import sys

import pytest

from dopamine_jax.commands import cli


def new(monkeypatch, *words):
  monkeypatch.setattr(sys, 'argv', ['dopamine-jax', 'new', 'agent', *words])
  return cli.main()


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)


# In this process, or as the command says, which starts another.
@pytest.mark.parametrize(
  'is_here', [True, pytest.param(False, marks=pytest.mark.slow)]
)
def test_the_tests_of_a_new_agent_pass(monkeypatch, tmp_path, capsys, is_here):
  assert new(monkeypatch, 'MyAgent') == 0
  said = capsys.readouterr().out
  files = ['my_agent.py', 'my_agent.gin', 'my_agent_test.py']
  assert sorted(os.listdir()) == sorted(files)
  assert 'Written: my_agent.py, my_agent.gin, my_agent_test.py' in said
  [command] = [line for line in said.splitlines() if 'pytest' in line]
  words = command.split()
  assert words == ['python', '-m', 'pytest', 'my_agent_test.py']
  monkeypatch.syspath_prepend(os.getcwd())
  if is_here:
    tests = runpy.run_path('my_agent_test.py')
    found = [name for name in tests if name.startswith('test_')]
    assert found == ['test_the_loss_is_that_of_the_paper', 'test_it_trains']
    tests[found[0]]()
    tests[found[1]](tmp_path / 'trained')
    del sys.modules['my_agent']
  else:
    done = subprocess.run(
      [sys.executable, *words[1:]], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
    assert '2 passed' in done.stdout
  assert '  dopamine-jax train my_agent.gin' in said
  # They notice a wrong sign.
  source = pathlib.Path('my_agent.py')
  text = source.read_text()
  assert 'target - self.alpha' in text
  source.write_text(text.replace('target - self.alpha', 'target + self.alpha'))
  tests = runpy.run_path('my_agent_test.py')
  del sys.modules['my_agent']
  with pytest.raises(AssertionError, match='Mismatched elements: 1 / 1'):
    tests['test_the_loss_is_that_of_the_paper']()


@pytest.mark.parametrize(
  ('name', 'words'),
  [
    ('Json', 'a module json is installed'),
    ('Class', 'class is a word of its own'),
    ('myAgent', 'names no class'),
    ('My-Agent', 'names no class'),
    ('../Agent', 'names no class'),
    ('', 'names no class'),
    ('Ähnlich', 'names no class'),
    ('Taken', 'taken.gin is there, and is not overwritten'),
  ],
)
def test_a_name_that_can_not_be_is_refused(monkeypatch, capsys, name, words):
  pathlib.Path('taken.gin').write_text('mine')
  assert new(monkeypatch, name) == 1
  assert words in capsys.readouterr().err
  assert os.listdir() == ['taken.gin']


@pytest.mark.parametrize(
  ('name', 'module'),
  [('A', 'a'), ('DQNPlus', 'dqnplus'), ('Noisy2Net', 'noisy2_net')],
)
def test_its_files_have_its_name(monkeypatch, name, module):
  assert new(monkeypatch, name) == 0
  assert f'{module}.py' in os.listdir()
  assert f'class {name}(' in pathlib.Path(f'{module}.py').read_text()
