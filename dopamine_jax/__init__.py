"""Reinforcement-learning research in JAX.

Importing this package alone imports no JAX: read `dopamine_jax.agent` first,
then an agent in `dopamine_jax.agents`.
"""

import os

__version__ = '0.1.0'

# In a checkout agents/ and configs/ lie beside this package, not inside it; an
# installed package holds both, and nothing is appended. So one import name,
# `dopamine_jax.agents`, serves both. Appended last: what the package itself
# holds comes first.
_checkout = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
if os.path.isfile(os.path.join(_checkout, 'setup.py')):
  __path__.append(_checkout)
