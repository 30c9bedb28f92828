"""Faults that the fast tests must catch: `python -m tests.mutations`.

Each fault is put into a copy of the checkout, one at a time, and the tests that
are to catch it are run until one fails. It prints a table, and exits with 1 if
a fault was missed.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parent.parent


class Fault(NamedTuple):
  """A change that makes the program wrong.

  Attributes:
    what: in words.
    file: where it is made.
    right: the text that is there.
    wrong: what takes its place.
    tests: what is to catch it, some of the fast suite's files.
  """

  what: str
  file: str
  right: str
  wrong: str
  tests: str


FAULTS = [
  Fault(
    'replay: an n-step discount of one step too many',
    'dopamine_jax/replay/uniform.py',
    'jnp.float32(self.gamma) ** k)',
    'jnp.float32(self.gamma) ** (k + 1))',
    'tests/unit/replay_test.py',
  ),
  Fault(
    'replay: a truncation taken for a termination',
    'dopamine_jax/replay/uniform.py',
    'terminated = jnp.any(counts & (status == ring_lib.TERMINATED), axis=1)',
    'terminated = jnp.any(counts & _ended(status), axis=1)',
    'tests/unit/replay_test.py',
  ),
  Fault(
    'prioritized replay: new transitions begin at 1, not at the largest',
    'dopamine_jax/replay/prioritized.py',
    'jnp.where(complete, jnp.maximum(ring.largest, 1.0), 0.0)',
    'jnp.where(complete, 1.0, 0.0)',
    'tests/unit/prioritized_test.py',
  ),
  Fault(
    'returns: lambda goes on over the end of an episode',
    'dopamine_jax/learning/returns.py',
    'jnp.where(trajectory.last, 0.0, jnp.float32(lambda_))',
    'jnp.full(trajectory.last.shape, jnp.float32(lambda_))',
    'tests/unit/returns_test.py',
  ),
  Fault(
    'DQN: the target network is the online one',
    'agents/dqn.py',
    'q_next = self.q_values(target_params, ',
    'q_next = self.q_values(params, ',
    'tests/agents/dqn_test.py',
  ),
  Fault(
    'PPO: the ratio is the wrong way round',
    'agents/ppo.py',
    'log_ratio = policy.log_prob(batch.action) - batch.log_prob',
    'log_ratio = batch.log_prob - policy.log_prob(batch.action)',
    'tests/agents/ppo_test.py',
  ),
  Fault(
    'MR.Q: predictions from what was seen, not from what was predicted',
    'agents/mrq.py',
    '_, end, z, reward = self.predict(params, z, action)',
    '_, end, then, reward = self.predict(params, z, action)\n'
    '      z = then if k == 0 else z',
    'tests/agents/mrq_test.py',
  ),
  Fault(
    'MR.Q: targets in the size of rewards of now, not of then',
    'agents/mrq.py',
    'value = state.target_reward_scale * ',
    'value = state.reward_scale * ',
    'tests/agents/mrq_test.py',
  ),
  Fault(
    'following: a step that was cut taken for an end',
    'dopamine_jax/replay/following.py',
    'taken & (status == ring_lib.TERMINATED)',
    'taken & (status != ring_lib.RUNNING)',
    'tests/unit/following_test.py',
  ),
  Fault(
    'SAC: the larger of two critics in the target',
    'agents/sac.py',
    'return jnp.min(q, axis=0)',
    'return jnp.max(q, axis=0)',
    'tests/agents/sac_test.py',
  ),
  Fault(
    'TD3: what waits is learnt all the same',
    'dopamine_jax/learning/continuous_actions.py',
    'lambda: self.descend(state, sample, key, policy=False),',
    'lambda: self.descend(state, sample, key, policy=due | True),',
    'tests/agents/td3_test.py',
  ),
  Fault(
    'CrossQ: steps and what followed change places',
    'agents/crossq.py',
    'q, q_next = jnp.split(both, 2, axis=1)',
    'q_next, q = jnp.split(both, 2, axis=1)',
    'tests/agents/control_test.py',
  ),
  Fault(
    'engines: the same random key at every step',
    'dopamine_jax/engines/loop.py',
    'key = jax.random.fold_in(experience.keys.act, experience.agent_steps)',
    'key = experience.keys.act',
    'tests/unit/loop_test.py',
  ),
  Fault(
    "engines: a stack keeps an earlier episode's frames",
    'dopamine_jax/engines/stacking.py',
    'return jnp.where(is_new, _first(frame, stack), shifted)',
    'return shifted',
    'tests/unit/loop_test.py',
  ),
  Fault(
    "checkpoints: another run's settings are not noticed",
    'dopamine_jax/training/run_folder.py',
    "elif own and facts.get('record', own) != own:",
    'elif False:',
    'tests/unit/run_folder_test.py',
  ),
  Fault(
    'config: what is bound below a default is lost',
    'dopamine_jax/config/build.py',
    'if adopted is not value:',
    'if False:',
    'tests/written_test.py',
  ),
  Fault(
    "config: a scope's settings are those without one",
    'dopamine_jax/config/build.py',
    'if binding.scope != scope[:depth]:',
    'if binding.scope:',
    'tests/config_test.py',
  ),
]


def main() -> int:
  """Tries each fault; returns how many were missed, at most 1."""
  missed = 0
  print('| Fault | Caught by | Seconds |\n| --- | --- | --- |')
  with tempfile.TemporaryDirectory() as folder:
    copy = pathlib.Path(folder) / 'checkout'
    ignored = shutil.ignore_patterns('.git', '.venv', 'site', 'runs', '.*cache')
    shutil.copytree(ROOT, copy, symlinks=True, ignore=ignored)
    for fault in FAULTS:
      caught, seconds = _try(copy, fault)
      missed += not caught
      print(f'| {fault.what} | {caught or "NOTHING"} | {seconds:.0f} |')
  return min(missed, 1)


def _try(copy, fault):
  """Returns the test that catches a fault, and in how many seconds."""
  file = copy / fault.file
  text = file.read_text('utf-8')
  if text.count(fault.right) != 1:
    raise SystemExit(f'{fault.file} has not once: {fault.right}')
  file.write_text(text.replace(fault.right, fault.wrong))
  start = time.perf_counter()
  try:
    done = subprocess.run(
      [sys.executable, '-m', 'pytest', '-q', '-x', '--tb=no', fault.tests],
      cwd=copy,
      env={**os.environ, 'PYTHONPATH': str(copy)},
      capture_output=True,
      text=True,
    )
  finally:
    file.write_text(text)
  failed = [x for x in done.stdout.splitlines() if x.startswith('FAILED')]
  name = failed[0].split(' - ')[0].removeprefix('FAILED ') if failed else ''
  return name.partition('::')[2], time.perf_counter() - start


if __name__ == '__main__':
  sys.exit(main())
