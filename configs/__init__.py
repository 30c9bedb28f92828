"""One gin file per experiment: `dopamine_jax/configs/AGENT_DOMAIN.gin`."""
