"""SAC: a policy that is rewarded for its entropy too, learnt off-policy.

Haarnoja et al. (2018), Soft Actor-Critic Algorithms and Applications.
https://arxiv.org/abs/1812.05905

Differs from the paper:
1. An update's gradients are all of the parameters that it began with.
2. With `n_step > 1`, the entropies of the steps between are left out.
3. Importance weights, if the replay has them, weigh all three losses.
4. Options that Dopamine takes: `log_temperature_loss`, `reward_scale`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dopamine_jax import agent as agent_lib
from dopamine_jax import values
from dopamine_jax.learning import continuous_actions
from dopamine_jax.learning import optimization
from dopamine_jax.replay import base
from dopamine_jax.replay import uniform


class SAC(continuous_actions.ContinuousActions):
  """Soft actor-critic, of continuous actions.

  Attributes:
    temperature_optimizer: of its logarithm; None keeps the temperature fixed.
      Its schedules count updates of the policy.
    temperature: what entropy is worth at first, the paper's alpha.
    log_temperature_loss: whether that loss is linear in log(temperature).
    target_entropy: of the policy, in nats for each of an action's numbers.
  """

  replay: base.Maker = functools.partial(
    uniform.UniformReplay, batch_size=256, min_history=10_000
  )
  temperature_optimizer: optimization.Optimizer | None = values.call(
    optax.adam, 3e-4
  )
  temperature: float = 1.0
  log_temperature_loss: bool = False
  target_entropy: float = -1.0

  def __post_init__(self):
    super().__post_init__()
    self.require_above(0, 'temperature')
    if self.temperature_optimizer is None:
      for name in ('target_entropy', 'log_temperature_loss'):
        if getattr(self, name) != getattr(type(self), name):
          self.refuse(name, 'has no effect without temperature_optimizer')

  def first_params(self, key, observation):
    """Returns the first parameters, the temperature's logarithm too."""
    log_temperature = jnp.log(jnp.float32(self.temperature))
    params = super().first_params(key, observation)
    policy = self.abstract_policy(params, observation)
    if not hasattr(policy, 'sample_and_log_prob'):
      self.refuse(
        'actor',
        f'gives {type(policy).__name__}s, of which no action can be drawn; '
        'expected distributions, as those of actor_critic.Actor',
      )
    return params | {'log_temperature': log_temperature}

  def act(self, state, observation, step, key, *, explore) -> jax.Array:
    """Draws actions, or returns tanh of the means; see `Agent.act`."""
    seen = self.features(state.params, observation)
    policy = self.policy(state.params['actor'], seen)
    return policy.sample(key) if explore else policy.mode()

  def outlook(self, state, observation, key) -> agent_lib.Outlook:
    """Returns what films show; see `Agent.outlook`."""
    seen = self.features(state.params, observation)
    policy = self.policy(state.params['actor'], seen)
    value = self.policy_value(state.params['critics'], seen, policy.mode(), key)
    mean, interval = policy.mode(), policy.interval()
    value /= self.reward_scale
    return agent_lib.Outlook(value, mean=mean, interval=interval)

  def targets(self, params, target_params, batch, key) -> jax.Array:
    """Returns what the critics are to say [B] (eq. 3 and 5)."""
    policy = self.policy(params['actor'], batch.next_observation)
    action, log_prob = policy.sample_and_log_prob(key)
    q = self.q_values(target_params, batch.next_observation, action)
    return self.backed_up(params, batch, self.pooled(q, key), log_prob)

  def alpha(self, params) -> jax.Array:
    """Returns what entropy is worth: what was learnt, or the setting."""
    if self.temperature_optimizer is None:
      return jnp.float32(self.temperature)
    return jnp.exp(params['log_temperature'])

  def backed_up(self, params, batch, value, log_prob) -> jax.Array:
    """Returns targets [B] of next actions' values and log-probabilities [B]."""
    value -= self.alpha(params) * log_prob
    return self.reward_scale * batch.reward + batch.discount * value

  def pooled(self, q, key) -> jax.Array:
    """Returns what counts [B] of the target critics' values [K, B]."""
    del key
    return jnp.min(q, axis=0)

  def losses(self, params, target_params, batch, key):
    """Returns losses, temporal differences, and metrics; see the base class."""
    target_key, key = jax.random.split(key)
    # Each loss has a gradient by one part of the parameters alone.
    fixed = jax.lax.stop_gradient(params)
    loss, td_error, metrics = self.critic_loss(
      params, target_params, batch, target_key
    )
    seen = jax.lax.stop_gradient(batch.observation)
    policy = self.policy(params['actor'], seen)
    action, log_prob = policy.sample_and_log_prob(key)
    value = self.policy_value(fixed['critics'], seen, action, key)
    cost = self.alpha(fixed) * log_prob
    losses = {'CriticLoss': loss, 'PolicyLoss': cost - value}  # eq. 5 and 9
    temperature = self.alpha(params)
    if self.temperature_optimizer is not None:  # eq. 18
      surplus = -log_prob - self.target_entropy * np.prod(action.shape[1:])
      is_log = self.log_temperature_loss
      factor = params['log_temperature'] if is_log else temperature
      losses['TemperatureLoss'] = factor * jax.lax.stop_gradient(surplus)
    metrics |= {'Entropy': -jnp.mean(log_prob), 'Temperature': temperature}
    return losses, td_error, metrics

  @property
  def of_first_state(self):
    """The temperature, if it is learnt from there on; see `Agent`."""
    is_learnt = self.temperature_optimizer is not None
    return (('temperature', 'params.log_temperature'),) if is_learnt else ()

  @property
  def optimizers(self):
    """The optimizer of each part of the parameters, by name."""
    return super().optimizers | {'log_temperature': self.temperature_optimizer}
