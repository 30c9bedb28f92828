"""sbx's DQN: Stable-Baselines3's loop around updates in JAX; Huber's loss."""

from typing import Any

import sbx

from benchmarks import clock
from benchmarks import jobs
from benchmarks.peers import sb3

PACKAGES = ('sbx-rl', 'stable-baselines3', 'jax', 'jaxlib', 'gymnasium')


def measure(job: jobs.Job) -> tuple[list[float], dict[str, Any]]:
  """Returns rates and the hyper-parameters in force."""
  expected = job.hyperparameters
  policy_kwargs = {
    'optimizer_kwargs': {'eps': expected.adam_epsilon},
    # The width of each hidden layer, or of the one after the convolutions.
    'net_arch': list(expected.hidden[-1:]),
  }
  model = sb3.make(sbx.DQN, expected, policy_kwargs)
  state = model.policy.qf_state
  found = sb3.settings(model) | clock.adam_of(state.tx, expected)
  found['kernels'] = clock.kernels_of(state.params)
  values = sb3.rates(model, job)
  return values, found | {'updates': model._n_updates}
