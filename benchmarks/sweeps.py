"""A sweep beside rl-zoo3's, both over DQN on CartPole, on the same cores.

    python -m benchmarks.sweeps --zoo ZOO/bin/python

ZOO is an environment of its own, with `pip install rl_zoo3 pandas`. The two
take turns: some of rl-zoo3's trials, our whole sweep, more of its trials. Ours
has 64 trials of 4 seeds each, theirs 1 seed a trial, as rl-zoo3 searches; both
stop trials early (ASHA, successive halving), over 25,000 agent steps at most,
with 20 greedy episodes at each decision. Prints agent steps a second, and when
the first trial was known whose seeds all reach 475. Of theirs that is one seed,
which flatters it: the other three would have to be trained yet.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

from dopamine_jax.sweeps import worker

STEPS, GOAL, EVALUATIONS = 25_000, 475, 5
_SPACE = (
  'rate/optax.linear_schedule.init_value = log_uniform(1e-5, 1e-1)',
  'dqn.DQN.gamma = uniform(0.9, 0.9999)',
  'dqn.DQN.target_update_period = [250, 500, 1_000, 2_000]',
  'optax.linear_schedule.end_value = uniform(0.01, 0.2)',
)
_BINDINGS = (
  'runner.Runner.evaluation_period = 5',
  'runner.Runner.evaluation_episodes = 20',
)


def ours(folder: pathlib.Path, options: list[str]) -> dict[str, float]:
  """Returns agent steps, seconds, and when the goal was reached."""
  words = [sys.executable, '-P', '-m', 'dopamine_jax', 'sweep', 'dqn_cartpole']
  words += [x for line in _SPACE for x in ('--vary', line)]
  words += [x for line in _BINDINGS for x in ('-b', line)]
  words += ['--trials', '64', '--num_seeds', '4', '--scheduler', 'asha']
  began, clock = time.time(), time.monotonic()
  subprocess.run(
    [*words, '--workers', '2', '--base_dir', str(folder), *options], check=True
  )
  seconds = time.monotonic() - clock
  sweep = worker.Sweep(folder)
  state, study = sweep.look(), sweep.study
  reached = {}
  for trial, rung in state.scores:
    reached[trial] = max(rung, reached.get(trial, 0))
  steps = study.num_seeds * sum(
    study.rungs[rung] * study.training_steps for rung in reached.values()
  )
  found = [
    event['time'] - began
    for event in sweep.journal.read()
    if event['event'] == 'result' and min(_numbers(event)) >= GOAL
  ]
  return {'steps': steps, 'seconds': seconds, 'goal': min(found, default=None)}


def zoo(python: str, folder: pathlib.Path, trials: int, seed: int):
  """Returns the same of so many trials of rl-zoo3."""
  import optuna

  storage = f'sqlite:///{folder}/{seed}.db'
  words = [python, '-m', 'rl_zoo3.train', '--algo', 'dqn']
  words += ['--env', 'CartPole-v1', '-n', str(STEPS), '-optimize']
  words += ['--n-trials', str(trials), '--n-jobs', '2', '--seed', str(seed)]
  words += ['--sampler', 'random', '--pruner', 'halving']
  words += ['--n-evaluations', str(EVALUATIONS), '--eval-episodes', '20']
  words += ['--storage', storage, '--study-name', 'dqn']
  words += ['-f', str(folder / 'logs')]
  clock = time.monotonic()
  began = time.time()
  env = {**os.environ, 'OMP_NUM_THREADS': '1'}
  with open(folder / f'{seed}.log', 'w') as log:
    subprocess.run(words, stdout=log, stderr=log, cwd=folder, env=env)
  seconds = time.monotonic() - clock
  study = optuna.load_study(study_name='dqn', storage=storage)
  steps, found = 0, []
  for trial in study.trials:
    evaluations = max(trial.intermediate_values, default=0)
    if trial.state == optuna.trial.TrialState.COMPLETE:
      evaluations = EVALUATIONS
    steps += STEPS * evaluations // EVALUATIONS
    best = max([*trial.intermediate_values.values(), trial.value or 0])
    if best >= GOAL and trial.datetime_complete:
      found.append(trial.datetime_complete.timestamp() - began)
  return {'steps': steps, 'seconds': seconds, 'goal': min(found, default=None)}


def _numbers(event):
  return [np.nan if x is None else x for x in event['scores']]


def _shown(name, found):
  rate = found['steps'] / found['seconds']
  goal = found['goal']
  when = f'after {goal:.0f} s' if goal else 'not reached'
  print(
    f'{name:<8} {found["steps"]:>9,} agent steps in {found["seconds"]:6.0f} s: '
    f'{rate:8,.0f} a second; {GOAL} {when}',
    flush=True,
  )
  return rate


def main():
  """Prints the figures, and the ratio of the rates."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--zoo', help="rl-zoo3's Python")
  parser.add_argument('--trials', type=int, default=8, help='of a turn')
  parser.add_argument('--turns', type=int, default=1, help='of ours')
  parser.add_argument('--out', help='a JSON file for the figures')
  given, options = parser.parse_known_args()
  found = {'ours': [], 'rl-zoo3': []}
  with tempfile.TemporaryDirectory() as root:
    folder = pathlib.Path(root)
    for turn in range(given.turns + 1):
      if given.zoo:
        found['rl-zoo3'].append(zoo(given.zoo, folder, given.trials, turn))
        _shown('rl-zoo3', found['rl-zoo3'][-1])
      if turn < given.turns:
        found['ours'].append(ours(folder / f'ours{turn}', options))
        _shown('ours', found['ours'][-1])
  rates = {
    name: statistics.median(x['steps'] / x['seconds'] for x in each)
    for name, each in found.items()
    if each
  }
  if len(rates) == 2:
    print(f'{rates["ours"] / rates["rl-zoo3"]:.1f} times the agent steps')
  if given.out:
    pathlib.Path(given.out).write_text(json.dumps(found, indent=1))


if __name__ == '__main__':
  main()
