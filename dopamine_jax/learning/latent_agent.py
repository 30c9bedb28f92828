"""The networks of an agent that acts on an encoder's output; see `mrq.MRQ`.

An encoder makes a vector z of an observation. A model embeds z and an action,
and predicts from the embedding what comes next. The policy takes z, and critics
value embeddings. What all of them learn is the subclass's.
"""

import functools
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
import optax

from dopamine_jax import agent as agent_lib
from dopamine_jax import networks
from dopamine_jax import values
from dopamine_jax.learning import encoding
from dopamine_jax.learning import off_policy
from dopamine_jax.learning import optimization
from dopamine_jax.learning import outputs
from dopamine_jax.learning import vectors
from dopamine_jax.networks import latent
from dopamine_jax.networks import modules

NUM_CRITICS = 2
# Of encoder, model, actor and critics, by name.
Params = dict[str, optax.Params]


class State(struct.PyTreeNode):
  """What learning changes.

  Attributes:
    params: all that learns.
    fixed_params: the encoder and model that actor and critics use.
    target_params: of all target networks.
    optimizer_state: of `params`.
    updates: int32 scalar.
    reward_scale: float32 scalar, by which the values that critics learn are
      divided: the mean of |reward|.
    target_reward_scale: float32 scalar, that of the target critics.
    reward_sum: float32 scalar, the sum of |reward| for the next scale.
  """

  params: Params
  fixed_params: Params
  target_params: Params
  optimizer_state: optax.OptState
  updates: jax.Array
  reward_scale: jax.Array
  target_reward_scale: jax.Array
  reward_sum: jax.Array


def adamw(learning_rate: float) -> optax.GradientTransformation:
  """Returns the optimizer of all parts, but for their learning rates."""
  return values.call(optax.adamw, learning_rate, weight_decay=1e-4)


class LatentAgent(off_policy.OffPolicy):
  """Acts on an encoder's z; subclasses say what is learnt.

  Actions are of a Box or Discrete; the networks take them as vectors.

  Attributes:
    encoder: makes z of observations; None: `latent.fitting`, by their space.
    model: makes, from `num_bins`, the network that embeds z and an action, and
      predicts.
    actor: makes the policy's network, of z, from `num_outputs`.
    critic: makes each of two value networks, of embeddings, from `num_outputs`.
    encoder_optimizer: an optax transformation, of encoder and model.
    actor_optimizer: of the policy.
    critic_optimizer: of the values.
    num_bins: of the rewards that the model predicts.
    exploration_noise: standard deviation of the noise that is added to actions
      in training; for Discrete ones half of it.
  """

  encoder: modules.Maker | None = None
  model: modules.Maker = latent.LatentModel
  actor: modules.Maker = latent.Actor
  critic: modules.Maker = latent.Critic
  encoder_optimizer: optimization.Optimizer = adamw(1e-4)
  actor_optimizer: optimization.Optimizer = adamw(3e-4)
  critic_optimizer: optimization.Optimizer = values.call(
    optimization.clipped, adamw(3e-4), 20.0
  )
  num_bins: int = 65
  exploration_noise: float = 0.2

  def __post_init__(self):
    super().__post_init__()
    vectors.require(self)
    self.require_at_least(2, 'num_bins')
    self.require_at_least(0, 'exploration_noise')

  @property
  def actions(self) -> vectors.Actions:
    """Actions as vectors."""
    return vectors.Actions(self.action_space, self.observation_space)

  @property
  def modules(self) -> dict[str, Any]:
    """The networks by name, Flax modules."""
    space = self.observation_space
    if self.encoder is None:
      encoder = encoding.encoded(space, latent.fitting(space))
    else:
      encoder = encoding.network(self, 'encoder')
      if getattr(encoder, 'num_outputs', 0) is None:
        self.refuse(
          'encoder',
          'has a last layer, whose size nobody gives. Choose latent.Encoder, '
          'or a torso such as networks.MLPTorso',
        )
    return {
      'encoder': encoder,
      'model': self.make_part('model', num_bins=self.num_bins),
      'actor': self.make_part('actor', num_outputs=self.actions.size),
      'critic': self.make_part('critic', num_outputs=1),
    }

  @property
  def optimizer(self) -> optax.GradientTransformation:
    """One optimizer, in which each part of the parameters has its own."""
    return optimization.apart(
      encoder=self.encoder_optimizer,
      model=self.encoder_optimizer,
      actor=self.actor_optimizer,
      critics=self.critic_optimizer,
    )

  def init(self, key, observation) -> State:
    """Returns the first state; see `Agent.init`."""
    params = self.first_params(key, observation)
    copy = functools.partial(jax.tree.map, jnp.copy)  # the update donates all
    return State(
      params=params,
      fixed_params=copy(self.encoders(params)),
      target_params=copy(params),
      optimizer_state=self.optimizer.init(networks.learnt(params)),
      updates=jnp.zeros((), jnp.int32),
      reward_scale=jnp.ones(()),
      target_reward_scale=jnp.ones(()),
      reward_sum=jnp.zeros(()),
    )

  def first_params(self, key, observation) -> Params:
    """Returns the first parameters, once the networks' outputs fit."""
    of, keys = self.modules, jax.random.split(key, 3 + NUM_CRITICS)
    params = {'encoder': outputs.init(of['encoder'], keys[0], observation)}
    z = self.encode(params, observation)
    action = jnp.zeros((len(z), self.actions.size))
    params['model'] = outputs.init(of['model'], keys[1], z, action)
    embedded = self.embed(params, z, action)
    outputs.require(
      of['model'],
      lambda params, *seen: networks.apply(of['model'], params, *seen),
      *(params['model'], z, action),
      needs=[embedded.shape[1:], (), z.shape[1:], (self.num_bins,)],
    )
    params['actor'] = outputs.first_params(
      of['actor'], keys[2], z, needs=[(self.actions.size,)]
    )
    params['critics'] = [
      outputs.first_params(of['critic'], key, embedded, needs=[(1,)])
      for key in keys[3:]
    ]
    return params

  def encoders(self, params: Params) -> Params:
    """Returns the parameters of encoder and model."""
    return {name: params[name] for name in ('encoder', 'model')}

  def encode(self, params: Params, observation) -> jax.Array:
    """Returns z [B, Z] of observations."""
    return networks.apply(
      self.modules['encoder'], params['encoder'], observation
    )

  def predict(self, params: Params, z, action) -> tuple[jax.Array, ...]:
    """Returns what the model gives of z and vectors of actions [B, D]."""
    return networks.apply(self.modules['model'], params['model'], z, action)

  def embed(self, params: Params, z, action) -> jax.Array:
    """Returns embeddings [B, E] of z and vectors of actions [B, D]."""
    return self.predict(params, z, action)[0]

  def policy(self, params: Params, z, observation, key):
    """Returns vectors of actions, and what the actor gave, both [B, D].

    Args:
      params: has the actor's.
      z: [B, Z].
      observation: [B, ...], which may have a mask of actions.
      key: a PRNG key, by which Discrete actions are drawn; None: none are.
    """
    given = networks.apply(self.modules['actor'], params['actor'], z)
    allowed = self.actions.allowed(given, observation)
    return self.actions.soft(allowed, key), given

  def q_values(self, params: Params, embedded) -> jax.Array:
    """Returns the critics' values [K, B] of embeddings [B, E]."""
    critic = self.modules['critic']
    given = [networks.apply(critic, p, embedded) for p in params['critics']]
    return jnp.stack(given)[..., 0]

  def act(self, state, observation, step, key, *, explore) -> jax.Array:
    """Returns the policy's actions, with noise to explore; see `Agent.act`."""
    del step
    policy_key, noise_key = jax.random.split(key)
    z = self.encode(state.fixed_params, observation)
    seen = state.params, z, observation
    action, _ = self.policy(*seen, policy_key if explore else None)
    if explore:
      noise = self.actions.noise(noise_key, len(z), self.exploration_noise)
      action = self.actions.allowed(action + noise, observation)
    return self.actions.from_vectors(self.actions.hard(action))

  def losses(self, params, state, batch, key):
    """Returns losses [B] by name, temporal differences [K, B], and metrics.

    Each has a gradient by parameters of its own.

    Args:
      params: all parameters that learn.
      state: the agent's, before the update.
      batch: a `Transition`, leading axis [B].
      key: a PRNG key.
    """
    raise NotImplementedError

  def descend(self, state, sample, key):
    """Returns the state after a gradient step on all losses.

    Args:
      state: the agent's.
      sample: see `Agent.update`.
      key: likewise.

    Returns:
      The new state, temporal differences [K, B], and metrics by name.
    """

    def loss_fn(params):
      losses, td_error, metrics = self.losses(
        params, state, sample.transition, key
      )
      means = self.weighted(losses, sample.weight)
      return sum(means.values()), (td_error, metrics | means)

    params, optimizer_state, (td_error, seen), metrics = optimization.learn(
      loss_fn, self.optimizer, state.params, state.optimizer_state, key
    )
    state = state.replace(
      params=params,
      optimizer_state=optimizer_state,
      updates=state.updates + 1,
    )
    return state, td_error, seen | metrics

  def outlook(self, state, observation, key) -> agent_lib.Outlook:
    """Returns the policy and its value, for films; see `Agent.outlook`."""
    del key
    z = self.encode(state.fixed_params, observation)
    action, given = self.policy(state.params, z, observation, None)
    embedded = self.embed(state.fixed_params, z, self.actions.hard(action))
    lowest = jnp.min(self.q_values(state.params, embedded), axis=0)
    value = state.reward_scale * lowest
    if not self.actions.are_discrete:
      return agent_lib.Outlook(value, mean=self.actions.from_vectors(action))
    allowed = self.actions.allowed(given, observation)
    return agent_lib.Outlook(value, probabilities=jax.nn.softmax(allowed))

  def anatomy(self, state) -> dict[str, agent_lib.Anatomy]:
    """Returns encoder, policy and critics; see `Agent.anatomy`."""
    of, params = self.modules, state.params

    def seen(batch):
      return (self.encode(state.fixed_params, batch.observation),)

    def embedded(batch):
      action = self.actions.to_vectors(batch.action)
      return (self.embed(state.fixed_params, *seen(batch), action),)

    critics = zip(
      params['critics'], state.target_params['critics'], strict=True
    )
    return {
      'Encoder': agent_lib.Anatomy(of['encoder'], params['encoder']),
      'Actor': agent_lib.Anatomy(of['actor'], params['actor'], inputs=seen),
    } | {
      f'Critic{i}': agent_lib.Anatomy(of['critic'], *both, inputs=embedded)
      for i, both in enumerate(critics, 1)
    }
