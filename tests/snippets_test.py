"""What the README and the documentation show works, typed as it stands there.

The blocks of a page are taken in their order, in a folder of their own: files
that the text says to write are written, commands of ours are run, and Python
and gin have the imports that they show. Trainings are short by bindings that
are added to each command. In the short form, trainings whose run nothing reads
later end when they are built, or, if a page's own class learns or commands
train, when an update has been traced; nothing else is changed.
"""

import dataclasses
import importlib
import itertools
import os
import pathlib
import re
import runpy
import shlex
import sys

import jax
import numpy as np
import pytest

from dopamine_jax.commands import cli
from dopamine_jax.engines import disk
from dopamine_jax.engines import engine
from dopamine_jax.engines import loop
from dopamine_jax.training import driving
from dopamine_jax.training import together
from tests import programs
from tests import small

ROOT = pathlib.Path(__file__).resolve().parent.parent
FILES = [
  *('README.md', 'dopamine_jax/analysis/__init__.py'),
  *('CONTRIBUTING.md', 'dopamine_jax/metrics/base.py'),
  *sorted(str(p.relative_to(ROOT)) for p in (ROOT / 'docs').rglob('*.md')),
]
PAGES = {name: (ROOT / name).read_text('utf-8') for name in FILES}
# Pages that are read after another, by one who has done what that shows.
AFTER = {'README.md': ['dopamine_jax/analysis/__init__.py']}
# Commands and blocks that aren't run, by how they begin, and why.
NOT_RUN = {
  'make ': 'installs, or is this very test',
  'pip install': 'installs',
  'python -m venv': 'likewise',
  'python -m benchmarks': 'takes minutes',
  'dopamine-jax sweep ...': 'names no config',
  'tensorboard --logdir': 'serves until it is stopped',
  'runner.Runner.collectors = [@console.Console': 'names a class of yours',
  'runner.Runner.health = [@health.DormantNeurons(), @ranks': 'likewise',
  'dopamine-jax train dqn_cartpole --base_dir runs/fork': 'is to be longer',
  'dopamine-jax train sac_pendulum --base_dir runs/cheetah': (
    'needs an extra that holds an older MuJoCo'
  ),
  'dopamine-jax train sac_robotics': 'likewise',
}
# Those that only the long form runs, which is marked slow.
COSTLY = {
  'train dqn_atari': 'images',
  'runs/breakout': 'images',
  'train drq_v2_mujoco': 'likewise',
  'runs/boxing': 'likewise',
  '--num_seeds': 'a program of its own',
  'runs/sweep': 'processes of its own',
  'runs/varied': 'likewise; `lanes_test` and `parts_test` have it',
}
# What a reader of a page has already.
OWN_FILES = {
  'corridor.py': """
import gymnasium
import numpy as np


class Corridor(gymnasium.Env):
  '''Ten places; at the last one it ends.'''

  observation_space = gymnasium.spaces.Box(0.0, 9.0, (1,), np.float32)
  action_space = gymnasium.spaces.Discrete(2)

  def reset(self, *, seed=None, options=None):
    super().reset(seed=seed)
    self.place = 0
    return np.array([0.0], np.float32), {}

  def step(self, action):
    self.place = max(0, self.place + 2 * int(action) - 1)
    seen = np.array([self.place], np.float32)
    return seen, -1.0, self.place == 9, False, {}


gymnasium.register('Corridor-v0', Corridor, max_episode_steps=50)
""",
}


@dataclasses.dataclass(frozen=True)
class Block:
  """A fenced block of a page.

  Attributes:
    language: what stands behind the fence.
    text: the block itself.
    file: what the sentence before it calls it; empty if it has no name.
  """

  language: str
  text: str
  file: str


def blocks(page: str) -> list[Block]:
  """Returns a page's blocks that a reader can type."""
  found = []
  for match in re.finditer(
    r'^( *)```(sh|python|gin)\n(.*?)^\1```$', page, re.MULTILINE | re.DOTALL
  ):
    before = page[: match.start()].rstrip().rpartition('\n\n')[2]
    named = re.search(r'`(\w+\.(?:py|gin))`[^`]*:$', before)
    text = re.sub(rf'^{match[1]}', '', match[3], flags=re.MULTILINE)
    found.append(Block(match[2], text, named[1] if named else ''))
  return found


def commands(text: str) -> list[list[str]]:
  """Returns the words of each command of a block of shell."""
  lines = text.replace('\\\n', ' ').splitlines()
  return [words for line in lines if (words := shlex.split(line, True))]


def is_left_out(text: str, long: bool) -> bool:
  """Returns whether a command or block isn't run, or not in the short form."""
  if any(text.startswith(each) for each in NOT_RUN):
    return True
  return not long and any(each in text for each in COSTLY)


def is_read(text: str, page: str) -> bool:
  """Returns whether what a block trains is seen, by itself or by another."""
  folders = re.findall(r"'(runs/\w+)'", text)
  once = all(page.count(folder) == 1 for folder in folders)
  seen = any(word in text for word in ('Reset(', 'patient', 'run ='))
  return seen or not (folders and once)


def imports_own(text: str) -> bool:
  """Returns whether a block imports a file of the current folder."""
  named = re.findall(r'^import (\w+)$', text, re.MULTILINE)
  return any(pathlib.Path(f'{name}.py').exists() for name in named)


def is_command_read(line: str, page: str) -> bool:
  """Returns the same of a command that trains."""
  folders = re.findall(r'--base_dir (runs/\w+)', line)
  once = all(page.count(folder) == 1 for folder in folders)
  return not once or '--vary' in line


def end_with(patch, last):
  """Has trainings end with a function, in place of `driving.alone`."""
  patch.setattr(driving, 'alone', last)
  # Nothing reads the first state, which is a program of its own.
  patch.setattr(engine.Engine, 'init', lambda self: None)


def trace(training, stop):
  """Finds what an update gives."""
  learn = training.engine.vectorize_loop(loop.Loop.learn)
  assert jax.eval_shape(learn, training.engine.abstract_state())[1]
  return {}


def build(training, stop):
  """Finds what a training's state has; its update is traced elsewhere."""
  assert jax.tree.leaves(training.engine.abstract_state().agent)
  return {}


def build_together(runners, base_dir, seeds, **options):
  """Refuses what `together.train` does; `lanes_test` has the rest."""
  together.require_alike(runners)
  reached = {'Eval/AverageReturns': np.zeros(len(seeds))}
  return dict.fromkeys(runners, reached)


class Reader:
  """Types what a page shows, in the current folder.

  Attributes:
    long: whether costly commands are run too.
  """

  def __init__(self, monkeypatch, capfd, long: bool):
    self.long = long
    self._monkeypatch = monkeypatch
    self._capfd = capfd
    self._number = 0
    if not long:
      programs.share(monkeypatch)

  def type(self, block: Block, page: str = ''):
    """Does with a block what its reader would, who has the whole page."""
    if block.file:
      pathlib.Path(block.file).write_text(block.text)
    elif block.language == 'sh':
      for words in commands(block.text):
        self._run(words, is_command_read(shlex.join(words), page))
    elif not is_left_out(block.text, self.long):
      self._number += 1
      file = pathlib.Path(f'snippet_{self._number}.{block.language}')
      if block.language == 'python':
        file.write_text(block.text)
        with self._monkeypatch.context() as patch:
          # As `python FILE` does.
          patch.setattr(sys, 'path', [str(file.parent.absolute()), *sys.path])
          if not self.long:
            patch.setattr(together, 'train', build_together)
          if not (self.long or is_read(block.text, page)):
            end_with(patch, trace if imports_own(block.text) else build)
          runpy.run_path(str(file))
      else:
        self._train_with(file, block.text)

  def _train_with(self, file: pathlib.Path, text: str):
    """Trains with lines of gin, after a shipped file and with its imports."""
    basis = 'dopamine_jax/configs/dqn_cartpole.gin'
    files = [basis, str(file)]
    if 'import dynamic_registration' not in text:
      lines = (ROOT / 'configs' / 'dqn_cartpole.gin').read_text().splitlines()
      imports = [x for x in lines if x.startswith(('from ', 'import '))]
      text = '\n'.join([*imports, text])
    file.write_text(text)
    words = [word for name in files for word in ('--gin_files', name)]
    words = ['dopamine-jax', 'train', *words, '--base_dir', f'{file}.run']
    # What a runner has besides an agent shows only as it trains.
    self._run(words, is_read='runner.Runner' in text)

  def _run(self, words: list[str], is_read: bool):
    """Runs a command of ours in this process.

    Args:
      words: of the command.
      is_read: whether what it trains is seen, by itself or by another.
    """
    line = shlex.join(words)
    if is_left_out(line, self.long):
      return
    assert words[0] == 'dopamine-jax', line
    if words[1] == 'train' or (words[1] == 'sweep' and '--vary' in words):
      named = itertools.takewhile(lambda word: word[0] != '-', words[2:])
      pairs = itertools.pairwise(words)
      files = [*named, *(file for word, file in pairs if word == '--gin_files')]
      bindings = small.bindings(files)
      if any('atari' in file for file in files):  # till a game has ended
        bindings.append('runner.Runner.training_steps = 512')
      if words[1] == 'sweep':  # for its rungs
        bindings.append('runner.Runner.checkpoint_period = 1')
      for binding in bindings:
        words = [*words, '--gin_bindings', binding]
    with self._monkeypatch.context() as patch:
      if words[1] == 'train' and not (self.long or is_read):
        words = [*words, '--quiet']  # there is nothing to sum up
        end_with(patch, trace)
      # Where tests have their folders is no matter of the pages.
      patch.setattr(disk, '_IN_MEMORY', ())
      patch.setattr(sys, 'argv', words)
      patch.setattr(sys, 'path', list(sys.path))
      status = cli.main()
    printed = self._capfd.readouterr()
    assert status == 0, line + '\n' + printed.out + printed.err


@pytest.fixture
def folder(tmp_path, monkeypatch):
  """Is the current one; modules that are imported from it are forgotten."""
  monkeypatch.chdir(tmp_path)
  # Curves that are kept in the checkout, where its reader stands.
  pathlib.Path('benchmarks').symlink_to(ROOT / 'benchmarks')
  for name, text in OWN_FILES.items():
    (tmp_path / name).write_text(text)
  importlib.invalidate_caches()
  before = set(sys.modules)
  yield tmp_path
  for name in set(sys.modules) - before:
    file = getattr(sys.modules[name], '__file__', None) or ''
    if file.startswith(str(tmp_path) + os.sep):
      del sys.modules[name]


LONG = pytest.param(True, marks=pytest.mark.slow, id='all')
SHOWING = [name for name in FILES if blocks(PAGES[name])]
FIRST = [n for n in SHOWING if not any(n in later for later in AFTER.values())]


@pytest.mark.parametrize('long', [pytest.param(False, id='cheap'), LONG])
@pytest.mark.parametrize('page', FIRST)
def test_what_a_page_shows_works(page, long, folder, monkeypatch, capfd):
  if long:
    pytest.importorskip('ale_py')
  reader = Reader(monkeypatch, capfd, long)
  for name in (page, *AFTER.get(page, ())):
    for block in blocks(PAGES[name]):
      reader.type(block, PAGES[name])


def test_what_is_not_run_is_there():
  shown = []
  for block in itertools.chain(*(blocks(PAGES[name]) for name in SHOWING)):
    is_shell = block.language == 'sh'
    shown += map(shlex.join, commands(block.text)) if is_shell else [block.text]
  for name in NOT_RUN:
    assert any(each.startswith(name) for each in shown), name
  for name in COSTLY:
    assert any(name in each for each in shown), name
  for name in OWN_FILES:
    assert name.partition('.')[0] in '\n'.join(shown), name


def test_every_block_is_of_a_kind_that_is_run():
  for name, text in PAGES.items():
    for language in re.findall(r'^ *```(\w+)$', text, re.MULTILINE):
      assert language in ('sh', 'python', 'gin', 'text'), f'{name}: {language}'


def test_what_is_installed_can_be():
  setup = (ROOT / 'setup.py').read_text('utf-8')
  extras = re.findall(r"^  '(\w+)':", setup, re.MULTILINE)
  targets = (ROOT / 'Makefile').read_text('utf-8')
  for text in PAGES.values():
    for named in re.findall(r'pip install \S+\[(\w+)\]', text):
      assert named in (*extras, 'all'), named
    for target in re.findall(r'^make (\w+)', text, re.MULTILINE):
      assert f'\n{target}:' in targets, target


@pytest.mark.parametrize(
  ('page', 'expected'),
  [
    ('This is `a.py`:\n\n```python\nx\n```', Block('python', 'x\n', 'a.py')),
    ('See `a.py`.\n\n```gin\nx = 1\n```', Block('gin', 'x = 1\n', '')),
    ('  ```sh\n  ls \\\n    a\n  ```', Block('sh', 'ls \\\n  a\n', '')),
  ],
)
def test_blocks_are_found(page, expected):
  assert blocks(page) == [expected]


def test_a_command_goes_on_behind_a_backslash_and_ends_at_a_comment():
  assert commands("a 'b c' \\\n  d  # e\n# f\ng") == [['a', 'b c', 'd'], ['g']]
