"""PPO: many steps on each rollout, none far from the policy that acted.

Schulman et al. (2017), Proximal Policy Optimization Algorithms.
https://arxiv.org/abs/1707.06347

Differs from the paper, mostly in what Huang et al. (2022) found in its code and
numbered, https://iclr-blog-track.github.io/2022/03/25/ppo-implementation-details:
1. Weights begin orthogonal, the policy's last ones small (2).
2. Advantages are normalized in each minibatch (7), gradients clipped (11).
3. Options: the value's change is clipped (9), an update stops at a divergence
   (auxiliary 3), observations and rewards are normalized.
4. A truncated episode goes on in the value of its last observation.
"""

from flax import struct
import jax
import jax.numpy as jnp
import optax
import rlax

from dopamine_jax import agent as agent_lib
from dopamine_jax import networks
from dopamine_jax import values
from dopamine_jax.learning import distributions
from dopamine_jax.learning import masks
from dopamine_jax.learning import normalization
from dopamine_jax.learning import on_policy
from dopamine_jax.learning import optimization
from dopamine_jax.learning import outputs
from dopamine_jax.learning import returns
from dopamine_jax.networks import modules


class Batch(struct.PyTreeNode):
  """What the epochs go over, [B, ...]; of the parameters that acted."""

  observation: jax.Array
  action: jax.Array
  log_prob: jax.Array
  value: jax.Array
  target: jax.Array  # of the value; the advantage is target - value


class PPO(on_policy.OnPolicy):
  """Proximal policy optimization, of discrete or continuous actions.

  Attributes:
    network: makes the Flax module of policy and value from `num_outputs`, like
      `networks.ActorCritic`.
    gae_lambda: how far advantages look ahead, from 0 to 1.
    clip: the paper's epsilon, a number or an optax schedule over updates.
    value_clip: how far a value may move in an update; None: anywhere.
    value_weight: the paper's c_1, of half the squared error.
    entropy_weight: the paper's c_2, of the policy's entropy.
    normalize_advantages: to mean 0 and variance 1 in each minibatch.
    target_kl: an update ends before the first minibatch on which the policy is
      further than this from the one that acted; None: never.
    log_std: the first logarithm of the standard deviation of continuous
      actions, whose bounds are -1 and 1.
    continuous: how they are distributed, see `distributions.Kind`.
  """

  network: modules.Maker = networks.ActorCritic
  optimizer: optimization.Optimizer = values.call(
    optimization.clipped, values.call(optax.adam, 3e-4, eps=1e-5), max_norm=0.5
  )
  update_period: int = 2_048
  num_epochs: int = 10
  num_minibatches: int = 32
  gae_lambda: float = 0.95
  clip: float | optax.Schedule = 0.2
  value_clip: float | None = None
  value_weight: float = 0.5
  entropy_weight: float = 0.0
  normalize_advantages: bool = True
  target_kl: float | None = None
  log_std: float = 0.0
  continuous: distributions.Kind = 'gaussian'

  of_first_state = (('log_std', 'params.log_std'),)

  def __post_init__(self):
    super().__post_init__()
    self.require_actions_to_draw()
    self.require_fraction('gae_lambda')
    self.require_at_least(0, 'clip', 'value_clip', 'target_kl')
    self.require_at_least(0, 'value_weight', 'entropy_weight')
    distributions.require_log_std(self)

  def init_params(self, key, observation):
    """Returns the first parameters; see `OnPolicy.init_params`."""
    needs = [(self.num_outputs,), ()]
    params = outputs.first_params(self.module, key, observation, needs=needs)
    # One for each of an action's numbers, whatever is observed.
    log_std = jnp.full(self.action_space.shape, self.log_std, jnp.float32)
    return {'network': params, 'log_std': log_std}

  def policy(self, params, observation):
    """Returns the distribution of actions, and values [B]."""
    outputs, value = networks.apply(self.module, params['network'], observation)
    outputs = masks.only_allowed(self.observation_space, outputs, observation)
    given = self.action_space, outputs, params['log_std'], self.continuous
    return distributions.over(*given), value

  def act(self, state, observation, step, key, *, explore) -> jax.Array:
    """Draws an action, or takes the likeliest; see `Agent.act`."""
    observation = state.observations.normalize(observation)
    policy, _ = self.policy(state.params, observation)
    return policy.sample(key) if explore else policy.mode()

  def anatomy(self, state):
    """Returns the networks, for `health`; see `Agent.anatomy`."""
    return super().anatomy(state.replace(params=state.params['network']))

  def outlook(self, state, observation, key) -> agent_lib.Outlook:
    """Returns what films show; see `Agent.outlook`."""
    observation = state.observations.normalize(observation)
    return distributions.outlook(*self.policy(state.params, observation))

  def batch(self, params, trajectory) -> Batch:
    """Returns what to learn of each step; see `OnPolicy.batch`."""

    def judge(observation, action):
      policy, value = self.policy(params, observation)
      return policy.log_prob(action), value

    observation, action = trajectory.observation, trajectory.action
    log_prob, value = returns.over_rows(judge, observation, action)
    next_value = returns.next_values(
      trajectory, value, lambda x: self.policy(params, x)[1]
    )
    return Batch(
      observation=observation,
      action=action,
      log_prob=log_prob,
      value=value,
      target=returns.lambda_returns(trajectory, next_value, self.gae_lambda),
    )

  def loss(self, params, batch, updates):
    """Returns the negative of eq. 9 for a minibatch, and metrics."""
    policy, value = self.policy(params, batch.observation)
    return self.objective(policy, value, batch, updates)

  def objective(self, policy, value, batch, updates):
    """Returns what `loss` does, of a policy and values [B]."""
    clip = values.at(self.clip, updates)
    log_ratio = policy.log_prob(batch.action) - batch.log_prob
    ratio = jnp.exp(log_ratio)
    advantage = batch.target - batch.value
    if self.normalize_advantages:
      advantage = normalization.standardized(advantage)
    policy_loss = rlax.clipped_surrogate_pg_loss(ratio, advantage, clip)  # eq 7
    value_loss = jnp.mean(self.value_losses(value, batch))
    entropy = jnp.mean(policy.entropy())
    loss = policy_loss + self.value_weight * value_loss
    return loss - self.entropy_weight * entropy, {
      'PolicyLoss': policy_loss,
      'ValueLoss': value_loss,
      'ValueMean': jnp.mean(value),
      'Entropy': entropy,
      # Schulman (2020), http://joschu.net/blog/kl-approx.html, k3.
      'KL': jnp.mean(ratio - 1 - log_ratio),
      'ClipFraction': jnp.mean(jnp.abs(ratio - 1) > clip, dtype=jnp.float32),
    }

  def value_losses(self, value, batch) -> jax.Array:
    """Returns half the squared errors [B]; if clipped, the larger ones."""
    error = jnp.square(value - batch.target)
    if self.value_clip is not None:
      change = jnp.clip(value - batch.value, -self.value_clip, self.value_clip)
      clipped = jnp.square(batch.value + change - batch.target)
      error = jnp.maximum(error, clipped)
    return error / 2

  def stop(self):
    """Returns what ends an update early; see `OnPolicy.stop`."""
    if self.target_kl is None:
      return None
    return lambda metrics: metrics['KL'] > self.target_kl
