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
from dopamine_jax import networks
from dopamine_jax import values
from dopamine_jax.learning import action_values
from dopamine_jax.learning import actor_critic
from dopamine_jax.learning import distributions
from dopamine_jax.learning import off_policy
from dopamine_jax.learning import optimization
from dopamine_jax.learning import outputs
from dopamine_jax.networks import modules
from dopamine_jax.replay import base
from dopamine_jax.replay import uniform


class SAC(off_policy.OffPolicy):
  """Soft actor-critic, of continuous actions.

  Attributes:
    actor: makes the policy's Flax module from `action_shape`.
    critics: makes that of the values; see `actor_critic`.
    actor_optimizer: an optax transformation; its schedules count updates.
    critic_optimizer: an optax transformation, likewise.
    temperature_optimizer: of its logarithm; None keeps the temperature fixed.
    tau: how far the target critics move to the critics at each update.
    temperature: what entropy is worth at first, the paper's alpha.
    log_temperature_loss: whether that loss is linear in log(temperature).
    target_entropy: of the policy, in nats for each of an action's numbers.
    reward_scale: a factor of rewards in targets; metrics have them as they are.
  """

  actor: modules.Maker = actor_critic.Actor
  critics: modules.Maker = actor_critic.Critics
  replay: base.Maker = functools.partial(
    uniform.UniformReplay, batch_size=256, min_history=10_000
  )
  actor_optimizer: optimization.Optimizer = values.call(optax.adam, 3e-4)
  critic_optimizer: optimization.Optimizer = values.call(optax.adam, 3e-4)
  temperature_optimizer: optimization.Optimizer | None = values.call(
    optax.adam, 3e-4
  )
  update_period: int = 1
  tau: float = 0.005
  temperature: float = 1.0
  log_temperature_loss: bool = False
  target_entropy: float = -1.0
  reward_scale: float = 1.0

  def __post_init__(self):
    super().__post_init__()
    self.require_box_actions()
    self.require_fraction('tau')
    self.require_above(0, 'tau', 'temperature', 'reward_scale')

  def init(self, key, observation) -> actor_critic.State:
    """Returns the first state; see `Agent.init`."""
    num_envs = len(jax.tree.leaves(observation)[0])
    action = jnp.zeros((num_envs, *self.action_space.shape))
    params = {
      **actor_critic.first_params(*self.modules, key, observation, action),
      'log_temperature': jnp.full((), np.log(self.temperature)),
    }
    return actor_critic.State(
      params=params,
      # A copy: the update donates both.
      target_params=jax.tree.map(jnp.copy, params['critics']),
      optimizer_state=self.optimizer.init(networks.learnt(params)),
    )

  def policy(self, params, observation) -> distributions.TanhGaussian:
    """Returns the distribution of actions, given the actor's parameters."""
    return networks.apply(self.modules[0], params, observation)

  def q_values(self, params, observation, action) -> jax.Array:
    """Returns the critics' values [K, B], given their parameters."""
    return networks.apply(self.modules[1], params, observation, action)

  def act(self, state, observation, step, key, *, explore) -> jax.Array:
    """Draws actions, or returns tanh of the means; see `Agent.act`."""
    policy = self.policy(state.params['actor'], observation)
    return policy.sample(key) if explore else policy.mode()

  def anatomy(self, state) -> dict[str, agent_lib.Anatomy]:
    """Returns the networks, for `health`; see `Agent.anatomy`."""
    return actor_critic.anatomy(*self.modules, state)

  def outlook(self, state, observation, key) -> agent_lib.Outlook:
    """Returns what films show; see `Agent.outlook`."""
    policy = self.policy(state.params['actor'], observation)
    q = self.q_values(state.params['critics'], observation, policy.mode())
    mean, interval = policy.mode(), policy.interval()
    return agent_lib.Outlook(jnp.min(q, axis=0), mean=mean, interval=interval)

  def targets(self, params, target_params, batch, key) -> jax.Array:
    """Returns what the critics are to say [B] (eq. 3 and 5)."""
    policy = self.policy(params['actor'], batch.next_observation)
    action, log_prob = policy.sample_and_log_prob(key)
    q = self.q_values(target_params, batch.next_observation, action)
    value = jnp.min(q, axis=0) - jnp.exp(params['log_temperature']) * log_prob
    return self.reward_scale * batch.reward + batch.discount * value

  def losses(self, params, target_params, batch, key):
    """Returns losses [B] by name, temporal differences [K, B], and metrics."""
    target_key, key = jax.random.split(key)
    # Each loss has a gradient by one part of the parameters alone.
    fixed = jax.lax.stop_gradient(params)
    target = self.targets(fixed, target_params, batch, target_key)
    outputs.require_floats(self, 'targets()', target, batch.reward.shape)
    q = self.q_values(params['critics'], batch.observation, batch.action)
    td_error = target[None] - q
    policy = self.policy(params['actor'], batch.observation)
    action, log_prob = policy.sample_and_log_prob(key)
    new_q = self.q_values(fixed['critics'], batch.observation, action)
    cost = jnp.exp(fixed['log_temperature']) * log_prob
    losses = {'CriticLoss': jnp.sum(td_error**2, axis=0) / 2}  # eq. 5
    losses['PolicyLoss'] = cost - jnp.min(new_q, axis=0)  # eq. 9
    log_temperature = params['log_temperature']
    temperature = jnp.exp(log_temperature)
    if self.temperature_optimizer is not None:  # eq. 18
      surplus = -log_prob - self.target_entropy * np.prod(action.shape[1:])
      factor = log_temperature if self.log_temperature_loss else temperature
      losses['TemperatureLoss'] = factor * jax.lax.stop_gradient(surplus)
    metrics = action_values.metrics(q)
    metrics |= {'Entropy': -jnp.mean(log_prob), 'Temperature': temperature}
    return losses, td_error, metrics

  def update(self, state, sample, key):
    """Takes one gradient step on each loss; see `Agent.update`."""

    def loss_fn(params):
      losses, td_error, metrics = self.losses(
        params, state.target_params, sample.transition, key
      )
      for name, loss in losses.items():
        outputs.require_floats(self, name, loss, sample.weight.shape)
      means = {k: jnp.mean(sample.weight * loss) for k, loss in losses.items()}
      return sum(means.values()), (td_error, metrics | means)

    before = self.optimizer, state.params, state.optimizer_state
    params, optimizer_state, (td_error, seen), metrics = optimization.learn(
      loss_fn, *before, key
    )
    targets = params['critics'], state.target_params
    targets = optimization.incremental_update(*targets, self.tau)
    state = state.replace(
      params=params, target_params=targets, optimizer_state=optimizer_state
    )
    return state, seen | metrics, jnp.mean(abs(td_error), 0)

  @property
  def optimizer(self) -> optax.GradientTransformation:
    """One optimizer, in which each part of the parameters has its own."""
    return optimization.apart(
      actor=self.actor_optimizer,
      critics=self.critic_optimizer,
      log_temperature=self.temperature_optimizer,
    )

  @property
  def modules(self):
    """The networks of policy and values, Flax modules."""
    return actor_critic.make_modules(self)
