"""What made a run: which versions, on what machine, by which command."""

import contextlib
import importlib.metadata
import os
import pathlib
import platform
import re
import shlex
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
  """Returns what the speed of a run depends on."""
  return {
    'system': platform.platform(),
    'processor': _processor(),
    'cores': os.cpu_count(),
    'memory_gb': round(psutil.virtual_memory().total / 1e9, 1),
    'devices': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
  }


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
