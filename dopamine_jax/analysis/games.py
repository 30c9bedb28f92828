"""Names of games, however written, and scores on a human's scale."""

import functools
import importlib.resources
import re

import numpy as np
import pandas as pd

# The five tasks of Dopamine's curves.
MUJOCO = ('ant', 'halfcheetah', 'hopper', 'humanoid', 'walker2d')


def data(name: str):
  """Returns a file of the package's published data."""
  return importlib.resources.files('dopamine_jax.analysis') / 'data' / name


def key(name: str) -> str:
  """Returns 'bankheist' for 'BankHeist', 'bank_heist', 'ALE/BankHeist-v5'.

  Another suite's game of the same name is another game: 'minataramidar'.
  """
  _, _, name = name.rpartition(':')  # of 'module:id'
  name = re.sub(r'-v\d+$', '', name.removeprefix('ALE/'))
  name = re.sub(r'(NoFrameskip|Deterministic)$', '', name)
  return re.sub(r'[^0-9a-z]', '', name.lower())


@functools.cache
def random_human() -> pd.DataFrame:
  """Returns the scores of a random and a human player, indexed by `key`.

  57 games, the columns `random` and `human`; sources in data/README.md.
  """
  with data('atari_random_human.csv').open() as file:
    table = pd.read_csv(file)
  return table.assign(game=table.game.map(key)).set_index('game')


KNOWN = frozenset({*random_human().index, *MUJOCO})


def human_normalized(
  scores: np.ndarray | pd.Series, game: str
) -> np.ndarray | pd.Series:
  """Returns (score - random) / (human - random): 0 is random, 1 a human.

  Mnih et al. (2015), Human-level control through deep reinforcement learning.

  Raises:
    KeyError: if no human's score is known of the game.
  """
  row = random_human().loc[key(game)]
  return (scores - row['random']) / (row['human'] - row['random'])
