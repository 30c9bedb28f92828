"""A sweep that takes a minute, and what decides whether two are equal."""

import pathlib
import subprocess
import sys

from dopamine_jax.sweeps import journal
from dopamine_jax.training import fingerprint

BINDINGS = (
  'runner.Runner.num_iterations = 3',
  'runner.Runner.training_steps = 100',
  'runner.Runner.checkpoint_period = 1',
  'runner.Runner.evaluation_episodes = 0',
  'networks.MLP.hidden = (8,)',
  'uniform.UniformReplay.capacity = 400',
  'uniform.UniformReplay.min_history = 20',
  'uniform.UniformReplay.batch_size = 4',
)
COMMAND = (sys.executable, '-m', 'dopamine_jax', 'sweep')


def words(folder, *more, config='dqn_cartpole'):
  """Returns the words of the command that begins the sweep."""
  return [
    *(*COMMAND, config, '--base_dir', str(folder)),
    *('--vary', 'dqn.DQN.gamma = [0.5, 0.8, 0.9, 0.99]', '--num_seeds', '2'),
    *('--scheduler', 'asha', '--rung_steps', '100', '--pack', '2'),
    *(word for binding in BINDINGS for word in ('-b', binding)),
    *more,
  ]


def sweep(folder, *more, **kwargs):
  """Sweeps to the end; returns the command's exit status."""
  return subprocess.run(words(folder, *more), **kwargs).returncode


def outcome(folder: pathlib.Path):
  """Returns what is the same of equal sweeps: decisions, and all runs."""
  runs = sorted(each.parent for each in folder.glob('*/config.gin'))
  return (
    journal.canonical(journal.Journal(folder).read()),
    {each.name: fingerprint.fingerprint(each)['all'] for each in runs},
  )
