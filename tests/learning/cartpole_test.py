"""The shipped configuration of DQN solves CartPole."""

import numpy as np
import pytest

from dopamine_jax import config
from dopamine_jax import runner


@pytest.mark.slow
def test_dqn_solves_cartpole(tmp_path):
  solver = config.load(['dqn_cartpole']).build(runner.Runner)
  statistics = solver.train(tmp_path, num_seeds=3, quiet=True)
  assert statistics['Eval/NumEpisodes'].tolist() == [100] * 3
  # CartPole-v1 counts as solved at a mean of 475 over 100 episodes. The median
  # of the seeds, as the last iteration of one may happen to be a bad one.
  assert np.median(statistics['Eval/AverageReturns']) >= 475
