"""`python -m dopamine_jax` is `dopamine-jax`."""

import sys

from dopamine_jax import cli

if __name__ == '__main__':
  sys.exit(cli.main())
