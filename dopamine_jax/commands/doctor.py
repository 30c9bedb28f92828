"""What a training will take here, before it is started: time and memory.

It makes the run's own engine and times it for some seconds: first as it is
before the replay has its `min_history`, then as it is when it learns. Nothing
is written.
"""

from collections.abc import Callable
import contextlib
import math
import sys
import time
from typing import NamedTuple

import jax
import numpy as np
import psutil

from dopamine_jax import runner as runner_lib
from dopamine_jax.engines import disk
from dopamine_jax.engines import plain_engine
from dopamine_jax.engines import streams
from dopamine_jax.replay import ring

_SECONDS = 3.0  # of each timing, compilation aside
_HOUR, _DAY = 3_600, 86_400


class Findings(NamedTuple):
  """What was found; speeds are agent steps a second of each seed.

  Attributes:
    replay_bytes: of the replay, all seeds.
    other_bytes: of networks, optimizer and the rest.
    available_bytes: of the machine's memory, or of the device's.
    update_period: agent steps from one update, or several, to the next.
    environment: the environments alone; None where XLA steps them, or where
      memory is too little to time anything.
    before: before the first update; None likewise.
    learning: with updates; None likewise.
    total_steps: of the whole training, of each seed.
    min_history: of them come before the first update.
    updates_per_period: updates that come at once.
    disk_bytes: of frames that lie in files.
    disk_free_bytes: where they are to lie.
  """

  replay_bytes: int
  other_bytes: int
  available_bytes: int
  update_period: int
  environment: float | None
  before: float | None
  learning: float | None
  total_steps: int
  min_history: int
  updates_per_period: int = 1
  disk_bytes: int = 0
  disk_free_bytes: int = 0

  @property
  def fits(self) -> bool:
    """Whether memory is enough, and the disk."""
    return self.fits_in_memory and self.fits_on_disk

  @property
  def fits_in_memory(self) -> bool:
    """Whether memory has room for all but the frames that lie in files."""
    return self.replay_bytes + self.other_bytes <= self.available_bytes

  @property
  def fits_on_disk(self) -> bool:
    """Whether the disk has room for the frames that lie in files."""
    return self.disk_bytes <= self.disk_free_bytes

  @property
  def seconds(self) -> float:
    """Of the whole training, without evaluations and checkpoints."""
    early = min(self.min_history, self.total_steps)
    return early / self.before + (self.total_steps - early) / self.learning

  @property
  def update_seconds(self) -> float:
    """What a period's updates, and acting by the agent, add to one without."""
    return max(0.0, self._more_a_step) * self.update_period

  @property
  def _more_a_step(self):
    return 1 / self.learning - 1 / self.before

  def shares(self) -> dict[str, float]:
    """Returns what part of a learning step's time goes where."""
    step = 1 / self.learning
    updates = min(1.0, max(0.0, self._more_a_step / step))
    environment = 0.0
    if self.environment is not None:
      environment = min(1 - updates, 1 / self.environment / step)
    rest = 1 - updates - environment
    return {'updates': updates, 'environment': environment, 'calls': rest}


def examine(
  runner: runner_lib.Runner,
  num_seeds: int = 1,
  seconds: float = _SECONDS,
) -> Findings:
  """Looks at what a training would take.

  Args:
    runner: its settings.
    num_seeds: that train side by side.
    seconds: of each timing, compilation aside.

  Raises:
    UserError: if the settings don't fit each other.
  """
  seeds = tuple(range(num_seeds))
  environments = runner.environment.make(num_seeds * runner.num_envs)
  with contextlib.ExitStack() as closers:
    closers.callback(environments.close)
    runner.make_collectors()  # as a training does: they may refuse settings
    # What is learnt here means nothing, finite or not.
    engine = runner.make_engine(environments, seeds, check_finite=False)
    closers.callback(engine.close)
    env_seeds = streams.env_seeds(
      seeds, streams.Stream.TRAIN, 0, runner.num_envs
    )
    engine.reset(env_seeds)
    findings = _memory(runner, engine)
    if not findings.fits:
      return findings
    engine.init()
    lanes, unit = runner.num_envs, _unit(engine)
    history = max(1, findings.min_history // unit) * unit
    # One step less than to the first update.
    before = math.inf  # Offline, nothing comes before.
    if not engine.fills_replay:
      before = _speed(engine, seconds, 0, lanes, max(lanes, history - lanes))
    # Its replay isn't that full yet, which changes no program's time.
    learning = _speed(engine, seconds, history + unit, unit, sys.maxsize)
    environment = None
    if isinstance(engine, plain_engine.PlainEngine):
      environment = _environment_speed(engine, env_seeds, seconds)
    return findings._replace(
      environment=environment, before=before, learning=learning
    )


def memory(runner: runner_lib.Runner, num_seeds: int = 1) -> Findings:
  """Returns what `examine` does, without timings: nothing is compiled."""
  environments = runner.environment.make(num_seeds * runner.num_envs)
  try:
    seeds = tuple(range(num_seeds))
    engine = runner.make_engine(environments, seeds)
    engine.reset(
      streams.env_seeds(seeds, streams.Stream.TRAIN, 0, runner.num_envs)
    )
    return _memory(runner, engine)
  finally:
    environments.close()


def _memory(runner, engine):
  """Returns findings of which the timings are still missing."""
  replay = other = 0
  state = engine.abstract_state()
  for part in jax.tree.leaves(state, is_leaf=ring.is_ring):
    size = sum(_bytes(leaf) for leaf in jax.tree.leaves(part))
    if ring.is_ring(part):
      replay += size
    else:
      other += size
  files = disk.files(state)
  stats = jax.local_devices()[0].memory_stats() or {}
  available = stats.get('bytes_limit', psutil.virtual_memory().available)
  return Findings(
    replay_bytes=replay,
    other_bytes=other,
    available_bytes=available,
    update_period=engine.loop.agent.update_period,
    updates_per_period=engine.loop.agent.updates_per_period,
    disk_bytes=sum(file.nbytes for file in files),
    disk_free_bytes=disk.free(files),
    environment=None,
    before=None,
    learning=None,
    total_steps=runner.num_iterations * runner.training_steps,
    min_history=engine.learning_begins,
  )


def _bytes(leaf):
  # Keys of random numbers have a dtype of their own, and hardly a size.
  size = getattr(leaf.dtype, 'itemsize', 8)
  return math.prod(leaf.shape) * size


def _unit(engine):
  """Returns agent steps after which updates come round again."""
  return math.lcm(engine.loop.num_envs, engine.loop.agent.update_period)


def _speed(engine, seconds, start, unit, longest):
  """Returns agent steps a second from step `start` on, once it is compiled.

  Args:
    engine: that has a state and was reset.
    seconds: to spend, about.
    start: agent steps done; each run starts there again.
    unit: agent steps that a run is a multiple of.
    longest: that a run may be, for what it does to stay the same.
  """
  count = min(2 * unit, longest)
  while True:
    # What is compiled depends on the count, so each is run once before.
    _run(engine, start, count)
    passed = _run(engine, start, count)
    if count == longest or passed >= seconds / 8:
      break
    growth = min(8.0, seconds / 2 / passed)
    count = min(longest, math.ceil(count * growth / unit) * unit)
  steps = count
  while passed < seconds / 2:
    passed += _run(engine, start, count)
    steps += count
  return steps / passed


def _run(engine, start, count):
  """Returns the seconds that `count` agent steps from `start` on take."""
  engine.steps = start
  began = time.monotonic()
  engine.run(count, cut_with=None, on_step=_nothing)
  jax.block_until_ready(engine.state)
  return time.monotonic() - began


def _environment_speed(engine, env_seeds, seconds):
  """Returns agent steps a second of each seed, under the same actions."""
  engine.reset(env_seeds)
  lanes = len(engine.seeds) * engine.loop.num_envs
  space = engine.environments.action_space
  space.seed(0)
  actions = np.stack([space.sample() for _ in range(lanes)])
  began, steps = time.monotonic(), 0
  while time.monotonic() - began < seconds / 2:
    engine.environments.step(actions)
    steps += engine.loop.num_envs
  return steps / (time.monotonic() - began)


def _nothing():
  pass


def report(
  findings: Findings, num_seeds: int, say: Callable[[str], None] = print
):
  """Says what was found, what bounds the run, and what would help."""
  replay, other, there = (
    _size(size)
    for size in (
      findings.replay_bytes,
      findings.other_bytes,
      findings.available_bytes,
    )
  )
  say(
    f'Memory: {replay} for replay, {other} for networks, optimizer and the '
    f'rest; {there} are available.'
  )
  if findings.disk_bytes:
    say(
      f'Disk: {_size(findings.disk_bytes)} for frames of the replay; '
      f'{_size(findings.disk_free_bytes)} are free.'
    )
  if not findings.fits_on_disk:
    say(
      'Bound by the disk: it would not start. Name a folder on a larger one '
      "(devices.Devices.replay_folder), or lower the replay's capacity "
      '(uniform.UniformReplay.capacity), or num_seeds.'
    )
  if not findings.fits_in_memory:
    say(
      "Bound by memory: it would not start. Lower the replay's capacity "
      '(uniform.UniformReplay.capacity), or num_seeds.'
    )
  if not findings.fits:
    return
  if findings.environment is not None:
    say(f'Environment alone: {findings.environment:,.0f} agent steps/s.')
  if findings.min_history:
    say(
      f'Before learning, until agent step {findings.min_history:,}: '
      f'{findings.before:,.0f} agent steps/s.'
    )
  updates = f'{findings.updates_per_period} updates'
  updates = 'an update' if findings.updates_per_period == 1 else updates
  say(
    f'Learning: {findings.learning:,.0f} agent steps/s; {updates} every '
    f'{findings.update_period}: about {_short(findings.update_seconds)}, '
    'acting included.'
  )
  if num_seeds > 1:
    say(f'Speeds are of each of {num_seeds} seeds, which train side by side.')
  say(
    f'The whole training, {findings.total_steps:,} agent steps: '
    f'{_duration(findings.seconds)}, evaluations and checkpoints not counted.'
  )
  say(_bound(findings))


def _bound(findings):
  shares = findings.shares()
  name = max(shares, key=shares.get)
  what, help_ = {
    'updates': (
      'updates',
      'A smaller batch or network makes them cheaper, a larger update_period '
      'rarer (each is another experiment); a GPU, or more seeds side by side '
      '(--num_seeds), does more of them at once.',
    ),
    'environment': (
      'the environment',
      'runner.Runner.num_envs = 8 steps eight side by side (another '
      'experiment); one that is written in JAX, or an Atari game, can run on '
      'compiled.CompiledEngine.',
    ),
    'calls': (
      'calls from Python into XLA',
      'More seeds side by side (--num_seeds) or more environments '
      '(runner.Runner.num_envs) share them.',
    ),
  }[name]
  if name == 'calls' and findings.environment is None:
    what = 'acting and the environment, which one program does'
    help_ = 'More seeds side by side (--num_seeds) use the machine better.'
  return f'Bound by {what} ({shares[name]:.0%} of the time). {help_}'


def _size(count):
  for unit, name in ((1e9, 'GB'), (1e6, 'MB')):
    if count >= unit:
      return f'{count / unit:.2f} {name}'
  return f'{count / 1e3:.0f} kB'


def _short(seconds):
  return f'{seconds:.1f} s' if seconds >= 1 else f'{1e3 * seconds:.2g} ms'


def _duration(seconds):
  if seconds < 60:
    return f'{seconds:.0f} s'
  if seconds < _HOUR:
    return f'{seconds / 60:.0f} min'
  if seconds < _DAY:
    return f'{seconds // _HOUR:.0f} h {seconds % _HOUR / 60:.0f} min'
  return f'{seconds // _DAY:.0f} days {seconds % _DAY / _HOUR:.0f} h'
