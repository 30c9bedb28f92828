"""What made a run: which versions, on what machine, by which command."""

import contextlib
import importlib.metadata
import os
import pathlib
import platform
import re
import shlex
import subprocess
import sys
from typing import Any

import jax
import psutil

_LIBRARIES = ('dopamine-jax', 'jax', 'jaxlib', 'flax', 'optax', 'gymnasium')


def versions() -> dict[str, str]:
  """Returns the versions that a bit-exact resume depends on."""
  found = {'python': platform.python_version()}
  for library in _LIBRARIES:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      found[library] = importlib.metadata.version(library)
  return found


def machine() -> dict[str, Any]:
  """Returns what the speed of a run depends on, and on GPUs its numbers."""
  return {
    'system': platform.platform(),
    'processor': _processor(),
    'cores': os.cpu_count(),
    'memory_gb': round(psutil.virtual_memory().total / 1e9, 1),
    'devices': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
    'backend': jax.default_backend(),
    'xla_flags': os.environ.get('XLA_FLAGS', ''),
  }


def commits() -> dict[str, str]:
  """Returns what git has checked out: 'dopamine-jax', 'working folder'.

  Of the framework, if it runs from a checkout, with '-dirty' behind the commit
  where files differ from it. Of the working folder the commit alone: to compare
  its files would run what the folder's own settings of git name.
  """
  package = pathlib.Path(__file__).parent.parent
  found = {}
  # Not of a repository that only holds the environment where it is installed.
  if _git(package, 'ls-files', '--error-unmatch', '__init__.py'):
    describe = ('describe', '--always', '--dirty', '--exclude=*', '--abbrev=40')
    found['dopamine-jax'] = _git(package, *describe)
  found['working folder'] = _git('.', 'rev-parse', 'HEAD')
  return {name: commit for name, commit in found.items() if commit}


def _git(folder, *words):
  """Returns what git prints; '' where it fails, or is not there."""
  try:
    done = subprocess.run(
      ['git', '-C', str(folder), *words],
      env=os.environ | {'GIT_OPTIONAL_LOCKS': '0'},
      stdin=subprocess.DEVNULL,
      capture_output=True,
      text=True,
      timeout=10,
    )
  except (OSError, subprocess.SubprocessError):
    return ''
  return '' if done.returncode else done.stdout.strip()


def command() -> str:
  """Returns the command that runs, as a shell would take it."""
  program, *words = sys.argv
  if pathlib.Path(program).parent.name == 'dopamine_jax':  # python -m
    program = 'dopamine-jax'
  return shlex.join([pathlib.Path(program).name, *words])


def _processor():
  """Returns the processor's name, as far as the system tells it."""
  with contextlib.suppress(OSError):
    text = pathlib.Path('/proc/cpuinfo').read_text()
    if name := re.search(r'^model name\s*: (.+)$', text, re.MULTILINE):
      return name.group(1)
  return platform.processor() or platform.machine()
