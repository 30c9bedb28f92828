"""How a network's parameters are spread, once an iteration; if asked for.

`runner.Runner.histograms = True` asks. As in `health`, only a summary leaves
the device, nothing that is learned depends on it, and without it no program
differs.
"""

from collections.abc import Iterator

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np

from dopamine_jax import errors
from dopamine_jax.engines import engine as engine_lib
from dopamine_jax.metrics import base
from dopamine_jax.system import processes

_NUM_BINS = 30


class Spread(struct.PyTreeNode):
  """An array's histogram, and sums; see `metrics.base.Histogram`."""

  edges: jax.Array  # [B + 1]
  counts: jax.Array  # [B]
  total: jax.Array
  squares: jax.Array


class Histograms:
  """Measures an engine's state; compiles once."""

  def __init__(self, engine: engine_lib.Engine):
    """Looks for the parameters.

    Raises:
      UserError: if the agent's state has no `params`.
    """
    self._engine = engine
    agent = type(engine.loop.agent).__name__
    if not hasattr(engine.abstract_state().agent, 'params'):
      raise errors.UserError(
        'runner.Runner.histograms shows the parameters that learn, which it '
        f"looks for as `params` of the agent's state, and that of {agent} has "
        'none. Call them so, or leave the histograms out.'
      )
    self._program = jax.jit(engine.vectorize(_spreads))

  def measure(self, iteration: int, now: float) -> Iterator[base.Histogram]:
    """Yields a histogram for each seed and each array of the parameters.

    Args:
      iteration: the one that has ended.
      now: seconds since the Unix epoch.
    """
    engine = self._engine
    found = self._program(engine.state.agent.params)
    for path, spread in jax.tree.leaves_with_path(
      found, is_leaf=lambda x: isinstance(x, Spread)
    ):
      spread = jax.tree.map(processes.fetch, spread)
      name = 'Parameters/' + jax.tree_util.keystr(
        path, simple=True, separator='/'
      )
      for i, seed in enumerate(engine.seeds):
        one = engine.axis.pick(spread, i)
        if np.isfinite(one.edges).all():
          yield base.Histogram(
            *(seed, iteration, engine.steps, now, name),
            *(one.edges, one.counts, float(one.total)),
            float(one.squares),
          )


def _spreads(params):
  return jax.tree.map(spread_of, params)


def spread_of(array: jax.Array) -> Spread:
  """Returns the histogram of an array's numbers."""
  array = array.astype(jnp.float32).ravel()
  counts, edges = jnp.histogram(array, bins=_NUM_BINS)
  return Spread(
    edges=edges,
    counts=counts,
    total=jnp.sum(array),
    squares=jnp.sum(jnp.square(array)),
  )
