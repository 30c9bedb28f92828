"""rejax's DQN: environment and training in one jitted function."""

from typing import Any

import gymnax
import jax
import rejax
from rejax import networks

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


def make(expected: jobs.Hyperparameters, window: int):
  """Returns the algorithm; it has no setting for layers but 64 and 64."""
  environment, parameters = gymnax.make('CartPole-v1')
  algorithm = rejax.DQN.create(
    env=_with_five_values(environment),
    env_params=parameters,
    agent_kwargs={'activation': 'relu'},
    skip_initial_evaluation=True,
    total_timesteps=window,
    eval_freq=window,
    learning_rate=expected.learning_rate,
    gamma=expected.gamma,
    # One epoch an iteration, and an iteration steps each environment once.
    num_envs=expected.num_envs,
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
  network = networks.EpsilonGreedyPolicy(networks.DiscreteQNetwork)
  return algorithm.replace(
    eval_callback=lambda algorithm, state, key: (),
    agent=network(
      hidden_layer_sizes=expected.hidden,
      action_dim=algorithm.action_dim,
      activation=jax.nn.relu,
    ),
  )


def _found(algorithm, state, num_seeds, expected):
  buffer_size = state.replay_buffer.data.reward.shape
  updates = state.q_ts.step
  if num_seeds > 1:
    buffer_size, updates = buffer_size[1:], updates[0]
  return {
    'kernels': clock.kernels_of(state.q_ts.params, num_seeds),
    'batch_size': algorithm.batch_size,
    'update_period': algorithm.num_envs // algorithm.num_epochs,
    'buffer_size': buffer_size[0],
    'target_update_period': algorithm.target_update_freq,
    'gamma': float(algorithm.gamma),
    'epsilon': float(algorithm.epsilon_schedule(0)),
    'min_history': algorithm.fill_buffer,
    'num_envs': algorithm.num_envs,
    'frame_skip': 1,
    'stack': 1,
    'sticky_actions': 0.0,
    'updates': int(updates),
    **clock.adam_of(state.q_ts.tx, expected),
  }
