"""The contract between an agent and the framework. Read this first.

An agent is settings plus three pure functions: `init` makes its state, `act`
chooses actions, `update` learns from one sample of experience. Only an engine
calls `jax.jit`.
"""

from typing import Any

from flax import struct
import gymnasium
import jax

from dopamine_jax import errors
from dopamine_jax import settings

# Parameters, optimizer state and counters: any pytree that the agent chooses.
State = Any


class Transition(struct.PyTreeNode):
  """Experience as an agent learns from it; leading axis [B].

  Attributes:
    observation: [B, *observation_shape].
    action: [B, *action_shape].
    reward: [B] float32, the discounted sum over the k <= n steps that lead to
      `next_observation`; clipped if the environment's `reward_clip` is set.
    discount: [B] float32, gamma**k; 0 only after a termination, never after a
      truncation. Every target reads `reward + discount * value_next`.
    next_observation: [B, *observation_shape], the true last observation at a
      truncation.
  """

  observation: jax.Array
  action: jax.Array
  reward: jax.Array
  discount: jax.Array
  next_observation: jax.Array


class Sample(struct.PyTreeNode):
  """What a replay hands to `Agent.update`.

  Attributes:
    transition: a Transition with leading axis [B].
    index: [B] int32, where the replay keeps them; for `reprioritize`.
    weight: [B] float32, importance weights; ones under uniform sampling.
  """

  transition: Transition
  index: jax.Array
  weight: jax.Array


class Inspection(struct.PyTreeNode):
  """What a network does with a batch of observations, for `health`.

  Attributes:
    values: [B, ...] float32, what it predicts: of DQN Q-values [B, A].
    activations: [B, ..., units] behind each nonlinearity, by the layers' names;
      empty if the network shows none.
    features: [B, F], what its last layer reads, or None.
  """

  values: jax.Array
  activations: dict[str, jax.Array]
  features: jax.Array | None


class Agent(settings.Settings):
  """What an engine needs of an agent. Subclasses are frozen dataclasses.

  Attributes:
    observation_space: the space of one (stacked) observation, given by the
      engine.
    action_space: the space of one action, given by the engine.
    update_period: agent steps from one update to the next.
  """

  observation_space: gymnasium.Space
  action_space: gymnasium.Space
  update_period: int = 4

  def __post_init__(self):
    super().__post_init__()
    self.require_at_least(1, 'update_period')

  def require_discrete_actions(self):
    """Refuses action spaces but Discrete ones that start at 0."""
    space = self.action_space
    if not isinstance(space, gymnasium.spaces.Discrete) or space.start != 0:
      self.refuse(
        'action_space',
        f'does not fit: {type(self).__name__} learns a value for each of a '
        'finite set of actions and takes Discrete(n) spaces that start at 0. '
        'Choose another environment, or an agent for continuous actions',
      )

  def make_replay(self, stack: int) -> Any:
    """Returns the experience that this agent learns from (settings).

    Args:
      stack: frames in an observation, which the replay keeps as single ones.
    """
    raise NotImplementedError

  def init(self, key: jax.Array, observation: jax.Array) -> State:
    """Returns the first state.

    Args:
      key: a PRNG key.
      observation: [N, *observation_shape], an example.
    """
    raise NotImplementedError

  def act(
    self,
    state: State,
    observation: jax.Array,
    step: jax.Array,
    key: jax.Array,
    *,
    explore: bool,
  ) -> jax.Array:
    """Returns actions [N, *action_shape].

    Args:
      state: the agent's state.
      observation: [N, *observation_shape].
      step: int32 scalar, agent steps so far; what exploration decays by.
      key: a PRNG key for this step alone.
      explore: whether these actions are for training; otherwise the agent
        explores no more than its evaluation settings say.
    """
    raise NotImplementedError

  def update(
    self, state: State, sample: Sample, key: jax.Array
  ) -> tuple[State, dict[str, jax.Array], jax.Array]:
    """Learns once.

    Args:
      state: the agent's state.
      sample: from the agent's replay.
      key: a PRNG key for this update alone.

    Returns:
      The new state; scalar metrics by name (`Loss`, `QMean`, ...); new
      priorities [B] >= 0, which a uniform replay ignores.
    """
    raise NotImplementedError

  def parameters(self, state: State) -> dict[str, Any]:
    """Returns parameters by network, for `health`; optional.

    They are the 'online' ones, which learn, and, if the agent has a target
    network, its 'target' ones, a tree of the same structure.
    """
    del state
    self._refuse_health('parameters')

  def inspect(
    self, params: Any, observation: jax.Array, key: jax.Array
  ) -> Inspection:
    """Returns what a network does, for `health`; optional.

    Args:
      params: of one network, as `parameters` has them.
      observation: [B, *observation_shape].
      key: a PRNG key, the same for all networks that are compared.
    """
    del params, observation, key
    self._refuse_health('inspect')

  def _refuse_health(self, method):
    raise errors.UserError(
      f'runner.Runner.health asks for what {type(self).__name__} does not '
      f'tell: it has no method `{method}`. Add one, as agent.Agent describes '
      'it, or leave this metric out.'
    )

  def greedy(self) -> 'Agent':
    """Returns this agent with all exploration of its evaluation off."""
    return self

  def schedules(self, step: int) -> dict[str, float]:
    """Returns what to log that depends on agent steps alone, e.g. epsilon."""
    del step
    return {}
