"""Experience as a pytree: a ring of single frames and what samples from it."""
