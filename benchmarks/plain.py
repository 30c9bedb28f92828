"""What `PythonEngine` gains over `PlainEngine`, which takes the same steps.

    python -m benchmarks.plain

Both train in turns in one process, windows of a second or more; prints the
medians of milliseconds an agent step.
"""

import contextlib
import statistics
import time

WINDOWS = 7
JOBS = {  # the config, how many seeds, steps to warm up, steps a window
  'DQN on CartPole': ('dqn_cartpole', 1, 2_000, 2_000),
  'DQN on CartPole, 3 seeds': ('dqn_cartpole', 3, 2_000, 2_000),
  'DQN on Catch, pixels': ('dqn_catch', 1, 2_000, 400),
  'PPO on CartPole': ('ppo_cartpole', 1, 8_192, 8_192),
  'DQN on Pong': ('dqn_atari', 1, 400, 400),
}
# Atari's replay begins to learn after 20,000 steps: too long to wait for.
SOONER = [
  'uniform.UniformReplay.min_history = 100',
  'uniform.UniformReplay.capacity = 100_000',
]


def main():
  """Prints the table."""
  from dopamine_jax.engines import plain_engine
  from dopamine_jax.engines import python_engine
  from dopamine_jax.engines import startup

  startup.prepare(print)
  print('| job | PlainEngine | PythonEngine | ratio |')
  print('|---|---:|---:|---:|')
  for job, (name, num_seeds, warm_up, steps) in JOBS.items():
    with contextlib.ExitStack() as stack:
      engines = [
        _started(kind, name, num_seeds, stack)
        for kind in (plain_engine.PlainEngine, python_engine.PythonEngine)
      ]
      for engine in engines:
        _milliseconds(engine, warm_up)
      windows = [
        [_milliseconds(engine, steps) for engine in engines]
        for _ in range(WINDOWS)
      ]
    plain, few = map(statistics.median, zip(*windows, strict=True))
    print(f'| {job} | {plain:.3f} | {few:.3f} | {plain / few:.2f} |')


def _started(kind, name, num_seeds, stack):
  from dopamine_jax import runner as runner_lib

  bindings = SOONER if name == 'dqn_atari' else []
  with runner_lib.configured([name], bindings) as (runner, _):
    runner = runner.replace(engine=kind)
  lanes = num_seeds * runner.num_envs
  environments = stack.enter_context(
    contextlib.closing(runner.environment.make(lanes))
  )
  engine = runner.make_engine(
    environments, tuple(range(num_seeds)), check_finite=True
  )
  engine.reset(range(lanes))
  engine.init()
  return engine


def _milliseconds(engine, steps):
  started = time.perf_counter()
  engine.run(steps, cut_with=None, on_step=lambda: None)
  return 1_000 * (time.perf_counter() - started) / steps


if __name__ == '__main__':
  main()
