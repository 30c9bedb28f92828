"""What is measured on a GPU; the same at about a tenth of the size for a CPU.

This module is imported by the Python of every peer and so needs nothing but
Python itself.
"""

import dataclasses

from benchmarks import algorithms
from benchmarks import jobs

SECONDS = 1_500  # of one round of all jobs, without installing

# Powers of two stay whole, and what is divided stays divisible.
_TENTH = 8

_REJAX = jobs.Contestant('rejax', 'peers.rejax')
_BRAX = jobs.Contestant('brax', 'peers.brax')
_SBX = jobs.Contestant('sbx', 'peers.sbx')
_OURS = jobs.Contestant('ours', 'ours')
_COMPILED = jobs.Contestant('ours', 'ours', {'engine': 'CompiledEngine'})

# brax and rejax have no switch for Adam's epsilon, and rejax none for the clip
# of values.
_CARTPOLE = dataclasses.replace(jobs.PPO, value_clip=0.2, adam_epsilon=1e-8)


def _ppo(package: str, environment: str, observation: int, action: int):
  """Returns PPO's numbers that all environments in JAX have here."""
  return {
    **dataclasses.asdict(_CARTPOLE),
    'kernels': (
      *jobs.mlp(observation, 256, 256, action),
      *jobs.mlp(observation, 256, 256, 1),
    ),
    'package': package,
    'environment': environment,
  }


_MINATAR = algorithms.NativePPO(
  **_ppo('gymnax', 'Breakout-MinAtar', 400, 3)
  | {'num_envs': 1_024, 'rollout': 131_072, 'batch_size': 16_384}
)
_BODIES = {
  'num_envs': 2_048,
  'num_epochs': 4,
  'value_clip': None,
  'value_weight': 0.25,
  'clip': 0.3,
  'normalize_observations': True,
}
_CHEETAH = algorithms.NativePPO(
  **_ppo('brax', 'halfcheetah', 17, 6)
  | _BODIES
  | {'backend': 'positional', 'rollout': 40_960, 'batch_size': 1_280}
)
_SWINGUP = algorithms.NativePPO(
  **_ppo('playground', 'CartpoleSwingup', 5, 1)
  | _BODIES
  | {'gamma': 0.995, 'rollout': 61_440, 'batch_size': 1_920}
)
_PQN = algorithms.PQN(
  kernels=jobs.mlp(400, 256, 256, 3),
  package='gymnax',
  environment='Breakout-MinAtar',
  num_envs=1_024,
  rollout=32_768,
  batch_size=1_024,
  num_epochs=2,
  gamma=0.99,
  q_lambda=0.65,
  epsilon=0.05,
  learning_rate=5e-4,
  adam_epsilon=1e-8,
  max_norm=10.0,
)
_PONG = {
  'frame_skip': 4,
  'stack': 4,
  'sticky_actions': 0.25,
}
_PQN_PONG = dataclasses.replace(
  _PQN,
  kernels=jobs.nature(7 * 7 * 64),
  package='atari',
  environment='Pong',
  num_envs=128,
  rollout=4_096,
  batch_size=128,
  **_PONG,
)
_PPO_PONG = dataclasses.replace(
  jobs.PPO_PONG, num_envs=128, rollout=16_384, batch_size=4_096
)
_DQN_PONG = dataclasses.replace(jobs.PONG_SAME, num_envs=16)
_RAINBOW_PONG = dataclasses.replace(jobs.RAINBOW, num_envs=16)
_SAC = jobs.sac('HalfCheetah-v5', 17, 6)


def _smaller(expected, scale: int):
  """Returns hyper-parameters of so many times fewer environments and steps."""
  names = ['num_envs']
  if isinstance(expected, algorithms.OnPolicy):
    names += ['rollout', 'batch_size']
  changes = {name: getattr(expected, name) // scale for name in names}
  changes['num_envs'] = max(1, changes['num_envs'])
  return dataclasses.replace(expected, **changes)


def _job(
  title: str,
  contestants: tuple[jobs.Contestant, ...],
  comparisons: tuple[jobs.Comparison, ...],
  expected: algorithms.Hyperparameters,
  window: int,
  limit: int,
  scale: int,
) -> jobs.Job:
  """Returns a job that measures agent steps a second.

  Where it is smaller, windows are of one rollout.

  Args:
    title: what is done.
    contestants: who does it.
    comparisons: what of it has a target.
    expected: the hyper-parameters, in full.
    window: agent steps, in full; twice as many warm up, as it learns.
    limit: seconds.
    scale: by how much all is smaller.
  """
  expected = _smaller(expected, scale)
  if scale > 1:
    window = getattr(expected, 'rollout', window // scale)
  return jobs.Job(
    title,
    'agent steps/s',
    contestants,
    comparisons,
    expected,
    warmup=2 * window + getattr(expected, 'min_history', 0),
    window=window,
    limit=limit,
  )


def _seeds(scale: int) -> jobs.Job:
  """Returns the job of several seeds; fewer of them where it is smaller."""
  counts = [max(1, count // scale) for count in (1, 32, 256, 2_048)]
  contestants, comparisons = [], []
  for count in counts:
    labels = []
    for script, arguments in (
      ('ours', {'engine': 'CompiledEngine'}),
      ('peers.rejax', {}),
    ):
      name = script.rpartition('.')[2]
      labels.append(f'{name}, {count:,} seed{"s" * (count > 1)}')
      contestants.append(
        jobs.Contestant(labels[-1], script, {'num_seeds': count, **arguments})
      )
    comparisons.append(jobs.Comparison(*labels, at_least=1.3))
  return jobs.Job(
    'PPO on CartPole, environments inside the compiled program, by seeds',
    'agent steps/s over all seeds',
    tuple(contestants),
    tuple(comparisons),
    _CARTPOLE,
    warmup=20_480 if scale == 1 else 1_024,
    window=20_480 if scale == 1 else 1_024,
    limit=330,
  )


def _native(scale: int) -> dict[str, jobs.Job]:
  beside_rejax = (jobs.Comparison('ours', 'rejax'),)
  # Theirs can't be resumed exactly; ours always can.
  as_brax = (jobs.Comparison('ours', 'brax', at_least=1.0),)
  return {
    'minatar-ppo': _job(
      "PPO on MinAtar's Breakout, in JAX",
      *((_COMPILED, _REJAX), beside_rejax),
      *(_MINATAR, 524_288, 90, scale),
    ),
    'minatar-pqn': _job(
      "PQN on MinAtar's Breakout, in JAX",
      *((_COMPILED, _REJAX), beside_rejax),
      *(_PQN, 524_288, 90, scale),
    ),
    'brax': _job(
      "PPO on brax's halfcheetah (positional); ours can be resumed exactly",
      *((_COMPILED, _BRAX), as_brax),
      *(_CHEETAH, 163_840, 240, scale),
    ),
    'playground': _job(
      "PPO on MuJoCo Playground's CartpoleSwingup, MJX in JAX",
      *((_COMPILED, _BRAX), (jobs.Comparison('ours', 'brax'),)),
      *(_SWINGUP, 245_760, 180, scale),
    ),
  }


def _gymnasium(scale: int) -> dict[str, jobs.Job]:
  pong = 'on Pong, ALE on all cores, {} games'
  pqn = (jobs.Comparison('ours', at_least=7_000),)
  sac = (
    jobs.Comparison('ours', at_least=725),
    jobs.Comparison('ours', 'sbx'),
  )
  return {
    'pong-dqn': _job(
      f'DQN {pong.format(16)}',
      *((_OURS,), (), _DQN_PONG, 2_000, 60, scale),
    ),
    'pong-rainbow': _job(
      f'Rainbow, compact, {pong.format(16)}',
      *((_OURS,), (), _RAINBOW_PONG, 2_000, 60, scale),
    ),
    'pong-ppo': _job(
      f'PPO {pong.format(128)}',
      *((_OURS,), (), _PPO_PONG, 16_384, 60, scale),
    ),
    'pong-pqn': _job(
      f'PQN {pong.format(128)}; the target is for 16 cores',
      *((_OURS,), pqn, _PQN_PONG, 16_384, 60, scale),
    ),
    'sac': _job(
      'SAC on HalfCheetah-v5, MLP 256-256, batch 256, an update each step',
      *((_OURS, _SBX), sac, _SAC, 1_000, 100, scale),
    ),
  }


def _bbf(scale: int) -> jobs.Job:
  """Returns the job of BBF's updates; a narrow network where it is smaller."""
  bindings = ['prioritized.PrioritizedReplay.capacity = 10_000']
  if scale > 1:
    bindings += [
      'impala.ImpalaTorso.width = 1',
      f'predictive.SPRNetwork.units = {2_048 // scale}',
    ]
  arguments = {'config': 'bbf_atari100k', 'bindings': bindings}
  return jobs.Job(
    'BBF on Pong, two updates a step (batch of 32)',
    'ms an update, acting and all',
    (jobs.Contestant('ours', 'updates', arguments),),
    # A CPU takes a second or more for an update.
    warmup=100 if scale == 1 else 4,
    window=80 if scale == 1 else 2,
    limit=90,
  )


def _twice() -> jobs.Job:
  """Returns the job of two trainings that must be alike."""
  return jobs.Job(
    'The same training twice: are the fingerprints equal?',
    'equal',
    (jobs.Contestant('ours', 'twice'),),
    tuple(
      jobs.Comparison(row, at_least=1.0)
      for row in ('PPO on CartPole, compiled', 'DQN on Pong')
    ),
    limit=140,
    yes_or_no=True,
  )


def _made(scale: int) -> dict[str, jobs.Job]:
  return {
    'seeds': _seeds(scale),
    **_native(scale),
    **_gymnasium(scale),
    'bbf': _bbf(scale),
    'twice': _twice(),
  }


JOBS = _made(1)
TENTH = {
  # Nobody waits for these.
  name: dataclasses.replace(job, limit=1_200)
  for name, job in _made(_TENTH).items()
}
# As processes are told what to do.
BY_NAME = {f'gpu-{name}': job for name, job in JOBS.items()} | {
  f'gpu-{name}-tenth': job for name, job in TENTH.items()
}
