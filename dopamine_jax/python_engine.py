"""The Python engine: Python steps Gymnasium environments, XLA does the rest.

In the papers' order, but lazily: acting needs nothing of the replay, which
therefore hears of several steps at once, before the next update samples.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dopamine_jax import dispatch
from dopamine_jax import engine
from dopamine_jax import loop as loop_lib
from dopamine_jax import processes

# Time steps whose random actions are drawn by one call.
_DRAWN = 64


class PythonEngine(engine.Engine):
  """Python steps the environments: any that Gymnasium can make.

  With a small network, calling XLA takes longer than what it computes, and a
  call costs by the array. So a time step is passed as one array of bytes, and
  acting only those of the agent's leaves that it reads and nothing of the
  replay, which is told of the steps since the last update when the next is due,
  before it samples, or else every `_longest` steps.
  """

  def __init__(self, *args: Any, **kwargs: Any):
    super().__init__(*args, **kwargs)
    period = self.loop.agent.update_period // self.loop.num_envs
    self._longest = min(max(period, 1), 8)
    self._act_program, self._learn_programs = None, {}
    self._draw = jax.jit(self._vectorize(self._random_actions))
    self._remember = jax.jit(
      self._vectorize(self._remember_steps),
      donate_argnums=0,
      compiler_options=dispatch.one_by_one(),
    )

  def run(self, num_steps, *, cut_with, on_step):
    """See base class."""
    num_seeds, num_envs = len(self.seeds), self.loop.num_envs
    self._begin()
    for i in range(num_steps // num_envs):
      on_step()
      step = self.environments.step(self._actions)
      self.episodes.record(step)
      self.steps += num_envs
      if cut_with is not None and i == num_steps // num_envs - 1:
        step = step._replace(
          observation=self.reset(cut_with),
          truncated=step.truncated | ~step.terminated,
        )
      self._backlog.append((self._actions, dispatch.pack(step, num_seeds)))
      due = self._updates_due_at(self.steps)
      if due:
        self._learn(due)
      elif self._behaviour_at(self.steps) is loop_lib.Behaviour.RANDOM:
        self._act_randomly()
      else:
        self._act()
      if len(self._backlog) == self._longest:
        self._catch_up(self._longest)
    return self._end()

  def _begin(self):
    """Takes the state apart, into what is passed to which program."""
    state = self.state
    self._agent, self._updates, self._metrics = state.agent, state.updates, None
    # Constant; as plain arrays, since typed keys are slow to pass.
    self._typed_keys = state.experience.keys
    self._keys = jax.tree.map(jax.random.key_data, self._typed_keys)
    self._experience = state.experience.replace(keys=None)
    # Without the replay, but up to date; None while actions are random.
    self._seen = None
    self._read = None  # leaves of the agent
    self._actions = engine.flat(state.experience.action, len(self.seeds))
    # Actions and what was answered, of which the replay does not know yet.
    self._backlog: list[tuple[np.ndarray, np.ndarray]] = []
    self._drawn: list[np.ndarray] = []

  def _end(self):
    """Puts the state together again; returns the metrics' means."""
    self._catch_up(len(self._backlog))
    if self._seen is None:
      actions = engine.by_seed(self._actions, len(self.seeds))
      action = processes.put(actions, like=self._experience.action)
    else:
      action = self._seen.action
    self.state = self._whole(self._experience.replace(action=action))
    return self._means(self._metrics)

  def _whole(self, experience):
    return loop_lib.TrainingState(
      agent=self._agent,
      experience=experience.replace(keys=self._typed_keys),
      updates=self._updates,
    )

  def _catch_up(self, count):
    """Tells the replay of the oldest `count` steps of the backlog."""
    while count:
      size = self._longest if count >= self._longest else 1
      self._experience = self._remember(
        self._experience, self._keys, *self._take(size)
      )
      count -= size

  def _take(self, count):
    """Returns the backlog's oldest steps, arrays [(S,) count, ...]."""
    num_seeds = len(self.seeds)
    actions, packed = zip(*self._backlog[:count], strict=True)
    del self._backlog[:count]
    actions = [engine.by_seed(each, num_seeds) for each in actions]
    axis = 0 if num_seeds == 1 else 1
    # As `np.stack(each, axis)`, which takes five times as long.
    return tuple(np.array(each).swapaxes(0, axis) for each in (actions, packed))

  def _act_randomly(self):
    if not self._drawn:
      steps = np.full(len(self.seeds), self.steps, np.int32)
      drawn = self._draw(self._keys, steps if len(self.seeds) > 1 else steps[0])
      drawn = processes.fetch(drawn)
      axis = 0 if len(self.seeds) == 1 else 1
      self._drawn = [
        each.reshape(-1, *drawn.shape[axis + 2 :])
        for each in np.moveaxis(drawn, axis, 0)
      ]
    self._actions = self._drawn.pop(0)

  def _act(self):
    """Chooses the next actions, without an update."""
    if self._seen is None:
      self._catch_up(len(self._backlog) - 1)
      self._seen = self._experience.replace(replay=None)
    packed = self._backlog[-1][1]
    if self._act_program is None:
      self._act_program = self._compile_act(
        self._agent, self._seen, self._keys, packed
      )
    program, reads = self._act_program
    if self._read is None:
      leaves = jax.tree.leaves(self._agent)
      self._read = [leaves[i] for i in reads]
    self._seen = program(self._read, self._seen, self._keys, packed)
    self._actions = engine.flat(self._seen.action, len(self.seeds))

  def _learn(self, num_updates):
    """Updates and chooses the next actions."""
    if self._metrics is None:
      self._metrics = self._zero_metrics(self._whole(self._experience))
    if len(self._backlog) != self._longest:
      self._catch_up(len(self._backlog) - 1)
    if num_updates not in self._learn_programs:
      self._learn_programs[num_updates] = self._compile_learn(num_updates)
    learn = self._learn_programs[num_updates]
    self._agent, self._experience, self._updates, self._metrics, finite = learn(
      self._agent,
      self._experience,
      self._updates,
      self._metrics,
      self._keys,
      *self._take(len(self._backlog)),
    )
    if self.check_finite:
      finite = processes.fetch(finite)
      if not finite.all():
        self._stop_at(list(self._metrics.total), finite)
    self._read, self._seen = None, self._experience.replace(replay=None)
    self._actions = engine.flat(self._seen.action, len(self.seeds))

  def _compile_act(self, *arguments):
    """Returns a step without an update, and the agent's leaves it reads."""

    def step(agent, seen, keys, packed):
      seen = self.loop.see(_with_keys(seen, keys), self._unpack(packed))
      seen = self.loop.act(agent, seen, loop_lib.Behaviour.AGENT)
      return seen.replace(keys=None)

    step, reads = dispatch.reading_less(
      step, *dispatch.one_seed(arguments, len(self.seeds))
    )
    # Nothing is donated: the backlog begins with what was seen then.
    return jax.jit(
      self._vectorize(step), compiler_options=dispatch.one_by_one()
    ), reads

  def _compile_learn(self, num_updates):
    """Returns the program that remembers, updates and acts."""

    def step(agent, experience, updates, metrics, keys, actions, packed):
      experience = self._remember_steps(experience, keys, actions, packed)
      agent, experience, *rest = engine.learn_and_act(
        self.loop,
        num_updates,
        agent,
        _with_keys(experience, keys),
        updates,
        metrics,
      )
      return agent, experience.replace(keys=None), *rest

    return jax.jit(self._vectorize(step), donate_argnums=(0, 1, 2, 3))

  # What follows is traced, for one seed.

  def _remember_steps(self, experience, keys, actions, packed):
    """Remembers steps, arrays with a leading axis, one after another."""

    def remember(i, experience):
      return self.loop.remember(
        experience.replace(action=actions[i]), self._unpack(packed[i])
      )

    # XLA writes to a loop's carry in place. Steps that are written out would
    # have it copy whole arrays of the replay, and so would a loop of one turn
    # if it knew of that: a count that it can't see through keeps it a loop. All
    # seeds have the same one, or each turn would copy the replay after all.
    count = jax.lax.optimization_barrier(jnp.int32(len(packed)))
    experience = _with_keys(experience.replace(action=actions[0]), keys)
    experience = jax.lax.fori_loop(0, count, remember, experience)
    return experience.replace(keys=None)

  def _random_actions(self, keys, steps):
    """Returns the actions [K, N, ...] after `steps` agent steps and on."""

    def act(steps):
      experience = loop_lib.Experience(
        replay=None, observation=None, action=None, agent_steps=steps, keys=None
      )
      experience = _with_keys(experience, keys)
      random = loop_lib.Behaviour.RANDOM
      return self.loop.act(None, experience, random).action

    ahead = jnp.arange(_DRAWN) * self.loop.num_envs
    return jax.vmap(act)(steps + ahead)

  def _unpack(self, packed):
    space = self.environments.observation_space
    return dispatch.unpack(packed, space, self.loop.num_envs)


def _with_keys(experience, keys):
  return experience.replace(keys=jax.tree.map(jax.random.wrap_key_data, keys))
