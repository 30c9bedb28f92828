"""One file per agent. Import them as `dopamine_jax.agents`, never `agents`."""
