"""Times NatureCNN with our convolution and with XLA's, on this machine's CPU.

    python -m benchmarks.convolutions

Prints a Markdown table of milliseconds: the fastest of several calls, so that
other work on the machine disturbs little. `kept` is after
`allocator.keep_freed_memory`, for which each half runs in its own process.
Takes about ten minutes on 2 cores.
"""

import functools
import json
import os
import subprocess
import sys
import time

PADDINGS = ('SAME', 'VALID')
CONVOLUTIONS = ('XLA', 'ours')
# What is timed, and how many updates or seeds a call holds.
JOBS = {
  'update, batch 32': 1,
  'update in a scan of 4': 4,
  'update of a seed, 4 seeds vmapped': 4,
  'act on 1 observation': 1,
}
SECONDS = 3  # for each number, and at least two calls


def main():
  """Prints the table, or with `measure KEEP` one process's half as JSON."""
  if sys.argv[1:2] == ['measure']:
    print(json.dumps(measure(keep=sys.argv[2] == 'True')))
    return
  environment = {**os.environ, 'JAX_PLATFORMS': 'cpu'}
  halves = {}
  for keep in (False, True):
    command = [sys.executable, '-m', 'benchmarks.convolutions', 'measure']
    output = subprocess.run(
      [*command, str(keep)], check=True, env=environment, stdout=subprocess.PIPE
    ).stdout
    halves[keep] = json.loads(output)
  print('| ms | padding | XLA | XLA, kept | ours | ours, kept |')
  print('|---|---|---|---|---|---|')
  for job in JOBS:
    for padding in PADDINGS:
      cells = [
        f'{halves[keep][f"{job} {padding} {convolution}"]:.1f}'
        for convolution in CONVOLUTIONS
        for keep in (False, True)
      ]
      print(f'| {job} | {padding} | {" | ".join(cells)} |')


def measure(keep: bool) -> dict[str, float]:
  """Returns milliseconds by job, padding and convolution."""
  from dopamine_jax.engines import allocator

  if keep:
    allocator.keep_freed_memory()
  # Only now, for the settings must precede jax.
  from dopamine_jax.networks import convolution

  ours = convolution.convolve
  times = {}
  for name, convolve in (('XLA', by_xla), ('ours', ours)):
    convolution.convolve = convolve
    for padding in PADDINGS:
      for job, count in JOBS.items():
        key = f'{job} {padding} {name}'
        times[key] = fastest(make(job, padding)) / count
        print(f'kept={keep} {key}: {times[key]:.1f} ms', file=sys.stderr)
  return times


def by_xla(images, kernel, strides, padding):
  """The formulation of `nn.Conv`."""
  from jax import lax
  import jax.numpy as jnp

  return lax.conv_general_dilated(
    images.astype(jnp.float32),
    kernel,
    strides,
    padding,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


def fastest(call) -> float:
  """Returns the milliseconds of the fastest call after two."""
  import jax

  def timed():
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start

  timed()  # compiles
  times = [timed(), timed()]
  while sum(times) < SECONDS:
    times.append(timed())
  return 1e3 * min(times[1:])


def make(job: str, padding: str):
  """Returns a function without arguments that does one call of `job`."""
  import jax
  from jax import lax
  import jax.numpy as jnp
  import numpy as np
  import optax

  from dopamine_jax import networks

  network = networks.NatureCNN(num_outputs=6, padding=padding)
  optimizer = optax.adam(6.25e-5, eps=1.5e-4)
  rng = np.random.default_rng(0)
  count = JOBS[job]
  lead = () if count == 1 else (count,)

  def q_values(params, observation):
    return network.apply({'params': params}, observation)

  def frames():
    shape = (*lead, 32, 84, 84, 4)
    return jax.device_put(rng.integers(0, 256, shape, dtype=np.uint8))

  def init(key):
    observation = jnp.zeros((1, 84, 84, 4), jnp.uint8)
    params = network.init(key, observation)['params']
    return params, optimizer.init(params)

  def update(learner, target_params, batch):
    params, optimizer_state = learner
    observation, next_observation = batch

    def loss(params):
      q = q_values(params, observation)[:, 0]
      q_next = q_values(target_params, next_observation)
      return jnp.mean(jnp.square(q - 0.99 * jnp.max(q_next, axis=-1)))

    gradients = jax.grad(loss)(params)
    changes, optimizer_state = optimizer.update(gradients, optimizer_state)
    return optax.apply_updates(params, changes), optimizer_state

  def scan(learner, target_params, batches):
    def body(learner, batch):
      return update(learner, target_params, batch), None

    return lax.scan(body, learner, batches)[0]

  key = jax.random.key(0)
  if job == 'act on 1 observation':
    params, _ = jax.jit(init)(key)
    act = jax.jit(lambda *inputs: jnp.argmax(q_values(*inputs), axis=-1))
    return functools.partial(act, params, frames()[:1])

  step = update
  if 'scan' in job:
    step = scan
  if 'vmapped' in job:
    key = jax.random.split(key, count)
    init, step = jax.vmap(init), jax.vmap(update)
  step = jax.jit(step, donate_argnums=0)
  learner = jax.jit(init)(key)
  target_params = jax.tree.map(jnp.copy, learner[0])
  batch = frames(), frames()

  def call():
    nonlocal learner
    learner = step(learner, target_params, batch)
    return learner

  return call


if __name__ == '__main__':
  main()
