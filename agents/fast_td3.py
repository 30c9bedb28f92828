"""FastTD3: TD3 of many environments, with critics that give distributions.

Seo et al. (2025), FastTD3: Simple, Fast, and Capable Reinforcement Learning for
Humanoid Control. https://arxiv.org/abs/2505.22642

Differs from the authors' code:
1. An environment keeps its own size of noise, where it draws another one for
   each episode.
2. Statistics of observations are those of the samples that were learnt from, of
   policy and critics each their own.
3. Kernels begin Xavier-uniform and biases at zero; there as PyTorch has them,
   and those of the policy's last layer from N(0, 0.01).
4. Numbers have 32 bits.
5. Learning begins when the replay has a batch, 256 steps of each of 128
   environments; there after about a dozen.
6. The lower critic is that with the lower mean before its distribution is put
   on the atoms; there after it, which differs where returns are clipped.
7. The policy learns with the first of its two updates, not with the second, and
   from the critics as they were before it.
"""

import functools
import types

import jax
import jax.numpy as jnp
import optax

from dopamine_jax import networks
from dopamine_jax import values
from dopamine_jax.agents import c51
from dopamine_jax.agents import td3
from dopamine_jax.learning import actor_critic
from dopamine_jax.learning import continuous_actions
from dopamine_jax.learning import optimization
from dopamine_jax.networks import modules
from dopamine_jax.replay import base
from dopamine_jax.replay import uniform

_ADAMW = values.call(optax.adamw, 3e-4, weight_decay=0.1)


class FastTD3(td3.TD3):
  """TD3 whose critics are categorical, and whose noise differs in size.

  The defaults are for 128 environments: two updates for a step of all. Targets
  are of the policy that learns, and follow with each update.

  Attributes:
    exploration_noise: standard deviation of exploration in the last
      environment, a number or an optax schedule over agent steps; the others'
      rise evenly to it.
    least_noise: that of the first one, if there are several.
    num_atoms: M, possible returns of a distribution, `v_min` to `v_max`.
    v_min: lowest atom; lower returns are put there.
    v_max: highest atom, likewise.
  """

  actor: modules.Maker = functools.partial(
    actor_critic.DeterministicActor,
    hidden=(512, 256, 128),
    torso=networks.RunningNorm(),
  )
  critics: modules.Maker = functools.partial(
    actor_critic.Critics,
    hidden=(1024, 512, 256),
    torso=networks.RunningNorm(),
  )
  replay: base.Maker = functools.partial(
    uniform.UniformReplay, batch_size=32_768, min_history=32_768
  )
  actor_optimizer: optimization.Optimizer = _ADAMW
  critic_optimizer: optimization.Optimizer = _ADAMW
  update_period: int = 128
  updates_per_period: int = 2
  tau: float = 0.1
  target_noise: float = 0.001
  exploration_noise: float | optax.Schedule = 0.4
  least_noise: float = 0.001
  num_atoms: int = 101
  v_min: float = -250.0
  v_max: float = 250.0

  has_target_policy = False
  uncalled = types.MappingProxyType(
    dict.fromkeys(('targets', 'squared_loss'), 'critic_loss')
  )
  policy_value = continuous_actions.ContinuousActions.policy_value

  def __post_init__(self):
    super().__post_init__()
    self.require_at_least(0, 'least_noise')
    most = self.exploration_noise
    if not callable(most) and self.least_noise > most:
      self.refuse('least_noise', f'is above exploration_noise = {most}')
    c51.require_atoms(self)

  @property
  def critic_outputs(self):
    """The number of atoms; see the base class."""
    return self.num_atoms

  @property
  def atoms(self) -> jax.Array:
    """The returns that have a probability [M]."""
    return jnp.linspace(self.v_min, self.v_max, self.num_atoms)

  def logits(self, params, observation, action) -> jax.Array:
    """Returns the critics' logits [K, B, M], given their parameters."""
    return super().q_values(params, observation, action)

  def q_values(self, params, observation, action):
    """Returns the means of distributions [K, B]; see the base class."""
    return c51.mean(self.atoms, self.logits(params, observation, action))

  def act(self, state, observation, step, key, *, explore):
    """Explores with another noise in each environment; see `Agent.act`."""
    seen = self.features(state.params, observation)
    action = self.action(state.params['actor'], seen)
    if not explore:
      return action
    size, *shape = action.shape
    most = jnp.float32(values.at(self.exploration_noise, step))
    std = jnp.linspace(most, self.least_noise, size)[::-1]  # of one, the most
    return td3.noisy(action, std.reshape(size, *[1] * len(shape)), key)

  def critic_loss(self, params, target_params, batch, key):
    """Returns the cross-entropy, to the lower critic; see the base class."""
    fixed = jax.lax.stop_gradient(params)
    actor, critics = self.target_actor_and_critics(fixed, target_params)
    action = self.noisy_action(actor, batch.next_observation, key)
    seen = critics, batch.next_observation, action
    next_logits = jnp.moveaxis(self.logits(*seen), 0, 1)  # [B, K, M]
    next_q = c51.mean(self.atoms, next_logits)
    logits = self.logits(params['critics'], batch.observation, batch.action)
    of_batch = jax.vmap(c51.categorical_loss, (None, 0, None, 0, 0, 0, 0))
    losses = [
      of_batch(
        self.atoms,
        logits[k][:, None],
        0,
        self.reward_scale * batch.reward,
        batch.discount,
        next_logits,
        -next_q,  # the largest of which is chosen
      )
      for k in range(len(logits))
    ]
    q = c51.mean(self.atoms, logits)
    target = self.backed_up(batch, next_q.T)
    td_error = jax.lax.stop_gradient(target)[None] - q
    return sum(losses), td_error, self.value_metrics(q)
