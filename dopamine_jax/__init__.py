"""Reinforcement-learning research in JAX.

Importing this package alone imports no JAX: read `dopamine_jax.agent` first,
then an agent in `dopamine_jax.agents`.
"""

__version__ = '0.1.0'
