"""Rainbow with all its extensions, each of which one binding switches off.

Hessel et al. (2018), Rainbow: Combining Improvements in Deep Reinforcement
Learning. https://arxiv.org/abs/1710.02298

Differs from the paper:
1. The exponent of the importance weights, `beta` of the replay, stays at 0.5 by
   default, as in Castro et al. (2018), instead of rising from 0.4 to 1.
2. A priority is the root of a cross-entropy, where the paper has the root of a
   Kullback-Leibler divergence; they differ by the entropy of the target.
3. Evaluation is without noise: it uses the means of the noisy weights.
"""

from collections.abc import Sequence
import functools

from flax import linen as nn
import jax
import optax
import rlax

from dopamine_jax import networks
from dopamine_jax import values
from dopamine_jax.agents import c51
from dopamine_jax.learning import action_values
from dopamine_jax.learning import encoding
from dopamine_jax.learning import optimization
from dopamine_jax.networks import heads
from dopamine_jax.networks import initializers
from dopamine_jax.networks import layers
from dopamine_jax.networks import modules
from dopamine_jax.replay import base
from dopamine_jax.replay import prioritized


class RainbowNetwork(modules.Module):
  """A torso under a head whose layers may be noisy and which may be dueling.

  Attributes:
    num_outputs: A actions of M atoms each, A * M (given by the agent).
    num_atoms: M; 1 for plain values (given by the agent).
    noisy: whether the head is of `heads.NoisyDense` (given by the agent).
    dueling: whether it is a `heads.Dueling` one (given by the agent).
    torso: a Flax module that maps observations to features [B, F].
    shared: sizes of rectified layers below both streams; Dopamine's is (512,).
    hidden: sizes of each stream's rectified layers.
    sigma0: of noisy layers.
    kernel_init: initializer of the head's kernels if they are not noisy.
  """

  given_later = ('num_outputs', 'num_atoms', 'noisy', 'dueling')

  num_outputs: int | None = None
  num_atoms: int = 1
  noisy: bool = True
  dueling: bool = True
  torso: nn.Module = networks.NatureTorso()
  shared: Sequence[int] = ()
  hidden: Sequence[int] = (512,)
  sigma0: float = 0.5
  kernel_init: networks.Initializer = initializers.XAVIER_UNIFORM

  def __post_init__(self):
    super().__post_init__()
    self.require_at_least(0, 'sigma0')

  @nn.compact
  def __call__(self, observation: jax.Array) -> jax.Array:
    """Returns the outputs [B, num_outputs]."""
    if self.noisy:
      dense = functools.partial(heads.NoisyDense, sigma0=self.sigma0)
    else:
      dense = functools.partial(layers.Dense, kernel_init=self.kernel_init)
    if self.dueling:
      head = heads.Dueling(
        self.num_outputs, self.num_atoms, self.hidden, dense, name='head'
      )
    else:
      head = heads.Plain(self.num_outputs, self.hidden, dense, name='head')
    x = networks.part(self, self.torso, observation)
    for i, units in enumerate(self.shared):
      x = nn.relu(dense(units, name=f'shared_{i}')(x))
      self.sow('intermediates', 'activations', x)
    return head(x)


class FullRainbow(c51.C51):
  """C51 with double Q-learning, dueling and noisy networks, n = 3, priorities.

  Attributes:
    network: a Flax module that has what `RainbowNetwork` is given later.
    epsilon: see the base class. None: 0 with noise, else as in `dqn.DQN`.
    noisy: whether noise of the weights explores, besides `epsilon`.
    dueling: whether values and advantages have streams of their own.
    double: whether the online network chooses the next action.
    distributional: whether weights of atoms are learnt, or values.
  """

  network: modules.Maker = RainbowNetwork
  replay: base.Maker = prioritized.PrioritizedReplay
  optimizer: optimization.Optimizer = values.call(
    optax.adam, 6.25e-5, eps=1.5e-4
  )
  n_step: int = 3
  epsilon: float | optax.Schedule | None = None
  noisy: bool = True
  dueling: bool = True
  double: bool = True
  distributional: bool = True

  def q_values(self, params, observation, key) -> jax.Array:
    """Returns Q-values [B, A]."""
    if self.distributional:
      return super().q_values(params, observation, key)
    return self.outputs(params, observation, key)

  def distribution(self, params, observation, key):
    """Returns returns and their probabilities, for films."""
    if self.distributional:
      return super().distribution(params, observation, key)
    return None

  def losses(self, params, target_params, batch, key):
    """Returns losses [B] and metrics; each pass has noise of its own."""
    outputs = self.outputs(params, batch.observation, key)
    return self.losses_of(outputs, params, target_params, batch, key)

  def losses_of(self, outputs, params, target_params, batch, key):
    """Returns what `losses` does, of outputs [B, num_outputs]."""
    target_key, select_key = (jax.random.fold_in(key, i) for i in (1, 2))
    read = self.logits if self.distributional else self.outputs
    following = read(target_params, batch.next_observation, target_key)
    q_select = following
    if self.double:
      fixed = jax.lax.stop_gradient(params)  # no pass for training
      q_select = self.q_values(fixed, batch.next_observation, select_key)
    elif self.distributional:
      q_select = c51.mean(self.atoms, following)
    q_select = self.only_allowed(q_select, batch.next_observation)
    if self.distributional:
      logits = outputs.reshape(following.shape)
      losses = self.categorical_losses(logits, batch, following, q_select)
      return losses, action_values.metrics(c51.mean(self.atoms, logits))
    td_error = jax.vmap(rlax.double_q_learning)(
      outputs, batch.action, batch.reward, batch.discount, following, q_select
    )
    return self.td_losses(td_error), action_values.metrics(outputs)

  def act(self, state, observation, step, key, *, explore):
    """Returns actions; see `Agent.act`."""
    if not explore:
      state = state.replace(params=heads.without_noise(state.params))
    return super().act(state, observation, step, key, explore=explore)

  def outlook(self, state, observation, key):
    """Returns what films show; see `Agent.outlook`."""
    state = state.replace(params=heads.without_noise(state.params))
    return super().outlook(state, observation, key)

  def epsilon_at(self, step, *, explore):
    """Returns the probability of a random action."""
    if self.epsilon is not None or not explore:
      return super().epsilon_at(step, explore=explore)
    return 0.0 if self.noisy else values.at(c51.C51.epsilon, step)

  @property
  def num_outputs(self) -> int:
    """What the network's last layer has: M logits or a value, by action."""
    return int(self.action_space.n) * self._num_atoms

  @property
  def module(self):
    """The network, a Flax module."""
    switches = {'noisy': self.noisy, 'dueling': self.dueling}
    given = {'num_outputs': self.num_outputs, 'num_atoms': self._num_atoms}
    return encoding.network(self, 'network', **given, **switches)

  @property
  def _num_atoms(self):
    return self.num_atoms if self.distributional else 1
