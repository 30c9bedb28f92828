"""Kills sweeps and their workers by SIGKILL, and compares what comes of them.

    python -m tests.sweep_kills --kills 20

A small sweep of each scheduler trains undisturbed. Then it trains again, and
random ones of its processes die at random moments: workers, which the sweep
replaces, or the sweep itself, which goes on by `sweep resume`. In the end the
journal must say the same, and each run must have the same fingerprint. Prints a
line a kill; exits with 1 if anything differs.
"""

import argparse
import pathlib
import random
import subprocess
import sys
import tempfile
import time

import psutil

from tests.sweeps import small

ROOT = pathlib.Path(__file__).resolve().parent.parent
_COMMAND = [sys.executable, '-P', '-m', 'dopamine_jax', 'sweep']
# A sweep of two programs, some of whose trials stop early.
_SMALL = [
  'dqn_cartpole',
  *('--vary', 'rate/optax.linear_schedule.init_value = log_uniform(1e-5, 0.1)'),
  *('--vary', 'dqn.DQN.n_step = [1, 3]'),
  *('--num_seeds', '2', '--workers', '2', '--pack', '3'),
  *('-b', 'runner.Runner.num_iterations = 9'),
  *('-b', 'runner.Runner.training_steps = 200'),
  *('-b', 'runner.Runner.checkpoint_period = 1'),
  *('-b', 'runner.Runner.evaluation_episodes = 2'),
  *('-b', 'runner.Runner.evaluation_period = 1'),
  *('-b', 'networks.MLP.hidden = (8,)'),
  *('-b', 'uniform.UniformReplay.min_history = 100'),
  *('-b', 'uniform.UniformReplay.capacity = 500'),
]
KINDS = {
  'asha': [*_SMALL, '--trials', '8', '--scheduler', 'asha'],
  'pbt': [
    *_SMALL,
    *('--trials', '6', '--scheduler', 'pbt', '--rung_steps', '600'),
    *('--num_seeds', '1'),  # with one seed each difference counts
  ],
}


def start(arguments):
  """Starts a sweep's process, which prints nothing."""
  return subprocess.Popen(
    [*_COMMAND, *arguments],
    cwd=ROOT,
    stdin=subprocess.DEVNULL,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )


def kill_some(folder, arguments, kills, dice, seconds):
  """Trains a sweep some of whose processes die; returns how many did."""
  process = start([*arguments, '--base_dir', str(folder)])
  killed = 0
  while True:
    try:
      status = process.wait(dice.uniform(0.5, 2 * seconds / kills))
      assert status == 0, f'the sweep ended with {status}'
      return killed
    except subprocess.TimeoutExpired:
      pass
    if killed == kills:
      continue
    # Before its journal is there, it was never begun.
    if not (folder / 'journal.jsonl').exists():
      continue
    workers = psutil.Process(process.pid).children()
    victim = dice.choice([*workers, psutil.Process(process.pid)])
    what = 'the sweep' if victim.pid == process.pid else 'a worker'
    victim.kill()
    killed += 1
    print(f'  kill {killed}: {what}', flush=True)
    if victim.pid == process.pid:
      process.wait()
      process = start(['resume', str(folder), '--workers', '2'])


def main() -> int:
  """Returns the exit status."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--kills', type=int, default=20)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--of', nargs='*', choices=KINDS, default=list(KINDS))
  given = parser.parse_args()
  dice = random.Random(given.seed)
  fine = True
  with tempfile.TemporaryDirectory() as root:
    for kind in given.of:
      began = time.monotonic()
      folder = pathlib.Path(root, kind)
      assert start([*KINDS[kind], '--base_dir', str(folder)]).wait() == 0
      seconds = time.monotonic() - began
      other = pathlib.Path(root, f'{kind}_killed')
      count = -(-given.kills // len(given.of))
      killed = kill_some(other, KINDS[kind], count, dice, seconds)
      (events, runs), (others, other_runs) = map(small.outcome, (folder, other))
      same = sum(runs[name] == other_runs.get(name) for name in runs)
      is_equal = events == others and runs == other_runs
      fine &= is_equal
      print(
        f'{kind}: {killed} kills, {same} of {len(runs)} runs equal, the '
        f'journal {"equal" if events == others else "DIFFERENT"}',
        flush=True,
      )
      for each in sorted(set(events) ^ set(others)):
        print(f'  {"-" if each in events else "+"} {each}')
  return 0 if fine else 1


if __name__ == '__main__':
  sys.exit(main())
