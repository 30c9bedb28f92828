"""Kills trainings by SIGKILL, and compares them with some that never were.

    python -m tests.kills --kills 100

Every agent trains on both engines, with one seed and with three, in processes
of their own, and so does each kind of training that has more to keep (`KINDS`).
They die at random moments of each phase, some several times, and go on by the
same command. In the end each must have the fingerprint of a run that was never
killed. Prints a line a kill; exits with 1 if one was lost.
"""

import argparse
import dataclasses
import itertools
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

from dopamine_jax.checkpoints import checkpoints
from dopamine_jax.training import fingerprint

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Agents by the shipped configuration that they train from, made small.
CONFIGS = {
  'dqn.DQN': 'dqn_cartpole',
  'double_dqn.DoubleDQN': 'dqn_cartpole',
  'c51.C51': 'c51_cartpole',
  'rainbow.Rainbow': 'rainbow_cartpole',
  'full_rainbow.FullRainbow': 'full_rainbow_cartpole',
  'quantile.QuantileDQN': 'quantile_cartpole',
  'iqn.IQN': 'iqn_cartpole',
  'munchausen.MunchausenDQN': 'munchausen_cartpole',
  'munchausen.MunchausenIQN': 'iqn_cartpole',
  'ppo.PPO': 'ppo_cartpole',
  'pqn.PQN': 'pqn_cartpole',
  'sac.SAC': 'sac_pendulum',
  'td3.TD3': 'td3_pendulum',
  'fast_td3.FastTD3': 'fast_td3_pendulum_compiled',
  'tqc.TQC': 'tqc_pendulum',
  'redq.REDQ': 'droq_pendulum',
  'crossq.CrossQ': 'crossq_pendulum',
  'bbf.BBF': 'bbf_cartpole',
  'mrq.MRQ': 'mrq_pendulum',
  'r2d2.R2D2': 'r2d2_cartpole',
  'ppo_rnn.PPORNN': 'ppo_rnn_cartpole',
  'pqn_rnn.PQNRNN': 'pqn_rnn_memory',
}
ITERATIONS = 6
# A replay that wraps, targets that move, rollouts that checkpoints cut.
SMALL = {
  'num_iterations': ITERATIONS,
  'training_steps': 40,
  'num_envs': 2,
  'evaluation_episodes': 2,
  'evaluation_period': 2,
  'checkpoint_period': 2,
  'hidden': '(8,)',
  'capacity': 110,
  'batch_size': 8,
  'min_history': 30,
  'target_update_period': 20,
  'num_epochs': 2,
  'num_minibatches': 2,
  'length': 3,
  'burn_in': 2,
  'units': 8,
}
ENGINES = ('python', 'compiled')
SEEDS = (1, 3)


class Kind(NamedTuple):
  """A training that has more to keep than its agent.

  Attributes:
    agent: of `CONFIGS`.
    gin: lines that are added; `{parent}` is the folder of a plain run.
    options: of the command.
    engines: on which it trains.
    begins: how many iterations are the parent's.
  """

  agent: str
  gin: str = ''
  options: tuple[str, ...] = ()
  engines: tuple[str, ...] = ENGINES
  begins: int = 0


_CALLBACKS = """
from dopamine_jax.callbacks import redo
from dopamine_jax.callbacks import resets
from dopamine_jax.callbacks import stopping
runner.Runner.callbacks = [
  @resets.ShrinkAndPerturb(), @redo.ReDo(), @stopping.KeepBest(),
  @stopping.EarlyStopping()]
resets.ShrinkAndPerturb.period = 2
redo.ReDo.period = 3
stopping.EarlyStopping.at_return = 9.0
stopping.EarlyStopping.num_values = 2
"""
_FORKED = f"""
runner.Runner.start_from = '{{parent}}'
runner.Runner.num_iterations = {2 * ITERATIONS}
"""
_OFFLINE = """
from dopamine_jax.datasets import files
from dopamine_jax.engines import offline
runner.Runner.engine = @offline.OfflineEngine
offline.OfflineEngine.dataset = @files.OwnReplay()
files.OwnReplay.run = '{parent}'
runner.Runner.num_envs = 1
uniform.UniformReplay.capacity = 300
"""
_NORMALIZED = """
networks.MLP.activation = @networks.batch_normalized_relu
"""
_TREES = """
gym.Gym.id = 'Blackjack-v1'
networks.MLP.low = None
networks.MLP.high = None
"""
_MASKS = """
gym.Gym.id = 'Taxi-v4'
gym.Gym.action_mask = True
networks.MLP.low = None
networks.MLP.high = None
"""
_STAGES = """
from dopamine_jax.callbacks import stages
runner.Runner.callbacks = [@stages.Stages()]
stages.Stages.setting = 'gamma'
stages.Stages.at_steps = (70, 150)
stages.Stages.values = (0.9, 0.5)
runner.Runner.record_replay = True
uniform.UniformReplay.capacity = 200
"""
_HINDSIGHT = """
from dopamine_jax.environments import bit_flip
from dopamine_jax.replay import hindsight
runner.Runner.environment = @bit_flip.BitFlip()
bit_flip.BitFlip.num_bits = 4
dqn.DQN.n_step = 1
dqn.DQN.replay = @hindsight.HindsightReplay
hindsight.HindsightReplay.capacity = 110
hindsight.HindsightReplay.batch_size = 8
hindsight.HindsightReplay.min_history = 30
hindsight.HindsightReplay.task = @hindsight.Reach()
hindsight.Reach.terminates = True
networks.MLP.low = None
networks.MLP.high = None
"""
KINDS = {
  'callbacks': Kind('dqn.DQN', _CALLBACKS),
  'lanes': Kind('dqn.DQN', '', ('--vary', 'dqn.DQN.gamma = [0.9, 0.99]')),
  'lanes with callbacks': Kind(
    'dqn.DQN', _CALLBACKS, ('--vary', 'dqn.DQN.gamma = [0.1, 0.99]')
  ),
  'lanes of rollouts': Kind(
    'ppo.PPO', '', ('--vary', 'ppo.PPO.clip = [0.1, 0.3]')
  ),
  'forked': Kind('dqn.DQN', _FORKED, begins=ITERATIONS),
  'offline': Kind('dqn.DQN', _OFFLINE, engines=('python',)),
  'batch statistics': Kind('dqn.DQN', _NORMALIZED),
  'trees': Kind('dqn.DQN', _TREES, engines=('python',)),
  'stages, recorded': Kind('dqn.DQN', _STAGES),
  'hindsight': Kind('dqn.DQN', _HINDSIGHT),
  'masks': Kind('dqn.DQN', _MASKS, engines=('python',)),
}
# Those of `killed.PHASES`, the start, and whatever the clock hits.
PHASES = ('start-up', 'training', 'saving', 'evaluation', 'metrics', 'clock')


@dataclasses.dataclass(frozen=True)
class Job:
  """A training to kill."""

  what: str  # an agent, or a kind
  engine: str
  seeds: int

  def __str__(self):
    return f'{self.what}, {self.engine}, seeds: {self.seeds}'

  @property
  def kind(self) -> Kind:
    """Returns what it has besides a plain training of its agent."""
    return KINDS.get(self.what, Kind(self.what))


@dataclasses.dataclass(frozen=True)
class Reference:
  """How a job ends that is never killed.

  Attributes:
    outcome: what has to be equal.
    counts: moments of each phase.
    seconds: how long its process lived.
  """

  outcome: dict
  counts: dict
  seconds: float


def config(agent: str, engine: str) -> str:
  """Returns a small training of an agent as gin."""
  text = (ROOT / 'configs' / f'{CONFIGS[agent]}.gin').read_text()
  for name, value in SMALL.items():
    text = re.sub(rf'\b{name} = .*', f'{name} = {value}', text)
  # Rollouts of 28 steps; the agents with a replay learn every step or two.
  text = re.sub(r'\bupdate_period = \d[\d_]{2,}.*', 'update_period = 28', text)
  text = re.sub(r'\bupdate_period = (16|32)\b.*', 'update_period = 4', text)
  text = re.sub(r'^ *(agent|environment|engine) = .*\n', '', text, flags=re.M)
  text = re.sub(r'^gym\.Gym(\.id = .*\n|:\n(  .*\n)+)', '', text, flags=re.M)
  text = re.sub(r'^memory_chain\.\S+ = .*\n', '', text, flags=re.M)
  # Bounds of two numbers: CartPole is seen whole here.
  text = re.sub(r'^  (low|high) = \([^,\n]+, [^,\n]+\)\n', '', text, flags=re.M)
  game = 'Pendulum' if 'pendulum' in CONFIGS[agent] else 'CartPole'
  module = agent.partition('.')[0]
  if module == 'munchausen':  # which takes single steps
    text = re.sub(r'\bn_step = .*', 'n_step = 1', text)
  if engine == 'python':
    world, modules = 'gym.Gym', 'from dopamine_jax.environments import gym\n'
    chosen = f"gym.Gym.id = '{game}-v1'\n"
  else:
    world = f'classic.{game}'
    modules = (
      'from dopamine_jax.engines import compiled\n'
      'from dopamine_jax.environments import classic\n'
    )
    chosen = 'runner.Runner.engine = @compiled.CompiledEngine\n'
  first = 'from __gin__ import dynamic_registration\n'
  imports = (
    f'{modules}from dopamine_jax.agents import {module}\n'
    'from dopamine_jax.metrics import csv_file\n'
  )
  return text.replace(first, first + imports) + (
    f'runner.Runner.agent = @{agent}\n'
    f'runner.Runner.environment = @{world}()\n'
    'runner.Runner.collectors = [@csv_file.CSV]\n'
    'runner.Runner.max_to_keep = 2\n'
    f'{world}.max_steps_per_episode = 15\n{chosen}'
  )


def runs_in(folder: pathlib.Path) -> list[pathlib.Path]:
  """Returns the runs that a command has in its folder, by name."""
  return sorted(file.parent for file in folder.rglob('run.json'))


def outcome(folder: pathlib.Path) -> dict:
  """Returns what equal folders have in common, of each run in them."""
  outcome = {}
  for run in runs_in(folder):
    kept = checkpoints.Checkpoints(run).iterations()
    all_of_it = fingerprint.fingerprint(run) | {'checkpoints': kept}
    name = run.relative_to(folder)
    outcome |= {f'{k} of {name}': v for k, v in all_of_it.items()}
  if not outcome:
    raise Lost('there is no run')
  return outcome


class Lost(Exception):
  """A process that ended in another way than it should."""


class Killer:
  """Starts processes, kills them, and keeps the count.

  Attributes:
    folder: where the runs lie.
    random: what chooses the moments.
    kills: of each run, by its folder's name.
    lost: runs that ended otherwise, with what went wrong.
  """

  def __init__(self, folder: pathlib.Path, seed: int):
    self.folder = folder
    self.random = random.Random(seed)
    self.kills = {}
    self.lost = {}
    self._references = {}
    self._environment = os.environ | {
      'XDG_CACHE_HOME': str(folder / 'cache'),
      'PYTHONPATH': str(ROOT),
      'JAX_DISABLE_MOST_OPTIMIZATIONS': '0',  # as for users
    }

  def train(self, job, run, phase='none', number=0, seconds=None) -> int:
    """Starts a process, or goes on with its run; returns its status.

    Args:
      job: what to train.
      run: the run's name.
      phase: in which the process dies.
      number: the moment of it in which it does; 0 for none.
      seconds: after which it is killed; None for never.
    """
    kind = job.kind
    plain = Job(kind.agent, job.engine, job.seeds)
    if '{parent}' in kind.gin:
      self.reference(plain)
    parent = self.folder / f'never killed, {plain}'
    gin = kind.gin.replace('{parent}', str(parent))
    file = self.folder / f'{job.what}_{job.engine}.gin'
    file.write_text(config(kind.agent, job.engine) + gin)
    command = [sys.executable, ROOT / 'tests' / 'killed.py', phase, str(number)]
    command += [self.folder / 'counts.json', 'train', '--gin_files', file]
    command += ['--base_dir', self.folder / run, '--quiet']
    command += ['--num_seeds', str(job.seeds), *kind.options]
    with open(self.folder / 'output', 'w+') as output:
      process = subprocess.Popen(
        command, stdout=output, stderr=output, env=self._environment
      )
      try:
        process.wait(seconds)
      except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
      output.seek(0)
      if process.returncode not in (0, -signal.SIGKILL):
        raise Lost(f'status {process.returncode}:\n{output.read()}')
    return process.returncode

  def reference(self, job: Job) -> Reference:
    """Returns how a job ends that is never killed."""
    if job not in self._references:
      name = f'never killed, {job}'
      began = time.monotonic()
      if self.train(job, name):
        raise Lost('killed by somebody else')
      seconds = time.monotonic() - began
      counts = json.loads((self.folder / 'counts.json').read_text())
      if missing := set(PHASES) - {'clock'} - set(counts):
        raise Lost(f'{job} has no moments of {missing}: see tests/killed.py')
      self._references[job] = Reference(
        outcome(self.folder / name), counts, seconds
      )
    return self._references[job]

  def run(self, job: Job, phases: list[str]):
    """Trains a job, killed once in each phase, to its end."""
    reference = self.reference(job)
    name = f'{len(self.kills):03d}, {job}'
    self.kills[name] = []
    try:
      for phase in phases:
        if not (moment := self._kill(job, name, phase, reference)):
          break  # It was done before that moment came.
        self.kills[name].append(moment)
        total = sum(map(len, self.kills.values()))
        print(f'kill {total}: {name}: {moment}', flush=True)
      if self.train(job, name):
        raise Lost('killed by somebody else')
      actual, wanted = outcome(self.folder / name), reference.outcome
      both = actual.keys() | wanted.keys()
      if wrong := sorted(k for k in both if actual.get(k) != wanted.get(k)):
        raise Lost(f'other {", ".join(wrong)}')
    except Exception as error:  # Whatever it is, this run is lost.
      self.lost[name] = f'{type(error).__name__}: {error}'
    end = self.lost.get(name, 'equal')
    print(f'  {name}: {end}', flush=True)

  def _kill(self, job, name, phase, reference):
    """Returns when the process was killed; nothing if it came to its end."""
    if phase == 'clock':
      seconds = self.random.uniform(0, reference.seconds)
      status = self.train(job, name, seconds=seconds)
      return f'after {seconds:.2f} s' if status else ''
    most = reference.counts[phase]
    if phase != 'start-up':  # So many are left, or fewer.
      done = [
        iteration
        for run in runs_in(self.folder / name)
        for iteration in checkpoints.Checkpoints(run).iterations()
      ]
      done = max(done, default=0) - job.kind.begins
      most = int(most * (1 - max(done, 0) / ITERATIONS))
    number = self.random.randint(1, max(most, 1))
    status = self.train(job, name, phase, number)
    return f'{phase}, moment {number} of {most}' if status else ''


def main(words: list[str] | None = None) -> int:
  """Returns 0 if every run that was killed ended like one that was not."""
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--kills', type=int, default=100)
  parser.add_argument('--seed', type=int, default=0)
  everything = [*CONFIGS, *KINDS]
  parser.add_argument(
    '--of', nargs='*', choices=everything, default=everything, metavar='WHAT'
  )
  args = parser.parse_args(words)
  jobs = [
    Job(what, engine, seeds)
    for what in args.of
    for engine, seeds in itertools.product(ENGINES, SEEDS)
    if engine in Job(what, engine, seeds).kind.engines
  ]
  with tempfile.TemporaryDirectory(prefix='kills_') as folder:
    killer = Killer(pathlib.Path(folder), args.seed)
    killer.random.shuffle(jobs)
    phases, count = itertools.cycle(PHASES), 0
    for job in itertools.cycle(jobs):
      if count >= args.kills:
        break
      several = min(killer.random.randint(1, 4), args.kills - count)
      killer.run(job, list(itertools.islice(phases, several)))
      count = sum(map(len, killer.kills.values()))
    equal = count - sum(len(killer.kills[name]) for name in killer.lost)
    print(f'{equal} of {count} equal, in {len(killer.kills)} runs')
    return 1 if killer.lost else 0


if __name__ == '__main__':
  sys.exit(main())
