"""Agent steps a second of whole trainings, compilation left out.

Job A is DQN on CartPole-v1 with layers of 512 and 512 and batches of 128;
Asmall has 64, 64 and 64. B is DQN on Pong with Dopamine's SAME padding, Bvalid
with the paper's VALID; Bwarmup is B before learning starts. Each job updates
once in four agent steps.
"""

import pathlib
import tempfile
import time

import numpy as np

from dopamine_jax import allocator
from dopamine_jax import config
from dopamine_jax import runner
from dopamine_jax import training

_CARTPOLE = (
  'dqn.DQN.epsilon = 0.01',
  'dqn.DQN.update_period = 4',
  'dqn.DQN.target_update_period = 100',
  'optax.adam.learning_rate = 1e-3',
  'uniform.UniformReplay.capacity = 50_000',
  'uniform.UniformReplay.min_history = 500',
)
_PONG = (
  'uniform.UniformReplay.capacity = 20_000',
  'uniform.UniformReplay.min_history = 400',
)
# Job: gin file, bindings, agent steps of a window.
JOBS = {
  'A': (
    'dqn_cartpole',
    (
      *_CARTPOLE,
      'networks.MLP.hidden = (512, 512)',
      'uniform.UniformReplay.batch_size = 128',
    ),
    1_000,
  ),
  'Asmall': (
    'dqn_cartpole',
    (
      *_CARTPOLE,
      'networks.MLP.hidden = (64, 64)',
      'uniform.UniformReplay.batch_size = 64',
    ),
    4_000,
  ),
  'B': ('dqn_atari', _PONG, 100),
  'Bvalid': (
    'dqn_atari',
    (*_PONG, "networks.NatureCNN.padding = 'VALID'"),
    100,
  ),
  'Bwarmup': (
    'dqn_atari',
    (
      'uniform.UniformReplay.capacity = 20_000',
      'uniform.UniformReplay.min_history = 20_000',
    ),
    1_000,
  ),
}


def measure(job: str, num_seeds: int = 1, windows: int = 5) -> list[float]:
  """Returns agent steps a second, over all seeds, of each window."""
  allocator.keep_freed_memory()
  name, bindings, steps = JOBS[job]
  config.load(
    [f'dopamine_jax/configs/{name}.gin'],
    [*bindings, 'runner.Runner.evaluation_episodes = 0'],
  )
  with tempfile.TemporaryDirectory() as folder:
    one = training.Training(
      config.build(runner.Runner),
      pathlib.Path(folder),
      tuple(range(num_seeds)),
      say=lambda message: None,
    )
    one.prepare(resume=False)
    rates = []
    for i in range(windows + 1):
      # The first window compiles, and takes the random steps where it learns.
      count = 600 if i == 0 else steps
      started = time.perf_counter()
      one.engine.run(count, cut_with=None, on_step=lambda: None)
      if i:
        rates.append(num_seeds * steps / (time.perf_counter() - started))
    one.close()
  return rates


def report(job: str, num_seeds: int = 1):
  """Prints the median, lowest and highest rate of a job."""
  rates = measure(job, num_seeds)
  print(
    f'{job}, {num_seeds} seed(s): {np.median(rates):,.0f} agent steps/s '
    f'(from {min(rates):,.0f} to {max(rates):,.0f} in {len(rates)} windows)'
  )
