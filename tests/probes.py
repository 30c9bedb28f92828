"""Environments so small that their values are known, each testing one idea.

An agent that fails one of them says what is broken. Observations are one-hot,
so that nothing is left to generalization, and the last observation of an
episode equals one that is acted on, so that a value which bootstraps where it
must not, or doesn't where it must, is far from right.
"""

import functools
import pathlib

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from dopamine_jax import runner as runner_lib
from dopamine_jax.environments import base
from dopamine_jax.environments import gym_vector
from dopamine_jax.playing import trained

NUM_STATES = 4
TARGETS = (1.0, -1.0)  # the best actions of Target, by state

# The values [states, A] of each probe, given the discount g of one step. No
# action leads elsewhere than another, so they hold for any policy and n.
VALUES = {
  # A reward of 1 for anything: the value of a constant.
  'Probe/Value-v0': lambda g: [[1, 1]],
  # The reward depends on what is seen.
  'Probe/Observation-v0': lambda g: [[-1, -1], [1, 1]],
  # The reward comes a step late.
  'Probe/Discount-v0': lambda g: [[g, g], [1, 1]],
  # The reward depends on what is done.
  'Probe/Action-v0': lambda g: [[-1, 1]],
  # The reward depends on what is seen and done.
  'Probe/ObservationAction-v0': lambda g: [[1, -1], [-1, 1]],
  # Rewards of 1 without end; nobody sees the time limit of 3 steps coming.
  'Probe/Truncation-v0': lambda g: [[1 / (1 - g)] * 2],
  # The episode terminates in the very step in which the time is up.
  'Probe/LateTermination-v0': lambda g: [[1 + g] * 2, [1, 1]],
  # All reward is in the last of four steps: without it, nothing is worth any.
  'Probe/LastReward-v0': lambda g: [[g**3] * 2, [g**2] * 2, [g] * 2, [1, 1]],
}
# Those whose values no action changes. They are there with continuous actions
# too: `box` says under which name.
PASSIVE = [
  name
  for name, values in VALUES.items()
  if all(len(set(row)) == 1 for row in values(0.5))
]


def box(name: str) -> str:
  """Returns the name of a passive probe with an action in a Box."""
  return name.replace('Probe/', 'Probe/Box')


class _Probe(gymnasium.Env):
  observation_space = gymnasium.spaces.Box(0, 1, (NUM_STATES,), np.float32)
  action_space = gymnasium.spaces.Discrete(2)

  def reset(self, *, seed=None, options=None):
    super().reset(seed=seed)
    self.state = self.first_state()
    return self._see(), {}

  def first_state(self):
    return 0

  def _see(self):
    return np.eye(NUM_STATES, dtype=np.float32)[self.state]


class Chain(_Probe):
  """States 0, 1, ... one after another; step i gives `rewards[i]`."""

  def __init__(self, rewards):
    self.rewards = rewards

  def step(self, action):
    reward = self.rewards[self.state]
    self.state = (self.state + 1) % len(self.rewards)
    return self._see(), reward, self.state == 0, False, {}


class Bandit(_Probe):
  """Episodes of one step, from any state; it gives `rewards[state][action]`."""

  def __init__(self, rewards):
    self.rewards = rewards

  def first_state(self):
    return int(self.np_random.integers(len(self.rewards)))

  def step(self, action):
    return self._see(), self.rewards[self.state][action], True, False, {}


class Target(_Probe):
  """Episodes of one step; minus the squared distance to TARGETS[state]."""

  action_space = gymnasium.spaces.Box(-2, 2, (1,), np.float32)

  def first_state(self):
    return int(self.np_random.integers(len(TARGETS)))

  def step(self, action):
    reward = -float((action[0] - TARGETS[self.state]) ** 2)
    return self._see(), reward, True, False, {}


class AnyAction(gymnasium.ActionWrapper):
  """A passive probe with an action in a Box, which changes nothing."""

  action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

  def __init__(self, name):
    super().__init__(gymnasium.make(name))

  def action(self, action):
    return 0


class Endless(_Probe):
  """Nothing changes, every step gives 1, and only a time limit ends it."""

  def step(self, action):
    return self._see(), 1.0, False, False, {}


def _register():
  register = functools.partial(gymnasium.register, disable_env_checker=True)
  for name, rewards in {
    'Value': [[1, 1]],
    'Observation': [[-1, -1], [1, 1]],
    'Action': [[-1, 1]],
    'ObservationAction': [[1, -1], [-1, 1]],
  }.items():
    register(f'Probe/{name}-v0', Bandit, kwargs={'rewards': rewards})
  for name, rewards, limit in [
    ('Discount', [0, 1], None),
    ('LateTermination', [1, 1], 2),
    ('LastReward', [0, 0, 0, 1], None),
  ]:
    register(
      f'Probe/{name}-v0',
      Chain,
      kwargs={'rewards': rewards},
      max_episode_steps=limit,
    )
  register('Probe/Truncation-v0', Endless, max_episode_steps=3)
  register('Probe/Target-v0', Target)
  for name in PASSIVE:
    register(box(name), AnyAction, kwargs={'name': name})


# Not again where this file is imported under a second name.
if 'Probe/Value-v0' not in gymnasium.registry:
  _register()


class Probes(base.Environment):
  """Each seed of a run has a probe of its own: one program learns them all."""

  names: tuple[str, ...]

  def make(self, num_envs, render=False):
    share = max(num_envs // len(self.names), 1)  # one alone tells the spaces
    makers = [
      functools.partial(gymnasium.make, name, disable_env_checker=True)
      for name in self.names
      for _ in range(share)
    ]
    return gym_vector.GymVector('Probes', makers[:num_envs])


def train(agent, names, base_dir: pathlib.Path, *, steps, num_envs=1):
  """Trains on probes as a user would, in one iteration.

  Args:
    agent: makes the agent from its two spaces.
    names: of the probes.
    base_dir: the run's folder.
    steps: agent steps on each.
    num_envs: environments side by side, of each.

  Returns:
    The agent, its last state on each probe as the checkpoint holds it, and the
    last iteration's statistics.
  """
  environment = Probes(names=tuple(names))
  runner = runner_lib.Runner(
    agent=agent,
    environment=environment,
    num_iterations=1,
    training_steps=steps,
    num_envs=num_envs,
    collectors=(),
  )
  statistics = runner.train(base_dir, num_seeds=len(names), quiet=True)
  loaded = trained.load(base_dir)
  states = [loaded.axis.pick(loaded.state, i) for i in range(len(names))]
  return loaded.agent, states, statistics


def observations() -> jax.Array:
  """Returns the observations [NUM_STATES, NUM_STATES] of all states."""
  return jnp.eye(NUM_STATES)
