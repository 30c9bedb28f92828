"""Gin as a front end: files are read once, and give settings that are values.

Read `build` first: `load` reads files and bindings into a `Config`, whose
`build` makes the tree of settings below a class, as Python code would. Nothing
looks a binding up afterwards. `write` is the way back: it walks such a tree,
whoever built it, and returns the gin file that builds it again; `record` also
sees that it does.

The rest: `files` (where gin files lie), `statements` (what they say, with names
resolved), `checks` (values for functions of other libraries), `unread`
(bindings that nothing uses), `meanings` (settings in the words of their
docstrings). Of gin, its parser alone is used.
"""

from dopamine_jax.config.build import Config
from dopamine_jax.config.build import load
from dopamine_jax.config.files import find
from dopamine_jax.config.files import read
from dopamine_jax.config.files import shipped
from dopamine_jax.config.meanings import of_file as meanings_of
from dopamine_jax.config.write import record
from dopamine_jax.config.write import write

__all__ = [
  'Config',
  'find',
  'load',
  'meanings_of',
  'read',
  'record',
  'shipped',
  'write',
]
