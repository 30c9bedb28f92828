"""A tree of settings as the gin file that builds it again."""

import dataclasses
import enum
import functools
import re
from typing import Any

from flax import linen as nn
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
import numpy as np
import optax
import pytest

import dopamine_jax as dj
from dopamine_jax import annotations
from dopamine_jax import config
from dopamine_jax import errors
from dopamine_jax import networks
from dopamine_jax import runner as runner_lib
from dopamine_jax import settings
from dopamine_jax import values
from dopamine_jax.agents import dqn
from dopamine_jax.agents import full_rainbow
from dopamine_jax.agents import ppo
from dopamine_jax.agents import sac
from dopamine_jax.environments import catch
from dopamine_jax.environments import gym
from dopamine_jax.networks import impala
from dopamine_jax.replay import uniform


class Holder(settings.Settings):
  """Holds anything."""

  value: object = None
  other: object = None


def twice(x):
  return 2 * x


def again(text, target):
  loaded = config.load(['written.gin'], text=text)
  built = loaded.build(target)
  assert loaded.unused() == []
  return built


def runner(agent, **changes):
  return runner_lib.Runner(
    **{
      'agent': agent,
      'environment': catch.Catch(),
      'num_iterations': 1,
      'training_steps': 10,
      **changes,
    }
  )


@pytest.mark.parametrize('path', config.shipped(), ids=lambda path: path.stem)
def test_a_shipped_config_is_written_as_what_builds_the_same(path):
  built = config.load([path]).build(runner_lib.Runner)
  text = config.write(built)
  assert config.write(again(text, runner_lib.Runner)) == text
  # All settings of the agent are there, those at their default too.
  maker = built.agent
  agent = getattr(maker, 'func', maker)
  name = annotations.full_name(agent)
  for field in values.fields(agent()):
    if field not in agent.given_later:
      assert f'\n{name}.{field} = ' in text


@pytest.mark.parametrize(
  'agent',
  [
    dqn.DQN(n_step=3, network=networks.MLP(hidden=(64, 64))),
    functools.partial(dqn.DQN, gamma=0.5),
    dqn.DQN,
    dqn.DQN(network=functools.partial(networks.MLP, activation=nn.tanh)),
    dqn.DQN(epsilon=values.call(optax.linear_schedule, 1.0, 0.1, 10)),
    sac.SAC(
      actor_optimizer=values.call(optax.adam, 1e-3),
      critic_optimizer=values.call(optax.adam, 1e-4),
    ),
    ppo.PPO(network=networks.ActorCritic(shared=True)),
    full_rainbow.FullRainbow(
      network=full_rainbow.RainbowNetwork(torso=impala.ImpalaTorso())
    ),
    dqn.DQN(
      optimizer=values.call(
        optax.chain,
        values.call(optax.clip, 1.0),
        values.call(optax.sgd, values.call(optax.linear_schedule, 1.0, 0.0, 9)),
      )
    ),
  ],
)
def test_what_python_made_is_built_again(agent):
  text = config.write(runner(agent))
  assert config.write(again(text, runner_lib.Runner)) == text


plain = st.recursive(
  st.none()
  | st.booleans()
  | st.integers(-(2**31), 2**31)
  | st.floats(-1e38, 1e38)
  | st.text(),
  lambda inner: (
    st.lists(inner, max_size=3)
    | st.lists(inner, max_size=3).map(tuple)
    | st.dictionaries(st.text(), inner, max_size=3)
  ),
  max_leaves=6,
)


@hypothesis_settings(max_examples=200, deadline=None)
@given(plain, plain)
def test_plain_values_come_back_as_they_were(value, other):
  # Not as fields of a run: those are checked, as numbers of 32 bits.
  holder = object.__new__(Holder)
  object.__setattr__(holder, 'value', value)
  object.__setattr__(holder, 'other', other)
  text = config.write(holder)
  found = config.load(['written.gin'], text=text)
  kept = {b.name: b.value for b in found.unused()}
  assert kept == {'value': value, 'other': other}
  assert type(kept['value']) is type(value)


def test_arrays_and_numbers_of_numpy_are_numbers():
  text = config.write(Holder(value=np.array([1.5, 2]), other=np.float32(0.5)))
  assert 'Holder.value = [1.5, 2.0]\n' in text
  assert 'Holder.other = 0.5\n' in text


def test_two_of_one_name_have_scopes_and_one_has_none():
  slow, fast = (values.call(optax.sgd, rate) for rate in (0.1, 0.2))
  text = config.write(Holder(value=slow, other=fast))
  assert 'Holder.value = @value/optax.sgd()\n' in text
  assert 'value/optax.sgd.learning_rate = 0.1\n' in text
  assert 'other/optax.sgd.learning_rate = 0.2\n' in text
  same = values.call(optax.sgd, 0.1)
  text = config.write(Holder(value=slow, other=same))
  assert 'Holder.value = @optax.sgd()\n' in text
  assert text.count('learning_rate') == 1


def test_scopes_that_would_have_one_name_differ():
  inner = [Holder(value=values.call(optax.sgd, i / 10)) for i in range(1, 4)]
  text = config.write(Holder(value=inner[0], other=inner[1:]))
  assert config.write(again(text, Holder)) == text
  rates = re.findall(r'(\w*)/optax.sgd.learning_rate = (\S+)', text)
  assert len({scope for scope, _ in rates}) == len(rates) == 3


def test_what_is_at_its_default_is_not_changed_by_what_is_written_beside_it():
  # The second keeps its default torso, though another MLPTorso is written.
  held = Holder(
    value=networks.MLPTorso(hidden=(5,)), other=networks.ActorCritic()
  )
  built = again(config.write(held), Holder)
  assert built.value.hidden == (5,)
  assert built.other.torso.keywords['hidden'] == (64, 64)


def test_modules_of_one_name_are_imported_under_two():
  from dopamine_jax.metrics import base as metrics_base
  from dopamine_jax.replay import base as replay_base

  held = Holder(value=metrics_base.Collector, other=replay_base.Replay)
  text = config.write(held)
  assert 'from dopamine_jax.replay import base as base2' in text
  assert again(text, Holder) == held


def test_a_title_is_the_first_line_and_comes_back():
  text = config.write(Holder(), 'A title')
  assert text.startswith('# A title\nfrom __gin__')
  assert config.load(['written.gin'], text=text).title == 'A title'


def test_a_change_in_python_is_in_the_record():
  built = config.load(['dqn_cartpole']).build(runner_lib.Runner)
  changed = built.replace(environment=gym.Gym(id='Acrobot-v1'), num_envs=2)
  text = config.write(changed)
  assert "gym.Gym.id = 'Acrobot-v1'" in text
  assert 'runner.Runner.num_envs = 2' in text


def local():
  class Inside(dqn.DQN):
    pass

  return Inside


class Tabled(dqn.DQN):
  table: Any = None


@dataclasses.dataclass
class Plain:
  value: float = 1.0
  other: float = dataclasses.field(init=False, default=2.0)


def changed():
  plain = Plain()
  plain.other = 7.0
  return plain


@pytest.mark.parametrize(
  ('agent', 'words'),
  [
    (dqn.DQN(epsilon=lambda step: 0.1), 'dqn.DQN.epsilon is a lambda'),
    (dqn.DQN(optimizer=optax.adam(1e-3)), r'call\(optax.adam, 1e-3\)'),
    (
      dqn.DQN(network=networks.MLP(activation=lambda x: x)),
      'networks.MLP.activation is a lambda',
    ),
    (local(), r'Runner.agent is of the class local.<locals>.Inside'),
    (local()(), r'Runner.agent is of the class local.<locals>.Inside'),
    (
      dqn.DQN(network=functools.partial(networks.MLP, hidden=(3,), low=local)),
      None,
    ),
    (
      Tabled(table=np.array([0.1], np.float16)),
      'Tabled.table is an array of float16, and gin would give a list',
    ),
    (Tabled(table=changed()), 'Tabled.table is a .*Plain whose other was set'),
    (
      functools.partial(dqn.DQN, optimizer=optax.sgd(0.1)),
      'dqn.DQN.optimizer holds something of type optax',
    ),
  ],
)
def test_what_gin_could_not_build_is_refused_with_the_way_out(agent, words):
  if words is None:
    assert '@written_test.local' in config.write(runner(agent))
    return
  with pytest.raises(errors.UserError, match=words) as raised:
    config.write(runner(agent))
  assert 'config.gin' in str(raised.value)


def shape(scale=1.0):
  return functools.partial(twice, scale)


def test_the_ways_out_that_are_named_work():
  # A function that returns a partial, of what is given by position.
  given = runner(dqn.DQN(network=networks.MLP(activation=dj.call(shape, 0.5))))
  assert 'shape.scale = 0.5' in config.record(given)
  for value in ([0.1, 0.2], Plain(3.0), np.array([0.1, 0.2], np.float32)):
    assert 'table = ' in config.record(runner(Tabled(table=value)))
  wrong = dqn.DQN(optimizer=optax.adam(1e-3))
  right = wrong.replace(optimizer=values.call(optax.adam, 1e-3))
  assert 'learning_rate = 0.001' in config.write(runner(right))
  assert 'twice' in config.write(
    runner(dqn.DQN(network=networks.MLP(activation=twice)))
  )


# What would come back as something else.


class Grandchild(Holder):
  pass


class LeftOut(Holder):
  value: object = lambda x: x


class LeftOutBelow(LeftOut):
  pass


class Color(enum.Enum):
  RED = 1


class Word(enum.StrEnum):
  RED = 'red'


def by_position(a, /, b=2):
  return lambda: (a, b)


def caught(first, *rest):
  return lambda: (first, rest)


def with_any(**settings):
  return networks.MLP(hidden=(3,), **settings)


@pytest.mark.parametrize(
  'made',
  [
    values.call(by_position, 5),
    values.call(by_position, 5, b=3),
    values.call(caught, 1),
    values.call(caught, 1, 2, 3),
  ],
)
def test_what_is_given_by_position_comes_back(made):
  text = config.record(Holder(value=made))
  assert again(text, Holder).value() == made()


def test_what_is_below_a_scope_is_not_what_the_scope_binds():
  held = Holder(
    value=Holder(value=1, other=Grandchild(value=5)), other=Holder(value=2)
  )
  assert again(config.record(held), Holder) == held


@pytest.mark.parametrize(
  ('value', 'words'),
  [
    (Color.RED, 'gin knows no enumerations'),
    (Word.RED, 'gin knows no enumerations'),
    (b'bytes', 'Take a text'),
    (values.call(frozenset, [1, 2]), 'nothing tells how it was made'),
    (functools.partial(range, 5), 'by position'),
  ],
)
def test_what_has_no_form_in_gin_is_refused(value, words):
  with pytest.raises(errors.UserError, match=words):
    config.record(Holder(value=value))


def leaky(slope, x):
  return slope * x


def make_any(**settings):
  return lambda: settings


def test_each_use_of_a_function_keeps_its_own_arguments():
  held = Holder(
    value=values.call(make_any), other=values.call(make_any, lr=0.5)
  )
  built = again(config.record(held), Holder)
  assert (built.value(), built.other()) == ({}, {'lr': 0.5})
  held = Holder(value=twice, other=functools.partial(twice, x=3))
  built = again(config.record(held), Holder)
  assert built.value is twice
  assert built.other() == 6


@pytest.mark.parametrize(
  'partial',
  [functools.partial(leaky, 0.5), functools.partial(np.float16, 0.5)],
)
def test_a_partial_by_position_is_called_as_before(partial):
  arguments = (3.0,) if partial.func is leaky else ()
  built = again(config.record(Holder(value=partial)), Holder)
  assert built.value(*arguments) == partial(*arguments)


def test_what_gin_binds_of_a_function_leaves_the_rest_to_who_calls_it():
  text = """
from tests import written_test
written_test.Holder.value = @written_test.leaky
written_test.leaky.slope = 0.5
"""
  assert config.load(['a.gin'], text=text).build(Holder).value(4.0) == 2.0


@pytest.mark.parametrize('value', [np.float16, twice, nn.initializers.ones])
def test_a_class_or_function_stays_the_one_that_it_is(value):
  assert again(config.record(Holder(value=value)), Holder).value is value


def test_arguments_that_change_later_are_those_of_the_call():
  settings_of_a_sweep = {'lr': 0.5}
  made = values.call(make_any, settings=settings_of_a_sweep)
  settings_of_a_sweep['lr'] = 0.1
  text = config.record(Holder(value=made))
  assert "{'lr': 0.5}" in text


def test_a_singleton_can_be_written():
  text = """
import optax
from tests import written_test
written_test.Holder.value = @s/gin.singleton()
written_test.Holder.other = @s/gin.singleton()
s/gin.singleton.constructor = @optax.adam
optax.adam.learning_rate = 0.5
"""
  built = config.load(['a.gin'], text=text).build(Holder)
  assert built.value is built.other
  assert 'optax.adam.learning_rate = 0.5' in config.record(built)


class Mine(runner_lib.Runner):
  note: str = 'x'


def test_a_subclass_of_the_runner_is_built_again():
  built = Mine(
    agent=dqn.DQN,
    environment=catch.Catch(),
    num_iterations=1,
    training_steps=10,
    note='y',
  )
  loaded = config.load(['a.gin'], text=config.record(built))
  assert loaded.kind(runner_lib.Runner) is Mine
  assert loaded.build(Mine).note == 'y'


class MineToo(Mine):
  pass


class Other(runner_lib.Runner):
  pass


def test_the_runner_that_inherits_from_all_others_that_are_bound_is_built():
  bindings = [
    'from tests import written_test',
    'written_test.MineToo.num_envs = 2',
    'written_test.Mine.training_steps = 100',
  ]
  loaded = config.load(['dqn_cartpole'], bindings)  # it binds runner.Runner
  assert loaded.kind(runner_lib.Runner) is MineToo
  bindings.append('written_test.Other.num_envs = 3')
  loaded = config.load(['dqn_cartpole'], bindings)
  with pytest.raises(
    errors.UserError, match=r'MineToo and of written_test\.Oth'
  ):
    loaded.kind(runner_lib.Runner)


def test_a_macro_is_made_in_its_own_scope_as_gin_does():
  text = """
from tests import written_test
written_test.Holder.value = @a/written_test.Holder()
a/written_test.Holder.value = %made
a/written_test.Holder.other = 1
made = @written_test.Holder()
made/written_test.Holder.value = 5
"""
  built = config.load(['a.gin'], text=text).build(Holder)
  assert built.value.value == Holder(value=5)


def test_a_default_that_is_left_out_must_come_back():
  config.record(LeftOutBelow())
  held = Holder(value=LeftOut(value=twice), other=LeftOutBelow())
  with pytest.raises(errors.UserError, match=r'LeftOutBelow\.value would not'):
    config.record(held)


def test_a_root_that_can_not_be_imported_is_refused():
  class Inside(Holder):
    pass

  with pytest.raises(errors.UserError, match=r'of the class .*Inside'):
    config.record(Inside())


def test_a_title_is_one_line():
  text = config.write(Holder(), 'a\nimport os')
  assert text.startswith('# a import os\n')


def test_settings_may_have_any_name():
  part = values.call(Named, function=1, part=2, target=3)
  changed = values.changed(part, part=4)
  assert (changed.function, changed.part, changed.target) == (1, 4, 3)
  assert again(config.record(Holder(value=changed)), Holder).value == changed


class Named(settings.Settings):
  function: int = 0
  part: int = 0
  target: int = 0


class Chained(settings.Settings):
  maker: object = functools.partial(optax.chain, optax.identity())


@pytest.mark.parametrize(
  ('lines', 'words'),
  [
    ('a = [%b]\nb = [%a]\nwritten_test.Holder.value = %a', r'%a -> %b -> %a'),
    ('written_test.Holder.value = [%gin.REQUIRED]', 'is to be set'),
    ('written_test.Holder.value = %gin.REQUIRED', 'value is to be set'),
    (
      'written_test.Holder.value = @written_test.Holder()',
      'Holder needs itself',
    ),
  ],
)
def test_circles_and_gaps_are_told(lines, words):
  with pytest.raises(errors.UserError, match=words):
    text = f'from tests import written_test\n{lines}\n'
    config.load(['a.gin'], text=text).build(Holder)


def test_a_default_of_arguments_by_position_has_its_bindings():
  text = """
import optax
from tests import written_test
optax.chain.args = [@optax.identity(), @optax.identity()]
"""
  built = config.load(['a.gin'], text=text).build(Chained)
  assert len(built.maker().init(())) == 2


def no_network(num_outputs):
  pass


@pytest.mark.parametrize(
  ('network', 'words'),
  [
    (no_network, 'NoneType; expected module.Module'),
    (functools.partial(with_any, num_outputs=3), 'num_outputs = 3 has no'),
  ],
)
def test_a_network_that_is_none_is_refused(network, words):
  agent = dqn.DQN(
    network=network,
    observation_space=catch.Catch().observation_space,
    action_space=catch.Catch().action_space,
  )
  loaded = config.load([])
  with pytest.raises(errors.UserError, match=words), loaded.located():
    _ = agent.module


# Defaults that gin does not name.


@pytest.mark.parametrize(
  ('name', 'line', 'found'),
  [
    (
      'sac_pendulum',
      'uniform.UniformReplay.capacity = 5_000',
      lambda agent: agent.make_replay(1).capacity == 5_000,
    ),
    (
      'ppo_cartpole',
      'networks.MLPTorso.hidden = (7,)',
      lambda agent: agent.network().torso.keywords['hidden'] == (7,),
    ),
  ],
)
def test_a_default_can_be_bound(name, line, found):
  lines = [line]
  if 'MLPTorso' in line:
    lines = ['from dopamine_jax import networks', line]
  if 'Uniform' in line:
    lines = ['from dopamine_jax.replay import uniform', line]
  if 'optax' in line:
    lines = ['import optax', line]
  loaded = config.load([name], lines)
  built = loaded.build(runner_lib.Runner)
  loaded.refuse_unread(lambda message: None)
  assert found(built.agent())


def test_a_default_inside_a_default_can_be_bound():
  text = """
import optax
from dopamine_jax.agents import ppo
optax.adam.b2 = 0.5
"""
  loaded = config.load(['a.gin'], text=text)
  clipped = values.origin(loaded.build(ppo.PPO).optimizer).keywords
  adam = values.origin(clipped['optimizer']).keywords
  assert clipped['max_norm'] == 0.5
  assert adam == {'learning_rate': 3e-4, 'eps': 1e-5, 'b2': 0.5}
  assert loaded.unused() == []


def test_a_default_that_is_a_partial_has_its_bindings():
  # 300 steps learnt nothing, since the binding was taken and not used.
  text = """
from dopamine_jax.agents import sac
from dopamine_jax.replay import uniform
uniform.UniformReplay.min_history = 100
uniform.UniformReplay.batch_size = 8
"""
  loaded = config.load(['a.gin'], text=text)
  replay = loaded.build(sac.SAC).make_replay(1)
  assert (replay.min_history, replay.batch_size) == (100, 8)
  assert loaded.unused() == []


# What is given by others.


@pytest.mark.parametrize(
  ('line', 'words'),
  [
    ('uniform.UniformReplay.n_step = 1', 'is no setting'),
    ('uniform.UniformReplay.n_step = 5', r'Set dqn.DQN.n_step instead'),
    ('uniform.UniformReplay.stack = 2', 'has no effect: dqn.DQN gives it'),
    ('networks.MLP.num_outputs = 7', 'has no effect: dqn.DQN gives it'),
    ('networks.MLP.num_outputs = None', 'is no setting'),
    ('dqn.DQN.action_space = 3', 'action_space = 3'),
  ],
)
def test_what_others_give_can_not_be_bound(line, words):
  lines = ['from dopamine_jax.replay import uniform', line]
  with pytest.raises(errors.UserError, match=words):
    loaded = config.load(['dqn_cartpole'], lines)
    with loaded.located():
      built = loaded.build(runner_lib.Runner)
      environments = built.environment.make(1)
      engine = built.make_engine(environments, [0], check_finite=True)
      engine.reset([0])
      engine.abstract_state()


@pytest.mark.parametrize(
  ('agent', 'words'),
  [
    (dqn.DQN(replay=uniform.UniformReplay(n_step=5)), 'Set dqn.DQN.n_step'),
    (
      dqn.DQN(replay=functools.partial(uniform.UniformReplay, gamma=0.5)),
      'Set dqn.DQN.gamma',
    ),
    (dqn.DQN(network=networks.MLP(num_outputs=9)), 'num_outputs = 9'),
    (dqn.DQN(network=nn.Dense(3)), 'has no num_outputs'),
  ],
)
def test_what_others_give_can_not_be_set_in_python(agent, words):
  built = runner(agent, training_steps=30)
  environments = built.environment.make(1)
  with pytest.raises(errors.UserError, match=words):
    engine = built.make_engine(environments, [0], check_finite=True)
    engine.reset([0])
    engine.abstract_state()
