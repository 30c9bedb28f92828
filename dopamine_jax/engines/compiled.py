"""The compiled engine: environments are stepped inside an XLA program.

One call takes a chunk of steps, each in the papers' order, while Python only
says how many. The program knows that number as an argument, so that it is
compiled once, and a run is the same however it is cut into chunks.
"""

from collections.abc import Sequence
import functools
import time
from typing import Any

from flax import struct
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from dopamine_jax import spaces
from dopamine_jax.engines import engine
from dopamine_jax.engines import loop as loop_lib
from dopamine_jax.environments import base
from dopamine_jax.environments import border
from dopamine_jax.environments import counts
from dopamine_jax.environments import steppers
from dopamine_jax.system import processes

# Steps of the longest chunk; what each of them answered is kept until its end.
LONGEST = 4096

# What may be wrong with an environment's step.
_OBSERVATION, _ACTION, _NO_ACTION, _NONE_ALLOWED, _NOT_ALLOWED = range(1, 6)


class Pace:
  """How many steps a chunk has, so that it takes about 0.3 seconds.

  With several processes always the same: they must agree, and clocks don't.

  Attributes:
    length: of the next chunk, at most LONGEST.
  """

  def __init__(self):
    self._is_alone = jax.process_count() == 1
    self.length = 1 if self._is_alone else 256
    self._started = 0.0

  def start(self):
    """Begins to measure a chunk."""
    self._started = time.perf_counter()

  def stop(self, num_steps: int):
    """Ends it; one that was shorter than it might have been tells nothing."""
    seconds = time.perf_counter() - self._started
    if self._is_alone and num_steps == self.length:
      if seconds < 0.2:
        self.length = min(2 * self.length, LONGEST)
      elif seconds > 0.5:
        self.length = max(self.length // 2, 1)


class Log(struct.PyTreeNode):
  """What the environments answered in a chunk.

  Attributes:
    reward: float32 [LONGEST, ..., N], not clipped.
    done: bool, the same shape; whether the environment terminated or truncated
      the episode. Cuts at checkpoints don't count.
    flaw: uint8, the same shape; the code of an invalid step as in `_flaws`, 0
      if it is valid.
    told: numbers of the environments' own by name, float32 of the same shape.
  """

  reward: jax.Array
  done: jax.Array
  flaw: jax.Array
  told: dict[str, jax.Array]

  @classmethod
  def empty(cls, lanes: Any) -> 'Log':
    """Returns a log for these lanes."""
    shape = lanes.age.shape
    return cls(
      reward=jnp.zeros((LONGEST, *shape)),
      done=jnp.zeros((LONGEST, *shape), bool),
      flaw=jnp.zeros((LONGEST, *shape), jnp.uint8),
      told={name: jnp.zeros((LONGEST, *shape)) for name in lanes.told},
    )

  def write(
    self,
    i: jax.Array,
    step: base.TimeStep,
    flaw: jax.Array,
    told: dict[str, jax.Array],
  ) -> 'Log':
    """Returns the log with step `i` in it."""
    return Log(
      reward=self.reward.at[i].set(step.reward),
      done=self.done.at[i].set(step.terminated | step.truncated),
      flaw=self.flaw.at[i].set(flaw),
      told={name: self.told[name].at[i].set(told[name]) for name in told},
    )

  def steps(
    self, count: int, names: Sequence[str]
  ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns rewards, ends and flaws [count, lanes] of the first steps.

    And what was told under these names, [count, lanes, K].
    """
    told = [self.told[name] for name in names]
    reward, done, flaw, *told = (
      processes.fetch(leaf)[:count].reshape(count, -1)
      for leaf in (self.reward, self.done, self.flaw, *told)
    )
    told = np.stack(told, axis=-1) if told else np.zeros((*done.shape, 0))
    return reward, done, flaw, told


class Carry(struct.PyTreeNode):
  """The carry of the loop over steps; arrays [S, ...].

  Attributes:
    state: the training state.
    metrics: sums of the updates' metrics.
    lanes: where the environments stand, see `steppers.Stepper`.
  """

  state: loop_lib.TrainingState
  metrics: loop_lib.Metrics
  lanes: Any


class Plan(struct.PyTreeNode):
  """What Python decides of a chunk.

  Attributes:
    num_steps: int32 scalar, steps of every environment.
    updates_due: int32 [LONGEST], updates that belong after each step.
    cut_at: int32 scalar, the step after which episodes are cut; none has the
      number -1.
    prepared: what the reset after a cut needs, see `Stepper.prepare`.
  """

  num_steps: jax.Array
  updates_due: jax.Array
  cut_at: jax.Array
  prepared: Any


class CompiledEngine(engine.Engine):
  """XLA steps the environments: those in JAX, and Atari games."""

  def __init__(self, *args: Any, **kwargs: Any):
    super().__init__(*args, **kwargs)
    stepper = steppers.of(self.environments, self.vectorize)
    if self.layout.settings.split != 'none' and not stepper.splits:
      self.layout.settings.refuse(
        'split',
        f'does not go with {self.environments.name} on compiled.CompiledEngine,'
        " which steps it from one device: choose 'none' and leave num_devices "
        'out, or leave runner.Runner.engine at python_engine.PythonEngine',
      )
    self._stepper = stepper
    self._chunk = {
      behaviour: jax.jit(
        functools.partial(self._take_steps, behaviour), donate_argnums=0
      )
      for behaviour in loop_lib.Behaviour
    }
    self._pace = {behaviour: Pace() for behaviour in loop_lib.Behaviour}

  def reset(self, env_seeds):
    """Begins all environments anew; see `Engine.reset`."""
    self.episodes.cut()
    self._since_reset = 0
    self._prepared = self._prepare(env_seeds)
    self._lanes, frames = self._stepper.reset(self._prepared)
    frames = jax.tree.map(self.axis.merge, frames)
    self.first_frames = self._border.checked_first(frames)
    return self.first_frames

  def run(self, num_steps, *, cut_with, on_step):
    """Trains as `Engine.run` says; `on_step` is called before each chunk."""
    metrics = self._zero_metrics(self.state)
    prepared = self._prepared if cut_with is None else self._prepare(cut_with)
    num_envs = self.loop.num_envs
    left = num_steps // num_envs
    ahead = np.arange(1, LONGEST + 1) * num_envs
    while left:
      on_step()
      behaviour = self._behaviour_at(self.steps + num_envs)
      length = min(left, self._longest(behaviour))
      plan = Plan(
        num_steps=np.int32(length),
        updates_due=np.int32(self._updates_due_at(self.steps + ahead)),
        cut_at=np.int32(-1 if cut_with is None else left - 1),
        prepared=prepared,
      )
      metrics, finite = self._run_chunk(behaviour, metrics, plan)
      self._require_finite(metrics.total, finite)
      left -= length
    if cut_with is not None:
      self.reset(cut_with)
    return self._reduced(metrics)

  def _run_chunk(self, behaviour, metrics, plan):
    """Takes a chunk of steps, or those up to a metric that isn't finite."""
    pace = self._pace[behaviour]
    pace.start()
    carry = Carry(state=self.state, metrics=metrics, lanes=self._lanes)
    carry, log, count, finite = self._chunk[behaviour](carry, plan)
    self.state, self._lanes = carry.state, carry.lanes
    count = int(processes.fetch(count))
    pace.stop(count)
    self.steps += count * self.loop.num_envs
    reward, done, flaw, told = log.steps(count, self.episodes.told_names)
    self._require_sound(reward, flaw)
    self._since_reset += count
    self.episodes.record_all(reward, done, told)
    return carry.metrics, finite

  def _require_sound(self, reward, flaw):
    """Drops the state and raises UserError if a step was not sound.

    The chunk went on with what it was, so that the state holds it: nobody is to
    save or read it. A metric that is not finite may have come of it.
    """
    bad = (flaw > 0) | ~np.isfinite(reward)
    if not bad.any():
      return
    self.state = None
    step, lane = np.argwhere(bad)[0]
    if flaw[step, lane] == _ACTION:
      raise base.action_not_finite()
    if flaw[step, lane] == _NO_ACTION:
      raise base.action_outside(self.environments.action_space)
    if flaw[step, lane] == _NOT_ALLOWED:
      raise border.not_allowed()
    count = self._since_reset + int(step) + 1
    if flaw[step, lane] == _NONE_ALLOWED:
      raise border.none_allowed(self.environments, int(lane), count)
    quantity = 'observation' if flaw[step, lane] == _OBSERVATION else 'reward'
    raise border.not_finite(self.environments, int(lane), count, quantity)

  def _prepare(self, env_seeds):
    """Returns what a reset with these seeds needs."""
    seeds = counts.check_seeds(env_seeds, self.environments.num_envs)
    return self._stepper.prepare(self.axis.split(np.asarray(seeds, np.int32)))

  def _longest(self, behaviour):
    """Returns the steps that a chunk may have now, all of one behaviour."""
    length = self._pace[behaviour].length
    if behaviour is loop_lib.Behaviour.RANDOM:
      warm_up = self.loop.replay.warm_up - 1 - self.steps
      length = min(length, warm_up // self.loop.num_envs)
    return length

  # What follows is traced.

  def _take_steps(self, behaviour, carry, plan):
    """Returns the carry, the log, the steps taken, and which metrics are fine.

    The steps end after the first whose update has a metric that isn't finite.
    """
    seeds = carry.metrics.count.shape
    finite = jnp.ones((*seeds, len(carry.metrics.total)), bool)
    log = Log.empty(carry.lanes)

    def goes_on(loop_state):
      i, _, _, finite = loop_state
      return (i < plan.num_steps) & jnp.all(finite)

    def body(loop_state):
      i, carry, log, finite = loop_state
      action = carry.state.experience.action
      seen = carry.state.experience.observation
      carry, step, told = self._remember(carry, plan.prepared, i == plan.cut_at)
      log = log.write(i, step, self._flaws(seen, action, step), told)
      state, metrics = carry.state, carry.metrics
      if behaviour is loop_lib.Behaviour.AGENT:
        due = plan.updates_due[i]
        # A loop alone would do, but XLA takes out of it what stays the same,
        # the sorting of a rollout too, and does that at every step.
        state, metrics, finite = jax.lax.cond(
          due > 0,
          lambda *changing: jax.lax.fori_loop(
            0, due, lambda _, changing: self._learn(*changing), changing
          ),
          lambda *changing: changing,
          state,
          metrics,
          finite,
        )
      act = self.vectorize_loop(
        functools.partial(loop_lib.Loop.act, behaviour=behaviour)
      )
      experience = act(state.agent, state.experience)
      carry = carry.replace(
        state=state.replace(experience=experience), metrics=metrics
      )
      return i + 1, carry, log, finite

    start = (jnp.zeros((), jnp.int32), carry, log, finite)
    count, carry, log, finite = jax.lax.while_loop(goes_on, body, start)
    return carry, log, count, finite

  def _remember(self, carry, prepared, is_cut):
    """Steps the environments; returns their answer as it was without a cut.

    And what they told of the step.
    """
    experience = carry.state.experience
    lanes, step = self._stepper.step(carry.lanes, experience.action)
    told = lanes.told
    lanes, observation = self._stepper.reset_if(
      is_cut, prepared, lanes, step.observation
    )
    remembered = step._replace(
      observation=observation,
      truncated=step.truncated | (is_cut & ~step.terminated),
    )
    remember = self.vectorize_loop(loop_lib.Loop.remember)
    state = carry.state.replace(experience=remember(experience, remembered))
    return carry.replace(state=state, lanes=lanes), step, told

  def _flaws(self, seen, action, step):
    """Returns what is not sound in a step of each lane; uint8 [..., N]."""
    shape = step.reward.shape
    flaw = jnp.zeros(shape, jnp.uint8)
    for leaf in jax.tree.leaves((step.observation, step.next_observation)):
      if jnp.issubdtype(leaf.dtype, jnp.floating):
        sound = _is_finite(leaf, shape)
        flaw = jnp.where(sound, flaw, jnp.uint8(_OBSERVATION))
    space = self.environments.action_space
    if isinstance(space, gymnasium.spaces.Box):
      sound = _is_finite(action, shape)
      return jnp.where(sound, flaw, jnp.uint8(_ACTION))
    sizes = jnp.asarray(spaces.num_values(space), action.dtype)
    sound = (action >= 0) & (action < jnp.broadcast_to(sizes, action.shape))
    sound = sound.reshape(*shape, -1).all(axis=-1)
    flaw = jnp.where(sound, flaw, jnp.uint8(_NO_ACTION))
    return self._mask_flaws(flaw, seen, action, step)

  def _mask_flaws(self, flaw, seen, action, step):
    """Returns `flaw` with what is not as masks say, where there are any."""
    if not self.loop.is_masked:
      return flaw
    now, following = (
      x['action_mask'] > 0 for x in (seen, step.next_observation)
    )
    sound = following.any(axis=-1) | step.terminated
    sound &= (step.observation['action_mask'] > 0).any(axis=-1)
    flaw = jnp.where(sound, flaw, jnp.uint8(_NONE_ALLOWED))
    sound = jnp.take_along_axis(now, action[..., None], axis=-1)[..., 0]
    return jnp.where(sound, flaw, jnp.uint8(_NOT_ALLOWED))

  def _learn(self, state, metrics, finite):
    """Updates once; `finite` [..., M] turns false where a metric isn't."""

    def update(loop, state, metrics):
      return loop.update(1, state, metrics)

    state, metrics, now = self.vectorize_loop(update)(state, metrics)
    return state, metrics, finite & now if self.check_finite else finite


def _is_finite(array, shape):
  """Whether all numbers of each lane are finite; bool, of this shape."""
  return jnp.isfinite(array).reshape(*shape, -1).all(axis=-1)
