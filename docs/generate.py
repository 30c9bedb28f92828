"""Fills pages with what the code says, so that neither can drift.

A hook of mkdocs. A line `<!-- generate: NAME ARGUMENTS -->` in a page becomes
what the function of that name below returns, formulas between dollars become
MathML, and links to files of the repository lead to where it is published.
"""

import ast
import contextlib
import inspect
import pathlib
import re
import shutil
import tempfile
import typing

from latex2mathml import converter
from mkdocs import plugins
import typer

from dopamine_jax import cli

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCE = 'https://github.com/dopamine-jax/dopamine-jax/blob/main'
COLAB = 'https://colab.research.google.com/github/dopamine-jax/dopamine-jax'
_MARK = re.compile(r'^<!-- generate: (\w+) ?(.*) -->$', re.MULTILINE)
_CODE = re.compile(r'(^ *```.*?^ *```$|`[^`\n]*`)', re.MULTILINE | re.DOTALL)
_URL = re.compile(r'https?://\S+')

_stack = contextlib.ExitStack()


@plugins.event_priority(100)  # before mkdocstrings reads its own
def on_config(config):
  """Shows mkdocstrings the package as it is installed, agents inside."""
  folder = pathlib.Path(_stack.enter_context(tempfile.TemporaryDirectory()))
  package = folder / 'dopamine_jax'
  shutil.copytree(ROOT / 'dopamine_jax', package)
  shutil.copytree(ROOT / 'agents', package / 'agents')
  handler = config.plugins['mkdocstrings'].config.handlers['python']
  handler['paths'] = [str(folder)]
  return config


def on_post_build(config):
  """Removes the copy."""
  del config
  _stack.close()


def on_page_markdown(markdown, page, config, files):
  """Returns a page's text with all that is generated in it."""
  del page, config, files
  markdown = _MARK.sub(lambda m: _GENERATORS[m[1]](*m[2].split()), markdown)
  parts = _CODE.split(markdown)
  parts[::2] = [_links(_formulas(part)) for part in parts[::2]]
  return ''.join(parts)


def _formulas(text):
  def display(match):
    return f'<div class="formula">{_mathml(match[1], "block")}</div>'

  def inline(match):
    return _mathml(match[1], 'inline')

  text = re.sub(r'\$\$(.+?)\$\$', display, text, flags=re.DOTALL)
  return re.sub(r'\$([^$\n]+)\$', inline, text)


def _mathml(latex, display):
  return converter.convert(' '.join(latex.split()), display=display)


def _links(text):
  """Makes `](repo:PATH)` a link into the published repository."""
  return text.replace('](repo:', f']({SOURCE}/')


def _readme(*words):
  """Returns a section of the README, without its heading."""
  title = ' '.join(words)
  text = (ROOT / 'README.md').read_text('utf-8')
  match = re.search(
    rf'^(#+) {re.escape(title)}\n(.*?)(?=^#|\Z)',
    _CODE.sub(lambda m: m[0].replace('\n#', '\n\0'), text),
    re.MULTILINE | re.DOTALL,
  )
  section = match[2].replace('\0', '#').strip()
  # Anchors are the README's own, as are files beside it.
  section = re.sub(r'\]\(#', f']({SOURCE}/README.md#', section)
  return re.sub(r'\]\((?!https?:)', f']({SOURCE}/', section)


def _metrics():
  """Returns what the package of the metrics says of each."""
  return _docstring(ROOT / 'dopamine_jax/metrics/__init__.py').split('\n', 2)[2]


def _docstring(path):
  return ast.get_docstring(ast.parse(path.read_text('utf-8')))


def _agent(module, cls):
  """Returns an agent's paper, file, departures and settings."""
  path = ROOT / 'agents' / f'{module}.py'
  if not path.exists():
    return '!!! note\n    This agent is not in this version.'
  summary, paper, *rest = _docstring(path).split('\n\n')
  url = _URL.search(paper)[0]
  paper = ' '.join(paper.replace(url, '').split()).rstrip('.')
  return '\n\n'.join(
    [
      f'*{_linked(" ".join(summary.split()))}*',
      f'| Paper | [{paper}]({url}) |\n| --- | --- |\n'
      f'| File | [agents/{path.name}]({SOURCE}/agents/{path.name}) |\n'
      f'| In gin | `@{module}.{cls}`, after '
      f'`from dopamine_jax.agents import {module}` |',
      *(_paragraph(part) for part in rest),
    ]
  )


def _paragraph(text):
  """Returns one of a docstring's; a numbered list with its lead-in apart."""
  lead, *items = re.split(r'\n(?=\d+\. )', text)
  if items and lead.startswith('Differs'):
    lead = f'## Departures from the paper\n\n{lead}'
  lines = [re.sub(r'\n\s+', ' ', item) for item in items]
  return _linked('\n\n'.join([lead, '\n'.join(lines)]).strip())


def _linked(text):
  return re.sub(r'(?<!\()https?://[^\s,;)]+', r'<\g<0>>', text)


def _settings(module, cls):
  """Returns an agent's settings, from the docstring of its class."""
  if not (ROOT / 'agents' / f'{module}.py').exists():
    return ''
  return (
    f'::: dopamine_jax.agents.{module}.{cls}\n'
    '    options:\n'
    '      members: false\n'
    '      show_root_heading: false\n'
    '      show_root_toc_entry: false\n'
    '      show_source: false\n'
  )


def _configs_of(*classes):
  """Returns a table of the configs whose agent is one of these classes."""
  rows = []
  for path in sorted((ROOT / 'configs').glob('*.gin')):
    match = re.search(r'^ *agent = @\w+\.(\w+)$', path.read_text('utf-8'), re.M)
    if match and match[1] in classes:
      title, _, result = _header(path)
      link = f'[{path.stem}](../configs.md#{path.stem})'
      rows.append(f'| {link} | {title} | {result} |')
  if not rows:
    return 'None yet.'
  return '\n'.join(['| Config | What it is | Result |', '| --- | --- | --- |', *rows])


def _header(path):
  """Returns what a gin file is, its command, and what it says of results."""
  lines = []
  for line in path.read_text('utf-8').splitlines():
    if not line.startswith('#'):
      break
    lines.append(line.removeprefix('#').removeprefix(' '))
  title, command, *rest = lines
  return title, command.strip(), ' '.join(rest)


def _configs():
  """Returns every gin file that comes along, under its header."""
  parts, domain = [], None
  paths = (ROOT / 'configs').glob('*.gin')
  for path in sorted(paths, key=lambda p: (_domain(p), p.stem)):
    if _domain(path) != domain:
      domain = _domain(path)
      parts.append(f'## {domain}')
    title, command, result = _header(path)
    body = path.read_text('utf-8').strip().replace('\n', '\n    ')
    parts.append(
      f'### {path.stem} {{ #{path.stem} }}\n\n{title} {result}\n\n'
      f'```sh\n{command}\n```\n\n'
      f'??? note "configs/{path.name}"\n\n    ```python\n    {body}\n    ```'
    )
  return '\n\n'.join(parts)


def _domain(path):
  stem = path.stem.removesuffix('_compiled')
  name = stem.rpartition('_')[2]
  return {
    'cartpole': 'CartPole',
    'minatar': 'MinAtar',
    'lunarlander': 'LunarLander',
    'mountaincar': 'MountainCar',
    'mujoco': 'MuJoCo',
  }.get(name, name.capitalize())


def _commands():
  """Returns each command with its arguments, as the command line has them."""
  return '\n\n'.join(
    _command(each.callback) for each in cli.app.registered_commands
  )


def _command(function):
  rows, arguments, required = [], [], []
  hints = typing.get_type_hints(function, include_extras=True)
  for name, parameter in inspect.signature(function).parameters.items():
    kind, info = typing.get_args(hints[name])
    needed = parameter.default is inspect.Parameter.empty
    if isinstance(info, typer.models.ArgumentInfo):
      shown = (info.metavar or name.upper()).removesuffix('...')
      arguments.append(info.metavar or shown)
    else:
      shown = (info.param_decls or [f'--{name.replace("_", "-")}'])[0]
      if needed:
        required.append(f'{shown} {_kind(kind)}')
      if kind is bool and not info.param_decls:
        shown += f' / --no-{shown[2:]}'
      elif kind is not bool:
        shown += f' {_kind(kind)}'
    rows.append(
      f'| `{shown}` | {_cell(info.help)} | {_default(parameter, info)} |'
    )
  name = function.__name__
  usage = ' '.join(['dopamine-jax', name, *arguments, *required])
  table = ['| Argument | Meaning | Default |', '| --- | --- | --- |', *rows]
  return '\n\n'.join(
    [
      f'## {name}',
      inspect.getdoc(function),
      f'```sh\n{usage}{" [OPTIONS]" if len(rows) > len(arguments) else ""}\n```',
      *(['\n'.join(table)] if rows else []),
    ]
  )


def _kind(hint):
  """Returns what stands for an option's value."""
  names = {pathlib.Path: 'PATH', int: 'N', float: 'X', str: 'TEXT'}
  for each in (hint, *typing.get_args(hint)):
    if each in names:
      return names[each]
  return 'VALUE'


def _default(parameter, info):
  if isinstance(info.show_default, str):
    return _cell(info.show_default)
  value = parameter.default
  if value is inspect.Parameter.empty:
    return 'required'
  if value is None or value == ():
    return ''
  if isinstance(value, bool):
    return 'on' if value else 'off'
  return f'`{value}`'


def _cell(text):
  return (text or '').replace('|', '\\|')


def _modules(folder):
  """Returns the reference of every module of a folder."""
  package = folder.replace('/', '.')
  if folder == 'agents':
    package = 'dopamine_jax.agents'
  names = sorted(
    path.stem for path in (ROOT / folder).glob('*.py') if path.stem[0] != '_'
  )
  return '\n\n'.join(f'::: {package}.{name}' for name in names)


def _notebooks():
  """Returns a table of the notebooks, by their own first words."""
  import nbformat

  rows = ['| Notebook | In Colab |', '| --- | --- |']
  for path in sorted((ROOT / 'colabs').glob('*.ipynb')):
    first = nbformat.read(path, as_version=4).cells[0].source
    title = first.split('\n')[0].lstrip('# ')
    file = f'colabs/{path.name}'
    rows.append(
      f'| [{title}]({SOURCE}/{file}) | [open]({COLAB}/blob/main/{file}) |'
    )
  return '\n'.join(rows)


_GENERATORS = {
  'agent': _agent,
  'commands': _commands,
  'configs': _configs,
  'configs_of': _configs_of,
  'metrics': _metrics,
  'modules': _modules,
  'notebooks': _notebooks,
  'readme': _readme,
  'settings': _settings,
}
