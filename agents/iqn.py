"""IQN: learns the distribution of the return, as a function of any quantile.

Dabney, Ostrovski, Silver & Munos (2018), Implicit Quantile Networks for
Distributional Reinforcement Learning. https://arxiv.org/abs/1806.06923

Differs from the paper:
1. Three-step returns by default, as in Castro et al. (2018).
2. Epsilon, target network and warm-up as there too: see `dqn`.
3. `double` lets the online network choose the next action, as in Double DQN.
"""

from collections.abc import Sequence

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from dopamine_jax import networks
from dopamine_jax import spaces
from dopamine_jax import values
from dopamine_jax.agents import dqn
from dopamine_jax.learning import action_values
from dopamine_jax.learning import optimization
from dopamine_jax.learning import quantiles as quantiles_lib  # also a method
from dopamine_jax.networks import initializers
from dopamine_jax.networks import layers
from dopamine_jax.networks import modules


class ImplicitQuantileNetwork(modules.Module):
  """Values of quantiles: features of the observation times those of tau.

  Attributes:
    num_outputs: actions, A.
    torso: a Flax module that maps observations to features [B, F].
    hidden: sizes of the rectified dense layers on the product.
    num_cosines: of tau's embedding, n in eq. 4.
    kernel_init: initializer of all kernels but the torso's; the default is
      Dopamine's.
  """

  num_outputs: int | None = None
  torso: nn.Module = networks.NatureTorso()
  hidden: Sequence[int] = (512,)
  num_cosines: int = 64
  kernel_init: networks.Initializer = values.call(initializers.fan_in_uniform)

  @nn.compact
  def __call__(
    self, observation: jax.Array, tau: jax.Array | None = None
  ) -> jax.Array:
    """Returns [B, N, A], given tau [B, N] in [0, 1]; without it, medians."""
    if tau is None:
      tau = jnp.full((len(observation), 1), 0.5)

    def dense(units, x):
      return layers.Dense(units, kernel_init=self.kernel_init)(x)

    features = networks.part(self, self.torso, observation)[:, None]
    frequencies = np.pi * np.arange(self.num_cosines, dtype=np.float32)
    cosines = jnp.cos(tau[..., None] * frequencies[None, None])
    embedding = nn.relu(dense(features.shape[-1], cosines))  # eq. 4
    self.sow('intermediates', 'activations', embedding)
    x = features * embedding
    for units in self.hidden:
      x = nn.relu(dense(units, x))
      self.sow('intermediates', 'activations', x)
    self.sow('intermediates', 'features', x.reshape(-1, x.shape[-1]))
    return dense(self.num_outputs, x)


class IQN(dqn.DQN):
  """DQN whose network gives the quantiles that it is asked for.

  Attributes:
    network: makes the Flax module from `num_outputs`, one for each action; it
      maps (observation, tau [B, N]) to [B, N, A].
    num_tau_samples: quantiles that an update learns, N.
    num_tau_prime_samples: quantiles of the target's distribution, N'.
    num_quantile_samples: quantiles whose mean is a Q-value, K.
    kappa: where the loss turns from squared to linear; 0: linear everywhere.
    double: whether the online network chooses the next action.
  """

  network: modules.Maker = ImplicitQuantileNetwork
  optimizer: optimization.Optimizer = values.call(
    optax.adam, 5e-5, eps=3.125e-4
  )
  n_step: int = 3
  num_tau_samples: int = 64
  num_tau_prime_samples: int = 64
  num_quantile_samples: int = 32
  kappa: float = 1.0
  double: bool = False

  def __post_init__(self):
    super().__post_init__()
    self.require_no_huber('the loss of quantiles has kappa instead')
    self.require_at_least(
      1, 'num_tau_samples', 'num_tau_prime_samples', 'num_quantile_samples'
    )
    self.require_at_least(0, 'kappa')

  def quantiles(self, params, observation, key, num):
    """Draws tau [B, num]; returns it and its quantiles [B, num, A]."""
    batch = spaces.num_rows(observation)
    tau = jax.random.uniform(key, (batch, num))
    return tau, self.quantiles_at(tau, params, observation, key)

  def quantiles_at(self, tau, params, observation, key) -> jax.Array:
    """Returns the quantiles of tau [B, num], [B, num, A]."""
    return networks.apply(self.module, params, observation, tau, key=key)

  def q_values(self, params, observation, key) -> jax.Array:
    """Returns means over K samples of the distributions [B, A] (eq. 3)."""
    num = self.num_quantile_samples
    return jnp.mean(self.quantiles(params, observation, key, num)[1], axis=1)

  def distribution(self, params, observation, key):
    """Returns N evenly spaced quantiles, the same at every call."""
    num = self.num_tau_samples
    batch = spaces.num_rows(observation)
    tau = jnp.broadcast_to((jnp.arange(num) + 0.5) / num, (batch, num))
    quantiles = self.quantiles_at(tau, params, observation, key).swapaxes(1, 2)
    returns = jnp.sort(quantiles, axis=-1)
    return returns, jnp.full_like(returns, 1 / num)

  def losses(self, params, target_params, batch, key):
    """Returns the losses [B] of Algorithm 1 and metrics; see `DQN.losses`.

    Summed over the N quantiles that are learnt, averaged over the target's N'.
    """
    tau, quantiles = self.quantiles(
      params, batch.observation, key, self.num_tau_samples
    )
    select, target = self.next_quantiles(
      params, target_params, batch.next_observation, key
    )
    loss = jax.vmap(quantiles_lib.regression, (0, 0, 0, 0, 0, 0, 0, None))
    losses = loss(
      quantiles,
      tau,
      batch.action,
      batch.reward,
      batch.discount,
      select,
      target,
      self.kappa,
    )
    losses /= self.kappa or 1.0  # L_kappa / kappa in this paper
    return losses, action_values.metrics(jnp.mean(quantiles, axis=1))

  def next_quantiles(self, params, target_params, observation, key):
    """Returns what chooses the next action [B, K, A] and rates it [B, N', A].

    Both come from one pass of the target network, unless the online one
    chooses.
    """
    target_key, select_key = (jax.random.fold_in(key, i) for i in (1, 2))
    num_select = self.num_quantile_samples
    num_target = self.num_tau_prime_samples
    if self.double:
      fixed = jax.lax.stop_gradient(params)  # no pass for training
      _, select = self.quantiles(fixed, observation, select_key, num_select)
      _, target = self.quantiles(
        target_params, observation, target_key, num_target
      )
      return self.only_allowed(select, observation), target
    _, both = self.quantiles(
      target_params, observation, target_key, num_select + num_target
    )
    select, target = both[:, :num_select], both[:, num_select:]
    return self.only_allowed(select, observation), target
