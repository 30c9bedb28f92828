"""brax's own PPO, on its environments and on those of MuJoCo Playground.

The repair: it asks JAX for `device_put_replicated`, which JAX 0.10 has no more,
and `_replicated` takes its place. What a training really has is noted by the
functions that it calls, which go on as they are.
"""

import contextlib
import functools
from typing import Any
from unittest import mock

from brax import envs
from brax.training import pmap
from brax.training.acme import running_statistics
from brax.training.agents.ppo import losses
from brax.training.agents.ppo import networks
from brax.training.agents.ppo import train
from flax import linen
import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import algorithms
from benchmarks import clock
from benchmarks import jobs

PACKAGES = ('brax', 'playground', 'mujoco', 'mujoco-mjx', 'jax', 'jaxlib')
# An episode ends then, as with ours.
_EPISODE = 1_000


def measure(job: jobs.Job) -> tuple[list[float], dict[str, Any]]:
  """Returns agent steps a second, and the hyper-parameters."""
  expected = job.hyperparameters
  windows = job.warmup // job.window + jobs.WINDOWS
  rates, seen = [], {}
  environment, wrap = _environment(expected)
  with _watched(seen):
    train.train(
      environment,
      num_timesteps=windows * job.window,
      num_evals=windows + 1,  # each, but the first, ends a window
      run_evals=False,
      progress_fn=lambda steps, found: rates.append(found['training/sps']),
      wrap_env_fn=wrap,
      network_factory=functools.partial(_networks, expected, seen),
      **_arguments(expected),
    )
  state = seen['state']
  found = _found(seen, state, expected)
  return [float(rate) for rate in rates[-jobs.WINDOWS :]], found


def _environment(expected):
  """Returns the environment, and what adds resets and time limits to it."""
  if expected.package == 'playground':
    from mujoco_playground import registry
    from mujoco_playground import wrapper

    config = registry.get_default_config(expected.environment)
    config.impl = 'jax'  # as ours
    made = registry.load(expected.environment, config)
    return made, wrapper.wrap_for_brax_training
  made = envs.get_environment(expected.environment, backend=expected.backend)
  return made, None


def _arguments(expected):
  unroll = expected.rollout // expected.num_envs
  return {
    'episode_length': _EPISODE,
    'num_envs': expected.num_envs,
    'unroll_length': unroll,
    'batch_size': expected.batch_size // unroll,  # of pieces so long
    'num_minibatches': expected.num_minibatches,
    'num_updates_per_batch': expected.num_epochs,
    'learning_rate': expected.learning_rate,
    'discounting': expected.gamma,
    'gae_lambda': expected.gae_lambda,
    'clipping_epsilon': expected.clip,
    'entropy_cost': expected.entropy_weight,
    # Of half the squared error.
    'vf_loss_coefficient': 2 * expected.value_weight,
    'max_grad_norm': expected.max_norm,
    'normalize_observations': expected.normalize_observations,
  }


def _networks(expected, seen, *arguments, preprocess_observations_fn):
  """Returns the networks, and notes whether observations are normalized."""
  normalize = running_statistics.normalize
  seen['normalizes'] = preprocess_observations_fn is normalize
  return networks.make_ppo_networks(
    *arguments,
    preprocess_observations_fn=preprocess_observations_fn,
    policy_hidden_layer_sizes=expected.hidden,
    value_hidden_layer_sizes=expected.hidden,
    activation=linen.tanh,
    # As ours: deviations don't depend on what is seen.
    distribution_type='normal',
    noise_std_type='log',
  )


def repaired() -> contextlib.AbstractContextManager[Any]:
  """Returns a context in which brax trains with today's JAX."""
  return mock.patch.object(
    jax, 'device_put_replicated', _replicated, create=True
  )


@contextlib.contextmanager
def _watched(seen):
  """Has training put into `seen` what it really does."""
  chain, loss, check = (
    optax.chain,
    losses.compute_ppo_loss,
    pmap.assert_is_replicated,
  )

  def chained(*parts):
    seen['optimizer'] = chain(*parts)
    return seen['optimizer']

  def lost(params, normalizer_params, data, rng, **settings):
    seen['minibatch'] = data.reward.shape
    seen['loss'] = {
      name: value for name, value in settings.items() if name != 'ppo_network'
    }
    return loss(params, normalizer_params, data, rng, **settings)

  def checked(state):
    seen['state'] = jax.device_get(jax.tree.map(lambda x: x[0], state))
    check(state)

  with (
    mock.patch.object(optax, 'chain', chained),
    mock.patch.object(losses, 'compute_ppo_loss', lost),
    mock.patch.object(pmap, 'assert_is_replicated', checked),
    repaired(),
  ):
    yield


def _replicated(tree: Any, devices: list[Any]) -> Any:
  """Returns the tree with a leading axis, once for each device."""
  return jax.tree.map(lambda leaf: jnp.stack([leaf] * len(devices)), tree)


def _found(seen, state, expected: algorithms.Hyperparameters):
  pieces, unroll = seen['minibatch']
  settings = seen['loss']
  updates = int(np.max(optax.tree.get(state.optimizer_state, 'count')))
  steps = int(state.env_steps.to_numpy())
  return {
    'kernels': clock.kernels_of(state.params),
    'batch_size': pieces * unroll,
    'rollout': expected.num_envs * unroll,
    'num_envs': expected.num_envs,
    # As many as there were for the steps that it counts.
    'num_epochs': round(updates * pieces * unroll / steps),
    'updates': updates,
    'gamma': settings['discounting'],
    'gae_lambda': settings['gae_lambda'],
    'clip': settings['clipping_epsilon'],
    'value_clip': settings['clipping_epsilon_value'],
    'value_weight': settings['vf_coefficient'] / 2,
    'entropy_weight': settings['entropy_cost'],
    'max_norm': clock.max_norm_of(seen['optimizer']),
    **clock.adam_of(seen['optimizer'], expected),
    'frame_skip': 1,
    'stack': 1,
    'sticky_actions': 0.0,
    'package': expected.package,
    'environment': expected.environment,
    'backend': expected.backend,
    'normalize_observations': seen['normalizes'],
  }
