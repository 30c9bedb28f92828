"""Trains on several devices, for `unit/devices_test.py`, in their own process.

`python -m tests.many_devices OUTPUT` does all that needs eight devices in one
process, and writes what it found to a JSON file.
"""

import dataclasses
import functools
import json
import pathlib
import sys
import tempfile

from dopamine_jax.agents import dqn
import gymnasium
import jax
import numpy as np
import optax

from dopamine_jax import devices
from dopamine_jax import engine as engine_lib
from dopamine_jax import fingerprint
from dopamine_jax import loop as loop_lib
from dopamine_jax import networks
from dopamine_jax import runner as runner_lib
from dopamine_jax import training
from dopamine_jax.environments import base
from dopamine_jax.metrics import csv_file
from dopamine_jax.replay import uniform


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


CNN = functools.partial(networks.MinAtarCNN, hidden=(16,))
MLP = functools.partial(networks.MLP, hidden=(16,), low=None, high=None)
LEARNING_RATE = 1e-2


def make_agent(network=CNN, learning_rate=LEARNING_RATE, **spaces):
  return dqn.DQN(
    network=network,
    replay=functools.partial(
      uniform.UniformReplay, capacity=192, batch_size=16, min_history=40
    ),
    optimizer=optax.sgd(learning_rate, momentum=0.9),
    n_step=2,
    target_update_period=8,
    epsilon=0.5,
    **spaces,
  )


def run(
  layout=devices.ONE_DEVICE, *, num_seeds=1, num_envs=2, steps=120, **agent
):
  """Returns an engine that has taken `steps` with each seed."""
  environment = Pictures()
  environments = environment.make(num_seeds * num_envs)
  agent = make_agent(
    observation_space=loop_lib.stacked_space(
      environments.observation_space, environment.stack
    ),
    action_space=environments.action_space,
    **agent,
  )
  engine = engine_lib.PythonEngine(
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
    training.env_seeds(engine.seeds, training.Stream.TRAIN, 0, num_envs)
  )
  engine.layout.check(engine.loop.replay, engine.abstract_state())
  engine.init()
  engine.metrics = engine.run(steps, cut_with=None, on_step=lambda: None)
  return engine


def main():
  for layout in (
    devices.ONE_DEVICE, devices.Devices(split='batch'), devices.Devices(replay_memory='pinned_host')
  ):
    e=run(layout)
    print(layout); print(jax.tree.map(lambda x:(x.sharding,),e.state.experience.replay)); print(e.metrics)
    print(jax.tree.map(lambda p: float(np.abs(np.asarray(p)).sum()), e.state.agent.params))
    print({k:f._cache_size() for k,f in {**e._act,**e._learn}.items()})
  for layout in (
    devices.ONE_DEVICE, devices.Devices(split='seeds'), devices.Devices(replay_memory='pinned_host'), devices.Devices(split='batch')
  ):
    e=run(layout,num_seeds=8)
    print(layout); print(jax.tree.map(lambda x:(x.sharding,),e.state.experience.replay.slots.frame)); print(e.metrics)
    print({k:f._cache_size() for k,f in {**e._act,**e._learn}.items()})

if __name__ == '__main__':
  main()
