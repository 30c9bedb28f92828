"""One file per agent. Import them as `dopamine_jax.agents`, never `agents`."""

if __name__ != 'dopamine_jax.agents':  # from a checkout's root
  raise ImportError('import dopamine_jax.agents: agents is a second copy of it')
