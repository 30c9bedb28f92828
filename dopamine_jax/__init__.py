"""Reinforcement-learning research in JAX.

Importing this package alone imports no JAX: read `dopamine_jax.agent` first,
then an agent in `dopamine_jax.agents`.
"""

import pathlib

__version__ = '0.1.0'

# In a checkout agents/ and configs/ lie beside this package, not inside it; an
# installed package holds both, and nothing is appended. So one import name,
# `dopamine_jax.agents`, serves both. Appended last: what the package itself
# holds comes first.
_checkout = pathlib.Path(__file__).resolve().parent.parent
if (_checkout / 'setup.py').is_file():
  __path__.append(str(_checkout))
