"""Runs that start from another one: the same course, parts of it, misfits."""

import functools
import json
import shutil

import numpy as np
import pytest

from dopamine_jax import errors
from dopamine_jax import networks
from dopamine_jax import runner as runner_lib
from dopamine_jax.agents import ppo
from dopamine_jax.agents import sac
from dopamine_jax.agents import td3
from dopamine_jax.analysis import run_report
from dopamine_jax.callbacks import base
from dopamine_jax.callbacks import resets
from dopamine_jax.callbacks import stopping
from dopamine_jax.checkpoints import checkpoints as checkpoints_lib
from dopamine_jax.checkpoints import state_arrays
from dopamine_jax.engines import compiled
from dopamine_jax.engines import python_engine
from dopamine_jax.environments import catch
from dopamine_jax.environments import classic
from dopamine_jax.learning import actor_critic
from dopamine_jax.metrics import csv_file
from dopamine_jax.playing import trained
from dopamine_jax.replay import prioritized
from dopamine_jax.replay import uniform
from dopamine_jax.training import fingerprint
from dopamine_jax.training import starts
from tests import programs
from tests.unit import callbacks_test

# What a run starts from changes its state, and no program.
pytestmark = pytest.mark.usefixtures('same_programs')


def train(folder, num_iterations=4, *, num_seeds=2, agent=None, **settings):
  said = []
  runner_lib.Runner(
    agent=agent or callbacks_test.make_agent(),
    num_iterations=num_iterations,
    **{
      'environment': catch.Catch(),
      'engine': compiled.CompiledEngine,
      'training_steps': 12,
      'collectors': [csv_file.CSV],
      'max_to_keep': 1,
      **settings,
    },
  ).train(folder, num_seeds=num_seeds, quiet=True, say=said.append)
  return said


def arrays(folder):
  store = checkpoints_lib.Checkpoints(folder)
  return {i: store.arrays(i) for i in store.iterations()}


@pytest.fixture(scope='module')
def parent(tmp_path_factory):
  """A run of four iterations; and of two, from which others start."""
  folder = tmp_path_factory.mktemp('parent')
  with pytest.MonkeyPatch.context() as patch:
    programs.share(patch)
    train(folder / 'two', 2)
    shutil.copytree(folder / 'two', folder / 'four')
    train(folder / 'four')
  return folder


def test_a_fork_under_the_same_settings_is_the_same_run(parent, tmp_path):
  source = shutil.copytree(parent / 'two', tmp_path / 'source')
  train(tmp_path / 'fork', 3, start_from=str(source))
  shutil.rmtree(source)  # It goes on from its own checkpoints.
  train(tmp_path / 'fork', start_from=str(source))
  same = fingerprint.fingerprint(tmp_path / 'fork')
  assert same == fingerprint.fingerprint(parent / 'four')
  facts = json.loads((tmp_path / 'fork' / 'run.json').read_text())
  assert facts['started_from'] == {
    'run': str(source),
    'iteration': 2,
    'record': json.loads((parent / 'two' / 'run.json').read_text())['record'],
    'title': '',
    'names': [],
    'replay': True,
    'started_from': None,
  }
  report = run_report.gather(tmp_path / 'fork')
  assert report.lineage == [f'{source}, iteration 2']


class KeepFirst(base.Callback):
  """Keeps the first checkpoint by one name, and the newest by another."""

  def after_iteration(self, seen, own):
    return base.Decision(own, keep='first' if seen.iteration == 1 else 'newest')


def test_callbacks_of_a_fork_go_on_as_the_other_runs(tmp_path):
  settings = {
    'callbacks': [
      resets.Reset(period=2, names=['Dense_0.*']),
      callbacks_test.Count(),
      KeepFirst(),
    ],
    'evaluation_episodes': 0,
    'checkpoint_period': 1,
    'max_to_keep': 4,
  }
  train(tmp_path / 'one', 2, **settings)
  start = str(tmp_path / 'one')
  said = train(tmp_path / 'fork', 4, start_from=start, **settings)
  train(tmp_path / 'one', 4, **settings)
  fork, one = arrays(tmp_path / 'fork'), arrays(tmp_path / 'one')
  assert one[4]['callbacks.1.count'] == 4
  assert fork[4].keys() == one[4].keys()
  for name, array in one[4].items():
    np.testing.assert_array_equal(fork[4][name], array, err_msg=name)
  # The first checkpoint is not in this folder, the one that it begins with is.
  assert 'What was kept as first stays with that run.' in said
  store = checkpoints_lib.Checkpoints(tmp_path / 'fork')
  assert store.manifest(2)['run']['callbacks']['kept'] == {'newest': 2}


def test_a_setting_that_an_older_version_had_not_changes_nothing(tmp_path):
  settings = {'callbacks': [callbacks_test.Count()], 'evaluation_episodes': 0}
  train(tmp_path / 'one', 2, **settings)
  path = tmp_path / 'one' / 'config.gin'
  line = 'runner.Runner.evaluation_environment = None\n'
  text = path.read_text()
  assert line in text
  path.write_text(text.replace(line, ''))
  said = train(
    tmp_path / 'fork', 3, start_from=str(tmp_path / 'one'), **settings
  )
  assert not any('is not taken' in line for line in said)
  assert arrays(tmp_path / 'fork')[3]['callbacks.0.count'] == 3


def stopping_at(num_values):
  return stopping.EarlyStopping(
    at_return=1e3, statistic='Train/AverageReturns', num_values=num_values
  )


@pytest.mark.parametrize(
  ('other', 'name'),
  [
    ({'callbacks': []}, None),
    ({'callbacks': [callbacks_test.Count()]}, 'callbacks.0.count'),
    ({'callbacks': [stopping_at(2)]}, 'callbacks.0'),
    ({'environment': catch.Catch(max_steps_per_episode=9)}, 'callbacks.0'),
    ({'evaluation_episodes': 2}, 'callbacks.0'),
  ],
)
def test_callbacks_of_a_fork_that_differ_begin_anew(other, name, tmp_path):
  settings = {'callbacks': [stopping_at(3)], 'evaluation_episodes': 0}
  train(tmp_path / 'one', 2, **settings)
  start = str(tmp_path / 'one')
  said = train(tmp_path / 'fork', 3, start_from=start, **settings | other)
  assert any('remember is not taken' in line for line in said)
  own = arrays(tmp_path / 'fork')[3].get(name)
  if name == 'callbacks.0':
    assert np.isfinite(own).sum() == 1  # of the one iteration since
  elif name:
    assert own == 1


def test_a_run_begins_with_what_is_named_and_is_new_otherwise(parent, tmp_path):
  train(tmp_path / 'one', 2, num_seeds=1)
  start = starts.StartFrom(
    run=str(tmp_path / 'one'), names=['params.Dense_0.*']
  )
  # They learn nothing, so that what was taken is there still.
  never = {'update_period': 10**6, 'target_update_period': 10**6}
  agent = callbacks_test.make_agent().replace(**never)
  # Which compiles no more than it needs.
  settings = {'agent': agent, 'engine': python_engine.PythonEngine}
  train(tmp_path / 'new', 1, start_from=start, **settings)
  train(tmp_path / 'other', 1, **settings)
  (old,), (new,), (other,) = (
    arrays(tmp_path / name).values() for name in ('one', 'new', 'other')
  )
  taken = {name for name in new if not np.array_equal(new[name], other[name])}
  assert taken >= {'agent.params.Dense_0.kernel', 'agent.params.Dense_0.bias'}
  for name in ('kernel', 'bias'):
    name = f'agent.params.Dense_0.{name}'
    for seed in range(2):  # Both begin with the one's.
      np.testing.assert_array_equal(new[name][seed], old[name])
  # What was taken changes actions, and so experience, but no other parameter.
  assert not any('MLPTorso' in name for name in taken)


def test_without_its_replay_a_fork_fills_a_new_one(parent, tmp_path):
  start = starts.StartFrom(
    run=str(parent / 'two'), checkpoint='2', replay=False
  )
  train(tmp_path, 3, start_from=start)
  manifest = checkpoints_lib.Checkpoints(tmp_path).manifest(3)
  assert manifest['run']['replay_began'] == 24
  # 20 steps have to be there, and 12 are.
  assert arrays(tmp_path)[3]['updates'].tolist() == (
    arrays(parent / 'two')[2]['updates'].tolist()
  )


@pytest.mark.parametrize(
  ('start', 'settings', 'message'),
  [
    ({}, {'num_seeds': 1}, r'seeds \[0, 1\], and this run \[0\]. Give'),
    ({}, {'num_iterations': 2}, '24 agent steps in .*Make it longer'),
    ({}, {'training_steps': 18}, '24 agent steps in .*add up to 24'),
    ({'checkpoint': '1'}, {}, "no checkpoint '1'. There are .*iterations 2"),
    ({'names': ['nothing']}, {}, "'nothing' fits nothing .* params.Dense_0"),
    (
      {'names': ['params.*']},
      {'num_seeds': 3},
      'has 2 seeds, and this run 3. Give --num_seeds 2',
    ),
  ],
)
def test_what_does_not_fit_is_refused(
  start, settings, message, parent, tmp_path
):
  start = starts.StartFrom(run=str(parent / 'two'), **start)
  with pytest.raises(errors.UserError, match=message):
    train(tmp_path / 'run', start_from=start, **settings)
  assert not (tmp_path / 'run' / 'checkpoints').exists()


class Own(sac.SAC):
  """A variant."""


def test_a_first_value_that_was_learnt_from_already_is_refused(tmp_path):
  config = 'runner.Runner.agent = @sac.SAC\nsac.SAC.temperature = 0.5\n'
  for agent in (sac.SAC(temperature=0.1), Own(temperature=0.1)):
    for names in ([], ['params.*'], ['log_*']):
      with pytest.raises(errors.UserError, match='has no effect: this run'):
        starts._require_same_first(agent, names, tmp_path, config)
    starts._require_same_first(agent, ['params.actor.*'], tmp_path, config)
  starts._require_same_first(sac.SAC(temperature=0.5), [], tmp_path, config)
  # Of one that isn't learnt the setting counts.
  fixed = sac.SAC(temperature=0.1, temperature_optimizer=None)
  starts._require_same_first(fixed, [], tmp_path, config)


def test_a_fork_with_another_first_value_is_refused(tmp_path):
  def make(log_std):
    network = networks.ActorCritic(torso=networks.MLPTorso(hidden=(4,)))
    sizes = {'update_period': 8, 'num_epochs': 1, 'num_minibatches': 1}
    return ppo.PPO(network=network, log_std=log_std, **sizes)

  given = {'num_seeds': 1, 'environment': classic.Pendulum()}
  given['training_steps'] = 8
  train(tmp_path / 'one', 1, agent=make(0.0), **given)
  given['start_from'] = str(tmp_path / 'one')
  with pytest.raises(errors.UserError, match=r'log_std = -1.0 has no effect'):
    train(tmp_path / 'two', 2, agent=make(-1.0), **given)
  train(tmp_path / 'three', 2, agent=make(0.0), **given)


def continuous(policy_delay):
  """Returns settings of a small TD3."""
  agent = td3.TD3(
    actor=functools.partial(actor_critic.DeterministicActor, hidden=(2,)),
    critics=functools.partial(actor_critic.Critics, hidden=(2,)),
    replay=functools.partial(
      uniform.UniformReplay, capacity=40, batch_size=2, min_history=2
    ),
    policy_delay=policy_delay,
  )
  return {
    'agent': agent,
    'num_seeds': 1,
    'environment': classic.Pendulum(),
    'training_steps': 8,
  }


def test_a_fork_may_have_another_policy_delay(tmp_path):
  train(tmp_path / 'one', 1, **continuous(1))
  count = arrays(tmp_path / 'one')[1]['agent.updates']
  for delay in (2, 1):
    start = {'start_from': str(tmp_path / 'one')}
    train(tmp_path / str(delay), 2, **start, **continuous(delay))
    after = arrays(tmp_path / str(delay))[2]
    assert after['agent.updates'] == count + 8


def test_checkpoints_from_before_updates_were_counted_go_on(
  tmp_path, monkeypatch
):
  split = state_arrays.split

  def without(state):
    found, rings = split(state)
    del found['agent.updates']
    return found, rings

  with monkeypatch.context() as patch:
    patch.setattr(state_arrays, 'split', without)
    train(tmp_path / 'one', 1, **continuous(1))
  assert 'agent.updates' not in arrays(tmp_path / 'one')[1]
  start = str(tmp_path / 'one')
  train(tmp_path / 'fork', 2, start_from=start, **continuous(1))
  named = starts.StartFrom(run=start, names=['*'])
  train(tmp_path / 'named', 1, start_from=named, **continuous(1))
  assert arrays(tmp_path / 'named')[1]['agent.updates'] == 7
  train(tmp_path / 'one', 2, **continuous(1))
  one, fork = arrays(tmp_path / 'one')[2], arrays(tmp_path / 'fork')[2]
  assert one['agent.updates'] == 8
  for name, array in one.items():
    np.testing.assert_array_equal(fork[name], array, err_msg=name)
  trained.load(tmp_path / 'one', lambda text: None)


def test_other_agents_counts_are_not_made_up():
  template = {'agent': {'updates': np.zeros((), np.int32)}}
  with pytest.raises(errors.UserError, match=r'has no agent\.updates'):
    state_arrays.refuse_misfits({}, template, with_rings=True)


def test_a_fork_with_another_kind_of_replay_leaves_the_replay(tmp_path):
  agent = callbacks_test.make_agent()
  small = agent.replay
  kind = functools.partial(
    prioritized.PrioritizedReplay,
    capacity=small.capacity,
    batch_size=small.batch_size,
    min_history=small.min_history,
  )
  train(tmp_path / 'one', 1, agent=agent.replace(replay=kind))
  start = starts.StartFrom(run=str(tmp_path / 'one'))
  with pytest.raises(errors.UserError, match=r'or starts.*replay = False'):
    train(tmp_path / 'two', 2, agent=agent, start_from=start)
  train(
    tmp_path / 'three', 2, agent=agent, start_from=start.replace(replay=False)
  )


@pytest.mark.parametrize(
  ('names', 'message'),
  [
    ([], r'kernel was saved with shape \(2, 4, 3\) .* has \(2, 5, 3\)'),
    (['Dense_0.kernel'], r'is float32 \(2, 5, 3\) in this run, and .*\(2, 4'),
  ],
)
def test_another_network_is_refused_by_the_array(
  names, message, parent, tmp_path
):
  agent = callbacks_test.make_agent()
  agent = agent.replace(network=networks.MLP(hidden=(5,)))
  start = starts.StartFrom(run=str(parent / 'two'), names=names)
  with pytest.raises(errors.UserError, match=message):
    train(tmp_path, agent=agent, start_from=start)
