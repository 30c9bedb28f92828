"""What all engines share: seeds in lockstep, metrics, when updates are due."""

from collections.abc import Callable, Iterable, Mapping, Sequence
import dataclasses
import functools
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dopamine_jax import errors
from dopamine_jax import lanes
from dopamine_jax.engines import devices as devices_lib
from dopamine_jax.engines import loop as loop_lib
from dopamine_jax.engines import seed_axis
from dopamine_jax.environments import base
from dopamine_jax.environments import border
from dopamine_jax.learning import outputs
from dopamine_jax.system import processes

# Steps that are noted before they are counted.
_NOTED = 512


class Episodes:
  """Follows running episodes and keeps those that ended by themselves.

  Steps are buffered and counted in batches: even a few small NumPy operations
  between calls of XLA take as long as a small network.

  Attributes:
    told_names: of the K numbers that environments report of an episode.
    told: [K] for each finished episode; NaN where nothing was reported.
  """

  def __init__(self, lanes: int, told_names: Sequence[str] = ()):
    self.told_names = tuple(told_names)
    self.told: list[np.ndarray] = []
    self._returns = np.zeros(lanes)
    self._lengths = np.zeros(lanes, int)
    self._finished: list[tuple[int, float, int]] = []
    self._noted = 0  # of the arrays' rows
    self._reward = np.zeros((_NOTED, lanes), np.float32)
    self._terminated = np.zeros((_NOTED, lanes), bool)
    self._truncated = np.zeros((_NOTED, lanes), bool)
    self._told = np.zeros((_NOTED, lanes, len(self.told_names)), np.float32)

  @property
  def finished(self) -> list[tuple[int, float, int]]:
    """(lane, return, length) of each, in order of their ends."""
    self._settle()
    return self._finished

  def record(
    self,
    step: base.TimeStep,
    told: Mapping[str, np.ndarray] = types.MappingProxyType({}),
  ):
    """Takes note of one step of every lane, and of what was told of it."""
    i = self._noted
    self._reward[i] = step.reward
    self._terminated[i] = step.terminated
    self._truncated[i] = step.truncated
    for k, name in enumerate(self.told_names if told else ()):
      self._told[i, :, k] = told[name]
    self._noted = i + 1
    if self._noted == _NOTED:
      self._settle()

  def _settle(self):
    """Counts what was noted."""
    count, self._noted = self._noted, 0
    done = self._terminated[:count] | self._truncated[:count]
    self.record_all(self._reward[:count], done, self._told[:count])

  def record_all(
    self, reward: np.ndarray, done: np.ndarray, told: np.ndarray | None = None
  ):
    """Counts steps [T, lanes], to the bit as if they were added in turn.

    Args:
      reward: raw.
      done: whether an episode ended.
      told: [T, lanes, K]; None if K is 0.
    """
    begin = 0
    for end in (*(np.flatnonzero(done.any(axis=1)) + 1), len(done)):
      # Unlike a sum, which may add in pairs, this adds in order.
      running = np.concatenate([self._returns[None], reward[begin:end]])
      self._returns = np.add.accumulate(running, axis=0)[-1]
      self._lengths += end - begin
      if end > begin:
        self._end(done[end - 1])
        if self.told_names:
          self.told += list(told[end - 1][done[end - 1]].copy())
      begin = end

  def _end(self, done):
    for lane in np.flatnonzero(done):
      self._finished.append(
        (int(lane), float(self._returns[lane]), int(self._lengths[lane]))
      )
    self._returns[done] = 0
    self._lengths[done] = 0

  def cut(self):
    """Forgets the running episodes: their returns are not to be counted."""
    self._settle()
    self._returns[:] = 0
    self._lengths[:] = 0


class Engine:
  """Trains S seeds in lockstep on S * N environments.

  Attributes:
    loop: the functions of one step.
    environments: S * N of them; seed s has lanes s * N to s * N + N.
    seeds: S of them.
    axis: of the seeds.
    check_finite: stop when a metric of an update is NaN or infinite.
    layout: where arrays lie, and which device computes what.
    numbers: in which the lanes' settings differ, [S] by path; see `lanes`.
    names: of the trainings that do, each of which has as many lanes.
    state: the training state, [S, ...].
    steps: agent steps done by each seed.
    episodes: the episodes of all lanes.
  """

  # What `Runner` gives; no user's to set.
  given_later = (
    *('loop', 'environments', 'seeds', 'check_finite', 'devices'),
    *('numbers', 'names'),
  )
  # Whether the replay is filled before the first step, and a digest of what it
  # was filled with. No settings.
  fills_replay = False
  filled_with = ''

  def __init__(
    self,
    loop: loop_lib.Loop,
    environments: base.VectorEnvironment,
    seeds: Sequence[int],
    *,
    check_finite: bool = True,
    devices: devices_lib.Devices = devices_lib.ONE_DEVICE,
    numbers: Mapping[lanes.Path, np.ndarray] = types.MappingProxyType({}),
    names: Sequence[str] = (),
  ):
    self.numbers, self.names = dict(numbers), tuple(names)
    self.layout = devices_lib.Layout(devices, len(seeds))
    self.loop = dataclasses.replace(
      loop,
      split_batch=self.layout.split_batch,
      # Shapes of metrics are asked for before there is a program. Inline: that
      # is then the same as without a `jax.jit` in it.
      trace_once=functools.partial(jax.jit, inline=True),
    )
    self.environments = environments
    self._border = border.Border(environments)
    self.seeds = tuple(seeds)
    self.axis = seed_axis.SeedAxis(len(seeds))
    self.check_finite = check_finite
    self.episodes = Episodes(
      len(seeds) * loop.num_envs, environments.told_names
    )
    self.state: loop_lib.TrainingState | None = None
    self.steps = 0
    # Where the replay that is held now began; above 0 after a restore without.
    self.replay_began = 0
    self._metric_shapes = None
    self._abstract = None  # the loop whose state it is, and that
    self._init = self.vectorize_loop(_first_state)

  @property
  def learning_begins(self) -> int:
    """From which agent step on the replay has its `min_history`."""
    return self.replay_began + self.loop.replay.min_history

  def abstract_state(self) -> loop_lib.TrainingState:
    """Returns the state's shapes, dtypes and places, without making it.

    Raises:
      UserError: if a network's outputs or the agent's actions don't fit, which
        would otherwise be seen when the warm-up ends.
    """
    # All that measures or changes a state asks for it.
    if self._abstract and self._abstract[0] is self.loop:
      return self._abstract[1]
    shapes = jax.eval_shape(self._init, *self._init_arguments())
    act = functools.partial(
      loop_lib.Loop.act, behaviour=loop_lib.Behaviour.AGENT
    )
    jax.eval_shape(self.vectorize_loop(act), shapes.agent, shapes.experience)
    self._abstract = self.loop, self.layout.place(shapes)
    return self._abstract[1]

  def init(self):
    """Makes the state before the first step."""
    self.state = self.layout.init(self._init, *self._init_arguments())
    self.steps = self.replay_began = 0

  def restore(self, state: loop_lib.TrainingState, steps: int, began: int):
    """Goes on from a checkpoint's state."""
    self.state, self.steps, self.replay_began = state, steps, began

  def reset(self, env_seeds: Sequence[int]) -> np.ndarray:
    """Starts new episodes; returns their first frames [S * N, ...]."""
    self.episodes.cut()
    self.first_frames = self._border.reset(env_seeds)
    return self.first_frames

  def close(self):
    """Lets go of files that hold a part of the state."""
    self.layout.close()

  def run(
    self,
    num_steps: int,
    *,
    cut_with: Sequence[int] | None,
    on_step: Callable[[], None],
  ) -> dict[str, np.ndarray]:
    """Takes exactly `num_steps` agent steps with each seed.

    Args:
      num_steps: a multiple of N.
      cut_with: environment seeds [S * N] with which new episodes start after
        the last step, the running ones being cut as truncations; or None, and
        they run on.
      on_step: called before each step or chunk of steps; may raise to stop.

    Returns:
      The updates' metrics, [S] by name: their means over these steps, or what
      `Agent.reductions` says; empty if there was no update.

    Raises:
      UserError: if a metric is not finite and `check_finite` is set, or if the
        environments answer what they must not.
    """
    raise NotImplementedError

  def vectorize(self, function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns one seed's `function` for all, as the devices share the work."""
    return self.layout.spread(self.axis.over(function))

  def vectorize_loop(self, function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns one seed's `function` of a Loop and more for all seeds.

    Where lanes differ in numbers, each is given a loop of its own.
    """
    return self._of_lanes(function, self.vectorize)

  def vectorize_agent(self, function: Callable[..., Any]) -> Callable[..., Any]:
    """Turns f(agent, *arguments) of one seed into f(*arguments) of all.

    Each lane's agent has the lane's numbers. One device computes all of it.
    """

    def of_loop(loop, *arguments):
      return function(loop.agent, *arguments)

    return self._of_lanes(of_loop, self.axis.over)

  def _of_lanes(self, function, over):
    if not self.numbers:
      return over(functools.partial(function, self.loop))

    def of_lane(numbers, *arguments):
      return function(self.loop.with_numbers(numbers), *arguments)

    return functools.partial(over(of_lane), self.numbers)

  def _init_arguments(self):
    seeds = self.axis.of(np.asarray(self.seeds, np.int32))
    return seeds, self.axis.split(self.first_frames)

  def _behaviour_at(self, steps: int) -> loop_lib.Behaviour:
    """How the action after the first `steps` agent steps is chosen."""
    warming_up = steps < self.loop.replay.warm_up
    behaviour = loop_lib.Behaviour
    return behaviour.RANDOM if warming_up else behaviour.AGENT

  def _updates_due_at(self, steps: int | np.ndarray) -> int | np.ndarray:
    """How many updates belong after the N steps that made it `steps`."""
    agent = self.loop.agent
    period = agent.update_period
    due = steps // period - (steps - self.loop.num_envs) // period
    due *= agent.updates_per_period
    return due * (steps >= self.learning_begins)

  def _zero_metrics(self, state: loop_lib.TrainingState) -> loop_lib.Metrics:
    """Returns sums of nothing, shaped like the metrics of an update."""
    if self._metric_shapes is None:  # Tracing an update takes a tenth second.
      learn = self.vectorize_loop(loop_lib.Loop.learn)
      self._metric_shapes = jax.eval_shape(learn, state)[1]
      outputs.require_reductions(self.loop.agent, self._metric_shapes)
    sums = jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.float32),
      loop_lib.Metrics(total=self._metric_shapes, count=state.updates),
    )
    return processes.zeros(self.layout.place(sums))

  def _reduced(self, metrics: loop_lib.Metrics) -> dict[str, np.ndarray]:
    """Returns metrics [S] by name, as `Agent.reductions` says; mostly means.

    Empty if there was no update.
    """
    # By NumPy, which compiles nothing; in float32 as they were added.
    count = processes.fetch(metrics.count).astype(np.float32)
    if not count.any():
      return {}
    given = self.loop.agent.reductions
    totals = {k: processes.fetch(total) for k, total in metrics.total.items()}
    return {
      name: (total if name in given else total / count).reshape(len(self.seeds))
      for name, total in totals.items()
    }

  def _named(self, lane):
    """Returns a lane's name, for messages."""
    seed = f'seed {self.seeds[lane]}'
    if not self.names:
      return seed
    of_each = len(self.seeds) // len(self.names)
    return f'{seed} of {self.names[lane // of_each]}'

  def _require_finite(self, names: Iterable[str], finite: jax.Array):
    """Raises UserError if a metric was not finite, and names the first."""
    if not self.check_finite:
      return
    finite = processes.fetch(finite)
    if finite.all():
      return
    lane, metric = np.argwhere(~finite.reshape(len(self.seeds), -1))[0]
    raise errors.UserError(
      f'{sorted(names)[metric]} is not finite (NaN or infinity) after the '
      f'update at agent step {self.steps} of {self._named(lane)}. Training '
      'stopped there; the last checkpoint is from before. Try a lower learning '
      'rate, or a reward_clip; `runner.Runner.check_finite = False` turns this '
      'check off.'
    )


def _first_state(loop, seed, frame):
  state = loop.init(seed, frame)
  outputs.require_state(loop.agent, state.agent)
  return state
