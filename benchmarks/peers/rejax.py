"""rejax: environment and training in one jitted function.

PPO's policy and value have an optimizer each. Gradients are clipped each number
by itself, PQN's too.
"""

from typing import Any

import gymnax
import jax
import rejax
from rejax import networks

from benchmarks import algorithms
from benchmarks import clock
from benchmarks import jobs

PACKAGES = ('rejax', 'gymnax', 'jax', 'jaxlib')


def measure(
  job: jobs.Job, num_seeds: int = 1
) -> tuple[list[float], dict[str, Any]]:
  """Returns agent steps a second over all seeds, and the hyper-parameters."""
  expected = job.hyperparameters
  algorithm = make(expected, job.window)
  keys = jax.random.split(jax.random.key(0), num_seeds)
  init = algorithm.init_state

  def train(state):
    return algorithm.train(train_state=state)[0]

  if num_seeds > 1:
    init, train = jax.vmap(init), jax.vmap(train)
  else:
    keys = keys[0]
  train = jax.jit(train, donate_argnums=0)
  state = jax.jit(init)(keys)
  for _ in range(job.warmup // job.window):
    state = jax.block_until_ready(train(state))
  rates = []
  for _ in range(jobs.WINDOWS):
    with clock.timed(num_seeds * job.window, rates):
      state = jax.block_until_ready(train(state))
  return rates, _found(algorithm, state, num_seeds, expected)


def _with_five_values(environment: Any) -> Any:
  """Returns the gymnax environment with a step that rejax can read.

  The repair: gymnax 1 tells termination and truncation apart, which makes six
  values; rejax reads five.
  """
  step = environment.step

  def merged(*arguments):
    *values, terminated, truncated, info = step(*arguments)
    return *values, terminated | truncated, info

  environment.step = merged
  return environment


def make(expected: algorithms.Hyperparameters, window: int) -> Any:
  """Returns the algorithm that trains for `window` agent steps."""
  name = getattr(expected, 'environment', 'CartPole-v1')
  environment, parameters = gymnax.make(name)
  shared = {
    'env': _with_five_values(environment),
    'env_params': parameters,
    'skip_initial_evaluation': True,
    'total_timesteps': window,
    'eval_freq': window,
    'learning_rate': expected.learning_rate,
    'gamma': expected.gamma,
    'num_envs': expected.num_envs,
  }
  own = _dqn
  if isinstance(expected, algorithms.OnPolicy):
    own = _ppo if isinstance(expected, algorithms.PPO) else _pqn
  algorithm = own(expected, shared)
  return algorithm.replace(eval_callback=lambda algorithm, state, key: ())


def _dqn(expected, shared):
  algorithm = rejax.DQN.create(
    **shared,
    agent_kwargs={'activation': 'relu'},
    # One epoch an iteration, and an iteration steps each environment once.
    num_epochs=1,
    buffer_size=expected.buffer_size,
    fill_buffer=expected.min_history,
    batch_size=expected.batch_size,
    target_update_freq=expected.target_update_period,
    polyak=0.0,  # a hard copy
    eps_start=expected.epsilon,
    eps_end=expected.epsilon,
    ddqn=False,
  )
  # There is no setting for layers but 64 and 64.
  network = networks.EpsilonGreedyPolicy(networks.DiscreteQNetwork)
  return algorithm.replace(
    agent=network(
      hidden_layer_sizes=expected.hidden,
      action_dim=algorithm.action_dim,
      activation=jax.nn.relu,
    ),
  )


def _on_policy(expected):
  return {
    'num_steps': expected.rollout // expected.num_envs,
    'num_minibatches': expected.num_minibatches,
    'num_epochs': expected.num_epochs,
    'max_grad_norm': expected.max_norm,
  }


def _pqn(expected, shared):
  algorithm = rejax.PQN.create(
    **shared,
    **_on_policy(expected),
    td_lambda=expected.q_lambda,
    eps_start=expected.epsilon,
    eps_end=expected.epsilon,
  )
  # There is no setting for layers but 64 and 64.
  agent = algorithm.agent.clone(hidden_layer_sizes=expected.hidden)
  return algorithm.replace(agent=agent)


def _ppo(expected, shared):
  return rejax.PPO.create(
    **shared,
    **_on_policy(expected),
    agent_kwargs={'activation': 'tanh', 'hidden_layer_sizes': expected.hidden},
    gae_lambda=expected.gae_lambda,
    clip_eps=expected.clip,
    # Of half the squared error.
    vf_coef=2 * expected.value_weight,
    ent_coef=expected.entropy_weight,
  )


def _found(algorithm, state, num_seeds, expected):
  found = {
    'gamma': float(algorithm.gamma),
    'num_envs': algorithm.num_envs,
    'frame_skip': 1,
    'stack': 1,
    'sticky_actions': 0.0,
  }
  is_ppo = isinstance(expected, algorithms.PPO)
  learner = state.actor_ts if is_ppo else state.q_ts
  params = (
    (learner.params, state.critic_ts.params) if is_ppo else learner.params
  )
  own = _found_of_dqn
  if isinstance(expected, algorithms.OnPolicy):
    own = _found_of_ppo if is_ppo else _found_of_pqn
    found |= _found_on_policy(algorithm, learner, expected)
  updates = learner.step if num_seeds == 1 else learner.step[0]
  return {
    **found,
    **own(algorithm, state),
    'kernels': clock.kernels_of(params, num_seeds),
    'updates': int(updates),
    **clock.adam_of(learner.tx, expected),
  }


def _found_on_policy(algorithm, learner, expected):
  found = {
    'batch_size': algorithm.minibatch_size,
    'rollout': algorithm.iteration_size,
    'num_epochs': algorithm.num_epochs,
    'max_norm': clock.max_norm_of(learner.tx),
  }
  of_environment = {
    'package': 'gymnax',
    'environment': algorithm.env.name,
    'backend': '',
    'normalize_observations': algorithm.normalize_observations,
  }
  return found | {
    name: value
    for name, value in of_environment.items()
    if hasattr(expected, name)
  }


def _found_of_pqn(algorithm, state):
  del state
  return {
    'q_lambda': float(algorithm.td_lambda),
    'epsilon': float(algorithm.epsilon_schedule(0)),
  }


def _found_of_dqn(algorithm, state):
  return {
    'batch_size': algorithm.batch_size,
    'update_period': algorithm.num_envs // algorithm.num_epochs,
    'buffer_size': state.replay_buffer.data.reward.shape[-1],
    'target_update_period': algorithm.target_update_freq,
    'epsilon': float(algorithm.epsilon_schedule(0)),
    'min_history': algorithm.fill_buffer,
  }


def _found_of_ppo(algorithm, state):
  del state
  return {
    'gae_lambda': float(algorithm.gae_lambda),
    'clip': float(algorithm.clip_eps),
    'value_clip': float(algorithm.clip_eps),
    'value_weight': float(algorithm.vf_coef) / 2,
    'entropy_weight': float(algorithm.ent_coef),
  }
