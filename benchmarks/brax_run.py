"""brax's PPO on a task of MuJoCo Playground, as a run that `compare` reads.

`python -m benchmarks.brax_run CartpoleSwingup 100 160 runs/brax`: task, seed,
seconds and folder. It trains until the seconds are over, compilation and
evaluations included, in an environment of its own with brax and Playground.
Settings are Playground's own for that task, but for `_AS_OURS` and `_networks`:
environments, epochs and layers are of the number and size that our config,
`ppo_playground_compiled`, has for a CPU, and minibatches as many, so that each
has 480 steps and not 1,920. Rollouts, learning rate and the scale of rewards
stay Playground's. Evaluations take the likeliest actions, as often as ours;
between them environments are not made anew, so that each of the 512 begins all
of its episodes in one state.
"""

import csv
import importlib.util
import itertools
import pathlib
import subprocess
import sys
import time

from benchmarks import environments

_PERIOD = 1_966_080  # agent steps from one evaluation to the next, or more
_AS_OURS = {
  'num_envs': 512,
  # Pieces of 30 steps in each of 32 minibatches, where ours has 1,920 steps.
  'batch_size': 16,
  'num_updates_per_batch': 4,
}
_CONFIG = """\
runner.Runner.agent = @brax.PPO
runner.Runner.environment = @playground.Playground()
playground.Playground.id = '{}'
"""


class _TimeIsOverError(Exception):
  pass


def main():
  """Trains, here or by the Python that has brax."""
  if importlib.util.find_spec('mujoco_playground') is None:
    command = [environments.python('brax'), '-m', 'benchmarks.brax_run']
    sys.exit(subprocess.run([*command, *sys.argv[1:]]).returncode)
  task, seed, seconds, folder = sys.argv[1:]
  train(task, int(seed), float(seconds), pathlib.Path(folder))


def train(task: str, seed: int, seconds: float, folder: pathlib.Path):
  """Trains one seed for a time, and writes what its evaluations gave."""
  from brax.training.agents.ppo import train as ppo
  from mujoco_playground import registry
  from mujoco_playground import wrapper
  from mujoco_playground.config import dm_control_suite_params

  from benchmarks.peers import brax

  started = time.time()
  made = registry.get_default_config(task)
  made.impl = 'jax'  # as ours
  numbers = dm_control_suite_params.brax_ppo_config(task).to_dict()
  del numbers['num_resets_per_eval']  # it would begin all episodes anew
  numbers |= _AS_OURS
  evaluations = numbers['num_timesteps'] // _PERIOD
  numbers |= {'num_evals': evaluations + 1, 'seed': seed}
  folder.mkdir(parents=True)
  (folder / 'config.gin').write_text(_CONFIG.format(task), 'utf-8')
  with open(folder / 'metrics.csv', 'w', encoding='utf-8', newline='') as file:
    rows = csv.writer(file, lineterminator='\n')
    names = ('seed', 'iteration', 'agent_steps', 'wall_time', 'name', 'value')
    rows.writerow(names)

    count = itertools.count(1)

    def note(steps, found):
      mean = float(found['eval/episode_reward'])
      took = time.time() - started
      print(f'{steps:,} steps, {took:.0f} s: {mean:.1f}', flush=True)
      if took > seconds:
        raise _TimeIsOverError
      if steps:  # the first evaluation is of what has learnt nothing
        numbered = next(count), steps, time.time()
        rows.writerow([seed, *numbered, 'Eval/AverageReturns', mean])
        file.flush()

    try:
      with brax.repaired():
        ppo.train(
          registry.load(task, made),
          wrap_env_fn=wrapper.wrap_for_brax_training,
          network_factory=_networks,
          num_eval_envs=100,
          deterministic_eval=True,
          progress_fn=note,
          **numbers,
        )
    except _TimeIsOverError:
      pass


def _networks(*arguments, **settings):
  """Returns policy and value, with the layers of ours."""
  from brax.training.agents.ppo import networks
  from flax import linen

  return networks.make_ppo_networks(
    *arguments,
    policy_hidden_layer_sizes=(64, 64),
    value_hidden_layer_sizes=(64, 64),
    activation=linen.tanh,
    **settings,
  )


if __name__ == '__main__':
  main()
