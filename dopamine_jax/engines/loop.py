"""What happens at one step, as pure functions over one training state.

`remember` puts a step into the replay, `learn` samples and updates, `act`
chooses the next actions, in the order of the papers: `step` is all three.
Engines differ in who steps the environment between them. A seed axis is vmapped
over all of it.
"""

from collections.abc import Callable, Mapping
import dataclasses
import enum
import functools
from typing import Any

from flax import struct
import gymnasium
import jax
import jax.numpy as jnp

from dopamine_jax import agent as agent_lib
from dopamine_jax import lanes
from dopamine_jax import spaces
from dopamine_jax.engines import memory as memory_lib
from dopamine_jax.engines import stacking
from dopamine_jax.environments import base
from dopamine_jax.learning import encoding
from dopamine_jax.learning import exploration
from dopamine_jax.learning import outputs
from dopamine_jax.replay import ring


class Keys(struct.PyTreeNode):
  """One PRNG key a purpose; a step's own key is `fold_in(key, counter)`."""

  act: jax.Array
  replay: jax.Array
  update: jax.Array
  evaluate: jax.Array


class Experience(struct.PyTreeNode):
  """What acting reads and changes besides the agent itself.

  Attributes:
    replay: the replay's state.
    observation: [N, *observation_shape], stacked, what the agent acts on; a
      tree of arrays where its space is a Dict or Tuple.
    action: [N, *action_shape], what it answered, not yet taken.
    agent_steps: int32 scalar, steps taken over all N environments; beyond
      2**31 see `counting`.
    keys: Keys, constant through a run of fewer steps than that.
    memory: of an agent that has one, see `memory.Carried`; otherwise ().
  """

  replay: Any
  observation: Any
  action: jax.Array
  agent_steps: jax.Array
  keys: Keys
  memory: Any = ()


class Metrics(struct.PyTreeNode):
  """What the updates' metrics add up to since the last log.

  Attributes:
    total: their sums by name; the last value where `Agent.reductions` says so.
    count: float32 scalar, the updates.
  """

  total: dict[str, jax.Array]
  count: jax.Array


class TrainingState(struct.PyTreeNode):
  """All that training changes; what a checkpoint holds."""

  agent: Any
  experience: Experience
  updates: jax.Array  # int32 scalar


class Behaviour(enum.Enum):
  """How training actions are chosen."""

  RANDOM = 'random'  # uniform: the warm-up, without a forward pass
  AGENT = 'agent'


@dataclasses.dataclass(frozen=True)
class Loop:
  """The functions of one step, for one agent, replay and kind of environment.

  Attributes:
    agent: Agent.
    replay: the settings that `agent.make_replay` made.
    reward_clip: bound of what learning sees of a reward, or None.
    stack: frames in an observation.
    num_envs: N.
    split_batch: lays a sample out over the devices that learn from it.
    trace_once: has JAX keep what it traced of `learn`, if it can trace it.
    stages: numbers of `agent` and `replay` that change at agent steps.
  """

  agent: agent_lib.Agent
  replay: Any
  reward_clip: float | None
  stack: int
  num_envs: int
  split_batch: Callable[[agent_lib.Sample], agent_lib.Sample] = lambda s: s
  trace_once: Callable[[Callable[..., Any]], Callable[..., Any]] = lambda f: f
  stages: tuple[lanes.Stages, ...] = ()

  def init(self, seed: jax.Array, frame: Any) -> TrainingState:
    """Returns the state before the first step.

    Args:
      seed: int32 scalar; all randomness but the environments' comes from it.
      frame: [N, *frame_shape], the first observations.
    """
    init_key, *keys = jax.random.split(jax.random.key(seed), 5)
    keys = Keys(*keys)
    observation = stacking.first_observation(frame, self.stack)
    action = self._random_actions(jax.random.fold_in(keys.act, 0), observation)
    memory = memory_lib.begin(self.agent, action)
    example = ring.Step(
      observation=frame,
      action=action,
      reward=jnp.zeros(self.num_envs),
      terminated=jnp.zeros(self.num_envs, bool),
      truncated=jnp.zeros(self.num_envs, bool),
      next_observation=frame,
      memory=self._kept(memory),
    )
    experience = Experience(
      replay=self.replay.init(example),
      observation=observation,
      action=action,
      agent_steps=jnp.zeros((), jnp.int32),
      keys=keys,
      memory=memory,
    )
    checked = encoding.checked(self.agent.observation_space)
    with outputs.telling(self.agent, 'init'), checked:
      agent = self.agent.init(init_key, observation)
    # What the environments are first stepped with is part of the warm-up.
    if not self.replay.warm_up:
      experience = self.act(agent, experience, Behaviour.AGENT)
    elif self.has_memory:
      experience = self.act(agent, experience, Behaviour.RANDOM)
    return TrainingState(
      agent=agent,
      experience=experience,
      updates=jnp.zeros((), jnp.int32),
    )

  def with_numbers(self, numbers: Mapping[lanes.Path, jax.Array]) -> 'Loop':
    """Returns the loop of one lane.

    Args:
      numbers: of the settings `agent` and `replay`, by path; see `lanes`.
    """
    return lanes.put(self, numbers) if numbers else self

  def at(self, agent_steps: int | jax.Array) -> 'Loop':
    """Returns the loop with the numbers that hold after so many steps."""
    if not self.stages:
      return self
    numbers = {}
    for each in self.stages:
      stage = sum(agent_steps >= step for step in each.steps)
      for path, given in each.numbers.items():
        numbers[path] = (
          given[stage]
          if isinstance(stage, int)
          else jnp.stack([jnp.float32(x) for x in given])[stage]
        )
    return lanes.put(self, numbers)

  def agent_at(
    self, agent: agent_lib.Agent, agent_steps: int | jax.Array
  ) -> agent_lib.Agent:
    """Returns a lane's agent as it is after so many agent steps."""
    return dataclasses.replace(self, agent=agent).at(agent_steps).agent

  @property
  def has_memory(self) -> bool:
    """Whether the agent carries something from step to step."""
    return memory_lib.is_carried(self.agent)

  def remember(self, experience: Experience, step: base.TimeStep) -> Experience:
    """Adds what the environments answered to `experience.action`."""
    replay = self.at(experience.agent_steps).replay.add(
      experience.replay,
      ring.Step(
        observation=stacking.newest_frame(experience.observation, self.stack),
        action=experience.action,
        reward=clipped(step.reward, self.reward_clip),
        terminated=step.terminated,
        truncated=step.truncated,
        next_observation=step.next_observation,
        memory=self._kept(experience.memory),
      ),
    )
    return self.see(experience.replace(replay=replay), step)

  def see(self, experience: Experience, step: base.TimeStep) -> Experience:
    """Takes in what the environments show, without remembering it."""
    done = step.terminated | step.truncated
    return experience.replace(
      observation=stacking.next_observation(
        experience.observation, step.observation, done, self.stack
      ),
      agent_steps=experience.agent_steps + self.num_envs,
      memory=memory_lib.see(
        self.agent,
        experience.memory,
        experience.action,
        clipped(step.reward, self.reward_clip),
        done,
      ),
    )

  def act(
    self, agent: Any, experience: Experience, behaviour: Behaviour
  ) -> Experience:
    """Chooses the next actions; memory is updated by random ones, too."""
    key = jax.random.fold_in(experience.keys.act, experience.agent_steps)
    is_random = behaviour is Behaviour.RANDOM
    action, memory = None, experience.memory
    if self.has_memory or not is_random:
      action, memory = memory_lib.act(
        self.at(experience.agent_steps).agent,
        agent,
        memory,
        experience.observation,
        experience.agent_steps,
        key,
        explore=True,
      )
    if is_random:
      action = self._random_actions(key, experience.observation)
    return experience.replace(action=action, memory=memory)

  def step(
    self,
    num_updates: int,
    behaviour: Behaviour,
    state: TrainingState,
    metrics: Metrics,
    step: base.TimeStep,
  ) -> tuple[TrainingState, Metrics, jax.Array]:
    """Takes in what the environments answered, learns, and acts.

    Args:
      num_updates: that are due now.
      behaviour: how the next actions are chosen.
      state: the training state.
      metrics: sums so far.
      step: arrays [N, ...].

    Returns:
      The new state, the new sums, and which metrics were finite: bool [M], in
      the order of their names.
    """
    state = state.replace(experience=self.remember(state.experience, step))
    state, metrics, finite = self.update(num_updates, state, metrics)
    experience = self.act(state.agent, state.experience, behaviour)
    return state.replace(experience=experience), metrics, finite

  def update(
    self, num_updates: int, state: TrainingState, metrics: Metrics
  ) -> tuple[TrainingState, Metrics, jax.Array]:
    """Learns so many times; returns what `step` does."""
    if num_updates == 0:
      return state, metrics, jnp.ones(len(metrics.total), bool)
    if num_updates == 1:
      state, values = self.learn(state)
      values = jax.tree.map(lambda x: x[None], values)
    else:
      state, values = jax.lax.scan(
        lambda state, _: self.learn(state), state, length=num_updates
      )
    metrics = Metrics(
      total={k: self._added(metrics.total[k], k, values[k]) for k in values},
      count=metrics.count + num_updates,
    )
    finite = jnp.stack([jnp.isfinite(values[k]).all() for k in sorted(values)])
    return state, metrics, finite

  def learn(
    self, state: TrainingState
  ) -> tuple[TrainingState, dict[str, jax.Array]]:
    """Samples once and updates once; returns the update's metrics too."""
    return self._learn(state)

  @functools.cached_property
  def _learn(self):
    return self.trace_once(self._sample_and_update)

  def _sample_and_update(self, state):
    replay, keys = state.experience.replay, state.experience.keys
    now = self.at(state.experience.agent_steps)
    sample_key = jax.random.fold_in(keys.replay, state.updates)
    sample = now.replay.sample(replay, sample_key, self.schedule_count(state))
    key = jax.random.fold_in(keys.update, state.updates)
    given = self.split_batch(sample)
    with outputs.telling(self.agent, 'prepare'):
      prepared = now.agent.prepare(given, key)
    if prepared is not given:
      name = f'{type(self.agent).__name__}.prepare'
      outputs.require_alike(name, 'sample', given, _typed_as(given, prepared))
    with outputs.telling(self.agent, 'update'):
      answer = now.agent.update(state.agent, prepared, key)
    agent, metrics, priorities = outputs.require_update(
      self.agent, state.agent, answer
    )
    replay = now.replay.reprioritize(replay, sample.index, priorities)
    state = TrainingState(
      agent=agent,
      experience=state.experience.replace(replay=replay),
      updates=state.updates + 1,
    )
    return state, metrics

  def schedule_count(self, state: TrainingState) -> jax.Array:
    """Returns what schedules of the replay go by; int32 scalar.

    An agent whose state has no count of its own goes by all updates.
    """
    return getattr(state.agent, self.agent.schedule_count, state.updates)

  def _added(self, total, name, values):
    """Returns a metric's sum with new values [K], or the last of them."""
    if self.agent.reductions.get(name) == 'last':
      return values[-1].astype(total.dtype)
    return total + jnp.sum(values)

  def _kept(self, memory):
    """Returns what the replay keeps of memory."""
    return memory.before if memory and self.replay.keeps_memory else ()

  @property
  def is_masked(self) -> bool:
    """Whether observations say which actions are allowed."""
    return isinstance(self.agent.observation_space, spaces.Masked)

  def _random_actions(self, key, observation):
    if self.is_masked:
      choice = jax.random.uniform(key, (self.num_envs,))
      return exploration.pick(observation['action_mask'], choice)
    return random_actions(self.agent.action_space, key, self.num_envs)


def _typed_as(sample, prepared):
  """Returns the shapes of a prepared sample, as if no type had changed."""
  if jax.tree.structure(sample) != jax.tree.structure(prepared):
    return prepared
  return jax.tree.map(
    lambda old, new: jax.ShapeDtypeStruct(jnp.shape(new), old.dtype),
    sample,
    prepared,
  )


def clipped(reward: jax.Array, bound: float | None) -> jax.Array:
  """Returns rewards as learning sees them."""
  return reward if bound is None else jnp.clip(reward, -bound, bound)


def random_actions(
  space: gymnasium.Space, key: jax.Array, num_envs: int
) -> jax.Array:
  """Returns actions [N, *action_shape], uniform over the space.

  Raises:
    TypeError: if the space is not Discrete, MultiDiscrete or a Box.
  """
  if isinstance(space, gymnasium.spaces.Discrete):
    return jax.random.randint(key, (num_envs,), 0, int(space.n))
  if isinstance(space, gymnasium.spaces.MultiDiscrete):
    shape = (num_envs, *space.shape)
    return jax.random.randint(key, shape, 0, jnp.asarray(space.nvec)[None])
  if isinstance(space, gymnasium.spaces.Box):
    low, high = jnp.asarray(space.low), jnp.asarray(space.high)
    unit = jax.random.uniform(key, (num_envs, *space.shape))
    return low[None] + unit * (high - low)[None]
  raise TypeError(f'no random actions for the action space {space}')
