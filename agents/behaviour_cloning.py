"""Behaviour cloning, also given the return that it is to reach.

Pomerleau (1991), Efficient Training of Artificial Neural Networks for
Autonomous Navigation. https://doi.org/10.1162/neco.1991.3.1.88
With `conditioned`: Kumar, Peng & Levine (2019), Reward-Conditioned Policies.
https://arxiv.org/abs/1912.13465

Differs from the paper:
1. The policy is a classifier of the actions that were taken, with no weights.
2. The return that follows a step is a number beside the observation, or one
   more channel of an image. It is the replay's sum over `n_step` steps: set
   `gamma = 1.0`, and `n_step` to the longest episode.
"""

from flax import struct
import gymnasium
import jax
import jax.numpy as jnp
import optax
import rlax

from dopamine_jax import agent as agent_lib
from dopamine_jax import networks
from dopamine_jax import spaces
from dopamine_jax import values
from dopamine_jax.learning import action_values
from dopamine_jax.learning import exploration
from dopamine_jax.learning import optimization
from dopamine_jax.learning import outputs
from dopamine_jax.networks import standard


class CloningState(struct.PyTreeNode):
  """What learning changes."""

  params: optax.Params
  optimizer_state: optax.OptState
  lowest: jax.Array  # of the returns that were seen
  highest: jax.Array
  updates: jax.Array  # int32 scalar


class BehaviourCloning(action_values.ActionValues):
  """Learns which actions were taken; acts by the likeliest.

  Attributes:
    optimizer: an optax transformation; its schedules count updates.
    conditioned: whether the network sees the return that is to come.
    ambition: what is asked for when it acts: the highest return that was seen,
      and this many times the range of all returns more.
  """

  optimizer: optimization.Optimizer = values.call(optax.adam, 1e-3)
  conditioned: bool = False
  ambition: float = 0.0

  def __post_init__(self):
    super().__post_init__()
    self.require_at_least(0, 'ambition')
    if self.conditioned and self.n_step == 1:
      self.refuse(
        'n_step',
        'is the return of one step, and `conditioned` is of whole ones; set it '
        'to the longest episode, and gamma = 1.0',
      )
    for name in ('ambition', 'gamma', 'n_step'):
      is_default = getattr(self, name) == getattr(type(self), name)
      if not (self.conditioned or is_default):
        self.refuse(name, 'has no effect without conditioned = True')
    space = self.observation_space
    if self.conditioned and space is not None:
      if not isinstance(space, gymnasium.spaces.Box):
        self.refuse('conditioned', f'takes observations of a Box, not {space}')

  @property
  def needs_whole_returns(self) -> bool:
    """Whether `n_step` has to reach to the end of each episode."""
    return self.conditioned

  def init(self, key, observation) -> CloningState:
    """Returns a network; see `Agent.init`."""
    count = spaces.num_rows(observation)
    seen = self.seen_with(observation, jnp.zeros(count))
    params = outputs.first_params(
      self.module, key, seen, needs=[(self.num_outputs,)]
    )
    return CloningState(
      params=params,
      optimizer_state=self.optimizer.init(networks.learnt(params)),
      lowest=jnp.array(jnp.inf, jnp.float32),
      highest=jnp.array(-jnp.inf, jnp.float32),
      updates=jnp.zeros((), jnp.int32),
    )

  def seen_with(self, observation, returns) -> jax.Array:
    """Returns observations [B, ...] with the returns [B] that are to come."""
    if not self.conditioned:
      return observation
    # Within 1 for any return of a game: log(1e8) is 18.
    coded = jnp.sign(returns) * jnp.log1p(jnp.abs(returns)) / 20
    x = observation.astype(jnp.float32)
    if standard.are_bytes(self.observation_space):
      coded = 255 * coded  # which such networks divide by
    if x.ndim == 3:  # images without channels
      x = x[..., None]
    shape = (len(x), *[1] * (x.ndim - 1))
    plane = jnp.broadcast_to(coded.reshape(shape), (*x.shape[:-1], 1))
    return jnp.concatenate([x, plane], axis=-1)

  def update(self, state, sample, key):
    """Takes one gradient step; see `Agent.update`."""
    batch = sample.transition
    seen = self.seen_with(batch.observation, batch.reward)

    def loss_fn(params):
      logits = self.only_allowed(
        self.outputs(params, seen, key), batch.observation
      )
      chosen = rlax.batched_index(jax.nn.log_softmax(logits), batch.action)
      is_right = jnp.argmax(logits, axis=-1) == batch.action
      return -jnp.mean(sample.weight * chosen), (-chosen, is_right)

    params, optimizer_state, (losses, is_right), metrics = optimization.learn(
      *(loss_fn, self.optimizer, state.params, state.optimizer_state, key)
    )
    state = state.replace(
      params=params,
      optimizer_state=optimizer_state,
      lowest=jnp.minimum(state.lowest, jnp.min(batch.reward)),
      highest=jnp.maximum(state.highest, jnp.max(batch.reward)),
      updates=state.updates + 1,
    )
    return state, metrics | {'Accuracy': jnp.mean(is_right)}, losses

  def act(self, state, observation, step, key, *, explore):
    """Acts by the likeliest action; see `Agent.act`."""
    network_key, explore_key = jax.random.split(key)
    logits = self.preferences(state, observation, network_key)
    epsilon = self.epsilon_at(step, explore=explore)
    mask = spaces.mask_of(self.observation_space, observation)
    return exploration.epsilon_greedy(logits, epsilon, explore_key, mask)

  def preferences(self, state, observation, key) -> jax.Array:
    """Returns logits of actions [B, A], given the return that is asked for."""
    asked = state.highest + self.ambition * (state.highest - state.lowest)
    asked = jnp.where(state.updates > 0, asked, 0.0)
    asked = jnp.broadcast_to(asked, (spaces.num_rows(observation),))
    seen = self.seen_with(observation, asked)
    return self.only_allowed(self.outputs(state.params, seen, key), observation)

  def outlook(self, state, observation, key):
    """Returns the policy, for films; see `Agent.outlook`."""
    network_key, _ = jax.random.split(key)  # as in `act`
    logits = self.preferences(state, observation, network_key)
    return agent_lib.Outlook(
      value=None, probabilities=jax.nn.softmax(logits, axis=-1)
    )

  def anatomy(self, state):
    """Returns the network, for `health`; see `Agent.anatomy`."""

    def inputs(transition):
      return (self.seen_with(transition.observation, transition.reward),)

    return {'': agent_lib.Anatomy(self.module, state.params, inputs=inputs)}
