"""What is measured: one table of jobs, and their hyper-parameters once.

Everybody who runs a job is configured from this table, then reports what it
really has, and `differences` tells whether that is the same. This module is
imported by the Python of every peer and so needs nothing but Python itself.
"""

from collections.abc import Mapping
import dataclasses
import itertools
import math
from typing import Any

from benchmarks import algorithms


@dataclasses.dataclass(frozen=True)
class Contestant:
  """Who runs a job.

  Attributes:
    label: its row in the table.
    script: module below `benchmarks`, as in 'peers.sb3'; a peer's runs in the
      peer's environment, any other in ours.
    arguments: what its `measure` is told besides the job.
  """

  label: str
  script: str
  arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  @property
  def peer(self) -> str | None:
    """The peer's name, None for us."""
    package, _, name = self.script.rpartition('.')
    return name if package == 'peers' else None


@dataclasses.dataclass(frozen=True)
class Comparison:
  """A row, or how many times another row it is, and what it should be.

  Attributes:
    row: the row.
    over: the row to divide by, if any.
    at_least: the target, if it is a lower bound.
    at_most: the target, if it is an upper bound.
  """

  row: str
  over: str | None = None
  at_least: float | None = None
  at_most: float | None = None


@dataclasses.dataclass(frozen=True)
class Job:
  """One table of the results.

  Attributes:
    title: what is done.
    unit: of the rows.
    contestants: who does it, in this order in each round.
    comparisons: what of it has a target.
    hyperparameters: equal for all contestants; None where there are none.
    warmup: agent steps before the first window, of each seed.
    window: agent steps of one measured window, of each seed.
    warm_cache: whether a first round, uncounted, fills a compilation cache.
    limit: seconds of a round, all contestants together; 0 for any.
    yes_or_no: whether a row is 1 for yes or 0 for no.
  """

  title: str
  unit: str
  contestants: tuple[Contestant, ...]
  comparisons: tuple[Comparison, ...] = ()
  hyperparameters: algorithms.Hyperparameters | None = None
  warmup: int = 0
  window: int = 0
  warm_cache: bool = False
  limit: int = 0
  yes_or_no: bool = False


WINDOWS = 5  # a process

_CARTPOLE = algorithms.DQN(
  kernels=((4, 512), (512, 512), (512, 2)),
  batch_size=128,
  update_period=4,
  buffer_size=50_000,
  target_update_period=100,
  gamma=0.99,
  learning_rate=1e-3,
  adam_epsilon=1e-8,
  epsilon=0.01,
  min_history=500,
)
_CARTPOLE_SMALL = dataclasses.replace(
  _CARTPOLE, kernels=((4, 64), (64, 64), (64, 2)), batch_size=64
)


_CONVOLUTIONS = ((8, 8, 4, 32), (4, 4, 32, 64), (3, 3, 64, 64))


def nature(flat: int) -> algorithms.Shapes:
  """Returns the kernels of Nature's network, whose maps have `flat` numbers."""
  return (*_CONVOLUTIONS, (flat, 512), (512, 6))


PONG_SAME = algorithms.DQN(
  kernels=nature(11 * 11 * 64),
  batch_size=32,
  update_period=4,
  buffer_size=20_000,
  target_update_period=8_000,
  gamma=0.99,
  learning_rate=6.25e-5,
  adam_epsilon=1.5e-4,
  epsilon=0.01,
  min_history=400,
  frame_skip=4,
  stack=4,
  sticky_actions=0.25,
)
RAINBOW = algorithms.Rainbow(
  **dataclasses.asdict(PONG_SAME)
  | {
    'kernels': (*_CONVOLUTIONS, (11 * 11 * 64, 512), (512, 6 * 51)),
  }
)
# Each kernel of a noisy layer is a mean and a deviation. As Dopamine has it,
# both streams are of one hidden layer; the paper has one for each.
_FULL_RAINBOW = dataclasses.replace(
  RAINBOW,
  agent='full_rainbow',
  kernels=(
    *_CONVOLUTIONS,
    *((11 * 11 * 64, 512),) * 2,
    *((512, 6 * 51),) * 2,
    *((512, 51),) * 2,
  ),
  epsilon=0.0,
  noisy=True,
  dueling=True,
  double=True,
)
_PONG_VALID = dataclasses.replace(PONG_SAME, kernels=nature(7 * 7 * 64))


def mlp(*sizes: int) -> algorithms.Shapes:
  """Returns the kernels of dense layers, from the input to the output."""
  return tuple(itertools.pairwise(sizes))


PPO = algorithms.PPO(
  kernels=(*mlp(4, 64, 64, 2), *mlp(4, 64, 64, 1)),
  batch_size=256,
  gamma=0.99,
  learning_rate=3e-4,
  adam_epsilon=1e-5,
  num_envs=8,
  rollout=1_024,
  num_epochs=4,
  gae_lambda=0.95,
  clip=0.2,
  value_weight=0.5,
  entropy_weight=0.01,
  max_norm=0.5,
)
# One network, of which both the policy and the value are linear.
PPO_PONG = dataclasses.replace(
  PPO,
  kernels=(*nature(7 * 7 * 64), (512, 1)),
  learning_rate=2.5e-4,
  clip=0.1,
  frame_skip=4,
  stack=4,
  sticky_actions=0.25,
)


def sac(environment: str, observation: int, action: int) -> algorithms.SAC:
  """Returns SAC's for an environment of so many numbers; 256-256 throughout."""
  critic = mlp(observation + action, 256, 256, 1)
  return algorithms.SAC(
    environment=environment,
    kernels=(*mlp(observation, 256, 256, 2 * action), *critic, *critic),
    batch_size=256,
    update_period=1,
    buffer_size=100_000,
    min_history=500,
    gamma=0.99,
    learning_rate=3e-4,
    critic_learning_rate=3e-4,
    temperature_learning_rate=3e-4,
    adam_epsilon=1e-8,
    tau=0.005,
    target_entropy=-float(action),
  )


_critic = mlp(3 + 1, 256, 256, 1)
_TD3 = algorithms.TD3(
  environment='Pendulum-v1',
  kernels=(*mlp(3, 256, 256, 1), *_critic, *_critic),
  batch_size=256,
  update_period=1,
  buffer_size=100_000,
  min_history=500,
  gamma=0.99,
  learning_rate=3e-4,
  adam_epsilon=1e-8,
  tau=0.005,
  exploration_noise=0.1,
)

_OURS = Contestant('ours', 'ours')
_DOPAMINE = Contestant('dopamine-rl', 'peers.dopamine')
_SB3 = Contestant('sb3', 'peers.sb3')
_SBX = Contestant('sbx', 'peers.sbx')
_FLOOR = Contestant('AtariVectorEnv alone', 'floor')
_REJAX = Contestant('rejax', 'peers.rejax')


_SAC_COMPARISONS = (
  Comparison('ours', 'sbx', at_least=1.2),
  Comparison('ours', 'dopamine-rl', at_least=2.2),
  Comparison('ours', 'sb3'),
)


def _seeds(
  count: int, engine: str = 'PythonEngine', devices: int = 1
) -> Contestant:
  label = f'ours, {count} seed{"s" * (count > 1)}'
  return Contestant(
    label if devices == 1 else f'{label} on {devices} devices',
    'ours',
    {'num_seeds': count, 'engine': engine, 'devices': devices},
  )


def _five(
  name: str,
  title: str,
  expected: algorithms.Hyperparameters,
  steps: int,
  peer: str,
  at_least: float,
) -> dict[str, Job]:
  """Returns the job called `name`: five seeds, with start-up and all."""
  ours, theirs = ('ours', 'ours, compiled'), f'{peer}, five processes'
  contestants = [
    Contestant(ours[0], 'five', {'steps': steps}),
    Contestant(ours[1], 'five', {'steps': steps, 'engine': 'CompiledEngine'}),
    Contestant(theirs, f'peers.{peer}', {'name': name, 'steps': steps}),
  ]
  is_mlp = all(len(shape) == 2 for shape in expected.kernels)
  known = algorithms.DQN, algorithms.SAC, algorithms.TD3
  if is_mlp and type(expected) in known:
    floor = 'matrix products alone'
    contestants.append(Contestant(floor, 'products', {'steps': steps}))
  job = Job(
    f'Five seeds of {title}, {steps:,} agent steps each',
    'seconds, from the command to the last result',
    tuple(contestants),
    tuple(Comparison(theirs, each, at_least=at_least) for each in ours),
    expected,
  )
  return {name: job}


# What a researcher waits for comes first; each beside the fastest peer.
FIVE = {
  **_five(
    'five-A-small',
    'DQN on CartPole-v1, MLP 64-64, batch 64',
    *(_CARTPOLE_SMALL, 20_000, 'sb3', 4.0),
  ),
  **_five(
    'five-A',
    'DQN on CartPole-v1, MLP 512-512, batch 128',
    *(_CARTPOLE, 10_000, 'sbx', 1.8),
  ),
  **_five(
    'five-B',
    'DQN on Pong, Nature CNN with VALID padding, batch 32',
    *(_PONG_VALID, 3_000, 'sb3', 1.5),
  ),
  **_five(
    'five-D',
    'PPO on CartPole-v1, MLP 64-64',
    *(PPO, 102_400, 'sbx', 4.0),
  ),
  **_five(
    'five-D-pixels',
    'PPO on Pong, Nature CNN with VALID padding',
    *(PPO_PONG, 8_192, 'sb3', 1.5),
  ),
  **_five(
    'five-E',
    'SAC on Pendulum-v1, MLP 256-256, batch 256',
    *(sac('Pendulum-v1', 3, 1), 5_000, 'sbx', 1.8),
  ),
  **_five(
    'five-E-td3',
    'TD3 on Pendulum-v1, MLP 256-256, batch 256',
    *(_TD3, 5_000, 'sbx', 1.8),
  ),
}

JOBS = FIVE | {
  'A': Job(
    'A: DQN on CartPole-v1, MLP 512-512, batch 128',
    'agent steps/s',
    (_OURS, _DOPAMINE, _SB3, _SBX),
    (
      Comparison('ours', 'sbx', at_least=1.6),
      Comparison('ours', 'sb3', at_least=2.2),
      Comparison('ours', 'dopamine-rl', at_least=2.2),
    ),
    _CARTPOLE,
    warmup=1_000,
    window=1_000,
  ),
  'A-small': Job(
    "A': the same with MLP 64-64, batch 64",
    'agent steps/s',
    (_OURS, _DOPAMINE, _SB3, _SBX),
    (
      Comparison('ours', 'sbx', at_least=3.5),
      Comparison('ours', 'sb3', at_least=3.5),
      Comparison('ours', 'dopamine-rl', at_least=3.5),
    ),
    _CARTPOLE_SMALL,
    warmup=1_000,
    window=2_000,
  ),
  'A-compiled': Job(
    'A with the environment inside the compiled program, 4 environments',
    'agent steps/s over all seeds',
    (_seeds(1, 'CompiledEngine'), _REJAX, _seeds(16, 'CompiledEngine')),
    (Comparison('ours, 1 seed', 'rejax', at_least=1.5),),
    dataclasses.replace(_CARTPOLE, num_envs=4),
    warmup=1_000,
    window=1_000,
  ),
  'A-small-compiled': Job(
    "A' with the environment inside the compiled program",
    'agent steps/s over all seeds',
    (_seeds(1, 'CompiledEngine'), _seeds(16, 'CompiledEngine')),
    (Comparison('ours, 16 seeds', 'ours, 1 seed', at_least=2.0),),
    _CARTPOLE_SMALL,
    warmup=1_000,
    window=2_000,
  ),
  'seeds': Job(
    "A', several seeds side by side (`--num_seeds`) over Gymnasium's CartPole",
    'agent steps/s over all seeds',
    (_seeds(1), _seeds(8), _seeds(16), _SB3),
    (
      Comparison('ours, 8 seeds', 'ours, 1 seed', at_least=4.0),
      Comparison('ours, 16 seeds', 'sb3', at_least=12.0),
    ),
    _CARTPOLE_SMALL,
    warmup=1_000,
    window=2_000,
  ),
  'B-same': Job(
    'B: DQN on Pong, Nature CNN with SAME padding, batch 32',
    'agent steps/s',
    (_OURS, _DOPAMINE),
    (Comparison('ours', 'dopamine-rl', at_least=1.8),),
    PONG_SAME,
    warmup=500,
    window=100,
  ),
  'B-valid': Job(
    'B: the same with VALID padding',
    'agent steps/s',
    (_OURS, _SB3, _SBX),
    (
      Comparison('ours', 'sb3', at_least=1.3),
      Comparison('ours', 'sbx', at_least=8.0),
    ),
    _PONG_VALID,
    warmup=500,
    window=100,
  ),
  # Networks play a part here only for dopamine-rl, which asks its own, with
  # SAME padding, even before it learns.
  'B-warmup': Job(
    "B': Pong before learning starts",
    'agent steps/s',
    (_OURS, _FLOOR, _SB3, _SBX),
    (
      Comparison('ours', 'AtariVectorEnv alone', at_least=0.8),
      Comparison('ours', 'sb3'),
      Comparison('ours', 'sbx'),
    ),
    dataclasses.replace(_PONG_VALID, min_history=20_000),
    warmup=500,
    window=500,
  ),
  'B-warmup-same': Job(
    "B': the same beside dopamine-rl",
    'agent steps/s',
    (_OURS, _DOPAMINE),
    (Comparison('ours', 'dopamine-rl'),),
    dataclasses.replace(PONG_SAME, min_history=20_000),
    warmup=500,
    window=500,
  ),
  'C-rainbow': Job(
    'C: Rainbow, compact, on Pong: as B with SAME padding, 51 atoms, n = 3, '
    'priorities',
    'agent steps/s',
    (_OURS, _DOPAMINE),
    (Comparison('ours', 'dopamine-rl', at_least=1.8),),
    RAINBOW,
    warmup=500,
    window=100,
  ),
  'C-full-rainbow': Job(
    'C: Full Rainbow on Pong: the same with noisy, dueling and double',
    'agent steps/s',
    (_OURS, _DOPAMINE),
    (Comparison('ours', 'dopamine-rl', at_least=1.8),),
    _FULL_RAINBOW,
    warmup=500,
    window=100,
  ),
  'D': Job(
    'D: PPO on CartPole-v1, 8 environments x 128 steps, 4 epochs, minibatches '
    'of 256, MLP 64-64',
    'agent steps/s',
    (_OURS, _SB3, _SBX),
    (
      Comparison('ours', 'sb3', at_least=3.0),
      Comparison('ours', 'sbx', at_least=3.0),
    ),
    PPO,
    warmup=2_048,
    window=10_240,
  ),
  'D-compiled': Job(
    'D with the environment inside the compiled program',
    'agent steps/s over all seeds',
    (
      _seeds(1, 'CompiledEngine'),
      _REJAX,
      _seeds(32, 'CompiledEngine'),
      _seeds(32, 'CompiledEngine', devices=2),
      Contestant('rejax, 32 seeds', 'peers.rejax', {'num_seeds': 32}),
    ),
    (
      Comparison('ours, 1 seed', 'rejax'),
      Comparison('ours, 32 seeds', 'rejax, 32 seeds'),
      Comparison(
        'ours, 32 seeds on 2 devices', 'rejax, 32 seeds', at_least=1.3
      ),
    ),
    # rejax has no switch for either.
    dataclasses.replace(PPO, value_clip=0.2, adam_epsilon=1e-8),
    warmup=20_480,
    window=20_480,
  ),
  'D-pixels': Job(
    "D': PPO on Pong: the same with Nature CNN and VALID padding",
    'agent steps/s',
    (_OURS, _SB3, _SBX),
    (
      Comparison('ours', 'sb3', at_least=1.1),
      Comparison('ours', 'sbx', at_least=6.0),
    ),
    PPO_PONG,
    warmup=1_024,
    window=1_024,
  ),
  'E': Job(
    'E: SAC on Pendulum-v1, MLP 256-256, batch 256, an update each step',
    'agent steps/s',
    (_OURS, _DOPAMINE, _SB3, _SBX),
    _SAC_COMPARISONS,
    sac('Pendulum-v1', 3, 1),
    warmup=1_000,
    window=500,
  ),
  'E-cheetah': Job(
    'E: the same on HalfCheetah-v5',
    'agent steps/s',
    (_OURS, _DOPAMINE, _SB3, _SBX),
    _SAC_COMPARISONS,
    sac('HalfCheetah-v5', 17, 6),
    warmup=1_000,
    window=500,
  ),
  'replay': Job(
    'Replay: 200,000 slots of 84x84 bytes, n = 3, stack 4',
    'as the row says',
    (Contestant('ours', 'replay'),),
    (
      Comparison('sample(32)/s', at_least=9_000),
      Comparison('bare donated write/s', 'add/s', at_most=1.5),
      Comparison('bytes a transition', at_most=7_100),
      Comparison('sample(32)/s', 'prioritized sample(32)/s', at_most=1.5),
      Comparison('add/s', 'prioritized add/s', at_most=1.5),
    ),
  ),
  'startup': Job(
    'Launch to first update, CartPole, compilation cache warm',
    'seconds',
    (
      Contestant('ours', 'commands', {'what': 'startup'}),
      Contestant('dopamine-rl', 'peers.dopamine', {'until_update': True}),
    ),
    (Comparison('ours', at_most=5.0), Comparison('dopamine-rl', 'ours')),
    _CARTPOLE,
    warm_cache=True,
  ),
  'memory': Job(
    'Peak resident memory of DQN on Atari with 1,000,000 transitions',
    'GB',
    (Contestant('ours', 'commands', {'what': 'memory'}),),
    (Comparison('ours', at_most=8.0),),
  ),
}


def differences(job: Job, reported: Mapping[str, Any]) -> list[str]:
  """Returns what of `reported` is not as the job says, in words.

  Args:
    job: one that has hyper-parameters.
    reported: what a contestant really has, by the fields' names, and the
      number of `updates` it did; as it came out of JSON.
  """
  expected = job.hyperparameters
  wanted = dataclasses.asdict(expected)
  reported = dict(reported)
  updates = expected.updates(job.warmup + WINDOWS * job.window)
  did = reported.pop('updates', None)
  found = []
  # A few are done earlier or later, counting from the episode's first frame.
  tolerance = max(0.05 * updates, expected.updates_at_once)
  if did is None or abs(did - updates) > tolerance:
    found.append(f'updates were {did}, not about {updates:.0f}')
  for name in sorted(wanted.keys() | reported.keys()):
    if name not in reported:
      found.append(f'{name} was not reported')
    elif name not in wanted:
      found.append(f'{name} is not known')
    elif not _equal(wanted[name], reported[name]):
      found.append(f'{name} is {reported[name]}, not {wanted[name]}')
  return found


def _equal(wanted: Any, reported: Any) -> bool:
  if isinstance(wanted, tuple):  # kernels: frameworks order them in many ways
    return sorted(wanted) == sorted(tuple(shape) for shape in reported)
  if isinstance(wanted, float):
    # Adam's numbers are read from a step of it, in float32.
    return math.isclose(wanted, reported, rel_tol=1e-3, abs_tol=1e-12)
  return wanted == reported
