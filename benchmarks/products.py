"""The matrix products of five seeds' updates, one after another, by XLA.

What is missing is all else that training takes: start-up, compilation,
environments, acting, what is computed number by number, optimizers. So this is
what no faster code of ours around the products can go below.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import algorithms
from benchmarks import five
from benchmarks import jobs

PACKAGES = ('jax', 'jaxlib')
_SECONDS = 0.3  # of each measurement
_AT_ONCE = 20  # products of a program

# As X and W stand for a layer's inputs and kernel, G for gradients of outputs:
# X W, G W' and X' G, of all seeds at once.
_PRODUCTS = ('sbi,sio->sbo', 'sbo,sio->sbi', 'sbi,sbo->sio')
# How often an update has each, by network. Only policies' losses need
# gradients of a first layer's inputs, which are left out.
_DQN = ((2, 1, 1),)  # and the target network
# Critics value next actions, what was done, and what the policy would do.
_SAC = ((2, 1, 1), (3, 2, 1), (3, 2, 1))
# The policy moves at every other update, by the first critic.
_TD3 = ((1.5, 0.5, 0.5), (2.5, 1.5, 1), (2, 1, 1))


def measure(job: jobs.Job, steps: int) -> tuple[list[float], None]:
  """Returns their seconds, for so many agent steps of each seed."""
  expected = job.hyperparameters
  passes = _passes(expected)
  size = len(expected.kernels) // len(passes)
  seconds = 0.0
  for i, counts in enumerate(passes):
    for k, shape in enumerate(expected.kernels[i * size : (i + 1) * size]):
      for product, count in zip(_PRODUCTS, counts, strict=True):
        if k or product != _PRODUCTS[1]:
          seconds += count * _seconds(product, expected.batch_size, shape)
  return [seconds * expected.updates(steps)], None


def _passes(expected):
  found = {algorithms.TD3: _TD3, algorithms.SAC: _SAC, algorithms.DQN: _DQN}
  return found[type(expected)]


def _seconds(product, rows, shape):
  """Returns what one product of all seeds takes, within a program."""
  sizes = {'s': five.SEEDS, 'b': rows, 'i': shape[0], 'o': shape[1]}
  *terms, result = product.replace('->', ',').split(',')
  one, other, out = (
    jnp.ones([sizes[axis] for axis in term]) for term in (*terms, result)
  )

  def again(_, carry):
    one, out = carry
    # Each waits for the one before it.
    one = one.at[0, 0, 0].set(out[0, 0, 0])
    return one, jnp.einsum(product, one, other)

  @jax.jit
  def several(one, out):
    return jax.lax.fori_loop(0, _AT_ONCE, again, (one, out))

  jax.block_until_ready(several(one, out))
  taken, end = [], time.perf_counter() + _SECONDS
  while time.perf_counter() < end:
    began = time.perf_counter()
    jax.block_until_ready(several(one, out))
    taken.append(time.perf_counter() - began)
  return float(np.median(taken)) / _AT_ONCE
