"""Whole episodes with a trained agent: for the runner, `evaluate`, `record`."""

from collections.abc import Callable, Mapping, Sequence
import functools
import time
import types
from typing import Any, NamedTuple

import gymnasium
import jax
import numpy as np

from dopamine_jax import agent as agent_lib
from dopamine_jax import annotations
from dopamine_jax import errors
from dopamine_jax.engines import counting
from dopamine_jax.engines import engine
from dopamine_jax.engines import loop
from dopamine_jax.engines import memory as memory_lib
from dopamine_jax.engines import seed_axis
from dopamine_jax.engines import stacking
from dopamine_jax.environments import base
from dopamine_jax.environments import border

# Environments that evaluate side by side, a seed.
_MAX_ENVS = 32
_PATIENCE = 30.0  # seconds without the end of an episode


class Evaluation(NamedTuple):
  """What the episodes of S seeds reached.

  Attributes:
    returns: [S, E] float, raw episode returns.
    lengths: [S, E] int, agent steps.
    told: [S, E] float by name, what environments tell of an episode; NaN where
      they told nothing.
  """

  returns: np.ndarray
  lengths: np.ndarray
  told: Mapping[str, np.ndarray] = types.MappingProxyType({})


class Moment(NamedTuple):
  """An evaluation just before its environments step.

  Attributes:
    observation: what the agents act on, [S, N, *observation_shape]; donated
      when the step is over.
    actions: what they do, [S * N, *action_shape].
    count: steps before this one; with it `step_key` gives the key they act by.
    answer: what the environments gave in the step before; None at first.
    left: episodes that are still to end.
    memory: with what agents that have one act, see `memory.Carried`.
  """

  observation: jax.Array
  actions: np.ndarray
  count: int
  answer: base.TimeStep | None
  left: int
  memory: Any = ()


class Patience:
  """Says what an evaluation waits for when no episode ends for long.

  Args:
    what: begins the sentence.
    environment: settings of what is played.
    say: prints it: after 30 s, and again when that time has doubled.
  """

  def __init__(
    self, what: str, environment: base.Environment, say: Callable[[str], None]
  ):
    self._what = what
    kind = annotations.full_name(type(environment))
    setting, limit = 'max_steps_per_episode', environment.max_steps_per_episode
    self._remedy = (
      'An agent that never ends one needs a limit from the start of its '
      f'training: {kind}.{setting}.'
      if limit is None
      else f'{kind}.{setting} = {limit} ends each.'
    )
    self._say = say
    self._since = time.monotonic()
    self._limit = _PATIENCE
    self._left = None

  def __call__(self, moment: Moment) -> None:
    """Looks at a step."""
    now = time.monotonic()
    # Lanes that have played their share may go on; their ends don't count.
    one_ended = self._left is not None and moment.left < self._left
    self._left = moment.left
    if one_ended:
      self._since, self._limit = now, _PATIENCE
    elif now - self._since >= self._limit:
      self._limit *= 2
      self._say(
        f'{self._what} waits for an episode to end: none has for '
        f'{now - self._since:.0f} s, {moment.count} steps are done. '
        f'{self._remedy}'
      )


def step_key(key: jax.Array, count: int | jax.Array) -> jax.Array:
  """Returns the key by which one seed's agent acts in a step."""
  return jax.random.fold_in(key, count)


def require_same_spaces(
  trained_on: base.Environment,
  training: base.VectorEnvironment,
  played_on: base.Environment,
  playing: base.VectorEnvironment,
):
  """Refuses to play on what an agent was not trained for.

  Args:
    trained_on: settings of the training's environments.
    training: the environments.
    played_on: settings of those to play on.
    playing: the environments.

  Raises:
    UserError: shows both spaces, of what agents see or of what they do.
  """
  seen, others = (
    stacking.stacked_space(each.observation_space, settings.stack)
    for settings, each in ((trained_on, training), (played_on, playing))
  )
  for what, own, other in (
    ('observations', seen, others),
    ('actions', training.action_space, playing.action_space),
  ):
    if own != other:
      raise errors.UserError(
        f'agents are trained with {what} in {own}, and '
        f'{annotations.full_name(type(played_on))} would have them play with '
        f'{what} in {other}. Choose an environment of the same spaces.'
      )


def tell_bounds(
  training: base.VectorEnvironment,
  playing: base.VectorEnvironment,
  say: Callable[[str], None],
):
  """Says so where the same action of an agent is another one to play on."""
  own, others = map(_bounds, (training, playing))
  if own != others:
    say(
      f'Warning: actions reach from {own[0]} to {own[1]} in training, and from '
      f'{others[0]} to {others[1]} in evaluations. An agent acts in [-1, 1], '
      'which is stretched to either.'
    )


def _bounds(environments):
  """Returns what an agent's outermost actions are to an environment."""
  space = environments.action_space
  if not isinstance(space, gymnasium.spaces.Box):
    return None
  ends = np.ones((1, *space.shape), np.float32)
  return [environments.as_taken(x)[0].tolist() for x in (-ends, ends)]


class Evaluator:
  """Plays whole episodes; compiles once, and makes its environments once.

  Attributes:
    agent: the settings.
    num_seeds: S.
    episodes: E, episodes a seed.
    num_envs: environments side by side, a seed. Each plays a fixed share of
      the episodes, since taking the first E to end would favour short ones.
      Then it may rest, see `VectorEnvironment.rest`.
  """

  def __init__(
    self,
    agent: agent_lib.Agent,
    environment: base.Environment,
    num_seeds: int,
    episodes: int,
    render: bool = False,
    vectorize: Callable[..., Any] | None = None,
    agent_at: Callable[..., agent_lib.Agent] = lambda agent, steps: agent,
  ):
    """Makes the environments.

    Args:
      agent: see above; likewise the others.
      environment: settings of what is played.
      num_seeds: see above.
      episodes: see above.
      render: whether environments are drawn, which then are one a seed.
      vectorize: turns f(agent, *arguments) of one seed into f(*arguments) of
        all seeds; None: all have the agent that is given.
      agent_at: gives of an agent the one that it is after so many steps of
        training.
    """
    self.agent = agent
    self._agent_at = agent_at
    self.num_seeds = num_seeds
    self.episodes = episodes
    self.num_envs = 1 if render else min(episodes, _MAX_ENVS)
    self._stack = environment.stack
    self.environments = environment.make(
      num_seeds * self.num_envs, render=render
    )
    self._axis = seed_axis.SeedAxis(num_seeds)
    self._reward_clip = environment.reward_clip
    over = vectorize or self._of_one_agent
    self._first = jax.jit(over(self._begin))
    self._next = jax.jit(over(self._see), donate_argnums=0)
    self._act = jax.jit(over(self._choose))

  def _of_one_agent(self, function):
    return self._axis.over(functools.partial(function, self.agent))

  # What follows is traced, for one seed.

  def _begin(self, agent, frames):
    """Returns the first observations, and what is carried into them."""
    action = loop.random_actions(
      agent.action_space, jax.random.key(0), self.num_envs
    )
    memory = memory_lib.begin(agent, action)
    return stacking.first_observation(frames, self._stack), memory

  def _see(self, agent, observation, memory, frames, action, reward, begins):
    """Returns the next observations, and what is carried into them."""
    observation = stacking.next_observation(
      observation, frames, begins, self._stack
    )
    reward = loop.clipped(reward, self._reward_clip)
    return observation, memory_lib.see(agent, memory, action, reward, begins)

  def _choose(self, agent, state, observation, memory, step, key, count):
    return memory_lib.act(
      self._agent_at(agent, step),
      *(state, memory, observation, step, step_key(key, count)),
      explore=False,
    )

  def run(
    self,
    state: Any,
    keys: jax.Array,
    env_seeds: Sequence[int],
    step: int,
    on_step: Callable[[Moment], None] = lambda moment: None,
    on_wait: Callable[[], None] = lambda: None,
  ) -> Evaluation:
    """Plays E episodes with each seed.

    Args:
      state: the agents' state, [S, ...].
      keys: PRNG keys [S].
      env_seeds: [S * N] environment seeds.
      step: agent steps of training so far.
      on_step: called before each step.
      on_wait: called now and then while a step takes long; may raise to stop.
    """
    lanes = self.num_seeds * self.num_envs
    # The first lanes of a seed play one more where E is no multiple of N.
    share = self.episodes // self.num_envs + (
      np.arange(self.num_envs) < self.episodes % self.num_envs
    )
    share = np.tile(share, self.num_seeds)
    played = np.zeros(lanes, int)
    episodes = engine.Episodes(lanes, self.environments.told_names)
    self.environments.on_wait = on_wait
    watched = border.Border(self.environments)
    frames = watched.reset(env_seeds)
    observation, memory = self._first(self._axis.split(frames))
    steps = self._axis.number(counting.in_32_bits(step))
    count, answer = 0, None
    while (played < share).any():
      taken, acted = self._act(
        state, observation, memory, steps, keys, self._axis.number(count)
      )
      actions = self._axis.merge(taken)
      left = int((share - played).clip(min=0).sum())
      on_step(Moment(observation, actions, count, answer, left, memory))
      answer = watched.step(actions)
      episodes.record(answer, self.environments.told)
      done = answer.terminated | answer.truncated
      played += done
      if done.any():
        self.environments.rest(np.flatnonzero(played >= share))
      begins = done | self.environments.begins_anew
      frames, reward, begins = self._axis.split(
        (answer.observation, answer.reward, begins)
      )
      observation, memory = self._next(
        observation, acted, frames, taken, reward, begins
      )
      count += 1
    return self._collect(episodes, share)

  def _collect(self, episodes, share):
    """Takes each lane's share, in the order of lanes."""
    by_lane = [[] for _ in share]
    for i, (lane, value, length) in enumerate(episodes.finished):
      if len(by_lane[lane]) < share[lane]:
        told = episodes.told[i] if episodes.told else ()
        by_lane[lane].append((value, length, *told))
    results = np.array([each for lane in by_lane for each in lane])
    results = results.reshape(self.num_seeds, self.episodes, -1)
    returns, lengths, *told = np.moveaxis(results, -1, 0)
    return Evaluation(
      returns=returns,
      lengths=lengths.astype(int),
      told=dict(zip(episodes.told_names, told, strict=True)),
    )
