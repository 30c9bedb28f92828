"""Random bits with the rounds written out are JAX's own."""

import os
import subprocess
import sys
import textwrap

import jax.numpy as jnp
import numpy as np
import pytest

from dopamine_jax.engines import threefry

# The known answers of 20 rounds that Random123, the paper's library, ships.
KNOWN = [
  ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
  ((2**32 - 1,) * 2, (2**32 - 1,) * 2, (0x1CB996FC, 0xBB002BE7)),
  (
    (0x13198A2E, 0x03707344),
    (0x243F6A88, 0x85A308D3),
    (0xC4923A9C, 0x483DF7A0),
  ),
]


@pytest.mark.parametrize(('key', 'count', 'answer'), KNOWN)
def test_known_answers(key, count, answer):
  words = threefry.mix(*(np.uint32([x]) for x in (*key, *count)))
  assert tuple(int(word[0]) for word in words) == answer


PROGRAM = textwrap.dedent("""
  import hashlib, sys
  import jax
  import jax.numpy as jnp
  from dopamine_jax.commands import common

  if sys.argv[1] == 'as a command':
    common.prepare()

  @jax.jit
  def draw(seeds):
    def one(seed):
      key = jax.random.fold_in(jax.random.key(seed), 7)
      a, b, c, d = jax.random.split(key, 4)
      return (
        jax.random.bits(a, (3, 1001), jnp.uint8),
        jax.random.randint(b, (5000,), 0, 1_000_003),
        jax.random.uniform(c, (999,)),
        jax.random.permutation(d, 300),
        # Rounds upon rounds: in one kernel they would compile for minutes.
        jax.vmap(
          lambda i: jax.random.uniform(jax.random.fold_in(d, i), (1, 1))
        )(jnp.arange(64)),
      )
    return jax.vmap(one)(seeds)

  seeds = jnp.arange(5)
  print(draw.lower(seeds).compile().as_text().count(' while('))

  def chain(length):
    def last(key):
      for i in range(length):
        key = jax.random.fold_in(key, i)
      return jax.random.key_data(key)

    keys = jax.random.split(jax.random.key(0), 200)
    program = jax.jit(jax.vmap(last)).lower(keys).compile()
    return program.as_text().count(' while(')

  print(chain(12))
  for drawn in draw(seeds):
    print(hashlib.sha256(bytes(jax.device_get(drawn).data)).hexdigest())
""")


def test_commands_draw_what_jax_does_without_its_loop(tmp_path):
  # In processes of their own, for it holds for all that follows. What is drawn
  # in a loop is keys.
  def run(how):
    ran = subprocess.run(
      [sys.executable, '-c', PROGRAM, how],
      capture_output=True,
      text=True,
      check=True,
      timeout=120,  # s
      env=os.environ | {'JAX_COMPILATION_CACHE_DIR': str(tmp_path)},
    )
    loops, links, *hashes = ran.stdout.split()
    return int(loops), int(links), hashes

  loops, _, hashes = run('as ever')
  fewer, links, same = run('as a command')
  assert 0 < fewer < loops
  # Each key of a chain in a loop of its own, in each of many lanes.
  assert links == 12
  assert len(set(hashes)) == 5
  assert same == hashes


def test_keys_and_counters_broadcast():
  keys = jnp.arange(6, dtype=jnp.uint32).reshape(2, 3, 1)
  counts = jnp.arange(5, dtype=jnp.uint32).reshape(1, 1, 5)
  together = threefry.mix(keys, keys + 1, counts, counts + 2)
  for i, j, k in np.ndindex(2, 3, 5):
    one = threefry.mix(
      keys[i, j], keys[i, j] + 1, counts[0, 0, k], counts[0, 0, k] + 2
    )
    for words, word in zip(together, one, strict=True):
      assert words.shape == (2, 3, 5)
      assert words[i, j, k] == word[0]
