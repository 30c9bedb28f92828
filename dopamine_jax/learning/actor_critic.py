"""What agents of continuous actions share: a policy, its critics, their state.

The networks are Flax modules, and show their activations and features as those
of `networks` do.
"""

from collections.abc import Sequence

from flax import linen as nn
from flax import struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from dopamine_jax import networks
from dopamine_jax import values
from dopamine_jax.learning import distributions
from dopamine_jax.learning import outputs
from dopamine_jax.networks import initializers
from dopamine_jax.networks import modules


class State(struct.PyTreeNode):
  """What learning changes."""

  params: dict[str, optax.Params]  # of `actor`, `critics` and what else learns
  target_params: optax.Params  # of the critics, and of what else has targets
  optimizer_state: optax.OptState
  updates: jax.Array  # int32 scalar, how many there have been

  # Where no policy was delayed there were none, and nothing reads them.
  younger = ('updates',)


class Actor(modules.Module):
  """A policy whose standard deviations, too, depend on what is observed.

  Attributes:
    action_shape: of one action (given by the agent).
    hidden: sizes of the dense layers.
    log_std_min: the lowest logarithm of a standard deviation; lower ones are
      clipped.
    log_std_max: the highest logarithm of a standard deviation, likewise.
    activation: applied after each hidden layer.
    kernel_init: initializer of their kernels; biases start at zero.
    torso: a Flax module that maps observations to features [B, F], such as
      `networks.NatureTorso` of images; None: they are flattened.
    network: makes the layers after the torso from `num_outputs`, in place of
      `hidden`; None: an MLP.
  """

  given_later = ('action_shape',)

  action_shape: Sequence[int] | None = None
  hidden: Sequence[int] = (256, 256)
  log_std_min: float = -20.0
  log_std_max: float = 2.0
  activation: networks.Activation = nn.relu
  kernel_init: networks.Initializer = initializers.XAVIER_UNIFORM
  torso: nn.Module | None = None
  network: modules.Maker | None = None

  def __post_init__(self):
    super().__post_init__()
    if not self.log_std_min < self.log_std_max:
      self.refuse(
        'log_std_min', f'is not below log_std_max = {self.log_std_max}'
      )
    self.require_at_most(20, 'log_std_max')  # exp of more is no std
    self.require_at_least(1, 'action_shape')
    _require_none_beside_network(self)

  @nn.compact
  def __call__(self, observation: jax.Array) -> distributions.TanhGaussian:
    """Returns distributions of actions for [B, *observation_shape]."""
    seen = _seen(self, observation)
    num_outputs = 2 * int(np.prod(self.action_shape))
    outputs = networks.part(self, _network(self, num_outputs), seen)
    shape = (-1, *self.action_shape)
    mean, log_std = (x.reshape(shape) for x in jnp.split(outputs, 2, axis=1))
    log_std = jnp.clip(log_std, self.log_std_min, self.log_std_max)
    return distributions.TanhGaussian(mean, log_std)


class DeterministicActor(modules.Module):
  """A policy that has one action for what is observed.

  Attributes:
    action_shape: of one action (given by the agent).
    hidden: sizes of the dense layers.
    activation: applied after each hidden layer.
    kernel_init: initializer of their kernels; biases start at zero.
    torso: a Flax module that maps observations to features [B, F]; None: they
      are flattened.
    network: see `Actor`.
  """

  given_later = ('action_shape',)

  action_shape: Sequence[int] | None = None
  hidden: Sequence[int] = (256, 256)
  activation: networks.Activation = nn.relu
  kernel_init: networks.Initializer = initializers.XAVIER_UNIFORM
  torso: nn.Module | None = None
  network: modules.Maker | None = None

  def __post_init__(self):
    super().__post_init__()
    self.require_at_least(1, 'action_shape')
    _require_none_beside_network(self)

  @nn.compact
  def __call__(self, observation: jax.Array) -> distributions.Deterministic:
    """Returns actions in (-1, 1) for [B, *observation_shape]."""
    seen = _seen(self, observation)
    num_outputs = int(np.prod(self.action_shape))
    outputs = networks.part(self, _network(self, num_outputs), seen)
    action = jnp.tanh(outputs).reshape(-1, *self.action_shape)
    return distributions.Deterministic(action)


class Critics(modules.Module):
  """Values of actions by networks that differ in their first parameters.

  Each has kernels of its own, rather than a share of larger ones: a product of
  batches of matrices is slower on CPUs.

  Attributes:
    num_critics: how many critics there are, K.
    hidden: sizes of the dense layers of each.
    activation: applied after each hidden layer.
    kernel_init: initializer of their kernels; biases start at zero.
    torso: a Flax module that maps observations to features [B, F], the same
      for all critics; None: they are flattened.
    network: makes the layers of each critic, of features and action side by
      side, from `num_outputs`, in place of `hidden`; None: an MLP.
    num_outputs: M, of each critic (given by agents of distributions).
  """

  num_critics: int = 2
  hidden: Sequence[int] = (256, 256)
  activation: networks.Activation = nn.relu
  kernel_init: networks.Initializer = initializers.XAVIER_UNIFORM
  torso: nn.Module | None = None
  network: modules.Maker | None = None
  num_outputs: int = 1

  def __post_init__(self):
    super().__post_init__()
    _require_none_beside_network(self)

  @nn.compact
  def __call__(self, observation: jax.Array, action: jax.Array) -> jax.Array:
    """Returns values [K, B], or outputs [K, B, M], of actions [B, ...]."""
    seen = _seen(self, observation)
    both = (seen, action)
    flat = [x.reshape(len(x), -1).astype(jnp.float32) for x in both]
    x = jnp.concatenate(flat, axis=1)
    values = jnp.stack(
      [
        networks.part(self, _network(self, self.num_outputs), x)
        for _ in range(self.num_critics)
      ]
    )
    return values[..., 0] if self.num_outputs == 1 else values


def _require_none_beside_network(module):
  """Refuses settings of an MLP where another network makes the layers."""
  if module.network is None:
    return
  for name in ('hidden', 'activation', 'kernel_init'):
    value, default = getattr(module, name), getattr(type(module), name)
    # A run's own configuration makes an initializer again.
    if not values.are_alike(value, default):
      module.refuse(name, 'has no effect: network makes the layers')


def _seen(module, observation):
  """Returns what a module's layers see: its torso's features, if it has one."""
  if module.torso is None:
    return observation
  return networks.part(module, module.torso, observation)


def _network(module, num_outputs):
  """Returns the layers that make a module's outputs."""
  if module.network is not None:
    return module.make_part('network', num_outputs=num_outputs)
  return networks.MLP(
    num_outputs,
    hidden=module.hidden,
    activation=module.activation,
    kernel_init=module.kernel_init,
  )


def first_params(
  actor: nn.Module,
  critics: nn.Module,
  key: jax.Array,
  observation: jax.Array,
  action: jax.Array,
  num_outputs: int = 1,
) -> dict[str, optax.Params]:
  """Returns the first parameters of both, by name, once their outputs fit.

  Args:
    actor: maps observations to distributions of actions.
    critics: maps observations and actions to values.
    key: a PRNG key.
    observation: [B, *observation_shape], an example.
    action: [B, *action_shape], likewise.
    num_outputs: M, of each critic.

  Raises:
    UserError: if an output doesn't fit.
  """
  actor_key, key = jax.random.split(key)
  params = outputs.init(actor, actor_key, observation)

  def mode(params, observation):
    return networks.apply(actor, params, observation).mode()

  outputs.require(actor, mode, params, observation, needs=[action.shape[1:]])
  # Of any number of critics, each a value [B], or outputs [B, M].
  needs = [(None,) if num_outputs == 1 else (None, num_outputs)]
  return {
    'actor': params,
    'critics': outputs.first_params(
      critics, key, observation, action, needs=needs
    ),
  }
