"""TD3: a deterministic policy, learnt by the lower of two slow critics.

Fujimoto, van Hoof & Meger (2018), Addressing Function Approximation Error in
Actor-Critic Methods. https://arxiv.org/abs/1802.09477

The numbers are those of the authors' code.

Differs from the authors' code:
1. The policy learns with the first update of each pair, not with the second,
   and from the critics as they were before it.
2. Kernels begin Xavier-uniform and biases at zero; there as PyTorch has them.
"""

import functools

import jax
import jax.numpy as jnp
import optax

from dopamine_jax import agent as agent_lib
from dopamine_jax import values
from dopamine_jax.learning import actor_critic
from dopamine_jax.learning import continuous_actions
from dopamine_jax.networks import modules
from dopamine_jax.replay import base
from dopamine_jax.replay import uniform


class TD3(continuous_actions.ContinuousActions):
  """Twin delayed deterministic policy gradients.

  The target networks move with each update that trains the policy.

  Attributes:
    exploration_noise: standard deviation of what is added to actions in
      training, a number or an optax schedule over agent steps.
    target_noise: the same, of the actions in targets.
    noise_clip: the largest size of that one.
  """

  actor: modules.Maker = actor_critic.DeterministicActor
  replay: base.Maker = functools.partial(
    uniform.UniformReplay, batch_size=256, min_history=25_000
  )
  policy_delay: int = 2
  exploration_noise: float | optax.Schedule = 0.1
  target_noise: float = 0.2
  noise_clip: float = 0.5

  over_agent_steps = ('exploration_noise',)
  # Whether the policy has a target network. If so, all targets move only when
  # the policy learns; else those of the critics move at each update, as FastTD3
  # and DrQ-v2 have it. No setting: it has no type.
  has_target_policy = True

  def __post_init__(self):
    super().__post_init__()
    self.require_at_least(0, 'exploration_noise', 'target_noise', 'noise_clip')

  def first_params(self, key, observation):
    """Returns the first parameters, of a policy without deviations."""
    params = super().first_params(key, observation)
    policy = self.abstract_policy(params, observation)
    if hasattr(policy, 'interval'):
      self.refuse(
        'actor',
        f'gives {type(policy).__name__}s, whose deviations learn nothing here; '
        'expected actions alone, as those of actor_critic.DeterministicActor',
      )
    return params

  def followed(self, params):
    """Returns what has targets: critics and policy; see the base class."""
    if not self.has_target_policy:
      return params['critics']
    return {name: params[name] for name in ('actor', 'critics')}

  def target_critics(self, state):
    """Returns the critics' targets; see the base class."""
    return self.target_actor_and_critics(state.params, state.target_params)[1]

  def target_actor_and_critics(self, params, target_params):
    """Returns the parameters of the policy and the critics of targets."""
    if not self.has_target_policy:
      return params['actor'], target_params
    return target_params['actor'], target_params['critics']

  def follow(self, params, target_params, *, policy):
    """Moves the targets when the policy learns; see the base class."""
    moved = super().follow(params, target_params, policy=policy)
    if not self.has_target_policy:
      return moved
    return jax.tree.map(
      lambda new, old: jnp.where(policy, new, old), moved, target_params
    )

  def action(self, params, observation) -> jax.Array:
    """Returns the policy's actions, given the actor's parameters."""
    return self.policy(params, observation).mode()

  def act(self, state, observation, step, key, *, explore) -> jax.Array:
    """Returns the policy's action, with noise to explore; see `Agent.act`."""
    seen = self.features(state.params, observation)
    action = self.action(state.params['actor'], seen)
    if not explore:
      return action
    return noisy(action, values.at(self.exploration_noise, step), key)

  def outlook(self, state, observation, key) -> agent_lib.Outlook:
    """Returns what films show; see `Agent.outlook`."""
    seen = self.features(state.params, observation)
    action = self.action(state.params['actor'], seen)
    value = self.policy_value(state.params['critics'], seen, action, key)
    return agent_lib.Outlook(value / self.reward_scale, mean=action)

  def schedules(self, step: int) -> dict[str, float]:
    """Returns the noise, for the logs; see `Agent.schedules`."""
    return {'ExplorationNoise': float(values.at(self.exploration_noise, step))}

  def targets(self, params, target_params, batch, key) -> jax.Array:
    """Returns what the critics are to say [B] (eq. 14)."""
    actor, critics = self.target_actor_and_critics(params, target_params)
    action = self.noisy_action(actor, batch.next_observation, key)
    q = self.q_values(critics, batch.next_observation, action)
    return self.backed_up(batch, q)

  def noisy_action(self, params, observation, key) -> jax.Array:
    """Returns the policy's actions [B, ...] with the noise of targets."""
    action = self.action(params, observation)
    return noisy(action, self.target_noise, key, self.noise_clip)

  def backed_up(self, batch, q) -> jax.Array:
    """Returns targets [B] of the next actions' values [K, B]."""
    value = jnp.min(q, axis=0)
    return self.reward_scale * batch.reward + batch.discount * value

  def policy_value(self, critics, observation, action, key):
    """Returns the first critic's (alg. 1, line 12); see the base class."""
    del key
    return self.q_values(critics, observation, action)[0]

  def policy_loss(self, params, critics, observation, key) -> jax.Array:
    """Returns the loss [B] of the actor's parameters."""
    action = self.action(params, observation)
    return -self.policy_value(critics, observation, action, key)

  def losses(self, params, target_params, batch, key):
    """Returns losses, temporal differences, and metrics; see the base class."""
    target_key, key = jax.random.split(key)
    loss, td_error, metrics = self.critic_loss(
      params, target_params, batch, target_key
    )
    # Each loss has a gradient by one part of the parameters alone.
    critics = jax.lax.stop_gradient(params['critics'])
    seen = jax.lax.stop_gradient(batch.observation)
    policy_loss = self.policy_loss(params['actor'], critics, seen, key)
    return {'CriticLoss': loss, 'PolicyLoss': policy_loss}, td_error, metrics


def noisy(action, std, key, clip: float | None = None) -> jax.Array:
  """Returns actions [B, ...] with Gaussian noise, within [-1, 1].

  The gradient is that of the actions as they were.

  Args:
    action: [B, *action_shape].
    std: the noise's standard deviation.
    key: a PRNG key.
    clip: the largest size of the noise; None: any.
  """
  noise = std * jax.random.normal(key, action.shape)
  if clip is not None:
    noise = jnp.clip(noise, -clip, clip)
  within = jnp.clip(action + noise, -1, 1)
  return action + jax.lax.stop_gradient(within - action)
