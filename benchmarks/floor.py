"""ALE's vector environment alone, with random actions: what B' can't exceed."""

from typing import Any

import numpy as np

from benchmarks import clock
from benchmarks import jobs
from dopamine_jax.environments import atari

PACKAGES = ('ale-py', 'gymnasium')


def measure(job: jobs.Job) -> tuple[list[float], dict[str, Any]]:
  """Returns steps a second of the very environment that our agent steps."""
  expected = job.hyperparameters
  settings = atari.Atari(
    game='Pong',
    frame_skip=expected.frame_skip,
    stack=expected.stack,
    sticky_actions=expected.sticky_actions,
  )
  vector = settings.make(1)._vector  # ALE's own, without our adapter
  vector.reset(seed=0)
  rng = np.random.default_rng(0)
  watch = clock.Clock(job)
  try:
    while True:
      watch.tick()
      vector.step(rng.integers(0, 6, 1))
  except clock.Finished:
    pass
  vector.close()
  return watch.rates, None
