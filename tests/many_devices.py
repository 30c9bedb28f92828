"""What `unit/devices_test.py` trains, in processes that see several devices.

`python -m tests.many_devices quick FOLDER` (or `slow`, or `exact`) trains what
needs one of them, and writes what it saw to FOLDER/seen.json. `python -m
tests.many_devices command train ...` is `dopamine-jax train ...`.
"""

import functools
import json
import pathlib
import sys

import gymnasium
import jax
import numpy as np
import optax
import pytest

from dopamine_jax import networks
from dopamine_jax import runner as runner_lib
from dopamine_jax.agents import dqn
from dopamine_jax.commands import cli
from dopamine_jax.engines import compiled as compiled_lib
from dopamine_jax.engines import devices
from dopamine_jax.engines import loop as loop_lib
from dopamine_jax.engines import python_engine
from dopamine_jax.engines import stacking
from dopamine_jax.engines import streams
from dopamine_jax.engines import threefry
from dopamine_jax.environments import base
from dopamine_jax.environments import catch
from dopamine_jax.metrics import csv_file
from dopamine_jax.metrics import health
from dopamine_jax.replay import prioritized
from dopamine_jax.replay import uniform
from dopamine_jax.training import fingerprint
from tests import programs

SMALL = {
  'CNN': functools.partial(networks.MinAtarCNN, hidden=(16,)),
  'MLP': functools.partial(networks.MLP, hidden=(16,)),
}
BATCH = devices.Devices(split='batch')
SEEDS = devices.Devices(split='seeds')
HOST = devices.Devices(replay_memory='pinned_host')
LEARNING_RATE = 1e-3


class Pictures(base.Environment):
  """Random frames; the reward is for the action that a pixel shows."""

  shape: tuple = (10, 10)
  stack: int = 2

  def make(self, num_envs, render=False):
    return PicturesVector(self.shape, num_envs)


class PicturesVector(base.VectorEnvironment):
  def __init__(self, shape, num_envs):
    self.num_envs = num_envs
    self.observation_space = gymnasium.spaces.Box(0, 255, shape, np.uint8)
    self.action_space = gymnasium.spaces.Discrete(3)

  def reset(self, seeds):
    self._rngs = [np.random.default_rng(seed) for seed in seeds]
    self._frame = self._see()
    return self._frame

  def step(self, actions):
    shown = self._frame.reshape(self.num_envs, -1)[:, 0] % 3
    done = np.array([rng.random() < 0.1 for rng in self._rngs])
    successor = self._see()
    self._frame = np.where(
      done.reshape(-1, *[1] * (successor.ndim - 1)), self._see(), successor
    )
    return base.TimeStep(
      self._frame,
      (actions == shown).astype(np.float32),
      done,
      np.zeros(self.num_envs, bool),
      successor,
    )

  def close(self):
    pass

  def _see(self):
    shape = self.observation_space.shape
    return np.stack([r.integers(0, 4, shape, np.uint8) for r in self._rngs])


def make_agent(
  observation_space,
  action_space,
  network='CNN',
  learning_rate=LEARNING_RATE,
  batch_size=16,
  capacity=96,
  replay=uniform.UniformReplay,
  agent=dqn.DQN,
):
  return agent(
    observation_space=observation_space,
    action_space=action_space,
    network=SMALL[network],
    replay=functools.partial(
      replay,
      capacity=capacity,
      batch_size=batch_size,
      min_history=40,
    ),
    optimizer=optax.sgd(learning_rate),
    n_step=2,
    target_update_period=8,
    epsilon=0.5,
  )


def make_engine(
  layout=devices.ONE_DEVICE,
  *,
  num_seeds=1,
  num_envs=2,
  environment=None,
  engine=python_engine.PythonEngine,
  has_state=True,
  **settings,
):
  """Returns an engine before its first step; `settings` are its agent's."""
  environment = environment or Pictures()
  environments = environment.make(num_seeds * num_envs)
  agent = make_agent(
    stacking.stacked_space(environments.observation_space, environment.stack),
    environments.action_space,
    **settings,
  )
  engine = engine(
    loop_lib.Loop(
      agent=agent,
      replay=agent.make_replay(environment.stack),
      reward_clip=None,
      stack=environment.stack,
      num_envs=num_envs,
    ),
    environments,
    range(num_seeds),
    devices=layout,
  )
  engine.reset(
    streams.env_seeds(engine.seeds, streams.Stream.TRAIN, 0, num_envs)
  )
  engine.layout.check(engine.loop.replay, engine.abstract_state())
  if has_state:
    engine.init()
  return engine


def run(*args, **kwargs):
  """Returns an engine after 20 updates; its ring has been around."""
  return go(make_engine(*args, **kwargs))


def go(engine):
  """Does as many."""
  engine.run(120, cut_with=None, on_step=lambda: None)
  return engine


def params(engine):
  """Returns all parameters as one vector."""
  leaves = jax.tree.leaves(engine.state.agent.params)
  return np.concatenate([np.ravel(leaf) for leaf in leaves])


def distance(engine, other):
  """Returns how far parameters are apart, relative to the largest one."""
  return relative(params(engine), params(other))


def relative(one, other):
  """Returns how far vectors are apart, relative to the largest number."""
  return float(np.abs(one - other).max() / np.abs(other).max())


def same_experience(*engines):
  """Whether all replays, observations, actions and counters are equal."""
  one, other = (
    jax.tree.leaves(engine.state.experience.replace(keys=None))
    for engine in engines
  )
  return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def each_device_has(engine):
  """Returns what part of the frames and of the parameters each device has."""
  parts = []
  for leaf in (
    engine.state.experience.replay.slots.frame,
    jax.tree.leaves(engine.state.agent.params)[0],
  ):
    parts += {shard.data.size / leaf.size for shard in leaf.addressable_shards}
  return parts


def costs(replay=uniform.UniformReplay):
  """Returns what one device spends on an act and an update, split or not.

  Returns:
    Of a batch that is split: the most temporary memory, in bytes; the bytes of
    all frames, of which each device has a share; the floating point operations
    of an update, relative to those of one device alone.
  """
  flops, temporary = [], []
  for layout in (BATCH, devices.ONE_DEVICE):
    engine = make_engine(
      layout,
      has_state=False,
      network='MLP',
      capacity=40_000,
      replay=replay,
    )
    loop, state = engine.loop, engine.abstract_state()
    step = engine.environments.step(np.zeros(2, int))

    def act(experience, agent, loop=loop, step=step):
      experience = loop.remember(experience, step)
      return loop.act(agent, experience, loop_lib.Behaviour.AGENT)

    asked = [(loop.learn, (state,))]
    if layout is BATCH:
      asked.insert(0, (act, (state.experience, state.agent)))
    for function, arguments in asked:
      spread = jax.jit(engine.layout.spread(function), donate_argnums=0)
      compiled = spread.lower(*arguments).compile()
      temporary.append(compiled.memory_analysis().temp_size_in_bytes)
    flops.append(compiled.cost_analysis()['flops'])
  frames = state.experience.replay.slots.frame
  return {
    'temporary memory': max(temporary[:2]),  # of what is split
    'all frames': frames.size * frames.dtype.itemsize,
    'relative flops': flops[0] / flops[1],
  }


def resumes(folder, layout, num_seeds=1):
  """Whether a run that was resumed equals one that was not."""

  def train(name, num_iterations):
    runner = runner_lib.Runner(
      agent=functools.partial(make_agent, network='MLP'),
      environment=Pictures(),
      devices=layout,
      num_iterations=num_iterations,
      training_steps=80,
      num_envs=2,
      collectors=[csv_file.CSV],
    )
    runner.train(folder / name, num_seeds=num_seeds, say=lambda message: None)
    return fingerprint.fingerprint(folder / name)

  whole = train('whole', 2)
  train('resumed', 1)
  return whole == train('resumed', 2)


def healths(*engines):
  """Returns what is measured of each, a list of its values."""
  metrics = [health.DormantNeurons(), health.TargetDrift()]
  return [
    [
      float(value)
      for values in health.Monitor(metrics, engine).measure().values()
      for value in values
    ]
    for engine in engines
  ]


def compare(engine, other):
  """Returns all that a test may want to know of two engines."""
  return {
    'distance': distance(engine, other),
    'same experience': same_experience(engine, other),
    'each device has': each_device_has(engine),
  }


INSIDE = {
  'environment': catch.Catch(),
  'engine': compiled_lib.CompiledEngine,
  'network': 'MLP',
}


def quick(folder):
  one = make_engine()
  first = params(one)
  go(one)
  eight = run(network='MLP', num_seeds=8)
  batch, host = run(BATCH), run(HOST)
  seeds = run(SEEDS, network='MLP', num_seeds=8)
  with pytest.MonkeyPatch.context() as patch:
    programs.share(patch)
    resumed = resumes(folder / 'batch', BATCH)
  return {
    'health': {'eight': healths(eight, seeds)},
    'batch, CNN': compare(batch, one),
    'nothing learnt': relative(first, params(one)),
    'pinned host': compare(host, one),
    'seeds': compare(seeds, eight),
    'costs': costs(prioritized.PrioritizedReplay),
    'batch resumes': resumed,
  }


def slow(folder):
  one = run()
  alone, eight = run(network='MLP'), run(network='MLP', num_seeds=8)
  four = SEEDS.replace(num_devices=4)
  by_priority = {'network': 'MLP', 'replay': prioritized.PrioritizedReplay}
  eight_by_priority = run(num_seeds=8, **by_priority)
  return {
    'health': {'one': healths(one, run(BATCH), run(HOST))},
    'gradients 8 times too large': distance(
      run(learning_rate=8 * LEARNING_RATE), one
    ),
    'batch, MLP': compare(run(BATCH, network='MLP'), alone),
    'batch, compiled': compare(run(BATCH, **INSIDE), run(**INSIDE)),
    'batch, by priority': compare(
      run(BATCH, **by_priority), run(**by_priority)
    ),
    'costs of what is uniform': costs(),
    'seeds, compiled': compare(
      run(SEEDS, num_seeds=8, **INSIDE), run(num_seeds=8, **INSIDE)
    ),
    'seeds, CNN': compare(run(SEEDS, num_seeds=8), run(num_seeds=8)),
    'seeds, 4 devices': compare(run(four, network='MLP', num_seeds=8), eight),
    'batch, 8 seeds': compare(run(BATCH, network='MLP', num_seeds=8), eight),
    'pinned host, 8 seeds': compare(
      run(HOST, network='MLP', num_seeds=8), eight
    ),
    'seeds, by priority': compare(
      run(SEEDS, num_seeds=8, **by_priority), eight_by_priority
    ),
    'pinned host, 8 seeds by priority': compare(
      run(HOST, num_seeds=8, **by_priority), eight_by_priority
    ),
    'seeds resumes': resumes(folder / 'seeds', SEEDS, 8),
    'pinned host resumes': resumes(folder / 'host', HOST),
  }


def exact(folder):
  return {'pinned host': compare(run(HOST), run())}


def command(*words):
  """Runs a command of ours, with the random bits that tests have."""
  threefry.write_out = lambda: None
  sys.argv = ['dopamine-jax', *words]
  return cli.main()


if __name__ == '__main__':
  if sys.argv[1] == 'command':
    sys.exit(command(*sys.argv[2:]))
  FOLDER = pathlib.Path(sys.argv[2])
  SEEN = {'quick': quick, 'slow': slow, 'exact': exact}[sys.argv[1]](FOLDER)
  (FOLDER / 'seen.json').write_text(json.dumps(SEEN, indent=1))
