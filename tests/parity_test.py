"""What configs share with Dopamine, against its published gin files.

THEIRS is written down by hand from google/dopamine (4.1, `dopamine/jax/agents`
and `labs/environments/minatar`): the numbers of its gin files, and the agents'
and networks' defaults where a file sets none. A config must have the same, or
say on the line of the setting what Dopamine has.
"""

import ast
import re

import gymnasium
import jax
import numpy as np
import pytest

from dopamine_jax import config
from dopamine_jax import runner
from dopamine_jax import values

CLAIM = r"Dopamine's (protocol and )?numbers|numbers are Dopamine's"


def nature(outputs):
  """Returns how many parameters its Nature network has, padded 'SAME'."""
  convolutions = (8 * 8 * 4 + 1) * 32 + (4 * 4 * 32 + 1) * 64
  convolutions += (3 * 3 * 64 + 1) * 64
  return convolutions + (11 * 11 * 64 + 1) * 512 + 513 * outputs


def minatar(outputs):
  """Returns the same of its network for MinAtar, which has no hidden layer."""
  return (3 * 3 * 4 + 1) * 16 + (10 * 10 * 16 + 1) * outputs


# The largest weight of a kernel of 300 inputs and 100 outputs.
XAVIER = np.sqrt(6 / (300 + 100))
FAN_IN = np.sqrt(3 * 3**-0.5 / 300)

ATARI = {
  'gamma': 0.99,
  'n_step': 1,
  'update_period': 4,
  'target_update_period': 8_000,
  'epsilon': (1.0, 1.0, 0.505, 0.01),  # from 1, in 250k steps after 20k
  'evaluation_epsilon': 0.001,
  'capacity': 1_000_000,
  'batch_size': 32,
  'min_history': 20_000,
  'num_iterations': 200,
  'training_steps': 250_000,
  'evaluation_episodes': 0,  # their schedule is 'continuous_train'
  'sticky_actions': 0.25,
  'noop_max': 0,
  'terminate_on_life_loss': False,
  'full_action_set': False,
  'frame_skip': 4,
  'size': 84,
  'stack': 4,
  'max_steps_per_episode': 27_000,
  'reward_clip': 1.0,
}
PRIORITIZED = {'alpha': 1.0, 'beta': 0.5, 'stratified': False}
ATOMS = {'num_atoms': 51, 'v_min': -10.0, 'v_max': 10.0}
MINATAR = {
  'gamma': 0.99,
  'n_step': 1,
  'update_period': 4,
  'target_update_period': 1_000,
  'epsilon': (1.0, 0.505, 0.01),  # from 1, in 250k steps after 1k
  'evaluation_epsilon': 0.001,
  'capacity': 100_000,
  'batch_size': 32,
  'min_history': 1_000,
  'learning_rate': 2.5e-4,
  'eps': 3.125e-4,
  'stack': 1,
  'id': 'MinAtar/Breakout-v0',
}
CONTROL = {
  'gamma': 0.99,
  'n_step': 1,
  'update_period': 4,
  'target_update_period': 100,
  'epsilon': (0.01,),
  'capacity': 50_000,
  'batch_size': 128,
  'min_history': 500,
  'num_iterations': 500,
  'training_steps': 1_000,
  'eps': 3.125e-4,
}
HIDDEN = {'hidden': (512, 512)}
ACROBOT = {
  'id': 'Acrobot-v1',
  'low': (-1, -1, -1, -1, -5, -5),
  'high': (1, 1, 1, 1, 5, 5),
}
MOUNTAINCAR = {
  'id': 'MountainCar-v0',
  'low': (-1.2, -0.07),
  'high': (0.6, 0.07),
  'max_steps_per_episode': 600,
}
LUNARLANDER = {
  'id': 'LunarLander-v2',
  'num_iterations': 125,
  'training_steps': 4_000,
  'reward_clip': 1.0,
}
DQN = CONTROL | HIDDEN | {'learning_rate': 1e-3}
C51 = (
  CONTROL
  | HIDDEN
  | {
    'update_period': 1,
    'target_update_period': 1,
    'num_atoms': 201,
    'v_min': -100.0,
    'v_max': 100.0,
    'learning_rate': 1e-5,
    'eps': 3.90625e-6,
  }
)
RAINBOW = (
  CONTROL
  | HIDDEN
  | PRIORITIZED
  | {
    'n_step': 3,
    'num_atoms': 201,
    'v_min': -10.0,
    'v_max': 10.0,
    'learning_rate': 0.09,
  }
)
THEIRS = {
  'dqn_atari': ATARI
  | {
    'learning_rate': 6.25e-5,
    'eps': 1.5e-4,
    'huber_delta': None,
    'parameters': nature(6),
    'kernel_init': XAVIER,
  },
  'c51_atari': ATARI
  | ATOMS
  | {
    'learning_rate': 2.5e-4,
    'eps': 3.125e-4,
    'parameters': nature(6 * 51),
    'kernel_init': FAN_IN,
  },
  'rainbow_atari': ATARI
  | ATOMS
  | PRIORITIZED
  | {
    'n_step': 3,
    'learning_rate': 6.25e-5,
    'eps': 1.5e-4,
    'parameters': nature(6 * 51),
    'kernel_init': FAN_IN,
  },
  'quantile_atari': ATARI
  | PRIORITIZED
  | {
    'n_step': 3,
    'num_quantiles': 200,
    'kappa': 1.0,
    'learning_rate': 5e-5,
    'eps': 3.125e-4,
    'parameters': nature(6 * 200),
    'kernel_init': FAN_IN,
  },
  'iqn_atari': ATARI
  | {
    'n_step': 3,
    'num_tau_samples': 64,
    'num_tau_prime_samples': 64,
    'num_quantile_samples': 32,
    'num_cosines': 64,
    'kappa': 1.0,
    'double': False,
    'learning_rate': 5e-5,
    'eps': 3.125e-4,
    'parameters': nature(6) + 65 * 11 * 11 * 64,
    'kernel_init': FAN_IN,
  },
  'dqn_minatar': MINATAR
  | {
    'num_iterations': 10,
    'training_steps': 1_000_000,
    'max_steps_per_episode': 100_000_000,
    'reward_clip': 1.0,
    'parameters': minatar(3),
    'kernel_init': XAVIER,
  },
  'rainbow_minatar': MINATAR
  | PRIORITIZED
  | {
    'n_step': 3,
    'num_atoms': 51,
    'v_min': -100.0,
    'v_max': 100.0,
    'parameters': minatar(3 * 51),
    'kernel_init': XAVIER,
  },
  'quantile_minatar': MINATAR
  | PRIORITIZED
  | {
    'n_step': 3,
    'epsilon': (1.0, 0.87625, 0.7525),  # in 1M steps, its agent's default
    'num_quantiles': 200,
    'kappa': 1.0,
    'parameters': minatar(3 * 200),
    'kernel_init': FAN_IN,
  },
  'dqn_acrobot': DQN | ACROBOT,
  'dqn_mountaincar': DQN | MOUNTAINCAR,
  'dqn_lunarlander': DQN | LUNARLANDER,
  'dqn_fourier_cartpole': CONTROL
  | {
    'id': 'CartPole-v0',
    'order': 3,
    'low': (-2.4, -5, -np.pi / 12, -2 * np.pi),
    'high': (2.4, 5, np.pi / 12, 2 * np.pi),
    'learning_rate': 1e-3,
  },
  'c51_acrobot': DQN | ACROBOT | ATOMS | {'learning_rate': 0.1},
  'c51_mountaincar': C51 | MOUNTAINCAR,
  'c51_lunarlander': C51 | LUNARLANDER,
  'rainbow_acrobot': RAINBOW | ACROBOT,
  'rainbow_mountaincar': RAINBOW | MOUNTAINCAR,
  'rainbow_lunarlander': RAINBOW | LUNARLANDER,
  'sac_mujoco': {
    'id': 'HalfCheetah-v2',
    'gamma': 0.99,
    'n_step': 1,
    'update_period': 1,
    'tau': 0.005,
    'temperature': 1.0,
    'log_temperature_loss': True,
    'target_entropy': -0.5,
    'reward_scale': 0.1,
    'capacity': 1_000_000,
    'batch_size': 256,
    'min_history': 10_000,
    'num_iterations': 3_200,
    'training_steps': 1_000,
    'evaluation_episodes': 10,  # 10k agent steps
    'evaluation_period': 1,
    'reward_clip': None,
    'learning_rate': 3e-4,
    'eps': 1e-8,
    'parameters': (18 + 257) * 256 + 257 * 12 + 2 * ((24 + 257) * 256 + 257),
    'kernel_init': XAVIER,
  },
}
# What is said elsewhere than on the line of the setting.
SAID = {
  'epsilon': r'Dopamine: 0\.01 from the start|_steps = .*Dopamine: 1_000_000',
  'reward_clip': r'Dopamine\b.*\bclip',
  'training_steps': 'Dopamine: 10 of 1M agent steps',
  'max_steps_per_episode': "Dopamine's (is 100M agent steps|after 600)",
  'kernel_init': 'Dopamine: kernel_init',
  'v_min': 'Dopamine has -100 and 100',
  'v_max': 'Dopamine has -100 and 100',
  'evaluation_period': r'an evaluation each tenth iteration \(each\)',
}
SPACES = {
  'atari': ((84, 84, 4), np.uint8, 6),
  'minatar': ((10, 10, 4), np.uint8, 3),
  'cartpole': ((4,), np.float32, 2),
  'acrobot': ((6,), np.float32, 3),
  'mountaincar': ((2,), np.float32, 3),
  'lunarlander': ((8,), np.float32, 4),
  'mujoco': ((17,), np.float32, 6),
}


def built(path):
  """Returns a config's runner, environment, agent, replay and networks."""
  run = config.load([path]).build(runner.Runner)
  shape, dtype, actions = SPACES[path.stem.split('_')[-1]]
  actions = gymnasium.spaces.Discrete(actions)
  if 'mujoco' in path.stem:
    actions = gymnasium.spaces.Box(-1, 1, (int(actions.n),))
  agent = run.make_part(
    'agent',
    observation_space=gymnasium.spaces.Box(0, 1, shape, dtype),
    action_space=actions,
  )
  modules = getattr(agent, 'modules', None) or [agent.module]
  replay = agent.make_replay(run.environment.stack)
  return run, run.environment, agent, replay, *modules


def ours(parts, setting):
  """Returns what a config has of a setting."""
  agent, modules = parts[2], parts[4:]
  if setting in ('learning_rate', 'eps'):
    optimizer = getattr(agent, 'actor_optimizer', None) or agent.optimizer
    return values.origin(optimizer).keywords[setting]
  if setting == 'kernel_init':
    found = {
      round(float(abs(x.kernel_init(jax.random.key(0), (300, 100))).max()), 3)
      for module in modules
      for x in (module, getattr(module, 'torso', None) or module)
    }
    (largest,) = found
    return largest
  if setting == 'parameters':
    space = agent.observation_space
    observation = np.zeros((1, *space.shape), space.dtype)
    state = jax.eval_shape(agent.init, jax.random.key(0), observation)
    networks = {k: v for k, v in state.params.items() if k != 'log_temperature'}
    return sum(x.size for x in jax.tree.leaves(networks))
  return next(getattr(x, setting) for x in parts if hasattr(x, setting))


def same(found, theirs, setting):
  """Whether a config has the same of a setting, up to rounding."""
  if setting == 'epsilon':
    steps = {4: (0, 20_000, 145_000, 270_000), 1: (0,)}
    steps = steps.get(len(theirs), (1_000, 126_000, 251_000))
    if not callable(found):
      return all(found == each for each in theirs)
    found = [float(found(step)) for step in steps]
    return np.allclose(found, theirs)
  if setting == 'kernel_init':
    return abs(found / theirs - 1) < 0.01
  if isinstance(theirs, (tuple, float)) and found is not None:
    return np.shape(found) == np.shape(theirs) and np.allclose(
      found, theirs, rtol=1e-4, atol=0
    )
  return found == theirs


def said(text, setting, theirs):
  """Whether a config says what Dopamine has instead."""
  line = re.search(rf"^.*\b{setting} = .*# .*Dopamine('s)?\b.*$", text, re.M)
  if line:
    value = re.search(r'Dopamine: (\(.*?\)|-?[\d._e-]*\d)(?!\w)', line[0])
    return not value or ast.literal_eval(value[1]) == theirs
  text = re.sub(r'\n\s*#', '', text)  # sentences in one piece
  return setting in SAID and bool(re.search(SAID[setting], text))


@pytest.mark.parametrize('path', config.shipped(), ids=lambda path: path.stem)
def test_a_config_has_dopamines_number_or_says_it(path):
  text = path.read_text()
  header = ' '.join(
    line.lstrip('# ') for line in text.splitlines() if line.startswith('#')
  )
  theirs = THEIRS.get(path.stem)
  if theirs is None:
    assert not re.search(CLAIM, header), 'add it to THEIRS'
    return
  parts = built(path)
  unsaid = {}
  for setting, value in theirs.items():
    found = ours(parts, setting)
    if not same(found, value, setting):
      if not said(text, setting, value):
        unsaid[setting] = (value, found)
    else:
      stated = re.search(rf'^.*\b{setting} = .*# .*Dopamine: .*$', text, re.M)
      assert not stated, f'{stated[0]!r}: it has the same'
  assert not unsaid, 'theirs and ours'
