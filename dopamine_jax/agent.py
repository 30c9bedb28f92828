"""The contract between an agent and the framework. Read this first.

An agent is settings plus three pure functions: `init` makes its state, `act`
chooses actions, `update` learns from one sample of experience. Only an engine
calls `jax.jit`.
"""

from collections.abc import Callable
import types
from typing import Any, NamedTuple

from flax import struct
import gymnasium
import jax

from dopamine_jax import errors
from dopamine_jax import settings

# Parameters, optimizer state and counters: any pytree that the agent chooses.
State = Any
# What it carries from one step to the next: any pytree of arrays [N, ...].
Memory = Any


class Transition(struct.PyTreeNode):
  """Experience as an agent learns from it; leading axis [B].

  Attributes:
    observation: [B, *observation_shape]; where the space of observations is a
      Dict or Tuple, here and everywhere, a dict or tuple of such arrays.
    action: [B, *action_shape].
    reward: [B] float32, the discounted sum over the k <= n steps that lead to
      `next_observation`; clipped if the environment's `reward_clip` is set.
    discount: [B] float32, gamma**k; 0 only after a termination, never after a
      truncation. Every target reads `reward + discount * value_next`.
    next_observation: [B, *observation_shape], the true last observation at a
      truncation.
  """

  observation: Any
  action: jax.Array
  reward: jax.Array
  discount: jax.Array
  next_observation: Any


class Trajectory(Transition):
  """Experience in order: leading axes [T, N] wherever a Transition has [B].

  Attributes:
    last: [T, N] bool, whether the episode ended with this step, of itself or
      cut. The row below it is then of another episode.
  """

  last: jax.Array


class Seen(struct.PyTreeNode):
  """What an agent with memory acts on; leading axis [N], of sequences [T, B].

  Attributes:
    observation: as in a Transition.
    action: the action of the step before; zeros where an episode begins.
    reward: float32, the reward of the step before, as learning sees it; zero
      where an episode begins.
    first: bool, whether an episode begins here.
  """

  observation: jax.Array
  action: jax.Array
  reward: jax.Array
  first: jax.Array


class Sequence(Trajectory):
  """A Trajectory of an agent with memory, [T, B].

  From a rollout, whose B is N, it has a row for each step. From a replay of
  sequences its rows are slots one after another: there an episode's last
  observation has a row too, in which no step was taken, so that what follows a
  step always lies in the row below, at an episode's end as well.

  Attributes:
    seen: Seen [T, B], what was acted on.
    next_seen: Seen [T, B], what the agent sees after each step:
      `next_observation`, with this step's action and reward.
    memory: [B, ...], what the agent carried before the first row, as it was
      then. (Where that is an episode's last observation, it is not kept; memory
      is fresh in the row below.)
    taken: [T, B] bool, whether a step was taken in the row; where it was not,
      action, reward and discount mean nothing.
    burn_in: how many of the first rows only bring memory up to date.
  """

  seen: Seen
  next_seen: Seen
  memory: Memory
  taken: jax.Array
  burn_in: int = struct.field(pytree_node=False, default=0)

  def after_burn_in(self) -> 'Sequence':
    """Returns the rows that follow the burn-in; without memory."""
    rows = self.replace(memory=(), burn_in=0)
    return jax.tree.map(lambda x: x[self.burn_in :], rows)


class Sample(struct.PyTreeNode):
  """What a replay hands to `Agent.update`.

  Attributes:
    transition: a Transition with leading axis [B]; from a rollout a Trajectory,
      and then all of the sample has leading axes [T, N]; of an agent with
      memory a Sequence.
    index: [B] int32, where the replay keeps them; for `reprioritize`.
    weight: [B] float32, importance weights; ones under uniform sampling.
    slot: like `index`, each one's number since the training began. Unlike an
      index, it is never used again.
  """

  transition: Transition
  index: jax.Array
  weight: jax.Array
  slot: jax.Array | None = None


class Anatomy(NamedTuple):
  """What `health` looks into: a network, and what it is for.

  Attributes:
    module: a Flax module that shows its `activations` and `features` as those
      of `networks` do.
    params: the parameters that learn.
    target_params: those of its target network; None if it has none.
    inputs: what `module` is given of transitions [B]; their observations.
    values: what it predicts [B, ...], of parameters, inputs and a key; None:
      what `module` returns.
  """

  module: Any
  params: Any
  target_params: Any = None
  inputs: Callable[[Transition], tuple] = lambda seen: (seen.observation,)
  values: Callable[..., Any] | None = None


class Outlook(NamedTuple):
  """What an agent expects of what it sees, and means to do; for `record`.

  What an agent does not have stays None. The numbers are those by which `act`
  chooses, given the same key.

  Attributes:
    value: [N], of what is seen; for an agent of action values the largest one.
    values: [N, A], of each action.
    probabilities: [N, A], of each action.
    distribution: of the return of each action, as two arrays [N, A, M]: returns
      in rising order, and the probability of each.
    mean: [N, *action_shape], the action of a Box that `act` takes when it does
      not explore.
    interval: where about two thirds of the actions lie, as two arrays
      [N, *action_shape], the lower ends and the upper ones.
  """

  value: jax.Array
  values: jax.Array | None = None
  probabilities: jax.Array | None = None
  distribution: tuple[jax.Array, jax.Array] | None = None
  mean: jax.Array | None = None
  interval: tuple[jax.Array, jax.Array] | None = None


class Agent(settings.Settings):
  """What an engine needs of an agent. Subclasses are frozen dataclasses.

  Attributes:
    observation_space: the space of one (stacked) observation; None until an
      engine gives it, by `replace`.
    action_space: the space of one action, likewise; a Box is [-1, 1] in each
      dimension, see `environments.base`.
    update_period: agent steps from one update (or `updates_per_period` of them)
      to the next.
  """

  given_later = ('observation_space', 'action_space')

  observation_space: gymnasium.Space | None = None
  action_space: gymnasium.Space | None = None
  update_period: int = 4

  # No settings: they have no type. What subclasses may make one:
  updates_per_period = 1
  over_agent_steps = ()  # those whose schedules count agent steps
  schedule_count = ''  # of its state, for the replay's schedules; '': updates
  # Those of the first state alone, and the array from which learning goes on.
  of_first_state = ()
  needs_whole_returns = False  # `n_step` reaches to the end of each episode
  # How metrics of updates become one number, by name: 'sum', 'last'; else mean.
  reductions = types.MappingProxyType({})

  def __post_init__(self):
    super().__post_init__()
    self.require_at_least(1, 'update_period', 'updates_per_period')

  def require_discrete_actions(self):
    """Refuses action spaces but Discrete ones that start at 0."""
    if not (self.action_space is None or _is_discrete(self.action_space)):
      self.refuse(
        'action_space',
        f'does not fit: {type(self).__name__} learns a value for each of a '
        'finite set of actions and takes Discrete(n) spaces that start at 0. '
        f'Choose another environment, or {self._fitting_agent()}',
      )

  def _fitting_agent(self):
    """Returns what kind of agent takes these actions, in words."""
    if isinstance(self.action_space, gymnasium.spaces.MultiDiscrete):
      return 'an agent that takes MultiDiscrete actions, as PPO does'
    return 'an agent for continuous actions'

  def require_box_actions(self):
    """Refuses action spaces but Boxes."""
    if not isinstance(self.action_space, (gymnasium.spaces.Box, type(None))):
      self.refuse(
        'action_space',
        f'does not fit: {type(self).__name__} takes continuous actions, a Box. '
        'Choose another environment, or an agent for discrete actions',
      )

  def require_actions_to_draw(self):
    """Refuses action spaces but counted ones from 0 on, and Boxes.

    What is counted is Discrete, or MultiDiscrete on one axis.
    """
    space = self.action_space
    is_box = isinstance(space, (gymnasium.spaces.Box, type(None)))
    if not is_box and not _is_discrete(space) and not _is_several(space):
      self.refuse(
        'action_space',
        f'does not fit: {type(self).__name__} takes Discrete(n) and '
        'MultiDiscrete([n, ...]) spaces that start at 0, and Boxes. Choose '
        'another environment, or wrap this one',
      )

  def make_replay(self, stack: int) -> Any:
    """Returns the experience that this agent learns from (settings).

    Args:
      stack: frames in an observation, which the replay keeps as single ones.
    """
    raise NotImplementedError

  def init(self, key: jax.Array, observation: Any) -> State:
    """Returns the first state.

    Args:
      key: a PRNG key.
      observation: [N, *observation_shape], an example; N environments train.
    """
    raise NotImplementedError

  def act(
    self,
    state: State,
    observation: Any,
    step: jax.Array,
    key: jax.Array,
    *,
    explore: bool,
  ) -> jax.Array:
    """Returns actions [N, *action_shape].

    Args:
      state: the agent's state.
      observation: [N, *observation_shape].
      step: int32 scalar, agent steps so far (in runs of 2**31 or more as
        `engines.counting` says); what exploration decays by.
      key: a PRNG key for this step alone.
      explore: whether these actions are for training; otherwise the agent
        explores no more than its evaluation settings say.
    """
    raise NotImplementedError

  def init_memory(self, num_envs: int) -> Memory:
    """Returns what is carried into an episode's first step; optional.

    An agent with memory overrides this and `act_with_memory`, in place of
    `act`. Where an episode begins, its memory is this one again. It is part of
    the training state, and of evaluations and films.

    Returns:
      A pytree of arrays [N, ...]; (), as here, is no memory.
    """
    del num_envs
    return ()

  def act_with_memory(
    self,
    state: State,
    memory: Memory,
    seen: Seen,
    step: jax.Array,
    key: jax.Array,
    *,
    explore: bool,
  ) -> tuple[jax.Array, Memory]:
    """Returns actions [N, *action_shape], and the memory for the next step.

    Args:
      state: the agent's state.
      memory: [N, ...], fresh where `seen.first`.
      seen: Seen [N].
      step: see `act`.
      key: see `act`.
      explore: see `act`.
    """
    raise NotImplementedError

  def outlook_with_memory(
    self, state: State, memory: Memory, seen: Seen, key: jax.Array
  ) -> 'Outlook | None':
    """Returns what `outlook` does, for an agent with memory; optional."""
    del memory
    return self.outlook(state, seen.observation, key)

  def prepare(self, sample: Sample, key: jax.Array) -> Sample:
    """Returns a sample [B, ...] as `update` learns from it, of the same shapes.

    By default it is as given, as `health` always sees it. `key` is `update`'s.
    """
    del key
    return sample

  def update(
    self, state: State, sample: Sample, key: jax.Array
  ) -> tuple[State, dict[str, jax.Array], jax.Array]:
    """Learns once.

    Args:
      state: the agent's state.
      sample: from the agent's replay, as `prepare` returned it.
      key: a PRNG key for this update alone.

    Returns:
      The new state; scalar metrics by name (`Loss`, `QMean`, ...); new
      priorities [B] >= 0, which a uniform replay ignores.
    """
    raise NotImplementedError

  def anatomy(self, state: State) -> dict[str, Anatomy]:
    """Returns what `runner.Runner.health` looks into; optional.

    By name, with which the tags of its metrics begin: '' if it is but one.
    """
    del state
    raise errors.UserError(
      f'runner.Runner.health asks for what {type(self).__name__} does not '
      'tell: it has no method `anatomy`. Add one, as agent.Agent describes it, '
      'or leave this metric out.'
    )

  def outlook(
    self, state: State, observation: Any, key: jax.Array
  ) -> Outlook | None:
    """Returns what `record` shows beside the film; optional, None: nothing.

    Pure like `act`, and called beside it.

    Args:
      state: the agent's state.
      observation: [N, *observation_shape]; floats in place of bytes must do,
        since `record --saliency` takes the derivative of `Outlook.value`.
      key: the PRNG key that `act` is given, with `explore=False`.
    """
    del state, observation, key
    return None

  def last_count(self, name: str, agent_steps: int) -> int:
    """Returns what the schedule or optimizer `name` counts in so many steps."""
    if name in self.over_agent_steps:
      return agent_steps
    return agent_steps // self.update_period * self.updates_per_period

  def greedy(self) -> 'Agent':
    """Returns this agent with all exploration of its evaluation off."""
    return self

  def schedules(self, step: int) -> dict[str, float]:
    """Returns what to log that depends on agent steps alone, e.g. epsilon."""
    del step
    return {}


def _is_discrete(space):
  return isinstance(space, gymnasium.spaces.Discrete) and space.start == 0


def _is_several(space):
  is_one_axis = len(space.shape or ()) == 1
  is_counted = isinstance(space, gymnasium.spaces.MultiDiscrete)
  return is_counted and is_one_axis and not space.start.any()
