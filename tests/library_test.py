"""The framework from Python: settings are values, and a run is a few lines."""

import functools
import json
import pathlib
import subprocess
import sys

import gymnasium
import jax
import numpy as np
import optax
import pytest

import dopamine_jax as dj
from dopamine_jax import config
from dopamine_jax import errors
from dopamine_jax import library
from dopamine_jax import networks
from dopamine_jax.agents import dqn
from dopamine_jax.agents import ppo
from dopamine_jax.agents import sac
from dopamine_jax.environments import catch
from dopamine_jax.environments import classic
from dopamine_jax.environments import gym
from dopamine_jax.learning import actor_critic
from dopamine_jax.playing import trained
from dopamine_jax.replay import uniform
from dopamine_jax.training import fingerprint
from tests import programs

BINDINGS = [
  'from dopamine_jax.replay import uniform',
  'runner.Runner.num_iterations = 2',
  'runner.Runner.training_steps = 60',
  'runner.Runner.checkpoint_period = 1',
  'runner.Runner.evaluation_episodes = 0',
  'networks.MLP.hidden = ()',
  'uniform.UniformReplay.min_history = 20',
  'uniform.UniformReplay.batch_size = 8',
]
OTHER = [
  *BINDINGS,
  'dqn.DQN.gamma = 0.5',
  'dqn.DQN.n_step = 1',
  'networks.MLP.low = (-9.0, -9.0, -9.0, -9.0)',
]
AGENT = dqn.DQN(
  network=networks.MLP(hidden=()),
  replay=uniform.UniformReplay(capacity=300, batch_size=8, min_history=20),
  optimizer=dj.call(optax.adam, 1e-3),
  target_update_period=20,
)


# It is not filled, so that no learning is compiled.
ASLEEP = uniform.UniformReplay(capacity=300, batch_size=4, min_history=200)


def quiet(message):
  pass


def runner(bindings=BINDINGS):
  return config.load(['dqn_cartpole'], bindings).build(dj.Runner)


def train(folder, agent=AGENT, environment=None, agent_steps=120, **options):
  environment = environment or catch.Catch()
  options = {'num_iterations': 2, 'quiet': True, 'say': quiet, **options}
  return dj.train(
    agent, environment, folder, agent_steps=agent_steps, **options
  )


# Two configurations in one process.

# Runs each command in a process of its own. What all of them import is imported
# once: that leaves nothing of a configuration, and starts no thread.
FORKS = """
import json
import os
import sys

from dopamine_jax import runner
from dopamine_jax.commands import cli
from dopamine_jax.engines import threefry

threefry.write_out = lambda: None  # as here: the bits are the same
for words in json.loads(sys.argv[1]):
  child = os.fork()
  if not child:
    sys.argv = words
    os._exit(cli.main())
  assert os.waitpid(child, 0)[1] == 0
"""


@pytest.fixture(scope='module')
def solo(tmp_path_factory):
  """Returns the digests of two runs, each trained by a process of its own."""
  folders = [tmp_path_factory.mktemp('solo') / name for name in ('one', 'two')]
  commands = []
  for folder, bindings in zip(folders, (BINDINGS, OTHER), strict=True):
    command = ['dopamine-jax', 'train', 'dqn_cartpole', '--quiet']
    command += [word for line in bindings for word in ('-b', line)]
    commands.append([*command, '--base_dir', str(folder)])
  subprocess.run(
    [sys.executable, '-c', FORKS, json.dumps(commands)], check=True
  )
  found = [fingerprint.fingerprint(folder) for folder in folders]
  assert found[0] != found[1]
  return found


@pytest.fixture(scope='module')
def turns(tmp_path_factory):
  """Returns the folders of the same two runs, which took turns here."""
  built = [runner(BINDINGS), runner(OTHER)]
  config.load(['ppo_cartpole'])  # Nobody asks for what was loaded last.
  parent = tmp_path_factory.mktemp('turns')
  folders = [parent / name for name in ('one', 'two')]
  with pytest.MonkeyPatch.context() as patch:
    programs.share(patch)  # each with itself, when it goes on
    for iterations in (1, 2):
      for each, folder in zip(built, folders, strict=True):
        each.replace(num_iterations=iterations).train(
          folder, quiet=True, say=quiet
        )
  return folders


def test_configurations_that_take_turns_train_as_if_each_were_alone(
  turns, solo
):
  assert [fingerprint.fingerprint(folder) for folder in turns] == solo


def test_a_runner_is_not_changed_by_what_is_loaded_later(turns):
  one, two = ((folder / 'config.gin').read_text() for folder in turns)
  assert 'dqn.DQN.gamma = 0.98' in one
  assert '-9.0' not in one and '-9.0' in two


def test_agents_that_are_loaded_at_once_play_as_alone(turns):
  one, two = turns
  alone = trained.play(trained.load(one), 3, 0).returns
  first = trained.load(one)
  trained.load(two)
  np.testing.assert_array_equal(trained.play(first, 3, 0).returns, alone)
  observation = np.array([0.02, 0.3, -0.01, 0.2], np.float32)
  players = [dj.load(folder) for folder in (one, two, one)]
  values = [each.values(observation) for each in players]
  np.testing.assert_array_equal(values[0], values[2])
  assert (values[0] != values[1]).all()


# What Python made is recorded.


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A run of two seeds, which tests look at and leave as it is."""
  with pytest.MonkeyPatch.context() as patch:
    programs.share(patch)
    return train(tmp_path_factory.mktemp('run'), num_seeds=2)


@pytest.mark.usefixtures('same_programs')  # of equal texts alone
def test_a_config_written_from_python_trains_to_the_same(tmp_path, run):
  again = dj.train(run.folder / 'config.gin', tmp_path, num_seeds=2, quiet=True)
  assert again.seeds == (0, 1)
  found = [fingerprint.fingerprint(x) for x in (run.folder, tmp_path)]
  assert found[0] == found[1]


@pytest.mark.usefixtures('same_programs')
def test_another_setting_from_python_is_refused_on_going_on(run):
  again = functools.partial(train, run.folder, num_seeds=2)
  with pytest.raises(errors.UserError, match=r'(?s)-dqn.DQN.gamma = 0.99.*0.5'):
    again(AGENT.replace(gamma=0.5))
  with pytest.raises(errors.UserError, match=r'catch\.Catch\.rows'):
    again(environment=catch.Catch(rows=6))
  # And the same ones go on.
  assert again(agent_steps=120).folder == run.folder


def test_a_run_that_is_to_be_longer_keeps_the_length_of_its_iterations(
  tmp_path,
):
  def lengths(steps):
    return library._iterations(steps, {}, 1, tmp_path)

  assert lengths(40) == {'num_iterations': 10, 'training_steps': 4}
  (tmp_path / 'config.gin').write_text('runner.Runner.training_steps = 4\n')
  assert lengths(60) == {'num_iterations': 15, 'training_steps': 4}
  # Which is then refused, with both lengths.
  assert lengths(50) == {'num_iterations': 10, 'training_steps': 5}


def test_what_replace_changed_is_recorded(tmp_path):
  changed = runner().replace(check_finite=False)
  changed.train(tmp_path, quiet=True)
  text = (tmp_path / 'config.gin').read_text()
  assert 'runner.Runner.check_finite = False' in text
  with pytest.raises(errors.UserError, match='check_finite'):
    runner().train(tmp_path, quiet=True)


def test_makers_and_instances_train_alike(tmp_path, run):
  maker = functools.partial(
    dqn.DQN,
    network=functools.partial(networks.MLP, hidden=()),
    replay=functools.partial(
      uniform.UniformReplay, capacity=300, batch_size=8, min_history=20
    ),
    optimizer=dj.call(optax.adam, 1e-3),
    target_update_period=20,
  )
  train(tmp_path, maker, num_seeds=2)
  found = [fingerprint.fingerprint(x) for x in (run.folder, tmp_path)]
  assert found[0] == found[1]


@pytest.mark.usefixtures('same_programs')
def test_a_training_is_one_line(tmp_path):
  run = dj.train('dqn_cartpole', tmp_path / 'a', bindings=BINDINGS, quiet=True)
  assert run.statistics['Train/Updates'].shape == (1,)
  assert run.load().act(np.zeros(4, np.float32)) in (0, 1)
  assert dj.train(runner(), tmp_path / 'b', quiet=True).seeds == (0,)


def test_an_agent_without_a_network_chooses_one_that_fits(tmp_path):
  agent = dqn.DQN(n_step=1, replay=ASLEEP)
  run = train(tmp_path, agent, gym.Gym(id='CartPole-v1'), agent_steps=40)
  assert set(run.load().state.params) == {'MLPTorso_0', 'Dense_0'}


def test_a_finished_run_has_what_it_reached_and_no_return_if_none(tmp_path):
  agent = dqn.DQN(n_step=1, replay=ASLEEP)
  cartpole = gym.Gym(id='CartPole-v1')
  first, again = (
    train(tmp_path, agent, cartpole, agent_steps=6, evaluation_episodes=2)
    for _ in range(2)
  )
  np.testing.assert_equal(again.statistics, first.statistics)
  assert np.isnan(again.statistics['Train/AverageReturns'])
  assert again.statistics['Eval/AverageReturns'] > 0


# Acting.


def test_one_observation_and_a_batch_have_the_same_answers(run):
  player = run.load(seed=1)
  space = catch.Catch().observation_space
  rng = np.random.default_rng(0)
  batch = rng.integers(0, 2, (5, *space.shape)).astype(space.dtype)
  actions = player.act(batch)
  assert actions.shape == (5,)
  assert isinstance(actions, np.ndarray)
  values = player.values(batch)
  np.testing.assert_array_equal(actions, values.argmax(axis=1))
  for one, value, action in zip(batch, values, actions, strict=True):
    assert player.act(one) == action
    np.testing.assert_allclose(player.values(one), value, rtol=1e-5)
    assert player.outlook(one).value == pytest.approx(value.max(), rel=1e-4)
  # The other seed is another agent.
  assert (dj.load(run.folder).values(batch) != values).any()
  with pytest.raises(errors.UserError, match=r'no seed 7; .* 0, 1'):
    dj.load(run.folder, seed=7)


def test_actions_are_the_environments_own(tmp_path):
  agent = sac.SAC(
    actor=actor_critic.Actor(hidden=(4,)),
    critics=actor_critic.Critics(hidden=(4,)),
    replay=ASLEEP,
  )
  environment = gymnasium.make('Pendulum-v1')
  observation, _ = environment.reset(seed=0)
  for name, trained_on in (
    ('gym', gym.Gym(id='Pendulum-v1')),
    ('native', classic.Pendulum()),
  ):
    player = train(tmp_path / name, agent, trained_on, 4).load()
    inside = player.outlook(observation).mean
    action = player.act(observation)
    assert environment.action_space.contains(action)
    np.testing.assert_allclose(action, 2 * inside, rtol=1e-5)
  with pytest.raises(errors.UserError, match='SAC has no values of actions'):
    player.values(observation)
  assert np.abs(player.act(np.ones((9, 3), np.float32))).max() <= 2


def test_frames_are_stacked_as_in_training(tmp_path):
  agent = AGENT.replace(replay=ASLEEP)
  player = train(tmp_path, agent, catch.Catch(stack=3), 4).load()
  shape = catch.Catch().observation_space.shape
  frames = [
    np.full(shape, i, catch.Catch().observation_space.dtype) for i in (1, 2, 3)
  ]
  seen = []
  player._act = lambda state, memory, observation, count: (
    seen.append(observation) or np.zeros(len(observation), np.int32),
    memory,
  )
  for frame in frames:
    player.act(frame)
  player.act(frames[0], first=True)
  player.reset()
  player.act(np.stack(frames))
  player.act(np.stack(frames), first=[False, True, False])
  newest = [each[..., -1].max() for each in seen[:4]]
  oldest = [each[..., 0].max() for each in seen[:4]]
  assert newest == [1, 2, 3, 1]
  assert oldest == [0, 0, 1, 0]
  np.testing.assert_array_equal(seen[5][:, 0, 0, 1], [1, 0, 3])
  with pytest.raises(errors.UserError, match=r'2 observations.* 3 .*reset\(\)'):
    player.act(np.stack(frames[:2]))


def test_an_observation_of_another_shape_is_refused(run):
  player = run.load()
  with pytest.raises(errors.UserError, match=r'shape \(4,\); expected \(10, 5'):
    player.act(np.zeros(4))
  shape = catch.Catch().observation_space.shape
  for value in (0.7, 256, -1):  # which a cast would make another number
    with pytest.raises(errors.UserError, match='which does not hold these'):
      player.act(np.full(shape, value))
  assert player.act(np.ones(shape)) in (0, 1, 2)
  with pytest.raises(errors.UserError, match="first = 'yes'; expected True"):
    player.act(np.ones(shape), first='yes')
  with pytest.raises(errors.UserError, match=r'export\(None\): expected a fol'):
    player.export(None)


def test_what_float32_can_not_hold_is_no_observation(tmp_path):
  run = train(tmp_path, AGENT, gym.Gym(id='CartPole-v1'), agent_steps=40)
  with pytest.raises(errors.UserError, match=r'not finite .* as float32'):
    run.load().act(np.full(4, 1e300))


def test_settings_and_calls_without_names_are_told():
  with pytest.raises(errors.UserError, match=r'as in DQN\(update_period=...\)'):
    dqn.DQN(0.9)
  with pytest.raises(errors.UserError, match=r'call\(3, ...\): expected a cl'):
    dj.call(3)


def test_what_is_exported_acts_the_same_without_the_framework(
  tmp_path, run, monkeypatch
):
  pytest.importorskip('safetensors')
  pytest.importorskip('flatbuffers')
  from safetensors import numpy as safetensors

  player = run.load()
  folder = player.export(tmp_path / 'out')
  space = player.agent.observation_space
  batch = np.random.default_rng(0).integers(0, 2, (7, *space.shape))
  batch = batch.astype(space.dtype)
  exported = jax.export.deserialize(
    bytearray((folder / 'policy.jax').read_bytes())
  )
  np.testing.assert_array_equal(exported.call(batch), player.act(batch))
  arrays = safetensors.load_file(folder / 'parameters.safetensors')
  kernel = player.state.params['Dense_0']['kernel']
  np.testing.assert_array_equal(arrays['Dense_0/kernel'], kernel)
  card = (folder / 'card.json').read_text()
  for word in ('dqn.DQN', 'Discrete(3)', '"agent_steps": 120', 'Dense_0/bias'):
    assert word in card
  assert set(json.loads(card)['policy']['parameters']) == set(arrays)
  with pytest.raises(errors.UserError, match=r'policy\.jax is there already'):
    player.export(folder)
  # Half an agent is none.
  full, write = tmp_path / 'full', pathlib.Path.write_bytes

  def fails(self, content):
    if self.name == 'policy.jax':
      raise OSError(28, 'No space left on device')
    return write(self, content)

  monkeypatch.setattr(pathlib.Path, 'write_bytes', fails)
  with pytest.raises(errors.UserError, match='full can not be written: No spa'):
    player.export(full)
  assert not list(full.iterdir())


class Slow(dqn.DQN):
  """Acts by its target network, as BBF does."""

  def act(self, state, observation, step, key, *, explore):
    state = state.replace(params=state.target_params)
    return super().act(state, observation, step, key, explore=explore)


def test_what_the_policy_reads_beside_parameters_is_exported(tmp_path):
  pytest.importorskip('safetensors')
  pytest.importorskip('flatbuffers')
  from safetensors import numpy as safetensors

  agent = Slow(network=networks.MLP(hidden=()), replay=ASLEEP)
  run = dj.train(agent, catch.Catch(), tmp_path / 'run', agent_steps=8)
  folder = run.load().export(tmp_path / 'out')
  arrays = safetensors.load_file(folder / 'parameters.safetensors')
  card = json.loads((folder / 'card.json').read_text())
  read = ['target_params/Dense_0/bias', 'target_params/Dense_0/kernel']
  assert sorted(card['policy']['parameters']) == read
  assert set(arrays) == {*read, 'Dense_0/bias', 'Dense_0/kernel'}


def test_what_a_policy_does_not_read_is_not_said_to_be_read(tmp_path):
  pytest.importorskip('safetensors')
  pytest.importorskip('flatbuffers')
  network = networks.ActorCritic(torso=networks.MLPTorso(hidden=(2,)))
  agent = ppo.PPO(
    network=network,
    update_period=8,
    num_epochs=1,
    num_minibatches=1,
    normalize_observations=True,
  )
  run = dj.train(agent, catch.Catch(), tmp_path / 'run', agent_steps=8)
  folder = run.load().export(tmp_path / 'out')
  card = json.loads((folder / 'card.json').read_text())
  policy, value = (
    {
      f'network/{layer}/{kind}'
      for layer in (f'MLPTorso_{i}/Dense_0', f'Dense_{i}')
      for kind in ('bias', 'kernel')
    }
    for i in (0, 1)
  )
  statistics = {'observations/mean', 'observations/variance'}
  assert set(card['policy']['parameters']) == policy | statistics
  every = policy | value | statistics | {'log_std'}
  assert set(card['parameters']) == every


# Mistakes.


@pytest.mark.parametrize(
  ('what', 'where', 'options', 'words'),
  [
    (['dqn_cartpol'], ['a'], {}, 'Did you mean dqn_cartpole'),
    ('dqn_cartpole', ['a'], {'base_dir': 'b'}, 'no base_dir by name'),
    ('dqn_cartpole', ['a'], {'bindings': [3]}, 'expected lines of gin'),
    (
      'dqn_cartpole',
      ['a'],
      {'bindings': {'dqn.DQN.gamma': 0.9}},
      'expected lines of gin, such as',
    ),
    ('dqn_cartpole', ['a'], {'title': 3}, 'title = 3; expected a line'),
    ('dqn_cartpole', ['a'], {'resume': 'no'}, "resume = 'no'; expected True"),
    ('dqn_cartpole', ['a'], {'num_seeds': 10**6}, 'expected 65,536 at most'),
    (
      AGENT,
      [catch.Catch(), 'a'],
      {'agent_steps': 100, 'num_envs': 0},
      'num_envs = 0 is too small',
    ),
    (
      AGENT,
      [catch.Catch(), 'a'],
      {'agent_steps': 100, 'num_envs': np.int64(4)},
      'num_envs = np.int64.4. is of type int64; expected int. Write 4',
    ),
    ('dqn_cartpole', ['a'], {'seeds': 3}, 'no seeds here. Did you mean seed'),
    ('dqn_cartpole', ['a'], {'bindings': ['dqn.DQN.gama = 1']}, 'mean gamma'),
    ('dqn_cartpole', [], {}, 'a folder behind what to train, and 0'),
    (3, ['a'], {}, r'train\(3, ...\): expected the name'),
    (AGENT, ['a'], {'agent_steps': 10}, 'an environment and a folder'),
    (AGENT, [catch.Catch(), 'a'], {}, 'needs agent_steps'),
    (AGENT, [catch.Catch(), 'a'], {'agent_steps': 0.5}, 'agent_steps = 0.5'),
    (
      AGENT,
      [catch.Catch(), 'a'],
      {'agent_steps': 101, 'num_envs': 2},
      'agent_steps = 101 is not a multiple of num_envs = 2',
    ),
    (
      AGENT,
      [catch.Catch(), 'a'],
      {'agent_steps': 100, 'num_iterations': 3},
      'parted by num_iterations = 3 into',
    ),
    (
      AGENT,
      [catch.Catch(), 'a'],
      {'agent_steps': 100, 'num_iterations': 5, 'training_steps': 10},
      'num_iterations = 5 and training_steps = 10',
    ),
    (
      AGENT,
      [catch.Catch(), 'a'],
      {'agent_steps': 100, 'num_iterations': 0},
      'num_iterations = 0 is too small',
    ),
    (
      'dqn_cartpole',
      ['a'],
      {'num_envs': 4},
      r'runner.Runner.num_envs = \.\.\.',
    ),
    (runner(), ['a'], {'agent_steps': 10}, 'agent_steps with an agent'),
    (
      AGENT,
      [catch.Catch(), 'a'],
      {'agent_steps': 100, 'num_env': 2},
      'no num_env here. Did you mean num_envs',
    ),
    (AGENT, ['CartPole-v1', 'a'], {'agent_steps': 100}, r"gym.Gym\(id='Cart"),
    (
      ppo.PPO(update_period=64, num_minibatches=2),
      [catch.Catch(), 'a'],
      {'agent_steps': 99, 'num_envs': 3},
      'not a multiple of num_envs',
    ),
  ],
)
def test_a_mistake_is_told_in_a_sentence(
  tmp_path, monkeypatch, what, where, options, words
):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(errors.UserError, match=words):
    dj.train(what, *where, **options)
  assert not list(tmp_path.glob('a/*'))


def test_a_folder_without_a_run_is_told(tmp_path):
  with pytest.raises(errors.UserError, match='holds no run'):
    dj.load(tmp_path)
  for name in 'ab':
    (tmp_path / name).mkdir()
    (tmp_path / name / 'run.json').touch()
  with pytest.raises(
    errors.UserError, match=f'one of the 2 in it: {tmp_path}/a'
  ):
    dj.load(tmp_path)


def test_the_package_alone_imports_no_jax_and_offers_what_it_says():
  code = """
import sys
import dopamine_jax as dj
assert 'jax' not in sys.modules
assert {'train', 'load', 'Runner', 'call'} <= set(dir(dj))
try:
  dj.nothing
except AttributeError as error:
  assert 'nothing' in str(error)
dj.Runner, dj.train, dj.load, dj.call
assert 'jax' in sys.modules
"""
  subprocess.run([sys.executable, '-c', code], check=True)
