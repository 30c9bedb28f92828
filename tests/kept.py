"""A collector that a test holds on to, by a name that a run can write down."""

_kept = []


def keep(collector):
  """Returns a collector, which is what `newest` makes from now on."""
  _kept.append(collector)
  return collector


def newest():
  """Makes the collector of a run."""
  return _kept[-1]
