"""JAX's random bits on CPUs: the same ones, in less time.

Threefry-2x32 mixes a pair of counters with a pair of keys in twenty rounds
(Salmon et al., 2011, Parallel random numbers: as easy as 1, 2, 3.
https://doi.org/10.1145/2063384.2063405). For CPUs JAX writes them as a loop,
which XLA runs operation by operation as soon as it changes more than a
kilobyte. Written out, the rounds are one kernel.

Keys that are made from keys stay a loop. Between loops nothing is fused: of
keys that were written out, XLA would compute each anew within the next, so that
twenty in a row took 4 ms instead of 25 us, and Rainbow's noisy networks 26 s to
compile instead of 7.
"""

import functools

import jax
from jax.extend import random
from jax.interpreters import mlir
import jax.numpy as jnp
import numpy as np

# By how many bits the rounds rotate, in turn four of the one and of the other.
_ROTATIONS = tuple(np.uint32([[13, 15, 26, 6], [17, 29, 16, 24]]))
_PARITY = np.uint32(0x1BD11BDA)
# Pairs of words up to which a draw may be one of keys, of all lanes. A loop of
# more would be run operation by operation; one of fewer takes 2 to 5 us longer.
_SMALL = 256


def write_out():
  """Unrolls Threefry's rounds in programs compiled for CPUs from now on.

  It changes no random bit. With 8 seeds of CartPole, training over Gymnasium
  becomes a third faster.
  """

  def lower(context, *words):
    is_small = context.avals_out[0].size <= _SMALL
    form = functools.partial(mix, written_out=not is_small)
    return mlir.lower_fun(form, multiple_results=True)(context, *words)

  mlir.register_lowering(random.threefry2x32_p, lower, platform='cpu')


def mix(
  key0: jax.Array,
  key1: jax.Array,
  count0: jax.Array,
  count1: jax.Array,
  *,
  written_out: bool = True,
) -> tuple[jax.Array, jax.Array]:
  """Returns two random words for each pair of counters.

  Args:
    key0: uint32, as all of them; axes of one element broadcast.
    key1: the key's second word.
    count0: the counters' first words.
    count1: the counters' second words.
    written_out: whether the rounds are, or else a loop.
  """

  def four_rounds(group, carry):
    a, b, keys, (rotations, others) = carry
    for bits in rotations:
      a += b
      b = a ^ _rotate(b, bits)
    a += keys[1]
    b += keys[2] + jnp.uint32(group + 1)
    return a, b, (*keys[1:], keys[0]), (others, rotations)

  keys = key0, key1, key0 ^ key1 ^ _PARITY
  carry = count0 + key0, count1 + key1, keys, _ROTATIONS
  if not written_out:
    a, b, *_ = jax.lax.fori_loop(0, 5, four_rounds, carry)
    return a, b
  for group in range(5):
    carry = four_rounds(group, carry)
  a, b, *_ = carry
  # A key that was folded may have rounds of its own before these. In one kernel
  # with them newer versions of XLA take minutes and more to compile.
  return jax.lax.optimization_barrier((a, b))


def _rotate(word, bits):
  return jnp.left_shift(word, bits) | jnp.right_shift(word, 32 - bits)
