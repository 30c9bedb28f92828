"""The Python engine: the steps of `plain_engine` in fewer, cheaper calls.

With a small network, calling XLA takes longer than its computation, and each
array slows a call. What that gains over `PlainEngine`:
`python -m benchmarks.plain`.
"""

from collections.abc import Callable, Sequence
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dopamine_jax.engines import dispatch
from dopamine_jax.engines import loop as loop_lib
from dopamine_jax.engines import plain_engine
from dopamine_jax.system import processes

# Time steps whose random actions are drawn by one call.
_DRAWN = 64
# Bytes of the largest arrays that are passed joined: to copy them takes less.
_SMALL = 2**14


class Parts(NamedTuple):
  """What is passed to programs by itself, of one seed or of all.

  Attributes:
    learner: the agent's state, the count of updates, the metrics' sums.
    replay: the replay's state.
    seen: what the agent acts on, and the count of agent steps.
    keys: of all draws, as plain arrays: typed ones are slow to pass.
    memory: what an agent with memory carries since the newest actions.
  """

  learner: Any
  replay: Any
  seen: Any
  keys: Any
  memory: Any


class PythonEngine(plain_engine.PlainEngine):
  """Python steps the environments: any that Gymnasium can make.

  The state's small arrays are passed joined, a time step as one array of bytes,
  and to acting only what it reads. That is nothing of the replay, so steps are
  added to it several at once: before an update, or after 8 steps at the latest.
  Random actions are drawn for many steps at once.
  """

  def __init__(self, *args: Any, **kwargs: Any):
    super().__init__(*args, **kwargs)
    period = self.loop.agent.update_period // self.loop.num_envs
    self._longest = min(max(period, 1), 8)
    self._bundles = None
    self._draw = self._remember = None
    self._act_programs, self._learn_programs = {}, {}

  def _begin(self):
    """Takes the state apart, by what is passed to which program."""
    state = self.state
    experience = state.experience
    parts = Parts(
      learner=(state.agent, state.updates, self._zero_metrics(state)),
      replay=experience.replay,
      seen=(experience.observation, experience.agent_steps),
      keys=jax.tree.map(jax.random.key_data, experience.keys),
      memory=experience.memory,
    )
    if self._bundles is None:
      self._prepare(parts)
    tied = Parts(*(b.tie(x) for b, x in zip(self._bundles, parts, strict=True)))
    self._learner, self._replay, self._known, self._keys, self._memory = tied
    # The newest that was seen; `_known` is what the replay knows of. None while
    # actions are random.
    self._seen = None
    self._action = experience.action
    self._read = {}  # of the learner, what acting reads, by behaviour
    self._actions = self.axis.merge(experience.action)
    # Actions, the memory since, and what was answered, of which the replay does
    # not know yet.
    self._backlog: list[tuple[np.ndarray, list, np.ndarray]] = []
    self._drawn: list[np.ndarray] = []

  def _answer(self, step, num_updates):
    """Does the same as the base class, in as few calls as there may be."""
    packed = dispatch.pack(step, len(self.seeds))
    self._backlog.append((self._actions, self._memory, packed))
    behaviour = self._behaviour_at(self.steps)
    is_random = behaviour is loop_lib.Behaviour.RANDOM
    if num_updates:
      actions = self._learn(num_updates)
    elif is_random and not (self.loop.has_memory or self.loop.is_masked):
      actions = self._act_randomly()
    else:
      actions = self._act(behaviour)
    if len(self._backlog) == self._longest:
      self._catch_up(self._longest)
    return actions

  def _prepare(self, parts):
    """Decides what is passed how; makes the programs that need no example."""
    # With devices or memories to choose from, each array has its place.
    largest = _SMALL if self.layout.is_simple else -1
    self._bundles = Parts(*(dispatch.Bundle(x, largest) for x in parts))
    _, replay, seen, keys, memory = self._bundles
    self._several = dispatch.Several(memory)
    self._draw = jax.jit(self._tied('draw', self._random_actions, [keys], []))
    self._remember = jax.jit(
      self._tied(
        'remember',
        self._remember_steps,
        [replay, seen, keys, self._several],
        [replay, seen],
      ),
      donate_argnums=(0, 1),
      compiler_options=dispatch.one_by_one(),
    )

  def _end(self):
    """Puts the state together again."""
    self._catch_up(len(self._backlog))
    if self._seen is None:
      actions = self.axis.split(self._actions)
      self._action = processes.put(actions, like=self._action)
    agent, updates, metrics = self._bundles.learner.untie(self._learner)
    observation, agent_steps = self._bundles.seen.untie(self._known)
    self.state = loop_lib.TrainingState(
      agent=agent,
      experience=loop_lib.Experience(
        replay=self._bundles.replay.untie(self._replay),
        observation=observation,
        action=self._action,
        agent_steps=agent_steps,
        keys=self.state.experience.keys,
        memory=self._bundles.memory.untie(self._memory),
      ),
      updates=updates,
    )
    return metrics

  def _catch_up(self, count):
    """Tells the replay of the oldest `count` steps of the backlog."""
    while count:
      size = self._longest if count >= self._longest else 1
      self._replay, self._known = self._remember(
        self._replay, self._known, self._keys, *self._take(size)
      )
      count -= size

  def _take(self, count):
    """Returns the backlog's oldest steps: memories, arrays [S, count, ...]."""
    actions, memories, packed = zip(*self._backlog[:count], strict=True)
    del self._backlog[:count]
    steps = [self.axis.split(each) for each in actions], packed
    # As `np.stack(each, self.axis.next)`, which takes five times as long.
    steps = [np.array(each).swapaxes(0, self.axis.next) for each in steps]
    return memories, *steps

  def _act_randomly(self):
    if not self._drawn:
      (drawn,) = self._draw(self._keys, self.axis.number(self.steps))
      drawn = np.moveaxis(processes.fetch(drawn), self.axis.next, 0)
      self._drawn = [self.axis.merge(each) for each in drawn]
    return self._drawn.pop(0)

  def _act(self, behaviour):
    """Chooses the next actions, without an update."""
    if self._seen is None:
      self._catch_up(len(self._backlog) - 1)
      self._seen = self._known
    # An agent without memory needs no word of what it did, to see.
    actions, packed = None, self._backlog[-1][-1]
    if self.loop.has_memory:
      actions = self.axis.split(self._backlog[-1][0])
    arguments = self._seen, self._keys, self._memory, actions, packed
    if behaviour not in self._act_programs:
      self._act_programs[behaviour] = self._compile_act(
        behaviour, self._learner, *arguments
      )
    program, reads = self._act_programs[behaviour]
    if behaviour not in self._read:
      self._read[behaviour] = [self._learner[i] for i in reads]
    self._seen, self._memory, self._action = program(
      self._read[behaviour], *arguments
    )
    return self.axis.merge(self._action)

  def _learn(self, num_updates):
    """Updates and chooses the next actions."""
    if len(self._backlog) != self._longest:
      self._catch_up(len(self._backlog) - 1)
    if num_updates not in self._learn_programs:
      self._learn_programs[num_updates] = self._compile_learn(num_updates)
    tied = self._learn_programs[num_updates](
      self._learner,
      self._replay,
      self._known,
      self._keys,
      *self._take(len(self._backlog)),
    )
    self._learner, self._replay, self._known, self._memory = tied[:4]
    self._action, finite = tied[4:]
    self._require_finite(self._metric_shapes, finite)
    self._read, self._seen = {}, self._known
    return self.axis.merge(self._action)

  def _compile_act(self, behaviour, *arguments):
    """Returns a step without an update, and the learner's arrays it reads."""
    learner, _, seen, keys, memory = self._bundles
    step = self._tied(
      'act',
      functools.partial(self._step_without_updates, behaviour),
      [learner, seen, keys, memory],
      [seen, memory],
    )
    step, reads = dispatch.reading_less(step, *arguments)
    # Nothing is donated: the backlog begins with what was seen then.
    return jax.jit(step, compiler_options=dispatch.one_by_one()), reads

  def _compile_learn(self, num_updates):
    """Returns the program that remembers, updates and acts."""
    step = functools.partial(self._step_with_updates, num_updates)
    learner, replay, seen, keys, memory = self._bundles
    takes = [learner, replay, seen, keys, self._several]
    return jax.jit(
      self._tied('learn', step, takes, [learner, replay, seen, memory]),
      donate_argnums=(0, 1, 2),
    )

  def _tied(
    self,
    name: str,
    function: Callable[..., Any],
    takes: Sequence[dispatch.Bundle | dispatch.Several],
    gives: Sequence[dispatch.Bundle],
  ) -> Callable[..., Any]:
    """Returns one seed's `function` over all seeds, of tied arguments.

    Args:
      name: of the program, in a profile.
      function: of a Loop and more; gives a tuple.
      takes: what ties its first arguments; those that follow are not.
      gives: the same of its results.
    """
    function = self.vectorize_loop(function)

    def program(*arguments):
      untied = [b.untie(x) for b, x in zip(takes, arguments, strict=False)]
      results = function(*untied, *arguments[len(takes) :])
      tied = [b.tie(x) for b, x in zip(gives, results, strict=False)]
      return *tied, *results[len(gives) :]

    program.__name__ = name
    return program

  # What follows is traced, for one seed.

  def _step_with_updates(
    self, num_updates, loop, learner, replay, seen, keys, *new
  ):
    """Returns the new parts, the actions, and which metrics are finite."""
    agent, updates, metrics = learner
    experience = self._remembered(loop, replay, seen, keys, *new)
    state = loop_lib.TrainingState(agent, experience, updates)
    state, metrics, finite = loop.update(num_updates, state, metrics)
    experience = loop.act(
      state.agent, state.experience, loop_lib.Behaviour.AGENT
    )
    learner = state.agent, state.updates, metrics
    parts = learner, experience.replay, _seen(experience), experience.memory
    return *parts, experience.action, finite

  def _step_without_updates(
    self, behaviour, loop, learner, seen, keys, memory, actions, packed
  ):
    """Returns what was seen, and the actions; the replay is not told."""
    agent, _, _ = learner
    experience = _experience(None, seen, keys, memory, actions)
    experience = loop.see(experience, self._unpack(packed))
    experience = loop.act(agent, experience, behaviour)
    return _seen(experience), experience.memory, experience.action

  def _remember_steps(self, *arguments):
    """Returns the new replay, and what it knows of."""
    experience = self._remembered(*arguments)
    return experience.replay, _seen(experience)

  def _remembered(self, loop, replay, seen, keys, memories, actions, packed):
    """Remembers steps, arrays with a leading axis, one after another."""
    memories = jax.tree.map(lambda *each: jnp.stack(each), *memories)

    def remember(i, experience):
      memory = jax.tree.map(lambda each: each[i], memories)
      experience = experience.replace(action=actions[i], memory=memory)
      return loop.remember(experience, self._unpack(packed[i]))

    # XLA writes to a loop's carry in place. Steps that are written out would
    # have it copy whole arrays of the replay, and so would a loop of one turn
    # if it knew of that: a count that it can't see through keeps it a loop. All
    # seeds have the same one, or each turn would copy the replay after all.
    count = jax.lax.optimization_barrier(jnp.int32(len(packed)))
    memory = jax.tree.map(lambda each: each[0], memories)
    experience = _experience(replay, seen, keys, memory, actions[0])
    return jax.lax.fori_loop(0, count, remember, experience)

  def _random_actions(self, loop, keys, steps):
    """Returns the actions [K, N, ...] after `steps` agent steps and on."""

    def act(steps):
      experience = _experience(None, (None, steps), keys)
      random = loop_lib.Behaviour.RANDOM
      return loop.act(None, experience, random).action

    ahead = jnp.arange(_DRAWN) * loop.num_envs
    return (jax.vmap(act)(steps + ahead),)

  def _unpack(self, packed):
    space = self.environments.observation_space
    return dispatch.unpack(packed, space, self.loop.num_envs)


def _experience(replay, seen, keys, memory=(), action=None):
  observation, agent_steps = seen
  return loop_lib.Experience(
    replay=replay,
    observation=observation,
    action=action,
    agent_steps=agent_steps,
    keys=jax.tree.map(jax.random.wrap_key_data, keys),
    memory=memory,
  )


def _seen(experience):
  return experience.observation, experience.agent_steps
