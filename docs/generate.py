"""Fills pages with what the code says, so that neither can drift.

A hook of mkdocs. A line `<!-- generate: NAME ARGUMENTS -->` in a page becomes
what the function of that name below returns, formulas between dollars become
MathML, and links to files of the repository lead to where it is published.
"""

import ast
import inspect
import pathlib
import re
import typing

from latex2mathml import converter
import typer
from typer import utils

from dopamine_jax.commands import cli

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCE = 'https://github.com/dopamine-jax/dopamine-jax/blob/main'
COLAB = 'https://colab.research.google.com/github/dopamine-jax/dopamine-jax'
_MARK = re.compile(r'^<!-- generate: (\w+) ?(.*) -->$', re.MULTILINE)
_CODE = re.compile(r'(^ *```.*?^ *```$|`[^`\n]*`)', re.MULTILINE | re.DOTALL)
_URL = re.compile(r'https?://\S+')


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
    # Markdown takes a line that begins with <math> for a block.
    return f'<span>{_mathml(match[1], "inline")}</span>'

  text = re.sub(r'\$\$(.+?)\$\$', display, text, flags=re.DOTALL)
  return re.sub(r'\$([^$\n]+)\$', inline, text)


def _mathml(latex, display):
  return converter.convert(' '.join(latex.split()), display=display)


def _links(text):
  """Makes `](repo:PATH)` a link into the published repository."""
  return text.replace('](repo:', f']({SOURCE}/')


def _metrics():
  """Returns what the package of the metrics says of each."""
  return _docstring(ROOT / 'dopamine_jax/metrics/__init__.py').split('\n', 2)[2]


def _docstring(path):
  return ast.get_docstring(ast.parse(path.read_text('utf-8')))


def _agent(module, cls):
  """Returns an agent's idea, paper and file."""
  path = ROOT / 'agents' / f'{module}.py'
  if not path.exists():
    return '!!! note\n    This agent is not in this version.'
  summary, paper, *rest = _docstring(path).split('\n\n')
  url = _URL.search(paper)[0]
  paper = ' '.join(paper.replace(url, '').split()).rstrip('.')
  notes = [part for part in rest if not part.startswith('Differs')]
  return '\n\n'.join(
    [
      ' '.join(summary.split()),
      f'- Paper: [{paper}]({url})\n'
      f'- File: [agents/{path.name}]({SOURCE}/agents/{path.name})\n'
      f'- In gin: `@{module}.{cls}`, after '
      f'`from dopamine_jax.agents import {module}`',
      *(_linked(note) for note in notes),
    ]
  )


def _departures(module):
  """Returns how an agent differs from its paper, as its file says it."""
  path = ROOT / 'agents' / f'{module}.py'
  parts = _docstring(path).split('\n\n') if path.exists() else []
  found = []
  for part in parts:
    if part.startswith('Differs'):
      lead, *items = re.split(r'\n(?=\d+\. )', part)
      items = '\n'.join(' '.join(item.split()) for item in items)
      if lead != 'Differs from the paper:':
        found.append(_linked(lead))
      found.append(items)
  return '\n\n'.join(['## Departures from the paper', *found] if found else [])


def _linked(text):
  return re.sub(r'(?<!\()https?://[^\s,;)]*[^\s,;:.)]', r'<\g<0>>', text)


def _settings(module, cls):
  """Returns the settings that an agent adds, or gives another default."""
  node = _class(module, cls)
  if node is None:
    return ''
  base = ast.unparse(node.bases[0]).replace('agent_lib', 'agent')
  meanings = _meanings(module, cls)
  rows = [
    f'| `{n.target.id}` | {_value(n.value)} | {meanings.get(n.target.id, "")} |'
    for n in node.body
    if isinstance(n, ast.AnnAssign)
  ]
  if not rows:
    return f'Those of `{base}`, which it extends.'
  head = ['| Setting | Default | Meaning |', '| --- | --- | --- |']
  lead = f'Beside those of `{base}`, which it extends, or with other defaults:'
  return f'{lead}\n\n' + '\n'.join([*head, *rows])


def _class(module, name):
  """Returns a class's syntax tree; None if there is no such class."""
  file = f'{module.removesuffix("_lib")}.py'
  for folder in ('agents', 'dopamine_jax'):
    for path in sorted((ROOT / folder).rglob(file)):
      for node in ast.parse(path.read_text('utf-8')).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
          return node
  return None


def _meanings(module, cls):
  """Returns what is said of a class's settings, or else of its parent's."""
  node = _class(module, cls)
  if node is None or not node.bases:
    return {}
  module, _, parent = ast.unparse(node.bases[0]).rpartition('.')
  own = _attributes(ast.get_docstring(node) or '')
  return _meanings(module, parent) | own


def _value(node):
  return '' if node is None else f'`{ast.unparse(node)}`'


def _attributes(docstring):
  """Returns what a docstring says of each attribute, by name."""
  _, _, section = docstring.partition('Attributes:\n')
  found = re.findall(r'^  (\w+): (.*(?:\n    .*)*)', section, re.MULTILINE)
  return {name: _cell(' '.join(text.split())) for name, text in found}


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
  return '\n'.join(
    ['| Config | What it is | Result |', '| --- | --- | --- |', *rows]
  )


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
      f'```sh\n{_wrapped(command)}\n```\n\n'
      f'??? note "configs/{path.name}"\n\n    ```python\n    {body}\n    ```'
    )
  return '\n\n'.join(parts)


def _wrapped(command):
  """Returns a command, an option a line after the first."""
  return re.sub(r' (--(?!gin_files))', r' \\\n  \1', command)


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
  groups = [('', cli.app)] + [
    (f'{each.typer_instance.info.name} ', each.typer_instance)
    for each in cli.app.registered_groups
  ]
  return '\n\n'.join(
    _command(group + each.callback.__name__, each.callback)
    for group, app in groups
    for each in app.registered_commands
    if not each.hidden
  )


def _command(name, function):
  rows, usage = [], ['dopamine-jax', name]
  for each in utils.get_params_from_function(function).values():
    info, kind = each.default, each.annotation
    if kind is typer.Context:  # which no user gives
      continue
    required = info.default is ...
    if isinstance(info, typer.models.ArgumentInfo):
      shown = info.metavar or each.name.upper()
    else:
      shown = _option(each.name, info, kind)
    if required:
      usage.append(shown)
    default = 'required' if required else _default(info)
    rows.append(f'| `{shown}` | {_cell(info.help)} | {default} |')
  if any('| required |' not in row for row in rows):
    usage.append('[OPTIONS]')
  parts = [
    f'## {name}',
    inspect.getdoc(function),
    f'```sh\n{" ".join(usage)}\n```',
  ]
  if rows:
    head = ['| Argument | Meaning | Default |', '| --- | --- | --- |']
    parts.append('\n'.join([*head, *rows]))
  return '\n\n'.join(parts)


def _option(name, info, kind):
  """Returns how an option is written, with what stands for its value."""
  flags = ', '.join(info.param_decls or [f'--{name.replace("_", "-")}'])
  if kind is bool:
    return flags if info.param_decls else f'{flags} / --no-{flags[2:]}'
  names = {pathlib.Path: 'PATH', int: 'N', float: 'X', str: 'TEXT'}
  kinds = [k for k in (kind, *typing.get_args(kind)) if k in names]
  return f'{flags} {names[kinds[0]] if kinds else "VALUE"}'


def _default(info):
  if isinstance(info.show_default, str):
    return _cell(info.show_default)
  if isinstance(info.default, bool):
    return 'on' if info.default else 'off'
  return '' if info.default in (None, ()) else f'`{info.default}`'


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
  'departures': _departures,
  'metrics': _metrics,
  'modules': _modules,
  'notebooks': _notebooks,
  'settings': _settings,
}
