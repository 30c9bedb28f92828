"""The one exception that a user's mistake raises."""


class UserError(Exception):
  """Input that can't work: says what was given, what fits, how to mend it.

  The command line prints the message alone, without a traceback, and exits
  with `status`.
  """

  status = 1


def first_line(error: BaseException) -> str:
  """Returns the first line of an exception's message, or else its type."""
  return next(iter(str(error).splitlines()), '') or type(error).__name__
