"""sbx: Stable-Baselines3's loops around updates in JAX; DQN's loss is Huber's.

PPO's policy and value have an optimizer each. On pixels each computes the
convolutions for itself, after every step of which the other gets a copy. SAC's
policy is moved by critics that have moved.
"""

from typing import Any

import sbx

from benchmarks import algorithms
from benchmarks import clock
from benchmarks import five
from benchmarks import jobs
from benchmarks.peers import sb3

PACKAGES = ('sbx-rl', 'stable-baselines3', 'jax', 'jaxlib', 'gymnasium')


def measure(
  job: jobs.Job, name: str = '', steps: int = 0
) -> tuple[list[float], dict[str, Any] | None]:
  """Returns rates and the hyper-parameters in force; see `sb3.measure`."""
  if steps:
    return five.of_peer('sbx', name, steps), None
  expected = job.hyperparameters
  model, found_of = _made(expected, 0)
  values = sb3.rates(model, job)
  return values, sb3.settings(model, expected) | found_of(model, expected)


def model_of(expected: algorithms.Hyperparameters, seed: int = 0) -> Any:
  """Returns the algorithm, which has learnt nothing yet."""
  return _made(expected, seed)[0]


def _made(expected, seed):
  """Returns the algorithm, and what tells its hyper-parameters."""
  if isinstance(expected, algorithms.SAC | algorithms.TD3):
    layers, found_of = expected.hidden, _found_of_sac
  elif not isinstance(expected, algorithms.PPO):
    # The width of each hidden layer, or of the one after the convolutions.
    layers, found_of = expected.hidden[-1:], _found_of_dqn
  else:
    # The one after the convolutions is theirs.
    layers = expected.hidden if expected.stack == 1 else ()
    found_of = _found_of_ppo
  model = sb3.make(
    sbx,
    expected,
    {
      'optimizer_kwargs': {'eps': expected.adam_epsilon},
      'net_arch': list(layers),
    },
    seed,
  )
  return model, found_of


def _found_of_dqn(model, expected):
  state = model.policy.qf_state
  kernels = clock.kernels_of(state.params)
  return {'kernels': kernels, **clock.adam_of(state.tx, expected)}


def _found_of_sac(model, expected):
  if model.policy_delay != 1:
    raise ValueError('the policy is not updated whenever the critics are')
  policy, critics = model.policy.actor_state, model.policy.qf_state
  temperature, count = model.ent_coef_state, model.policy.n_critics
  heads = clock.kernels_of(
    [layer for _, layer in sorted(policy.params['params'].items())]
  )
  adams = [
    clock.adam_of(each.tx, expected) for each in (policy, critics, temperature)
  ]
  return {
    # The critics' lie in one array, along its first axis.
    'kernels': clock.with_one_head(heads)
    + clock.kernels_of(critics.params, count) * count,
    'learns_temperature': float(temperature.params['log_ent_coef']) != 0,
    'updates': int(critics.step),
    **clock.three_adams(*adams),
  }


def _found_of_ppo(model, expected):
  policy, value = model.policy.actor_state, model.policy.vf_state
  # The convolutions are two copies of the same numbers.
  own = {
    name: layer
    for name, layer in value.params['params'].items()
    if not name.startswith('NatureCNN')
  }
  return {
    'kernels': clock.kernels_of((policy.params, own)),
    'max_norm': clock.max_norm_of(policy.tx),
    'updates': int(policy.step),
    **clock.adam_of(policy.tx, expected),
  }
