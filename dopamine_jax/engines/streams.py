"""Seeds of environments: every purpose draws from a stream of its own."""

from collections.abc import Sequence
import enum

import numpy as np


class Stream(enum.IntEnum):
  """What environment seeds are for; no two purposes share a stream."""

  TRAIN = 0
  EVALUATE = 1
  COMMAND = 2  # `evaluate` and `record`
  FILM = 3


def env_seeds(
  seeds: Sequence[int], stream: Stream, iteration: int, num_envs: int
) -> list[int]:
  """Returns environment seeds [S * N]; each run seed's are its solo run's."""
  return [
    int(word >> 1)  # Environments take 31 bits.
    for seed in seeds
    for word in np.random.SeedSequence(
      [seed, int(stream), iteration]
    ).generate_state(num_envs)
  ]
