"""Random settings and command lines: each works, or is refused in a sentence.

What is accepted has to train: a few steps, and all that was learnt finite. The
long form prints what it accepted, for a person to judge:
`pytest tests/fuzz_test.py -m slow -s`.
"""

import functools
import inspect
import random

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dopamine_jax import config
from dopamine_jax import errors
from dopamine_jax import networks
from dopamine_jax import runner as runner_lib
from dopamine_jax.agents import c51
from dopamine_jax.agents import double_dqn
from dopamine_jax.agents import dqn
from dopamine_jax.agents import full_rainbow
from dopamine_jax.agents import iqn
from dopamine_jax.agents import munchausen
from dopamine_jax.agents import ppo
from dopamine_jax.agents import pqn
from dopamine_jax.agents import quantile
from dopamine_jax.agents import rainbow
from dopamine_jax.agents import sac
from dopamine_jax.commands import cli
from dopamine_jax.commands import common
from dopamine_jax.commands import doctor
from dopamine_jax.engines import streams
from dopamine_jax.environments import catch
from dopamine_jax.environments import classic
from dopamine_jax.environments import gym
from dopamine_jax.learning import actor_critic
from dopamine_jax.learning import optimization
from dopamine_jax.replay import prioritized
from dopamine_jax.replay import uniform

IMPORTS = """
from __gin__ import dynamic_registration
import optax
from dopamine_jax.learning import actor_critic
from dopamine_jax.engines import compiled
from dopamine_jax import networks
from dopamine_jax.learning import optimization
from dopamine_jax import runner
from dopamine_jax.agents import c51
from dopamine_jax.agents import double_dqn
from dopamine_jax.agents import dqn
from dopamine_jax.agents import full_rainbow
from dopamine_jax.agents import iqn
from dopamine_jax.agents import munchausen
from dopamine_jax.agents import ppo
from dopamine_jax.agents import pqn
from dopamine_jax.agents import quantile
from dopamine_jax.agents import rainbow
from dopamine_jax.agents import sac
from dopamine_jax.environments import catch
from dopamine_jax.environments import classic
from dopamine_jax.environments import gym
from dopamine_jax.replay import prioritized
from dopamine_jax.replay import uniform
optax.adam.learning_rate = 1e-3
runner.Runner:
  num_iterations = 1
  training_steps = 24
"""
OFF_POLICY = """
{replay}:
  capacity = 100
  min_history = 8
  batch_size = 4
{agent}:
  replay = @{replay}
"""
VALUES = """
{agent}:
  optimizer = @optax.adam()
  epsilon = @optax.linear_schedule()
  target_update_period = 8
optax.linear_schedule:
  init_value = 1.0
  end_value = 0.1
  transition_steps = 100
"""
MLP = '{agent}.network = @networks.MLP\nnetworks.MLP.hidden = (8,)\n'
TORSO = """
{network}:
  torso = @networks.MLPTorso()
  hidden = (8,)
networks.MLPTorso.hidden = (8,)
{agent}.network = @{network}
"""
ON_POLICY = """
{agent}:
  optimizer = @optimization.clipped()
  update_period = 8
  num_epochs = 2
  num_minibatches = 2
optimization.clipped:
  optimizer = @optax.adam()
  max_norm = 1.0
"""
CARTPOLE = (
  "runner.Runner.environment = @gym.Gym()\ngym.Gym.id = 'CartPole-v1'\n",
  [('gym.Gym', gym.Gym)],
)
CATCH = (
  'runner.Runner.environment = @catch.Catch()\n'
  'runner.Runner.engine = @compiled.CompiledEngine\n',
  [('catch.Catch', catch.Catch)],
)
PENDULUM = (
  'runner.Runner.environment = @classic.Pendulum()\n',
  [('classic.Pendulum', classic.Pendulum)],
)
UNIFORM = ('uniform.UniformReplay', uniform.UniformReplay)
PRIORITIZED = ('prioritized.PrioritizedReplay', prioritized.PrioritizedReplay)
ADAM = ('optax.adam', optax.adam)
OFTEN = [ADAM, ('runner.Runner', runner_lib.Runner)]
SCHEDULE = ('optax.linear_schedule', optax.linear_schedule)
MLPS = ('networks.MLP', networks.MLP)


def base(agent, environment, text, targets):
  """Returns a config's text, and what it has settings of, by name."""
  name = f'{agent.__module__.rpartition(".")[2]}.{agent.__name__}'
  text = f'{IMPORTS}runner.Runner.agent = @{name}\n{environment[0]}{text}'
  return text.replace('{agent}', name), [
    (name, agent),
    *environment[1],
    *targets,
    *OFTEN,
  ]


def of_values(agent, environment, replay, network=None):
  """Returns a base for an agent that learns values from a replay."""
  text = OFF_POLICY.replace('{replay}', replay[0]) + VALUES
  targets = [replay, SCHEDULE, network or MLPS]
  if network:
    text += TORSO.replace('{network}', network[0])
    targets.append(('networks.MLPTorso', networks.MLPTorso))
  return base(agent, environment, text if network else text + MLP, targets)


CLIPPED = ('optimization.clipped', optimization.clipped)
QUANTILES = ('iqn.ImplicitQuantileNetwork', iqn.ImplicitQuantileNetwork)
RAINBOWS = ('full_rainbow.RainbowNetwork', full_rainbow.RainbowNetwork)
BASES = [
  of_values(dqn.DQN, CARTPOLE, UNIFORM),
  of_values(dqn.DQN, CATCH, PRIORITIZED),
  of_values(double_dqn.DoubleDQN, CATCH, UNIFORM),
  of_values(c51.C51, CARTPOLE, UNIFORM),
  of_values(rainbow.Rainbow, CATCH, PRIORITIZED),
  of_values(quantile.QuantileDQN, CARTPOLE, PRIORITIZED),
  of_values(munchausen.MunchausenDQN, CARTPOLE, UNIFORM),
  of_values(iqn.IQN, CARTPOLE, UNIFORM, QUANTILES),
  of_values(munchausen.MunchausenIQN, CATCH, UNIFORM, QUANTILES),
  of_values(full_rainbow.FullRainbow, CATCH, PRIORITIZED, RAINBOWS),
  base(
    ppo.PPO,
    PENDULUM,
    ON_POLICY,
    [CLIPPED, ('networks.ActorCritic', networks.ActorCritic)],
  ),
  base(pqn.PQN, CARTPOLE, ON_POLICY + MLP, [CLIPPED, MLPS]),
  base(
    sac.SAC,
    PENDULUM,
    OFF_POLICY.replace('{replay}', UNIFORM[0])
    + '{agent}.actor_optimizer = @optax.adam()\n',
    [
      UNIFORM,
      ('actor_critic.Actor', actor_critic.Actor),
      ('actor_critic.Critics', actor_critic.Critics),
    ],
  ),
]

VALUES_POOL = [
  *('-1', '0', '1', '2', '3', '7', '0.5', '-0.5', '1.5', '0.0', '-3', '50.0'),
  *('1e400', '-1e400', '1e30', '-1e30', '1e-30', '1000000007', '9' * 40),
  *('None', 'True', 'False', "''", "'x'", "'SAME'", "'\u2603\\n'"),
  *('()', '(0,)', '(-1,)', '[4, 4]', "('a',)", '(1.5,)', '(True,)', '[None]'),
  *('{}', '{1: 2}', "{'a': 1}", '[[]]', '[()]', '(1, (2, 3))'),
  *('@optax.adam', '@optax.adam()', '@optax.linear_schedule()'),
  *('@networks.MLP', '@networks.normalized_relu', '@dqn.DQN'),
  *('@gym.Gym()', '@runner.Runner', '[@optax.adam]', '{"a": @optax.adam}'),
  *('@gin.macro', '@gin.macro()', '%missing', '%gin.REQUIRED', '@nowhere.No'),
  *('@runner', '@scope/optax.adam()', '@optax.chain()', '@optax.MultiSteps()'),
  *('(', ']', '', '# a comment', '1 # a comment', '@', '%', '1 2', "'open"),
  *('{', '=', '-', '1e', 'nan', 'inf', '\\', '"""', '\t1', '0x', '1_0'),
]
# Never to be accepted by anything: no numbers, and no values of a kind that a
# setting could have.
NEVER = {
  *('1e400', '-1e400', '9' * 40, '(', ']', '', '# a comment', '@', '%', '1 2'),
  *("'open", '{', '=', '-', '1e', 'nan', 'inf', '\\', '"""', '0x'),
  *('@gin.macro', '@gin.macro()', '%missing', '%gin.REQUIRED', '@nowhere.No'),
  *('@runner', '(0,)', '(-1,)', '(True,)', '[None]', '[[]]', '[()]'),
  *('{1: 2}', '[@optax.adam]', '@runner.Runner', '@gym.Gym()', '@dqn.DQN'),
}


def names_of(target):
  return [name for name in inspect.signature(target).parameters]


def binding(random):
  """Returns a base's text, and a binding to be put below it."""
  text, targets = random.choice(BASES)
  name, target = random.choice(targets)
  setting = random.choice(names_of(target))
  return text, f'{name}.{setting} = {random.choice(VALUES_POOL)}'


def learn(folder, text, line):
  """Takes some steps under a config and a binding; returns what was learnt."""
  path = folder / 'fuzz.gin'
  path.write_text(text)
  loaded = config.load([path], [line])
  runner = loaded.build(runner_lib.Runner)
  loaded.refuse_unread(lambda message: None)
  config.write(runner)
  environments = runner.environment.make(runner.num_envs)
  try:
    engine = runner.make_engine(environments, [0], check_finite=True)
    runner.make_collectors()
    seeds = streams.env_seeds([0], streams.Stream.TRAIN, 0, runner.num_envs)
    engine.reset(seeds)
    engine.layout.check(engine.loop.replay, engine.abstract_state())
    engine.init()
    steps = min(24, runner.training_steps) // runner.num_envs * runner.num_envs
    engine.run(max(steps, runner.num_envs), cut_with=None, on_step=lambda: None)
  finally:
    environments.close()
  return engine.state.agent


def accepted(folder, random, count):
  """Returns the bindings that were accepted, of `count` random ones."""
  found = []
  for _ in range(count):
    text, line = binding(random)
    try:
      state = learn(folder, text, line)
    except errors.UserError as error:
      message = str(error)
      assert len(message) < 1_000, (line, message)
      continue
    except Exception as error:
      raise AssertionError(f'{line!r} in\n{text}') from error
    for leaf in jax.tree.leaves(state):
      if jnp.issubdtype(leaf.dtype, jnp.floating):
        assert np.isfinite(leaf).all(), line
    found.append(line)
  return found


def judge(lines):
  for line in lines:
    value = line.partition(' = ')[2]
    assert value not in NEVER, line


def test_random_settings_train_or_are_refused_in_a_sentence(tmp_path):
  judge(accepted(tmp_path, random.Random(1), 25))


@pytest.mark.slow
def test_many_random_settings_train_or_are_refused_in_a_sentence(tmp_path):
  lines = accepted(tmp_path, random.Random(2), 300)
  print('\n'.join(['Accepted:', *sorted(lines)]))
  judge(lines)


# Command lines.

SMALL = (
  'runner.Runner.num_iterations = 1',
  'runner.Runner.training_steps = 8',
  'runner.Runner.evaluation_episodes = 0',
  'uniform.UniformReplay.min_history = 100',
  'uniform.UniformReplay.batch_size = 4',
)
COMMANDS = (
  *('train', 'train', 'train', 'doctor', 'doctor', 'evaluate', 'record'),
  *('compare', 'report', 'fingerprint', 'configs', 'trian', '', '--help'),
)
OPTIONS = (
  *(('--gin_files', file) for file in ('none.gin', '.', 'bytes.gin', '')),
  *(('--gin_files', file) for file in ('open.gin', '/dev/null', 'self.gin')),
  ('--gin_files',),
  *(('--gin_bindings', line) for line in ('', 'x', '=', 'gamma = 1', '\u2603')),
  ('--gin_bindings', 'dqn.DQN.gamma = 2'),
  ('--gin_bindings', 'import nowhere'),
  ('--gin_bindings', 'include "self.gin"'),
  *(('--base_dir', folder) for folder in ('', 'bytes.gin', 'bytes.gin/x')),
  ('--base_dir',),
  *(('--seed', seed) for seed in ('-1', 'x', '1e3', '', '9' * 30)),
  *(('--num_seeds', number) for number in ('0', '-3', 'many', '2.5')),
  *(('--episodes', number) for number in ('0', '-1', 'all')),
  *(('--last', '0'), ('--metric', ''), ('--metric', 'None/Such')),
  *(('--baseline', 'dopamine:Nobody'), ('--baseline', '')),
  *(('--output', ''), ('--output', 'bytes.gin/x.mp4'), ('--out', '/proc/x')),
  *(('--profile', '0'), ('--quiet',), ('--no-resume',), ('--resume=3',)),
  *(('--nothing',), ('-x',), ('--help',), ('--',), ('run',), ('bytes.gin',)),
  *(('damaged',), ('',), ('none/such',), ('a=damaged',), ('\u2603',)),
)


def words_of(random):
  """Returns the words of a random command line."""
  words = [random.choice(COMMANDS)]
  if words[0] in ('train', 'doctor') and random.random() < 0.6:
    words += ['--gin_files', 'dopamine_jax/configs/dqn_cartpole.gin']
    for line in SMALL:
      words += ['--gin_bindings', line]
    if words[0] == 'train':
      words += ['--base_dir', random.choice(['run', 'damaged', 'other'])]
  for _ in range(random.randint(0, 3)):
    words += random.choice(OPTIONS)
  return words


def run_commands(random, count, folder, monkeypatch, capsys):
  """Runs random commands; returns those that succeeded."""
  monkeypatch.chdir(folder)
  monkeypatch.setattr(common, 'prepare', lambda **_: None)
  quick = functools.partial(doctor.examine, seconds=0.01)
  monkeypatch.setattr(doctor, 'examine', quick)
  (folder / 'bytes.gin').write_bytes(b'\xff\xfe\x00')
  (folder / 'open.gin').write_text('dqn.DQN.gamma = (')
  (folder / 'self.gin').write_text('include "self.gin"')
  damaged = folder / 'damaged'
  damaged.mkdir()
  for name in ('run.json', 'config.gin', 'metrics.csv'):
    (damaged / name).write_bytes(b'\xff{"a": ')
  found = []
  for _ in range(count):
    words = words_of(random)
    monkeypatch.setattr('sys.argv', ['dopamine-jax', *words])
    try:
      status = cli.main()
    except SystemExit as leave:
      status = leave.code
    except BaseException as error:
      raise AssertionError(f'dopamine-jax {words}') from error
    said = capsys.readouterr().err
    assert status in (0, 1, 2), words
    assert 'Traceback' not in said, words
    assert status == 0 or said.strip(), words
    if status == 0:
      found.append(' '.join(words))
  return found


def test_random_command_lines_end_in_a_sentence(tmp_path, monkeypatch, capsys):
  run_commands(random.Random(3), 25, tmp_path, monkeypatch, capsys)


@pytest.mark.slow
def test_many_random_command_lines_do_too(tmp_path, monkeypatch, capsys):
  found = run_commands(random.Random(4), 100, tmp_path, monkeypatch, capsys)
  with capsys.disabled():
    print('\n'.join(['Succeeded:', *sorted(found)]))
