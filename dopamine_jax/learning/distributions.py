"""Distributions over actions; leading axis [B]."""

from typing import Any, Literal

from flax import struct
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from dopamine_jax import agent as agent_lib

_INSIDE = np.float32(1 - 1e-6)
_PARTS = 64  # of a normal distribution, each as likely
_LOG_STD = (-20.0, 2.0)  # where those lie that a network gives


class Categorical(struct.PyTreeNode):
  """One of A actions.

  Attributes:
    logits: [B, A], unnormalized log-probabilities.
  """

  logits: jax.Array

  def sample(self, key: jax.Array) -> jax.Array:
    """Returns actions [B] int32."""
    return jax.random.categorical(key, self.logits)

  def mode(self) -> jax.Array:
    """Returns the likeliest actions [B] int32."""
    return jnp.argmax(self.logits, axis=-1)

  def log_prob(self, action: jax.Array) -> jax.Array:
    """Returns the logarithms [B] of the actions' probabilities."""
    return jnp.take_along_axis(self._log_probs, action[None], axis=0)[0]

  def entropy(self) -> jax.Array:
    """Returns the entropies [B] in nats."""
    log_probs = self._log_probs
    return -jnp.sum(jnp.exp(log_probs) * log_probs, axis=0)

  @property
  def _log_probs(self):
    # [A, B]: XLA's CPU is slow to sum over a short last axis.
    return jax.nn.log_softmax(self.logits.T, axis=0)


class Product(struct.PyTreeNode):
  """Independent choices, each of one among some actions.

  Attributes:
    parts: a Categorical for each number of an action.
  """

  parts: tuple[Categorical, ...]

  def sample(self, key: jax.Array) -> jax.Array:
    """Returns actions [B, number of parts] int32."""
    keys = jax.random.split(key, len(self.parts))
    pairs = zip(self.parts, keys, strict=True)
    return jnp.stack([part.sample(key) for part, key in pairs], axis=-1)

  def mode(self) -> jax.Array:
    """Returns the likeliest actions [B, number of parts] int32."""
    return jnp.stack([part.mode() for part in self.parts], axis=-1)

  def log_prob(self, action: jax.Array) -> jax.Array:
    """Returns the logarithms [B] of the actions' probabilities."""
    columns = action.reshape(len(action), -1).T
    pairs = zip(self.parts, columns, strict=True)
    return sum(part.log_prob(column) for part, column in pairs)

  def entropy(self) -> jax.Array:
    """Returns the entropies [B] in nats."""
    return sum(part.entropy() for part in self.parts)


class Gaussian(struct.PyTreeNode):
  """Independent normal distributions of an action's numbers.

  Attributes:
    mean: [B, *action_shape].
    log_std: [B, *action_shape], logarithms of the standard deviations.
  """

  mean: jax.Array
  log_std: jax.Array

  def sample(self, key: jax.Array) -> jax.Array:
    """Returns actions [B, *action_shape]."""
    noise = jax.random.normal(key, self.mean.shape)
    return self.mean + jnp.exp(self.log_std) * noise

  def mode(self) -> jax.Array:
    """Returns the likeliest actions [B, *action_shape]."""
    return self.mean

  def interval(self) -> tuple[jax.Array, jax.Array]:
    """Returns a deviation below and above the means, each [B, *shape]."""
    std = jnp.exp(self.log_std)
    return self.mean - std, self.mean + std

  def log_prob(self, action: jax.Array) -> jax.Array:
    """Returns the logarithms [B] of the actions' densities."""
    scaled = (action - self.mean) * jnp.exp(-self.log_std)
    each = -0.5 * (scaled**2 + np.log(2 * np.pi)) - self.log_std
    return jnp.sum(each.reshape(len(each), -1), axis=1)

  def entropy(self) -> jax.Array:
    """Returns the entropies [B] in nats."""
    each = 0.5 * (1 + np.log(2 * np.pi)) + self.log_std
    return jnp.sum(each.reshape(len(each), -1), axis=1)


class TanhGaussian(struct.PyTreeNode):
  """Independent normal distributions, squashed into (-1, 1) by tanh.

  Haarnoja et al. (2018), app. C. https://arxiv.org/abs/1812.05905

  Attributes:
    mean: [B, *action_shape], before squashing.
    log_std: [B, *action_shape], the same.
  """

  mean: jax.Array
  log_std: jax.Array

  @property
  def unsquashed(self) -> Gaussian:
    """The distribution of what tanh is taken of."""
    return Gaussian(self.mean, self.log_std)

  def sample(self, key: jax.Array) -> jax.Array:
    """Returns actions [B, *action_shape]."""
    return jnp.tanh(self.unsquashed.sample(key))

  def sample_and_log_prob(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns actions, and the logarithms [B] of their densities."""
    x = self.unsquashed.sample(key)
    return jnp.tanh(x), self.log_prob_at(x)

  def mode(self) -> jax.Array:
    """Returns the medians [B, *action_shape]; density may peak elsewhere."""
    return jnp.tanh(self.mean)

  def interval(self) -> tuple[jax.Array, jax.Array]:
    """Returns a deviation below and above the medians, each [B, *shape]."""
    std = jnp.exp(self.log_std)
    return jnp.tanh(self.mean - std), jnp.tanh(self.mean + std)

  def log_prob_at(self, x: jax.Array) -> jax.Array:
    """Returns the logarithms [B] of the densities of the actions tanh(x).

    Of x and not of an action, which rounds to 1 where x is beyond 9.
    """
    slopes = jnp.sum(_log_slope(x).reshape(len(x), -1), axis=1)
    return self.unsquashed.log_prob(x) - slopes

  def log_prob(self, action: jax.Array) -> jax.Array:
    """Returns the logarithms [B] of actions' densities; see `log_prob_at`.

    Actions nearer to -1 or 1 than 1e-6 count as if they were that far away.
    """
    return self.log_prob_at(jnp.arctanh(jnp.clip(action, -_INSIDE, _INSIDE)))

  def entropy(self) -> jax.Array:
    """Returns the entropies [B] in nats, within a hundredth.

    The mean of log(1 - tanh(x)^2) = 2 log 2 - 2 |x| - 2 log(1 + exp(-2 |x|)) is
    added to the normal's. That of |x| is known, that of the last term is taken
    over x in the middle of equally likely parts.
    """
    mean, std = self.mean, jnp.exp(self.log_std)
    share = mean / std
    size = std * np.sqrt(2 / np.pi) * jnp.exp(-(share**2) / 2)
    size += mean * jax.scipy.special.erf(share / np.sqrt(2))
    middles = jax.scipy.special.ndtri((jnp.arange(_PARTS) + 0.5) / _PARTS)
    middles = jnp.expand_dims(middles, tuple(range(mean.ndim)))
    x = mean[..., None] + std[..., None] * middles
    rest = jnp.mean(jnp.log1p(jnp.exp(-2 * jnp.abs(x))), axis=-1)
    slopes = 2 * (np.log(2) - size - rest)
    slopes = jnp.sum(slopes.reshape(len(slopes), -1), axis=1)
    return self.unsquashed.entropy() + slopes


class Beta(struct.PyTreeNode):
  """Independent Beta distributions over [-1, 1], of one peak each.

  Chou, Maturana & Scherer (2017), Improving Stochastic Policy Gradients in
  Continuous Control with Deep Reinforcement Learning using the Beta
  Distribution. https://proceedings.mlr.press/v70/chou17a.html

  Attributes:
    alpha: [B, *action_shape], above 1.
    beta: [B, *action_shape], the same.
  """

  alpha: jax.Array
  beta: jax.Array

  def sample(self, key: jax.Array) -> jax.Array:
    """Returns actions [B, *action_shape]."""
    return 2 * jax.random.beta(key, self.alpha, self.beta) - 1

  def mode(self) -> jax.Array:
    """Returns the means [B, *action_shape]; density may peak elsewhere."""
    return 2 * self.alpha / (self.alpha + self.beta) - 1

  def interval(self) -> tuple[jax.Array, jax.Array]:
    """Returns a deviation below and above the means, each [B, *shape]."""
    total = self.alpha + self.beta
    std = 2 * jnp.sqrt(self.alpha * self.beta / (total + 1)) / total
    return self.mode() - std, self.mode() + std

  def log_prob(self, action: jax.Array) -> jax.Array:
    """Returns the logarithms [B] of the actions' densities.

    Actions nearer to -1 or 1 than 1e-6 count as if they were that far away.
    """
    x = (jnp.clip(action, -_INSIDE, _INSIDE) + 1) / 2
    each = (self.alpha - 1) * jnp.log(x) + (self.beta - 1) * jnp.log1p(-x)
    each -= jax.scipy.special.betaln(self.alpha, self.beta) + np.log(2)
    return jnp.sum(each.reshape(len(each), -1), axis=1)

  def entropy(self) -> jax.Array:
    """Returns the entropies [B] in nats."""
    a, b, digamma = self.alpha, self.beta, jax.scipy.special.digamma
    each = jax.scipy.special.betaln(a, b) + np.log(2)
    each -= (a - 1) * digamma(a) + (b - 1) * digamma(b)
    each += (a + b - 2) * digamma(a + b)
    return jnp.sum(each.reshape(len(each), -1), axis=1)


class Deterministic(struct.PyTreeNode):
  """One action, whose probability is 1.

  Attributes:
    action: [B, *action_shape].
  """

  action: jax.Array

  def mode(self) -> jax.Array:
    """Returns the actions [B, *action_shape]."""
    return self.action


Distribution = Categorical | Product | Gaussian | TanhGaussian | Beta

# How actions of a Box are distributed: normally, with deviations that are the
# same whatever is observed ('gaussian'), or that the network gives as well
# ('state_gaussian'); so, and squashed by tanh ('tanh_gaussian'); or Beta.
Kind = Literal['gaussian', 'state_gaussian', 'tanh_gaussian', 'beta']


def require_log_std(agent: agent_lib.Agent) -> None:
  """Refuses an agent's `log_std` and `continuous` where they don't fit."""
  # Where a network adds to it, the sum is clipped, and learns nothing beyond.
  least, most = _LOG_STD
  is_fixed = agent.continuous in ('gaussian', 'beta')
  agent.require_at_least(least, 'log_std')
  # exp of more is no std.
  agent.require_at_most(-least if is_fixed else most, 'log_std')
  space = agent.action_space
  if space is not None and not isinstance(space, gymnasium.spaces.Box):
    for name in ('continuous', 'log_std'):
      if getattr(agent, name) != getattr(type(agent), name):
        agent.refuse(name, f'has no effect: actions are {space}')
  elif agent.continuous == 'beta' and agent.log_std:
    agent.refuse('log_std', "has no effect with continuous = 'beta'")


def num_outputs(space: gymnasium.Space, kind: Kind = 'gaussian') -> int:
  """Returns how many numbers of a network make a distribution over `space`."""
  if isinstance(space, gymnasium.spaces.Box):
    return int(np.prod(space.shape)) * (1 if kind == 'gaussian' else 2)
  if isinstance(space, gymnasium.spaces.MultiDiscrete):
    return int(space.nvec.sum())
  return int(space.n)


def over(
  space: gymnasium.Space,
  outputs: jax.Array,
  log_std: jax.Array | None,
  kind: Kind = 'gaussian',
) -> Distribution:
  """Returns the distributions over a space that a network's outputs make.

  Args:
    space: of actions, Discrete, MultiDiscrete or a Box.
    outputs: [B, num_outputs], logits or means; of a Box more, as `kind` says.
    log_std: [*action_shape], of a Box, whatever is observed.
    kind: of a Box.
  """
  if isinstance(space, gymnasium.spaces.MultiDiscrete):
    ends = np.cumsum(space.nvec)[:-1]
    return Product(
      tuple(Categorical(x) for x in jnp.split(outputs, ends, axis=-1))
    )
  if not isinstance(space, gymnasium.spaces.Box):
    return Categorical(outputs)
  parts = jnp.split(outputs, 1 if kind == 'gaussian' else 2, axis=-1)
  parts = [x.reshape(-1, *space.shape) for x in parts]
  if kind == 'beta':
    return Beta(*(1 + jax.nn.softplus(x) for x in parts))
  mean, log_std = parts[0], jnp.broadcast_to(log_std[None], parts[0].shape)
  if kind == 'gaussian':
    return Gaussian(mean, log_std)
  both = mean, jnp.clip(log_std + parts[1], *_LOG_STD)
  return TanhGaussian(*both) if kind == 'tanh_gaussian' else Gaussian(*both)


def outlook(policy: Any, value: jax.Array) -> agent_lib.Outlook:
  """Returns what films show of a policy of N actions and their values [N]."""
  if isinstance(policy, Categorical):
    probabilities = jax.nn.softmax(policy.logits)
    return agent_lib.Outlook(value=value, probabilities=probabilities)
  if isinstance(policy, Product):
    return agent_lib.Outlook(value=value)
  mean, interval = policy.mode(), policy.interval()
  return agent_lib.Outlook(value=value, mean=mean, interval=interval)


def _log_slope(x):
  """Returns log(1 - tanh(x)^2), without the difference of nearly equal ones."""
  return 2 * (np.log(2) - x - jax.nn.softplus(-2 * x))
