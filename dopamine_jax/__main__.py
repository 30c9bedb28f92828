"""`python -m dopamine_jax` is `dopamine-jax`."""

import os
import sys


def main() -> int:
  """Runs the command line; returns its exit status."""
  from dopamine_jax.system import signals

  # The imports take a moment, in which Ctrl-C may come too.
  with signals.ending():
    signals.receive()
    from dopamine_jax.commands import cli

    return cli.main()


if __name__ == '__main__':
  # `python -m` looks into the folder where it is started before all others:
  # a jax.py there is not the one that is meant.
  if not sys.flags.safe_path and os.path.realpath(sys.path[0]) == os.getcwd():
    del sys.path[0]
  sys.exit(main())
