"""Every number that a gin file can set has bounds, or says why it has none."""

import collections.abc
import dataclasses
import importlib
import math
import pathlib
import pkgutil
import typing

import gymnasium
import optax
import pytest

from dopamine_jax import annotations
from dopamine_jax import networks
from dopamine_jax import runner
from dopamine_jax import settings
from dopamine_jax.agents import dqn
from dopamine_jax.engines import python_engine
from dopamine_jax.environments import catch
from dopamine_jax.networks import modules

# What an instance needs to be made, by the setting's name.
GIVEN = {
  'observation_space': gymnasium.spaces.Box(-1, 1, (3,)),
  'action_space': gymnasium.spaces.Discrete(2),
  'action_shape': (1,),
  'agent': dqn.DQN,
  'at_return': 1.0,
  'at_steps': (1,),
  'engine': python_engine.PythonEngine,
  'environment': catch.Catch(),
  'evaluation_episodes': 1,
  'features': 3,
  'folder': 'shards',
  'id': 'CartPole-v1',
  'network': networks.MLP,
  'num_epochs': 1,
  'num_iterations': 2,
  'num_minibatches': 1,
  'optimizer': optax.sgd(0.1),
  'path': 'data.npz',
  'period': 1,
  'run': 'runs/a',
  'setting': 'gamma',
  'num_outputs': 2,
  'steps': 8,
  'training_steps': 8,
  'values': (0.5,),
}
BOX = gymnasium.spaces.Box(-1, 1, (1,))

# Numbers that may be far below 0, and why.
MAY_BE_NEGATIVE = {
  'actor_critic.Actor.log_std_min': 'a logarithm',
  'c51.C51.v_min': 'returns may be negative',
  'munchausen.MunchausenDQN.log_policy_min': 'a logarithm',
  'munchausen.MunchausenIQN.log_policy_min': 'a logarithm',
  'networks.FourierBasis.high': 'a bound of what is observed',
  'networks.FourierBasis.low': 'a bound of what is observed',
  'networks.MLP.high': 'a bound of what is observed',
  'networks.MLP.low': 'a bound of what is observed',
  'networks.MLPTorso.high': 'a bound of what is observed',
  'networks.MLPTorso.low': 'a bound of what is observed',
  'sac.SAC.target_entropy': 'the entropy of a density may be negative',
  'stages.Stages.values': 'whatever the setting that it changes takes',
  'stopping.EarlyStopping.at_return': 'returns may be negative',
}


def subclasses(cls):
  for each in cls.__subclasses__():
    yield each
    yield from subclasses(each)


def ours():
  """Returns every settings class and Flax module of the package."""
  folder = pathlib.Path(settings.__file__).parent
  for module in pkgutil.walk_packages([str(folder)], 'dopamine_jax.'):
    if not module.name.endswith('__main__'):
      importlib.import_module(module.name)
  found = {*subclasses(settings.Settings), *subclasses(modules.Module)}
  return sorted(
    (cls for cls in found if cls.__module__.startswith('dopamine_jax.')),
    key=annotations.full_name,
  )


def is_callable(hint):
  return typing.get_origin(hint) is collections.abc.Callable


def numbers(cls):
  """Yields (name, whether it is a list of them) of its numeric settings."""
  hints = typing.get_type_hints(cls)
  for field in dataclasses.fields(cls):
    hint = hints[field.name]
    parts = typing.get_args(hint) if annotations.is_union(hint) else (hint,)
    parts = [part for part in parts if not is_callable(part)]
    if any(part in (int, float) for part in parts):
      yield field.name, False
    elif any(a in (int, float) for p in parts for a in typing.get_args(p)):
      yield field.name, True


def make(cls, **changes):
  names = {field.name for field in dataclasses.fields(cls)}
  given = {name: value for name, value in GIVEN.items() if name in names}
  if cls.__name__ == 'SAC':
    given['action_space'] = BOX
  return cls(**given | changes)


CASES = [(cls, *number) for cls in ours() for number in numbers(cls)]


def test_the_walk_finds_them():
  names = [f'{annotations.full_name(cls)}.{name}' for cls, name, _ in CASES]
  assert len(names) > 150
  for name in ('ppo.PPO.clip', 'runner.Runner.num_envs', 'networks.MLP.hidden'):
    assert name in names
  assert set(MAY_BE_NEGATIVE) <= set(names)
  assert runner.Runner in {cls for cls, _, _ in CASES}


@pytest.mark.parametrize('bad', [math.nan, math.inf, -math.inf, True, 1e39])
def test_no_number_is_infinite_or_nan_or_a_bool(bad):
  for cls, name, many in CASES:
    try:
      make(cls, **{name: (bad,) if many else bad})
    except settings.SettingError as error:
      assert f'{annotations.full_name(cls)}.{name} = ' in str(error)
    else:
      pytest.fail(f'{annotations.full_name(cls)}.{name} = {bad} is accepted')


def test_no_number_is_far_below_0_but_those_that_say_why():
  accepted = set()
  for cls, name, many in CASES:
    try:
      make(cls, **{name: (-1_000,) if many else -1_000})
    except settings.SettingError:
      continue
    accepted.add(f'{annotations.full_name(cls)}.{name}')
  inherited = {
    f'{annotations.full_name(cls)}.{name}'
    for cls, name, _ in CASES
    for base in cls.__mro__[1:]
    if f'{base.__module__.rpartition(".")[2]}.{base.__name__}.{name}'
    in MAY_BE_NEGATIVE
  }
  assert accepted - inherited <= set(MAY_BE_NEGATIVE)
