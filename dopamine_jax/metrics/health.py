"""The health of learning: what networks and replay are like, once an iteration.

`runner.Runner.health = [@health.DormantNeurons(), @health.EffectiveRank()]`
names what is measured; by default nothing is, and no program differs. Each
number is a pure function of the training state, computed when an iteration has
ended, on transitions sampled by a key that nothing else uses: what is learned
is the same to the bit, with it or without. An on-policy agent's are drawn from
its newest rollout.

An agent of several networks has each of them measured: of SAC there are
`ActorDormantNeurons` and `CriticsDormantNeurons`.

While the replay holds less than `min_history`, at the start and after a resume
without replay, nothing is measured, and the iteration has no row.

Seconds of one CPU core for each iteration and seed, with 1,024 transitions:

| Metric            | MLP 512-512 | Nature CNN |
| ----------------- | ----------- | ---------- |
| DormantNeurons    | 0.004       | 0.3        |
| EffectiveRank     | 0.03        | 0.35       |
| TargetDrift       | 0.007       | 0.65       |
| PriorityQuantiles | 0.003       | 0.007      |
| all four          | 0.035       | 1.0        |

Priorities were of 50,000 and 100,000 transitions. Compiling takes a few seconds
more, once.
"""

from collections.abc import Sequence
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dopamine_jax import errors
from dopamine_jax import settings
from dopamine_jax.engines import engine as engine_lib
from dopamine_jax.learning import outputs
from dopamine_jax.metrics import inspection
from dopamine_jax.networks import variables
from dopamine_jax.replay import prioritized
from dopamine_jax.replay import sum_tree
from dopamine_jax.system import processes


class Metric(settings.Settings):
  """What is measured; extend it, and name it in `runner.Runner.health`."""

  def measure(self, view: inspection.View) -> dict[str, jax.Array]:
    """Returns scalars by name; traced once, when a training starts.

    Raises:
      UserError: if agent or replay don't have what it measures.
    """
    raise NotImplementedError


class Sampled(Metric):
  """What is measured of each network, on transitions from the replay.

  Attributes:
    num_transitions: how many, rounded up to whole samples of the replay.
  """

  num_transitions: int = 1_024

  def __post_init__(self):
    super().__post_init__()
    self.require_at_least(1, 'num_transitions')

  def measure(self, view):
    """Measures a seed; see `Metric.measure`."""
    return {
      f'{network}{name}': value
      for network in view.anatomy
      for name, value in self.measure_network(view, network).items()
    }

  def measure_network(
    self, view: inspection.View, network: str
  ) -> dict[str, jax.Array]:
    """Returns one network's scalars by name; `measure` prefixes the network's.

    Args:
      view: one seed's training.
      network: its name in `view.anatomy`.
    """
    raise NotImplementedError


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

  def measure_network(self, view, network):
    """Measures one network; see `Sampled.measure_network`."""
    layers = view.look(self.num_transitions, network).magnitudes
    if not layers:
      where = 'behind each nonlinearity'
      raise _nothing_shown(self, view, network, 'activations', where)
    dormant = sum(self._count_dormant(layer) for layer in layers.values())
    total = sum(layer.shape[-1] for layer in layers.values())
    return {'DormantNeurons': dormant / total}

  def _count_dormant(self, magnitudes):
    """Returns how many of a layer [B, units] are; all of a layer of zeros."""
    means = jnp.mean(magnitudes, axis=0)
    return jnp.sum(are_dormant(means, self.threshold))


def are_dormant(means: jax.Array, threshold: float) -> jax.Array:
  """Returns which neurons of a layer are dormant, bool [C].

  Args:
    means: [C], the means of their activations' magnitudes.
    threshold: see `DormantNeurons`.
  """
  return means <= threshold * jnp.mean(means)


class EffectiveRank(Sampled):
  """How many directions a network's features use: Kumar et al. (2021).

  Implicit Under-Parameterization Inhibits Data-Efficient Deep Reinforcement
  Learning. https://arxiv.org/abs/2010.14498

  It is the least number of singular values of the features [B, F] that have
  1 - delta of the sum of all, and so at most the smaller of B and F. Those of
  several critics lie side by side, and count together.

  Attributes:
    delta: the part of the sum that is left out.
  """

  delta: float = 0.01

  def __post_init__(self):
    super().__post_init__()
    self.require_fraction('delta')

  def measure_network(self, view, network):
    """Measures one network; see `Sampled.measure_network`."""
    features = view.look(self.num_transitions, network).features
    if features is None:
      where = 'before the last layer'
      raise _nothing_shown(self, view, network, 'features', where)
    return {'EffectiveRank': effective_rank(features, self.delta)}


def effective_rank(features: jax.Array, delta: float) -> jax.Array:
  """Returns srank_delta of features [B, F], int32; of zeros it is 0."""
  values = jnp.linalg.svd(features, compute_uv=False)  # the largest first
  sums = jnp.cumsum(values)
  rank = 1 + jnp.sum(sums < (1 - delta) * sums[-1])
  return jnp.where(sums[-1] > 0, rank, 0)


class TargetDrift(Sampled):
  """How far an online network has moved from its target network.

  `ParameterDrift` is the L2 norm of the difference of their parameters,
  `ValueDrift` the mean absolute difference of the values they predict.

  A network that has none, as SAC's actor, is left out.
  Where an iteration is a multiple of the target network's period, this sees
  the two just after they were made equal, and so no drift at all.
  """

  def measure(self, view):
    """Measures a seed; see `Metric.measure`."""
    found = super().measure(view)
    if not found:
      raise errors.UserError(
        f'health.TargetDrift compares a network with its target network, and '
        f'{type(view.loop.agent).__name__} has none. Take it out of '
        'runner.Runner.health.'
      )
    return found

  def measure_network(self, view, network):
    """Measures one network; see `Sampled.measure_network`."""
    anatomy = view.anatomy[network]
    if anatomy.target_params is None:
      return {}
    moved = optax.tree.sub(
      *map(variables.learnt, (anatomy.params, anatomy.target_params))
    )
    online, target = (
      view.look(self.num_transitions, network, target=x).values
      for x in (False, True)
    )
    return {
      'ParameterDrift': optax.tree.norm(moved),
      'ValueDrift': jnp.mean(jnp.abs(online - target)),
    }


class PriorityQuantiles(Metric):
  """How unequal the priorities of a prioritized replay are.

  Quantiles of p^alpha, the weight by which a transition is drawn, over all
  valid ones; see `PrioritizedReplay`.

  Attributes:
    quantiles: numbers in [0, 1]; 0.5 is the median.
  """

  quantiles: Sequence[float] = (0.1, 0.5, 0.9)

  def __post_init__(self):
    super().__post_init__()
    if not self.quantiles or not all(0 <= q <= 1 for q in self.quantiles):
      self.refuse('quantiles', 'must be numbers in [0, 1], at least one')

  def measure(self, view):
    """Measures a seed; see `Metric.measure`."""
    ring = view.state.experience.replay
    if not isinstance(ring, prioritized.PrioritizedRing):
      raise errors.UserError(
        'health.PriorityQuantiles needs a prioritized.PrioritizedReplay, and '
        f'{type(view.loop.agent).__name__} has a '
        f'{type(view.loop.replay).__name__}. Take it out of '
        'runner.Runner.health, or set the replay, if the agent has a choice.'
      )
    slots = jnp.arange(len(ring.head) * ring.capacity)
    priorities = sum_tree.get(ring.tree, slots)
    # Zero stands where no transition begins.
    priorities = jnp.where(priorities > 0, priorities, jnp.nan)
    found = jnp.nanquantile(priorities, jnp.asarray(self.quantiles))
    return {
      f'PriorityQuantile{quantile:g}': value
      for quantile, value in zip(self.quantiles, found, strict=True)
    }


def _nothing_shown(metric, view, network, what, where):
  module = type(view.anatomy[network].module).__name__
  return errors.UserError(
    f'health.{type(metric).__name__} needs the {what} of {module}, the network '
    f'of {type(view.loop.agent).__name__}, which shows none. Write '
    f"self.sow('intermediates', '{what}', x) into its __call__, {where}; "
    'networks/standard.py has examples.'
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
    self._program = jax.jit(engine.vectorize(measure))
    # Now, rather than when an iteration has ended.
    jax.eval_shape(self._program, engine.abstract_state())

  def measure(self) -> dict[str, np.ndarray]:
    """Returns values [S] by tag; none before the replay has its history."""
    engine = self._engine
    if engine.steps < engine.learning_begins:
      return {}
    return {
      f'Health/{name}': processes.fetch(value).reshape(len(engine.seeds))
      for name, value in sorted(self._program(engine.state).items())
    }


def _measure(metrics, loop, state):
  view = inspection.View(loop, state)
  found = {}
  for metric in metrics:
    values = metric.measure(view)
    name = f'{type(metric).__name__}.measure'
    outputs.require_scalars(name, values)
    if twice := found.keys() & values.keys():
      raise errors.UserError(
        f'runner.Runner.health measures {", ".join(sorted(twice))} twice; '
        'leave one of them out.'
      )
    found |= values
  return found
