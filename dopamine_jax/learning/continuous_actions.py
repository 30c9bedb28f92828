"""What agents share that learn continuous actions from a replay.

A policy chooses actions, critics say what these are worth, and both learn from
the same samples. What each learns is the subclass's: its `losses`.
"""

import types

import jax
import jax.numpy as jnp
import optax

from dopamine_jax import agent as agent_lib
from dopamine_jax import errors
from dopamine_jax import lanes
from dopamine_jax import networks
from dopamine_jax import values
from dopamine_jax.learning import action_values
from dopamine_jax.learning import actor_critic
from dopamine_jax.learning import encoding
from dopamine_jax.learning import off_policy
from dopamine_jax.learning import optimization
from dopamine_jax.learning import outputs
from dopamine_jax.networks import modules

_ENCODER = 2  # which no other network folds into its key
_OF_CRITICS = ('critics', 'encoder')  # what their loss trains


class ContinuousActions(off_policy.OffPolicy):
  """Learns a policy and its critics; subclasses say by which losses.

  Attributes:
    actor: makes, from `action_shape`, the policy's Flax module, which maps
      observations [B, ...] to a distribution of actions with `mode()`; SAC's
      needs `sample(key)`, `sample_and_log_prob(key)` and `interval()` too. See
      `distributions.TanhGaussian`.
    critics: makes the module that maps observations and actions to values
      [K, B], or, from `num_outputs`, to [K, B, M] of agents of distributions.
    encoder: a torso whose features are what actor and critics see, such as
      `networks.PixelTorso`; the critics' loss alone trains it, and it has no
      target network. None: they see observations.
    actor_optimizer: an optax transformation; its schedules count updates of
      the policy.
    critic_optimizer: an optax transformation, the encoder's too; its schedules
      count updates.
    tau: how far the target networks move to those that learn at each update.
    policy_delay: updates from one that trains the policy to the next; each
      trains the critics.
    reward_scale: a factor of rewards in targets; values in metrics and films
      are without it.
  """

  actor: modules.Maker = actor_critic.Actor
  critics: modules.Maker = actor_critic.Critics
  encoder: modules.Maker | None = None
  actor_optimizer: optimization.Optimizer = values.call(optax.adam, 3e-4)
  critic_optimizer: optimization.Optimizer = values.call(optax.adam, 3e-4)
  update_period: int = 1
  tau: float = 0.005
  policy_delay: int = 1
  reward_scale: float = 1.0

  # Methods that no loss of a subclass calls, and what to override instead.
  uncalled = types.MappingProxyType({})

  def __post_init__(self):
    super().__post_init__()
    self.require_box_actions()
    self.require_fraction('tau')
    self.require_above(0, 'tau', 'reward_scale')
    self.require_at_least(1, 'policy_delay')
    self._require_called()

  def _require_called(self):
    """Refuses a subclass's method that no loss would call."""
    classes = type(self).__mro__
    known = next(i for i, x in enumerate(classes) if 'uncalled' in vars(x))
    own = set().union(*(vars(x) for x in classes[:known]))
    if own & {'critic_loss', 'losses', 'update'}:
      return  # which may call it
    for name in sorted(own & self.uncalled.keys()):
      raise errors.UserError(
        f'{type(self).__name__}.{name} is never called: '
        f'{classes[known].__name__} learns by `{self.uncalled[name]}`. '
        'Override that.'
      )

  def init(self, key, observation) -> actor_critic.State:
    """Returns the first state; see `Agent.init`."""
    params = self.first_params(key, observation)
    return actor_critic.State(
      params=params,
      # A copy: the update donates both.
      target_params=jax.tree.map(jnp.copy, self.followed(params)),
      optimizer_state=self.optimizer.init(networks.learnt(params)),
      updates=jnp.zeros((), jnp.int32),
    )

  def first_params(self, key, observation) -> dict[str, optax.Params]:
    """Returns the first parameters by name, once the networks' outputs fit."""
    num_envs = len(jax.tree.leaves(observation)[0])
    action = jnp.zeros((num_envs, *self.action_space.shape))
    encoder = {}
    if self.encoder is not None:
      encoder_key = jax.random.fold_in(key, _ENCODER)
      encoder['encoder'] = outputs.init(
        self.encoder_module, encoder_key, observation
      )
      observation = self.features(encoder, observation)
    both = actor_critic.first_params(
      *self.modules,
      key,
      observation,
      action,
      num_outputs=self.critic_outputs,
    )
    return both | encoder

  def followed(self, params) -> optax.Params:
    """Returns those parameters that target networks follow: the critics'."""
    return params['critics']

  def features(self, params, observation) -> jax.Array:
    """Returns what actor and critics see, given all parameters."""
    if self.encoder is None:
      return observation
    return networks.apply(self.encoder_module, params['encoder'], observation)

  def encoded(self, params, batch) -> agent_lib.Transition:
    """Returns transitions as the critics see them; targets train no encoder."""
    if self.encoder is None:
      return batch
    fixed = jax.lax.stop_gradient(params)
    return batch.replace(
      observation=self.features(params, batch.observation),
      next_observation=self.features(fixed, batch.next_observation),
    )

  def policy(self, params, observation):
    """Returns the distribution that the actor gives, of its parameters."""
    return networks.apply(self.modules[0], params, observation)

  def abstract_policy(self, params, observation):
    """Returns what `policy` gives, as shapes, of all parameters."""
    seen = self.features(params, observation)
    return jax.eval_shape(self.policy, params['actor'], seen)

  def q_values(self, params, observation, action) -> jax.Array:
    """Returns the critics' values [K, B], given their parameters."""
    return networks.apply(self.modules[1], params, observation, action)

  def losses(self, params, target_params, batch, key):
    """Returns losses [B] by name, temporal differences [K, B], and metrics.

    `CriticLoss` must be there. It trains critics and encoder at each update;
    what else is to train these belongs into it. All other losses train the
    other parts (policy, temperature), and only at every `policy_delay`-th
    update. No part may get a gradient of another part's loss: stop it.

    Args:
      params: all parameters that learn, by name.
      target_params: those that follow them, as `followed` returns them.
      batch: a `Transition`, leading axis [B], as `encoded` returns it.
      key: a PRNG key.
    """
    raise NotImplementedError

  def critic_loss(self, params, target_params, batch, key):
    """Returns the critics' loss [B], differences [K, B], and metrics.

    Arguments are those of `losses`.
    """
    fixed = jax.lax.stop_gradient(params)
    target = self.targets(fixed, target_params, batch, key)
    q = self.q_values(params['critics'], batch.observation, batch.action)
    return self.squared_loss(q, target)

  def squared_loss(self, q, target):
    """Returns what `critic_loss` does, of values [K, B] and targets [B]."""
    outputs.require_floats(self, 'targets()', target, q.shape[1:])
    td_error = target[None] - q
    loss = jnp.sum(td_error**2, axis=0) / 2
    return loss, td_error, self.value_metrics(q)

  def value_metrics(self, q) -> dict[str, jax.Array]:
    """Returns metrics of the critics' values [K, B], of raw rewards."""
    return action_values.metrics(q / self.reward_scale)

  def targets(self, params, target_params, batch, key) -> jax.Array:
    """Returns what the critics are to say [B]; arguments as of `losses`."""
    raise NotImplementedError

  def policy_value(self, critics, observation, action, key) -> jax.Array:
    """Returns the value that the policy is to raise [B]: the lowest."""
    del key
    return jnp.min(self.q_values(critics, observation, action), axis=0)

  def update(self, state, sample, key):
    """Takes a gradient step on each loss; see `Agent.update`."""
    if self.policy_delay == 1:
      return self.descend(state, sample, key)
    due = state.updates % self.policy_delay == 0
    return jax.lax.cond(
      lanes.any_of(due),
      lambda: self.descend(state, sample, key, policy=due),
      lambda: self.descend(state, sample, key, policy=False),
    )

  def descend(self, state, sample, key, *, policy: bool | jax.Array = True):
    """Updates all, or what the critics' loss trains; see `Agent.update`.

    Args:
      state: the agent's.
      sample: see `Agent.update`.
      key: likewise.
      policy: whether all other losses are learnt from too; may be traced.
    """

    def loss_fn(params):
      losses, td_error, metrics = self.losses(
        params,
        state.target_params,
        self.encoded(params, sample.transition),
        key,
      )
      means = self.weighted(losses, sample.weight)
      total, critics = sum(means.values()), means['CriticLoss']
      # Chosen here: of a loss that is left out later, XLA computes a gradient
      # of zeros as it would any other.
      if policy is False:
        total = critics
      elif policy is not True:
        total = jnp.where(policy, total, critics)
      return total, (td_error, metrics | means)

    before = self.optimizer, state.params, state.optimizer_state
    params, optimizer_state, (td_error, seen), metrics = optimization.learn(
      loss_fn, *before, key
    )
    if policy is not True:
      new, old = (
        (params, optimizer_state.inner_states),
        (state.params, state.optimizer_state.inner_states),
      )
      params, inner = _where_due(policy, new, old)
      optimizer_state = optimizer_state._replace(inner_states=inner)
      metrics['ParameterNorm'] = optax.tree.norm(networks.learnt(params))
    state = state.replace(
      params=params,
      target_params=self.follow(params, state.target_params, policy=policy),
      optimizer_state=optimizer_state,
      updates=state.updates + 1,
    )
    return state, seen | metrics, jnp.mean(abs(td_error), 0)

  def follow(self, params, target_params, *, policy: bool) -> optax.Params:
    """Returns the target networks' parameters after an update.

    Args:
      params: all parameters, after it.
      target_params: of the target networks, before it.
      policy: whether the update trained the policy; may be traced.
    """
    del policy
    targets = self.followed(params), target_params
    return optimization.incremental_update(*targets, self.tau)

  def last_count(self, name, agent_steps):
    """Counts the policy's updates for what waits; see `Agent.last_count`."""
    updates = super().last_count(name, agent_steps)
    waits = name in ('actor_optimizer', 'temperature_optimizer')
    return -(-updates // self.policy_delay) if waits else updates

  @property
  def optimizers(self) -> dict[str, optimization.Optimizer | None]:
    """The optimizer of each part of the parameters, by name."""
    found = {'actor': self.actor_optimizer, 'critics': self.critic_optimizer}
    if self.encoder is not None:
      found['encoder'] = self.critic_optimizer
    return found

  @property
  def optimizer(self) -> optax.GradientTransformation:
    """One optimizer, in which each part of the parameters has its own."""
    return optimization.apart(**self.optimizers)

  @property
  def encoder_module(self):
    """The network of observations that actor and critics share."""
    return encoding.network(self, 'encoder')

  @property
  def modules(self):
    """The networks of policy and values, Flax modules."""
    # Features are vectors, whatever is observed.
    make = encoding.network if self.encoder is None else type(self).make_part
    shape = self.action_space.shape
    several = self.critic_outputs > 1
    given = {'num_outputs': self.critic_outputs} if several else {}
    critics = make(self, 'critics', **given)
    return make(self, 'actor', action_shape=shape), critics

  @property
  def critic_outputs(self) -> int:
    """How many numbers each critic gives, M; 1: a value."""
    return 1

  def anatomy(self, state) -> dict[str, agent_lib.Anatomy]:
    """Returns the networks, for `health`; see `Agent.anatomy`."""
    actor, critics = self.modules

    def values(params, observation, action, key):
      del key
      q = self.q_values(params, observation, action).T
      return q / self.reward_scale

    def seen(batch):
      return self.features(state.params, batch.observation)

    found = {
      'Actor': agent_lib.Anatomy(
        actor, state.params['actor'], inputs=lambda batch: (seen(batch),)
      ),
      'Critics': agent_lib.Anatomy(
        critics,
        state.params['critics'],
        self.target_critics(state),
        inputs=lambda batch: (seen(batch), batch.action),
        values=values,
      ),
    }
    if self.encoder is not None:
      module = self.encoder_module
      found['Encoder'] = agent_lib.Anatomy(module, state.params['encoder'])
    return found

  def target_critics(self, state) -> optax.Params:
    """Returns the parameters of the critics' targets."""
    return state.target_params


def _where_due(policy, new, old):
  """Returns the new dicts; where the policy was not due, with old entries.

  Those of critics and encoder are always the new ones.
  """

  def chosen(new, old):
    if policy is False:
      return old
    return jax.tree.map(lambda x, y: jnp.where(policy, x, y), new, old)

  return tuple(
    {
      name: value if name in _OF_CRITICS else chosen(value, before[name])
      for name, value in after.items()
    }
    for after, before in zip(new, old, strict=True)
  )
