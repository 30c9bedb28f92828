"""What all commands do: set up JAX, and print."""

import contextlib

import typer


def prepare(*, users_code: bool = True, finds_devices: bool = True):
  """Sets up JAX.

  Args:
    users_code: whether modules of the folder where one stands can be imported.
    finds_devices: whether JAX looks for them now.
  """
  from dopamine_jax.engines import startup

  startup.prepare(say, users_code=users_code)
  if finds_devices:
    startup.find_devices()


def say(message: str):
  """Prints what the user should know beside the results."""
  with contextlib.suppress(OSError):  # a terminal that is gone
    show(message, err=True)


def show(message: str, err: bool = False):
  """Prints what may hold a stranger's words, which a terminal could obey."""
  from dopamine_jax.system import texts

  typer.echo(texts.printable(message), err=err)
