"""The health of learning: what networks and replay are like, once an iteration.

`runner.Runner.health = [@health.DormantNeurons(), @health.EffectiveRank()]`
names what is measured; by default nothing is, and no program differs. Each
number is a pure function of the training state, computed when an iteration has
ended, on transitions sampled by a key that nothing else uses: what is learned
is the same to the bit, with it or without.

Before the replay holds its `min_history`, which after a resume without replay
comes again, nothing is measured, and those iterations have no row.
"""

from collections.abc import Sequence
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dopamine_jax import agent as agent_lib
from dopamine_jax import engine as engine_lib
from dopamine_jax import errors
from dopamine_jax import loop as loop_lib
from dopamine_jax import processes
from dopamine_jax import settings

# Evaluations fold their iteration into the same key; none has this number.
_NO_ITERATION = np.uint32(2**32 - 1)


class View:
  """One seed's training, as a metric sees it; what none looks at costs nothing.

  Attributes:
    loop: the settings of agent and replay.
    state: the training state.
    parameters: by network, see `Agent.parameters`.
  """

  def __init__(self, loop: loop_lib.Loop, state: loop_lib.TrainingState):
    self.loop = loop
    self.state = state
    self._key = jax.random.fold_in(
      jax.random.fold_in(state.experience.keys.evaluate, _NO_ITERATION),
      state.experience.agent_steps,
    )
    self._inspected = {}

  @property
  def parameters(self) -> dict[str, Any]:
    """See above.

    Raises:
      UserError: if the agent doesn't tell.
    """
    return self.loop.agent.parameters(self.state.agent)

  def inspect(self, network: str, num_transitions: int) -> agent_lib.Inspection:
    """Returns what a network does with observations from the replay.

    Args:
      network: its name in `parameters`.
      num_transitions: how many, rounded up to whole samples of the replay.

    Returns:
      Of the activations, [B, ..., units], only their mean magnitudes [B,
      units]: samples go through the network one after the other, so that this
      takes no more memory than an update.

    Raises:
      UserError: if the agent doesn't tell.
    """
    call = network, num_transitions
    if call not in self._inspected:
      self._inspected[call] = self._inspect(*call)
    return self._inspected[call]

  def _inspect(self, network, num_transitions):
    agent, params = self.loop.agent, self.parameters[network]

    def each(i):
      key = jax.random.fold_in(self._key, i)
      seen = agent.inspect(params, self._observe(key), key)
      means = {k: magnitudes(x) for k, x in seen.activations.items()}
      return seen.replace(activations=means)

    in_sample = jax.eval_shape(self._observe, self._key).shape[0]
    samples = jnp.arange(math.ceil(num_transitions / in_sample))
    return jax.tree.map(
      lambda leaf: leaf.reshape(-1, *leaf.shape[2:]),
      jax.lax.map(each, samples),
    )

  def _observe(self, key):
    """Returns the observations [B, ...] of one sample."""
    replay = self.state.experience.replay
    sample = self.loop.split_batch(self.loop.replay.sample(replay, key))
    return sample.transition.observation


def magnitudes(activations):
  """Returns the mean of |x| over all axes but the first and the last."""
  between = tuple(range(1, activations.ndim - 1))
  return jnp.mean(jnp.abs(activations), axis=between)


class Metric(settings.Settings):
  """What is measured; extend it, and name it in `runner.Runner.health`."""

  def measure(self, view: View) -> dict[str, jax.Array]:
    """Returns scalars by name; traced once, when a training starts.

    Raises:
      UserError: if agent or replay don't have what it measures.
    """
    raise NotImplementedError


class Sampled(Metric):
  """What is measured on transitions from the replay.

  Attributes:
    num_transitions: how many, rounded up to whole samples of the replay.
  """

  num_transitions: int = 1_024

  def __post_init__(self):
    super().__post_init__()
    self.require_at_least(1, 'num_transitions')


class DormantNeurons(Sampled):
  """The part of a network's neurons that hardly act: Sokar et al. (2023).

  The Dormant Neuron Phenomenon in Deep Reinforcement Learning.
  https://arxiv.org/abs/2302.12902

  A neuron's score is its mean magnitude over transitions, divided by the mean
  of its layer (eq. 1). A feature map of a convolution is one neuron.

  Attributes:
    threshold: the score up to which a neuron is dormant (the paper's tau).
  """

  threshold: float = 0.025

  def __post_init__(self):
    super().__post_init__()
    self.require_at_least(0, 'threshold')

  def measure(self, view):
    """See base class."""
    layers = view.inspect('online', self.num_transitions).activations
    if not layers:
      raise _nothing_shown(
        self, view, 'activations', 'behind each nonlinearity'
      )
    dormant = sum(self._count_dormant(layer) for layer in layers.values())
    total = sum(layer.shape[-1] for layer in layers.values())
    return {'DormantNeurons': dormant / total}

  def _count_dormant(self, magnitudes):
    """Returns how many of a layer [B, units] are; all of a layer of zeros."""
    means = jnp.mean(magnitudes, axis=0)
    return jnp.sum(means <= self.threshold * jnp.mean(means))


class EffectiveRank(Sampled):
  """How many directions a network's features use: Kumar et al. (2021).

  Implicit Under-Parameterization Inhibits Data-Efficient Deep Reinforcement
  Learning. https://arxiv.org/abs/2010.14498

  It is the least number of singular values of the features [B, F] that have
  1 - delta of the sum of all, and so at most the smaller of B and F.

  Attributes:
    delta: the part of the sum that is left out.
  """

  delta: float = 0.01

  def __post_init__(self):
    super().__post_init__()
    self.require_fraction('delta')

  def measure(self, view):
    """See base class."""
    features = view.inspect('online', self.num_transitions).features
    if features is None:
      raise _nothing_shown(self, view, 'features', 'before the last layer')
    return {'EffectiveRank': effective_rank(features, self.delta)}


def effective_rank(features: jax.Array, delta: float) -> jax.Array:
  """Returns srank_delta of features [B, F], int32; of zeros it is 0."""
  values = jnp.linalg.svd(features, compute_uv=False)  # the largest first
  sums = jnp.cumsum(values)
  rank = 1 + jnp.sum(sums < (1 - delta) * sums[-1])
  return jnp.where(sums[-1] > 0, rank, 0)


class TargetDrift(Sampled):
  """How far the online network has moved from its target network.

  Where an iteration is a multiple of the target network's period, this sees
  the two just after they were made equal, and so no drift at all.
  """

  def measure(self, view):
    """See base class."""
    if 'target' not in view.parameters:
      raise errors.UserError(
        f'health.TargetDrift compares a network with its target network, and '
        f'{type(view.loop.agent).__name__} has none. Take it out of '
        'runner.Runner.health.'
      )
    online, target = (view.parameters[k] for k in ('online', 'target'))
    online_values, target_values = (
      view.inspect(k, self.num_transitions).values for k in ('online', 'target')
    )
    return {
      'ParameterDrift': optax.tree.norm(optax.tree.sub(online, target)),
      'ValueDrift': jnp.mean(jnp.abs(online_values - target_values)),
    }


def _nothing_shown(metric, view, what, where):
  return errors.UserError(
    f'health.{type(metric).__name__} needs the {what} of the network of '
    f'{type(view.loop.agent).__name__}, which shows none. Write '
    f"self.sow('intermediates', '{what}', x) into its __call__, {where}; "
    'networks.py has examples.'
  )


class Monitor:
  """Measures an engine's state; compiles once."""

  def __init__(self, metrics: Sequence[Metric], engine: engine_lib.Engine):
    """Traces what will be measured.

    Raises:
      UserError: if agent or replay don't have it.
    """
    self._engine = engine
    measure = functools.partial(_measure, metrics, engine.loop)
    self._program = jax.jit(
      engine.layout.spread(engine_lib.over_seeds(measure, len(engine.seeds)))
    )
    # Now, rather than when an iteration has ended.
    jax.eval_shape(self._program, engine.abstract_state())

  def measure(self) -> dict[str, np.ndarray]:
    """Returns values [S] by tag; none before the replay has its history."""
    engine = self._engine
    history = engine.steps - engine.replay_began
    if history < engine.loop.replay.min_history:
      return {}
    return {
      f'Health/{name}': processes.fetch(value).reshape(len(engine.seeds))
      for name, value in sorted(self._program(engine.state).items())
    }


def _measure(metrics, loop, state):
  view = View(loop, state)
  found = {}
  for metric in metrics:
    values = metric.measure(view)
    if twice := found.keys() & values.keys():
      raise errors.UserError(
        f'runner.Runner.health measures {", ".join(sorted(twice))} twice; '
        'leave one of them out.'
      )
    found |= values
  return found
