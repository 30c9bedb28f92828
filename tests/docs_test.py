"""The documentation builds strictly, says all that there is, and its links
lead somewhere."""

import ast
import html
import os
import pathlib
import re
import subprocess
import sys
import urllib.parse

import pytest
from typer import testing

from dopamine_jax.commands import cli

pytest.importorskip('mkdocs', reason='needs the extra docs')
pytest.importorskip('mkdocstrings', reason='needs the extra docs')

ROOT = pathlib.Path(__file__).resolve().parent.parent
REPOSITORY = 'https://github.com/dopamine-jax/dopamine-jax/'
MARKDOWN = [
  *('README.md', 'CONTRIBUTING.md', 'CHANGELOG.md'),
  *('benchmarks/GPU.md', 'benchmarks/RESULTS.md', 'benchmarks/WHERE.md'),
  'dopamine_jax/analysis/data/README.md',
]
SEARCH = '  - search\n'


@pytest.fixture(scope='module')
def site(tmp_path_factory):
  """Builds the site, strictly; returns its folder.

  It has no index to search in, which takes a fifth of the time.
  """
  folder = tmp_path_factory.mktemp('site')
  settings = (ROOT / 'mkdocs.yml').read_text('utf-8')
  assert settings.count(SEARCH) == 1
  command = [sys.executable, '-m', 'mkdocs', 'build', '--strict']
  result = subprocess.run(
    [*command, '--config-file', '-', '--site-dir', folder],
    cwd=ROOT,
    input=settings.replace(SEARCH, ''),
    env=os.environ | {'NO_MKDOCS_2_WARNING': '1', 'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
  )
  assert result.returncode == 0, result.stderr
  return folder


def text_of(page):
  """Returns a page without its markup."""
  content = page.read_text('utf-8').partition('<article')[2]
  content = content.partition('</article>')[0]
  return html.unescape(re.sub(r'<[^>]*>', '', content))


def anchors_of(page):
  return set(re.findall(r'\bid="?([^"\s>]+)', page.read_text('utf-8')))


def test_every_link_inside_the_site_leads_somewhere(site):
  anchors = {page: anchors_of(page) for page in site.rglob('*.html')}
  broken, count = [], 0
  for page in anchors:
    for link in re.findall(r'(?:href|src)="?([^"\s>]+)', page.read_text()):
      link = urllib.parse.unquote(html.unescape(link))
      if re.match(r'[a-z]+:|//', link) or page.name == '404.html':
        continue
      count += 1
      path, _, anchor = link.partition('#')
      target = (page.parent / path).resolve() if path else page
      target = target / 'index.html' if target.is_dir() else target
      if not target.exists():
        broken.append(f'{page.relative_to(site)}: {link}')
      elif anchor and target.suffix == '.html' and anchor != '__consent':
        if anchor not in anchors[target]:
          broken.append(f'{page.relative_to(site)}: {link}')
  assert count > 1_000
  assert not broken


def test_nothing_is_fetched_from_outside_to_show_a_page(site):
  fetched = re.compile(
    r'<(?:script|img|iframe|source|video)[^>]*\bsrc="?(?:https?:)?//'
    r'|<link[^>]*rel="?(?:stylesheet|preconnect|preload)[^>]*href="?https?:'
    r'|@import|url\(["\']?https?:'
  )
  for page in [*site.rglob('*.html'), *site.glob('assets/*.css')]:
    assert not fetched.search(page.read_text('utf-8')), page


def test_links_into_the_repository_name_files_that_are_there(site):
  pattern = re.compile(rf'href="?{re.escape(REPOSITORY)}blob/main/([^"\s>#]+)')
  files = {
    file
    for page in site.rglob('*.html')
    for file in pattern.findall(page.read_text('utf-8'))
  }
  assert 'agents/dqn.py' in files
  assert not [file for file in files if not (ROOT / file).exists()]


def test_every_metric_is_explained(site):
  source = (ROOT / 'dopamine_jax/metrics/__init__.py').read_text('utf-8')
  tags = re.findall(r'^\| (\w+/[\w.]+)', source, re.MULTILINE)
  assert len(tags) > 30
  text = text_of(site / 'metrics/index.html')
  assert not [tag for tag in tags if tag not in text]


def test_every_command_is_there_with_every_option(site, monkeypatch):
  monkeypatch.setenv('COLUMNS', '200')  # no option is cut short
  monkeypatch.setenv('NO_COLOR', '1')
  text = text_of(site / 'commands/index.html')
  names = [each.callback.__name__ for each in cli.app.registered_commands]
  assert 'train' in names
  assert 'dopamine-jax new agent NAME' in text
  for name in names:
    shown = testing.CliRunner().invoke(cli.app, [name, '--help']).output
    options = set(re.findall(r'--[a-z][\w-]*', shown)) - {'--help'}
    section = re.search(rf'dopamine-jax {name}\b', text)
    assert section, name
    assert not [option for option in options if option not in text], name


def test_every_config_is_there_with_its_command(site):
  page = site / 'configs/index.html'
  text, anchors = text_of(page), anchors_of(page)
  for path in (ROOT / 'configs').glob('*.gin'):
    assert path.stem in anchors
    assert f'dopamine-jax train {path.stem}' in text


def test_every_agent_has_a_page_with_paper_and_settings(site):
  pages = {p.parent.name: text_of(p) for p in site.glob('agents/*/index.html')}
  for path in (ROOT / 'agents').glob('*.py'):
    for node in ast.parse(path.read_text('utf-8')).body:
      if not isinstance(node, ast.ClassDef) or not is_agent(node):
        continue
      named = f'@{path.stem}.{node.name},'
      (page,) = (text for text in pages.values() if named in text)
      assert 'Paper:' in page
      assert 'What it learns' in page
      for setting in node.body:
        if isinstance(setting, ast.AnnAssign):
          assert setting.target.id in page


def is_agent(node):
  parents = {ast.unparse(base).split('.')[-1] for base in node.bases}
  others = {'PyTreeNode', 'NamedTuple', 'Module', 'DQNState', 'object'}
  return not parents & others


def test_formulas_need_no_script(site):
  page = (site / 'agents/dqn/index.html').read_text('utf-8')
  assert page.count('<math') > 5
  assert '$' not in text_of(site / 'agents/dqn/index.html')


@pytest.mark.parametrize('name', MARKDOWN)
def test_links_between_markdown_files_lead_somewhere(name):
  path = ROOT / name
  text = path.read_text('utf-8')
  for link in re.findall(r'\]\(([^)\s]+)\)', without_code(text)):
    if re.match(r'[a-z]+:', link):
      continue
    file, _, anchor = link.partition('#')
    target = path.parent / file if file else path
    assert target.exists(), link
    if anchor:
      assert anchor in headings(target.read_text('utf-8')), link


def without_code(text):
  text = re.sub(r'^ *```.*?^ *```$', '', text, flags=re.MULTILINE | re.DOTALL)
  return re.sub(r'`[^`\n]*`', '', text)


def headings(text):
  """Returns the anchors that GitHub gives a file's headings."""
  titles = re.findall(r'^#+ (.*)$', without_code_blocks(text), re.MULTILINE)
  kept = [re.sub(r'[^\w\- ]', '', title.lower()) for title in titles]
  return {title.replace(' ', '-') for title in kept}


def without_code_blocks(text):
  return re.sub(r'^ *```.*?^ *```$', '', text, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('# Two engines, one agent', {'two-engines-one-agent'}),
    ('## Goals and Non-goals\n### `a_b`', {'goals-and-non-goals', 'a_b'}),
    ('```\n# no heading\n```', set()),
  ],
)
def test_headings_have_githubs_anchors(text, expected):
  assert headings(text) == expected
