"""The one exception that a user's mistake raises."""


class UserError(Exception):
  """Input that can't work: says what was given, what fits, how to mend it.

  The command line prints the message alone, without a traceback, and exits
  with `status`.
  """

  status = 1
