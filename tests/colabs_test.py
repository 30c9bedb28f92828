"""The notebooks run from top to bottom, and open in Colab."""

import os
import pathlib
import re
import sys

from jupyter_client import kernelspec
from jupyter_client import manager
import nbclient
import nbformat
import pytest

from tests import snippets_test

ROOT = pathlib.Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / 'colabs').glob('*.ipynb'))
REPOSITORY = 'dopamine-jax/dopamine-jax'

each = pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)


class KernelOfTheseTests(manager.AsyncKernelManager):
  """Starts this interpreter, whatever kernels are installed beside it."""

  @property
  def kernel_spec(self):
    command = [sys.executable, '-m', 'ipykernel', '-f', '{connection_file}']
    return kernelspec.KernelSpec(argv=command, language='python')


def read(path):
  return nbformat.read(path, as_version=4)


def sources(notebook, kind):
  return [cell.source for cell in notebook.cells if cell.cell_type == kind]


def test_there_are_the_seven_notebooks():
  assert {path.stem for path in NOTEBOOKS} == {
    'library',
    'quickstart',
    'write_your_own_agent',
    'load_and_compare_results',
    'watch_an_agent',
    'under_the_hood',
    'sweeps',
  }


# Those whose cells the fast tests run, and what makes its trainings short. What
# the others show, the tests of commands, of analysis, of README's agent and of
# `dopamine-jax new agent` do too; the slow tests run them all in a kernel.
RUN = {
  'library': ('agent_steps=10_000', 'agent_steps=1_200'),
  'quickstart': ('--seed 2', '--seed 2'),  # `Reader` shortens commands
}


@pytest.mark.parametrize('name', RUN)
def test_its_cells_run_in_their_order(name, tmp_path, monkeypatch, capfd):
  """In this process, which saves to start a kernel and its commands' own."""
  monkeypatch.chdir(tmp_path)
  reader = snippets_test.Reader(monkeypatch, capfd, long=False)
  cells = sources(read(ROOT / f'colabs/{name}.ipynb'), 'code')
  long, short = RUN[name]
  assert long in ''.join(cells)
  names = {}
  for cell in cells:
    cell = cell.replace(long, short)
    if cell.startswith('%%sh\n'):
      reader.type(snippets_test.Block('sh', cell.partition('\n')[2], file=''))
    else:
      exec(re.sub('^( *)%.*', r'\1pass', cell, flags=re.MULTILINE), names)


@pytest.mark.slow
@each
def test_it_runs_from_top_to_bottom(path, tmp_path, monkeypatch):
  # The checkout's package and command, also in the processes that it starts.
  commands = pathlib.Path(sys.executable).parent
  monkeypatch.setenv('PYTHONPATH', str(ROOT))
  monkeypatch.setenv('PATH', f'{commands}{os.pathsep}{os.environ["PATH"]}')
  monkeypatch.setenv('IPYTHONDIR', str(tmp_path / '.ipython'))
  # pytest's choice of it would be another kernel's; each kernel sets its own.
  monkeypatch.delenv('MPLBACKEND', raising=False)
  client = nbclient.NotebookClient(
    read(path),
    timeout=300,
    kernel_manager_class=KernelOfTheseTests,
    resources={'metadata': {'path': str(tmp_path)}},
  )
  client.execute()
  assert not errors_in(client.nb)


def errors_in(notebook):
  """Returns what went wrong in a command, which stops no notebook."""
  outputs = [o for cell in notebook.cells for o in cell.get('outputs', [])]
  text = ''.join(o.get('text', '') for o in outputs)
  return re.findall(r'^.*(?:Error|Warning)\b.*$', text, re.MULTILINE)


@each
def test_its_badge_opens_this_very_notebook(path):
  first = sources(read(path), 'markdown')[0]
  place = f'github/{REPOSITORY}/blob/main/colabs/{path.name}'
  assert f'](https://colab.research.google.com/{place})' in first


@each
def test_it_first_installs_the_package_where_there_is_none(path):
  first = sources(read(path), 'code')[0]
  assert "if importlib.util.find_spec('dopamine_jax') is None:" in first
  assert '%pip install --quiet' in first
  assert f'git+https://github.com/{REPOSITORY}' in first


@each
def test_it_holds_no_traces_of_the_machine_it_was_written_on(path):
  notebook = read(path)
  assert set(notebook.metadata) == {'kernelspec', 'language_info'}
  assert set(notebook.metadata.language_info) == {'name'}
  for cell in notebook.cells:
    assert not cell.metadata
    assert cell.get('execution_count') is None
    for output in cell.get('outputs', []):
      assert set(output.data) <= {'image/png', 'text/plain'}
  assert not re.search(r'/(home|root|work|tmp|Users)/', path.read_text('utf-8'))


@each
def test_it_is_small_enough_to_be_read_in_a_diff(path):
  assert path.stat().st_size < 100_000
